"""The state of a training: what a checkpoint keeps of it, and its progress for display."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import msgspec
from torch import Tensor, nn

from engine.config import Monitor, Recipe
from engine.train.checkpoint import load_checkpoint, weights_for
from loaders.cautions import Caution
from loaders.errors import CheckpointError, Interrupted
from loaders.output import PhaseProgress

Ending = Literal["patience", "epochs", "zero-shot"]  # which of the recipe's settings ended a run, if any began one


@dataclass(kw_only=True, slots=True)
class State:
    """step: of the whole run.  loader: its state.  loss_sum, confusion: of the epoch under way.

    best_f1, best_score: of the best epoch: its F1, None where no finding has one; and what `--monitor` compares, larger
    is better, None in the state of a version that compared F1 alone.
    seconds: of all sessions.  rate: images a second.  finished: why the run ended; None while it goes on.
    run: whose state it is, of run_id.  amp: why it began in its precision; None where no state tells.
    """

    conversion_id: str
    step: int = 0
    loader: dict[str, Any] = field(default_factory=dict)
    loss_sum: float = 0.0
    confusion: list[list[int]] = field(default_factory=list)
    best_f1: float | None = -1.0
    best_epoch: int = 0
    seconds: float = 0.0
    rate: float = 0.0
    finished: Ending | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    run: str = ""
    best_score: float | None = None
    amp: Caution | None = None

    def idle(self) -> int:
        """Epochs since the best that count towards patience: those whose predictions discriminate between classes.

        On small sets batch norm's running statistics lag the weights for the first dozens of steps, and validation
        predicts the same class for every image: that is no sign that training has stopped improving.
        """
        return sum(map(discriminates, self.history[self.best_epoch :]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a training is, for showing.  done, total: samples of this epoch and phase.  state: as it is by then.

    monitor: what decides which epoch is the best, as the labels of validation allow.
    """

    phase: str
    done: int
    total: int
    loss: float
    seconds_left: float | None
    recipe: Recipe
    state: State
    monitor: Monitor = "f1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """Who follows trainings.  begin: called with the name of each of several, before it.  show: after each step.

    note: called with what must be known before long work begins.
    phases: the progress of what is not training.  stopping: asked after every step.
    """

    begin: Callable[[str], object] = lambda name: None
    show: Callable[[Progress], object] = lambda progress: None
    note: Callable[[str], object] = lambda text: None
    phases: PhaseProgress = lambda phase, done, total: None
    stopping: Callable[[], bool] = lambda: False

    def check_stop(self) -> None:
        """Errors: Interrupted when a stop was requested."""
        if self.stopping():
            raise Interrupted("interrupted; the same command goes on from there")


UNWATCHED = Watch()


def discriminates(row: dict[str, Any]) -> bool:
    """Whether an epoch's predictions beat one class for all: Youden's index is above 0, or undefined."""
    sensitivity, specificity = row["val_sensitivity"], row["val_specificity"]
    return sensitivity is None or specificity is None or sensitivity + specificity > 1 + 1e-9


def load_state(path: Path) -> tuple[dict[str, Tensor], State]:
    """Read the state of a run, and its tensors.  Errors: CheckpointError for a damaged one, or no state."""
    known = [item.name for item in fields(State)]
    tensors, content = load_checkpoint(path, needed=set(known) - {"best_score", "amp"})
    if unknown := sorted(set(content) - set(known)):
        raise CheckpointError(
            f"{path}: found {', '.join(unknown)}, expected {', '.join(known)}; resume with the version that wrote it"
        )
    try:
        state = msgspec.convert(content, State)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{path}: {error}, expected a state; resume with the version that wrote it") from error
    if state.best_epoch and state.best_score is None:
        state.best_score = state.best_f1
    return tensors, state


def check_run(path: Path, found: str, run: str) -> None:
    """Errors: CheckpointError for a file of a run that is not this one."""
    if found != run:
        raise CheckpointError(
            f"{path}: of run {found}, expected {run}, as its conversion and the settings in config.json make it; "
            "bring the run's own files back, or train anew"
        )


def settle_best(state: State, path: Path, network: nn.Module) -> None:
    """Check that the best weights are those that the state names.

    Weights of a later epoch are accepted: the run was killed after it had saved them, and before it saved its state.
    They are the best from now on; when their epoch is trained again, only better ones replace them.
    Errors: CheckpointError when the weights are missing, damaged, or another run's, network's or epoch's.
    """
    if not state.best_epoch and not path.exists():
        return
    tensors, found = load_checkpoint(path, needed=("epoch", "validation", "run"))
    weights_for(network, tensors)
    check_run(path, found["run"], state.run)
    if found["epoch"] > len(state.history):
        state.best_epoch, state.best_f1 = found["epoch"], found["validation"]["f1"]
        state.best_score = found["validation"].get("score", state.best_f1)
    elif found["epoch"] != state.best_epoch:
        raise CheckpointError(
            f"{path}: of epoch {found['epoch']}, expected {state.best_epoch}, the best one; bring the right file back, "
            "or train anew"
        )
