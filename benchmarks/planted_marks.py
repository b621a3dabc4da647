"""Marks that people leave on radiographs, as masks and outlines: words, arrows, boxes, lungs drawn around."""

# H rows, W columns, P points of an outline

from __future__ import annotations

import cv2
import numpy as np

WORDS = ("PORTABLE", "ERECT 10:42", "AP SUPINE", "12/03/2020", "Fig. 2a", "day 5", "ID 004711", "b")
COLOURS = ((230, 40, 40), (40, 200, 70), (60, 110, 240), (240, 220, 50), (230, 60, 210), (40, 210, 220))


def draw_mark(
    mask_HW: np.ndarray, kind: str, place: tuple[int, int], height: float, angle: float, word: str, width: float = 0.1
) -> None:
    """Draw one mark into a uint8 mask.  height: in pixels.  angle: of an arrow, in radians.  width: in heights."""
    thick = max(1, round(width * height))
    x, y = place
    if kind == "text":
        face = cv2.FONT_HERSHEY_SIMPLEX
        (length, rise), _ = cv2.getTextSize(word, face, height / 22, thick)
        corner = max(0, min(x, mask_HW.shape[1] - length - thick)), max(rise, y)
        cv2.putText(mask_HW, word, corner, face, height / 22, 255, thick, cv2.LINE_AA)
    elif kind == "arrow":
        tail = round(x + 2 * height * np.cos(angle)), round(y + 2 * height * np.sin(angle))
        cv2.arrowedLine(mask_HW, tail, place, 255, thick, cv2.LINE_AA, 0, 0.35)
    else:
        far = round(x + 2 * height), round(y + 1.6 * height)
        cv2.rectangle(mask_HW, place, far, 255, thick, cv2.LINE_AA)


def lung_outlines(rows: int, columns: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Two outlines about where lungs lie: narrow above, wide below, flat against the heart; int32 P×1×2."""
    down_P = np.linspace(0, np.pi, 24)
    centre, height = rng.uniform(0.44, 0.5), rng.uniform(0.26, 0.32)
    outlines = []
    for sign in (-1, 1):
        y_P = centre - height * np.cos(down_P)
        wide_P = np.sin(down_P) ** 0.6 * (0.75 + 0.25 * (y_P - centre) / height)
        outer_P = 0.5 + sign * (0.2 + 0.17 * wide_P * rng.uniform(0.92, 1.08))
        inner_P = 0.5 + sign * (0.2 - 0.12 * wide_P * rng.uniform(0.9, 1.1))
        x_P, y_P = np.concatenate([outer_P, inner_P[::-1]]), np.concatenate([y_P, y_P[::-1]])
        outlines.append(np.rint(np.stack([x_P * columns, y_P * rows], -1)).astype(np.int32)[:, None])
    return outlines
