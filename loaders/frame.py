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


def fit_square(grey_HW: np.ndarray, fit: Fit) -> np.ndarray:
    """Cut (cover), pad with black (contain) or leave (stretch) a frame that is about to be resized to a square."""
    rows, columns = grey_HW.shape
    if fit == "cover":
        side = min(rows, columns)
        top, left = (rows - side) // 2, (columns - side) // 2
        return grey_HW[top : top + side, left : left + side]
    if fit == "contain":
        side = max(rows, columns)
        top, left = (side - rows) // 2, (side - columns) // 2
        return np.pad(grey_HW, ((top, side - rows - top), (left, side - columns - left)))
    return grey_HW


def resize(grey_HW: np.ndarray, side: int) -> np.ndarray:
    """Resize to side × side: area averaging along axes that shrink, bilinear along axes that grow."""
    rows, columns = grey_HW.shape
    if rows > side or columns > side:
        grey_HW = cv2.resize(grey_HW, (min(columns, side), min(rows, side)), interpolation=cv2.INTER_AREA)
    if rows < side or columns < side:
        grey_HW = cv2.resize(grey_HW, (side, side), interpolation=cv2.INTER_LINEAR)
    return grey_HW


def stored_frame(grey_HW: np.ndarray, side: int, fit: Fit) -> tuple[np.ndarray, float]:
    """The frame that a beton stores, uint8 of side × side, and the share of pixels that saturated.

    grey_HW: uint8 or uint16, any shape.  Errors: RadiographError for a frame without a picture.
    Source: DESIGN, Geometry.
    """
    low, high, saturated = grey_window(grey_HW)
    level_HW = np.empty(grey_HW.shape, np.uint8)
    stretch_into(level_HW, grey_HW, low, high)
    return np.ascontiguousarray(resize(fit_square(level_HW, fit), side)), saturated
