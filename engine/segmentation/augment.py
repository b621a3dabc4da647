"""Augmentation of frames and their masks, strong enough that a few dozen films teach what lungs are."""

# T side of the net's input

import cv2
import numpy as np

from loaders.images.lungs import SIDE


def augmented(frame_TT: np.ndarray, mask_TT: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Another film with the same lungs: frame and mask, uint8 T×T, the mask 0 or 255.

    Turned, zoomed along each axis, shifted, mirrored half the time; then opacities, tone, blur, noise and marks.
    """
    matrix = placement(rng)
    border = int(rng.choice([cv2.BORDER_REPLICATE, cv2.BORDER_CONSTANT]))
    frame_TT = cv2.warpAffine(frame_TT, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=border)
    mask_TT = cv2.warpAffine(mask_TT, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
    grey_TT = frame_TT.astype(np.float32) / 255
    grey_TT = np.clip(grey_TT, 1e-3, 1) ** np.exp(rng.uniform(-0.6, 0.6))
    grey_TT += rng.uniform(0.05, 0.3) * soft_field(rng, int(rng.integers(2, 5)))
    if rng.random() < 0.5:
        grey_TT = whitened(grey_TT, mask_TT, rng)
    grey_TT = (grey_TT - 0.5) * rng.uniform(0.6, 1.5) + 0.5 + rng.uniform(-0.15, 0.15)
    if rng.random() < 0.3:
        grey_TT = np.asarray(cv2.GaussianBlur(grey_TT, (0, 0), rng.uniform(0.3, 1.5)))
    if rng.random() < 0.2:  # as an equalised film
        grey_TT = cv2.equalizeHist(to_uint8(grey_TT)).astype(np.float32) / 255
    grey_TT += rng.uniform(0, 0.06) * rng.standard_normal(grey_TT.shape, np.float32)
    for _ in range(rng.integers(0, 3)):
        draw_mark(grey_TT, rng)
    return to_uint8(grey_TT), np.where(mask_TT > 127, np.uint8(255), np.uint8(0))


def placement(rng: np.random.Generator) -> np.ndarray:
    """A random affine map, forward, 2×3."""
    turn = np.deg2rad(rng.uniform(-15, 15))
    zoom = np.exp(rng.uniform(-0.3, 0.3) + rng.uniform(-0.15, 0.15, 2))
    zoom[0] *= rng.choice([-1, 1])
    linear = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * zoom
    centre = (SIDE - 1) / 2
    shift = centre + SIDE * rng.uniform(-0.1, 0.1, 2) - linear @ (centre, centre)
    return np.column_stack([linear, shift])


def soft_field(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Smooth random shades, within about one of zero."""
    return cv2.resize(
        rng.uniform(-1, 1, (cells, cells)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
    )


def whitened(grey_TT: np.ndarray, mask_TT: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Opacities in the lungs, from a patch to most of one, since lungs must be found where disease hides them."""
    patches_TT = np.clip(
        rng.uniform(0.5, 2.5) * soft_field(rng, int(rng.integers(3, 9))) + rng.uniform(-0.5, 0.5), 0, 1
    )
    inside_TT = cv2.GaussianBlur(mask_TT.astype(np.float32) / 255, (0, 0), 3)
    tissue = float(np.quantile(grey_TT, 0.8))
    share_TT = rng.uniform(0.3, 1) * patches_TT * inside_TT
    return grey_TT + share_TT * np.maximum(tissue - grey_TT, 0)


def draw_mark(grey_TT: np.ndarray, rng: np.random.Generator) -> None:
    """A bar, a box or a line as of markers, shields and catheters."""
    level = float(rng.choice([0, 1])) if rng.random() < 0.7 else float(rng.random())
    start = tuple(rng.integers(0, SIDE, 2).tolist())
    if rng.random() < 0.5:
        size = rng.integers(2, SIDE // 6, 2)
        cv2.rectangle(grey_TT, start, (start[0] + int(size[0]), start[1] + int(size[1])), level, cv2.FILLED)
    else:
        cv2.line(grey_TT, start, tuple(rng.integers(0, SIDE, 2).tolist()), level, 1, cv2.LINE_AA)


def to_uint8(grey_TT: np.ndarray) -> np.ndarray:
    """Grey levels 0-1 to 0-255, rounded."""
    return (np.clip(grey_TT, 0, 1) * 255 + 0.5).astype(np.uint8)
