"""Statistics below the engine: intervals of proportions, the bootstrap of groups, and those of probes."""

# N samples, F features, K components, C classes, G groups, R rows: labellings or resamples

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kernels.bootstrap import areas_into, count_into, weighted_sums_into
from loaders.machine import usable_cores

Z = 1.959963984540054  # two-sided 95 % of the normal distribution
CHUNK_WEIGHTS = 1_600_000  # weights that a thread holds at once
CHUNK_ROWS = 64  # resamples at once, at most; fixed, so that the number of threads changes nothing
FOLDS, PERMUTE = range(2)  # random streams
NUM_FOLDS = 5
COMPONENTS = 30  # principal components kept, at most
RIDGE_RANK = 8  # the ridge is as strong as this component, so that weaker ones count little
CHUNK_SCORES = 2_000_000  # scores held at once

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Progress that nobody watches."""


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of hits out of trials; (0, 1) of none.  From 0 exactly without a hit, to 1 if all are.

    Source: Wilson 1927.
    """
    if not trials:
        return 0.0, 1.0
    share = hits / trials
    middle = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    return middle - half if hits else 0.0, middle + half if hits < trials else 1.0  # where rounding would leave 1e-17


def resample_groups(
    num_groups: int,
    resamples: int,
    seed: int,
    fill: Callable[[slice, np.ndarray], None],
    progress: Progress = no_progress,
) -> None:
    """Draw all groups `resamples` times with replacement, as often as there are groups.

    fill: given rows and how often each group counts in them, uint16 (rows, G), writes those rows of what the caller
    collects, 1 + resamples in all; on several threads at once.  Row 0 has each group once.  The draws are a function of
    the number of groups and the seed.
    """
    rows = max(1, min(CHUNK_ROWS, CHUNK_WEIGHTS // num_groups))

    def draw(first: int) -> int:
        count = min(rows, resamples - first)
        rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(first,))))
        weight_RG = np.empty((count, num_groups), np.uint16)
        count_into(weight_RG, rng.integers(num_groups, size=(count, num_groups), dtype=np.int32))
        fill(slice(1 + first, 1 + first + count), weight_RG)
        return count

    fill(slice(0, 1), np.ones((1, num_groups), np.uint16))
    done = 0
    with ThreadPoolExecutor(usable_cores()) as pool:
        for count in pool.map(draw, range(0, resamples, rows)):
            done += count
            progress(done, resamples)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranking:
    """Samples sorted by score, highest first, row by row, as kernels.bootstrap.areas_into takes them."""

    group_RN: np.ndarray
    positive_RN: np.ndarray
    last_RN: np.ndarray

    def areas(self, weight_RG: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Area under the ROC curve and average precision of each row: float64 R each, NaN without both classes.

        weight_RG: uint16, how often each group counts; None: once.
        """
        if weight_RG is None:
            weight_RG = np.ones((1, int(self.group_RN.max()) + 1), np.uint16)
        roc_R, precision_R = np.empty((2, max(len(weight_RG), len(self.group_RN))))
        areas_into(roc_R, precision_R, weight_RG, self.group_RN, self.positive_RN, self.last_RN)
        return roc_R, precision_R


def rank(score_RN: np.ndarray, positive_RN: np.ndarray, group_N: np.ndarray) -> Ranking:
    """Sort each row by score.  positive_RN: bool, of as many rows.  group_N: numbered from 0."""
    order_RN = np.argsort(-score_RN, axis=1)  # the order of equal scores counts for nothing
    sorted_RN = np.take_along_axis(score_RN, order_RN, 1)
    last_RN = np.ones(score_RN.shape, bool)
    last_RN[:, :-1] = sorted_RN[:, 1:] != sorted_RN[:, :-1]
    return Ranking(
        group_RN=group_N.astype(np.int32)[order_RN],
        positive_RN=np.take_along_axis(positive_RN, order_RN, 1).astype(np.float64),
        last_RN=last_RN,
    )


def auc_rows(score_RN: np.ndarray, positive_RN: np.ndarray) -> np.ndarray:
    """The AUC of each row: the chance that a positive scores above another, a tie counting a half.

    float64 R, NaN where one of the two is missing.
    """
    return rank(score_RN, positive_RN, np.arange(score_RN.shape[1])).areas()[0]


def percentile_interval(value_R: np.ndarray) -> tuple[float, float]:
    """The central 95 % of the resamples in which a value was defined; (0, 1) if it was in none."""
    known = value_R[np.isfinite(value_R)]
    return (float(np.quantile(known, 0.025)), float(np.quantile(known, 0.975))) if len(known) else (0.0, 1.0)


def resampled_means(value_N: np.ndarray, group_N: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """The mean of the values over resamples of whole groups: float64 (1 + resamples), row 0 the sample itself."""
    place_N = np.unique(group_N, return_inverse=True)[1]
    addend_G2 = np.column_stack([np.bincount(place_N, value_N), np.bincount(place_N)])
    sum_R2 = np.empty((1 + resamples, 2))
    resample_groups(
        len(addend_G2), resamples, seed, lambda rows, weight_RG: weighted_sums_into(sum_R2[rows], weight_RG, addend_G2)
    )
    return sum_R2[:, 0] / sum_R2[:, 1]


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


def deal_groups(group_N: np.ndarray, seed: int, num_folds: int = NUM_FOLDS) -> np.ndarray:
    """Deal whole groups to folds, groups of one size evenly: int64 N.

    Labels play no part, so that the folds are the same for every permutation of them.
    """
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
    _, group_N = np.unique(group_N, return_inverse=True)
    return hand_on(label_N, group_N, shuffle_groups(int(group_N.max()) + 1, permutations, seed))


def shuffle_groups(num_groups: int, permutations: int, seed: int) -> np.ndarray:
    """Random permutations of the groups, row by row whose labels each group gets: int32 (permutations, G)."""
    groups_RG = np.tile(np.arange(num_groups, dtype=np.int32), (permutations, 1))
    return stream(seed, PERMUTE).permuted(groups_RG, axis=1)


def shuffle_some(giver_RG: np.ndarray, taking_G: np.ndarray) -> np.ndarray:
    """The same permutations of some of the groups alone, which are counted from 0.  taking_G: bool, which.

    A group that would get its labels from one that is left out gets those that the other would, and so on: the others
    are cut out of their cycles, and what is left of a random permutation is a random permutation.
    """
    taken_RT = giver_RG[:, taking_G]
    while (lost_RT := ~taking_G[taken_RT]).any():
        row_L, _ = np.nonzero(lost_RT)
        taken_RT[lost_RT] = giver_RG[row_L, taken_RT[lost_RT]]
    return (np.cumsum(taking_G, dtype=np.int32) - 1)[taken_RT]


def hand_on(label_N: np.ndarray, group_N: np.ndarray, giver_RG: np.ndarray) -> np.ndarray:
    """Each labelling, the real one first, in which every group has its giver's labels: int16 (1 + R, N).

    group_N: counted from 0.  Labels are handed on in order, and stretched to the group's length.
    """
    size_G = np.bincount(group_N)
    member_N = np.argsort(group_N, kind="stable")
    start_G = np.cumsum(size_G) - size_G
    label_RN = np.empty((1 + len(giver_RG), len(label_N)), np.int16)
    label_RN[0] = label_N
    for taker, giver_R in enumerate(giver_RG.T):
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


def one_against_rest(label_RN: np.ndarray, num_classes: int) -> list[np.ndarray]:
    """The targets: each class against the rest; of two only the first, since the second mirrors it."""
    return [label_RN == label for label in range(num_classes if num_classes > 2 else 1)]


def labelling_aucs(models: list[FoldModel], label_RN: np.ndarray, num_classes: int) -> np.ndarray:
    """The cross-validated AUC of each labelling, mean over the classes against the rest: float64 R."""
    rows = max(1, CHUNK_SCORES // label_RN.shape[1])
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
    rankings = [
        rank(out_of_fold_scores(models, target_1N.astype(float)), target_1N, group_N)
        for target_1N in one_against_rest(label_N[None], num_classes)
    ]
    auc_RC = np.empty((1 + resamples, len(rankings)))

    def fill(rows: slice, weight_RG: np.ndarray) -> None:
        for column, ranking in enumerate(rankings):
            auc_RC[rows, column] = ranking.areas(weight_RG)[0]

    resample_groups(int(group_N.max()) + 1, resamples, seed, fill)
    return auc_RC[1:].mean(1)


def permutation_p(auc_R: np.ndarray) -> float:
    """(1 + permutations at least as good as row 0, the real labelling) / (1 + permutations); an unknown AUC is good."""
    return float(np.mean(~(auc_R < auc_R[0] - 1e-12)))


def single_step(auc_RP: np.ndarray) -> list[float]:
    """Each test's p, corrected for all of them: how often the best of all does as well under permuted labels.

    auc_RP: AUCs of P tests under the same permutations of whole groups, row 0 the real labels; each is measured in
    deviations from its own mean under permutation, since small tests vary more.  Dependence between tests is kept, and
    the p can be as small as that of one test, which Holm's of a hundred tests cannot.  An AUC that is unknown of the
    real labels has p = 1; under permuted ones it counts as good.
    Source: Westfall and Young 1993, single-step maxT.
    """
    spread_P = np.nanstd(auc_RP, 0)
    z_RP = (auc_RP - np.nanmean(auc_RP, 0)) / np.where(spread_P > 1e-12, spread_P, np.inf)
    best_R = np.where(np.isfinite(z_RP), z_RP, np.inf).max(1)
    return [1.0 if np.isnan(z) else float(np.mean(best_R >= z - 1e-9)) for z in z_RP[0]]


def holm(p: list[float]) -> list[float]:
    """Holm's step-down correction, in the order given.  Source: Holm 1979."""
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted
