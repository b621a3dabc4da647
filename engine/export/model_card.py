"""The model card: what an exported network is, what it was made from, how well it does, and what to beware of."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluate.results import METRICS, Metrics
from engine.evaluate.trained import Trained
from engine.explain.findings import EXPLANATION, NOT_FOR_DIAGNOSIS, Explanation
from engine.statistics.names import (
    CALIBRATION,
    RESULTS,
    fewer_classes,
    interval_text,
    metric_of,
    over_classes,
    value_text,
)
from engine.train.run_folder import read_run_settings
from engine.train.summary import SUMMARY, Summary
from loaders import __version__
from loaders.beton.reader import Beton
from loaders.cautions import caution
from loaders.errors import ConfigError, IntegrityError, StorageError
from loaders.records import R, known_record

CARD = "model_card.md"


def card_of(trained: Trained, model_name: str) -> str:
    """The card in Markdown.  It is a function of the run folder and of its training betons, as far as they are there.

    It names no file but the model, and no patient; it says what is not known.
    Source: Mitchell et al. 2019, Model Cards for Model Reporting.
    """
    state = trained.state
    summary, settings = known_record(Summary, trained.run / SUMMARY), dict[str, Any]()
    with contextlib.suppress(ConfigError):  # they cannot be read
        settings = read_run_settings(trained.run)
    evaluations = own_results(trained, Metrics, f"evaluation/*/{METRICS}")
    explanations = own_results(trained, Explanation, f"explanation/*/{EXPLANATION}")
    classes = ", ".join(map(plain, trained.classes))
    parameters = f"{summary.parameters:,} parameters" if summary else "parameters not recorded"
    parts = [
        f"# Model card: {classes}",
        f"**{NOT_FOR_DIAGNOSIS}** Written by plainfilm {__version__}.",
        "## What it is",
        f"A classifier of frontal chest radiographs: network {plain(str(state.get('network', 'cnn')))}, "
        f"{parameters}, epoch {plain(str(state['epoch']))}. {plain(model_name)} "
        f"takes uint8 frames (N, {state['stored']}, {state['stored']}), crops their centre to {state['crop']} pixels a "
        f"side, maps grey levels to [-1, 1], and gives probabilities (N, {len(trained.classes)}) in the order: "
        f"{classes}. The positive class is {plain(state['positive'])}. Probabilities are calibrated on validation, by "
        f"temperature {trained.decision.temperature:.3g}.",
        "## Intended use",
        "Research on methods: how classifiers of radiographs learn, fail and may be compared. Not for diagnosis, "
        "triage or any decision on a patient. Not for lateral views, CT, photographs, annotated pictures, or children "
        "unless they were in the data; the file has no guard against them: `plainfilm predict` has, and abstains.",
        "## Data",
        *data_text(trained, summary, Path(str(settings.get("data", "")))),
        "## Training",
        *training_text(summary, settings),
        "## Held-out results",
        *result_text(trained, evaluations),
        "## Cautions",
        caution_list(trained, summary, evaluations, explanations),
        "## How to call it",
        f"```python\n{example(trained, model_name)}```",
        f"Checkpoint SHA-256 `{trained.sha256}`, conversion `{plain(state['conversion_id']) or 'unknown'}`. "
        f"{NOT_FOR_DIAGNOSIS}",
    ]
    return "\n\n".join(parts) + "\n"


def plain(text: str) -> str:
    """Text that Markdown shows as it is: one line, without markup or HTML."""
    one_line = "".join(char if char.isprintable() else "�" for char in text)
    return re.sub(r"([\\`*_\[\]<>|#~&$])", r"\\\1", one_line)


def own_results(trained: Trained, kind: type[R], pattern: str) -> list[R]:
    """The records of the files that fit the pattern, in order, as far as they are of these very weights."""
    found = (known_record(kind, path) for path in sorted(trained.run.glob(pattern)))
    return [record for record in found if record is not None and record.checkpoint == trained.checkpoint]  # type: ignore[attr-defined]


def data_text(trained: Trained, summary: Summary | None, data: Path) -> Iterator[str]:
    """What the network was trained on: from the betons where they still are, else what the run knows."""
    columns = {split: cells for split in ("train", "val") if (cells := beton_counts(trained, data, split))}
    if columns:
        lines = [f"| class | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
        names = [*map(plain, trained.classes), "groups", "sources"]
        rows = zip(names, *columns.values(), strict=True)
        yield "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
        yield (
            "A group is a patient with all copies of its images, near ones where the audit looked for them; no group "
            "is in two splits."
        )
    elif summary:
        yield (
            f"{summary.training_images:,} training and {summary.validation_images:,} validation images; classes, "
            "groups and sources: not recorded."
        )
    else:
        yield "Not recorded."
    synthetic = "All are synthetic phantoms."
    people = "Radiographs of people, as far as the source is known."
    unknown = "Whether they are synthetic is not recorded."
    kind = unknown if summary is None else synthetic if summary.synthetic else people
    fit, stored = plain(trained.state["fit"]), trained.state["stored"]
    yield (
        f"{kind} Frames: grey, percentiles 0.1 and 99.9 mapped to 0 and 255, fitted by {fit} to {stored} pixels a side."
    )


def beton_counts(trained: Trained, data: Path, split: str) -> list[str]:
    """One column of the table of data: images of each class, groups, sources.

    Empty where the beton is not there any more, or is another conversion's.
    """
    try:
        with Beton(data / f"{split}.beton") as beton:
            facts, rows_N = beton.facts, beton.rows_N
            if facts.conversion_id != trained.state["conversion_id"]:
                return []
            counts = np.bincount(beton.label_N, minlength=len(facts.classes)).tolist()
            sources = ", ".join(plain(facts.sources[source] or "unknown") for source in np.unique(rows_N["source"]))
            return [*map(str, counts), str(len(np.unique(rows_N["group"]))), sources]
    except (ValueError, OSError, IntegrityError, StorageError):
        return []


def training_text(summary: Summary | None, settings: dict[str, Any]) -> Iterator[str]:
    """The recipe: settings that are no paths, and how the training ended."""
    if summary:
        yield (
            f"{summary.epochs} epochs ({summary.ending}); best validation F1 "
            f"{value_text('f1', summary.best_f1)}, by which the epoch was chosen, so that it is optimistic."
        )
    shown = {
        name: Path(value).name if isinstance(value, str) else value  # the weights to begin with may be a file
        for name, value in settings.items()
        if name not in ("data", "out")
    }
    if shown:
        yield "Settings: " + ", ".join(f"{plain(name)} {plain(str(value))}" for name, value in shown.items()) + "."
    if not summary and not shown:
        yield "Not recorded."


def result_text(trained: Trained, evaluations: list[Metrics]) -> Iterator[str]:
    """A table for each set that these weights were evaluated on."""
    for found in evaluations:
        counts = f"{found.num_samples:,} images in {found.num_groups:,} groups"
        yield f"{plain(found.set_name)} ({plain(found.beton)}): {counts}."
        header = "| metric | value | 95 % interval | always the largest class |"
        yield "\n".join([header, "| --- | --- | --- | --- |", *estimate_rows(found)])
        if len(trained.classes) == 2:
            yield f"Sensitivity, specificity, predictive values and F1 are of {plain(trained.state['positive'])}."
        else:
            yield "Each mean is over the classes for which the metric is defined, each class against the rest."
    if not evaluations:
        yield "Not measured: run `plainfilm evaluate` on a held-out beton, and export again."


def estimate_rows(found: Metrics) -> Iterator[str]:
    """One line a metric that is defined."""
    for name in (*RESULTS, *CALIBRATION):
        estimate, least = found.estimates.get(name), found.trivial.get(name)
        if estimate is None or estimate.value is None or (name == "f1_macro" and len(found.classes) > 2):
            continue  # of more than two classes F1 itself is the macro mean
        over = over_classes(estimate)
        beside = value_text(name, least.value if least else None)
        if over and least is not None and (fewer := fewer_classes(least)):
            beside += f", {fewer}"
        shown = f"{metric_of(name).name}{f', mean {over}' if over else ''}"
        yield f"| {shown} | {value_text(name, estimate.value)} | {interval_text(name, estimate)} | {beside} |"


def caution_list(
    trained: Trained, summary: Summary | None, evaluations: list[Metrics], explanations: list[Explanation]
) -> str:
    """Cautions of the training and of what validation settled, of each set's results, and those of every card."""
    lines = [found.text for found in [*(summary.cautions if summary else ()), *trained.decision.cautions()]]
    lines += [f"{result.set_name}: {found.text}" for result in evaluations for found in result.cautions]
    for explanation in explanations:
        lines.append(f"{explanation.set_name}: {explanation.sentence}")
        lines += [f"{explanation.set_name}: {found.text}" for found in explanation.cautions]
    lines += [caution(code).text for code in ("valid-for-its-data-only", "shortcuts-not-excluded")]
    return "\n".join(f"- {plain(line.rstrip('.'))}." for line in dict.fromkeys(lines))


def example(trained: Trained, model_name: str) -> str:
    """Ten lines of Python from a file to probabilities."""
    state = trained.state
    return (
        "from pathlib import Path\n"
        "import onnxruntime\n"
        "from loaders import decode_radiograph, stored_frame  # of plainfilm: grey window and fit, as in training\n\n"
        f"session = onnxruntime.InferenceSession({model_name!r})\n"
        'grey = decode_radiograph(Path("radiograph.png"), max_pixels=64_000_000).grey_HW\n'
        f"frame, _ = stored_frame(grey, {state['stored']}, {state['fit']!r})\n"
        '(probabilities,) = session.run(None, {"frames": frame[None]})\n'
        f"print(dict(zip({list(trained.classes)!r}, probabilities[0].tolist())))\n"
    )
