"""Verdicts: from scores and near duplicates to which files are kept, fixed and quarantined."""

# N files

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial

import cv2
import numpy as np

from loaders.audit.by_finding import probe_findings
from loaders.audit.collection import Collection, masks_of, probe_collection
from loaders.audit.findings import DEFECTS, AuditResult, CollectionFinding, FileFinding, FindingsAudit
from loaders.audit.near_duplicates import Pair, find_pairs
from loaders.audit.removals import removal
from loaders.config import AuditLimits, __version__
from loaders.images.decode import Decoded
from loaders.images.kind import KINDS
from loaders.images.lungs import Lungs, shipped_segmenter
from loaders.images.quality import DETECTORS, Measurement, fix_of, limit_of, own_defects
from loaders.output import PhaseProgress
from loaders.sources.entry import ABSENT, PRESENT, UNKNOWN, Entry
from loaders.sources.split import group_by, known_patients
from loaders.statistics import Progress

NAMED = 3  # copies that a note lists
EQUALISED = 0.06  # evenness below which the histogram has been equalised


def judge(files: list[FileFinding], pairs: Sequence[Pair], limits: AuditLimits, findings: Sequence[str] = ()) -> None:
    """Decide defects, fixes and groups of all files, in place.  pairs: indices into files.  findings: names, if any.

    Of several copies of a film the best is kept: one not quarantined for its own defects, of which most findings are
    known, not equalised, with fewest defects, most pixels, no JPEG, and then the first path.  Copies with different
    labels, or of which one has a finding and another has it not, are all quarantined.
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
            choose_copy(copies, findings)
    patients, _ = known_patients([file.patient for file in files])
    groups = group_by(family_N, [patient.casefold() or None for patient in patients])
    for file, group in zip(files, groups.tolist(), strict=True):
        file.group = group
        file.defects.sort(key=list(DEFECTS).index)


def choose_copy(copies: list[FileFinding], findings: Sequence[str]) -> None:
    """Keep the best of several copies, or none where labels differ, or values of a finding that are known."""

    def rank(file: FileFinding) -> tuple[bool, bool, int, int, bool, int, str]:
        equalised = file.decoded.measurement is not None and file.decoded.measurement.evenness < EQUALISED
        pixels, lossy = file.decoded.width * file.decoded.height, file.decoded.format == "JPEG"
        known = len(file.entry.findings) - file.entry.findings.count(UNKNOWN)
        return file.verdict == "quarantine", equalised, len(file.defects), -pixels, lossy, -known, file.path

    ranked = sorted(copies, key=rank)
    best = ranked[0]
    values = zip(findings, *(file.entry.findings for file in copies), strict=True) if findings else ()
    differing = [name for name, *value_of in values if {ABSENT, PRESENT} <= set(value_of)]
    if differing or len({file.label for file in copies}) > 1:
        of_what = [f"{file.path} ({file.label})" if file.label else file.path for file in copies[:NAMED]]
        listed = f"{' and '.join(differing)}: {', '.join(of_what)}" if differing else ", ".join(of_what)
        listed += f" and {len(copies) - NAMED} more" if len(copies) > NAMED else ""
        for file in copies:
            file.defects.append("label-conflict")
            file.note = f"one film with different labels{' of ' if differing else ': '}{listed}"
    for file in ranked[1:]:
        same = file.decoded.pixel_hash == best.decoded.pixel_hash
        file.defects.append("exact-duplicate" if same else "near-duplicate")
        file.copy_of = best.path
        file.note = file.note or f"{'same pixels as' if same else 'copy of'} {best.path}"


def judge_files(
    entries: Sequence[Entry],
    decoded: Sequence[Decoded],
    limits: AuditLimits,
    progress: PhaseProgress,
    findings: Sequence[str] = (),
) -> list[FileFinding]:
    """Compare all files with one another, and judge each.  findings: the names, where those are the labels."""
    files = [FileFinding(entry=entry, decoded=found) for entry, found in zip(entries, decoded, strict=True)]
    # exact copies have one hash; the first of them is compared for all
    first_of = {found.pixel_hash: index for index, found in reversed(list(enumerate(decoded))) if found.measurement}
    readable = sorted(first_of.values())
    measured = [one for index in readable if (one := decoded[index].measurement)]
    pairs = find_pairs(
        [one.keypoints for one in measured], [one.compared_SS for one in measured], partial(progress, "compare")
    )
    of_files = [Pair(readable[pair.first], readable[pair.second], pair.similarity) for pair in pairs]
    judge(files, of_files, limits, findings)
    return files


def conclude(
    source: str,
    files: list[FileFinding],
    limits: AuditLimits,
    collection: CollectionFinding | FindingsAudit | None,
    seconds: float,
) -> AuditResult:
    """The whole of an audit, with the share that is quarantined of each class, or of the films with each finding."""
    labelled = defaultdict[str, list[FileFinding]](list)
    for file in files:
        if isinstance(collection, FindingsAudit):
            for name, value in zip(collection.findings, file.entry.findings, strict=True):
                labelled[name if value == PRESENT else ""].append(file)
        else:
            labelled[file.label].append(file)
    return AuditResult(
        source=source,
        files=files,
        limits={detector: limit_of(limits, detector) for detector in DETECTORS},
        removals=[
            removal(label, np.array([file.verdict == "quarantine" for file in own]))
            for label, own in sorted(labelled.items())
            if label
        ],
        collection=collection,
        seconds=seconds,
        versions={"plainfilm": __version__, "opencv": cv2.__version__, "numpy": np.__version__},
    )


def probe_files(
    files: Sequence[FileFinding], seed: int, permutations: int, progress: PhaseProgress, findings: Sequence[str] = ()
) -> CollectionFinding | FindingsAudit | None:
    """Probe the files that are kept or fixed, if they have at least two labels, or findings, of which these are names.

    None for nothing to probe.
    """
    kept = [file for file in files if file.verdict != "quarantine" and (file.label or file.entry.findings)]
    classes = tuple(findings or sorted({file.label for file in kept}))
    if not kept or (not findings and len(classes) < 2):
        return None
    measured = [file.decoded.measurement for file in kept if file.decoded.measurement]
    assert len(measured) == len(kept)
    groups = np.array([file.group for file in kept])
    masks_NSS = lungs_of(kept, measured, groups, partial(progress, "lungs"))
    value_of = np.array([0, 1, np.nan], np.float32)  # by ABSENT, PRESENT, UNKNOWN
    probe = probe_findings if findings else probe_collection
    return probe(
        Collection(
            frames_NSS=np.array([one.small_SS for one in measured]),
            label_N=np.array([-1 if findings else classes.index(file.label) for file in kept]),
            finding_NK=value_of[np.array([list(file.entry.findings) for file in kept])] if findings else None,
            classes=classes,
            group_N=groups,
            source_N=tuple(file.entry.source for file in kept),
            header_NF=header_columns([file.decoded for file in kept]),
            view_N=np.array([lateral_odds(one.kind_K) for one in measured]),
            masks_NSS=masks_NSS,
        ),
        seed=seed,
        permutations=permutations,
        progress=partial(progress, "probe"),
    )


def lungs_of(
    files: Sequence[FileFinding], measured: Sequence[Measurement], group_N: np.ndarray, progress: Progress
) -> np.ndarray:
    """The credible masks of the lungs, bool N×S×S, of films as conversion repairs them, by the segmenter's nets_for.

    Those of the audit of each file are used where they are of the same nets, and the film is upright.
    """
    segmenter = shipped_segmenter()
    nets_N2 = segmenter.nets_for([file.decoded.pixel_hash for file in files], [b""] * len(files), group_N)

    def found() -> Iterator[Lungs | None]:
        for file, one, nets in zip(files, measured, nets_N2.tolist(), strict=True):
            if nets[0] < 0:
                yield None
            elif nets == [0, 0] and "rotated" not in file.defects:
                yield one.lungs
            else:
                turns = one.turns if "rotated" in file.defects else 0
                yield segmenter.find(np.ascontiguousarray(np.rot90(one.compared_SS, -turns)), nets)

    return masks_of(found(), len(files), progress)


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
