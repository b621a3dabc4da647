"""Validation scores: what the best epoch said of the validation set, kept beside its weights to choose thresholds."""

# N samples, K classes

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from loaders.beton.reader import Beton
from loaders.errors import CheckpointError

LOGITS, LABEL, GROUP = "validation.logits", "validation.label", "validation.group"


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationScores:
    """Labels int64 (N,), logits float32 (N, K) and groups int64 (N,) of the validation set at the best epoch."""

    label_N: np.ndarray
    logits_NK: np.ndarray
    group_N: np.ndarray


def groups_of(beton: Beton) -> np.ndarray:
    """The group of each sample, int64 (N,); in an unverified beton, which tells none, each sample is its own."""
    return beton.rows_N["group"].astype(np.int64) if beton.verified else np.arange(len(beton))


def validation_tensors(
    label_N: np.ndarray, logits_NK: np.ndarray, beton: Beton, order_N: np.ndarray
) -> dict[str, torch.Tensor]:
    """The scores as tensors of a checkpoint, copied.  order_N: the samples' places in the beton."""
    return {
        LOGITS: torch.tensor(logits_NK, dtype=torch.float32),
        LABEL: torch.tensor(label_N, dtype=torch.int64),
        GROUP: torch.tensor(groups_of(beton)[order_N], dtype=torch.int64),
    }


def validation_scores(tensors: Mapping[str, torch.Tensor], path: Path) -> ValidationScores:
    """The scores that a checkpoint holds.  path: of its file.  Errors: CheckpointError for one without them."""
    if not {LOGITS, LABEL, GROUP} <= tensors.keys():
        raise CheckpointError(f"{path}: no validation scores, expected those of the best epoch; train again")
    return ValidationScores(
        label_N=tensors[LABEL].numpy(), logits_NK=tensors[LOGITS].numpy(), group_N=tensors[GROUP].numpy()
    )
