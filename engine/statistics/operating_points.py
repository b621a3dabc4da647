"""Operating points: thresholds for calling the positive class, chosen on validation and never on the set under test."""

# N samples, K classes, P points

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.statistics.curves import roc_curve

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
