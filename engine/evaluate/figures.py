"""Figures of an evaluation: ROC, precision and recall, reliability, scores by true class; findings side by side."""

# N samples, P points of a curve, B bins

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.figures import COLOURS, FAINT, INK, OTHERS, STYLES, room, with_legend
from engine.statistics.calibration import Reliability, reliability
from engine.statistics.estimates import Estimate
from engine.statistics.names import value_text
from loaders.figure_text import wrap
from loaders.output import number_text
from loaders.statistics import wilson

MARKS = ("o", "s", "^", "D")
DOTTED = (0, (1, 2))
BINS = 25  # of the histogram
PANELS = (1, 2, 3, 3, 3, 3, 4)  # histograms side by side, by their number; 4 of more


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line of a figure.  x_P, y_P: its points, 0 to 1.  area: under it, if known.  base: precision by chance."""

    name: str
    x_P: np.ndarray
    y_P: np.ndarray
    area: float | None = None
    base: float = 0.0


Mark = tuple[str, float, float]  # an operating point in a figure: name, x and y


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """The scores of a class: the probability predicted for it (N,), and whether each sample is of it, bool (N,).

    threshold: from which it is predicted, if it has one of its own.
    """

    name: str
    score_N: np.ndarray
    is_class_N: np.ndarray
    threshold: float | None = None


def roc_figure(
    curves: Sequence[Curve], marks: Sequence[Mark], title: str, note: str = "", kinds: str = "classes"
) -> Figure:
    """Sensitivity over 1 − specificity, one line a class, the operating points marked.  kinds: what curves are of."""
    figure, axes = square(len(curves))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=DOTTED, label="chance")
    draw_curves(axes, curves, marks, kinds)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity")
    return with_legend(figure, title, note)


def pr_figure(
    curves: Sequence[Curve], marks: Sequence[Mark], title: str, note: str = "", kinds: str = "classes"
) -> Figure:
    """Precision over recall, one line a class, in the steps whose sum is PR-AUC; dotted: the class's prevalence."""
    figure, axes = square(len(curves))
    for curve, colour in zip(named(curves), COLOURS, strict=False):
        axes.axhline(curve.base, color=colour, linewidth=1, linestyle=DOTTED)
    axes.plot([], [], color=FAINT, linewidth=1, linestyle=DOTTED, label="chance")
    draw_curves(axes, curves, marks, kinds, drawstyle="steps-pre")
    axes.set(xlabel="recall (sensitivity)", ylabel="precision (PPV)")
    return with_legend(figure, title, note)


def reliability_figure(bins: Reliability, name: str, title: str, note: str = "") -> Figure:
    """A reliability diagram: observed frequency over predicted probability, in bins; below it, the samples of each bin.

    name: the event.  Whiskers are Wilson's intervals of each bin.
    """
    figure = Figure(figsize=(4.8, 6.2), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    style(axes)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=DOTTED, label="perfectly calibrated")
    draw_bins(axes, bins, name, 5)
    axes.set_ylabel("observed frequency")
    num_bins = len(bins.count_B)
    below.bar((np.arange(num_bins) + 0.5) / num_bins, bins.count_B, width=0.8 / num_bins, color=COLOURS[0])
    below.set(xlabel="predicted probability", ylabel="samples")
    below.yaxis.get_major_locator().set_params(integer=True)
    below.spines[["top", "right"]].set_visible(False)
    return with_legend(figure, title, note)


def score_figure(
    panels: Sequence[Panel],
    thresholds: Sequence[tuple[str, float]],
    title: str,
    note: str = "",
    labels: tuple[str, str] = ("samples of the class", "all other samples"),
) -> Figure:
    """Histograms of the predicted probability, of samples of the class and of all others, one panel a class.

    One panel counts samples.  Several show shares, since a class may be a small part of all.
    thresholds: operating points by name, drawn where there is one panel.  labels: of both where there are several.
    """
    alone = len(panels) == 1
    figure, every, columns = side_by_side(len(panels), (5.6, 4.2))
    edges = np.linspace(0, 1, BINS + 1)
    for place, (axes, panel) in enumerate(zip(every, panels, strict=True)):
        of_it, others = panel.score_N[panel.is_class_N], panel.score_N[~panel.is_class_N]
        of_label = f"{panel.name} (n = {len(of_it):,})" if alone else labels[0]
        other_label = f"not {panel.name} (n = {len(others):,})" if alone else labels[1]
        weights = [np.full(len(some_N), 1.0 if alone else 1 / max(1, len(some_N))) for some_N in (of_it, others)]
        axes.hist(of_it, edges, weights=weights[0], color=COLOURS[0], alpha=0.55, label=of_label)
        axes.hist(
            others, edges, weights=weights[1], histtype="step", color=COLOURS[1], linewidth=1.6, hatch="///",
            label=other_label,
        )  # fmt: skip
        if alone:
            axes.yaxis.get_major_locator().set_params(integer=True)
            for (point, threshold), line in zip(thresholds, STYLES, strict=False):
                axes.axvline(
                    threshold, color=INK, linewidth=1.1, linestyle=line, label=f"{point}: {number_text(threshold)}"
                )
            axes.set_xlabel(f"predicted probability of {panel.name}")
        else:
            if panel.threshold is not None:
                axes.axvline(panel.threshold, color=INK, linewidth=1.1, linestyle=STYLES[1], label="threshold")
            head_panel(figure, axes, panel.name, len(of_it), len(panel.score_N), columns)
            bottom = place + columns >= len(panels)
            axes.tick_params(labelsize=8, labelbottom=bottom)
            axes.set_xlabel("predicted probability" if bottom else "", fontsize=9)
        axes.set_xlim(-0.02, 1.02)
        axes.spines[["top", "right"]].set_visible(False)
        if place % columns == 0:
            axes.set_ylabel("samples" if alone else "share of samples", fontsize=10 if alone else 9)
    return with_legend(figure, title, note)


def calibration_figure(panels: Sequence[Panel], title: str, note: str = "") -> Figure:
    """Observed frequency over predicted probability, in bins, one panel a finding; whiskers are Wilson's intervals."""
    figure, every, columns = side_by_side(len(panels), (4.8, 5.2))
    for place, (axes, panel) in enumerate(zip(every, panels, strict=True)):
        style(axes)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=DOTTED, label="perfectly calibrated")
        draw_bins(axes, reliability(panel.score_N, panel.is_class_N), "observed, in ten bins", 3.5)
        head_panel(figure, axes, panel.name, int(panel.is_class_N.sum()), len(panel.score_N), columns)
        bottom = place + columns >= len(panels)
        axes.tick_params(labelsize=8, labelbottom=bottom, labelleft=place % columns == 0)
        axes.set_xlabel("predicted probability" if bottom else "", fontsize=9)
        axes.set_ylabel("" if place % columns else "observed frequency", fontsize=9)
    return with_legend(figure, title, note)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A line of a forest plot.  counts: the images behind it.  found: None where nothing is measured."""

    name: str
    counts: str
    found: Estimate | None


def forest_figure(mean: Interval, rows: Sequence[Interval], axis: str, title: str, note: str = "") -> Figure:
    """The AUC of each finding with its interval, the mean on top; those that are not measured say so."""
    lines = [mean, *rows]
    figure = Figure(figsize=(8, 2.0 + 0.3 * len(lines)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0.5, color=FAINT, linewidth=1, linestyle=DOTTED, label="guessing")
    for place, line in enumerate(lines):
        colour, marker = (COLOURS[0], "o") if place else (INK, "D")
        if line.found is None or line.found.value is None:
            axes.text(0.01, place, "not measured", va="center", color=FAINT, fontsize=8,
                      transform=axes.get_yaxis_transform())  # fmt: skip
            continue
        if line.found.low is not None and line.found.high is not None:
            axes.plot([line.found.low, line.found.high], [place] * 2, color=colour, linewidth=2, alpha=0.6)
        axes.plot([line.found.value], [place], marker, color=colour)
    axes.axhline(0.5, color=FAINT, linewidth=0.8)
    ends = (-0.6, len(lines) - 0.4)
    axes.set_yticks(range(len(lines)), labels=[line.name for line in lines], fontsize=8)
    axes.set(xlabel=f"{axis}, 95 % interval", xlim=(None, 1.01), ylim=ends[::-1])
    counts = axes.twinx()
    counts.set_yticks(range(len(lines)), labels=[line.counts for line in lines], fontsize=8)
    counts.set(ylim=ends[::-1])
    for one in (axes, counts):
        one.tick_params(axis="y", length=0)
        one.spines[["top", "right", "left"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    return with_legend(figure, title, note)


def side_by_side(num_panels: int, alone: tuple[float, float]) -> tuple[Figure, np.ndarray, int]:
    """A figure with so many axes, as an array, and how many are in a row.  alone: inches for a single one."""
    columns = PANELS[min(num_panels, len(PANELS)) - 1]
    rows = -(-num_panels // columns)
    size = alone if num_panels == 1 else (0.4 + columns * (3.4 if columns < 4 else 2.7), 1.3 + 2.3 * rows)
    figure = Figure(figsize=size, layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes in every[num_panels:]:
        axes.remove()
    return figure, every[:num_panels], columns


def head_panel(figure: Figure, axes: Axes, name: str, positives: int, count: int, columns: int) -> None:
    """The title of one of several axes: a name, and how many of its samples are positive."""
    lines = [*wrap(name, room(figure, 9) / columns * 0.8), f"n = {positives:,} of {count:,}"]
    axes.set_title("\n".join(lines), fontsize=9, color=INK)


def draw_bins(axes: Axes, bins: Reliability, label: str, size: float) -> None:
    """Observed frequencies of the bins that are not empty, with Wilson's intervals.  size: of a mark, in points."""
    full_B = bins.count_B > 0
    count_B, share_B, score_B = bins.count_B[full_B].astype(int), bins.share_B[full_B], bins.score_B[full_B]
    ends = [wilson(round(share * count), count) for share, count in zip(share_B, count_B, strict=True)]
    low_B, high_B = np.array(ends).reshape(-1, 2).T
    axes.vlines(score_B, low_B, high_B, color=COLOURS[0], alpha=0.5, linewidth=1.5)
    axes.plot(score_B, share_B, color=COLOURS[0], marker="o", markersize=size, label=label)


def square(num_curves: int) -> tuple[Figure, Axes]:
    """A figure with one square of axes from 0 to 1, and room for a legend of that many curves below it."""
    figure = Figure(figsize=(5.2, 5.9 + 0.1 * min(num_curves, len(COLOURS))), layout="constrained")
    axes = figure.subplots()
    style(axes)
    axes.set_aspect("equal")
    return figure, axes


def style(axes: Axes) -> None:
    """Axes from 0 to 1, quiet."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def named(curves: Sequence[Curve]) -> list[Curve]:
    """Those that have a colour and a name: all, or of many those of the least area, from the least on."""
    if len(curves) <= len(COLOURS):
        return list(curves)
    return sorted(curves, key=lambda curve: 1.0 if curve.area is None else curve.area)[: len(COLOURS)]


def draw_curves(
    axes: Axes, curves: Sequence[Curve], marks: Sequence[Mark], kinds: str, drawstyle: str = "default"
) -> None:
    """One line a curve, in grey those that have no name, and one mark an operating point.

    Marks are hollow, so that two at one place are both visible.
    """
    kept = named(curves)
    rest = [curve for curve in curves if not any(curve is one for one in kept)]
    for place, curve in enumerate(rest):
        label = "" if place else f"the {len(rest)} {kinds} of larger area"
        axes.plot(curve.x_P, curve.y_P, color=OTHERS, linewidth=0.9, drawstyle=drawstyle, label=label)
    for curve, colour, line in zip(kept, COLOURS, STYLES, strict=False):
        area = "" if curve.area is None else f": {value_text('auc', curve.area)}"
        axes.plot(
            curve.x_P, curve.y_P, color=colour, linestyle=line, linewidth=1.8, label=curve.name + area,
            drawstyle=drawstyle,
        )  # fmt: skip
    for place, (name, x, y) in enumerate(marks):
        axes.plot(
            [x], [y], color=INK, marker=MARKS[place % len(MARKS)], markersize=6 + 3 * place,
            markerfacecolor="none", linestyle="none", label=f"threshold {name}",
        )  # fmt: skip
