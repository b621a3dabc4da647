"""`make bench-lungs`: what lungs alone are worth, of patients and of phantoms whose answer is known.

Radiographs of patients: how well nets in folds by patient find lungs of which a true mask is given; the controls of
`crossval` with the segmenter that ships and with one that learnt from phantoms alone; whole films, masked, boxed and
boxed-equal in a matrix of `hurdles`, tested on external.csv; and how much of true lungs the region covers that
lungs-hidden hides.  Phantoms whose arms follow the class and whose lungs hold nothing must
score like guessing once boxed-equal, by masks that are found and by true ones; phantoms with a finding and no shortcut
must score well.  What is measured is stored part by part, and a part of this commit is not measured again.  Exits with
1 where a target is missed, and with 2 where there are no radiographs of patients.
"""

import argparse
import contextlib
import csv
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.datasets import data_folder
from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from engine.config import CrossvalConfig, EvaluateConfig, HurdlesConfig, Recipe, SegmentTrainConfig, TrainConfig
from engine.crossval.crossval import crossval
from engine.crossval.folds import open_pool
from engine.crossval.lungs import pool_lungs, share_inside
from engine.crossval.output import TARGETS
from engine.evaluate.evaluate import evaluate
from engine.hurdles.hurdles import hurdles
from engine.segmentation.train import segment_train
from engine.statistics.names import with_interval
from engine.train.state import Watch
from engine.train.train import train
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig, LungMode, PhantomConfig
from loaders.convert.convert import convert
from loaders.lungs.masks import find_masks
from loaders.phantom.phantom import write_phantoms

SIZE, FOLDS, EPOCHS, BATCH, SEEDS = 64, 4, 20, 16, 3  # of radiographs
PATIENTS, HOLDOUT, PHANTOM_SEEDS, LEAST_HELD_OUT = 700, 0.47, 5, 300
DICE_FOLDS, LEAST_DICE = 5, 0.93
STEPS, DRAWN = 800, 300  # of the segmenter that learns from phantoms alone
CLASSES = ("covid", "normal")
CONTROLS = ("group", "lungs-hidden", "lungs-hole", "lungs-only", "silhouette", "boxed", "boxed-silhouette")
MODES: tuple[LungMode, ...] = ("off", "masked", "boxed", "boxed-equal")
STUDIES: dict[str, dict[str, Any]] = {"shortcut": {"arms": 1.0, "strength": 0.0}, "finding": {"strength": 1.0}}
NEAR_GUESSING, LEAST_AUC, LEAST_COVER = 0.08, 0.9, 0.97
TRUE = "auto", "true"  # masks: found, or the phantoms' own
WATCH = Watch(begin=lambda name: print(f"  {name}", flush=True))


def converted(folder: Path, table: Path, key: Path, **settings: Any) -> Path:
    """The betons of a table, unless they are there."""
    if not any(folder.glob("*.beton")):
        classes = () if settings.get("like") or table.name == "phantoms.csv" else CLASSES
        size = {} if settings.get("like") else {"size": SIZE}
        catalog = CatalogConfig(manifest=table, classes=classes)
        convert(ConvertConfig(catalog=catalog, out=folder, site_key=key, **size, **settings))
    return folder


def recipe(**changes: Any) -> dict[str, Any]:
    """How every network of radiographs is trained: small batches, since a fold has few films."""
    return {"recipe": Recipe(epochs=EPOCHS), "loader": LoaderConfig(training=True, batch_size=BATCH)} | changes


# ---- radiographs of patients


def measure_dice(data: Path, folder: Path) -> dict[str, Any]:
    """Dice of lungs found by nets that saw neither the film nor its patient, beside the mean mask."""
    settings = {"folds": DICE_FOLDS, "site_key": folder / "site.key"}
    made = segment_train(SegmentTrainConfig(out=folder / "folds", manifest=(data / "lung_masks.csv",), **settings))
    assert made.tested is not None, "there are films with masks"
    result = made.tested.result
    for kind, found in result.scores["dice"].items():
        print(f"    {kind}: Dice {with_interval('dice', found)}", flush=True)
    return msgspec.to_builtins(result)


def measure_controls(data: Path, folder: Path) -> dict[str, Any]:
    """The controls side by side, with each segmenter."""
    betons = converted(folder / "whole", data / "radiographs.csv", folder / "site.key")
    own = folder / "phantom-segmenter"
    segment_train(SegmentTrainConfig(out=own, steps=STEPS, phantoms=DRAWN, site_key=folder / "site.key"))
    found = {}
    for name, segmenter in (("shipped", "shipped"), ("phantoms", str(own))):
        print(f"  segmenter: {name}", flush=True)
        out = folder / f"crossval-{name}"
        settings = recipe(folds=FOLDS, splits=CONTROLS, segmenter=segmenter)
        found[name] = crossval(CrossvalConfig(data=betons, out=out, **settings), WATCH)
        for target in found[name].targets:
            shown = with_interval("auc", target.auc.estimate)
            print(f"    {TARGETS[target.target]}: AUC {shown}", flush=True)
    return msgspec.to_builtins(found)


def measure_hurdles(data: Path, folder: Path) -> dict[str, Any]:
    """Radiographs tested on another collection: whole, and by their lungs alone."""
    found, key = {}, folder / "site.key"
    for mode in MODES:
        print(f"  lungs: {mode}", flush=True)
        home = converted(folder / f"home-{mode}", data / "radiographs.csv", key, lungs=mode)
        away = converted(folder / f"away-{mode}", data / "external.csv", key, like=home / "train.beton")
        settings = recipe(seeds=SEEDS)
        result = hurdles(HurdlesConfig(collections=(home, away), out=folder / f"hurdles-{mode}", **settings), WATCH)
        for cell in result.cells:
            print(f"    {cell.column}: AUC {with_interval('auc', cell.estimates['auc'])}", flush=True)
        found[mode] = result
    return msgspec.to_builtins(found)


def measure_cover(data: Path, folder: Path) -> dict[str, Any]:
    """How much of true lungs lungs-hidden hides: of radiographs that have a mask, and of phantoms."""
    drawn = phantoms_of("finding", 1, folder)
    betons = {
        "radiographs": converted(folder / "whole", data / "radiographs.csv", folder / "site.key"),
        "phantoms": converted(folder / "finding-1-whole", drawn, folder / "site.key", holdout=HOLDOUT),
    }
    masks, found = {"radiographs": data / "lung_masks.csv", "phantoms": drawn}, {}
    for name, place in betons.items():
        with contextlib.ExitStack() as stack:
            pool = open_pool(place, stack)
            settings = CrossvalConfig(data=place, out=folder / "no-crossval", splits=("lungs-hidden",))
            _, lungs = pool_lungs(pool, settings, WATCH)
            covers = []
            for beton in pool.betons:
                given = find_masks(beton, str(masks[name]), None)
                each = (given.frame_of(beton, sample) for sample in given.samples(beton).tolist())
                covers += [share_inside(mask_SS, lungs.region_SS) for mask_SS in each if mask_SS is not None]
        found[name] = {
            "films": len(covers), "cover": float(np.mean(covers)), "least": min(covers),
            "share": lungs.use.region_share, "masks": lungs.use.region_masks,
        }  # fmt: skip
        print(f"  {name}: {found[name]}", flush=True)
    return found


# ---- phantoms


def phantoms_of(study: str, seed: int, folder: Path) -> Path:
    """The table of a study's phantoms, one a patient."""
    table = folder / f"{study}-{seed}" / "phantoms.csv"
    if not table.exists():
        write_phantoms(
            PhantomConfig(
                out=table.parent, patients=PATIENTS, images_per_patient=1, size=128, seed=seed, **STUDIES[study]
            )
        )
    return table


def measure_phantoms(study: str, data: Path, folder: Path) -> dict[str, Any]:
    """The held-out AUC of boxed-equal phantoms, seed by seed, by masks that are found and by true ones.

    Of those with the shortcut of whole ones, too: it must be there.
    """
    found: dict[str, Any] = {}
    key = folder / "site.key"
    for seed in range(1, 1 + PHANTOM_SEEDS):
        table = phantoms_of(study, seed, folder)
        ways: dict[str, dict[str, Any]] = {
            "auto": {"lungs": "boxed-equal"},
            "true": {"lungs": "boxed-equal", "masks": str(table)},
        }
        if study == "shortcut":
            ways["whole"] = {}
        for way, settings in ways.items():
            place = folder / f"{study}-{seed}-{way}"
            betons = converted(place, table, key, holdout=HOLDOUT, **settings)
            run = place / "run"
            if not (run / "summary.json").exists():
                training = {"recipe": Recipe(), "loader": LoaderConfig(training=True, seed=seed)}
                train(TrainConfig(data=betons, out=run, look=False, **training))
            (tested,) = evaluate(EvaluateConfig(run=run, betons=(betons / "heldout.beton",)))
            one = {"auc": tested.metrics.estimates["auc"].value, "groups": tested.metrics.num_groups,
                   "rejected": PATIENTS - rows_written(betons)}  # fmt: skip
            found.setdefault(way, []).append(one)
            print(f"  seed {seed}, {way}: {one}", flush=True)
    return found


def rows_written(betons: Path) -> int:
    """How many films a conversion wrote, by its table."""
    with (betons / "convert.csv").open(newline="", encoding="utf-8") as file:
        return sum(row["verdict"] == "written" for row in csv.DictReader(file))


def missed(stored: dict[str, Any]) -> list[str]:
    """What should have been reached, and was not."""
    lacking = []
    for study in STUDIES:
        for way in TRUE:
            found = stored.get(study, {}).get("result", {}).get(way, [])
            aucs, groups = [one["auc"] for one in found], [one["groups"] for one in found]
            if study == "shortcut" and any(abs(auc - 0.5) > NEAR_GUESSING for auc in aucs):
                lacking.append(f"{study}, {way}: AUC {aucs}, expected within {NEAR_GUESSING} of 0.5")
            if study == "finding" and any(auc < LEAST_AUC for auc in aucs):
                lacking.append(f"{study}, {way}: AUC {aucs}, expected at least {LEAST_AUC}")
            if found and min(groups) < LEAST_HELD_OUT:
                lacking.append(f"{study}, {way}: {min(groups)} held-out groups, expected {LEAST_HELD_OUT}")
    dice = stored.get("dice", {}).get("result", {}).get("scores", {}).get("dice", {}).get("segmenter")
    if dice and dice["value"] < LEAST_DICE:
        lacking.append(f"Dice {dice['value']:.3f}, expected {LEAST_DICE}")
    for name, cover in stored.get("cover", {}).get("result", {}).items():
        if cover["cover"] < LEAST_COVER:
            lacking.append(f"cover of {name}: {cover['cover']:.3f}, expected {LEAST_COVER}")
    return lacking


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parts: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
        "dice": measure_dice,
        "controls": measure_controls,
        "hurdles": measure_hurdles,
        "cover": measure_cover,
    } | {study: partial(measure_phantoms, study) for study in STUDIES}
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lungs", description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=parts, default=[], help="parts to measure, even if they are stored"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "lungs.json", help="default: %(default)s")
    parser.add_argument("--work", type=Path, help="folder to go on in after an interruption; default: a temporary one")
    chosen = parser.parse_args(arguments)
    data, facts = data_folder(), provenance()
    print(describe(facts))
    stored: dict[str, Any] = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
    with contextlib.ExitStack() as stack:
        work = chosen.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        for name in chosen.only or parts:
            same = stored.get(name, {}).get("provenance", {}).get("commit") == facts["commit"]
            if (same and not chosen.only) or (data is None and name not in STUDIES):
                continue
            print(f"{name}:", flush=True)
            began = time.perf_counter()
            result = parts[name](data or work, work)
            seconds = round(time.perf_counter() - began, 1)
            print(f"{name}: {seconds:.0f} s", flush=True)
            stored[name] = {"provenance": facts, "seconds": seconds, "result": result}
            chosen.out.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    lacking = missed(stored)
    print("\n".join(lacking) or "as expected")
    return 1 if lacking else 0 if data else 2


if __name__ == "__main__":
    sys.exit(main())
