"""OpenCV and numpy on chosen frames of a beton, in the thread that calls them."""

# N chosen samples, S side of a stored frame, H W rows and columns of the crop, 23 two rows of an inverse affine matrix

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import cv2
import numpy as np

from loaders.beton.reader import Beton

SCALE = np.float32(1 / 127.5)

Fill = Callable[[np.ndarray, Sequence[int] | np.ndarray], None]  # writes the crops of index_N into out_N1HW


@contextmanager
def single_threaded_opencv() -> Iterator[None]:
    """OpenCV keeps to the thread that calls it."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def normalise_into(out_HW: np.ndarray, level_HW: np.ndarray) -> None:
    """Grey levels 0-255 to [-1, 1], in numpy."""
    np.multiply(level_HW, SCALE, out=out_HW)
    np.subtract(out_HW, np.float32(1), out=out_HW)


def opencv_affine(beton: Beton, inverse_N23: np.ndarray) -> Fill:
    """warpAffine of the central crop, clamped, then normalised.  inverse_N23: of every sample, from crop to crop."""
    crop, middle = beton.facts.crop, middle_of(beton)
    # OpenCV's pixel centres lie at integers, ours at integer + 0.5
    opencv_N23 = inverse_N23.astype(np.float64)
    opencv_N23[:, :, 2] += opencv_N23[:, :, :2].sum(2) / 2 - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP

    def fill(out_N1HW: np.ndarray, index_N: Sequence[int] | np.ndarray) -> None:
        level_HW = np.empty((crop, crop), np.uint8)
        for out_1HW, n in zip(out_N1HW, index_N, strict=True):
            area_HW = beton.frame(n)[middle]
            cv2.warpAffine(area_HW, opencv_N23[n], (crop, crop), level_HW, flags=flags, borderMode=cv2.BORDER_REPLICATE)
            normalise_into(out_1HW[0], level_HW)

    return fill


def numpy_affine(beton: Beton, inverse_N23: np.ndarray) -> Fill:
    """Bilinear, clamped and normalised, as one writes it in numpy: float32, a frame at a time.

    inverse_N23: of every sample, from crop to crop.
    """
    middle = middle_of(beton)

    def fill(out_N1HW: np.ndarray, index_N: Sequence[int] | np.ndarray) -> None:
        for out_1HW, n in zip(out_N1HW, index_N, strict=True):
            numpy_affine_into(out_1HW[0], beton.frame(n)[middle], inverse_N23[n])

    return fill


def numpy_affine_into(out_HW: np.ndarray, area_HW: np.ndarray, inverse_23: np.ndarray) -> None:
    """One crop, sampled from an area of its size."""
    last = area_HW.shape[0] - 1
    centre = np.arange(out_HW.shape[0], dtype=np.float32) + np.float32(0.5)
    x_HW, y_HW = (
        np.clip(row[0] * centre[None, :] + row[1] * centre[:, None] + (row[2] - np.float32(0.5)), 0, last)
        for row in inverse_23
    )
    left, top = x_HW.astype(np.int32), y_HW.astype(np.int32)
    right, below = np.minimum(left + 1, last), np.minimum(top + 1, last)
    x_HW -= left
    y_HW -= top
    frame = area_HW.astype(np.float32)
    upper = frame[top, left] * (1 - x_HW) + frame[top, right] * x_HW
    lower = frame[below, left] * (1 - x_HW) + frame[below, right] * x_HW
    normalise_into(out_HW, upper * (1 - y_HW) + lower * y_HW)


def opencv_crop(beton: Beton) -> Fill:
    """The central crop by OpenCV's blobFromImage."""
    middle = middle_of(beton)

    def fill(out_N1HW: np.ndarray, index_N: Sequence[int] | np.ndarray) -> None:
        for out_1HW, n in zip(out_N1HW, index_N, strict=True):
            out_1HW[:] = cv2.dnn.blobFromImage(beton.frame(n)[middle], 1 / 127.5, mean=127.5)[0]

    return fill


def numpy_crop(beton: Beton) -> Fill:
    """The central crop by numpy."""
    middle = middle_of(beton)

    def fill(out_N1HW: np.ndarray, index_N: Sequence[int] | np.ndarray) -> None:
        for out_1HW, n in zip(out_N1HW, index_N, strict=True):
            normalise_into(out_1HW[0], beton.frame(n)[middle])

    return fill


def middle_of(beton: Beton) -> tuple[slice, slice]:
    """Where the central crop lies in a stored frame."""
    low = (beton.side - beton.facts.crop) // 2
    rows = slice(low, low + beton.facts.crop)
    return rows, rows
