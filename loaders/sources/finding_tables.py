"""Tables of findings: a column for each, or a list of labels in one column; which there are, and what each row says."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loaders.cautions import Caution, caution
from loaders.config import CatalogConfig
from loaders.errors import ConfigError, InputError
from loaders.sources.entry import (
    ABSENT,
    PLACEHOLDERS,
    PRESENT,
    UNKNOWN,
    as_text,
    bare_words,
    one_name_each,
    spelling,
    translations,
)
from loaders.sources.findings import BESIDE, BLANK, UNCERTAIN, check_once, is_no_finding, matching, read_value
from loaders.sources.table import spaced, table_cells

EXPECTED = "1, 0, -1 (uncertain), nothing, true or false, yes or no, present or absent"
OF_SEVERAL = (PRESENT, UNCERTAIN, UNKNOWN, BLANK, BESIDE, ABSENT)  # of findings that are one: absent where all are
ENDS = " '\"[]"  # around the labels of a list that a program wrote


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What a table says.  of_row: line, or what names a row → a value for each of the names, a byte each.

    Equal bytes are one object.
    """

    names: tuple[str, ...]
    of_row: Mapping[Any, bytes]
    cautions: list[Caution] = field(default_factory=list)


# ---- columns


def column_findings(
    table: Path,
    config: CatalogConfig,
    fits: Callable[[list[str]], bool],
    *,
    others: Callable[[list[str]], Collection[str]] = lambda columns: (),
    names: Sequence[str] = (),
    partial: bool = False,
) -> Findings:
    """The findings of a table with a column for each, by line.  An empty cell is BESIDE where No Finding is 1.

    fits: whether columns are those of the table.  names: the set's own findings, unless config names some; without
    either, all columns are taken whose cells are values of findings.  others: which columns, spaced, are none.
    partial: findings without a column are unknown.
    Errors: ConfigError for names that there are not; InputError for a cell that is no value, and for no findings.
    """
    asked = [name for name in config.findings if name != "all"]
    with table_cells(table, fits) as (written, rows):
        columns = [as_text(column) for column in written]
        new_of = translations(config, columns)
        asked = asked or [new_of.get(spelling(name), name) for name in names]
        aside = [place for place, column in enumerate(columns) if is_no_finding(column)]
        candidates = [place for place, column in enumerate(columns) if column and place not in aside]
        if not asked:
            known = others(columns)
            candidates = value_columns([place for place in candidates if spaced(columns[place]) not in known], rows)
    name_of = {place: new_of.get(spelling(columns[place]), columns[place]) for place in candidates}
    cautions = [] if asked else [caution("findings-taken", findings=[columns[place] for place in candidates])]
    asked = asked or list(dict.fromkeys(name_of.values()))
    if not asked:
        raise InputError(
            f"{table}: columns {', '.join(columns) or 'none'}, of which none has only values of findings, expected "
            f"{EXPECTED}; name columns by --findings, or one of labels by --label-column and --separator"
        )
    options = list(dict.fromkeys(name_of.values()))
    places_of = [[place for place, name in name_of.items() if name in matching(one, options)] for one in asked]
    for name, places in zip(asked, places_of, strict=True):
        if sum(spelling(columns[place]) not in new_of for place in places) > 1:
            raise InputError(
                f"{table}: {len(places)} columns {name}, but for case, blanks and signs, expected one; rename or drop "
                "the others"
            )
    check_once(table, asked, places_of)
    missing = [name for name, places in zip(asked, places_of, strict=True) if not places]
    cautions += check_names(table, asked, missing, options, partial)
    read = sorted({place for places in places_of for place in places})
    with table_cells(table, fits) as (_, rows):
        of_line = read_columns(table, columns, rows, read, aside)
    number_of = Counter(of_line.values())
    joined = {raw: joined_columns(dict(zip(read, raw, strict=True)), places_of) for raw in number_of}
    if done := [
        f"{columns[place]} = {name_of[place]} "
        f"({sum(number for raw, number in number_of.items() if raw[index] == PRESENT)})"
        for index, place in enumerate(read)
        if name_of[place] != columns[place]
    ]:
        cautions.append(caution("labels-translated", labels=done))
    return Findings(names=tuple(asked), of_row={line: joined[raw] for line, raw in of_line.items()}, cautions=cautions)


def value_columns(places: Iterable[int], rows: Iterable[tuple[int, list[str]]]) -> list[int]:
    """The columns whose cells are all values of findings, and not all empty."""
    left, told = list(places), set[int]()
    for _, cells in rows:
        for place in [place for place in left if place < len(cells) and cells[place]]:
            value = read_value(cells[place])
            if value is None:
                left.remove(place)
            elif value != BLANK:
                told.add(place)
    return [place for place in left if place in told]


def read_columns(
    table: Path,
    columns: Sequence[str],
    rows: Iterable[tuple[int, list[str]]],
    read: Sequence[int],
    aside: Sequence[int],
) -> dict[int, bytes]:
    """Line → the values in these columns.  aside: those of No Finding."""
    taken, of_line = (*read, *aside), dict[int, bytes]()
    known: dict[tuple[str, ...], bytes] = {}
    width = max(taken, default=-1) + 1
    for line, cells in rows:
        if len(cells) < width:
            cells = cells + [""] * (width - len(cells))
        key = tuple([cells[place] for place in taken])
        if (raw := known.get(key)) is None:
            values = [read_value(cell) for cell in key]
            if None in values:
                index = values.index(None)
                raise InputError(
                    f"{table}: line {line} has {as_text(key[index])!r} in the column {columns[taken[index]]}, expected "
                    f"{EXPECTED}; correct it, or leave the column out of --findings"
                )
            raw = bytes([value for value in values[: len(read)] if value is not None])
            if PRESENT in values[len(read) :]:
                raw = raw.replace(bytes([BLANK]), bytes([BESIDE]))
            known[key] = raw
        of_line[line] = raw
    return of_line


def joined_columns(value_of: Mapping[int, int], places_of: Iterable[Sequence[int]]) -> bytes:
    """A value for each finding from those of its columns; a finding without a column is unknown."""
    return bytes(
        value_of[places[0]] if len(places) == 1
        else min((value_of[place] for place in places), key=OF_SEVERAL.index, default=UNKNOWN)
        for places in places_of
    )  # fmt: skip


# ---- lists


def listed_findings(
    table: Path,
    cell_of: Mapping[Any, str],
    separator: str,
    config: CatalogConfig,
    *,
    names: Sequence[str] = (),
    partial: bool = False,
    joined: Mapping[str, Sequence[str]] = MappingProxyType({}),
    vague: Collection[str] = (),
) -> Findings:
    """The findings of films whose labels are a list in one cell each.  cell_of: row → its cell.

    A film whose cell names none of a finding has it absent; an empty cell says nothing.  names: the set's own findings,
    unless config names some; without either, all labels.  partial: findings that no cell names are unknown.  joined:
    label → findings that it is, too.  vague: labels beside which what a cell does not name is unknown.
    Errors: ConfigError for names that there are not; InputError for no findings.
    """
    number_of = Counter(cell_of.values())
    labels_of = {cell: list_of(cell, separator) for cell in number_of}
    for several in filter(None, labels_of.values()):
        several += [name for label in tuple(several) for name in joined.get(label, ()) if name not in several]
    counts: Counter[str] = Counter()
    for cell, number in number_of.items():
        counts.update(dict.fromkeys(labels_of[cell] or (), number))
    new_of = translations(config, counts)
    name_of = {label: new_of.get(spelling(label), label) for label in counts}
    names = [new_of.get(spelling(name), name) for name in names]
    options = sorted(name for name in set(name_of.values()) if not is_no_finding(name) and name not in vague)
    asked = [name for name in config.findings if name != "all"] or names
    labels = [name for label, name in name_of.items() for _ in range(counts[label]) if name in options]
    asked = asked or sorted(set(one_name_each(labels).values()))
    if not asked:
        raise InputError(f"{table}: no labels but No Finding or nothing, expected findings; check the column of labels")
    own = [matching(name, options) for name in asked]
    check_once(table, asked, own)
    missing = [name for name, found in zip(asked, own, strict=True) if not found and not matching(name, names)]
    cautions = check_names(table, asked, missing, list(dict.fromkeys([*options, *names])), partial)
    place_of = {name: place for place, found in enumerate(own) for name in found}
    empty_K = bytes(UNKNOWN if name in missing else ABSENT for name in asked)
    of_cell = {}
    for cell, found in labels_of.items():
        value_K = bytearray(len(asked) * [UNKNOWN] if vague and not set(vague).isdisjoint(found or ()) else empty_K)
        if found is None:
            nothing = UNKNOWN if read_value(cell.strip(ENDS)) == UNKNOWN else BLANK
            value_K = bytearray(UNKNOWN if value == UNKNOWN else nothing for value in empty_K)
        for place in {place_of[name_of[label]] for label in found or () if name_of[label] in place_of}:
            value_K[place] = PRESENT
        of_cell[cell] = bytes(value_K)
    shared = {raw: raw for raw in of_cell.values()}
    if done := [f"{old} = {name_of[old]} ({counts[old]})" for old in sorted(counts) if name_of[old] != old]:
        cautions.append(caution("labels-translated", labels=done))
    of_row = {row: shared[of_cell[cell]] for row, cell in cell_of.items()}
    return Findings(names=tuple(asked), of_row=of_row, cautions=cautions)


def list_of(cell: str, separator: str) -> list[str] | None:
    """The labels in a cell, each once; None for a cell that stands for nothing."""
    labels = dict.fromkeys(filter(None, (part.strip(ENDS) for part in as_text(cell).split(separator))))
    told = [label for label in labels if bare_words(label) not in PLACEHOLDERS]
    return told or None


# ---- names


def check_names(
    table: Path, asked: Sequence[str], missing: Sequence[str], options: Sequence[str], partial: bool
) -> list[Caution]:
    """A caution for findings that a table lacks, where some will do.  Errors: ConfigError, InputError."""
    if healthy := next(filter(is_no_finding, asked), ""):
        raise ConfigError(
            f"--findings: found {healthy}, expected findings: where it is 1, empty cells of others are absent anyway; "
            "leave it out"
        )
    if missing and not partial:
        raise ConfigError(f"--findings: found {missing[0]!r}, expected some of {', '.join(options)}, as in {table}")
    if len(missing) == len(asked):
        raise InputError(
            f"{table}: findings {', '.join(options) or 'none'}, expected some of {', '.join(asked)}; translate them "
            f'with --map-label "{next(iter(options), "NAME")}={asked[0]}"'
        )
    return [caution("findings-lacking", findings=list(missing))] if missing else []
