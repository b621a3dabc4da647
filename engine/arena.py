"""The memory arena: freed activations stay with the process, so that the next step finds them mapped."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, TOP_PAD, MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
NEVER = -1
GROWTH = 64 << 20  # bytes that the heap grows by at least


def keep_allocations(enabled: bool = True) -> bool:
    """Have glibc keep freed memory instead of giving it back to the system, for the rest of this process.

    A training step allocates and frees activations of 100-200 MB.  By default each is mapped anew, zeroed by the
    kernel and page-faulted in, which takes about a third of a step.  It takes somewhat more memory (a seventh, at size
    128), which is not given back.  The first few allocations of a size may still be mapped anew: an aligned block does
    not fit into the hole that it left until holes have merged.
    Gives whether it is so: not where the C library is another, nor when not enabled.  Only Linux has it.
    Source: mallopt(3).
    """
    if not enabled or platform.libc_ver()[0] != "glibc":
        return False
    # huge pages for torch's allocations, which it asks for once: fewer faults in the first step
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    libc = ctypes.CDLL(None)
    settings = ((MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER), (TOP_PAD, GROWTH))
    return all(libc.mallopt(name, value) for name, value in settings)
