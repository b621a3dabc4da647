"""The audit of a collection: whether anything but the finding, such as the source, predicts the label."""

# N samples, S side of the frame, F features, H W rows and columns

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from loaders.audit.findings import CollectionFinding, ProbeFinding
from loaders.audit.probes import COLLECTION_PROBE, LABEL_PROBES, SOURCE_PROBE, Probe
from loaders.cautions import Caution, caution
from loaders.sources.confounding import source_cautions
from loaders.statistics import (
    Progress,
    bootstrap_aucs,
    deal_groups,
    fit_folds,
    holm,
    labelling_aucs,
    no_progress,
    percentile_interval,
    permutation_p,
    permute_groups,
)

MIN_GROUPS = 10  # of a class or a source, for a probe to learn it
ALPHA = 0.05  # of the whole family of probes
MISSING = {"header": "no-headers", "view": "no-predicted-views"}  # probe → why it has no input


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """Labelled radiographs as the probes take them, from source files or from a beton.

    frames_NSS: uint8, the whole stored frame; S = 92, of which the central 64 are the crop.  label_N: int64, counted
    from 0, or -1 of findings.  group_N: int64; images of one patient, or duplicates of one another, share a number.
    source_N: from the catalog or the beton.  header_NF: float64: format, one column each; logarithms of width, height
    and aspect; bits; None for a beton.  view_N: float64, log odds of a lateral view, as predicted; None without a
    prediction.  finding_NK: float32, of findings, of which classes has the names: 1 present, 0 absent, NaN unknown;
    None of classes.
    """

    frames_NSS: np.ndarray
    label_N: np.ndarray
    classes: tuple[str, ...]
    group_N: np.ndarray
    source_N: tuple[str, ...]
    header_NF: np.ndarray | None = None
    view_N: np.ndarray | None = None
    finding_NK: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeTask:
    """One probe to run.  rows_N: the samples that take part, int64.  input_N: what its features are made from.

    target_N: int64, counted from 0; one for each sample that takes part.  within: the class whose sources are the
    target; "" where the classes are.
    """

    probe: Probe
    rows_N: np.ndarray
    input_N: np.ndarray
    target_N: np.ndarray
    within: str = ""


def probe_collection(
    collection: Collection,
    *,
    seed: int = 0,
    permutations: int = 1999,
    resamples: int = 2000,
    progress: Progress = no_progress,
) -> CollectionFinding:
    """Find whether each probe predicts the class, and how well the source alone gives it.

    A probe's AUC is cross-validated by groups; its interval resamples groups, with the classifiers unchanged; its p
    permutes the labels of whole groups.  A pure function of the collection and the seed.
    permutations: at least 999, lest Holm's correction over a dozen probes leave no p below 5 %.
    progress(done, total) is called after each probe.
    """
    skipped: dict[str, Caution] = {}
    tasks = [*class_tasks(collection, skipped), *source_tasks(collection, skipped)]
    probes = run_probes(collection, tasks, seed, permutations, resamples, progress)
    labels = [collection.classes[label] for label in collection.label_N.tolist()]
    cautions = source_cautions(labels, collection.source_N, collection.group_N)
    return CollectionFinding(probes=probes, cautions=cautions, skipped=skipped)


def probe_sources(
    collection: Collection,
    *,
    seed: int = 0,
    permutations: int = 999,
    resamples: int = 2000,
    progress: Progress = no_progress,
) -> list[ProbeFinding]:
    """How well thumbnails tell apart, within each class, the collections that its films are of.

    collection: several as one; source_N has their names.  A class of which fewer than two collections have enough
    groups is left out.  Otherwise as `probe_collection`.
    """
    tasks = list(source_tasks(collection, {}, COLLECTION_PROBE))
    return run_probes(collection, tasks, seed, permutations, resamples, progress)


def run_probes(
    collection: Collection,
    tasks: Sequence[ProbeTask],
    seed: int,
    permutations: int,
    resamples: int,
    progress: Progress,
) -> list[ProbeFinding]:
    """The findings of all tasks, one family for Holm's correction."""
    measured = []
    for done, task in enumerate(tasks, 1):
        measured.append(measure(task, collection.group_N, seed, permutations, resamples))
        progress(done, len(tasks))
    adjusted = holm([permutation_p(auc_R) for auc_R, _ in measured])
    frame_SS = typical_frame(collection.frames_NSS)
    return [
        describe(task, *numbers, p_holm, frame_SS)
        for task, numbers, p_holm in zip(tasks, measured, adjusted, strict=True)
    ]


def class_tasks(collection: Collection, skipped: dict[str, Caution]) -> Iterator[ProbeTask]:
    """The probes of the class, among classes with enough groups; fills skipped with the others and why."""
    rows_N, target_N, kept = learnable(collection.label_N, collection.group_N)
    for label, name in enumerate(collection.classes):
        if label not in kept:
            groups = len(np.unique(collection.group_N[collection.label_N == label]))
            skipped[f"class {name}"] = caution("few-patients-of-class", groups=groups, least=MIN_GROUPS)
    for probe in LABEL_PROBES:
        input_N = input_of(collection, probe)
        if len(kept) < 2:
            skipped[probe.name] = caution("few-classes-to-probe", least=MIN_GROUPS)
        elif input_N is None:
            skipped[probe.name] = caution(MISSING[probe.name])
        else:
            yield ProbeTask(probe=probe, rows_N=rows_N, input_N=input_N, target_N=target_N)


def input_of(collection: Collection, probe: Probe) -> np.ndarray | None:
    """What a probe of the label makes its features from; None where the collection has none."""
    inputs = {"header": collection.header_NF, "view": collection.view_N}
    return inputs.get(probe.name, collection.frames_NSS)


def source_tasks(
    collection: Collection, skipped: dict[str, Caution], probe: Probe = SOURCE_PROBE
) -> Iterator[ProbeTask]:
    """The probes of the source, one for each class; fills skipped with the classes that have too few."""
    _, source_N = np.unique(np.asarray(collection.source_N, object).astype(str), return_inverse=True)
    for label, name in enumerate(collection.classes):
        class_N = np.flatnonzero(collection.label_N == label)
        inside_N, target_N, kept = learnable(source_N[class_N], collection.group_N[class_N])
        if len(kept) < 2:
            skipped[probe.name + name] = caution("few-sources-to-probe", least=MIN_GROUPS)
        else:
            rows_N, frames_NSS = class_N[inside_N], collection.frames_NSS
            yield ProbeTask(probe=probe, rows_N=rows_N, input_N=frames_NSS, target_N=target_N, within=name)


def learnable(target_N: np.ndarray, group_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The samples whose target has enough groups, their targets counted from 0, and those targets."""
    found = np.unique(target_N).tolist()
    kept = [target for target in found if len(np.unique(group_N[target_N == target])) >= MIN_GROUPS]
    rows_N = np.flatnonzero(np.isin(target_N, kept))
    return rows_N, np.searchsorted(kept, target_N[rows_N]), kept


def measure(
    task: ProbeTask, group_N: np.ndarray, seed: int, permutations: int, resamples: int
) -> tuple[np.ndarray, tuple[float, float]]:
    """Run one probe: the AUC of each labelling, the real one first, and the interval of the real one.

    group_N: of the whole collection.
    """
    _, own_group_N = np.unique(group_N[task.rows_N], return_inverse=True)
    num_targets = int(task.target_N.max()) + 1
    models = fit_folds(
        task.probe.features(task.input_N[task.rows_N]), deal_groups(own_group_N, seed), task.probe.standardise
    )
    label_RN = permute_groups(task.target_N, own_group_N, permutations, seed)
    auc_R = labelling_aucs(models, label_RN, num_targets)
    resampled_R = bootstrap_aucs(models, task.target_N, own_group_N, num_targets, resamples, seed)
    return auc_R, percentile_interval(resampled_R)


def describe(
    task: ProbeTask, auc_R: np.ndarray, interval: tuple[float, float], p_holm: float, frame_SS: np.ndarray
) -> ProbeFinding:
    """The finding, with its picture."""
    low, high = interval
    numbers = {
        "auc": auc_R[0], "low": low, "high": high, "null_high": np.nanquantile(auc_R[1:], 0.95),
        "p": permutation_p(auc_R), "p_holm": p_holm,
    }  # fmt: skip
    picture = task.probe.picture
    return ProbeFinding(
        name=task.probe.name + task.within,
        **{name: float(value) if np.isfinite(value) else None for name, value in numbers.items()},
        alarm=bool(p_holm <= ALPHA),
        picture=cv2.imencode(".png", picture(frame_SS))[1].tobytes() if picture else None,
    )


def typical_frame(frames_NSS: np.ndarray) -> np.ndarray:
    """The frame closest to the mean of all frames: uint8 S×S."""
    mean_SS = frames_NSS.mean(0, dtype=np.float32)
    distance_N = [float(np.square(frame_SS - mean_SS).sum()) for frame_SS in frames_NSS]
    return frames_NSS[int(np.argmin(distance_N))]
