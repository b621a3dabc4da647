"""Epochs of loaders, and the consumer that they have in common."""

# N samples of a batch, H W rows and columns of the crop

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from benchmarks.contest import Call

Epoch = Callable[[], Iterable[np.ndarray]]  # of batches of crops float32 (N, 1, H, W)


def touch(frames_N1HW: np.ndarray) -> int:
    """Read every byte; in numpy and by eight bytes at a time, so that it costs every rival the same, and little."""
    return int(np.ascontiguousarray(frames_N1HW).reshape(-1).view(np.uint64).max())


def consume(epoch: Epoch, epochs: int = 1) -> Call:
    """A consumer of so many epochs that reads every pixel of every batch."""

    def call() -> None:
        for _ in range(epochs):
            for frames_N1HW in epoch():
                touch(frames_N1HW)

    return call


def arrays(loader: Iterable[tuple[Any, ...]]) -> Epoch:
    """Epochs of a loader whose batches begin with crops, arrays or tensors."""

    def epoch() -> Iterator[np.ndarray]:
        for batch in loader:
            yield np.asarray(batch[0])

    return epoch


def opened(build: Callable[[], Epoch]) -> tuple[Epoch, float]:
    """A loader that was just built, after one epoch, and the seconds from nothing to its first batch."""
    start = time.perf_counter()
    epoch = build()
    batches = iter(epoch())
    touch(next(batches))
    seconds = time.perf_counter() - start
    for frames_N1HW in batches:
        touch(frames_N1HW)
    return epoch, seconds


def first_samples(epoch: Epoch, count: int) -> np.ndarray:
    """The first crops of an epoch, which is run to its end."""
    batches = [frames_N1HW.copy() for frames_N1HW in epoch()]
    return np.concatenate(batches)[:count]
