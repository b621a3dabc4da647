"""`make bench-external`: how a network trained on one collection does on another, which shares no source with it.

The recipe is fixed before: all COVID-19 and normal films of radiographs.csv, crops of 128, every default of `train`.
Each of five seeds deals the films into training and validation anew and trains once; each network is tested on the
films of external.csv, converted with --like. Nothing is chosen by them, and every seed is stored. The row of the
documents is of the five networks' mean probabilities, as `crossval --external` tests the networks of its folds.
"""

# N samples, K classes

import argparse
import csv
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.datasets import data_folder
from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from engine.config import EvaluateConfig, TrainConfig
from engine.crossval.scores import estimates_of, target_result
from engine.evaluate.evaluate import evaluate
from engine.evaluate.results import Evaluation, Scores
from engine.statistics.bootstrap import count_groups, metrics_of, resample, sum_groups
from engine.statistics.estimates import RESAMPLES, Estimate, estimate
from engine.statistics.names import with_interval
from engine.train.run_folder import shared_settings
from engine.train.train import train
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig
from loaders.convert.convert import convert

CLASSES, SIZE, SEEDS = ("covid", "normal"), 128, 5
SHARES = ("sensitivity", "specificity")
SHOWN = {"auc": "ROC-AUC", "balanced_accuracy": "balanced accuracy", "f1": "F1"} | {
    name: name for name in (*SHARES, "accuracy")
}


def scores_of(done: Evaluation) -> Scores:
    """What the network predicts of a set, as `evaluate` wrote it."""
    classes = tuple(done.metrics.classes)
    with (done.out / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return Scores(
        label_N=np.array([classes.index(row["label"]) for row in rows]),
        probability_NK=np.array([[float(row[f"probability_{name}"]) for name in classes] for row in rows]),
        group_N=np.array([int(row["group"]) for row in rows]),
        classes=classes,
        positive=classes.index(done.metrics.positive),
    )


def balanced_accuracy(done: Evaluation, scores: Scores, resamples: int) -> Estimate:
    """The mean of sensitivity and specificity, with its interval over groups.

    Where no resample differs, since both are 0 or 1, the interval is the mean of theirs, which are Wilson's.
    """
    sums = sum_groups(scores.label_N, scores.probability_NK, scores.group_N, scores.positive, None, False)
    found, groups = metrics_of(sums, resample(sums, resamples, 0), scores.positive, None), count_groups(sums)
    mean_R = (found["sensitivity"] + found["specificity"]) / 2
    mean = estimate("balanced_accuracy", mean_R, min(groups[name] for name in SHARES))
    if mean.low is None or mean.low != mean.high:
        return mean
    low, high = (sum(getattr(done.metrics.estimates[name], end) for name in SHARES) / 2 for end in ("low", "high"))
    return msgspec.structs.replace(mean, low=low, high=high, method="wilson")


def written_as(name: str) -> str:
    """The metric of engine.statistics.names as which one of SHOWN is written."""
    return name.removeprefix("balanced_")


def measured(done: Evaluation, scores: Scores, resamples: int) -> dict[str, Any]:
    """One set under one network: how many of each class, and the metrics with their intervals."""
    found = done.metrics.estimates | {"balanced_accuracy": balanced_accuracy(done, scores, resamples)}
    counts = {"class_counts": done.metrics.class_counts, "num_groups": done.metrics.num_groups}
    return counts | {"estimates": {name: msgspec.to_builtins(found[name]) for name in SHOWN}}


def study(data: Path, folder: Path, seeds: int, **training: Any) -> dict[str, Any]:
    """Convert, train and test once a seed, in an empty folder.  training: settings of TrainConfig; none: the recipe."""
    key, tested, outside = folder / "site.key", [], list[Scores]()
    beton = folder / "external" / "heldout.beton"
    for seed in range(seeds):
        began, home, run = time.perf_counter(), folder / f"home-{seed}", folder / f"run-{seed}"
        catalog = CatalogConfig(manifest=data / "radiographs.csv", classes=CLASSES)
        convert(ConvertConfig(catalog=catalog, out=home, size=SIZE, seed=seed, site_key=key))
        config = TrainConfig(data=home, out=run, loader=LoaderConfig(training=True, seed=seed), **training)
        summary = train(config)
        if not beton.exists():
            other = CatalogConfig(manifest=data / "external.csv")
            convert(ConvertConfig(catalog=other, out=beton.parent, like=run, site_key=key))
        done = evaluate(EvaluateConfig(run=run, betons=(home / "val.beton", beton)))
        if done[1].metrics.collection != "external":
            raise AssertionError(f"external.csv: {done[1].metrics.collection}, expected a collection of other sources")
        scores = [scores_of(one) for one in done]
        outside.append(scores[1])
        at_home, away = (measured(*pair, RESAMPLES) for pair in zip(done, scores, strict=True))
        tested.append(
            {"seed": seed, "epochs": summary.epochs, "best_epoch": summary.best_epoch, "home": at_home, "away": away}
        )
        taken = time.perf_counter() - began
        shown = {name: with_interval(name, done[1].metrics.estimates[name]) for name in ("auc", *SHARES)}
        print(f"seed {seed}: {shown}, {summary.epochs} epochs ({taken:.0f} s)", flush=True)
    together = replace(outside[0], probability_NK=np.mean([scores.probability_NK for scores in outside], axis=0))
    each = [estimates_of(scores, RESAMPLES) for scores in outside]
    return {
        "settings": {"classes": CLASSES, "size": SIZE, "seeds": seeds, "train": shared_settings(config)},
        "seeds": tested,
        "target": msgspec.to_builtins(target_result("external", together, each, RESAMPLES)),
    }


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.external", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS / "external.json", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    data, facts = data_folder(), provenance()
    if data is None or not (data / "external.csv").is_file():
        print("no radiographs.csv with external.csv: set PLAINFILM_DATA to the folder that has both")
        return 2
    print(describe(facts))
    with tempfile.TemporaryDirectory() as folder:
        found = study(data, Path(folder), SEEDS)
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps({"provenance": facts} | found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
