"""The bootstrap: ranks and AUCs of many resamples or labellings at once."""

# R resamples or permutations, N samples
# R resamples, G groups, F addends, N samples

import numpy as np

from kernels.jit import kernel


@kernel
def auc_into(out_R, score_RN, order_RN, positive_RN, weight_RN):
    """Share of (positive, negative) pairs that the score puts in the right order; a tie counts a half.

    score_RN: float64.  order_RN: int64, each row sorts its scores, lowest first.  positive_RN: bool.  weight_RN: int64,
    how often each sample counts.  Of each of the four, one row stands for all.  out_R: float64, NaN where one of the
    two is missing.  Source: Mann and Whitney 1947.
    """
    last_score, last_order = score_RN.shape[0] - 1, order_RN.shape[0] - 1
    last_positive, last_weight = positive_RN.shape[0] - 1, weight_RN.shape[0] - 1
    num_samples = score_RN.shape[1]
    for row in range(out_R.shape[0]):
        score_N, order_N = score_RN[min(row, last_score)], order_RN[min(row, last_order)]
        positive_N, weight_N = positive_RN[min(row, last_positive)], weight_RN[min(row, last_weight)]
        ordered, below, positives, start = 0.0, 0.0, 0.0, 0
        while start < num_samples:
            tied_positive, tied_negative, end = 0.0, 0.0, start
            while end < num_samples and score_N[order_N[end]] == score_N[order_N[start]]:
                if positive_N[order_N[end]]:
                    tied_positive += weight_N[order_N[end]]
                else:
                    tied_negative += weight_N[order_N[end]]
                end += 1
            ordered += tied_positive * (below + 0.5 * tied_negative)
            below += tied_negative
            positives += tied_positive
            start = end
        out_R[row] = ordered / (positives * below)


@kernel
def count_into(weight_RG, drawn_RG):
    """How often each group was drawn.  drawn_RG: int32 group numbers, any order.  weight_RG: uint16, written whole."""
    for row in range(weight_RG.shape[0]):
        weight_G = weight_RG[row]
        weight_G[:] = 0
        for group in drawn_RG[row]:
            weight_G[group] += 1


@kernel
def weighted_sums_into(out_RF, weight_RG, addend_GF):
    """out_RF = weight_RG @ addend_GF, added in the order of groups.  weight_RG: uint16.  addend_GF, out_RF: float64.

    A matrix product of the BLAS may add in another order on another number of threads.
    """
    out_RF[:] = 0.0
    for group in range(weight_RG.shape[1]):
        for row in range(weight_RG.shape[0]):
            weight = float(weight_RG[row, group])
            for addend in range(addend_GF.shape[1]):
                out_RF[row, addend] += weight * addend_GF[group, addend]


@kernel
def areas_into(roc_R, precision_R, weight_RG, group_N, positive_N, last_N):
    """Area under the ROC curve (a tie counts a half) and average precision, of each resample.

    Samples come sorted, highest score first.  weight_RG: uint16.  group_N: int32.  positive_N: float64, 0 or 1.
    last_N: bool, the last of a run of equal scores.  roc_R, precision_R: float64, NaN where a class is missing.
    Counts are whole numbers in float64, which keeps the loop free of conversions.
    Sources: Mann and Whitney 1947; average precision is the sum of steps of recall times precision.
    """
    for row in range(weight_RG.shape[0]):
        weight_G = weight_RG[row]
        hits, called, hits_before, called_before = 0.0, 0.0, 0.0, 0.0
        ordered, precision = 0.0, 0.0
        for sample in range(group_N.shape[0]):
            weight = float(weight_G[group_N[sample]])
            called += weight
            hits += weight * positive_N[sample]
            if last_N[sample]:
                gained = hits - hits_before
                ordered += (called - called_before - gained) * 0.5 * (hits_before + hits)
                precision += gained * (hits / max(called, 1.0))
                hits_before, called_before = hits, called
        roc_R[row] = ordered / (hits * (called - hits))
        precision_R[row] = precision / hits if called > hits else np.nan
