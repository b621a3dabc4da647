"""Columns of a 3×3 convolution: each pixel's left neighbour, itself and its right neighbour side by side.

A third of what im2col makes, since the rows above and below are rows of the same matrix.
"""

# H W rows and columns, C channels, M = rows × W

import numpy as np

from kernels.jit import kernel

ZERO = np.float32(0)


@kernel
def columns_into(out_M3C, picture_HWC, start, stop):
    """Copy rows start to stop - 1; beyond the edge is zero.  Both float32; out's first (stop - start) × W rows."""
    width, channels = picture_HWC.shape[1:]
    for row in range(start, stop):
        lines = out_M3C[(row - start) * width : (row - start + 1) * width]
        lines[0, :channels] = ZERO
        lines[width - 1, 2 * channels :] = ZERO
        for column in range(width):
            left = max(column - 1, 0)
            begin = (left + 1 - column) * channels
            pixels = picture_HWC[row, left : min(column + 2, width)].reshape(-1)
            line = lines[column, begin : begin + pixels.size]
            for place in range(pixels.size):
                line[place] = pixels[place]
