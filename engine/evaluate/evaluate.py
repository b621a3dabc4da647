"""The evaluation of a run on betons: one forward pass each, its subgroups, and the files of its results."""

# N samples, K classes or findings, W wordings

import contextlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from engine.config import EvaluateConfig
from engine.device import Policy, as_stored, choose_policy, settle_precision
from engine.evaluate.checks import (
    check_beton,
    check_rival,
    class_cautions,
    collection_of,
    group_cautions,
    set_cautions,
)
from engine.evaluate.copies import (
    KnownSet,
    SharedFilm,
    copies_in,
    copy_cautions,
    known_to,
    mostly,
    publish_copies,
    shared_with,
    unsearched,
    without,
)
from engine.evaluate.dataflow import DATAFLOW, DataFlow, dataflow_beside
from engine.evaluate.findings import FIGURES as FINDINGS_FIGURES
from engine.evaluate.findings import FINDINGS, FindingsMetrics, measured_findings
from engine.evaluate.looking import Looking, looking_cautions, measure_looking, scores_by_wording
from engine.evaluate.results import (
    FIGURES,
    METRICS,
    Difference,
    Metrics,
    Scored,
    Scores,
    at_points,
    figures,
    in_subgroups,
    score_rows,
)
from engine.evaluate.trained import Trained, load_trained
from engine.figures import png
from engine.networks.vlm import VlmNetwork
from engine.statistics.estimates import estimates, paired_differences, trivial
from engine.train.checkpoint import groups_of
from loaders.atomic_file import locked, publish_bytes, publish_rows
from loaders.batches.loader import Loader
from loaders.beton.format import AGES, BELOW_STORED_SIDE, PATIENT_KNOWN, SEXES, sexes_and_ages
from loaders.beton.reader import Beton
from loaders.cautions import Caution
from loaders.config import LoaderConfig
from loaders.errors import ConfigError
from loaders.output import PhaseProgress
from loaders.records import write_record
from loaders.statistics import Progress

MOST = 20  # subgroups of a kind; the smallest are pooled beyond
FLAGS = {
    PATIENT_KNOWN: ("patient known", "patient not known"),
    BELOW_STORED_SIDE: ("smaller than the stored frame", "not smaller than the stored frame"),
}


def subgroups(beton: Beton, kept_N: np.ndarray) -> list[tuple[str, str, np.ndarray]]:
    """The subgroups of a beton's samples that are scored, the largest of each kind first: kind, name, and places there.

    A kind in which all samples are alike gives none: it would be the whole set.  Those of an unverified beton are
    not known.
    """
    if not beton.verified:
        return []
    facts, rows_N = beton.facts, beton.rows_N[kept_N]
    found = by_name("source", facts.sources, rows_N["source"]) + by_name("view", facts.views, rows_N["view"])
    if facts.demographics:
        sex_N, age_N = sexes_and_ages(rows_N)
        found += by_name("sex", SEXES, sex_N) + by_name("age", AGES, age_N)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """One evaluation: metrics.json or findings.json, and beside it in `out` scores.csv and the figures by file name."""

    metrics: Metrics | FindingsMetrics
    out: Path
    figures: tuple[str, ...]


def evaluate(config: EvaluateConfig, progress: PhaseProgress = lambda name, done, total: None) -> list[Evaluation]:
    """Evaluate the best checkpoint of a run on betons; write metrics.json, scores.csv and figures for each.

    Of findings, findings.json takes the place of metrics.json.

    Results lie in a folder named after the set that was tested (`Beton.set_name`), so that no set replaces another's.

    Copies of training and validation films are left out, of those of both runs where there are two, unless
    config.keep_copies or config.force.

    Errors: CheckpointError for a run without weights; InputError for a beton of another task or size, one that shares
    images or patients with the training set (unless config.force), or one of copies alone, or for a run to compare with
    that is of another task; ConfigError; BetonError; StorageError.
    """
    if not config.betons:
        raise ConfigError("betons: found none, expected at least one")
    runs = [load_trained(run) for run in (config.run, config.against) if run is not None]
    for rival in runs[1:]:
        check_rival(runs[0], rival)
    if runs[0].task == "findings" and config.prevalence is not None:
        raise ConfigError(
            f"--prevalence: found {config.prevalence:g} for findings, expected none, since each has a prevalence of "
            "its own; leave it out, and compute predictive values from a finding's sensitivity and specificity"
        )
    policy = choose_policy(config.device, "off", "off", 0)
    settle_precision(policy)
    if isinstance(runs[0].network, VlmNetwork):
        policy = as_stored(policy, runs[0].network.backbone.model.dtype)
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
        cautions = [
            [check_beton(run.run, run.state, loader, force=config.force) + run.rule.cautions() for run in runs]
            for loader in loaders
        ]
        known = [known_to(run.run, run.state, stack) for run in runs]
        checked = [
            look_for_copies(config, loader.beton, known, found, partial(progress, f"{name}: copies"))
            for loader, name, found in zip(loaders, names, cautions, strict=True)
        ]
        stack.enter_context(locked(out))
        return [
            evaluate_one(config, runs, policy, loader, found, out / name, progress)
            for loader, name, found in zip(loaders, names, checked, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What was found of a set before it is scored.  cautions, copies: of each run.  kept_N: int64, what is scored."""

    cautions: list[list[Caution]]
    copies: list[list[SharedFilm]]
    kept_N: np.ndarray


def look_for_copies(
    config: EvaluateConfig,
    beton: Beton,
    known: Sequence[Sequence[KnownSet]],
    cautions: Sequence[list[Caution]],
    progress: Progress,
) -> Checked:
    """Find the films of a set that are copies of films that the runs know, and leave them out unless told otherwise.

    known, cautions: of each run.  Errors: InputError where nothing is left.
    """
    copies = [copies_in(shared_with(beton, sets, progress)) for sets in known]
    keep = config.keep_copies or config.force
    code = "copies-kept" if keep else "copies-removed"
    return Checked(
        cautions=[
            [*found, *copy_cautions(code, beton, own), *unsearched(beton, sets)]
            for found, own, sets in zip(cautions, copies, known, strict=True)
        ],
        copies=copies,
        kept_N=without(beton, () if keep else chain(*copies)),
    )


def evaluate_one(
    config: EvaluateConfig,
    runs: Sequence[Trained],
    policy: Policy,
    loader: Loader,
    checked: Checked,
    out: Path,
    progress: PhaseProgress,
) -> Evaluation:
    """One forward pass over one beton, what it amounts to, and its files in `out`, which is named after the set.

    runs: the run, and perhaps the one that it is compared with.
    """
    trained, beton, facts, name = runs[0], loader.beton, loader.beton.facts, out.name
    kept_N, own = checked.kept_N, checked.cautions[0]
    labels, scores = scores_of(runs, policy, loader, partial(progress, name))
    group_N = groups_of(beton)[kept_N]
    num_groups = len(np.unique(group_N))
    looking: tuple[Looking, ...] = ()
    if any(run.is_asked for run in runs):
        looking = tuple(
            measure_looking(
                run, beton, policy, scores_NWK[kept_N], kept_N, labels[kept_N], group_N, resamples=config.resamples,
                seed=config.seed, progress=partial(progress, f"{name}: without lungs"),
            )
            for run, scores_NWK in zip(runs, scores, strict=True)
        )  # fmt: skip
    looks = [looking_cautions(found) for found in looking] or [[] for _ in runs]
    scored = Scored(
        labels=labels[kept_N],
        probabilities=[
            run.rule.probabilities(scores_NWK[kept_N].mean(1)) for run, scores_NWK in zip(runs, scores, strict=True)
        ],
        group_N=group_N,
        sample_N=kept_N,
        subgroups=subgroups(beton, kept_N),
        rival_cautions=checked.cautions[1] + looks[1] if len(runs) > 1 else [],
        cautions=set_cautions(beton, kept_N) + own + group_cautions(num_groups) + looks[0],
        looking=looking,
        common={
            "set_name": beton.set_name,
            "beton": beton.path.name,
            "split": facts.split,
            "synthetic": facts.synthetic,
            "conversion_id": facts.conversion_id,
            "collection": collection_of(
                trained.run, trained.state, beton, own, mostly_copies=mostly(checked.copies[0], beton)
            ),
            "num_samples": len(kept_N),
            "num_groups": num_groups,
            "resamples": config.resamples,
            "seed": config.seed,
            "checkpoint": trained.checkpoint,
            "device": policy.describe(),
        },
    )
    measured: tuple[Metrics | FindingsMetrics, Iterable[list[Any]], dict[str, Figure]]
    if trained.task == "findings":
        measured = measured_findings(config, runs, facts, scored, progress)
    else:
        measured = measured_classes(config, runs, scored, progress)
    metrics, rows, pictures = measured
    # the run keeps the data flow of its own conversion
    flow = None if facts.conversion_id == trained.state["conversion_id"] else dataflow_beside(beton)
    copies = [*checked.copies[0]]
    for rival, found in zip(runs[1:], checked.copies[1:], strict=True):
        copies += [replace(film, of=f"{film.of} of {rival.run.resolve().name}") for film in found]
    write_evaluation(out, metrics, rows, kept_N, pictures, flow, copies)
    return Evaluation(metrics=metrics, out=out, figures=tuple(pictures))


def predictions(
    runs: Sequence[Trained], policy: Policy, loader: Loader, progress: Progress
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The labels of a set, and the probabilities that each run predicts."""
    labels, scores = scores_of(runs, policy, loader, progress)
    return labels, [run.rule.probabilities(each_NWK.mean(1)) for run, each_NWK in zip(runs, scores, strict=True)]


def scores_of(
    runs: Sequence[Trained], policy: Policy, loader: Loader, progress: Progress
) -> tuple[np.ndarray, list[np.ndarray]]:
    """The labels of a set, and the logits of each run, float32 (N, W, K) by wording: see `scores_by_wording`."""
    done, found = 0, []

    def count(samples: int) -> None:
        nonlocal done
        done += samples
        progress(done, len(loader.beton) * len(runs))

    for run in runs:
        labels, scores_NWK = scores_by_wording(run.network, loader, policy, count)
        found.append(scores_NWK)
    return labels, found


def measured_classes(
    config: EvaluateConfig, runs: Sequence[Trained], scored: Scored, progress: PhaseProgress
) -> tuple[Metrics, Iterable[list[Any]], dict[str, Figure]]:
    """The metrics of classes, the rows of scores.csv, and the figures by file name."""
    trained, name, prevalence = runs[0], scored.common["set_name"], config.prevalence
    label_N, classes, positive = scored.labels, trained.classes, trained.classes.index(trained.state["positive"])
    scores = Scores(
        label_N=label_N, probability_NK=scored.probabilities[0], group_N=scored.group_N, classes=classes,
        positive=positive,
    )  # fmt: skip
    samples = (label_N, scores.probability_NK, scores.group_N, positive)
    estimate = partial(estimates, resamples=config.resamples, seed=config.seed)
    difference = None
    if len(runs) > 1:
        apart = paired_differences(
            label_N, scored.probabilities[1], *samples[1:], prevalence=prevalence, resamples=config.resamples,
            seed=config.seed,
        )  # fmt: skip
        against = runs[1].run.resolve().name
        difference = Difference(against=against, estimates=apart, cautions=scored.rival_cautions)
    metrics = Metrics(
        **scored.common,
        classes=list(classes),
        positive=trained.state["positive"],
        prevalence=float((label_N == positive).mean()),
        stated_prevalence=prevalence,
        temperature=trained.decision.temperature,
        bias=() if trained.decision.bias_K is None else tuple(trained.decision.bias_K.tolist()),
        confusion=scores.confusion,
        estimates=estimate(*samples, prevalence=prevalence, progress=partial(progress, f"{name}: intervals")),
        trivial=trivial(label_N, len(classes), positive, prevalence=prevalence),
        operating_points=at_points(
            scores, trained.decision.points, estimate, prevalence, partial(progress, f"{name}: thresholds")
        ),
        subgroups=in_subgroups(scores, scored.subgroups, estimate, partial(progress, f"{name}: subgroups")),
        difference=difference,
        cautions=scored.cautions + class_cautions(classes, label_N),
        looking=scored.looking,
    )
    return metrics, score_rows(scores, scored.sample_N), figures(scores, metrics)


def write_evaluation(
    out: Path,
    metrics: Metrics | FindingsMetrics,
    rows: Iterable[list[Any]],
    kept_N: np.ndarray,
    pictures: dict[str, Figure],
    flow: DataFlow | None,
    copies: Sequence[SharedFilm],
) -> None:
    """The files of an evaluation, its record last.  Those of an earlier one that this one lacks go."""
    out.mkdir(parents=True, exist_ok=True)
    for file in {*FIGURES, *FINDINGS_FIGURES}:
        if file in pictures:
            publish_bytes(out / file, png(pictures[file]))
        else:
            (out / file).unlink(missing_ok=True)
    publish_rows(out / "scores.csv", rows)
    publish_copies(out, copies, set(kept_N))
    if flow:
        write_record(out / DATAFLOW, flow)
    record, other = (METRICS, FINDINGS) if isinstance(metrics, Metrics) else (FINDINGS, METRICS)
    (out / other).unlink(missing_ok=True)
    write_record(out / record, metrics)
