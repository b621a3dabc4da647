"""Rivals timed in turns, and the table of how they compare."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Call = Callable[[], object]
Pedantic = Callable[..., object]  # pytest-benchmark's `benchmark.pedantic`

MISSING = "missing"  # what the table says of a rival that is not installed


class Disagreement(AssertionError):
    """Two rivals give different outputs, so that their speeds say nothing."""


def expect_close(name: str, found: Any, expected: Any, *, mean: float, most: float = np.inf) -> None:
    """Compare outputs before they are timed.

    mean, most: largest mean and largest single absolute difference, in the arrays' unit.
    Errors: Disagreement, also for another shape or for numbers that are not finite.
    """
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        raise Disagreement(f"{name}: output of shape {found.shape}, expected {expected.shape}")
    difference = np.abs(found - expected)
    if not (difference.mean() <= mean and difference.max() <= most):  # in this form a NaN disagrees too
        raise Disagreement(
            f"{name}: outputs differ by {difference.mean():.3g} on average and {difference.max():.3g} at most, "
            f"expected {mean:.3g} and {most:.3g}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What rivals took for the same work.

    work: what one call does, as amounts by unit, such as {"images": 128}.
    seconds: of each round, by rival, ours first; None for a rival that is not installed.
    """

    what: str
    work: dict[str, float]
    seconds: dict[str, list[float] | None]

    @property
    def ours(self) -> str:
        """Name of the first rival, to which the others are compared."""
        return next(iter(self.seconds))

    def rate(self, rival: str, unit: str) -> float:
        """Median amount of work a second."""
        seconds = self.seconds[rival]
        assert seconds is not None, rival
        return self.work[unit] / statistics.median(seconds)

    def ratios(self, rival: str) -> list[float]:
        """How many times as long as ours the rival took, round by round: above 1, ours is faster."""
        ours, theirs = self.seconds[self.ours], self.seconds[rival]
        assert ours is not None and theirs is not None, rival
        return [their / our for our, their in zip(ours, theirs, strict=True)]

    def record(self) -> dict[str, Any]:
        """The comparison for JSON: of each rival the seconds, rates, median ratio and its extremes, or `missing`."""
        rivals: dict[str, Any] = {}
        for rival, seconds in self.seconds.items():
            if seconds is None:
                rivals[rival] = MISSING
                continue
            ratios = self.ratios(rival)
            rivals[rival] = {
                "seconds": seconds,
                **{f"{unit}_per_second": self.rate(rival, unit) for unit in self.work},
                "ratio": statistics.median(ratios),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
            }
        return {"what": self.what, "work": self.work, "rivals": rivals}


def interleaved(
    what: str, rivals: dict[str, Call | None], *, check: Call, rounds: int, pedantic: Pedantic, **work: float
) -> Comparison:
    """Compare outputs, warm up, then time every rival once a round, in turns.

    rivals: ours first; None for one that is not installed.  check: raises when outputs disagree; called before any
    timing.  pedantic: runs the rounds; pytest-benchmark's own also keeps the times of ours for its table.
    The others begin each round with another one, so that none always follows the same neighbour.
    Errors: what check raises, and whatever a rival raises.
    """
    check()
    there = {name: call for name, call in rivals.items() if call is not None}
    ours, *rest = there
    others = deque(rest)
    seconds: dict[str, list[float] | None] = {name: [] if name in there else None for name in rivals}
    for call in there.values():
        call()

    def timed(name: str) -> None:
        call, record = there[name], seconds[name]
        assert record is not None
        start = time.perf_counter()
        call()
        record.append(time.perf_counter() - start)

    def time_the_others() -> None:
        for name in others:
            timed(name)
        others.rotate(-1)

    pedantic(lambda: timed(ours), setup=time_the_others, rounds=rounds, iterations=1)
    return Comparison(what=what, work=work, seconds=seconds)


def table(comparisons: list[Comparison]) -> list[str]:
    """One line a rival and unit, in columns."""
    rows = [("what", "unit", "plainfilm", "rival", "rival's", "ratio", "min–max")]
    for comparison in comparisons:
        for unit in comparison.work:
            rate = show(comparison.rate(comparison.ours, unit))
            for rival, seconds in comparison.seconds.items():
                if rival == comparison.ours:
                    continue
                cells = (MISSING, "", "")
                if seconds is not None:
                    ratios = comparison.ratios(rival)
                    cells = (
                        show(comparison.rate(rival, unit)),
                        f"{statistics.median(ratios):.2f}",
                        f"{min(ratios):.2f}–{max(ratios):.2f}",
                    )
                rows.append((comparison.what, f"{unit}/s", rate, rival, *cells))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def show(rate: float) -> str:
    """A rate with three digits, or all before the point."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
