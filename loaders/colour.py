"""Colour in a picture that should be grey, such as an overlay or an arrow."""

# H rows, W columns, C channels

from __future__ import annotations

import numpy as np

COLOURFUL = 25  # levels of 255 by which a channel leaves the mean of all three; JPEG's noise stays below it
SAMPLES = 320  # pixels along either axis that are looked at


def colour_share(colour_HWC: np.ndarray) -> float:
    """Share of pixels whose channels differ otherwise than the whole picture's do; a tinted film has none.

    colour_HWC: uint8 or uint16, three channels in any order, a fourth is ignored.
    """
    rows, columns = (max(1, side // SAMPLES) for side in colour_HWC.shape[:2])
    scale = 1 if colour_HWC.dtype == np.uint8 else 1 / 257
    few_HWC = colour_HWC[::rows, ::columns, :3].astype(np.float32) * scale
    grey_HW1 = few_HWC.mean(2, keepdims=True)
    # a tint is the same share of grey everywhere
    tint_HWC = few_HWC / (grey_HW1 + 1) - grey_HW1 / (grey_HW1 + 1)
    chroma_HWC = few_HWC - grey_HW1 * (1 + np.median(tint_HWC, axis=(0, 1)))
    return float((np.abs(chroma_HWC).max(2) > COLOURFUL).mean())
