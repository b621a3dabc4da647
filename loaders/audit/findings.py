"""Findings of an audit: one for each file, one for each probe, and the whole."""

# H rows, W columns

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from loaders.cautions import Caution

VERDICTS = ("keep", "fix", "quarantine")
DEFECTS = {  # with their meanings, in the order of tables and galleries
    "unreadable": "cannot be decoded",
    "not-a-radiograph": "CT, MRI, photograph, document or mask",
    "lateral": "lateral view",
    "colour-annotation": "coloured overlay or annotation",
    "text-or-mark": "burned-in text, arrows or boxes beyond the usual L/R marker",
    "low-resolution": "fewer pixels than the stored frame needs",
    "blurred": "blurred",
    "exposure": "over- or underexposed",
    "inverted": "inverted: bone is dark",
    "rotated": "turned by 90, 180 or 270 degrees",
    "misaligned": "thorax off centre, cut off or tilted",
    "borders": "letterbox or wide margins",
    "exact-duplicate": "the same pixels as another file",
    "near-duplicate": "another file re-encoded, resized, cropped a little or equalised",
    "label-conflict": "duplicates with different labels",
}
FIXED = ("inverted", "rotated", "borders")  # repaired by conversion, which records the fix
HARMLESS = ("near-duplicate", "exact-duplicate")  # join groups; the best copy is kept


@dataclass(frozen=True, kw_only=True, slots=True)
class FileFinding:
    """Findings in one file.

    path: relative to the source, with forward slashes; any bytes that a file name may hold (surrogate escapes).
    label: "" without labels.  verdict: keep, fix or quarantine.  defects: some of DEFECTS.  scores: detector → score in
    its own unit, larger is worse; NaN where it could not be measured.  limits: detector → the threshold that makes it a
    defect.  group: files of one group belong in one split: duplicates of one another, or of one patient.
    fix: what conversion does to a file with verdict `fix`, such as "invert; rotate 90; crop 12:512,0:480".
    copy_of: the path of the copy that is kept, if this one is not; else "".  pixel_hash: of the decoded pixels, 16
    bytes, by which a conversion recognises the file as unchanged; else empty.  note: the reason: a decoder's message or
    the path that it duplicates.  thumbnail: JPEG, at most 160 pixels a side; empty where nothing could be decoded.
    """

    path: str
    label: str
    verdict: str
    defects: tuple[str, ...]
    scores: dict[str, float]
    limits: dict[str, float]
    group: int
    fix: str = ""
    copy_of: str = ""
    pixel_hash: bytes = b""
    note: str = ""
    thumbnail: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProbeFinding:
    """Whether one probe, which is shown little or nothing of the finding, predicts the label.

    name: header, outside-crop, inside-crop-outside-lungs, lungs-hidden, thumbnail, histogram, sharpness, view, or
    source-within-CLASS.  auc: cross-validated by groups; of more than two classes the mean, one against the rest.
    low, high: 95 % interval, cluster bootstrap over groups.  null_high: 95th percentile of the AUC when labels are
    permuted, groups whole.  p: share of permutations at least as good, plus one over one more.  p_holm: the same after
    Holm's correction over all probes.  alarm: p_holm <= 0.05.  sentence: what it means.  picture_HW: uint8, a typical
    image as shown to this probe, if that is a picture.
    """

    name: str
    auc: float
    low: float
    high: float
    null_high: float
    p: float
    p_holm: float
    alarm: bool
    sentence: str
    picture_HW: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CollectionFinding:
    """What is wrong with the collection as a whole.  cautions: shown first and in bold.

    skipped: probe → why it could not be run.
    """

    probes: tuple[ProbeFinding, ...]
    cautions: tuple[Caution, ...]
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """How much of one class was quarantined, with its 95 % Wilson interval: cleaning can itself bias."""

    label: str
    files: int
    removed: int
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditResult:
    """All findings of one audit.  source: what was audited, as the user named it.  removals: empty without labels.

    collection: None without labels, or with fewer than two classes.
    """

    source: str
    files: tuple[FileFinding, ...]
    removals: tuple[Removal, ...]
    collection: CollectionFinding | None
    seconds: float
    versions: dict[str, str]

    def counts(self) -> dict[str, int]:
        """Verdict → files."""
        found = Counter(file.verdict for file in self.files)
        return {verdict: found[verdict] for verdict in VERDICTS}

    def by_defect(self) -> dict[str, dict[str, int]]:
        """Defect → label → files, in the order of DEFECTS; defects that no file has are left out."""
        found: dict[str, Counter[str]] = {defect: Counter() for defect in DEFECTS}
        for file in self.files:
            for defect in file.defects:
                found[defect][file.label] += 1
        return {defect: dict(count) for defect, count in found.items() if count}
