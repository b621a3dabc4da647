"""A contest: rivals that do the same work, timed in turns, and how they compare; what all rivals have in common."""

# N samples of a batch, H W rows and columns of the crop

import json
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

REPOSITORY = Path(__file__).parent.parent
Call = Callable[[], object]
Epoch = Callable[[], Iterable[np.ndarray]]  # of batches of crops float32 (N, 1, H, W)
Pedantic = Callable[..., object]  # pytest-benchmark's `benchmark.pedantic`
QUIET = 0.3  # cores that others may keep busy: above it a ratio is marked as noisy


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What rivals took for the same work.

    seconds: of each round, by rival, ours first; Missing for a rival that cannot run here.
    cpu_seconds: of all rounds together, for one round's work.  first_batch: seconds, of loaders.
    others: cores that other processes and virtual machines kept busy meanwhile; None where that was not measured.
    """

    what: str
    amount: float
    seconds: dict[str, list[float] | Missing]
    unit: str = "images"
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    first_batch: dict[str, float] = field(default_factory=dict)
    others: float | None = None

    @property
    def noisy(self) -> bool:
        """Whether others had so much of the machine that the ratios are not to be trusted."""
        return self.others is not None and self.others > QUIET

    @property
    def ours(self) -> str:
        """Name of the first rival, to which the others are compared."""
        return next(iter(self.seconds))

    @property
    def rivals(self) -> list[str]:
        """Names of the others that are there."""
        return [name for name, seconds in list(self.seconds.items())[1:] if not isinstance(seconds, Missing)]

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
        """CPU seconds for one unit of work, such as an image."""
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
        return {"what": self.what, "amount": self.amount, "unit": self.unit, "others": self.others, "rivals": rivals}


def from_record(record: dict[str, Any]) -> Comparison:
    """A comparison out of JSON."""
    rivals = record["rivals"]
    return Comparison(
        what=record["what"],
        amount=record["amount"],
        unit=record["unit"],
        others=record.get("others"),
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
    contest: Contest,
    *,
    rounds: int,
    pedantic: Pedantic,
    cpu_clock: Callable[[], float] = time.process_time,
    machine_clock: Callable[[], float] | None = None,
) -> Comparison:
    """Compare outputs, warm up, then time every rival once a round, in turns.

    pedantic: runs the rounds; pytest-benchmark's own also keeps the times of ours for its table.
    cpu_clock: CPU seconds so far, by default of this process alone.  machine_clock: of all that the machine runs.
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

    started, own, machine = time.perf_counter(), cpu_clock(), machine_clock() if machine_clock else 0.0
    pedantic(lambda: timed(ours), setup=time_the_others, rounds=rounds, iterations=1)
    busy = 0.0 if machine_clock is None else machine_clock() - machine - (cpu_clock() - own)
    return Comparison(
        what=contest.what,
        amount=contest.amount,
        unit=contest.unit,
        seconds={name: call if isinstance(call, Missing) else seconds[name] for name, call in contest.rivals.items()},
        cpu_seconds={name: total / len(seconds[name]) for name, total in spent.items()},
        first_batch=contest.first_batch,
        others=None if machine_clock is None else max(0.0, busy / (time.perf_counter() - started)),
    )


class Worker:
    """A Python module that answers each line on its stdin with a line of JSON.  Ends with its `with`.

    environment: variables besides this process's own.
    """

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = " ".join([module, *arguments])
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {})},
        )

    def ask(self, line: str) -> Any:
        """Send one line and wait for the answer.  Errors: RuntimeError when the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            code = self.process.wait()
            raise RuntimeError(f"{self.name}: ended with {code}, expected an answer to {line!r}; see its stderr")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()


def touch(frames_N1HW: np.ndarray) -> int:
    """Read every byte; in numpy and by eight bytes at a time, so that it costs every rival the same, and little."""
    return int(np.ascontiguousarray(frames_N1HW).reshape(-1).view(np.uint64).max())


def consume(epoch: Epoch, epochs: int = 1, *, reads: bool = True) -> Call:
    """A consumer of so many epochs that reads every pixel of every batch, or sleeps until the next one is there."""

    def call() -> None:
        for _ in range(epochs):
            for frames_N1HW in epoch():
                if reads:
                    touch(frames_N1HW)

    return call


def arrays(loader: Iterable[tuple[Any, ...]]) -> Epoch:
    """Epochs of a loader whose batches begin with crops, arrays or tensors."""

    def epoch() -> Iterator[np.ndarray]:
        for batch in loader:
            yield np.asarray(batch[0])

    return epoch


def opened(build: Callable[[], Epoch]) -> tuple[Epoch, float]:
    """A loader that was just built, after one epoch, and the seconds from nothing to its first batch."""
    start = time.perf_counter()
    epoch = build()
    batches = iter(epoch())
    touch(next(batches))
    seconds = time.perf_counter() - start
    for frames_N1HW in batches:
        touch(frames_N1HW)
    return epoch, seconds


def first_samples(epoch: Epoch, count: int) -> np.ndarray:
    """The first crops of an epoch, which is run to its end."""
    batches = [frames_N1HW.copy() for frames_N1HW in epoch()]
    return np.concatenate(batches)[:count]
