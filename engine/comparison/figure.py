"""The figure of a comparison: each network's F1 with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from engine.figures import INK, VALIDATION, ready, set_legend, set_title
from loaders.figure_text import NAME, class_names, name_text

if TYPE_CHECKING:
    from engine.comparison.comparison import Comparison

HELD_OUT = "#c0504d"
SERIES = (("validation_f1", "validation", VALIDATION, "o", -0.12), ("heldout_f1", "held out", HELD_OUT, "s", 0.12))


def comparison_figure(result: Comparison) -> Figure:
    """F1 and its 95 % interval, a line a network, the first one on top; those that were not trained say so."""
    rows, names = result.contenders, class_names(result.classes)
    figure = Figure(figsize=(8, 2.1 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for name, label, colour, marker, shift in SERIES:
        known = [(place, getattr(row, name)) for place, row in enumerate(rows)]
        known = [(place, found) for place, found in known if found is not None and found.value is not None]
        for place, found in known:
            if found.low is not None and found.high is not None:
                axes.plot([found.low, found.high], [place + shift] * 2, color=colour, linewidth=2, alpha=0.6)
        if known:
            values = [found.value for _, found in known]
            axes.plot(values, [place + shift for place, _ in known], marker, color=colour, label=label)
    for place, row in enumerate(rows):
        if row.failed:
            axes.text(0.01, place, "not trained", va="center", color=INK, transform=axes.get_yaxis_transform())
    axes.set_yticks(range(len(rows)), labels=[name_text(row.model, NAME) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(right=1.005)
    which = f"F1 of {names.text_of[result.positive]}" if len(result.classes) == 2 else "macro F1"
    axes.set_xlabel(f"{which}, 95 % interval")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    kind = "synthetic phantoms" if result.synthetic else "radiographs"
    set_title(figure, f"{names.listed()}: {kind}, one split, one recipe")
    set_legend(figure, names.note)
    return ready(figure)
