"""The training crop: crop, rotation, zoom, resize and normalisation in one bilinear gather."""

# N batch, H W rows and columns of the crop, B bytes of a beton, 23 the two rows of an inverse affine matrix

import numpy as np

from kernels.crop import to_unit
from kernels.jit import kernel

HALF = np.float32(0.5)


@kernel
def affine_into(out_N1HW, bytes_B, offset_N, stored, inverse_N23, low, high):
    """Sample rotated, zoomed crops out of stored frames and map grey levels 0-255 to [-1, 1].

    out_N1HW: float32, written whole.  bytes_B: uint8, the beton.  offset_N: int64, each frame's first byte.
    stored: side of the square stored frames, in pixels.
    inverse_N23: float32; take an output pixel's centre (x, y, 1), integer + 0.5, to stored coordinates.
    low, high: first and last pixel index that may be read, on both axes; coordinates beyond clamp to them.
    Bilinear.  With the identity at the crop's margin the result equals `crop_into` to the bit.
    Errors: none here; Loader checks shapes and the reader checks offsets, once.  Source: DESIGN, Geometry.
    """
    side = out_N1HW.shape[3]
    lowest = np.float32(low)
    highest = np.float32(high)
    for n in range(out_N1HW.shape[0]):
        frame_HW = bytes_B[offset_N[n] : offset_N[n] + stored * stored]
        xx, xy, x1 = inverse_N23[n, 0, 0], inverse_N23[n, 0, 1], inverse_N23[n, 0, 2]
        yx, yy, y1 = inverse_N23[n, 1, 0], inverse_N23[n, 1, 1], inverse_N23[n, 1, 2]
        for row in range(side):
            centre = np.float32(row) + HALF
            row_x = xy * centre + x1 - HALF
            row_y = yy * centre + y1 - HALF
            for column in range(side):
                across = np.float32(column) + HALF
                x = min(max(xx * across + row_x, lowest), highest)
                y = min(max(yx * across + row_y, lowest), highest)
                left = np.uint32(x)
                top = np.uint32(y)
                weight_x = x - np.float32(left)
                weight_y = y - np.float32(top)
                right = min(left + np.uint32(1), np.uint32(high))
                base = top * np.uint32(stored)
                below = min(top + np.uint32(1), np.uint32(high)) * np.uint32(stored)
                top_left = np.float32(frame_HW[base + left])
                top_right = np.float32(frame_HW[base + right])
                low_left = np.float32(frame_HW[below + left])
                low_right = np.float32(frame_HW[below + right])
                upper = top_left + (top_right - top_left) * weight_x
                lower = low_left + (low_right - low_left) * weight_x
                out_N1HW[n, 0, row, column] = to_unit(upper + (lower - upper) * weight_y)
