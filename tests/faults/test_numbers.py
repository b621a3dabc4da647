"""The campaign of planted numbers notices a product that keeps no promise."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.numbers import run

SAVES_ANYTHING = "import engine.training as training; training.Training.check_finite = lambda self, tensors: None"
GOES_ON = "import math, engine.step; engine.step.math = type('', (), {'isfinite': staticmethod(lambda value: True)})"


@pytest.mark.parametrize(
    ("fault", "kind", "broken"),
    [(SAVES_ANYTHING, "weight NaN", "not the healthy one"), (GOES_ON, "gradient NaN", "no state was kept")],
)
def test_a_training_that_does_not_look_at_its_numbers_is_noticed(
    tmp_path: Path, fault: str, kind: str, broken: str
) -> None:
    tally = run(1, 0, tmp_path, lambda: None, fault=fault, combinations=[("host", kind, 1)])
    assert len(tally.failures) == 1 and broken in tally.failures[0], tally
