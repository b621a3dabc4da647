"""The classifier of kinds as it judges patients that it never saw: one for each fold of its recipe."""

# S side of a frame, F features, K kinds

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from benchmarks.kind_recipe import FOLDS, folds_of, read_pictures, train
from loaders.images.frame import resize
from loaders.images.kind import KINDS, KindWeights, kind_features, kind_of
from loaders.images.quality import SIDE, Measurement, inner_box, inset, misalignment


@dataclass(frozen=True, slots=True)
class Folds:
    """Weights by fold, and each patient's fold."""

    weights: tuple[KindWeights, ...]
    fold_of: dict[str, int]

    def of(self, patient: str) -> KindWeights:
        """Weights that have not seen this patient."""
        return self.weights[self.fold_of.get(patient, 0)]


@cache
def fit_kind_folds(data: Path, seed: int = 0) -> Folds:
    """Train the recipe once a fold, with whole patients left out, as `make kind` does to score it."""
    pictures = read_pictures(data)
    fold_N = folds_of(pictures)
    weights = tuple(
        train([picture for picture, its in zip(pictures, fold_N, strict=True) if its != fold], seed + fold)
        for fold in range(FOLDS)
    )
    return Folds(weights, {picture.patient: int(fold) for picture, fold in zip(pictures, fold_N, strict=True)})


def rescored(
    measurement: Measurement, grey_HW: np.ndarray, window: tuple[int, int], weights: KindWeights
) -> Measurement:
    """The same measurement with other weights' opinion of the kind and the pose.

    What near duplicates are compared by keeps the polarity that the shipped weights gave it.
    """
    frame_SS = resize(grey_HW, SIDE, SIDE, window)
    top, bottom, left, right = box = inset(inner_box(frame_SS))
    if box != (0, SIDE, 0, SIDE):
        inside = np.ascontiguousarray(frame_SS[top:bottom, left:right])
        frame_SS = np.asarray(cv2.resize(inside, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR))
    kind_K, pose_P = kind_of(kind_features(frame_SS), weights)
    odds = dict(zip(KINDS, kind_K.tolist(), strict=True))
    turned = [odds[f"turned-{90 * turns}"] for turns in (1, 2, 3)]
    scores = measurement.scores | {
        "not-a-radiograph": odds["other"],
        "lateral": odds["lateral"],
        "inverted": odds["inverted"],
        "rotated": sum(turned),
        "misaligned": misalignment(pose_P),
    }
    return replace(measurement, scores=scores, kind_K=kind_K, turns=1 + int(np.argmax(turned)))
