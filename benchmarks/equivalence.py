"""`make bench-equivalence`: whether the engine learns as well as the plain recipe in eager PyTorch.

Both train on the same phantoms, from the same first weights, with the same batches and dropout seeds, to the end of
the same schedule, once a seed. Rounding then makes them part ways, so that only the best validation F1 can be compared:
paired by seed, its mean difference with a 95 % interval of Student's t. Exits with 1 unless that lies within one point.
"""

# N samples, H W rows and columns of the crop, K classes

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import t as student  # type: ignore[import-untyped]
from torch import nn

from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from engine.device import choose_policy
from engine.networks.cnn import Cnn
from engine.statistics.metrics import all_metrics
from engine.train.step import Step, make_learner, predict, train_step
from loaders.batches.loader import Loader
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.phantom.phantom import write_phantoms
from loaders.sampling import DROPOUT, scalar_seed
from tests.naive import Plain

CROP = 32
PATIENTS = 2500
VALIDATION = 0.8  # 2,000 images
STRENGTH = 0.4  # of the finding, so that F1 ends between 0.85 and 0.95
PATIENCE, MIN_DELTA = 7, 0.001
POINT = 0.01
MEANINGFUL = (0.85, 0.95)  # mean F1: else neither has learnt, or both have learnt all there is
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
        learner = make_learner(
            network, self.policy, learning_rate=LEARNING_RATE, batch_size=config.batch_size, class_weight_K=None
        )
        self.step, self.steps = Step(learner, len(facts.classes)), 0

    def epoch(self) -> float:
        """Every training batch, then validation; gives its F1."""
        seed = self.loader.config.seed
        self.network.train()
        for frames_N1HW, labels_N, _ in self.loader:
            if self.stock:
                torch.manual_seed(scalar_seed(seed, DROPOUT, self.steps))
                self.stock.step(frames_N1HW, labels_N)
            else:
                train_step(self.step, frames_N1HW, labels_N, seed=seed, number=self.steps)
            self.steps += 1
        label_N, logits_NK = predict(self.network, self.val_loader, self.policy)
        return float(all_metrics(label_N, softmax(logits_NK.astype(np.float64), axis=1), self.positive)["f1"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def draw(folder: Path) -> Path:
    """Phantoms as betons; gives their folder."""
    manifest = write_phantoms(
        PhantomConfig(out=folder / "phantoms", patients=PATIENTS, images_per_patient=1, size=64, strength=STRENGTH)
    )
    config = ConvertConfig(
        catalog=CatalogConfig(manifest=manifest),
        out=folder / "betons",
        size=CROP,
        val=VALIDATION,
        site_key=folder / "site.key",
    )
    convert(config)
    return folder / "betons"


def best_f1(folder: Path, seed: int, epochs: int, *, stock: bool) -> float:
    """The best validation F1 of one training to the end of the schedule.  stock: with PyTorch's step."""
    best, best_epoch = -1.0, 0
    with BareTraining(folder, LoaderConfig(training=True, seed=seed), stock=stock) as training:
        for epoch in range(epochs):
            found = training.epoch()
            if found > best + MIN_DELTA:
                best, best_epoch = found, epoch
            if epoch - best_epoch >= PATIENCE:
                break
    return best


def student_interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean of paired differences, and the ends of its 95 % interval of Student's t."""
    mean, number = statistics.mean(differences), len(differences)
    half = float(student.ppf(0.975, number - 1)) * statistics.stdev(differences) / number**0.5
    return mean, mean - half, mean + half


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equivalence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=30, help="most epochs; default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "equivalence.json", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    facts = provenance()
    print(describe(facts))
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        betons = draw(Path(folder))
        for seed in range(chosen.seeds):
            before = time.perf_counter()
            ours, theirs = (best_f1(betons, seed, chosen.epochs, stock=stock) for stock in (False, True))
            pairs.append((ours, theirs))
            taken = time.perf_counter() - before
            print(f"seed {seed}: plainfilm {ours:.4f}, plain recipe {theirs:.4f} ({taken:.0f} s)", flush=True)
    mean, low, high = student_interval([ours - theirs for ours, theirs in pairs])
    ours_mean, theirs_mean = np.mean(pairs, axis=0).tolist()
    within = low >= -POINT and high <= POINT
    meaningful = all(MEANINGFUL[0] <= f1 <= MEANINGFUL[1] for f1 in (ours_mean, theirs_mean))
    if not meaningful:
        print(f"best F1 outside {MEANINGFUL[0]} to {MEANINGFUL[1]}: the phantoms are too easy or too hard to compare")
    print(
        f"best validation F1: plainfilm {ours_mean:.4f}, plain recipe {theirs_mean:.4f}; difference {mean:+.4f}, "
        f"95 % interval {low:+.4f} to {high:+.4f}: {'within' if within else 'not within'} one point"
    )
    record = {
        "provenance": facts,
        "settings": {"crop": CROP, "patients": PATIENTS, "strength": STRENGTH, "epochs": chosen.epochs},
        "pairs": pairs,
        "difference": {"mean": mean, "low": low, "high": high, "within_one_point": within, "meaningful": meaningful},
    }
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(record, indent=1) + "\n")
    return int(not (within and meaningful))


if __name__ == "__main__":
    sys.exit(main())
