"""The audit of a collection: whether anything but the finding, such as the source, predicts the label."""

# N samples, S side of the frame, F features, H W rows and columns

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from loaders.audit.findings import CollectionFinding, ProbeFinding
from loaders.audit.probes import COLLECTION_PROBE, LABEL_PROBES, LUNG_PROBES, SHOWN, SOURCE_PROBE, VIEW_PROBE, Probe
from loaders.cautions import Caution, caution
from loaders.images.lungs import Lungs
from loaders.images.quality import SMALL, shrink_lungs
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
MISSING = {  # probe → why it has no input
    "header": "no-headers",
    "view": "no-predicted-views",
    **dict.fromkeys((probe.name for probe in LUNG_PROBES), "no-lung-masks"),
}
OF_WHOLE_FILMS = (*SHOWN, *(probe.name for probe in LUNG_PROBES), VIEW_PROBE.name)  # of more than lies in the lungs


@dataclass(frozen=True, kw_only=True, slots=True)
class Collection:
    """Labelled radiographs as the probes take them, from source files or from a beton.

    frames_NSS: uint8, the whole stored frame; S = 92, of which the central 64 are the crop.  label_N: int64, counted
    from 0, or -1 of findings.  group_N: int64; images of one patient, or duplicates of one another, share a number.
    source_N: from the catalog or the beton.  header_NF: float64: format, one column each; logarithms of width, height
    and aspect; bits; None for a beton.  view_N: float64, log odds of a lateral view, as predicted; None without a
    prediction.  masks_NSS: bool, the lungs, by nets not known to have seen its group; empty where no mask is
    credible; None where they were not looked for.  finding_NK: float32, of findings, of which classes has the names: 1
    present, 0 absent, NaN unknown; None of classes.  lungs_alone: the frames show nothing else.
    """

    frames_NSS: np.ndarray
    label_N: np.ndarray
    classes: tuple[str, ...]
    group_N: np.ndarray
    source_N: tuple[str, ...]
    header_NF: np.ndarray | None = None
    view_N: np.ndarray | None = None
    masks_NSS: np.ndarray | None = None
    finding_NK: np.ndarray | None = None
    lungs_alone: bool = False


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
    pictures = pictures_of(collection)
    return [
        describe(task, *numbers, p_holm, pictures.get(task.probe.name))
        for task, numbers, p_holm in zip(tasks, measured, adjusted, strict=True)
    ]


def class_tasks(collection: Collection, skipped: dict[str, Caution]) -> Iterator[ProbeTask]:
    """The probes of the class, among classes with enough groups; fills skipped with the others and why."""
    _, _, kept = learnable(collection.label_N, collection.group_N)
    for label, name in enumerate(collection.classes):
        if label not in kept:
            groups = len(np.unique(collection.group_N[collection.label_N == label]))
            skipped[f"class {name}"] = caution("few-patients-of-class", groups=groups, least=MIN_GROUPS)
    for probe in LABEL_PROBES:
        given, shown_N = input_of(collection, probe), np.flatnonzero(shown_to(probe, collection))
        inside_N, target_N, kept = learnable(collection.label_N[shown_N], collection.group_N[shown_N])
        if len(kept) < 2:
            skipped[probe.name] = caution("few-classes-to-probe", least=MIN_GROUPS)
        elif isinstance(given, Caution):
            skipped[probe.name] = given
        else:
            yield ProbeTask(probe=probe, rows_N=shown_N[inside_N], input_N=given, target_N=target_N)
    skipped |= without_lungs(collection, np.arange(len(collection.classes)) == collection.label_N[:, None])


def input_of(collection: Collection, probe: Probe) -> np.ndarray | Caution:
    """What a probe of the label makes its features from, or why the collection has nothing for it."""
    if collection.lungs_alone and probe.name in OF_WHOLE_FILMS:
        return caution("frames-of-lungs-alone")
    inputs = {"header": collection.header_NF, "view": collection.view_N}
    given = collection.masks_NSS if probe in LUNG_PROBES else inputs.get(probe.name, collection.frames_NSS)
    return caution(MISSING[probe.name]) if given is None else given


def shown_to(probe: Probe, collection: Collection) -> np.ndarray:
    """Which films take part in a probe of the label, bool N: in those of the lungs, films with a mask."""
    if probe in LUNG_PROBES and collection.masks_NSS is not None:
        return np.asarray(collection.masks_NSS.any((1, 2)))
    return np.ones(len(collection.frames_NSS), bool)


def without_lungs(collection: Collection, own_NK: np.ndarray) -> dict[str, Caution]:
    """How many films the probes of the lungs leave out, if any.  own_NK: bool, the films of each class or finding."""
    out_N = ~shown_to(LUNG_PROBES[0], collection)
    if not out_N.any():
        return {}
    percent = {
        name: round(100 * float(out_N[own_N].mean()), 1)
        for name, own_N in zip(collection.classes, own_NK.T, strict=True)
        if own_N.any()
    }
    probes = [probe.name for probe in LUNG_PROBES]
    films, images = int(out_N.sum()), len(out_N)
    why = caution("lungs-not-found", probes=probes, films=films, images=images, percent=percent)
    return {"films without lungs": why}


def masks_of(found: Iterable[Lungs | None], num_films: int, progress: Progress = no_progress) -> np.ndarray:
    """The credible masks among what a segmenter found, in order, as a collection has them: bool N×S×S."""
    masks_NSS = np.zeros((num_films, SMALL, SMALL), bool)
    for place, lungs in enumerate(found):
        if lungs is not None and not lungs.problem:
            masks_NSS[place] = shrink_lungs(lungs).mask_SS
        progress(place + 1, num_films)
    return masks_NSS


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
    task: ProbeTask, auc_R: np.ndarray, interval: tuple[float, float], p_holm: float, picture: bytes | None
) -> ProbeFinding:
    """The finding.  picture: what the probe is shown, if that is one."""
    low, high = interval
    numbers = {
        "auc": auc_R[0], "low": low, "high": high, "null_high": np.nanquantile(auc_R[1:], 0.95),
        "p": permutation_p(auc_R), "p_holm": p_holm,
    }  # fmt: skip
    return ProbeFinding(
        name=task.probe.name + task.within,
        **{name: float(value) if np.isfinite(value) else None for name, value in numbers.items()},
        alarm=bool(p_holm <= ALPHA),
        picture=picture,
    )


def pictures_of(collection: Collection) -> dict[str, bytes]:
    """Probe of the label or the source → a PNG, a typical frame, or typical lungs, as shown to it."""
    found, frame_SS = dict[str, bytes](), typical_frame(collection.frames_NSS)
    for probe in (*LABEL_PROBES, SOURCE_PROBE):
        if probe.picture is None or isinstance(input_of(collection, probe), Caution):
            continue
        shown_N, input_SS = shown_to(probe, collection), frame_SS
        if collection.masks_NSS is not None and probe in LUNG_PROBES:
            if not shown_N.any():
                continue
            input_SS = typical_frame(collection.masks_NSS[shown_N])
        found[probe.name] = cv2.imencode(".png", probe.picture(input_SS))[1].tobytes()
    return found


def typical_frame(frames_NSS: np.ndarray) -> np.ndarray:
    """The frame, or mask, closest to the mean of all: S×S, of their type."""
    mean_SS = frames_NSS.mean(0, dtype=np.float32)
    distance_N = [float(np.square(frame_SS - mean_SS).sum()) for frame_SS in frames_NSS]
    return frames_NSS[int(np.argmin(distance_N))]
