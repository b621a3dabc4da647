"""A bare training, of which nothing is kept: the engine's loader, step and validation, or stock PyTorch's step."""

# N samples, H W rows and columns of the crop, K classes

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import torch
from torch import nn

from engine.device import choose_policy
from engine.networks.cnn import Cnn
from engine.statistics.metrics import all_metrics
from engine.train.step import make_learner, predict, softmax, train_step
from loaders.batches.loader import Loader
from loaders.config import LoaderConfig
from loaders.sampling import DROPOUT, scalar_seed
from tests.plain import Plain

LEARNING_RATE = 1e-3
DROPPED = 0.5


class Stock:
    """The recipe as one writes it in PyTorch: NCHW, eager, convolutions with a bias, pooling after the ReLU."""

    def __init__(self, ours: Cnn, crop: int, device: torch.device) -> None:
        self.network = Plain(2, crop, DROPPED)
        self.network.load_state_dict(ours.state_dict(), strict=False)  # ours has no biases before a batch norm
        self.device = device
        self.network.to(device).train()
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=LEARNING_RATE)
        self.loss = nn.CrossEntropyLoss()

    def step(self, frames_N1HW: torch.Tensor, labels_N: torch.Tensor) -> float:
        """One step of Adam; gives the loss."""
        frames_N1HW, labels_N = frames_N1HW.to(self.device), labels_N.to(self.device)
        self.optimiser.zero_grad()
        loss = self.loss(self.network(frames_N1HW), labels_N)
        loss.backward()
        self.optimiser.step()
        return loss.item()


class BareTraining:
    """A network and two loaders.  Owns the betons' maps; close it, or use `with`.

    stock: train with PyTorch's step, from the same first weights, with the same batches and dropout seeds.
    """

    def __init__(self, folder: Path, config: LoaderConfig, *, stock: bool = False) -> None:
        self._stack = ExitStack()
        self.loader = self._stack.enter_context(Loader(folder / "train.beton", config, tensors=True, training=True))
        self.val_loader = self._stack.enter_context(Loader(folder / "val.beton", config, tensors=True, training=False))
        facts = self.loader.beton.facts
        self.positive = facts.classes.index(facts.positive)
        self.policy = choose_policy("cpu", "off", "off", num_steps=0)
        torch.manual_seed(config.seed)
        network = Cnn(len(facts.classes), facts.crop, DROPPED)
        self.stock = Stock(network, facts.crop, self.policy.device) if stock else None
        self.network = self.stock.network if self.stock else network
        self.learner = make_learner(
            network, self.policy, learning_rate=LEARNING_RATE, batch_size=config.batch_size, class_weight_K=None
        )
        self.steps = 0

    def epoch(self) -> float:
        """Every training batch, then validation; gives its F1."""
        seed = self.loader.config.seed
        self.network.train()
        for frames_N1HW, labels_N, _ in self.loader:
            if self.stock:
                torch.manual_seed(scalar_seed(seed, DROPOUT, self.steps))
                self.stock.step(frames_N1HW, labels_N)
            else:
                train_step(self.learner, frames_N1HW, labels_N, seed=seed, step=self.steps)
            self.steps += 1
        label_N, logits_NK = predict(self.network, self.val_loader, self.policy)
        return float(all_metrics(label_N, softmax(logits_NK), self.positive)["f1"])

    def __enter__(self) -> BareTraining:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
