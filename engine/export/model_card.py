"""The model card: what an exported network is, what it was made from, how well it does, and what to beware of."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from engine.evaluate.trained import Trained
from engine.explain.lungs import answer_words
from engine.statistics.calibration import TEMPERATURES
from engine.statistics.names import fewer_words, over_words
from engine.train.run_folder import CONFIG, LOCAL, SUMMARY
from loaders import __version__
from loaders.beton.reader import Beton
from loaders.cautions import caution, cautions_in
from loaders.errors import IntegrityError, StorageError

CARD = "model_card.md"
EVALUATIONS, EXPLANATIONS = "evaluation/*/metrics.json", "explanation/*/explanation.json"
NOT_FOR_DIAGNOSIS = "Research software: not for diagnosis."
SHOWN = {  # of a metrics.json's estimates
    "accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity", "ppv": "PPV", "npv": "NPV",
    "f1": "F1", "f1_macro": "macro F1", "auc": "ROC-AUC", "pr_auc": "PR-AUC", "brier": "Brier score", "ece": "ECE",
    "calibration_slope": "calibration slope", "calibration_intercept": "calibration intercept",
}  # fmt: skip


def card_of(trained: Trained, model_name: str) -> str:
    """The card in Markdown.  It is a function of the run folder and of its training betons, as far as they are there.

    It names no file but the model, and no patient; what is not known is said to be so.
    Source: Mitchell et al. 2019, Model Cards for Model Reporting.
    """
    state = trained.state
    summary, settings = read_object(trained.run / SUMMARY), read_object(trained.run / CONFIG)
    data = (settings | read_object(trained.run / LOCAL)).get("data", "")
    classes = ", ".join(map(plain, trained.classes))
    parts = [
        f"# Model card: {classes}",
        f"**{NOT_FOR_DIAGNOSIS}** Written by plainfilm {__version__}.",
        "## What it is",
        f"A classifier of frontal chest radiographs: network {plain(str(state.get('network', 'cnn')))}, "
        f"{number(summary.get('parameters'))} parameters, epoch {plain(str(state['epoch']))}. {plain(model_name)} "
        f"takes uint8 frames (N, {state['stored']}, {state['stored']}), crops their centre to {state['crop']} pixels a "
        f"side, maps grey levels to [-1, 1], and gives probabilities (N, {len(trained.classes)}) in the order: "
        f"{classes}. The positive class is {plain(state['positive'])}. {temperature_words(trained)}",
        "## Intended use",
        "Research on methods: how classifiers of radiographs learn, fail and may be compared. Not for diagnosis, "
        "triage or any decision on a patient. Not for lateral views, CT, photographs, annotated pictures, or children "
        "unless they were in the data; the file has no guard against them: `plainfilm predict` has, and abstains.",
        "## Data",
        *data_words(trained, summary, Path(str(data))),
        "## Training",
        *training_words(summary, settings),
        "## Held-out results",
        *result_words(trained),
        "## Cautions",
        caution_list(trained, summary),
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


def number(value: Any) -> str:
    """A count for people."""
    return f"{value:,}" if isinstance(value, int) else "an unknown number of"


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def temperature_words(trained: Trained) -> str:
    """Whether probabilities are calibrated."""
    if trained.decision.temperature is None:
        return "Probabilities are uncalibrated: the run kept no validation scores."
    said = f"Probabilities are calibrated on validation, by temperature {trained.decision.temperature:.3g}"
    if trained.decision.temperature in TEMPERATURES:
        return f"{said}, its bound: validation was too easy or too hard to calibrate by, so that they mean little."
    return f"{said}."


def data_words(trained: Trained, summary: Mapping[str, Any], data: Path) -> Iterator[str]:
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
    else:
        training, validation = number(summary.get("training_images")), number(summary.get("validation_images"))
        yield f"{training} training and {validation} validation images; classes, groups and sources: not recorded."
    synthetic = str(summary.get("synthetic"))
    kind = {"True": "All are synthetic phantoms.", "False": "Radiographs of people, as far as the source says."}
    fit, stored = plain(trained.state["fit"]), trained.state["stored"]
    yield (
        f"{kind.get(synthetic, 'Whether they are synthetic is not recorded.')} Frames: grey, percentiles 0.1 and 99.9 "
        f"mapped to 0 and 255, fitted by {fit} to {stored} pixels a side."
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


def training_words(summary: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """The recipe: settings that are no paths, and what became of it."""
    if summary:
        f1 = summary.get("best_f1")
        best = f"{f1:.4f}" if isinstance(f1, float) else "unknown"
        yield (
            f"{plain(str(summary.get('epochs')))} epochs ({plain(str(summary.get('stopped')))}); best validation F1 "
            f"{best}, on which the epoch was chosen, so that it is optimistic."
        )
    shown = {
        name: Path(value).name if isinstance(value, str) else value  # the weights to begin with may be a file
        for name, value in settings.items()
        if name not in ("data", "out")  # up to release 0.5 they were among them
    }
    if shown:
        yield "Settings: " + ", ".join(f"{plain(name)} {plain(str(value))}" for name, value in shown.items()) + "."
    if not summary and not shown:
        yield "Not recorded."


def results(trained: Trained, pattern: str) -> list[tuple[str, dict[str, Any]]]:
    """The set and the JSON object of each file that fits the pattern, in order, as far as of these very weights."""
    found = [(path.parent.name, read_object(path)) for path in sorted(trained.run.glob(pattern))]
    own = ((name, content, content.get("checkpoint")) for name, content in found)
    return [(name, content) for name, content, of in own if isinstance(of, dict) and of.get("sha256") == trained.sha256]


def result_words(trained: Trained) -> Iterator[str]:
    """A table for each beton that these weights were evaluated on."""
    found = results(trained, EVALUATIONS)
    for name, content in found:
        images, groups = number(content.get("num_samples")), content.get("num_groups")
        in_groups = f" in {groups:,} groups" if isinstance(groups, int) else ""
        yield f"{plain(name)} ({plain(str(content.get('beton')))}): {images} images{in_groups}."
        estimates = content.get("estimates")
        trivial = content.get("trivial")
        defined = content.get("trivial_defined")
        rows = estimate_rows(
            estimates if isinstance(estimates, dict) else content,
            trivial if isinstance(trivial, dict) else {},
            defined if isinstance(defined, dict) else {},
            len(trained.classes),
        )
        header = "| metric | value | 95 % interval | always the largest class |"
        yield "\n".join([header, "| --- | --- | --- | --- |", *rows])
        if len(trained.classes) == 2:
            yield f"Sensitivity, specificity, predictive values and F1 are of {plain(trained.state['positive'])}."
        else:
            yield "Each mean is over the classes for which the metric is defined, each class against the rest."
    if not found:
        yield "Not measured: run `plainfilm evaluate` on a held-out beton, and export again."


def estimate_rows(
    estimates: Mapping[str, Any], trivial: Mapping[str, Any], trivial_defined: Mapping[str, Any], num_classes: int
) -> Iterator[str]:
    """One line a metric; estimates may also be bare numbers, as plainfilm wrote them before 0.5.

    trivial: the scores of always calling the largest class.  trivial_defined: over how many classes its means are.
    """
    for name, shown in SHOWN.items():
        estimate = estimates.get(name)
        value = estimate.get("value") if isinstance(estimate, dict) else estimate
        if not isinstance(value, int | float) or (name == "f1_macro" and num_classes > 2):  # which F1 itself is
            continue
        found = estimate if isinstance(estimate, dict) else {}
        low, high = found.get("low"), found.get("high")
        both = isinstance(low, int | float) and isinstance(high, int | float)
        interval = f"{low:.4f} to {high:.4f}" if both else "none"
        over = over_words(whole(found.get("defined")), whole(found.get("classes")))
        beside = f"{least:.4f}" if isinstance(least := trivial.get(name), int | float) else "undefined"
        if over and (fewer := fewer_words(whole(trivial_defined.get(name)), num_classes)):
            beside += f", {fewer}"
        yield f"| {shown}{f', mean {over}' if over else ''} | {value:.4f} | {interval} | {beside} |"


def whole(value: Any) -> int | None:
    """A whole number; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def caution_list(trained: Trained, summary: Mapping[str, Any]) -> str:
    """Cautions of the training, of each evaluation and explanation by its set, and those of every card."""
    lines = [found.text for found in cautions_in(summary)]
    for name, content in results(trained, EVALUATIONS):
        lines += [f"{name}: {found.text}" for found in cautions_in(content)]
    for name, content in results(trained, EXPLANATIONS):
        if sentence := answer_words(content):
            lines.append(f"{name}: {sentence}")
        lines += [f"{name}: {found.text}" for found in cautions_in(content)]
    lines += [caution(code).text for code in ("valid-for-its-data-only", "shortcuts-not-excluded")]
    return "\n".join(f"- {plain(line.rstrip('.'))}." for line in dict.fromkeys(lines))


def example(trained: Trained, model_name: str) -> str:
    """Ten lines of Python from a file to probabilities."""
    state = trained.state
    return (
        "from pathlib import Path\n"
        "import onnxruntime\n"
        "from loaders.images.frame import stored_frame  # of plainfilm: grey window and fit, as in training\n"
        "from loaders.images.radiograph import decode_radiograph\n\n"
        f"session = onnxruntime.InferenceSession({model_name!r})\n"
        'grey = decode_radiograph(Path("radiograph.png"), max_pixels=64_000_000).grey_HW\n'
        f"frame, _ = stored_frame(grey, {state['stored']}, {state['fit']!r})\n"
        '(probabilities,) = session.run(None, {"frames": frame[None]})\n'
        f"print(dict(zip({list(trained.classes)!r}, probabilities[0].tolist())))\n"
    )
