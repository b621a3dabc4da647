"""`python -m benchmarks.interval_coverage`: how often the 95 % intervals hold the truth, and what they cost.

Studies are simulated: patients of one class each, one to four radiographs a patient that share most of their noise, and
probabilities that are too extreme.  The truth is the same metric on a population of 100,000 patients.  Percentiles of
the same resamples stand beside.  Then the seconds of 2,000 resamples of 100,000 samples, all metrics.
"""

# N samples, G groups

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from engine.statistics.bootstrap import ECE_DISTANCE, count_groups, metrics_of, resample, sum_groups
from engine.statistics.estimates import RESAMPLES, estimates, make_estimates
from loaders.machine import usable_cores

POPULATION = 100_000  # groups
STATED = 0.1  # prevalence
REPEATS = 5
WANTED = (0.93, 0.97)


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What is simulated.  separation: of the classes, in deviations.  shared: the deviation that a group has in common.

    extreme: by how much logits are too large.
    """

    groups: int
    prevalence: float = 0.4
    separation: float = 2.0
    shared: float = 0.8
    extreme: float = 1.3


STUDIES = (
    Study(groups=80),
    Study(groups=150),
    Study(groups=150, prevalence=0.25, extreme=1.0),
    Study(groups=150, separation=3.5, prevalence=0.5),
)


def simulate(study: Study, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels int64 N, probabilities float64 (N, 2), groups int64 N."""
    group_N = np.repeat(np.arange(study.groups), rng.integers(1, 5, study.groups))
    label_N = (rng.random(study.groups) < study.prevalence).astype(np.int64)[group_N]
    noise_N = study.shared * rng.normal(size=study.groups)[group_N]
    noise_N += np.sqrt(1 - study.shared**2) * rng.normal(size=len(group_N))
    evidence_N = study.separation * (study.separation * (label_N - 0.5) + noise_N)
    logit_N = study.extreme * (evidence_N + np.log(study.prevalence / (1 - study.prevalence)))
    probability_N = 1 / (1 + np.exp(-logit_N))
    return label_N, np.stack([1 - probability_N, probability_N], axis=1), group_N


def coverage(study: Study, studies: int, resamples: int) -> dict[str, dict[str, float]]:
    """By metric: the truth, the shares of intervals that hold it, lie above and below, and percentiles that hold it.

    A study in which a metric is undefined, or has no interval, counts as missed.
    """
    whole = Study(**(asdict(study) | {"groups": POPULATION}))
    sums = sum_groups(*simulate(whole, np.random.default_rng(1)), 1, None, True)
    found = metrics_of(sums, resample(sums, 0, 0), 1, STATED)
    truth = {name: found[name][0] for name in found if name != ECE_DISTANCE}
    counts = {name: np.zeros(4) for name in truth}
    for number in range(studies):
        sums = sum_groups(*simulate(study, np.random.default_rng((2, number))), 1, None, True)
        found = metrics_of(sums, resample(sums, resamples, number), 1, STATED)
        for name, result in make_estimates(found, count_groups(sums), STATED).items():
            known_R = found[name][1:][np.isfinite(found[name][1:])]
            if result.low is None or result.high is None:
                continue
            low, high = np.quantile(known_R, [0.025, 0.975])
            above, below = result.low > truth[name], result.high < truth[name]
            counts[name] += [not above and not below, above, below, low <= truth[name] <= high]
    keys = ("covered", "above", "below", "percentiles")
    return {
        name: {"truth": float(truth[name])} | dict(zip(keys, (count / studies).tolist(), strict=True))
        for name, count in counts.items()
    }


def seconds(groups: int, resamples: int = RESAMPLES, samples: int = 100_000) -> tuple[float, float]:
    """What estimates takes, sorting included, compiling not: seconds by the clock, and of all cores together."""
    rng = np.random.default_rng(3)
    label_N = rng.integers(0, 2, samples)
    probability_N = 1 / (1 + np.exp(rng.normal(size=samples) - 2 * label_N + 1))
    probability_NK, group_N = np.stack([1 - probability_N, probability_N], axis=1), np.arange(samples) % groups
    estimates(label_N, probability_NK, group_N, 1, resamples=2)
    clock, cores = time.perf_counter(), time.process_time()
    estimates(label_N, probability_NK, group_N, 1, resamples=resamples, prevalence=STATED)
    return time.perf_counter() - clock, time.process_time() - cores


def main(arguments: list[str] | None = None) -> None:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interval_coverage", description=__doc__)
    parser.add_argument(
        "--studies", type=int, default=1000, help="simulated studies of each kind; default: %(default)s"
    )
    parser.add_argument("--resamples", type=int, default=1000, help="of each study; default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "interval_coverage.json", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    facts = provenance()
    print(describe(facts))
    record: dict[str, Any] = {
        "provenance": facts,
        "settings": {"studies": chosen.studies, "resamples": chosen.resamples},
        "seconds": {},
        "coverage": [],
    }
    for groups in (100_000, 33_333):
        taken = [seconds(groups) for _ in range(REPEATS)]
        record["seconds"][groups] = taken
        clock, cores = np.median(taken, axis=0)
        print(
            f"{RESAMPLES} resamples of 100,000 samples in {groups:,} groups, every metric, {usable_cores()} cores: "
            f"{clock:.2f} s by the clock, {cores:.2f} s of the cores together (median of {REPEATS})"
        )
    for study in STUDIES:
        found = coverage(study, chosen.studies, chosen.resamples)
        record["coverage"].append({"study": asdict(study), "metrics": found})
        print(
            f"\n{study}, {chosen.studies} studies\n"
            f"{'':24}{'truth':>8}{'covered':>9}{'above':>8}{'below':>8}  percentiles"
        )
        for name, row in found.items():
            outside = "" if WANTED[0] <= row["covered"] <= WANTED[1] else "  outside 93 to 97 %"
            shares = f"{row['covered']:9.1%}{row['above']:8.1%}{row['below']:8.1%}{row['percentiles']:13.1%}"
            print(f"{name:24}{row['truth']:8.3f}{shares}{outside}", flush=True)
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwritten: {chosen.out}")


if __name__ == "__main__":
    main()
