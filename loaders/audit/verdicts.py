"""Verdicts: from scores and pairs of files to what is kept, mended and quarantined."""

# N files

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

from loaders import __version__
from loaders.audit.collection import Collection, probe_collection
from loaders.audit.findings import DEFECTS, FIXED, AuditResult, CollectionFinding, FileFinding, Removal
from loaders.audit.near_duplicates import Pair, find_pairs
from loaders.config import AuditLimits
from loaders.images.decode import Decoded
from loaders.images.kind import KINDS
from loaders.images.quality import Measurement, fix_of, limit_of, own_defects
from loaders.sources.entry import Entry
from loaders.sources.split import group_by
from loaders.statistics import wilson

NAMED = 3  # copies that a note names
EQUALISED = 0.06  # evenness below which grey levels are no longer the film's


@dataclass(kw_only=True, slots=True)
class Judged:
    """One file on its way to a verdict.  defects: in the order of DEFECTS once settled."""

    path: str
    label: str
    patient: str
    problem: str
    """Why it could not be read, or ""."""
    pixel_hash: bytes
    pixels: int
    lossy: bool
    """Its format may have lost detail: JPEG."""
    measurement: Measurement | None
    defects: list[str] = field(default_factory=list)
    fix: str = ""
    note: str = ""
    copy_of: str = ""
    """The path of the copy that stays, for those that do not."""
    group: int = -1

    @property
    def verdict(self) -> str:
        """keep, fix or quarantine."""
        if set(self.defects) - set(FIXED):
            return "quarantine"
        return "fix" if self.fix else "keep"


def judge(files: list[Judged], pairs: Sequence[Pair], limits: AuditLimits) -> None:
    """Settle defects, fixes and groups of all files, in place.  pairs: indices into files.

    Of each family of copies the best stays: one that is not quarantined for itself, not equalised, with fewest defects,
    most pixels, no JPEG, and then the first path.
    Where a family carries different labels, none does.
    """
    for file in files:
        if file.measurement is None:
            file.defects, file.note = ["unreadable"], file.problem
        else:
            file.defects = own_defects(file.measurement, limits)
            file.fix = fix_of(file.measurement, file.defects)
    if not files:
        return
    exact = [file.pixel_hash or None for file in files]
    near = [(pair.first, pair.second) for pair in pairs if pair.similarity >= limits.limit_near_duplicate]
    family_N = group_by(exact, pairs=near).tolist()
    members: dict[int, list[Judged]] = defaultdict(list)
    for file, family in zip(files, family_N, strict=True):
        members[family].append(file)
    for copies in members.values():
        if len(copies) > 1:
            settle_family(copies)
    groups = group_by(family_N, [file.patient or None for file in files])
    for file, group in zip(files, groups.tolist(), strict=True):
        file.group = group
        file.defects.sort(key=list(DEFECTS).index)


def settle_family(copies: list[Judged]) -> None:
    """Keep the best copy, or none where labels differ."""

    def rank(file: Judged) -> tuple[bool, bool, int, int, bool, str]:
        equalised = file.measurement is not None and file.measurement.evenness < EQUALISED
        return file.verdict == "quarantine", equalised, len(file.defects), -file.pixels, file.lossy, file.path

    ranked = sorted(copies, key=rank)
    best = ranked[0]
    if len({file.label for file in copies}) > 1:
        said = ", ".join(f"{file.path} ({file.label})" for file in copies[:NAMED])
        said += f" and {len(copies) - NAMED} more" if len(copies) > NAMED else ""
        for file in copies:
            file.defects.append("label-conflict")
            file.note = f"one film with different labels: {said}"
    for file in ranked[1:]:
        same = file.pixel_hash == best.pixel_hash
        file.defects.append("exact-duplicate" if same else "near-duplicate")
        file.copy_of = best.path
        file.note = file.note or f"{'same pixels as' if same else 'copy of'} {best.path}"


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
