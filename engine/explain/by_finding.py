"""The explanation by finding: maps of each one's logit, their lung ratio, controls; explanation-by-finding.json."""

# N samples, K findings

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.special import logit
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from engine.config import ExplainConfig
from engine.device import Policy
from engine.evaluate.evaluate import predictions
from engine.evaluate.trained import Checkpoint, Trained
from engine.explain.cam import METHODS, layer_name
from engine.explain.controls import Deletion, Randomised
from engine.explain.findings import NOT_FOR_DIAGNOSIS, Kind, lung_images, map_cautions, outlined, region_cautions
from engine.explain.gallery import gallery, picture_bytes
from engine.explain.lungs import ANSWERS, IN_BRIEF, NOTHING, LungRatio, Region, region_of, sentence
from engine.explain.pictures import (
    MOST_CONTROLLED,
    Pictures,
    check,
    choose_of_finding,
    lungs_finder,
    measurable,
    measure,
    show,
    some,
)
from engine.networks.registry import network_of
from engine.statistics.names import interval_text, short_name, value_text
from engine.train.checkpoint import groups_of
from loaders import __version__
from loaders.batches.loader import Loader
from loaders.cautions import Caution, caution
from loaders.errors import ConfigError
from loaders.figure_text import EM, ClassNames, class_names, name_text
from loaders.lungs.masks import Masks
from loaders.output import DASH, Line, Parts, PhaseProgress, Sheet, caution_lines, counted, path_line, share_text
from loaders.records import Count, Record

BY_FINDING = "explanation-by-finding.json"
LEAST_SHOWN = 3  # pictures of a finding: one right, one wrong, one borderline
CAPTION = 10 * EM  # room of a finding's name below a picture
LEGEND = "Left: the picture. Right: the map over it, brighter where more speaks for the finding being present."
STATES = ("absent", "present")
ROUNDING = 1e-15
FEW = ("one-group", "few-groups")


class FindingExample(Record, frozen=True, kw_only=True):
    """One sample that is shown.  probability: that the finding is present.  overlay: its picture's file."""

    sample: Count
    kind: Kind
    present: bool
    predicted: bool
    probability: float
    lung_ratio: float | None
    overlay: str


def distrust_of(cautions: list[Caution], *controls: Randomised | Deletion | None) -> Caution | None:
    """Why the maps of a finding show nothing: a control that failed, or too few groups in which it is predicted."""
    failures = [control.failure for control in controls if control and control.failure]
    return next(iter([*failures, *(one for one in cautions if one.code in FEW)]), None)


class FindingExplanation(Record, frozen=True, kw_only=True):
    """The explanation of one finding, over the images in which it is predicted as present: num_predicted of them.

    region: where the evidence lies; unknown of few groups, too.  lungs, randomised, deletion: None where it is
    predicted nowhere; lungs alone where the frames show the lungs alone.  samples: of images in which it is known.
    """

    name: str
    num_predicted: Count
    region: Region
    lungs: LungRatio | None
    randomised: Randomised | None
    deletion: Deletion | None
    samples: list[FindingExample]
    cautions: list[Caution]

    def __post_init__(self) -> None:
        if self.region != (expected := region_of(self.lungs, self.distrust)):
            raise ValueError(f"region {self.region}, expected {expected} of its numbers and controls")

    @property
    def distrust(self) -> Caution | None:
        """Why the maps are not believed."""
        return distrust_of(self.cautions, self.randomised, self.deletion)

    @property
    def sentence(self) -> str:
        """Where the evidence lies, in plain English."""
        return sentence(self.lungs, self.distrust) if self.num_predicted else f"{NOTHING}: it is predicted in no image"


class FindingsExplanation(Record, frozen=True, kw_only=True):
    """The explanation of findings on one beton, as explanation-by-finding.json holds it; see Explanation.

    findings: in the run's order, those that were explained.  left_out: those that were not.
    cautions: of all findings alike.
    """

    made_by = "explain"
    version: int = 2
    set_name: str
    beton: str
    split: str
    synthetic: bool
    conversion_id: str
    method: str
    layer: str
    findings: list[FindingExplanation]
    left_out: list[str]
    cautions: list[Caution]
    checkpoint: Checkpoint
    plainfilm: str = __version__
    not_for_diagnosis: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingsExplained:
    """One explanation of findings: explanation-by-finding.json, and beside it in `out` the overlays and gallery.png."""

    explanation: FindingsExplanation
    out: Path


def explain_findings(
    config: ExplainConfig,
    trained: Trained,
    policy: Policy,
    loader: Loader,
    masks: Masks | None,
    cautions: list[Caution],
    reference_N1HW: Tensor,
    progress: PhaseProgress,
) -> tuple[FindingsExplanation, dict[str, bytes]]:
    """Predict, then measure, check and draw each finding; with the pictures by file name.

    Those asked for, or else all, the most often present first, until config.minutes have passed.
    Errors: ConfigError for a finding that the run does not have.
    """
    beton, rules, names = loader.beton, trained.findings, trained.classes
    if unknown := [name for name in config.finding if name not in names]:
        raise ConfigError(f"--finding: found {unknown[0]}, expected of {', '.join(names)}; name findings of the run")
    started = time.monotonic()
    finding_NK, (probability_NK,) = predictions((trained,), policy, loader, partial(progress, "predict"))
    order = np.argsort(-(finding_NK == 1).sum(0), kind="stable").tolist()
    asked = [place for place in order if not config.finding or names[place] in config.finding]
    most, texts = max(LEAST_SHOWN, config.samples // len(asked)), class_names(names, CAPTION, "finding")
    lungs_of = lungs_finder(masks, beton)
    found: dict[int, FindingExplanation] = {}
    overlays: list[tuple[str, Image.Image]] = []
    for place in asked:
        if found and not config.finding and time.monotonic() - started > 60 * config.minutes:
            break
        with as_two_classes(trained.network, place):
            pictures = Pictures(
                network=trained.network,
                redraw=partial(redrawn, trained, place),
                config=config,
                beton=beton,
                target_N=np.ones(len(beton), np.int64),
                group_N=groups_of(beton),
                reference_N1HW=reference_N1HW,
                masks=masks,
                lungs_of=lungs_of,
            )
            scored = Scored(
                name=names[place],
                finding_N=finding_NK[:, place],
                probability_N=probability_NK[:, place],
                threshold=rules.threshold_K[place],
            )
            found[place], drawn = explain_finding(pictures, scored, most, texts, len(overlays), progress)
        overlays += [(names[place], picture) for picture in drawn]
        progress("findings", len(found), len(asked))
    explained, facts = [found[place] for place in sorted(found)], beton.facts
    in_vain = [names[place] for place in sorted({*asked} - {*found})]
    result = FindingsExplanation(
        set_name=beton.set_name,
        beton=beton.path.name,
        split=facts.split,
        synthetic=facts.synthetic,
        conversion_id=facts.conversion_id,
        method=METHODS[config.method],
        layer=layer_name(trained.network, facts.crop),
        findings=explained,
        left_out=[name for place, name in enumerate(names) if place not in found],
        cautions=cautions + region_cautions(masks) + unexplained(in_vain, config.minutes),
        checkpoint=trained.checkpoint,
    )
    files = {f"{number:04d}.png": picture_bytes(picture) for number, (_, picture) in enumerate(overlays, 1)}
    return result, files | {"gallery.png": picture_bytes(findings_gallery(result, overlays, texts))}


def unexplained(names: list[str], minutes: float) -> list[Caution]:
    """Which findings were left out, since there was no time."""
    return [caution("findings-not-explained", findings=names, minutes=minutes)] if names else []


def as_two_classes(network: nn.Module, place: int) -> RemovableHandle:
    """Let a network of findings give logits of one finding, absent and present, until the handle is closed."""
    return network.register_forward_hook(
        lambda module, inputs, logits_NK: nn.functional.pad(logits_NK[:, place, None], (1, 0))
    )


def redrawn(trained: Trained, place: int) -> nn.Module:
    """A network of the same kind with random weights, for the same finding."""
    network = network_of(trained.state).eval()
    as_two_classes(network, place)
    return network


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """One finding on the set.  finding_N: 1, 0, NaN.  probability_N: that it is present, which threshold decides."""

    name: str
    finding_N: np.ndarray
    probability_N: np.ndarray
    threshold: float


def explain_finding(
    pictures: Pictures,
    scored: Scored,
    most: int,
    texts: ClassNames,
    drawn_before: int,
    progress: PhaseProgress,
) -> tuple[FindingExplanation, list[Image.Image]]:
    """Measure and check the maps of one finding where it is predicted, and draw at most so many examples."""
    config, probability_N = pictures.config, scored.probability_N
    is_found_N = probability_N >= scored.threshold
    found_N = np.flatnonzero(is_found_N)
    lungs, random_weights, blanked, ratio_of, cautions = None, None, None, dict[int, float](), list[Caution]()
    if len(found_N):
        measured_N = some(np.intersect1d(found_N, measurable(pictures)), config.measured, config.seed)
        lungs, ratio_of = measure(pictures, measured_N, partial(progress, "maps"))
        random_weights, blanked = check(pictures, some(found_N, MOST_CONTROLLED, config.seed), progress)
        num_groups = len(np.unique(pictures.group_N[list(ratio_of) or measured_N]))
        cautions = map_cautions(lungs, random_weights, blanked, num_groups)
    examples, overlays, chosen = list[FindingExample](), [], list[tuple[int, Kind]]()
    if not np.isnan(scored.threshold):  # else it is predicted of no film, and none is right or wrong
        margin_N = log_odds(probability_N) - log_odds(scored.threshold)
        chosen = choose_of_finding(scored.finding_N, margin_N, most)
    for shown in show(pictures, chosen, ratio_of):
        example = FindingExample(
            sample=shown.sample,
            kind=shown.kind,
            present=bool(scored.finding_N[shown.sample] == 1),
            predicted=bool(is_found_N[shown.sample]),
            probability=float(probability_N[shown.sample]),
            lung_ratio=shown.ratio,
            overlay=f"{drawn_before + len(examples) + 1:04d}.png",
        )
        examples.append(example)
        overlays.append(shown.draw(caption_of(example, texts.text_of[scored.name])))
    result = FindingExplanation(
        name=scored.name,
        num_predicted=len(found_N),
        region=region_of(lungs, distrust_of(cautions, random_weights, blanked)),
        lungs=lungs,
        randomised=random_weights,
        deletion=blanked,
        samples=examples,
        cautions=cautions,
    )
    return result, overlays


def log_odds(probability: np.ndarray | float) -> np.ndarray:
    """Finite, even of 0 and 1."""
    return logit(np.clip(probability, ROUNDING, 1 - ROUNDING))


def caption_of(example: FindingExample, name: str) -> tuple[str, str]:
    """The two lines under a picture."""
    right = "right" if example.present == example.predicted else f"wrong, it is {STATES[example.present]}"
    ratio = "unknown" if example.lung_ratio is None else f"{value_text('lung_ratio', example.lung_ratio)} (chance 1)"
    return (
        f"{name} at {share_text(example.probability)}, predicted {STATES[example.predicted]}: {right}",
        f"sample {example.sample}, {example.kind}; lung ratio {ratio}",
    )


def findings_gallery(
    result: FindingsExplanation, overlays: Sequence[tuple[str, Image.Image]], texts: ClassNames
) -> Image.Image:
    """All overlays, a row a finding under where its evidence lies."""
    kind = "synthetic phantoms" if result.synthetic else "radiographs"
    titles = {}
    for found in result.findings:
        ratio, interval, *_ = measures(found)
        measured = f"; lung ratio {ratio} ({interval})" if found.lungs else ""
        titles[found.name] = f"{texts.text_of[found.name]}: {ANSWERS[found.region]}{measured}"
    return gallery(
        overlays,
        f"{result.method}: {name_text(result.set_name)} ({kind})",
        "Of each finding, images in which it is known: most confident and right, most confident and wrong, borderline.",
        f"{NOT_FOR_DIAGNOSIS} {texts.note}",
        titles,
        outlined(LEGEND, next((found.lungs for found in result.findings if found.lungs), None)),
    )


def findings_parts(explained: FindingsExplained) -> Parts:
    """A row a finding with its lung ratio and controls, then what limits them, and the files."""
    result, out = explained.explanation, explained.out
    rows = tuple(
        (found.name, f"{found.num_predicted:,}", *measures(found), IN_BRIEF[found.region]) for found in result.findings
    )
    ratio = f"{short_name('lung_ratio')} (1 is chance)"
    headers = ("finding", "predicted", ratio, "95 % interval", "images", "above", "weights", "deletion", "relies on")
    num_pictures = sum(len(found.samples) for found in result.findings)
    return [
        Sheet(headers=headers, rows=rows, title=f"{result.method} at {result.layer}, of each finding where it is "
              "predicted", ends_in_text=True),
        *caution_lines(result.cautions, result.set_name),
        *(line for found in result.findings for line in caution_lines(found.cautions, found.name)),
        *(path_line(out / name) for name in (BY_FINDING, "gallery.png")),
        Line(f"{counted(num_pictures, 'picture')} beside them. {NOT_FOR_DIAGNOSIS}"),
    ]  # fmt: skip


def measures(found: FindingExplanation) -> tuple[str, ...]:
    """The cells of a finding: ratio, interval, images, what a model that relies on the lungs comes above, controls."""
    lungs, of_lungs = found.lungs, (DASH,) * 4
    if lungs:
        limit = DASH if lungs.limit is None else value_text("lung_ratio", lungs.limit)
        interval = interval_text("lung_ratio", lungs.ratio)
        of_lungs = (value_text("lung_ratio", lungs.ratio.value), interval, lung_images(lungs), limit)
    controls = (found.randomised, found.deletion)
    return *of_lungs, *(DASH if one is None else "failed" if one.failure else "passed" for one in controls)
