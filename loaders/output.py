"""Output for people: lines and tables of the terminal, printed by cli.py alone, and how numbers are written."""

import math
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from loaders.cautions import Caution

EDGES, GAP = 2, 3  # blank columns of the terminal at a table's sides, and between two of its columns
MINUS, DASH = "−", "–"
MIN_TEXT = 8  # columns; a column of text becomes no narrower when a word does not fit the terminal

PhaseProgress = Callable[[str, int, int], None]
"""Reports a phase, and how much of how much of it is done."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text.  style: of rich, such as "yellow" or "bold"; "" for none.

    whole: never wrapped, however narrow the terminal, such as a path to be copied.
    """

    text: str
    style: str = ""
    whole: bool = False


def caution_lines(cautions: Iterable[Caution], of: str = "") -> list[Line]:
    """A line for each caution.  of: the run or set that it is of, where several are shown."""
    return [Line(f"Caution{f', {of}' if of else ''}: {caution.text}.", "yellow") for caution in cautions]


def path_line(path: Path) -> Line:
    """The path of a file that was written."""
    return Line(str(path), whole=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """A table: the first column is text, the others are numbers.  ends_in_text: the last one is text, too."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    ends_in_text: bool = False

    def is_text(self, column: int) -> bool:
        """Whether a column's cells are text, which may break between words."""
        return column == 0 or (self.ends_in_text and column == len(self.headers) - 1)


Parts = Sequence[Line | Sheet]


def screen_width(text: str) -> int:
    """Columns of the terminal that a text takes: two for a Chinese character, none for a combining accent."""
    from rich.cells import cell_len  # --help needs no rich

    return cell_len(text)


def block_width(widths: Collection[int]) -> int:
    """The width of columns side by side."""
    return EDGES + sum(widths) + GAP * (len(widths) - 1)


def table_blocks(sheet: Sheet, most: int | None, rule: str) -> Iterator[list[str]]:
    """A table in as few blocks of lines as a width allows, each with the first column; without a limit in one block.

    Headers and text wrap between words, numbers never; only a word wider than the terminal is broken.  Text is aligned
    left, numbers right.  rule: the character of the line below the headers.
    """
    places = range(len(sheet.headers))
    whole = [max(screen_width(row[place]) for row in (sheet.headers, *sheet.rows)) for place in places]
    if most is None:
        blocks = [dict(enumerate(whole))]
    else:
        least = [least_width(sheet, place) for place in places]
        groups = [[0]]
        for place in places[1:]:
            if len(groups[-1]) > 1 and block_width([least[other] for other in (*groups[-1], place)]) > most:
                groups.append([0])
            groups[-1].append(place)
        blocks = [shared_widths(sheet, {place: least[place] for place in group}, whole, most) for group in groups]
    for width_of in blocks:
        below = " " + rule * (block_width(width_of.values()) - EDGES)
        rows = [line for row in sheet.rows for line in row_lines(sheet, row, width_of)]
        yield [*row_lines(sheet, sheet.headers, width_of), below, *rows]


def least_width(sheet: Sheet, place: int) -> int:
    """The width of a column's longest unbreakable piece."""
    cells = [row[place] for row in sheet.rows]
    pieces = [word for cell in cells for word in cell.split()] if sheet.is_text(place) else cells
    return max(map(screen_width, [*sheet.headers[place].split(), *pieces]), default=0)


def shared_widths(sheet: Sheet, width_of: dict[int, int], whole: Sequence[int], most: int) -> dict[int, int]:
    """Columns with the spare width shared out: first to text, the narrower ones first, then to headers."""
    width_of = dict(width_of)
    for place in sorted(width_of, key=lambda place: (not sheet.is_text(place), whole[place])):
        wanted = min(whole[place], width_of[place] + most - block_width(width_of.values()))
        shortest = MIN_TEXT if sheet.is_text(place) else width_of[place]
        width_of[place] = max(wanted, min(shortest, width_of[place]))
    return width_of


def row_lines(sheet: Sheet, texts: Sequence[str], width_of: dict[int, int]) -> list[str]:
    """One row of a block, as high as its highest cell."""
    lines = []
    for parts in zip_longest(*(wrapped(texts[place], width) for place, width in width_of.items()), fillvalue=""):
        cells = []
        for part, (place, width) in zip(parts, width_of.items(), strict=True):
            blank = " " * (width - screen_width(part))
            cells.append(part + blank if sheet.is_text(place) else blank + part)
        lines.append(f" {(GAP * ' ').join(cells)}".rstrip())
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """Text in lines that fit; words, which may be numbers, stay whole wherever they fit."""
    if screen_width(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_on_hyphens=False)


def number_text(value: float | None, digits: int | None = None) -> str:
    """A number with so many decimals, or with four significant digits; a dash for None and NaN."""
    if value is None or math.isnan(value):
        return DASH
    if digits is not None:
        text = f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no -0.00
    else:
        text = f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"
    return text.replace("-", MINUS)


def share_text(share: float | None, digits: int = 1) -> str:
    """A share in per cent; only the whole reads 100 %, and only nothing reads 0 %; a dash for None and NaN."""
    if share is None or math.isnan(share):
        return DASH
    least = 10**-digits
    percent = min(max(100 * share, least), 100 - least) if 0 < share < 1 else 100 * share
    return f"{number_text(percent, digits if percent % 100 else 0)} %"


def p_text(p: float | None) -> str:
    """A p-value; a dash for None."""
    return "below 0.001" if p is not None and p < 0.001 else number_text(p, 3)


def seconds_text(seconds: float, digits: int = 1) -> str:
    """A duration."""
    return f"{seconds:,.{digits}f} s"


def rate_text(images_per_second: float) -> str:
    """How fast images go through."""
    return f"{images_per_second:,.0f} images/s"


def counted(number: int, noun: str, plural: str = "") -> str:
    """`1 group`, `2,300 groups`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
