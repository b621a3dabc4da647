"""The figure of a cross-validation: headline and honest F1 with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from matplotlib.figure import Figure

from engine.figures import INK, VALIDATION, ready, set_note, set_title
from engine.statistics.names import fewer_words
from loaders.cautions import Caution
from loaders.figure_text import class_names
from loaders.output import Line, Parts, Sheet, caution_lines, path_line

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


FILES = ("crossval.png", "crossval.csv", "crossval.json")
SHOWN_MATRIX = 3  # classes; the matrix of more does not fit a line
METRICS = {"f1": "F1", "auc": "ROC-AUC", "accuracy": "accuracy"}


def sentences(content: dict[str, Any]) -> list[str]:
    """What the rows mean, in plain words.  content: of crossval.json."""
    rows = {row["name"]: row for row in content["rows"]}
    said = [random_words(content, rows), hidden_words(rows["lungs hidden"]), external_words(content, rows)]
    return [words for words in said if words]


def random_words(content: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    """What the random split adds to the group split."""
    if content["every_image_its_own_group"]:
        return (
            (
                "Each image is a group of its own, since no two are known to be of one patient: "
                "folds of groups are random folds, and both rows say the same"
            )
            + ("" if content["synthetic"] else "; whether patients were recognised cannot be told")
            + "."
        )
    difference = content["differences"].get("random split", {}).get("f1", {})
    if difference.get("value") is None:
        return ""
    points = difference["value"] * 100
    compared = "as high" if round(points, 1) == 0 else f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'}"
    words = f"F1 is {compared} in the random split {'as' if compared == 'as high' else 'than'} in the group split"
    if difference["low"] is not None:
        words += f" (95 % interval of the difference {difference['low'] * 100:+.1f} to {difference['high'] * 100:+.1f})"
    if difference["low"] is not None and difference["low"] > 0:
        return words + (
            ": the random split has images of the same patients in training and test, and the network recognises "
            "patients. Of new patients only the group split speaks."
        )
    return words + (
        ": that patients are recognised is not shown here, nor excluded. Of new patients only the group split speaks."
    )


def hidden_words(row: dict[str, Any]) -> str:
    """What is left without the lungs."""
    auc = row["auc"]
    if auc is None or auc["value"] is None:
        return ""
    edge = (
        "It shows the whole frame, more than the crop, and hides the region where lungs usually are; of an unusual "
        "pair of lungs an edge may show."
    )
    if auc["low"] is not None and auc["low"] > 0.5:
        return (
            f"With the lungs hidden the AUC is still {with_interval(auc)}: the label can be told without the lungs, "
            f"so a score on whole frames need not come from them. {edge}"
        )
    return (
        f"With the lungs hidden the AUC is {with_interval(auc)}: that the label can be told without the lungs "
        f"is not shown, nor excluded. {edge}"
    )


def external_words(content: dict[str, Any], rows: dict[str, dict[str, Any]]) -> str:
    """How the external beton was tested."""
    row = rows["external beton"]
    if row["f1"] is None:
        return ""
    networks = len(row["f1"]["folds"])
    return (
        f"On {content['external']} the probabilities are the mean of the group split's {networks} networks, none of "
        f"which saw any of it; each network alone has F1 {share(row['f1']['mean'])} on average."
    )


def crossval_parts(content: dict[str, Any], out: Path) -> Parts:
    """The folds, the table of headline and honest scores, what they mean, and the files."""
    two, small = len(content["classes"]) == 2, len(content["classes"]) <= SHOWN_MATRIX
    which = f"F1 of {content['positive']}" if two else "F1 and ROC-AUC are means over the classes that define them"
    order = f"rows are the true classes, in the order {', '.join(content['classes'])}"
    parts: list[Line | Sheet] = []
    by_fold = Sheet(
        title="Test folds",
        headers=("split, fold", "n", "groups", *METRICS.values(), *(["matrix"] if small else []), "best epoch"),
        rows=tuple(
            (
                f"{fold['split']} {fold['fold']}",
                f"{fold['n']:,}",
                f"{fold['groups']:,}",
                *(value_words(fold["estimates"][metric]) for metric in METRICS),
                *([str(fold["confusion"])] if small else []),
                f"{fold['best_epoch']} of {fold['epochs']}",
            )
            for fold in content["folds"]
        ),
    )
    headline = Sheet(
        title=f"Headline and honest: {which}",
        headers=("tested by", "n", "groups", *METRICS.values(), "mean F1", "spread"),
        rows=(*map(table_row, content["rows"]), *trivial_rows(content)),
    )
    parts += [by_fold, headline]
    parts += [Line(f"{row['name']}: {row['why']}.") for row in content["rows"] if row["why"]]
    parts += [Line(words, "bold") for words in content["sentences"]]
    parts += caution_lines(msgspec.convert(content["cautions"], list[Caution]))
    parts.append(
        Line(
            "In brackets 95 % intervals over groups, of every sample's score by the network that had not seen it; they "
            "leave out how much another training would differ. Mean and spread (standard deviation) are of the folds. "
            "ROC-AUC ranks scores of different networks together, which lowers it: the folds' own are above. "
            + (f"Matrices: {order}." if small else f"Each fold's matrix is in crossval.json: {order}.")
        )
    )
    parts += [path_line(out / name) for name in FILES]
    return parts


def table_row(row: dict[str, Any]) -> tuple[str, ...]:
    """A row of the headline table."""
    if row["f1"] is None:
        return (row["name"], "–", "–", "not measured", "", "", "", "")
    metrics = (with_interval(row[metric]) for metric in METRICS)
    return (row["name"], f"{row['n']:,}", f"{row['groups']:,}", *metrics, share(row["mean"]), share(row["spread"]))


def trivial_rows(content: dict[str, Any]) -> list[tuple[str, ...]]:
    """Classifiers that have learnt nothing: always the largest class, and of two classes always the positive one."""
    counts = f"{content['n']:,}", f"{content['groups']:,}"
    guesses = [guess for guess in (content["trivial"], content["always_positive"]) if guess]
    rows = [
        (f"always {guess['class']}", *counts, *(share(guess[name]) for name in METRICS), "", "") for guess in guesses
    ]
    return list({row[0]: row for row in rows}.values())


def with_interval(found: dict[str, Any]) -> str:
    """0.91 (0.87–0.94)."""
    if found["low"] is None or found["value"] is None:
        return value_words(found)
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f}){fewer_classes(found)}"


def value_words(found: dict[str, Any]) -> str:
    """0.91."""
    return share(found["value"]) + fewer_classes(found)


def fewer_classes(found: dict[str, Any]) -> str:
    """Over how many classes a mean is, where it leaves classes out."""
    words = fewer_words(found.get("defined"), found.get("classes"))
    return f", {words}" if words else ""


def share(value: float | None) -> str:
    """A share, or that it is undefined."""
    return "undefined" if value is None else f"{value:.3f}"
