"""Statistics below the engine: intervals of proportions, folds, permutations and the bootstrap of probes."""

# N samples, F features, K components, C classes, G groups, R rows: labellings or resamples

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from kernels.bootstrap import auc_into

Z = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of hits out of trials; (0, 1) of none.  Source: Wilson 1927."""
    if not trials:
        return 0.0, 1.0
    share = hits / trials
    middle = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    return max(0.0, middle - half), min(1.0, middle + half)


FOLDS, PERMUTE, RESAMPLE = range(3)  # random streams
NUM_FOLDS = 5
COMPONENTS = 30  # principal components kept, at most
RIDGE_RANK = 8  # the ridge is as strong as this component, so that weaker ones count little
CHUNK_VALUES = 2_000_000  # scores held at once


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldModel:
    """What one fold's classifier does with labels: score_T = test_TK @ (solve_KM @ label_M)."""

    test_T: np.ndarray
    train_M: np.ndarray
    test_TK: np.ndarray
    solve_KM: np.ndarray


def stream(seed: int, purpose: int) -> np.random.Generator:
    """Random numbers for one of the purposes above."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=(purpose,))))


def deal_folds(group_N: np.ndarray, seed: int, num_folds: int = NUM_FOLDS) -> np.ndarray:
    """Deal whole groups to folds, groups of one size evenly: int64 N.  Labels have no say (see the file's head)."""
    num_groups = int(group_N.max()) + 1
    size_G = np.bincount(group_N, minlength=num_groups)
    shuffled_G = stream(seed, FOLDS).permutation(num_groups)
    order_G = shuffled_G[np.argsort(-size_G[shuffled_G], kind="stable")]
    fold_G = np.empty(num_groups, np.int64)
    fold_G[order_G] = np.arange(num_groups) % num_folds
    return fold_G[group_N]


def permute_groups(label_N: np.ndarray, group_N: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Labellings in which groups have exchanged their labels whole; row 0 is the real one: int16 (1 + permutations, N).

    Any group may exchange with any other, lest a collection in which the number of a patient's images follows the class
    have no permutations to speak of; a group's labels are stretched to the other's length. That is exact for groups of
    one label, and approximate for the few that have several.
    """
    num_groups = int(group_N.max()) + 1
    size_G = np.bincount(group_N, minlength=num_groups)
    member_N = np.argsort(group_N, kind="stable")
    start_G = np.cumsum(size_G) - size_G
    groups_G = np.flatnonzero(size_G)
    rng = stream(seed, PERMUTE)
    label_RN = np.empty((1 + permutations, len(label_N)), np.int16)
    label_RN[0] = label_N
    giver_RG = rng.permuted(np.tile(groups_G, (permutations, 1)), axis=1)
    for taker, giver_R in zip(groups_G.tolist(), giver_RG.T, strict=True):
        place = np.arange(size_G[taker])
        taken_RP = start_G[giver_R][:, None] + place * size_G[giver_R][:, None] // size_G[taker]
        label_RN[1:, member_N[start_G[taker] + place]] = label_N[member_N[taken_RP]]
    return label_RN


def fit_fold(features_NF: np.ndarray, test_N: np.ndarray, standardise: bool) -> FoldModel:
    """Standardise, rotate to principal components and invert the ridge, on the training folds alone.

    standardise: divide each feature by its deviation; else features share a unit, and strong ones lead.
    """
    train_M, test_T = np.flatnonzero(~test_N), np.flatnonzero(test_N)
    train_MF = features_NF[train_M]
    mean_F = train_MF.mean(0)
    scale_F = train_MF.std(0) if standardise else np.ones_like(mean_F)
    scale_F = np.where(scale_F > 1e-9, scale_F, np.inf)  # a feature that is constant in training says nothing
    train_MF = (train_MF - mean_F) / scale_F
    power_F, axes_FF = np.linalg.eigh(train_MF.T @ train_MF)
    power_K, axes_FK = power_F[::-1][:COMPONENTS], axes_FF[:, ::-1][:, :COMPONENTS]
    useful_K = power_K > 1e-9 * max(float(power_K[0]), 1e-9)
    power_K, axes_FK = power_K[useful_K], axes_FK[:, useful_K]
    ridge = power_K[RIDGE_RANK - 1] if len(power_K) >= RIDGE_RANK else 0.0
    return FoldModel(
        test_T=test_T,
        train_M=train_M,
        test_TK=((features_NF[test_T] - mean_F) / scale_F) @ axes_FK,
        solve_KM=(train_MF @ axes_FK / (power_K + ridge)).T,
    )


def fit_folds(features_NF: np.ndarray, fold_N: np.ndarray, standardise: bool = True) -> list[FoldModel]:
    """One model a fold.  features_NF: float64, finite."""
    return [fit_fold(features_NF, fold_N == fold, standardise) for fold in np.unique(fold_N)]


def out_of_fold_scores(models: list[FoldModel], target_RN: np.ndarray) -> np.ndarray:
    """Each sample's score from the fold that did not train on it: float64 R×N.

    The classifier's constant is left out: it is the training labels' mean, which is low where the test labels are
    high, and would push the AUC of useless features below a half.
    """
    score_RN = np.zeros(target_RN.shape)
    for model in models:
        weight_KR = model.solve_KM @ target_RN[:, model.train_M].T
        score_RN[:, model.test_T] = (model.test_TK @ weight_KR).T
    spread = np.abs(score_RN).max(1, keepdims=True)
    return np.round(score_RN / np.where(spread > 1e-12, spread, np.inf), 9)  # equal samples stay equal


def auc_rows(score_RN: np.ndarray, positive_RN: np.ndarray, weight_RN: np.ndarray | None = None) -> np.ndarray:
    """The AUC of each row: float64 R, NaN without both kinds.  One row of an argument stands for all."""
    if weight_RN is None:
        weight_RN = np.ones((1, score_RN.shape[1]), np.int64)
    out_R = np.empty(max(len(score_RN), len(positive_RN), len(weight_RN)))
    order_RN = np.argsort(score_RN, axis=1, kind="stable")
    auc_into(out_R, score_RN, order_RN, positive_RN, weight_RN)
    return out_R


def one_against_rest(label_RN: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """What is to be told from the rest: every class, but of two the second, which mirrors the first, is left out."""
    return [label_RN == label for label in range(num_classes if num_classes > 2 else 1)]


def labelling_aucs(models: list[FoldModel], label_RN: np.ndarray, num_classes: int) -> np.ndarray:
    """The cross-validated AUC of each labelling, mean over the classes against the rest: float64 R."""
    rows = max(1, CHUNK_VALUES // label_RN.shape[1])
    auc_R = np.empty(len(label_RN))
    for start in range(0, len(label_RN), rows):
        chunk = slice(start, start + rows)
        targets = one_against_rest(label_RN[chunk], num_classes)
        per_class = [auc_rows(out_of_fold_scores(models, target_RN.astype(float)), target_RN) for target_RN in targets]
        auc_R[chunk] = np.mean(per_class, axis=0)
    return auc_R


def bootstrap_aucs(
    models: list[FoldModel], label_N: np.ndarray, group_N: np.ndarray, num_classes: int, resamples: int, seed: int
) -> np.ndarray:
    """The AUC of resamples of whole groups, with the scores as they are: float64 R, NaN where a class is missing."""
    targets = one_against_rest(label_N[None], num_classes)
    scores = [out_of_fold_scores(models, target_1N.astype(float)) for target_1N in targets]
    num_groups = int(group_N.max()) + 1
    rng = stream(seed, RESAMPLE)
    rows = max(1, CHUNK_VALUES // max(len(label_N), num_groups))
    auc_R = np.empty(resamples)
    for start in range(0, resamples, rows):
        count_RG = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), min(rows, resamples - start))
        weight_RN = np.ascontiguousarray(count_RG[:, group_N])
        per_class = [
            auc_rows(score_1N, target_1N, weight_RN) for score_1N, target_1N in zip(scores, targets, strict=True)
        ]
        auc_R[start : start + rows] = np.mean(per_class, axis=0)
    return auc_R


def percentile_interval(auc_R: np.ndarray) -> tuple[float, float]:
    """The central 95 % of the resamples that had every class; (0, 1) if none had."""
    known = auc_R[np.isfinite(auc_R)]
    return (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))) if len(known) else (0.0, 1.0)


def permutation_p(auc_R: np.ndarray) -> float:
    """(1 + permutations at least as good as row 0, the real labelling) / (1 + permutations); an unknown AUC is good."""
    return float(np.mean(~(auc_R < auc_R[0] - 1e-12)))


def holm(p: list[float]) -> list[float]:
    """Holm's step-down correction, in the order given.  Source: Holm 1979."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted
