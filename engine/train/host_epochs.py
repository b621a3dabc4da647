"""Epochs with batches made on the host: each step is waited for, and counted at once."""

# N samples of a batch, K classes, M samples of the validation set

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np

from engine.statistics.metrics import confusion_matrix
from engine.train.state import State
from engine.train.step import Learner, predict, train_step
from loaders.batches.loader import Loader
from loaders.cautions import Caution


class HostEpochs:
    """The training and validation of epochs by `train_step` and `predict`."""

    def __init__(self, learner: Learner, loader: Loader, val_loader: Loader) -> None:
        self.learner, self.loader, self.val_loader = learner, loader, val_loader

    def train(self, state: State) -> Iterator[float]:
        """The rest of the loader's epoch.  Gives the mean loss after each step; the state is exact then.

        Errors: DivergedError for a loss or gradient that is not finite.
        """
        num_classes = len(self.loader.beton.facts.classes)
        with contextlib.closing(iter(self.loader)) as batches:  # type: ignore[type-var]
            for frames_N1HW, labels_N, _ in batches:
                loss, logits_NK = train_step(
                    self.learner, frames_N1HW, labels_N, seed=self.loader.config.seed, step=state.step
                )
                state.step += 1
                state.loss_sum += loss * len(labels_N)
                confusion_KK = confusion_matrix(labels_N.numpy(), logits_NK.argmax(1).numpy(), num_classes)
                state.confusion = (np.array(state.confusion) + confusion_KK).tolist()
                state.loader = self.loader.state_dict()
                yield state.loss_sum / self.loader.position

    def renew(self) -> None:
        """Learn other weights from now on: nothing was prepared for the ones before."""

    def cautions(self) -> list[Caution]:
        """What could not run as planned: nothing can fail to."""
        return []

    def validate(self, progress: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64 (M,) and logits float32 (M, K) of the validation set.  Errors: DivergedError."""
        return predict(self.learner.network, self.val_loader, self.learner.policy, progress)
