"""Resamples of whole groups: sums and areas under curves, of the sample itself and of each draw of its groups.

Whatever follows from sums over samples (confusion matrix, Brier score, bins of the ECE, one Newton step from the fitted
recalibration) needs the groups' sums only; the areas need one pass over the sorted scores a resample.
"""

# N samples, K classes, G groups, F addends, C classes told from the rest, R rows: row 0 the sample itself

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from engine.statistics.calibration import BINS, Recalibration, bin_of, logit, recalibrate, scored_event, sigmoid
from engine.statistics.metrics import ranking_score
from kernels.bootstrap import areas_into, count_into, weighted_sums_into
from loaders.errors import InputError
from loaders.machine import usable_cores

CHUNK_VALUES = 1_600_000  # weights held at once by a thread
CHUNK_ROWS = 64  # resamples at once, at most; fixed, so that the number of threads changes nothing

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Samples sorted by one class's score, highest first, as kernels.bootstrap.areas_into takes them."""

    group_N: np.ndarray
    positive_N: np.ndarray
    last_N: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Material:
    """What the metrics of every resample are made from.

    told: classes told from the rest, of two the positive one.  called_N: the predicted class.  group_N: int32, numbered
    from 0.  addend_GF: sums of each group: K·K confusion counts; and unless only the called classes count, one Brier
    score, B gaps of the ECE, and of each class told the gradient and curvature of its recalibration, 2 of calibration
    in the large and 5 of slope and constant.
    """

    num_classes: int
    num_groups: int
    told: tuple[int, ...]
    label_N: np.ndarray
    called_N: np.ndarray
    group_N: np.ndarray
    addend_GF: np.ndarray
    rankings: tuple[Ranking, ...]
    recalibrations: tuple[Recalibration, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Resampled:
    """Sums and areas of each row."""

    sum_RF: np.ndarray
    roc_RC: np.ndarray
    precision_RC: np.ndarray


def call_classes(probability_NK: np.ndarray, positive: int, threshold: float | None) -> np.ndarray:
    """The predicted class, int64 N: the most probable one, or with two classes what a threshold says."""
    if threshold is None:
        return probability_NK.argmax(1)
    return np.where(probability_NK[:, positive] >= threshold, positive, 1 - positive)


def make_material(
    label_N: np.ndarray,
    probability_NK: np.ndarray,
    group_N: np.ndarray,
    positive: int,
    threshold: float | None,
    scores: bool,
) -> Material:
    """Sum each group, and sort the scores.  scores: False leaves out all that does not depend on the called classes.

    Errors: InputError for probabilities that are not finite.
    """
    if bad := int((~np.isfinite(probability_NK)).any(1).sum()):
        raise InputError(f"probabilities: {bad} of {len(label_N)} samples without finite ones; train the network again")
    num_classes = probability_NK.shape[1]
    assert threshold is None or num_classes == 2
    group_N = np.unique(group_N, return_inverse=True)[1].astype(np.int32)
    called_N = call_classes(probability_NK, positive, threshold)
    told = (positive,) if num_classes == 2 else tuple(range(num_classes))
    num_groups = int(group_N.max()) + 1

    def one_hot(column_N: np.ndarray, columns: int, weights_N: np.ndarray | None = None) -> np.ndarray:
        cell_N = group_N.astype(np.int64) * columns + column_N
        return np.bincount(cell_N, weights=weights_N, minlength=num_groups * columns).reshape(num_groups, columns)

    addends = [one_hot(label_N * num_classes + called_N, num_classes**2)]
    rankings, recalibrations = [], []
    if scores:
        is_class_NK = label_N[:, None] == np.arange(num_classes)
        brier_N = ((probability_NK - is_class_NK) ** 2).sum(1) / (2 if num_classes == 2 else 1)
        score_N, happened_N = scored_event(label_N, probability_NK, positive)
        addends += [one_hot(np.zeros_like(label_N), 1, brier_N), one_hot(bin_of(score_N), BINS, score_N - happened_N)]
        for label in told:
            rankings.append(rank(ranking_score(probability_NK, label), is_class_NK[:, label], group_N))
            logit_N = logit(probability_NK[:, label])
            recalibrations.append(recalibrate(is_class_NK[:, label], logit_N))
            for part_N in newton_parts(is_class_NK[:, label], logit_N, recalibrations[-1]):
                addends.append(one_hot(np.zeros_like(label_N), 1, part_N))
    return Material(
        num_classes=num_classes,
        num_groups=num_groups,
        told=told,
        label_N=label_N,
        called_N=called_N,
        group_N=group_N,
        addend_GF=np.concatenate(addends, axis=1, dtype=np.float64),
        rankings=tuple(rankings),
        recalibrations=tuple(recalibrations),
    )


def rank(score_N: np.ndarray, is_positive_N: np.ndarray, group_N: np.ndarray) -> Ranking:
    """Sort by score, highest first."""
    order_N = np.argsort(-score_N, kind="stable")
    sorted_N = score_N[order_N]
    return Ranking(
        group_N=group_N[order_N],
        positive_N=is_positive_N[order_N].astype(np.float64),
        last_N=np.append(sorted_N[1:] != sorted_N[:-1], True),
    )


def newton_parts(is_positive_N: np.ndarray, logit_N: np.ndarray, fit: Recalibration) -> list[np.ndarray]:
    """Gradient and curvature at the fit, sample by sample: 2 of `large`, 5 of constant and slope; 0 without a fit."""
    large_N = sigmoid(np.nan_to_num(fit.large) + logit_N)
    fitted_N = sigmoid(np.nan_to_num(fit.constant) + np.nan_to_num(fit.slope) * logit_N)
    residual_N, spread_N = is_positive_N - fitted_N, fitted_N * (1 - fitted_N)
    line = [residual_N, residual_N * logit_N, spread_N, spread_N * logit_N, spread_N * logit_N**2]
    return [is_positive_N - large_N, large_N * (1 - large_N), *line]


def resample(material: Material, resamples: int, seed: int, progress: Progress) -> Resampled:
    """Draw the groups `resamples` times with replacement, as often as there are groups; row 0 has each group once.

    A pure function of material, resamples and seed, on any number of threads; materials of equally many groups meet the
    same draws.
    """
    num_groups = material.num_groups
    rows = max(1, min(CHUNK_ROWS, CHUNK_VALUES // num_groups))
    shape = (1 + resamples, len(material.rankings))
    out = Resampled(
        sum_RF=np.empty((1 + resamples, material.addend_GF.shape[1])),
        roc_RC=np.empty(shape),
        precision_RC=np.empty(shape),
    )

    def fill(start: int, weight_RG: np.ndarray) -> None:
        chunk = slice(start, start + len(weight_RG))
        weighted_sums_into(out.sum_RF[chunk], weight_RG, material.addend_GF)
        for column, ranking in enumerate(material.rankings):
            roc_R, precision_R = np.empty((2, len(weight_RG)))
            areas_into(roc_R, precision_R, weight_RG, ranking.group_N, ranking.positive_N, ranking.last_N)
            out.roc_RC[chunk, column], out.precision_RC[chunk, column] = roc_R, precision_R

    def draw(first: int) -> int:
        count = min(rows, resamples - first)
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(first,))))
        weight_RG = np.empty((count, num_groups), np.uint16)
        count_into(weight_RG, rng.integers(num_groups, size=(count, num_groups), dtype=np.int32))
        fill(1 + first, weight_RG)
        return count

    fill(0, np.ones((1, num_groups), np.uint16))
    done = 0
    with ThreadPoolExecutor(usable_cores()) as pool:
        for count in pool.map(draw, range(0, resamples, rows)):
            done += count
            progress("bootstrap", done, resamples)
    return out
