"""Kernels beside OpenCV and numpy: frames of 320 to crops of 224, in two threads."""

# N samples, S side of a stored frame, H W rows and columns of the crop, 23 the two rows of an inverse affine matrix

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from benchmarks.conftest import THREADS, Converted
from benchmarks.rivals import Call, expect_close
from kernels.affine import affine_into, affine_scratch
from kernels.crop import crop_into
from loaders.augmentation import epoch_matrices
from loaders.beton import Beton
from loaders.config import LoaderConfig
from tests import naive

NUM_SAMPLES = 128
NUM_CHECKED = 16
CROP_PASSES = 10  # one takes only a few milliseconds
BORDER = 2  # pixels of the crop where rivals may treat the frame's edge in their own way
SCALE = np.float32(1 / 127.5)
LEVEL = 1 / 127.5  # one grey level, in [-1, 1]

Part = Callable[[np.ndarray, slice], None]  # writes the samples of a slice into out_N1HW


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The frames to crop, and what runs halves of them side by side."""

    beton: Beton
    inverse_N23: np.ndarray
    pool: ThreadPoolExecutor

    def call(self, part: Part, passes: int = 1) -> Call:
        """All samples by one rival, so many times over, into an array of its own, which the call gives."""
        crop = self.beton.facts.crop
        out_N1HW = np.empty((NUM_SAMPLES, 1, crop, crop), np.float32)
        step = NUM_SAMPLES // THREADS
        slices = [slice(start, start + step) for start in range(0, NUM_SAMPLES, step)]

        def run() -> np.ndarray:
            list(self.pool.map(lambda samples: part(out_N1HW, samples), slices * passes))
            return out_N1HW

        return run


@pytest.fixture
def work(converted_224: Converted) -> Iterator[Work]:
    """Frames of the phantoms; OpenCV keeps to the thread that calls it."""
    opencv_threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    with Beton(converted_224.beton) as beton, ThreadPoolExecutor(THREADS) as pool:
        inverse_N23 = epoch_matrices(LoaderConfig(training=True), 0, NUM_SAMPLES, beton.facts.crop, beton.side)
        yield Work(beton=beton, inverse_N23=inverse_N23, pool=pool)
    cv2.setNumThreads(opencv_threads)


def normalise_into(out_HW: np.ndarray, level_HW: np.ndarray) -> None:
    """Grey levels 0-255 to [-1, 1], in numpy."""
    np.multiply(level_HW, SCALE, out=out_HW)
    np.subtract(out_HW, np.float32(1), out=out_HW)


def check_rivals(oracle: Callable[[int], np.ndarray], rivals: dict[str, Call], mean: float) -> None:
    """Ours within 1e-3 of the oracle everywhere (DESIGN, Geometry), the others on average, within the border.

    Rounding to whole grey levels, as OpenCV does, costs a quarter of a level on average.
    """
    expected_NHW = np.stack([oracle(sample) for sample in range(NUM_CHECKED)])
    inside = np.s_[:, BORDER:-BORDER, BORDER:-BORDER]
    for name, call in rivals.items():
        found_NHW = call()[:NUM_CHECKED, 0]
        if name == "plainfilm":
            expect_close(name, found_NHW, expected_NHW, mean=1e-3, most=1e-3)
        else:
            expect_close(name, found_NHW[inside], expected_NHW[inside], mean=mean)


def test_affine(compare: Callable, work: Work) -> None:
    beton, crop, side, inverse_N23 = work.beton, work.beton.facts.crop, work.beton.side, work.inverse_N23
    # OpenCV's pixel centres lie at integers, ours at integer + 0.5
    opencv_N23 = inverse_N23.astype(np.float64)
    opencv_N23[:, :, 2] += opencv_N23[:, :, :2].sum(2) / 2 - 0.5

    def ours(out_N1HW: np.ndarray, samples: slice) -> None:
        offset_N, scratch = beton.offset_N[samples], affine_scratch(crop, beton.side)
        affine_into(out_N1HW[samples], beton.bytes_B, offset_N, side, inverse_N23[samples], 0, side - 1, scratch)

    def opencv(out_N1HW: np.ndarray, samples: slice) -> None:
        level_HW = np.empty((crop, crop), np.uint8)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        for n in range(samples.start, samples.stop):
            cv2.warpAffine(
                beton.frame(n), opencv_N23[n], (crop, crop), level_HW, flags=flags, borderMode=cv2.BORDER_REPLICATE
            )
            normalise_into(out_N1HW[n, 0], level_HW)

    def plain(out_N1HW: np.ndarray, samples: slice) -> None:
        for n in range(samples.start, samples.stop):
            numpy_affine_into(out_N1HW[n, 0], beton.frame(n), inverse_N23[n])

    parts = {"plainfilm": ours, "OpenCV": opencv, "numpy": plain}
    rivals = {name: work.call(part) for name, part in parts.items()}
    compare(
        f"affine kernel, {side} to {crop}",
        rivals,
        check=lambda: check_rivals(
            lambda n: naive.affine(beton.frame(n), inverse_N23[n], crop, 0, side - 1), rivals, mean=0.25 * LEVEL
        ),
        images=NUM_SAMPLES,
    )


def numpy_affine_into(out_HW: np.ndarray, frame_SS: np.ndarray, inverse_23: np.ndarray) -> None:
    """Bilinear, clamped and normalised, as one writes it in numpy: float32, a frame at a time."""
    last = frame_SS.shape[0] - 1
    centre = np.arange(out_HW.shape[0], dtype=np.float32) + np.float32(0.5)
    x_HW, y_HW = (
        np.clip(row[0] * centre[None, :] + row[1] * centre[:, None] + (row[2] - np.float32(0.5)), 0, last)
        for row in inverse_23
    )
    left, top = x_HW.astype(np.int32), y_HW.astype(np.int32)
    right, below = np.minimum(left + 1, last), np.minimum(top + 1, last)
    x_HW -= left
    y_HW -= top
    frame = frame_SS.astype(np.float32)
    upper = frame[top, left] * (1 - x_HW) + frame[top, right] * x_HW
    lower = frame[below, left] * (1 - x_HW) + frame[below, right] * x_HW
    normalise_into(out_HW, upper * (1 - y_HW) + lower * y_HW)


def test_crop(compare: Callable, work: Work) -> None:
    beton, crop, side = work.beton, work.beton.facts.crop, work.beton.side
    low = (side - crop) // 2
    middle = np.s_[low : low + crop, low : low + crop]

    def ours(out_N1HW: np.ndarray, samples: slice) -> None:
        crop_into(out_N1HW[samples], beton.bytes_B, beton.offset_N[samples], side)

    def opencv(out_N1HW: np.ndarray, samples: slice) -> None:
        for n in range(samples.start, samples.stop):
            out_N1HW[n] = cv2.dnn.blobFromImage(beton.frame(n)[middle], 1 / 127.5, mean=127.5)[0]

    def plain(out_N1HW: np.ndarray, samples: slice) -> None:
        for n in range(samples.start, samples.stop):
            normalise_into(out_N1HW[n, 0], beton.frame(n)[middle])

    parts = {"plainfilm": ours, "OpenCV": opencv, "numpy": plain}
    rivals = {name: work.call(part, CROP_PASSES) for name, part in parts.items()}
    compare(
        f"crop kernel, {side} to {crop}",
        rivals,
        check=lambda: check_rivals(lambda n: naive.crop(beton.frame(n), crop), rivals, mean=1e-6),
        images=NUM_SAMPLES * CROP_PASSES,
    )
