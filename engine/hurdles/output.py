"""How a hurdles run is shown: the matrix as a figure and as tables, and what it means in plain English."""

# R rows and C columns of the matrix

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from engine.figures import FAINT, INK, NOTE, TITLE, TRAINING, ready, set_note, set_title
from engine.hurdles.matrix import (
    CONFOUNDED,
    drop_text,
    empty_text,
    headline,
    headline_drop,
    headline_metric,
    least_favourable,
    matrix_cells,
    matrix_columns,
    matrix_rows,
    metric_note,
)
from engine.hurdles.results import HURDLES, PICTURE, REMOVED, SHOWN, TABLE, Cell, Hurdles, Row
from engine.statistics.estimates import UNDEFINED
from engine.statistics.names import (
    difference_texts,
    fewer_classes,
    interval_text,
    metric_of,
    place_of,
    short_name,
    value_text,
    with_interval,
)
from loaders.cautions import NOTHING_CLINICAL, Caution, each_once
from loaders.figure_text import EM, NAME, class_names, width
from loaders.output import DASH, Line, Parts, Sheet, caution_lines, counted, path_line
from loaders.records import written_out

REMOVALS = {"pixels": "equal pixels", "patient": "a patient in both", "group": "a group in both",
            "copy": "copies by their look"}  # fmt: skip
MOST_SENTENCES = 12  # cells away from home; of more the least favourable of each row is described
MOST_PLACES = 3  # cells that a caution names
LIMITS = (
    "Each network is scored alone, at home on its own test fold and away on all of the other collection, and the "
    "scores are averaged. Temperature and threshold (Youden's) are of each network's own validation films. 95 % "
    "intervals are over groups; they leave out how much another training would differ, of which the range of the "
    "networks' own scores gives an idea."
)


def range_text(cell: Cell) -> str:
    """The lowest and the highest score of the networks on their own."""
    key = headline_metric(cell)
    values = [value for network in cell.networks if (value := network.values.get(key)) is not None]
    if not values:
        return DASH
    return f"{value_text(key, min(values)).removesuffix(' %')} to {value_text(key, max(values))}"


def sentences(result: Hurdles) -> list[str]:
    """What the matrix means, in plain English: row by row, then how well collections are told apart."""
    found, few = [], sum(cell.place == "away" for cell in result.cells) <= MOST_SENTENCES
    for row in matrix_rows(result):
        if row.confounded:
            found.append(
                f"The row of {row.name} is {CONFOUNDED}: a class that it is trained on shares no source with the "
                f"others, so that its score at home {NOTHING_CLINICAL}."
            )
        home, away = result.home(row.name), result.away(row.name)
        if guessing := guessing_text(home):
            at_home = value_text("auc", headline(home).value)
            found.append(f"Trained on {row.name}, the AUC at home, {at_home}, {guessing}.")
        worst = least_favourable(away)
        if worst is None:
            found.append(f"{row.name} was tested on no other collection.")
        elif few or len(away) == 1:
            found += [away_sentence(row, home, cell) for cell in away]
        else:
            lower = sum((headline_drop(cell).low or 0) > 0 for cell in away)
            found.append(
                f"{away_sentence(row, home, worst)} This is the least favourable of {len(away)} other collections; the "
                f"drop's interval lies wholly above 0 on {lower or 'none'} of them."
            )
    return found + [probe.sentence for probe in result.told_apart]


def away_sentence(row: Row, home: Cell, cell: Cell) -> str:
    """What becomes of a row on another collection."""
    key, found, drop = headline_metric(cell), headline(cell), headline_drop(cell)
    if found.value is None:
        return f"Trained on {row.name}, no score is defined on {cell.column}."
    over = fewer_classes(found)
    name = ("AUC" if key == "auc" else metric_of(key).name) + (f" (mean over {over})" if over else "")
    near, far = value_text(key, home.estimates.get(key, UNDEFINED).value), value_text(key, found.value)
    apart, ends = (text.replace("+", "") for text in difference_texts(key, drop))
    between = f"(drop {apart}, 95 % interval {ends})"
    if drop.low is None or drop.high is None:
        text = f"is {near} at home and {far} on {cell.column}, without an interval of the drop"
    elif drop.low > 0:
        text = f"falls from {near} at home to {far} on {cell.column} {between}"
    elif drop.high < 0:
        text = f"rises from {near} at home to {far} on {cell.column} {between}"
    else:
        text = f"is {near} at home and {far} on {cell.column} {between}, which neither shows nor excludes a fall"
    guessing = guessing_text(cell)
    return f"Trained on {row.name}, the {name} {text}{f'; there it {guessing}' if guessing else ''}."


def guessing_text(cell: Cell) -> str:
    """What an AUC is whose interval does not lie above 0.5; "" for another."""
    found = headline(cell)
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    if headline_metric(cell) != "auc" or low is None or high is None or low > 0.5:
        return ""
    between = "" if found.low is None else f" (95 % interval {interval_text('auc', found)})"
    return f"{'is worse than' if high < 0.5 else 'is not shown to be better than'} guessing{between}"


def gathered_cautions(result: Hurdles) -> list[tuple[str, Caution]]:
    """Each caution once, with what it is of: "" for the whole."""
    found = [("", one) for one in result.cautions]
    found += [(collection.name, one) for collection in result.collections for one in collection.cautions]
    found += [(row.name, one) for row in result.rows for one in row.cautions]
    found += [(f"{cell.row} → {cell.column}", one) for cell in result.cells for one in cell.cautions]
    gathered = []
    for caution in each_once(one for _, one in found):
        places = list(dict.fromkeys(place for place, one in found if one == caution))
        more = len(places) - MOST_PLACES
        named = "; ".join(places[:MOST_PLACES]) + (f" and {more:,} more" if more > 0 else "")
        gathered.append(("" if "" in places else named, caution))
    return gathered


def hurdles_parts(result: Hurdles, out: Path) -> Parts:
    """The matrix, all cells, what they mean, cautions, what was left out of tests, and the files."""
    parts: list[Line | Sheet] = [matrix_sheet(result), cell_sheet(result)]
    parts += [Line(sentence, "bold") for sentence in sentences(result)]
    if not result.told_apart:
        parts.append(
            Line("How well collections are told apart was not measured: they share no class of enough groups.")
        )
    parts += [line for of, one in gathered_cautions(result) for line in caution_lines([one], of)]
    for cell in result.cells:
        if cell.removed:
            reasons = ", ".join(f"{REMOVALS.get(reason, reason)} {count:,}" for reason, count in cell.removed.items())
            films = counted(sum(cell.removed.values()), "film")
            parts.append(Line(f"{cell.row} → {cell.column}: {films} of this test left out as in training ({reasons})."))
    parts.append(Line(LIMITS))
    return [*parts, *(path_line(out / name) for name in (HURDLES, TABLE, REMOVED, PICTURE))]


def matrix_sheet(result: Hurdles) -> Sheet:
    """The matrix: AUC and its interval, or what is defined instead."""

    def cell_text(row: Row, column: int, cell: Cell | None) -> str:
        if cell is None:
            return empty_text(result, row, column)
        key, note = headline_metric(cell), "" if headline_metric(cell) == "auc" else f"{metric_note(cell)} "
        return f"{'home ' if cell.place == 'home' else ''}{note}{with_interval(key, headline(cell))}"

    rows = tuple(
        (
            f"{row.name}, {CONFOUNDED}" if row.confounded else row.name,
            *(cell_text(row, column, cell) for column, cell in enumerate(matrix_cells(result, row))),
        )
        for row in matrix_rows(result)
    )
    title = "AUC with its 95 % interval: rows are trained on, columns are tested on"
    return Sheet(title=title, headers=("trained on", *matrix_columns(result)), rows=rows)


def cell_sheet(result: Hurdles) -> Sheet:
    """Every cell with its metrics, its drop and the range of its networks."""
    rows = tuple(
        (
            f"{cell.row}, at home" if cell.place == "home" else f"{cell.row} → {cell.column}",
            f"{cell.num_samples:,}",
            f"{cell.num_groups:,}",
            *(with_interval(key, cell.estimates.get(key, UNDEFINED)) for key in SHOWN),
            drop_text(cell),
            f"{len(cell.networks):,}: {range_text(cell)}",
        )
        for row in matrix_rows(result)
        for cell in (result.home(row.name), *result.away(row.name))
    )
    names = [short_name(key) for key in SHOWN]
    headers = ("trained on → tested on", "images", "groups", *names, "drop from home", "networks")
    return Sheet(title="Drop and networks' range: of the AUC, or what is defined instead", headers=headers, rows=rows)


def hurdle_rows(result: Hurdles) -> Iterator[list[Any]]:
    """The rows of hurdles.csv: each metric of each cell.  drop: home minus away."""
    yield [
        "row", "column", "place", "confounded", "metric", "value", "low", "high", "drop", "drop_low", "drop_high",
        "images", "groups", "networks", *(f"removed_{reason}" for reason in REMOVALS),
    ]  # fmt: skip
    for row in matrix_rows(result):
        for cell in (result.home(row.name), *result.away(row.name)):
            place = [*written_out([cell.row, cell.column]), cell.place, "yes" if row.confounded else "no"]
            counts = [cell.num_samples, cell.num_groups, len(cell.networks)]
            removed = [cell.removed.get(reason, 0) for reason in REMOVALS]
            for key in sorted(cell.estimates, key=place_of):
                found, drop = cell.estimates[key], cell.drop.get(key, UNDEFINED)
                numbers = [found.value, found.low, found.high, drop.value, drop.low, drop.high]
                yield [*place, key, *numbers, *counts, *removed]


# ---- the figure: lengths are inches, from the upper left corner

PAD, GAP = 0.12, 0.3
LEADING = 1.45 / 72  # of a line, to its size in points
COLOURS = matplotlib.colormaps["Blues"]
NO_AUC, EMPTY = "#e4e4e4", "#ffffff"
WHITE_INK = 0.855  # AUC above which white text has a contrast of 4.5 to the colour, and up to which black has
Lines = list[tuple[str, float, str]]  # each text with its size in points and its colour, "" for that of its cell
VALUE, SCALE = 12.0, "AUC 0.5 or less"


def length(text: str, size: float) -> float:
    """Of a line; a tenth is left for hinting and bold type."""
    return 1.1 * width(text) / EM * size / 72


def shade(auc: float) -> tuple[float, ...]:
    """The colour of an AUC: pale at 0.5 and below, dark at 1; by lightness alone, for all eyes."""
    return tuple(COLOURS(float(np.clip(2 * auc - 1, 0.0, 1.0))))


def figure_lines(cell: Cell) -> Lines:
    """What stands in a cell."""
    key, found, note, drop = headline_metric(cell), headline(cell), metric_note(cell), drop_text(cell)
    interval = "no interval" if found.low is None else interval_text(key, found)
    texts = [
        (note, 7.0),
        (value_text(key, found.value), VALUE),
        ("" if found.value is None else interval, 7.5),
        (f"n = {cell.num_samples:,}" + (", at home" if cell.place == "home" else ""), 7.0),
        (f"drop {drop}" if drop else "", 7.0),
    ]
    return [(text, size, "") for text, size in texts if text]


def hurdles_figure(result: Hurdles) -> Figure:
    """The matrix: rows are trained on, columns are tested on, coloured by AUC, home cells outlined."""
    rows, heads = matrix_rows(result), [collection.name for collection in result.collections]
    names = class_names(heads, NAME if len(heads) <= 4 else 0.7 * NAME, "collection")
    shown = [*(names.text_of[name] for name in heads), *matrix_columns(result)[len(heads) :]]
    labels = [row_lines(row, names.text_of) for row in rows]
    tests = [matrix_cells(result, row) for row in rows]
    texts = [figure_lines(cell) for cells in tests for cell in cells if cell]
    across = 2 * PAD + max(length(text, size) for lines in texts for text, size, _ in lines)
    across = max(across, 1.0, *(0.1 + length(name, 8.5) for name in shown))
    down = 2 * PAD + max(sum(size * LEADING for _, size, _ in lines) for lines in texts)
    left = 2 * PAD + max(length(text, size) for lines in labels for text, size, _ in lines)
    x_C = [left + across * column + GAP * (column >= len(heads)) for column in range(len(shown))]
    wide = max(5.6, x_C[-1] + across + PAD)
    figure = Figure(figsize=(wide, 1.0))
    kind = "synthetic phantoms" if result.synthetic else "radiographs"
    title = f"Hurdles: {class_names(result.classes).listed()}; trained on one collection, tested on others ({kind})"
    set_title(figure, title, x=PAD / wide, ha="left")
    top = PAD + (figure.get_suptitle().count("\n") + 1) * TITLE * LEADING + GAP + 2 * 8.5 * LEADING
    y_R = [top + down * place + GAP * (row.without is not None) for place, row in enumerate(rows)]
    set_note(
        figure,
        "Each cell: the mean of its networks, 95 % interval over groups, images, drop from home with its interval. "
        "Outlined: at home, on test folds. Grey: one class alone, so no AUC.",
        names.note,
        "Research software: not for diagnosis.",
    )
    bottom = y_R[-1] + down + GAP + 0.3
    note = figure.get_supxlabel()
    high = bottom + (note.count("\n") + 1) * NOTE * LEADING + PAD
    figure.set_figheight(high)
    figure.suptitle(figure.get_suptitle(), x=PAD / wide, y=1 - PAD / high, ha="left", color=INK, fontsize=TITLE)
    axes = figure.add_axes((0, 0, 1, 1))
    for place, (row, y) in enumerate(zip(rows, y_R, strict=True)):
        write_lines(axes, labels[place], left - PAD, y + down / 2, "right")
        for column, (cell, x) in enumerate(zip(tests[place], x_C, strict=True)):
            if cell or column < len(heads):
                draw_cell(axes, cell, empty_text(result, row, column), (x, y, across, down))
    for column, x in enumerate(x_C):
        alone = column < len(heads) and not result.collections[column].trained
        lines = [(shown[column], 8.5, INK), *([("test only", 7.0, FAINT)] if alone else [])]
        write_lines(axes, lines, x + across / 2, top - 8.5 * LEADING - 0.04, "center")
    axes.text(left, top - 8.5 * 2 * LEADING - 0.14, "tested on", color=FAINT, fontsize=8, va="bottom")
    axes.text(left - PAD, top - 0.06, "trained on", color=FAINT, fontsize=8, va="bottom", ha="right")
    draw_scale(axes, max(left, 2 * PAD + length(SCALE, 7)), bottom - 0.3)
    axes.set(xlim=(0, wide), ylim=(high, 0))
    axes.set_axis_off()
    return ready(figure)


def row_lines(row: Row, text_of: dict[str, str]) -> Lines:
    """The label of a row."""
    name = text_of[row.name] if row.without is None else f"all but {text_of[row.without]}"
    confounded = [(CONFOUNDED, 7.5, TRAINING)] if row.confounded else []
    return [(name, 8.5, INK), *confounded, (counted(row.num_networks, "network"), 7.0, FAINT)]


def draw_cell(axes: Axes, cell: Cell | None, empty: str, box: tuple[float, float, float, float]) -> None:
    """One cell, in a box of left, top, width and height."""
    x, y, across, down = box
    found = headline(cell).value if cell and headline_metric(cell) == "auc" else None
    face = EMPTY if cell is None else NO_AUC if found is None else shade(found)
    home = cell is not None and cell.place == "home"
    axes.add_patch(
        Rectangle(
            (x + 0.03, y + 0.03), across - 0.06, down - 0.06, facecolor=face, edgecolor=INK if home else "#cccccc",
            linewidth=2.4 if home else 0.6,
        )
    )  # fmt: skip
    ink = "white" if found is not None and found > WHITE_INK else "black"
    lines = [(empty, 7.0, FAINT)] if cell is None else [(text, size, ink) for text, size, _ in figure_lines(cell)]
    write_lines(axes, lines, x + across / 2, y + down / 2, "center")


def write_lines(axes: Axes, lines: Lines, x: float, middle: float, align: str) -> None:
    """Lines one below the other."""
    y = middle - sum(size * LEADING for _, size, _ in lines) / 2
    for text, size, colour in lines:
        weight = "bold" if size == VALUE else "normal"
        axes.text(
            x, y + size * LEADING / 2, text, ha=align, va="center", fontsize=size, color=colour, fontweight=weight
        )
        y += size * LEADING


def draw_scale(axes: Axes, left: float, top: float) -> None:
    """What the colours mean."""
    axes.imshow(
        [[shade(auc) for auc in np.linspace(0.5, 1, 64)]], extent=(left, left + 1.5, top + 0.13, top), aspect="auto"
    )
    axes.add_patch(Rectangle((left, top), 1.5, 0.13, facecolor="none", edgecolor="#cccccc", linewidth=0.6))
    for x, text, align in ((left - 0.06, SCALE, "right"), (left + 1.56, "1", "left")):
        axes.text(x, top + 0.07, text, ha=align, va="center", fontsize=7, color=INK)
