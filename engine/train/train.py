"""A training: the recipe of DESIGN from betons to a run folder; on a CPU it resumes to the bit."""

import contextlib
import math
from dataclasses import replace
from pathlib import Path

import torch

from engine.config import VLM, Monitor, TrainConfig, vlm_folder
from engine.device import as_stored, choose_device, choose_policy, settle_precision
from engine.networks.registry import check_batches, model_identity
from engine.networks.vlm import VlmNetwork
from engine.statistics.names import METRICS, value_text
from engine.train.leakage import open_loaders, save_record
from engine.train.pretrained import initial_network
from engine.train.run_folder import CONFIG, LAST, run_id, save_settings
from engine.train.state import UNWATCHED, Progress, Watch
from engine.train.summary import Summary
from engine.train.trainer import Training
from loaders.atomic_file import locked
from loaders.audit.copies import can_compare
from loaders.errors import ConfigError
from loaders.output import Line, Parts, caution_lines, path_line, rate_text, seconds_text

LIVE: dict[Monitor, str] = {
    "f1": METRICS["f1"].name,
    "auc": "AUC",
    "loss": "val loss",
}  # the best so far, in the live line
CURVES = "curves.png"
FILES = ("best.safetensors", "metrics.csv", CURVES, "summary.json", "report.html")


def train(config: TrainConfig, *, resume: bool = False, watch: Watch = UNWATCHED) -> Summary:
    """Train, and give the summary that summary.json holds.

    resume: continue the run in config.out.
    Errors: InputError for betons that do not belong together; ConfigError; LockedError; CheckpointError; StorageError;
    DivergedError and Interrupted, both after the last healthy state, if there is one yet, is saved.
    """
    recipe = config.recipe
    with contextlib.ExitStack() as stack:
        on_cpu = choose_device(recipe.device).type == "cpu"  # before anything is written, since it may not be there
        # a device takes the frames into its own memory: the host has no need to
        host = config if on_cpu else replace(config, loader=replace(config.loader, resident="auto"))
        loader, val_loader = open_loaders(host, stack)
        facts = loader.beton.facts
        setting = f"{len(facts.classes)} {facts.task}, crop {facts.crop}, batch {config.loader.batch_size}"
        setting += "" if config.model == "cnn" else f", {config.model}"
        # a run that was begun before the precision was settled at its start computed in float32 on a CPU
        amp = "off" if resume and on_cpu and recipe.amp == "auto" else recipe.amp
        folder, compiled = vlm_folder(config.model), recipe.compile
        if folder:  # in the precision that its weights are stored in, and eagerly, since questions differ in length
            config = replace(config, model=f"{VLM}{Path(folder).absolute()}")
            amp, compiled = "off", ("off" if compiled == "auto" else compiled)
        policy = choose_policy(recipe.device, amp, compiled, recipe.epochs * len(loader), setting)
        if not resume:  # settled for good, wherever it is continued
            recipe = replace(recipe, amp="on" if policy.autocast else "off")
            config = replace(config, recipe=recipe)
        settle_precision(policy)
        check_batches(config.model, facts.crop, loader.num_samples, config.loader.batch_size)
        # before anything is written, since the weights to begin with may not be there
        network = initial_network(config, facts, pretrained=not (resume and (config.out / LAST).exists()))
        if isinstance(network, VlmNetwork):
            policy = as_stored(policy, network.backbone.model.dtype)
        stack.enter_context(locked(config.out))

        def looking(done: int, total: int) -> None:
            watch.phases("looks", done, total)
            watch.check_stop()

        if not resume:
            if (config.out / CONFIG).exists():
                raise ConfigError(
                    f"{config.out}: already holds a run, expected a new folder; "
                    f"continue it with --resume {config.out}, or choose another --out"
                )
            run = run_id(config, facts.conversion_id, model_identity(network))
            sets = {"train": loader.beton, "val": val_loader.beton}
            save_record(config.out, sets, run, look=config.look and can_compare(loader.beton), progress=looking)
            save_settings(config.out, config)  # last: a folder with it can be resumed
        try:
            return Training(config, loader, val_loader, network, policy, watch).run(resume)
        except torch.OutOfMemoryError as error:
            raise MemoryError(f"{policy.device}: {str(error).splitlines()[0]}") from error


def live_line(now: Progress) -> str:
    """Where a training is, in one line."""
    if now.phase == "zero-shot":
        left = "" if now.seconds_left is None else f"≤ {now.seconds_left / 60:.1f} min"
        return f"asking about film {now.done:,}/{now.total:,}  {rate_text(now.state.rate)}  {left}"
    loss = "–" if math.isnan(now.loss) else value_text("loss", now.loss)
    state, epochs = now.state, now.recipe.epochs
    epoch, patience = min(len(state.history) + 1, epochs), now.recipe.patience - state.idle()
    left = "" if now.seconds_left is None else f"≤ {now.seconds_left / 60:.1f} min"
    score = max(state.best_f1 or 0.0, 0.0) if now.monitor == "f1" else state.best_score
    best = "–" if score is None else value_text(now.monitor, abs(score))
    return (
        f"epoch {epoch}/{epochs}  loss {loss}  {LIVE[now.monitor]} {best}  "
        f"{rate_text(state.rate)}  patience {patience}  {left}"
    )


def epoch_line(now: Progress) -> str:
    """The last epoch that is done, in one line."""
    row = now.state.history[-1]
    if row["train_loss"] is None:
        return f"asked about {now.total:,} films  val F1 {value_text('f1', row['val_f1'])}"
    best = "  best" if now.state.best_epoch == row["epoch"] else ""
    train_loss, val_loss = (value_text("loss", row[name]) for name in ("train_loss", "val_loss"))
    auc = f"val AUC {value_text('auc', row['val_auc'])}  " if now.monitor == "auc" else ""
    f1 = METRICS["f1_macro" if "val_auc[0]" in row else "f1"].name
    scores = f"{auc}val {f1} {value_text('f1', row['val_f1'])}"
    return (
        f"epoch {row['epoch']:3}  loss {train_loss}  val loss {val_loss}  {scores}  "
        f"{rate_text(row['images_per_second'])}{best}"
    )


def training_parts(summary: Summary, out: Path) -> Parts:
    """The best epoch, the files, and the cautions."""
    epoch = f" in epoch {summary.best_epoch} of {summary.epochs}" if summary.epochs else ""
    parts = [
        Line(
            f"{'Best validation' if epoch else 'Validation'} {summary.best}{epoch} "
            f"({summary.ending}); {rate_text(summary.images_per_second)}, {seconds_text(summary.seconds)} "
            f"on {summary.device}"
        )
    ]
    if summary.validate_with != "running":
        parts.append(Line(f"What validated is what was kept: {summary.kept.rstrip(',')}."))
    if summary.frames:
        parts.insert(0, Line(f"Frames show {summary.frames}."))
    if summary.amp is not None:
        parts.append(Line(summary.amp.finding))
    if summary.device_type != "cpu":
        parts.append(Line(summary.compile.finding))
    parts += [path_line(out / name) for name in FILES if epoch or name != CURVES]
    return parts + caution_lines(summary.cautions)
