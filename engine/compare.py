"""A comparison: several networks trained by one recipe on one split, and what became of each."""

import gc
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from scipy.special import softmax

from engine.config import CompareConfig, EvaluateConfig, TrainConfig
from engine.evaluate.evaluate import evaluate
from engine.evaluate.results import METRICS, Metrics
from engine.figures import INK, VALIDATION, png, with_legend
from engine.statistics.estimates import Estimate, estimates
from engine.statistics.names import headline_name, with_interval
from engine.train.checkpoint import load_checkpoint, validation_scores
from engine.train.run_folder import BEST, CONFIG, check_settings, shared_settings
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
SERIES = (
    ("validation_f1", "validation", VALIDATION, "o", -0.12),
    ("heldout_f1", "held out", HELD_OUT_COLOUR, "s", 0.12),
)
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
    """

    model: str
    failed: str = ""
    training: Summary | None = None
    validation_f1: Estimate | None = None
    heldout_f1: Estimate | None = None
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


def compare(config: CompareConfig, watch: Watch = UNWATCHED) -> Comparison:
    """Train each network in OUT/<model>, or go on where that was interrupted; write comparison.json, .csv and .png.

    Errors: Interrupted, with everything done so far kept; ConfigError for a folder whose runs have other settings; the
    first network's error where none can be trained; InputError, BetonError, LockedError, StorageError.
    """
    trainings = {model: config.training(model) for model in config.models}
    contenders, errors, summaries = [], [], []
    with locked(config.out):
        for training in trainings.values():
            check_settings(training.out, training, ("data", "out", "look"))  # the first two may have moved
        for model, training in trainings.items():
            try:
                watch.check_stop()
                watch.begin(model)
                done = train(training, resume=(training.out / CONFIG).exists(), watch=watch)
                contenders.append(contender(config, training, done, watch))
                summaries.append(done)
            except Interrupted as error:
                raise Interrupted(
                    f"{config.out}: interrupted; run the same `compare` again to continue, what is done is kept"
                ) from error
            except FAILURES as error:
                errors.append(error)
                contenders.append(Contender(model=model, failed=str(error) or "out of memory"))
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
        rows = [flat_row(row) for row in contenders]
        write_record(config.out / "comparison.json", result)
        publish_rows(config.out / "comparison.csv", [rows[0], *(row.values() for row in rows)])
        publish_bytes(config.out / "comparison.png", png(comparison_figure(result)))
        return result


def contender(config: CompareConfig, training: TrainConfig, done: Summary, watch: Watch) -> Contender:
    """What became of a network whose training is done."""
    heldout, refused = None, ""
    if (config.data / HELD_OUT).is_file():
        try:
            heldout = heldout_metrics(config, training, done, watch)
        except InputError as error:
            refused = str(error)
    return Contender(
        model=training.model,
        training=done,
        validation_f1=validation_f1(config, training.out),
        heldout_f1=heldout.estimates["f1"] if heldout else None,
        heldout_refused=refused,
        heldout_cautions=tuple(heldout.cautions) if heldout else (),
    )


def validation_f1(config: CompareConfig, run: Path) -> Estimate:
    """The best epoch's F1 of the validation set, as training counts it, with its interval."""
    tensors, state = load_checkpoint(run / BEST)
    scores = validation_scores(tensors, run / BEST)
    found = estimates(
        scores.label_N,
        softmax(scores.logits_NK.astype("float64"), axis=1),
        scores.group_N,
        state["classes"].index(state["positive"]),
        resamples=config.resamples,
        seed=config.loader.seed,
    )
    return found["f1"]


def heldout_metrics(config: CompareConfig, training: TrainConfig, done: Summary, watch: Watch) -> Metrics:
    """The evaluation of the held-out set in the run's folder.

    It is made if there is none, or one of other weights or other resamples.
    """
    beton_path = config.data / HELD_OUT
    with Beton(beton_path, trust_unverified=config.loader.trust_unverified) as beton:
        path = training.out / "evaluation" / beton.set_name / METRICS
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
    found = known_record(Metrics, path)
    asked = (done.checkpoint_sha256, settings.resamples, settings.seed)
    if found is None or (found.checkpoint.sha256, found.resamples, found.seed) != asked:
        (evaluation,) = evaluate(
            settings, lambda name, count, total: watch.phases(f"{training.model} {name}", count, total)
        )
        found = evaluation.metrics
    return found


def flat_row(row: Contender) -> dict[str, Any]:
    """A contender as a row of comparison.csv: each estimate in five columns."""
    flat: dict[str, Any] = {"model": row.model, "failed": row.failed}
    for name, found in (("validation_f1", row.validation_f1), ("heldout_f1", row.heldout_f1)):
        for part in ("value", "low", "high", "defined", "classes"):
            flat[name if part == "value" else f"{name}_{part}"] = None if found is None else getattr(found, part)
    flat["heldout_refused"] = row.heldout_refused
    for name, source in TRAINING_COLUMNS.items():
        flat[name] = None if row.training is None else getattr(row.training, source)
    cautions = [*(row.training.cautions if row.training else []), *row.heldout_cautions]
    flat["cautions"] = ";".join(dict.fromkeys(caution.code for caution in cautions))
    return flat


def comparison_figure(result: Comparison) -> Figure:
    """F1 and its 95 % interval, a line a network, the first one on top; those that were not trained say so."""
    rows, names = result.networks, class_names(result.classes)
    figure = Figure(figsize=(8, 2.1 + 0.6 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for name, label, colour, marker, shift in SERIES:
        known = [(place, getattr(row, name)) for place, row in enumerate(rows)]
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
    axes.set_yticks(range(len(rows)), labels=[name_text(row.model, NAME) for row in rows])
    which = headline_name("f1", len(result.classes), names.text_of[result.positive])
    axes.set(xlabel=f"{which}, 95 % interval", xlim=(None, 1.005), ylim=(len(rows) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    kind = "synthetic phantoms" if result.synthetic else "radiographs"
    return with_legend(figure, f"{names.listed()}: {kind}, one split, one recipe", names.note)


HEADERS = ("network", "validation F1", "held-out F1", "parameters", "images/s", "epochs to best", "seconds")


def comparison_parts(result: Comparison, out: Path) -> Parts:
    """The table of networks, the cautions, and the files."""
    parts: list[Line | Sheet] = [Sheet(headers=HEADERS, rows=tuple(map(table_row, result.networks)))]
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
    which = f"F1 of {result.positive}" if len(result.classes) == 2 else "F1 is the mean over the classes that define it"
    parts.append(
        Line(
            f"{which}; 95 % intervals over groups. The validation set chose each network's epoch: its F1 is optimistic."
        )
    )
    devices = dict.fromkeys(done.device for _, done in trained)
    parts.append(Line(f"Trained on {'; '.join(devices)}."))
    parts += [path_line(out / name) for name in FILES]
    return parts


def table_row(row: Contender) -> tuple[str, ...]:
    """One network in the table."""
    done = row.training
    if done is None:
        return (row.model, "not trained", *[""] * (len(HEADERS) - 2))
    heldout = "refused" if row.heldout_refused else with_interval("f1", row.heldout_f1) or "–"
    return (
        row.model,
        with_interval("f1", row.validation_f1),
        heldout,
        f"{done.parameters:,}",
        f"{done.images_per_second:,.0f}",
        f"{done.best_epoch} of {done.epochs}",
        f"{done.seconds:,.1f}",
    )
