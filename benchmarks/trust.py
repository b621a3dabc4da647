"""`make bench-trust`: how often `make bench-compare` reports a slowdown that is none, and how often it misses one.

The same code on both sides, and then ours with 15 % more work of the same kind, go many times through the decision of
bench-compare. Prints both counts, writes them as JSON, and exits with 1 unless at most 1 in 50 of the first and at
least 9 in 10 of the second have fallen.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.compare import LIMIT, has_fallen, measure, paired_ratios, warm_up
from benchmarks.contest import Call, arrays, consume
from benchmarks.datasets import noise_beton
from benchmarks.kernel_contests import work_on
from benchmarks.loader_contests import open_ours
from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS, THREADS

SAME_RUNS, SLOWED_RUNS = 50, 30  # of all subjects together
MOST_FALSE, LEAST_CAUGHT = 1 / 50, 9 / 10
PASSES, SLOWED_PASSES = 20, 23  # 15 % more
KERNEL_SAMPLES, LOADER_SAMPLES = 16, 64

Repeated = Callable[[int], Call]  # a call that does the same work so many times


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """Of so many runs so many have fallen."""

    subject: str
    what: str
    runs: int
    fallen: int


def affine_kernel(folder: Path) -> Iterator[Repeated]:
    """The affine kernel on a few frames."""
    path = noise_beton(folder / "kernel.beton", 128, 320, 224)
    with work_on(path) as work:
        yield lambda passes: work.call(work.affine, passes, num_samples=KERNEL_SAMPLES)


def evaluation_batches(folder: Path) -> Iterator[Repeated]:
    """The evaluation loader on a small beton."""
    path = noise_beton(folder / "loader.beton", LOADER_SAMPLES, 320, 224)
    with open_ours(path, training=False) as loader:
        yield lambda passes: consume(arrays(loader), passes)


SUBJECTS = {"affine kernel": affine_kernel, "evaluation batches": evaluation_batches}


def count_fallen(ours: Call, theirs: Call, runs: int) -> int:
    """How many of so many runs of the decision, against a stored ratio of 1, end in `fallen`."""
    warm_up(ours, theirs)
    fallen = 0
    for _ in range(runs):
        found = measure(paired_ratios(ours, theirs), limit=LIMIT)
        fallen += has_fallen(found, 1.0)
        print(f"  {found.ratio:.3f} ({found.low:.3f}–{found.high:.3f}, {found.rounds} rounds)", flush=True)
    return fallen


def count_all(folder: Path, same_runs: int, slowed_runs: int) -> list[Count]:
    """Both counts of each subject."""
    counts = []
    for subject, prepare in SUBJECTS.items():
        with contextmanager(prepare)(folder) as repeated:
            for what, passes, runs in (("same code", PASSES, same_runs), ("15 % slower", SLOWED_PASSES, slowed_runs)):
                print(f"{subject}, {what}:", flush=True)
                runs = -(-runs // len(SUBJECTS))
                fallen = count_fallen(repeated(passes), repeated(PASSES), runs)
                counts.append(Count(subject=subject, what=what, runs=runs, fallen=fallen))
    return counts


def share_fallen(counts: list[Count], what: str) -> tuple[int, int]:
    """Fallen, and runs, of all subjects."""
    chosen = [count for count in counts if count.what == what]
    return sum(count.fallen for count in chosen), sum(count.runs for count in chosen)


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trust", description=__doc__)
    parser.add_argument("--same", type=int, default=SAME_RUNS, help="runs of the same code; default: %(default)s")
    parser.add_argument("--slowed", type=int, default=SLOWED_RUNS, help="runs of slower code; default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "trust.json", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(THREADS)
    facts = provenance()
    print(describe(facts))
    with tempfile.TemporaryDirectory() as folder:
        counts = count_all(Path(folder), chosen.same, chosen.slowed)
    false, same_runs = share_fallen(counts, "same code")
    caught, slowed_runs = share_fallen(counts, "15 % slower")
    print(f"same code: {false} of {same_runs} runs fell, expected at most 1 in 50")
    print(f"15 % slower: {caught} of {slowed_runs} runs fell, expected at least 9 in 10")
    chosen.out.parent.mkdir(exist_ok=True)
    record = {"provenance": facts, "counts": [asdict(count) for count in counts]}
    chosen.out.write_text(json.dumps(record, indent=1) + "\n")
    return int(false > MOST_FALSE * same_runs or caught < LEAST_CAUGHT * slowed_runs)


if __name__ == "__main__":
    sys.exit(main())
