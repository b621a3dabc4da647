"""Rank statistics: the area under the ROC curve of many weighted samples at once."""

# R resamples or permutations, N samples

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
