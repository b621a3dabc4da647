"""Watched threads: a pool whose caller gets an error, and no wait without end, when one of its threads dies."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")

SECONDS_BETWEEN_LOOKS = 1.0


class WatchedThreads:
    """Threads that run what is submitted.  Owns them; close() waits for what they are doing."""

    def __init__(self, number: int, name: str, prepare: Callable[[], None] = lambda: None) -> None:
        """name: prefix of the threads'.  prepare: what each runs first."""
        self._threads: list[threading.Thread] = []

        def begin() -> None:
            self._threads.append(threading.current_thread())
            prepare()

        self._pool = ThreadPoolExecutor(number, thread_name_prefix=name, initializer=begin)

    def submit(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        """Have a thread run work(*arguments)."""
        return self._pool.submit(work, *arguments)

    def result(self, future: Future[T]) -> T:
        """What a submitted work gives, once it is there.

        Errors: whatever work raises; RuntimeError when that would end a process in silence, as SystemExit does, or
        when a thread has died, with which its work is lost.
        """
        while not future.done():
            wait((future,), timeout=SECONDS_BETWEEN_LOOKS)
            dead = [thread.name for thread in self._threads if not thread.is_alive()]
            if dead and not future.done():
                raise RuntimeError(f"thread {dead[0]} died, expected it to live; start again")
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise RuntimeError(f"a thread ended with {type(error).__name__}, expected a result") from error
        return future.result()

    def close(self) -> None:
        """Drop what has not begun, and wait for the rest."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(SECONDS_BETWEEN_LOOKS)
                self._pool.shutdown(wait=False)  # wakes one more: a thread that died took its neighbours' call with it
        self._pool.shutdown()
