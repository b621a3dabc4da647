"""Colour in a picture that should be grey, such as an overlay or an arrow."""

# H rows, W columns, C channels

from __future__ import annotations

import numpy as np

from kernels.grey import count_coloured

COLOURFUL = 25  # levels of 255 by which a channel leaves the mean of all three; JPEG's noise stays below it
SAMPLES, TINT_SAMPLES = 320, 80  # pixels along either axis that are looked at, for colour and for the tint


def colour_share(colour_HWC: np.ndarray) -> float:
    """Share of pixels whose channels differ otherwise than the whole picture's do; a tinted film has none.

    colour_HWC: uint8 or uint16, three channels in any order, a fourth is ignored.
    """
    few_HWC = sampled(colour_HWC, TINT_SAMPLES).astype(np.float32) * (1 if colour_HWC.dtype == np.uint8 else 1 / 257)
    grey_HW1 = few_HWC.mean(2, keepdims=True)
    # a tint is the same share of grey everywhere
    tint_C = np.median((few_HWC - grey_HW1) / (grey_HW1 + 1), axis=(0, 1))
    looked_at_HWC = sampled(colour_HWC, SAMPLES)
    levels = 1 if colour_HWC.dtype == np.uint8 else 257
    coloured = count_coloured(looked_at_HWC, tint_C.astype(np.float32), np.float32(COLOURFUL * levels))
    return coloured / (looked_at_HWC.shape[0] * looked_at_HWC.shape[1])


def sampled(colour_HWC: np.ndarray, samples: int) -> np.ndarray:
    """Every so many pixels, so that at least `samples` along either axis are left, or all; without a fourth channel."""
    rows, columns = (max(1, side // samples) for side in colour_HWC.shape[:2])
    return colour_HWC[::rows, ::columns, :3]
