"""ROC and precision-recall curves, for figures and for choosing thresholds."""

# N samples, M samples of one kind, P points: one a distinct score, highest first

from dataclasses import dataclass

import numpy as np

from loaders.cautions import Caution, caution

RULE_OUT = "rule-out"
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
    """The positive class is called where its probability reaches the threshold.  refused: why there is none."""

    name: str
    threshold: float | None
    refused: Caution | None = None


def choose_operating_points(is_positive_N: np.ndarray, score_N: np.ndarray) -> tuple[OperatingPoint, ...]:
    """The points "0.5", "youden" and "rule-out", from validation's samples and probabilities of the positive class.

    youden: the threshold of the highest sensitivity + specificity.  rule-out: the highest threshold whose sensitivity
    is at least 95 %.  Of thresholds that do equally well, the highest.
    Sources: Youden 1950; Hanley and Lippman-Hand 1983.
    """
    positive_M, negative_M = np.sort(score_N[is_positive_N]), np.sort(score_N[~is_positive_N])
    num_positive, num_negative = len(positive_M), len(negative_M)
    youden = rule_out = no_youden = no_rule_out = None
    if num_positive and num_negative:
        threshold_P = np.unique(score_N)[::-1]
        sensitivity_P, false_positive_P = (
            (len(score_M) - np.searchsorted(score_M, threshold_P)) / len(score_M)
            for score_M in (positive_M, negative_M)
        )
        youden = float(threshold_P[np.argmax(np.round(sensitivity_P - false_positive_P, 12))])
        rule_out = float(threshold_P[np.argmax(sensitivity_P >= SENSITIVITY)])
    else:
        no_youden = no_rule_out = caution("one-class-in-validation", positives=num_positive, negatives=num_negative)
    if num_positive < LEAST_POSITIVES:
        rule_out = None
        no_rule_out = caution("few-validation-positives", positives=num_positive, least=LEAST_POSITIVES)
    return (
        OperatingPoint(name="0.5", threshold=0.5),
        OperatingPoint(name="youden", threshold=youden, refused=no_youden),
        OperatingPoint(name=RULE_OUT, threshold=rule_out, refused=no_rule_out),
    )
