"""Findings of an audit: one for each file, one for each probe, and the whole."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Annotated, Self

import msgspec

from loaders.audit.removals import Removal
from loaders.cautions import Caution
from loaders.images.decode import Decoded
from loaders.output import number_text
from loaders.records import Count, Record
from loaders.sources.confounding import Confounding, Grade
from loaders.sources.entry import Entry
from loaders.statistics import wilson

PICTURE_SIDE = 1024  # pixels; that of a probe is a small frame's
Picture = Annotated[bytes, msgspec.Meta(max_length=100_000)]
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
    "no-lungs": "no lungs found, or at another place when the film is turned a little",
    "lungs-not-two": "one lung found, or much of one missing",
    "lungs-cut-off": "lungs cut off by the film's edge",
    "borders": "letterbox or wide margins",
    "exact-duplicate": "the same pixels as another file",
    "near-duplicate": "another file re-encoded, resized, cropped a little or equalised",
    "label-conflict": "duplicates with different labels",
}
FIXED = ("inverted", "rotated", "borders")  # repaired by conversion, which records the fix
HARMLESS = ("near-duplicate", "exact-duplicate")  # join groups; the best copy is kept
TOGETHER = 0.1  # least correlation of findings that are named as coming together
WITHIN = "source-within-"  # and a class: the probe of its sources
COLLECTION_WITHIN = "collection-within-"  # the same of collections side by side
OF_CLASSES = {"both": "the classes", "one": "one class", "other": "another"}  # what differs, in the texts of probes
OF_FINDING = {"both": "films with and without the finding", "one": "one of the two", "other": "the other"}
ELSEWHERE = "something other than the lungs differs between {both}"
MAYBE_FINDING = "{both} already differ in this, but it may be the finding itself"
OF_OUTLINE = "{both} differ in this, by build, breath, finding or segmenter, and films of the lungs alone show it, too"
PROBES = {  # probe → its input, in the plural; the conclusion if it predicts the label; what it is shown
    "header": (
        "Headers (format, size, bit depth, aspect)",
        "{both} were made or stored differently",
        "format, size, bit depth and aspect of the file, no pixels",
    ),
    "outside-crop": ("Pixels outside the crop", ELSEWHERE, "only the margin outside the central crop"),
    "inside-crop-outside-lungs": (
        "Pixels inside the crop but outside the lungs (arms, shoulders, abdomen)",
        ELSEWHERE,
        "the central crop without the lungs",
    ),
    "lungs-hidden": ("Frames with the lungs hidden", ELSEWHERE, "the picture with the lungs covered"),
    "thumbnail": (
        "Thumbnails of 8×8 pixels",
        MAYBE_FINDING,
        "the picture shrunk to 8×8 pixels, which may show some of the finding",
    ),
    "histogram": (
        "Histograms of the grey levels",
        MAYBE_FINDING,
        "how common each grey level is, but not where; the finding may change it",
    ),
    "sharpness": ("Measures of sharpness", MAYBE_FINDING, "how sharp the picture is; the finding may change it"),
    "silhouette": ("Outlines of the lungs", OF_OUTLINE, "the outline of the lungs, no pixel of the film"),
    "lung-area": (
        "Areas, widths and heights of the lungs",
        OF_OUTLINE,
        "five sizes of the lungs, no pixel of the film",
    ),
    "view": (
        "Predicted views",
        "{one} has more lateral or AP films than {other}",
        "the predicted view, such as frontal or lateral",
    ),
    WITHIN: (
        "Thumbnails of 8×8 pixels",
        "sources differ in appearance, so a class that is mostly from one of them is predicted by its source",
        "",
    ),
    COLLECTION_WITHIN: (
        "Thumbnails of 8×8 pixels",
        "collections differ in appearance, so a network may recognise the collection instead of the finding",
        "",
    ),
}


@dataclass(kw_only=True, slots=True)
class FileFinding:
    """Findings in one file.

    entry: its path is relative to the source.  decoded: with its measurement, None for a file that cannot be read.
    defects: some of DEFECTS, at the end in that order.  fix: what conversion does to a file with verdict `fix`, such as
    "invert; rotate 90; crop 12:512,0:480".  note: the reason: a decoder's message, or the path that it duplicates.
    copy_of: the path of the copy that is kept, if this one is not; else "".  group: files of one group belong in one
    split: duplicates of one another, or of one patient.
    """

    entry: Entry
    decoded: Decoded
    defects: list[str] = field(default_factory=list)
    fix: str = ""
    note: str = ""
    copy_of: str = ""
    group: int = -1

    @property
    def path(self) -> str:
        """Any bytes that a file name may hold (surrogate escapes)."""
        return self.entry.path

    @property
    def label(self) -> str:
        """The class; "" without labels."""
        return self.entry.label

    @property
    def patient(self) -> str:
        """The identifier in the table, else in the file; never written."""
        return self.entry.patient_or(self.decoded.patient)

    @property
    def verdict(self) -> str:
        """keep, fix or quarantine."""
        if set(self.defects) - set(FIXED):
            return "quarantine"
        return "fix" if self.fix else "keep"

    @property
    def scores(self) -> dict[str, float]:
        """Detector → score in its own unit, larger is worse; none for a file that cannot be read."""
        return self.decoded.measurement.scores if self.decoded.measurement else {}


class ProbeFinding(Record, frozen=True, kw_only=True):
    """Whether one probe, which is shown little or nothing of the finding, predicts the label.

    name: one of PROBES, source-within-CLASS or collection-within-CLASS.  auc: cross-validated by groups; of more than
    two classes the mean, one against the rest.  low, high: 95 % interval, cluster bootstrap over groups.  null_high:
    95th percentile of the AUC when labels are permuted, groups whole.  p: share of permutations at least as good, plus
    one over one more.  p_holm: the same after Holm's correction over all probes.  All are None where they could not be
    measured.  alarm: p_holm <= 0.05.  picture: a PNG, a typical image as shown to this probe, if that is a picture.
    A name without a CLASS is of all films.
    Errors: ValueError for another name or a huge picture; a file with one is refused by msgspec when it is read.
    """

    name: str
    auc: float | None
    low: float | None
    high: float | None
    null_high: float | None
    p: float | None
    p_holm: float | None
    alarm: bool
    picture: Picture | None = None

    def __post_init__(self) -> None:
        if self.kind not in PROBES:
            raise ValueError(f"probe {self.name!r}, expected one of loaders.audit.findings")
        sides = [int.from_bytes((self.picture or b"")[at : at + 4]) for at in (16, 20)]  # of a PNG's first chunk
        if max(sides) > PICTURE_SIDE:
            raise ValueError(f"probe {self.name}: picture of {sides} pixels, expected at most {PICTURE_SIDE} a side")

    @property
    def kind(self) -> str:
        """The name without a class."""
        return next((kind for kind in (WITHIN, COLLECTION_WITHIN) if self.name.startswith(kind)), self.name)

    @property
    def within(self) -> str:
        """The class whose sources or collections it tells apart; "" where it tells the classes apart."""
        return self.name.removeprefix(self.kind)

    @property
    def input(self) -> str:
        """What it is shown; "" where the sentence says so."""
        return PROBES[self.kind][2]

    @property
    def sentence(self) -> str:
        """What the numbers mean."""
        subject, meaning, _ = PROBES[self.kind]
        what = f"the {self.kind.split('-')[0]}" if self.kind in (WITHIN, COLLECTION_WITHIN) else "the class"
        target = f"{what} within class {self.within}" if self.within else what
        measured = f"AUC {number_text(self.auc, 2)} ({number_text(self.low, 2)}–{number_text(self.high, 2)})"
        if self.alarm:
            return f"{subject} alone predict {target} with {measured}: {meaning.format(**OF_CLASSES)}."
        return (
            f"{subject} alone were not shown to predict {target}: {measured}; chance alone reaches "
            f"{number_text(self.null_high, 2)} one time in twenty"
            f"{'' if self.kind == COLLECTION_WITHIN else ', and several probes were tried'}."
        )


class CollectionFinding(Record, frozen=True, kw_only=True):
    """What is wrong with the collection as a whole.  cautions: shown first and in bold.

    skipped: probe → why it could not be run.
    """

    probes: list[ProbeFinding]
    cautions: list[Caution]
    skipped: dict[str, Caution]


class FindingProbe(Record, frozen=True, kw_only=True):
    """Whether one probe predicts one finding, over the films whose value of it is known.

    probe: one of PROBES.  auc, low, high, null_high, p: as of ProbeFinding.  p_adjusted: corrected for all probes of
    all findings (loaders.statistics.single_step).  alarm: p_adjusted <= 0.05.
    """

    finding: str
    probe: str
    auc: float
    low: float
    high: float
    null_high: float
    p: float
    p_adjusted: float
    alarm: bool

    def __post_init__(self) -> None:
        if self.probe not in PROBES:
            raise ValueError(f"probe {self.probe!r}, expected one of loaders.audit.findings")


class SourcePrevalence(Record, frozen=True, kw_only=True):
    """How common findings are in one source.  known, present: groups that know each finding, and that have it."""

    source: str
    images: Count
    groups: Count
    known: list[Count]
    present: list[Count]

    @property
    def absent(self) -> list[int]:
        """Groups that know each finding, and have it not."""
        return [known - present for known, present in zip(self.known, self.present, strict=True)]

    def interval(self, place: int) -> tuple[float, float]:
        """The 95 % interval of a finding's prevalence (Wilson's), of groups."""
        return wilson(self.present[place], self.known[place])


class SourceAccuracy(Record, frozen=True, kw_only=True):
    """How well the source alone tells whether a finding is present, as loaders.sources.confounding measures it."""

    accuracy: float
    low: float
    high: float
    grade: Grade

    @classmethod
    def of(cls, found: Confounding) -> Self:
        """What was measured of a finding."""
        return cls(accuracy=found.accuracy, low=found.low, high=found.high, grade=found.grade)


class FindingsAudit(Record, frozen=True, kw_only=True):
    """What is wrong with a collection of findings as a whole.  cautions: shown first and in bold.

    present, known, phi: of each two findings, films that have both, films of which both are known, and their
    correlation over those.  sources: the largest first.  told_by_source: of each finding, None where it or the source
    does not vary.
    pictures: probe → a PNG, a typical image as shown to it.  skipped: probe or finding → why it was not probed.
    """

    findings: list[str]
    images: Count
    groups: Count
    present: list[list[Count]]
    known: list[list[Count]]
    phi: list[list[float | None]]
    sources: list[SourcePrevalence]
    told_by_source: list[SourceAccuracy | None]
    probes: list[FindingProbe]
    pictures: dict[str, Picture]
    cautions: list[Caution]
    skipped: dict[str, Caution]

    def pairs(self, most: int = 6) -> list[tuple[str, str, int, int, float]]:
        """The findings that come together most: both names, films with both, films that know both, and phi."""
        found = [
            (self.findings[one], self.findings[other], self.present[one][other], self.known[one][other], phi)
            for one in range(len(self.findings))
            for other in range(one)
            if (phi := self.phi[one][other]) is not None and phi >= TOGETHER
        ]
        return sorted(found, key=lambda pair: -pair[-1])[:most]

    def alarms(self) -> dict[str, str]:
        """Probe → what its alarms mean, a sentence that names the findings."""
        sentences = {}
        for name in dict.fromkeys(probe.probe for probe in self.probes if probe.alarm):
            told = sorted(
                (probe for probe in self.probes if probe.alarm and probe.probe == name), key=lambda probe: -probe.auc
            )
            listed = ", ".join(f"{probe.finding} (AUC {number_text(probe.auc, 2)})" for probe in told)
            subject, meaning, _ = PROBES[name]
            sentences[name] = f"{subject} alone predict {listed}: {meaning.format(**OF_FINDING)}."
        return sentences


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditResult:
    """All findings of one audit.  source: what was audited, as the user named it.  removals: empty without labels.

    limits: detector → the score above which it is a defect.  collection: None without labels, or with fewer than two
    classes; findings where those are the labels.  cautions: of the files' names and labels.
    """

    source: str
    files: list[FileFinding]
    limits: dict[str, float]
    removals: list[Removal]
    collection: CollectionFinding | FindingsAudit | None
    seconds: float
    versions: dict[str, str]
    cautions: list[Caution] = field(default_factory=list)

    @property
    def all_cautions(self) -> list[Caution]:
        """Those of the collection, too."""
        return [*self.cautions, *(self.collection.cautions if self.collection else [])]

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
