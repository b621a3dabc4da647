"""The files of a prediction, as the user names them and each once, and the table that it writes of them."""

import contextlib
import glob
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.predict.decisions import PredictedFile, Rule
from loaders.atomic_file import SUFFIX, locked_file, publish
from loaders.cautions import Caution, caution
from loaders.errors import ConfigError, InputError, RadiographError
from loaders.images.decode import inside, temporary_spool
from loaders.settings import is_path
from loaders.sources.entry import csv_bytes, files_below, kind_aside, may_be_picture, table_path


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One file.  path: as the user named it.  file: absolute.  problem: why a link is not followed, or ""."""

    path: str
    file: str
    problem: str = ""


def list_sources(named: Sequence[Path]) -> tuple[list[Source], list[Caution]]:
    """The files, in order and each once, and cautions about what was named.

    A folder stands for the files below it, but for hidden ones and those whose names say that they are no pictures; a
    link that leads out of it is not followed.
    Errors: ConfigError for what can be no path; InputError for a name at which there is nothing, and for folders
    without any file; StorageError.
    """
    for path in named:
        check_there(path)
    sources, cautions = [], []
    known: set[str] = set()
    repeated = 0
    for path in named:
        found = list(found_at(path))
        if not found:
            cautions.append(caution("folder-without-pictures", folder=str(path)))
        for source in found:
            real = os.path.realpath(source.file)
            repeated += real in known
            if real not in known:
                known.add(real)
                sources.append(source)
    if not sources:
        raise InputError(f"{', '.join(map(str, named))}: no radiographs found, expected some; check the path")
    if repeated:
        cautions.append(caution("files-named-twice", files=repeated))
    return sources, cautions


def check_there(path: Path) -> None:
    """Errors: ConfigError for what can be no path; InputError where nothing is."""
    if not is_path(path):
        raise ConfigError(f"files: found {str(path)!r}, expected paths")
    try:
        path.stat()
    except PermissionError:
        pass  # it may be there; its row has the reason
    except OSError as error:  # also for a name that is too long, or links in a ring
        raise InputError(f"{path}: {error.strerror}, expected a radiograph or a folder; check the path") from error


def found_at(path: Path) -> Iterator[Source]:
    """The file, or the files below the folder, that the user named."""
    base = os.path.abspath(path)  # noqa: PTH100 - resolve() would follow links
    if not os.path.isdir(path):  # noqa: PTH112 - is_dir() raises where one may not look
        yield Source(path=str(path), file=base)
        return
    for relative in files_below(path):
        if kind_aside(relative) or not may_be_picture(relative.name):
            continue
        problem = ""
        try:
            inside(path, relative.as_posix())
        except RadiographError as error:
            problem = str(error)
        yield Source(path=str(path / relative), file=f"{base}/{relative}", problem=problem)


Write = Callable[[PredictedFile], object]


def columns(rule: Rule) -> list[str]:
    """Names of a row's cells."""
    return ["path", *rule.columns(), "defects", "fix", "in_set", "note"]


def row_line(row: PredictedFile, rule: Rule, kind: str) -> bytes:
    """One row of a CSV, or as a line of JSON; an undefined probability is an empty cell, or null."""
    values, ends = row.probabilities or (None,) * len(rule.classes), (row.fix, row.in_set, row.note)
    if kind == "csv":
        shown = ["" if value is None else f"{value:.6f}" for value in values]
        return csv_bytes([table_path(row.path), *rule.cells(row, shown), ";".join(row.defects), *ends])
    rounded = [value if value is None else round(value, 6) for value in values]
    cells = (row.path, *rule.cells(row, rounded), list(row.defects), *ends)
    content = dict(zip(columns(rule), cells, strict=True)) | {"not_for_diagnosis": True}
    return json.dumps(content).encode() + b"\n"


@contextlib.contextmanager
def opened_table(out: Path, kind: str, rule: Rule) -> Iterator[Write]:
    """What writes a row.  kind: csv or jsonl.  For its owner alone (0600), since it has file names.

    Rows go to a temporary file beside out; an error or a kill leaves the old table or none.  Errors: StorageError.
    """
    with publish(out, mode=0o600) as file:
        if kind == "csv":
            file.write(csv_bytes(columns(rule)))
        yield lambda row: file.write(row_line(row, rule, kind))


@contextlib.contextmanager
def opened_spool(out: Path, size: int) -> Iterator[Path]:
    """A spool beside out; what a killed run left goes first.

    Errors: LockedError when another process predicts into out; StorageError.
    """
    spool = out.with_name(f"{out.name}.frames-{secrets.token_hex(4)}{SUFFIX}")
    lock = out.with_name(f"{out.name}.lock{SUFFIX}")
    busy = f"{out}: another plainfilm process is predicting into it, expected none"
    busy += "; wait for it, or choose another --out"
    with locked_file(lock, busy, fleeting=True):
        left = list(out.parent.glob(f"{glob.escape(out.name)}.frames-*{SUFFIX}"))
        with temporary_spool(spool, size, left):
            yield spool
