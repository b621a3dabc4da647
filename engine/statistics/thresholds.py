"""ROC and precision-recall curves, for figures and for choosing thresholds."""

# N samples, P points: one a distinct score, highest first
# N samples, K classes, P points

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
    threshold_P: np.ndarray


def roc_curve(is_positive_N: np.ndarray, score_N: np.ndarray) -> RocCurve | None:
    """A sample is called positive where its score is at least the threshold; None where only one class is present."""
    hits_P, alarms_P, threshold_P = called(is_positive_N, score_N)
    if not hits_P[-1] or not alarms_P[-1]:
        return None
    return RocCurve(
        false_positive_P=alarms_P / alarms_P[-1], sensitivity_P=hits_P / hits_P[-1], threshold_P=threshold_P
    )


def precision_recall_curve(is_positive_N: np.ndarray, score_N: np.ndarray) -> PrecisionRecallCurve | None:
    """A sample is called positive where its score is at least the threshold; None without a positive."""
    hits_P, alarms_P, threshold_P = called(is_positive_N, score_N)
    if not hits_P[-1]:
        return None
    precision_P = np.concatenate([[1.0], hits_P[1:] / (hits_P[1:] + alarms_P[1:])])
    return PrecisionRecallCurve(recall_P=hits_P / hits_P[-1], precision_P=precision_P, threshold_P=threshold_P)


def called(is_positive_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True and false positives at each threshold, int64 P, and the thresholds, float64 P; the first calls nobody."""
    order_N = np.argsort(-score_N, kind="stable")
    sorted_N = score_N[order_N]
    last_N = np.append(sorted_N[1:] != sorted_N[:-1], True)[: len(sorted_N)]  # of each run of equal scores
    hits_N = np.cumsum(is_positive_N[order_N], dtype=np.int64)
    hits_P = np.concatenate([[0], hits_N[last_N]])
    called_P = np.concatenate([[0], np.flatnonzero(last_N) + 1])
    return hits_P, called_P - hits_P, np.concatenate([[np.inf], sorted_N[last_N].astype(np.float64)])


SENSITIVITY = 0.95  # that rule-out asks for
LEAST_POSITIVES = 59  # 0.95**59 < 0.05: with fewer, even no miss at all leaves a sensitivity below 95 % plausible


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
