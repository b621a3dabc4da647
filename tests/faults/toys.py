"""Toy campaigns, which the runner's tests run; beside nothing heavy, so that their processes start at once."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.campaign import Tally
from tests.faults.processes import ForkServer


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
    """Dies while a child is waited for; `child`, beside its folder, names it."""
    with ForkServer(folder / "server", imports="import time") as server:
        child = server.start(before="import time; time.sleep(300)")
        (folder.parent / "child").write_text(str(child.pid))
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
        child.wait(timeout=300)
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
    """Ctrl-C for the runner while a child is waited for; `cleaned-up`, beside its folder, names it."""
    with ForkServer(folder / "server", imports="import time") as server:
        child = server.start(before="import time; time.sleep(300)")
        try:
            os.kill(os.getppid(), signal.SIGINT)
            child.wait(timeout=300)
        finally:
            (folder.parent / "cleaned-up").write_text(str(child.pid))
    return Tally()
