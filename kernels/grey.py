"""Grey levels of a decoded radiograph: luma of colour, and their histogram."""

# H rows, W columns, C colour channels, L grey levels

import numpy as np

from kernels.jit import kernel


@kernel
def luma_into(out_HW, colour_HWC, red, blue):
    """Rec. 601 luma, rounded to nearest; white stays white at any depth.

    out_HW, colour_HWC: both uint8 or both uint16.  red, blue: their channels, 0 and 2 or 2 and 0; a fourth is ignored.
    Source: ITU-R BT.601; DESIGN, Geometry.
    """
    for row in range(out_HW.shape[0]):
        for column in range(out_HW.shape[1]):
            # weights in 1/65536 that add up to 65536; 65535 × 65536 + 32768 just fits 32 bits
            weighted = np.uint32(19595) * np.uint32(colour_HWC[row, column, red])
            weighted += np.uint32(38470) * np.uint32(colour_HWC[row, column, 1])
            weighted += np.uint32(7471) * np.uint32(colour_HWC[row, column, blue])
            out_HW[row, column] = (weighted + np.uint32(32768)) >> np.uint32(16)


@kernel
def histogram_into(count_L, grey_HW):
    """Count each grey level.  count_L: int64 of 256 or 65536, overwritten.  grey_HW: uint8 or uint16."""
    count_L[:] = 0
    for row in range(grey_HW.shape[0]):
        for column in range(grey_HW.shape[1]):
            count_L[grey_HW[row, column]] += 1
