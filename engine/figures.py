"""Figures: training curves and confusion matrices, and what every figure shares: fonts, colours, title and legend."""

# K classes

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text

from engine.statistics.names import metric_of
from loaders.figure_text import EM, FAMILY, ClassNames, family_of, width, wrap
from loaders.output import share_text

INK, TRAINING, VALIDATION, BEST, FAINT = "#222222", "#c0504d", "#1f5fa8", "#888888", "#888888"
TITLE, LEGEND, NOTE = 9.5, 8.0, 7.0  # points
HANDLE = 5.0  # ems of a legend's line, and of the gap to the next column
DPI = 110
MOST_SHARES = 6  # classes up to which a confusion matrix has room for percentages


def png(figure: Figure) -> bytes:
    """Render a figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    return file.getvalue()


def ready(figure: Figure) -> Figure:
    """The figure with what holds for all of its texts: fonts that have their letters, and no formulas."""
    for text in figure.findobj(Text):
        families = {family_of(sign) for sign in text.get_text() if sign.isprintable()}
        text.set_fontfamily([FAMILY, *sorted(families - {"", FAMILY})])
        text.set_parse_math(False)
    return figure


def room(figure: Figure, points: float) -> float:
    """Hundredths of an em between the figure's margins, in a font of that many points; a tenth is left for hinting."""
    return 0.9 * (figure.get_figwidth() * 72 - 12) / points * EM


def set_title(figure: Figure, text: str, **place: Any) -> None:
    """The title, its lines broken where they would leave the figure."""
    lines = wrap(text, room(figure, TITLE))
    figure.suptitle("\n".join(lines), color=INK, fontsize=TITLE, **place)


def set_legend(figure: Figure, *notes: str) -> None:
    """One legend of all axes below them, in as many columns as fit, the notes over it."""
    entries = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    across = room(figure, LEGEND)
    labels = ["\n".join(wrap(label, across - HANDLE * EM)) for label in entries]
    widest = HANDLE * EM + max(width(line) for label in labels for line in label.split("\n"))
    lines = [line for note in notes if note for line in wrap(note, room(figure, NOTE))]
    legend = figure.legend(
        list(entries.values()), labels, loc="outside lower center", fontsize=LEGEND, frameon=False,
        ncols=max(1, min(len(labels), int(across / widest))), title="\n".join(lines), title_fontsize=NOTE,
    )  # fmt: skip
    legend.get_title().set_color(INK)
    figure.set_layout_engine("constrained", h_pad=0.08)  # inches between the axes and the legend


def with_legend(figure: Figure, title: str, *notes: str) -> Figure:
    """The figure with its title above, one legend and the notes below, and ready to be drawn."""
    set_title(figure, title)
    set_legend(figure, *notes)
    return ready(figure)


def set_note(figure: Figure, *notes: str) -> None:
    """Small print below the axes of a figure that has no legend there."""
    lines = [line for note in notes if note for line in wrap(note, room(figure, NOTE))]
    figure.supxlabel("\n".join(lines), color=FAINT, fontsize=NOTE, x=0.01, ha="left")


def curves_figure(history: Sequence[dict[str, Any]], best_epoch: int, title: str, note: str = "") -> Figure:
    """Loss and F1 by epoch, training and validation, the kept epoch marked.  history: rows of metrics.csv."""
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, metric in zip(figure.subplots(1, 2), ("loss", "f1"), strict=True):
        axes.plot(epochs, [row[f"train_{metric}"] for row in history], color=TRAINING, label="training", marker=".")
        axes.plot(epochs, [row[f"val_{metric}"] for row in history], color=VALIDATION, label="validation", marker=".")
        if best_epoch:
            axes.axvline(best_epoch, color=BEST, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(metric_of(metric).name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylim(bottom=0)
    figure.axes[1].set_ylim(0, 1.02)
    return with_legend(figure, title, note)


def confusion_figure(confusion_KK: np.ndarray, names: ClassNames, title: str) -> Figure:
    """A confusion matrix: counts, and row shares where they have room; rows are the true classes."""
    labels, num_classes = list(names.text_of.values()), len(names.text_of)
    shares = num_classes <= MOST_SHARES
    cell = 1.1 if num_classes <= 3 else 0.8 if shares else 0.42  # inches
    label = max(map(width, labels)) / EM * 8 / 72  # inches, too
    turned = num_classes > 3 or label > 0.9 * cell
    high = cell * num_classes + 1.4 + (label if turned else 0.2)
    figure = Figure(figsize=(max(4.8, cell * num_classes + 0.9 + label), high), layout="constrained")
    axes = figure.subplots()
    total_K1 = np.maximum(confusion_KK.sum(1, keepdims=True), 1)
    share_KK = confusion_KK / total_K1
    axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1)
    size = min(10 if shares else 8, 0.85 * cell * 72 / max(width(str(count)) / EM for count in confusion_KK.flat))
    for true in range(num_classes):
        for predicted in range(num_classes):
            count, share = confusion_KK[true, predicted], share_KK[true, predicted]
            if count or shares:
                text = f"{count}\n{share_text(share, 0)}" if shares else f"{count}"
                axes.text(
                    predicted, true, text, ha="center", va="center", fontsize=size,
                     color="white" if share > 0.55 else INK,
                )  # fmt: skip
    axes.set_xticks(range(num_classes), labels=labels, fontsize=8, rotation=90 if turned else 0)
    axes.set_yticks(range(num_classes), labels=labels, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    set_title(figure, title)
    set_note(figure, "Colour: share of the row." + ("" if shares else " An empty cell is 0."), names.note)
    return ready(figure)
