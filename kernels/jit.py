"""The one compilation policy of every kernel.

No fastmath: the same source gives the same bits with any number of threads, and the affine kernel at the identity
equals the crop kernel. No bounds checks: callers check shapes once (NUMBA_BOUNDSCHECK=1 turns them on for testing).
The GIL is released, so plain Python threads run kernels side by side; compiled code is cached on disk.
"""

from collections.abc import Callable
from typing import Any

from numba import njit

POLICY: dict[str, Any] = {"nogil": True, "fastmath": False, "error_model": "numpy"}


def kernel(function: Callable) -> Any:
    """Compile at the first call, and keep the result on disk where there is a place to write."""
    try:
        return njit(cache=True, **POLICY)(function)
    except RuntimeError:  # neither __pycache__ nor the home folder is writable: compile in every process
        return njit(**POLICY)(function)


def inlined(function: Callable) -> Any:
    """Compile into the kernels that call it."""
    return njit(inline="always", **POLICY)(function)
