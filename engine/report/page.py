"""The page of a run: from its results to one HTML file that needs nothing else."""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path

from jinja2 import Template

from engine.crossval.output import sentences
from engine.crossval.scores import Crossval
from engine.evaluate.output import MOST_NAMED
from engine.explain.gallery import TITLES
from engine.profile.breakdown import EPOCHS, REPORT_SECONDS, TRAINING, VALIDATION
from engine.report import tables
from engine.report.collections import control_terms, find_collections
from engine.report.results import RunResults, listed, upper_first
from engine.report.verdict import Verdict
from engine.statistics.names import short_name, value_text
from engine.train.summary import Summary
from loaders.audit.page import PROBE_INPUTS, auc_low
from loaders.cautions import Caution, caution
from loaders.html import CHART_WIDTH, page_environment
from loaders.output import counted, seconds_text, share_text

CAPTIONED = (518, 300)  # pixels of what `overlay` draws; its caption, below 256, would repeat the page's in tiny type
AUDIT_TEMPLATES = Path(__file__).parents[2] / "loaders" / "audit"  # the probes' table is the audit's own


def run_page(results: RunResults, verdict: Verdict) -> str:
    """Render the page: no script, no remote part, no date; the same text for the same results."""
    summary, crossval = results.summary, results.crossval
    probes = results.probes.finding if results.probes else None
    return page_template().render(
        results=results,
        title=listed(results.classes) or "A training",
        subtitle=subtitle(results),
        verdict=verdict,
        commands=tables.commands(results),
        collections=find_collections(results),
        numbered=MOST_NAMED,
        probes=probes,
        auc_low=auc_low(probes.probes) if probes else 0.4,
        probe_inputs=PROBE_INPUTS,
        chart_width=CHART_WIDTH,
        targets=tables.target_rows(crossval) if crossval else [],
        folds=counted(len({fold.fold for fold in crossval.folds}), "fold") if crossval and crossval.folds else "",
        crossval_sentences=sentences(crossval) if crossval else [],
        crossval_cautions=crossval_cautions(crossval, results.own_crossval),
        trained=ending(summary) if summary else "",
        speed=speed_rows(summary) if summary else [],
        environment=made_with(results),
    )


@cache
def page_template() -> Template:
    """The template, compiled."""
    environment = page_environment(Path(__file__).parent, AUDIT_TEMPLATES)
    environment.filters |= {
        "sentence": upper_first, "counted": counted, "share": share_text, "metric": short_name, "value": value_text,
        "captioned": captioned,
    }  # fmt: skip
    environment.globals |= {"tables": tables, "TITLES": TITLES, "control_terms": control_terms}
    return environment.get_template("page.html.jinja")


def captioned(uri: str) -> bool:
    """Whether a picture, a data URI of a PNG, is as large as `overlay` draws it, with a caption."""
    head = base64.b64decode(uri.partition(",")[2][:32])  # of the first chunk, IHDR
    return (int.from_bytes(head[16:20]), int.from_bytes(head[20:24])) == CAPTIONED


def subtitle(results: RunResults) -> str:
    """What was trained on what."""
    summary, noun = results.summary, "phantom" if results.synthetic else "radiograph"
    if summary is None:
        return "A run that left no summary."
    return (
        f"Network {summary.model} with {summary.parameters:,} weights; trained on "
        f"{counted(summary.training_images, noun)}, its weights chosen on {summary.validation_images:,} more."
    )


def crossval_cautions(crossval: Crossval | None, own: Crossval | None) -> list[Caution]:
    """What limits the cross-validation, and whether it is of the run's own data."""
    if crossval is None:
        return []
    return ([] if own else [caution("crossval-of-other-conversion")]) + crossval.cautions


def ending(summary: Summary) -> str:
    """How the training ended."""
    return (
        f"{counted(summary.epochs, 'epoch')} ({summary.stopped}); the weights of epoch {summary.best_epoch} were kept, "
        f"whose validation F1 was {value_text('f1', summary.best_f1)}: it chose them, so it is no evidence."
    )


def speed_rows(summary: Summary) -> list[tuple[str, ...]]:
    """This run beside the report's."""
    return [
        (
            "this run",
            f"{summary.training_images:,} + {summary.validation_images:,}",
            str(summary.epochs),
            str(summary.crop),
            f"{summary.images_per_second:,.0f}",
            seconds_text(summary.seconds),
            summary.device,
        ),
        (
            "the reference report",
            f"{TRAINING:,} + {VALIDATION:,}",
            str(EPOCHS),
            "224",
            "about 57, validation counted",
            seconds_text(REPORT_SECONDS, 0),
            "other hardware: Apple M3 Max, MPS",
        ),
    ]


def made_with(results: RunResults) -> list[tuple[str, str]]:
    """Versions, device, seed and the identities of data and weights."""
    summary, seed = results.summary, results.config.get("seed")
    found = [*sorted(summary.versions.items()), ("device", summary.device)] if summary else []
    found += [("seed", str(seed))] if isinstance(seed, int) else []
    found += [("conversion", results.conversion_id)]
    found += [("checkpoint SHA-256", summary.checkpoint_sha256)] if summary else []
    return [(name, value) for name, value in found if value]
