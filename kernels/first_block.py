"""The first block of the network, whose input has one channel: its convolution is cheaper to redo than to keep.

At 224 the convolution's output is 32 times as large as the frames. So it is never stored: batch statistics follow from
the frames' 9×9 correlations, and the gradient of the weights from one pass over the pooled gradients.
"""

# H W rows and columns of a frame, h w of the pooled picture (H // 2, W // 2), C channels, 9 taps of the 3×3 window,
# T the taps and their sum; P the frame padded by one pixel of zero on each side

import numpy as np

from kernels.jit import inlined, kernel
from kernels.pooled_norm import DEAD, ZERO, extreme_of

TAPS = 9


@kernel
def correlate_into(sum_9, correlation_99, frame_PP):
    """Sum up each tap, and each product of two taps, over a frame.

    sum_9, correlation_99: float64, overwritten; the upper triangle and the lower alike.  frame_PP: float32, padded.
    """
    height, width = frame_PP.shape[0] - 2, frame_PP.shape[1] - 2
    partial_W = np.empty(width, np.float64)
    for first in range(TAPS):
        for second in range(first, TAPS + 1):
            partial_W[:] = 0
            for row in range(height):
                first_W = frame_PP[row + first // 3, first % 3 : first % 3 + width]
                if second == TAPS:
                    for column in range(width):
                        partial_W[column] += np.float64(first_W[column])
                else:
                    second_W = frame_PP[row + second // 3, second % 3 : second % 3 + width]
                    for column in range(width):
                        partial_W[column] += np.float64(first_W[column]) * np.float64(second_W[column])
            total = partial_W.sum()
            if second == TAPS:
                sum_9[first] = total
            else:
                correlation_99[first, second] = correlation_99[second, first] = total


@inlined
def convolve(out_C, frame_PP, row, column, weight_9C):
    """One pixel of the convolution, in every channel."""
    upper, middle, lower = frame_PP[row], frame_PP[row + 1], frame_PP[row + 2]
    a, b, c = upper[column], upper[column + 1], upper[column + 2]
    d, e, f = middle[column], middle[column + 1], middle[column + 2]
    g, h, i = lower[column], lower[column + 1], lower[column + 2]
    for channel in range(out_C.size):
        out_C[channel] = (
            (a * weight_9C[0, channel] + b * weight_9C[1, channel] + c * weight_9C[2, channel])
            + (d * weight_9C[3, channel] + e * weight_9C[4, channel] + f * weight_9C[5, channel])
            + (g * weight_9C[6, channel] + h * weight_9C[7, channel] + i * weight_9C[8, channel])
        )


@kernel
def first_block_into(out_hwC, corner_hwC, frame_PP, weight_9C, sign_C, mean_C, scale_C, shift_C, pixel_4C):
    """Convolution, batch norm, pooling and ReLU of one frame.

    out_hwC: float32, corner_hwC: uint8, both written whole, as by pool_into and activate_into of kernels.pooled_norm.
    pixel_4C: float32, overwritten.
    """
    channels = out_hwC.shape[2]
    for row in range(out_hwC.shape[0]):
        for column in range(out_hwC.shape[1]):
            for corner in range(4):
                convolve(pixel_4C[corner], frame_PP, 2 * row + corner // 2, 2 * column + corner % 2, weight_9C)
            out_C, corner_C = out_hwC[row, column], corner_hwC[row, column]
            first_C, second_C, third_C, fourth_C = pixel_4C[0], pixel_4C[1], pixel_4C[2], pixel_4C[3]
            for channel in range(channels):
                a, b, c, d = first_C[channel], second_C[channel], third_C[channel], fourth_C[channel]
                extreme, corner = extreme_of(a, b, c, d, sign_C[channel])
                value = (extreme - mean_C[channel]) * scale_C[channel] + shift_C[channel]
                closed = value <= ZERO
                out_C[channel] = ZERO if closed else value
                corner_C[channel] = DEAD if closed else corner


@kernel
def first_gradients_into(sum_TC, gradient_hwC, corner_hwC, frame_PP, partial_9C, passed_4C):
    """Sum up each gradient times the nine pixels that its extreme came from.

    sum_TC: float64, overwritten: a row for each of the nine taps, then the sums of the gradients alone.
    partial_9C: float32, of one row of windows; passed_4C: float32, a window's gradients by corner.  Both overwritten.
    """
    rows, columns, channels = gradient_hwC.shape
    sum_TC[:] = 0
    alone_C = sum_TC[TAPS]
    first_C, second_C, third_C, fourth_C = passed_4C[0], passed_4C[1], passed_4C[2], passed_4C[3]
    for row in range(rows):
        partial_9C[:] = 0
        for column in range(columns):
            gradient_C, corner_C = gradient_hwC[row, column], corner_hwC[row, column]
            for corner in range(4):
                passed_C = passed_4C[corner]
                for channel in range(channels):
                    passed_C[channel] = gradient_C[channel] if corner_C[channel] == corner else ZERO
            for tap in range(TAPS):
                upper = frame_PP[2 * row + tap // 3, 2 * column + tap % 3 : 2 * column + tap % 3 + 2]
                lower = frame_PP[2 * row + tap // 3 + 1, 2 * column + tap % 3 : 2 * column + tap % 3 + 2]
                a, b, c, d = upper[0], upper[1], lower[0], lower[1]
                partial_C = partial_9C[tap]
                for channel in range(channels):
                    partial_C[channel] += (first_C[channel] * a + second_C[channel] * b) + (
                        third_C[channel] * c + fourth_C[channel] * d
                    )
            for channel in range(channels):
                passed = (first_C[channel] + second_C[channel]) + (third_C[channel] + fourth_C[channel])
                alone_C[channel] += np.float64(passed)
        for tap in range(TAPS):
            for channel in range(channels):
                sum_TC[tap, channel] += np.float64(partial_9C[tap, channel])
