"""A campaign, the tally of its attempts, and its short form as make test-extras runs it."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(kw_only=True, slots=True)
class Tally:
    """Counted endings of a campaign's attempts.

    outcomes: attempts by what they ended as, in short.  failures: one line for each attempt that broke a
    promise: what happened, what was promised, and the seed and number that repeat it.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def held(self, outcome: str) -> None:
        """Count an attempt that kept the promise, under what it ended as."""
        self.outcomes[outcome] += 1

    def broke(self, attempt: str) -> None:
        """Count an attempt that broke the promise, with one line that says how and how to repeat it."""
        self.outcomes["broken"] += 1
        self.failures.append(attempt)

    @property
    def attempts(self) -> int:
        """All attempts counted."""
        return self.outcomes.total()


@dataclass(frozen=True, kw_only=True, slots=True)
class Campaign:
    """One attack of docs/RELIABILITY.md.

    attack, holds: its row in the document.  run(count, seed, folder, advance): makes `count` attempts in the empty
    folder, calling advance() after each.  short, full: attempts in `make test-extras` and in `make faults`.
    in_seconds: whether `count` is seconds, in which any number of attempts is made.
    missing(): why it cannot run here (a tool, a privilege), or None.
    """

    name: str
    attack: str
    holds: str
    run: Callable[[int, int, Path, Callable[[], None]], Tally]
    short: int
    full: int
    in_seconds: bool = False
    missing: Callable[[], str | None] = lambda: None

    def lacking(self, tally: Tally, count: int) -> str:
        """Which attempts were not made of those that were asked for; "" if none lacks."""
        asked = 1 if self.in_seconds else count
        return "" if tally.attempts >= asked else f"{tally.attempts:,} attempts, expected {asked:,} at least"


SEED = 1  # of the short forms


def check_short_form(campaign: Campaign, folder: Path) -> None:
    """Check that every promise holds, in as many attempts as were asked for."""
    if reason := campaign.missing():
        pytest.skip(reason)
    advanced: list[None] = []
    tally = campaign.run(campaign.short, SEED, folder, lambda: advanced.append(None))
    assert not tally.failures, "\n".join(tally.failures)
    assert not campaign.lacking(tally, campaign.short), tally.outcomes
    assert len(advanced) == campaign.short, len(advanced)
