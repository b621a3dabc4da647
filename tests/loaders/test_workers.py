"""Worker processes: answers in order, errors as they are, and a death that is reported at once."""

from __future__ import annotations

import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from loaders.workers import map_in_processes


def nothing() -> None:
    """Nothing to prepare."""


def answer(task: int | str) -> bytes:
    """What the tests' workers do."""
    match task:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "die in the middle of an answer":

            def torn(self: Connection, data: bytes) -> None:
                os.write(self.fileno(), bytes(data)[: len(data) // 2])
                os.kill(os.getpid(), signal.SIGKILL)

            Connection._send = torn  # type: ignore[method-assign]
        case "exit":
            sys.exit(0)
        case "raise":
            raise ValueError("a bad task")
    return str(task).encode() * 1000


def shared_memory() -> set[str]:
    return {path.name for path in Path("/dev/shm").iterdir()} if Path("/dev/shm").is_dir() else set()


def test_answers_come_in_order_and_nothing_is_in_shared_memory() -> None:
    before, appeared = shared_memory(), set()
    tasks = list(range(30))
    found = []
    for result in map_in_processes(answer, tasks, 2, nothing):
        found.append(result)
        appeared |= shared_memory() - before
    assert found == [answer(task) for task in tasks]
    assert not {name for name in appeared if name.startswith("sem.mp-")}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("death", ["die", "die in the middle of an answer", "exit"])
def test_a_workers_death_is_an_error_not_a_wait_without_end(death: str) -> None:
    with pytest.raises(ChildProcessError, match="died"):
        list(map_in_processes(answer, [*range(10), death, *range(10)], 2, nothing))


def test_an_error_in_a_worker_is_raised_as_it_is_with_where_it_came_from() -> None:
    with pytest.raises(ValueError, match="a bad task") as caught:
        list(map_in_processes(answer, [*range(5), "raise"], 2, nothing))
    assert "in answer" in caught.value.__notes__[0]
