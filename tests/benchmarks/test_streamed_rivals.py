"""Tests of rivals that store a beton in their own format: each sample once, with its own label and pixels."""

# N samples, S side of a stored frame

import pickle
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from benchmarks.agreement import THEIRS, Disagreement, expect_inside, expected_affine, expected_crops
from benchmarks.datasets import noise_beton
from benchmarks.loader_contests import in_beton_order
from benchmarks.rivals import litdata, webdataset
from benchmarks.rivals.arrays import middle_of
from benchmarks.rivals.augmentation import Preparation, turns_of
from loaders.beton.reader import Beton
from loaders.config import LoaderConfig
from loaders.sampling import epoch_matrices

STORED, CROP, NUM_SAMPLES = 40, 28, 70
Batches = list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def beton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noise_beton(tmp_path_factory.mktemp("noise") / "train.beton", NUM_SAMPLES, STORED, CROP)


def batches(opened: Beton, index_N: np.ndarray) -> Batches:
    """One batch of these samples, whose crops are their numbers."""
    index = torch.from_numpy(index_N)
    return [(index[:, None, None, None].float(), torch.from_numpy(opened.label_N[index_N]), index)]


def test_an_epoch_is_put_into_the_betons_order(beton: Path) -> None:
    shuffled_N = np.random.default_rng(0).permutation(NUM_SAMPLES)
    with Beton(beton) as opened:
        crops = in_beton_order("rival", batches(opened, shuffled_N), opened, shuffled=True)
    assert crops.ravel().tolist() == list(range(NUM_SAMPLES))


@pytest.mark.parametrize(
    ("index", "shuffled", "message"),
    [
        ([0, *range(NUM_SAMPLES - 1)], False, "rival: samples: outputs differ"),
        ([*range(NUM_SAMPLES - 1)], False, "rival: samples: output of shape"),
        ([*range(35, NUM_SAMPLES), *range(35)], True, "rival: samples follow one another as they are stored"),
    ],
)
def test_an_epoch_with_a_sample_twice_or_missing_or_none_moved_disagrees(
    beton: Path, index: list[int], shuffled: bool, message: str
) -> None:
    with Beton(beton) as opened, pytest.raises(Disagreement, match=message):
        in_beton_order("rival", batches(opened, np.array(index)), opened, shuffled=shuffled)


def test_a_sample_with_anothers_label_disagrees(beton: Path) -> None:
    with Beton(beton) as opened:
        ((crops, labels, index),) = batches(opened, np.arange(NUM_SAMPLES))
        with pytest.raises(Disagreement, match="rival: labels"):
            in_beton_order("rival", [(crops, labels.roll(1), index)], opened)


def test_a_worker_turns_each_frame_as_its_number_asks_whatever_their_order(beton: Path) -> None:
    config, chosen = LoaderConfig(), [7, 2, 69]
    with Beton(beton) as opened:
        prepare = Preparation(middle=middle_of(opened), turns=turns_of(config, NUM_SAMPLES, CROP))
        sent = pickle.loads(pickle.dumps(prepare))
        crops, labels, index = sent([opened.frame(n) for n in chosen], [int(opened.label_N[n]) for n in chosen], chosen)
        inverse_N23 = epoch_matrices(config, 0, NUM_SAMPLES, CROP, STORED)
        expected = expected_affine(opened, inverse_N23, NUM_SAMPLES)[chosen]
        assert labels.tolist() == opened.label_N[chosen].tolist() and index.tolist() == chosen
    expect_inside("worker", crops[:, 0], expected, mean=THEIRS)


@pytest.mark.parametrize("rival", [litdata, webdataset], ids=["litdata", "webdataset"])
def test_a_rival_stores_every_sample_and_gives_each_once_an_epoch_shuffled_anew(
    beton: Path, tmp_path: Path, rival: ModuleType
) -> None:
    if (reason := rival.missing()) is not None:
        pytest.skip(reason)
    rival.write(beton, tmp_path / "stored")
    with Beton(beton) as opened:
        prepare = Preparation(middle=middle_of(opened))
        loader = rival.open_loader(tmp_path / "stored", prepare, 2, shuffled=True)
        epochs = [[tuple(part.clone() for part in batch) for batch in loader] for _ in range(2)]
        for epoch in epochs:
            crops = in_beton_order("rival", epoch, opened, shuffled=True)
            np.testing.assert_allclose(crops[:, 0], expected_crops(opened, NUM_SAMPLES), atol=1e-6)
        orders = [torch.cat([index for _, _, index in epoch]).tolist() for epoch in epochs]
    assert orders[0] != orders[1]
