"""Where the lungs are in a stored frame: their usual region, or a mask file."""

# S side of the frame, H W rows and columns

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from loaders.audit.mend import mend
from loaders.config import Fit
from loaders.errors import InputError, RadiographError
from loaders.frame import fit_square, resize
from loaders.radiograph import decode_radiograph

# Centre, half axes (frame from -1 to 1) and tilt in degrees of the viewer's right lung. Measured on lung masks, it
# covers 99.9 % of phantom lungs, and of 34 real, tightly framed pairs of lungs 90 % of what the crop shows.
LUNG_ELLIPSE = (0.38, 0.0, 0.38, 0.72, -16.0)
LUNG_MARGIN = 0.14  # added to the half axes where little of the lungs may be left: 95 % of those real lungs hidden
MID_GREY = 128
MAX_PIXELS = 64_000_000  # of a mask
PROPORTION = 0.05  # largest difference from the radiograph's proportions; a mask of 60 pixels a side is rounded by 2 %


def template_SS(side: int, margin: float = 0.0) -> np.ndarray:
    """Where lungs usually are, two mirrored ellipses: bool S×S.  margin: added to the half axes, frame from -1 to 1."""
    centre_x, centre_y, half_x, half_y, tilt = LUNG_ELLIPSE
    centre_S = (np.arange(side) + 0.5) / side * 2 - 1
    x_SS, y_SS = np.meshgrid(np.abs(centre_S) - centre_x, centre_S - centre_y)
    cosine, sine = np.cos(np.deg2rad(tilt)), np.sin(np.deg2rad(tilt))
    along_SS = (x_SS * cosine + y_SS * sine) / (half_x + margin)
    across_SS = (y_SS * cosine - x_SS * sine) / (half_y + margin)
    return along_SS**2 + across_SS**2 <= 1


def blank_lungs(frame_SS: np.ndarray) -> np.ndarray:
    """The frame with the lungs' usual region and a margin at one grey, the same in every frame: uint8 S×S."""
    return np.where(template_SS(len(frame_SS), LUNG_MARGIN), np.uint8(MID_GREY), frame_SS)


def without_lungs(frame_SS: np.ndarray, crop: int) -> np.ndarray:
    """All of a radiograph but its lungs, where a network sees it: the blanked frame, shrunk into the crop, uint8 S×S.

    In place, blanking would leave 4 % of the crop, and a network learns nothing from that whatever tells the classes
    apart beside the lungs.  Outside the crop its edge goes on.
    """
    small_CC = resize(blank_lungs(frame_SS), crop, crop, (0, 255))
    return np.pad(small_CC, (len(frame_SS) - crop) // 2, mode="edge")


def read_mask(path: Path, side: int, fit: Fit, *, size: tuple[int, int] | None = None, fix: str = "") -> np.ndarray:
    """A mask file, brought into the stored frame as its radiograph was: bool S×S, what is above half the brightest.

    size: the radiograph's columns and rows, where known; the file has these proportions, in whatever size.
    fix: how conversion mended the radiograph (loaders.audit.mend): the mask is cut and turned alike.
    Errors: InputError, naming the file, for one that is no image, shows no lungs, or is of another shape.
    """
    try:
        grey_HW = decode_radiograph(path, max_pixels=MAX_PIXELS).grey_HW
    except RadiographError as error:
        raise InputError(f"{path}: {error}") from error
    top = int(grey_HW.max())
    if not top:
        raise InputError(f"{path}: black all over, expected a mask with the lungs in white; leave it out")
    if size is not None:
        rows, columns = grey_HW.shape
        if abs(columns * size[1] / (rows * size[0]) - 1) > PROPORTION:
            raise InputError(
                f"{path}: {columns}x{rows} pixels, expected the proportions of its radiograph, {size[0]}x{size[1]}; "
                "make it anew, or leave it out"
            )
        if "crop " in fix:  # counts in the radiograph's pixels
            grey_HW = cv2.resize(grey_HW, size, interpolation=cv2.INTER_NEAREST)
    try:
        grey_HW = mend(grey_HW, "; ".join(step for step in fix.split("; ") if step != "invert"))
    except RadiographError as error:
        raise InputError(f"{path}: {error}") from error
    return fit_square(grey_HW, side, fit, (0, top)) > MID_GREY - 1
