"""FFCV 1.0.2 and plainfilm read each other's betons; `make ffcv` installs it and lets none of these skip."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from loaders.beton import Beton
from loaders.config import ConvertConfig
from loaders.convert import convert
from loaders.errors import BetonError
from loaders.loader import Loader
from tests import naive

REQUIRED = os.environ.get("PLAINFILM_REQUIRE_FFCV") == "1"
pytestmark = [pytest.mark.ffcv, pytest.mark.filterwarnings("ignore")]  # FFCV's own deprecations


@pytest.fixture(scope="module")
def ffcv() -> Iterator[object]:
    """The installed FFCV; its import changes torch's thread count, which is put back."""
    threads = torch.get_num_threads()
    if not REQUIRED:
        pytest.importorskip("ffcv", reason="FFCV is not installed; run make ffcv")
    import ffcv.fields
    import ffcv.loader
    import ffcv.reader
    import ffcv.writer

    assert version("ffcv") == "1.0.2"
    yield ffcv
    torch.set_num_threads(threads)
    gc.collect()  # what numba says while FFCV's compiled pipelines go is none of the next tests' business


def read_by_ffcv(ffcv, path: Path, os_cache: bool, batch_size: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Every frame and label of a beton through FFCV's own Loader, in order."""
    loader = ffcv.loader.Loader(
        str(path),
        batch_size=batch_size,
        num_workers=1,
        order=ffcv.loader.OrderOption.SEQUENTIAL,
        os_cache=os_cache,
        drop_last=False,
    )
    images, labels = [], []
    for image, label in loader:
        images.append(np.array(image))
        labels.append(np.array(label)[:, 0])
    return np.concatenate(images), np.concatenate(labels)


@pytest.mark.parametrize("os_cache", [True, False])
@pytest.mark.parametrize("split", ["train", "val", "heldout"])
def test_ffcvs_loader_reads_our_betons(ffcv, betons: Path, split: str, os_cache: bool) -> None:
    path = betons / f"{split}.beton"
    images, labels = read_by_ffcv(ffcv, path, os_cache)
    with Beton(path) as beton:
        assert images.shape == (len(beton), beton.side, beton.side) and images.dtype == np.uint8
        for sample, image in enumerate(images):
            np.testing.assert_array_equal(image, beton.frame(sample))
        np.testing.assert_array_equal(labels, beton.label_N)


def test_ffcv_reads_a_beton_of_several_pages(ffcv, phantoms: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    convert(ConvertConfig(manifest=phantoms, out=out, size=448, page_mib=2, workers=1, site_key=tmp_path / "k"))
    with Beton(out / "train.beton") as beton:
        assert beton.pages_end - beton.pages_start > 3 * beton.page_size
        for os_cache in (True, False):
            images, labels = read_by_ffcv(ffcv, out / "train.beton", os_cache)
            assert all((image == beton.frame(sample)).all() for sample, image in enumerate(images))
            assert (labels == beton.label_N).all()


def test_ffcvs_reader_finds_our_fields_and_tables(ffcv, betons: Path) -> None:
    reader = ffcv.reader.Reader(str(betons / "train.beton"))
    with Beton(betons / "train.beton") as beton:
        assert reader.field_names == ["image", "label"] and reader.num_samples == len(beton)
        assert reader.alloc_table["ptr"].tolist() == beton.offset_N.tolist()
        assert tuple(reader.handlers["image"].shape) == (beton.side, beton.side)


class Frames:
    """An indexed data set, as FFCV's writer wants it."""

    def __init__(self, num_samples: int, side: int) -> None:
        rng = np.random.default_rng(0)
        self.frames_NSS = rng.integers(0, 256, (num_samples, side, side)).astype(np.uint8)

    def __len__(self) -> int:
        return len(self.frames_NSS)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.frames_NSS[index], index % 3


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("num_samples", [1, 300])
def test_we_read_ffcvs_betons_on_trust(ffcv, tmp_path: Path, num_samples: int, workers: int) -> None:
    path, data = tmp_path / "theirs.beton", Frames(num_samples, 92)
    fields = {"image": ffcv.fields.NDArrayField(np.dtype("u1"), (92, 92)), "label": ffcv.fields.IntField()}
    ffcv.writer.DatasetWriter(str(path), fields, page_size=1 << 21, num_workers=workers).from_indexed_dataset(data)
    with pytest.raises(BetonError, match="--trust-unverified"):
        Beton(path)
    with Beton(path, trust_unverified=True) as beton:
        assert len(beton) == num_samples and not beton.verified and beton.facts.crop == 64
        for sample in range(num_samples):
            np.testing.assert_array_equal(beton.frame(sample), data[sample][0])
            assert beton.label_N[sample] == sample % 3
    with Loader(path, trust_unverified=True, batch_size=50) as loader:
        for frames_N1HW, _, index_N in loader:
            np.testing.assert_allclose(frames_N1HW[0, 0], naive.crop(data[index_N[0]][0], 64), atol=2e-7)


def test_opencv_works_beside_the_one_that_ffcv_brings(ffcv) -> None:
    import cv2

    decoded = cv2.imdecode(cv2.imencode(".png", np.eye(4, dtype=np.uint8))[1], cv2.IMREAD_UNCHANGED)
    assert (decoded == np.eye(4)).all()
