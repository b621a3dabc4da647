"""Undoing the filters of PNG rows, which predict each byte from its neighbours."""

# H rows, B bytes of a row; F filtered bytes, each row behind the number of its filter

import numpy as np

from kernels.jit import kernel

NONE, SUB, UP, AVERAGE, PAETH = range(5)


@kernel
def unfilter_into(out_HB, filtered_F, pixel_bytes):
    """Put back the bytes of every row.  Gives False at a filter that does not exist.

    out_HB: uint8, written whole.  filtered_F: uint8 of H × (1 + B).  pixel_bytes: of one pixel, 1 to 8; divides B.
    Source: Portable Network Graphics (W3C, third edition), section 9.
    """
    rows, width = out_HB.shape
    for row in range(rows):
        start = row * (width + 1)
        kind, line_B, out_B = filtered_F[start], filtered_F[start + 1 : start + 1 + width], out_HB[row]
        if kind > PAETH:
            return False
        if kind == NONE or (kind == UP and row == 0):
            out_B[:] = line_B
            continue
        above_B = out_HB[max(row - 1, 0)]
        if kind == UP:
            for place in range(width):
                out_B[place] = line_B[place] + above_B[place]
            continue
        if row == 0:
            above_B = np.zeros_like(line_B)
        for channel in range(pixel_bytes):  # by channel, so that the neighbours stay in registers
            left, corner = np.int32(0), np.int32(0)
            for place in range(channel, width, pixel_bytes):
                above = np.int32(above_B[place])
                if kind == SUB:
                    guess = left
                elif kind == AVERAGE:
                    guess = (left + above) >> 1
                else:  # nearest to left + above - corner: the standard's choice, in fewer steps that wait for left
                    threshold = 3 * corner - above - left
                    low, high = min(above, left), max(above, left)
                    guess = low if high <= threshold else corner
                    guess = high if threshold <= low else guess
                left, corner = (np.int32(line_B[place]) + guess) & 255, above
                out_B[place] = left
    return True
