"""The campaign of mutated betons sees a product that is broken."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.beton_mutants import SCHEDULE, Mutator, own_original, places_of
from tests.faults.beton_mutations import CAMPAIGN, CHECKED, COMMANDS_EVERY, IMPORTS, run
from tests.faults.victim import Nursery

DAMAGED = "Beton._bad = lambda beton, what: type(bad(beton, what))(f'{beton.path}: damaged, expected sound')"
ELSEWHERE = "Beton._bad = lambda beton, what: bad(beton, what.replace('sample ', 'sample 1'))"


@pytest.mark.parametrize(
    ("plant", "said"),
    [
        ("Beton.check_samples = lambda *given: None", "payload, .*: frames or labels that the file does not have"),
        ("import os; Beton.verify = lambda *given: os.abort()", "the reader ended with -6"),
        (DAMAGED, "does not name the file and the place in it"),
        (ELSEWHERE, "payload, .*: an error that does not name 'sample"),
        ("import cli; cli.main = lambda words: 0", r"verify: exit 0, expected one of \{5\}"),
    ],
    ids=["no checksum", "a crash", "no place", "another place", "the command line"],
)
def test_a_planted_fault_is_counted_as_broken(plant: str, said: str, tmp_path: Path) -> None:
    advanced: list[None] = []
    count = len(SCHEDULE)
    tally = run(
        count,
        0,
        tmp_path,
        lambda: advanced.append(None),
        "from loaders.beton.reader import Beton; bad = Beton._bad; " + plant,
    )
    assert len(advanced) == count == tally.attempts
    assert tally.failures and any(re.search(said, failure) for failure in tally.failures), tally.failures


def test_victims_have_kernels_that_check_bounds(tmp_path: Path) -> None:
    beyond = (
        "import numpy as np; from kernels.crops import crop_into\n"
        "crop_into(np.zeros((1, 1, 2, 2), np.float32), np.zeros(16, np.uint8), np.array([100]), 4)"
    )
    with Nursery(tmp_path / "victims", environment=CHECKED, imports=IMPORTS) as nursery:
        assert "IndexError" in nursery.run(before=beyond).errors


def test_every_byte_of_structure_is_changed_by_the_full_count(tmp_path: Path) -> None:
    spans = tuple(own_original(tmp_path).layout.parts().values())
    places = places_of("0-byte", spans)
    assert set(places) == {place for begin, end in spans for place in range(begin, end)}
    assert len(places) <= CAMPAIGN.full // len(SCHEDULE) * SCHEDULE.count("byte")


def test_every_kind_goes_through_the_command_line() -> None:
    turns = len(SCHEDULE) * COMMANDS_EVERY
    assert {attempt % len(SCHEDULE) for attempt in range(0, turns, COMMANDS_EVERY)} == set(range(len(SCHEDULE)))


def test_a_mutant_is_a_function_of_seed_and_attempt(tmp_path: Path) -> None:
    first, second = Mutator(tmp_path, 3), Mutator(tmp_path, 3)
    for attempt in range(2 * len(SCHEDULE)):
        assert first.mutant(attempt) == second.mutant(attempt)


def test_a_mutant_is_never_its_original(tmp_path: Path) -> None:
    mutator = Mutator(tmp_path, 3)
    for attempt in range(20 * len(SCHEDULE)):
        mutant = mutator.mutant(attempt)
        original = mutator.foreign if mutant.kind.startswith("foreign") else mutator.own
        assert mutant.content != original.content, mutant.words
