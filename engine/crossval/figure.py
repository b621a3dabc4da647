"""The figure of a cross-validation: headline and honest F1 with intervals."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from engine.figures import INK, VALIDATION, ready, set_note, set_title
from loaders.figure_text import class_names

HEADLINE, HONEST, GUESS, FAINT = "#c0504d", VALIDATION, "#888888", "#9a9a9a"
MEANING = {
    "random split": "headline: patients may be in both",
    "group split": "honest: only new patients",
    "lungs hidden": "new patients, all but the lungs",
    "external beton": "honest: another collection",
}


def crossval_figure(content: dict[str, Any]) -> Figure:
    """F1 and its 95 % interval, a line a row, the folds as small dots, n beside each, and guessing as a dotted line.

    content: of crossval.json.
    """
    rows, names = content["rows"], class_names(content["classes"])
    figure = Figure(figsize=(9.2, 1.6 + 0.82 * len(rows)), layout="constrained")
    axes = figure.subplots()
    low_end = 1.0
    for place, row in enumerate(rows):
        found = row["f1"]
        if found is None or found["value"] is None:
            words = "not measured" if found is None else "undefined"
            across = axes.get_yaxis_transform()
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # over the line of guessing
            axes.text(0.02, place, words, va="center", color=FAINT, style="italic", transform=across, bbox=box)
            continue
        colour = HEADLINE if row["name"] == "random split" else HONEST
        low = found["value"] if found["low"] is None else found["low"]
        high = found["value"] if found["high"] is None else found["high"]
        dots = [value for value in found["folds"] if value is not None]
        low_end = min([low_end, low, *dots])
        axes.barh(place, high - low, left=low, height=0.34, color=colour, alpha=0.28, linewidth=0)
        axes.plot(dots, [place + 0.3] * len(dots), "o", color=colour, markersize=3, alpha=0.55, clip_on=False)
        axes.plot([found["value"]] * 2, [place - 0.17, place + 0.17], color=colour, linewidth=3, solid_capstyle="butt")
        axes.text(
            1.02, place - 0.11, f"{found['value']:.3f}", va="center", color=colour, fontsize=12, weight="bold",
            transform=axes.get_yaxis_transform(),
        )  # fmt: skip
        interval = "no interval" if found["low"] is None else f"{low:.3f} to {high:.3f}"
        axes.text(
            1.02, place + 0.21, f"{interval}, n = {row['n']:,} of {row['groups']:,} groups", va="center", color=INK,
            fontsize=8, transform=axes.get_yaxis_transform(),
        )  # fmt: skip
    guess = content["always_positive"] or content["trivial"]
    if guess["f1"] is not None:
        low_end = min(low_end, guess["f1"])
        axes.axvline(guess["f1"], color=GUESS, linestyle=":", linewidth=1.2)
        axes.text(
            guess["f1"], -0.56, f" always {names.text_of[guess['class']]}: {guess['f1']:.2f}", color=GUESS, fontsize=8,
            va="bottom", ha="left" if guess["f1"] < 0.8 else "right",
        )  # fmt: skip
    axes.set_yticks(range(len(rows)), labels=[f"{row['name']}\n{MEANING.get(row['name'], '')}" for row in rows])
    for label in axes.get_yticklabels():
        label.set_fontsize(9)
        label.set_color(INK)
    axes.set_ylim(len(rows) - 0.45, -0.6)
    axes.set_xlim(max(0.0, low_end - 0.04), 1.0)
    which = f"F1 of {names.text_of[content['positive']]}" if len(content["classes"]) == 2 else "macro F1"
    axes.set_xlabel(f"{which}: value, 95 % interval over groups, folds as dots", color=INK)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    kind = "synthetic phantoms" if content["synthetic"] else "radiographs"
    folds = content["settings"]["folds"]
    title = f"Headline and honest: {names.listed()}, {content['n']:,} {kind}, {folds} folds"
    set_title(figure, title, x=0.01, ha="left")
    set_note(figure, names.note, "Research software: not for diagnosis.")
    return ready(figure)
