"""ROC and precision-recall curves, for figures and for choosing thresholds."""

# N samples, P points: one a distinct score, highest first

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
