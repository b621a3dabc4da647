"""Probes: features of the part of a stored frame that each is shown, for a simple classifier."""

# N samples, S side of the frame, F features, H W rows and columns

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from loaders.audit.findings import COLLECTION_WITHIN, WITHIN
from loaders.config import CROP_SHARE
from loaders.images.frame import LUNG_MARGIN, MID_GREY, template_SS

CELL = 4  # pixels a side of the cells that are averaged
MARK_CELL = 8  # pixels a side of the cells whose brightest small object is a feature
MARK_WIDTH = 5  # pixels; thinner objects are removed by a morphological opening


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe.  name: a key of findings.PROBES.  features: frames_NSS, or another input → float64 features_NF.

    picture: frame_SS → uint8, the frame, or the mask of its lungs, as shown to it.
    standardise: whether features are divided by their deviations; pixels share a unit, and are not.
    """

    name: str
    features: Callable[[np.ndarray], np.ndarray]
    picture: Callable[[np.ndarray], np.ndarray] | None = None
    standardise: bool = True


def crop_mask(side: int) -> np.ndarray:
    """The central crop: bool S×S."""
    crop = 2 * round(side * CROP_SHARE / 2)
    margin = (side - crop) // 2
    mask_SS = np.zeros((side, side), bool)
    mask_SS[margin : margin + crop, margin : margin + crop] = True
    return mask_SS


SHOWN: dict[str, Callable[[int], np.ndarray]] = {  # probe → side S → the pixels that it is shown, bool S×S
    "outside-crop": lambda side: ~crop_mask(side),
    "inside-crop-outside-lungs": lambda side: crop_mask(side) & ~template_SS(side),
    "lungs-hidden": lambda side: ~template_SS(side, LUNG_MARGIN),
}


def hide(frame_SS: np.ndarray, shown_SS: np.ndarray, level: int | None = None) -> np.ndarray:
    """The frame with all hidden pixels at one level, by default the mean of the shown ones: uint8 S×S."""
    fill = round(float(frame_SS[shown_SS].mean())) if level is None else level
    return np.where(shown_SS, frame_SS, np.uint8(fill))


def pixel_features(frames_NSS: np.ndarray, shown_SS: np.ndarray) -> np.ndarray:
    """Means of small cells, and in larger cells the brightest object too small for anatomy, in grey levels: N×F.

    Letters and arrows are a few pixels that hardly change a mean; the difference from a morphological opening isolates
    them.  Hidden pixels take part in neither.
    """
    share = cell_means(shown_SS.astype(np.float32), CELL).ravel()
    kernel = np.ones((MARK_WIDTH, MARK_WIDTH), np.uint8)
    cells = share > 0.25
    mark_cells = cell_maxima(shown_SS.astype(np.float32), MARK_CELL).ravel() > 0
    features_NF = np.empty((len(frames_NSS), int(cells.sum() + mark_cells.sum())))
    for frame_SS, features_F in zip(frames_NSS, features_NF, strict=True):
        hidden_SS = hide(frame_SS, shown_SS)
        sum_F = cell_means(np.where(shown_SS, hidden_SS, 0).astype(np.float32), CELL).ravel()
        small_SS = cv2.morphologyEx(hidden_SS, cv2.MORPH_TOPHAT, kernel) * shown_SS
        features_F[: cells.sum()] = sum_F[cells] / share[cells]
        features_F[cells.sum() :] = cell_maxima(small_SS.astype(np.float32), MARK_CELL).ravel()[mark_cells]
    return features_NF


def cell_means(frame_SS: np.ndarray, cell: int) -> np.ndarray:
    """Mean of every cell of cell × cell pixels; the last row and column of cells may be smaller."""
    size = np.minimum(cell, len(frame_SS) - np.arange(0, len(frame_SS), cell))
    whole_SS = np.pad(frame_SS, (0, -len(frame_SS) % cell))
    sums = whole_SS.reshape(len(size), cell, len(size), cell).sum((1, 3))
    return sums / np.outer(size, size)


def cell_maxima(frame_SS: np.ndarray, cell: int) -> np.ndarray:
    """Maximum of every cell of cell × cell pixels."""
    starts = np.arange(0, len(frame_SS), cell)
    return np.maximum.reduceat(np.maximum.reduceat(frame_SS, starts, 0), starts, 1)


def thumbnail_features(frames_NSS: np.ndarray) -> np.ndarray:
    """The frame in 8×8 pixels: N×64."""
    return np.array([shrink_to_thumbnail(frame_SS).ravel() for frame_SS in frames_NSS], np.float64)


def shrink_to_thumbnail(frame_SS: np.ndarray) -> np.ndarray:
    """The frame in 8×8 pixels."""
    return cv2.resize(frame_SS, (8, 8), interpolation=cv2.INTER_AREA)


def thumbnail_picture(frame_SS: np.ndarray) -> np.ndarray:
    """The thumbnail enlarged to the frame's size."""
    return cv2.resize(shrink_to_thumbnail(frame_SS), frame_SS.shape, interpolation=cv2.INTER_NEAREST)


def histogram_features(frames_NSS: np.ndarray) -> np.ndarray:
    """Square roots of the shares of 32 bands of grey levels: N×32."""
    counts = [np.bincount(frame_SS.ravel() // 8, minlength=32) for frame_SS in frames_NSS]
    return np.sqrt(np.array(counts) / frames_NSS[0].size)


def sharpness_features(frames_NSS: np.ndarray) -> np.ndarray:
    """Logarithms of the mean step between pixels 1, 2 and 4 apart, both ways, and of the Laplacian's size: N×8."""
    features = []
    for frame_SS in frames_NSS:
        grey_SS = frame_SS.astype(np.float32)
        steps = [
            np.abs(step).mean()
            for d in (1, 2, 4)
            for step in (grey_SS[d:] - grey_SS[:-d], grey_SS[:, d:] - grey_SS[:, :-d])
        ]
        curve_SS = np.abs(cv2.Laplacian(grey_SS, cv2.CV_32F))
        features.append([*steps, curve_SS.mean(), np.median(curve_SS)])
    return np.log(np.array(features, np.float64) + 0.1)


def header_features(header_NF: np.ndarray) -> np.ndarray:
    """The header's numbers, unknown ones at their mean, and an indicator for each of the 20 commonest headers.

    A class whose files all have one odd size is obvious, but not to a linear function of the size.
    """
    filled_NF = finite_or_mean(header_NF)
    _, kind_N, count = np.unique(filled_NF, axis=0, return_inverse=True, return_counts=True)
    common = [kind for kind in np.argsort(-count, kind="stable")[:20] if count[kind] > 1]
    return np.column_stack([filled_NF, *(kind_N.ravel() == kind for kind in common)]).astype(np.float64)


def finite_or_mean(features_NF: np.ndarray) -> np.ndarray:
    """Unknown numbers replaced by the mean of the known ones, so that they do not affect a linear classifier."""
    known = np.isfinite(features_NF)
    mean_F = np.where(known, features_NF, 0).sum(0) / np.maximum(known.sum(0), 1)
    return np.where(known, features_NF, mean_F)


def masked_probe(name: str) -> Probe:
    """A probe that is shown only some pixels, the same of every frame."""
    shown = SHOWN[name]
    return Probe(
        name,
        lambda frames_NSS: pixel_features(frames_NSS, shown(frames_NSS.shape[1])),
        picture=lambda frame_SS: hide(frame_SS, shown(len(frame_SS)), MID_GREY),
        standardise=False,
    )


FRAME_PROBES = (
    *map(masked_probe, SHOWN),
    Probe("thumbnail", thumbnail_features, thumbnail_picture),
    Probe("histogram", histogram_features),
    Probe("sharpness", sharpness_features),
)


def silhouette_features(masks_NSS: np.ndarray) -> np.ndarray:
    """The lungs' share of small cells: N×F.  masks_NSS: bool."""
    return np.array([cell_means(mask_SS.astype(np.float64), CELL).ravel() for mask_SS in masks_NSS])


def lung_sizes(masks_NSS: np.ndarray) -> np.ndarray:
    """The lungs' area, width, height, share of the box around them, and share in the left half of it: N×5.

    masks_NSS: bool, none of them empty.
    """
    sizes = []
    for mask_SS in masks_NSS:
        rows, columns = np.flatnonzero(mask_SS.any(1)), np.flatnonzero(mask_SS.any(0))
        box_HW = mask_SS[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        left = box_HW[:, : box_HW.shape[1] // 2].sum() / box_HW.sum()
        sizes.append([mask_SS.mean(), box_HW.shape[1], box_HW.shape[0], box_HW.mean(), left])
    return np.array(sizes, np.float64)


HEADER_PROBE = Probe("header", header_features)
VIEW_PROBE = Probe("view", lambda view_N: finite_or_mean(view_N[:, None]))
LUNG_PROBES = (
    Probe(
        "silhouette",
        silhouette_features,
        picture=lambda mask_SS: np.where(mask_SS, np.uint8(255), np.uint8(MID_GREY)),
        standardise=False,
    ),
    Probe("lung-area", lung_sizes),
)
LABEL_PROBES = (HEADER_PROBE, *FRAME_PROBES, *LUNG_PROBES, VIEW_PROBE)  # of the class, or of each finding
SOURCE_PROBE = Probe(WITHIN, thumbnail_features, thumbnail_picture)
COLLECTION_PROBE = Probe(COLLECTION_WITHIN, thumbnail_features)
