"""Reading ahead: a beton's pages asked for before an epoch needs them, and let go behind it."""

# O samples in the order of an epoch, P pages in the order of their use

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from loaders.beton import Beton
from loaders.sample_order import WINDOW_BYTES


class ReadAhead:
    """Keeps one window of the file ahead of an epoch.  Owns a thread, since asking for pages may wait for the disk."""

    def __init__(self, beton: Beton, order_O: np.ndarray, position: int, *, let_go: bool) -> None:
        """position: samples of the order that are past.  let_go: give pages back after their last use."""
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
        """Batches up to place `wanted` are being made; the consumer has those before place `done`."""
        while self._needed and self._needed[0][0] <= wanted + self.ahead:
            self._thread.submit(self.beton.read_ahead, self._needed.popleft()[1])
        while self._done and self._done[0][0] <= done:
            self._thread.submit(self.beton.let_go, self._done.popleft()[1])

    def close(self) -> None:
        """Stop the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def in_order(page_P: np.ndarray, place_P: np.ndarray) -> deque[tuple[int, int]]:
    """Places in an epoch and pages' first bytes, by place."""
    by_place = np.argsort(place_P)
    return deque(zip(place_P[by_place].tolist(), page_P[by_place].tolist(), strict=True))
