"""The campaign against conversions notices torn files, mixtures, leftovers, and points that nothing comes to."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults import conversions, convert_kill
from tests.faults.conversions import KILL_AT, PLANS, Material, Plan
from tests.faults.convert_kill import POINTS, TEAR, Calls, Fault

STRAIGHT = """
import contextlib
import loaders.atomic_file, loaders.beton.writer
@contextlib.contextmanager
def straight(path, *arguments, **named):
    with open(path, "wb") as file:
        yield file
loaders.atomic_file.publish = loaders.beton.writer.publish = straight
"""
UNTIDY = """
import contextlib, secrets
import loaders.convert.convert
@contextlib.contextmanager
def untidy(out, size):
    spool = out / ("spool-" + secrets.token_hex(8) + loaders.convert.convert.SUFFIX)
    with spool.open("wb") as file:
        file.truncate(size)
    yield spool
    spool.unlink()
loaders.convert.convert.spool_file = untidy
"""
ORPHAN = "import subprocess\nsubprocess.Popen(['sleep', '30'])\n"

Attempt = Callable[..., str]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with Material(tmp_path_factory.mktemp("material")) as material:
        yield material


@pytest.fixture(scope="module")
def calls(material: Material, tmp_path_factory: pytest.TempPathFactory) -> dict[Plan, Calls]:
    return convert_kill.count_calls(material, tmp_path_factory.mktemp("counted"))


@pytest.fixture
def attempt(material: Material, calls: dict[Plan, Calls], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """Gives what makes one attempt with a fault of the product, and tells which promise broke."""

    def make(kill: str, product: str = "", *, over_old: bool = False) -> str:
        fault = Fault(kind="decode", detail="there", source=kill)  # of a kind for which one worker decodes
        monkeypatch.setattr(convert_kill, "choose_fault", lambda *given: fault)
        seed = next(seed for seed in itertools.count() if is_over_old(seed) == over_old)
        return convert_kill.attempt(random.Random(seed), material, calls, tmp_path, product)[2]

    return make


def is_over_old(seed: int) -> bool:
    return convert_kill.choose_plans(random.Random(seed))[1] is not None


def test_a_beton_that_is_written_in_place_is_noticed(attempt: Attempt) -> None:
    broken = attempt(TEAR.format(call=1, share=0.5), STRAIGHT)
    assert "train.beton" in broken and "neither the old one nor the new one" in broken


def test_a_mixture_of_two_conversions_that_train_accepts_is_noticed(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert_kill, "open_loaders", lambda *given: None)
    broken = attempt(KILL_AT.format(place=POINTS["rename"], call=1, after=True), over_old=True)
    assert broken == "train accepts what is not of one conversion"


def test_a_temporary_file_that_a_rerun_leaves_is_noticed(attempt: Attempt) -> None:
    assert "the rerun left spool-" in attempt(KILL_AT.format(place=POINTS["page"], call=1, after=False), UNTIDY)


def test_a_process_that_outlives_its_conversion_is_noticed(attempt: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversions, "SECONDS_TO_CLEAR", 0.5)
    broken = attempt(KILL_AT.format(place=POINTS["lock"], call=1, after=True), ORPHAN)
    assert broken.startswith("left behind: processes [")


def test_a_planted_kill_that_no_conversion_comes_to_is_noticed(attempt: Attempt) -> None:
    assert attempt(KILL_AT.format(place="os:truncate", call=1, after=False)) == "it ended well, and never came there"


def test_a_named_point_that_no_conversion_comes_to_is_an_error(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(POINTS, "moved", "os:truncate")
    with pytest.raises(RuntimeError, match="no conversion comes to os:truncate"):
        convert_kill.count_calls(material, tmp_path)


def test_a_plan_without_held_out_radiographs_is_counted_apart(calls: dict[Plan, Calls]) -> None:
    first, *others = [calls[plan][POINTS["footer"]] for plan in PLANS]
    assert all(0 < first < other for other in others)
