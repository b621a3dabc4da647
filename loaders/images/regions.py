"""Regions of a stored frame: what is left of it when it shows the lungs alone, or all but the lungs, or their outline.

Each function takes a stored frame, uint8 S×S, and a mask of its lungs, bool S×S, and gives a stored frame, uint8 S×S,
whose central crop is what a network sees.
"""

# N films, S side of the stored frame, C of its crop, h w of a box, L grey levels

from collections.abc import Callable

import cv2
import numpy as np

from kernels.decoding import histogram_into
from loaders.config import LungMode
from loaders.images.frame import MID_GREY, resize

BOX_MARGIN = 0.05  # of the box's longer side, at each side
HOLE_MARGIN = 0.03  # of the frame's side, by which a mask is dilated before it is hidden
# Share of all lung pixels that a common region covers before it is dilated. Of 239 real, tightly framed films it then
# hides 69 % of the frame and 98.9 % of 34 true pairs of lungs, at least 94 % of each (0.985: 80 %, 99.9 %, 99 %)
LUNG_COVER = 0.95


def masked(frame_SS: np.ndarray, mask_SS: np.ndarray, crop: int) -> np.ndarray:
    """The lungs in place; outside them the frame's median."""
    median = np.searchsorted(np.cumsum(histogram(frame_SS)), frame_SS.size / 2)
    return np.where(mask_SS, frame_SS, np.uint8(median))


def lungs_only(frame_SS: np.ndarray, mask_SS: np.ndarray, crop: int) -> np.ndarray:
    """The lungs in place; outside them mid-grey, as of silhouette: a frame's median tells of arms and borders."""
    return np.where(mask_SS, frame_SS, np.uint8(MID_GREY))


def boxed(frame_SS: np.ndarray, mask_SS: np.ndarray, crop: int) -> np.ndarray:
    """The lungs' box stretched to the stored frame, at one size; outside the lungs mid-grey.

    The crop shows three quarters of the lungs: not their rim, over which scapulae and clavicles move with the arms.
    """
    frame_SS, mask_SS = in_box(frame_SS, mask_SS)
    return np.where(mask_SS, frame_SS, np.uint8(MID_GREY))


def boxed_equal(frame_SS: np.ndarray, mask_SS: np.ndarray, crop: int) -> np.ndarray:
    """As boxed, with the grey levels of what the crop shows of the lungs equalised."""
    frame_SS, mask_SS = in_box(frame_SS, mask_SS)
    margin = (len(frame_SS) - crop) // 2
    shown_SS = np.zeros_like(mask_SS)
    shown_SS[margin : margin + crop, margin : margin + crop] = True
    shown_SS &= mask_SS
    return np.where(mask_SS, equalised(frame_SS, shown_SS if shown_SS.any() else mask_SS), np.uint8(MID_GREY))


def in_box(frame_SS: np.ndarray, mask_SS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A frame's lungs and their mask, the lungs' box stretched to the frame."""
    rows, columns = lung_box(mask_SS)
    mask_box = stretched(mask_SS[rows, columns].astype(np.uint8) * 255, len(frame_SS)) > 127
    inside_SS = np.where(mask_SS, frame_SS, np.uint8(MID_GREY))
    return stretched(inside_SS[rows, columns], len(frame_SS)), mask_box


def silhouette(frame_SS: np.ndarray, mask_SS: np.ndarray, crop: int) -> np.ndarray:
    """The mask alone, white on mid-grey: no pixel of the film."""
    return np.where(mask_SS, np.uint8(255), np.uint8(MID_GREY))


def boxed_silhouette(frame_SS: np.ndarray, mask_SS: np.ndarray, crop: int) -> np.ndarray:
    """The mask's shape at one size, white on mid-grey."""
    return boxed(np.full_like(frame_SS, 255), mask_SS, crop)


def without_region(frame_SS: np.ndarray, hidden_SS: np.ndarray, crop: int) -> np.ndarray:
    """All of a radiograph but a region, inside the crop: the blanked frame, shrunk into the crop.

    The region becomes the same grey in every frame.  In place, that would leave a few hundredths of the crop, from
    which a network learns nothing, whatever separates the classes beside the lungs.  Outside the crop its edge pixels
    are repeated.
    """
    blank_SS = np.where(hidden_SS, np.uint8(MID_GREY), frame_SS)
    small_CC = resize(blank_SS, crop, crop, (0, 255))
    return np.pad(small_CC, (len(frame_SS) - crop) // 2, mode="edge")


def lungs_hole(frame_SS: np.ndarray, mask_SS: np.ndarray, crop: int) -> np.ndarray:
    """All but the film's own lungs and a margin, which leaves their outline as a hole."""
    return without_region(frame_SS, dilated(mask_SS), crop)


LUNG_MODES: dict[LungMode, Callable[[np.ndarray, np.ndarray, int], np.ndarray]] = {
    "masked": masked,
    "boxed": boxed,
    "boxed-equal": boxed_equal,
}
LUNG_CONTROLS = {  # split of a cross-validation → its frames; lungs-hidden has one region for all
    "lungs-hole": lungs_hole,
    "lungs-only": lungs_only,
    "silhouette": silhouette,
    "boxed": boxed_equal,
    "boxed-silhouette": boxed_silhouette,
}


def lung_box(mask_SS: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the mask's box and its margin, as far as the frame goes.  mask_SS: not empty."""
    (top, bottom), (left, right) = (np.flatnonzero(mask_SS.any(axis))[[0, -1]] + (0, 1) for axis in (1, 0))
    margin, side = round(BOX_MARGIN * max(bottom - top, right - left)), len(mask_SS)
    return tuple(  # type: ignore[return-value]
        slice(max(0, int(start) - margin), min(side, int(end) + margin))
        for start, end in ((top, bottom), (left, right))
    )


def stretched(box_hw: np.ndarray, side: int) -> np.ndarray:
    """A box stretched to S×S."""
    return resize(np.ascontiguousarray(box_hw), side, side, (0, 255))


def equalised(frame_SS: np.ndarray, mask_SS: np.ndarray) -> np.ndarray:
    """Global histogram equalisation by the mask's pixels: each level becomes its mean rank among them, 0 to 255."""
    count_L = histogram(frame_SS[mask_SS][None])
    rank_L = (np.cumsum(count_L) - count_L / 2) / max(1, count_L.sum())
    return (rank_L * 255 + 0.5).astype(np.uint8)[frame_SS]


def histogram(grey_HW: np.ndarray) -> np.ndarray:
    """Pixels of each grey level of a uint8 picture: int64 L."""
    count_L = np.empty(256, np.int64)
    histogram_into(count_L, np.ascontiguousarray(grey_HW))
    return count_L


def dilated(mask_SS: np.ndarray) -> np.ndarray:
    """A mask and a margin around it."""
    reach = 2 * round(HOLE_MARGIN * len(mask_SS)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    return cv2.dilate(mask_SS.astype(np.uint8), disc) > 0


def common_region(count_SS: np.ndarray, cover: float = LUNG_COVER) -> np.ndarray:
    """One region for all frames, bool S×S: the commonest places of lungs, as many as cover that share of all their
    pixels, dilated.  A film's own mask would draw its silhouette as a hole.

    count_SS: int, in how many frames each place is lung; not all 0.
    """
    falling_P = np.sort(count_SS, axis=None)[::-1]
    least = falling_P[np.searchsorted(np.cumsum(falling_P), cover * count_SS.sum())]
    return dilated(count_SS >= least)
