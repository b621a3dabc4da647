"""The table of an audit, audit.csv: written for a person to edit, read back by `convert --audit`."""

import math
from dataclasses import dataclass
from pathlib import Path

from loaders.audit.findings import DEFECTS, VERDICTS, FileFinding
from loaders.config import HASH_ALGORITHM
from loaders.errors import InputError
from loaders.images.frame import FIX
from loaders.images.quality import DETECTORS
from loaders.sources.entry import csv_bytes, table_path
from loaders.sources.table import read_rows

COLUMNS = ("path", "verdict", "defects", *DETECTORS, "group", "fix", "copy_of", "pixels", "note")
MOST_SHOWN = 16  # characters of a hash in an error
NEEDED = ("path", "verdict", "fix", "group")


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditDecision:
    """The decision of the table for one file.  copy_of: the path of the copy that is kept, or "".

    pixels: hash of the pixels that were audited, as pixels_text has it, or "".
    """

    verdict: str
    defects: tuple[str, ...]
    fix: str
    group: str
    copy_of: str
    pixels: str


def pixels_text(pixel_hash: bytes) -> str:
    """A hash of pixels as the table has it, with the algorithm's name: `blake3:…`; "" for none."""
    return f"{HASH_ALGORITHM}:{pixel_hash.hex()}" if pixel_hash else ""


def table_bytes(files: list[FileFinding]) -> bytes:
    """audit.csv: one line for each file, in the order of the source."""

    def cells(file: FileFinding) -> list[object]:
        scores = [file.scores.get(name, math.nan) for name in DETECTORS]
        return [
            *(table_path(file.path), file.verdict, ";".join(file.defects)),
            *("" if math.isnan(score) else f"{score:.4f}" for score in scores),
            *(file.group, file.fix, table_path(file.copy_of), pixels_text(file.decoded.pixel_hash), file.note),
        ]

    return csv_bytes(COLUMNS, map(cells, files))


def read_decisions(path: Path) -> dict[str, AuditDecision]:
    """Path of a file → its decision.

    Errors: InputError for what is no audit's table, with the line, or one that hashed pixels by another algorithm;
    StorageError.
    """
    remedy = "name an audit.csv of `cli.py audit`, or audit again"
    optional = ("defects", "copy_of", "pixels")
    rows = read_rows(path, lambda row: row["path"].removeprefix("./"), NEEDED, optional, remedy, strip=False)
    decisions: dict[str, AuditDecision] = {}
    for name, (line, row) in rows.items():
        verdict, fix = row["verdict"].strip().lower(), row["fix"].strip().lower()
        if verdict not in VERDICTS:
            raise InputError(f"{path}: line {line} has verdict {verdict!r}, expected {', '.join(VERDICTS)}; correct it")
        if not FIX.fullmatch(fix) or (verdict == "fix" and not fix):
            raise InputError(
                f"{path}: line {line} has fix {fix!r}, expected steps such as `crop 0:512,10:500; invert; rotate 90` "
                "in this order; correct it"
            )
        pixels = row["pixels"].strip()
        if pixels and not pixels.startswith(f"{HASH_ALGORITHM}:"):
            raise InputError(
                f"{path}: line {line} has pixels {pixels[:MOST_SHOWN]!r}, expected {HASH_ALGORITHM}:…, since another "
                "version of plainfilm, whose hashes are of another kind, made it; audit again"
            )
        decisions[name] = AuditDecision(
            verdict=verdict,
            defects=tuple(part for part in row["defects"].split(";") if part in DEFECTS),
            fix=fix if verdict == "fix" else "",
            group=row["group"].strip(),
            copy_of=row["copy_of"].removeprefix("./"),
            pixels=pixels,
        )
    return decisions
