"""The tables of a run's page, each cell as it is shown."""

import shlex
from dataclasses import dataclass
from typing import Any

from engine.config import TrainConfig
from engine.crossval.scores import Target
from engine.report.results import EvaluatedSet, RunResults, upper_first
from engine.statistics.estimates import UNDEFINED, Estimate
from engine.statistics.names import (
    CALIBRATION,
    RESULTS,
    difference_texts,
    fewer_classes,
    interval_text,
    metric_of,
    over_classes,
    value_text,
)
from loaders.output import share_text
from loaders.settings import flag_of, settings_of

BY_CLASS = ("sensitivity", "ppv", "f1", "auc", "pr_auc")
POINTS = ("sensitivity", "specificity", "ppv", "npv")
TARGET_NOTES: dict[Target, str] = {
    "random": "images dealt at random: what most papers report",
    "group": "no patient on both sides: the honest one",
    "lungs-hidden": "group split, whole films with the lungs covered: what else predicts the classes",
    "lungs-hole": "the same, but each film’s own lungs covered, whose outline shows",
    "lungs-only": "group split, the lungs in place and all else blank",
    "silhouette": "group split, the outline of the lungs in place, without a pixel inside",
    "boxed": "group split, the lungs stretched to one size, their grey levels equalised",
    "boxed-silhouette": "group split, the outline of the lungs stretched to one size, without a pixel inside",
    "external": "films from elsewhere: an honest one where no source is shared with training",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A number as it is shown.  value, low, high, trivial: for the chart, None where there is none.

    over, trivial_over: the number of classes of a mean that leaves classes out, else "".
    """

    text: str
    interval: str = ""
    over: str = ""
    trivial_over: str = ""
    trivial_text: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    trivial: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricRow:
    """One metric of one set."""

    name: str
    meaning: str
    cell: Cell


def make_cell(key: str, found: Estimate, trivial: Estimate = UNDEFINED) -> Cell:
    """One estimate, its interval and the trivial classifier's value; over how many classes, where that is not all."""
    fewer, fewer_trivial = (fewer_classes(measured) for measured in (found, trivial))
    return Cell(
        text="–" if found.value is None else value_text(key, found.value),
        interval="" if found.low is None else interval_text(key, found),
        over=fewer,
        trivial_text="–" if trivial.value is None else value_text(key, trivial.value),
        trivial_over=fewer_trivial if trivial.value is not None else "",
        value=found.value,
        low=found.low,
        high=found.high,
        trivial=trivial.value,
    )


def meaning_of(key: str, found: Estimate, num_classes: int) -> str:
    """What a metric of a set means: of more than two classes, over how many a mean is."""
    metric = metric_of(key)
    if num_classes <= 2:
        over = fewer_classes(found)
        return f"{metric.meaning}: {over}" if over else metric.meaning
    over, meaning = over_classes(found), metric.mean_of or metric.meaning
    return f"mean {over}: {meaning}" if over else meaning


def shown_keys(found: dict[str, Estimate], keys: tuple[str, ...], num_classes: int) -> list[str]:
    """The metrics that a set has, of those keys; of more than two classes F1 itself is the macro mean."""
    return [key for key in keys if key in found and not (key == "f1_macro" and num_classes > 2)]


def metric_rows(tested: EvaluatedSet, keys: tuple[str, ...]) -> list[MetricRow]:
    """The metrics that this set has, of those keys."""
    rows, result = [], tested.metrics
    for key in shown_keys(result.estimates, keys, tested.num_classes):
        meaning = meaning_of(key, result.estimates[key], tested.num_classes)
        if key.endswith("_at_prevalence") and result.stated_prevalence is not None:
            meaning = f"at a prevalence of {share_text(result.stated_prevalence)}, as stated"
        cell = make_cell(key, result.estimates[key], tested.trivial(key))
        rows.append(MetricRow(name=upper_first(metric_of(key).name), meaning=meaning, cell=cell))
    return rows


def class_keys(tested: EvaluatedSet) -> list[str]:
    """The metrics of BY_CLASS that any class has."""
    places = range(tested.num_classes)
    return [key for key in BY_CLASS if any(tested.estimate(f"{key}[{place}]").value is not None for place in places)]


def difference_rows(tested: EvaluatedSet) -> list[MetricRow]:
    """What this run does better (above 0) or worse than another, on the same resamples; nothing without another."""
    rows, difference = [], tested.metrics.difference
    found = difference.estimates if difference else {}
    for key in shown_keys(found, (*RESULTS, *CALIBRATION), tested.num_classes):
        if found[key].value is not None:
            text, between = difference_texts(key, found[key])
            fewer = fewer_classes(found[key])
            cell = Cell(text=text, interval="" if found[key].low is None else between, over=fewer)
            meaning = meaning_of(key, found[key], tested.num_classes)
            rows.append(MetricRow(name=upper_first(metric_of(key).name), meaning=meaning, cell=cell))
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
        "hurdles": "python cli.py hurdles BETONS OTHER --out HURDLES\npython cli.py report RUN --hurdles HURDLES",
    }
