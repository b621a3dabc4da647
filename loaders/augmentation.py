"""The random affine of each training sample: rotation and zoom as one inverse matrix (DESIGN, Geometry)."""

# N samples, 23 the two rows of an inverse affine matrix

from __future__ import annotations

import numpy as np

from loaders.config import LoaderConfig
from loaders.randomness import AUGMENTATION, draw, unit_interval


def affine_parameters(config: LoaderConfig, epoch: int, sample_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle in radians and zoom factor of each sample in this epoch, float64.

    The angle is uniform in ±rotation; the zoom 1 ± m, m uniform in [zoom_low, zoom_high], the sign fair.
    """
    words_N4 = draw(config.seed, AUGMENTATION, epoch, sample_N)
    angle_N = np.deg2rad(config.rotation) * (2 * unit_interval(words_N4[:, 0]) - 1)
    amount_N = config.zoom_low + (config.zoom_high - config.zoom_low) * unit_interval(words_N4[:, 1])
    sign_N = np.where(words_N4[:, 2] & 1, 1.0, -1.0)
    return angle_N, 1 + sign_N * amount_N


def inverse_matrices(angle_N: np.ndarray, zoom_N: np.ndarray, crop: int, stored: int) -> np.ndarray:
    """Inverse matrices about the frame's centre: from output pixel centres to stored coordinates, float32 N23.

    A positive angle turns the picture counter-clockwise as seen; zoom above 1 magnifies.
    """
    cosine_N, sine_N = np.cos(angle_N) / zoom_N, np.sin(angle_N) / zoom_N
    inverse_N23 = np.empty((len(angle_N), 2, 3), np.float64)
    inverse_N23[:, 0, 0], inverse_N23[:, 0, 1] = cosine_N, -sine_N
    inverse_N23[:, 1, 0], inverse_N23[:, 1, 1] = sine_N, cosine_N
    inverse_N23[:, 0, 2] = stored / 2 - crop / 2 * (cosine_N - sine_N)
    inverse_N23[:, 1, 2] = stored / 2 - crop / 2 * (sine_N + cosine_N)
    return inverse_N23.astype(np.float32)


def sampled_pixels(config: LoaderConfig, crop: int, stored: int) -> tuple[int, int]:
    """The first and the last row, and column, of the stored frame that training samples; beyond them it clamps."""
    margin = (stored - crop) // 2 if config.augment_from == "crop" else 0
    return margin, stored - 1 - margin


def epoch_matrices(config: LoaderConfig, epoch: int, num_samples: int, crop: int, stored: int) -> np.ndarray:
    """The inverse matrix of every sample for a whole epoch, float32 N23, drawn on the host."""
    return inverse_matrices(*affine_parameters(config, epoch, np.arange(num_samples)), crop, stored)
