"""The result of an evaluation: estimates of the whole set, at operating points and in subgroups; metrics.json."""

# N samples, K classes

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from matplotlib.figure import Figure

from engine.evaluate.figures import Curve, Mark, Panel, pr_figure, reliability_figure, roc_figure, score_figure
from engine.evaluate.looking import Looking
from engine.evaluate.trained import Checkpoint
from engine.figures import confusion_figure
from engine.statistics.calibration import reliability, scored_event
from engine.statistics.estimates import Estimate
from engine.statistics.metrics import confusion_matrix, ranking_score
from engine.statistics.names import interval_text, metric_of, over_classes, size_text, value_text
from engine.statistics.thresholds import OperatingPoint, precision_recall_curve, roc_curve
from loaders import __version__
from loaders.cautions import Caution
from loaders.figure_text import ClassNames, class_names, name_text
from loaders.records import Count, Record
from loaders.statistics import Progress, no_progress

Collection = Literal["own", "shared-source", "unknown-source", "not-compared", "external"]
COLLECTIONS: dict[Collection, str] = {
    "own": "The set is of the conversion that the run was trained on, and so no other collection",
    "shared-source": "The set is no external collection: it shares sources, images or patients with training",
    "unknown-source": "It cannot be told whether this is an external collection, since sources are unknown, of the set "
    "or of the training images: a manifest names them in its column source",
    "not-compared": "It cannot be told whether this is an external collection, since its images cannot be compared "
    "with those of training: the hashes of their pixels are of another kind",
    "external": "External collection: it shares no source with training",
}
METRICS = "metrics.json"
FIGURES = ("roc.png", "pr.png", "reliability.png", "confusion.png", "scores.png")
FEWEST = 10  # samples: an interval of fewer would be so wide that it only misleads


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What a network predicts of a set: labels int64 (N,), probabilities float64 (N, K), groups int64 (N,).

    positive: the positive class among classes.
    """

    label_N: np.ndarray
    probability_NK: np.ndarray
    group_N: np.ndarray
    classes: tuple[str, ...]
    positive: int

    def only(self, kept_N: np.ndarray) -> Self:
        """Those of some of the samples.  kept_N: their places."""
        kept = {name: getattr(self, name)[kept_N] for name in ("label_N", "probability_NK", "group_N")}
        return replace(self, **kept)

    @property
    def num_groups(self) -> int:
        """Groups that the samples are of."""
        return len(np.unique(self.group_N))

    @property
    def confusion(self) -> list[list[int]]:
        """Counts of the most probable classes: rows are the true ones."""
        return confusion_matrix(self.label_N, self.probability_NK.argmax(1), len(self.classes)).tolist()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """What runs predict of the samples of a set that are scored, of either task.

    looking: whether each run looks, where one of them is a vision-language model.
    labels: as a beton has them.  probabilities: of each run, float64 (N, K) each.  sample_N: places in the beton.
    subgroups: each its kind, its name, and the places of its samples among those.  rival_cautions: of the second run.
    common: the fields that records of both tasks have.
    """

    labels: np.ndarray
    probabilities: Sequence[np.ndarray]
    group_N: np.ndarray
    sample_N: np.ndarray
    subgroups: Sequence[tuple[str, str, np.ndarray]]
    cautions: list[Caution]
    rival_cautions: list[Caution]
    common: dict[str, Any]
    looking: tuple[Looking, ...] = ()


class PointResult(Record, frozen=True, kw_only=True):
    """One operating point on the set under test; refused: why there is none, then without estimates."""

    name: str
    threshold: float | None
    refused: Caution | None
    estimates: dict[str, Estimate]


class SubgroupResult(Record, frozen=True, kw_only=True):
    """One subgroup; no estimates where it has fewer than FEWEST samples, or of a finding too few known groups.

    num_positives: of the positive class.
    """

    kind: str
    name: str
    num_samples: Count
    num_groups: Count
    num_positives: Count
    estimates: dict[str, Estimate]

    @property
    def refused(self) -> str:
        """Why nothing is estimated; "" where something is."""
        few = f"fewer than {FEWEST} samples" if self.num_samples < FEWEST else "too few present or absent"
        return "" if self.estimates else f"too small: {few}"


class Difference(Record, frozen=True, kw_only=True):
    """This run minus another on the same samples.  against: the other's name.  cautions: of the other alone."""

    against: str
    estimates: dict[str, Estimate]
    cautions: list[Caution]


class Metrics(Record, frozen=True, kw_only=True):
    """One evaluation on one beton, as metrics.json holds it.

    set_name: of the set's folder.  collection: whether it is external to the run.  prevalence: the positive class's
    share of the set.  temperature: of the network's logits.  confusion: rows are the true classes.  trivial: of always
    predicting the largest class, without intervals.  bias: of each class, added to the logits of a vision-language
    model once they are divided; empty of any other.  looking: of the run and the one that it is compared with, whether
    each looks, where one of them is a vision-language model.
    """

    made_by = "evaluate"
    version: int = 2
    set_name: str
    beton: str
    split: str
    synthetic: bool
    conversion_id: str
    collection: Collection
    classes: list[str]
    positive: str
    num_samples: Count
    num_groups: Count
    prevalence: float
    stated_prevalence: float | None
    temperature: float
    confusion: list[list[Count]]
    estimates: dict[str, Estimate]
    trivial: dict[str, Estimate]
    operating_points: list[PointResult]
    subgroups: list[SubgroupResult]
    difference: Difference | None
    resamples: Count
    seed: Count
    cautions: list[Caution]
    checkpoint: Checkpoint
    device: str
    bias: tuple[float, ...] = ()
    looking: tuple[Looking, ...] = ()
    plainfilm: str = __version__
    not_for_diagnosis: bool = True

    def __post_init__(self) -> None:
        if not self.classes or {len(self.confusion), *map(len, self.confusion)} != {len(self.classes)}:
            raise ValueError("a confusion matrix of other classes")

    @property
    def class_counts(self) -> dict[str, int]:
        """Class → images in the set."""
        return {name: sum(row) for name, row in zip(self.classes, self.confusion, strict=True)}

    @property
    def largest_class(self) -> str:
        """The commonest class in the set, the first of several."""
        counts = self.class_counts
        return max(counts, key=lambda name: counts[name])


def at_points(
    scores: Scores,
    points: Sequence[OperatingPoint],
    estimate: Callable[..., dict[str, Estimate]],
    prevalence: float | None,
    progress: Progress = no_progress,
) -> list[PointResult]:
    """The operating points on this set; with more than two classes the positive one against all others.

    estimate: `estimates` with its resamples and seed.  prevalence: the stated one.
    """
    label_N, probability_NK, place = scores.label_N, scores.probability_NK, scores.positive
    if len(scores.classes) > 2:
        score_N = probability_NK[:, place]
        label_N, probability_NK, place = (label_N == place).astype(np.int64), np.stack([1 - score_N, score_N], 1), 1
    at_point = partial(estimate, label_N, probability_NK, scores.group_N, place, prevalence=prevalence, scores=False)
    results = []
    for point in points:
        found = {} if point.threshold is None else at_point(threshold=point.threshold)
        results.append(PointResult(name=point.name, threshold=point.threshold, refused=point.refused, estimates=found))
        progress(len(results), len(points))
    return results


def in_subgroups(
    scores: Scores,
    subgroups: Sequence[tuple[str, str, np.ndarray]],
    estimate: Callable[..., dict[str, Estimate]],
    progress: Progress = no_progress,
) -> list[SubgroupResult]:
    """The subgroups, each its kind (source, view, sex, age or flag), its name, and the places of its samples, in order.

    estimate: as above.
    """
    results = []
    for kind, name, index_N in subgroups:
        label_N, group_N = scores.label_N[index_N], scores.group_N[index_N]
        large = len(index_N) >= FEWEST
        results.append(
            SubgroupResult(
                kind=kind,
                name=name,
                num_samples=len(index_N),
                num_groups=len(np.unique(group_N)),
                num_positives=int((label_N == scores.positive).sum()),
                estimates=estimate(label_N, scores.probability_NK[index_N], group_N, scores.positive) if large else {},
            )
        )
        progress(len(results), len(subgroups))
    return results


def score_rows(scores: Scores, sample_N: np.ndarray) -> Iterator[list[Any]]:
    """The rows of scores.csv: every sample's group, label, predicted class and probabilities, after temperature.

    sample_N: places in the beton.
    """
    classes = scores.classes
    yield ["sample", "group", "label", "predicted", *(f"probability_{name}" for name in classes)]
    for sample, group, label, row_K in zip(
        sample_N, scores.group_N, scores.label_N, scores.probability_NK, strict=True
    ):
        yield [sample, group, classes[label], classes[row_K.argmax()], *(f"{value:.9g}" for value in row_K)]


def figures(scores: Scores, metrics: Metrics) -> dict[str, Figure]:
    """The figures by file name; those that one class alone leaves undefined are lacking."""
    label_N, probability_NK, classes = scores.label_N, scores.probability_NK, scores.classes
    names = class_names(classes)
    texts = list(names.text_of.values())
    many = len(classes) > 2
    kinds = list(range(len(classes))) if many else [scores.positive]
    count = f"n = {size_text(len(label_N), scores.num_groups)}".replace(" ", "\u00a0")  # on one line
    where = f"{name_text(metrics.set_name)} ({'synthetic phantoms' if metrics.synthetic else 'radiographs'}), {count}"

    def title(figure: str, metric: str) -> str:
        estimate, name = metrics.estimates[metric], metric_of(metric).name
        over = over_classes(estimate)
        shown = f"mean {name} {over}" if over else name
        between = "" if estimate.low is None else f" (95 % interval {interval_text(metric, estimate)})"
        return f"{figure}: {where}\n{shown} {value_text(metric, estimate.value)}{between}"

    def curve(kind: int, metric: str, x_P: np.ndarray, y_P: np.ndarray) -> Curve:
        area = metrics.estimates[f"{metric}[{kind}]"].value if many else None
        name = texts[kind] if many else f"{texts[kind]} against {texts[1 - kind]}"
        return Curve(name=name, x_P=x_P, y_P=y_P, area=area, base=float((label_N == kind).mean()))

    def note(metric: str) -> str:
        return f"Each class against the rest, with its {metric_of(metric).name}. {names.note}" if many else names.note

    drawn: dict[str, Figure] = {}
    roc = {kind: roc_curve(label_N == kind, ranking_score(probability_NK, kind)) for kind in kinds}
    lines = [curve(kind, "auc", *found[:2]) for kind, found in roc.items() if found]
    if lines:
        points = marks(scores, metrics, names, "specificity", "sensitivity")
        drawn["roc.png"] = roc_figure(lines, points, title("ROC curve", "auc"), note("auc"))
    pr = {kind: precision_recall_curve(label_N == kind, ranking_score(probability_NK, kind)) for kind in kinds}
    lines = [curve(kind, "pr_auc", found[0][1:], found[1][1:]) for kind, found in pr.items() if found]
    if lines:
        points = marks(scores, metrics, names, "sensitivity", "ppv")
        drawn["pr.png"] = pr_figure(lines, points, title("Precision-recall curve", "pr_auc"), note("pr_auc"))
    score_N, happened_N = scored_event(label_N, probability_NK, scores.positive)
    what = "the most probable class" if many else texts[scores.positive]
    drawn["reliability.png"] = reliability_figure(
        reliability(score_N, happened_N), what, title("Reliability diagram", "ece"), "" if many else names.note
    )
    drawn["confusion.png"] = confusion_figure(np.array(scores.confusion), names, title("Confusion matrix", "accuracy"))
    panels = [Panel(name=texts[kind], score_N=probability_NK[:, kind], is_class_N=label_N == kind) for kind in kinds]
    thresholds = [(point.name, point.threshold) for point in metrics.operating_points if point.threshold is not None]
    drawn["scores.png"] = score_figure(panels, thresholds, title("Predicted probabilities", "brier"), names.note)
    return drawn


def marks(scores: Scores, metrics: Metrics, names: ClassNames, x: str, y: str) -> list[Mark]:
    """The operating points by two of their estimates; specificity is drawn as what it lacks to 1."""
    found = []
    of_which = f" of {names.text_of[scores.classes[scores.positive]]}" if len(scores.classes) > 2 else ""
    for point in metrics.operating_points:
        values = [point.estimates[name].value for name in (x, y) if name in point.estimates]
        if len(values) == 2 and values[0] is not None and values[1] is not None:
            found.append((point.name + of_which, 1 - values[0] if x == "specificity" else values[0], values[1]))
    return found
