"""The evaluation of a run on betons: one forward pass each, its subgroups, and the files of its results."""

# N samples, K classes

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.config import EvaluateConfig
from engine.device import Policy, choose_policy, settle_precision
from engine.evaluate.checks import check_beton, check_rival, class_cautions, group_cautions, set_cautions
from engine.evaluate.dataflow import DATAFLOW, dataflow_beside
from engine.evaluate.results import (
    FIGURES,
    METRICS,
    Difference,
    Evaluation,
    Metrics,
    Scores,
    figures,
    measure,
    score_rows,
)  # fmt: skip
from engine.evaluate.trained import Trained, load_trained
from engine.figures import png
from engine.train.checkpoint import groups_of
from engine.train.step import predict
from loaders.atomic_file import locked, publish_bytes, publish_rows
from loaders.batches.loader import Loader
from loaders.beton.format import BELOW_STORED_SIDE, PATIENT_KNOWN
from loaders.beton.reader import Beton
from loaders.cautions import Caution
from loaders.config import LoaderConfig
from loaders.errors import ConfigError
from loaders.output import PhaseProgress
from loaders.records import write_record

MOST = 20  # subgroups of a kind; the smallest are pooled beyond
FLAGS = {
    PATIENT_KNOWN: ("patient known", "patient not known"),
    BELOW_STORED_SIDE: ("smaller than the stored frame", "not smaller than the stored frame"),
}


def subgroups(beton: Beton) -> list[tuple[str, str, np.ndarray]]:
    """The subgroups of a beton, the largest of each kind first: kind, name, and the places of its samples.

    A kind in which all samples are alike gives none: it would be the whole set.  Those of an unverified beton are
    not known.
    """
    if not beton.verified:
        return []
    facts, rows_N = beton.facts, beton.rows_N
    found = by_name("source", facts.sources, rows_N["source"]) + by_name("view", facts.views, rows_N["view"])
    for flag, names in FLAGS.items():
        found += by_name("flag", names, np.where(rows_N["flags"] & flag, 0, 1))
    return found


def by_name(kind: str, names: tuple[str, ...], value_N: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    """Subgroups of equal values.  value_N: places in names."""
    counts = Counter(value_N.tolist()).most_common()
    if len(counts) < 2:
        return []
    kept = [value for value, _ in counts[:MOST]]
    found = [(kind, names[value] or "unknown", np.flatnonzero(value_N == value)) for value in kept]
    if rest := len(counts) - len(kept):
        found.append((kind, f"{rest} others", np.flatnonzero(~np.isin(value_N, kept))))
    return found


def evaluate(config: EvaluateConfig, progress: PhaseProgress = lambda name, done, total: None) -> list[Evaluation]:
    """Evaluate the best checkpoint of a run on betons; write metrics.json, scores.csv and figures for each.

    Results lie in a folder named after the set that was tested (`Beton.set_name`), so that no set replaces another's.

    Errors: CheckpointError for a run without weights; InputError for a beton of other classes or size, or one that
    shares images or patients with the training set (unless config.force), or for a run to compare with that is of
    another task; ConfigError; BetonError; StorageError.
    """
    if not config.betons:
        raise ConfigError("betons: found none, expected at least one")
    trained = load_trained(config.run)
    rival = None if config.against is None else load_trained(config.against)
    if rival is not None:
        check_rival(trained, rival)
    policy = choose_policy(config.device, "off", "off", 0)
    settle_precision(policy)
    runs = (trained,) if rival is None else (trained, rival)
    for run in runs:
        run.network.to(policy.device, memory_format=policy.memory_format)  # type: ignore[call-overload]
    out = config.out or config.run / "evaluation"
    with contextlib.ExitStack() as stack:
        settings = LoaderConfig(
            batch_size=config.batch_size, threads=config.threads, trust_unverified=config.trust_unverified
        )
        loaders = [stack.enter_context(Loader(path, settings, tensors=True)) for path in config.betons]
        names = [loader.beton.set_name for loader in loaders]  # of the results' folders
        if len(set(names)) != len(names):
            named = ", ".join(f"{path} ({name})" for path, name in zip(config.betons, names, strict=True))
            raise ConfigError(f"betons: found {named}, expected different sets; name each once")
        # before the first result is written
        checked = [
            [check_beton(run.run, run.state, loader, force=config.force) + run.decision.cautions() for run in runs]
            for loader in loaders
        ]
        stack.enter_context(locked(out))
        return [
            evaluate_one(config, runs, policy, loader, cautions, out / name, progress)
            for loader, name, cautions in zip(loaders, names, checked, strict=True)
        ]


def evaluate_one(
    config: EvaluateConfig,
    runs: Sequence[Trained],
    policy: Policy,
    loader: Loader,
    checked: Sequence[list[Caution]],
    out: Path,
    progress: PhaseProgress,
) -> Evaluation:
    """One forward pass over one beton, what it amounts to, and its files in `out`, which is named after the set.

    runs: the run, and perhaps the one that it is compared with.  checked: the cautions of each.
    """
    trained, *rivals = runs
    beton, name, done = loader.beton, out.name, 0
    facts, total = beton.facts, len(beton) * len(runs)

    def count(samples: int) -> None:
        nonlocal done
        done += samples
        progress(name, done, total)

    label_N, logits_NK = predict(trained.network, loader, policy, count)
    other_NK = None
    for rival in rivals:
        other_NK = rival.decision.probabilities(predict(rival.network, loader, policy, count)[1])
    scores = Scores(
        label_N=label_N,
        probability_NK=trained.decision.probabilities(logits_NK),
        group_N=groups_of(beton),
        classes=trained.classes,
        positive=trained.classes.index(trained.state["positive"]),
    )
    measured = measure(
        scores,
        trained.decision.points,
        subgroups(beton),
        prevalence=config.prevalence,
        resamples=config.resamples,
        seed=config.seed,
        other_NK=other_NK,
        progress=lambda part, parts: progress(f"{name}: intervals", part, parts),
    )
    difference = None
    if measured.difference is not None:
        against = runs[1].run.resolve().name
        difference = Difference(against=against, estimates=measured.difference, cautions=checked[1])
    cautions = set_cautions(beton) + checked[0]
    metrics = Metrics(
        set_name=beton.set_name,
        beton=beton.path.name,
        split=facts.split,
        synthetic=facts.synthetic,
        conversion_id=facts.conversion_id,
        classes=list(trained.classes),
        positive=trained.state["positive"],
        num_samples=len(beton),
        num_groups=scores.num_groups,
        prevalence=float((label_N == scores.positive).mean()),
        stated_prevalence=config.prevalence,
        temperature=trained.decision.temperature,
        confusion=scores.confusion,
        estimates=measured.estimates,
        trivial=measured.trivial,
        operating_points=measured.operating_points,
        subgroups=measured.subgroups,
        difference=difference,
        resamples=config.resamples,
        seed=config.seed,
        cautions=cautions + group_cautions(scores.num_groups) + class_cautions(trained.classes, label_N),
        checkpoint=trained.checkpoint,
        device=policy.describe(),
    )
    pictures = figures(scores, measured, name, "synthetic phantoms" if facts.synthetic else "radiographs")
    out.mkdir(parents=True, exist_ok=True)
    for file in FIGURES:
        if file not in pictures:
            (out / file).unlink(missing_ok=True)  # of an earlier evaluation
    for file, picture in pictures.items():
        publish_bytes(out / file, png(picture))
    publish_rows(out / "scores.csv", score_rows(scores))
    own = facts.conversion_id == trained.state["conversion_id"]  # whose data flow the run keeps
    if not own and (flow := dataflow_beside(beton)):
        write_record(out / DATAFLOW, flow)
    write_record(out / METRICS, metrics)
    return Evaluation(metrics=metrics, out=out, figures=tuple(pictures))
