"""Verdicts: from scores and near duplicates to which files are kept, fixed and quarantined."""

# N files

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np

from loaders.audit.collection import Collection, probe_collection
from loaders.audit.findings import DEFECTS, AuditResult, CollectionFinding, FileFinding, Removal
from loaders.audit.near_duplicates import Pair, find_pairs
from loaders.config import AuditLimits, __version__
from loaders.images.decode import Decoded
from loaders.images.kind import KINDS
from loaders.images.quality import DETECTORS, fix_of, limit_of, own_defects
from loaders.output import PhaseProgress
from loaders.sources.entry import Entry
from loaders.sources.split import group_by, known_patients
from loaders.statistics import wilson

NAMED = 3  # copies that a note lists
EQUALISED = 0.06  # evenness below which the histogram has been equalised


def judge(files: list[FileFinding], pairs: Sequence[Pair], limits: AuditLimits) -> None:
    """Decide defects, fixes and groups of all files, in place.  pairs: indices into files.

    Of several copies of a film the best is kept: one not quarantined for its own defects, not equalised, with fewest
    defects, most pixels, no JPEG, and then the first path.  Copies with different labels are all quarantined.
    """
    for file in files:
        if file.decoded.measurement is None:
            file.defects, file.note = ["unreadable"], file.decoded.problem
        else:
            file.defects = own_defects(file.decoded.measurement, limits)
            file.fix = fix_of(file.decoded.measurement, file.defects)
    if not files:
        return
    exact = [file.decoded.pixel_hash or None for file in files]
    near = [(pair.first, pair.second) for pair in pairs if pair.similarity >= limits.limit_near_duplicate]
    family_N = group_by(exact, pairs=near).tolist()
    members: dict[int, list[FileFinding]] = defaultdict(list)
    for file, family in zip(files, family_N, strict=True):
        members[family].append(file)
    for copies in members.values():
        if len(copies) > 1:
            choose_copy(copies)
    patients, _ = known_patients([file.patient for file in files])
    groups = group_by(family_N, [patient.casefold() or None for patient in patients])
    for file, group in zip(files, groups.tolist(), strict=True):
        file.group = group
        file.defects.sort(key=list(DEFECTS).index)


def choose_copy(copies: list[FileFinding]) -> None:
    """Keep the best of several copies, or none where labels differ."""

    def rank(file: FileFinding) -> tuple[bool, bool, int, int, bool, str]:
        equalised = file.decoded.measurement is not None and file.decoded.measurement.evenness < EQUALISED
        pixels, lossy = file.decoded.width * file.decoded.height, file.decoded.format == "JPEG"
        return file.verdict == "quarantine", equalised, len(file.defects), -pixels, lossy, file.path

    ranked = sorted(copies, key=rank)
    best = ranked[0]
    if len({file.label for file in copies}) > 1:
        listed = ", ".join(f"{file.path} ({file.label})" for file in copies[:NAMED])
        listed += f" and {len(copies) - NAMED} more" if len(copies) > NAMED else ""
        for file in copies:
            file.defects.append("label-conflict")
            file.note = f"one film with different labels: {listed}"
    for file in ranked[1:]:
        same = file.decoded.pixel_hash == best.decoded.pixel_hash
        file.defects.append("exact-duplicate" if same else "near-duplicate")
        file.copy_of = best.path
        file.note = file.note or f"{'same pixels as' if same else 'copy of'} {best.path}"


def judge_files(
    entries: Sequence[Entry], decoded: Sequence[Decoded], limits: AuditLimits, progress: PhaseProgress
) -> list[FileFinding]:
    """Compare all files with one another, and judge each."""
    files = [FileFinding(entry=entry, decoded=found) for entry, found in zip(entries, decoded, strict=True)]
    # exact copies have one hash; the first of them is compared for all
    first_of = {found.pixel_hash: index for index, found in reversed(list(enumerate(decoded))) if found.measurement}
    readable = sorted(first_of.values())
    measured = [one for index in readable if (one := decoded[index].measurement)]
    pairs = find_pairs(
        [one.keypoints for one in measured], [one.compared_SS for one in measured], partial(progress, "compare")
    )
    judge(files, [Pair(readable[pair.first], readable[pair.second], pair.similarity) for pair in pairs], limits)
    return files


def conclude(
    source: str, files: list[FileFinding], limits: AuditLimits, collection: CollectionFinding | None, seconds: float
) -> AuditResult:
    """The whole of an audit, with the share of each class that is quarantined."""
    removals = []
    for label in sorted({file.label for file in files} - {""}):
        own = [file for file in files if file.label == label]
        removed = sum(file.verdict == "quarantine" for file in own)
        low, high = wilson(removed, len(own))
        removals.append(Removal(label=label, files=len(own), removed=removed, low=low, high=high))
    return AuditResult(
        source=source,
        files=files,
        limits={detector: limit_of(limits, detector) for detector in DETECTORS},
        removals=removals,
        collection=collection,
        seconds=seconds,
        versions={"plainfilm": __version__, "opencv": cv2.__version__, "numpy": np.__version__},
    )


def probe_files(
    files: Sequence[FileFinding], seed: int, permutations: int, progress: PhaseProgress
) -> CollectionFinding | None:
    """Probe the files that are kept or fixed, if they have at least two labels."""
    kept = [file for file in files if file.verdict != "quarantine" and file.label]
    classes = tuple(sorted({file.label for file in kept}))
    if len(classes) < 2:
        return None
    measured = [file.decoded.measurement for file in kept if file.decoded.measurement]
    assert len(measured) == len(kept)
    return probe_collection(
        Collection(
            frames_NSS=np.array([one.small_SS for one in measured]),
            label_N=np.array([classes.index(file.label) for file in kept]),
            classes=classes,
            group_N=np.array([file.group for file in kept]),
            source_N=tuple(file.entry.source for file in kept),
            header_NF=header_columns([file.decoded for file in kept]),
            view_N=np.array([lateral_odds(one.kind_K) for one in measured]),
        ),
        seed=seed,
        permutations=permutations,
        progress=partial(progress, "probe"),
    )


def header_columns(decoded: Sequence[Decoded]) -> np.ndarray:
    """Features of a file without its pixels: a column for each format; logarithms of width, height, aspect; bits."""
    formats = sorted({found.format for found in decoded})
    format_NF = np.array([[found.format == name for name in formats] for found in decoded])
    width_N, height_N, bits_N = np.array([(found.width, found.height, found.bits) for found in decoded], np.float64).T
    return np.column_stack([format_NF, np.log(width_N), np.log(height_N), np.log(width_N / height_N), bits_N])


def lateral_odds(kind_K: np.ndarray) -> float:
    """Logarithm of the odds that the view is lateral and not frontal."""
    lateral, frontal = (float(kind_K[KINDS.index(kind)]) for kind in ("lateral", "frontal"))
    return math.log((lateral + 1e-6) / (frontal + 1e-6))
