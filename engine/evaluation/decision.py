"""The decision rule of a run: its temperature and operating points, chosen on validation and never on another set."""

# N samples, K classes

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from engine.evaluation.validation_scores import validation_scores
from engine.statistics.calibration import TEMPERATURES, fit_temperature
from engine.statistics.operating_points import OperatingPoint, choose_operating_points
from engine.step import softmax

UNKNOWN = "operating points not known: train again with plainfilm 0.5"
AT_BOUND = "the temperature is at its bound: validation was too easy or too hard to calibrate by"


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What validation settled.  temperature: None where nothing is known.

    points: thresholds of the calibrated probability of the positive class, against all others for three classes.
    """

    temperature: float | None
    points: tuple[OperatingPoint, ...]

    def cautions(self) -> list[str]:
        """What speaks against probabilities and thresholds of this rule, in plain words."""
        if self.temperature is None:
            return [UNKNOWN]
        return [AT_BOUND] if self.temperature in TEMPERATURES else []

    def probabilities(self, logits_NK: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64 (N, K); of the logits as they are where no temperature is known."""
        return softmax(logits_NK if self.temperature is None else logits_NK.astype(np.float64) / self.temperature)


def against_rest(label_N: np.ndarray, probability_NK: np.ndarray, positive: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The positive class against all others: labels, probabilities (N, 2), and the positive class's place there.

    Two classes stay as they are.
    """
    if probability_NK.shape[1] == 2:
        return label_N, probability_NK, positive
    score_N = probability_NK[:, positive]
    return (label_N == positive).astype(np.int64), np.stack([1 - score_N, score_N], 1), 1


def decide(tensors: Mapping[str, torch.Tensor], positive: int) -> Decision:
    """The decision rule of a checkpoint, from the validation scores in it; without points where it has none."""
    scores = validation_scores(tensors)
    if scores is None:
        return Decision(temperature=None, points=())
    uncut = Decision(temperature=fit_temperature(scores.logits_NK, scores.label_N), points=())
    points = choose_operating_points(*against_rest(scores.label_N, uncut.probabilities(scores.logits_NK), positive))
    return Decision(temperature=uncut.temperature, points=points)
