"""The stored frame: a decoded radiograph's grey levels stretched to 0-255 and resized to a square."""

# H rows, W columns, S side of the stored frame, L grey levels

from __future__ import annotations

import cv2
import numpy as np

from kernels.grey import histogram_into, stretch_into
from loaders.config import Fit
from loaders.errors import RadiographError

LOW_SHARE, HIGH_SHARE = 0.001, 0.999  # DESIGN, Geometry: percentiles 0.1 and 99.9


def grey_window(grey_HW: np.ndarray) -> tuple[int, int, float]:
    """The grey levels at percentiles 0.1 and 99.9, and the share of pixels strictly outside them.

    grey_HW: uint8 or uint16.  Percentiles are levels that occur (numpy's method `inverted_cdf`).
    Errors: RadiographError for a frame of one level, which shows nothing.
    """
    count_L = np.empty(np.iinfo(grey_HW.dtype).max + 1, np.int64)
    histogram_into(count_L, grey_HW)
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


def resize(grey_HW: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Resize: area averaging along axes that shrink, bilinear along axes that grow."""
    if grey_HW.shape[0] > rows or grey_HW.shape[1] > columns:
        smaller = (min(grey_HW.shape[1], columns), min(grey_HW.shape[0], rows))
        grey_HW = cv2.resize(grey_HW, smaller, interpolation=cv2.INTER_AREA)
    if grey_HW.shape != (rows, columns):
        grey_HW = cv2.resize(grey_HW, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return grey_HW


def fit_square(grey_HW: np.ndarray, side: int, fit: Fit) -> np.ndarray:
    """Resize to side × side: stretched, the longer side cut (cover), or the shorter padded with black (contain)."""
    rows, columns = grey_HW.shape
    if fit == "cover":
        short = min(rows, columns)
        top, left = (rows - short) // 2, (columns - short) // 2
        return resize(grey_HW[top : top + short, left : left + short], side, side)
    if fit == "contain":
        scale = side / max(rows, columns)
        small_HW = resize(grey_HW, max(1, round(rows * scale)), max(1, round(columns * scale)))
        top, left = (side - small_HW.shape[0]) // 2, (side - small_HW.shape[1]) // 2
        square_SS = np.zeros((side, side), np.uint8)
        square_SS[top : top + small_HW.shape[0], left : left + small_HW.shape[1]] = small_HW
        return square_SS
    return resize(grey_HW, side, side)


def stored_frame(grey_HW: np.ndarray, side: int, fit: Fit) -> tuple[np.ndarray, float]:
    """The frame that a beton stores, uint8 of side × side, and the share of pixels that saturated.

    grey_HW: uint8 or uint16, any shape.  Errors: RadiographError for a frame without a picture.
    Source: DESIGN, Geometry.
    """
    low, high, saturated = grey_window(grey_HW)
    level_HW = np.empty(grey_HW.shape, np.uint8)
    stretch_into(level_HW, grey_HW, low, high)
    return np.ascontiguousarray(fit_square(level_HW, side, fit)), saturated
