"""What a command tells in the terminal: lines and tables, made in the engine, printed by cli.py alone."""

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
    """A table: its first column is text, the others are numbers."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


Parts = Sequence[Line | Sheet]
