"""The campaign of two writers notices a lock that locks nothing, and a winner whose file is not whole."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import two_writers
from tests.faults.conversions import PLANS, Material

NO_LOCK = "import fcntl\nfcntl.flock = lambda descriptor, operation: None\n"
# who comes second waits until the first one trains, which it then does until the second one has ended
IN_TURN = """
import atexit, pathlib, time, engine.train.train
folder, train = pathlib.Path({folder!r}), engine.train.train.Training.run
def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.005)
def run(self, resume):
    (folder / "trains").touch()
    wait_for("ended")
    time.sleep(2)
    return train(self, resume)
try:
    (folder / "begun").touch(exist_ok=False)
    engine.train.train.Training.run = run
except FileExistsError:
    wait_for("trains")
    atexit.register((folder / "ended").touch)
"""
TORN_PAGE = """
import engine.report.report
whole = engine.report.report.publish_bytes
engine.report.report.publish_bytes = lambda path, content: whole(path, content[:-20])
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with Material(tmp_path_factory.mktemp("material"), PLANS[:1], trains=True) as material:
        yield material


def held(command: str) -> random.Random:
    """Draws of an attempt in which the second one of a command comes while the first is kept waiting."""
    wanted = (command, PLANS[0], "held")
    return random.Random(next(seed for seed in itertools.count() if two_writers.choose(random.Random(seed)) == wanted))


def test_a_lock_that_two_writers_get_is_noticed(tmp_path: Path, material: Material) -> None:
    _, broken = two_writers.attempt(held("convert"), material, tmp_path, NO_LOCK)
    assert "the owner and the other convert ended with" in broken


def test_a_lock_that_locks_nothing_is_noticed_in_a_race(tmp_path: Path, material: Material) -> None:
    writer = two_writers.writer_of("train", PLANS[0], material, tmp_path)
    _, broken = two_writers.race(writer, material, tmp_path, 1.0, NO_LOCK + IN_TURN.format(folder=str(tmp_path)))
    assert "the loser was refused while the winner was still at work" in broken


def test_a_torn_page_of_the_winner_is_noticed(tmp_path: Path, material: Material) -> None:
    _, broken = two_writers.attempt(held("train"), material, tmp_path, TORN_PAGE)
    assert "after two of train report.html ends before its end" in broken
