"""The campaign of live files sees a product that is broken, and a bus error is told in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.live_files import CAMPAIGN, CASES, IMPORTS, case, run
from tests.faults.victim import Nursery
from tests.loaders.test_beton import PAGE, write


def test_a_reader_that_never_looks_at_its_file_is_counted_as_broken(tmp_path: Path) -> None:
    advanced: list[None] = []
    plant = "from loaders.beton.map import BetonMap; BetonMap.check_unchanged = lambda self: None"
    tally = run(5, 0, tmp_path, lambda: advanced.append(None), plant)
    assert len(advanced) == 5 == tally.attempts
    assert any(failure.startswith("live_reader: cut") for failure in tally.failures), tally.failures
    assert any(failure.startswith("cut_command") for failure in tally.failures), tally.failures


def test_a_bus_error_is_told_with_the_file_and_what_it_was(tmp_path: Path) -> None:
    write(path := tmp_path / "x.beton", 5)
    cut = (
        "import os; from loaders.beton.reader import Beton\n"
        f"Beton.check_samples = lambda self, *given: os.truncate(self.path, {PAGE}) or self.bytes_B[-9:].sum()"
    )
    with Nursery(tmp_path / "victims", imports=IMPORTS) as nursery:
        ending = nursery.run(["verify", str(path)], before=cut)
        assert ending.code == 5 and not ending.traceback
        assert f"plainfilm: {path}: written in place while it was read, {PAGE} bytes now, expected the" in ending.errors
        other = "import ctypes; import cli; cli.run = lambda *given: os.kill(os.getpid(), 7)"
        assert nursery.run(["--version"], before="import os; " + other).code == -7  # any other ends it as ever


def test_every_variant_is_drawn_by_the_full_campaign() -> None:
    drawn = {case(attempt) for attempt in range(CAMPAIGN.full)}
    assert drawn == {(attack, variant) for attack, variants in CASES for variant in variants}


def test_the_site_key_of_whoever_attacks_is_neither_made_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home := tmp_path / "home"))
    assert not run(1, 0, tmp_path / "faults", lambda: None).failures
    assert not list(home.rglob("site.key"))
