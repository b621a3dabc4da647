"""The sets that a run was evaluated on, as its page shows them."""

from __future__ import annotations

from dataclasses import dataclass

from engine.report.material import Scored, count_in, find, number_in, text_in, texts_in
from engine.report.numbers import counted, plain_text, share_text
from engine.report.tables import (
    CALIBRATION,
    METRICS,
    MetricRow,
    TableRow,
    class_table,
    confusion_rows,
    difference_rows,
    metric_rows,
    point_rows,
    subgroup_rows,
)
from engine.report.verdict import largest_class
from engine.statistics.calibration import TEMPERATURES


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownSet:
    """One evaluation as the page shows it."""

    scored: Scored
    what: str
    classes: int
    largest: str
    metrics: list[MetricRow]
    intervals: str
    by_class: tuple[list[str], list[TableRow]]
    points: list[TableRow]
    matrix: list[tuple[str, list[int], int]]
    calibration: list[MetricRow]
    temperature: str
    at_bound: bool
    subgroups: list[TableRow]
    against: str
    difference: list[MetricRow]


def show_set(scored: Scored) -> ShownSet:
    """An evaluation, table by table."""
    content = scored.content
    number, groups = count_in(content, "num_samples"), count_in(content, "num_groups")
    noun = "phantom" if content.get("synthetic") is True else "radiograph"
    split = text_in(content, "split")
    parts = [counted(number, noun) if number is not None else "An unknown number of images"]
    if groups is not None:
        parts[0] += f" in {counted(groups, 'group')}"
    parts.append(f"split {split} of conversion {text_in(content, 'conversion_id')[:12] or 'unknown'}")
    prevalence = number_in(content, "prevalence", "set")
    if prevalence is not None:
        parts.append(f"{share_text(prevalence)} are {text_in(content, 'positive') or 'of the positive class'}")
    metrics = metric_rows(scored, METRICS)
    resamples = count_in(content, "resamples")
    intervals = "This evaluation is of a release that computed no intervals: evaluate again."
    if any(row.cell.interval for row in metrics):
        drawn = f" in {resamples:,} resamples" if resamples else ""
        intervals = (
            f"Intervals by bootstrap over groups{drawn}; Wilson’s where a share is 0 or 1; none where groups are too "
            "few for one. They tell how far other patients of the same kind would move a value, not how far other "
            "hospitals would."
        )
    return ShownSet(
        scored=scored,
        what="; ".join(parts) + ".",
        classes=len(texts_in(content, "classes")),
        largest=largest_class(scored),
        metrics=metrics,
        intervals=intervals,
        by_class=class_table(scored),
        points=point_rows(scored),
        matrix=confusion_rows(scored),
        calibration=metric_rows(scored, CALIBRATION),
        temperature=plain_text(number_in(content, "temperature"), 2) if find(content, "temperature") else "",
        at_bound=number_in(content, "temperature") in TEMPERATURES,
        subgroups=subgroup_rows(scored),
        against=text_in(content, "difference", "against"),
        difference=difference_rows(scored),
    )
