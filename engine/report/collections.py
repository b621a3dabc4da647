"""The collections that a run's page shows: of each conversion the data flow, the results and the explanations."""

from __future__ import annotations

from dataclasses import dataclass

from engine.evaluate.dataflow import DataFlow
from engine.report.results import EvaluatedSet, ExplainedSet, RunResults
from engine.report.verdict import least_favourable
from loaders.beton.reader import SET_DIGITS


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """One conversion as the page shows it.  own: the run was trained on it, and the run's probes are of it.

    classes: of the data flow, in order.  tests: each set by name with its results, None where there are none.
    """

    name: str
    own: bool
    flow: DataFlow | None
    classes: list[str]
    tests: tuple[tuple[str, EvaluatedSet | None, ExplainedSet | None], ...]


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
    collections = []
    for conversion, names in sorted(by_conversion.items(), key=lambda item: (item[0] != own, item[0])):
        kept = [evaluated[name].dataflow for name in names if name in evaluated]  # by the evaluations of another's sets
        flow = results.dataflow if conversion == own else next(filter(None, kept), None)
        collections.append(
            Collection(
                name=conversion if conversion in names else conversion[:SET_DIGITS],
                own=conversion == own,
                flow=flow,
                classes=flow_classes(flow, results.classes) if flow else [],
                tests=tuple((name, evaluated.get(name), explained.get(name)) for name in names),
            )
        )
    return collections


def flow_classes(flow: DataFlow, order: list[str]) -> list[str]:
    """The classes of a data flow: those of the run in its order, then the others by name."""
    found = {name for classes in flow.splits.values() for name in classes}
    return [name for name in order if name in found] + sorted(found - {*order})
