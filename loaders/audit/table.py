"""The table of an audit, audit.csv: written for a person to edit, read back by `convert --audit`."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

from loaders.atomic_file import storage_error
from loaders.audit.findings import DEFECTS, VERDICTS, FileFinding
from loaders.errors import InputError
from loaders.images.quality import DETECTORS
from loaders.sources.entry import check_regular, csv_bytes, table_path

COLUMNS = ("path", "verdict", "defects", *DETECTORS, "group", "fix", "copy_of", "pixels", "note")
NEEDED = ("path", "verdict", "fix", "group")
FIX = re.compile(r"(?:crop \d+:\d+,\d+:\d+)?(?:(?:^|; )invert)?(?:(?:^|; )rotate (?:90|180|270))?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """The decision of the table for one file."""

    verdict: str
    defects: tuple[str, ...]
    fix: str
    group: str
    copy_of: str = ""
    """The path of the copy that is kept, or ""."""
    pixels: str = ""
    """Hash of the pixels that were audited, hexadecimal, or ""."""


def table_bytes(files: tuple[FileFinding, ...]) -> bytes:
    """audit.csv: one line for each file, in the order of the source."""

    def cells(file: FileFinding) -> list[object]:
        scores = [file.scores.get(name, math.nan) for name in DETECTORS]
        return [
            *(table_path(file.path), file.verdict, ";".join(file.defects)),
            *("" if math.isnan(score) else f"{score:.4f}" for score in scores),
            *(file.group, file.fix, table_path(file.copy_of), file.pixel_hash.hex(), file.note),
        ]

    return csv_bytes(COLUMNS, map(cells, files))


def read_decisions(path: Path) -> dict[str, Decision]:
    """Path of a file → its decision.

    Errors: InputError for what is no audit's table, with the line; StorageError.
    """
    check_regular(path)
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            lacking = [name for name in NEEDED if name not in (reader.fieldnames or ())]
            if lacking:
                raise InputError(
                    f"{path}: no column {', '.join(lacking)}, expected an audit.csv of `cli.py audit`; audit again"
                )
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise storage_error(path, error) from error
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV ({error}), expected an audit.csv; audit again") from error
    decisions: dict[str, Decision] = {}
    for line, row in rows:
        name, verdict, fix = (
            (row["path"] or "").removeprefix("./"),
            (row["verdict"] or "").strip(),
            (row["fix"] or "").strip(),
        )
        if verdict not in VERDICTS:
            raise InputError(f"{path}: line {line} has verdict {verdict!r}, expected {', '.join(VERDICTS)}; correct it")
        if not FIX.fullmatch(fix) or (verdict == "fix" and not fix):
            raise InputError(
                f"{path}: line {line} has fix {fix!r}, expected steps such as `crop 0:512,10:500; invert; rotate 90` "
                "in this order; correct it"
            )
        if name in decisions:
            raise InputError(f"{path}: line {line} repeats {name!r}, expected each file once; drop a line")
        decisions[name] = Decision(
            verdict=verdict,
            defects=tuple(part for part in (row.get("defects") or "").split(";") if part in DEFECTS),
            fix=fix if verdict == "fix" else "",
            group=(row["group"] or "").strip(),
            copy_of=(row.get("copy_of") or "").removeprefix("./"),
            pixels=(row.get("pixels") or "").strip(),
        )
    return decisions
