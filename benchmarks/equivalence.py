"""`make bench-equivalence`: whether the engine learns as well in bfloat16 as in float32, and as plain eager PyTorch.

Each way trains on the same phantoms, from the same first weights, with the same batches and dropout seeds, on the same
schedule, once a seed. Rounding makes them part ways, so that only results can be compared: the held-out ROC-AUC of the
epoch with the best validation F1, and that F1, paired by seed. Exits with 1 unless the 90 % interval of Student's t
for the AUC of bfloat16 less that of float32 lies within 1.5 points. Each training is stored with its commit when it is
done, and not repeated while the settings are the same: delete the file to begin anew.
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
from typing import Any, Literal, Self

import numpy as np
import torch
from scipy.special import softmax
from scipy.stats import t as student  # type: ignore[import-untyped]
from torch import nn

from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from engine.config import Switch
from engine.device import Policy, choose_policy
from engine.networks.cnn import Cnn
from engine.statistics.metrics import all_metrics
from engine.train.step import Step, make_learner, predict, train_step
from loaders.atomic_file import publish_bytes
from loaders.batches.loader import Loader
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.phantom.phantom import write_phantoms
from loaders.sampling import DROPOUT, scalar_seed
from tests.naive import Plain

CROP = 64
TRAINING, VALIDATION, HELD_OUT = 2000, 400, 2000  # images, one a patient
STRENGTH = 0.25  # of the finding, so that F1 ends between 0.85 and 0.95
PATIENCE, MIN_DELTA = 7, 0.001
Way = Literal["bfloat16", "float32", "plain"]
WAYS: tuple[Way, ...] = ("bfloat16", "float32", "plain")  # the engine in either precision; the recipe in plain PyTorch
PAIRS: tuple[tuple[Way, Way], ...] = (("bfloat16", "float32"), ("float32", "plain"), ("bfloat16", "plain"))
CLOSE, LEVEL = 0.015, 0.90  # of the first pair's AUC: the interval, and its level
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
    amp: whether the engine trains and validates in bfloat16, as `train --amp on` does.
    """

    def __init__(self, folder: Path, config: LoaderConfig, *, stock: bool = False, amp: Switch = "off") -> None:
        self._stack = ExitStack()
        self.loader = self._stack.enter_context(Loader(folder / "train.beton", config, tensors=True, training=True))
        self.val_loader = self._stack.enter_context(Loader(folder / "val.beton", config, tensors=True, training=False))
        facts = self.loader.beton.facts
        self.positive = facts.classes.index(facts.positive)
        self.policy = choose_policy("cpu", amp, "off", num_steps=0)
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
        return self.metrics(self.val_loader, self.policy)["f1"]

    def metrics(self, loader: Loader, policy: Policy) -> dict[str, float]:
        """F1 and AUC of the network as it is."""
        label_N, logits_NK = predict(self.network, loader, policy)
        found = all_metrics(label_N, softmax(logits_NK.astype(np.float64), axis=1), self.positive)
        return {name: float(found[name]) for name in ("f1", "auc")}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()


def draw(folder: Path, crop: int, strength: float, training: int, validation: int, held_out: int) -> Path:
    """Phantoms as betons, so many images a split, unless they are there; gives their folder.

    strength: of the finding.
    """
    patients = training + validation + held_out
    name = f"{training}-{validation}-{held_out}-{strength}-{crop}"
    betons = folder / f"betons-{name}"
    if not (betons / "convert.csv").exists():  # which a conversion writes last
        manifest = write_phantoms(
            PhantomConfig(
                out=folder / f"phantoms-{name}", patients=patients, images_per_patient=1, size=96, strength=strength
            )
        )
        settings = {"size": crop, "val": validation / (training + validation), "holdout": held_out / patients}
        catalog = CatalogConfig(manifest=manifest)
        convert(ConvertConfig(catalog=catalog, out=betons, site_key=folder / "site.key", **settings))  # type: ignore[arg-type]
    return betons


def trained(folder: Path, seed: int, way: Way, epochs: int) -> dict[str, Any]:
    """One training: its best validation F1, the held-out AUC of that epoch's weights, its epochs and seconds."""
    started, best, best_epoch, weights = time.perf_counter(), -1.0, 0, {}
    config, amp = LoaderConfig(training=True, seed=seed), "on" if way == "bfloat16" else "off"
    with BareTraining(folder, config, stock=way == "plain", amp=amp) as training:  # type: ignore[arg-type]
        for epoch in range(epochs):
            found = training.epoch()
            if found > best + MIN_DELTA:
                best, best_epoch = found, epoch
                weights = {name: value.clone() for name, value in training.network.state_dict().items()}
            if epoch - best_epoch >= PATIENCE:
                break
        training.network.load_state_dict(weights)
        with Loader(folder / "heldout.beton", config, tensors=True, training=False) as held_out:
            auc = training.metrics(held_out, choose_policy("cpu", "off", "off", 0))["auc"]  # as `evaluate` does
    return {"f1": best, "auc": auc, "epochs": epoch + 1, "seconds": round(time.perf_counter() - started, 1)}


def student_interval(differences: list[float], level: float = 0.95) -> tuple[float, float, float]:
    """Mean of paired differences, and the ends of its interval of Student's t."""
    mean, number = statistics.mean(differences), len(differences)
    half = float(student.ppf(0.5 + level / 2, number - 1)) * statistics.stdev(differences) / number**0.5
    return mean, mean - half, mean + half


def differences(runs: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each pair of ways by AUC and F1: mean difference and its interval, over the seeds that both have.

    runs: way → seed → what `trained` gives.
    """
    rows = []
    for one, other in PAIRS:
        seeds = [seed for seed in runs.get(one, {}) if seed in runs.get(other, {})]
        for metric in ("auc", "f1") if len(seeds) > 1 else ():
            paired = [runs[one][seed][metric] - runs[other][seed][metric] for seed in seeds]
            mean, low, high = student_interval(paired, LEVEL)
            rows.append({"ways": [one, other], "metric": metric, "seeds": len(seeds), "mean": mean,
                         "low": low, "high": high})  # fmt: skip
    return rows


def missed(found: dict[str, Any]) -> list[str]:
    """What was to be shown, and was not.  found: the stored record."""
    first = [row for row in found["differences"] if row["metric"] == "auc" and row["ways"] == list(PAIRS[0])]
    seeds, asked = min((row["seeds"] for row in first), default=0), found["settings"]["seeds"]
    lacking = [] if seeds >= asked else [f"{seeds} of {asked} seeds of {' and '.join(PAIRS[0])}"]
    lacking += [
        f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f} points of AUC, expected within ±{100 * CLOSE}"
        for row in first
        if not -CLOSE <= row["low"] <= row["high"] <= CLOSE
    ]
    means = {
        way: statistics.mean(one["f1"] for one in runs.values()) for way, runs in found["trainings"].items() if runs
    }
    lacking += [
        f"mean best F1 of {way} {f1:.3f}, expected {MEANINGFUL[0]} to {MEANINGFUL[1]}: the phantoms are too easy or "
        "too hard to compare"
        for way, f1 in means.items()
        if not MEANINGFUL[0] <= f1 <= MEANINGFUL[1]
    ]
    return lacking


def record_at(out: Path, settings: dict[str, Any], facts: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """The record to go on with: what is stored, if it is of these settings; else a new one.

    facts: of this session; each training has its own.  names: of what trainings are stored by, each by seed.
    """
    stored = json.loads(out.read_text()) if out.exists() else {}
    if stored.get("settings") == settings:
        return stored | {"provenance": facts}
    return {
        "provenance": facts, "settings": settings, "trainings": {name: {} for name in names}, "differences": []
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equivalence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=30, help="most epochs; default: %(default)s")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="what to train; default: all")
    parser.add_argument("--out", type=Path, default=RESULTS / "equivalence.json", help="default: %(default)s")
    parser.add_argument("--work", type=Path, help="folder of the phantoms, kept; default: a temporary one")
    chosen = parser.parse_args(arguments)
    facts = provenance()
    print(describe(facts))
    settings = {"crop": CROP, "training": TRAINING, "validation": VALIDATION, "held_out": HELD_OUT,
                "strength": STRENGTH, "epochs": chosen.epochs, "level": LEVEL, "seeds": chosen.seeds}  # fmt: skip
    record = record_at(chosen.out, settings, facts, WAYS)
    chosen.out.parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        work = chosen.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        betons = draw(work, CROP, STRENGTH, TRAINING, VALIDATION, HELD_OUT)
        for seed in range(chosen.seeds):
            for way in chosen.ways:
                if str(seed) not in record["trainings"][way]:
                    found = trained(betons, seed, way, chosen.epochs) | {key: facts[key] for key in ("commit", "cpu")}
                    record["trainings"][way][str(seed)] = found
                    record["differences"] = differences(record["trainings"])
                    publish_bytes(chosen.out, json.dumps(record, indent=1).encode() + b"\n")
                    print(f"seed {seed}, {way}: {found}", flush=True)
    for row in record["differences"]:
        print(f"{' less '.join(row['ways'])}, {row['metric']}: {points(row)}, {row['seeds']} seeds")
    print("\n".join(lacking := missed(record)) or "as expected")
    return int(bool(lacking))


def points(row: dict[str, Any]) -> str:
    """A mean difference with its interval, in points."""
    mean, low, high = (100 * row[key] for key in ("mean", "low", "high"))
    return f"{mean:+.2f} points ({low:+.2f} to {high:+.2f})"


if __name__ == "__main__":
    sys.exit(main())
