"""The memory arena: freed memory stays mapped, and a flag leaves the system's default."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

import cli
from loaders import machine as arena

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import resource, sys
from loaders.machine import keep_allocations
kept = keep_allocations(sys.argv[1] == "on")
import torch
torch.set_num_threads(1)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(64 << 20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

settled = [faults() for _ in range(60)]  # an aligned block does not fit the hole it left until holes have merged
print(int(kept), sum(settled[-5:]))
"""


def run(switch: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, switch], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return list(map(int, done.stdout.split()))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this arena")
def test_memory_that_was_freed_is_mapped_when_it_is_taken_again() -> None:
    kept, faults_kept = run("on")
    assert kept == 1
    kept, faults_mapped = run("off")
    assert kept == 0 and faults_mapped > 10 * max(faults_kept, 10)  # 32 huge pages each time, or 16,384 small ones


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena.platform, "libc_ver", lambda: ("", ""))
    assert not arena.keep_allocations()


@pytest.mark.parametrize(("flags", "wanted"), [([], True), (["--no-arena"], False)])
def test_training_uses_the_arena_unless_it_is_turned_off(
    flags: list[str], wanted: bool, betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(cli, "keep_allocations", asked.append)
    assert cli.main(["train", str(betons), "--out", str(tmp_path / "run"), "--epochs", "1", *flags]) == 0
    assert asked == [wanted]
