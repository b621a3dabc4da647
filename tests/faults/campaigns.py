"""The list of campaigns, in the order of docs/RELIABILITY.md."""

from __future__ import annotations

from tests.faults.tally import Campaign

CAMPAIGNS: tuple[Campaign, ...] = ()
