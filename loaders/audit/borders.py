"""Borders: even black or white margins around a radiograph, such as a letterbox or a figure's white page."""

# H rows, W columns

from __future__ import annotations

import numpy as np

DARK, BRIGHT, EVEN = 12, 243, 3  # grey levels of 0-255 after stretching
STRAY = 0.01  # share of a margin's line that may be something else, such as dust
ABRUPT, WITHIN = 0.25, 4  # share of a line that must be something else this soon after the margin's end


def inner_box(frame_HW: np.ndarray) -> tuple[int, int, int, int]:
    """First row, last row + 1, first column, last column + 1 of what lies inside even margins.

    frame_HW: uint8, at least 8 × 8.  A margin is as black or white as the outermost line, and ends abruptly along a
    straight edge; air beside a body is as black, but fades into curves.  Where all is margin, the box is the frame.
    """
    top, bottom = ends(frame_HW)
    left, right = ends(np.ascontiguousarray(frame_HW[top:bottom].T))
    top, bottom = ends(np.ascontiguousarray(frame_HW[:, left:right]))  # a row may be even only between side margins
    return top, bottom, left, right


def ends(lines_HW: np.ndarray) -> tuple[int, int]:
    """First line inside the margins, and the last + 1; all of them where nothing would be left."""
    first, last = margin(lines_HW), margin(lines_HW[::-1])
    if len(lines_HW) - first - last < len(lines_HW) // 8:
        return 0, len(lines_HW)
    return first, len(lines_HW) - last


def margin(lines_HW: np.ndarray) -> int:
    """How many lines from the first on are margin."""
    half = lines_HW.shape[1] // 2
    level = int(np.partition(lines_HW[0], half)[half])
    if DARK < level < BRIGHT or (np.abs(lines_HW[0].astype(np.int16) - level) > EVEN).mean() > STRAY:
        return 0
    stray_H = (np.abs(lines_HW.astype(np.int16) - level) > EVEN).mean(1)
    width = int(np.argmax(stray_H > STRAY))  # 0 if it is margin all over
    return width if stray_H[width : width + WITHIN].max() >= ABRUPT else 0


def border_share(box: tuple[int, int, int, int], rows: int, columns: int) -> float:
    """The widest margin outside a box, as a share of the side that it takes from."""
    top, bottom, left, right = box
    return max(top / rows, 1 - bottom / rows, left / columns, 1 - right / columns)
