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

    def idle(self) -> int:
        """Epochs since the best that count towards patience: those whose predictions told the classes apart at all.

        On small sets batch norm's running statistics lag the weights for the first dozens of steps, and validation gets
        one and the same answer for every image: that is no sign that nothing better will come.
        """
        return sum(map(tells_apart, self.history[self.best_epoch :]))


def tells_apart(row: dict[str, Any]) -> bool:
    """Whether an epoch's predictions did better than one answer for all: Youden's index is above 0, or undefined."""
    sensitivity, specificity = row["val_sensitivity"], row["val_specificity"]
    return sensitivity is None or specificity is None or sensitivity + specificity > 1 + 1e-9
