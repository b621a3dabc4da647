"""Batch memory: blocks that carry one batch after another, each taken again once nobody holds the batch in it.

Fresh memory for every batch would cost a page fault for every 4 KiB, which is more than the crop kernel itself.
"""

# N samples of a batch, H W rows and columns of the crop

from __future__ import annotations

import contextlib
import mmap
import weakref
from collections import deque

import numpy as np


class BatchMemory:
    """Blocks of room for one batch of frames.

    A batch is the consumer's as long as anything refers to it, be it a view or a tensor: its block returns when the
    last reference goes.  So a consumer that keeps batches makes new blocks, and one that drops them turns in a ring.
    """

    def __init__(self, batch_size: int, crop: int, *, spare: int) -> None:
        """spare: most blocks kept for later while nobody uses them."""
        self.shape = (batch_size, 1, crop, crop)
        self._free: deque[mmap.mmap] = deque(maxlen=spare)  # a full one lets its oldest block go

    def take(self, num_samples: int) -> np.ndarray:
        """Room for num_samples frames, float32 (N, 1, H, W), content undefined."""
        try:
            block = self._free.pop()  # the one used last is the likeliest to be in the cache
        except IndexError:
            block = anonymous_memory(4 * int(np.prod(self.shape)))
        owner = np.frombuffer(block, np.float32)
        # every view and tensor of the batch refers to this array, numpy's own or through its base
        weakref.finalize(owner, self._free.append, block).atexit = False
        return owner.reshape(self.shape)[:num_samples]


def anonymous_memory(num_bytes: int) -> mmap.mmap:
    """Zeroed memory in huge pages where the system has them: a page fault for 2 MiB instead of 4 KiB."""
    if not hasattr(mmap, "MAP_ANONYMOUS"):  # Windows
        return mmap.mmap(-1, num_bytes)
    # private: shared memory would stay shared with forked processes, and has no huge pages
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them; ordinary pages serve
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
