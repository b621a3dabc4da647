"""Resamples of whole groups: how often each group was drawn, sums over groups, and areas under two curves."""

# R resamples, G groups, F addends, N samples

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
