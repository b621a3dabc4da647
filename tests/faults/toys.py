"""Toy campaigns, which the runner's tests run; beside nothing heavy, so that their processes start at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.campaign import Tally
from tests.faults.processes import Nursery


def sound(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    tally = Tally()
    for _ in range(count):
        tally.held("as promised")
        advance()
    return tally


def fewer(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    return sound(count - 1, seed, folder, advance)


def fails(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    raise KeyError("planted")


def crashed(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """Dies while a victim is waited for; `victim`, beside its folder, says which it was."""
    with Nursery(folder / "nursery", imports="import time") as nursery:
        victim = nursery.start(before="import time; time.sleep(300)")
        (folder.parent / "victim").write_text(str(victim.pid))
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
        victim.wait(timeout=300)
    raise AssertionError


def cut_short(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """Dies in the middle of what it sends."""
    (pipe,) = (cell.cell_contents for cell in advance.__closure__ or ())
    os.write(pipe.fileno(), b"\0\0\1\0half")
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def meets(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """Holds if another one is there, too, within 10 s."""
    (folder.parent / f"here-{folder.name}").touch()
    until = time.monotonic() + 10
    while len(list(folder.parent.glob("here-*"))) < 2:
        if time.monotonic() > until:
            return Tally()
        time.sleep(0.01)
    return sound(count, seed, folder, advance)


def interrupts_its_runner(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """Ctrl-C for the runner while a victim is waited for; `put-away`, beside its folder, says which it was."""
    with Nursery(folder / "nursery", imports="import time") as nursery:
        victim = nursery.start(before="import time; time.sleep(300)")
        try:
            os.kill(os.getppid(), signal.SIGINT)
            victim.wait(timeout=300)
        finally:
            (folder.parent / "put-away").write_text(str(victim.pid))
    return Tally()
