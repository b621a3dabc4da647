"""Several findings a film, each a problem of two classes over the films in which it is known.

Whatever is measured of two classes is measured of each finding on its known films, with "present" the positive class.
Means are over the findings that have enough known films to be measured, and say over how many.
"""

# N samples, K findings, M samples in which a finding is known, G groups, R rows: row 0 the sample, then its resamples

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec.structs import replace

from engine.statistics.averages import Averages, NetworkTest, drops, measure_networks
from engine.statistics.bootstrap import ECE_DISTANCE, fewest
from engine.statistics.estimates import RESAMPLES, UNBOUNDED, UNDEFINED, Estimate, make_differences
from engine.statistics.metrics import BRIEF, class_metrics, confusion_matrix, none_for_nan, ranking_score, ratio
from engine.statistics.thresholds import OperatingPoint
from loaders.cautions import caution
from loaders.sources.split import LEAST_KNOWN
from loaders.statistics import Progress, auc_rows, no_progress

POINT = "f1"  # the operating point by which a finding is predicted as present
MACRO = (  # metrics of which there are means over findings
    "accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "auc", "pr_auc", "brier", "ece",
    "calibration_slope", "calibration_intercept",
)  # fmt: skip
APART = tuple(name for name in MACRO if not name.startswith(UNBOUNDED))  # of differences
RANKED = ("auc", "pr_auc")  # metrics that need neither a threshold nor calibrated probabilities
CELLS = ("true_negatives", "false_positives", "false_negatives", "true_positives")  # counts of a finding in training


def known_films(finding_N: np.ndarray) -> np.ndarray:
    """The places of the films in which a finding is known, int64 M.  finding_N: 1, 0, NaN."""
    return np.flatnonzero(np.isfinite(finding_N))


def two_classes(probability_N: np.ndarray) -> np.ndarray:
    """Probabilities that a finding is absent and present, float64 (N, 2)."""
    return np.stack([1 - probability_N, probability_N], axis=1, dtype=np.float64)


def two_logits(logit_N: np.ndarray) -> np.ndarray:
    """Logits of absent and present (N, 2), whose softmax is the sigmoid of a finding's logit."""
    return np.stack([np.zeros_like(logit_N), logit_N], axis=1)


def enough_known(finding_NK: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Whether each finding is present in LEAST_KNOWN groups, and absent in as many: bool K."""
    return np.array(
        [
            all(len(np.unique(group_N[finding_N == value])) >= LEAST_KNOWN for value in (0, 1))
            for finding_N in finding_NK.T
        ],
        bool,
    )


def both_known(finding_NK: np.ndarray) -> np.ndarray:
    """Whether each finding is present in one film at least, and absent in another: bool K."""
    return (finding_NK == 1).any(0) & (finding_NK == 0).any(0)


def f1_point(is_positive_M: np.ndarray, score_M: np.ndarray) -> OperatingPoint:
    """The threshold of the highest F1, of several the highest; meant for validation, where it is optimistic.

    Refused without a positive or without a negative.
    """
    positives, negatives = int(is_positive_M.sum()), int((~is_positive_M).sum())
    if not positives or not negatives:
        refused = caution("one-class-in-validation", positives=positives, negatives=negatives)
        return OperatingPoint(name=POINT, threshold=None, refused=refused)
    order_M = np.argsort(-score_M, kind="stable")
    hits_M = np.cumsum(is_positive_M[order_M])
    last_M = np.append(score_M[order_M][1:] != score_M[order_M][:-1], True)  # of films with one score
    f1_M = np.where(last_M, 2 * hits_M / (positives + np.arange(1, len(hits_M) + 1)), -1.0)
    return OperatingPoint(name=POINT, threshold=float(score_M[order_M][int(f1_M.argmax())]))


def validation_metrics(finding_NK: np.ndarray, probability_NK: np.ndarray, group_N: np.ndarray) -> dict[str, Any]:
    """The metrics of one forward pass, at each finding's threshold of the highest F1, and their means over findings.

    Keys as of `all_metrics`: f1, accuracy, auc, sensitivity and specificity are means over the findings that have
    enough known films (None without any), and NAME_per_finding has each, None where undefined.
    """
    enough_K, values_K = enough_known(finding_NK, group_N), list[dict[str, float]]()
    thresholds: list[float | None] = []
    for place, enough in enumerate(enough_K.tolist()):
        known_M = known_films(finding_NK[:, place])
        is_present_M, score_M = finding_NK[known_M, place] == 1, probability_NK[known_M, place].astype(np.float64)
        threshold = f1_point(is_present_M, score_M).threshold if enough else None
        thresholds.append(threshold)
        if threshold is None:
            values_K.append(dict.fromkeys(("accuracy", "auc", *BRIEF), np.nan))
            continue
        label_M, predicted_M = is_present_M.astype(np.int64), (score_M >= threshold).astype(np.int64)
        confusion_122 = confusion_matrix(label_M, predicted_M, 2)[None]
        found = class_metrics(confusion_122)
        values_K.append(
            {name: float(found[name][0, 1]) for name in BRIEF}
            | {
                "accuracy": float(np.einsum("rkk->r", confusion_122)[0] / len(known_M)),
                "auc": float(auc_rows(ranking_score(two_classes(score_M), 1)[None], is_present_M[None])[0]),
            }
        )
    of = {name: np.array([values[name] for values in values_K]) for name in ("accuracy", "auc", *BRIEF)}
    return {
        "num_samples": len(finding_NK),
        **{name: mean_or_none(value_K) for name, value_K in of.items()},
        **{f"{name}_per_finding": none_for_nan(value_K) for name, value_K in of.items()},
        "threshold_per_finding": thresholds,
        "num_defined": int(enough_K.sum()),
    }


def mean_or_none(value_K: np.ndarray) -> float | None:
    """The mean of what is defined."""
    known_K = value_K[np.isfinite(value_K)]
    return float(known_K.mean()) if len(known_K) else None


def training_f1(count_K4: np.ndarray) -> float | None:
    """The mean F1 of the findings that training saw present or predicted so, at 0.5.

    count_K4: in the order of CELLS.
    """
    _, false_positive_K, false_negative_K, true_positive_K = count_K4.T
    return mean_or_none(ratio(2 * true_positive_K, 2 * true_positive_K + false_positive_K + false_negative_K))


def names_of(names: Sequence[str], chosen_K: np.ndarray) -> list[str]:
    """The findings that are chosen, bool K."""
    return [name for name, chosen in zip(names, chosen_K.tolist(), strict=True) if chosen]


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingsTest:
    """What one network predicts of the films that it is tested on, as a NetworkTest of each finding.

    finding_NK: 1, 0, NaN for unknown.  probability_NK: calibrated, that a finding is present; of no account where the
    finding is unknown.  threshold: from which it is predicted as present, float64 (K,), or (N, K) where the films are
    of several networks, such as all folds together.  NaN: none is settled, so that of the finding's metrics only RANKED
    are defined.
    """

    finding_NK: np.ndarray
    probability_NK: np.ndarray
    group_N: np.ndarray
    threshold: np.ndarray
    repeat: int = 0

    def of(self, place: int) -> NetworkTest:
        """The films in which one finding is known, as of two classes."""
        known_M = known_films(self.finding_NK[:, place])
        return NetworkTest(
            label_N=(self.finding_NK[known_M, place] == 1).astype(np.int64),
            probability_NK=two_classes(self.probability_NK[known_M, place]),
            group_N=self.group_N[known_M],
            threshold=np.nan_to_num(self.thresholds[known_M, place], nan=0.5),
            repeat=self.repeat,
        )

    @property
    def thresholds(self) -> np.ndarray:
        """Of each film and finding, float64 (N, K)."""
        return np.broadcast_to(self.threshold, self.finding_NK.shape)

    def is_settled(self, place: int) -> bool:
        """Whether a finding has a threshold in all films."""
        return not np.isnan(self.thresholds[:, place]).any()


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingsAverages:
    """The metrics of each finding, over resamples of groups that all findings share.

    by_finding: the averages over networks; None for a finding with too few known films, which has no metrics.
    """

    by_finding: tuple[Averages | None, ...]

    def estimates(self) -> list[dict[str, Estimate]]:
        """The keys of two classes for each finding; none for one with too few known films."""
        return [found.estimates() if found else {} for found in self.by_finding]

    def macro(self) -> dict[str, Estimate]:
        """MACRO as means over the findings that define a metric, each the mean over its networks.

        `defined` is the number of those findings, `classes` that of all.
        """
        measured = [found for found in self.by_finding if found]
        if not measured:
            return over_findings(MACRO, {}, {}, len(self.by_finding))
        chosen = []
        for found in measured:
            known = found.estimates()  # where a slope or intercept that is open has no value
            chosen.append(
                {
                    name: defined_X & (name not in known or known[name].value is not None)
                    for name, defined_X in found.defined().items()
                }
            )
        means = mean_of_findings(measured, chosen)
        return over_findings(MACRO, means.estimates(), means.defined(), len(self.by_finding))


def measure_findings(
    tests: Sequence[FindingsTest], *, resamples: int = RESAMPLES, seed: int = 0, progress: Progress = no_progress
) -> FindingsAverages:
    """Every metric of each finding for each network, over resamples of the groups of all findings and networks.

    A finding is measured where it is present in LEAST_KNOWN groups of all tests together, and absent in as many.
    Errors: InputError for probabilities that are not finite.
    """
    group_N = np.concatenate([test.group_N for test in tests])
    enough_K, group_G = enough_known(np.concatenate([test.finding_NK for test in tests]), group_N), np.unique(group_N)
    found = list[Averages | None]()
    for place, enough in enumerate(enough_K.tolist()):
        one = None
        if enough:
            of_one, settled_X = [test.of(place) for test in tests], [test.is_settled(place) for test in tests]
            one = measure_networks(of_one, 1, group_G=group_G, resamples=resamples, seed=seed)
            one = one if all(settled_X) else ranked_alone(one, np.array(settled_X))
        found.append(one)
        progress(len(found), len(enough_K))
    return FindingsAverages(by_finding=tuple(found))


def ranked_alone(found: Averages, settled_X: np.ndarray) -> Averages:
    """Averages in which networks without a threshold, and so without a temperature, have only RANKED."""
    row_XR = {
        name: row_XR if name in RANKED else np.where(settled_X[:, None], row_XR, np.nan)
        for name, row_XR in found.row_XR.items()
    }
    return Averages(row_XR=row_XR, groups=found.groups)


def mean_of_findings(found: Sequence[Averages], chosen: Sequence[dict[str, np.ndarray]]) -> Averages:
    """Findings as if they were networks: each the mean over those of its networks that are chosen, bool X by metric."""
    rows = [one.mean_rows(of_one) for one, of_one in zip(found, chosen, strict=True)]
    return Averages(
        row_XR={name: np.stack([row[name] for row in rows]) for name in rows[0]},
        groups={name: fewest(one.groups[name] for one in found) for name in found[0].groups},
    )


def over_findings(
    names: Sequence[str], found: dict[str, Estimate], defined: dict[str, np.ndarray], num_findings: int
) -> dict[str, Estimate]:
    """Means over findings, which say over how many.  names: of the means.  defined: findings that a mean is over."""
    return {
        name: replace(
            found.get(name, UNDEFINED), defined=int(defined[name].sum()) if defined else 0, classes=num_findings
        )
        for name in names
    }


def findings_drops(
    home: FindingsAverages, away: FindingsAverages
) -> tuple[list[dict[str, Estimate]], dict[str, Estimate]]:
    """Home minus away by finding, none where one of the two lacks it; and of the means over findings, as `drops`.

    home, away: of the same networks.  Means are over networks and findings that define the metric in both.
    """
    pairs = [(one, other) for one, other in zip(home.by_finding, away.by_finding, strict=True)]
    by_finding = [drops(one, other) if one and other else {} for one, other in pairs]
    both = [(one, other) for one, other in pairs if one and other]
    if not both:
        return by_finding, over_findings(APART, {}, {}, len(pairs))
    chosen = [
        {name: defined_X & other.defined()[name] for name, defined_X in one.defined().items()} for one, other in both
    ]
    means = [mean_of_findings(found, chosen) for found in zip(*both, strict=True)]
    return by_finding, over_findings(APART, drops(*means), means[0].defined(), len(pairs))


def findings_differences(
    first: FindingsTest, second: FindingsTest, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[list[dict[str, Estimate]], dict[str, Estimate]]:
    """Second minus first of two runs on the same films, by finding and of the means over findings.

    As `paired_differences`, each run at its own thresholds; none for a finding with too few known films.
    """
    runs = [measure_findings([test], resamples=resamples, seed=seed).by_finding for test in (first, second)]
    by_finding, rows, every = list[dict[str, Estimate]](), list[Averages](), True
    for place, (one, other) in enumerate(zip(*runs, strict=True)):
        if one is None or other is None:
            by_finding.append({})
            continue
        apart = Averages(
            row_XR={name: other.row_XR[name] - row_XR for name, row_XR in one.row_XR.items() if name != ECE_DISTANCE},
            groups={name: min(count, other.groups[name]) for name, count in one.groups.items()},
        )
        tests = [test.of(place) for test in (first, second)]
        same = all(np.array_equal(*(getattr(test, name) for test in tests)) for name in ("probability_NK", "threshold"))
        by_finding.append(
            make_differences({name: row_XR[0] for name, row_XR in apart.row_XR.items()}, apart.groups, same)
        )
        rows, every = [*rows, apart], every and same
    if not rows:
        return by_finding, over_findings(APART, {}, {}, len(by_finding))
    means = mean_of_findings(rows, [one.defined() for one in rows])
    found = make_differences(means.mean_rows(means.defined()), means.groups, every)
    return by_finding, over_findings(APART, found, means.defined(), len(by_finding))
