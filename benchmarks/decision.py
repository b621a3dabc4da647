"""The decision of `make bench-compare`: is a ratio still what was stored?

One round is four short calls: ours, theirs, theirs, ours, and in the next round the other way about. So each goes
first as often as the other, follows itself as often, and a slow drift of the machine falls on both alike. Of either's
two calls the shorter counts, because whatever else the machine does only ever lengthens one: that halves the interval
on a busy machine. Of the rounds' ratios the median counts, with an interval from order statistics, which assumes
nothing about the noise but that rounds are alike. Rounds go on until the interval is clear of the limit, or narrow, or
there are enough.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from benchmarks.contest import Call

LIMIT = 0.9  # of the stored ratio
CONFIDENCE = 0.99
CHECKS = (24, 48, 96, 192, 384)  # rounds after which the interval is checked
NARROW = 0.01  # half of the interval's width, as a share: narrow enough to stop


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A median ratio, and where it lies with CONFIDENCE."""

    ratio: float
    low: float
    high: float
    rounds: int

    def record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def interval(ratios: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """The median, and the order statistics that enclose it: exact for whatever noise, at least `confidence`.

    Too few values for that confidence give all that is possible, 0 to infinity.
    """
    values = sorted(ratios)
    count = len(values)
    tail, below = 0.0, 0  # chance that at most `below` - 1 of the values lie under the true median
    while (tail := tail + math.comb(count, below) / 2**count) <= (1 - confidence) / 2:
        below += 1
    low, high = (values[below - 1], values[count - below]) if below else (0.0, math.inf)
    return Interval(ratio=statistics.median(values), low=low, high=high, rounds=count)


def paired_ratios(ours: Call, theirs: Call, clock: Callable[[], float] = time.perf_counter) -> Iterator[float]:
    """Rounds without end: in each, how many times as long as ours theirs took."""

    def seconds(call: Call) -> float:
        start = clock()
        call()
        return clock() - start

    while True:
        first, *their, last = seconds(ours), seconds(theirs), seconds(theirs), seconds(ours)
        yield min(their) / min(first, last)
        first, *our, last = seconds(theirs), seconds(ours), seconds(ours), seconds(theirs)
        yield min(first, last) / min(our)


def measure(rounds: Iterator[float], limit: float = 0.0, checks: Sequence[int] = CHECKS) -> Interval:
    """Rounds until the interval is clear of the limit on either side, or narrow, or the checks are used up.

    rounds: the ratio of each.  limit: 0 for none, as for a baseline.
    """
    ratios: list[float] = []
    for rounds_wanted in checks:
        ratios += islice(rounds, rounds_wanted - len(ratios))
        found = interval(ratios)
        narrow = found.high - found.low < 2 * NARROW * found.ratio
        clear = limit > 0 and (found.low > limit or found.high < limit)
        if clear or narrow:
            break
    return found


def has_fallen(found: Interval, stored: float) -> bool:
    """Whether the whole interval lies below LIMIT of the stored ratio."""
    return found.high < LIMIT * stored


def warm_up(*calls: Call) -> None:
    """Two calls of each before the first round."""
    for _ in range(2):
        for call in calls:
            call()
