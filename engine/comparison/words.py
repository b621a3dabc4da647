"""What a comparison tells in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.evaluation.words import with_interval
from loaders.terminal import Line, Parts, Sheet, path_line

if TYPE_CHECKING:
    from engine.comparison.comparison import Comparison, Contender

HEADERS = ("network", "validation F1", "held-out F1", "parameters", "images/s", "epochs to best", "seconds")


def comparison_parts(result: Comparison) -> Parts:
    """The table of networks, what speaks against the scores, and the files."""
    from engine.comparison.comparison import FILES  # imports torch

    parts: list[Line | Sheet] = [Sheet(headers=HEADERS, rows=tuple(map(table_row, result.contenders)))]
    for row in result.contenders:
        if row.failed:
            parts.append(Line(f"Not trained, {row.model}: {row.failed}", "yellow"))
        if row.heldout_refused:
            parts.append(Line(f"Not held out, {row.model}: {row.heldout_refused}", "yellow"))
        if row.early:
            parts.append(Line(f"Caution, {row.model}: {row.early}.", "yellow"))
    parts += [Line(f"Caution: {caution}.", "yellow") for caution in result.cautions]
    which = f"F1 of {result.positive}" if len(result.classes) == 2 else "F1 is the mean over the classes that define it"
    parts.append(
        Line(
            f"{which}; 95 % intervals over groups. The validation set chose each network's epoch: its F1 is optimistic."
        )
    )
    devices = dict.fromkeys(row.device for row in result.contenders if row.device)
    parts.append(Line(f"Trained on {'; '.join(devices)}."))
    parts += [path_line(result.out / name) for name in FILES]
    return parts


def table_row(row: Contender) -> tuple[str, ...]:
    """One network in the table."""
    if row.failed:
        return (row.model, "not trained", *[""] * (len(HEADERS) - 2))
    heldout = "refused" if row.heldout_refused else with_interval("f1", row.heldout_f1) or "–"
    return (
        row.model,
        with_interval("f1", row.validation_f1),
        heldout,
        f"{row.parameters:,}",
        f"{row.images_per_second:,.0f}",
        f"{row.epochs_to_best} of {row.epochs}",
        f"{row.seconds:,.1f}",
    )
