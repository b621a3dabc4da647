"""A contest: rivals prepared to do the same work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

Call = Callable[[], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """A rival that cannot run on this machine."""

    reason: str

    def __str__(self) -> str:
        return f"missing: {self.reason}"


def nothing_to_check() -> None:
    """Of a contest whose sides run the same code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contest:
    """What every rival does in one round.

    amount: of `unit` in one call.  rivals: ours first.  check: raises Disagreement when outputs differ.
    amounts: of the rivals whose call does another amount; their seconds are counted for `amount`.
    first_batch: seconds from opening a loader to its first batch, by rival.
    """

    what: str
    amount: float
    rivals: dict[str, Call | Missing]
    check: Call = nothing_to_check
    unit: str = "images"
    amounts: dict[str, float] = field(default_factory=dict)
    first_batch: dict[str, float] = field(default_factory=dict)

    @property
    def ours(self) -> str:
        """Name of the first rival, to which the others are compared."""
        return next(iter(self.rivals))

    def share(self, rival: str) -> float:
        """What part of a call of this rival's does `amount`."""
        return self.amount / self.amounts.get(rival, self.amount)
