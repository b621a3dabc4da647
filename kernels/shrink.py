"""Shrinking: grey levels stretched to 0-255 and averaged over areas, in one pass over a decoded radiograph."""

# H rows, W columns of the radiograph; h rows, w columns of the smaller picture

import numpy as np

from kernels.jit import kernel

BLACK, WHITE, HALF = np.float32(0), np.float32(255), np.float32(0.5)


@kernel
def shrink_into(out_hw, grey_HW, low, high, sum_W):
    """Map levels linearly so that low gives 0 and high gives 255, saturating, and average over each pixel's area.

    out_hw: uint8, no side longer than grey_HW's; one as long is copied.  grey_HW: uint8 or uint16, contiguous.
    low < high.  sum_W: float32, overwritten.  Rounded to nearest, once, at the end.
    Sums are float32: within half a level for areas of up to 2^16 rows or columns.
    The area of an output pixel covers whole input pixels and parts of those at its edges, as in OpenCV's INTER_AREA.
    Source: DESIGN, Geometry.
    """
    rows, columns = out_hw.shape
    height, width = grey_HW.shape
    scale, black = np.float32(255.0 / (high - low)), np.float32(low)
    tall, wide = height / rows, width / columns
    share = np.float32(1.0 / (tall * wide))
    for row in range(rows):
        first, last = row * tall, (row + 1) * tall
        sum_W[:] = 0
        for line in range(np.int64(first), min(np.int64(np.ceil(last)), height)):
            weight = np.float32(min(last, line + 1.0) - max(first, np.float64(line)))
            grey_W = grey_HW[line]
            for column in range(width):
                sum_W[column] += min(max((np.float32(grey_W[column]) - black) * scale, BLACK), WHITE) * weight
        for column in range(columns):
            left, right = column * wide, (column + 1) * wide
            begin, end = np.int64(left), min(np.int64(right), width - 1)
            # the first pixel is counted whole below, and the one at the end not at all
            total = sum_W[end] * np.float32(right - end) - sum_W[begin] * np.float32(left - begin)
            whole = sum_W[begin:end]
            for place in range(end - begin):
                total += whole[place]
            out_hw[row, column] = np.uint8(min(total * share + HALF, WHITE))
