"""Metrics of a classifier: what follows from its confusion matrix, and how its scores rank (DESIGN, recipe).

Macro F1, in early stopping as in every estimate, is the mean over the classes that have an F1: those present or
predicted at least once, as in scikit-learn.  A class that is neither has no F1.  Counted as 0, a perfect classifier
could not reach 1; counted as 1, every classifier would gain by it.  The same holds for every mean over classes.
"""

# N samples, K classes, C classes of a mean, R rows: row 0 the sample itself, then its resamples

from collections.abc import Mapping
from typing import Any

import numpy as np

from loaders.statistics import auc_rows

NEARLY_ONE = 1 - 1e-9  # above, the distance to 1 has few digits left
BRIEF = ("f1", "sensitivity", "specificity")  # beside accuracy and AUC, of each epoch
AT_PREVALENCE = ("ppv_at_prevalence", "npv_at_prevalence")


def confusion_matrix(label_N: np.ndarray, predicted_N: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts, int64 (K, K): rows are the true classes, columns the predicted ones."""
    return np.bincount(label_N * num_classes + predicted_N, minlength=num_classes**2).reshape(num_classes, num_classes)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)


def class_metrics(confusion_RKK: np.ndarray) -> dict[str, np.ndarray]:
    """Sensitivity, specificity, predictive values and F1 of each class against the rest: float64 (R, K) by key.

    NaN where undefined.
    """
    total_R1 = confusion_RKK.sum((1, 2))[:, None]
    hits_RK, true_RK, predicted_RK = np.einsum("rkk->rk", confusion_RKK), confusion_RKK.sum(2), confusion_RKK.sum(1)
    rejected_RK = total_R1 - predicted_RK
    passed_RK = rejected_RK - true_RK + hits_RK  # true negatives
    return {
        "sensitivity": ratio(hits_RK, true_RK),
        "specificity": ratio(passed_RK, total_R1 - true_RK),
        "ppv": ratio(hits_RK, predicted_RK),
        "npv": ratio(passed_RK, rejected_RK),
        "f1": ratio(2 * hits_RK, true_RK + predicted_RK),
    }


def accuracy(confusion_RKK: np.ndarray) -> np.ndarray:
    """The share of samples whose class was predicted: float64 R."""
    return ratio(np.einsum("rkk->r", confusion_RKK), confusion_RKK.sum((1, 2)))


def known_classes(value_RC: np.ndarray) -> np.ndarray:
    """The classes that a mean is over, bool C: those defined in row 0."""
    return np.isfinite(value_RC[0])


def mean_of_known(value_RC: np.ndarray) -> np.ndarray:
    """The mean over the classes defined in row 0: float64 R, NaN where a row lacks one of them, or row 0 has none."""
    known_C = known_classes(value_RC)
    return value_RC[:, known_C].mean(1) if known_C.any() else np.full(len(value_RC), np.nan)


def headline(value_RK: np.ndarray, positive: int) -> float | None:
    """The one number of a metric: of two classes the positive one's, of more the mean; None where undefined."""
    value = float(value_RK[0, positive] if value_RK.shape[1] == 2 else mean_of_known(value_RK)[0])
    return value if np.isfinite(value) else None


def headline_f1(confusion_KK: np.ndarray, positive: int) -> float | None:
    """The F1 that training stops on: of two classes the positive one's, of more the macro mean (see above).

    None for two classes of which the positive one is neither present nor predicted.
    """
    return headline(class_metrics(confusion_KK[None])["f1"], positive)


def ranking_score(probability_NK: np.ndarray, label: int) -> np.ndarray:
    """A score that ranks samples as a class's probability does, float64 (N,), but without ties next to 1.

    At a low temperature many probabilities are 1 to the last bit, of samples that their logits tell apart: there the
    logarithm of what the other classes are left with, which has digits enough, takes their place.
    """
    score_N = probability_NK[:, label].astype(np.float64)
    rest_N = np.delete(probability_NK, label, axis=1).sum(1, dtype=np.float64)
    return np.where(score_N > NEARLY_ONE, -np.log(np.maximum(rest_N, np.finfo(np.float64).tiny)), score_N)


def all_metrics(label_N: np.ndarray, probability_NK: np.ndarray, positive: int) -> dict[str, Any]:
    """The metrics of one forward pass without intervals, and those of always predicting the largest class.

    label_N: int.  probability_NK: float, rows add up to 1.  The predicted class is the most probable one.  None where
    undefined.
    """
    num_classes = probability_NK.shape[1]
    confusion_KK = confusion_matrix(label_N, probability_NK.argmax(1), num_classes)
    largest = int(confusion_KK.sum(1).argmax())
    always_KK = np.zeros_like(confusion_KK)
    always_KK[:, largest] = confusion_KK.sum(1)
    score_KN = np.stack([ranking_score(probability_NK, label) for label in range(num_classes)])
    auc_K = auc_rows(score_KN, np.arange(num_classes)[:, None] == label_N)
    by_class, always = (
        {name: value_RK for name, value_RK in class_metrics(counts_KK[None]).items() if name in BRIEF}
        for counts_KK in (confusion_KK, always_KK)
    )
    by_class["auc"] = auc_K[None]
    return {
        "num_samples": len(label_N),
        "accuracy": float(accuracy(confusion_KK[None])[0]),
        **{name: headline(value_RK, positive) for name, value_RK in by_class.items()},
        **{f"{name}_per_class": none_for_nan(value_RK[0]) for name, value_RK in by_class.items()},
        "confusion": confusion_KK.tolist(),
        "largest_class": {
            "class": largest,
            "auc": 0.5 if np.isfinite(auc_K).any() else None,
            "accuracy": float(accuracy(always_KK[None])[0]),
            **{name: headline(value_RK, positive) for name, value_RK in always.items()},
        },
    }


def none_for_nan(value_K: np.ndarray) -> list[float | None]:
    """Values as JSON has them."""
    return [value if np.isfinite(value) else None for value in value_K.tolist()]


def by_mean(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What each mean over classes is the mean of: its name → the classes' rows NAME[class], float64 RxC.

    Of two classes F1 alone has one, f1_macro; of more f1_macro is F1's.  balanced_accuracy is the mean sensitivity of
    the classes present, undefined where fewer than two are.
    """
    rows: dict[str, list[np.ndarray]] = {}
    for name, row_R in found.items():
        metric, bracket, _ = name.partition("[")
        if bracket:
            rows.setdefault(metric, []).append(row_R)
    result = {metric: np.stack(of_class, axis=1) for metric, of_class in rows.items()}
    f1_RC = result["f1"]
    if f1_RC.shape[1] == 2:  # the other class's sensitivity is the specificity
        result = {"sensitivity": np.stack([found["specificity"], found["sensitivity"]], axis=1)}
    recall_RC = result["sensitivity"]
    balanced_RC = recall_RC if known_classes(recall_RC).sum() > 1 else np.full_like(recall_RC, np.nan)
    return (result if f1_RC.shape[1] > 2 else {}) | {"f1_macro": f1_RC, "balanced_accuracy": balanced_RC}


def at_prevalence(sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float) -> dict[str, np.ndarray]:
    """Predictive values where a share `prevalence` is positive (Bayes), of any shape."""
    hits, misses = sensitivity * prevalence, (1 - sensitivity) * prevalence
    passed, alarms = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    return dict(zip(AT_PREVALENCE, (ratio(hits, hits + alarms), ratio(passed, passed + misses)), strict=True))
