"""The training crop: crop, rotation, zoom, resize and normalisation in one bilinear gather."""

# N batch, H W rows and columns of the crop, B bytes of a beton, 23 the two rows of an inverse affine matrix,
# 4W a row of four corners (top left, top right, low left, low right)

import numpy as np

from kernels.crop import to_unit
from kernels.jit import kernel

HALF = np.float32(0.5)
TOP_LEFT, TOP_RIGHT, LOW_LEFT, LOW_RIGHT = range(4)


def affine_scratch(side):
    """Room for one row of `affine_into`, a thread its own: places int32, weights float32, corners uint8."""
    return np.empty((4, side), np.int32), np.empty((2, side), np.float32), np.empty((4, side), np.uint8)


@kernel
def affine_into(out_N1HW, bytes_B, offset_N, stored, inverse_N23, low, high, scratch):
    """Sample rotated, zoomed crops out of stored frames and map grey levels 0-255 to [-1, 1].

    out_N1HW: float32, written whole.  bytes_B: uint8, the beton.  offset_N: int64, each frame's first byte.
    stored: side of the square stored frames, in pixels.
    inverse_N23: float32; take an output pixel's centre (x, y, 1), integer + 0.5, to stored coordinates.
    low, high: first and last pixel index that may be read, on both axes; coordinates beyond clamp to them.
    scratch: of affine_scratch(W), overwritten.
    Bilinear.  With the identity at the crop's margin the result equals `crop_into` to the bit.
    Errors: none here; Loader checks shapes and the reader checks offsets, once.  Source: DESIGN, Geometry.

    Each row takes three loops, so that the first and the last, which are all arithmetic, vectorise; the loads between
    them cannot.
    """
    place_4W, weight_2W, corner_4W = scratch
    side = out_N1HW.shape[3]
    stride, last = np.int32(stored), np.int32(high)
    lowest, highest = np.float32(low), np.float32(high)
    for n in range(out_N1HW.shape[0]):
        frame = bytes_B[offset_N[n] : offset_N[n] + stored * stored]
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
                right, below = min(left + np.int32(1), last), min(top + np.int32(1), last)
                weight_2W[0, column] = x - np.float32(left)
                weight_2W[1, column] = y - np.float32(top)
                place_4W[TOP_LEFT, column] = top * stride + left
                place_4W[TOP_RIGHT, column] = top * stride + right
                place_4W[LOW_LEFT, column] = below * stride + left
                place_4W[LOW_RIGHT, column] = below * stride + right
            for column in range(side):
                corner_4W[TOP_LEFT, column] = frame[np.uint32(place_4W[TOP_LEFT, column])]
                corner_4W[TOP_RIGHT, column] = frame[np.uint32(place_4W[TOP_RIGHT, column])]
                corner_4W[LOW_LEFT, column] = frame[np.uint32(place_4W[LOW_LEFT, column])]
                corner_4W[LOW_RIGHT, column] = frame[np.uint32(place_4W[LOW_RIGHT, column])]
            for column in range(side):
                top_left, low_left = np.float32(corner_4W[TOP_LEFT, column]), np.float32(corner_4W[LOW_LEFT, column])
                weight_x = weight_2W[0, column]
                upper = top_left + (np.float32(corner_4W[TOP_RIGHT, column]) - top_left) * weight_x
                lower = low_left + (np.float32(corner_4W[LOW_RIGHT, column]) - low_left) * weight_x
                out_N1HW[n, 0, row, column] = to_unit(upper + (lower - upper) * weight_2W[1, column])
