"""Metrics of a classifier, all from one forward pass (DESIGN, recipe)."""

# N samples, K classes

from __future__ import annotations

from typing import Any

import numpy as np

NEARLY_ONE = 1 - 1e-9  # above, the distance to 1 has few digits left


def confusion_matrix(label_N: np.ndarray, predicted_N: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, int64 (K, K): rows are the true classes, columns the predicted ones."""
    return np.bincount(label_N * num_classes + predicted_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def ratio(part: float, whole: float) -> float | None:
    """part / whole, or None where there is nothing to divide by."""
    return float(part / whole) if whole else None


def f1_scores(confusion_KK: np.ndarray) -> np.ndarray:
    """F1 of each class against the rest, float64 (K,); 0 for a class neither present nor predicted."""
    hits_K = np.diag(confusion_KK)
    sum_K = confusion_KK.sum(0) + confusion_KK.sum(1)
    return np.divide(2 * hits_K, sum_K, out=np.zeros(len(hits_K)), where=sum_K > 0)


def headline_f1(confusion_KK: np.ndarray, positive: int) -> float:
    """The F1 that training stops on: the positive class's for two classes, the macro mean for more."""
    scores_K = f1_scores(confusion_KK)
    return float(scores_K[positive] if len(scores_K) == 2 else scores_K.mean())


def ranking_score(probability_NK: np.ndarray, label: int) -> np.ndarray:
    """A score that ranks samples as a class's probability does, float64 (N,), but without ties next to 1.

    At a low temperature many probabilities are 1 to the last bit, of samples that their logits tell apart: there the
    logarithm of what the other classes are left with, which has digits enough, takes their place.
    """
    score_N = probability_NK[:, label].astype(np.float64)
    rest_N = np.delete(probability_NK, label, axis=1).sum(1, dtype=np.float64)
    return np.where(score_N > NEARLY_ONE, -np.log(np.maximum(rest_N, np.finfo(np.float64).tiny)), score_N)


def roc_auc(is_positive_N: np.ndarray, score_N: np.ndarray) -> float | None:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    None where only one class is present.  Source: Mann-Whitney U by mid-ranks.
    """
    num_positive = int(is_positive_N.sum())
    num_negative = len(is_positive_N) - num_positive
    if not num_positive or not num_negative:
        return None
    _, inverse_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    middle_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = middle_rank[inverse_N][is_positive_N].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def matrix_metrics(confusion_KK: np.ndarray, positive: int) -> dict[str, Any]:
    """What follows from the confusion matrix alone; None where undefined.

    For two classes sensitivity and specificity are the positive class's; for more, the means over classes.
    """
    total = int(confusion_KK.sum())
    hits_K, true_K, predicted_K = np.diag(confusion_KK), confusion_KK.sum(1), confusion_KK.sum(0)
    sensitivity_K = [ratio(hit, true) for hit, true in zip(hits_K, true_K, strict=True)]
    specificity_K = [
        ratio(total - true - predicted + hit, total - true)
        for hit, true, predicted in zip(hits_K, true_K, predicted_K, strict=True)
    ]

    def headline(per_class: list[float | None]) -> float | None:
        if len(per_class) == 2:
            return per_class[positive]
        known = [value for value in per_class if value is not None]
        return sum(known) / len(known) if known else None

    return {
        "accuracy": ratio(hits_K.sum(), total),
        "f1": headline_f1(confusion_KK, positive),
        "sensitivity": headline(sensitivity_K),
        "specificity": headline(specificity_K),
        "f1_per_class": f1_scores(confusion_KK).tolist(),
        "sensitivity_per_class": sensitivity_K,
        "specificity_per_class": specificity_K,
    }


def all_metrics(label_N: np.ndarray, probability_NK: np.ndarray, positive: int) -> dict[str, Any]:
    """Every metric of one forward pass, the trivial classifier's score beside them.

    label_N: int.  probability_NK: float, rows add up to 1.  The predicted class is the most probable one.
    """
    num_classes = probability_NK.shape[1]
    confusion_KK = confusion_matrix(label_N, probability_NK.argmax(1), num_classes)
    auc_K = [roc_auc(label_N == label, ranking_score(probability_NK, label)) for label in range(num_classes)]
    known = [auc for auc in auc_K if auc is not None]
    macro = sum(known) / len(known) if known else None
    trivial_KK = np.zeros_like(confusion_KK)
    trivial_KK[:, confusion_KK.sum(1).argmax()] = confusion_KK.sum(1)
    trivial = matrix_metrics(trivial_KK, positive)
    return {
        "num_samples": len(label_N),
        **matrix_metrics(confusion_KK, positive),
        "auc": auc_K[positive] if num_classes == 2 else macro,
        "auc_per_class": auc_K,
        "confusion": confusion_KK.tolist(),
        "largest_class": {
            "class": int(confusion_KK.sum(1).argmax()),
            "auc": 0.5 if known else None,
            **{name: trivial[name] for name in ("accuracy", "f1", "sensitivity", "specificity")},
        },
    }
