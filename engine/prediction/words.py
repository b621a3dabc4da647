"""What a prediction tells in the terminal: counts by class, and by reason of abstaining."""

from __future__ import annotations

from engine.prediction.prediction import Predicted
from loaders.terminal import Line, Parts, Sheet, path_line


def prediction_words(found: Predicted) -> Parts:
    """Counts, cautions, and where the table is."""
    said, abstained = sum(found.said.values()), sum(found.abstained.values())
    parts: list[Line | Sheet] = [
        Line(f"{found.files:,} files: {said:,} predicted + {abstained:,} abstained", "bold"),
        Sheet(headers=("said", "files"), rows=tuple((name, f"{found.said[name]:,}") for name in found.classes)),
    ]
    if found.abstained:
        rows = tuple((reason, f"{number:,}") for reason, number in found.abstained.most_common())
        parts.append(Sheet(headers=("abstains because of", "files"), rows=rows))
    parts.append(Line(how(found)))
    if found.mended:
        parts.append(Line(f"{found.mended:,} mended as `convert --audit auto` would: see the column mended."))
    if found.audit == "off":
        parts.append(Line("Caution: --audit off: laterals, CT and the like are predicted, too.", "yellow"))
    if found.temperature is None:
        parts.append(
            Line(
                "Caution: uncalibrated: the run kept no validation scores, so that a probability may be far too sure; "
                "train again.",
                "yellow",
            )
        )
    for name, number in sorted(found.in_set.items()):
        parts.append(
            Line(
                f"Caution: files that were, by their pixels, in the run's {name} set: {number:,}; what is said of them "
                "says nothing about new ones.",
                "yellow",
            )
        )
    parts += [Line(f"Caution: {caution}.", "yellow") for caution in found.cautions]
    return [*parts, path_line(found.out)]


def how(found: Predicted) -> str:
    """How probabilities were made, and when none is believed."""
    calibrated = (
        "as the network gives them"
        if found.temperature is None
        else f"calibrated on validation, at temperature {found.temperature:.3g}"
    )
    return f"Probabilities {calibrated}; below {found.min_confidence:g} no class is said (--min-confidence)."
