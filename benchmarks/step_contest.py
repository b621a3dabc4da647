"""The contest of the training step with stock PyTorch: the same network, weights and batches, crops of 64."""

# N batch, H W rows and columns of the crop

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import nn

from benchmarks.agreement import expect_close
from benchmarks.contest import Contest
from benchmarks.settings import BATCH, THREADS
from benchmarks.targets import STEP
from engine.device import Policy, choose_device, choose_policy
from engine.networks.cnn import Cnn
from engine.train.step import Learner, make_learner, train_step
from loaders.batches.loader import Loader
from loaders.sampling import DROPOUT, scalar_seed
from tests.plain import Plain

LEARNING_RATE = 1e-3
DROPPED = 0.5
SEED = 0
NUM_CHECKED = 3  # steps; rounding then grows, because Adam makes much of gradients that are nearly nothing


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


def learner_of(network: Cnn, policy: Policy) -> Learner:
    return make_learner(network, policy, learning_rate=LEARNING_RATE, batch_size=BATCH, class_weight_K=None)


@contextmanager
def step_contest(path: Path) -> Iterator[Contest]:
    """Whole epochs, loader and step."""
    policy = choose_policy("auto", "off", "off", num_steps=0)  # equal precision, so that outputs compare
    options = {"training": True, "threads": THREADS, "batch_size": BATCH, "seed": SEED, "tensors": True}
    with Loader(path, **options) as loader, Loader(path, **options) as stock_loader:
        crop = loader.beton.facts.crop
        torch.manual_seed(SEED)
        network = Cnn(2, crop, DROPPED)
        device = choose_device("auto")

        def check() -> None:
            learner, stock = learner_of(copy.deepcopy(network), policy), Stock(network, crop, device)
            ours, theirs = [], []
            for step, (frames_N1HW, labels_N, _) in enumerate(islice(loader, NUM_CHECKED)):
                ours.append(train_step(learner, frames_N1HW, labels_N, seed=SEED, step=step)[0])
                torch.manual_seed(scalar_seed(SEED, DROPOUT, step))  # the same units drop out
                theirs.append(stock.step(frames_N1HW, labels_N))
            expect_close("the first loss", theirs[:1], ours[:1], mean=1e-4)
            expect_close(f"{NUM_CHECKED} losses", theirs, ours, mean=1e-2)
            loader.set_epoch(0)

        learner, stock = learner_of(copy.deepcopy(network), policy), Stock(network, crop, device)
        steps = 0

        def our_epoch() -> None:
            nonlocal steps
            for frames_N1HW, labels_N, _ in loader:
                train_step(learner, frames_N1HW, labels_N, seed=SEED, step=steps)
                steps += 1

        def stock_epoch() -> None:
            for frames_N1HW, labels_N, _ in stock_loader:
                stock.step(frames_N1HW, labels_N)

        yield Contest(
            what=STEP,
            amount=len(loader.beton),
            rivals={"plainfilm": our_epoch, "stock PyTorch, NCHW": stock_epoch},
            check=check,
        )
