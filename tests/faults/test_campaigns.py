"""Every campaign in its short form."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tests.faults.campaigns import CAMPAIGNS
from tests.faults.short_form import check_short_form
from tests.faults.tally import Campaign

ELSEWHERE = {"train-kill", "checkpoints", "numbers"}  # beside what plants faults on the same runs, trained once


@pytest.mark.parametrize(
    "campaign", [one for one in CAMPAIGNS if one.name not in ELSEWHERE], ids=lambda campaign: campaign.name
)
def test_every_promise_holds_under_attack(campaign: Campaign, tmp_path: Path) -> None:
    check_short_form(campaign, tmp_path)


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_the_short_forms_that_are_not_here_are_in_their_campaigns_tests(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    tests = importlib.import_module(f"tests.faults.test_{name.replace('-', '_')}")
    monkeypatch.setattr(tests, "check_short_form", lambda campaign, folder: checked.append(campaign.name))
    tests.test_every_promise_holds_under_attack(None, tmp_path, monkeypatch)
    assert checked == [name]
