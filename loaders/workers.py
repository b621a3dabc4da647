"""Workers: threads and processes whose caller gets an error, and no wait without end, when one of them dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

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


R = TypeVar("R")

CHUNK = 4  # tasks that a worker is given at once


class Worker(NamedTuple):
    """A process and the pipe that leads to it."""

    process: Any
    pipe: Connection


def map_in_processes(
    work: Callable[[T], R], tasks: Sequence[T], workers: int, prepare: Callable[[], None]
) -> Generator[R]:
    """work(task) of every task, in order, side by side in processes that ran prepare() first.

    concurrent.futures' pool, whose processes share one pipe, waits for ever when one is killed in the middle of an
    answer, and keeps semaphores in /dev/shm, which a kill of the whole group leaves there.
    Errors: ChildProcessError when a process died; whatever work raises; OSError when none can be started.
    """
    chunks = [tasks[start : start + CHUNK] for start in range(0, len(tasks), CHUNK)]
    started: list[Worker] = []
    idle: SimpleQueue[Worker] = SimpleQueue()

    def answers(chunk: Sequence[T]) -> list[R]:
        worker = idle.get()
        try:
            worker.pipe.send(chunk)
            answer = worker.pipe.recv()
        except (EOFError, OSError) as error:  # OSError in the middle of an answer
            for other in started:
                other.process.kill()  # lest the caller wait for what they were doing
            raise ChildProcessError("a worker process died") from error
        finally:
            idle.put(worker)
        if isinstance(answer, Exception):
            raise answer
        return answer

    threads = ThreadPoolExecutor(workers, thread_name_prefix="plainfilm-worker")  # each waits for one process
    try:
        for _ in range(workers):
            worker = start(work, prepare)
            started.append(worker)
            idle.put(worker)
        for answer in threads.map(answers, chunks):
            yield from answer
    finally:
        for worker in started:
            worker.process.kill()  # whoever still works does it for nobody; threads that wait for it wake
        threads.shutdown(cancel_futures=True)
        for worker in started:
            worker.process.join()
            worker.process.close()
            worker.pipe.close()


def start(work: Callable[[T], R], prepare: Callable[[], None]) -> Worker:
    """Start one worker process."""
    context = multiprocessing.get_context("spawn")  # the parent may have threads, which do not survive a fork
    ours, theirs = context.Pipe()
    with theirs:  # ours would never see the end of file that a death leaves, if this process kept theirs
        process = context.Process(target=serve, args=(theirs, work, prepare), daemon=True)
        process.start()
    return Worker(process, ours)


def serve(pipe: Connection, work: Callable[[T], R], prepare: Callable[[], None]) -> None:
    """A worker's life: answer chunk after chunk, until the parent has no more or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    prepare()
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
        while True:
            chunk = pipe.recv()
            answer: list[R] | Exception
            try:
                answer = [work(task) for task in chunk]
            except Exception as error:  # noqa: BLE001 — it is raised in the parent
                answer = portable(error)
            pipe.send(answer)


def portable(error: Exception) -> Exception:
    """The error with its traceback as a note; as a RuntimeError if it cannot be sent to another process."""
    error.add_note(f"in a worker process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 — whatever a foreign error cannot do
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
