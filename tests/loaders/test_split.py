"""Groups and their split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loaders.errors import InputError
from loaders.sources.split import group_by, split_groups

SHARES = {"train": 0.68, "val": 0.17, "heldout": 0.15}


def test_samples_that_share_a_patient_or_pixels_are_one_group_even_in_a_chain() -> None:
    patients = ["a", "b", "b", None, None, "c"]
    pixels = ["1", "1", "2", "2", "3", "4"]
    assert group_by(patients, pixels).tolist() == [0, 0, 0, 0, 1, 2]


def test_unknown_patients_are_groups_of_their_own() -> None:
    assert group_by([None, None, None]).tolist() == [0, 1, 2]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=20, max_size=80),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=50, deadline=None)
def test_no_group_is_in_two_splits_and_shares_are_met_within_the_largest_group(sizes: list[int], seed: int) -> None:
    group_N = np.repeat(np.arange(len(sizes)), sizes)
    label_N = group_N % 2
    splits = np.array(split_groups(group_N, label_N, SHARES, seed, ["a", "b"]))
    for group in range(len(sizes)):
        assert len(set(splits[group_N == group])) == 1
    for label in (0, 1):
        of_class = splits[label_N == label]
        for name, share in SHARES.items():
            assert abs((of_class == name).sum() - share * len(of_class)) <= max(sizes) + 1
            assert (of_class == name).any()


def test_the_split_is_a_function_of_the_seed() -> None:
    group_N, label_N = np.arange(60), np.arange(60) % 3
    splits = [split_groups(group_N, label_N, SHARES, seed, "abc") for seed in (1, 1, 2)]
    assert splits[0] == splits[1] != splits[2]


def test_a_group_of_mixed_labels_stays_whole() -> None:
    group_N = np.array([0, 0, 0, *range(1, 21)])
    label_N = np.array([0, 1, 1, *[0, 1] * 10])
    splits = split_groups(group_N, label_N, {"train": 0.8, "val": 0.2}, 0, ["a", "b"])
    assert len(set(splits[:3])) == 1


def test_a_class_with_fewer_patients_than_splits_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="class rare: 2 patients"):
        split_groups(np.arange(12), np.array([1, 1] + [0] * 10), SHARES, 0, ["common", "rare"])


def test_one_huge_patient_does_not_starve_a_split() -> None:
    group_N = np.array([0] * 97 + [1, 2, 3, 4])
    label_N = np.zeros(101, int)
    splits = split_groups(group_N, label_N, {"train": 0.8, "val": 0.2}, 3, ["only"])
    assert set(splits) == {"train", "val"}


def test_a_zero_share_gets_nothing() -> None:
    splits = split_groups(np.arange(40), np.arange(40) % 2, {"train": 0.8, "val": 0.2, "heldout": 0.0}, 0, "ab")
    assert set(splits) == {"train", "val"}
