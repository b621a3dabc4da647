"""Decisions of an audit, edited by a person or automatic, applied to the files of a conversion."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from loaders.audit.findings import FIXED, HARMLESS, AuditResult
from loaders.audit.table import Decision, read_decisions
from loaders.audit.verdicts import conclude, judge_files, probe_files
from loaders.config import ConvertConfig
from loaders.convert.conversion import BY_HAND, Row
from loaders.errors import InputError
from loaders.output import PhaseProgress
from loaders.sources.entry import Entry, may_be_picture

PERMUTATIONS = 1999  # of labels, for each probe of `--audit auto`


def given_decisions(audit: str, root: Path, entries: Sequence[Entry]) -> dict[str, Decision]:
    """The decisions of the table of `--audit` by path; none without a table.

    audit: off, auto or the table's path.  root: what the entries' paths are relative to.  Files that an audit does not
    list, since they are missing or no pictures, need no decision: they will not decode.
    Errors: InputError, StorageError.
    """
    if audit in ("off", "auto"):
        return {}
    decisions = read_decisions(Path(audit))
    undecided = [entry.path for entry in entries if entry.path not in decisions and may_be_picture(entry.path)]
    if missing := [path for path in undecided if (root / path).exists()]:
        raise InputError(
            f"{audit}: no verdict for {missing[0]} and {len(missing) - 1} more, expected one for each file of {root}; "
            "audit it again, with the same --manifest, --preset and --classes"
        )
    return decisions


def apply_decisions(rows: Sequence[Row], decisions: Mapping[str, Decision], table: str) -> None:
    """Reject rows as a table decides, and record how others were repaired.

    Where the table drops a copy in favour of a file with another label, both are rejected: the table may have been made
    without labels.  A file whose pixels have changed since is rejected.
    """
    row_of = {row.entry.path: row for row in rows}
    for row in rows:
        decision = decisions.get(row.entry.path)
        if decision is None:
            continue
        if decision.pixels not in ("", row.decoded.pixel_hash.hex()):
            row.drop("changed", f"changed since {table} was made, expected the same; audit it again")
        elif decision.verdict == "quarantine":
            found = " and ".join(decision.defects) or "by hand"
            row.drop(";".join(decision.defects) or BY_HAND, f"{found} (quarantined in {table})")
            kept = row_of.get(decision.copy_of)
            if kept is not None and kept.entry.label != row.entry.label and kept.verdict == "written":
                kept.drop("label-conflict", f"label-conflict: {row.entry.path} ({row.entry.label}) is a copy of it")
        elif decision.fix and row.verdict == "written":
            row.fix = decision.fix


def audit_rows(config: ConvertConfig, rows: Sequence[Row], progress: PhaseProgress) -> AuditResult:
    """Judge what was measured while decoding: reject files, join groups, record repairs."""
    started = time.perf_counter()
    files = judge_files([row.entry for row in rows], [row.decoded for row in rows], config.limits, progress)
    for row, file in zip(rows, files, strict=True):
        if row.verdict != "written":
            continue
        row.group = file.group
        if file.verdict == "quarantine":
            copy = set(file.defects) <= {*HARMLESS, *FIXED}
            reason = f"{' and '.join(file.defects)} (audit): {file.note}".removesuffix(": ")
            row.drop(";".join(file.defects), reason, "duplicate" if copy else "rejected")
        elif file.fix:
            row.fix = file.fix
    collection = probe_files(files, config.seed, PERMUTATIONS, progress)
    return conclude(str(config.catalog.origin), files, config.limits, collection, time.perf_counter() - started)
