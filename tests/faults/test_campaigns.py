"""Every campaign in its short form: the promises hold, and as many attempts were made as were asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaigns import CAMPAIGNS
from tests.faults.tally import Campaign


@pytest.mark.parametrize("campaign", CAMPAIGNS, ids=lambda campaign: campaign.name)
def test_every_promise_holds_under_attack(campaign: Campaign, tmp_path: Path) -> None:
    if reason := campaign.missing():
        pytest.skip(reason)
    advanced: list[None] = []
    tally = campaign.run(campaign.short, 1, tmp_path, lambda: advanced.append(None))
    assert not tally.failures, "\n".join(tally.failures)
    assert not campaign.lacking(tally, campaign.short), tally.outcomes
    assert len(advanced) == campaign.short
