"""Verdicts: from scores and pairs of files to what is kept, mended and quarantined."""

# N files

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from loaders.audit.findings import DEFECTS, FIXED
from loaders.audit.measure import DETECTORS, Measurement
from loaders.audit.near_duplicates import Pair
from loaders.config import AuditLimits
from loaders.split import group_by

NAMED = 3  # copies that a note names
EQUALISED = 0.06  # evenness below which grey levels are no longer the film's
MEANINGLESS = {  # what cannot be said of a picture that is no frontal radiograph
    "not-a-radiograph": ("lateral", "blurred", "exposure", "inverted", "rotated", "misaligned"),
    "lateral": ("inverted", "rotated", "misaligned"),
    "rotated": ("misaligned",),
    "inverted": ("misaligned", "exposure"),
}


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


def limit_of(limits: AuditLimits, detector: str) -> float:
    """The limit of one detector."""
    return float(getattr(limits, "limit_" + detector.replace("-", "_")))


def own_defects(measurement: Measurement, limits: AuditLimits) -> list[str]:
    """The defects that one file has whatever the others are."""
    found = [name for name in DETECTORS if measurement.scores[name] > limit_of(limits, name)]
    meaningless = {other for name in found for other in MEANINGLESS.get(name, ())}
    return [name for name in found if name not in meaningless]


def fix_of(measurement: Measurement, defects: Sequence[str]) -> str:
    """What conversion must do: "crop TOP:BOTTOM,LEFT:RIGHT", "invert", "rotate DEGREES" (clockwise), in that order."""
    steps = []
    if "borders" in defects:
        top, bottom, left, right = measurement.box
        steps.append(f"crop {top}:{bottom},{left}:{right}")
    if "inverted" in defects:
        steps.append("invert")
    if "rotated" in defects:
        steps.append(f"rotate {90 * measurement.turns}")
    return "; ".join(steps)


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
