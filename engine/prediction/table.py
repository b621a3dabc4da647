"""The table of predictions: a row for each file, written as they come, published whole at the end."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import glob
import io
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loaders.atomic_file import SUFFIX, publish, storage_error
from loaders.entry import table_path
from loaders.errors import LockedError
from loaders.spool import temporary_spool

ABSTAINS = "abstains"


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What is said of one file.  path: as the user named it.

    said: a class, or "" where the prediction abstains.  reason: why it abstains, what follows a colon being detail.
    probabilities: calibrated, in the order of the classes; None where the network was not asked.
    mended: what the audit's fix did to the picture.  in_set: training or validation where the run has seen its pixels.
    """

    path: str
    said: str = ""
    reason: str = ""
    probabilities: tuple[float, ...] | None = None
    defects: tuple[str, ...] = ()
    mended: str = ""
    in_set: str = ""
    note: str = ""


Write = Callable[[Row], None]


def columns(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a row's cells."""
    return (
        "path", "said", "reason", *(f"probability_{name}" for name in classes), "defects", "mended", "in_set", "note",
    )  # fmt: skip


def csv_line(row: Row, classes: tuple[str, ...]) -> bytes:
    """One row of a CSV; an undefined probability is an empty cell."""
    shown = [""] * len(classes) if row.probabilities is None else [f"{value:.6f}" for value in row.probabilities]
    defects = ";".join(row.defects)
    said = row.said or ABSTAINS
    return line_of([table_path(row.path), said, row.reason, *shown, defects, row.mended, row.in_set, row.note])


def line_of(cells: list[str]) -> bytes:
    """Cells as one line of a CSV; bytes of a file name that are no UTF-8 stay what they are."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().encode("utf-8", "surrogateescape")


def json_line(row: Row, classes: tuple[str, ...]) -> bytes:
    """One row as a line of JSON; an undefined probability is null."""
    shown = [None] * len(classes) if row.probabilities is None else [round(value, 6) for value in row.probabilities]
    cells = (row.path, row.said or ABSTAINS, row.reason, *shown, list(row.defects), row.mended, row.in_set, row.note)
    content = dict(zip(columns(classes), cells, strict=True)) | {"not_for_diagnosis": True}
    return json.dumps(content).encode() + b"\n"


@contextlib.contextmanager
def opened_table(out: Path, kind: str, classes: tuple[str, ...]) -> Iterator[Write]:
    """What writes a row.  kind: csv or jsonl.  For its owner alone (0600), since it has file names.

    Rows go to a temporary file beside out; an error or a kill leaves the old table or none.  Errors: StorageError.
    """
    with publish(out, mode=0o600) as file:
        if kind == "csv":
            file.write(line_of(list(columns(classes))))
        to_line = csv_line if kind == "csv" else json_line

        def write(row: Row) -> None:
            file.write(to_line(row, classes))

        yield write


@contextlib.contextmanager
def opened_spool(out: Path, size: int) -> Iterator[Path]:
    """A spool beside out; what a killed run left goes first.

    Errors: LockedError when another process predicts into out; StorageError.
    """
    spool = out.with_name(f"{out.name}.frames-{secrets.token_hex(4)}{SUFFIX}")
    with locked_table(out):
        left = list(out.parent.glob(f"{glob.escape(out.name)}.frames-*{SUFFIX}"))
        with temporary_spool(spool, size, left):
            yield spool


@contextlib.contextmanager
def locked_table(out: Path) -> Iterator[None]:
    """Hold a lock beside out, gone at the end; the kernel drops it when its owner dies.

    Errors: LockedError when another process predicts into out; StorageError.
    """
    lock = out.with_name(f"{out.name}.lock{SUFFIX}")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise storage_error(lock, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(descriptor), lock.stat())  # else its owner has just taken it away
        except (BlockingIOError, FileNotFoundError):
            mine = False
        except OSError as error:  # such as a file system without locks
            raise storage_error(lock, error) from error
        if not mine:
            raise LockedError(
                f"{out}: another plainfilm process is predicting into it, expected none; "
                "wait for it, or choose another --out"
            )
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
