"""Death of workers: processes that decode killed with kill -9, threads that make batches or blocks ended."""

import contextlib
import itertools
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.conversions import (
    AT,
    PATIENCE,
    PLANS,
    Setup,
    contents,
    different,
    left_behind,
    shared_memory,
    temporaries,
    workers_of,
)
from tests.faults.processes import Child, Ending
from tests.faults.small_run import Result, result_of

SECONDS_TO_REPORT = 10.0
MISSED = "was done already"  # before anything was killed: such an attempt is drawn again
TRAINING = ("--epochs", "1", "--batch-size", "2", "--threads", "2", "--device", "cpu", "--amp", "off")
# what is raised in a thread → exit code of the command; 1 for a traceback, since no user caused it
ERRORS = {"MemoryError('planted')": 4, "OSError(5, 'planted')": 4, "RuntimeError('planted')": 1, "SystemExit(0)": 1}
ENDED = "an end from without"
PLACES = {
    "a loader's thread": "loaders.batches.loader:affine_into",
    "a loader's thread, checking": "loaders.batches.loader:Loader.check_first_touch",
    "a block's thread": "engine.networks.cpu_blocks:pool_into",
}
RAISE_AT = f"""{AT}
from pathlib import Path
def failing(*arguments, **named):
    global calls
    calls += 1
    if calls >= {{call}}:
        Path({{reached!r}}).touch()
        raise {{error}}
    return real(*arguments, **named)
setattr(owner, name, failing)
"""
# ends threads between two works, as nothing can that a work raises: their next works are lost with them
END_THREADS = """
import ctypes, threading
from pathlib import Path
from loaders.batches.loader import Loader
real, calls = Loader._check_open, 0
def ending(self):
    global calls
    calls += 1
    if calls == {call}:
        Path({reached!r}).touch()
        threads = [one for one in threading.enumerate() if one.name.startswith("plainfilm-loader")]
        for one in threads[: {number}]:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(one.ident), ctypes.py_object(SystemExit))
    return real(self)
Loader._check_open = ending
"""
# kills a worker process {seconds} after the parent has sent its {call}-th chunk
KILL_WORKER = """
import os, signal, time
from pathlib import Path
from multiprocessing.connection import Connection
import loaders.workers
pids, calls, real_worker, real_send = [], 0, loaders.workers.Worker, Connection.send
def started(process, pipe):
    pids.append(process.pid)
    return real_worker(process, pipe)
def send(self, content):
    global calls
    real_send(self, content)
    calls += 1
    if calls == {call}:
        time.sleep({seconds})
        Path({reached!r}).touch()
        os.kill(pids[{worker}], signal.SIGKILL)
loaders.workers.Worker, Connection.send = started, send
"""


def command(kind: str, setup: Setup, folder: Path, workers: int = 1) -> list[str]:
    """A command, whose output is `out` in folder: one that decodes in worker processes, or a training."""
    out = folder / "out"
    if kind == "convert":
        return PLANS[1].argv(setup, out, workers=workers)
    if kind == "train":
        if (out / "config.json").exists():
            return ["train", "--resume", str(out)]
        return ["train", str(setup.reference(PLANS[1])), "--out", str(out), *TRAINING]
    if kind == "audit":
        return ["audit", str(setup.source), "--out", str(out), "--size", "32", "--workers", str(workers)]
    out.mkdir(parents=True, exist_ok=True)
    flags = ["--out", str(out / "table.csv"), "--workers", str(workers)]
    return ["predict", str(setup.trained()), str(setup.source), *flags]


def output(kind: str, folder: Path) -> Result | dict[str, bytes]:
    """What a command made in folder: a training's result, every byte of another's files."""
    return result_of(folder / "out") if kind == "train" else contents(folder / "out")


def wrong_output(kind: str, setup: Setup, folder: Path) -> str:
    """How a command's output differs from that of an undisturbed one; "" if it does not."""
    undisturbed = setup.made(f"undisturbed-{kind}", lambda place: command(kind, setup, place))
    found, wanted = output(kind, folder), output(kind, undisturbed)
    if isinstance(found, dict) and isinstance(wanted, dict):
        return different(found, wanted)
    return "" if found == wanted else f"the result differs from an undisturbed one: {found}, {wanted}"


def wrong_afterwards(kind: str, setup: Setup, folder: Path, ending: Ending, defect: str) -> str:
    """What is wrong with what a command left after a worker's death, or with what a rerun makes of it; or ""."""
    if not ending.code and (wrong := wrong_output(kind, setup, folder)):
        return f"ended with 0, but {wrong}"
    if ending.code and kind != "train" and (left := sorted(contents(folder / "out"))):
        return f"ended with {ending.code} and left {', '.join(left)}"
    if ending.code:
        again = setup.server.run(command(kind, setup, folder), timeout=PATIENCE, before=defect)
        if again.code:
            return f"the rerun ended with {again.code}: {again.errors[-300:]}"
        if wrong := wrong_output(kind, setup, folder):
            return f"after the rerun {wrong}"
    if left := temporaries(folder):
        return f"left {', '.join(left)}"
    return ""


def kill_a_worker(child: Child, rng: random.Random, reached: Path, stopped: bool) -> None:
    """Kill one of its workers at a random time; stopped: while the parent sleeps, so that answers pile up."""
    until = time.monotonic() + 60
    while not (workers := workers_of(child.pid)) and child.alive() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 3))
    if stopped:
        child.kill(signal.SIGSTOP)
        time.sleep(rng.uniform(0, 1))
    if workers := workers_of(child.pid):
        reached.touch()
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
    child.kill(signal.SIGCONT)


def too_late(ending: Ending, reached: Path) -> str:
    """Whether the command took longer to end than it may after a death; "" if not."""
    seconds = time.time() - reached.stat().st_mtime if reached.exists() else 0.0  # else it has not begun to die
    if ending.timed_out or seconds > SECONDS_TO_REPORT:
        return f"still waiting after {seconds:.0f} s, expected at most {SECONDS_TO_REPORT:g}"
    return ""


def choose_kill(rng: random.Random) -> tuple[str, str, int, int]:
    """The command whose worker is killed, how, after which chunk, and which worker."""
    command = rng.choice(["convert", "convert", "audit", "predict"])
    return command, rng.choice(["chunk", "chunk", "time", "stopped"]), rng.randint(1, 6), rng.randrange(2)


def process_attempt(rng: random.Random, setup: Setup, folder: Path, defect: str) -> tuple[str, str]:
    """Kill a worker process: how it ended, and which promise broke, or ""."""
    kind, how, call, worker = choose_kill(rng)
    reached, shared = folder / "reached", shared_memory()
    fault = KILL_WORKER.format(call=call, seconds=round(rng.uniform(0, 0.02), 4), worker=worker, reached=str(reached))
    argv = command(kind, setup, folder, workers=2)
    child = setup.server.start(argv, before=defect + (fault if how == "chunk" else ""))
    if how != "chunk":
        kill_a_worker(child, rng, reached, how == "stopped")
    ending = child.wait(PATIENCE)
    what = f"{kind} with a worker killed ({how})"
    if late := too_late(ending, reached):
        return "", f"{what}: {late}"
    if ending.code not in (0, 4) or ending.traceback:  # 0: all was decoded, or the worker had nothing to do any more
        return "", f"{what} ended with {ending.code}, expected 4: {ending.errors[-300:]}"
    if how == "chunk" and not reached.exists():
        return "", f"{what}: it sent no chunk {call}"
    if left := left_behind(child.pid, shared):
        return "", f"{what}: {left}"
    if wrong := wrong_afterwards(kind, setup, folder, ending, defect):
        return "", f"{what}: {wrong}"
    if not reached.exists():
        return MISSED, ""
    return f"{kind}: {'exit 4' if ending.code else 'lost nothing'}", ""


def choose_end(rng: random.Random) -> tuple[str, str]:
    """Which thread ends, and of what."""
    kind = rng.choice(["end", *PLACES])
    return ("a loader's thread", ENDED) if kind == "end" else (kind, rng.choice(list(ERRORS)))


def thread_attempt(rng: random.Random, setup: Setup, folder: Path, defect: str) -> tuple[str, str]:
    """End a thread of a training: how it ended, and which promise broke, or ""."""
    reached, shared = folder / "reached", shared_memory()
    kind, error = choose_end(rng)
    if error == ENDED:
        expected = {0, 1}  # 0: it had no work to lose
        fault = END_THREADS.format(call=rng.randint(5, 20), number=rng.randint(1, 2), reached=str(reached))
    else:
        expected = {ERRORS[error]}
        fault = RAISE_AT.format(place=PLACES[kind], call=rng.randint(1, 8), error=error, reached=str(reached))
    child = setup.server.start(command("train", setup, folder), before=defect + fault)
    ending = child.wait(PATIENCE)
    what = f"train with {error} in {kind}"
    if late := too_late(ending, reached):
        return "", f"{what}: {late}"
    if ending.code not in expected or not reached.exists():
        return "", f"{what} ended with {ending.code}, expected {max(expected)}: {ending.errors[-300:]}"
    if left := left_behind(child.pid, shared):
        return "", f"{what}: {left}"
    if wrong := wrong_afterwards("train", setup, folder, ending, defect):
        return "", f"{what}: {wrong}"
    return f"train: {f'exit {ending.code}' if ending.code else 'lost nothing'}", ""


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], setup: Setup | None = None) -> Tally:
    """End `count` workers.  setup: of all plans; None to make it in folder."""
    tally = Tally()
    with contextlib.ExitStack() as stack:
        setup = setup or stack.enter_context(Setup(folder / "setup"))
        for number in range(count):
            rng, place, ended = random.Random(f"{seed}-{number}"), folder / f"{number:04}", MISSED
            attempt = process_attempt if number % 2 else thread_attempt
            while ended == MISSED:
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                ended, broken = attempt(rng, setup, place, "")
            if broken:
                tally.broke(f"seed {seed}, attempt {number}: {broken}")
            else:
                tally.held(ended)
                shutil.rmtree(place)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="worker-death",
    attack="a worker process of `convert`, `audit` or `predict` killed with kill -9, also while its parent sleeps; a "
    "thread of a loader or a network's block raising MemoryError, OSError, RuntimeError or SystemExit, or ended",
    holds="an error in the caller within 10 s, with its exit code, and no output but a run's; or, where nothing was "
    "lost, an undisturbed command's output, as a rerun or `--resume` after an error gives it; no process, shared "
    "memory or temporary file is left",
    run=run,
    short=3,
    full=100,
)


# ---- what the campaign notices


TRUSTING = """
from loaders.workers import WatchedThreads
WatchedThreads.result = lambda self, future: future.result()
"""
# the files of a chunk whose worker died are reported as unreadable, and the command ends well
LOSSY = """
from contextlib import suppress
from multiprocessing.connection import Connection
from loaders.images.decode import Decoded
whole_send, whole_recv = Connection.send, Connection.recv
def lossy_send(self, content):
    with suppress(OSError):
        whole_send(self, content)
def lossy_recv(self):
    try:
        return whole_recv(self)
    except (EOFError, OSError):
        return [Decoded(problem="lost")] * 4
Connection.send, Connection.recv = lossy_send, lossy_recv
"""
# a batch that a thread lost is replaced by the one before it, and so is the third
STALE = """
from loaders.workers import WatchedThreads
watched, last, given = WatchedThreads.result, None, 0
def stale(self, future):
    global last, given
    try:
        result = watched(self, future)
    except RuntimeError:
        return last
    if not isinstance(result, tuple):  # of a block's thread
        return result
    given += 1
    last = last if given == 3 else result
    return last
WatchedThreads.result = stale
"""


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Setup(tmp_path_factory.mktemp("setup")) as setup:
        yield setup


def draws(wanted: Callable[[random.Random], bool]) -> random.Random:
    """Draws that begin as wanted."""
    return random.Random(next(seed for seed in itertools.count() if wanted(random.Random(seed))))


def test_a_thread_that_ends_the_command_in_silence_is_noticed(tmp_path: Path, setup: Setup) -> None:
    rng = draws(lambda rng: choose_end(rng) == ("a loader's thread", "SystemExit(0)"))
    _, broken = thread_attempt(rng, setup, tmp_path, TRUSTING)
    assert "ended with 0, expected 1" in broken


def test_a_lost_chunk_is_noticed(tmp_path: Path, setup: Setup) -> None:
    first = ("predict", "chunk", 1)  # its worker dies before it can have answered
    rng = draws(lambda rng: choose_kill(rng)[:3] == first)
    _, broken = process_attempt(rng, setup, tmp_path, LOSSY)
    assert "ended with 0, but table.csv differ" in broken


def test_a_lost_batch_is_noticed(tmp_path: Path, setup: Setup) -> None:
    rng = draws(is_one_end)
    _, broken = thread_attempt(rng, setup, tmp_path, STALE)
    assert "ended with 0, but the result differs" in broken


def is_one_end(rng: random.Random) -> bool:
    """Whether one of two threads is ended, which leaves one that makes the other batches."""
    _, error = choose_end(rng)
    return error == ENDED and rng.randint(5, 20) > 6 and rng.randint(1, 2) == 1


def test_every_promise_holds_under_attack(setup: Setup, tmp_path: Path) -> None:
    check_short_form(replace(CAMPAIGN, run=partial(run, setup=setup)), tmp_path)
