"""`make bench-compare`: measure the quick pairs again, and fail when one has fallen below 0.9 of the stored ratio.

Exit codes: 0 none has fallen, 1 at least one has, 2 there is no baseline for this machine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.baseline import Baseline, default_path, load, save
from benchmarks.contest import Missing
from benchmarks.decision import LIMIT, LOOKS, Interval, has_fallen, measure
from benchmarks.pairs import Pair, quick_pairs
from benchmarks.provenance import describe, provenance

STORING = LOOKS[:-1]  # a baseline is known well enough before a close verdict is


def compare(pairs: Iterable[Pair], stored: dict[str, Interval]) -> list[str]:
    """Measure each pair, say how it stands, and give the names of those that have fallen."""
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
        print(f"{pair.name}: {describe_interval(found)}, stored {before:.2f}: {word(found, before)}", flush=True)
    return fallen


def word(found: Interval, stored: float) -> str:
    """What has become of a ratio."""
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
        ratios[pair.name] = measure(pair.rounds, looks=STORING)
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
