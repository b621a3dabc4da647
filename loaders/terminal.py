"""What a command tells in the terminal: lines and tables, made beside what they tell of, printed by cli.py alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text.  style: of rich, such as "yellow" or "bold"; "" for none."""

    text: str
    style: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sheet:
    """A table: its first column is text, the others are numbers.  ends_in_text: the last one is text, too."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    ends_in_text: bool = False


Parts = Sequence[Line | Sheet]
