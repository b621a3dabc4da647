"""The campaign against workers notices an end in silence, a chunk that is lost, and a batch that is lost."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import worker_death
from tests.faults.conversions import PLANS, Material

TRUSTING = """
from loaders.workers import WatchedThreads
WatchedThreads.result = lambda self, future: future.result()
"""
# the files of a chunk whose worker died are told as unreadable, and the command ends well
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
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with Material(tmp_path_factory.mktemp("material"), PLANS[:2], trains=True) as material:
        yield material


def draws(wanted: Callable[[random.Random], bool]) -> random.Random:
    """Draws that begin as wanted."""
    return random.Random(next(seed for seed in itertools.count() if wanted(random.Random(seed))))


def test_a_thread_that_ends_the_command_in_silence_is_noticed(tmp_path: Path, material: Material) -> None:
    rng = draws(lambda rng: worker_death.choose_end(rng) == ("a loader's thread", "SystemExit(0)"))
    _, broken = worker_death.thread_attempt(rng, material, tmp_path, TRUSTING)
    assert "ended with 0, expected 1" in broken


def test_a_lost_chunk_is_noticed(tmp_path: Path, material: Material) -> None:
    first = ("predict", "chunk", 1)  # its worker dies before it can have answered
    rng = draws(lambda rng: worker_death.choose_kill(rng)[:3] == first)
    _, broken = worker_death.process_attempt(rng, material, tmp_path, LOSSY)
    assert "ended with 0, but table.csv differ" in broken


def test_a_lost_batch_is_noticed(tmp_path: Path, material: Material) -> None:
    rng = draws(is_one_end)
    _, broken = worker_death.thread_attempt(rng, material, tmp_path, STALE)
    assert "ended with 0, but the result differs" in broken


def is_one_end(rng: random.Random) -> bool:
    """Whether one of two threads is ended, which leaves one that makes the other batches."""
    _, error = worker_death.choose_end(rng)
    return error == worker_death.ENDED and rng.randint(5, 20) > 6 and rng.randint(1, 2) == 1
