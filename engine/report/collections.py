"""Collections: what is known of each conversion that a run was trained or tested on, kept together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.report.explained import ShownExplanation, show_explanation
from engine.report.material import Explained, Material, Scored, count_in, dict_in, text_in
from engine.report.sets import ShownSet, show_set
from engine.report.verdict import least_favourable
from loaders.beton import SET_DIGITS


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
