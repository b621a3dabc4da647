"""The page of a run: from its material to one HTML file that needs nothing else."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template

from engine.evaluate.output import MOST_NAMED
from engine.profile.breakdown import EPOCHS, REPORT_SECONDS, TRAINING, VALIDATION
from engine.report.collections import find_collections
from engine.report.results import (
    Material,
    count_in,
    counted,
    dict_in,
    dicts_in,
    listed,
    number_in,
    part_text,
    plain_text,
    text_in,
    texts_in,
    upper_first,
)
from engine.report.tables import commands, split_rows
from engine.report.verdict import Verdict
from loaders.audit.page import PROBE_INPUTS, auc_low
from loaders.cautions import Caution, caution, cautions_in
from loaders.html import CHART_WIDTH, page_environment

AUDIT_TEMPLATES = Path(__file__).parents[2] / "loaders" / "audit"  # the probes' table is the audit's own


def run_page(material: Material, verdict: Verdict) -> str:
    """Render the page: no script, no remote part, no date; the same text for the same material."""
    probes = material.probes
    return page_template().render(
        title=listed(material.classes) or "A training",
        subtitle=subtitle(material),
        verdict=verdict,
        commands=commands(material),
        collections=find_collections(material),
        numbered=MOST_NAMED,
        probes=probes,
        probed_images=count_in(material.probed, "num_samples"),
        skipped=sorted(probes.skipped.items()) if probes else [],
        auc_low=auc_low(probes.probes) if probes else 0.4,
        seen=PROBE_INPUTS,
        chart_width=CHART_WIDTH,
        splits=split_rows(material.crossval),
        folds=fold_words(material.crossval),
        crossval_words=texts_in(material.crossval, "sentences"),
        crossval_cautions=crossval_cautions(material),
        crossval_picture=material.crossval_picture,
        curves=material.curves,
        trained=trained(material),
        training_cautions=cautions_in(material.summary),
        speed=speed_rows(material),
        environment=made_with(material),
        left_out=material.left_out,
    )


@cache
def page_template() -> Template:
    """The template, compiled."""
    environment = page_environment(Path(__file__).parent, AUDIT_TEMPLATES)
    environment.filters |= {"sentence": upper_first, "percent": part_text}
    return environment.get_template("page.html.jinja")


def subtitle(material: Material) -> str:
    """What was trained on what."""
    noun = "phantom" if material.synthetic else "radiograph"
    parts = []
    train, val = (count_in(material.summary, name) for name in ("training_images", "validation_images"))
    parameters = count_in(material.summary, "parameters")
    model = text_in(material.config, "model") or "cnn"
    if parameters is not None:
        parts.append(f"Network {model} with {parameters:,} weights")
    if train is not None and val is not None:
        parts.append(f"trained on {counted(train, noun)}, its weights chosen on {val:,} more")
    return "; ".join(parts) + "." if any(parts) else "A run that left no summary."


def fold_words(crossval: dict[str, Any]) -> str:
    """How many folds there were."""
    places = {count_in(fold, "fold") for fold in dicts_in(crossval, "folds") if text_in(fold, "split") == "group"}
    return counted(len(places), "fold") if places else ""


def crossval_cautions(material: Material) -> list[Caution]:
    """What limits the cross-validation, and whether it is of the run's own data."""
    foreign = material.crossval and not material.own_crossval
    return ([caution("crossval-of-other-conversion")] if foreign else []) + cautions_in(material.crossval)


def trained(material: Material) -> str:
    """How the training ended, in words."""
    summary = material.summary
    epochs, best = count_in(summary, "epochs"), count_in(summary, "best_epoch")
    if epochs is None or best is None:
        return ""
    f1, why = number_in(summary, "best_f1"), text_in(summary, "stopped")
    kept = f"{counted(epochs, 'epoch')}{f' ({why})' if why else ''}; the weights of epoch {best} were kept"
    chosen = (
        f", whose validation F1 was {plain_text(f1)}: it chose them, so it is no evidence" if f1 is not None else ""
    )
    return f"{kept}{chosen}."


def speed_rows(material: Material) -> list[tuple[str, ...]]:
    """This run beside the report's."""
    summary = material.summary
    seconds, rate = number_in(summary, "seconds"), number_in(summary, "images_per_second")
    if seconds is None or rate is None:
        return []
    numbers = [count_in(summary, name) for name in ("training_images", "validation_images", "epochs", "crop")]
    train, val, epochs, crop = numbers
    images = f"{train:,} + {val:,}" if train is not None and val is not None else "–"
    return [
        (
            "this run",
            images,
            "–" if epochs is None else str(epochs),
            "–" if crop is None else str(crop),
            f"{rate:,.0f}",
            f"{seconds:,.1f} s",
            text_in(summary, "device") or "unknown",
        ),
        (
            "the reference report",
            f"{TRAINING:,} + {VALIDATION:,}",
            str(EPOCHS),
            "224",
            "about 57, validation counted",
            f"{REPORT_SECONDS:,.0f} s",
            "other hardware: Apple M3 Max, MPS",
        ),
    ]


def made_with(material: Material) -> list[tuple[str, str]]:
    """Versions, device, seed and the identities of data and weights."""
    summary, config = material.summary, material.config
    found = [(str(name), str(value)) for name, value in sorted(dict_in(summary, "versions").items())]
    seed = count_in(config, "seed")
    checkpoint = text_in(summary, "checkpoint_sha256")
    others = {
        "device": text_in(summary, "device"),
        "seed": "" if seed is None else str(seed),
        "conversion": text_in(summary, "conversion_id"),
        "checkpoint SHA-256": checkpoint,
    }
    return found + [(name, value) for name, value in others.items() if value]
