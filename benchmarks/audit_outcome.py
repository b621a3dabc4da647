"""The outcome of one part of `make audit-quality`: a table, its figures, and the targets that it met or missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.audit_statistics import exact_interval


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One demand on the audit, and what was found.  found, expected: in words."""

    what: str
    found: str
    expected: str
    met: bool

    def line(self) -> str:
        """For the terminal."""
        return f"{'met   ' if self.met else 'MISSED'}  {self.what}: {self.found}, expected {self.expected}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one part found."""

    lines: tuple[str, ...]
    """The table, as printed."""
    record: dict[str, Any]
    """The figures, for JSON."""
    targets: tuple[Target, ...] = ()

    def stored(self, provenance: dict[str, Any]) -> dict[str, Any]:
        """What goes into results/audit.json."""
        return {
            "provenance": provenance,
            "lines": self.lines,
            **self.record,
            "targets": [asdict(target) for target in self.targets],
        }


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells as lines whose columns stand below one another."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def counted(hits: int, trials: int) -> dict[str, Any]:
    """A count with its exact 95 % interval, for JSON."""
    low, high = exact_interval(hits, trials)
    return {"hits": hits, "trials": trials, "low": round(low, 4), "high": round(high, 4)}


def told(count: dict[str, Any]) -> str:
    """A count in words, such as 28/29 (82–100 %)."""
    return f"{count['hits']}/{count['trials']} ({100 * count['low']:.0f}–{100 * count['high']:.0f} %)"
