"""The catalog: every source file with its label, patient, view and source, from folders or from a CSV."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from loaders.atomic_file import storage_error
from loaders.config import ConvertConfig
from loaders.errors import ConfigError, InputError

GROUP_PRESETS = {"nih": r"^(\d{8})_\d{3}\."}  # 00001280_004.png: patient 1280, follow-up 4
SYNTHETIC, PHANTOM_TABLE = "synthetic", "phantoms.csv"
SPLITS = ("train", "val", "heldout")
ORDER_MARK = "\ufeff"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One source file.  path: relative to the root, with forward slashes.  excluded: why it takes no part, or ""."""

    path: str
    label: str
    patient: str = ""
    view: str = ""
    source: str = ""
    split: str = ""
    excluded: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """All source files.  root: what paths are relative to.  classes: in label order.  positive: one of them."""

    root: Path
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    positive: str


def read_catalog(config: ConvertConfig) -> Catalog:
    """Read SOURCE/<class>/** or a CSV.

    Errors: ConfigError for a bad --group-regex; InputError for an empty or unreadable source, a missing column,
    a label that is missing, or fewer than two classes; StorageError when the source cannot be listed.
    """
    patient_of = patient_pattern(config.group_regex)
    if config.manifest is not None:
        root, entries = (
            config.manifest.parent,
            list(manifest_entries(config.manifest, config.classes, patient_of)),
        )
        origin = config.manifest
    else:
        assert config.source is not None
        root, entries = config.source, list(folder_entries(config.source, config.classes, patient_of))
        origin = config.source
    found = sorted({entry.label for entry in entries if entry.excluded in ("", not_asked_for(entry.label))})
    if not found:
        raise InputError(
            f"{origin}: no radiographs found, expected files under one subfolder a class, "
            "or a CSV with the columns path and label; check the path"
        )
    classes = config.classes or tuple(found)
    missing = [name for name in classes if name not in found]
    if missing:
        raise InputError(
            f"{origin}: no file of class {', '.join(missing)}, expected some of {', '.join(found)}; check --classes"
        )
    if patient_of is not None and not any(entry.patient for entry in entries if not entry.excluded):
        example = next(entry.path for entry in entries if not entry.excluded)
        raise InputError(
            f"{origin}: --group-regex {config.group_regex!r} matches no file name, "
            f"expected ones like {example}; mend it"
        )
    if len(classes) < 2:
        raise InputError(
            f"{origin}: one class, {classes[0]}; expected at least two to tell apart; add the other's files"
        )
    positive = config.positive or classes[0]
    if positive not in classes:
        raise ConfigError(f"--positive: found {positive}, expected one of {', '.join(classes)}")
    return Catalog(root=root, entries=tuple(entries), classes=classes, positive=positive)


def patient_pattern(group_regex: str | None) -> re.Pattern[str] | None:
    """Compile --group-regex, or its preset.  Errors: ConfigError."""
    if group_regex is None:
        return None
    try:
        pattern = re.compile(GROUP_PRESETS.get(group_regex, group_regex))
    except re.error as error:
        raise ConfigError(f"--group-regex: {group_regex!r} is no regular expression ({error}), expected one") from error
    if pattern.groups < 1:
        raise ConfigError(f"--group-regex: {group_regex!r} has no group, expected (…) around the patient")
    return pattern


def match_patient(pattern: re.Pattern[str] | None, path: str) -> str:
    """The patient that a file name tells, or ""."""
    match = pattern.search(PurePosixPath(path).name) if pattern else None
    return (match.group(1) or "") if match else ""


def not_asked_for(label: str) -> str:
    """Why a file of another class is excluded."""
    return f"class {label} not asked for"


def folder_entries(source: Path, classes: tuple[str, ...], pattern: re.Pattern[str] | None) -> Iterator[Entry]:
    """Every file below SOURCE/<class>/, sorted by path; symbolic links to folders are not followed."""
    if not source.is_dir():
        raise InputError(f"{source}: not a folder, expected one subfolder a class; check the path, or use --manifest")

    # phantoms stay synthetic when their images are taken as a folder, without their table
    source_name = SYNTHETIC if (source.resolve().parent / PHANTOM_TABLE).is_file() else ""

    def fail(error: OSError) -> None:
        raise storage_error(Path(error.filename or source), error) from error

    for folder, subfolders, names in os.walk(source, onerror=fail):
        subfolders.sort()
        relative = Path(folder).relative_to(source)
        # a link to a folder, a loop perhaps, is listed as a file, so that it is accounted for
        links = [name for name in subfolders if (Path(folder) / name).is_symlink()]
        for name in sorted(names + links):
            path = (relative / name).as_posix()
            label = relative.parts[0] if relative.parts else ""
            excluded = ""
            if not label:
                excluded = "not in a class folder"
            elif any(part.startswith(".") for part in (*relative.parts, name)):
                excluded = "hidden file"
            elif classes and label not in classes:
                excluded = not_asked_for(label)
            yield Entry(
                path=path, label=label, patient=match_patient(pattern, path), source=source_name, excluded=excluded
            )


def manifest_entries(manifest: Path, classes: tuple[str, ...], pattern: re.Pattern[str] | None) -> Iterator[Entry]:
    """Every row of a CSV with the columns path, label and optionally patient, view, source, split."""
    try:
        with manifest.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            reader = csv.DictReader(file)
            columns = [name.lstrip(ORDER_MARK).strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = columns
            if not {"path", "label"} <= set(columns):
                raise InputError(
                    f"{manifest}: columns {', '.join(columns) or 'none'}, expected at least path and label; "
                    "name them so in the first line, with commas between"
                )
            rows = [(reader.line_num, row) for row in reader]
    except OSError as error:
        raise storage_error(manifest, error) from error
    except csv.Error as error:
        raise InputError(
            f"{manifest}: not a CSV ({error}), expected the columns path and label; save it as CSV in UTF-8"
        ) from error
    first_line: dict[str, int] = {}
    for line, row in rows:
        values = {
            name: (row.get(name) or "").strip() for name in ("path", "label", "patient", "view", "source", "split")
        }
        if not values["path"] or not values["label"]:
            lacking = "path" if not values["path"] else "label"
            raise InputError(
                f"{manifest}: line {line} has no {lacking}, expected one in every row; fill it in or drop the row"
            )
        path = PurePosixPath(values["path"]).as_posix()
        if path in first_line:
            raise InputError(
                f"{manifest}: line {line} repeats {path} of line {first_line[path]}, "
                "expected each file once; drop a row"
            )
        first_line[path] = line
        if values["split"] and values["split"] not in SPLITS:
            raise InputError(
                f"{manifest}: line {line} has split {values['split']!r}, "
                f"expected {', '.join(SPLITS)} or nothing; mend it"
            )
        label = values["label"]
        yield Entry(
            path=path,
            label=label,
            patient=values["patient"] or match_patient(pattern, path),
            view=values["view"],
            source=values["source"],
            split=values["split"],
            excluded="" if not classes or label in classes else not_asked_for(label),
        )
