"""ROC and precision-recall curves, for figures and for choosing thresholds."""

# N samples, K classes, P points: one a distinct score, highest first

from dataclasses import dataclass

import numpy as np

SENSITIVITY = 0.95  # that rule-out asks for
LEAST_POSITIVES = 59  # 0.95**59 < 0.05: with fewer, even no miss at all leaves a sensitivity below 95 % plausible


def roc_curve(is_positive_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """1 - specificity, sensitivity and threshold, float64 P each, from (0, 0) at threshold inf to (1, 1).

    A sample is called positive where its score is at least the threshold; None where only one class is present.
    """
    from sklearn import metrics  # takes its time to import

    if is_positive_N.all() or not is_positive_N.any():
        return None
    return metrics.roc_curve(is_positive_N, score_N, drop_intermediate=False)


def precision_recall_curve(is_positive_N: np.ndarray, score_N: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Recall, rising from 0, and precision, set to 1 at recall 0, float64 P each; None without a positive.

    Average precision is the sum of steps, not of trapezoids: draw it as steps.
    """
    from sklearn import metrics  # takes its time to import

    if not is_positive_N.any():
        return None
    precision_P, recall_P, _ = metrics.precision_recall_curve(is_positive_N, score_N)
    return recall_P[::-1], precision_P[::-1]


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
    youden = rule_out = None
    no_youden = no_rule_out = ""
    if roc is None:
        found = f"{num_positive} positives and {num_negative} negatives"
        no_youden = no_rule_out = f"validation has {found}, expected at least 1 of each"
    else:
        false_positive_P, sensitivity_P, threshold_P = roc
        youden = float(threshold_P[1 + np.argmax(np.round(sensitivity_P - false_positive_P, 12)[1:])])
        rule_out = float(threshold_P[np.argmax(sensitivity_P >= SENSITIVITY)])
    if num_positive < LEAST_POSITIVES:
        rule_out = None
        no_rule_out = f"validation has {num_positive} positives, expected at least {LEAST_POSITIVES} (0.95^59 < 5 %)"
    return (
        OperatingPoint(name="0.5", threshold=0.5),
        OperatingPoint(name="youden", threshold=youden, refused=no_youden),
        OperatingPoint(name="rule-out", threshold=rule_out, refused=no_rule_out),
    )
