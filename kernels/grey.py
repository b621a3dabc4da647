"""Grey levels of a decoded radiograph: luma of colour, what is no grey, and the levels' histogram."""

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
def count_coloured(colour_HWC, tint_C, least):
    """How many pixels have a channel more than `least` levels away from grey × (1 + tint), grey being their mean.

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

    Levels are read eight bytes at once: single reads wait for writes to the counts wherever both lie at the same place
    of a page, and then take five times as long.  Four tables, so that equal neighbours need not wait for one another.
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
