"""Tables: the ways of writing one that programs and people have."""

import gzip
from pathlib import Path

import pytest

from loaders.errors import InputError
from loaders.sources.table import read_rows, table_rows

PLAIN = "path,label,patient\na b.png,no finding,1\nc.png,covid,2\n"
WANTED = [("a b.png", "no finding", "1"), ("c.png", "covid", "2")]
GREAT, GREAT_ROWS = "path,label,patient\ngr\u00f6\u00dfe.png,\u00fcbel,1\n", [("gr\u00f6\u00dfe.png", "\u00fcbel", "1")]
DIALECTS: dict[str, bytes] = {
    "plain": PLAIN.encode(),
    "BOM": PLAIN.encode("utf-8-sig"),
    "BOM and a quoted first name": PLAIN.replace("path", '"path"').encode("utf-8-sig"),
    "two BOMs": ("\ufeff" + PLAIN).encode("utf-8-sig"),
    "CRLF": PLAIN.replace("\n", "\r\n").encode(),
    "CR": PLAIN.replace("\n", "\r").encode(),
    "mixed line ends": PLAIN.replace("\n", "\r\n", 1).encode(),
    "no end of the last line": PLAIN.rstrip().encode(),
    "semicolons": PLAIN.replace(",", ";").encode(),
    "semicolons, BOM and CRLF": PLAIN.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig"),
    "tabs": PLAIN.replace(",", "\t").encode(),
    "bars": PLAIN.replace(",", "|").encode(),
    "Excel's Unicode text": PLAIN.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"),
    "UTF-16, big-endian": b"\xfe\xff" + PLAIN.encode("utf-16-be"),
    "UTF-16 with semicolons": PLAIN.replace(",", ";").encode("utf-16"),
    "a line sep=": ("sep=;\r\n" + PLAIN.replace(",", ";")).encode(),
    "all quoted": b'"path","label","patient"\n"a b.png","no finding","1"\n"c.png","covid","2"\n',
    "quoted with semicolons": b'"path";"label";"patient"\n"a b.png";"no finding";"1"\n"c.png";"covid";"2"\n',
    "blanks after commas": b"path, label, patient\na b.png, no finding, 1\nc.png, covid, 2\n",
    "blanks before commas": b"path ,label ,patient \na b.png ,no finding ,1 \nc.png ,covid ,2 \n",
    "blanks before quotes": b'path, "label", "patient"\na b.png, "no finding", "1"\nc.png, "covid", "2"\n',
    "blanks after quotes": b'"path" ,"label" ,patient\n"a b.png" ,"no finding" ,1\n"c.png" ,"covid" ,2\n',
    "blanks in quotes": b'" path "," label ",patient\n" a b.png "," no finding ",1\nc.png,covid,2\n',
    "blanks that do not break": "path,\xa0label,patient\xa0\na b.png,\xa0no finding,1\nc.png,covid\xa0,2\n".encode(),
    "capitals": b"Path,LABEL,Patient\na b.png,no finding,1\nc.png,covid,2\n",
    "another order": b"patient,path,label\n1,a b.png,no finding\n2,c.png,covid\n",
    "an index of pandas": b",path,label,patient\n0,a b.png,no finding,1\n1,c.png,covid,2\n",
    "columns beside": b"site,path,note,label,patient\nA,a b.png,,no finding,1\nB,c.png,x,covid,2\n",
    "quoted commas": b'path,note,label,patient\na b.png,"left, lower",no finding,1\nc.png,"a, b",covid,2\n',
    "quoted quotes": b'path,note,label,patient\na b.png,"a ""spot""",no finding,1\nc.png,"""",covid,2\n',
    "quoted newlines": b'path,note,label,patient\na b.png,"left,\nlower\n",no finding,1\nc.png,"\r\n",covid,2\n',
    "a newline in a name": b'path,"note\nof two lines",label,patient\na b.png,,no finding,1\nc.png,,covid,2\n',
    "inches": b'path,note,label,patient\na b.png,14" film,no finding,1\nc.png,17" film,covid,2\n',
    "semicolons and decimal commas": b"path;dose;label;patient\na b.png;1,5;no finding;1\nc.png;0,5;covid;2\n",
    "commas and semicolons in cells": b"path,label,patient,tags\na b.png,no finding,1,x;y;z\nc.png,covid,2,\n",
    "more semicolons than commas": b"path,a;b;c;d;e,label,patient\na b.png,,no finding,1\nc.png,,covid,2\n",
    "empty lines": b"\n\npath,label,patient\n\na b.png,no finding,1\n\n\nc.png,covid,2\n\n",
    "rows of commas": b",,\npath,label,patient\n,,\na b.png,no finding,1\n,,,,\nc.png,covid,2\n , ,\n",
    "trailing commas": b"path,label,patient,,\na b.png,no finding,1,,\nc.png,covid,2,,\n",
    "trailing commas in rows": b"path,label,patient\na b.png,no finding,1,\nc.png,covid,2,,,\n",
    "gzip": gzip.compress(PLAIN.encode(), mtime=0),
    "gzip, BOM, semicolons and CRLF": gzip.compress(
        PLAIN.replace(",", ";").replace("\n", "\r\n").encode("utf-8-sig"), mtime=0
    ),
    "gzip of UTF-16": gzip.compress(PLAIN.replace(",", "\t").encode("utf-16"), mtime=0),
    "gzip in two parts": gzip.compress(PLAIN[:30].encode(), mtime=0) + gzip.compress(PLAIN[30:].encode(), mtime=0),
    "a cell of a million letters": f'path,rle,label,patient\na b.png,"{"1 2 " * 250_000}",no finding,1\n'.encode()
    + b"c.png,,covid,2\n",
    "cells missing at the end": b"path,label,patient,view\na b.png,no finding,1\nc.png,covid,2,PA\n",
}


def cells(table: Path) -> list[tuple[str, str, str]]:
    rows = table_rows(table, ("path", "label"), ("patient",), "name them so", filled=("path", "label"))
    return [(row["path"], row["label"], row["patient"]) for _, row in rows]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_table_says_the_same_in_each_of_its_dialects(tmp_path: Path, dialect: str) -> None:
    table = tmp_path / "films.csv"
    table.write_bytes(DIALECTS[dialect])
    assert cells(table) == WANTED


def test_there_are_forty_dialects() -> None:
    assert len(set(DIALECTS.values())) == len(DIALECTS) >= 40


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_letters_beyond_ascii_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "films.csv").write_bytes(GREAT.encode(encoding))
    assert cells(tmp_path / "films.csv") == GREAT_ROWS


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    table = tmp_path / "films.csv"
    table.write_text('sep=,\n\npath,note\na.png,"one\ntwo"\n,\nb.png,\n')
    assert [line for line, _ in table_rows(table, ("path",), (), "")] == [5, 7]
    table.write_text("path,note\na.png,\nb.png,\n a.png,\n")
    with pytest.raises(InputError, match=r"line 4 repeats a\.png of line 2, expected each file once; drop a row"):
        read_rows(table, lambda row: row["path"], ("path",), (), "")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "columns none, expected at least path and label; name them so"),
        (b"\n,,\n", "columns none, expected"),
        (b"file;finding\na.png;covid\n", "columns file, finding, expected at least path and label; name them so"),
        (b"path,label\na.png,\n", "line 2 has no label, expected one in every row"),
        (b"path,label\na.png,left, lower\n", 'line 2 has 3 cells, expected 2 as in the first line; put " around'),
        (b"path\tlabel\na.png\tleft\tlower\n", "a cell that contains a tab"),
        (b'path,label,note\na.png,covid,"x\nb.png,covid,\n', 'line 2 opens a cell with " that does not end'),
        (b"PK\3\4\x14\0\x06\0", "a workbook or archive, expected a table; save it as CSV in UTF-8"),
        (
            gzip.compress(PLAIN.encode(), mtime=0)[:-12],
            r"damaged gzip file \(.*\), expected a whole one; copy it again",
        ),
        (b"\x1f\x8b\x08\xff" + bytes(40), "damaged gzip file"),
        (b"\xff\xfep", r"not a CSV \(.*truncated data\), expected a table; save it as CSV in UTF-8"),
        (b"path,label\n" + b"a" * (1 << 24), "line 2 is endless, expected a table of files; check the path"),
    ],
)
def test_what_is_no_table_is_refused_with_the_line_and_the_remedy(tmp_path: Path, content: bytes, found: str) -> None:
    table = tmp_path / "films.csv"
    table.write_bytes(content)
    with pytest.raises(InputError, match=rf"films\.csv: .*{found}"):
        cells(table)


@pytest.mark.parametrize("unit", [b"a.png,covid,1\n", b"\n", b"a" * 10_000 + b",covid,1\n", bytes(10_000)])
def test_a_gzip_bomb_is_refused_before_it_fills_memory(tmp_path: Path, unit: bytes, monkeypatch) -> None:
    monkeypatch.setattr("loaders.sources.table.MOST_LINES", 20_000)
    monkeypatch.setattr("loaders.sources.table.MOST_TEXT", 1 << 22)
    monkeypatch.setattr("loaders.sources.table.LONGEST_LINE", 1 << 20)
    table = tmp_path / "films.csv.gz"
    table.write_bytes(gzip.compress(b"path,label,patient\n" + unit * 30_000, 1))
    with pytest.raises(InputError, match=r"; (unpack it first, if you trust it|check the path)$"):
        cells(table)
