"""Grey levels as shares of white, whatever the bit depth."""

# H rows, W columns

from __future__ import annotations

import numpy as np


def top_level(grey_HW: np.ndarray) -> int:
    """White: 255, or for uint16 the smallest of 255, 511, … 65535 that holds every level."""
    return max(255, (1 << int(grey_HW.max()).bit_length()) - 1)


def from_share(share: np.ndarray, like_HW: np.ndarray) -> np.ndarray:
    """Shares of white, any shape, to levels of like's type."""
    return (np.clip(share, 0, 1) * top_level(like_HW) + 0.5).astype(like_HW.dtype)


def to_share(grey_HW: np.ndarray) -> np.ndarray:
    """Levels to float32 shares of white."""
    return grey_HW.astype(np.float32) / np.float32(top_level(grey_HW))
