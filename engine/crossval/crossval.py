"""A cross-validation: every fold of every split trained, tested on its own samples, and put side by side."""

# N samples of the pool, K classes or findings

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
from msgspec import UNSET
from scipy.special import expit, softmax

from engine.config import CrossvalConfig, FoldSplit, TrainConfig
from engine.crossval.findings import finding_rows, fold_cautions, measure_findings_folds
from engine.crossval.folds import (
    BETONS,
    Fold,
    Pool,
    deal_folds,
    every_image_its_own_group,
    external_copies,
    open_external,
    open_pool,
)
from engine.crossval.lungs import PoolLungs, changes_frames, needs_lungs, pool_lungs
from engine.crossval.output import crossval_figure
from engine.crossval.scores import (
    CROSSVAL,
    SCORES,
    Crossval,
    FoldScores,
    FoldTraining,
    crossval_of,
    measure_folds,
    score_rows,
)
from engine.device import choose_policy, settle_precision
from engine.evaluate.copies import SharedFilm, copies_in, publish_copies, shared_films, without
from engine.evaluate.trained import decide
from engine.figures import png
from engine.networks.registry import network_of
from engine.statistics.findings import validation_metrics
from engine.train.checkpoint import load_checkpoint, load_network, validation_scores
from engine.train.run_folder import (
    BEST,
    CONFIG,
    LAST,
    check_settings,
    model_folder,
    save_settings,
    settled_recipe,
)
from engine.train.state import UNWATCHED, Watch
from engine.train.step import predict
from engine.train.summary import Summary
from engine.train.train import train
from loaders.atomic_file import locked, publish_bytes, publish_rows
from loaders.batches.loader import Loader
from loaders.beton.writer import beton_size, check_room, subset_id, write_subset
from loaders.config import LoaderConfig
from loaders.errors import ConfigError, IntegrityError, Interrupted
from loaders.records import read_record, write_record

FOLDS, TABLE, PICTURE = "folds", "crossval.csv", "crossval.png"
# settings that no fold's scores depend on, on a CPU; the pool is known by its conversion, wherever it lies, and what
# masks make of a fold's frames by the fold's identity
FREE = (
    "data", "out", "splits", "external", "keep_copies", "keep", "resamples", "threads", "prefetch", "arena", "masks",
    "segmenter", "table",
)  # fmt: skip


def crossval(config: CrossvalConfig, watch: Watch = UNWATCHED) -> Crossval:
    """Cross-validate, and give what crossval.json holds; crossval.csv and crossval.png go beside it.

    Errors: InputError for betons that do not belong together or too few groups; ConfigError for a folder of other
    settings; LockedError; StorageError; DivergedError; Interrupted, after which the same call goes on.
    """
    with contextlib.ExitStack() as stack:
        pool = open_pool(config.data, stack)
        lungs = None
        if needs_lungs(config):
            pool, lungs = pool_lungs(pool, config, watch)
        cautions = pool.cautions() + (lungs.cautions if lungs else [])
        external, copies, kept_N = None, list[SharedFilm](), np.empty(0, np.int64)
        if config.external is not None:
            external, more = open_external(config.external, pool, stack)
            copies = copies_in(shared_films(external, pool.betons, partial(watch.phases, "copies")))
            kept_N = without(external, () if config.keep_copies else copies)
            cautions += more + external_copies(external, copies, kept=config.keep_copies)
        folds = [
            fold
            for split in config.splits
            for fold in deal_folds(
                pool.group_N, pool.labels, pool.facts.classes, num_folds=config.folds, val=config.val,
                seed=config.loader.seed, split=cast(FoldSplit, split), where=str(config.data),
            )
        ]  # fmt: skip
        findings = pool.facts.task == "findings"
        cautions += fold_cautions(pool, folds) if findings else []
        stack.enter_context(locked(config.out))
        if (config.out / FOLDS).exists() and not (config.out / CONFIG).exists():
            raise ConfigError(
                f"{config.out}: holds {FOLDS} but no {CONFIG}, expected a new folder; choose another --out"
            )
        config = replace(config, recipe=settled_recipe([config.out], config.recipe))
        check_settings(config.out, config, FREE)
        for fold in folds:
            finished(config, pool, lungs, fold)  # before anything is written: they may be of other betons
        save_settings(config.out, config)
        size = beton_size(len(pool.labels), pool.facts.stored, pool.betons[0].page_size)
        check_room(config.out, size * (len(config.splits) * config.folds if config.keep else 1))
        found: dict[FoldSplit, list[FoldScores]] = {}
        alike = every_image_its_own_group(pool.group_N) and "group" in config.splits
        for fold in folds:
            if not (fold.split == "random" and alike):  # the folds are the same, and so would the scores be
                found.setdefault(fold.split, []).append(run_fold(config, pool, lungs, fold, watch))
        if "random" in config.splits and alike:
            found["random"] = found["group"]
        outside = []
        if external is not None:
            runs = [folder_of(config, "group", scores.training.fold) / "run" for scores in found["group"]]
            outside = [test_on(config, run, external.path, watch)[kept_N] for run in runs]
        measure, rows = (measure_findings_folds, finding_rows) if findings else (measure_folds, score_rows)
        measured = measure(pool, found, external, kept_N, outside, config.resamples)
        result = crossval_of(config, pool, measured, external, cautions, lungs.use if lungs else UNSET)
        publish_rows(config.out / TABLE, rows(pool, found, external, kept_N, outside))
        publish_copies(config.out, copies, set(kept_N))
        publish_bytes(config.out / PICTURE, png(crossval_figure(result)))
        write_record(config.out / CROSSVAL, result)
        return result


def folder_of(config: CrossvalConfig, split: str, number: int) -> Path:
    """The folder of a fold."""
    return config.out / FOLDS / f"{split}-{number}"


def identity_of(pool: Pool, lungs: PoolLungs | None, fold: Fold) -> str:
    """The conversion id of a fold's betons."""
    made_with = f"{lungs.made_with(fold.split)} " if lungs and changes_frames(fold.split) else ""
    places = (pool.kept_N[part_N] for part_N in (fold.train_N, fold.val_N, fold.test_N))
    return subset_id(pool.betons[0], f"crossval {fold.split} {made_with}{fold.number}", *places)


def finished(config: CrossvalConfig, pool: Pool, lungs: PoolLungs | None, fold: Fold) -> FoldScores | None:
    """The scores of a fold; None where it was not finished.

    Errors: ConfigError for a fold of other betons or masks; IntegrityError for a damaged file; StorageError.
    """
    path = folder_of(config, fold.split, fold.number) / SCORES
    if not path.is_file():
        return None
    scores, test_N, num_classes = read_record(FoldScores, path), fold.test_N, len(pool.facts.classes)
    if scores.identity != identity_of(pool, lungs, fold):
        raise ConfigError(
            f"{path}: the fold was made of other betons, samples or masks, or by a release that hid another region, "
            "expected the same (films without a credible mask are left out of every split where one of them shows each "
            "film's own lungs); choose another --out, or, if you changed betons or masks, bring the old ones back"
        )
    if scores.place != test_N.tolist() or [len(row) for row in scores.probability] != [num_classes] * len(test_N):
        raise IntegrityError(
            f"{path}: {len(scores.probability)} scores of {len(scores.place)} samples, expected {num_classes} for each "
            f"of the fold's own {len(test_N)}; remove it, and run `crossval` again"
        )
    thresholds = num_classes if pool.facts.task == "findings" else 0
    if len(scores.training.thresholds) != thresholds:
        raise IntegrityError(
            f"{path}: {len(scores.training.thresholds)} thresholds, expected {thresholds}, one a finding; remove it, "
            "and run `crossval` again"
        )
    return scores


def run_fold(config: CrossvalConfig, pool: Pool, lungs: PoolLungs | None, fold: Fold, watch: Watch) -> FoldScores:
    """Train and test one fold, unless that has been done.  Errors: Interrupted, and whatever `train` raises."""
    folder, identity = folder_of(config, fold.split, fold.number), identity_of(pool, lungs, fold)
    if done := finished(config, pool, lungs, fold):
        tidy(folder, config.keep)
        return done
    change = None
    if lungs and changes_frames(fold.split):
        change = partial(lungs.change, split=fold.split, crop=pool.facts.crop)
    started = time.perf_counter()
    try:
        watch.check_stop()
        run = config.training(folder, folder / "run")
        watch.begin(f"{fold.split} {fold.number}/{config.folds}")
        summary = train_fold(pool, fold, run, identity, watch, change)
        probability_NK = test_on(config, run.out, folder / "heldout.beton", watch)
    except Interrupted as error:
        kept = len(list((config.out / FOLDS).glob(f"*/{SCORES}")))
        raise Interrupted(
            f"{config.out}: interrupted in the {fold.split} split, fold {fold.number} of {config.folds}; {kept} "
            "finished folds are kept: the same command goes on from there"
        ) from error
    scores = FoldScores(
        identity=identity,
        training=FoldTraining(
            split=fold.split,
            fold=fold.number,
            num_train=len(fold.train_N),
            num_val=len(fold.val_N),
            validation_f1=summary.best_f1,
            epochs=summary.epochs,
            best_epoch=summary.best_epoch,
            stopped=summary.stopped,
            thresholds=finding_thresholds(run.out) if pool.facts.task == "findings" else [],
        ),
        place=fold.test_N.tolist(),
        probability=probability_NK.tolist(),
        seconds=round(time.perf_counter() - started, 3),
    )
    write_record(folder / SCORES, scores)
    tidy(folder, config.keep)
    return scores


def train_fold(
    pool: Pool,
    fold: Fold,
    training: TrainConfig,
    identity: str,
    watch: Watch,
    change: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> Summary:
    """Write the betons of a fold into training.data, which is made anew, and train on them.

    identity: the betons' conversion id.  change: of each frame, given its place in the pool.  Errors: as of `train`.
    """
    shutil.rmtree(training.data, ignore_errors=True)  # of a fold that was interrupted
    training.data.mkdir(parents=True, exist_ok=True)
    for part, place_N in zip(BETONS, (fold.train_N, fold.val_N, fold.test_N), strict=True):
        path = training.data / f"{part}.beton"
        each = None if change is None else partial(at_place, change, place_N)
        shows = "" if change is None else fold.split
        write_subset(pool.chosen(place_N), path, part, conversion_id=identity, change=each, shows=shows)
    return train(training, watch=watch)


def at_place(
    change: Callable[[np.ndarray, int], np.ndarray], place_N: np.ndarray, frame_SS: np.ndarray, number: int
) -> np.ndarray:
    """Change a frame by its number among chosen places."""
    return change(frame_SS, int(place_N[number]))


def test_on(config: CrossvalConfig, run: Path, beton: Path, watch: Watch) -> np.ndarray:
    """What a run's best weights predict of a beton, in order, float64 (N, K).  Errors: Interrupted.

    Uncalibrated, except for classes of a vision-language model.
    """
    tensors, state = load_checkpoint(run / BEST, needed=("classes", "positive", "crop", "dropout"))
    network = network_of(state, model_folder(run))
    load_network(network, tensors)
    policy = choose_policy(config.recipe.device, "off", "off", 0)
    settle_precision(policy)
    network = network.to(policy.device, memory_format=policy.memory_format)  # type: ignore[call-overload]
    settings = LoaderConfig(batch_size=config.loader.batch_size, threads=config.loader.threads)
    with Loader(beton, settings, tensors=True) as loader:
        _, logits_NK = predict(network, loader, policy, lambda samples: watch.check_stop())
    wide_NK = logits_NK.astype(np.float64)
    if state.get("task") == "findings":
        return expit(wide_NK)
    if "vlm" in state:  # without the bias of its answers their lengths would decide
        positive = state["classes"].index(state["positive"])
        return decide(validation_scores(tensors, run / BEST), positive, answers=True).probabilities(logits_NK)
    return softmax(wide_NK, axis=1)


def finding_thresholds(run: Path) -> list[float | None]:
    """The probability, uncalibrated, of the highest F1 of each finding on a run's own validation set."""
    scores = validation_scores(load_checkpoint(run / BEST)[0], run / BEST)
    found = validation_metrics(scores.labels, expit(scores.logits_NK.astype(np.float64)), scores.group_N)
    return list(found["threshold_per_finding"])


def tidy(folder: Path, keep: bool) -> None:
    """Remove what a finished fold needs no more, unless it is kept: its betons, and the state to resume from."""
    if not keep:
        for path in (*folder.glob("*.beton"), folder / "run" / LAST):
            path.unlink(missing_ok=True)
