"""Findings: what an explanation says, in numbers, in plain words, and as explanation.json."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.evaluate.checks import group_cautions
from engine.evaluate.trained import Trained
from engine.explain.controls import Deletion, Randomised
from engine.explain.lungs import Looks, LungRatio, left_out
from engine.train.run_folder import BEST
from loaders import __version__
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.figure_text import ClassNames
from loaders.output import Line, Parts, Sheet, caution_lines, path_line

NOT_FOR_DIAGNOSIS = "Research software: not for diagnosis."


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One sample that is shown.  probability: of the class said.  overlay: its picture's file."""

    sample: int
    kind: str
    label: str
    predicted: str
    probability: float
    lung_ratio: float | None
    overlay: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """What was found on one beton.  looks: where the model looks."""

    beton: Path
    method: str
    layer: str
    samples: tuple[Example, ...]
    lungs: LungRatio
    randomised: Randomised
    deletion: Deletion
    looks: Looks
    sentence: str
    cautions: list[Caution]
    out: Path


def map_cautions(lungs: LungRatio, random_weights: Randomised, blanked: Deletion, num_groups: int) -> list[Caution]:
    """What limits the result, beside what limits any result on the set."""
    found = group_cautions(num_groups)
    if lungs.masks == "template":
        found.append(caution("usual-lung-region"))
    images = lungs.num_samples + lungs.num_empty + lungs.num_outside
    if lungs.num_empty:
        found.append(caution("empty-maps", empty=lungs.num_empty, images=images))
    if lungs.num_outside:
        found.append(caution("lungs-outside-crop", outside=lungs.num_outside, images=images))
    if not random_weights.passed:
        alike = random_weights.correlation is not None
        found.append(caution("maps-of-random-weights" if alike else "maps-not-comparable"))
    if not blanked.passed:
        found.append(caution("deletion-not-faster"))
    return found


def caption(example: Example, names: ClassNames) -> tuple[str, str]:
    """The two lines under a picture."""
    verdict = "right" if example.label == example.predicted else f"wrong, it is {names.text_of[example.label]}"
    ratio = "unknown" if example.lung_ratio is None else f"{example.lung_ratio:.2f} (chance 1)"
    return (
        f"says {names.text_of[example.predicted]}, {example.probability:.1%}: {verdict}",
        f"sample {example.sample}, {example.kind}; lung ratio {ratio}",
    )


def content(result: Explanation, trained: Trained, beton: Beton) -> dict[str, Any]:
    """explanation.json."""
    lungs, blanked = result.lungs, result.deletion
    return {
        "set": result.out.name,
        "beton": result.beton.name,
        "split": beton.facts.split,
        "synthetic": beton.facts.synthetic,
        "conversion_id": beton.facts.conversion_id,
        "classes": list(trained.classes),
        "method": result.method,
        "layer": result.layer,
        "samples": [asdict(example) for example in result.samples],
        "lung_ratio": {
            **asdict(lungs.ratio),
            "n": lungs.num_samples,
            "empty": lungs.num_empty,
            "outside": lungs.num_outside,
            "masks": lungs.masks,
            "area": lungs.area,
            "limit": lungs.limit,
        },
        "randomised": {
            "correlation": result.randomised.correlation,
            "n": result.randomised.num_samples,
            "empty": result.randomised.num_empty,
            "passed": result.randomised.passed,
        },
        "deletion": {
            "auc_cam": blanked.auc_cam,
            "auc_random": blanked.auc_random,
            "difference": asdict(blanked.difference),
            "n": blanked.num_samples,
            "passed": blanked.passed,
            "figure": "deletion.png",
        },
        "looks": result.looks,
        "sentence": result.sentence,
        "cautions": msgspec.to_builtins(result.cautions),
        "checkpoint": {"path": BEST, "sha256": trained.sha256, "epoch": trained.state["epoch"]},
        "plainfilm": __version__,
        "not_for_diagnosis": True,
    }


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
        *caution_lines(result.cautions, result.out.name),
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
