"""The statistics that a batch norm normalises by: the batch's own, or the running ones."""

# K channels

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Mean and biased variance of each channel, float64 (K,).  count: pixels they are of; 0 for running ones."""

    mean_K: np.ndarray
    variance_K: np.ndarray
    count: int = 0

    def deviation_K(self, norm: nn.BatchNorm2d) -> np.ndarray:
        """What normalising divides by, float64."""
        return np.sqrt(self.variance_K + norm.eps)


def batch_statistics(sum_K: np.ndarray, square_sum_K: np.ndarray, count: int) -> Statistics:
    """From sums and sums of squares in float64, where squares of float32 leave digits enough to subtract.

    Errors: ValueError for a single value a channel, which has no variance.
    """
    if count < 2:
        raise ValueError(f"batch norm in training: found {count} value a channel, expected 2 or more")
    mean_K = sum_K / count
    return Statistics(mean_K=mean_K, variance_K=np.maximum(square_sum_K / count - mean_K**2, 0), count=count)


def running_statistics(norm: nn.BatchNorm2d) -> Statistics:
    """Those of evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    return Statistics(mean_K=norm.running_mean.double().numpy(), variance_K=norm.running_var.double().numpy())


@torch.no_grad()
def update_running(norm: nn.BatchNorm2d, batch: Statistics) -> None:
    """Move the running statistics towards a batch's, as PyTorch does: the variance unbiased."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    assert norm.momentum is not None
    unbiased_K = batch.variance_K * (batch.count / (batch.count - 1))
    for running_K, batch_K in ((norm.running_mean, batch.mean_K), (norm.running_var, unbiased_K)):
        running_K.copy_(torch.lerp(running_K.double(), torch.from_numpy(batch_K), norm.momentum))
    norm.num_batches_tracked += 1
