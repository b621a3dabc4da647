"""The catalog: every source file with its label, patient, view and source, from folders or from a CSV."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeVar

from loaders.cautions import Caution, caution
from loaders.config import CatalogConfig
from loaders.errors import ConfigError, InputError
from loaders.sources.entry import (
    SPLITS,
    Entry,
    check_once,
    files_below,
    is_hidden,
    match_patient,
    not_asked_for,
    read_rows,
    table_path,
)
from loaders.sources.presets import preset_entries

GROUP_PRESETS = {"nih": r"^(\d{8})_\d{3}\."}  # 00001280_004.png: patient 1280, follow-up 4
SYNTHETIC, PHANTOM_TABLE = "synthetic", "phantoms.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """All source files.  root: what paths are relative to.  classes: in label order; none without labels."""

    root: Path
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]


def read_catalog(config: CatalogConfig, *, labelled: bool = True) -> Catalog:
    """Read SOURCE/<class>/**, a public set's own layout (--preset), or a CSV.

    labelled: else SOURCE is any folder, of files without labels.
    Errors: ConfigError for a bad --group-regex; InputError for an empty or unreadable source, or a missing column,
    label or class; StorageError when the source cannot be listed.
    """
    patient_of, origin = patient_pattern(config.group_regex), config.origin
    if config.manifest is not None:
        entries = list(manifest_entries(config.manifest, config.classes, patient_of))
    elif config.preset is not None:
        entries = preset_entries(config, patient_of)
    else:
        entries = list(folder_entries(origin, config.classes, patient_of, labelled))
    found = sorted({entry.label for entry in entries if entry.excluded in ("", not_asked_for(entry.label))})
    if not found:
        expected = "files under one subfolder a class, or a CSV with the columns path and label" if labelled else "some"
        raise InputError(f"{origin}: no radiographs found, expected {expected}; check the path")
    classes = config.classes or tuple(name for name in found if labelled)
    missing = [name for name in classes if name not in found]
    if missing:
        raise InputError(
            f"{origin}: no file of class {', '.join(missing)}, expected some of {', '.join(found)}; check --classes"
        )
    if patient_of is not None and not any(entry.patient for entry in entries if not entry.excluded):
        example = next(entry.path for entry in entries if not entry.excluded)
        raise InputError(
            f"{origin}: --group-regex {config.group_regex!r} matches no file name, "
            f"expected a match in names like {example}; correct it"
        )
    if formulas := [name for name in classes if table_path(name) != name]:
        raise InputError(
            f"{origin}: class {formulas[0]!r}, expected a name that a spreadsheet does not take for a formula; "
            "start it with a letter or a digit"
        )
    return Catalog(root=config.root, entries=tuple(entries), classes=classes)


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


def folder_entries(
    source: Path, classes: tuple[str, ...], pattern: re.Pattern[str] | None, labelled: bool
) -> Iterator[Entry]:
    """Every file below source, sorted by path, labelled by its first folder; links to folders are not followed."""
    if not source.is_dir():
        raise InputError(f"{source}: not a folder, expected one of radiographs; check the path, or use --manifest")
    # phantoms stay synthetic when their images are taken as a folder, without their table
    source_name = SYNTHETIC if labelled and (source.resolve().parent / PHANTOM_TABLE).is_file() else ""
    for relative in files_below(source):
        path = relative.as_posix()
        label = relative.parts[0] if labelled and len(relative.parts) > 1 else ""
        excluded = ""
        if labelled and not label:
            excluded = "not in a class folder"
        elif is_hidden(relative):
            excluded = "hidden file"
        elif classes and label not in classes:
            excluded = not_asked_for(label)
        yield Entry(path=path, label=label, patient=match_patient(pattern, path), source=source_name, excluded=excluded)


def manifest_entries(manifest: Path, classes: tuple[str, ...], pattern: re.Pattern[str] | None) -> Iterator[Entry]:
    """Every row of a CSV with the columns path, label and optionally patient, view, source, split."""
    rows = read_rows(
        manifest,
        ("path", "label"),
        ("patient", "view", "source", "split"),
        "name them so in the first line, with commas between",
    )
    first_line: dict[str, int] = {}
    for line, values in rows:
        if not values["path"] or not values["label"]:
            lacking = "path" if not values["path"] else "label"
            raise InputError(
                f"{manifest}: line {line} has no {lacking}, expected one in every row; fill it in or drop the row"
            )
        path = PurePosixPath(values["path"]).as_posix()
        check_once(manifest, first_line, line, path)
        if values["split"] and values["split"] not in SPLITS:
            raise InputError(
                f"{manifest}: line {line} has split {values['split']!r}, "
                f"expected {', '.join(SPLITS)} or nothing; correct it"
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


T = TypeVar("T", bound=Hashable)


def confounded_labels(labels: Sequence[T], sources: Sequence[Hashable]) -> list[T]:
    """The labels whose sources have images of no other label, in order: there the source alone gives the label."""
    labels_of: dict[Hashable, set[T]] = defaultdict(set)
    for label, source in zip(labels, sources, strict=True):
        labels_of[source].add(label)
    mixed = {label for found in labels_of.values() if len(found) > 1 for label in found}
    return [label for label in dict.fromkeys(labels) if label not in mixed]


def source_cautions(labels: Sequence[str], sources: Sequence[Hashable]) -> list[Caution]:
    """A caution where the source alone gives the label of some classes, which it names, the commonest first."""
    counts = Counter(labels)
    found = sorted(confounded_labels(labels, sources), key=lambda label: (-counts[label], label))
    images = sum(counts[label] for label in found)
    return [caution("confounded-with-source", classes=found, images=images)] if found else []
