"""A comparison: several networks trained by one recipe on one split, and what became of each."""

import gc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from scipy.special import softmax

from engine.config import CompareConfig, EvaluateConfig, TrainConfig
from engine.evaluate.evaluate import evaluate
from engine.evaluate.findings import FINDINGS, FindingsMetrics
from engine.evaluate.results import METRICS, Metrics
from engine.evaluate.trained import decide, decide_findings
from engine.figures import INK, VALIDATION, png, with_legend
from engine.statistics.estimates import Estimate, estimates
from engine.statistics.findings import FindingsTest, measure_findings
from engine.statistics.names import headline_name, short_name, with_interval
from engine.train.checkpoint import load_checkpoint, validation_scores
from engine.train.run_folder import BEST, CONFIG, check_settings, settled_recipe, shared_settings
from engine.train.state import UNWATCHED, Watch
from engine.train.summary import Summary
from engine.train.train import train
from loaders import __version__
from loaders.atomic_file import locked, publish_bytes, publish_rows
from loaders.beton.reader import Beton
from loaders.cautions import Caution, each_once
from loaders.errors import CheckpointError, ConfigError, DivergedError, InputError, Interrupted
from loaders.figure_text import NAME, class_names, name_text
from loaders.output import Line, Parts, Sheet, caution_lines, path_line
from loaders.records import Record, known_record, write_record

HELD_OUT = "heldout.beton"
HELD_OUT_COLOUR = "#c0504d"
SERIES = (("validation", "validation", VALIDATION, "o", -0.12), ("heldout", "held out", HELD_OUT_COLOUR, "s", 0.12))
TRAINING_COLUMNS = {  # of comparison.csv: the summary's field
    "parameters": "parameters",
    "images_per_second": "images_per_second",
    "epochs_to_best": "best_epoch",
    "epochs": "epochs",
    "seconds": "seconds",
    "device": "device",
}
FILES = ("comparison.json", "comparison.csv", "comparison.png")
# of one network; whatever else goes wrong would go wrong for all
FAILURES = (ConfigError, CheckpointError, DivergedError, MemoryError)


class Contender(Record, frozen=True, kw_only=True):
    """One network and what became of it.  failed: why it was not trained; "" for one that was.

    heldout_f1: None without a held-out beton, or where heldout_refused says why.  heldout_cautions: of its evaluation.
    Of findings, means over those that are measured, and the AUC as well.
    """

    model: str
    failed: str = ""
    training: Summary | None = None
    validation_f1: Estimate | None = None
    heldout_f1: Estimate | None = None
    validation_auc: Estimate | None = None
    heldout_auc: Estimate | None = None
    heldout_refused: str = ""
    heldout_cautions: tuple[Caution, ...] = ()


class Comparison(Record, frozen=True, kw_only=True):
    """Every network of a comparison, in the order asked for, as comparison.json holds it.  settings: without paths."""

    made_by = "compare"
    version: int = 1
    classes: list[str]
    positive: str
    synthetic: bool
    networks: list[Contender]
    settings: dict[str, Any]
    plainfilm: str = __version__
    not_for_diagnosis: bool = True

    @property
    def of(self) -> str:
        """What the networks tell: classes, or findings, which have no positive class."""
        return "classes" if self.positive else "findings"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that networks are compared by."""
        return ("f1",) if self.positive else ("f1", "auc")


def compare(config: CompareConfig, watch: Watch = UNWATCHED) -> Comparison:
    """Train each network in OUT/<model>, or go on where that was interrupted; write comparison.json, .csv and .png.

    Errors: Interrupted, with everything done so far kept; ConfigError for a folder whose runs have other settings; the
    first network's error where none can be trained; InputError, BetonError, LockedError, StorageError.
    """
    trainings = config.trainings()
    contenders, errors, summaries = [], [], []
    with locked(config.out):
        config = replace(config, recipe=settled_recipe([one.out for one in trainings.values()], config.recipe))
        trainings = config.trainings()
        for training in trainings.values():
            check_settings(training.out, training, ("data", "out", "look"))  # the first two may have moved
        for name, training in trainings.items():
            try:
                watch.check_stop()
                watch.begin(name)
                done = train(training, resume=(training.out / CONFIG).exists(), watch=watch)
                contenders.append(contender(config, name, training, done, watch))
                summaries.append(done)
            except Interrupted as error:
                raise Interrupted(
                    f"{config.out}: interrupted; run the same `compare` again to continue, what is done is kept"
                ) from error
            except FAILURES as error:
                errors.append(error)
                contenders.append(Contender(model=name, failed=str(error) or "out of memory"))
            gc.collect()  # frames and captured steps of a device; the next network needs the room
        if not summaries:
            reasons = "; ".join(f"{row.model}: {row.failed}" for row in contenders)
            raise type(errors[0])(f"{config.out}: none of the networks could be trained: {reasons}") from errors[0]
        result = Comparison(
            classes=summaries[0].classes,
            positive=summaries[0].positive,
            synthetic=summaries[0].synthetic,
            networks=contenders,
            settings=shared_settings(config),
        )
        rows = [flat_row(row, result.metrics) for row in contenders]
        write_record(config.out / "comparison.json", result)
        publish_rows(config.out / "comparison.csv", [rows[0], *(row.values() for row in rows)])
        publish_bytes(config.out / "comparison.png", png(comparison_figure(result)))
        return result


def contender(config: CompareConfig, name: str, training: TrainConfig, done: Summary, watch: Watch) -> Contender:
    """What became of a network whose training is done.  name: in the comparison."""
    heldout, refused = None, ""
    if (config.data / HELD_OUT).is_file():
        try:
            heldout = heldout_metrics(config, name, training, done, watch)
        except InputError as error:
            refused = str(error)
    found, away = validation_estimates(config, training.out), dict[str, Estimate]()
    if heldout:
        away = heldout.macro if isinstance(heldout, FindingsMetrics) else heldout.estimates
    of_findings = done.task == "findings"
    return Contender(
        model=name,
        training=done,
        validation_f1=found["f1"],
        heldout_f1=away.get("f1"),
        validation_auc=found["auc"] if of_findings else None,
        heldout_auc=away.get("auc") if of_findings else None,
        heldout_refused=refused,
        heldout_cautions=tuple(heldout.cautions) if heldout else (),
    )


def validation_estimates(config: CompareConfig, run: Path) -> dict[str, Estimate]:
    """The best epoch's metrics of the validation set, as training counts them, with intervals; of findings, means."""
    tensors, state = load_checkpoint(run / BEST)
    scores, names = validation_scores(tensors, run / BEST), state["classes"]
    resamples, seed = config.resamples, config.loader.seed
    if state.get("task", "classes") == "findings":
        rule = decide_findings(scores, names, answers="vlm" in state)
        test = FindingsTest(
            finding_NK=scores.labels, probability_NK=rule.probabilities(scores.logits_NK), group_N=scores.group_N,
            threshold=rule.threshold_K,
        )  # fmt: skip
        return measure_findings([test], resamples=resamples, seed=seed).macro()
    positive = names.index(state["positive"])
    if "vlm" in state:
        probability_NK = decide(scores, positive, answers=True).probabilities(scores.logits_NK)
    else:  # as training counts them
        probability_NK = softmax(scores.logits_NK.astype("float64"), axis=1)
    return estimates(scores.labels, probability_NK, scores.group_N, positive, resamples=resamples, seed=seed)


def heldout_metrics(
    config: CompareConfig, name: str, training: TrainConfig, done: Summary, watch: Watch
) -> Metrics | FindingsMetrics:
    """The evaluation of the held-out set in the run's folder.

    It is made if there is none, or one of other weights or other resamples.
    """
    beton_path = config.data / HELD_OUT
    with Beton(beton_path, trust_unverified=config.loader.trust_unverified) as beton:
        folder = training.out / "evaluation" / beton.set_name
    settings = EvaluateConfig(
        run=training.out,
        betons=(beton_path,),
        resamples=config.resamples,
        seed=config.loader.seed,
        batch_size=config.loader.batch_size,
        device=config.recipe.device,
        threads=config.loader.threads,
        trust_unverified=config.loader.trust_unverified,
    )
    found: Metrics | FindingsMetrics | None
    if done.task == "findings":
        found = known_record(FindingsMetrics, folder / FINDINGS)
    else:
        found = known_record(Metrics, folder / METRICS)
    asked = (done.checkpoint_sha256, settings.resamples, settings.seed)
    if found is None or (found.checkpoint.sha256, found.resamples, found.seed) != asked:
        (evaluation,) = evaluate(settings, lambda phase, count, total: watch.phases(f"{name} {phase}", count, total))
        found = evaluation.metrics
    return found


def flat_row(row: Contender, metrics: Sequence[str] = ("f1",)) -> dict[str, Any]:
    """A contender as a row of comparison.csv: each estimate in five columns."""
    flat: dict[str, Any] = {"model": row.model, "failed": row.failed}
    for name in (f"{place}_{metric}" for metric in metrics for place, *_ in SERIES):
        found = getattr(row, name)
        for part in ("value", "low", "high", "defined", "classes"):
            flat[name if part == "value" else f"{name}_{part}"] = None if found is None else getattr(found, part)
    flat["heldout_refused"] = row.heldout_refused
    for name, source in TRAINING_COLUMNS.items():
        flat[name] = None if row.training is None else getattr(row.training, source)
    cautions = [*(row.training.cautions if row.training else []), *row.heldout_cautions]
    flat["cautions"] = ";".join(dict.fromkeys(caution.code for caution in cautions))
    return flat


def comparison_figure(result: Comparison) -> Figure:
    """F1, of findings the AUC as well, with 95 % intervals, a line a network, the first one on top.

    Those that were not trained say so.
    """
    rows, names = result.networks, class_names(result.classes, kind="class" if result.positive else "finding")
    size = (8 if len(result.metrics) == 1 else 10, 2.1 + 0.6 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    every = figure.subplots(1, len(result.metrics), squeeze=False, sharey=True)[0]
    for metric, axes in zip(result.metrics, every, strict=True):
        for name, label, colour, marker, shift in SERIES:
            known = [(place, getattr(row, f"{name}_{metric}")) for place, row in enumerate(rows)]
            known = [(place, found) for place, found in known if found is not None and found.value is not None]
            for place, found in known:
                if found.low is not None and found.high is not None:
                    axes.plot([found.low, found.high], [place + shift] * 2, color=colour, linewidth=2, alpha=0.6)
            if known:
                values = [found.value for _, found in known]
                axes.plot(values, [place + shift for place, _ in known], marker, color=colour, label=label)
        for place, row in enumerate(rows):
            if row.failed:
                axes.text(0.01, place, "not trained", va="center", color=INK, transform=axes.get_yaxis_transform())
        which = headline_name(metric, len(result.classes), names.text_of.get(result.positive, ""))
        axes.set(xlabel=f"{which}, 95 % interval", xlim=(None, 1.005), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    every[0].set_yticks(range(len(rows)), labels=[name_text(row.model, NAME) for row in rows])
    kind = "synthetic phantoms" if result.synthetic else "radiographs"
    return with_legend(figure, f"{names.listed(result.of)}: {kind}, one split, one recipe", names.note)


HEADERS = ("parameters", "images/s", "epochs to best", "seconds")


def comparison_parts(result: Comparison, out: Path) -> Parts:
    """The table of networks, the cautions, and the files."""
    columns = {
        f"{place}_{metric}": f"{shown} {name}"
        for metric, name in (("f1", short_name("f1")), ("auc", "AUC"))
        for place, shown in (("validation", "validation"), ("heldout", "held-out"))
        if metric in result.metrics
    }
    rows = tuple(table_row(row, [*columns], result.of) for row in result.networks)
    parts: list[Line | Sheet] = [Sheet(headers=("network", *columns.values(), *HEADERS), rows=rows)]
    for row in result.networks:
        if row.failed:
            parts.append(Line(f"Not trained, {row.model}: {row.failed}", "yellow"))
        if row.heldout_refused:
            parts.append(Line(f"Not tested on {HELD_OUT}, {row.model}: {row.heldout_refused}", "yellow"))
    trained = [(row, row.training) for row in result.networks if row.training]
    training = [(row.model, done.cautions) for row, done in trained]
    heldout = [(f"{row.model} on {HELD_OUT}", list(row.heldout_cautions)) for row, _ in trained]
    for cautions, all_of_them in ((training, ""), (heldout, HELD_OUT)):
        for caution in each_once(caution for _, found in cautions for caution in found):
            named = [name for name, found in cautions if caution in found]
            parts += caution_lines([caution], all_of_them if len(named) == len(trained) else ", ".join(named))
    if not result.positive:
        which = "F1 and AUC are means over the findings that are measured, each at its own threshold"
    elif len(result.classes) == 2:
        which = f"F1 of {result.positive}"
    else:
        which = "F1 is the mean over the classes that define it"
    parts.append(
        Line(
            f"{which}; 95 % intervals over groups. The validation set chose each network's epoch: its F1 is optimistic."
        )
    )
    devices = dict.fromkeys(done.device for _, done in trained)
    parts.append(Line(f"Trained on {'; '.join(devices)}."))
    parts += [path_line(out / name) for name in FILES]
    return parts


def table_row(row: Contender, names: Sequence[str], of: str) -> tuple[str, ...]:
    """One network in the table.  names: of its estimates that are shown.  of: what means are over."""
    done = row.training
    if done is None:
        return (row.model, "not trained", *[""] * (len(names) + len(HEADERS) - 1))
    found = {name: with_interval(name.partition("_")[2], getattr(row, name), of) or "–" for name in names}
    if row.heldout_refused:
        found |= {name: "refused" for name in names if name.startswith("heldout")}
    return (
        row.model,
        *found.values(),
        f"{done.parameters:,}",
        f"{done.images_per_second:,.0f}",
        f"{done.best_epoch} of {done.epochs}" if done.epochs else "zero-shot",
        f"{done.seconds:,.1f}",
    )
