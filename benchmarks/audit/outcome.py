"""What one part of the audit's benchmark found: a table, figures, targets; and the statistics of detectors."""

# N samples

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest  # type: ignore[import-untyped]
from sklearn.metrics import average_precision_score


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One demand on the audit, and what was found.  found, expected: as text."""

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


def count_text(count: dict[str, Any]) -> str:
    """A count as text, such as 28/29 (82–100 %)."""
    return f"{count['hits']}/{count['trials']} ({100 * count['low']:.0f}–{100 * count['high']:.0f} %)"


def exact_interval(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of hits out of trials; (0, 1) of none.  Source: Clopper and Pearson 1934."""
    if not trials:
        return 0.0, 1.0
    found = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def threshold_at(clean_N: Sequence[float] | np.ndarray, rate: float = 0.01) -> float:
    """The lowest score that at most `rate` of the clean files exceed; of fewer than 1 / rate files, their highest."""
    highest_first = np.sort(np.asarray(clean_N, float))[::-1]
    return float(highest_first[math.floor(rate * len(highest_first) + 1e-9)])


def above(score_N: Sequence[float] | np.ndarray, threshold: float) -> int:
    """How many scores exceed a threshold."""
    return int((np.asarray(score_N, float) > threshold).sum())


def auprc(planted_N: Sequence[float] | np.ndarray, clean_N: Sequence[float] | np.ndarray) -> float:
    """Area under the curve of precision over recall, as a sum of steps (average precision); ties count together.

    The share of planted files is what a detector without skill reaches.
    """
    truth_N = np.r_[np.ones(len(planted_N)), np.zeros(len(clean_N))]
    return float(average_precision_score(truth_N, np.r_[planted_N, clean_N]))


def cross_effects(
    planted: Mapping[str, Sequence[tuple[Collection[str], Collection[str]]]], detectors: Sequence[str]
) -> dict[str, dict[str, tuple[int, int]]]:
    """Planted defect → detector → (films that it flags, films): of those only that it left alone while clean.

    planted: defect → for each film the detectors that flagged it clean, and those that flag it now.
    """
    return {
        defect: {
            name: (
                sum(name in now and name not in clean for clean, now in films),
                sum(name not in clean for clean, _ in films),
            )
            for name in detectors
        }
        for defect, films in planted.items()
    }
