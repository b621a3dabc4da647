"""What a training tells in the terminal: where it is, each epoch that is done, and how it ended."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from engine.progress import Progress
from loaders.terminal import Line, Parts, path_line

FILES = ("best.safetensors", "metrics.csv", "curves.png", "summary.json", "report.html")


def live_words(now: Progress) -> str:
    """Where a training is."""
    loss = "–" if math.isnan(now.loss) else f"{now.loss:.3f}"
    left = "" if now.seconds_left is None else f"≤ {now.seconds_left / 60:.1f} min"
    return (
        f"epoch {now.epoch}/{now.epochs}  loss {loss}  F1 {now.best_f1:.3f}  "
        f"{now.images_per_second:,.0f} images/s  patience {now.patience_left}  {left}"
    )


def epoch_words(now: Progress) -> str:
    """The last epoch that is done."""
    row = now.history[-1]
    best = "  best" if now.best_epoch == row["epoch"] else ""
    return (
        f"epoch {row['epoch']:3}  loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}  "
        f"val F1 {row['val_f1']:.4f}  {row['images_per_second']:,.0f} images/s{best}"
    )


def training_parts(summary: dict[str, Any], out: Path) -> Parts:
    """The best epoch, the files, and what to beware of.  summary: of summary.json."""
    best = "undefined" if summary["best_f1"] is None else f"{summary['best_f1']:.2%}"
    parts = [
        Line(
            f"Best validation F1 {best} in epoch {summary['best_epoch']} of {summary['epochs']} "
            f"({summary['stopped']}); {summary['images_per_second']:,.0f} images/s, {summary['seconds']:,.1f} s "
            f"on {summary['device']}"
        )
    ]
    if not summary["device"].startswith("cpu"):
        parts.append(Line(summary["compile"]))
    parts += [path_line(out / name) for name in FILES]
    return parts + [Line(f"Caution: {caution}.", "yellow") for caution in summary["cautions"]]
