"""Frames: from a decoded radiograph to the stored square, repaired where the audit asks for it, and its lung mask."""

# H rows, W columns, h w those of a smaller picture, S side of the stored frame, C of its crop, L grey levels

import re
from pathlib import Path

import cv2
import numpy as np

from kernels.decoding import histogram_into, shrink_into
from loaders.config import CROP_SHARE, Fit
from loaders.errors import InputError
from loaders.images.files import refuse
from loaders.images.radiograph import decode_radiograph
from loaders.output import share_text

Window = tuple[int, int]  # the grey levels that become 0 and 255
LOW_SHARE, HIGH_SHARE = 0.001, 0.999  # DESIGN, Geometry: percentiles 0.1 and 99.9
FIX = re.compile(r"(?:crop \d+:\d+,\d+:\d+)?(?:(?:^|; )invert)?(?:(?:^|; )rotate (?:90|180|270))?")  # as of `repair`
CROP = re.compile(r"crop (\d+):(\d+),(\d+):(\d+)")
# Centre, half axes (frame from -1 to 1) and tilt in degrees of the viewer's right lung. Measured on lung masks, it
# covers 98.8 % of phantom lungs, and of 34 real, tightly framed pairs of lungs 90 % of what the crop shows.
LUNG_ELLIPSE = (0.38, 0.0, 0.38, 0.72, -16.0)
LUNG_MARGIN = 0.18  # added to the half axes to hide lungs: 98 % of those real lungs, and 70 % of the frame
MID_GREY = 128
MAX_PIXELS = 64_000_000  # of a mask
PROPORTION = 0.05  # largest difference from the radiograph's proportions; a mask of 60 pixels a side is rounded by 2 %


def stored_frame(grey_HW: np.ndarray, side: int, fit: Fit) -> tuple[np.ndarray, float]:
    """The frame that a beton stores, uint8 of side × side, and the share of saturated pixels in its crop.

    grey_HW: uint8 or uint16, any shape.  The window of grey levels is the crop's alone: otherwise a bright mark in the
    margin would darken the whole crop.  Errors: RadiographError for a crop of one level.  Source: DESIGN, Geometry.
    """
    low, high, saturated = grey_window(crop_area(grey_HW, fit))
    return fit_square(grey_HW, side, fit, (low, high)), saturated


def grey_window(grey_HW: np.ndarray) -> tuple[int, int, float]:
    """The grey levels at percentiles 0.1 and 99.9, and the share of pixels strictly outside.

    grey_HW: uint8 or uint16.  Percentiles are levels that occur (numpy's method `inverted_cdf`).
    Errors: RadiographError for a frame of one level.
    """
    count_L = np.empty(np.iinfo(grey_HW.dtype).max + 1, np.int64)
    histogram_into(count_L, np.ascontiguousarray(grey_HW))
    cumulative_L = np.cumsum(count_L)
    total = grey_HW.size
    low, high = np.searchsorted(cumulative_L, (LOW_SHARE * total, HIGH_SHARE * total)).tolist()
    if low == high:
        share = share_text(HIGH_SHARE - LOW_SHARE)
        raise refuse(f"{share} of the pixels have grey level {low}", "a picture", "one-level")
    inside = int(cumulative_L[high] - cumulative_L[low] + count_L[low])
    return low, high, (total - inside) / total


def crop_area(grey_HW: np.ndarray, fit: Fit) -> np.ndarray:
    """The part of a radiograph that lies in the central crop once it is fitted to a square; never empty."""
    rows, columns = grey_HW.shape
    side = {"stretch": None, "cover": min(rows, columns), "contain": max(rows, columns)}[fit]
    return grey_HW[central(rows, CROP_SHARE * (side or rows)), central(columns, CROP_SHARE * (side or columns))]


def central(length: int, part: float) -> slice:
    """The middle `part` of an axis, in whole pixels that are at least half inside; at least one."""
    margin = max(0, min(round((length - part) / 2), (length - 1) // 2))
    return slice(margin, length - margin)


def fit_square(grey_HW: np.ndarray, side: int, fit: Fit, window: Window) -> np.ndarray:
    """Resize to side × side: stretched, the longer side cut (cover), or the shorter padded with black (contain)."""
    rows, columns = grey_HW.shape
    if fit == "contain":
        scale = side / max(rows, columns)
        small_hw = resize(grey_HW, max(1, round(rows * scale)), max(1, round(columns * scale)), window)
        left_out = [side - length for length in small_hw.shape]
        return np.pad(small_hw, [(length // 2, length - length // 2) for length in left_out])
    if fit == "cover":
        short = min(rows, columns)
        top, left = (rows - short) // 2, (columns - short) // 2
        grey_HW = grey_HW[top : top + short, left : left + short]
    return resize(grey_HW, side, side, window)


def resize(grey_HW: np.ndarray, rows: int, columns: int, window: Window) -> np.ndarray:
    """Map the window's levels to 0-255; average areas along axes that shrink, interpolate along axes that grow.

    grey_HW: uint8 or uint16.  Gives uint8.
    """
    small_hw = np.empty((min(grey_HW.shape[0], rows), min(grey_HW.shape[1], columns)), np.uint8)
    sum_W = np.empty(grey_HW.shape[1], np.float32)
    shrink_into(small_hw, np.ascontiguousarray(grey_HW), *window, sum_W)
    if small_hw.shape != (rows, columns):
        return cv2.resize(small_hw, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return small_hw


def repair(grey_HW: np.ndarray, fix: str) -> np.ndarray:
    """Repair a radiograph by the steps of a fix, in order; gives a C-contiguous array of the same dtype.

    fix: such as "crop 12:512,0:480; invert; rotate 90", rotation clockwise; "" changes nothing.
    Errors: RadiographError when a crop does not lie inside the picture, as after the file was replaced.
    """
    for step in filter(None, fix.split("; ")):
        if crop := CROP.fullmatch(step):
            top, bottom, left, right = map(int, crop.groups())
            rows, columns = grey_HW.shape
            if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
                raise refuse(f"{columns}x{rows} pixels", f"room for the audit's {step}", "changed")
            grey_HW = grey_HW[top:bottom, left:right]
        elif step == "invert":
            grey_HW = np.iinfo(grey_HW.dtype).max - grey_HW
        else:
            grey_HW = np.rot90(grey_HW, -int(step.removeprefix("rotate ")) // 90)
    return np.ascontiguousarray(grey_HW)


def template_SS(side: int, margin: float = 0.0) -> np.ndarray:
    """The usual place of lungs, two mirrored ellipses: bool S×S.  margin: added to half axes, frame from -1 to 1."""
    centre_x, centre_y, half_x, half_y, tilt = LUNG_ELLIPSE
    centre_S = (np.arange(side) + 0.5) / side * 2 - 1
    x_SS, y_SS = np.meshgrid(np.abs(centre_S) - centre_x, centre_S - centre_y)
    cosine, sine = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    along_SS = (x_SS * cosine + y_SS * sine) / (half_x + margin)
    across_SS = (y_SS * cosine - x_SS * sine) / (half_y + margin)
    return along_SS**2 + across_SS**2 <= 1


def read_mask(path: Path, side: int, fit: Fit, *, size: tuple[int, int] | None = None, fix: str = "") -> np.ndarray:
    """A mask file, fitted to the stored frame like its radiograph: bool S×S, True above half the brightest level.

    size: the radiograph's columns and rows, where known; the mask must have these proportions, at any size.
    fix: how conversion repaired the radiograph: the mask is cropped and turned alike.
    Errors: InputError, naming the file, for no image, a mask that is all lungs or has none, also in the frame alone, or
    one of other proportions.
    """
    try:
        grey_HW = decode_radiograph(path, max_pixels=MAX_PIXELS).grey_HW
        top, (rows, columns) = int(grey_HW.max()), grey_HW.shape
        if not top or 2 * int(grey_HW.min()) >= top:
            colour = "white" if top else "black"
            raise InputError(f"{colour} all over, expected a mask with the lungs in white; leave it out")
        if size is not None and abs(columns * size[1] / (rows * size[0]) - 1) > PROPORTION:
            expected = f"the proportions of its radiograph, {size[0]}x{size[1]}"
            raise InputError(f"{columns}x{rows} pixels, expected {expected}; make it again, or leave it out")
        if size is not None and "crop " in fix:  # counts in the radiograph's pixels
            grey_HW = cv2.resize(grey_HW, size, interpolation=cv2.INTER_NEAREST)
        grey_HW = repair(grey_HW, "; ".join(step for step in fix.split("; ") if step != "invert"))
        mask_SS = fit_square(grey_HW, side, fit, (0, top)) > MID_GREY - 1
        if not mask_SS.any():
            raise InputError("no lungs within the stored frame, expected some; make it again, or leave it out")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return mask_SS
