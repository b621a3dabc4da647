"""The cells of a hurdles run: what networks predict of a collection, measured side by side, of classes or findings."""

# N samples, K classes or findings, X networks

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from engine.crossval.findings import why_refused
from engine.crossval.folds import Pool, learnable, only_learnt
from engine.evaluate.checks import finding_cautions
from engine.hurdles.collections import counts_of
from engine.hurdles.networks import NetworkScores
from engine.hurdles.results import Cell, FindingCell, NetworkResult
from engine.statistics.averages import Averages, NetworkTest, drops, measure_networks
from engine.statistics.findings import (
    MACRO,
    FindingsAverages,
    FindingsTest,
    findings_drops,
    mean_or_none,
    measure_findings,
)
from loaders.cautions import Caution, caution

Found: TypeAlias = Averages | FindingsAverages


@dataclass(frozen=True, kw_only=True, slots=True)
class Tested:
    """What one network predicts of the samples that it is tested on.

    labels: int64 N, or of findings float32 N×K, unknown where it has learnt nothing of one.  probability_NK:
    calibrated.  repeat: as of NetworkTest.
    """

    network: NetworkScores
    labels: np.ndarray
    probability_NK: np.ndarray
    group_N: np.ndarray
    repeat: int

    @property
    def test(self) -> NetworkTest:
        """As of classes."""
        threshold = self.network.threshold
        assert not isinstance(threshold, list)
        return NetworkTest(
            label_N=self.labels, probability_NK=self.probability_NK, group_N=self.group_N, threshold=threshold,
            repeat=self.repeat,
        )  # fmt: skip

    @property
    def findings_test(self) -> FindingsTest:
        """As of findings; one without a threshold of its own is present from 0.5 on."""
        assert isinstance(self.network.threshold, list)
        threshold_K = np.array([0.5 if threshold is None else threshold for threshold in self.network.threshold])
        return FindingsTest(
            finding_NK=self.labels, probability_NK=self.probability_NK, group_N=self.group_N, threshold=threshold_K,
            repeat=self.repeat,
        )  # fmt: skip


def tested_labels(pool: Pool, trained: Pool) -> np.ndarray:
    """The labels that networks of a pool are tested by on another, or on it: see Tested."""
    if pool.facts.task == "classes":
        return pool.labels
    names = pool.facts.classes
    return only_learnt(pool.labels, names, learnable(trained.labels, names))


def home_tests(pool: Pool, networks: Sequence[NetworkScores]) -> list[Tested]:
    """Each network on its own test fold."""
    labels = tested_labels(pool, pool)
    return [
        Tested(
            network=network, labels=labels[network.place], probability_NK=np.array(network.probability),
            group_N=pool.group_N[network.place], repeat=network.repeat,
        )
        for network in networks
    ]  # fmt: skip


def measure(pool: Pool, tests: Sequence[Tested], *, resamples: int, seed: int) -> Found:
    """Every metric of each network, over resamples of groups that all share."""
    if pool.facts.task == "findings":
        return measure_findings([one.findings_test for one in tests], resamples=resamples, seed=seed)
    return measure_networks([one.test for one in tests], pool.positive, resamples=resamples, seed=seed)


def cell_of(
    row: str,
    column: str,
    pool: Pool,
    kept_N: np.ndarray | slice,
    trained: Pool,
    tests: Sequence[Tested],
    found: Found | None,
    at_home: Found | None,
    removed: dict[str, int],
    cautions: list[Caution],
) -> Cell:
    """A cell.  pool, kept_N: the samples that are tested on.  trained: what the row's networks are trained on.

    found: None where nothing is left to test.  at_home: of the row; None for the home cell itself.
    """
    labels, group_N = pool.labels[kept_N], pool.group_N[kept_N]
    parts: dict[str, Any]
    if pool.facts.task == "classes":
        parts = class_parts(tests, found, at_home)
    else:
        learnt = learnable(trained.labels, pool.facts.classes)
        parts = finding_parts(pool.facts.classes, learnt, labels, group_N, tests, found, at_home)
        if not_learnt := [name for name in pool.facts.classes if name not in learnt]:
            cautions = [*cautions, caution("findings-not-in-training", findings=not_learnt)]
        if found:
            chosen = [place for place, name in enumerate(pool.facts.classes) if name in learnt]
            cautions = [*cautions, *finding_cautions(learnt, labels[:, chosen], group_N)]
    return Cell(
        row=row,
        column=column,
        place="home" if at_home is None else "away",
        num_samples=len(labels),
        num_groups=len(np.unique(group_N)),
        class_counts=counts_of(labels, len(pool.facts.classes)),
        removed=removed,
        cautions=cautions,
        **parts,
    )


def class_parts(tests: Sequence[Tested], found: Found | None, at_home: Found | None) -> dict[str, Any]:
    """What of a cell is measured of classes."""
    assert not isinstance(found, FindingsAverages) and not isinstance(at_home, FindingsAverages)
    values = found.values() if found else [{}] * len(tests)
    return {
        "estimates": found.estimates() if found else {},
        "drop": drops(at_home, found) if at_home and found else {},
        "networks": [
            network_result(one, one.network.temperature, one.network.threshold, len(one.labels), value)
            for one, value in zip(tests, values, strict=True)
        ],
    }


def finding_parts(
    names: Sequence[str],
    learnt: Sequence[str],
    finding_NK: np.ndarray,
    group_N: np.ndarray,
    tests: Sequence[Tested],
    found: Found | None,
    at_home: Found | None,
) -> dict[str, Any]:
    """What of a cell is measured of findings: of each, and means."""
    assert not isinstance(found, Averages) and not isinstance(at_home, Averages)
    by_finding: Sequence[Averages | None] = found.by_finding if found else [None] * len(names)
    by_drop, drop = findings_drops(at_home, found) if at_home and found else ([{}] * len(names), {})
    findings = []
    for place, (name, one) in enumerate(zip(names, by_finding, strict=True)):
        known_N = np.isfinite(finding_NK[:, place])
        values = one.values() if one else [{}] * len(tests)
        findings.append(
            FindingCell(
                name=name,
                num_known=int(known_N.sum()),
                num_present=int((finding_NK[:, place] == 1).sum()),
                num_groups=len(np.unique(group_N[known_N])),
                refused=None if one else why_refused(name, learnt),
                estimates=one.estimates() if one else {},
                drop=by_drop[place],
                networks=[
                    network_result(
                        test, test.network.temperature[place], test.network.threshold[place],  # type: ignore[index]
                        int(np.isfinite(test.labels[:, place]).sum()), value,
                    )
                    for test, value in zip(tests, values, strict=True)
                ],
            )
        )  # fmt: skip
    measured = [one for one in by_finding if one]
    return {
        "estimates": found.macro() if found else {},
        "drop": drop,
        "networks": [
            network_result(
                test, None, None, len(test.labels),
                {name: mean_or_none(np.array([one.row_XR[name][place, 0] for one in measured])) for name in MACRO}
                if found else {},
            )
            for place, test in enumerate(tests)
        ],
        "findings": findings,
    }  # fmt: skip


def network_result(
    tested: Tested, temperature: Any, threshold: Any, num_samples: int, values: dict[str, float | None]
) -> NetworkResult:
    """One network's line of a cell."""
    return NetworkResult(
        seed=tested.network.repeat, fold=tested.network.fold, temperature=temperature, threshold=threshold,
        num_samples=num_samples, values=values,
    )  # fmt: skip
