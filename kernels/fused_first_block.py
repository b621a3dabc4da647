"""The first block of the network, whose input has one channel: its convolution is cheaper to repeat than to store.

At 224 the convolution's output is 32 times as large as the frames. So it is never stored: batch statistics follow from
the frames' 9×9 correlations, and the gradient of the weights from one pass over the pooled gradients.
"""

# N images, of which start to stop - 1 are processed; H W rows and columns of a frame, h w of the pooled picture
# (H // 2, W // 2), C channels, 9 taps of the 3×3 window, T the taps and their sum; P the frame padded by one pixel of
# zeros on each side

import numpy as np

from kernels.bfloat16 import narrow, wide
from kernels.fused_block import DEAD, ZERO, extreme_of
from kernels.jit import inlined, kernel

TAPS = 9


@kernel
def correlate_into(sum_N9, correlation_N99, frame_NPP, partial_W, start, stop):
    """Sum up each tap, and each product of two taps, over a frame.

    sum_N9, correlation_N99: float64, overwritten; the upper triangle and the lower alike.  frame_NPP: float32, padded.
    partial_W: float64, overwritten.
    """
    for image in range(start, stop):
        sum_9, correlation_99, frame_PP = sum_N9[image], correlation_N99[image], frame_NPP[image]
        height, width = frame_PP.shape[0] - 2, frame_PP.shape[1] - 2
        for one in range(TAPS):
            partial_W[:] = 0
            for row in range(height):
                one_W = frame_PP[row + one // 3, one % 3 : one % 3 + width]
                for column in range(width):
                    partial_W[column] += np.float64(one_W[column])
            sum_9[one] = partial_W.sum()
            for other in range(one, TAPS):
                partial_W[:] = 0
                for row in range(height):
                    one_W = frame_PP[row + one // 3, one % 3 : one % 3 + width]
                    other_W = frame_PP[row + other // 3, other % 3 : other % 3 + width]
                    for column in range(width):
                        partial_W[column] += np.float64(one_W[column]) * np.float64(other_W[column])
                correlation_99[one, other] = correlation_99[other, one] = partial_W.sum()


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
def first_block_into(
    out_NhwC, corner_NhwC, frame_NPP, weight_9C, sign_C, mean_C, scale_C, shift_C, pixel_4C, start, stop
):
    """Convolution, batch norm, pooling and ReLU of one frame.

    out_NhwC: float32 or bfloat16, corner_NhwC: uint8, both written whole, as by pool_into and activate_into of
    kernels.fused_block.  pixel_4C: float32, overwritten.
    """
    for image in range(start, stop):
        out_hwC, corner_hwC, frame_PP = out_NhwC[image], corner_NhwC[image], frame_NPP[image]
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
                    out_C[channel] = narrow(ZERO if closed else value, out_C)
                    corner_C[channel] = DEAD if closed else corner


@kernel
def first_gradients_into(sum_NTC, gradient_NhwC, corner_NhwC, frame_NPP, partial_9C, passed_4C, start, stop):
    """Sum up each gradient times the nine pixels that its extreme came from.

    sum_NTC: float64, overwritten: a row for each of the nine taps, then the sums of the gradients alone.
    gradient_NhwC: float32 or bfloat16.
    partial_9C: float32, of one row of windows; passed_4C: float32, a window's gradients by corner.  Both overwritten.
    """
    for image in range(start, stop):
        sum_TC, frame_PP = sum_NTC[image], frame_NPP[image]
        gradient_hwC, corner_hwC = gradient_NhwC[image], corner_NhwC[image]
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
                        passed_C[channel] = wide(gradient_C[channel]) if corner_C[channel] == corner else ZERO
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
