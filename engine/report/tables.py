"""The tables of a run's page, each cell as it is shown."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, replace
from typing import Any

from engine.config import TrainConfig
from engine.crossval.output import TARGETS, not_measured
from engine.crossval.scores import Crossval, Target
from engine.report.results import EvaluatedSet, RunResults, interval_text, plain_text, share_text
from engine.statistics.estimates import UNDEFINED, Estimate
from engine.statistics.names import fewer_words, over_words
from loaders.settings import flag_of, settings_of

METRICS = {  # name → what it is called, what it means for two classes, whether it is a share
    "accuracy": ("Accuracy", "images called rightly", True),
    "sensitivity": ("Sensitivity", "of the positive class, called so", True),
    "specificity": ("Specificity", "of the others, not called so", True),
    "ppv": ("Positive predictive value", "at this set’s prevalence", True),
    "npv": ("Negative predictive value", "at this set’s prevalence", True),
    "ppv_at_prevalence": ("Positive predictive value", "at the stated prevalence", True),
    "npv_at_prevalence": ("Negative predictive value", "at the stated prevalence", True),
    "f1": ("F1", "harmonic mean of sensitivity and predictive value", False),
    "f1_macro": ("F1, macro", "mean over the classes", False),
    "auc": ("ROC-AUC", "a positive ranks above another; 0.5 is guessing", False),
    "pr_auc": ("PR-AUC", "mean precision; guessing gives the prevalence", False),
}
CALIBRATION = {
    "brier": ("Brier score", "mean squared error of the probability; 0 is perfect", False),
    "ece": ("Expected calibration error", "mean gap between probability and frequency", False),
    "calibration_slope": ("Calibration slope", "1 is right; below 1, too extreme", False),
    "calibration_intercept": ("Calibration intercept", "0 is right; below 0, too high", False),
}
OF_CLASSES = {  # what a mean over more than two classes is the mean of; of ece and brier, what they are then
    "sensitivity": "of the images of a class, those predicted as it",
    "specificity": "of the images of other classes, those not predicted as it",
    "ppv": "of the images predicted as a class, those of it",
    "npv": "of the images not called a class, those not of it",
    "f1": "harmonic mean of a class’s sensitivity and predictive value",
    "auc": "an image of a class ranks above another; 0.5 is guessing",
    "pr_auc": "a class’s mean precision; guessing gives its prevalence",
    "brier": "squared error of the probabilities, summed over the classes; 0 is perfect",
    "ece": "mean gap between the highest probability and how often its class is right",
}
SAME = "f1_macro"  # of more than two classes F1 itself
BY_CLASS = {"sensitivity": "Sensitivity", "ppv": "PPV", "f1": "F1", "auc": "ROC-AUC", "pr_auc": "PR-AUC"}
SHARES = ("Sensitivity", "PPV")
POINTS = ("sensitivity", "specificity", "ppv", "npv")
SUBGROUP = ("accuracy", "sensitivity", "specificity", "auc")
TARGET_NOTES: dict[Target, str] = {
    "random": "images dealt at random: what most papers report",
    "group": "no patient on both sides: the honest one",
    "lungs-hidden": "group split, whole films with the lungs covered: what else predicts the classes",
    "external": "another collection",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A number as it is shown.  value, low, high, trivial: for the chart, NaN where there is none.

    over, trivial_over: the number of classes of a mean that leaves classes out, else "".
    """

    text: str
    interval: str = ""
    over: str = ""
    trivial_over: str = ""
    trivial_text: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    trivial: float = math.nan


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRow:
    """One metric of one set."""

    name: str
    meaning: str
    cell: Cell


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """A row by name: of operating points, subgroups, classes or splits.  note: small print below the name."""

    name: str
    note: str
    texts: tuple[str, ...]
    cells: tuple[Cell, ...]
    refused: str = ""


def make_cell(found: Estimate, share: bool, trivial: Estimate = UNDEFINED) -> Cell:
    """One estimate, its interval and the trivial classifier's value; over how many classes, where that is not all."""

    def shown(value: float | None) -> str:
        return share_text(value) if share else plain_text(value)

    def placed(value: float | None) -> float:
        return math.nan if value is None else value

    fewer, fewer_trivial = (fewer_words(measured.defined, measured.classes) for measured in (found, trivial))
    return Cell(
        text=shown(found.value),
        interval=interval_text(found, share),
        over=fewer,
        trivial_text=shown(trivial.value),
        trivial_over=fewer_trivial if trivial.value is not None else "",
        value=placed(found.value),
        low=placed(found.low),
        high=placed(found.high),
        trivial=placed(trivial.value),
    )


def meaning_of(name: str, meaning: str, found: Estimate, num_classes: int) -> str:
    """What a metric of a set means: of more than two classes, over how many a mean is.  meaning: for two classes."""
    if num_classes <= 2:
        over = fewer_words(found.defined, found.classes)
        return f"{meaning}: {over}" if over else meaning
    meaning = OF_CLASSES.get(name, meaning)
    over = over_words(found.defined, found.classes)
    return f"mean {over}: {meaning}" if over else meaning


def metric_rows(tested: EvaluatedSet, names: dict[str, tuple[str, str, bool]]) -> list[MetricRow]:
    """The metrics that this set has, of those named."""
    rows = []
    for name, (called, meaning, share) in names.items():
        found, stated = tested.metrics.estimates.get(name), tested.metrics.stated_prevalence
        if found is None or (name == SAME and tested.num_classes > 2):
            continue
        if name.endswith("_at_prevalence") and stated is not None:
            meaning = f"at a prevalence of {share_text(stated)}, as stated"
        meaning = meaning_of(name, meaning, found, tested.num_classes)
        rows.append(MetricRow(name=called, meaning=meaning, cell=make_cell(found, share, tested.trivial(name))))
    return rows


def class_table(tested: EvaluatedSet) -> tuple[list[str], list[TableRow]]:
    """What is known of each class against the rest: the measures' names, and a row a class."""
    classes = tested.metrics.classes
    found = {
        called: [tested.estimate(f"{metric}[{place}]") for place in range(len(classes))]
        for metric, called in BY_CLASS.items()
    }
    found = {called: column for called, column in found.items() if any(cell.value is not None for cell in column)}
    rows = [
        TableRow(
            name=name,
            note="",
            texts=(f"{sum(tested.metrics.confusion[place]):,}",),
            cells=tuple(make_cell(column[place], share=called in SHARES) for called, column in found.items()),
        )
        for place, name in enumerate(classes)
    ]
    return list(found), rows if found else []


def point_rows(tested: EvaluatedSet) -> list[TableRow]:
    """The operating points, refused ones with their reason."""
    return [
        TableRow(
            name=point.name,
            note="",
            texts=(plain_text(point.threshold),),
            cells=tuple(make_cell(point.estimates.get(name, UNDEFINED), share=True) for name in POINTS),
            refused=point.refused,
        )
        for point in tested.metrics.operating_points
    ]


def subgroup_rows(tested: EvaluatedSet) -> list[TableRow]:
    """Sources, views and flags."""
    return [
        TableRow(
            name=part.name or "unknown",
            note=part.kind,
            texts=tuple(f"{number:,}" for number in (part.num_samples, part.num_groups, part.num_positives)),
            cells=tuple(make_cell(part.estimates.get(name, UNDEFINED), share=name != "auc") for name in SUBGROUP),
            refused=part.refused,
        )
        for part in tested.metrics.subgroups
    ]


def difference_rows(tested: EvaluatedSet) -> list[MetricRow]:
    """What this run does better (above 0) or worse than another, on the same resamples; nothing without another."""
    rows, difference = [], tested.metrics.difference
    for name, (called, meaning, _) in {**METRICS, **CALIBRATION}.items():
        found = difference.estimates.get(name, UNDEFINED) if difference else UNDEFINED
        if found.value is not None and not (name == SAME and tested.num_classes > 2):
            meaning = meaning_of(name, meaning, found, tested.num_classes)
            rows.append(MetricRow(name=called, meaning=meaning, cell=make_cell(found, share=False)))
    return rows


def target_rows(crossval: Crossval) -> list[TableRow]:
    """Cross-validation's headline and honest scores, side by side."""
    rows, missing = [], not_measured(crossval)
    for target, name in TARGETS.items():
        found, row = crossval.target(target), TableRow(name=name, note=TARGET_NOTES[target], texts=(), cells=())
        if found is None:
            rows.append(replace(row, refused=missing[target]))
            continue
        texts = (f"{found.num_samples:,}", f"{found.num_groups:,}", plain_text(found.f1.spread))
        metrics = ((found.f1, False), (found.auc, False), (found.accuracy, True))
        rows.append(replace(row, texts=texts, cells=tuple(make_cell(each.estimate, share) for each, share in metrics)))
    return rows


def train_command(config: dict[str, Any]) -> str:
    """The command that repeats the training: what differs from the defaults, quoted for a shell; "" if not known.

    Where the betons and the run lie is nobody's business but their owner's: both are placeholders.
    """
    if not config:
        return ""
    parts = ["python", "cli.py", "train", "BETONS", "--out", "RUN"]
    for setting in settings_of(TrainConfig):
        value = config.get(setting.name)
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        if setting.name in ("data", "out") or setting.name not in config or value == default or value is None:
            continue
        if isinstance(value, bool):
            parts.append(flag_of(setting) if value else "--no-" + flag_of(setting)[2:])
        else:
            parts += [flag_of(setting), ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return shlex.join(parts)


def commands(results: RunResults) -> dict[str, str]:
    """The command that makes each part of the page."""
    return {
        "train": train_command(results.config),
        "evaluate": "python cli.py evaluate RUN BETONS/heldout.beton",
        "evaluate_other": "python cli.py evaluate RUN OTHER/heldout.beton",
        "explain": "python cli.py explain RUN BETONS/heldout.beton",
        "explain_other": "python cli.py explain RUN OTHER/heldout.beton",
        "audit": "python cli.py audit OTHER/heldout.beton --out AUDIT",
        "report": "python cli.py report RUN --data BETONS",
        "crossval": "python cli.py crossval BETONS --out FOLDS\npython cli.py report RUN --crossval FOLDS",
    }
