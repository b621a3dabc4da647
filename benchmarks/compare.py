"""`make bench-compare`: measure the quick pairs again, and fail when one has fallen below 0.9 of the stored ratio.

Only rivals that a busy machine slows as much as it slows us: FFCV's ratio went from 2 to 17 beside a busy neighbour.
Calls are short, so that many rounds fit in a minute.

One round is four short calls: ours, theirs, theirs, ours, and in the next round the other way about.  So each goes
first as often as the other, follows itself as often, and a slow drift of the machine affects both alike.  The shorter
of either's two calls counts, because other work of the machine only ever lengthens one: that halves the interval on a
busy machine.  Of the rounds' ratios the median counts, with an interval from order statistics, which assumes nothing
about the noise but that rounds are alike.  Rounds continue until the interval is clear of the limit, or narrow, or
there are enough.

Exit codes: 0 none has fallen, 1 at least one has, 2 there is no baseline for this machine.
"""

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest import Call, Contest, Missing
from benchmarks.datasets import convert_table, draw_phantoms, repeat
from benchmarks.kernel_contests import affine_contest, crop_contest
from benchmarks.loader_contests import evaluation_threads_contest, training_threads_contest
from benchmarks.provenance import describe, machine_name, provenance
from benchmarks.settings import BATCH, RESULTS, THREADS
from benchmarks.step_contests import step_contest

LIMIT = 0.9  # of the stored ratio
CONFIDENCE = 0.99
CHECKS = (24, 48, 96, 192, 384)  # rounds after which the interval is checked
NARROW = 0.01  # half of the interval's width, as a share: narrow enough to stop
STORING = CHECKS[:-1]  # a baseline is known well enough before a close verdict is
AFFINE_PASSES = 1  # in one call: some ten milliseconds
EVALUATION_EPOCHS = 4


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Baseline:
    """ratios: by pair.  provenance: commit, machine and versions."""

    ratios: dict[str, Interval]
    provenance: dict[str, Any]


def default_path() -> Path:
    """The file for machines like this one."""
    return RESULTS / f"{machine_name()}.json"


def save(baseline: Baseline, path: Path) -> None:
    """Write as JSON."""
    ratios = {pair: found.record() for pair, found in baseline.ratios.items()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"provenance": baseline.provenance, "ratios": ratios}, indent=1) + "\n")


def load(path: Path) -> Baseline:
    """Read what `save` wrote.  Errors: OSError, ValueError for another content."""
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or not {"ratios", "provenance"} <= content.keys():
        raise ValueError(f"{path}: no baseline, expected ratios and provenance; run make bench-baseline")
    ratios = {pair: Interval(**found) for pair, found in content["ratios"].items()}
    return Baseline(ratios=ratios, provenance=content["provenance"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Ours and one rival of a contest.  rounds: the ratio of each, without end; Missing where the rival is."""

    name: str
    rounds: Iterator[float] | Missing


def pair_of(contest: Contest, rival: str) -> Pair:
    """A pair, warmed up, whose ratio is of equal amounts of work."""
    name = f"{contest.what}: {rival}"
    ours, theirs = contest.rivals[contest.ours], contest.rivals[rival]
    if isinstance(theirs, Missing):
        return Pair(name=name, rounds=theirs)
    assert not isinstance(ours, Missing)
    share = contest.share(rival) / contest.share(contest.ours)
    warm_up(ours, theirs)
    return Pair(name=name, rounds=(ratio * share for ratio in paired_ratios(ours, theirs)))


def quick_pairs(folder: Path) -> Iterator[Pair]:
    """Each pair, ready to be measured before the next is asked for; outputs are compared first.

    Errors: Disagreement.
    """
    torch.set_num_threads(THREADS)
    manifest = draw_phantoms(folder)
    for size in (224, 64):
        (folder / str(size)).mkdir()
    converted = convert_table(manifest, folder / "224", 224)
    few = repeat(convert_table(manifest, folder / "64", 64), folder / "few.beton", BATCH)  # one step an epoch
    quick: tuple[tuple[AbstractContextManager[Contest], tuple[str, ...]], ...] = (
        (affine_contest(converted.beton, AFFINE_PASSES), ("OpenCV",)),
        (crop_contest(converted.beton), ("numpy",)),
        (evaluation_threads_contest(converted.beton, EVALUATION_EPOCHS), ("numpy in threads",)),
        (training_threads_contest(converted.beton), ("OpenCV in threads",)),
        (step_contest(few), ("stock PyTorch, NCHW",)),
    )
    for prepared, rivals in quick:
        with prepared as contest:
            contest.check()
            for rival in rivals:
                yield pair_of(contest, rival)


def compare(pairs: Iterable[Pair], stored: dict[str, Interval]) -> list[str]:
    """Measure each pair, print the outcome, and give the names of those that have fallen."""
    fallen = []
    for pair in pairs:
        if isinstance(pair.rounds, Missing):
            print(f"{pair.name}: {pair.rounds}", flush=True)
            continue
        if pair.name not in stored:
            print(f"{pair.name}: not in the baseline; run make bench-baseline", flush=True)
            continue
        before = stored[pair.name].ratio
        found = measure(pair.rounds, limit=LIMIT * before)
        if has_fallen(found, before):
            fallen.append(pair.name)
        print(f"{pair.name}: {describe_interval(found)}, stored {before:.2f}: {outcome(found, before)}", flush=True)
    return fallen


def outcome(found: Interval, stored: float) -> str:
    """Whether a ratio has fallen, holds, or is not clear."""
    if has_fallen(found, stored):
        return f"FALLEN below {LIMIT:g} of it"
    return "holds" if found.low > LIMIT * stored else "not clear, within noise"


def describe_interval(found: Interval) -> str:
    """A ratio as text."""
    return f"{found.ratio:.2f} ({found.low:.2f}–{found.high:.2f}, {found.rounds} rounds)"


def store(pairs: Iterable[Pair], path: Path) -> None:
    """Measure each pair, and write the baseline."""
    ratios = {}
    for pair in pairs:
        if isinstance(pair.rounds, Missing):
            print(f"{pair.name}: {pair.rounds}", flush=True)
            continue
        ratios[pair.name] = measure(pair.rounds, checks=STORING)
        print(f"{pair.name}: {describe_interval(ratios[pair.name])}", flush=True)
    save(Baseline(ratios=ratios, provenance=provenance()), path)
    print(f"stored in {path}")


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--store", action="store_true", help="measure and store the baseline instead")
    parser.add_argument("--baseline", type=Path, default=default_path(), help="default, by the machine: %(default)s")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if chosen.store:
            store(quick_pairs(Path(folder)), chosen.baseline)
            return 0
        if not chosen.baseline.is_file():
            print(
                f"{chosen.baseline}: no such file, expected the baseline of a machine like this one; "
                "run make bench-baseline on the commit to compare with, or name another with --baseline"
            )
            return 2
        baseline = load(chosen.baseline)
        now = provenance()
        print(f"stored: {describe(baseline.provenance)}\nnow: {describe(now)}")
        for when, facts in (("stored", baseline.provenance), ("now", now)):
            if (facts["load_average"] or 0) > facts["cores"] / 2:
                print(f"{when}: others were at work on this machine, which shifts ratios too; trust no verdict, repeat")
        fallen = compare(quick_pairs(Path(folder)), baseline.ratios)
    print(f"fallen: {'; '.join(fallen) or 'none'}")
    return 1 if fallen else 0


if __name__ == "__main__":
    sys.exit(main())
