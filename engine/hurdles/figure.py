"""The matrix of a hurdles run as a figure.  Lengths are inches, from the upper left corner."""

# R rows and C columns of the matrix

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
    headline_metric,
    matrix_cells,
    matrix_columns,
    matrix_rows,
    metric_note,
)
from engine.hurdles.results import Cell, Hurdles, Row
from engine.statistics.names import interval_text, value_text
from loaders.figure_text import EM, NAME, class_names, width
from loaders.output import counted

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
    task = class_names(result.classes).listed(result.task)
    title = f"Hurdles: {task}; trained on one collection, tested on others ({kind})"
    set_title(figure, title, x=PAD / wide, ha="left")
    top = PAD + (figure.get_suptitle().count("\n") + 1) * TITLE * LEADING + GAP + 2 * 8.5 * LEADING
    y_R = [top + down * place + GAP * (row.without is not None) for place, row in enumerate(rows)]
    over, undefined = "", "one class alone"
    if result.task == "findings":
        over, undefined = " and findings", "too few known films of each finding"
    set_note(
        figure,
        f"Each cell: the mean of its networks{over}, 95 % interval over groups, images, drop from home with its "
        f"interval. Outlined: at home, on test folds. Grey: {undefined}, so no AUC.",
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
