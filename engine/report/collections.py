"""The collections that a run's page shows: of each conversion the data flow, the results and the explanations."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from engine.evaluate.dataflow import DataFlow
from engine.explain.findings import Example, Explanation, Kind
from engine.explain.lungs import left_out
from engine.report.results import EvaluatedSet, ExplainedSet, RunResults, upper_first
from engine.report.tables import (
    MetricRow,
    TableRow,
    class_table,
    difference_rows,
    metric_rows,
    point_rows,
    subgroup_rows,
)
from engine.report.verdict import least_favourable
from engine.statistics.names import CALIBRATION, RESULTS, interval_text, metric_of, value_text
from loaders.beton.reader import SET_DIGITS
from loaders.cautions import Caution
from loaders.output import counted, number_text, share_text

CAPTIONED = (518, 300)  # pixels of what `overlay` draws; its caption, below 256, would repeat the page's in tiny type
KINDS: dict[Kind, str] = {
    "right": "Most confident, and right",
    "wrong": "Most confident, and wrong",
    "borderline": "Undecided",
}
MASKS = {
    "phantom": "the phantoms’ own masks",
    "folder": "masks from a folder",
    "template": "the lungs’ usual region, the same for every image",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownExample:
    """One overlay as the page shows it.  captioned: whether its picture holds a caption, too."""

    example: Example
    uri: str
    captioned: bool
    probability: str
    lungs: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownExplanation:
    """One explanation as the page shows it."""

    name: str
    sentence: str
    method: str
    believed: bool
    terms: list[tuple[str, str]]
    kinds: list[tuple[str, list[ShownExample]]]
    gallery: str
    deletion: str
    cautions: list[Caution]
    left_out: str


def show_explanation(explained: ExplainedSet) -> ShownExplanation:
    """An explanation: its sentence, its controls, its pictures by kind."""
    found = explained.explanation
    kinds: dict[Kind, list[ShownExample]] = {kind: [] for kind in KINDS}
    for example in found.samples:
        if uri := explained.overlays.get(example.overlay):
            kinds[example.kind].append(
                ShownExample(
                    example=example,
                    uri=uri,
                    captioned=png_size(uri) == CAPTIONED,
                    probability=share_text(example.probability),
                    lungs="" if example.lung_ratio is None else value_text("lung_ratio", example.lung_ratio),
                )
            )
    missing = len(found.samples) - sum(map(len, kinds.values()))
    return ShownExplanation(
        name=explained.name,
        sentence=f"{upper_first(found.sentence)}.",
        method=f"{found.method} at layer {found.layer}",
        believed=not found.distrust,
        terms=control_terms(found),
        kinds=[(KINDS[kind], examples) for kind, examples in kinds.items() if examples],
        gallery=explained.gallery,
        deletion=explained.deletion,
        cautions=found.cautions,
        left_out=f"{counted(missing, 'overlay')} not shown here: not found, or the page would be too large."
        if missing and not explained.gallery
        else "",
    )


def png_size(uri: str) -> tuple[int, int]:
    """Columns and rows of a PNG in a data URI, from its first chunk."""
    head = base64.b64decode(uri.partition(",")[2][:32])
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


def control_terms(found: Explanation) -> list[tuple[str, str]]:
    """The lungs' share, and the controls that decide whether the explanation may be believed."""
    terms, lungs, deletion = [], found.lungs, found.deletion
    if lungs.ratio.value is not None and lungs.limit is not None:
        low, high = lungs.ratio.low, lungs.ratio.high
        between = f" (95 % interval {interval_text('lung_ratio', lungs.ratio)})" if low and high else ""
        empty = f"; {left_out(lungs.num_empty)}" if lungs.num_empty else ""
        terms.append(
            (
                "Lung share",
                f"{value_text('lung_ratio', lungs.ratio.value)}{between}: {metric_of('lung_ratio').meaning}, and a "
                f"model that relies on the lungs comes above {value_text('lung_ratio', lungs.limit)}. By "
                f"{MASKS[lungs.masks]}, over {counted(lungs.num_samples, 'image')}{empty}.",
            )
        )
    random = found.randomised
    empty = f"; {left_out(random.num_empty)}" if random.num_empty else ""
    correlation = (
        f" (correlation {value_text('correlation', random.correlation)}{empty})"
        if random.correlation is not None
        else ""
    )
    by_map = value_text("area_by_map", deletion.area_by_map)
    areas = f"area by the map {by_map}, at random {value_text('area_at_random', deletion.area_at_random)}"
    for passed, title, numbers, what in (
        (
            random.passed,
            "Other weights",
            correlation,
            "the map must change when the weights are replaced by random ones",
        ),
        (
            deletion.passed,
            "Deletion",
            f" ({areas})",
            "hiding what the map marks must lower the probability sooner than hiding at random",
        ),
    ):
        outcome = "passed" if passed else "failed: this explanation must not be relied on"
        terms.append((title, f"{outcome}{numbers}; {what}."))
    return terms


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownSet:
    """One evaluation as the page shows it."""

    tested: EvaluatedSet
    what: str
    metrics: list[MetricRow]
    intervals: str
    by_class: tuple[list[str], list[TableRow]]
    points: list[TableRow]
    matrix: list[tuple[str, list[int], int]]
    calibration: list[MetricRow]
    temperature: str
    subgroups: list[TableRow]
    against: str
    difference: list[MetricRow]
    rival_cautions: list[Caution]


def show_set(tested: EvaluatedSet) -> ShownSet:
    """An evaluation, table by table."""
    metrics = tested.metrics
    noun, difference = "phantom" if metrics.synthetic else "radiograph", metrics.difference
    return ShownSet(
        tested=tested,
        what=f"{counted(metrics.num_samples, noun)} in {counted(metrics.num_groups, 'group')}; split {metrics.split} "
        f"of conversion {metrics.conversion_id[:12] or 'unknown'}; {share_text(metrics.prevalence)} are "
        f"{metrics.positive}.",
        metrics=metric_rows(tested, RESULTS),
        intervals=f"Intervals by bootstrap over groups in {metrics.resamples:,} resamples; Wilson’s where a share is 0 "
        "or 1; none where groups are too few for one. They show how far other patients of the same kind would move a "
        "value, not how far other hospitals would.",
        by_class=class_table(tested),
        points=point_rows(tested),
        matrix=[(name, row, sum(row)) for name, row in zip(metrics.classes, metrics.confusion, strict=True)],
        calibration=metric_rows(tested, CALIBRATION),
        temperature=number_text(metrics.temperature, 2),
        subgroups=subgroup_rows(tested),
        against=difference.against if difference else "",
        difference=difference_rows(tested),
        rival_cautions=difference.cautions if difference else [],
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """What became of the files.  reasons: reason, verdict, files.  splits: split, images by class, sum, groups."""

    counts: DataFlow
    reasons: list[tuple[str, str, int]]
    splits: list[str]
    classes: list[tuple[str, list[int]]]
    images: list[int]
    groups: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownTarget:
    """A set that was tested.  result, explained: None where there is none."""

    name: str
    result: ShownSet | None
    explained: ShownExplanation | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """One conversion as the page shows it.  own: the run was trained on it, and the run's probes are of it."""

    name: str
    own: bool
    flow: Flow | None
    tests: tuple[ShownTarget, ...]


def find_collections(results: RunResults) -> list[Collection]:
    """The run's own conversion, then the others by name; in each, the set that the verdict is about comes first."""
    own, main = results.conversion_id, least_favourable(results.evaluations)
    evaluated = {tested.name: tested for tested in results.evaluations}
    explained = {found.name: found for found in results.explanations}
    ordered = sorted({*evaluated, *explained}, key=lambda name: (main is None or name != main.name, name))
    by_conversion: dict[str, list[str]] = {own: []}
    for name in ordered:
        record = evaluated[name].metrics if name in evaluated else explained[name].explanation
        # where the run's own is not known, nothing can be called another
        by_conversion.setdefault((record.conversion_id or name) if own else own, []).append(name)
    return [
        Collection(
            name=conversion if conversion in names else conversion[:SET_DIGITS],
            own=conversion == own,
            flow=make_flow(results.dataflow if conversion == own else flow_of(evaluated, names), results.classes),
            tests=tuple(
                ShownTarget(
                    name=name,
                    result=show_set(evaluated[name]) if name in evaluated else None,
                    explained=show_explanation(explained[name]) if name in explained else None,
                )
                for name in names
            ),
        )
        for conversion, names in sorted(by_conversion.items(), key=lambda item: (item[0] != own, item[0]))
    ]


def flow_of(evaluated: dict[str, EvaluatedSet], names: list[str]) -> DataFlow | None:
    """The data flow that an evaluation kept of its set's conversion."""
    return next((evaluated[name].dataflow for name in names if name in evaluated and evaluated[name].dataflow), None)


def make_flow(found: DataFlow | None, order: list[str]) -> Flow | None:
    """The data flow as the page shows it; None where it is not known.  order: the run's classes; others follow."""
    if found is None:
        return None
    others = sorted({name for classes in found.splits.values() for name in classes} - set(order))
    names = [name for name in (*order, *others) if any(name in classes for classes in found.splits.values())]
    numbers = [[classes.get(name, 0) for classes in found.splits.values()] for name in names]
    return Flow(
        counts=found,
        reasons=[(why, verdict, files) for verdict, by_why in found.reasons.items() for why, files in by_why.items()],
        splits=list(found.splits),
        classes=list(zip(names, numbers, strict=True)),
        images=[sum(column) for column in zip(*numbers, strict=True)],
        groups=[f"{found.groups[split]:,}" if split in found.groups else "–" for split in found.splits],
    )
