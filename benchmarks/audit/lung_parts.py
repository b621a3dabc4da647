"""Parts of clean films by where their lungs lie, as the audit's segmenter finds them in the whole film."""

# H rows, W columns, S side of the audit's frame

import cv2
import numpy as np

from loaders.images.frame import grey_window, resize
from loaders.images.lungs import shipped_segmenter
from loaders.images.quality import SIDE

TRIES = 200  # places of a square, of which that with least lung is taken


def find_mask(grey_HW: np.ndarray) -> np.ndarray:
    """The lungs of a film of uint8 or uint16: bool S×S, stretched to a square."""
    low, high, _ = grey_window(grey_HW)
    return shipped_segmenter().find(resize(grey_HW, SIDE, SIDE, (low, high))).mask_SS


def lung_share(grey_HW: np.ndarray, side: str) -> float:
    """The share of the lungs' area in the left (l) or right (r) half of the film."""
    mask_SS = find_mask(grey_HW)
    return float(np.split(mask_SS, 2, axis=1)[side == "r"].sum() / max(1, mask_SS.sum()))


def without_side(grey_HW: np.ndarray, side: str, lost: float) -> np.ndarray:
    """The film without so much of one side that a share of the lungs' area is lost.  side: t, b, l or r."""
    quarters = "trbl".index(side)  # turns, anticlockwise, that bring the side to the top
    area_S = np.cumsum(np.rot90(find_mask(grey_HW), quarters).sum(1))
    turned_HW = np.rot90(grey_HW, quarters)
    first = int(np.searchsorted(area_S, lost * area_S[-1]) / SIDE * len(turned_HW))
    return np.ascontiguousarray(np.rot90(turned_HW[first:], -quarters))


def beside_lungs(grey_HW: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A square of 35 % of the film's short side that shows least of the lungs."""
    rows, columns = grey_HW.shape
    mask_HW = cv2.resize(find_mask(grey_HW).astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST)
    side = round(0.35 * min(rows, columns))
    corners = [(int(rng.integers(rows - side)), int(rng.integers(columns - side))) for _ in range(TRIES)]
    top, left = min(corners, key=lambda at: int(mask_HW[at[0] : at[0] + side, at[1] : at[1] + side].sum()))
    return np.ascontiguousarray(grey_HW[top : top + side, left : left + side])
