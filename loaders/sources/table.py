"""Tables as hospitals, spreadsheets and public sets write them, read row by row whatever their dialect."""

import codecs
import csv
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from loaders.atomic_file import storage_error
from loaders.errors import InputError
from loaders.sources.entry import as_text

DELIMITERS = ",;\t|"
LONGEST_LINE = 1 << 24  # letters; a run-length mask of a whole film has a tenth
MOST_LINES, MOST_TEXT = 2_000_000, 1 << 29  # lines and letters of a gzipped table: five times MIMIC-CXR's
WORKBOOKS = (b"PK\3\4", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
SEPARATOR_LINE = re.compile(r"\s*sep=(.)?\s*", re.IGNORECASE | re.DOTALL)  # which Excel reads, and some write


def read_rows(
    table: Path,
    path_of: Callable[[dict[str, str]], str],
    required: Sequence[str],
    optional: Sequence[str],
    remedy: str,
    filled: Sequence[str] = (),
    strip: bool = True,
) -> dict[str, tuple[int, dict[str, str]]]:
    """The rows of a table that has each file once: path → (line, column → text); see table_rows.

    path_of: a row's path.  Errors: as table_rows, and InputError for a path that is repeated.
    """
    row_of: dict[str, tuple[int, dict[str, str]]] = {}
    for line, row in table_rows(table, required, optional, remedy, filled, strip):
        first, _ = row_of.setdefault(path := path_of(row), (line, row))
        if first != line:
            raise InputError(
                f"{table}: line {line} repeats {path} of line {first}, expected each file once; drop a row"
            )
    return row_of


def table_rows(
    table: Path,
    required: Sequence[str],
    optional: Sequence[str],
    remedy: str,
    filled: Sequence[str] = (),
    strip: bool = True,
) -> list[tuple[int, dict[str, str]]]:
    """Every row of a table in order: (its last line, column → text); column names in lower case, any bytes in cells.

    Between cells are commas, semicolons, tabs or bars; the text is UTF-8, UTF-16 with a byte order mark or, by the
    cell, Latin-1 (as_text), perhaps gzipped.  Gives required and optional columns only, "" where a row ends early; rows
    without any text are left out.  remedy: what to do about a missing column.  filled: columns that no row may leave
    empty.  strip: cells are stripped of blanks.
    Errors: InputError for a missing column, no table, an empty cell or a row longer than the header; StorageError.
    """
    names = (*required, *optional)
    rows = []
    with opened(table) as file:
        columns, records = read_records(table, file, lambda found: set(required) <= set(lowered(found)), strip)
        columns = lowered(columns)
        if repeated := [name for name in names if columns.count(name) > 1]:
            raise InputError(
                f"{table}: {columns.count(repeated[0])} columns {repeated[0]}, but for case and blanks, "
                "expected one; rename or drop the others"
            )
        if not set(required) <= set(columns):
            wanted = " and ".join(filter(None, (", ".join(required[:-1]), required[-1])))
            raise InputError(f"{table}: columns {', '.join(columns) or 'none'}, expected at least {wanted}; {remedy}")
        places = {name: columns.index(name) for name in names if name in columns}
        absent = dict.fromkeys(names, "")
        for line, cells in records:
            row = absent | {name: cells[place] for name, place in places.items() if place < len(cells)}
            if lacking := [name for name in filled if not row[name]]:
                raise InputError(
                    f"{table}: line {line} has no {lacking[0]}, expected one in every row; fill it in or drop the row"
                )
            rows.append((line, row))
    return rows


def table_columns(table: Path, fits: Callable[[list[str]], bool]) -> list[str]:
    """The names of a table's columns, stripped of blanks.  fits: whether they are the ones that are looked for.

    Errors: InputError for no table; StorageError.
    """
    with opened(table) as file:
        return read_records(table, file, fits, True)[0]


@contextmanager
def table_cells(
    table: Path, fits: Callable[[list[str]], bool]
) -> Iterator[tuple[list[str], Iterator[tuple[int, list[str]]]]]:
    """The names of a table's columns, and its rows one by one: (line, cells); a row may end early.

    For tables of which only a few different rows are to be kept.  Errors: as table_columns, and table_rows for a row.
    """
    with opened(table) as file:
        yield read_records(table, file, fits, True)


def spaced(name: str) -> str:
    """A column's name, case and blanks aside."""
    return " ".join(name.lower().split())


def lowered(columns: Sequence[str]) -> list[str]:
    """Names of columns, case and blanks aside."""
    return [spaced(name) for name in columns]


def read_records(
    table: Path, file: TextIO, fits: Callable[[list[str]], bool], strip: bool
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The columns by the first delimiter with which they fit, or else with which they are most; and what follows.

    Gives (line, cells) of each row that has any text, the first time that they are asked for.
    """
    lines, skipped = bounded_lines(table, file), 0
    for header in lines:
        skipped += 1
        if header.strip(",;\t| \r\n") and not SEPARATOR_LINE.fullmatch(header):
            break
    else:
        return [], iter(())
    split_by = {sign: next(csv.reader([header], delimiter=sign, skipinitialspace=True)) for sign in DELIMITERS}
    fitting = [sign for sign in DELIMITERS if fits([named(cell) for cell in split_by[sign]])]
    delimiter = fitting[0] if fitting else max(DELIMITERS, key=lambda sign: len(split_by[sign]))
    since: list[str] = []  # lines of the row that is being read

    def watched() -> Iterator[str]:
        for line in itertools.chain([header], lines):
            since.append(line)
            yield line

    reader = csv.reader(watched(), delimiter=delimiter, skipinitialspace=strip)
    columns = [named(cell) for cell in next(reader)]
    num_columns = len(columns)

    def records() -> Iterator[tuple[int, list[str]]]:
        since.clear()
        for cells in reader:
            line = reader.line_num + skipped - 1
            if len(since) > 1 and "".join(since).count('"') % 2:
                raise InputError(
                    f'{table}: line {line - len(since) + 1} opens a cell with " that does not end, expected a second; '
                    "add or remove the sign"
                )
            since.clear()
            if strip:
                cells = [cell.strip() for cell in cells]
            if any(cells[num_columns:]) and any(cell.strip() for cell in cells[num_columns:]):
                raise InputError(
                    f"{table}: line {line} has {len(cells)} cells, expected {num_columns} as in the first line; "
                    f'put " around a cell that contains {"a tab" if delimiter == chr(9) else delimiter}'
                )
            if any(cells) and (strip or any(cell.strip() for cell in cells)):
                yield line, cells

    return columns, records()


def named(cell: str) -> str:
    """The name of a column as its cell has it."""
    return as_text(cell).strip("\ufeff").strip()


def bounded_lines(table: Path, file: TextIO) -> Iterator[str]:
    """The lines of a table, with their ends.  Errors: InputError for a line, or a gzipped table, of endless length."""
    size, packed = 0, is_gzip(table)
    for number in itertools.count(1):
        line = file.readline(LONGEST_LINE)
        size += len(line)
        if len(line) == LONGEST_LINE:
            raise InputError(f"{table}: line {number} is endless, expected a table of files; check the path")
        if packed and (number > MOST_LINES or size > MOST_TEXT):
            raise InputError(
                f"{table}: more than {MOST_LINES:,} lines or {MOST_TEXT:,} letters, gzipped, expected fewer; unpack it "
                "first, if you trust it"
            )
        if not line:
            return
        yield line


@contextmanager
def opened(table: Path) -> Iterator[TextIO]:
    """The text of a table, unpacked and decoded.  Errors: InputError for what is no table, here and in the body."""
    check_regular(table)
    limit = csv.field_size_limit(LONGEST_LINE)
    try:
        with gzip.open(table) if is_gzip(table) else table.open("rb") as data:
            head = data.peek(4)[:4]
            if head.startswith(WORKBOOKS):
                raise InputError(f"{table}: a workbook or archive, expected a table; save it as CSV in UTF-8")
            if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                yield io.TextIOWrapper(data, "utf-16", newline="")
            else:
                yield io.TextIOWrapper(data, "utf-8-sig", errors="surrogateescape", newline="")
    except (csv.Error, UnicodeError) as error:
        raise InputError(f"{table}: not a CSV ({error}), expected a table; save it as CSV in UTF-8") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{table}: damaged gzip file ({error}), expected a whole one; copy it again") from error
    except OSError as error:
        raise storage_error(table, error) from error
    finally:
        csv.field_size_limit(limit)


def is_gzip(table: Path) -> bool:
    """Whether a file is gzipped, by its first bytes."""
    with table.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def check_regular(table: Path) -> None:
    """Errors: InputError for a table that exists and is no regular file: reading a FIFO would wait for ever."""
    if table.exists() and not table.is_file():
        kind = "a folder" if table.is_dir() else "a FIFO or device"
        raise InputError(f"{table}: {kind}, expected a regular file; check the path")
