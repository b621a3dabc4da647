"""Threads that share the images of a batch among them, for kernels that release the GIL."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from threading import Barrier
from typing import TypeVar

import torch

from loaders.thread_watch import WatchedThreads

T = TypeVar("T")
PARTS = 16  # of a batch, whatever the number of threads, so that sums are added in the same order


def for_each_part(work: Callable[[range], T], num_images: int) -> list[T]:
    """Call work with ranges of the batch, side by side on as many threads as torch has; results in order.

    Inside, torch computes on one thread.  Errors: whatever work raises; RuntimeError when a thread died.
    """
    size = max(1, -(-num_images // PARTS))
    parts = [range(start, min(start + size, num_images)) for start in range(0, num_images, size)]
    results: dict[int, T] = {}
    waiting = iter(range(len(parts)))

    def take_parts() -> None:
        for number in waiting:  # each goes to one thread
            results[number] = work(parts[number])

    number_of_threads = torch.get_num_threads()
    threads = _threads(number_of_threads, os.getpid())
    for done in [threads.submit(take_parts) for _ in range(min(number_of_threads, len(parts)))]:
        threads.result(done)
    return [results[number] for number in range(len(parts))]


@cache  # threads live as long as the process; a forked one has none of its parent's, and makes its own
def _threads(number: int, process: int) -> WatchedThreads:
    started = Barrier(number + 1)

    def start() -> None:
        torch.get_num_threads()  # takes over the default, which would otherwise undo the next line later
        torch.set_num_threads(1)
        started.wait()

    pool = WatchedThreads(number, "plainfilm-block", start)
    try:
        for _ in range(number):
            pool.submit(int)  # each starts a thread, since none is idle before all are there
    except RuntimeError:  # the system has no more threads
        started.abort()
        raise
    started.wait()
    torch.set_num_threads(number)  # what a thread sets becomes the default of threads to come
    return pool
