"""Manifests: tables of files whose columns are found by their usual spellings, and whose paths lie below roots."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from loaders.cautions import Caution, caution
from loaders.config import CatalogConfig, Readers
from loaders.errors import ConfigError, InputError
from loaders.images.files import SUFFIXES
from loaders.sources.entry import (
    EXCLUDED,
    SPLIT_NAMES,
    SPLITS,
    Entry,
    as_text,
    files_below,
    kind_aside,
    looks_healthy,
    may_be_picture,
    patient_id,
    spelling,
)
from loaders.sources.finding_tables import Findings, column_findings, listed_findings
from loaders.sources.findings import merge_findings, policies
from loaders.sources.table import spaced, table_columns, table_rows

COLUMNS = {  # what a column has, by its plain name → usual spellings, letters and digits alone
    "path": "path filepath fullpath relativepath imagepath imgpath dicompath pngpath jpgpath filename file image "
    "imagefile imagefilename imagename imageindex imageid xrayimagename img",
    "label": "label labels imagelabel finding findings findinglabel findinglabels class classname classlabel category "
    "diagnosis target disease pathology",
    "patient": "patient patientid patientnumber patientname subject subjectid personid pid",
    "view": "view views viewposition viewpos viewname projection appa",
    "plane": "frontallateral",  # CheXpert's, beside AP/PA
    "source": "source dataset site hospital institution database center centre",
    "sex": "sex gender patientsex patientgender",
    "age": "age patientage ageyears ageinyears patientageyears",
    "split": "split datasplit datasettype partition",
    "reader": "reader readerid radid radiologist radiologistid rater raterid annotator annotatorid observer",
}
UNTIDY = re.compile(r"//|(?:^|/)\.(?:/|$)|/$")  # ./ and the like in a path
Opinion = tuple[int, str]  # line, label
MUST_AGREE = ("patient", "view", "source", "split")  # of rows that repeat a file


def manifest_entries(
    config: CatalogConfig, partial: bool = False, labelled: bool = True
) -> tuple[list[Entry], Path, list[Caution], tuple[str, ...]]:
    """The files of a manifest in order, each once; the folder that their paths are relative to; what was assumed; and
    the findings' names, of which entries then have the values as the table has them.

    partial: some of the findings asked for will do.  labelled: else the table needs no labels.

    Errors: ConfigError for a column or root that there is not; InputError for a missing column or cell, rows of one
    file that contradict each other, or a split of another name; StorageError.
    """
    manifest, base = config.manifest, common_folder(config)
    assert manifest is not None
    named = {name: getattr(config, f"{name}_column", None) for name in COLUMNS}
    asked, findings = {spaced(text) for text in named.values() if text}, config.task == "findings"
    of_columns = findings and config.separator is None
    needed = ["path"] if of_columns or not (labelled or findings) else ["path", "label"]

    def fits(columns: list[str]) -> bool:
        found = {spaced(name) for name in columns}
        return asked <= found and all(named[name] or candidates(columns, name) for name in needed)

    columns = table_columns(manifest, fits)
    chosen = [name for name in named if name in needed or name != "label" or not of_columns]
    column_of = {name: chosen_column(manifest, columns, name, named[name]) for name in chosen}
    if config.view_column:
        column_of["plane"] = None
    required = [column_of[name] or name for name in needed]
    optional = [column for name, column in column_of.items() if column and name not in needed]
    remedy = f"name them so in the first line, or by {' and '.join(f'--{name}-column' for name in needed)}"
    filled = required[:1] if findings else required  # nothing is named on some films
    rows = table_rows(manifest, required, optional, remedy, filled=filled)
    column_of |= dict(zip(needed, required, strict=True))
    found, cautions = Findings(names=(), of_row={}), list[Caution]()
    if config.separator is not None:
        cells = {line: row[required[1]] for line, row in rows}
        found = listed_findings(manifest, cells, config.separator, config, partial=partial)
    elif findings:
        found = column_findings(manifest, config, fits, others=known_columns(asked), partial=partial)
    place, of_studies = path_finder(base, config.root), 0
    kept: dict[str, tuple[int, dict[str, str]]] = {}
    told: list[tuple[int, str, str, str]] = []  # line, path, reader, label
    for line, row in rows:
        values = {name: row[column] if column else "" for name, column in column_of.items()}
        path, values["view"] = place(values.pop("path")), values["view"] or values.pop("plane")
        values["split"] = split_name(manifest, line, values["split"])
        films = films_of_study(base, path) if findings else []
        of_studies += len(films)
        for film in films or [path]:
            told.append((line, film, values["reader"], values.get("label", "")))
            first, before = kept.setdefault(film, (line, values))
            if first != line:
                kept[film] = first, merged_row(manifest, film, (first, before), (line, values))
    labels: dict[str, str] = {}
    values_of: dict[str, bytes] = {}
    if findings:
        opinions = ((line, path, reader, found.of_row[line]) for line, path, reader, _ in told)
        decided = policies(found.names, config)
        values_of = merge_findings(manifest, opinions, found.names, config.readers, decided)
    elif len(kept) < len(told):
        labels = merge_labels(manifest, told, config.readers)
    fields = (*MUST_AGREE, "sex", "age")
    entries = []
    for path, (_, values) in kept.items():
        told_of: dict[str, Any] = {name: values[name] for name in fields}
        label = "" if findings else labels.get(path, values["label"])
        told_of["kind"] = "" if label or findings or not labelled else "readers-differ"
        told_of["excluded"] = EXCLUDED.get(told_of["kind"], "")
        entries.append(Entry(path=path, label=label, findings=values_of.get(path, b""), **told_of))
    by_spelling = [
        f"{header_of(columns, column)} as {'view' if name == 'plane' else name}"
        for name, column in column_of.items()
        if column and column != name and not named[name]
    ]
    cautions = [caution("columns-taken", columns=by_spelling)] if by_spelling else []
    if of_studies:
        cautions.append(caution("studies-taken", films=of_studies))
    if len(kept) < len(told):
        cautions.append(caution("rows-merged", rows=len(rows), files=len(kept)))
    return entries, base, cautions + found.cautions, found.names


# ---- columns


def candidates(columns: Sequence[str], name: str) -> list[str]:
    """The columns that may have this: the one of that plain name, or else all with a usual spelling."""
    if plain := [column for column in columns if spaced(column) == name]:
        return plain[:1]
    spellings = COLUMNS[name].split()
    return [column for column in columns if "".join(filter(str.isalnum, column.casefold())) in spellings]


def known_columns(asked: Collection[str]) -> Callable[[list[str]], set[str]]:
    """A function from a table's columns to those, spaced, that hold no finding.  asked: by options."""
    return lambda columns: {
        *asked, *(spaced(column) for name in COLUMNS for column in candidates(columns, name))
    }  # fmt: skip


def chosen_column(manifest: Path, columns: Sequence[str], name: str, asked: str | None) -> str | None:
    """The column that has this, in lower case, or None.  asked: by an option."""
    flag = f"--{name}-column"
    if asked:
        found = [column for column in columns if spaced(column) == spaced(asked)]
        if not found:
            raise ConfigError(f"{flag}: found {asked!r}, expected one of {', '.join(columns)} in {manifest}")
        return spaced(found[0])
    found = candidates(columns, name)
    if len(found) > 1 and name in ("sex", "age"):  # seldom asked for: the option decides where they are
        return None
    if len(found) > 1:
        remedy = f"decide by {flag}" if hasattr(CatalogConfig, f"{name}_column") else "rename one"
        raise InputError(
            f"{manifest}: the columns {' and '.join(found)} may each be the {name}, expected one; {remedy}"
        )
    return spaced(found[0]) if found else None


def header_of(columns: Sequence[str], lowered: str) -> str:
    """A column's name as written."""
    return next(column for column in columns if spaced(column) == lowered)


# ---- rows


def split_name(manifest: Path, line: int, text: str) -> str:
    """train, val, heldout or "".  Errors: InputError."""
    if text and text.casefold() not in SPLIT_NAMES:
        raise InputError(
            f"{manifest}: line {line} has split {as_text(text)!r}, expected {', '.join(SPLITS)} or nothing; correct it"
        )
    return SPLIT_NAMES.get(text.casefold(), "")


def merged_row(
    manifest: Path, path: str, first: tuple[int, dict[str, str]], again: tuple[int, dict[str, str]]
) -> dict[str, str]:
    """The first row of a file, what it leaves empty filled.  Errors: InputError where another row contradicts it."""
    (line, kept), (later, values) = first, again
    kept = dict(kept)  # which other films of a study have, too
    for name in (*MUST_AGREE, "sex", "age"):
        one, other = (patient_id(as_text(row[name])) if name == "patient" else row[name] for row in (kept, values))
        if name in MUST_AGREE and one and other and one.casefold() != other.casefold():
            shown = "" if name == "patient" else f" ({as_text(one)} and {as_text(other)})"  # patients are not quoted
            raise InputError(
                f"{manifest}: lines {line} and {later} have {as_text(path)} with another {name} each{shown}, expected "
                "one for a file; correct or drop a row"
            )
        kept[name] = kept[name] or values[name]
    return kept


# ---- paths


def common_folder(config: CatalogConfig) -> Path:
    """The folder that entries' paths are relative to: --root, that above several of them, or the manifest's own."""
    if len(config.root) > 1:
        return Path(os.path.commonpath(list(map(os.path.realpath, config.root))))
    return Path(os.path.realpath(config.root[0])) if config.root else config.origin.parent


def path_finder(base: Path, roots: Sequence[Path]) -> Callable[[str], str]:
    """A function from a path as written to the one relative to base, with forward slashes.

    Relative paths lie below the first root that has the file, absolute ones below any; those below none stay as they
    are, for decoding to refuse.  Backslashes are slashes where the file as written is not there.
    """
    real = list(map(os.path.realpath, roots))
    prefixes = [
        (f"{str(prefix).rstrip('/')}/", f"{root.rstrip('/')}/")
        for given, root in zip(roots, real, strict=True)
        for prefix in (given.absolute(), root)
    ]
    inner = f"{str(base).rstrip('/')}/"

    def below_root(target: str) -> str | None:
        for prefix, root in prefixes:
            if target.startswith(prefix):
                return (root + target[len(prefix) :]).removeprefix(inner)
        return None

    def located(path: str, climbs: bool) -> str | None:
        """None where no file is found."""
        if not roots:
            return path if os.path.lexists(inner + path) else None
        for root in [""] if path.startswith("/") else dict.fromkeys(root for _, root in prefixes):
            target = root + path
            if os.path.lexists(target):
                return (None if climbs else below_root(target)) or below_root(os.path.realpath(target)) or target
        return None

    def place(written: str) -> str:
        path, climbs = tidy(written), ".." in written
        if "\\" in path:
            return located(path, climbs) or located(tidy(written.replace("\\", "/")), climbs) or path
        if not roots or (len(roots) == 1 and not climbs and not path.startswith("/")):
            return path
        return located(path, climbs) or (path if climbs else below_root(f"{real[0]}/{path}")) or path

    return place


def films_of_study(base: Path, path: str) -> list[str]:
    """The pictures in the folder that a row names instead of a film; none where it names none."""
    if path[path.rfind(".") :].lower() in SUFFIXES or not (folder := base / path).is_dir():
        return []
    below = (one for one in files_below(folder) if not kind_aside(one) and may_be_picture(one.name))
    return [(PurePosixPath(path) / one).as_posix() for one in below]


def tidy(path: str) -> str:
    """A path without ./ and doubled slashes."""
    return PurePosixPath(path).as_posix() if UNTIDY.search(path) else path


# ---- readers


def merge_labels(
    table: Path, rows: Iterable[tuple[int, str, str, str]], readers: Readers | None = None
) -> dict[str, str]:
    """Path → its one label, in order of first appearance.

    rows: line, path, reader, label.  Rows of a named reader are boxes of one reading, in which a finding wins over its
    absence.  Where no reader is named, each row is a reader.
    readers: how readers who differ are combined.  any: the finding, if one names it.  all: the finding, if each names
    it.  Both need two labels in the table, one of which looks like health.  majority: what more than half say, or "".
    Errors: InputError with the lines and labels where rows contradict each other and readers does not settle it.
    """
    told: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
    names: dict[str, str] = {}  # spelling → label
    for line, path, reader, label in rows:
        told[path].append((line, reader, label))
        names.setdefault(spelling(label), label)
    merged = {}
    for path, of_path in told.items():
        opinions = [(line, label) for line, _, label in of_path]
        if differ(opinions):
            opinions = reader_opinions(table, path, of_path)
            if differ(opinions):
                opinions = [combined(table, path, opinions, readers, tuple(names.values()))]
        merged[path] = opinions[0][1]
    return merged


def reader_opinions(table: Path, path: str, rows: Sequence[tuple[int, str, str]]) -> list[Opinion]:
    """One opinion a reader.  rows: line, reader, label of one film."""
    of_reader: dict[str, list[Opinion]] = defaultdict(list)
    for line, reader, label in rows:
        of_reader[reader].append((line, label))
    opinions = of_reader.pop("", [])
    for boxes in of_reader.values():
        findings = [box for box in boxes if not looks_healthy(box[1])]
        if differ(findings):
            raise contradiction(table, path, findings, "one finding of one reader; correct a row")
        opinions.append((findings or boxes)[0])
    return opinions


def combined(
    table: Path, path: str, opinions: Sequence[Opinion], readers: Readers | None, labels: Sequence[str]
) -> Opinion:
    """The opinion that stands for readers who differ, "" without a majority.  labels: all in the table."""
    if readers is None:
        raise contradiction(
            table, path, opinions, "one label; correct a row, or combine readers by --readers any, majority or all"
        )
    if readers == "majority":
        (name, most), *_ = Counter(spelling(label) for _, label in opinions).most_common()
        if 2 * most <= len(opinions):
            return opinions[0][0], ""
        return next(opinion for opinion in opinions if spelling(opinion[1]) == name)
    if len(labels) != 2 or sum(map(looks_healthy, labels)) != 1:
        shown = ", ".join(map(as_text, labels[:4])) + ", …" * (len(labels) > 4)
        raise InputError(
            f"{table}: --readers {readers} with the labels {shown}, expected two, one of which means health, such as "
            "normal or 0; use --readers majority"
        )
    return next(opinion for opinion in opinions if looks_healthy(opinion[1]) == (readers == "all"))


def differ(opinions: Sequence[Opinion]) -> bool:
    """Whether not all have one label, whatever its spelling."""
    return len(opinions) > 1 and len({spelling(label) for _, label in opinions}) > 1


def contradiction(table: Path, path: str, opinions: Sequence[Opinion], expected: str) -> InputError:
    """The error of rows that contradict each other; names the first two that do."""
    first, second = opinions[0], next(one for one in opinions if differ([opinions[0], one]))
    labels = " and ".join(f"{as_text(label)!r} (line {line})" for line, label in (first, second))
    return InputError(f"{table}: {as_text(path)} is {labels}, expected {expected}")
