"""The state of a training: everything beyond tensors that a resumed run needs; kept as JSON beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True)
class State:
    """step: of the whole run.  loader: its state.  loss_sum, confusion: of the epoch under way.

    seconds: of all sessions.  rate: images a second.  finished: why the run ended; "" while it goes on.
    """

    conversion_id: str
    step: int = 0
    loader: dict[str, Any] = field(default_factory=dict)
    loss_sum: float = 0.0
    confusion: list[list[int]] = field(default_factory=list)
    best_f1: float = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    finished: str = ""
    history: list[dict[str, Any]] = field(default_factory=list)
