"""The model card: what an exported network is, what it was made from, how well it does, and what to beware of."""

# K findings

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from engine.evaluate.findings import FINDINGS, FindingResult, FindingsMetrics
from engine.evaluate.results import METRICS, Metrics
from engine.evaluate.trained import Trained
from engine.explain.findings import EXPLANATION, NOT_FOR_DIAGNOSIS, Explanation
from engine.statistics.estimates import Estimate
from engine.statistics.names import (
    CALIBRATION,
    RESULTS,
    fewer_classes,
    interval_text,
    metric_of,
    over_classes,
    value_text,
    with_interval,
)
from engine.statistics.thresholds import OperatingPoint
from engine.train.run_folder import read_run_settings
from engine.train.summary import SUMMARY, Summary, of_findings
from loaders import __version__
from loaders.beton.format import Facts, frames_text
from loaders.beton.reader import Beton
from loaders.cautions import caution
from loaders.errors import ConfigError, IntegrityError, StorageError
from loaders.output import DASH
from loaders.records import R, known_record
from loaders.sources.findings import policy_lines

CARD = "model_card.md"
BY_FINDING = ("auc", "sensitivity", "specificity", "f1")  # columns of the results of findings


def card_of(trained: Trained, model_name: str) -> str:
    """The card in Markdown.  It is a function of the run folder and of its training betons, as far as they are there.

    It names no file but the model, and no patient; it says what is not known.
    Source: Mitchell et al. 2019, Model Cards for Model Reporting.
    """
    state = trained.state
    summary, settings = known_record(Summary, trained.run / SUMMARY), dict[str, Any]()
    with contextlib.suppress(ConfigError):  # they cannot be read
        settings = read_run_settings(trained.run)
    findings = trained.task == "findings"
    evaluations: list[Metrics] | list[FindingsMetrics]
    if findings:
        evaluations = own_results(trained, FindingsMetrics, f"evaluation/*/{FINDINGS}")
        results = findings_result_text(evaluations)
    else:
        evaluations = own_results(trained, Metrics, f"evaluation/*/{METRICS}")
        results = result_text(trained, evaluations)
    explanations = own_results(trained, Explanation, f"explanation/*/{EXPLANATION}")
    classes = ", ".join(map(plain, trained.classes))
    parameters = f"{summary.parameters:,} parameters" if summary else "parameters not recorded"
    parts = [
        f"# Model card: {classes}",
        f"**{NOT_FOR_DIAGNOSIS}** Written by plainfilm {__version__}.",
        "## What it is",
        f"A classifier of {'findings on ' * findings}frontal chest radiographs: "
        f"network {plain(str(state.get('network', 'cnn')))}, "
        f"{parameters}, epoch {plain(str(state['epoch']))}. {plain(model_name)} "
        f"takes uint8 frames (N, {state['stored']}, {state['stored']}), crops their centre to {state['crop']} pixels a "
        f"side, maps grey levels to [-1, 1], and gives probabilities (N, {len(trained.classes)}) in the order: "
        + (f"{classes}. {INSIDE}" if findings else of_classes(trained)),
        "## Intended use",
        "Research on methods: how classifiers of radiographs learn, fail and may be compared. Not for diagnosis, "
        "triage or any decision on a patient. Not for lateral views, CT, photographs, annotated pictures, or children "
        "unless they were in the data; the file has no guard against them: `plainfilm predict` has, and abstains.",
        "## Data",
        *data_text(trained, summary, Path(str(settings.get("data", "")))),
        "## Training",
        *training_text(summary, settings),
        *(["## Thresholds", *threshold_text(trained)] if findings else []),
        "## Held-out results",
        *results,
        "## Cautions",
        caution_list(trained, summary, evaluations, explanations),
        "## How to call it",
        f"```python\n{example(trained, model_name)}```",
        f"Checkpoint SHA-256 `{trained.sha256}`, conversion `{plain(state['conversion_id']) or 'unknown'}`. "
        f"{NOT_FOR_DIAGNOSIS}",
    ]
    return "\n\n".join(parts) + "\n"


COUNTS_KNOWN = (
    "Counts are of the films with a finding, of those in which it is known; unknown labels were neither trained nor "
    "measured on."
)
INSIDE = (
    "Each is the probability that the finding is present; several may be, or none. Sigmoid and temperatures are inside."
)


def of_classes(trained: Trained) -> str:
    """The classes, the positive one, and their temperature."""
    return (
        f"{', '.join(map(plain, trained.classes))}. The positive class is {plain(trained.state['positive'])}. "
        f"Probabilities are calibrated on validation, by temperature {trained.decision.temperature:.3g}."
    )


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
    found = {split: counts for split in ("train", "val") if (counts := beton_counts(trained, data, split))}
    if found:
        columns = {split: cells for split, (cells, _) in found.items()}
        kind_of = "finding" if trained.task == "findings" else "class"
        lines = [f"| {kind_of} | {' | '.join(columns)} |", "| --- |" + " --- |" * len(columns)]
        names = [*map(plain, trained.classes), "groups", "sources"]
        rows = zip(names, *columns.values(), strict=True)
        yield "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
        yield (
            "A group is a patient with all copies of its images, near ones where the audit looked for them; no group "
            "is in two splits."
        )
        if trained.task == "findings":
            facts = next(iter(found.values()))[1]
            read_as = [plain(line) for line in policy_lines(facts.uncertain, facts.blank)]
            yield " ".join([COUNTS_KNOWN, *read_as])
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
        + ("" if trained.lungs == "off" else f" They show {frames_text(trained.lungs, plain(trained.segmenter))}.")
    )


def beton_counts(trained: Trained, data: Path, split: str) -> tuple[list[str], Facts] | None:
    """One column of the table of data: images of each class, or present and known of each finding; groups, sources.

    None where the beton is not there any more, or is another conversion's.
    """
    try:
        with Beton(data / f"{split}.beton") as beton:
            facts, rows_N = beton.facts, beton.rows_N
            if facts.conversion_id != trained.state["conversion_id"]:
                return None
            if facts.task == "findings":
                present_K, known_K = (beton.labels == 1).sum(0).tolist(), np.isfinite(beton.labels).sum(0).tolist()
                counts = [f"{present:,} of {known:,}" for present, known in zip(present_K, known_K, strict=True)]
            else:
                counts = np.bincount(beton.label_N, minlength=len(facts.classes)).tolist()
            sources = ", ".join(plain(facts.sources[source] or "unknown") for source in np.unique(rows_N["source"]))
            return [*map(str, counts), str(len(np.unique(rows_N["group"]))), sources], facts
    except (ValueError, OSError, IntegrityError, StorageError):
        return None


def training_text(summary: Summary | None, settings: dict[str, Any]) -> Iterator[str]:
    """The recipe: settings that are no paths, and how the training ended."""
    if summary:
        yield (
            f"{summary.epochs} epochs ({summary.ending}); best validation {summary.best}, by which the epoch was "
            "chosen, so that it is optimistic."
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


def threshold_text(trained: Trained) -> Iterator[str]:
    """What validation settled of each finding."""
    names = [point.name for point in trained.findings.by_finding[0].points if point.name != "0.5"]
    lines = [f"| finding | temperature | {' | '.join(names)} |", "| --- | --- |" + " --- |" * len(names)]
    for name, enough, rule in zip(
        trained.classes, trained.findings.enough_K.tolist(), trained.findings.by_finding, strict=True
    ):
        cells = [f"{rule.temperature:.3g}", *(threshold_cell(rule.point(point)) for point in names)]
        shown = cells if enough else ["not calibrated", *[DASH] * len(names)]
        lines.append(f"| {plain(name)} | {' | '.join(shown)} |")
    yield "\n".join(lines)
    yield (
        "Thresholds of the probability from which a finding is called present, chosen on validation: f1, of the "
        "highest F1, is the one that results are at; youden, of the highest sensitivity + specificity; rule-out, the "
        "highest with a sensitivity of 95 %. A finding without any was known in too few films of validation: do not "
        "use its output."
    )


def threshold_cell(point: OperatingPoint) -> str:
    """A threshold, or a dash."""
    return DASH if point.threshold is None else f"{point.threshold:.3g}"


def findings_result_text(evaluations: list[FindingsMetrics]) -> Iterator[str]:
    """A table for each set that these weights were evaluated on: one row a finding, and means."""
    for found in evaluations:
        counts = f"{found.num_samples:,} images in {found.num_groups:,} groups"
        yield f"{plain(found.set_name)} ({plain(found.beton)}): {counts}."
        header = "| finding | present of known | " + " | ".join(metric_of(name).name for name in BY_FINDING) + " |"
        means = [mean_cell(name, found.macro.get(name)) for name in BY_FINDING]
        measured = sum(one.refused is None for one in found.findings)
        mean = f"| mean over {of_findings(measured, len(found.findings))} |  | {' | '.join(means)} |"
        rows = [header, "| --- | --- |" + " --- |" * len(BY_FINDING), *map(finding_row, found.findings), mean]
        yield "\n".join(rows)
        yield "In brackets are 95 % intervals. Sensitivity, specificity and F1 are at the threshold f1."
    if not evaluations:
        yield "Not measured: run `plainfilm evaluate` on a held-out beton, and export again."


def mean_cell(name: str, found: Estimate | None) -> str:
    """A mean over findings; over how many, its row says."""
    return DASH if found is None else with_interval(name, msgspec.structs.replace(found, defined=None, classes=None))


def finding_row(found: FindingResult) -> str:
    """One finding, measured or not."""
    if found.refused is not None:
        cells = [f"not measured: {plain(found.refused.text)}", *[DASH] * (len(BY_FINDING) - 1)]
    else:
        cells = [with_interval(name, found.estimates.get(name)) or DASH for name in BY_FINDING]
    return f"| {plain(found.name)} | {found.num_present:,} of {found.num_known:,} | {' | '.join(cells)} |"


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
    trained: Trained, summary: Summary | None, evaluations: Sequence[Metrics | FindingsMetrics],
    explanations: list[Explanation],
) -> str:  # fmt: skip
    """Cautions of the training and of what validation settled, of each set's results, and those of every card."""
    lines = [found.text for found in [*(summary.cautions if summary else ()), *trained.rule.cautions()]]
    lines += [f"{result.set_name}: {found.text}" for result in evaluations for found in result.cautions]
    for explanation in explanations:
        lines.append(f"{explanation.set_name}: {explanation.sentence}")
        lines += [f"{explanation.set_name}: {found.text}" for found in explanation.cautions]
    lines += [caution(code).text for code in ("valid-for-its-data-only", "shortcuts-not-excluded")]
    return "\n".join(f"- {plain(line.rstrip('.'))}." for line in dict.fromkeys(lines))


def example(trained: Trained, model_name: str) -> str:
    """A dozen lines of Python from a file to probabilities."""
    state = trained.state
    names, lungs = "decode_radiograph, stored_frame", ""
    if trained.lungs != "off":
        names = "LUNG_MODES, decode_radiograph, hash_pixels, load_segmenter, stored_frame"
        lungs = (
            'segmenter = load_segmenter("shipped")  # or the folder of the one named above\n'
            "nets = segmenter.nets_of_film(hash_pixels(grey))  # as predict chooses them\n"
            'assert nets[0] >= 0, "all nets were trained on this film"\n'
            "lungs = segmenter.find(frame, nets)\n"
            "assert not lungs.problem, lungs.problem  # without a credible mask there is no prediction\n"
            f"frame = LUNG_MODES[{trained.lungs!r}](frame, lungs.mask_SS, {state['crop']})\n"
        )
    return (
        "from pathlib import Path\n"
        "import onnxruntime\n"
        f"from loaders import {names}  # of plainfilm: grey window and fit, as in training\n\n"
        f"session = onnxruntime.InferenceSession({model_name!r})\n"
        'grey = decode_radiograph(Path("radiograph.png"), max_pixels=64_000_000).grey_HW\n'
        f"frame, _ = stored_frame(grey, {state['stored']}, {state['fit']!r})\n"
        f"{lungs}"
        '(probabilities,) = session.run(None, {"frames": frame[None]})\n'
        f"print(dict(zip({list(trained.classes)!r}, probabilities[0].tolist())))\n"
    )
