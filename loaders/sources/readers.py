"""Readers: the one label of a film that a table names in several rows, by boxes or by readers."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from loaders.config import Readers
from loaders.errors import InputError
from loaders.sources.entry import as_text, looks_healthy, spelling

Opinion = tuple[int, str]  # line, label


def merge_labels(
    table: Path, rows: Iterable[tuple[int, str, str, str]], readers: Readers | None = None
) -> dict[str, str]:
    """Path → its one label, in order of first appearance.

    rows: line, path, reader, label.  Rows of a named reader are boxes of one reading, in which a finding wins over its
    absence: a preset whose rows are boxes names one reader throughout.  Where no reader is named, each row is a reader.
    readers: how readers who differ are combined.  any: the finding, if one names it.  all: the finding, if each names
    it.  Both need two labels in the table, one of which looks like health.  majority: what more than half say.
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
    """The opinion that stands for readers who differ.  labels: all in the table."""
    if readers is None:
        raise contradiction(
            table, path, opinions, "one label; correct a row, or combine readers by --readers any, majority or all"
        )
    if readers == "majority":
        (name, most), *_ = Counter(spelling(label) for _, label in opinions).most_common()
        if 2 * most <= len(opinions):
            expected = f"one label from more than half of {len(opinions)} readers; correct a row or drop the film"
            raise contradiction(table, path, opinions, expected)
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
