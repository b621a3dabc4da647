"""The tables of a run's page, each cell as it is shown."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from typing import Any

from engine.config import TrainConfig
from engine.report.red_flags import class_counts
from engine.report.results import (
    Material,
    Measured,
    Scored,
    count_in,
    dict_in,
    dicts_in,
    interval_text,
    measured_in,
    number_in,
    plain_text,
    share_text,
    text_in,
    texts_in,
)
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
ROWS = {  # of the cross-validation → what it is
    "random split": "images dealt at random: what most papers report",
    "group split": "no patient on both sides: the honest one",
    "lungs hidden": "group split, whole films with the lungs covered: what else tells the classes",
    "external beton": "another collection",
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


def make_cell(found: Measured, share: bool, trivial: Measured | None = None) -> Cell:
    """One estimate, its interval and the trivial classifier's value; over how many classes, where that is not all."""
    least = trivial or Measured()

    def shown(value: float | None) -> str:
        return share_text(value) if share else plain_text(value)

    def placed(value: float | None) -> float:
        return math.nan if value is None else value

    fewer, fewer_least = (fewer_words(measured.defined, measured.classes) for measured in (found, least))
    return Cell(
        text=shown(found.value),
        interval=interval_text(found, share),
        over=fewer,
        trivial_text=shown(least.value),
        trivial_over=fewer_least if least.value is not None else "",
        value=placed(found.value),
        low=placed(found.low),
        high=placed(found.high),
        trivial=placed(least.value),
    )


def meaning_of(name: str, meaning: str, found: Measured, num_classes: int) -> str:
    """What a metric of a set means: of more than two classes, over how many a mean is.  meaning: for two classes."""
    if num_classes <= 2:
        over = fewer_words(found.defined, found.classes)
        return f"{meaning}: {over}" if over else meaning
    meaning = OF_CLASSES.get(name, meaning)
    over = over_words(found.defined, found.classes)
    return f"mean {over}: {meaning}" if over else meaning


def metric_rows(scored: Scored, names: dict[str, tuple[str, str, bool]]) -> list[MetricRow]:
    """The metrics that this set has, of those named."""
    rows = []
    for name, (called, meaning, share) in names.items():
        found = scored.estimate(name)
        told = dict_in(scored.content, "estimates")
        if (found.value is None and name not in told) or (name == SAME and scored.num_classes > 2):
            continue
        stated = number_in(scored.content, "prevalence", "stated")
        if name.endswith("_at_prevalence") and stated is not None:
            meaning = f"at a prevalence of {share_text(stated)}, as stated"
        meaning = meaning_of(name, meaning, found, scored.num_classes)
        rows.append(MetricRow(name=called, meaning=meaning, cell=make_cell(found, share, scored.trivial(name))))
    return rows


def class_table(scored: Scored) -> tuple[list[str], list[TableRow]]:
    """What is known of each class against the rest: the measures' names, and a row a class."""
    counts = class_counts(scored)
    names = texts_in(scored.content, "classes")
    estimates = dict_in(scored.content, "estimates")
    found = {
        called: [measured_in(estimates.get(f"{metric}[{place}]")) for place in range(len(names))]
        for metric, called in BY_CLASS.items()
    }
    found = {called: column for called, column in found.items() if any(cell.value is not None for cell in column)}
    rows = [
        TableRow(
            name=name,
            note="",
            texts=(f"{counts[name]:,}" if name in counts else "–",),
            cells=tuple(make_cell(column[place], share=called in SHARES) for called, column in found.items()),
        )
        for place, name in enumerate(names)
    ]
    return list(found), rows if found else []


def point_rows(scored: Scored) -> list[TableRow]:
    """The operating points, refused ones with their reason."""
    rows = []
    for point in dicts_in(scored.content, "operating_points"):
        threshold = number_in(point, "threshold")
        estimates = dict_in(point, "estimates")
        rows.append(
            TableRow(
                name=text_in(point, "name"),
                note="",
                texts=(plain_text(threshold),),
                cells=tuple(make_cell(measured_in(estimates.get(name)), share=True) for name in POINTS),
                refused=text_in(point, "refused"),
            )
        )
    return rows


def subgroup_rows(scored: Scored) -> list[TableRow]:
    """Sources, views and flags."""
    rows = []
    for part in dicts_in(scored.content, "subgroups"):
        numbers = [count_in(part, name) for name in ("n", "groups", "positives")]
        estimates = dict_in(part, "estimates")
        rows.append(
            TableRow(
                name=text_in(part, "name") or "unknown",
                note=text_in(part, "kind"),
                texts=tuple("–" if number is None else f"{number:,}" for number in numbers),
                cells=tuple(make_cell(measured_in(estimates.get(name)), share=name != "auc") for name in SUBGROUP),
                refused=text_in(part, "refused"),
            )
        )
    return rows


def difference_rows(scored: Scored) -> list[MetricRow]:
    """What a second run does better (above 0) or worse, on the same resamples; nothing where none was asked for."""
    rows = []
    for name, (called, meaning, _) in {**METRICS, **CALIBRATION}.items():
        found = measured_in(dict_in(scored.content, "difference", "estimates", name))
        if found.value is not None and not (name == SAME and scored.num_classes > 2):
            meaning = meaning_of(name, meaning, found, scored.num_classes)
            rows.append(MetricRow(name=called, meaning=meaning, cell=make_cell(found, share=False)))
    return rows


def split_rows(crossval: dict[str, Any]) -> list[TableRow]:
    """Cross-validation's headline and honest scores, side by side."""
    rows = []
    for row in dicts_in(crossval, "rows"):
        numbers = [count_in(row, name) for name in ("n", "groups")]
        spread = number_in(row, "spread")
        name = text_in(row, "name")
        rows.append(
            TableRow(
                name=name,
                note=ROWS.get(name, ""),
                texts=(*("–" if number is None else f"{number:,}" for number in numbers), plain_text(spread)),
                cells=tuple(
                    make_cell(measured_in(dict_in(row, metric)), share=metric == "accuracy")
                    for metric in ("f1", "auc", "accuracy")
                ),
                refused=text_in(row, "why"),
            )
        )
    return rows


def confusion_rows(scored: Scored) -> list[tuple[str, list[int], int]]:
    """True class, how often each class was said, and the sum; nothing where the matrix is damaged."""
    counts, rows = class_counts(scored), []
    for name, row in zip(counts, scored.content.get("confusion", []) if counts else [], strict=True):
        rows.append((name, [int(cell) for cell in row], counts[name]))
    square = all(len(cells) == len(rows) for _, cells, _ in rows)
    return rows if square else []


def train_command(config: dict[str, Any]) -> str:
    """The command that repeats the training: what differs from the defaults, quoted for a shell; "" if not known.

    Where the betons and the run lie is nobody's business but their owner's: both are placeholders.
    """
    if not config:
        return ""
    words = ["python", "cli.py", "train", "BETONS", "--out", "RUN"]
    for setting in settings_of(TrainConfig):
        value = config.get(setting.name)
        default = list(setting.default) if isinstance(setting.default, tuple) else setting.default
        if setting.name in ("data", "out") or setting.name not in config or value == default or value is None:
            continue
        if isinstance(value, bool):
            words.append(flag_of(setting) if value else "--no-" + flag_of(setting)[2:])
        else:
            words += [flag_of(setting), ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return shlex.join(words)


def commands(material: Material) -> dict[str, str]:
    """The command that makes each part of the page."""
    return {
        "train": train_command(material.config),
        "evaluate": "python cli.py evaluate RUN BETONS/heldout.beton",
        "evaluate_other": "python cli.py evaluate RUN OTHER/heldout.beton",
        "explain": "python cli.py explain RUN BETONS/heldout.beton",
        "explain_other": "python cli.py explain RUN OTHER/heldout.beton",
        "audit": "python cli.py audit OTHER/heldout.beton --out AUDIT",
        "report": "python cli.py report RUN --data BETONS",
        "crossval": "python cli.py crossval BETONS --out FOLDS\npython cli.py report RUN --crossval FOLDS",
    }
