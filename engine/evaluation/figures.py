"""Figures of an evaluation: ROC, precision and recall, reliability, and the scores by true class."""

# N samples, P points of a curve, B bins

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from engine.figures import INK, literal, png
from engine.statistics.calibration import Reliability
from loaders.audit.intervals import wilson

# Okabe and Ito's colours, which people of every colour vision tell apart; line styles and marks differ as well
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":")
MARKS = ("o", "s", "^", "D")
FAINT = "#888888"
BINS = 25  # of the histogram
ACROSS = 3  # histograms side by side
LEGEND: dict[str, Any] = {"fontsize": 8, "edgecolor": "none", "framealpha": 0.85}


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A line of a figure.  x_P, y_P: its points, 0 to 1.  base: the height that is reached without any knowledge."""

    name: str
    x_P: np.ndarray
    y_P: np.ndarray
    base: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """An operating point in a figure."""

    name: str
    x: float
    y: float


def roc_figure(curves: Sequence[Curve], marks: Sequence[Mark], title: str) -> bytes:
    """Sensitivity over 1 − specificity, one line a class, the operating points marked."""
    figure, axes = square(title)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (1, 2)), label="no knowledge")
    draw_curves(axes, curves)
    draw_marks(axes, marks)
    axes.set_xlabel("1 − specificity")
    axes.set_ylabel("sensitivity")
    axes.legend(**LEGEND, loc="lower right")
    return png(figure)


def pr_figure(curves: Sequence[Curve], marks: Sequence[Mark], title: str) -> bytes:
    """Precision over recall, one line a class, in the steps whose sum is PR-AUC; dotted: the share of the class."""
    figure, axes = square(title)
    for place, curve in enumerate(curves):
        axes.axhline(curve.base, color=COLOURS[place % len(COLOURS)], linewidth=1, linestyle=(0, (1, 2)))
    draw_curves(axes, curves, drawstyle="steps-pre")
    draw_marks(axes, marks)
    axes.plot([], [], color=FAINT, linewidth=1, linestyle=(0, (1, 2)), label="no knowledge")
    axes.set_xlabel("recall (sensitivity)")
    axes.set_ylabel("precision (PPV)")
    axes.legend(**LEGEND, loc="lower left")
    return png(figure)


def reliability_figure(bins: Reliability, name: str, title: str) -> bytes:
    """How often what was said came true over the probability said, in bins; below it, how many samples each bin has.

    name: what was said.  Whiskers are Wilson's intervals of each bin.
    """
    figure = Figure(figsize=(4.8, 5.6), layout="constrained")
    axes, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    style(axes, title)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (1, 2)), label="perfectly calibrated")
    full_B = bins.count_B > 0
    count_B, share_B, score_B = bins.count_B[full_B].astype(int), bins.share_B[full_B], bins.score_B[full_B]
    ends = [wilson(round(share * count), count) for share, count in zip(share_B, count_B, strict=True)]
    low_B, high_B = np.array(ends).reshape(-1, 2).T
    axes.vlines(score_B, low_B, high_B, color=COLOURS[0], alpha=0.5, linewidth=1.5)
    axes.plot(score_B, share_B, color=COLOURS[0], marker="o", markersize=5, label=literal(name))
    axes.set_ylabel("share that came true")
    axes.legend(**LEGEND, loc="upper left")
    num_bins = len(bins.count_B)
    below.bar((np.arange(num_bins) + 0.5) / num_bins, bins.count_B, width=0.8 / num_bins, color=COLOURS[0])
    below.set_xlabel("probability said")
    below.set_ylabel("samples")
    below.yaxis.get_major_locator().set_params(integer=True)
    below.spines[["top", "right"]].set_visible(False)
    return png(figure)


def score_figure(
    scores: Sequence[tuple[str, np.ndarray, np.ndarray]], thresholds: Sequence[tuple[str, float]], title: str
) -> bytes:
    """How often each probability is said, of samples of the class and of others.

    scores: for each panel the class, the probability said of it (N,), and whether each sample is of it, bool (N,).
    thresholds: operating points by name, drawn where there is one panel.
    """
    columns = min(len(scores), ACROSS)
    rows = -(-len(scores) // columns)
    figure = Figure(figsize=(1.2 + 4.4 * columns, 0.4 + 3.2 * rows), layout="constrained")
    edges = np.linspace(0, 1, BINS + 1)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(scores) :]:
        axes.set_visible(False)
    for axes, (class_name, score_N, is_class_N) in zip(panels, scores, strict=False):
        name = literal(class_name)
        of_it, others = score_N[is_class_N], score_N[~is_class_N]
        axes.hist(of_it, edges, color=COLOURS[0], alpha=0.55, label=f"{name} (n = {len(of_it):,})")
        axes.hist(
            others, edges, histtype="step", color=COLOURS[1], linewidth=1.6, hatch="///",
            label=f"not {name} (n = {len(others):,})",
        )  # fmt: skip
        if len(scores) == 1:
            for place, (point, threshold) in enumerate(thresholds):
                axes.axvline(
                    threshold, color=INK, linewidth=1.1, linestyle=STYLES[place % len(STYLES)],
                    label=f"{point}: {threshold:.3g}",
                )  # fmt: skip
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(f"probability of {name}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(y=0.25)
        axes.legend(**LEGEND, loc="upper center", ncols=2 if len(scores) == 1 else 1)
    figure.axes[0].set_ylabel("samples")
    figure.suptitle(literal(title), fontsize=9, color=INK)
    return png(figure)


def square(title: str) -> tuple[Figure, Axes]:
    """A figure with one square of axes from 0 to 1."""
    figure = Figure(figsize=(4.8, 5.0), layout="constrained")
    axes = figure.subplots()
    style(axes, title)
    axes.set_aspect("equal")
    return figure, axes


def style(axes: Axes, title: str) -> None:
    """Axes from 0 to 1, quiet."""
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(literal(title), fontsize=9, color=INK)


def draw_curves(axes: Axes, curves: Sequence[Curve], drawstyle: str = "default") -> None:
    """One line a curve."""
    for place, curve in enumerate(curves):
        axes.plot(
            curve.x_P, curve.y_P, color=COLOURS[place % len(COLOURS)], linestyle=STYLES[place % len(STYLES)],
            linewidth=1.8, label=literal(curve.name), drawstyle=drawstyle,
        )  # fmt: skip


def draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """One mark an operating point, hollow, so that two at one place are both seen."""
    for place, mark in enumerate(marks):
        axes.plot(
            [mark.x], [mark.y], color=INK, marker=MARKS[place % len(MARKS)], markersize=6 + 3 * place,
            markerfacecolor="none", linestyle="none", label=f"threshold {literal(mark.name)}",
        )  # fmt: skip
