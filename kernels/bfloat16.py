"""bfloat16 in kernels, where an array of it is one of uint16: the upper half of each float32.

A kernel that reads by `wide` and writes by `narrow` takes arrays of either precision, and computes in float32.
"""

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import overload

SHIFT, ONE = np.uint32(16), np.uint32(1)
BELOW_HALF = np.uint32(0x7FFF)  # of the last place that is kept
QUIET = np.uint32(0x00400000)  # keeps what is not a number from becoming infinite when its lower half is dropped


def wide(value: Any) -> Any:
    """A value of an array, float32 or bfloat16, as float32, which is exact.  For kernels alone."""
    raise NotImplementedError


def narrow(value: Any, array_C: Any) -> Any:
    """A float32 as an array of float32 or bfloat16 stores it: the nearest, of two the even one.  For kernels alone."""
    raise NotImplementedError


@overload(wide, inline="always")
def _wide(value):
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << SHIFT).view(np.float32)
    return (lambda value: value) if value == types.float32 else None


@overload(narrow, inline="always")
def _narrow(value, array_C):
    def to_bfloat16(value, array_C):
        bits = np.float32(value).view(np.uint32)
        number = np.uint32(value == value)  # 0 for what is none
        up = np.uint32(number * np.uint32(BELOW_HALF + (np.uint32(bits >> SHIFT) & ONE)))
        quiet = np.uint32((ONE - number) * QUIET)
        return np.uint16(np.uint32(np.uint32(bits + up) | quiet) >> SHIFT)

    if array_C.dtype == types.uint16:
        return to_bfloat16
    return (lambda value, array_C: value) if array_C.dtype == types.float32 else None
