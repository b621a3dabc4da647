"""The bootstrap of whole groups: how often each was drawn, and sums and areas under curves of each resample."""

# R resamples or labellings, G groups, F addends, N samples

import numpy as np

from kernels.jit import kernel


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
def areas_into(roc_R, precision_R, weight_RG, group_RN, positive_RN, last_RN):
    """Area under the ROC curve (a tie counts a half) and average precision, of each resample or labelling.

    The samples of a row are sorted, highest score first.  weight_RG: uint16.  group_RN: int32.  positive_RN: float64, 0
    or 1.  last_RN: bool, the last of a run of equal scores.  Of each of the four, one row stands for all.
    roc_R, precision_R: float64, NaN where a class is missing.
    Counts are whole numbers in float64, which keeps the loop free of conversions.
    Sources: Mann and Whitney 1947; average precision is the sum of steps of recall times precision.
    """
    last_weight, last_group = weight_RG.shape[0] - 1, group_RN.shape[0] - 1
    last_positive, last_last = positive_RN.shape[0] - 1, last_RN.shape[0] - 1
    for row in range(roc_R.shape[0]):
        weight_G, group_N = weight_RG[min(row, last_weight)], group_RN[min(row, last_group)]
        positive_N, last_N = positive_RN[min(row, last_positive)], last_RN[min(row, last_last)]
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
