"""An example of a run folder, as training, evaluation, explanation, probes and cross-validation leave one."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from engine.compare import Comparison
from engine.config import TrainConfig
from engine.crossval.scores import Crossval, FoldScores
from engine.evaluate.dataflow import DataFlow
from engine.evaluate.figures import Curve, Panel, pr_figure, reliability_figure, roc_figure, score_figure
from engine.evaluate.findings import FindingsMetrics
from engine.evaluate.results import Metrics
from engine.explain.by_finding import FindingsExplanation
from engine.explain.findings import Explanation
from engine.figures import confusion_figure, curves_figure, png
from engine.hurdles.results import Cell, CollectionResult, Hurdles, Row
from engine.report.probes import FindingsProbes, Probes
from engine.statistics.calibration import reliability
from engine.statistics.thresholds import precision_recall_curve, roc_curve
from engine.train.checkpoint import load_checkpoint, save_checkpoint
from engine.train.summary import Summary
from loaders.audit.findings import ProbeFinding
from loaders.cautions import caution
from loaders.figure_text import class_names
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom
from loaders.records import Record, encode_record
from loaders.settings import build

SET = "heldout-a9efac4d"  # split and conversion
CLASSES = ("covid", "normal")
CONVERSION = "a9efac4d58bcfb8dbbdab38ef22a2732"
SHA256 = "5149051fb50b12b0324ee69c54b810d46eb342222932015dba9c87a01fdaba74"
CHECKPOINT = {"sha256": SHA256, "epoch": 19, "conversion_id": CONVERSION}
POINT = ("sensitivity", "specificity", "ppv", "npv")
FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia",
    "Infiltration", "Mass", "Nodule", "Pleural Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip


def put(path: Path, content: Any) -> None:
    """Write a record, or any JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        encode_record(content) if isinstance(content, Record) else json.dumps(content, indent=2).encode("utf-8")
    )


def estimate(value: float, half: float = 0.04, **changes: Any) -> dict[str, Any]:
    """An estimate with its interval, within 0 and 1."""
    ends = {"low": max(0.0, value - half), "high": min(1.0, value + half / 2)}
    return {"value": value, **ends, "method": "bootstrap"} | changes


def summary(**changes: Any) -> Summary:
    """summary.json of a sound run on radiographs."""
    plain = {
        "best_f1": 0.914,
        "best_epoch": 19,
        "epochs": 26,
        "stopped": "patience",
        "images_per_second": 412.7,
        "seconds": 118.4,
        "steps": 1340,
        "classes": list(CLASSES),
        "positive": CLASSES[0],
        "crop": 128,
        "synthetic": False,
        "conversion_id": CONVERSION,
        "cautions": [],
        "training_images": 1648,
        "validation_images": 412,
        "model": "cnn",
        "weights": "none",
        "head_epochs": 0,
        "parameters": 2159842,
        "device": "cpu (x86_64, 2 threads), fp32, channels_last, eager",
        "device_type": "cpu",
        "amp": caution("amp-as-set", switch="off"),
        "compile": caution("compile-never", device="cpu"),
        "checkpoint_sha256": SHA256,
        "versions": {"plainfilm": "0.5.0", "torch": "2.13.0", "numpy": "2.4.6"},
    }
    return msgspec.convert(plain | changes, Summary)


def subgroup(kind: str, name: str, num_samples: int, estimates: dict[str, Any]) -> dict[str, Any]:
    """A subgroup of an evaluation."""
    counts = {"num_samples": num_samples, "num_groups": num_samples * 3 // 4, "num_positives": num_samples * 2 // 5}
    return {"kind": kind, "name": name, **counts, "estimates": estimates}


def metrics(**changes: Any) -> Metrics:
    """metrics.json of a sound evaluation: 400 radiographs of 310 groups, both classes with 59 or more."""
    values = {"accuracy": 0.9025, "sensitivity": 0.893, "specificity": 0.909, "ppv": 0.877, "npv": 0.921, "f1": 0.885}
    values |= {"f1_macro": 0.899, "auc": 0.958, "pr_auc": 0.941}
    trivial = {"accuracy": 0.58, "sensitivity": 0.0, "specificity": 1.0, "f1": 0.0, "f1_macro": 0.367, "auc": 0.5}
    calibration = {"brier": 0.071, "ece": 0.031, "calibration_slope": 0.88, "calibration_intercept": -0.11}
    few = {"code": "few-validation-positives", "parameters": {"positives": 41, "least": 59}}
    points = [
        {
            "name": "0.5",
            "threshold": 0.5,
            "refused": None,
            "estimates": {name: estimate(values[name]) for name in POINT},
        },
        {
            "name": "youden",
            "threshold": 0.43,
            "refused": None,
            "estimates": {"sensitivity": estimate(0.921), "specificity": estimate(0.87), "ppv": estimate(0.84)},
        },
        {"name": "rule-out", "threshold": None, "refused": few, "estimates": {}},
    ]
    inside = {key: estimate(value, 0.06) for key, value in values.items() if key in ("auc", *POINT, "accuracy")}
    plain = {
        "set_name": SET,
        "beton": "heldout.beton",
        "split": "heldout",
        "synthetic": False,
        "conversion_id": CONVERSION,
        "collection": "own",
        "classes": list(CLASSES),
        "positive": CLASSES[0],
        "num_samples": 400,
        "num_groups": 310,
        "prevalence": 0.42,
        "stated_prevalence": None,
        "temperature": 1.34,
        "confusion": [[150, 18], [21, 211]],
        "estimates": {name: estimate(value) for name, value in (values | calibration).items()}
        | {f"{name}[{place}]": estimate(0.9) for name in ("f1", "auc", "pr_auc") for place in range(2)},
        "trivial": {name: alone(value) for name, value in trivial.items()},
        "operating_points": points,
        "subgroups": [
            subgroup("source", "hospital A", 230, inside),
            subgroup("source", "hospital B", 161, inside),
            subgroup("source", "hospital C", 9, {}),
            subgroup("view", "PA", 291, inside),
            subgroup("flag", "below the stored side", 36, inside),
        ],
        "difference": None,
        "resamples": 2000,
        "seed": 0,
        "cautions": [],
        "checkpoint": CHECKPOINT,
        "device": "cpu",
    }
    return msgspec.convert(plain | changes, Metrics)


def alone(value: float | None, **changes: Any) -> dict[str, Any]:
    """An estimate without an interval."""
    return {"value": value, "low": None, "high": None, "method": ""} | changes


def lungs(value: float, low: float | None, high: float | None, **changes: Any) -> dict[str, Any]:
    """The lung ratio of an explanation; a model that relies on the lungs comes above 1.5."""
    counts = {"area": 7 / 17, "num_samples": 200, "num_empty": 0, "num_outside": 0, "without_mask": {}}
    ratio = {"value": value, "low": low, "high": high, "method": "bootstrap"}
    return {"ratio": ratio, "masks": "folder", "segmenter": "", **counts} | changes


def explanation(**changes: Any) -> Explanation:
    """explanation.json of a model that relies on the lungs."""
    samples = [
        {
            "sample": place * 31 + 4,
            "kind": ("right", "right", "right", "right", "wrong", "wrong", "borderline", "borderline")[place],
            "label": CLASSES[place % 2],
            "predicted": CLASSES[(place + (place in (4, 5))) % 2],
            "probability": 0.995 - place * 0.06,
            "lung_ratio": 1.9 - 0.1 * place,
            "overlay": f"{place + 1:04d}.png",
        }
        for place in range(8)
    ]
    plain = {
        "set_name": SET,
        "beton": "heldout.beton",
        "split": "heldout",
        "synthetic": False,
        "conversion_id": CONVERSION,
        "classes": list(CLASSES),
        "method": "GradCAM",
        "layer": "blocks.4",
        "region": "lungs",
        "samples": samples,
        "lungs": lungs(1.71, 1.58, 1.83),
        "randomised": {"correlation": 0.08, "num_samples": 32, "num_empty": 0},
        "deletion": deletion(0.41, 0.63),
        "cautions": [],
        "checkpoint": CHECKPOINT,
    }
    return msgspec.convert(plain | changes, Explanation)


def deletion(by_map: float, at_random: float) -> dict[str, Any]:
    """The deletion control with these areas under its two curves."""
    gap = by_map - at_random
    curves = {"share": [0.0, 1.0], "by_map": [2 * by_map, 0.0], "at_random": [2 * at_random, 0.0]}
    difference = {"value": gap, "low": gap - 0.1, "high": gap + 0.1, "method": "bootstrap"}
    return curves | {"difference": difference, "num_samples": 32}


def example(**changes: Any) -> dict[str, Any]:
    """One sample of an explanation."""
    plain = {"sample": 1, "kind": "right", "label": "covid", "predicted": "covid", "probability": 0.9}
    return plain | {"lung_ratio": None, "overlay": "0001.png"} | changes


def probes(*alarms: str, **changes: Any) -> Probes:
    """probes.json; those named raise the alarm."""
    names = ("outside-crop", "inside-crop-outside-lungs", "lungs-hidden", "thumbnail", "histogram", "sharpness", "view")
    frame_HW = film(3, "normal")
    hidden_HW = frame_HW.copy()
    hidden_HW[40:130, 30:160] = 128
    picture = cv2.imencode(".png", hidden_HW)[1].tobytes()
    plain = {
        "beton": "train.beton",
        "conversion_id": CONVERSION,
        "num_samples": 1648,
        "seed": 0,
        "permutations": 999,
        "probes": [
            {
                "name": name,
                "auc": 0.86 if name in alarms else 0.52,
                "low": 0.82 if name in alarms else 0.47,
                "high": 0.9 if name in alarms else 0.57,
                "null_high": 0.56,
                "p": 0.001 if name in alarms else 0.31,
                "p_holm": 0.007 if name in alarms else 1.0,
                "alarm": name in alarms,
                "picture": picture if "lungs" in name or name == "outside-crop" else None,
            }
            for name in names
        ],
        "cautions": [],
        "skipped": {"header": caution("no-headers")},
    }
    return msgspec.convert(plain | changes, Probes)


def crossval(
    random: float = 0.9, group: float = 0.89, hidden: float = 0.5, abroad: float = 0.88, **changes: Any
) -> Crossval:
    """crossval.json; by default honest: random folds no better than folds by group, nothing left without lungs."""

    def over_folds(score: float) -> dict[str, Any]:
        return {"estimate": estimate(score), "mean": score, "spread": 0.021, "folds": [score] * 5}

    targets = [
        {
            "target": target,
            "num_samples": num_samples,
            "num_groups": num_samples * 3 // 4,
            "f1": over_folds(score),
            "auc": over_folds(score if target == "lungs-hidden" else score + 0.05),
            "accuracy": over_folds(score),
            "confusion": [[500, 325], [325, 910]],
        }
        for target, num_samples, score in (
            ("random", 2060, random),
            ("group", 2060, group),
            ("lungs-hidden", 2060, hidden),
            ("external", 655, abroad),
        )
    ]
    folds = [
        {
            "training": fold_training(fold=1 + place, num_train=1318, num_val=330),
            "num_samples": 412,
            "num_groups": 309,
            "confusion": [[100, 65], [65, 182]],
            "estimates": {name: estimate(group) for name in ("f1", "auc", "accuracy")},
        }
        for place in range(5)
    ]
    plain = {
        "classes": list(CLASSES),
        "positive": CLASSES[0],
        "num_samples": 2060,
        "num_groups": 1545,
        "class_counts": [825, 1235],
        "synthetic": False,
        "conversion_id": CONVERSION,
        "external": "abroad.beton",
        "targets": targets,
        "trivial": {"predicted": "normal", "f1": 0.0, "auc": 0.5, "accuracy": 0.6},
        "always_positive": {"predicted": "covid", "f1": 0.57, "auc": 0.5, "accuracy": 0.4},
        "differences": {},
        "folds": folds,
        "cautions": [],
        "settings": {"folds": 5},
    }
    return msgspec.convert(plain | changes, Crossval)


def crossval_of_lungs(
    lungs: float,
    outline: float | None,
    apart: tuple[float, float, float] | None = None,
    names: tuple[str, str] = ("lungs-only", "silhouette"),
    **changes: Any,
) -> Crossval:
    """crossval.json with lungs alone and their outline, by AUC.  apart: their difference and its interval."""
    plain = msgspec.to_builtins(crossval(**changes))
    (hidden,) = (row for row in plain["targets"] if row["target"] == "lungs-hidden")
    rows = [hidden | {"target": names[0], "auc": hidden["auc"] | {"estimate": estimate(lungs)}}]
    if apart:
        rows[0]["beyond_outline"] = {"auc": estimate(apart[0], low=apart[1], high=apart[2])}
    if outline is not None:
        rows.append(hidden | {"target": names[1], "auc": hidden["auc"] | {"estimate": estimate(outline)}})
    return msgspec.convert(plain | {"targets": plain["targets"] + rows}, Crossval)


def dataflow(**changes: Any) -> DataFlow:
    """dataflow.json: 2,713 in = 2,460 written + 212 rejected + 41 duplicates."""
    plain = {
        "written": 2460,
        "rejected": 212,
        "duplicate": 41,
        "excluded": 377,
        "reasons": {
            "rejected": {"lateral": 118, "text-or-mark": 61, "cut": 33},
            "duplicate": {"same-pixels": 41},
            "excluded": {"other-class": 377},
        },
        "splits": {
            "train": {"covid": 660, "normal": 988},
            "val": {"covid": 165, "normal": 247},
            "heldout": {"covid": 168, "normal": 232},
        },
        "groups": {"train": 1240, "val": 311, "heldout": 310},
    }
    return msgspec.convert(plain | changes, DataFlow)


def comparison(**changes: Any) -> Comparison:
    """comparison.json of two networks, of which one could not be trained."""
    sound = {
        "model": "cnn",
        "training": msgspec.to_builtins(summary()),
        "validation_f1": estimate(0.91),
        "heldout_f1": estimate(0.885),
    }
    plain = {
        "classes": list(CLASSES),
        "positive": CLASSES[0],
        "synthetic": False,
        "networks": [sound, {"model": "resnet18", "failed": "out of memory"}],
        "settings": {"epochs": 30},
    }
    return msgspec.convert(plain | changes, Comparison)


def fold_training(**counts: int) -> dict[str, Any]:
    """How a fold's network was trained."""
    scores = {"validation_f1": 0.9, "epochs": 26, "best_epoch": 19, "stopped": "patience"}
    return {"split": "group", **counts, **scores}


def fold(**changes: Any) -> FoldScores:
    """fold.json of two test samples."""
    plain = {
        "identity": "0" * 32,
        "training": fold_training(fold=1, num_train=5, num_val=2),
        "place": [3, 4],
        "probability": [[0.25, 0.75], [0.5, 0.5]],
        "seconds": 12.5,
    }
    return msgspec.convert(plain | changes, FoldScores)


@cache
def film(patient: int, label: str) -> np.ndarray:
    """A phantom, uint8 (192, 192)."""
    phantom = draw_phantom(PlannedPhantom(seed=4, patient=patient, label=label, size=192))
    return (phantom.image_HW >> 8).astype(np.uint8)


def make_run(run: Path, **parts: Any) -> Path:
    """Write a sound, complete run folder; each part can be changed, and None leaves it out.

    parts: summary, config, history, metrics, explanation, probes, crossval, hurdles, dataflow.
    """
    run.mkdir(parents=True, exist_ok=True)
    contents = {
        "summary": summary(),
        "config": {"data": "betons", "out": "runs/first", "epochs": 30, "batch_size": 64, "seed": 3, "arena": False},
        "metrics": metrics(),
        "explanation": explanation(),
        "probes": probes(),
        "crossval": crossval(),
        "hurdles": hurdles(),
        "dataflow": dataflow(),
    }
    first_f1 = parts.pop("first_f1", 0.71)
    contents |= parts
    places = {"metrics": f"evaluation/{SET}/metrics", "explanation": f"explanation/{SET}/explanation"}
    for name, content in contents.items():
        if content is not None:
            put(run / f"{places.get(name, name)}.json", content)
    lines = ["epoch,train_loss,train_f1,val_loss,val_f1,val_accuracy,val_auc"]
    lines += [
        f"{epoch},{0.6 / epoch},{first_f1},{0.65 / epoch},{first_f1 + 0.2 * (1 - 1 / epoch) * (first_f1 < 0.8)},0.8,0.9"
        for epoch in range(1, 27)
    ]
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
    return run


def draw_pictures(run: Path) -> Path:
    """Add the figures and overlays that the run's JSON files name, as the engine draws them."""
    rng = np.random.default_rng(0)
    label_N = np.repeat([0, 1], [168, 232])
    score_N = 1 / (1 + np.exp(-(np.where(label_N == 0, 1.5, -1.6) + rng.normal(0, 1.3, 400))))
    title, name = "heldout.beton, n = 400", "covid"
    roc, pr = roc_curve(label_N == 0, score_N), precision_recall_curve(label_N == 0, score_N)
    assert roc is not None and pr is not None
    mark = [("0.5", 0.09, 0.89)]
    panel = Panel(name=name, score_N=score_N, is_class_N=label_N == 0)
    history = [
        {"epoch": e, "train_loss": 0.6 / e, "val_loss": 0.65 / e, "train_f1": 1 - 0.4 / e, "val_f1": 0.9 - 0.2 / e}
        for e in range(1, 27)
    ]
    out = run / "evaluation" / SET
    pictures = {
        run / "curves.png": curves_figure(history, 19, "covid, normal: 1648 training and 412 validation radiographs"),
        out / "roc.png": roc_figure([Curve(name=name, x_P=roc[0], y_P=roc[1])], mark, title),
        out / "pr.png": pr_figure([Curve(name=name, x_P=pr[0], y_P=pr[1], base=0.42)], [], title),
        out / "reliability.png": reliability_figure(reliability(score_N, label_N == 0), name, title),
        out / "confusion.png": confusion_figure(np.array([[150, 18], [21, 211]]), class_names(CLASSES), title),
        out / "scores.png": score_figure([panel], [("0.5", 0.5)], title),
    }
    for path, figure in pictures.items():
        path.write_bytes(png(figure))
    for place in range(8):
        grey_HW = film(place, CLASSES[place % 2])
        heat_HW = np.zeros_like(grey_HW)
        cv2.circle(heat_HW, (60 + 9 * place, 90 + 5 * place), 34, 255, -1)
        heat_HWC = cv2.applyColorMap(cv2.GaussianBlur(heat_HW, (0, 0), 18), cv2.COLORMAP_INFERNO)
        overlay_HWC = cv2.addWeighted(cv2.cvtColor(grey_HW, cv2.COLOR_GRAY2BGR), 0.75, heat_HWC, 0.45, 0)
        cv2.imwrite(str(run / "explanation" / SET / f"{place + 1:04d}.png"), overlay_HWC)
    return run


def small_training(data: Path, out: Path, **settings: object) -> TrainConfig:
    """By default one epoch on the CPU.  settings: by name, those of the recipe and the loader too."""
    return build(TrainConfig, {"data": data, "out": out, "epochs": 1, "device": "cpu"} | settings)


def results_of(folder: Path, split: str = "heldout") -> Path:
    """The folder of the one set of this split that was tested there."""
    (found,) = folder.glob(f"{split}-????????")
    return found


def hurdles_cell(row: str, column: str, score: float | None, home: float | None = None, **changes: Any) -> Cell:
    """A cell of two classes; away with the score at home, from which it drops.  score: AUC, None where undefined."""
    keys = ("auc", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece", "f1", "accuracy")
    values = dict.fromkeys(keys, score) | ({"sensitivity": 0.625} if score is None else {})
    if score is not None:
        values |= {"brier": 0.3 * (1 - score), "ece": 0.1}
    found = {key: alone(None) if value is None else estimate(value, 0.06) for key, value in values.items()}
    drop = {
        key: estimate(gap := home - value, low=gap - 0.09, high=gap + 0.08)
        for key, value in values.items()
        if home is not None and value is not None
    }
    networks = [
        {
            "seed": number // 5, "fold": 1 + number % 5, "temperature": 1.3, "threshold": 0.4, "num_samples": 80,
            "values": {key: value and max(0.0, value - 0.01 * number) for key, value in values.items()},
        }
        for number in range(15)
    ]  # fmt: skip
    plain = {
        "row": row, "column": column, "place": "home" if home is None else "away", "num_samples": 239,
        "num_groups": 164, "class_counts": [80, 159], "estimates": found, "drop": drop, "removed": {},
        "networks": networks, "cautions": [],
    }  # fmt: skip
    return msgspec.convert(plain | changes, Cell)


def finding_cell(name: str, score: float | None = 0.9, fall: float | None = None) -> dict[str, Any]:
    """A finding of a cell.  score: AUC, None where it is not measured.  fall: the lower end of its drop."""
    refused = caution("findings-not-measured", findings=[name], least=5)
    return {
        "name": name, "num_known": 120, "num_present": 34, "num_groups": 90, "networks": [],
        "refused": refused if score is None else None,
        "estimates": {} if score is None else {"auc": estimate(score)},
        "drop": {} if fall is None else {"auc": estimate(fall + 0.09, low=fall, high=fall + 0.17)},
    }  # fmt: skip


def hurdles_row(name: str, conversion: str = "", **changes: Any) -> Row:
    """A row of fifteen networks."""
    plain = {"name": name, "conversion_id": conversion, "identity": "1" * 32, "without": None, "confounded": False}
    return msgspec.convert(plain | {"num_networks": 15, "cautions": []} | changes, Row)


def hurdles_collection(name: str, conversion: str = "", **changes: Any) -> CollectionResult:
    """A collection to train and to test on."""
    plain = {"name": name, "conversion_id": conversion, "identity": "1" * 32, "sources": [name], "num_samples": 239}
    more = {"num_groups": 164, "class_counts": [80, 159], "trained": True, "cautions": []}
    return msgspec.convert(plain | more | changes, CollectionResult)


def told_apart(name: str, auc: float) -> ProbeFinding:
    """How well collections are told apart within a class."""
    finding = {"name": f"collection-within-{name}", "auc": auc, "low": auc - 0.03, "high": auc + 0.01}
    chance = {"null_high": 0.57, "p": 0.001, "p_holm": 0.002, "alarm": auc > 0.6}
    return msgspec.convert(finding | chance, ProbeFinding)


def hurdles(
    names: tuple[str, ...] = ("north", "south", "clinic"), home: float = 0.96, away: float = 0.93, **changes: Any
) -> Hurdles:
    """hurdles.json of collections, the last of which is a test set alone; the first is the example run's own."""
    *trained, alone = names
    conversions = {name: CONVERSION if place == 0 else f"{place:032x}" for place, name in enumerate(names)}
    cells = [
        hurdles_cell(row, column, home if row == column else away, None if row == column else home)
        for row in trained
        for column in names
    ]
    plain = {
        "classes": list(CLASSES), "positive": CLASSES[0], "synthetic": False, "by": "folder", "folds": 5, "seeds": 3,
        "collections": [hurdles_collection(name, conversions[name], trained=name != alone) for name in names],
        "rows": [hurdles_row(name, conversions[name]) for name in trained], "cells": cells,
        "told_apart": [told_apart("covid", 0.97), told_apart("normal", 0.55)], "cautions": [], "settings": {},
    }  # fmt: skip
    return Hurdles(**plain | changes)


def leave_one_out(result: Hurdles, away: float = 0.88) -> Hurdles:
    """The same with rows of all but one collection, tested on it and on those to test on alone."""
    trained = [collection.name for collection in result.collections if collection.trained]
    rows = [hurdles_row(f"all but {name}", without=name) for name in trained]
    cells = [
        hurdles_cell(row.name, column, 0.95 if column == row.name else away, None if column == row.name else 0.95)
        for row in rows
        for column in (row.name, row.without or "", *(one.name for one in result.collections if not one.trained))
    ]
    return msgspec.structs.replace(result, rows=[*result.rows, *rows], cells=[*result.cells, *cells])


# ---- a run of findings


def finding(
    name: str, auc: float | None = 0.85, half: float = 0.05, present: int = 90, **changes: Any
) -> dict[str, Any]:
    """A finding of an evaluation, known in 380 of 400 images; not measured without an AUC."""
    rates = dict.fromkeys(("sensitivity", "specificity", "ppv", "npv", "accuracy", "balanced_accuracy", "f1"), 0.8)
    found = {key: estimate(value) for key, value in rates.items()} | {"auc": estimate(auc or 0, half)}
    found |= {key: estimate(value) for key, value in {"pr_auc": 0.6, "brier": 0.1, "ece": 0.04}.items()}
    points = [
        {"name": "0.5", "threshold": 0.5, "refused": None, "estimates": found},
        {"name": "youden", "threshold": 0.31, "refused": None, "estimates": found},
        {"name": "rule-out", "threshold": None, "refused": caution("one-class"), "estimates": {}},
        {"name": "f1", "threshold": 0.37, "refused": None, "estimates": found},
    ]
    parts = [subgroup("source", "hospital A", 200, {"auc": estimate(0.84)}), subgroup("view", "AP", 20, {})]
    plain = {
        "name": name, "num_known": 380, "num_present": present, "num_groups": 300, "refused": None,
        "temperature": 1.2, "threshold": 0.37, "confusion": [[380 - present - 20, 20], [10, present - 10]],
        "estimates": found, "trivial": {}, "operating_points": points, "subgroups": parts, "difference": {},
    }  # fmt: skip
    return plain | changes


def unmeasured(name: str, present: int = 3) -> dict[str, Any]:
    """A finding that too few are known to have."""
    refused = caution("few-patients-of-finding", present=present, absent=370, least=5)
    nothing = {"estimates": {}, "operating_points": [], "subgroups": []}
    return finding(name, present=present, confusion=[[0, 0], [0, 0]], refused=refused, **nothing)


def findings_metrics(*findings: dict[str, Any], **changes: Any) -> FindingsMetrics:
    """findings.json of a sound evaluation of these findings, or of NIH's fourteen."""
    found = findings or [finding(name, 0.95 - 0.01 * place) for place, name in enumerate(FINDINGS)]
    names, measured = [one["name"] for one in found], [one for one in found if not one["refused"]]
    over = {"defined": len(measured), "classes": len(found)}
    macro = {
        key: estimate(sum(one["estimates"][key]["value"] for one in measured) / len(measured), 0.02, **over)
        for key in ("auc", "f1", "sensitivity", "specificity")
        if measured
    }
    plain = {
        "set_name": SET, "beton": "heldout.beton", "split": "heldout", "synthetic": False,
        "conversion_id": CONVERSION, "collection": "own", "findings": found, "num_samples": 400, "num_groups": 310,
        "macro": macro, "against": "", "macro_difference": {}, "uncertain": dict.fromkeys(names, "unknown"),
        "blank": dict.fromkeys(names, "absent"), "resamples": 2000, "seed": 0, "cautions": [],
        "difference_cautions": [], "checkpoint": CHECKPOINT, "device": "cpu",
    }  # fmt: skip
    return msgspec.convert(plain | changes, FindingsMetrics)


def finding_explained(name: str, number: int = 0, **changes: Any) -> dict[str, Any]:
    """The explanation of a finding for which the model relies on the lungs.  number: of its first overlay."""
    samples = [
        {
            "sample": 7 * place + number, "kind": kind, "present": kind == "right", "predicted": kind != "borderline",
            "probability": 0.9 - 0.3 * place, "lung_ratio": 1.7, "overlay": f"{number + place + 1:04d}.png",
        }
        for place, kind in enumerate(("right", "wrong", "borderline"))
    ]  # fmt: skip
    control = {"correlation": 0.08, "num_samples": 32, "num_empty": 0}
    plain = {
        "name": name, "num_predicted": 80, "region": "lungs", "lungs": lungs(1.71, 1.58, 1.83), "randomised": control,
        "deletion": deletion(0.41, 0.63), "samples": samples, "cautions": [],
    }  # fmt: skip
    return plain | changes


def findings_explanation(*findings: dict[str, Any], **changes: Any) -> FindingsExplanation:
    """explanation-by-finding.json of these findings, or of NIH's fourteen."""
    found = findings or [finding_explained(name, 3 * place) for place, name in enumerate(FINDINGS)]
    plain = {
        "set_name": SET, "beton": "heldout.beton", "split": "heldout", "synthetic": False,
        "conversion_id": CONVERSION, "method": "HiResCAM", "layer": "features.14", "findings": found, "left_out": [],
        "cautions": [], "checkpoint": CHECKPOINT,
    }  # fmt: skip
    return msgspec.convert(plain | changes, FindingsExplanation)


def findings_probes(*alarms: tuple[str, str], names: tuple[str, ...] = FINDINGS, **changes: Any) -> FindingsProbes:
    """probes-by-finding.json; the pairs of probe and finding that are named raise the alarm."""
    tests = [
        {
            "finding": name, "probe": probe, "auc": 0.86 if (alarm := (probe, name) in alarms) else 0.52,
            "low": 0.82 if alarm else 0.47, "high": 0.9 if alarm else 0.57, "null_high": 0.56,
            "p": 0.001 if alarm else 0.31, "p_adjusted": 0.002 if alarm else 1.0, "alarm": alarm,
        }
        for name in names
        for probe in ("outside-crop", "lungs-hidden", "thumbnail", "histogram", "sharpness", "view")
    ]  # fmt: skip
    each = len(names)
    source = {"images": 824, "groups": 620, "known": [600] * each, "present": [90] * each}
    audit = {
        "findings": list(names), "images": 1648, "groups": 1240, "present": [[180] * each] * each,
        "known": [[1500] * each] * each, "phi": [[0.1] * each] * each,
        "sources": [{"source": "hospital A", **source}, {"source": "hospital B", **source}],
        "told_by_source": [{"accuracy": 0.5, "low": 0.47, "high": 0.53, "grade": "none"}] * each, "probes": tests,
        "pictures": {}, "cautions": [], "skipped": {},
    }  # fmt: skip
    plain = {
        "beton": "train.beton", "conversion_id": CONVERSION, "num_samples": 1648, "seed": 0, "permutations": 999,
        "audit": audit | changes, "refused": None,
    }  # fmt: skip
    return msgspec.convert(plain, FindingsProbes)


def findings_dataflow(names: tuple[str, ...] = FINDINGS) -> DataFlow:
    """dataflow.json of findings; uncertain values are present for the first of them."""
    counts = [{"present": 200 + place, "absent": 1300, "unknown": 148 - place} for place in range(len(names))]
    policies = {"uncertain": dict.fromkeys(names, "unknown") | {names[0]: "present"}}
    labels = {"names": list(names), "splits": dict.fromkeys(("train", "val", "heldout"), counts)}
    policies["blank"] = dict.fromkeys(names, "absent")
    splits = {split: {"": number} for split, number in (("train", 1648), ("val", 412), ("heldout", 400))}
    return dataflow(splits=splits, findings=labels | policies)


def make_findings_run(run: Path, names: tuple[str, ...] = FINDINGS, **parts: Any) -> Path:
    """Write a sound, complete run folder of findings; parts as of make_run, and those by finding.

    parts: tested, explained, probed: findings.json, explanation-by-finding.json and probes-by-finding.json.
    """
    of_classes = dict.fromkeys(("metrics", "explanation", "probes", "crossval", "hurdles"))
    contents = {
        "tested": findings_metrics(*(finding(name) for name in names)),
        "explained": findings_explanation(*(finding_explained(name, 3 * at) for at, name in enumerate(names))),
        "probed": findings_probes(names=names),
    }
    for name, file in {
        "tested": f"evaluation/{SET}/findings.json",
        "explained": f"explanation/{SET}/explanation-by-finding.json",
        "probed": "probes-by-finding.json",
    }.items():
        if (content := (contents | parts)[name]) is not None:
            put(run / file, content)
    others = {name: part for name, part in parts.items() if name not in contents}
    plain = {
        "summary": summary(classes=list(names), positive="", task="findings"), "dataflow": findings_dataflow(names),
    }  # fmt: skip
    return make_run(run, **of_classes | plain | others)


def hashed_formerly(run: Path) -> None:
    """Make a run's record one of before pixels were hashed by BLAKE3: other hashes, and no word of their kind."""
    tensors, state = load_checkpoint(run / "leakage.safetensors")
    del state["hash_algorithm"]
    changed = {name: 255 - rows if name.endswith("pixel_hash") else rows for name, rows in tensors.items()}
    save_checkpoint(run / "leakage.safetensors", changed, state)
