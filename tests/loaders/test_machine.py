"""The machine: what a container leaves of its cores and memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from loaders import machine

ROOM = 1 << 30


def place(monkeypatch: pytest.MonkeyPatch, root: Path, groups: str, files: dict[str, str]) -> None:
    """A process in these control groups, with these control files."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "own").write_text(groups)
    monkeypatch.setattr(machine, "CGROUPS", root)
    monkeypatch.setattr(machine, "OWN_GROUPS", root / "own")


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/a/b\n", {"a/b/memory.max": f"{ROOM}\n"}),
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{ROOM}\n"}),
        ("0::/a/b\n", {"a/b/memory.max": f"{5 * ROOM}\n", "a/memory.max": f"{ROOM}\n"}),
        ("7:memory:/a\n3:cpu,cpuacct:/\n", {"memory/a/memory.limit_in_bytes": f"{ROOM}\n"}),
    ],
)
def test_the_tightest_memory_limit_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, groups: str, files: dict[str, str]
) -> None:
    place(monkeypatch, tmp_path, groups, files)
    assert machine.usable_memory() == ROOM


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/a\n", {"a/cpu.max": "150000 100000\n"}, 2),
        ("0::/a\n", {"a/cpu.max": "20000 100000\n"}, 1),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, 16),
        ("3:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "300000\n"}, 3),
        ("3:cpu,cpuacct:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n"}, 16),
    ],
)
def test_a_quota_of_processor_time_counts_as_cores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, groups: str, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    place(monkeypatch, tmp_path, groups, files)
    assert machine.usable_cores() == cores


def test_without_control_groups_the_whole_machine_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "OWN_GROUPS", tmp_path / "none")
    assert machine.usable_memory() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 1 <= machine.usable_cores() <= (os.cpu_count() or 1)
