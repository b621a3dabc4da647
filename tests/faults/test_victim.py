"""Victims end with their nursery, whatever ends that."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.faults.victim import Nursery


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def ends(pid: int) -> bool:
    """Whether a process ends within ten seconds."""
    until = time.monotonic() + 10
    while runs(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not runs(pid)


def test_a_nursery_that_ctrl_c_ends_takes_its_victims_along(tmp_path: Path) -> None:
    with Nursery(tmp_path / "victims", imports="import time") as nursery:
        victim = nursery.start(before="import time\ntime.sleep(60)")
        assert victim.alive()
        os.kill(nursery._process.pid, signal.SIGINT)
    assert ends(victim.pid)
