"""Crops: the central crop, and the affine sample of training, both with grey levels mapped to [-1, 1]."""

# N batch, H W rows and columns of the crop, B bytes of a beton, 23 the two rows of an inverse affine matrix,
# SS pixels of a stored frame, flat

import numpy as np

from kernels.checksum import crc32c
from kernels.jit import inlined, kernel

MIDDLE = np.float32(127.5)
SCALE = np.float32(1 / 127.5)
HALF = np.float32(0.5)
TWICE = np.uint32(257)  # a byte times 257 is that byte twice


@inlined
def to_unit(level):
    """Map a grey level, float32 0 to 255, to [-1, 1]; both ends are exact (DESIGN, recipe)."""
    return (level - MIDDLE) * SCALE


@kernel
def crop_into(out_N1HW, bytes_B, offset_N, stored, crc_N=None):
    """Copy central crops out of stored frames and map grey levels 0-255 to [-1, 1].

    out_N1HW: float32, written whole.  bytes_B: uint8, the beton.  offset_N: int64, each frame's first byte.
    stored: side of the square stored frames, in pixels.
    crc_N: uint32, written where it is given: each stored frame's CRC32C.
    Errors: none here; Loader checks shapes and the reader checks offsets, once.  Source: DESIGN, Geometry.
    """
    crop = out_N1HW.shape[3]
    margin = (stored - crop) // 2
    for n in range(out_N1HW.shape[0]):
        if crc_N is not None:
            crc_N[n] = crc32c(bytes_B, offset_N[n], stored * stored)
        for row in range(crop):
            start = offset_N[n] + (row + margin) * stored + margin
            row_W = bytes_B[start : start + crop]  # no index into a slice can be negative: else it does not vectorise
            for column in range(crop):
                out_N1HW[n, 0, row, column] = to_unit(np.float32(row_W[column]))


@kernel
def affine_scratch(crop, stored):
    """Buffers for one row and one packed frame of `affine_into`, for each thread its own.

    crop, stored: sides in pixels.  Gives places int32, weights float32, corners uint32, and quads uint32.
    """
    place_W, weight_2W = np.empty(crop, np.int32), np.empty((2, crop), np.float32)
    return place_W, weight_2W, np.empty(crop, np.uint32), np.empty(stored * stored, np.uint32)


@inlined
def pack_quads(quad_SS, frame_SS, stored, low, high):
    """Pack each pixel with its right, lower and lower right neighbours, lowest byte first.

    Neighbours beyond high are the pixels at high, as by clamping.
    """
    steps = high - low
    for row in range(low, high + 1):
        start, below = row * stored + low, min(row + 1, high) * stored + low
        upper, lower = frame_SS[start : start + steps + 1], frame_SS[below : below + steps + 1]
        quads = quad_SS[start : start + steps + 1]
        for column in range(steps):
            quads[column] = (
                np.uint32(upper[column])
                | np.uint32(upper[column + 1]) << np.uint32(8)
                | np.uint32(lower[column]) << np.uint32(16)
                | np.uint32(lower[column + 1]) << np.uint32(24)
            )
        quads[steps] = np.uint32(upper[steps]) * TWICE | (np.uint32(lower[steps]) * TWICE) << np.uint32(16)


@kernel
def affine_into(out_N1HW, bytes_B, offset_N, stored, inverse_N23, low, high, scratch, crc_N=None):
    """Sample rotated, zoomed crops out of stored frames and map grey levels 0-255 to [-1, 1].

    out_N1HW: float32, written whole.  bytes_B: uint8, the beton.  offset_N: int64, each frame's first byte.
    stored: side of the square stored frames, in pixels.
    inverse_N23: float32; take an output pixel's centre (x, y, 1), integer + 0.5, to stored coordinates.
    low, high: first and last pixel index that may be read, on both axes; coordinates beyond clamp to them.
    scratch: of affine_scratch(W, stored), overwritten.
    crc_N: uint32, written where it is given: each stored frame's CRC32C.
    Bilinear.  With the identity at the crop's margin the result equals `crop_into` to the bit.
    Errors: none here; Loader checks shapes and the reader checks offsets, once.  Source: DESIGN, Geometry.

    Fetching four bytes for each pixel is what costs time. So neighbours are packed first, which vectorises, and one
    fetch gets all four. A row takes three loops: the first and the last, all arithmetic, vectorise too; the fetch
    between them cannot.
    """
    place_W, weight_2W, corner_W, quad_SS = scratch
    side = out_N1HW.shape[3]
    stride = np.int32(stored)
    lowest, highest, byte = np.float32(low), np.float32(high), np.uint32(255)
    for n in range(out_N1HW.shape[0]):
        if crc_N is not None:
            crc_N[n] = crc32c(bytes_B, offset_N[n], stored * stored)
        pack_quads(quad_SS, bytes_B[offset_N[n] : offset_N[n] + stored * stored], stored, low, high)
        xx, xy, x1 = inverse_N23[n, 0, 0], inverse_N23[n, 0, 1], inverse_N23[n, 0, 2]
        yx, yy, y1 = inverse_N23[n, 1, 0], inverse_N23[n, 1, 1], inverse_N23[n, 1, 2]
        for row in range(side):
            down = np.float32(row) + HALF
            row_x = xy * down + x1 - HALF
            row_y = yy * down + y1 - HALF
            for column in range(side):
                across = np.float32(np.int32(column)) + HALF
                x = min(max(xx * across + row_x, lowest), highest)
                y = min(max(yx * across + row_y, lowest), highest)
                left, top = np.int32(x), np.int32(y)
                weight_2W[0, column] = x - np.float32(left)
                weight_2W[1, column] = y - np.float32(top)
                place_W[column] = top * stride + left
            for column in range(side):
                corner_W[column] = quad_SS[np.uint32(place_W[column])]
            for column in range(side):
                quad, weight_x = corner_W[column], weight_2W[0, column]
                top_left, top_right = np.float32(quad & byte), np.float32(quad >> np.uint32(8) & byte)
                low_left, low_right = np.float32(quad >> np.uint32(16) & byte), np.float32(quad >> np.uint32(24))
                upper = top_left + (top_right - top_left) * weight_x
                lower = low_left + (low_right - low_left) * weight_x
                out_N1HW[n, 0, row, column] = to_unit(upper + (lower - upper) * weight_2W[1, column])
