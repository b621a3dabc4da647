"""Death of workers: processes that decode killed with kill -9, threads that make batches or blocks ended."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.conversions import (
    PATIENCE,
    PLANS,
    Material,
    contents,
    different,
    left_behind,
    shared_memory,
    temporaries,
    workers_of,
)
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import Ending, Victim

SECONDS_TO_TELL = 10.0
TRAINING = ("--epochs", "1", "--batch-size", "2", "--threads", "2", "--device", "cpu")
# what is raised in a thread → exit code of the command; 1 for a traceback, since no user caused it
ERRORS = {"MemoryError('planted')": 4, "OSError(5, 'planted')": 4, "RuntimeError('planted')": 1, "SystemExit(0)": 1}
ENDED = "an end from without"
PLACES = {
    "a loader's thread": "loaders.loader:affine_into",
    "a loader's thread, checking": "loaders.loader:Loader.check_first_touch",
    "a block's thread": "engine.fused_block:pool_into",
}
RAISE_AT = """
import importlib, threading
from pathlib import Path
module, _, path = {place!r}.partition(":")
owner = importlib.import_module(module)
*parts, name = path.split(".")
for part in parts:
    owner = getattr(owner, part)
real, calls = getattr(owner, name), 0
def failing(*arguments, **named):
    global calls
    calls += 1
    if calls >= {call}:
        Path({told!r}).touch()
        raise {error}
    return real(*arguments, **named)
setattr(owner, name, failing)
"""
# ends threads between two works, as nothing can that a work raises: their next works are lost with them
END_THREADS = """
import ctypes, threading
from pathlib import Path
from loaders.loader import Loader
real, calls = Loader._check_open, 0
def ending(self):
    global calls
    calls += 1
    if calls == {call}:
        Path({told!r}).touch()
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
import loaders.processes
pids, calls, real_start, real_send = [], 0, loaders.processes.start, Connection.send
def start(*arguments):
    worker = real_start(*arguments)
    pids.append(worker.process.pid)
    return worker
def send(self, content):
    global calls
    real_send(self, content)
    calls += 1
    if calls == {call}:
        time.sleep({seconds})
        Path({told!r}).touch()
        os.kill(pids[{worker}], signal.SIGKILL)
loaders.processes.start, Connection.send = start, send
"""


def command(kind: str, material: Material, folder: Path, workers: int) -> list[str]:
    """A command that decodes in worker processes."""
    if kind == "convert":
        return PLANS[1].argv(material, folder / "out", workers=workers)
    if kind == "audit":
        return ["audit", str(material.source), "--out", str(folder / "out"), "--size", "32", "--workers", str(workers)]
    table = ["--out", str(folder / "table.csv"), "--workers", str(workers)]
    return ["predict", str(material.trained()), str(material.source), *table]


def kill_a_worker(victim: Victim, rng: random.Random, told: Path, stopped: bool) -> None:
    """Kill one of its workers at a random time; stopped: while the parent sleeps, so that answers pile up."""
    until = time.monotonic() + 60
    while not (workers := workers_of(victim.pid)) and victim.alive() and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 3))
    if stopped:
        victim.kill(signal.SIGSTOP)
        time.sleep(rng.uniform(0, 1))
    told.touch()
    if workers := workers_of(victim.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
    victim.kill(signal.SIGCONT)


def too_late(ending: Ending, told: Path) -> str:
    """Whether the command took longer to end than it may after a death; "" if not."""
    seconds = time.time() - told.stat().st_mtime if told.exists() else 0.0  # else it has not begun to die
    if ending.timed_out or seconds > SECONDS_TO_TELL:
        return f"still waiting after {seconds:.0f} s, expected at most {SECONDS_TO_TELL:g}"
    return ""


def process_attempt(rng: random.Random, material: Material, folder: Path, before: str) -> tuple[str, str]:
    """Kill a worker process: how it ended, and which promise broke, or ""."""
    kind, told, shared = rng.choice(["convert", "convert", "audit", "predict"]), folder / "told", shared_memory()
    argv = command(kind, material, folder, 2)
    how = rng.choice(["chunk", "chunk", "time", "stopped"])
    fault = KILL_WORKER.format(
        call=rng.randint(1, 6), seconds=round(rng.uniform(0, 0.02), 4), worker=rng.randrange(2), told=str(told)
    )
    victim = material.nursery.start(argv, before=before + (fault if how == "chunk" else ""))
    if how != "chunk":
        kill_a_worker(victim, rng, told, how == "stopped")
    ending = victim.wait(PATIENCE)
    what = f"{kind} with a worker killed ({how})"
    if late := too_late(ending, told):
        return "", f"{what}: {late}"
    if ending.code not in (0, 4) or ending.traceback:  # 0: all was decoded, or the worker had nothing to do any more
        return "", f"{what} ended with {ending.code}, expected 4: {ending.errors[-300:]}"
    if left := left_behind(victim.pid, shared):
        return "", f"{what}: {left}"
    again = material.nursery.run(command(kind, material, folder, 1), timeout=PATIENCE, before=before)
    if again.code:
        return "", f"{what}: the rerun ended with {again.code}: {again.errors[-300:]}"
    if left := temporaries(folder):
        return "", f"{what}: the rerun left {', '.join(left)}"
    if kind == "convert" and (differ := different(contents(folder / "out"), material.wanted[PLANS[1]])):
        return "", f"{what}: after the rerun {differ}"
    return f"{kind}: {'exit 4' if ending.code else 'was done already'}", ""


def choose_end(rng: random.Random) -> tuple[str, str]:
    """Which thread ends, and of what."""
    kind = rng.choice(["end", *PLACES])
    return ("a loader's thread", ENDED) if kind == "end" else (kind, rng.choice(list(ERRORS)))


def thread_attempt(rng: random.Random, material: Material, folder: Path, before: str) -> tuple[str, str]:
    """End a thread of a training: how it ended, and which promise broke, or ""."""
    told, shared = folder / "told", shared_memory()
    kind, error = choose_end(rng)
    if error == ENDED:
        expected = {0, 1}  # 0: it had no work to lose
        fault = END_THREADS.format(call=rng.randint(5, 20), number=rng.randint(1, 2), told=str(told))
    else:
        expected = {ERRORS[error]}
        fault = RAISE_AT.format(place=PLACES[kind], call=rng.randint(1, 8), error=error, told=str(told))
    argv = ["train", str(material.reference(PLANS[1])), "--out", str(folder / "run"), *TRAINING]
    victim = material.nursery.start(argv, before=before + fault)
    ending = victim.wait(PATIENCE)
    what = f"train with {error} in {kind}"
    if late := too_late(ending, told):
        return "", f"{what}: {late}"
    if ending.code not in expected or not told.exists():
        return "", f"{what} ended with {ending.code}, expected {max(expected)}: {ending.errors[-300:]}"
    if left := left_behind(victim.pid, shared):
        return "", f"{what}: {left}"
    return f"train: {f'exit {ending.code}' if ending.code else 'lost nothing'}", ""


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], before: str = "") -> Tally:
    """End `count` workers.  before: a fault of the product to plant in each victim, to test this campaign."""
    tally = Tally()
    with Material(folder / "material") as material:
        for number in range(count):
            place = folder / f"{number:04}"
            place.mkdir()
            rng = random.Random(f"{seed}-{number}")
            attempt = process_attempt if number % 2 else thread_attempt
            ended, broken = attempt(rng, material, place, before)
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
    holds="an error in the caller within 10 s, with its exit code; no process, shared memory or temporary file is "
    "left; a rerun is as if nothing had been",
    run=run,
    short=3,
    full=100,
)
