"""Batch memory: blocks that carry one batch after another, each taken again once nobody holds the batch in it.

Fresh memory for every batch would cost a page fault for every 4 KiB, which is more than the crop kernel itself.
"""

# N samples of a batch, H W rows and columns of the crop

from __future__ import annotations

import contextlib
import mmap
import weakref
from collections import deque
from typing import Any

import numpy as np


class BatchMemory:
    """Blocks of room for one batch of frames.

    A batch is the consumer's as long as anything refers to it, be it a view or a tensor: its block returns when the
    last reference goes.  So a consumer that keeps batches makes new blocks, and one that drops them turns in a ring.
    """

    def __init__(self, batch_size: int, crop: int, *, spare: int, pinned: bool = False) -> None:
        """spare: most blocks kept for later while nobody uses them.  pinned: page-locked, for copies to a GPU."""
        self.shape = (batch_size, 1, crop, crop)
        self.pinned = pinned
        self._free: deque[Any] = deque(maxlen=spare)  # a full one lets its oldest block go

    def take(self, num_samples: int) -> np.ndarray:
        """Room for num_samples frames, float32 (N, 1, H, W), content undefined."""
        try:
            block = self._free.pop()  # the one used last is the likeliest to be in the cache
        except IndexError:
            block = self._make()
        owner = np.frombuffer(block, np.float32) if isinstance(block, mmap.mmap) else block.numpy()
        # every view and tensor of the batch refers to this array, numpy's own or through its base
        weakref.finalize(owner, self._free.append, block).atexit = False
        return owner.reshape(self.shape)[:num_samples]

    def _make(self) -> Any:
        num_bytes = 4 * int(np.prod(self.shape))
        if self.pinned:
            import torch  # only here, so that the loader works without it

            return torch.empty(num_bytes // 4, dtype=torch.float32, pin_memory=True)
        return anonymous_memory(num_bytes)


def anonymous_memory(num_bytes: int) -> mmap.mmap:
    """Zeroed memory in huge pages where the system has them: a page fault for 2 MiB instead of 4 KiB."""
    memory = mmap.mmap(-1, num_bytes)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them; ordinary pages serve
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory
