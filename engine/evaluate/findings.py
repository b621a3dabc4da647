"""The result of an evaluation of findings: each over its known films, and their means; findings.json."""

# N samples, K findings, M samples in which a finding is known

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from engine.config import EvaluateConfig
from engine.evaluate.checks import finding_cautions
from engine.evaluate.figures import (
    Curve,
    Interval,
    Panel,
    calibration_figure,
    forest_figure,
    pr_figure,
    roc_figure,
    score_figure,
)
from engine.evaluate.looking import Looking
from engine.evaluate.results import Collection, PointResult, Scored, Scores, SubgroupResult, at_points, in_subgroups
from engine.evaluate.trained import Checkpoint, FindingDecisions, Trained
from engine.statistics.averages import NetworkTest
from engine.statistics.estimates import UNDEFINED, Estimate, estimates, trivial
from engine.statistics.findings import (
    POINT,
    RANKED,
    FindingsAverages,
    FindingsTest,
    enough_known,
    findings_differences,
    known_films,
    measure_findings,
)
from engine.statistics.metrics import confusion_matrix, ranking_score
from engine.statistics.names import interval_text, metric_of, over_classes, size_text, value_text
from engine.statistics.thresholds import precision_recall_curve, roc_curve
from loaders import __version__
from loaders.beton.format import Facts
from loaders.cautions import Caution, caution
from loaders.figure_text import class_names, name_text
from loaders.output import PhaseProgress
from loaders.records import Count, Record
from loaders.sources.split import LEAST_KNOWN
from loaders.statistics import Progress

FINDINGS = "findings.json"
ABSENT_PRESENT = ("absent", "present")  # the classes of a finding
FIGURES = ("findings.png", "roc.png", "pr.png", "reliability.png", "scores.png")


class FindingResult(Record, frozen=True, kw_only=True):
    """One finding on a set, over the films in which it is known.

    num_groups: of the known films.  refused: why nothing is estimated, such as too few known films; then there are no
    estimates.  temperature: of its logit.  threshold: the probability from which it is predicted as present, which is
    that of validation's highest F1; None where validation knew too few films of it: then its probabilities are not
    calibrated, and estimates has RANKED alone.  confusion: at the threshold, rows absent and present, columns predicted
    so; empty without one.  estimates: keys as of two classes, the decision at the threshold.  trivial: of
    always predicting the commoner of absent and present.  difference: this run minus another, on the same films.
    """

    name: str
    num_known: Count
    num_present: Count
    num_groups: Count
    refused: Caution | None
    temperature: float
    threshold: float | None
    confusion: list[list[Count]]
    estimates: dict[str, Estimate]
    trivial: dict[str, Estimate]
    operating_points: list[PointResult]
    subgroups: list[SubgroupResult]
    difference: dict[str, Estimate]


class FindingsMetrics(Record, frozen=True, kw_only=True):
    """One evaluation of findings on one beton, as findings.json holds it; see Metrics for what both have.

    findings: in the run's order.  macro: means over the findings that are measured, with intervals over resamples of
    groups that all findings share; `defined` and `classes` count findings.  macro_difference: this run minus `against`.
    uncertain, blank: how the set's conversion read such values, finding → present, absent or unknown.
    """

    made_by = "evaluate"
    version: int = 1
    set_name: str
    beton: str
    split: str
    synthetic: bool
    conversion_id: str
    collection: Collection
    findings: list[FindingResult]
    num_samples: Count
    num_groups: Count
    macro: dict[str, Estimate]
    against: str
    macro_difference: dict[str, Estimate]
    uncertain: dict[str, str]
    blank: dict[str, str]
    resamples: Count
    seed: Count
    cautions: list[Caution]
    difference_cautions: list[Caution]
    checkpoint: Checkpoint
    device: str
    looking: tuple[Looking, ...] = ()
    plainfilm: str = __version__
    not_for_diagnosis: bool = True

    @property
    def names(self) -> list[str]:
        """The findings' names."""
        return [found.name for found in self.findings]

    @property
    def by_need(self) -> list[FindingResult]:
        """The findings by AUC, the least first, those that are not measured last."""

        def rank(found: FindingResult) -> tuple[bool, float]:
            return found.refused is not None, found.estimates.get("auc", UNDEFINED).value or 0.0

        return sorted(self.findings, key=rank)


def measured_findings(
    config: EvaluateConfig, runs: Sequence[Trained], facts: Facts, scored: Scored, progress: PhaseProgress
) -> tuple[FindingsMetrics, Iterable[list[Any]], dict[str, Figure]]:
    """The metrics of findings, the rows of scores.csv, and the figures by file name.  facts: of the set's beton."""
    trained, name, names = runs[0], scored.common["set_name"], runs[0].classes
    settings = {"resamples": config.resamples, "seed": config.seed}
    tests = [
        FindingsTest(
            finding_NK=scored.labels, probability_NK=probability_NK, group_N=scored.group_N,
            threshold=run.findings.threshold_K,
        )
        for run, probability_NK in zip(runs, scored.probabilities, strict=True)
    ]  # fmt: skip
    apart, macro_apart = findings_differences(tests[1], tests[0], **settings) if len(runs) > 1 else ([], {})
    measured = measure_findings(tests[:1], **settings, progress=partial(progress, f"{name}: intervals"))
    parts = partial(progress, f"{name}: findings")
    metrics = FindingsMetrics(
        **scored.common,
        findings=finding_results(tests[0], trained.findings, measured, scored.subgroups, apart, settings, parts),
        macro=measured.macro(),
        against=runs[1].run.resolve().name if len(runs) > 1 else "",
        macro_difference=macro_apart,
        uncertain=facts.uncertain,
        blank=facts.blank,
        cautions=scored.cautions + finding_cautions(names, scored.labels, scored.group_N),
        difference_cautions=scored.rival_cautions,
        looking=scored.looking,
    )
    return metrics, finding_rows(tests[0], names, scored.sample_N), figures(tests[0], metrics)


def finding_results(
    test: FindingsTest,
    rule: FindingDecisions,
    measured: FindingsAverages,
    subgroups: Sequence[tuple[str, str, np.ndarray]],
    apart: Sequence[dict[str, Estimate]],
    settings: dict[str, int],
    progress: Progress,
) -> list[FindingResult]:
    """Every finding on a set.  apart: differences from another run by finding, if there is one."""
    results, group_G = list[FindingResult](), np.unique(test.group_N)
    estimate = partial(estimates, resamples=settings["resamples"], seed=settings["seed"])
    for place, found in enumerate(measured.estimates()):
        own, decision, threshold = test.of(place), rule.by_finding[place], rule.by_finding[place].point(POINT).threshold
        label_M, group_M = own.label_N, own.group_N
        scores = Scores(
            label_N=label_M, probability_NK=own.probability_NK, group_N=group_M, classes=ABSENT_PRESENT, positive=1
        )
        drawn = replace(scores, group_N=np.searchsorted(group_G, group_M))  # from all groups, as the estimates are
        at_point = partial(estimate, num_groups=len(group_G))
        absent, present = (len(np.unique(group_M[label_M == label])) for label in (0, 1))
        refused = caution("few-patients-of-finding", present=present, absent=absent, least=LEAST_KNOWN)
        parts = known_parts(known_films(test.finding_NK[:, place]), subgroups)
        of_part = partial(estimate_if_known, estimate, threshold)
        results.append(
            FindingResult(
                name=rule.names[place],
                num_known=len(label_M),
                num_present=int(label_M.sum()),
                num_groups=scores.num_groups,
                refused=None if found else refused,
                temperature=decision.temperature,
                threshold=threshold,
                confusion=[] if threshold is None else confusion_at(own, threshold),
                estimates=found,
                trivial=trivial(label_M, 2, 1) if found else {},
                operating_points=at_points(drawn, decision.points, at_point, None) if found and threshold else [],
                subgroups=in_subgroups(scores, parts, of_part) if found else [],
                difference=apart[place] if apart else {},
            )
        )
        progress(len(results), len(rule.names))
    return results


def confusion_at(test: NetworkTest, threshold: float) -> list[list[int]]:
    """Counts, rows absent and present, columns predicted so."""
    predicted_M = (test.probability_NK[:, 1] >= threshold).astype(np.int64)
    counts: list[list[int]] = confusion_matrix(test.label_N, predicted_M, 2).tolist()
    return counts


def known_parts(
    known_M: np.ndarray, subgroups: Sequence[tuple[str, str, np.ndarray]]
) -> list[tuple[str, str, np.ndarray]]:
    """Subgroups of the films in which a finding is known, by their places among those; none empty, none the whole."""
    parts = [(kind, name, np.flatnonzero(np.isin(known_M, index_N))) for kind, name, index_N in subgroups]
    return [part for part in parts if 0 < len(part[2]) < len(known_M)]


def estimate_if_known(
    estimate: Callable[..., dict[str, Estimate]],
    threshold: float | None,
    label_N: np.ndarray,
    probability_NK: np.ndarray,
    group_N: np.ndarray,
    positive: int,
) -> dict[str, Estimate]:
    """The estimates of two classes; none where too few groups have one of them.

    estimate: `estimates`, settled.  threshold: None leaves RANKED alone.
    """
    if not enough_known(label_N[:, None], group_N).all():
        return {}
    found = estimate(label_N, probability_NK, group_N, positive, threshold=threshold)
    return found if threshold is not None else {name: found[name] for name in RANKED}


def finding_rows(test: FindingsTest, names: Sequence[str], sample_N: np.ndarray) -> Iterator[list[Any]]:
    """The rows of scores.csv: every sample's group, and of each finding its label, what is predicted, and how probable.

    A label is 1 or 0, or empty where it is unknown.  sample_N: places in the beton.
    """
    of_finding = ("label", "predicted", "probability")
    yield ["sample", "group", *(f"{what}_{name}" for name in names for what in of_finding)]
    predicted_NK = test.probability_NK >= test.threshold
    for sample, group, thresholds_K, *columns in zip(
        sample_N, test.group_N, test.thresholds, test.finding_NK, predicted_NK, test.probability_NK, strict=True
    ):
        cells = (
            ("" if np.isnan(label) else int(label), "" if np.isnan(least) else int(predicted), f"{probability:.9g}")
            for least, label, predicted, probability in zip(thresholds_K, *columns, strict=True)
        )
        yield [sample, group, *(cell for of_one in cells for cell in of_one)]


def figures(test: FindingsTest, metrics: FindingsMetrics) -> dict[str, Figure]:
    """The figures by file name; none where no finding is measured."""
    names = class_names(metrics.names, kind="finding")
    measured = [(metrics.names.index(found.name), found) for found in metrics.by_need if not found.refused]
    if not measured:
        return {}
    count = f"n = {size_text(metrics.num_samples, metrics.num_groups)}".replace(" ", "\u00a0")  # on one line
    where = f"{name_text(metrics.set_name)} ({'synthetic phantoms' if metrics.synthetic else 'radiographs'}), {count}"
    over_known = "Each finding over the images in which it is known"

    def title(figure: str, metric: str) -> str:
        mean = metrics.macro[metric]
        shown = f"mean {metric_of(metric).name} {over_classes(mean, 'findings')} {value_text(metric, mean.value)}"
        between = f"(95 % interval {interval_text(metric, mean)})".replace(" ", "\u00a0")
        return f"{figure}: {where}\n{shown}" + ("" if mean.low is None else f" {between}")

    def curve(found: FindingResult, metric: str, x_P: np.ndarray, y_P: np.ndarray) -> Curve:
        share, area = found.num_present / found.num_known, found.estimates[metric].value
        return Curve(name=names.text_of[found.name], x_P=x_P, y_P=y_P, area=area, base=share)

    def line(found: FindingResult) -> Interval:
        counts = f"{found.num_present:,} of {found.num_known:,}"
        return Interval(name=names.text_of[found.name], counts=counts, found=found.estimates.get("auc"))

    tests = [test.of(place) for place, _ in measured]
    scored = [(one.label_N == 1, ranking_score(one.probability_NK, 1)) for one in tests]
    roc, pr = list[Curve](), list[Curve]()
    for (_, found), each in zip(measured, scored, strict=True):
        rising, steps = roc_curve(*each), precision_recall_curve(*each)
        roc += [curve(found, "auc", *rising[:2])] if rising else []
        pr += [curve(found, "pr_auc", steps[0][1:], steps[1][1:])] if steps else []
    panels = [
        Panel(
            name=names.text_of[found.name], score_N=one.probability_NK[:, 1], is_class_N=one.label_N == 1,
            threshold=found.threshold,
        )
        for (_, found), one in zip(measured, tests, strict=True)
    ]  # fmt: skip
    thresholds = [(POINT, panel.threshold) for panel in panels if len(panels) == 1 and panel.threshold is not None]
    mean = Interval(name="mean", counts="present of known", found=metrics.macro["auc"])
    return {
        "findings.png": forest_figure(
            mean, [line(found) for found in metrics.by_need], metric_of("auc").name, title("Findings", "auc"),
            f"{over_known}. {names.note}",
        ),
        "roc.png": roc_figure(
            roc, [], title("ROC curves", "auc"), f"{over_known}, with its ROC-AUC. {names.note}", "findings"
        ),
        "pr.png": pr_figure(
            pr, [], title("Precision-recall curves", "pr_auc"), f"{over_known}, with its PR-AUC. {names.note}",
            "findings",
        ),
        "reliability.png": calibration_figure(panels, title("Reliability diagrams", "ece"), names.note),
        "scores.png": score_figure(
            panels, thresholds, title("Predicted probabilities", "brier"), names.note, ("present", "absent")
        ),
    }  # fmt: skip
