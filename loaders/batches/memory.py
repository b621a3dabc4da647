"""Memory of batches: reused blocks for frames, and pages of the beton read ahead."""

# N samples of a batch, H W rows and columns of the crop, O samples in the order of an epoch, P pages in order of use

import contextlib
import mmap
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from loaders.beton.reader import Beton
from loaders.sampling import WINDOW_BYTES


class BatchMemory:
    """Blocks of memory, each for one batch of frames.

    A batch is the consumer's as long as anything refers to it, be it a view or a tensor: its block is reused after the
    last reference is gone.  So a consumer that keeps batches gets new blocks, and one that drops them the same few.
    """

    def __init__(self, batch_size: int, crop: int, *, spare: int) -> None:
        """spare: the largest number of unused blocks to keep."""
        self.shape = (batch_size, 1, crop, crop)
        self._free: deque[mmap.mmap] = deque(maxlen=spare)  # a full one lets its oldest block go

    def take(self, num_samples: int) -> np.ndarray:
        """Memory for num_samples frames, float32 (N, 1, H, W), content undefined."""
        try:
            block = self._free.pop()  # the one used last is the most likely to be in the cache
        except IndexError:
            block = anonymous_memory(4 * int(np.prod(self.shape)))
        owner = np.frombuffer(block, np.float32)
        # every view and tensor of the batch refers to this array, numpy's own or through its base
        weakref.finalize(owner, self._free.append, block).atexit = False
        return owner.reshape(self.shape)[:num_samples]


def anonymous_memory(num_bytes: int) -> mmap.mmap:
    """Zeroed memory in huge pages where the system has them: a page fault for 2 MiB instead of 4 KiB."""
    # private: shared memory would stay shared with forked processes, and has no huge pages
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them; ordinary pages serve
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class ReadAhead:
    """Reads one window of the file ahead of an epoch.  Owns a thread, since a request may wait for the disk."""

    def __init__(self, beton: Beton, order_O: np.ndarray, position: int, *, let_go: bool) -> None:
        """position: samples of the order that are done.  let_go: release pages after their last use."""
        self.beton, self.let_go = beton, let_go
        self.ahead = WINDOW_BYTES // beton.side**2
        page_O = beton.offset_N[order_O] // beton.page_size * beton.page_size
        page_P, place_P = np.unique(page_O[position:], return_index=True)
        self._needed = in_order(page_P, place_P + position)
        self._done: deque[tuple[int, int]] = deque()
        if let_go:
            page_P, from_end_P = np.unique(page_O[::-1], return_index=True)
            self._done = in_order(page_P, len(page_O) - from_end_P)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="plainfilm-reader")

    def advance(self, wanted: int, done: int) -> None:
        """Read ahead: batches up to place `wanted` are being made, and the consumer has those before `done`."""
        while self._needed and self._needed[0][0] <= wanted + self.ahead:
            self._thread.submit(self.beton.read_ahead, self._needed.popleft()[1])
        while self._done and self._done[0][0] <= done:
            self._thread.submit(self.beton.let_go, self._done.popleft()[1])

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def in_order(page_P: np.ndarray, place_P: np.ndarray) -> deque[tuple[int, int]]:
    """Pairs of place in the epoch and page's first byte, sorted by place."""
    by_place = np.argsort(place_P)
    return deque(zip(place_P[by_place].tolist(), page_P[by_place].tolist(), strict=True))
