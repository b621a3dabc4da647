"""Figures: training curves and confusion matrices, and what every figure shares: fonts, colours, title and legend."""

# K classes

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from engine.statistics.names import metric_of, value_text
from loaders.figure_text import EM, FAMILY, ClassNames, family_of, width, wrap
from loaders.output import share_text

INK, TRAINING, VALIDATION, BEST, FAINT = "#222222", "#c0504d", "#1f5fa8", "#888888", "#888888"
# Okabe and Ito's colours, which people of every colour vision tell apart; line styles differ as well
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STYLES = ("-", "--", "-.", ":", (0, (8, 2, 2, 2, 2, 2)), (0, (1, 1, 4, 1)))  # as many as colours
OTHERS = "#c4c4c4"
TITLE, LEGEND, NOTE = 9.5, 8.0, 7.0  # points
HANDLE = 5.0  # ems of a legend's line, and of the gap to the next column
DPI = 110
F1_NOTE = "F1 of training is at 0.5; of validation at each finding's threshold of the highest, and so optimistic."
MOST_NAMED = 4  # findings named among the curves of their AUC
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
    if not entries:
        set_note(figure, *notes)
        return
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


def curves_figure(
    history: Sequence[dict[str, Any]], best_epoch: int, title: str, note: str = "", findings: Sequence[str] = ()
) -> Figure:
    """Loss and F1 by epoch, training and validation, the kept epoch marked; of findings below them each one's AUC.

    history: a training's.  findings: their names; none of classes.
    """
    area_of = {
        name: [np.nan if row[key] is None else row[key] for row in history]
        for place, name in enumerate(findings)
        if (key := f"val_auc[{place}]") and any(row[key] is not None for row in history)
    }
    figure = Figure(figsize=(9, 7.2 if area_of else 3.9), layout="constrained")
    grid = figure.add_gridspec(1 + bool(area_of), 2)
    panels: list[Any] = [figure.add_subplot(grid[0, place]) for place in (0, 1)]
    epochs = [row["epoch"] for row in history]
    for axes, metric in zip(panels, ("loss", "f1"), strict=True):
        axes.plot(epochs, [row[f"train_{metric}"] for row in history], color=TRAINING, label="training", marker=".")
        axes.plot(epochs, [row[f"val_{metric}"] for row in history], color=VALIDATION, label="validation", marker=".")
        axes.set_ylabel(metric_of("f1_macro" if findings and metric == "f1" else metric).name)
    panels[0].set_ylim(bottom=0)
    panels[1].set_ylim(0, 1.02)
    if area_of:
        panels.append(figure.add_subplot(grid[1, :]))
        draw_areas(panels[2], epochs, area_of, best_epoch)
    for axes in panels:
        if best_epoch:
            axes.axvline(best_epoch, color=BEST, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return with_legend(figure, title, F1_NOTE if findings else "", note)


def draw_areas(axes: Axes, epochs: Sequence[int], area_of: dict[str, list[float]], best_epoch: int) -> None:
    """The AUC of each finding and their mean by epoch; those that are lowest in the kept epoch are named."""
    kept = epochs.index(best_epoch) if best_epoch in epochs else -1
    named = sorted(area_of, key=lambda name: area_of[name][kept])[:MOST_NAMED]
    others = [name for name in area_of if name not in named]
    rest = f"{len(others)} other finding{'s' * (len(others) > 1)}, of higher AUC"
    for place, name in enumerate(others):
        axes.plot(epochs, area_of[name], color=OTHERS, linewidth=0.8, label="" if place else rest)
    for name, colour, style in zip(named, COLOURS[1:], STYLES[1:], strict=False):
        label = f"{name}: {value_text('auc', area_of[name][kept])}"
        axes.plot(epochs, area_of[name], color=colour, linestyle=style, linewidth=1.2, label=label)
    mean = np.mean(list(area_of.values()), axis=0)
    axes.plot(epochs, mean, color=INK, linewidth=2, marker=".", label=f"mean: {value_text('auc', float(mean[kept]))}")
    axes.set_ylabel(f"{metric_of('auc').name} of validation")


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
