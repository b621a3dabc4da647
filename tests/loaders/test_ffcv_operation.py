"""The FFCV operation: plainfilm's augmentation inside FFCV's own loader, frame by frame the same bytes."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from loaders.batches.loader import Loader
from loaders.beton.reader import Beton
from loaders.config import LoaderConfig
from loaders.errors import ConfigError

REQUIRED = os.environ.get("PLAINFILM_REQUIRE_FFCV") == "1"
pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore")]  # FFCV's own deprecations


@pytest.fixture(scope="module")
def operation() -> Iterator[Any]:
    """loaders.beton.ffcv_operation; importing FFCV changes torch's thread count, which is put back."""
    threads = torch.get_num_threads()
    if not REQUIRED:
        pytest.importorskip("ffcv", reason="FFCV is not installed; run make test-extras")
    from loaders.beton import ffcv_operation

    yield ffcv_operation
    torch.set_num_threads(threads)
    gc.collect()  # warnings of numba about FFCV's compiled pipelines do not belong to the next tests


def open_ffcv(
    path: Path, decoder: Any, *, threads: int = 2, batch_size: int = 7, shuffled: bool = False, os_cache: bool = True
) -> Any:
    from ffcv.loader import Loader as FfcvLoader
    from ffcv.loader import OrderOption
    from ffcv.transforms import ToTensor

    order = OrderOption.RANDOM if shuffled else OrderOption.SEQUENTIAL
    return FfcvLoader(
        str(path),
        batch_size,
        num_workers=threads,
        os_cache=os_cache,
        order=order,
        seed=0,
        drop_last=False,
        pipelines={"image": [decoder, ToTensor()]},
    )


def frames_of(loader: Any) -> np.ndarray:
    return torch.cat([frames.clone() for frames, *_ in loader]).numpy()


def ours(path: Path, config: LoaderConfig, epoch: int) -> np.ndarray:
    """Our loader's frames, in the beton's order."""
    with Loader(path, config, batch_size=5) as loader:
        loader.set_epoch(epoch)
        batches = list(loader)
    index_N = np.concatenate([batch[2] for batch in batches])
    return np.concatenate([batch[0] for batch in batches])[np.argsort(index_N)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("augment_from", ["frame", "crop"])
def test_augmented_batches_are_our_loaders_epoch_by_epoch(
    operation, betons: Path, augment_from: Any, threads: int
) -> None:
    path, config = betons / "train.beton", LoaderConfig(training=True, seed=4, augment_from=augment_from)
    decoder = operation.FusedCropDecoder(config)
    loader = open_ffcv(path, decoder, threads=threads)
    for epoch in (0, 1, 7):
        decoder.set_epoch(epoch)
        found = frames_of(loader)
        assert found.dtype == np.float32 and found.tobytes() == ours(path, config, epoch).tobytes()


def test_an_epoch_may_be_set_before_the_loader_exists(operation, betons: Path) -> None:
    path, config = betons / "val.beton", LoaderConfig(training=True, seed=1)
    decoder = operation.FusedCropDecoder(config)
    decoder.set_epoch(3)
    assert frames_of(open_ffcv(path, decoder)).tobytes() == ours(path, config, 3).tobytes()


def test_evaluation_batches_are_the_central_crops(operation, betons: Path) -> None:
    path, config = betons / "val.beton", LoaderConfig()
    found = frames_of(open_ffcv(path, operation.FusedCropDecoder(config)))
    assert found.tobytes() == ours(path, config, 0).tobytes()


def test_a_frame_does_not_depend_on_ffcvs_order(operation, betons: Path) -> None:
    path, config = betons / "train.beton", LoaderConfig(training=True, seed=2)
    decoder = operation.FusedCropDecoder(config)
    shuffled = {frame.tobytes() for frame in frames_of(open_ffcv(path, decoder, shuffled=True))}
    assert shuffled == {frame.tobytes() for frame in ours(path, config, 0)}


def test_an_epoch_that_was_broken_off_does_not_disturb_the_next(operation, betons: Path) -> None:
    path, config = betons / "train.beton", LoaderConfig(training=True, seed=4)
    decoder = operation.FusedCropDecoder(config)
    loader = open_ffcv(path, decoder, batch_size=2)
    for epoch in range(4):
        decoder.set_epoch(epoch)
        next(iter(loader))
        assert frames_of(loader).tobytes() == ours(path, config, epoch).tobytes()


def test_one_decoder_serves_two_loaders(operation, betons: Path) -> None:
    config = LoaderConfig(training=True, seed=4)
    decoder = operation.FusedCropDecoder(config)
    loaders = {split: open_ffcv(betons / f"{split}.beton", decoder) for split in ("train", "val")}
    for epoch in (0, 3):
        decoder.set_epoch(epoch)
        for split, loader in loaders.items():
            assert frames_of(loader).tobytes() == ours(betons / f"{split}.beton", config, epoch).tobytes()


@pytest.mark.timeout(120)  # where it fails, numba turns for ever in FFCV's thread
@pytest.mark.parametrize("training", [True, False])
def test_pipelines_of_other_memory_managers_do_not_disturb_each_other(operation, betons: Path, training: bool) -> None:
    path, config = betons / "val.beton", LoaderConfig(training=training)
    wanted = ours(path, config, 0).tobytes()
    for os_cache in (True, False, True, True):
        decoder = operation.FusedCropDecoder(config)
        assert frames_of(open_ffcv(path, decoder, os_cache=os_cache)).tobytes() == wanted


def test_another_crop_is_taken_where_it_leaves_whole_margins(operation, betons: Path) -> None:
    path = betons / "val.beton"
    with Beton(path) as beton:
        side = beton.side
        centre = beton.frame(0)[1:-1, 1:-1]
    found = frames_of(open_ffcv(path, operation.FusedCropDecoder(LoaderConfig(), crop=side - 2)))
    np.testing.assert_allclose(found[0, 0], centre / 127.5 - 1, atol=2e-7)
    for crop in (side - 1, side + 2, 0):
        with pytest.raises(ConfigError, match="expected a margin of whole pixels"):
            open_ffcv(path, operation.FusedCropDecoder(LoaderConfig(), crop=crop))


def test_frames_of_another_kind_are_refused_with_a_reason(operation, tmp_path: Path) -> None:
    from ffcv.fields import NDArrayField
    from ffcv.writer import DatasetWriter

    class Wide:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[np.ndarray]:
            return (np.zeros((8, 9), np.uint8),)

    path = tmp_path / "wide.beton"
    fields = {"image": NDArrayField(np.dtype("u1"), (8, 9))}
    DatasetWriter(str(path), fields, page_size=1 << 21, num_workers=1).from_indexed_dataset(Wide())
    with pytest.raises(ConfigError, match="expected square uint8"):
        open_ffcv(path, operation.FusedCropDecoder(LoaderConfig()))
