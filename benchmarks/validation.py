"""`make bench-validation`: which network should validate and be kept: as it trains, recomputed, or averaged.

Training does not depend on it, so that each training is validated in all three ways after every epoch. Each way keeps
its best weights and stops early by the recipe, as if it were alone; the training ends when all have stopped. Measured:
the mean jump of validation F1 from one epoch to the next, after the third, over all epochs trained; the best F1;
ROC-AUC and F1 of the weights kept on films held out; and what a way costs, in processor time, as a share of an epoch.
On phantoms, one set for all seeds, and on the radiographs of patients, each seed another fold by groups. Differences
from `running` are paired by seed. Each training is stored with its commit when it is done, and not repeated while the
settings are the same: delete the file to begin anew. Exits with 1 while trainings are lacking, and with 2 where there
are no radiographs of patients.
"""

# N samples, K classes

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor, nn

from benchmarks.datasets import data_folder
from benchmarks.equivalence import DROPPED, LEARNING_RATE, draw, points, record_at, student_interval
from benchmarks.provenance import circumstances, describe, provenance
from benchmarks.settings import RESULTS
from benchmarks.table import markdown
from engine.config import Recipe, ValidateWith
from engine.crossval.folds import BETONS, deal_folds, open_pool
from engine.device import choose_policy
from engine.networks.cnn import Cnn
from engine.statistics.metrics import all_metrics
from engine.train.epochs import HostEpochs
from engine.train.state import State
from engine.train.step import make_learner, predict
from engine.train.validated import Validated
from loaders.atomic_file import publish_bytes
from loaders.batches.loader import Loader
from loaders.beton.writer import write_subset
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig
from loaders.convert.convert import convert

WAYS: tuple[ValidateWith, ...] = get_args(ValidateWith)
SETS = ("phantoms", "films")
PHANTOM_CROP, TRAINING, VALIDATION, HELD_OUT = 64, 400, 200, 1000
STRENGTH = (
    0.4  # of the finding: at 0.25, as of bench-equivalence, 400 images teach little but to answer always the same
)
FILM_CROP, CLASSES, FOLDS = 96, ("covid", "normal", "pneumonia"), 5
SETTLED = 3  # epochs, after which jumps count
METRICS = {
    "jump": "jump of validation F1",
    "best": "best validation F1",
    "auc": "held-out ROC-AUC",
    "f1": "held-out F1",
}
LEVEL = 0.90
RECIPE = Recipe()


@dataclass(kw_only=True, slots=True)
class Kept:
    """One way during a training.  state: its history and best epoch, as `train` keeps them.  seconds: what it costs."""

    state: State = field(default_factory=lambda: State(conversion_id=""))
    weights: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def take(self, network: nn.Module, metrics: dict[str, Any]) -> None:
        """Add an epoch, and keep its weights if it is the best, unless the way has stopped before."""
        state = self.state
        row = {f"val_{name}": metrics[name] for name in ("sensitivity", "specificity")}
        state.history.append(row | {"val_f1": metrics["f1"] or 0.0})
        found = state.history[-1]["val_f1"]
        if state.finished:
            return
        if state.best_f1 is None or found > state.best_f1 + RECIPE.min_delta:
            state.best_f1, state.best_epoch = found, len(state.history)
            self.weights = {name: value.clone() for name, value in network.state_dict().items()}
        if state.idle() >= RECIPE.patience:
            state.finished = "patience"

    def jump(self) -> float:
        """The mean absolute change of validation F1 from one epoch to the next; 0 where too few were trained."""
        f1 = [row["val_f1"] for row in self.state.history[SETTLED:]]
        return float(np.abs(np.diff(f1)).mean()) if len(f1) > 1 else 0.0


def trained(folder: Path, seed: int, epochs: int) -> dict[str, Any]:
    """One training, validated in every way.  Gives way → METRICS, epochs, and cost, a share of an epoch."""
    policy, config = choose_policy("cpu", "off", "off", num_steps=0), LoaderConfig(training=True, seed=seed)
    with ExitStack() as stack:
        loader, val_loader, held_out = (
            stack.enter_context(Loader(folder / f"{name}.beton", config, tensors=True, training=name == "train"))
            for name in BETONS
        )
        facts = loader.beton.facts
        positive, num_classes = facts.classes.index(facts.positive), len(facts.classes)
        torch.manual_seed(seed)
        learner = make_learner(
            Cnn(num_classes, facts.crop, DROPPED), policy, learning_rate=LEARNING_RATE,
            batch_size=loader.config.batch_size, class_weight_K=None,
        )  # fmt: skip

        def metrics(network: nn.Module, loader: Loader) -> dict[str, Any]:
            label_N, logits_NK = predict(network, loader, policy)
            return all_metrics(label_N, softmax(logits_NK.astype(np.float64), axis=1), positive)

        running = HostEpochs(learner, loader, val_loader)
        validated = {way: Validated(learner, way, len(loader)) for way in WAYS}
        kept, state, seconds = {way: Kept() for way in WAYS}, State(conversion_id=""), 0.0
        for _ in range(epochs):
            state.loss_sum, state.confusion = 0.0, np.zeros((num_classes, num_classes), int).tolist()
            began, followed = time.process_time(), 0.0
            for _ in running.train(state):
                before = time.process_time()
                validated["averaged"].follow(running.step.stopped)
                followed += time.process_time() - before
            seconds += time.process_time() - began - followed
            kept["averaged"].seconds += followed
            for way in WAYS:
                before = time.process_time()
                validated[way].finish_epoch(running.recomputed_batches(lambda samples: None))
                kept[way].seconds += time.process_time() - before
            before = time.process_time()
            for way in WAYS:
                kept[way].take(validated[way].network, metrics(validated[way].network, val_loader))
            seconds += (time.process_time() - before) / len(WAYS)
            if all(one.state.finished for one in kept.values()):
                break
        found: dict[str, Any] = {}
        for way, one in kept.items():
            learner.network.load_state_dict(one.weights)
            away = metrics(learner.network, held_out)
            found[way] = {
                "jump": one.jump(), "best": one.state.best_f1, "auc": away["auc"], "f1": away["f1"],
                "best_epoch": one.state.best_epoch, "cost": one.seconds / seconds,
                "curve": [round(row["val_f1"], 4) for row in one.state.history],
            }  # fmt: skip
    return found


def fold_of(data: Path, folder: Path, seed: int) -> Path:
    """Write the betons of a seed's fold by groups of the radiographs of patients; gives their folder.

    Five seeds test each film once; the next five deal anew.
    """
    pooled, out = folder / f"films-{FILM_CROP}", folder / f"fold-{FILM_CROP}-{seed}"
    if not (pooled / "convert.csv").exists():
        catalog = CatalogConfig(manifest=data / "radiographs.csv", classes=CLASSES)
        convert(ConvertConfig(catalog=catalog, out=pooled, size=FILM_CROP, site_key=folder / "site.key"))
    out.mkdir(exist_ok=True)
    with ExitStack() as stack:
        pool = open_pool(pooled, stack)
        deal, number = divmod(seed, FOLDS)
        fold = deal_folds(
            pool.group_N, pool.labels, pool.facts.classes, num_folds=FOLDS, val=0.2, seed=deal, split="group",
            where=str(pooled),
        )[number]  # fmt: skip
        for name, place_N in zip(BETONS, (fold.train_N, fold.val_N, fold.test_N), strict=True):
            write_subset(pool.chosen(place_N), out / f"{name}.beton", name)
    return out


def differences(trainings: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Each way less running, by set and metric: mean difference and its interval over the seeds.

    trainings: set → seed → what `trained` gives.
    """
    rows = []
    for name, runs in trainings.items():
        for way in WAYS[1:] if len(runs) > 1 else ():
            for metric in METRICS:
                paired = [run["ways"][way][metric] - run["ways"]["running"][metric] for run in runs.values()]
                mean, low, high = student_interval(paired, LEVEL)
                rows.append({"set": name, "way": way, "metric": metric, "seeds": len(paired), "mean": mean,
                             "low": low, "high": high})  # fmt: skip
    return rows


def winners(rows: list[dict[str, Any]]) -> list[str]:
    """The ways that are better on films held out: on each set by an interval above 0, and on none by one below.

    rows: of `differences`.  Both held-out metrics count.
    """
    found = []
    for way in WAYS[1:]:
        away = [row for row in rows if row["way"] == way and row["metric"] in ("auc", "f1")]
        above = {row["set"] for row in away if row["low"] > 0}
        if above == set(SETS) and not any(row["high"] < 0 for row in away):
            found.append(way)
    return found


def validation_lines(found: dict[str, Any]) -> list[str]:
    """The ways by set: means over seeds, then differences from running with their intervals.  found: the record."""
    rows: list[tuple[str, ...]] = [
        ("trained on", "validated with", "seeds", *METRICS.values(), "best epoch", "cost, % of an epoch")
    ]
    for name, runs in found["trainings"].items():
        for way in WAYS if runs else ():
            mean = {
                key: statistics.mean(run["ways"][way][key] for run in runs.values())
                for key in (*METRICS, "best_epoch", "cost")
            }
            shown = [f"{mean[key]:.3f}" for key in METRICS]
            rows.append((name, way, str(len(runs)), *shown, f"{mean['best_epoch']:.1f}", f"{100 * mean['cost']:.1f}"))
    lines = [*markdown(rows), ""]
    rows = [("trained on", "paired difference", "of", f"{100 * LEVEL:.0f} % interval of Student's t", "seeds")]
    for row in found["differences"]:
        compared = f"{row['way']} less running"
        rows.append((row["set"], compared, METRICS[row["metric"]], points(row), str(row["seeds"])))
    where = {
        f"{run['commit'][:7]} on {run['cpu']}" for runs in found["trainings"].values() for run in runs.values()
    }  # fmt: skip
    return [*lines, *markdown(rows), "", f"Trained at {', '.join(sorted(where))}. {circumstances(found['provenance'])}"]


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs, help="most epochs; default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "validation.json", help="default: %(default)s")
    parser.add_argument("--work", type=Path, help="folder of the betons, kept; default: a temporary one")
    chosen = parser.parse_args(arguments)
    facts, data = provenance(), data_folder()
    print(describe(facts))
    settings = {
        "phantoms": [PHANTOM_CROP, STRENGTH, TRAINING, VALIDATION, HELD_OUT], "films": [FILM_CROP, *CLASSES, FOLDS],
        "epochs": chosen.epochs, "level": LEVEL, "seeds": chosen.seeds,
    }  # fmt: skip
    record = record_at(chosen.out, settings, facts, SETS)
    chosen.out.parent.mkdir(exist_ok=True)
    with ExitStack() as stack:
        work = chosen.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        for seed in range(chosen.seeds):
            for name in SETS:
                if str(seed) in record["trainings"][name] or (name == "films" and data is None):
                    continue
                began = time.perf_counter()
                if name == "phantoms":
                    betons = draw(work, PHANTOM_CROP, STRENGTH, TRAINING, VALIDATION, HELD_OUT)
                else:
                    assert data is not None
                    betons = fold_of(data, work, seed)
                found = {"ways": trained(betons, seed, chosen.epochs)} | {key: facts[key] for key in ("commit", "cpu")}
                found["seconds"] = round(time.perf_counter() - began, 1)
                record["trainings"][name][str(seed)] = found
                record["differences"] = differences(record["trainings"])
                publish_bytes(chosen.out, json.dumps(record, indent=1).encode() + b"\n")
                print(f"{name}, seed {seed}: {found['seconds']} s", flush=True)
    print(*validation_lines(record), sep="\n")
    print(f"better on films held out than running: {', '.join(winners(record['differences'])) or 'none'}")
    lacking = [name for name in SETS if len(record["trainings"][name]) < chosen.seeds]
    if lacking:
        print(
            f"lacking: {', '.join(lacking)}"
            + ("" if data else "; set PLAINFILM_DATA to the folder with radiographs.csv")
        )
    return 0 if not lacking else 1 if data else 2


if __name__ == "__main__":
    sys.exit(main())
