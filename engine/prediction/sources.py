"""The sources of a prediction: files and folders as the user names them, each file once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from loaders.entry import files_below, is_hidden, may_be_picture
from loaders.errors import ConfigError, InputError, RadiographError
from loaders.settings import is_path
from loaders.spool import inside


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One file.  path: as the user named it.  file: absolute.  problem: why a link is not followed, or ""."""

    path: str
    file: str
    problem: str = ""


def list_sources(named: Sequence[Path]) -> tuple[list[Source], list[str]]:
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
        found = found_at(path)
        if not found:
            cautions.append(f"{path} holds no file that may be a picture")
        for source in found:
            real = os.path.realpath(source.file)
            repeated += real in known
            if real not in known:
                known.add(real)
                sources.append(source)
    if not sources:
        raise InputError(f"{', '.join(map(str, named))}: no radiographs found, expected some; check the path")
    if repeated:
        cautions.append(f"{repeated} of the files were named more than once: each has one row")
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


def found_at(path: Path) -> list[Source]:
    """The file, or the files below the folder, that the user named."""
    if os.path.isdir(path):  # noqa: PTH112 - is_dir() raises where one may not look
        return list(below(path))
    return [Source(path=str(path), file=os.path.abspath(path))]  # noqa: PTH100 - not through links


def below(folder: Path) -> Iterator[Source]:
    """The files below a folder."""
    base = os.path.abspath(folder)  # noqa: PTH100 - resolve() would follow links
    for relative in files_below(folder):
        if is_hidden(relative) or not may_be_picture(relative.name):
            continue
        problem = ""
        try:
            inside(folder, relative.as_posix())
        except RadiographError as error:
            problem = str(error)
        yield Source(path=str(folder / relative), file=f"{base}/{relative}", problem=problem)
