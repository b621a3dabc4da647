"""Figures of an evaluation: ROC, precision and recall, reliability, and the scores by true class."""

# N samples, P points of a curve, B bins

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.figures import FAINT, INK, room, with_legend
from engine.statistics.calibration import Reliability
from engine.statistics.names import value_text
from loaders.figure_text import wrap
from loaders.output import number_text
from loaders.statistics import wilson

# Okabe and Ito's colours, which people of every colour vision tell apart; line styles and marks differ as well
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (8, 2, 2, 2, 2, 2)), (0, (1, 1, 4, 1)))  # as many as colours
MARKS = ("o", "s", "^", "D")
OTHERS = "#c4c4c4"
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
    """The scores of a class: the probability predicted for it (N,), and whether each sample is of it, bool (N,)."""

    name: str
    score_N: np.ndarray
    is_class_N: np.ndarray


def roc_figure(curves: Sequence[Curve], marks: Sequence[Mark], title: str, note: str = "") -> Figure:
    """Sensitivity over 1 − specificity, one line a class, the operating points marked."""
    figure, axes = square(len(curves))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=DOTTED, label="chance")
    draw_curves(axes, curves, marks)
    axes.set(xlabel="1 − specificity", ylabel="sensitivity")
    return with_legend(figure, title, note)


def pr_figure(curves: Sequence[Curve], marks: Sequence[Mark], title: str, note: str = "") -> Figure:
    """Precision over recall, one line a class, in the steps whose sum is PR-AUC; dotted: the class's prevalence."""
    figure, axes = square(len(curves))
    for curve, colour in zip(named(curves), COLOURS, strict=False):
        axes.axhline(curve.base, color=colour, linewidth=1, linestyle=DOTTED)
    axes.plot([], [], color=FAINT, linewidth=1, linestyle=DOTTED, label="chance")
    draw_curves(axes, curves, marks, drawstyle="steps-pre")
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
    full_B = bins.count_B > 0
    count_B, share_B, score_B = bins.count_B[full_B].astype(int), bins.share_B[full_B], bins.score_B[full_B]
    ends = [wilson(round(share * count), count) for share, count in zip(share_B, count_B, strict=True)]
    low_B, high_B = np.array(ends).reshape(-1, 2).T
    axes.vlines(score_B, low_B, high_B, color=COLOURS[0], alpha=0.5, linewidth=1.5)
    axes.plot(score_B, share_B, color=COLOURS[0], marker="o", markersize=5, label=name)
    axes.set_ylabel("observed frequency")
    num_bins = len(bins.count_B)
    below.bar((np.arange(num_bins) + 0.5) / num_bins, bins.count_B, width=0.8 / num_bins, color=COLOURS[0])
    below.set(xlabel="predicted probability", ylabel="samples")
    below.yaxis.get_major_locator().set_params(integer=True)
    below.spines[["top", "right"]].set_visible(False)
    return with_legend(figure, title, note)


def score_figure(
    panels: Sequence[Panel], thresholds: Sequence[tuple[str, float]], title: str, note: str = ""
) -> Figure:
    """Histograms of the predicted probability, of samples of the class and of all others, one panel a class.

    One panel counts samples.  Several show shares, since a class may be a small part of all.
    thresholds: operating points by name, drawn where there is one panel.
    """
    alone = len(panels) == 1
    columns = PANELS[min(len(panels), len(PANELS)) - 1]
    rows = -(-len(panels) // columns)
    size = (5.6, 4.2) if alone else (0.4 + columns * (3.4 if columns < 4 else 2.7), 1.3 + 2.3 * rows)
    figure = Figure(figsize=size, layout="constrained")
    edges = np.linspace(0, 1, BINS + 1)
    every = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes in every[len(panels) :]:
        axes.remove()
    for place, (axes, panel) in enumerate(zip(every, panels, strict=False)):
        of_it, others = panel.score_N[panel.is_class_N], panel.score_N[~panel.is_class_N]
        of_label = f"{panel.name} (n = {len(of_it):,})" if alone else "samples of the class"
        other_label = f"not {panel.name} (n = {len(others):,})" if alone else "all other samples"
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
            lines = wrap(panel.name, room(figure, 9) / columns * 0.8)
            lines += [f"n = {len(of_it):,} of {len(panel.score_N):,}"]
            axes.set_title("\n".join(lines), fontsize=9, color=INK)
            axes.tick_params(labelsize=8, labelbottom=place + columns >= len(panels))
            axes.set_xlabel("predicted probability" if place + columns >= len(panels) else "", fontsize=9)
        axes.set_xlim(-0.02, 1.02)
        axes.spines[["top", "right"]].set_visible(False)
        if place % columns == 0:
            axes.set_ylabel("samples" if alone else "share of samples", fontsize=10 if alone else 9)
    return with_legend(figure, title, note)


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


def draw_curves(axes: Axes, curves: Sequence[Curve], marks: Sequence[Mark], drawstyle: str = "default") -> None:
    """One line a curve, in grey those that have no name, and one mark an operating point.

    Marks are hollow, so that two at one place are both visible.
    """
    kept = named(curves)
    rest = [curve for curve in curves if not any(curve is one for one in kept)]
    for place, curve in enumerate(rest):
        label = "" if place else f"the {len(rest)} classes of larger area"
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
