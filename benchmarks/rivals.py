"""Rivals timed in turns, and how they compare."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contest import Call, Contest, Missing

Pedantic = Callable[..., object]  # pytest-benchmark's `benchmark.pedantic`


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What rivals took for the same work.

    seconds: of each round, by rival, ours first; Missing for a rival that cannot run here.
    cpu_seconds: of all rounds together, for one round's work.  first_batch: seconds, of loaders.
    """

    what: str
    amount: float
    seconds: dict[str, list[float] | Missing]
    unit: str = "images"
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    first_batch: dict[str, float] = field(default_factory=dict)

    @property
    def ours(self) -> str:
        """Name of the first rival, to which the others are compared."""
        return next(iter(self.seconds))

    def times(self, rival: str) -> list[float]:
        """Seconds of each round, of a rival that is there."""
        seconds = self.seconds[rival]
        assert not isinstance(seconds, Missing), rival
        return seconds

    def rate(self, rival: str) -> float:
        """Median amount of work a second."""
        return self.amount / statistics.median(self.times(rival))

    def spread(self, rival: str) -> float:
        """Distance between the quartiles of the rates, as a share of the median rate."""
        rates = [self.amount / seconds for seconds in self.times(rival)]
        if len(rates) < 2:
            return 0.0
        low, middle, high = statistics.quantiles(rates, n=4, method="inclusive")
        return (high - low) / middle

    def ratios(self, rival: str) -> list[float]:
        """How many times as long as ours the rival took, round by round: above 1, ours is faster."""
        return [their / our for our, their in zip(self.times(self.ours), self.times(rival), strict=True)]

    def ratio(self, rival: str) -> float:
        """The median of the rounds' ratios."""
        return statistics.median(self.ratios(rival))

    def cpu_each(self, rival: str) -> float | None:
        """CPU seconds for one unit of work, an image say."""
        spent = self.cpu_seconds.get(rival)
        return None if spent is None else spent / self.amount

    def record(self) -> dict[str, Any]:
        """The comparison for JSON; `from_record` takes it back."""
        rivals: dict[str, Any] = {}
        for rival, seconds in self.seconds.items():
            if isinstance(seconds, Missing):
                rivals[rival] = {"missing": seconds.reason}
                continue
            ratios = self.ratios(rival)
            rivals[rival] = {
                "seconds": seconds,
                f"{self.unit}_per_second": self.rate(rival),
                "spread": self.spread(rival),
                "ratio": self.ratio(rival),
                "ratio_min": min(ratios),
                "ratio_max": max(ratios),
                "cpu_seconds": self.cpu_seconds.get(rival),
                "first_batch_seconds": self.first_batch.get(rival),
            }
        return {"what": self.what, "amount": self.amount, "unit": self.unit, "rivals": rivals}


def from_record(record: dict[str, Any]) -> Comparison:
    """A comparison out of JSON."""
    rivals = record["rivals"]
    return Comparison(
        what=record["what"],
        amount=record["amount"],
        unit=record["unit"],
        seconds={
            name: Missing(reason=rival["missing"]) if "missing" in rival else rival["seconds"]
            for name, rival in rivals.items()
        },
        cpu_seconds={name: spent for name, rival in rivals.items() if (spent := rival.get("cpu_seconds")) is not None},
        first_batch={
            name: seconds for name, rival in rivals.items() if (seconds := rival.get("first_batch_seconds")) is not None
        },
    )


def interleaved(
    contest: Contest, *, rounds: int, pedantic: Pedantic, cpu_clock: Callable[[], float] = time.process_time
) -> Comparison:
    """Compare outputs, warm up, then time every rival once a round, in turns.

    pedantic: runs the rounds; pytest-benchmark's own also keeps the times of ours for its table.
    cpu_clock: CPU seconds so far, by default of this process alone.
    The others begin each round with another one, so that none always follows the same neighbour.
    Errors: what the contest's check raises, and whatever a rival raises.
    """
    contest.check()
    there: dict[str, Call] = {name: call for name, call in contest.rivals.items() if not isinstance(call, Missing)}
    ours, *rest = there
    others = deque(rest)
    seconds: dict[str, list[float]] = {name: [] for name in there}
    spent = dict.fromkeys(there, 0.0)
    for call in there.values():
        call()

    def timed(name: str) -> None:
        call, share = there[name], contest.share(name)
        before, start = cpu_clock(), time.perf_counter()
        call()
        seconds[name].append((time.perf_counter() - start) * share)
        spent[name] += (cpu_clock() - before) * share

    def time_the_others() -> None:
        for name in others:
            timed(name)
        others.rotate(-1)

    pedantic(lambda: timed(ours), setup=time_the_others, rounds=rounds, iterations=1)
    return Comparison(
        what=contest.what,
        amount=contest.amount,
        unit=contest.unit,
        seconds={name: call if isinstance(call, Missing) else seconds[name] for name, call in contest.rivals.items()},
        cpu_seconds={name: total / len(seconds[name]) for name, total in spent.items()},
        first_batch=contest.first_batch,
    )
