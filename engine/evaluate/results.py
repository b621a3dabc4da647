"""A measurement: what one set of scores amounts to, with intervals: as a whole, at operating points, in subgroups."""

# N samples, K classes

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from matplotlib.figure import Figure

from engine.device import Policy
from engine.evaluate.figures import Curve, Mark, Panel, pr_figure, reliability_figure, roc_figure, score_figure
from engine.evaluate.trained import Decision, Trained, against_rest
from engine.figures import confusion_figure
from engine.statistics.calibration import reliability, scored_event
from engine.statistics.estimates import Estimate, estimates, paired_differences, trivial
from engine.statistics.metrics import confusion_matrix, ranking_score
from engine.statistics.names import interval, number, over_words, size
from engine.statistics.thresholds import OperatingPoint, precision_recall_curve, roc_curve
from engine.train.run_folder import BEST
from loaders import __version__
from loaders.beton.format import Facts
from loaders.cautions import Caution
from loaders.figure_text import ClassNames, class_names, name_text

FEWEST = 10  # samples: an interval of fewer would be so wide that it only misleads


@dataclass(frozen=True, kw_only=True, slots=True)
class Subgroup:
    """Some of a set's samples.  kind: source, view or flag.  index_N: int64, their places, in order."""

    kind: str
    name: str
    index_N: np.ndarray

    @property
    def refused(self) -> str:
        """Why nothing is estimated; "" where something is."""
        return f"too small: fewer than {FEWEST} samples" if len(self.index_N) < FEWEST else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The result on one beton.  metrics: of engine.statistics.metrics.  figures: the pictures in out.

    against: the name of the rival, the other run; "" for none.  rival_cautions: of its score, not of this one.
    """

    beton: Path
    classes: tuple[str, ...]
    positive: str
    metrics: dict[str, Any]
    measurement: Measurement
    decision: Decision
    bootstrap: Bootstrap
    against: str
    cautions: list[Caution]
    rival_cautions: list[Caution]
    out: Path
    figures: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What a network said of a set: labels int64 (N,), probabilities float64 (N, K), groups int64 (N,).

    positive: the positive class among classes.
    """

    label_N: np.ndarray
    probability_NK: np.ndarray
    group_N: np.ndarray
    classes: tuple[str, ...]
    positive: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Bootstrap:
    """How intervals are made.  prevalence: the stated one, for predictive values; None for none."""

    resamples: int
    seed: int
    prevalence: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class AtPoint:
    """One operating point on the set under test; no estimates where it was refused."""

    point: OperatingPoint
    estimates: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True, slots=True)
class InSubgroup:
    """One subgroup; no estimates where it is too small.  positives: samples of the positive class."""

    subgroup: Subgroup
    num_groups: int
    positives: int
    estimates: dict[str, Estimate]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """Estimates of the most probable class, the trivial classifier's values, points, subgroups, and a difference.

    difference: these scores minus another network's on the same samples; None where none was asked for.
    """

    estimates: dict[str, Estimate]
    trivial: dict[str, Estimate]
    points: tuple[AtPoint, ...]
    subgroups: tuple[InSubgroup, ...]
    difference: dict[str, Estimate] | None
    num_groups: int
    prevalence: float


def measure(
    scores: Scores,
    points: Sequence[OperatingPoint],
    subgroups: Sequence[Subgroup],
    bootstrap: Bootstrap,
    *,
    other_NK: np.ndarray | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measurement:
    """Estimate everything.  other_NK: probabilities of another network on the same samples, for the difference."""
    estimate = partial(estimates, resamples=bootstrap.resamples, seed=bootstrap.seed)
    done, total = 0, 1 + len(points) + len(subgroups) + (other_NK is not None)

    def count() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    label_N, group_N, positive = scores.label_N, scores.group_N, scores.positive
    whole = estimate(label_N, scores.probability_NK, group_N, positive, prevalence=bootstrap.prevalence)
    count()
    at_points = []
    binary = against_rest(label_N, scores.probability_NK, positive)
    for point in points:
        found: dict[str, Estimate] = {}
        if point.threshold is not None:
            prevalence = bootstrap.prevalence
            found = estimate(
                *binary[:2], group_N, binary[2], threshold=point.threshold, prevalence=prevalence, scores=False
            )
        at_points.append(AtPoint(point=point, estimates=found))
        count()
    in_subgroups = []
    for subgroup in subgroups:
        index_N, found = subgroup.index_N, {}
        if not subgroup.refused:
            found = estimate(label_N[index_N], scores.probability_NK[index_N], group_N[index_N], positive)
        in_subgroups.append(
            InSubgroup(
                subgroup=subgroup,
                num_groups=len(np.unique(group_N[index_N])),
                positives=int((label_N[index_N] == positive).sum()),
                estimates=found,
            )
        )
        count()
    difference = None
    if other_NK is not None:
        difference = paired_differences(
            label_N, other_NK, scores.probability_NK, group_N, positive, prevalence=bootstrap.prevalence,
            resamples=bootstrap.resamples, seed=bootstrap.seed,
        )  # fmt: skip
        count()
    return Measurement(
        estimates=whole,
        trivial=trivial(label_N, len(scores.classes), positive, prevalence=bootstrap.prevalence),
        points=tuple(at_points),
        subgroups=tuple(in_subgroups),
        difference=difference,
        num_groups=len(np.unique(group_N)),
        prevalence=float((label_N == positive).mean()),
    )


FIGURES = ("roc.png", "pr.png", "reliability.png", "confusion.png", "scores.png")


def content(result: Evaluation, facts: Facts, trained: Trained, policy: Policy) -> dict[str, Any]:
    """What metrics.json holds."""
    measured, state = result.measurement, trained.state
    return {
        "set": result.out.name,
        "beton": result.beton.name,
        "split": facts.split,
        "synthetic": facts.synthetic,
        "conversion_id": facts.conversion_id,
        "classes": list(result.classes),
        "positive": result.positive,
        **result.metrics,
        "num_groups": measured.num_groups,
        "temperature": result.decision.temperature,
        "prevalence": {"set": measured.prevalence, "stated": result.bootstrap.prevalence},
        "estimates": plain(measured.estimates),
        "trivial": {name: found.value for name, found in measured.trivial.items()},
        "trivial_defined": {name: found.defined for name, found in measured.trivial.items() if found.classes},
        "operating_points": [asdict(at.point) | {"estimates": plain(at.estimates)} for at in measured.points],
        "subgroups": [
            {
                "kind": found.subgroup.kind,
                "name": found.subgroup.name,
                "n": len(found.subgroup.index_N),
                "groups": found.num_groups,
                "positives": found.positives,
                "refused": found.subgroup.refused,
                "estimates": plain(found.estimates),
            }
            for found in measured.subgroups
        ],
        "difference": None
        if measured.difference is None
        else {
            "against": result.against,
            "estimates": plain(measured.difference),
            "cautions": msgspec.to_builtins(result.rival_cautions),
        },
        "resamples": result.bootstrap.resamples,
        "seed": result.bootstrap.seed,
        "figures": list(result.figures),
        "cautions": msgspec.to_builtins(result.cautions),
        "checkpoint": {
            "path": BEST,
            "sha256": trained.sha256,
            "epoch": state["epoch"],
            "conversion_id": state["conversion_id"],
        },
        "device": policy.describe(),
        "plainfilm": __version__,
        "not_for_diagnosis": True,
    }


def plain(found: dict[str, Estimate]) -> dict[str, dict[str, Any]]:
    """Estimates for JSON."""
    return {name: asdict(estimate) for name, estimate in found.items()}


def scores_table(scores: Scores) -> str:
    """scores.csv: every sample's group, label, most probable class and probabilities, after temperature."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    classes = scores.classes
    table.writerow(["sample", "group", "label", "predicted", *(f"probability_{label}" for label in classes)])
    rows = zip(scores.group_N, scores.label_N, scores.probability_NK, strict=True)
    for sample, (group, label, row) in enumerate(rows):
        said = classes[int(np.argmax(row))]
        table.writerow([sample, group, classes[label], said, *(f"{value:.9g}" for value in row)])
    return text.getvalue()


def figures(scores: Scores, measured: Measurement, set_name: str, kind: str) -> dict[str, Figure]:
    """The figures by file name; those that one class alone leaves undefined are lacking.

    set_name: of what was tested.  kind: of its images, such as radiographs.
    """
    label_N, probability_NK, classes = scores.label_N, scores.probability_NK, scores.classes
    names = class_names(classes)
    texts = list(names.text_of.values())
    many = len(classes) > 2
    kinds = list(range(len(classes))) if many else [scores.positive]
    count = f"n = {size(len(label_N), measured.num_groups)}".replace(" ", "\u00a0")  # on one line
    where = f"{name_text(set_name)} ({kind}), {count}"

    def title(name: str, metric: str) -> str:
        estimate = measured.estimates[metric]
        over = over_words(estimate.defined, estimate.classes)
        shown = f"mean {name} {over}" if over else name
        sure = "" if estimate.low is None else f" (95 % interval {interval(metric, estimate)})"
        return f"{where}\n{shown} {number(metric, estimate.value)}{sure}"

    def curve(kind: int, metric: str, x_P: np.ndarray, y_P: np.ndarray) -> Curve:
        area = measured.estimates[f"{metric}[{kind}]"].value if many else None
        name = texts[kind] if many else f"{texts[kind]} against {texts[1 - kind]}"
        return Curve(name=name, x_P=x_P, y_P=y_P, area=area, base=float((label_N == kind).mean()))

    def note(name: str) -> str:
        return f"Each class against the rest, with its {name}. {names.note}" if many else names.note

    drawn: dict[str, Figure] = {}
    roc = {kind: roc_curve(label_N == kind, ranking_score(probability_NK, kind)) for kind in kinds}
    lines = [
        curve(kind, "auc", found.false_positive_P, found.sensitivity_P) for kind, found in roc.items() if found
    ]  # fmt: skip
    if lines:
        points = marks(scores, measured, names, "specificity", "sensitivity")
        drawn["roc.png"] = roc_figure(lines, points, title("ROC-AUC", "auc"), note("ROC-AUC"))
    pr = {kind: precision_recall_curve(label_N == kind, ranking_score(probability_NK, kind)) for kind in kinds}
    lines = [
        curve(kind, "pr_auc", found.recall_P[1:], found.precision_P[1:]) for kind, found in pr.items() if found
    ]  # fmt: skip
    if lines:
        points = marks(scores, measured, names, "sensitivity", "ppv")
        drawn["pr.png"] = pr_figure(lines, points, title("PR-AUC", "pr_auc"), note("PR-AUC"))
    score_N, happened_N = scored_event(label_N, probability_NK, scores.positive)
    what = "the most probable class" if many else texts[scores.positive]
    drawn["reliability.png"] = reliability_figure(
        reliability(score_N, happened_N), what, title("ECE", "ece"), "" if many else names.note
    )
    confusion_KK = confusion_matrix(label_N, probability_NK.argmax(1), len(classes))
    drawn["confusion.png"] = confusion_figure(confusion_KK, names, title("accuracy", "accuracy"))
    panels = [Panel(name=texts[kind], score_N=probability_NK[:, kind], is_class_N=label_N == kind) for kind in kinds]
    thresholds = [(at.point.name, at.point.threshold) for at in measured.points if at.point.threshold is not None]
    drawn["scores.png"] = score_figure(panels, thresholds, title("Brier score", "brier"), names.note)
    return drawn


def marks(scores: Scores, measured: Measurement, names: ClassNames, x: str, y: str) -> list[Mark]:
    """The operating points by two of their estimates; specificity is drawn as what it lacks to 1."""
    found = []
    of_which = f" of {names.text_of[scores.classes[scores.positive]]}" if len(scores.classes) > 2 else ""
    for at in measured.points:
        values = [at.estimates[name].value for name in (x, y) if name in at.estimates]
        if len(values) == 2 and values[0] is not None and values[1] is not None:
            found.append(
                Mark(name=at.point.name + of_which, x=1 - values[0] if x == "specificity" else values[0], y=values[1])
            )
    return found
