"""Verdicts: from scores and near duplicates to which files are kept, fixed and quarantined."""

# N files

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

from loaders.audit.collection import Collection, probe_collection
from loaders.audit.findings import DEFECTS, FIXED, AuditResult, CollectionFinding, FileFinding, Removal
from loaders.audit.near_duplicates import Pair, find_pairs
from loaders.config import AuditLimits, __version__
from loaders.images.decode import Decoded
from loaders.images.kind import KINDS
from loaders.images.quality import Measurement, fix_of, limit_of, own_defects
from loaders.output import PhaseProgress
from loaders.sources.entry import Entry
from loaders.sources.split import group_by
from loaders.statistics import wilson

NAMED = 3  # copies that a note lists
EQUALISED = 0.06  # evenness below which the histogram has been equalised


@dataclass(kw_only=True, slots=True)
class Judged:
    """One file on its way to a verdict.  defects: at the end in the order of DEFECTS.

    copy_of: the path of the copy that is kept, if this one is not; else "".
    """

    entry: Entry
    decoded: Decoded
    defects: list[str] = field(default_factory=list)
    fix: str = ""
    note: str = ""
    copy_of: str = ""
    group: int = -1

    @property
    def verdict(self) -> str:
        """keep, fix or quarantine."""
        if set(self.defects) - set(FIXED):
            return "quarantine"
        return "fix" if self.fix else "keep"

    @property
    def measurement(self) -> Measurement | None:
        """None for a file that could not be read."""
        return self.decoded.measurement


def judge(files: list[Judged], pairs: Sequence[Pair], limits: AuditLimits) -> None:
    """Decide defects, fixes and groups of all files, in place.  pairs: indices into files.

    Of several copies of a film the best is kept: one not quarantined for its own defects, not equalised, with fewest
    defects, most pixels, no JPEG, and then the first path.  Copies with different labels are all quarantined.
    """
    for file in files:
        if file.measurement is None:
            file.defects, file.note = ["unreadable"], file.decoded.problem
        else:
            file.defects = own_defects(file.measurement, limits)
            file.fix = fix_of(file.measurement, file.defects)
    if not files:
        return
    exact = [file.decoded.pixel_hash or None for file in files]
    near = [(pair.first, pair.second) for pair in pairs if pair.similarity >= limits.limit_near_duplicate]
    family_N = group_by(exact, pairs=near).tolist()
    members: dict[int, list[Judged]] = defaultdict(list)
    for file, family in zip(files, family_N, strict=True):
        members[family].append(file)
    for copies in members.values():
        if len(copies) > 1:
            choose_copy(copies)
    groups = group_by(family_N, [file.entry.patient or file.decoded.patient or None for file in files])
    for file, group in zip(files, groups.tolist(), strict=True):
        file.group = group
        file.defects.sort(key=list(DEFECTS).index)


def choose_copy(copies: list[Judged]) -> None:
    """Keep the best of several copies, or none where labels differ."""

    def rank(file: Judged) -> tuple[bool, bool, int, int, bool, str]:
        equalised = file.measurement is not None and file.measurement.evenness < EQUALISED
        pixels, lossy = file.decoded.width * file.decoded.height, file.decoded.format == "JPEG"
        return file.verdict == "quarantine", equalised, len(file.defects), -pixels, lossy, file.entry.path

    ranked = sorted(copies, key=rank)
    best = ranked[0]
    if len({file.entry.label for file in copies}) > 1:
        listed = ", ".join(f"{file.entry.path} ({file.entry.label})" for file in copies[:NAMED])
        listed += f" and {len(copies) - NAMED} more" if len(copies) > NAMED else ""
        for file in copies:
            file.defects.append("label-conflict")
            file.note = f"one film with different labels: {listed}"
    for file in ranked[1:]:
        same = file.decoded.pixel_hash == best.decoded.pixel_hash
        file.defects.append("exact-duplicate" if same else "near-duplicate")
        file.copy_of = best.entry.path
        file.note = file.note or f"{'same pixels as' if same else 'copy of'} {best.entry.path}"


def judge_files(
    entries: Sequence[Entry], decoded: Sequence[Decoded], limits: AuditLimits, progress: PhaseProgress
) -> list[Judged]:
    """Compare all files with one another, and judge each."""
    judged = [Judged(entry=entry, decoded=found) for entry, found in zip(entries, decoded, strict=True)]
    # exact copies have one hash; the first of them is compared for all
    first_of = {file.decoded.pixel_hash: index for index, file in reversed(list(enumerate(judged))) if file.measurement}
    readable = sorted(first_of.values())
    measured = [judged[index].measurement for index in readable]
    pairs = find_pairs(
        [one.keypoints for one in measured if one],
        [one.compared_SS for one in measured if one],
        partial(progress, "compare"),
    )
    judge(judged, [Pair(readable[pair.first], readable[pair.second], pair.similarity) for pair in pairs], limits)
    return judged


def file_findings(judged: Sequence[Judged], limits: AuditLimits) -> tuple[FileFinding, ...]:
    """The findings of each file, for the table and the page."""
    return tuple(
        FileFinding(
            path=file.entry.path,
            label=file.entry.label,
            verdict=file.verdict,
            defects=tuple(file.defects),
            scores=dict(file.measurement.scores) if file.measurement else {},
            limits={name: limit_of(limits, name) for name in file.measurement.scores} if file.measurement else {},
            group=file.group,
            fix=file.fix,
            copy_of=file.copy_of,
            pixel_hash=file.decoded.pixel_hash,
            note=file.note,
            thumbnail=file.measurement.thumbnail if file.measurement else b"",
        )
        for file in judged
    )


def removals(files: Sequence[FileFinding]) -> tuple[Removal, ...]:
    """The share of each class that is quarantined; nothing without labels."""
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
    judged: Sequence[Judged], seed: int, permutations: int, progress: PhaseProgress
) -> CollectionFinding | None:
    """Probe the files that are kept or fixed, if they have at least two labels."""
    kept = [file for file in judged if file.verdict != "quarantine" and file.entry.label]
    classes = tuple(sorted({file.entry.label for file in kept}))
    if len(classes) < 2:
        return None
    measured = [file.measurement for file in kept if file.measurement]
    assert len(measured) == len(kept)
    return probe_collection(
        Collection(
            frames_NSS=np.array([one.small_SS for one in measured]),
            label_N=np.array([classes.index(file.entry.label) for file in kept]),
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
    return np.array(
        [
            [float(found.format == name) for name in formats]
            + [np.log(found.width), np.log(found.height), np.log(found.width / found.height), found.bits]
            for found in decoded
        ],
        np.float64,
    )


def lateral_odds(kind_K: np.ndarray) -> float:
    """Logarithm of the odds that the view is lateral and not frontal."""
    lateral, frontal = (float(kind_K[KINDS.index(kind)]) for kind in ("lateral", "frontal"))
    return math.log((lateral + 1e-6) / (frontal + 1e-6))
