"""Victims end with their nursery, whatever ends that."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

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


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("late", [0.0, 1.0])
def test_a_nursery_that_ctrl_c_ends_takes_its_victims_along(tmp_path: Path, late: float) -> None:
    """late: seconds until a victim has a session of its own."""
    imports = f"import os, time; setsid = os.setsid; os.setsid = lambda: (time.sleep({late}), setsid())"
    with Nursery(tmp_path / "victims", imports=imports) as nursery:
        victim = nursery.start(before="import time\ntime.sleep(60)")
        os.kill(nursery._process.pid, signal.SIGINT)
    assert ends(victim.pid)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_a_victim_is_born_is_not_lost(tmp_path: Path) -> None:
    (tmp_path / "born.py").write_text(f"""
import os, signal, time
from pathlib import Path

born = Path({str(tmp_path / "born")!r})

def interrupt():
    while not born.exists() or not born.read_text():
        time.sleep(0.01)
    os.killpg(0, signal.SIGINT)

os.setsid()
os.register_at_fork(after_in_child=lambda: born.write_text(str(os.getpid())), after_in_parent=interrupt)
""")
    imports = f"exec(open({str(tmp_path / 'born.py')!r}).read(), {{}})"
    with Nursery(tmp_path / "victims", imports=imports) as nursery, pytest.raises(RuntimeError, match="ended with 0"):
        nursery.start(before="import time\ntime.sleep(60)").wait(timeout=5)
    assert ends(int((tmp_path / "born").read_text()))
