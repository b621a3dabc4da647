"""Grey levels of a decoded radiograph: their histogram, and the linear map of its percentiles to 0-255."""

# H rows, W columns, C colour channels (blue, green, red), L grey levels

import numpy as np

from kernels.jit import kernel


@kernel
def luma_into(out_HW, colour_HWC):
    """Rec. 601 luma of blue, green, red samples, rounded to nearest.

    out_HW, colour_HWC: both uint8 or both uint16.  Source: ITU-R BT.601; DESIGN, Geometry.
    """
    for row in range(out_HW.shape[0]):
        for column in range(out_HW.shape[1]):
            blue = np.uint32(colour_HWC[row, column, 0])
            green = np.uint32(colour_HWC[row, column, 1])
            red = np.uint32(colour_HWC[row, column, 2])
            # weights in 1/65536 sum to 65536 (19595 + 38470 + 7471), so white stays white at any depth
            out_HW[row, column] = (
                np.uint64(19595) * red + np.uint64(38470) * green + np.uint64(7471) * blue + 32768
            ) >> 16


@kernel
def histogram_into(count_L, grey_HW):
    """Count each grey level.  count_L: int64 of 256 or 65536, overwritten.  grey_HW: uint8 or uint16."""
    count_L[:] = 0
    for row in range(grey_HW.shape[0]):
        for column in range(grey_HW.shape[1]):
            count_L[grey_HW[row, column]] += 1


@kernel
def stretch_into(out_HW, grey_HW, low, high):
    """Map levels linearly so that low gives 0 and high gives 255, saturating, rounded to nearest.

    out_HW: uint8.  grey_HW: uint8 or uint16.  low < high.  Source: DESIGN, Geometry.
    """
    scale = 255.0 / (high - low)
    for row in range(grey_HW.shape[0]):
        for column in range(grey_HW.shape[1]):
            level = (np.float64(grey_HW[row, column]) - low) * scale + 0.5
            out_HW[row, column] = np.uint8(min(max(level, 0.0), 255.0))
