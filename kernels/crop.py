"""The evaluation crop: a plain copy of the frame's centre, mapped to [-1, 1]."""

# N batch, H W rows and columns of the crop, B bytes of a beton

import numpy as np

from kernels.jit import inlined, kernel

MIDDLE = np.float32(127.5)
SCALE = np.float32(1 / 127.5)


@inlined
def to_unit(level):
    """Map a grey level, float32 0 to 255, to [-1, 1]; both ends are exact (DESIGN, recipe)."""
    return (level - MIDDLE) * SCALE


@kernel
def crop_into(out_N1HW, bytes_B, offset_N, stored):
    """Copy central crops out of stored frames and map grey levels 0-255 to [-1, 1].

    out_N1HW: float32, written whole.  bytes_B: uint8, the beton.  offset_N: int64, each frame's first byte.
    stored: side of the square stored frames, in pixels.
    Errors: none here; Loader checks shapes and the reader checks offsets, once.  Source: DESIGN, Geometry.
    """
    crop = out_N1HW.shape[3]
    margin = (stored - crop) // 2
    for n in range(out_N1HW.shape[0]):
        for row in range(crop):
            start = offset_N[n] + (row + margin) * stored + margin
            row_W = bytes_B[
                start : start + crop
            ]  # a slice, so that no index can be negative: else it does not vectorise
            for column in range(crop):
                out_N1HW[n, 0, row, column] = to_unit(np.float32(row_W[column]))
