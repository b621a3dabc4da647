"""Workers: threads and processes whose caller gets an error when one of them dies, and never waits for ever."""

import contextlib
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
R = TypeVar("R")

CHECK_SECONDS = 1.0  # between two checks that threads are alive
READY = "loaders.images.ready"  # the module of what decoding needs, by name: this one is imported early
CHUNK = 4  # tasks that a worker is given at once
# of the process that others are forked from: nothing is imported from the folder that the user happens to be in, and
# one worker a core has no use for threads of its own
SERVER_VARIABLES = {"PYTHONSAFEPATH": "1", "OPENBLAS_NUM_THREADS": "1"}


class WatchedThreads:
    """Threads that run what is submitted.  Owns them; close() waits for what they are doing."""

    def __init__(self, number: int, name: str, prepare: Callable[[], None] = lambda: None) -> None:
        """name: prefix of the threads' names.  prepare: what each runs first."""
        self._threads: list[threading.Thread] = []

        def begin() -> None:
            self._threads.append(threading.current_thread())
            prepare()

        self._pool = ThreadPoolExecutor(number, thread_name_prefix=name, initializer=begin)

    def submit(self, work: Callable[..., T], *arguments: object) -> Future[T]:
        """Have a thread run work(*arguments)."""
        return self._pool.submit(work, *arguments)

    def result(self, future: Future[T]) -> T:
        """The result of submitted work, once it is there.

        Errors: whatever work raises; RuntimeError for what would end a process silently, as SystemExit does, or when
        a thread has died and its work is lost.
        """
        while not future.done():
            wait((future,), timeout=CHECK_SECONDS)
            dead = [thread.name for thread in self._threads if not thread.is_alive()]
            if dead and not future.done():
                raise RuntimeError(f"thread {dead[0]} died, expected it to live; start again")
        error = future.exception()
        if error is not None and not isinstance(error, Exception):
            raise RuntimeError(f"a thread ended with {type(error).__name__}, expected a result") from error
        return future.result()

    def close(self) -> None:
        """Cancel what has not begun, and wait for the rest."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for thread in self._threads:
            while thread.is_alive():
                thread.join(CHECK_SECONDS)
                self._pool.shutdown(wait=False)  # wakes one more: a thread that died does not wake the next
        self._pool.shutdown()


class Worker(NamedTuple):
    """A process and the pipe to it."""

    process: Any
    pipe: Connection


def worker_context() -> Any:
    """How worker processes start: forked from one that has imported READY, which takes two seconds once, not each time.

    That process is started here, in the background, unless it is there: call this early.  It is Python's own fork
    server, of which a process has one: where a caller started his before, or plainfilm is not installed, it has
    imported nothing, and workers do so themselves.  Where there can be none (no fork, no room for its socket), or its
    libraries may not be forked (macOS), each worker starts by itself.  Nothing is forked from the caller, who may have
    threads: they do not survive it.
    """
    if sys.platform == "darwin" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    before = {name: os.environ.get(name) for name in SERVER_VARIABLES}
    context.set_forkserver_preload([READY])
    os.environ.update(SERVER_VARIABLES)
    signals = signal.pthread_sigmask(signal.SIG_BLOCK, [])  # as they are
    try:
        multiprocessing.resource_tracker.ensure_running()  # first: as it starts, it lets Ctrl-C through again
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # which is the caller's alone
        multiprocessing.forkserver.ensure_running()
    except OSError:
        return multiprocessing.get_context("spawn")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, signals)
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})
    return context


def map_in_processes(
    work: Callable[[T], R], tasks: Sequence[T], workers: int, prepare: Callable[[], None]
) -> Generator[R]:
    """work(task) of every task, in order, in parallel processes that ran prepare() first.

    Not the pool of concurrent.futures: its processes share one pipe, so it waits for ever when one is killed while it
    answers, and it leaves semaphores in /dev/shm when the whole process group is killed.
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
                other.process.kill()  # lest the caller wait for them
            raise ChildProcessError("a worker process died") from error
        finally:
            idle.put(worker)
        if isinstance(answer, Exception):
            raise answer
        return answer

    threads = ThreadPoolExecutor(workers, thread_name_prefix="plainfilm-worker")  # each waits for one process
    context = worker_context()
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            with theirs:  # closed here, lest our end miss the end of file when the process dies
                process = context.Process(target=serve, args=(theirs, work, prepare), daemon=True)
                process.start()
            started.append(Worker(process, ours))
            idle.put(started[-1])
        for answer in threads.map(answers, chunks):
            yield from answer
    finally:
        for worker in started:
            worker.process.kill()  # nobody needs its work any more; the thread that waits for it wakes
        threads.shutdown(cancel_futures=True)
        for worker in started:
            worker.process.join()
            worker.process.close()
            worker.pipe.close()


def serve(pipe: Connection, work: Callable[[T], R], prepare: Callable[[], None]) -> None:
    """Answer chunk after chunk in a worker process, until the parent has no more or is gone."""
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
