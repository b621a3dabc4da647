"""The stored frame: a decoded radiograph's grey levels stretched to 0-255 and resized to a square."""

# H rows, W columns, S side of the stored frame, L grey levels

from __future__ import annotations

import cv2
import numpy as np

from kernels.grey import histogram_into
from kernels.shrink import shrink_into
from loaders.config import CROP_SHARE, Fit
from loaders.errors import RadiographError

Window = tuple[int, int]  # the grey levels that become 0 and 255

LOW_SHARE, HIGH_SHARE = 0.001, 0.999  # DESIGN, Geometry: percentiles 0.1 and 99.9


def grey_window(grey_HW: np.ndarray) -> tuple[int, int, float]:
    """The grey levels at percentiles 0.1 and 99.9, and the share of pixels strictly outside them.

    grey_HW: uint8 or uint16.  Percentiles are levels that occur (numpy's method `inverted_cdf`).
    Errors: RadiographError for a frame of one level, which shows nothing.
    """
    count_L = np.empty(np.iinfo(grey_HW.dtype).max + 1, np.int64)
    histogram_into(count_L, np.ascontiguousarray(grey_HW))
    cumulative_L = np.cumsum(count_L)
    total = grey_HW.size
    low = int(np.searchsorted(cumulative_L, LOW_SHARE * total))
    high = int(np.searchsorted(cumulative_L, HIGH_SHARE * total))
    if low == high:
        raise RadiographError(
            f"{HIGH_SHARE - LOW_SHARE:.1%} of the pixels have grey level {low}, expected a picture; leave it out"
        )
    below = int(cumulative_L[low] - count_L[low])
    above = total - int(cumulative_L[high])
    return low, high, (below + above) / total


def resize(grey_HW: np.ndarray, rows: int, columns: int, window: Window) -> np.ndarray:
    """Stretch the window's levels to 0-255, average areas along axes that shrink, and be bilinear along axes that grow.

    grey_HW: uint8 or uint16.  Gives uint8.
    """
    small_hw = np.empty((min(grey_HW.shape[0], rows), min(grey_HW.shape[1], columns)), np.uint8)
    sum_W = np.empty(grey_HW.shape[1], np.float32)
    shrink_into(small_hw, np.ascontiguousarray(grey_HW), *window, sum_W)
    if small_hw.shape != (rows, columns):
        return cv2.resize(small_hw, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return small_hw


def fit_square(grey_HW: np.ndarray, side: int, fit: Fit, window: Window) -> np.ndarray:
    """Resize to side × side: stretched, the longer side cut (cover), or the shorter padded with black (contain)."""
    rows, columns = grey_HW.shape
    if fit == "cover":
        short = min(rows, columns)
        top, left = (rows - short) // 2, (columns - short) // 2
        return resize(grey_HW[top : top + short, left : left + short], side, side, window)
    if fit == "contain":
        scale = side / max(rows, columns)
        small_HW = resize(grey_HW, max(1, round(rows * scale)), max(1, round(columns * scale)), window)
        top, left = (side - small_HW.shape[0]) // 2, (side - small_HW.shape[1]) // 2
        square_SS = np.zeros((side, side), np.uint8)
        square_SS[top : top + small_HW.shape[0], left : left + small_HW.shape[1]] = small_HW
        return square_SS
    return resize(grey_HW, side, side, window)


def audited_frame(grey_HW: np.ndarray, side: int) -> np.ndarray:
    """The frame that the audit looks at, uint8 of side × side: stretched by the window of all that the file shows.

    Errors: RadiographError for a frame without a picture.
    """
    low, high, _ = grey_window(grey_HW)
    return resize(grey_HW, side, side, (low, high))


def crop_area(grey_HW: np.ndarray, fit: Fit) -> np.ndarray:
    """What of a radiograph lies in the central crop, once it has been fitted to a square; never empty."""
    rows, columns = grey_HW.shape
    rows_of, columns_of = {
        "stretch": (rows, columns),
        "cover": (min(rows, columns),) * 2,
        "contain": (max(rows, columns),) * 2,
    }[fit]
    return grey_HW[central(rows, CROP_SHARE * rows_of), central(columns, CROP_SHARE * columns_of)]


def central(length: int, part: float) -> slice:
    """The middle `part` of an axis, whole pixels: those that are at least half inside, but one at least."""
    margin = max(0, min(round((length - part) / 2), (length - 1) // 2))
    return slice(margin, length - margin)


def stored_frame(grey_HW: np.ndarray, side: int, fit: Fit) -> tuple[np.ndarray, float]:
    """The frame that a beton stores, uint8 of side × side, and the share of pixels in its crop that saturated.

    grey_HW: uint8 or uint16, any shape.  The window of grey levels is the crop's alone: a bright mark in the margin
    would otherwise darken the whole crop, where a network sees it.  Errors: RadiographError for a crop without a
    picture.  Source: DESIGN, Geometry.
    """
    low, high, saturated = grey_window(crop_area(grey_HW, fit))
    return fit_square(grey_HW, side, fit, (low, high)), saturated
