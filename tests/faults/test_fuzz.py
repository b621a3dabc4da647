"""The fuzzer sees a reader that is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.fuzz import missing, run

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def test_a_reader_that_gives_other_pixels_is_found(tmp_path: Path) -> None:
    advanced: list[None] = []
    plant = "from loaders.beton import Beton; inner = Beton.frame; Beton.frame = lambda *given: inner(*given) ^ 1"
    tally = run(4, 0, tmp_path, lambda: advanced.append(None), plant)
    assert len(advanced) == 4
    assert tally.failures and "a frame that the file does not have" in tally.failures[0], tally.failures
