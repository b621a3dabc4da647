"""The outcome of a conversion: each file's verdict and why, the totals, convert.csv and the terminal's output."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from loaders.audit.findings import DEFECTS, FIXED, HARMLESS, AuditResult
from loaders.audit.page import AUDIT_PAGE, AUDIT_TABLE, audit_parts
from loaders.audit.removals import Removal
from loaders.audit.table import AuditDecision, pixels_text, read_decisions
from loaders.audit.verdicts import conclude, judge_files, probe_files
from loaders.beton.format import frames_text
from loaders.cautions import Caution, caution
from loaders.config import ConvertConfig, LungMode
from loaders.convert.demographics import age_code, demographics_caution, sex_code
from loaders.convert.findings import FindingCounts, count_findings, finding_rows, present_and_unknown
from loaders.errors import InputError
from loaders.images.decode import Decoded
from loaders.images.files import REFUSALS
from loaders.output import Line, Parts, PhaseProgress, Sheet, caution_lines, counted, path_line, share_text
from loaders.sources.catalog import Catalog, Entry, positive_class
from loaders.sources.confounding import source_cautions
from loaders.sources.entry import EXCLUDED, SPLITS, as_text, csv_bytes, may_be_picture, table_path

CSV_COLUMNS = (
    "path", "label", "group", "split", "sample", "verdict", "kind", "reason", "fix", "width", "height", "format",
    "bits", "saturated",
)  # fmt: skip
OUTCOMES = ("written", "rejected", "duplicate", "excluded")  # of a file
MOST_REASONS = 8  # printed one by one
PERMUTATIONS = 1999  # of labels, for each probe of `--audit auto`
SAME_PIXELS, OTHER_LABEL, BY_HAND = "same-pixels", "other-label", "by-hand"
KIND_TEXTS = {  # kind of a reason, unless it is an audit's defects → the reason without names of files and classes
    **{code: meaning for code, (meaning, _) in REFUSALS.items()},
    **EXCLUDED,
    SAME_PIXELS: "same pixels as another file",
    OTHER_LABEL: "the same pixels have different labels",
    BY_HAND: "quarantined by hand",
}


@dataclass(kw_only=True, slots=True)
class Row:
    """The outcome for one source file.  verdict: one of OUTCOMES.

    kind: the code of the reason, one of KIND_TEXTS, or defects as in audit.csv; "" for a file that is written.
    fix: repairs as in audit.csv, or "".  place: in the spool.  sample: in its split's beton.  mask_hash: of its lungs.
    patient: for grouping and hashing, never written.
    """

    entry: Entry
    decoded: Decoded = field(default_factory=Decoded)
    verdict: str = "written"
    kind: str = ""
    reason: str = ""
    fix: str = ""
    patient: str = ""
    group: int = -1
    split: str = ""
    place: int = -1
    sample: int = -1
    mask_hash: bytes = b""

    def drop(self, kind: str, reason: str, verdict: str = "rejected") -> None:
        """Leave the file out."""
        self.kind, self.reason, self.verdict = kind, reason, verdict

    @property
    def sex(self) -> int:
        """The sex in the table, else in the file: a place in SEXES."""
        return sex_code(self.entry.sex) or sex_code(self.decoded.sex)

    @property
    def age(self) -> int:
        """The decade of the age in the table, else in the file: a place in AGES."""
        return age_code(self.entry.age) or age_code(self.decoded.age)

    @property
    def view(self) -> str:
        """The catalog's view, else the file's own."""
        return self.entry.view or as_text(self.decoded.view)


def kind_text(kind: str) -> str:
    """The reason of a kind; "" for none that is known."""
    defects = kind.split(";")
    return f"{' and '.join(defects)} (audit)" if set(defects) <= DEFECTS.keys() else KIND_TEXTS.get(kind, "")


def given_decisions(audit: str, root: Path, entries: Sequence[Entry]) -> dict[str, AuditDecision]:
    """The decisions of the table of `--audit` by path; none without a table.

    audit: off, auto or the table's path.  root: what the entries' paths are relative to.  Files that an audit does not
    list, since they are missing or no pictures, need no decision: they will not decode.
    Errors: InputError, StorageError.
    """
    if audit in ("off", "auto"):
        return {}
    given = read_decisions(Path(audit))
    decisions = {as_text(path): decision for path, decision in given.items()} | given  # some programs save Latin-1
    undecided = [entry.path for entry in entries if entry.path not in decisions and may_be_picture(entry.path)]
    if missing := [path for path in undecided if (root / path).exists()]:
        raise InputError(
            f"{audit}: no verdict for {missing[0]} and {len(missing) - 1} more, expected one for each file of {root}; "
            "audit it again, with the same --manifest, --root, --preset and --classes"
        )
    return decisions


def apply_decisions(rows: Sequence[Row], decisions: Mapping[str, AuditDecision], table: str) -> None:
    """Reject rows as a table decides, and record how others were repaired.

    Where the table drops a copy in favour of a file with another label, both are rejected: the table may have been made
    without labels.  A file whose pixels have changed since is rejected.
    """
    row_of = {row.entry.path: row for row in rows}
    for row in rows:
        decision = decisions.get(row.entry.path)
        if decision is None:
            continue
        if decision.pixels not in ("", pixels_text(row.decoded.pixel_hash)):
            row.drop("changed", f"changed since {table} was made, expected the same; audit it again")
        elif decision.verdict == "quarantine":
            found = " and ".join(decision.defects) or "by hand"
            kept = row_of.get(decision.copy_of) or row_of.get(as_text(decision.copy_of))
            conflict = kept is not None and kept.entry.label != row.entry.label
            verdict = "duplicate" if is_copy(decision.defects) and not conflict else "rejected"
            row.drop(";".join(decision.defects) or BY_HAND, f"{found} (quarantined in {table})", verdict)
            if kept is not None and conflict and kept.verdict == "written":
                kept.drop("label-conflict", f"label-conflict: {row.entry.path} ({row.entry.label}) is a copy of it")
        elif decision.fix and row.verdict == "written":
            row.fix = decision.fix


def is_copy(defects: Sequence[str]) -> bool:
    """Whether a file with these defects is left out as a copy of another alone: what else it has could be repaired."""
    return bool(set(defects) & set(HARMLESS)) and set(defects) <= {*HARMLESS, *FIXED}


def audit_rows(
    config: ConvertConfig, rows: Sequence[Row], progress: PhaseProgress, findings: Sequence[str] = ()
) -> AuditResult:
    """Judge what was measured while decoding: reject files, join groups, record repairs.  findings: names, if any."""
    started = time.perf_counter()
    entries, decoded = [row.entry for row in rows], [row.decoded for row in rows]
    files = judge_files(entries, decoded, config.limits, progress, findings)
    for row, file in zip(rows, files, strict=True):
        if row.verdict != "written":
            continue
        row.group = file.group
        if file.verdict == "quarantine":
            reason = f"{' and '.join(file.defects)} (audit): {file.note}".removesuffix(": ")
            row.drop(";".join(file.defects), reason, "duplicate" if is_copy(file.defects) else "rejected")
        elif file.fix:
            row.fix = file.fix
    collection = probe_files(files, config.seed, PERMUTATIONS, progress, findings)
    return conclude(str(config.catalog.origin), files, config.limits, collection, time.perf_counter() - started)


def resolve_duplicates(rows: list[Row]) -> None:
    """Of exact duplicates keep the first path; reject all where labels differ (DESIGN, What held-out means)."""
    same: dict[bytes, list[Row]] = defaultdict(list)
    for row in rows:
        same[row.decoded.pixel_hash].append(row)
    for copies in same.values():
        copies.sort(key=lambda row: row.entry.path)
        labels = sorted({row.entry.label for row in copies})
        for row in copies:
            if len(labels) > 1:
                paths = ", ".join(copy.entry.path for copy in copies)
                row.drop(OTHER_LABEL, f"the same pixels have the labels {', '.join(labels)}: {paths}")
            elif row is not copies[0]:
                row.drop(SAME_PIXELS, f"same pixels as {copies[0].entry.path}", "duplicate")


@dataclass(frozen=True, kw_only=True, slots=True)
class LungsKept:
    """Of a conversion that keeps the lungs alone, how and by which segmenter, as a beton's facts have it.

    removals: how many films of each class, or with each finding, have no credible mask.
    """

    mode: LungMode
    segmenter: str
    removals: tuple[Removal, ...]
    cautions: tuple[Caution, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """The result of a conversion.  counts: verdict → files.

    samples: split → class → images; of findings, those in which each is present.  findings: the labels of each.
    lungs: None where films are whole.
    """

    out: Path
    catalog: Catalog
    positive: str
    rows: tuple[Row, ...]
    counts: dict[str, int]
    samples: dict[str, dict[str, int]]
    cautions: tuple[Caution, ...]
    dry_run: bool
    audited: AuditResult | None = None
    findings: FindingCounts = field(default=FindingCounts())
    lungs: LungsKept | None = None

    @property
    def files(self) -> int:
        """Number of source files: written + rejected + duplicates."""
        return self.counts["written"] + self.counts["rejected"] + self.counts["duplicate"]


def summarise(
    config: ConvertConfig,
    catalog: Catalog,
    rows: list[Row],
    audited: AuditResult | None,
    lungs: LungsKept | None,
    found: Sequence[Caution],
) -> Conversion:
    """Count the outcomes.  audited: the findings of an automatic audit.  found: cautions of the patients."""
    counts = Counter(row.verdict for row in rows)
    written = [row for row in rows if row.verdict == "written"]
    cautions, labelled = [*catalog.cautions, *found, *(lungs.cautions if lungs else ())], FindingCounts()
    group_N = np.array([row.group for row in written])
    if catalog.task == "findings":
        entries, splits = [row.entry for row in written], [row.split for row in written]
        labelled, of_findings = count_findings(catalog.classes, entries, splits, group_N)
        samples = labelled.present
        cautions += of_findings
    else:
        images = Counter((row.split, row.entry.label) for row in written)
        samples = {split: {name: images[split, name] for name in catalog.classes} for split in SPLITS}
        samples = {split: of for split, of in samples.items() if any(of.values())}
        labels, sources = [row.entry.label for row in written], [row.entry.source for row in written]
        cautions += source_cautions(labels, sources, group_N)
    if unknown := sum(not row.patient for row in written):
        cautions.append(caution("patients-unknown", unknown=unknown, images=len(written)))
    if config.keep_demographics:
        cautions.append(demographics_caution([(row.sex, row.age, row.entry.source, row.group) for row in written]))
    if config.like is not None and {row.entry.split for row in written} not in ({""}, {"heldout"}):
        cautions.append(caution("splits-set-aside"))
    positive = "" if catalog.task == "findings" else config.positive
    if positive is None:
        positive = positive_class(catalog.classes, listed=bool(config.catalog.classes))
    if positive and config.positive is None and positive != catalog.classes[0]:
        cautions.append(caution("healthy-not-positive", positive=positive, first=catalog.classes[0]))
    return Conversion(
        out=config.out,
        catalog=catalog,
        positive=positive,
        rows=tuple(rows),
        counts={outcome: counts[outcome] for outcome in OUTCOMES},
        samples=samples,
        cautions=tuple(cautions),
        dry_run=config.dry_run,
        audited=audited,
        findings=labelled,
        lungs=lungs,
    )


def table_bytes(rows: tuple[Row, ...], findings: Sequence[str] = ()) -> bytes:
    """convert.csv: one line for each source file; not to be shared, since it has file names.

    findings: their names; then the label lists those that are present, and a last column those that are unknown.
    """

    def cells(row: Row) -> list[object]:
        present, unknown = present_and_unknown(findings, row.entry) if findings else ("", "")
        found, group, sample = row.decoded, "" if row.group < 0 else row.group, "" if row.sample < 0 else row.sample
        picture = (found.width, found.height, found.format, found.bits, f"{found.saturated:.5f}")
        return [
            *(table_path(row.entry.path), present or row.entry.label, group, row.split, sample),
            *(row.verdict, row.kind, row.reason, row.fix, *(picture if found.width else [""] * 5)),
            *([unknown] if findings else []),
        ]

    return csv_bytes((*CSV_COLUMNS, "unknown") if findings else CSV_COLUMNS, map(cells, rows))


def conversion_parts(done: Conversion) -> Parts:
    """The totals, the audit's findings if there was one, and the files."""
    counts = done.counts
    excluded = f"; {counts['excluded']:,} more excluded" if counts["excluded"] else ""
    parts: list[Line | Sheet] = [
        Line(
            f"{counted(done.files, 'file')} in = {counts['written']:,} written + {counts['rejected']:,} rejected + "
            f"{counted(counts['duplicate'], 'duplicate')}{excluded}"
        )
    ]
    if done.audited:
        parts += audit_parts(done.audited)
    reasons = Counter(row.kind for row in done.rows if row.verdict == "rejected").most_common()
    for kind, number in reasons[:MOST_REASONS]:
        first = next(row for row in done.rows if row.kind == kind)
        problem = f"; the first: {first.decoded.problem}" if first.decoded.problem else ""
        parts.append(Line(f"  rejected {number}: {kind_text(kind)}{problem}"))
    if (more := len(reasons) - MOST_REASONS) > 0:
        parts.append(Line(f"  and {more} more reasons: see the table of files, convert.csv"))
    if done.lungs:
        parts.append(Line(f"Frames show {frames_text(done.lungs.mode, done.lungs.segmenter)}."))
        parts.append(lung_sheet(done.lungs))
    parts.append(split_sheet(done))
    if done.catalog.task == "findings" and len(done.samples) > 1:
        widest = f"{done.findings.finding}, by {done.findings.gap:.3f}"
        parts.append(Line(f"prevalence differs most between splits in {widest}"))
    elif done.positive:
        parts.append(Line(f"positive class: {done.positive}"))
    shown = done.audited.collection.cautions if done.audited and done.audited.collection else ()
    parts += caution_lines(one for one in done.cautions if one.code not in {caution.code for caution in shown})
    if done.dry_run:
        return [*parts, Line("Dry run: nothing was written.")]
    audit = (AUDIT_TABLE, AUDIT_PAGE) if done.audited else ()
    pictures = ("preparation.png", *(["augmentation.png"] if "train" in done.samples else []))
    names = (*(f"{split}.beton" for split in done.samples), "convert.csv", *audit, *pictures)
    return [*parts, *(path_line(done.out / name) for name in names)]


def split_sheet(done: Conversion) -> Sheet:
    """Images of each class, or each finding's labels, in each split; these are rows, since there may be many."""
    images = Counter(row.split for row in done.rows if row.verdict == "written")
    names, findings = done.catalog.classes, done.catalog.task == "findings"
    if findings:
        rows = finding_rows(names, done.findings, images)
    else:
        rows = [(name, *(str(of[name]) for of in done.samples.values())) for name in names]
    rows.append(("all images", *(str(images[split]) for split in done.samples)))
    groups_of = {split: {row.group for row in done.rows if row.split == split} for split in done.samples}
    rows.append(("groups", *(str(len(groups)) for groups in groups_of.values())))
    head = "present / absent / unknown" if findings else "class"
    return Sheet(headers=(head, *done.samples), rows=tuple(rows))


def lung_sheet(lungs: LungsKept) -> Sheet:
    """How many films of each class, or with each finding, have no credible mask: to leave them out can itself bias."""
    rows = [
        (
            one.label,
            f"{one.files:,}",
            f"{one.removed:,}",
            share,
            f"{share_text(one.low).removesuffix(' %')} to {share_text(one.high)}",
        )
        for one in lungs.removals
        for share in [share_text(one.removed / one.files if one.files else None)]
    ]
    headers = ("class or finding", "films", "without a mask", "share", "95 % interval")
    return Sheet(headers=headers, rows=tuple(rows))
