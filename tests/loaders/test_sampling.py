"""Randomness is a function of (seed, stream, epoch, sample), and golden."""

import numpy as np
import pytest

from loaders.config import LoaderConfig
from loaders.sampling import (
    AUGMENTATION,
    ORDER,
    affine_parameters,
    draw,
    epoch_matrices,
    epoch_order,
    inverse_matrices,
    philox,
    scalar_seed,
    unit_interval,
)

pytestmark = pytest.mark.numerical

# (seed 1, epoch 2), samples 0, 1 and 10^9; made by the first release, to stay for ever
GOLDEN_ANGLES = [12.094124812865628, 6.52805587858893, 14.470706029096617]
GOLDEN_ZOOMS = [0.8949496875633486, 1.1355540294782258, 0.8621611689799465]
GOLDEN_ORDER = [7, 6, 0, 5, 4, 2, 3, 1]
GOLDEN_SCALAR = 74110068379748899


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [  # known answers of the Random123 library
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, (0xFFFFFFFF,) * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox_gives_the_published_answers(counter: list[int], key: tuple[int, int], words: list[int]) -> None:
    assert philox(np.array([counter], np.uint32), key)[0].tolist() == words


def test_a_sample_draws_the_same_whoever_asks_and_in_whatever_company() -> None:
    alone = draw(7, AUGMENTATION, 3, np.array([41]))
    among = draw(7, AUGMENTATION, 3, np.arange(100))
    assert (among[41] == alone[0]).all()


def test_streams_of_other_seeds_epochs_and_purposes_share_no_block() -> None:
    blocks = set()
    for seed in (0, 1, 2**40):
        for epoch in range(5):
            for stream in (AUGMENTATION, ORDER):
                blocks |= {row.tobytes() for row in draw(seed, stream, epoch, np.arange(500))}
    assert len(blocks) == 3 * 5 * 2 * 500


def test_golden_parameters_never_change() -> None:
    angle_N, zoom_N = affine_parameters(LoaderConfig(seed=1), 2, np.array([0, 1, 10**9]))
    np.testing.assert_allclose(np.rad2deg(angle_N), GOLDEN_ANGLES, atol=1e-9)
    np.testing.assert_allclose(zoom_N, GOLDEN_ZOOMS, atol=1e-12)
    assert epoch_order(1, 2, 8).tolist() == GOLDEN_ORDER
    assert scalar_seed(1, 3, 5) == GOLDEN_SCALAR


def test_angles_and_zooms_follow_the_recipe() -> None:
    angle_N, zoom_N = affine_parameters(LoaderConfig(seed=3), 0, np.arange(20000))
    degrees_N, amount_N = np.rad2deg(angle_N), np.abs(zoom_N - 1)
    assert -15 < degrees_N.min() < -14.9 and 14.9 < degrees_N.max() < 15
    assert 0.05 <= amount_N.min() < 0.0501 and 0.1499 < amount_N.max() <= 0.15
    assert abs(degrees_N.mean()) < 0.25 and abs(amount_N.mean() - 0.1) < 0.001
    assert 0.48 < (zoom_N > 1).mean() < 0.52
    assert abs(np.corrcoef(degrees_N, zoom_N)[0, 1]) < 0.03


def test_unit_interval_is_open_at_both_ends() -> None:
    ends = unit_interval(np.array([0, 2**32 - 1], np.uint32))
    assert ends[0] > 0 and ends[1] < 1


@pytest.mark.parametrize("num_samples", [0, 1, 2, 1001])
def test_an_epoch_visits_every_sample_once(num_samples: int) -> None:
    assert sorted(epoch_order(0, 0, num_samples).tolist()) == list(range(num_samples))


def test_orders_of_other_epochs_and_seeds_differ() -> None:
    orders = {tuple(epoch_order(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_a_positive_angle_turns_the_picture_counter_clockwise_and_zoom_magnifies() -> None:
    quarter = inverse_matrices(np.array([np.pi / 2]), np.ones(1), 4, 10)[0].astype(np.float64)
    # the output's right edge shows what lay below the centre
    np.testing.assert_allclose(quarter @ [4, 2, 1], [5, 7], atol=1e-6)
    doubled = inverse_matrices(np.zeros(1), np.array([2.0]), 4, 10)[0].astype(np.float64)
    np.testing.assert_allclose(doubled @ [4, 2, 1], [6, 5], atol=1e-6)


def test_matrices_of_an_epoch_are_float32_and_one_a_sample() -> None:
    inverse_N23 = epoch_matrices(LoaderConfig(), 0, 5, 32, 46)
    assert inverse_N23.dtype == np.float32 and inverse_N23.shape == (5, 2, 3)
    assert len({matrix.tobytes() for matrix in inverse_N23}) == 5
