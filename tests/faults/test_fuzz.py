"""The fuzzer sees a reader that is broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.faults.fuzz import MEMORY, OWN_MEMORY, missing, run

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def test_a_fuzzer_is_not_blamed_for_the_memory_of_who_started_it(tmp_path: Path) -> None:
    """On Linux an executed program's ru_maxrss, libFuzzer's measure, begins at its parent's peak."""
    np.ones((MEMORY + OWN_MEMORY + 100) << 20, np.uint8)  # touched, and gone again: the peak stays
    tally = run(2, 0, tmp_path, lambda: None)
    assert not tally.failures, tally.failures
    assert sum(tally.outcomes.values()) > 0


def test_a_reader_that_gives_other_pixels_is_found(tmp_path: Path) -> None:
    advanced: list[None] = []
    plant = (
        "from loaders.beton.reader import Beton; inner = Beton.frame; Beton.frame = lambda *given: inner(*given) ^ 1"
    )
    tally = run(4, 0, tmp_path, lambda: advanced.append(None), plant)
    assert len(advanced) == 4
    assert tally.failures and "a frame that the file does not have" in tally.failures[0], tally.failures
    assert (tmp_path / "found-python").stat().st_size > 16 and "c-jL100001" not in tally.failures[
        0
    ]  # it can be repeated
