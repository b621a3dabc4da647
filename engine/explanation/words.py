"""What `explain` tells in the terminal."""

from __future__ import annotations

from engine.explanation.findings import NOT_FOR_DIAGNOSIS, Explanation
from engine.explanation.lungs import left_out
from loaders.terminal import Line, Parts, Sheet, path_line

MASKS = {"phantom": "the phantoms' masks", "folder": "mask files", "template": "the lungs' usual region"}


def explanation_parts(result: Explanation) -> Parts:
    """The sentence, the figures behind it, the controls, the files."""
    lungs, blanked = result.lungs, result.deletion
    correlation = result.randomised.correlation
    rows = (
        ("lung ratio (1 is chance)", number(lungs.ratio.value), interval(lungs.ratio.low, lungs.ratio.high),
         images(lungs.num_samples, lungs.num_empty), MASKS[lungs.masks]),
        ("correlation with random weights", number(correlation), "",
         images(result.randomised.num_samples, result.randomised.num_empty),
         verdict(result.randomised.passed)),
        ("deletion: area by the map", number(blanked.auc_cam, 4), "", str(blanked.num_samples), ""),
        ("deletion: area at random", number(blanked.auc_random, 4), "", str(blanked.num_samples), ""),
        ("deletion: difference", number(blanked.difference.value, 4),
         interval(blanked.difference.low, blanked.difference.high, 4), str(blanked.num_samples),
         verdict(blanked.passed)),
    )  # fmt: skip
    title = f"{result.method} at {result.layer}"
    return [
        Sheet(headers=("measure", "value", "95 % interval", "images", ""), rows=rows, title=title, ends_in_text=True),
        Line(f"{result.out.name}: {result.sentence}.", "bold"),
        *(Line(f"Caution, {result.out.name}: {warning}.", "yellow") for warning in result.warnings),
        *(path_line(result.out / name) for name in ("explanation.json", "gallery.png", "deletion.png")),
        Line(f"{len(result.samples)} pictures beside them. {NOT_FOR_DIAGNOSIS}"),
    ]


def images(num_samples: int, num_empty: int) -> str:
    """How many were measured, and how many could not be."""
    return f"{num_samples:,} ({left_out(num_empty)})" if num_empty else f"{num_samples:,}"


def number(value: float | None, digits: int = 2) -> str:
    """A number with its decimals."""
    return "undefined" if value is None else f"{value:.{digits}f}"


def interval(low: float | None, high: float | None, digits: int = 2) -> str:
    """Both ends, or nothing."""
    return "" if low is None or high is None else f"{low:.{digits}f} to {high:.{digits}f}"


def verdict(passed: bool) -> str:
    """A control's outcome."""
    return "passed" if passed else "failed"
