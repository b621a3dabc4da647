"""The campaign of planted numbers notices a product that keeps no promise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import numbers
from tests.faults.numbers import Range, open_range
from tests.faults.short_form import check_short_form

SAVES_ANYTHING = (
    "import engine.train.trainer as training_run; training_run.Training.check_finite = lambda self, tensors: None"
)
GOES_ON = "import engine.train.step as step; step.Step._check = lambda self, loss: None"
SKIPS = """
import engine.train.trainer as training_run
plain = training_run.Training.save_last
training_run.Training.save_last = lambda self: None if self.state.step == {step} else plain(self)
"""
STARTS_ANEW = "import engine.train.trainer as training_run; training_run.Training.find_state = lambda self: {}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    """A range, with an undisturbed training of the product as it is."""
    with open_range(tmp_path_factory.mktemp("range")) as place:
        place.undisturbed("host")
        yield place


@pytest.mark.parametrize(
    ("fault", "kind", "step", "noticed"),
    [
        (SAVES_ANYTHING, "weight NaN", 1, "of step 1, expected None"),
        (GOES_ON, "gradient NaN", 1, "of step None, expected 1"),
        (SKIPS.format(step=3), "weight NaN", 4, "of step None, expected 3"),
        (SKIPS.format(step=6), "weight NaN", 7, "of step 3, expected 6"),
        (STARTS_ANEW, "loss inf", 4, "went on anew"),
    ],
    ids=["saves anything", "goes on", "saves no first epoch", "saves no second epoch", "starts anew"],
)
def test_a_broken_promise_is_noticed(
    place: Range, tmp_path: Path, fault: str, kind: str, step: int, noticed: str
) -> None:
    broken = replace(place, defect=fault).attempt(tmp_path / "run", "host", kind, step)
    assert noticed in broken, broken


def test_every_promise_holds_under_attack(place: Range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbers, "open_range", lambda folder: contextlib.nullcontext(place))
    check_short_form(numbers.CAMPAIGN, tmp_path)
