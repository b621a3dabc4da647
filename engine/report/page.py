"""The page of a run: from its results, set by set and conversion by conversion, to one HTML file for itself."""

import base64
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Template

from engine.crossval.output import TARGETS, controls_not_measured, not_measured, sentences, shown_targets
from engine.crossval.scores import METRICS as SCORED
from engine.crossval.scores import Crossval
from engine.evaluate.dataflow import DataFlow
from engine.evaluate.output import IN_SUBGROUP, MOST_NAMED, REPLACED
from engine.evaluate.results import COLLECTIONS
from engine.explain.findings import lung_images, masks_text
from engine.explain.gallery import TITLES
from engine.explain.lungs import IN_BRIEF
from engine.hurdles import matrix
from engine.hurdles.output import LIMITS, gathered_cautions
from engine.hurdles.output import sentences as hurdles_sentences
from engine.profile import breakdown
from engine.report import findings_tables, findings_verdict, tables
from engine.report.results import ExplainedFindings, ExplainedSet, RunResults, Tested, listed, upper_first
from engine.report.verdict import Verdict, least_favourable
from engine.statistics.names import interval_text, metric_of, short_name, value_text, with_interval
from loaders.audit.findings import PROBES
from loaders.audit.page import auc_low
from loaders.beton.reader import SET_DIGITS
from loaders.cautions import Caution, caution
from loaders.convert.conversion import kind_text
from loaders.html import CHART_WIDTH, page_environment
from loaders.output import counted, seconds_text, share_text

CAPTIONED = (518, 300)  # pixels of what `overlay` draws; its caption, below 256, would repeat the page's in tiny type
AUDIT_TEMPLATES = Path(__file__).parents[2] / "loaders" / "audit"  # the probes' table is the audit's own


def run_page(results: RunResults, verdict: Verdict) -> str:
    """Render the page: no script, no remote part, no date; the same text for the same results."""
    crossval = results.crossval
    return page_template("page" if results.task == "classes" else "findings").render(
        results=results,
        title=(listed if results.task == "classes" else findings_verdict.some_of)(results.classes) or "A training",
        verdict=verdict,
        commands=tables.commands(results),
        collections=find_collections(results),
        numbered=MOST_NAMED,
        probes=results.probes if results.task == "classes" else results.findings_probes,
        auc_low=auc_low(results.probes.probes if results.probes else []),
        chart_width=CHART_WIDTH,
        missing=not_measured(crossval),
        targets=shown_targets(crossval),
        unmeasured_controls=controls_not_measured(crossval) if crossval else "",
        external=least_favourable([found for found in results.tested if found.metrics.collection == "external"]),
        folds=counted(len({fold.training.fold for fold in crossval.folds}), "fold")
        if crossval and crossval.folds
        else "",
        crossval_sentences=sentences(crossval) if crossval else [],
        crossval_cautions=crossval_cautions(crossval, results.own_crossval),
        hurdles_sentences=hurdles_sentences(results.hurdles) if results.hurdles else [],
        hurdles_cautions=hurdles_cautions(results),
        environment=made_with(results),
    )


@cache
def page_template(name: str) -> Template:
    """A template, compiled: page, or findings."""
    environment = page_environment(Path(__file__).parent, AUDIT_TEMPLATES)
    environment.filters |= {
        "sentence": upper_first, "share": share_text, "metric": short_name, "captioned": captioned,
        "seconds": seconds_text, "reason": lambda kind: kind_text(kind) or "other reasons",
    }  # fmt: skip
    environment.globals |= {
        "breakdown": breakdown, "matrix": matrix, "tables": tables, "LIMITS": LIMITS,
        "PROBES": PROBES, "findings_tables": findings_tables, "findings_verdict": findings_verdict,
        "IN_BRIEF": IN_BRIEF, "IN_SUBGROUP": IN_SUBGROUP, "lung_images": lung_images, "masks_text": masks_text,
        "SCORED": SCORED, "COLLECTIONS": COLLECTIONS, "TARGETS": TARGETS, "TITLES": TITLES,
        "interval_text": interval_text, "metric_of": metric_of, "value_text": value_text,
        "REPLACED": REPLACED, "with_interval": with_interval,
    }  # fmt: skip
    return environment.get_template(f"{name}.html.jinja")


def captioned(uri: str) -> bool:
    """Whether a picture, a data URI of a PNG, is as large as `overlay` draws it, with a caption."""
    head = base64.b64decode(uri.partition(",")[2][:32])  # of the first chunk, IHDR
    return (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == CAPTIONED


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownConversion:
    """One conversion as the page shows it.  own: the run was trained on it, and the run's probes are of it.

    classes: of the data flow, in order.  tests: each set by name with its results, None where there are none.
    """

    name: str
    own: bool
    flow: DataFlow | None
    classes: list[str]
    tests: tuple[tuple[str, Tested | None, ExplainedSet | ExplainedFindings | None], ...]


def find_collections(results: RunResults) -> list[ShownConversion]:
    """The run's own conversion, then the others by name; in each, the set that the verdict is about comes first."""
    own, main = results.conversion_id, least_favourable(results.tested)
    evaluated = {tested.name: tested for tested in results.tested}
    explained = {found.name: found for found in results.explained}
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
            ShownConversion(
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


def crossval_cautions(crossval: Crossval | None, own: Crossval | None) -> list[Caution]:
    """What limits the cross-validation, and whether it is of the run's own data."""
    if crossval is None:
        return []
    return ([] if own else [caution("crossval-of-other-conversion")]) + crossval.cautions


def hurdles_cautions(results: RunResults) -> list[tuple[str, Caution]]:
    """What limits the hurdles, each with what it is of, and whether they have a row of the run's own data."""
    if results.hurdles is None:
        return []
    other = [] if results.own_row else [("", caution("hurdles-of-other-conversion"))]
    return other + gathered_cautions(results.hurdles)


def made_with(results: RunResults) -> list[tuple[str, str]]:
    """Versions, device, seed and the identities of data and weights."""
    summary, seed = results.summary, results.config.get("seed")
    found = [*sorted(summary.versions.items()), ("device", summary.device)] if summary else []
    found += [("seed", str(seed))] if isinstance(seed, int) else []
    found += [("conversion", results.conversion_id)]
    found += [("checkpoint SHA-256", summary.checkpoint_sha256)] if summary else []
    return [(name, value) for name, value in found if value]
