"""The progress of a training, as those see it who watch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a training is, for showing.  done, total: samples of this epoch and phase."""

    phase: str
    epoch: int
    epochs: int
    done: int
    total: int
    loss: float
    images_per_second: float
    seconds_left: float | None
    patience_left: int
    best_f1: float
    best_epoch: int
    history: list[dict[str, Any]]


Watch = Callable[[Progress], None]
