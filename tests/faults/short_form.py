"""A campaign's short form, as make test runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.tally import Campaign

SEED = 1


def check_short_form(campaign: Campaign, folder: Path) -> None:
    """Check that every promise holds, in as many attempts as were asked for."""
    if reason := campaign.missing():
        pytest.skip(reason)
    advanced: list[None] = []
    tally = campaign.run(campaign.short, SEED, folder, lambda: advanced.append(None))
    assert not tally.failures, "\n".join(tally.failures)
    assert not campaign.lacking(tally, campaign.short), tally.outcomes
    assert len(advanced) == campaign.short, len(advanced)
