"""Mending: what conversion does to a radiograph that the audit found inverted, turned, or inside borders."""

# H rows, W columns

from __future__ import annotations

import re

import numpy as np

from loaders.errors import RadiographError

CROP = re.compile(r"crop (\d+):(\d+),(\d+):(\d+)")


def mend(grey_HW: np.ndarray, fix: str) -> np.ndarray:
    """Apply the steps of a fix, in order; gives a C-contiguous array of the same dtype.

    fix: such as "crop 12:512,0:480; invert; rotate 90", rotation clockwise; "" changes nothing.
    Errors: RadiographError when a crop does not lie inside the picture, as after the file was replaced.
    """
    for step in filter(None, fix.split("; ")):
        if crop := CROP.fullmatch(step):
            top, bottom, left, right = map(int, crop.groups())
            rows, columns = grey_HW.shape
            if not (0 <= top < bottom <= rows and 0 <= left < right <= columns):
                raise RadiographError(
                    f"{columns}x{rows} pixels, expected room for the audit's {step}; audit the files again"
                )
            grey_HW = grey_HW[top:bottom, left:right]
        elif step == "invert":
            grey_HW = np.iinfo(grey_HW.dtype).max - grey_HW
        else:
            grey_HW = np.rot90(grey_HW, -int(step.removeprefix("rotate ")) // 90)
    return np.ascontiguousarray(grey_HW)
