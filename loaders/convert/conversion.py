"""The outcome of a conversion: a row for every source file, the totals, convert.csv, and the terminal's output."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from loaders.audit.findings import DEFECTS, AuditResult
from loaders.audit.page import audit_parts
from loaders.cautions import Caution, caution
from loaders.config import ConvertConfig
from loaders.images.decode import Decoded
from loaders.images.files import REFUSALS
from loaders.output import Line, Parts, Sheet, caution_lines, path_line
from loaders.sources.catalog import SPLITS, Catalog, Entry, source_cautions
from loaders.sources.entry import EXCLUDED, csv_bytes, table_path

CSV_COLUMNS = (
    "path", "label", "group", "split", "sample", "verdict", "kind", "reason", "fix", "width", "height", "format",
    "bits", "saturated",
)  # fmt: skip
MOST_REASONS = 8  # printed one by one
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
    """The outcome for one source file.  verdict: written, rejected, duplicate or excluded.

    kind: the code of the reason, one of KIND_TEXTS, or defects as in audit.csv; "" for a file that is written.
    fix: repairs as in audit.csv, or "".  place: in the spool.  sample: in its split's beton.
    """

    entry: Entry
    decoded: Decoded = field(default_factory=Decoded)
    verdict: str = "written"
    kind: str = ""
    reason: str = ""
    fix: str = ""
    group: int = -1
    split: str = ""
    place: int = -1
    sample: int = -1

    def drop(self, kind: str, reason: str, verdict: str = "rejected") -> None:
        """Leave the file out."""
        self.kind, self.reason, self.verdict = kind, reason, verdict

    @property
    def patient(self) -> str:
        """The catalog's patient, else the file's own; for grouping and hashing, never written."""
        return self.entry.patient or self.decoded.patient

    @property
    def view(self) -> str:
        """The catalog's view, else the file's own."""
        return self.entry.view or self.decoded.view


def kind_text(kind: str) -> str:
    """The reason of a kind; "" for none that is known."""
    defects = kind.split(";")
    return f"{' and '.join(defects)} (audit)" if set(defects) <= DEFECTS.keys() else KIND_TEXTS.get(kind, "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """The result of a conversion.  counts: verdict → files.  samples: split → class → images.  groups: by split.

    reasons: kind → rejected files, commonest first.
    """

    out: Path
    catalog: Catalog
    positive: str
    rows: tuple[Row, ...]
    counts: dict[str, int]
    samples: dict[str, dict[str, int]]
    groups: dict[str, int]
    reasons: dict[str, int]
    cautions: tuple[Caution, ...]
    dry_run: bool
    audited: AuditResult | None = None

    @property
    def files(self) -> int:
        """Number of source files: written + rejected + duplicates."""
        return self.counts["written"] + self.counts["rejected"] + self.counts["duplicate"]


def summarise(
    config: ConvertConfig, catalog: Catalog, rows: list[Row], audited: AuditResult | None = None
) -> Conversion:
    """Count the outcomes.  audited: the findings of an automatic audit."""
    counts = Counter({"written": 0, "rejected": 0, "duplicate": 0, "excluded": 0})
    counts.update(row.verdict for row in rows)
    written = [row for row in rows if row.verdict == "written"]
    samples = {
        split: {
            name: sum(row.split == split and row.entry.label == name for row in written) for name in catalog.classes
        }
        for split in SPLITS
        if any(row.split == split for row in written)
    }
    cautions = source_cautions([row.entry.label for row in written], [row.entry.source for row in written])
    if unknown := sum(not row.patient for row in written):
        cautions.append(caution("patients-unknown", unknown=unknown, images=len(written)))
    return Conversion(
        out=config.out,
        catalog=catalog,
        positive=config.positive or catalog.classes[0],
        rows=tuple(rows),
        counts=dict(counts),
        samples=samples,
        groups={split: len({row.group for row in written if row.split == split}) for split in samples},
        reasons=dict(Counter(row.kind for row in rows if row.verdict == "rejected").most_common()),
        cautions=tuple(cautions),
        dry_run=config.dry_run,
        audited=audited,
    )


def table_bytes(rows: tuple[Row, ...]) -> bytes:
    """convert.csv: one line for each source file; not to be shared, since it has file names."""

    def cells(row: Row) -> list[object]:
        found, group, sample = row.decoded, "" if row.group < 0 else row.group, "" if row.sample < 0 else row.sample
        picture = (found.width, found.height, found.format, found.bits, f"{found.saturated:.5f}")
        return [
            *(table_path(row.entry.path), row.entry.label, group, row.split, sample),
            *(row.verdict, row.kind, row.reason, row.fix, *(picture if found.width else [""] * 5)),
        ]

    return csv_bytes(CSV_COLUMNS, map(cells, rows))


def conversion_parts(done: Conversion) -> Parts:
    """The totals, the audit's findings if there was one, and the files."""
    counts = done.counts
    excluded = f"; {counts['excluded']} more excluded" if counts["excluded"] else ""
    parts: list[Line | Sheet] = [
        Line(
            f"{done.files} files in = {counts['written']} written + {counts['rejected']} rejected + "
            f"{counts['duplicate']} duplicates{excluded}"
        )
    ]
    if done.audited:
        parts += audit_parts(done.audited)
    for kind, number in list(done.reasons.items())[:MOST_REASONS]:
        first = next(row for row in done.rows if row.kind == kind)
        problem = f"; the first: {first.decoded.problem}" if first.decoded.problem else ""
        parts.append(Line(f"  rejected {number}: {kind_text(kind)}{problem}"))
    if (more := len(done.reasons) - MOST_REASONS) > 0:
        parts.append(Line(f"  and {more} more reasons: see the table of files, convert.csv"))
    parts.append(split_sheet(done))
    parts.append(Line(f"positive class: {done.positive}"))
    shown = done.audited.collection.cautions if done.audited and done.audited.collection else ()
    parts += caution_lines(one for one in done.cautions if one.code not in {caution.code for caution in shown})
    return [*parts, *written_files(done)]


def split_sheet(done: Conversion) -> Sheet:
    """Images of each class in each split; classes are rows, since there may be many."""
    rows = [(name, *(str(of[name]) for of in done.samples.values())) for name in done.catalog.classes]
    rows.append(("all images", *(str(sum(of.values())) for of in done.samples.values())))
    rows.append(("groups", *(str(done.groups[split]) for split in done.samples)))
    return Sheet(headers=("class", *done.samples), rows=tuple(rows))


def written_files(done: Conversion) -> list[Line]:
    """The paths of what was written, if anything."""
    if done.dry_run:
        return [Line("Dry run: nothing was written.")]
    audit = ("audit.csv", "audit.html") if done.audited else ()
    names = (*(f"{split}.beton" for split in done.samples), "convert.csv", *audit)
    return [path_line(done.out / name) for name in (*names, "preparation.png", "augmentation.png")]
