"""Borders: even black or white margins around a radiograph, such as a letterbox or a figure's white page."""

# H rows, W columns

from __future__ import annotations

import numpy as np

DARK, BRIGHT, EVEN = 12, 243, 3  # grey levels of 0-255 after stretching
STRAY = 0.01  # share of a line that may be something else, such as dust


def inner_box(frame_HW: np.ndarray) -> tuple[int, int, int, int]:
    """First row, last row + 1, first column, last column + 1 of what lies inside even margins.

    frame_HW: uint8, at least 8 × 8.  A line belongs to the margin if nearly all of it is within a few levels of its own
    median and that is black or white.
    A frame that is margin all over is its own box.
    """
    top, bottom = ends(frame_HW)
    left, right = ends(np.ascontiguousarray(frame_HW[top:bottom].T))
    top, bottom = ends(np.ascontiguousarray(frame_HW[:, left:right]))  # a row may be even only between the side margins
    return top, bottom, left, right


def ends(lines_HW: np.ndarray) -> tuple[int, int]:
    """First line inside the margins, and the last + 1; all of them where nothing would be left."""
    half = lines_HW.shape[1] // 2
    middle_H = np.partition(lines_HW, half, axis=1)[:, half].astype(np.int16)  # the upper of two medians
    stray_H = (np.abs(lines_HW - middle_H[:, None]) > EVEN).mean(1)
    margin_H = (stray_H <= STRAY) & ((middle_H <= DARK) | (middle_H >= BRIGHT))
    inside = np.flatnonzero(~margin_H)
    if not inside.size or inside[-1] - inside[0] < len(lines_HW) // 8:
        return 0, len(lines_HW)
    return int(inside[0]), int(inside[-1]) + 1


def border_share(box: tuple[int, int, int, int], rows: int, columns: int) -> float:
    """The widest margin outside a box, as a share of the side that it takes from."""
    top, bottom, left, right = box
    return max(top / rows, 1 - bottom / rows, left / columns, 1 - right / columns)
