"""Judging: from decoded files to what an audit says of each and of them all."""

# N files

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import cv2
import numpy as np

from loaders import __version__
from loaders.audit.collection import Collection, probe_collection
from loaders.audit.findings import AuditResult, CollectionFinding, FileFinding, Removal
from loaders.audit.intervals import wilson
from loaders.audit.kind import KINDS
from loaders.audit.near_duplicates import find_pairs
from loaders.audit.verdicts import Judged, judge, limit_of
from loaders.config import AuditLimits
from loaders.entry import Entry
from loaders.spool import Decoded

Progress = Callable[[str, int, int], None]


def judge_files(
    entries: Sequence[Entry], decoded: Sequence[Decoded], limits: AuditLimits, progress: Progress
) -> list[Judged]:
    """Compare all files with one another and settle what becomes of each."""
    judged = [
        Judged(
            path=entry.path,
            label=entry.label,
            patient=entry.patient or seen.patient,
            problem=seen.problem,
            pixel_hash=seen.pixel_hash,
            pixels=seen.width * seen.height,
            lossy=seen.format == "JPEG",
            measurement=seen.measurement,
        )
        for entry, seen in zip(entries, decoded, strict=True)
    ]
    # exact copies are known by their hashes; one stands for all of them
    standing = {file.pixel_hash: index for index, file in reversed(list(enumerate(judged))) if file.measurement}
    readable = sorted(standing.values())
    measured = [judged[index].measurement for index in readable]
    pairs = find_pairs(
        [one.keypoints for one in measured if one],
        [one.compared_SS for one in measured if one],
        partial(progress, "compare"),
    )
    judge(judged, [pair.among(readable) for pair in pairs], limits)
    return judged


def file_findings(judged: Sequence[Judged], limits: AuditLimits) -> tuple[FileFinding, ...]:
    """What the table and the page tell of each file."""
    return tuple(
        FileFinding(
            path=file.path,
            label=file.label,
            verdict=file.verdict,
            defects=tuple(file.defects),
            scores=dict(file.measurement.scores) if file.measurement else {},
            limits={name: limit_of(limits, name) for name in file.measurement.scores} if file.measurement else {},
            group=file.group,
            fix=file.fix,
            copy_of=file.copy_of,
            pixel_hash=file.pixel_hash,
            note=file.note,
            thumbnail=file.measurement.thumbnail if file.measurement else b"",
        )
        for file in judged
    )


def removals(files: Sequence[FileFinding]) -> tuple[Removal, ...]:
    """How much of each class is quarantined; nothing without labels."""
    found = []
    for label in sorted({file.label for file in files} - {""}):
        own = [file for file in files if file.label == label]
        removed = sum(file.verdict == "quarantine" for file in own)
        low, high = wilson(removed, len(own))
        found.append(Removal(label=label, files=len(own), removed=removed, low=low, high=high))
    return tuple(found)


def conclude(
    source: str, files: tuple[FileFinding, ...], collection: CollectionFinding | None, seconds: float
) -> AuditResult:
    """The whole of an audit."""
    return AuditResult(
        source=source,
        files=files,
        removals=removals(files),
        collection=collection,
        seconds=seconds,
        versions={"plainfilm": __version__, "opencv": cv2.__version__, "numpy": np.__version__},
    )


def probe_files(
    entries: Sequence[Entry],
    decoded: Sequence[Decoded],
    judged: Sequence[Judged],
    seed: int,
    permutations: int,
    progress: Progress,
) -> CollectionFinding | None:
    """Probe the files that are kept or mended, if they have at least two labels."""
    kept = [index for index, file in enumerate(judged) if file.verdict != "quarantine" and file.label]
    classes = tuple(sorted({judged[index].label for index in kept}))
    if len(classes) < 2:
        return None
    measured = [file.measurement for file in (judged[index] for index in kept) if file.measurement]
    assert len(measured) == len(kept)
    seen = [decoded[index] for index in kept]
    return probe_collection(
        Collection(
            frames_NSS=np.array([one.small_SS for one in measured]),
            label_N=np.array([classes.index(judged[index].label) for index in kept]),
            classes=classes,
            group_N=np.array([judged[index].group for index in kept]),
            source_N=tuple(entries[index].source for index in kept),
            header_NF=header_columns(seen),
            view_N=np.array([lateral_odds(one.kind_K) for one in measured]),
        ),
        seed=seed,
        permutations=permutations,
        progress=partial(progress, "probe"),
    )


def header_columns(decoded: Sequence[Decoded]) -> np.ndarray:
    """What a file tells without its pixels: a column for each format; logarithms of width, height, aspect; bits."""
    formats = sorted({seen.format for seen in decoded})
    return np.array(
        [
            [float(seen.format == name) for name in formats]
            + [np.log(seen.width), np.log(seen.height), np.log(seen.width / seen.height), seen.bits]
            for seen in decoded
        ],
        np.float64,
    )


def lateral_odds(kind_K: np.ndarray) -> float:
    """Logarithm of the odds that the view is lateral and not frontal."""
    lateral, frontal = (float(kind_K[KINDS.index(kind)]) for kind in ("lateral", "frontal"))
    return math.log((lateral + 1e-6) / (frontal + 1e-6))
