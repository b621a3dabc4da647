"""ROC and precision-recall curves, for figures and for choosing thresholds."""

# N samples, K classes, P points: one a distinct score, highest first

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn import metrics

SENSITIVITY = 0.95  # that rule-out asks for
LEAST_POSITIVES = 59  # 0.95**59 < 0.05: with fewer, even no miss at all leaves a sensitivity below 95 % plausible


@dataclass(frozen=True, kw_only=True, slots=True)
class RocCurve:
    """float64 P each, from (0, 0) at threshold inf to (1, 1); false_positive: 1 - specificity."""

    false_positive_P: np.ndarray
    sensitivity_P: np.ndarray
    threshold_P: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionRecallCurve:
    """float64 P each, recall rising from 0; at recall 0 precision is set to 1.

    Average precision is the sum of steps, not of trapezoids: draw it as steps.
    """

    recall_P: np.ndarray
    precision_P: np.ndarray


def roc_curve(is_positive_N: np.ndarray, score_N: np.ndarray) -> RocCurve | None:
    """A sample is called positive where its score is at least the threshold; None where only one class is present."""
    if is_positive_N.all() or not is_positive_N.any():
        return None
    false_positive_P, sensitivity_P, threshold_P = metrics.roc_curve(is_positive_N, score_N, drop_intermediate=False)
    return RocCurve(false_positive_P=false_positive_P, sensitivity_P=sensitivity_P, threshold_P=threshold_P)


def precision_recall_curve(is_positive_N: np.ndarray, score_N: np.ndarray) -> PrecisionRecallCurve | None:
    """A sample is called positive where its score is at least the threshold; None without a positive."""
    if not is_positive_N.any():
        return None
    precision_P, recall_P, _ = metrics.precision_recall_curve(is_positive_N, score_N)
    return PrecisionRecallCurve(recall_P=recall_P[::-1], precision_P=precision_P[::-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatingPoint:
    """The positive class is called where its probability reaches the threshold.  refused: why there is none, or ""."""

    name: str
    threshold: float | None
    refused: str = ""


def choose_operating_points(
    label_N: np.ndarray, probability_NK: np.ndarray, positive: int
) -> tuple[OperatingPoint, ...]:
    """The points "0.5", "youden" and "rule-out", from validation's labels and probabilities.

    youden: the threshold of the highest sensitivity + specificity.  rule-out: the highest threshold whose sensitivity
    is at least 95 %.  Of thresholds that do equally well, the highest.  With more than two classes all are refused.
    Sources: Youden 1950; Hanley and Lippman-Hand 1983.
    """
    num_classes, is_positive_N = probability_NK.shape[1], label_N == positive
    num_positive = int(is_positive_N.sum())
    num_negative = len(label_N) - num_positive
    if num_classes != 2:
        why = f"found {num_classes} classes, expected 2; the most probable class is called"
        return tuple(OperatingPoint(name=name, threshold=None, refused=why) for name in ("0.5", "youden", "rule-out"))
    roc = roc_curve(is_positive_N, probability_NK[:, positive])
    half = OperatingPoint(name="0.5", threshold=0.5)
    if roc is None:
        why = f"validation has {num_positive} positives and {num_negative} negatives, expected at least 1 of each"
        youden = OperatingPoint(name="youden", threshold=None, refused=why)
    else:
        best = int(np.argmax(np.round(roc.sensitivity_P - roc.false_positive_P, 12)[1:])) + 1
        youden = OperatingPoint(name="youden", threshold=float(roc.threshold_P[best]))
    if roc is None or num_positive < LEAST_POSITIVES:
        why = f"validation has {num_positive} positives, expected at least {LEAST_POSITIVES} (0.95^59 < 5 %)"
        why = why if num_positive < LEAST_POSITIVES else youden.refused
        return half, youden, OperatingPoint(name="rule-out", threshold=None, refused=why)
    enough = int(np.argmax(roc.sensitivity_P >= SENSITIVITY))
    return half, youden, OperatingPoint(name="rule-out", threshold=float(roc.threshold_P[enough]))
