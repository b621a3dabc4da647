"""The campaign against workers notices a thread whose end passes for the end of the command."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from tests.faults import worker_death

TRUSTING = """
from loaders.thread_watch import WatchedThreads
WatchedThreads.result = lambda self, future: future.result()
"""


def is_silent_exit(seed: int) -> bool:
    return worker_death.choose_end(random.Random(f"{seed}-0")) == ("a loader's thread", "SystemExit(0)")


def test_a_thread_that_ends_the_command_in_silence_is_noticed(tmp_path: Path) -> None:
    seed = next(filter(is_silent_exit, itertools.count()))
    tally = worker_death.run(1, seed, tmp_path, lambda: None, before=TRUSTING)
    assert "ended with 0, expected 1" in tally.failures[0]
