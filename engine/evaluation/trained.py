"""A trained run: its best weights in their network, and what validation settled for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from engine.checkpoint import file_hash, load_checkpoint, load_network
from engine.evaluation.decision import Decision, decide
from engine.networks import network_of
from engine.run_folder import BEST
from engine.seen import SEEN, load_seen
from loaders.errors import CheckpointError, ConfigError

NEEDED = ("classes", "positive", "crop", "stored", "fit", "dropout", "conversion_id", "epoch")  # of the weights' state


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """The best checkpoint of a run, read once.  network: on the host, in evaluation mode.  state: what it says."""

    run: Path
    network: nn.Module
    state: dict[str, Any]
    decision: Decision
    sha256: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return tuple(self.state["classes"])


def load_trained(run: Path) -> Trained:
    """Read a run's best weights.

    Errors: ConfigError for no folder; CheckpointError for none, damaged ones, or another run's than the folder is of.
    """
    if not run.is_dir():
        raise ConfigError(f"{run}: not a folder, expected a run folder of `train`; check the path")
    checkpoint = run / BEST
    sha256 = file_hash(checkpoint)
    tensors, state = load_checkpoint(checkpoint, NEEDED)
    if file_hash(checkpoint) != sha256:
        raise CheckpointError(f"{checkpoint}: replaced while being read, expected it to stay; try again")
    if (run / SEEN).exists():
        load_seen(run, state["conversion_id"], state.get("run"))
    network = network_of(state)
    load_network(network, tensors)
    decision = decide(tensors, state["classes"].index(state["positive"]))
    return Trained(run=run, network=network.eval(), state=state, decision=decision, sha256=sha256)
