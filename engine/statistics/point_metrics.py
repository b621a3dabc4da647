"""Every metric from resampled sums and areas, and how many groups stand behind each."""

# N samples, K classes, B bins, C classes told from the rest, F addends, R rows: row 0 the sample itself

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from engine.statistics.bootstrap import Material, Resampled
from engine.statistics.calibration import BINS, Recalibration

ECE_DISTANCE = "ece_distance"  # no metric, but how far a row's bins lie from row 0's: the ECE's interval needs it
AT_PREVALENCE = ("ppv_at_prevalence", "npv_at_prevalence")


def metrics_of(
    material: Material, resampled: Resampled, positive: int, prevalence: float | None
) -> dict[str, np.ndarray]:
    """Each metric's value in each row, float64 R by name, NaN where undefined; and ECE_DISTANCE."""
    classes, told = material.num_classes, material.told
    confusion_RKK = resampled.sum_RF[:, : classes**2].reshape(-1, classes, classes)
    total_R = confusion_RKK.sum((1, 2))
    hits_RK, true_RK, called_RK = np.einsum("rkk->rk", confusion_RKK), confusion_RKK.sum(2), confusion_RKK.sum(1)
    rest_RK = total_R[:, None] - true_RK
    rejected_RK = total_R[:, None] - called_RK
    passed_RK = rejected_RK - true_RK + hits_RK  # true negatives
    f1_RK = ratio(2 * hits_RK, true_RK + called_RK)
    by_class = {
        "sensitivity": ratio(hits_RK, true_RK)[:, told],
        "specificity": ratio(passed_RK, rest_RK)[:, told],
        "ppv": ratio(hits_RK, called_RK)[:, told],
        "npv": ratio(passed_RK, rejected_RK)[:, told],
        "f1": f1_RK[:, told],
    }
    found = {"accuracy": ratio(hits_RK.sum(1), total_R)}
    if material.rankings:
        by_class |= {"auc": resampled.roc_RC, "pr_auc": resampled.precision_RC}
        brier_R, gap_RB, newton_RF = np.split(resampled.sum_RF[:, classes**2 :], [1, 1 + BINS], axis=1)
        found["brier"] = ratio(brier_R[:, 0], total_R)
        gap_RB = ratio(gap_RB, np.broadcast_to(total_R[:, None], gap_RB.shape))
        found["ece"] = np.abs(gap_RB).sum(1)
        found[ECE_DISTANCE] = np.abs(gap_RB - gap_RB[0]).sum(1)
        fits = zip(material.recalibrations, np.split(newton_RF, len(told), axis=1), strict=True)
        steps = [newton_step(fit, parts_RF) for fit, parts_RF in fits]
        by_class["calibration_slope"] = np.stack([slope_R for slope_R, _ in steps], axis=1)
        by_class["calibration_intercept"] = np.stack([large_R for _, large_R in steps], axis=1)
    for name, value_RC in by_class.items():
        if classes > 2:
            found |= {f"{name}[{label}]": value_RC[:, column] for column, label in enumerate(told)}
        else:
            found[name] = value_RC[:, 0]
    if classes == 2:
        found |= {f"f1[{label}]": f1_RK[:, label] for label in range(2)}
        if prevalence is not None:
            found |= at_prevalence(found["sensitivity"], found["specificity"], prevalence)
    return found | {name: mean_of_known(value_RC) for name, value_RC in by_mean(found).items()}


def by_mean(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each mean over classes is the mean of: its name → the classes' rows NAME[class], float64 RxC.

    Of two classes F1 alone has one, f1_macro; of more f1_macro is F1's.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for name, row_R in found.items():
        metric, bracket, _ = name.partition("[")
        if bracket:
            rows.setdefault(metric, []).append(row_R)
    result = {metric: np.stack(of_class, axis=1) for metric, of_class in rows.items()}
    f1_RC = result["f1"]
    return (result if f1_RC.shape[1] > 2 else {}) | {"f1_macro": f1_RC}


def count_groups(material: Material) -> dict[str, int]:
    """How many groups hold a sample of each metric's denominator; of a mean over classes, of the class with the fewest.

    For auc, pr_auc and the recalibration: of the scarcer of class and rest.
    """
    label_N, called_N, group_N = material.label_N, material.called_N, material.group_N

    def count(chosen_N: np.ndarray) -> int:
        return len(np.unique(group_N[chosen_N]))

    everything = count(np.ones_like(group_N, bool))
    found = {"accuracy": everything, "brier": everything, "ece": everything}
    for label in range(material.num_classes):
        is_N, said_N = label_N == label, called_N == label
        both = min(count(is_N), count(~is_N))
        of_class = {
            "sensitivity": count(is_N),
            "specificity": count(~is_N),
            "ppv": count(said_N),
            "npv": count(~said_N),
            "auc": both,
            "pr_auc": both,
            "calibration_slope": both,
            "calibration_intercept": both,
            "f1": count(is_N | said_N),
        }
        found |= {f"{name}[{label}]": groups for name, groups in of_class.items()}
    for name in of_class:
        found[name] = fewest(found[f"{name}[{label}]"] for label in material.told)
    found["f1_macro"] = fewest(found[f"f1[{label}]"] for label in range(material.num_classes))
    found |= dict.fromkeys(AT_PREVALENCE, min(found["sensitivity"], found["specificity"]))
    return found


def fewest(counts: Iterable[int]) -> int:
    """The smallest count above 0, if any: a class without groups is not in the mean."""
    return min((count for count in counts if count), default=0)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)


def mean_of_known(value_RC: np.ndarray) -> np.ndarray:
    """The mean over the classes that row 0 knows: float64 R, NaN where a row lacks one of them, or none is known."""
    known_C = known_classes(value_RC)
    return value_RC[:, known_C].mean(1) if known_C.any() else np.full(len(value_RC), np.nan)


def known_classes(value_RC: np.ndarray) -> np.ndarray:
    """The classes that a mean is over, bool C: those that row 0 knows."""
    return np.isfinite(value_RC[0])


def newton_step(fit: Recalibration, parts_RF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and calibration in the large of each row, one Newton step away from the whole sample's: float64 R each."""
    large_R = fit.large + ratio(parts_RF[:, 0], parts_RF[:, 1])
    constant_R, line_R, spread_R, cross_R, square_R = parts_RF[:, 2:].T
    slope_R = fit.slope + ratio(spread_R * line_R - cross_R * constant_R, spread_R * square_R - cross_R**2)
    return slope_R, large_R


def at_prevalence(sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float) -> dict[str, np.ndarray]:
    """Predictive values where a share `prevalence` is positive (Bayes), of any shape."""
    hits, misses = sensitivity * prevalence, (1 - sensitivity) * prevalence
    passed, alarms = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    return dict(zip(AT_PREVALENCE, (ratio(hits, hits + alarms), ratio(passed, passed + misses)), strict=True))
