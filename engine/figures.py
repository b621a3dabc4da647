"""Figures of a run: training curves and confusion matrices."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from loaders.page_parts import visible

INK, TRAINING, VALIDATION, BEST = "#222222", "#c0504d", "#1f5fa8", "#888888"


def literal(text: str) -> str:
    """Text as it is, unseen signs written out: a name may have those of matplotlib's formulas, and bytes of no text."""
    return visible(text).replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """Render a figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return file.getvalue()


def curves_figure(history: Sequence[dict[str, Any]], best_epoch: int, title: str) -> bytes:
    """Loss and F1 by epoch, training and validation, the kept epoch marked.  history: rows of metrics.csv."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, metric, name in zip(figure.subplots(1, 2), ("loss", "f1"), ("cross-entropy", "F1"), strict=True):
        axes.plot(epochs, [row[f"train_{metric}"] for row in history], color=TRAINING, label="training", marker=".")
        axes.plot(
            epochs,
            [row[f"val_{metric}"] for row in history],
            color=VALIDATION,
            label="validation",
            marker=".",
        )
        if best_epoch:
            axes.axvline(best_epoch, color=BEST, linestyle=":", label=f"kept: epoch {best_epoch}")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylim(bottom=0)
    figure.axes[1].set_ylim(0, 1.02)
    figure.axes[1].legend(frameon=False)
    figure.suptitle(literal(title), color=INK, fontsize=10)
    return png(figure)


def confusion_figure(confusion_KK: np.ndarray, classes: Sequence[str], title: str) -> bytes:
    """A confusion matrix: counts and row shares; rows are the true classes."""
    num_classes = len(classes)
    figure = Figure(figsize=(1.8 + 1.3 * num_classes, 1.6 + 1.1 * num_classes), layout="constrained")
    axes = figure.subplots()
    total_K1 = np.maximum(confusion_KK.sum(1, keepdims=True), 1)
    share_KK = confusion_KK / total_K1
    axes.imshow(share_KK, cmap="Blues", vmin=0, vmax=1)
    for true in range(num_classes):
        for predicted in range(num_classes):
            share = share_KK[true, predicted]
            text = f"{confusion_KK[true, predicted]}\n{share:.0%}"
            axes.text(predicted, true, text, ha="center", va="center", color="white" if share > 0.55 else INK)
    names = [literal(name) for name in classes]
    axes.set_xticks(range(num_classes), labels=names)
    axes.set_yticks(range(num_classes), labels=names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title(literal(title), fontsize=9, color=INK)
    return png(figure)
