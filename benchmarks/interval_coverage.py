"""`python -m benchmarks.interval_coverage`: how often the 95 % intervals hold the truth, and what they cost.

Studies are simulated: patients of one class each, one to four radiographs a patient that share most of their noise, and
probabilities that are too extreme.  The truth is the same metric on a population of 100,000 patients.  Percentiles of
the same resamples stand beside.  Then the seconds of 2,000 resamples of 100,000 samples, all metrics.

Findings of common and rare prevalence, some labels unknown, are simulated alike: each finding, and the means over them.
Averages over the networks of folds, at home and on another collection, and the drop between them, are simulated alike;
beside stands what engine/statistics/averages.py decided against.
"""

# N samples, G groups, X networks, R resamples

import argparse
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from engine.hurdles.results import SHOWN
from engine.statistics.averages import Averages, NetworkTest, drops, measure_networks
from engine.statistics.bootstrap import ECE_DISTANCE, count_groups, metrics_of, resample, sum_groups
from engine.statistics.estimates import RESAMPLES, UNDEFINED, Estimate, difference, estimate, estimates, make_estimates
from engine.statistics.findings import FindingsTest, measure_findings
from loaders.machine import usable_cores

POPULATION = 100_000  # groups
NETWORK_POPULATION = 20_000  # the same, fewer, as each of 15 networks is measured on it
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


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkStudy:
    """What is simulated of networks.  home, away: groups.  separation: of the classes, in deviations.

    repeats: how often folds are dealt.
    """

    home: int
    away: int
    prevalence: float = 0.4
    separation: tuple[float, float] = (2.0, 1.0)
    folds: int = 5
    repeats: int = 3


NETWORK_STUDIES = (
    NetworkStudy(home=25, away=30, prevalence=0.2),
    NetworkStudy(home=60, away=60),
    NetworkStudy(home=60, away=30, separation=(3.5, 0.3)),
    NetworkStudy(home=150, away=36, prevalence=0.5, separation=(4.5, 0.1)),
    NetworkStudy(home=150, away=150, separation=(2.0, 2.0)),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingsStudy:
    """What is simulated of findings.  prevalence: of each.  unknown: share of labels.  shared: the deviation that all
    findings of a group have in common."""

    groups: int
    prevalence: tuple[float, ...] = (0.4, 0.3, 0.2, 0.12)
    unknown: float = 0.3
    separation: float = 1.2
    shared: float = 0.6


FINDINGS_STUDIES = (
    FindingsStudy(groups=60),
    FindingsStudy(groups=150, unknown=0.5),
    FindingsStudy(groups=150, prevalence=(0.4, 0.3, 0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.1, 0.1, 0.08, 0.08, 0.06, 0.06)),
    FindingsStudy(groups=400, prevalence=(0.3, 0.03), separation=2.0),
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


def simulate_networks(
    study: NetworkStudy, groups: int, separation: float, rng: np.random.Generator
) -> list[NetworkTest]:
    """What each network predicts of the same samples.  Networks share most of their noise, and differ in skill."""
    group_N = np.repeat(np.arange(groups), rng.integers(1, 5, groups))
    label_N = (rng.random(groups) < study.prevalence).astype(np.int64)[group_N]

    def noise() -> np.ndarray:
        return 0.8 * rng.normal(size=groups)[group_N] + 0.6 * rng.normal(size=len(group_N))

    common_N, tests = noise(), []
    for network in range(study.folds * study.repeats):
        skill = separation * (1 + 0.1 * np.cos(network))
        evidence_N = skill * (skill * (label_N - 0.5) + np.sqrt(0.7) * common_N + np.sqrt(0.3) * noise())
        probability_N = 1 / (1 + np.exp(-1.3 * (evidence_N + 0.3 * np.sin(3 * network))))
        probability_NK = np.stack([1 - probability_N, probability_N], axis=1)
        tests.append(NetworkTest(label_N=label_N, probability_NK=probability_NK, group_N=group_N, repeat=network))
    return tests


def own_folds(study: NetworkStudy, tests: list[NetworkTest], rng: np.random.Generator) -> list[NetworkTest]:
    """Each network on its own test fold; folds are of whole groups, and stratified."""
    label_N, group_N = tests[0].label_N, tests[0].group_N
    label_G = label_N[np.unique(group_N, return_index=True)[1]]
    found = []
    for repeat in range(study.repeats):
        shuffled_G = rng.permutation(len(label_G))
        order_G = shuffled_G[np.argsort(label_G[shuffled_G], kind="stable")]
        fold_N = np.argsort(order_G)[group_N] % study.folds
        for fold in range(study.folds):
            test, chosen_N = tests[repeat * study.folds + fold], fold_N == fold
            found.append(
                NetworkTest(
                    label_N=label_N[chosen_N],
                    probability_NK=test.probability_NK[chosen_N],
                    group_N=group_N[chosen_N],
                    repeat=repeat,
                )
            )
    return found


def without_missing(found: Averages, name: str) -> Estimate:
    """The average where resamples in which a network lacks the metric are left out."""
    counted_X = found.defined()[name]
    if not counted_X.any():
        return UNDEFINED
    distance_R = found.row_XR[ECE_DISTANCE].mean(0) if name == "ece" else None
    return estimate(name, found.row_XR[name][counted_X].mean(0), found.groups[name], distance_R)


def difference_of_resamples(home: Averages, away: Averages, name: str) -> Estimate:
    """The drop as value ± t · standard error of the differences of independent resamples."""
    both_X = home.defined()[name] & away.defined()[name]
    away_XR = away.row_XR[name][:, np.r_[0, len(away.row_XR[name][0]) - 1 : 0 : -1]]  # other draws than home's
    apart_XR = home.row_XR[name][both_X] - away_XR[both_X]
    known_XR = np.isfinite(apart_XR)
    row_R = np.where(known_XR, apart_XR, 0).sum(0) / np.maximum(known_XR.sum(0), 1)
    return difference(name, row_R, min(home.groups[name], away.groups[name]), False)


def network_coverage(
    study: NetworkStudy, studies: int, resamples: int, population: int = NETWORK_POPULATION
) -> dict[str, dict[str, dict[str, float]]]:
    """By kind of average and metric: the truth, the shares of intervals that hold it, lie above and below, and the
    share of the others' that hold it.  A study without an interval counts as missed."""
    places, truth_X = {"home": study.home, "away": study.away}, {}
    for place, separation in zip(places, study.separation, strict=True):
        tests = simulate_networks(study, population, separation, np.random.default_rng(1))
        truth_X[place] = measure_networks(tests, 1, resamples=0).row_XR
    truth_X["drop"] = {name: row_XR - truth_X["away"][name] for name, row_XR in truth_X["home"].items()}
    counts = {kind: {name: np.zeros(4) for name in SHOWN} for kind in truth_X}
    for number in range(studies):
        rng, tested = np.random.default_rng((2, number)), {}
        for (place, groups), separation in zip(places.items(), study.separation, strict=True):
            tests = simulate_networks(study, groups, separation, rng)
            tests = own_folds(study, tests, rng) if place == "home" else tests
            tested[place] = measure_networks(tests, 1, resamples=resamples, seed=number)
        home, away = tested["home"], tested["away"]
        found = {place: one.estimates() for place, one in tested.items()} | {"drop": drops(home, away)}
        for name in SHOWN:
            others = {place: without_missing(one, name) for place, one in tested.items()}
            others["drop"] = difference_of_resamples(home, away, name)
            defined = {place: one.defined()[name] for place, one in tested.items()}
            defined["drop"] = defined["home"] & defined["away"]
            for kind, count in counts.items():
                ((result, other), counted_X) = (found[kind][name], others[kind]), defined[kind]
                if result.low is None or result.high is None:
                    continue
                truth = truth_X[kind][name][counted_X, 0].mean()  # of the networks that define it
                above, below = result.low > truth, result.high < truth
                held = other.low is not None and other.high is not None and other.low <= truth <= other.high
                count[name] += [not above and not below, above, below, held]
    keys = ("covered", "above", "below", "otherwise")
    return {
        kind: {
            name: {"truth": float(truth_X[kind][name].mean())} | dict(zip(keys, (row / studies).tolist(), strict=True))
            for name, row in of_kind.items()
        }
        for kind, of_kind in counts.items()
    }


def simulate_findings(study: FindingsStudy, groups: int, rng: np.random.Generator) -> FindingsTest:
    """What a network predicts of films of several findings."""
    group_N = np.repeat(np.arange(groups), rng.integers(1, 5, groups))
    true_NK = (rng.random((groups, len(study.prevalence))) < study.prevalence)[group_N]
    noise_NK = study.shared * rng.normal(size=(groups, 1))[group_N]
    noise_NK = noise_NK + np.sqrt(0.64 - study.shared**2) * rng.normal(size=(groups, len(study.prevalence)))[group_N]
    noise_NK += 0.6 * rng.normal(size=true_NK.shape)
    logit_NK = study.separation * (study.separation * (true_NK - 0.5) + noise_NK)
    logit_NK += np.log(study.prevalence) - np.log1p(-np.array(study.prevalence))
    return FindingsTest(
        finding_NK=np.where(rng.random(true_NK.shape) < study.unknown, np.nan, true_NK).astype(np.float32),
        probability_NK=1 / (1 + np.exp(-1.3 * logit_NK)),
        group_N=group_N,
        threshold=np.array(study.prevalence),
    )


def findings_coverage(
    study: FindingsStudy, studies: int, resamples: int, population: int = NETWORK_POPULATION
) -> dict[str, float]:
    """The share of intervals that hold the truth: of the mean over findings, and of the rarest finding.

    The truth of a mean is that over the findings which the study measures; studies that do not measure the rarest are
    left out there.
    """
    truth = measure_findings([simulate_findings(study, population, np.random.default_rng(1))], resamples=0).estimates()
    held: dict[str, list[bool]] = {}
    for number in range(studies):
        test = simulate_findings(study, study.groups, np.random.default_rng((2, number)))
        measured = measure_findings([test], resamples=resamples, seed=number)
        found, macro = measured.estimates(), measured.macro()
        for name in ("auc", "f1", "sensitivity", "brier", "ece"):
            known = [place for place, one in enumerate(found) if one and one[name].value is not None]
            of = {"mean": (macro[name], np.mean([truth[place][name].value for place in known]))}
            if found[-1]:
                of["rarest"] = (found[-1][name], truth[-1][name].value)
            for kind, (result, true) in of.items():
                is_held = result.low is not None and result.high is not None and result.low <= true <= result.high
                held.setdefault(f"{kind}: {name}", []).append(is_held)
    return {name: float(np.mean(of_kind)) for name, of_kind in held.items()}


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
    record["findings"] = []
    for findings in FINDINGS_STUDIES:
        shares_held = findings_coverage(findings, chosen.studies, chosen.resamples)
        record["findings"].append({"study": asdict(findings), "covered": shares_held})
        print(f"\n{findings}, {chosen.studies} studies")
        print("\n".join(f"{name:24}{share:9.1%}" for name, share in shares_held.items()), flush=True)
    record["networks"] = []
    for networks in NETWORK_STUDIES:
        of_kind = network_coverage(networks, chosen.studies, chosen.resamples)
        record["networks"].append({"study": asdict(networks), "averages": of_kind})
        print(f"\n{networks}, {chosen.studies} studies")
        print(f"{'':24}{'truth':>8}{'covered':>9}{'above':>8}{'below':>8}  otherwise")
        for kind, found in of_kind.items():
            for name, row in found.items():
                shares = f"{row['covered']:9.1%}{row['above']:8.1%}{row['below']:8.1%}{row['otherwise']:11.1%}"
                print(f"{f'{kind}: {name}':24}{row['truth']:8.3f}{shares}", flush=True)
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(record, indent=1) + "\n")
    print(f"\nwritten: {chosen.out}")


if __name__ == "__main__":
    main()
