"""The campaign of damaged checkpoints notices a product that keeps no promise."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import checkpoints
from tests.faults.checkpoints import GONE, TARGETS, Range, choose, open_range
from tests.faults.short_form import check_short_form

BELIEVES_ALL = """
import engine.train.checkpoint as checkpoint
class Same(str):
    __hash__ = str.__hash__
    def __eq__(self, other):
        return True
checkpoint.digest = lambda tensors, state: Same("0")
"""
UNPICKLES = """
import torch
plain_load = torch.load
torch.load = lambda path, **options: plain_load(path, **options | {"weights_only": False})
"""
UNPICKLES_SETTINGS = """
import contextlib, torch, engine.train.run_folder as settings
plain_read = settings.read_settings
def read(path):
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    return plain_read(path)
settings.read_settings = read
"""
STARTS_ANEW = "import engine.train.trainer as training_run; training_run.Training.find_state = lambda self: {}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Range]:
    """A range of sound runs."""
    with open_range(tmp_path_factory.mktemp("range")) as place:
        yield place


@pytest.mark.parametrize(
    ("fault", "target", "way", "noticed"),
    [
        # of four bits some are in the tensors
        (BELIEVES_ALL, ("best.safetensors", "resume finished"), "flip a bit", "another result"),
        (UNPICKLES, ("state.pth", "begin with"), "canary", "code of the file was run"),
        (UNPICKLES_SETTINGS, ("local.json", "resume"), "canary", "code of the file was run"),
        (STARTS_ANEW, ("last.safetensors", "resume"), "flip a bit", "went on anew"),
        (STARTS_ANEW, ("last.safetensors", "resume"), GONE, "went on anew"),
    ],
    ids=["believes all", "unpickles", "unpickles settings", "starts anew", "starts anew without its state"],
)
def test_a_broken_promise_is_noticed(
    place: Range, tmp_path: Path, fault: str, target: tuple[str, str], way: str, noticed: str
) -> None:
    (chosen,) = (one for one in TARGETS if one[:2] == target)
    faulty = replace(place, defect=fault, results={})
    found = []
    for number in range(4 if fault == BELIEVES_ALL else 1):
        damage = faulty.draw(random.Random(f"0-{number}"), chosen, way)
        found.append(faulty.attempt(tmp_path / f"{number}", damage))
    assert any(noticed in broken for _, broken in found), found


def test_every_file_is_replaced_by_a_canary_at_least_once() -> None:
    chosen = [choose(attempt, random.Random(attempt)) for attempt in range(2 * len(TARGETS))]
    assert {target for target, way in chosen if way == "canary"} == set(TARGETS)


def test_every_promise_holds_under_attack(place: Range, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "open_range", lambda folder: contextlib.nullcontext(place))
    check_short_form(checkpoints.CAMPAIGN, tmp_path)
