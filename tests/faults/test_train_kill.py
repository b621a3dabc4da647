"""The campaign of killed trainings notices a product that keeps no promise."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import train_kill
from tests.faults.short_form import check_short_form
from tests.faults.train_kill import Kill, Range, open_range

FORGETFUL = "import engine.train.trainer as training_run; training_run.restore = lambda learner, tensors: None"
STARTS_ANEW = "import engine.train.trainer as training_run; training_run.Training.find_state = lambda self: {}"
OTHER_STATE = """
import engine.train.run_folder as folder
plain = folder.RunFolder.save_last
folder.RunFolder.save_last = lambda self, tensors, state: plain(
    self, tensors, state | ({"step": 99} if state["finished"] else {})
)
"""
DEAF = """
import signal
plain = signal.signal
signal.signal = lambda number, handler: plain(number, signal.SIG_IGN if number in (2, 15) else handler)
"""
WRITES_IN_PLACE = "import loaders.atomic_file as file, tests.faults.plant as plant; file.SUFFIX = plant.SUFFIX = ''"
AT_FIVE = Kill(word="SIGTERM", point="step", number=5, after=True)
AT_EIGHT = replace(AT_FIVE, number=8)
KILLED_AT_FIVE = replace(AT_FIVE, word="kill -9")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    """A range, with an undisturbed training of the product as it is."""
    with open_range(tmp_path_factory.mktemp("range")) as place:
        yield place


@pytest.mark.parametrize(
    ("fault", "kills", "noticed"),
    [
        (FORGETFUL, [AT_FIVE], "another result"),
        (STARTS_ANEW, [AT_FIVE], "went on anew"),
        (STARTS_ANEW, [AT_EIGHT, KILLED_AT_FIVE], "from step 8 back to 3"),
        (OTHER_STATE, [AT_FIVE], "another result"),
        (DEAF, [AT_FIVE], "exit 0, expected 75"),
        # after hashes and settings, the fourth write of a file is of the first best weights
        (WRITES_IN_PLACE, [Kill(word="kill -9", point="half", number=4)], "half-written"),
    ],
    ids=["forgets weights", "starts anew", "goes back", "another last state", "deaf", "writes in place"],
)
def test_a_broken_promise_is_noticed(place: Range, tmp_path: Path, fault: str, kills: list[Kill], noticed: str) -> None:
    outcome, broken = replace(place, defect=fault).attempt(tmp_path / "run", kills)
    assert noticed in broken, (outcome, broken)


def test_every_promise_holds_under_attack(place: Range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_kill, "open_range", lambda folder: contextlib.nullcontext(place))
    check_short_form(train_kill.CAMPAIGN, tmp_path)


def test_the_product_as_it_is_keeps_its_promises(place: Range, tmp_path: Path) -> None:
    before_any_step = replace(AT_FIVE, point="rename", number=2)
    outcome, broken = place.attempt(tmp_path / "run", [before_any_step, AT_EIGHT, KILLED_AT_FIVE])
    assert not broken and outcome == "the same bytes after 2 kills"


def test_kills_that_do_not_come_are_drawn_again(place: Range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([[replace(AT_FIVE, point="page", number=9)], [AT_EIGHT]])
    monkeypatch.setattr(train_kill, "open_range", lambda folder: contextlib.nullcontext(place))
    monkeypatch.setattr(train_kill, "draw_kills", lambda rng, counts: next(draws))
    tally = train_kill.run(1, 0, tmp_path, lambda: None)
    assert tally.outcomes == {"the same bytes after 1 kill": 1}, tally
