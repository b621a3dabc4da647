"""A measurement: what one set of scores amounts to, with intervals: as a whole, at operating points, in subgroups."""

# N samples, K classes

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from engine.evaluation.decision import against_rest
from engine.evaluation.subgroups import Subgroup
from engine.statistics.estimates import Estimate, estimates, paired_differences, trivial
from engine.statistics.operating_points import OperatingPoint


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What a network said of a set: labels int64 (N,), probabilities float64 (N, K), groups int64 (N,).

    positive: the positive class among classes.
    """

    label_N: np.ndarray
    probability_NK: np.ndarray
    group_N: np.ndarray
    classes: tuple[str, ...]
    positive: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bootstrap:
    """How intervals are made.  prevalence: the stated one, for predictive values; None for none."""

    resamples: int
    seed: int
    prevalence: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AtPoint:
    """One operating point on the set under test; no estimates where it was refused."""

    point: OperatingPoint
    estimates: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True, slots=True)
class InSubgroup:
    """One subgroup; no estimates where it is too small.  positives: samples of the positive class."""

    subgroup: Subgroup
    num_groups: int
    positives: int
    estimates: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Estimates of the most probable class, the trivial classifier's values, points, subgroups, and a difference.

    difference: these scores minus another network's on the same samples; None where none was asked for.
    """

    estimates: dict[str, Estimate]
    trivial: dict[str, Estimate]
    points: tuple[AtPoint, ...]
    subgroups: tuple[InSubgroup, ...]
    difference: dict[str, Estimate] | None
    num_groups: int
    prevalence: float


def measure(
    scores: Scores,
    points: Sequence[OperatingPoint],
    subgroups: Sequence[Subgroup],
    bootstrap: Bootstrap,
    *,
    other_NK: np.ndarray | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    """Estimate everything.  other_NK: probabilities of another network on the same samples, for the difference."""
    estimate = partial(estimates, resamples=bootstrap.resamples, seed=bootstrap.seed)
    done, total = 0, 1 + len(points) + len(subgroups) + (other_NK is not None)

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    label_N, group_N, positive = scores.label_N, scores.group_N, scores.positive
    whole = estimate(label_N, scores.probability_NK, group_N, positive, prevalence=bootstrap.prevalence)
    count()
    at_points = []
    binary = against_rest(label_N, scores.probability_NK, positive)
    for point in points:
        found: dict[str, Estimate] = {}
        if point.threshold is not None:
            prevalence = bootstrap.prevalence
            found = estimate(
                *binary[:2], group_N, binary[2], threshold=point.threshold, prevalence=prevalence, scores=False
            )
        at_points.append(AtPoint(point=point, estimates=found))
        count()
    in_subgroups = []
    for subgroup in subgroups:
        index_N, found = subgroup.index_N, {}
        if not subgroup.refused:
            found = estimate(label_N[index_N], scores.probability_NK[index_N], group_N[index_N], positive)
        in_subgroups.append(
            InSubgroup(
                subgroup=subgroup,
                num_groups=len(np.unique(group_N[index_N])),
                positives=int((label_N[index_N] == positive).sum()),
                estimates=found,
            )
        )
        count()
    difference = None
    if other_NK is not None:
        difference = paired_differences(
            label_N, other_NK, scores.probability_NK, group_N, positive, prevalence=bootstrap.prevalence,
            resamples=bootstrap.resamples, seed=bootstrap.seed,
        )  # fmt: skip
        count()
    return Measurement(
        estimates=whole,
        trivial=trivial(label_N, len(scores.classes), positive, prevalence=bootstrap.prevalence),
        points=tuple(at_points),
        subgroups=tuple(in_subgroups),
        difference=difference,
        num_groups=len(np.unique(group_N)),
        prevalence=float((label_N == positive).mean()),
    )
