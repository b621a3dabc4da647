"""The catalog: every source file with its label, patient, view and source, from folders or from a CSV."""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from loaders.cautions import Caution, caution
from loaders.config import CatalogConfig
from loaders.errors import ConfigError, InputError
from loaders.sources.entry import (
    EXCLUDED,
    OTHER_CLASS,
    SPLITS,
    Entry,
    as_text,
    files_below,
    kind_aside,
    patient_id,
    spelling,
    table_path,
)
from loaders.sources.presets import check_whole_patients, preset_entries
from loaders.sources.table import read_rows

MOST_NAMED = 3  # names in a caution
GROUP_PRESETS = {"nih": r"^(\d{8})_\d{3}\."}  # 00001280_004.png: patient 1280, follow-up 4
SPLIT_FOLDERS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "heldout", "testing": "heldout", "heldout": "heldout", "held-out": "heldout", "holdout": "heldout",
}  # fmt: skip
SYNTHETIC, PHANTOM_TABLE = "synthetic", "phantoms.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """All source files.  root: what paths are relative to.  classes: in label order; none without labels."""

    root: Path
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    cautions: tuple[Caution, ...] = ()


def read_catalog(config: CatalogConfig, *, labelled: bool = True) -> Catalog:
    """Read SOURCE/<class>/** or SOURCE/<split>/<class>/**, a public set's own layout (--preset), or a CSV.

    labelled: else SOURCE is any folder, of files without labels.
    Errors: ConfigError for a bad --group-regex; InputError for an empty or unreadable source, or a missing column,
    label or class; StorageError when the source cannot be listed.
    """
    patient_of, origin = patient_pattern(config.group_regex), config.origin
    listed: Iterable[Entry]
    if config.manifest is not None:
        listed = manifest_entries(config.manifest)
    elif config.preset is not None:
        listed = preset_entries(origin, config.preset)
    else:
        listed = folder_entries(origin, labelled)
    given = list(listed)
    name_of = label_names([as_text(entry.label) for entry in given if not entry.excluded], config.classes)
    entries = [completed(entry, name_of, config.classes, patient_of) for entry in given]
    if config.preset is not None:
        check_whole_patients(origin, entries)
    found = sorted({entry.label for entry in entries if not entry.excluded or entry.kind == OTHER_CLASS})
    if not found:
        expected = "files under one subfolder a class, or a CSV with the columns path and label" if labelled else "some"
        raise InputError(f"{origin}: no radiographs found, expected {expected}; check the path")
    classes = config.classes or tuple(name for name in found if labelled)
    if missing := [name for name in classes if name not in found]:
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
    # no patients: a caution may be shown to others
    names = {name for entry in given for name in (entry.label, entry.view, entry.source) if as_text(name) != name}
    cautions = [caution("names-in-latin", names=sorted(map(as_text, names))[:MOST_NAMED])] if names else []
    if config.source is not None and config.preset is None and any(entry.split for entry in entries):
        folders = {PurePosixPath(entry.path).parts[0] for entry in entries if not entry.excluded}
        cautions.append(caution("folders-are-splits", folders=sorted(folders)))
    if joined := [f"{old} = {new}" for old, new in sorted(name_of.items()) if old != new]:
        cautions.append(caution("labels-joined", labels=joined[:MOST_NAMED]))
    return Catalog(root=config.root, entries=tuple(entries), classes=classes, cautions=tuple(cautions))


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


def label_names(labels: Sequence[str], classes: tuple[str, ...]) -> dict[str, str]:
    """Each spelling of a label → its name: Covid and covid are one class, as are 1 and 1.0.

    The name is that of --classes, or else the commonest spelling, the first in the alphabet of several.
    """
    counts, spellings = Counter(labels), defaultdict[str, list[str]](list)
    for label in sorted(counts, key=lambda label: (label not in classes, -counts[label], label)):
        spellings[spelling(label)].append(label)
    return {label: label if label in classes else same[0] for same in spellings.values() for label in same}


def completed(
    entry: Entry, name_of: dict[str, str], classes: tuple[str, ...], pattern: re.Pattern[str] | None
) -> Entry:
    """The entry with the patient in its file's name, unless it has one, and excluded if its class is not asked for."""
    match = pattern.search(PurePosixPath(entry.path).name) if pattern and not entry.patient else None
    patient = entry.patient or (match and match.group(1)) or ""
    label, patient, view, source = map(as_text, (entry.label, patient, entry.view, entry.source))
    entry = replace(entry, label=name_of.get(label, label), patient=patient_id(patient), view=view, source=source)
    if entry.excluded or not classes or entry.label in classes:
        return entry
    return replace(entry, excluded=f"class {entry.label} not asked for", kind=OTHER_CLASS)


def folder_entries(source: Path, labelled: bool) -> Iterator[Entry]:
    """Every file below source, sorted by path, labelled by the folder of its class; links to folders are not followed.

    SOURCE/<class>/**, or SOURCE/{train,val,test}/<class>/**.  Where there is no folder val, train has no split yet.
    """
    if not source.is_dir():
        raise InputError(f"{source}: not a folder, expected one of radiographs; check the path, or use --manifest")
    paths = list(files_below(source))
    depth, split_of = folder_layout(source, paths) if labelled else (0, {})
    # phantoms stay synthetic when their images are taken as a folder, without their table
    source_name = SYNTHETIC if labelled and (source.resolve().parent / PHANTOM_TABLE).is_file() else ""
    for relative in paths:
        split = split_of.get(relative.parts[0], "")
        label = relative.parts[depth] if labelled and len(relative.parts) > depth + 1 else ""
        kind = "no-class" if labelled and not label else kind_aside(relative)
        excluded = "not in a class folder" if kind == "no-class" else EXCLUDED.get(kind, "")
        path = relative.as_posix()
        yield Entry(path=path, label=label, source=source_name, split=split, excluded=excluded, kind=kind)


def folder_layout(source: Path, paths: Sequence[PurePosixPath]) -> tuple[int, dict[str, str]]:
    """How many folders lie above those of the classes, 0 or 1; and folder → split, where the first are splits.

    Errors: InputError where some of the first folders are splits and others are none.
    """
    folders = {path.parts[0] for path in paths if len(path.parts) > 1 and not kind_aside(path)}
    split_of = {name: SPLIT_FOLDERS[name.casefold()] for name in folders if name.casefold() in SPLIT_FOLDERS}
    if "train" not in split_of.values() or len(split_of) < 2:
        return 0, {}
    if others := sorted(folders - set(split_of)):
        raise InputError(
            f"{source}: the folders {', '.join(sorted(split_of))} are splits, but {others[0]} is none, expected splits "
            "alone or classes alone; move it away, or name the files in a --manifest"
        )
    if "val" not in split_of.values():
        split_of = {name: "" if split == "train" else split for name, split in split_of.items()}
    return 1, split_of


def manifest_entries(manifest: Path) -> Iterator[Entry]:
    """Every row of a CSV with the columns path, label and optionally patient, view, source, split."""
    required, optional = ("path", "label"), ("patient", "view", "source", "split")
    remedy = "name them so in the first line, with commas between"
    rows = read_rows(
        manifest, lambda row: PurePosixPath(row["path"]).as_posix(), required, optional, remedy, filled=required
    )
    for path, (line, values) in rows.items():
        if values["split"] and values["split"] not in SPLITS:
            raise InputError(
                f"{manifest}: line {line} has split {values['split']!r}, "
                f"expected {', '.join(SPLITS)} or nothing; correct it"
            )
        yield Entry(path=path, label=values["label"], **{name: values[name] for name in optional})


def confounded_labels(labels: Sequence[str], sources: Sequence[Hashable]) -> list[str]:
    """The labels whose sources have images of no other label, in order: there the source alone gives the label."""
    labels_of: dict[Hashable, set[str]] = defaultdict(set)
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
