"""Every metric over resamples of whole groups, from sums over samples and from areas under curves.

Whatever follows from sums over samples (confusion matrix, Brier score, bins of the ECE, one Newton step from the fitted
recalibration) needs the groups' sums only; the areas need one pass over the sorted scores a resample.
"""

# N samples, K classes, G groups, F addends, C target classes, B bins, R rows: row 0 the sample itself

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from engine.statistics.calibration import BINS, Recalibration, bin_of, logit, recalibrate, scored_event
from engine.statistics.metrics import (
    AT_PREVALENCE,
    accuracy,
    at_prevalence,
    by_mean,
    class_metrics,
    mean_of_known,
    ranking_score,
    ratio,
)
from kernels.bootstrap import weighted_sums_into
from loaders.errors import InputError
from loaders.statistics import Progress, Ranking, no_progress, rank, resample_groups

Resampled = tuple[np.ndarray, np.ndarray, np.ndarray]  # float64: sum_RF, roc_RC, precision_RC
ECE_DISTANCE = "ece_distance"  # no metric, but how far a row's bins lie from row 0's: the ECE's interval needs it


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupSums:
    """What the metrics of every resample are made from.

    targets: the classes that are measured against the rest, of two the positive one.  predicted_N: the predicted class.
    group_N: int32, numbered from 0.  addend_GF: sums of each group: K·K confusion counts; and unless only the predicted
    classes count, one Brier score, B gaps of the ECE, and of each target the gradient and curvature of its
    recalibration, 2 of calibration in the large and 5 of slope and constant.
    """

    num_classes: int
    targets: tuple[int, ...]
    label_N: np.ndarray
    predicted_N: np.ndarray
    group_N: np.ndarray
    addend_GF: np.ndarray
    rankings: tuple[Ranking, ...]
    recalibrations: tuple[Recalibration, ...]


def sum_groups(
    label_N: np.ndarray,
    probability_NK: np.ndarray,
    group_N: np.ndarray,
    positive: int,
    threshold: float | np.ndarray | None,
    scores: bool,
    num_groups: int | None = None,
) -> GroupSums:
    """Sum each group, and sort the scores.  scores: False leaves out all that does not depend on predicted classes.

    threshold: one, or one a sample.  num_groups: of group_N numbered from 0, some of which may have no sample here;
    None: group_N are any integers.
    Errors: InputError for probabilities that are not finite.
    """
    if bad := int((~np.isfinite(probability_NK)).any(1).sum()):
        raise InputError(f"probabilities: {bad} of {len(label_N)} samples without finite ones; train the network again")
    num_classes = probability_NK.shape[1]
    assert threshold is None or num_classes == 2
    if num_groups is None:
        group_N = np.unique(group_N, return_inverse=True)[1]
        num_groups = int(group_N.max()) + 1
    group_N = group_N.astype(np.int32)
    predicted_N = probability_NK.argmax(1)
    if threshold is not None:
        predicted_N = np.where(probability_NK[:, positive] >= threshold, positive, 1 - positive)
    targets = (positive,) if num_classes == 2 else tuple(range(num_classes))

    def one_hot(column_N: np.ndarray, columns: int, weights_N: np.ndarray | None = None) -> np.ndarray:
        cell_N = group_N.astype(np.int64) * columns + column_N
        return np.bincount(cell_N, weights=weights_N, minlength=num_groups * columns).reshape(num_groups, columns)

    addends = [one_hot(label_N * num_classes + predicted_N, num_classes**2)]
    rankings, recalibrations = [], []
    if scores:
        is_class_NK = label_N[:, None] == np.arange(num_classes)
        brier_N = ((probability_NK - is_class_NK) ** 2).sum(1) / (2 if num_classes == 2 else 1)
        score_N, happened_N = scored_event(label_N, probability_NK, positive)
        addends += [one_hot(np.zeros_like(label_N), 1, brier_N), one_hot(bin_of(score_N), BINS, score_N - happened_N)]
        for label in targets:
            is_class_N, logit_N = is_class_NK[:, label], logit(probability_NK[:, label])
            rankings.append(rank(ranking_score(probability_NK, label)[None], is_class_N[None], group_N))
            recalibrations.append(recalibrate(is_class_N, logit_N))
            for part_N in newton_parts(is_class_N, logit_N, recalibrations[-1]):
                addends.append(one_hot(np.zeros_like(label_N), 1, part_N))
    return GroupSums(
        num_classes=num_classes,
        targets=targets,
        label_N=label_N,
        predicted_N=predicted_N,
        group_N=group_N,
        addend_GF=np.concatenate(addends, axis=1, dtype=np.float64),
        rankings=tuple(rankings),
        recalibrations=tuple(recalibrations),
    )


def newton_parts(is_positive_N: np.ndarray, logit_N: np.ndarray, fit: Recalibration) -> list[np.ndarray]:
    """Gradient and curvature at the fit, sample by sample: 2 of `large`, 5 of constant and slope; 0 without a fit."""
    large_N = expit(np.nan_to_num(fit.large) + logit_N)
    fitted_N = expit(np.nan_to_num(fit.constant) + np.nan_to_num(fit.slope) * logit_N)
    residual_N, spread_N = is_positive_N - fitted_N, fitted_N * (1 - fitted_N)
    line = [residual_N, residual_N * logit_N, spread_N, spread_N * logit_N, spread_N * logit_N**2]
    return [is_positive_N - large_N, large_N * (1 - large_N), *line]


def resample(sums: GroupSums, resamples: int, seed: int, progress: Progress = no_progress) -> Resampled:
    """Sums, ROC areas and average precisions of the sample itself and of resamples of its groups, on all cores.

    A function of sums, resamples and seed, whatever the number of threads; where there are as many groups, the draws
    are the same.
    """
    shape = (1 + resamples, len(sums.rankings))
    sum_RF = np.empty((1 + resamples, sums.addend_GF.shape[1]))
    roc_RC, precision_RC = np.empty(shape), np.empty(shape)

    def fill(rows: slice, weight_RG: np.ndarray) -> None:
        weighted_sums_into(sum_RF[rows], weight_RG, sums.addend_GF)
        for column, ranking in enumerate(sums.rankings):
            roc_RC[rows, column], precision_RC[rows, column] = ranking.areas(weight_RG)

    resample_groups(len(sums.addend_GF), resamples, seed, fill, progress)
    return sum_RF, roc_RC, precision_RC


def metrics_of(sums: GroupSums, resampled: Resampled, positive: int, prevalence: float | None) -> dict[str, np.ndarray]:
    """Each metric's value in each row, float64 R by name, NaN where undefined; and ECE_DISTANCE."""
    classes, targets = sums.num_classes, sums.targets
    sum_RF, roc_RC, precision_RC = resampled
    confusion_RKK = sum_RF[:, : classes**2].reshape(-1, classes, classes)
    every = class_metrics(confusion_RKK)
    by_class = {name: value_RK[:, targets] for name, value_RK in every.items()}
    found = {"accuracy": accuracy(confusion_RKK)}
    if sums.rankings:
        by_class |= {"auc": roc_RC, "pr_auc": precision_RC}
        brier_R, gap_RB, newton_RF = np.split(sum_RF[:, classes**2 :], [1, 1 + BINS], axis=1)
        total_R1 = confusion_RKK.sum((1, 2))[:, None]
        found["brier"] = ratio(brier_R, total_R1)[:, 0]
        gap_RB = ratio(gap_RB, total_R1)
        found["ece"] = np.abs(gap_RB).sum(1)
        found[ECE_DISTANCE] = np.abs(gap_RB - gap_RB[0]).sum(1)
        fits = zip(sums.recalibrations, np.split(newton_RF, len(targets), axis=1), strict=True)
        slopes, larges = zip(*(newton_step(fit, parts_RF) for fit, parts_RF in fits), strict=True)
        by_class |= {"calibration_slope": np.stack(slopes, 1), "calibration_intercept": np.stack(larges, 1)}
    for name, value_RC in by_class.items():
        if classes > 2:
            found |= {f"{name}[{label}]": value_RC[:, column] for column, label in enumerate(targets)}
        else:
            found[name] = value_RC[:, 0]
    if classes == 2:
        found |= {f"f1[{label}]": every["f1"][:, label] for label in range(2)}
        if prevalence is not None:
            found |= at_prevalence(found["sensitivity"], found["specificity"], prevalence)
    return found | {name: mean_of_known(value_RC) for name, value_RC in by_mean(found).items()}


def newton_step(fit: Recalibration, parts_RF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and calibration in the large of each row, one Newton step away from the whole sample's: float64 R each."""
    large_R = fit.large + ratio(parts_RF[:, 0], parts_RF[:, 1])
    constant_R, line_R, spread_R, cross_R, square_R = parts_RF[:, 2:].T
    slope_R = fit.slope + ratio(spread_R * line_R - cross_R * constant_R, spread_R * square_R - cross_R**2)
    return slope_R, large_R


def count_groups(sums: GroupSums) -> dict[str, int]:
    """How many groups hold a sample of each metric's denominator; of a mean over classes, of the class with the fewest.

    For auc, pr_auc and the recalibration: of the scarcer of class and rest.
    """
    label_N, predicted_N, group_N = sums.label_N, sums.predicted_N, sums.group_N

    def count(chosen_N: np.ndarray) -> int:
        return len(np.unique(group_N[chosen_N]))

    found = dict.fromkeys(("accuracy", "brier", "ece"), len(np.unique(group_N)))
    for label in range(sums.num_classes):
        is_N, is_predicted_N = label_N == label, predicted_N == label
        scarcer = min(count(is_N), count(~is_N))
        of_class = {
            "sensitivity": count(is_N),
            "specificity": count(~is_N),
            "ppv": count(is_predicted_N),
            "npv": count(~is_predicted_N),
            "f1": count(is_N | is_predicted_N),
        } | dict.fromkeys(("auc", "pr_auc", "calibration_slope", "calibration_intercept"), scarcer)
        found |= {f"{name}[{label}]": groups for name, groups in of_class.items()}
    for name in of_class:
        found[name] = fewest(found[f"{name}[{label}]"] for label in sums.targets)
    for mean, name in (("f1_macro", "f1"), ("balanced_accuracy", "sensitivity")):
        found[mean] = fewest(found[f"{name}[{label}]"] for label in range(sums.num_classes))
    return found | dict.fromkeys(AT_PREVALENCE, min(found["sensitivity"], found["specificity"]))


def fewest(counts: Iterable[int]) -> int:
    """The smallest count above 0, if any: a class without groups is not in the mean."""
    return min((count for count in counts if count), default=0)
