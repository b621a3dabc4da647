"""The campaign of two writers notices a lock that locks nothing."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from tests.faults import two_writers

NO_LOCK = "import fcntl\nfcntl.flock = lambda descriptor, operation: None\n"


def is_held_conversion(seed: int) -> bool:
    command, _, kind = two_writers.choose(random.Random(f"{seed}-0"))
    return (command, kind) == ("convert", "held")


def test_a_lock_that_two_writers_get_is_noticed(tmp_path: Path) -> None:
    seed = next(filter(is_held_conversion, itertools.count()))
    tally = two_writers.run(1, seed, tmp_path, lambda: None, before=NO_LOCK)
    assert "the owner and the other convert ended with" in tally.failures[0]
