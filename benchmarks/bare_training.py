"""A bare training: the engine's loader, step and validation, and nothing that is kept."""

# N samples, K classes

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch

from engine.device import choose_policy
from engine.networks.cnn import Cnn
from engine.statistics.metrics import all_metrics
from engine.train.step import make_learner, predict, softmax, train_step
from loaders.batches.loader import Loader
from loaders.config import LoaderConfig


class BareTraining:
    """A network and two loaders.  Owns the betons' maps; close it, or use `with`."""

    def __init__(
        self, folder: Path, config: LoaderConfig, *, dropout: float = 0.5, learning_rate: float = 1e-3
    ) -> None:
        self._stack = ExitStack()
        self.loader = self._stack.enter_context(Loader(folder / "train.beton", config, tensors=True, training=True))
        self.val_loader = self._stack.enter_context(Loader(folder / "val.beton", config, tensors=True, training=False))
        facts = self.loader.beton.facts
        self.positive = facts.classes.index(facts.positive)
        self.policy = choose_policy("cpu", "off", "off", num_steps=0)
        torch.manual_seed(config.seed)
        self.network = Cnn(len(facts.classes), facts.crop, dropout)
        self.learner = make_learner(
            self.network, self.policy, learning_rate=learning_rate, batch_size=config.batch_size, class_weight_K=None
        )
        self.steps = 0

    def epoch(self) -> float:
        """Every training batch, then validation; gives its F1."""
        for frames_N1HW, labels_N, _ in self.loader:
            train_step(self.learner, frames_N1HW, labels_N, seed=self.loader.config.seed, step=self.steps)
            self.steps += 1
        label_N, logits_NK = predict(self.network, self.val_loader, self.policy)
        return all_metrics(label_N, softmax(logits_NK), self.positive)["f1"]

    def close(self) -> None:
        """Give the maps back."""
        self._stack.close()

    def __enter__(self) -> BareTraining:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
