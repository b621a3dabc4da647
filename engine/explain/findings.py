"""Findings: the result of an explanation, in numbers and in plain English; explanation.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engine.evaluate.checks import group_cautions
from engine.evaluate.trained import Checkpoint
from engine.explain.controls import Deletion, Randomised
from engine.explain.lungs import LUNGS_ALONE, LungRatio, Region, left_out, region_of, sentence
from engine.statistics.names import interval_text, short_name, value_text
from loaders import __version__
from loaders.cautions import Caution, caution
from loaders.figure_text import ClassNames
from loaders.images.files import REFUSALS
from loaders.lungs.masks import Masks
from loaders.output import Line, Parts, Sheet, caution_lines, path_line, share_text
from loaders.records import Count, Record

EXPLANATION = "explanation.json"
NOT_FOR_DIAGNOSIS = "Research software: not for diagnosis."
Kind = Literal["right", "wrong", "borderline"]


class Example(Record, frozen=True, kw_only=True):
    """One sample that is shown.  probability: of the predicted class.  overlay: its picture's file."""

    sample: Count
    kind: Kind
    label: str
    predicted: str
    probability: float
    lung_ratio: float | None
    overlay: str


class Explanation(Record, frozen=True, kw_only=True):
    """The explanation of one beton, as explanation.json holds it.  region: where the evidence lies.

    set_name: of the set's folder.  layer: whose map it is.  lungs: None where the frames show the lungs alone.
    """

    made_by = "explain"
    version: int = 2
    set_name: str
    beton: str
    split: str
    synthetic: bool
    conversion_id: str
    classes: list[str]
    method: str
    layer: str
    region: Region
    samples: list[Example]
    lungs: LungRatio | None
    randomised: Randomised
    deletion: Deletion
    cautions: list[Caution]
    checkpoint: Checkpoint
    plainfilm: str = __version__
    not_for_diagnosis: bool = True

    def __post_init__(self) -> None:
        if self.region != (region := region_of(self.lungs, self.distrust)):
            raise ValueError(f"region {self.region}, expected {region} of its numbers and controls")

    @property
    def distrust(self) -> Caution | None:
        """Why the maps are not believed."""
        return self.randomised.failure or self.deletion.failure

    @property
    def sentence(self) -> str:
        """Where the evidence lies, in plain English."""
        return sentence(self.lungs, self.distrust)


@dataclass(frozen=True, kw_only=True, slots=True)
class Explained:
    """One explanation: explanation.json, and beside it in `out` the overlays, gallery.png and deletion.png."""

    explanation: Explanation
    out: Path


def map_cautions(
    lungs: LungRatio | None, random_weights: Randomised, blanked: Deletion, num_groups: int
) -> list[Caution]:
    """What limits the result, beside what limits any result on the set."""
    found = group_cautions(num_groups)
    if lungs:
        drawn = lungs.num_drawn
        if lungs.num_empty:
            found.append(caution("empty-maps", empty=lungs.num_empty, images=drawn))
        if lungs.num_outside:
            found.append(caution("lungs-outside-crop", outside=lungs.num_outside, images=drawn))
        if without := sum(lungs.without_mask.values()):
            reasons = [f"{REFUSALS[reason][0]}: {number:,}" for reason, number in lungs.without_mask.items()]
            found.append(caution("images-without-mask", without=without, images=drawn, reasons=reasons))
    return found + [failure for failure in (random_weights.failure, blanked.failure) if failure]


def region_cautions(masks: Masks | None) -> list[Caution]:
    """What limits every answer on a set.  masks: None where its frames show the lungs alone."""
    if masks is None:
        return [LUNGS_ALONE]
    return [caution("usual-lung-region")] if masks.kind == "template" else []


def caption(example: Example, names: ClassNames) -> tuple[str, str]:
    """The two lines under a picture."""
    verdict = "right" if example.label == example.predicted else f"wrong, it is {names.text_of[example.label]}"
    ratio = "unknown" if example.lung_ratio is None else f"{value_text('lung_ratio', example.lung_ratio)} (chance 1)"
    return (
        f"predicted {names.text_of[example.predicted]}, {share_text(example.probability)}: {verdict}",
        f"sample {example.sample}, {example.kind}; lung ratio {ratio}",
    )


def masks_text(lungs: LungRatio) -> str:
    """What showed where the lungs lie."""
    given = {"phantom": "the phantoms' masks", "folder": "mask files", "template": "the lungs' usual region"}
    return given.get(lungs.masks, f"each film's own mask, found by segmenter {lungs.segmenter}")


def outlined(legend: str, lungs: LungRatio | None) -> str:
    """A gallery's legend, with what the thin line in its pictures is."""
    return f"{legend} Thin line: {masks_text(lungs)}." if lungs else legend


def explanation_parts(explained: Explained) -> Parts:
    """The sentence, the figures behind it, the controls, the files."""
    result, out = explained.explanation, explained.out
    lungs, random, blanked = result.lungs, result.randomised, result.deletion
    weights, blanking = ("failed" if control.failure else "passed" for control in (random, blanked))
    of_lungs = lungs and (
        f"{short_name('lung_ratio')} (1 is chance)", value_text("lung_ratio", lungs.ratio.value),
        interval_text("lung_ratio", lungs.ratio), lung_images(lungs), masks_text(lungs),
    )  # fmt: skip
    rows = (
        *((of_lungs,) if of_lungs else ()),
        (short_name("correlation"), value_text("correlation", random.correlation), "",
         images(random.num_samples, random.num_empty), weights),
        *((short_name(key), value_text(key, getattr(blanked, key)), "", str(blanked.num_samples), "")
          for key in ("area_by_map", "area_at_random")),
        (short_name("deletion"), value_text("deletion", blanked.difference.value),
         interval_text("deletion", blanked.difference), str(blanked.num_samples), blanking),
    )  # fmt: skip
    title = f"{result.method} at {result.layer}"
    return [
        Sheet(headers=("measure", "value", "95 % interval", "images", ""), rows=rows, title=title, ends_in_text=True),
        Line(f"{result.set_name}: {result.sentence}.", "bold"),
        *caution_lines(result.cautions, result.set_name),
        *(path_line(out / name) for name in (EXPLANATION, "gallery.png", "deletion.png")),
        Line(f"{len(result.samples)} pictures beside them. {NOT_FOR_DIAGNOSIS}"),
    ]


def images(num_samples: int, num_empty: int, num_unmasked: int = 0) -> str:
    """How many were measured, and how many could not be."""
    missing = left_out(num_empty, num_unmasked)
    return f"{num_samples:,} ({missing})" if missing else f"{num_samples:,}"


def lung_images(lungs: LungRatio) -> str:
    """The same of the lung ratio."""
    return images(lungs.num_samples, lungs.num_empty, sum(lungs.without_mask.values()))
