"""The fused block: batch norm, ReLU and max-pool 2×2 of a convolution's output in one pass, and its gradients.

Pictures and gradients are float32, or all of them bfloat16 as uint16 (kernels.bfloat16); sums are float64.
"""

# N images, of which start to stop - 1 are processed, H W rows and columns of the convolution, h w of the pooled picture
# (H // 2, W // 2), C channels, M = rows × W

import numpy as np

from kernels.bfloat16 import narrow, wide
from kernels.jit import inlined, kernel

ZERO = np.float32(0)
DEAD = np.uint8(4)  # instead of a corner: the ReLU was closed, and no gradient passes


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


@inlined
def extreme_of(a, b, c, d, sign):
    """The one of four pixels that is largest times sign, and its corner; the first of equals.

    One that is not a number counts as largest, as in PyTorch: it must not vanish.
    """
    in_upper, in_lower = (b * sign > a * sign) | (b != b), (d * sign > c * sign) | (d != d)
    upper, lower = b if in_upper else a, d if in_lower else c
    is_lower = (lower * sign > upper * sign) | (lower != lower)
    corner = np.uint8(in_lower) + np.uint8(2) if is_lower else np.uint8(in_upper)
    return lower if is_lower else upper, corner


@kernel
def pool_into(extreme_NhwC, corner_NhwC, sum_N2C, convolved_NHWC, sign_C, start, stop):
    """Find each 2×2 window's extreme, and sum up every pixel for the batch statistics, in one pass.

    extreme_NhwC: written whole: the convolution's output where the normalised one is largest, which is at its
    maximum, or at its minimum where batch norm's weight is negative.  corner_NhwC: uint8, written whole: which of the
    window's pixels, 0 to 3 by rows; the first of equals.  sum_N2C: float64, overwritten: sums and sums of squares; an
    odd last row or column counts.  sign_C: float32, that weight's sign, 1, 0 or -1.
    Source: batch norm is monotonous, so it commutes with the maximum (DESIGN, Devices).
    """
    for image in range(start, stop):
        extreme_hwC, corner_hwC = extreme_NhwC[image], corner_NhwC[image]
        convolved_HWC, sum_2C = convolved_NHWC[image], sum_N2C[image]
        height, width, channels = convolved_HWC.shape
        rows, columns = extreme_hwC.shape[:2]
        sum_2C[:] = 0
        for row in range(rows):
            for column in range(columns):
                top, left = 2 * row, 2 * column
                upper_left, upper_right = convolved_HWC[top, left], convolved_HWC[top, left + 1]
                lower_left, lower_right = convolved_HWC[top + 1, left], convolved_HWC[top + 1, left + 1]
                extreme_C, corner_C = extreme_hwC[row, column], corner_hwC[row, column]
                for channel in range(channels):
                    a, b = wide(upper_left[channel]), wide(upper_right[channel])
                    c, d = wide(lower_left[channel]), wide(lower_right[channel])
                    extreme, corner = extreme_of(a, b, c, d, sign_C[channel])
                    extreme_C[channel], corner_C[channel] = narrow(extreme, extreme_C), corner
                for channel in range(channels):
                    a, b = np.float64(wide(upper_left[channel])), np.float64(wide(upper_right[channel]))
                    c, d = np.float64(wide(lower_left[channel])), np.float64(wide(lower_right[channel]))
                    sum_2C[0, channel] += (a + b) + (c + d)
                    sum_2C[1, channel] += (a * a + b * b) + (c * c + d * d)
        for row in range(height):
            for column in range(2 * columns if row < 2 * rows else 0, width):
                pixel_C = convolved_HWC[row, column]
                for channel in range(channels):
                    value = np.float64(wide(pixel_C[channel]))
                    sum_2C[0, channel] += value
                    sum_2C[1, channel] += value * value


@kernel
def activate_into(out_NhwC, corner_NhwC, extreme_NhwC, mean_C, scale_C, shift_C, start, stop):
    """Normalise and rectify the extremes; corners whose ReLU is closed become DEAD.

    out_NhwC: written whole: max(0, (extreme - mean) · scale + shift); not a number stays what it is.
    """
    for image in range(start, stop):
        out_hwC, corner_hwC, extreme_hwC = out_NhwC[image], corner_NhwC[image], extreme_NhwC[image]
        channels = out_hwC.shape[2]
        for row in range(out_hwC.shape[0]):
            for column in range(out_hwC.shape[1]):
                out_C, corner_C, extreme_C = out_hwC[row, column], corner_hwC[row, column], extreme_hwC[row, column]
                for channel in range(channels):
                    value = (wide(extreme_C[channel]) - mean_C[channel]) * scale_C[channel] + shift_C[channel]
                    closed = value <= ZERO
                    out_C[channel] = narrow(ZERO if closed else value, out_C)
                    corner_C[channel] = DEAD if closed else corner_C[channel]


@kernel
def sum_gradients_into(sum_N2C, gradient_NhwC, corner_NhwC, extreme_NhwC, mean_C, start, stop):
    """Sum up what reaches batch norm's shift and weight.

    sum_N2C: float64, overwritten: of gradients that pass the ReLU, and of those times (extreme - mean).
    """
    for image in range(start, stop):
        sum_2C, extreme_hwC = sum_N2C[image], extreme_NhwC[image]
        gradient_hwC, corner_hwC = gradient_NhwC[image], corner_NhwC[image]
        channels = gradient_hwC.shape[2]
        sum_2C[:] = 0
        for row in range(gradient_hwC.shape[0]):
            for column in range(gradient_hwC.shape[1]):
                gradient_C, corner_C = gradient_hwC[row, column], corner_hwC[row, column]
                extreme_C = extreme_hwC[row, column]
                for channel in range(channels):
                    passed = ZERO if corner_C[channel] == DEAD else wide(gradient_C[channel])
                    sum_2C[0, channel] += np.float64(passed)
                    sum_2C[1, channel] += np.float64(passed) * np.float64(wide(extreme_C[channel]) - mean_C[channel])


@kernel
def gradient_in_place(convolved_NHWC, gradient_NhwC, corner_NhwC, mean_C, scale_C, slope_C, offset_C, start, stop):
    """Turn the convolution's output into the gradient with respect to it, in place: no second full-size array.

    Each pixel becomes scale · (gradient of its window, if it is the extreme and the ReLU open) - offset
    - slope · (pixel - mean).  Source: Ioffe, Szegedy 2015, "Batch normalization", section 3.
    """
    for image in range(start, stop):
        convolved_HWC, gradient_hwC, corner_hwC = convolved_NHWC[image], gradient_NhwC[image], corner_NhwC[image]
        height, width, channels = convolved_HWC.shape
        rows, columns = gradient_hwC.shape[:2]
        for row in range(rows):
            for column in range(columns):
                gradient_C, corner_C = gradient_hwC[row, column], corner_hwC[row, column]
                for corner in range(4):  # one after another: with four arrays to write, the loop would not vectorise
                    pixel_C = convolved_HWC[2 * row + corner // 2, 2 * column + corner % 2]
                    for channel in range(channels):
                        passed = wide(gradient_C[channel]) if corner_C[channel] == corner else ZERO
                        centred = wide(pixel_C[channel]) - mean_C[channel]
                        through_statistics = offset_C[channel] + slope_C[channel] * centred
                        pixel_C[channel] = narrow(passed * scale_C[channel] - through_statistics, pixel_C)
        for row in range(height):  # pixels of no window
            for column in range(2 * columns if row < 2 * rows else 0, width):
                pixel_C = convolved_HWC[row, column]
                for channel in range(channels):
                    centred = wide(pixel_C[channel]) - mean_C[channel]
                    pixel_C[channel] = narrow(-(offset_C[channel] + slope_C[channel] * centred), pixel_C)
