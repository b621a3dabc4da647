"""The decision rule of a run: its temperature and operating points, chosen on validation and never on another set."""

# N samples, K classes, H W rows and columns of the crop, B bytes of stored frames

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from engine.device import Policy
from engine.networks.registry import network_of
from engine.statistics.calibration import TEMPERATURES, fit_temperature
from engine.statistics.thresholds import OperatingPoint, choose_operating_points
from engine.train.checkpoint import ValidationScores, file_hash, load_checkpoint, load_network, validation_scores
from engine.train.leakage import RECORD, load_record
from engine.train.run_folder import BEST
from engine.train.step import predict_batch, to_device
from kernels.crops import crop_into
from loaders.cautions import Caution, caution
from loaders.errors import CheckpointError, ConfigError
from loaders.records import Count, Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """What validation settled.  temperature: by which logits are divided.

    points: thresholds of the calibrated probability of the positive class, against all others for three classes.
    """

    temperature: float
    points: tuple[OperatingPoint, ...]

    def cautions(self) -> list[Caution]:
        """What limits probabilities and thresholds of this rule."""
        at_bound = self.temperature in TEMPERATURES
        return [caution("temperature-at-bound", temperature=self.temperature)] if at_bound else []

    def probabilities(self, logits_NK: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64 (N, K)."""
        return softmax(logits_NK.astype(np.float64) / self.temperature, axis=1)


def decide(scores: ValidationScores, positive: int) -> Decision:
    """The decision rule that the validation scores of a checkpoint give."""
    uncut = Decision(temperature=fit_temperature(scores.logits_NK, scores.label_N), points=())
    score_N = uncut.probabilities(scores.logits_NK)[:, positive]
    return replace(uncut, points=choose_operating_points(scores.label_N == positive, score_N))


class Checkpoint(Record, frozen=True, kw_only=True):
    """Which weights a result is of."""

    sha256: str
    epoch: Count
    conversion_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """The best checkpoint of a run, read once.  network: on the host, in evaluation mode.  state: the facts in it."""

    run: Path
    network: nn.Module
    state: dict[str, Any]
    decision: Decision
    sha256: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the outputs."""
        return tuple(self.state["classes"])

    @property
    def checkpoint(self) -> Checkpoint:
        """Which weights these are."""
        return Checkpoint(sha256=self.sha256, epoch=self.state["epoch"], conversion_id=self.state["conversion_id"])

    @torch.inference_mode()
    def probabilities(self, frames_B: np.ndarray, offset_N: np.ndarray, policy: Policy) -> np.ndarray:
        """Calibrated probabilities, float64 (N, K), of stored frames; the network is on the policy's device.

        frames_B: uint8, bytes that the frames lie in.  offset_N: where each begins.
        Errors: CheckpointError for outputs that are not finite.
        """
        crop, stored = self.state["crop"], self.state["stored"]
        crops_N1HW = np.empty((len(offset_N), 1, crop, crop), np.float32)
        crop_into(crops_N1HW, frames_B, offset_N, stored)
        logits_NK = predict_batch(self.network, to_device(torch.from_numpy(crops_N1HW), policy), policy).cpu().numpy()
        if not np.isfinite(logits_NK).all():
            raise CheckpointError(
                f"{self.run}: the network's outputs are not finite, expected finite numbers; train it again"
            )
        return self.decision.probabilities(logits_NK)


def load_trained(run: Path) -> Trained:
    """Read a run's best weights.

    Errors: ConfigError for no folder; CheckpointError for none, damaged ones, or those of another run than the folder.
    """
    if not run.is_dir():
        raise ConfigError(f"{run}: not a folder, expected a run folder of `train`; check the path")
    checkpoint = run / BEST
    sha256 = file_hash(checkpoint)
    needed = ("classes", "positive", "crop", "stored", "fit", "dropout", "conversion_id", "run", "epoch")
    tensors, state = load_checkpoint(checkpoint, needed)
    if file_hash(checkpoint) != sha256:
        raise CheckpointError(f"{checkpoint}: replaced while being read, expected it to stay; try again")
    if (run / RECORD).exists():
        load_record(run, state["run"])
    network = network_of(state)
    load_network(network, tensors)
    decision = decide(validation_scores(tensors, checkpoint), state["classes"].index(state["positive"]))
    return Trained(run=run, network=network.eval(), state=state, decision=decision, sha256=sha256)
