"""The catalog: every source file with its label, patient, view and source, from folders or from a CSV."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from loaders.cautions import Caution, caution
from loaders.config import CatalogConfig, Task
from loaders.errors import ConfigError, InputError
from loaders.sources.entry import (
    EXCLUDED,
    OTHER_CLASS,
    Entry,
    as_text,
    is_placeholder,
    looks_healthy,
    one_name_each,
    other_view,
    patient_id,
    projection,
    spelling,
    table_path,
    translations,
)
from loaders.sources.findings import policies, policy_cautions, settle
from loaders.sources.folders import folder_entries
from loaders.sources.manifest import manifest_entries
from loaders.sources.presets import check_whole_patients, preset_entries

MOST_NAMED = 3  # names in a caution
GROUP_PRESETS = {"nih": r"(?:^|/)(\d{8})_\d{3}\.[^/]*$"}  # 00001280_004.png: patient 1280, follow-up 4
MOST_LABELS = 20  # with their counts in a caution


@dataclass(frozen=True, kw_only=True, slots=True)
class Catalog:
    """All source files.  root: what paths are relative to.  classes: in label order; none without labels.

    task: findings where each film has a value for each of classes, which then has the findings' names.
    uncertain, blank: finding → what became of a table's uncertain and empty cells: present, absent or unknown.
    """

    root: Path
    entries: tuple[Entry, ...]
    classes: tuple[str, ...]
    cautions: tuple[Caution, ...] = ()
    task: Task = "classes"
    uncertain: dict[str, str] = field(default_factory=dict)
    blank: dict[str, str] = field(default_factory=dict)


def read_catalog(config: CatalogConfig, *, labelled: bool = True, partial: bool = False) -> Catalog:
    """Read SOURCE/<class>/** or SOURCE/<split>/<class>/**, a public set's own layout (--preset), or a CSV.

    labelled: else SOURCE is any folder, of files without labels, and a CSV needs none.
    partial: some of config.classes will do.
    Errors: ConfigError for a bad --group-regex or --root; InputError for an empty or unreadable source, or a missing
    column, label or class; StorageError when the source cannot be listed.
    """
    patient_of, origin = patient_pattern(config.group_regex), config.origin
    findings: tuple[str, ...] = ()
    if lost := [root for root in config.root if not root.is_dir()]:
        raise ConfigError(f"--root: found {lost[0]}, expected a folder; check the path")
    root = origin
    if config.manifest is not None:
        given, root, cautions, findings = manifest_entries(config, partial, labelled)
    elif config.preset is not None:
        given, cautions, findings = preset_entries(origin, config, partial)
    else:
        given, cautions = folder_entries(origin, labelled, config.classes, config.root)
    given, translated = (given, []) if findings else translate(given, config)
    name_of = one_name_each([as_text(entry.label) for entry in given if not entry.excluded], config.classes)
    if labelled and not config.classes and not findings:
        check_labels(origin, name_of.values())
    sources = one_name_each([as_text(entry.source) for entry in given])
    source_of = {written: "" if is_placeholder(written) else name for written, name in sources.items()}
    roots = config.root if len(config.root) > 1 else ()
    above = [f"{os.path.relpath(os.path.realpath(folder), root)}/" for folder in roots]
    decided = policies(findings, config) if findings else None
    final_of = settle((entry.findings for entry in given), decided) if decided else {}
    entries = [completed(entry, name_of, source_of, config, patient_of, above, final_of) for entry in given]
    if config.preset == "nih":
        check_whole_patients(origin, entries)
    found = sorted({entry.label for entry in entries if not entry.excluded or entry.kind == OTHER_CLASS})
    if not found:
        expected = "files under one subfolder a class, or a CSV with the columns path and label" if labelled else "some"
        (kind, number), *_ = [*Counter(entry.kind for entry in entries).most_common(), ("", 0)]
        why = f", and {number:,} files that are {EXCLUDED[kind]}" if kind else ""
        remedy = "keep them by --views all" if kind == "other-view" else "check the path"
        raise InputError(f"{origin}: no radiographs found{why}, expected {expected}; {remedy}")
    classes = findings or config.classes or tuple(name for name in found if labelled)
    missing = [name for name in classes if name not in found and not findings]
    if partial and len(missing) == len(classes):
        raise InputError(
            f"{origin}: labels {', '.join(found)}, expected some of {', '.join(classes)}; translate them with "
            f'--map-label "{found[0]}=CLASS"'
        )
    if missing and not partial:
        raise InputError(
            f"{origin}: no file of class {', '.join(missing)}, expected some of {', '.join(found)}; check --classes"
        )
    if patient_of is not None and not any(entry.patient for entry in entries if not entry.excluded):
        example = next(entry.path for entry in entries if not entry.excluded)
        raise InputError(
            f"{origin}: --group-regex {config.group_regex!r} matches no path, "
            f"expected a match in paths like {example}; correct it"
        )
    if formulas := [name for name in classes if table_path(name) != name]:
        raise InputError(
            f"{origin}: {'finding' if findings else 'class'} {formulas[0]!r}, expected a name that a spreadsheet does "
            "not take for a formula; start it with a letter or a digit"
        )
    # no patients: a caution may be shown to others
    names = {name for entry in given for name in (entry.label, entry.view, entry.source) if as_text(name) != name}
    if names:
        cautions.append(caution("names-in-latin", names=sorted(map(as_text, names))[:MOST_NAMED]))
    if translated:
        cautions.append(caution("labels-translated", labels=translated))
    if joined := [f"{old} = {new}" for old, new in sorted(name_of.items()) if old != new]:
        cautions.append(caution("labels-joined", labels=joined[:MOST_NAMED]))
    if joined := [f"{old} = {new}" for old, new in sorted(source_of.items()) if new and old != new]:
        cautions.append(caution("sources-joined", sources=joined[:MOST_NAMED]))
    views = {entry.view for entry in entries if not entry.excluded} - {""}
    if odd := sorted(view for view in views if not projection(view) and not is_placeholder(view)):
        cautions.append(caution("views-not-understood", views=odd[:MOST_NAMED]))
    others = Counter(entry.label for entry in entries if entry.kind == OTHER_CLASS).most_common()
    if partial and others:
        named = [f"{label} ({number})" for label, number in others[:MOST_LABELS]]
        named += [f"{len(others) - MOST_LABELS} other labels"] if len(others) > MOST_LABELS else []
        cautions.append(caution("labels-left-out", files=sum(dict(others).values()), labels=named))
    if decided:
        taken = zip(given, entries, strict=True)
        cautions += policy_cautions((before.findings for before, entry in taken if not entry.excluded), decided)
    return Catalog(
        root=root, entries=tuple(entries), classes=classes, cautions=tuple(cautions),
        task="findings" if findings else "classes", uncertain=decided.uncertain if decided else {},
        blank=decided.blank if decided else {},
    )  # fmt: skip


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


def check_labels(origin: Path, labels: Iterable[str]) -> None:
    """Errors: InputError for a label that stands for none, such as NaN."""
    names = sorted(set(labels))
    if odd := [name for name in names if is_placeholder(name) and not looks_healthy(name)]:
        rest = ",".join(name for name in names if name not in odd)
        raise InputError(
            f"{origin}: the label {odd[0]!r} stands for none, expected a class; leave its files out by --classes "
            f"{rest}, or name it there, too, or by --map-label"
        )


def translate(entries: list[Entry], config: CatalogConfig) -> tuple[list[Entry], list[str]]:
    """The entries with the labels of --map-label, in any spelling; and what was translated, with the number of files.

    Each label is translated once: `a=b,b=a` exchanges two.  Errors: as translations.
    """
    counts = Counter(as_text(entry.label) for entry in entries if not entry.excluded)
    new_of = translations(config, counts)
    done = [f"{old} = {new_of[spelling(old)]} ({counts[old]})" for old in sorted(counts) if spelling(old) in new_of]
    return [
        replace(entry, label=new_of.get(spelling(as_text(entry.label)), entry.label)) for entry in entries
    ] if new_of else entries, done


def positive_class(classes: Sequence[str], listed: bool) -> str:
    """The positive class by default: the first, but one that looks like health only where the user listed it first."""
    return classes[0] if listed else next((name for name in classes if not looks_healthy(name)), classes[0])


def completed(
    entry: Entry,
    name_of: dict[str, str],
    source_of: dict[str, str],
    config: CatalogConfig,
    pattern: re.Pattern[str] | None,
    above: Sequence[str],
    final_of: Mapping[bytes, bytes],
) -> Entry:
    """The entry with the patient in its path, unless it has one; excluded where view or class are not asked for.

    name_of, source_of: the names of labels and sources.  above: of several roots, what paths begin with.
    final_of: a table's values of findings → those of the entry.
    """
    match = None
    if pattern and not entry.patient:  # ^ may mean the path's start or the name's
        path = entry.path.removeprefix(next((folder for folder in above if entry.path.startswith(folder)), ""))
        match = pattern.search(path) or pattern.search(path.rpartition("/")[2])
    patient = entry.patient or (match and match.group(1)) or ""
    label, patient, view, source = map(as_text, (entry.label, patient, entry.view, entry.source))
    excluded, kind = entry.excluded, entry.kind
    label, patient = name_of.get(label, label), patient_id(patient)
    if kind in ("", "other-finding") and (reason := other_view(view, config.views)):
        excluded, kind = reason, "other-view"
    elif not excluded and config.classes and label not in config.classes:
        excluded, kind = f"class {label} not asked for", OTHER_CLASS
    changed: dict[str, Any] = {"label": label, "patient": patient, "view": view, "source": source_of[source]}
    changed |= {"excluded": excluded, "kind": kind, "findings": final_of.get(entry.findings, b"")}
    return replace(entry, **changed) if any(getattr(entry, name) != value for name, value in changed.items()) else entry
