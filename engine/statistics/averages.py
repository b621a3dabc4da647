"""Averages over networks: each scored alone, then averaged, with intervals from resamples of groups that all share.

A patient in the test folds of three seeds is drawn for all three networks at once: resampled for each alone, three
networks that predict the same would seem to narrow the interval.

In a resample, a fold may be left without a positive.  Each resample averages the networks that it defines: leaving it
out altogether would keep only those in which every fold happens to have its few positives, which differ too little.
With one positive patient a fold, intervals of the balanced accuracy then held the truth in 69 of 100 simulated studies,
and hold it in 95 (benchmarks/interval_coverage.py).  What another training would change is not in the intervals.
"""

# N samples, K classes, C classes of a mean, X networks, G groups, R rows: row 0 the sample itself, then the resamples

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.statistics.bootstrap import ECE_DISTANCE, count_groups, fewest, metrics_of, resample, sum_groups
from engine.statistics.estimates import RESAMPLES, ROUNDING, UNBOUNDED, UNDEFINED, Estimate, make_estimates
from engine.statistics.metrics import by_mean, mean_of_known, none_for_nan, ratio


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkTest:
    """What one network predicts of the samples that it is tested on.

    label_N: int.  probability_NK: calibrated.  group_N: int64, numbered alike for all networks of one call, so that
    resamples draw a group for all of them at once.  threshold: of the positive class's probability, for two classes,
    one or one a sample; None: the most probable class is predicted.  repeat: of networks of one number, such as the
    folds of one seed, the groups are added; unless they have groups in common, as on another collection.
    """

    label_N: np.ndarray
    probability_NK: np.ndarray
    group_N: np.ndarray
    threshold: float | np.ndarray | None = None
    repeat: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Averages:
    """The metrics of each network over the same resamples.

    row_XR: by metric, float64, NaN where undefined; and ECE_DISTANCE.  groups: behind each metric, added over the folds
    of a repeat, of the repeats the fewest; networks with groups in common count as repeats.
    """

    row_XR: dict[str, np.ndarray]
    groups: dict[str, int]

    def estimates(self) -> dict[str, Estimate]:
        """The mean over the networks that define a metric, with its interval by the rules of `estimates`."""
        return self.estimates_of(self.defined())

    def estimates_of(self, chosen: dict[str, np.ndarray]) -> dict[str, Estimate]:
        """The same over chosen networks, bool X by metric."""
        return make_estimates(self.mean_rows(chosen), self.groups, None)

    def mean_rows(self, chosen: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Means over chosen networks, float64 R by metric; a network's mean over classes is of those chosen."""
        row_XR = {name: np.where(chosen[name][:, None], row_XR, np.nan) for name, row_XR in self.row_XR.items()}
        of_network = [{name: row_XR[name][place] for name in row_XR} for place in range(len(row_XR["accuracy"]))]
        means = [{name: mean_of_known(row_RC) for name, row_RC in by_mean(found).items()} for found in of_network]
        row_XR |= {name: np.stack([found[name] for found in means]) for name in means[0]}
        known_XR = {name: np.isfinite(rows_XR) for name, rows_XR in row_XR.items()}
        row_R = {name: ratio(np.where(known, row_XR[name], 0).sum(0), known.sum(0)) for name, known in known_XR.items()}
        for name, mean_R in row_R.items():  # where none moves, the mean only does since resamples lack some of them
            if not (np.abs(row_XR[name] - row_XR[name][:, :1]) > ROUNDING).any():
                row_R[name] = np.where(np.isfinite(mean_R), mean_R[0], np.nan)
        return row_R

    def defined(self) -> dict[str, np.ndarray]:
        """The networks that define each metric on the sample itself, bool X."""
        return {name: np.isfinite(row_XR[:, 0]) for name, row_XR in self.row_XR.items()}

    def values(self) -> list[dict[str, float | None]]:
        """The metrics of each network, None where undefined; a calibration slope also where few samples decide it."""
        names = [name for name in self.row_XR if name != ECE_DISTANCE]
        of_network = zip(*(none_for_nan(self.row_XR[name][:, 0]) for name in names), strict=True)
        return [dict(zip(names, values, strict=True)) for values in of_network]


def measure_networks(
    tests: Sequence[NetworkTest],
    positive: int,
    *,
    group_G: np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Averages:
    """Every metric of each network, over resamples of the groups of all of them.

    The same draws serve all networks; a group without a sample of a network counts for nothing there.
    group_G: the groups that are drawn from, in order, such as those of other calls, too; None: those of the tests.
    Errors: InputError for probabilities that are not finite.
    """
    own = [np.unique(test.group_N) for test in tests]
    group_G = np.unique(np.concatenate(own)) if group_G is None else group_G
    found, behind = [], dict[str, Counter[tuple[int, int]]]()
    for place, test in enumerate(tests):
        place_N = np.searchsorted(group_G, test.group_N)
        sums = sum_groups(
            test.label_N, test.probability_NK, place_N, positive, test.threshold, True, num_groups=len(group_G)
        )
        found.append(metrics_of(sums, resample(sums, resamples, seed), positive, None))
        together = np.concatenate([own_G for own_G, each in zip(own, tests, strict=True) if each.repeat == test.repeat])
        folds = len(np.unique(together)) == len(together)
        for name, count in count_groups(sums).items():
            behind.setdefault(name, Counter())[test.repeat, 0 if folds else place] += count
    return Averages(
        row_XR={name: np.stack([rows[name] for rows in found]) for name in found[0]},
        groups={name: fewest(count.values()) for name, count in behind.items()},
    )


def drops(home: Averages, away: Averages) -> dict[str, Estimate]:
    """Home minus away of each metric, over the networks that define it in both; of no calibration slope or intercept.

    Groups of home and away are resampled apart, and the two intervals are put together as of independent samples: each
    end is as far from the difference as the root of the summed squares of the distances that lead there.  Unlike the
    differences of resamples, this keeps each interval's scale, Wilson's at 0 and 1, and the ECE's, which small folds
    push up (benchmarks/interval_coverage.py compares).  Larger or smaller may be better.
    Sources: Newcombe 1998; Zou and Donner 2008.
    """
    away_defined = away.defined()
    both = {name: defined_X & away_defined[name] for name, defined_X in home.defined().items()}
    first, second = home.estimates_of(both), away.estimates_of(both)
    return {name: minus(found, second[name]) for name, found in first.items() if not name.startswith(UNBOUNDED)}


def minus(first: Estimate, second: Estimate) -> Estimate:
    """The difference of two independent estimates."""
    if first.value is None or second.value is None:
        return UNDEFINED
    value, low, high, method = first.value - second.value, None, None, ""
    if first.low is not None and first.high is not None and second.low is not None and second.high is not None:
        low = value - math.hypot(first.value - first.low, second.high - second.value)
        high = value + math.hypot(first.high - first.value, second.value - second.low)
        method = "wilson" if first.method == second.method == "wilson" else "bootstrap"
    return Estimate(value=value, low=low, high=high, method=method, defined=first.defined, classes=first.classes)
