"""The account of a conversion: what became of every source file, and the sums."""

from __future__ import annotations

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from loaders.audit.findings import AuditResult
from loaders.cautions import Caution, caution
from loaders.config import ConvertConfig
from loaders.images.decode import Decoded, count_reasons
from loaders.sources.catalog import SPLITS, Catalog, Entry, source_cautions
from loaders.sources.entry import table_path

CSV_COLUMNS = (
    "path",
    "label",
    "group",
    "split",
    "sample",
    "verdict",
    "reason",
    "width",
    "height",
    "format",
    "bits",
    "saturated",
)


@dataclass(kw_only=True, slots=True)
class Row:
    """One source file's fate.  verdict: written, rejected, duplicate or excluded.

    place: in the spool.  sample: in its split's beton.
    """

    entry: Entry
    decoded: Decoded = field(default_factory=Decoded)
    verdict: str = "written"
    reason: str = ""
    group: int = -1
    split: str = ""
    place: int = -1
    sample: int = -1

    @property
    def patient(self) -> str:
        """The catalog's patient, else the file's own; for grouping and hashing, never written."""
        return self.entry.patient or self.decoded.patient

    @property
    def view(self) -> str:
        """The catalog's view, else the file's own."""
        return self.entry.view or self.decoded.view


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What a conversion did.  counts: verdict → files.  samples: split → class → images.  groups: split → groups."""

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
        """Files in; always written + rejected + duplicates."""
        return self.counts["written"] + self.counts["rejected"] + self.counts["duplicate"]


def summarise(
    config: ConvertConfig, catalog: Catalog, rows: list[Row], audited: AuditResult | None = None
) -> Conversion:
    """Count what happened to the files.  audited: what an automatic audit found."""
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
        reasons=count_reasons([row.reason for row in rows if row.verdict == "rejected"]),
        cautions=tuple(cautions),
        dry_run=config.dry_run,
        audited=audited,
    )


def csv_bytes(rows: tuple[Row, ...]) -> bytes:
    """convert.csv: one line a source file; local, since it has file names."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(CSV_COLUMNS)
    for row in rows:
        seen = row.decoded
        table.writerow(
            [
                table_path(row.entry.path),
                row.entry.label,
                "" if row.group < 0 else row.group,
                row.split,
                "" if row.sample < 0 else row.sample,
                row.verdict,
                row.reason,
            ]
            + ([seen.width, seen.height, seen.format, seen.bits, f"{seen.saturated:.5f}"] if seen.width else [""] * 5)
        )
    return text.getvalue().encode("utf-8", "surrogateescape")
