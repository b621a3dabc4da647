"""The one compilation policy of every kernel.

No fastmath: the same source gives the same bits with any number of threads, and the affine kernel at the identity
equals the crop kernel. No bounds checks: callers check shapes once (NUMBA_BOUNDSCHECK=1 turns them on for testing).
The GIL is released, so plain Python threads run kernels side by side; compiled code is cached on disk.
"""

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit

POLICY: dict[str, Any] = {"nogil": True, "fastmath": False, "error_model": "numpy"}


def kernel(function: Callable) -> Any:
    """Compile at the first call, and keep the result on disk where there is a place to write."""
    try:
        compiled = njit(cache=True, **POLICY)(function)
    except RuntimeError:  # neither __pycache__ nor the home folder is writable: compile in every process
        return njit(**POLICY)(function)
    # numba checks whether a kernel's own file has changed; what is inlined into it may come from another
    cache_file = compiled._cache._cache_file
    cache_file._source_stamp = (cache_file._source_stamp, sources())
    return compiled


@cache
def sources() -> str:
    """A hash of every kernel's source."""
    hasher = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.glob("*.py")):
        hasher.update(path.read_bytes())
    return hasher.hexdigest()


def inlined(function: Callable) -> Any:
    """Compile into the kernels that call it."""
    return njit(inline="always", **POLICY)(function)
