"""Decoding: PNG filters undone, colour to grey, grey levels to bytes, and areas averaged."""

# H rows, W columns of the radiograph, h rows, w columns of a smaller picture, C colour channels, L grey levels,
# B bytes of a row, F filtered bytes, each row after the number of its filter

import numpy as np

from kernels.jit import kernel

BLACK, WHITE, HALF = np.float32(0), np.float32(255), np.float32(0.5)
NONE, SUB, UP, AVERAGE, PAETH = range(5)  # PNG filters


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
def count_coloured(colour_HWC, tint_C, least):
    """Number of pixels with a channel more than `least` levels away from grey × (1 + tint), grey being their mean.

    colour_HWC: uint8 or uint16, three channels.  tint_C: float32.  least: float32, levels.
    """
    coloured = 0
    for row in range(colour_HWC.shape[0]):
        for column in range(colour_HWC.shape[1]):
            one = np.float32(colour_HWC[row, column, 0])
            two = np.float32(colour_HWC[row, column, 1])
            three = np.float32(colour_HWC[row, column, 2])
            grey = (one + two + three) / np.float32(3)
            away = abs(one - grey - grey * tint_C[0])
            away = max(away, abs(two - grey - grey * tint_C[1]), abs(three - grey - grey * tint_C[2]))
            coloured += away > least
    return coloured


@kernel
def histogram_into(count_L, grey_HW):
    """Count each grey level.  count_L: int64 of 256 or 65536, overwritten.  grey_HW: uint8 or uint16, contiguous.

    Levels are read eight bytes at once: single reads wait for writes to the counts that have the same offset in a page,
    and then take five times as long.  Four tables, so that equal neighbours need not wait for one another.
    """
    levels_N = grey_HW.reshape(-1)
    bits = np.uint64(8 * grey_HW.itemsize)
    in_word = 8 // grey_HW.itemsize
    whole = levels_N.size // in_word * in_word
    mask = np.uint64(len(count_L) - 1)
    part_4L = np.zeros((4, len(count_L)), np.uint32)
    first_L, second_L, third_L, fourth_L = part_4L
    for word in levels_N[:whole].view(np.uint64):
        for _ in range(in_word // 4):
            first_L[word & mask] += np.uint32(1)
            second_L[(word >> bits) & mask] += np.uint32(1)
            third_L[(word >> (2 * bits)) & mask] += np.uint32(1)
            fourth_L[(word >> (3 * bits)) & mask] += np.uint32(1)
            word >>= np.uint64(32)
    for level in levels_N[whole:]:
        first_L[level] += np.uint32(1)
    for level in range(len(count_L)):
        count_L[level] = np.int64(first_L[level]) + second_L[level] + third_L[level] + fourth_L[level]


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


@kernel
def unfilter_into(out_HB, filtered_F, pixel_bytes):
    """Undo the filter of every row.  Gives False for a filter that does not exist.

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
