"""Where the model looks, as a run's page shows it: the sentence, the controls, the overlays by kind."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from engine.explain.lungs import answer_words, controls_failed, left_out
from engine.report.results import (
    Explained,
    Material,
    Scored,
    count_in,
    counted,
    dict_in,
    dicts_in,
    find,
    interval_text,
    measured_in,
    number_in,
    plain_text,
    share_text,
    text_in,
    texts_in,
)
from engine.report.tables import (
    CALIBRATION,
    METRICS,
    MetricRow,
    TableRow,
    class_table,
    confusion_rows,
    difference_rows,
    metric_rows,
    point_rows,
    subgroup_rows,
)
from engine.report.verdict import largest_class, least_favourable
from loaders.beton.reader import SET_DIGITS
from loaders.cautions import Caution, cautions_in

CAPTIONED = (518, 300)  # pixels of what `overlay` draws; its caption, below 256, would repeat the page's in tiny type
KINDS = {
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
class ShownExplanation:
    """One explanation as the page shows it."""

    name: str
    sentence: str
    method: str
    believed: bool
    terms: list[tuple[str, str]]
    kinds: list[tuple[str, list[dict[str, str]]]]
    gallery: str
    deletion: str
    cautions: list[Caution]
    left_out: str


def show_explanation(explained: Explained, classes: list[str]) -> ShownExplanation:
    """An explanation: its sentence, its controls, its pictures by kind.  classes: the run's, in order."""
    content = explained.content
    layer = text_in(content, "layer")
    kinds: dict[str, list[dict[str, str]]] = {}
    left_out = 0
    for sample in dicts_in(content, "samples"):
        uri = explained.overlays.get(text_in(sample, "overlay"), "")
        left_out += not uri
        if uri:
            kinds.setdefault(text_in(sample, "kind"), []).append(
                {
                    "uri": uri,
                    "captioned": "yes" if png_size(uri) == CAPTIONED else "",
                    "number": "" if (place := count_in(sample, "sample")) is None else str(place),
                    "label": name_in(classes, sample, "label"),
                    "predicted": name_in(classes, sample, "predicted"),
                    "probability": share_text(found) if (found := number_in(sample, "probability")) is not None else "",
                    "lungs": plain_text(found, 2) if (found := number_in(sample, "lung_ratio")) is not None else "",
                }
            )
    ordered = sorted(
        kinds.items(), key=lambda item: (item[0] not in KINDS, list(KINDS).index(item[0]) if item[0] in KINDS else 0)
    )
    return ShownExplanation(
        name=explained.name,
        sentence=f"{sentence.rstrip('.')}." if (sentence := answer_words(content)) else "",
        method=f"{text_in(content, 'method') or 'The map'}{f' at layer {layer}' if layer else ''}",
        believed=not controls_failed(content),
        terms=control_terms(content),
        kinds=[(KINDS.get(kind, kind or "Others"), samples) for kind, samples in ordered],
        gallery=explained.gallery,
        deletion=explained.deletion,
        cautions=cautions_in(content),
        left_out=f"{counted(left_out, 'overlay')} not shown here: not found, or the page would be too large."
        if left_out and not explained.gallery
        else "",
    )


def png_size(uri: str) -> tuple[int, int]:
    """Columns and rows of a PNG in a data URI, from its first chunk."""
    head = base64.b64decode(uri.partition(",")[2][:32])
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


def name_in(classes: list[str], sample: dict[str, Any], key: str) -> str:
    """A class by name, wherever the sample gives its name or its number."""
    place = count_in(sample, key)
    if place is not None:
        return classes[place] if place < len(classes) else f"class {place}"
    return text_in(sample, key) or "unknown"


def control_terms(content: dict[str, Any]) -> list[tuple[str, str]]:
    """The lungs' share, and the controls that tell whether the explanation may be believed."""
    terms = []
    ratio = measured_in(dict_in(content, "lung_ratio"))
    if ratio.value is not None:
        masks = MASKS.get(text_in(content, "lung_ratio", "masks"), "masks")
        between = interval_text(ratio, share=False, digits=2)
        between = f" (95 % interval {between})" if between else ""
        number = count_in(content, "lung_ratio", "n")
        of = f", over {counted(number, 'image')}" if number is not None else ""
        of += f"; {left_out(empty)}" if (empty := count_in(content, "lung_ratio", "empty")) else ""
        limit = number_in(content, "lung_ratio", "limit")
        above = f", and a model that looks there comes above {plain_text(limit, 2)}" if limit is not None else ""
        terms.append(
            (
                "Lung share",
                f"{plain_text(ratio.value, 2)}{between}: the lungs’ part of the map over their part of the area; 1 is "
                f"what a map without preference has{above}. By {masks}{of}.",
            )
        )
    for name, title, what in (
        ("randomised", "Other weights", "the map must change when the weights are replaced by random ones"),
        ("deletion", "Deletion", "hiding what the map marks must lower the probability sooner than hiding at random"),
    ):
        passed = find(content, name, "passed")
        if isinstance(passed, bool):
            said = "passed" if passed else "failed: this explanation must not be relied on"
            numbers = {
                "randomised": (("correlation", "correlation"),),
                "deletion": (("auc_cam", "area by the map"), ("auc_random", "at random")),
            }[name]
            shown = ", ".join(
                f"{words} {plain_text(value, 3 if name == 'deletion' else 2)}"
                for key, words in numbers
                if (value := number_in(content, name, key)) is not None
            )
            shown += f"; {left_out(empty)}" if shown and (empty := count_in(content, name, "empty")) else ""
            terms.append((title, f"{said}{f' ({shown})' if shown else ''}; {what}."))
    return terms


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownSet:
    """One evaluation as the page shows it."""

    scored: Scored
    what: str
    classes: int
    largest: str
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


def show_set(scored: Scored) -> ShownSet:
    """An evaluation, table by table."""
    content = scored.content
    number, groups = count_in(content, "num_samples"), count_in(content, "num_groups")
    noun = "phantom" if content.get("synthetic") is True else "radiograph"
    split = text_in(content, "split")
    parts = [counted(number, noun) if number is not None else "An unknown number of images"]
    if groups is not None:
        parts[0] += f" in {counted(groups, 'group')}"
    parts.append(f"split {split} of conversion {text_in(content, 'conversion_id')[:12] or 'unknown'}")
    prevalence = number_in(content, "prevalence", "set")
    if prevalence is not None:
        parts.append(f"{share_text(prevalence)} are {text_in(content, 'positive') or 'of the positive class'}")
    metrics = metric_rows(scored, METRICS)
    resamples = count_in(content, "resamples")
    intervals = "This evaluation is of a release that computed no intervals: evaluate again."
    if any(row.cell.interval for row in metrics):
        drawn = f" in {resamples:,} resamples" if resamples else ""
        intervals = (
            f"Intervals by bootstrap over groups{drawn}; Wilson’s where a share is 0 or 1; none where groups are too "
            "few for one. They tell how far other patients of the same kind would move a value, not how far other "
            "hospitals would."
        )
    return ShownSet(
        scored=scored,
        what="; ".join(parts) + ".",
        classes=len(texts_in(content, "classes")),
        largest=largest_class(scored),
        metrics=metrics,
        intervals=intervals,
        by_class=class_table(scored),
        points=point_rows(scored),
        matrix=confusion_rows(scored),
        calibration=metric_rows(scored, CALIBRATION),
        temperature=plain_text(number_in(content, "temperature"), 2) if find(content, "temperature") else "",
        subgroups=subgroup_rows(scored),
        against=text_in(content, "difference", "against"),
        difference=difference_rows(scored),
        rival_cautions=cautions_in(content.get("difference")),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """What became of the files.  reasons: reason, verdict, files.  splits: split, images by class, sum, groups."""

    files: int
    written: int
    rejected: int
    duplicate: int
    excluded: int
    reasons: list[tuple[str, str, int]]
    splits: list[str]
    classes: list[tuple[str, list[int]]]
    images: list[int]
    groups: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownTest:
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
    tests: tuple[ShownTest, ...]


def find_collections(material: Material) -> list[Collection]:
    """The run's own conversion, then the others by name; in each, the set that the verdict speaks of comes first."""
    own = text_in(material.summary, "conversion_id")
    main = least_favourable(material.evaluations)
    results = {scored.name: scored for scored in material.evaluations}
    maps = {explained.name: explained for explained in material.explanations}
    ordered = sorted({*results, *maps}, key=lambda name: (main is None or name != main.name, name))
    by_conversion: dict[str, list[str]] = {own: []}
    for name in ordered:
        by_conversion.setdefault(conversion_of(name, results.get(name), maps.get(name), own), []).append(name)
    return [
        Collection(
            name=conversion if conversion in names else conversion[:SET_DIGITS],
            own=conversion == own,
            flow=make_flow(material.dataflow if conversion == own else flow_of(results, names), material.classes),
            tests=tuple(
                ShownTest(
                    name=name,
                    result=show_set(results[name]) if name in results else None,
                    explained=show_explanation(maps[name], material.classes) if name in maps else None,
                )
                for name in names
            ),
        )
        for conversion, names in sorted(by_conversion.items(), key=lambda item: (item[0] != own, item[0]))
    ]


def conversion_of(name: str, scored: Scored | None, explained: Explained | None, own: str) -> str:
    """The conversion of a set, as its files have it; the set's name where it has none.

    `own` where the files lack it, or where the run's own is not known, so that nothing can be said to be another.
    """
    if not own:
        return own
    contents = [found.content for found in (scored, explained) if found is not None]
    ids = [content["conversion_id"] for content in contents if isinstance(content.get("conversion_id"), str)]
    return (ids[0] or name) if ids else own


def flow_of(results: dict[str, Scored], names: list[str]) -> dict[str, Any]:
    """The data flow that an evaluation kept of its set's conversion; {} for none."""
    return next((results[name].dataflow for name in names if name in results and results[name].dataflow), {})


def make_flow(content: dict[str, Any], order: list[str]) -> Flow | None:
    """The data flow of dataflow.json; None where it is not known.  order: the run's classes; others follow theirs."""
    counts = {name: count_in(content, "counts", name) for name in ("written", "rejected", "duplicate", "excluded")}
    written, rejected, duplicate = counts["written"], counts["rejected"], counts["duplicate"]
    if written is None or rejected is None or duplicate is None:
        return None
    reasons = [
        (str(reason), verdict, number)
        for verdict in ("rejected", "duplicate", "excluded")
        for reason in dict_in(content, "reasons", verdict)
        if (number := count_in(content, "reasons", verdict, reason)) is not None
    ]
    by_split = dict_in(content, "splits")
    found = sorted({str(name) for split in by_split for name in dict_in(by_split, split)})
    names = [name for name in order if name in found] + [name for name in found if name not in order]
    numbers = [[count_in(by_split, split, name) or 0 for split in by_split] for name in names]
    groups = [count_in(content, "groups", split) for split in by_split]
    return Flow(
        files=written + rejected + duplicate,
        written=written,
        rejected=rejected,
        duplicate=duplicate,
        excluded=counts["excluded"] or 0,
        reasons=reasons,
        splits=[str(split) for split in by_split],
        classes=list(zip(names, numbers, strict=True)),
        images=[sum(column) for column in zip(*numbers, strict=True)],
        groups=["–" if number is None else f"{number:,}" for number in groups],
    )
