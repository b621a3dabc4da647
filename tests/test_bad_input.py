"""Tests of bad input at the command line: a message that helps, DESIGN's exit code, no traceback, no half a file."""

# N samples

import contextlib
import csv
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cli
from engine.evaluate.trained import load_trained
from engine.export.model_card import card_of
from engine.train.checkpoint import load_checkpoint
from loaders.atomic_file import SUFFIX
from loaders.beton.reader import Beton
from tests.example_run import results_of
from tests.faults.processes import ForkServer

REPOSITORY = Path(__file__).parents[1]
NOBODY = 65534
CLASSES = ("covid", "normal")

Command = Callable[..., "Outcome"]


class Outcome:
    """What one command left: its exit code and what it printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err
        assert "Traceback" not in out + err
        # a raw escape or newline of a file name could rewrite what the terminal shows
        assert not re.search(r"[^\n\r\t -~\x80-\U0010ffff]|[\x80-\x9f]", out + err), (out, err)

    def fails(self, code: int, *found: object) -> None:
        """Check the exit code, and that the one line of stderr has each of these and what was expected."""
        assert self.code == code, (self.code, self.out, self.err)
        message = self.err.strip().splitlines()[-1]
        for text in map(str, found):
            assert text in message
        assert message.startswith("plainfilm: ")
        assert "expected" in message
        if code > 2:
            assert ";" in message, "no remedy"

    def misused(self, *found: str) -> None:
        """Check that argparse refused the command line with these in its message."""
        assert self.code == 2
        for text in found:
            assert text in self.err


@pytest.fixture
def plainfilm(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run one command in this process."""

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as exit:
            code = int(exit.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def convert(plainfilm: Command, tmp_path: Path) -> Command:
    """Convert fast, with a key of the test's own."""

    def run(*arguments: object) -> Outcome:
        return plainfilm("convert", *arguments, *quick(tmp_path))

    return run


def quick(folder: Path) -> list[object]:
    return ["--size", 32, "--workers", 1, "--page-mib", 2, "--site-key", folder / "site.key"]


def picture(seed: int) -> Image.Image:
    """A small picture that no other seed gives."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 48), np.uint8))


def png(seed: int = 0) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A sound PNG of side × side black pixels, one bit each."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(bytes((side // 8 + 1) * side), 1)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def make_source(folder: Path, classes: Sequence[str] = CLASSES, per_class: int = 4, seed: int = 0) -> Path:
    """A sound source folder: two images of each patient, p0_0.png, p0_1.png, p1_0.png …"""
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            path = folder / name / f"{name}{index // 2}_{index % 2}.png"
            path.write_bytes(png(1000 * seed + 100 * number + index))
    return folder


def write_manifest(folder: Path, header: str, *lines: str) -> Path:
    path = folder / "radiographs.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def rows_of(folder: Path) -> list[dict[str, str]]:
    """convert.csv."""
    with (folder / "convert.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def row_of(folder: Path, path: str) -> dict[str, str]:
    (row,) = (row for row in rows_of(folder) if row["path"] == path)
    return row


def assert_nothing_half(folder: Path) -> None:
    """No beton, no table, no temporary file."""
    left = {path.name for path in folder.rglob("*")} if folder.is_dir() else set()
    assert left <= {".plainfilm-lock"}


def flip(path: Path, place: int) -> None:
    """Damage one byte."""
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)


# ---- sound data, made once


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a conversion, `betons`, and a run of one epoch on it, `run`; copy before you damage it."""
    folder = tmp_path_factory.mktemp("sound")
    source = make_source(folder / "source", per_class=12)
    commands = (
        ["convert", source, "--out", folder / "betons", "--group-regex", "^(.*)_", "--holdout", 0.3, *quick(folder)],
        ["train", folder / "betons", "--out", folder / "run", "--epochs", 1, "--batch-size", 4, "--threads", 1],
    )
    for command in commands:
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main(list(map(str, command))) == 0
    return folder


@pytest.fixture
def betons(sound: Path, tmp_path: Path) -> Path:
    """A conversion to damage."""
    return Path(shutil.copytree(sound / "betons", tmp_path / "betons"))


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    """A run to damage."""
    return Path(shutil.copytree(sound / "run", tmp_path / "run"))


# ---- sources


def test_an_empty_folder_has_no_radiographs(convert: Command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    convert(tmp_path / "empty", "--out", tmp_path / "out").fails(3, tmp_path / "empty", "no radiographs found")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_does_not_exist_is_named(convert: Command, tmp_path: Path) -> None:
    convert(tmp_path / "lost", "--out", tmp_path / "out").fails(3, tmp_path / "lost", "not a folder", "check the path")
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_source_folder(convert: Command, tmp_path: Path) -> None:
    (tmp_path / "file.png").write_bytes(png())
    convert(tmp_path / "file.png", "--out", tmp_path / "out").fails(3, tmp_path / "file.png", "not a folder")


def test_a_single_class_is_refused(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", classes=["covid"])
    convert(source, "--out", tmp_path / "out").fails(3, source, "one class, covid", "at least two")
    assert_nothing_half(tmp_path / "out")


def test_a_class_of_too_few_patients_is_named(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", per_class=2)
    done = convert(source, "--out", tmp_path / "out", "--group-regex", r"^(.*)_")
    done.fails(3, "class covid: 1 patients", "at least 2", "add radiographs")
    assert_nothing_half(tmp_path / "out")


def test_a_class_without_one_usable_file_is_named_with_the_first_reason(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    for path in (source / "normal").iterdir():
        path.write_bytes(b"")
    convert(source, "--out", tmp_path / "out").fails(
        3, "class normal: none of 4 files is usable", "normal/normal0_0.png: 0 bytes, expected a radiograph"
    )
    assert_nothing_half(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("zero.png", b"", "0 bytes"),
        ("cut.png", png()[:-200], "truncated PNG"),
        ("text.png", b"patient moved, see next film\n", "text"),
        ("page.png", b"<!DOCTYPE html><html>404</html>", "HTML"),
        ("noise.png", bytes(range(256)), "an unknown format"),
        ("large.png", bomb(12_000), "12000x12000 pixels, expected at most 64000000"),
        ("bomb.png", bomb(20_000), "more pixels than Pillow ever reads"),
    ],
)
def test_a_file_that_is_no_radiograph_is_rejected_with_a_reason_and_the_rest_is_converted(
    convert: Command, tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    source = make_source(tmp_path / "source")
    (source / "covid" / name).write_bytes(content)
    done = convert(source, "--out", tmp_path / "out")
    assert done.code == 0
    assert "9 files in = 8 written + 1 rejected + 0 duplicates" in done.out
    row = row_of(tmp_path / "out", f"covid/{name}")
    assert row["verdict"] == "rejected"
    assert row["reason"].startswith(reason) and "expected" in row["reason"] and ";" in row["reason"]
    assert reason in done.out


def test_folders_and_broken_links_are_counted(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    (source / "covid" / "folder.png").mkdir()
    (source / "covid" / "folder.png" / "inner.png").write_bytes(png(7))
    (source / "covid" / "up").symlink_to("..")
    (source / "covid" / "self.png").symlink_to("self.png")
    (source / "covid" / "there.png").symlink_to("back.png")
    (source / "covid" / "back.png").symlink_to("there.png")
    (source / "covid" / "dangling.png").symlink_to("lost.png")
    (tmp_path / "secret.png").write_bytes(png(8))
    (source / "covid" / "outside.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(source / "covid" / "fifo.png")
    done = convert(source, "--out", tmp_path / "out")
    assert done.code == 0
    verdicts = {row["path"]: (row["verdict"], row["reason"]) for row in rows_of(tmp_path / "out")}
    assert verdicts.pop("covid/folder.png/inner.png")[0] == "written"
    assert "covid/folder.png" not in verdicts  # a folder, whatever its name
    assert verdicts.pop("covid/up") == ("excluded", "link to a folder, which is not followed")
    reasons = {
        "self.png": "unreadable path",
        "there.png": "unreadable path",
        "back.png": "unreadable path",
        "dangling.png": "not found",
        "outside.png": "leads outside the source folder",
        "fifo.png": "a FIFO, expected a regular file",
    }
    for name, reason in reasons.items():
        verdict, found = verdicts.pop(f"covid/{name}")
        assert verdict == "rejected"
        assert reason in found, (name, found)
        assert "expected" in found and ";" in found
    assert {verdict for verdict, _ in verdicts.values()} == {"written"}


def test_a_file_name_that_is_not_utf_8_is_converted_and_kept_to_the_byte(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    name = b"r\xe9\xff.png"
    try:
        (source / "covid" / os.fsdecode(name)).write_bytes(png(50))
        (source / "covid" / os.fsdecode(b"\xff" + name)).write_bytes(png(50))
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    done = convert(source, "--out", tmp_path / "out")
    assert done.code == 0 and "10 files in = 9 written + 0 rejected + 1 duplicate" in done.out
    assert b"covid/" + name in (tmp_path / "out" / "convert.csv").read_bytes()
    assert row_of(tmp_path / "out", os.fsdecode(b"covid/" + name))["verdict"] == "written"


def test_names_that_are_not_utf_8_print_wherever_they_stand(plainfilm: Command, tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    source = tmp_path / odd
    try:
        make_source(source, classes=["covid", odd])
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    done = plainfilm("convert", source, "--out", tmp_path / f"{odd}-out", *quick(tmp_path))
    assert done.code == 0 and "caf\\udce9" in done.out
    for command in ("info", "verify"):
        done = plainfilm(command, tmp_path / f"{odd}-out" / "train.beton")
        assert done.code == 0 and "caf\\udce9" in done.out
    plainfilm("info", tmp_path / odd / "lost.beton").fails(4, "caf\\udce9/lost.beton")


def test_a_table_in_latin_1_goes_from_conversion_to_the_report(plainfilm: Command, tmp_path: Path) -> None:
    source, betons, run = make_source(tmp_path / "source", per_class=8), tmp_path / "betons", tmp_path / "run"
    lines = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted(source.rglob("*.png"))]
    table = write_manifest(tmp_path, "path,label,source", *(f"{line},Universität" for line in lines))
    table.write_bytes(table.read_text().replace(",normal", ",größe").encode("latin-1"))
    done = plainfilm("convert", "--manifest", table, "--out", betons, "--holdout", 0.3, *quick(tmp_path))
    assert done.code == 0 and re.search(r"^ größe +\d", done.out, re.MULTILINE)
    assert "were read as Latin-1, such as Universität, größe" in " ".join(done.out.split())
    assert plainfilm("train", betons, "--out", run, "--epochs", 1, "--device", "cpu").code == 0
    done = plainfilm("evaluate", run, betons / "heldout.beton", "--resamples", 100)
    assert done.code == 0 and "größe" in done.out
    assert "größe" in (run / "report.html").read_text(encoding="utf-8")
    assert plainfilm("explain", run, betons / "heldout.beton").code == 0
    done = plainfilm("predict", run, source, "--out", tmp_path / "predicted.csv", "--audit", "off", "--workers", 1)
    assert done.code == 0 and "größe" in (tmp_path / "predicted.csv").read_text(encoding="utf-8")
    assert plainfilm("report", run).code == 0
    assert "größe" in (run / "report.html").read_text(encoding="utf-8")
    assert "größe" in card_of(load_trained(run), "model.onnx").encode().decode()  # of `export`, without ONNX
    done = plainfilm("audit", "--manifest", table, "--out", tmp_path / "audit")
    assert done.code == 0 and "were read as Latin-1" in " ".join(done.out.split())


def test_a_class_folder_in_latin_1_is_read_as_such_and_its_files_are_found(convert: Command, tmp_path: Path) -> None:
    try:
        source = make_source(tmp_path / "source", classes=["covid", os.fsdecode("größe".encode("latin-1"))])
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    done = convert(source, "--out", tmp_path / "out", "--classes", "covid,größe")
    assert done.code == 0 and "8 files in = 8 written" in done.out


@pytest.mark.parametrize("name", ["two\nlines", "\x1b[31mred", "[bold]x", "[red]", ":heart:", "\u202egnp", "\x9b31m"])
def test_control_characters_and_markup_of_names_do_not_reach_the_terminal(
    convert: Command, plainfilm: Command, tmp_path: Path, name: str
) -> None:
    source = make_source(tmp_path / "source", classes=["covid", name])
    (source / "covid" / f"{name}.png").write_bytes(b"")
    done = convert(
        source, "--out", tmp_path / name, "--classes", f"covid,{name}"
    )  # Outcome checks for control characters
    assert done.code == 0
    shown = cli.printable(name)
    assert re.search(rf"^ {re.escape(shown)} +\d+ +\d+", done.out, re.MULTILINE)  # a row a class
    assert f"{tmp_path / shown}/train.beton" in done.out
    assert "\u202e" not in done.out
    for command in ("info", "verify"):
        done = plainfilm(command, tmp_path / name / "train.beton")
        assert done.code == 0 and shown in done.out.replace("\n", "") and "\u202e" not in done.out
    for path in (source / name).iterdir():
        path.write_bytes(b"")
    (source / name / f"0{name}.png").write_bytes(b"")
    convert(source, "--out", tmp_path / "out").fails(3, f"class {shown}: none of 5 files is usable", f"{shown}/")
    assert row_of(tmp_path / name, f"covid/{name}.png")["verdict"] == "rejected"  # the table keeps the name


def test_two_files_of_one_name_in_different_folders_are_two_files(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    for index, folder in enumerate(("monday", "tuesday")):
        (source / "covid" / folder).mkdir()
        (source / "covid" / folder / "IM-0001.png").write_bytes(png(60 + index))
    assert "10 files in = 10 written" in convert(source, "--out", tmp_path / "out").out
    verdicts = [row["verdict"] for row in rows_of(tmp_path / "out") if row["path"].endswith("IM-0001.png")]
    assert verdicts == ["written", "written"]


def test_exact_duplicates_are_written_once_and_of_two_labels_never(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    for path in ("covid/a.png", "covid/b.png", "covid/x.png", "normal/y.png"):
        content = picture(90 if path[-5] in "ab" else 91)
        content.save(source / path, "PNG" if path[-5] in "ax" else "BMP")  # the same pixels, not the same bytes
    done = convert(source, "--out", tmp_path / "out")
    assert done.code == 0 and "12 files in = 9 written + 2 rejected + 1 duplicate" in done.out
    assert row_of(tmp_path / "out", "covid/a.png")["verdict"] == "written"
    twin = row_of(tmp_path / "out", "covid/b.png")
    assert (twin["verdict"], twin["reason"]) == ("duplicate", "same pixels as covid/a.png")
    for path in ("covid/x.png", "normal/y.png"):
        row = row_of(tmp_path / "out", path)
        assert row["verdict"] == "rejected"
        assert "the labels covid, normal: covid/x.png, normal/y.png" in row["reason"]


def test_a_class_that_a_spreadsheet_takes_for_a_formula_is_refused(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    (source / "covid").rename(source / "=cmd()")
    convert(source, "--out", tmp_path / "out").fails(3, "class '=cmd()'", "start it with a letter or a digit")


def test_a_fifo_in_a_tables_place_is_refused_and_not_waited_for(plainfilm: Command, tmp_path: Path) -> None:
    source, fifo = make_source(tmp_path / "source"), tmp_path / "fifo.csv"
    os.mkfifo(fifo)
    found = (fifo, "a FIFO or device, expected a regular file")
    plainfilm("convert", "--manifest", fifo, "--out", tmp_path / "out").fails(3, *found)
    plainfilm("convert", source, "--out", tmp_path / "out", "--audit", fifo, *quick(tmp_path)).fails(3, *found)


def test_a_file_name_among_the_arguments_puts_no_controls_on_the_terminal(plainfilm: Command) -> None:
    done = plainfilm("predict", "run", "--\x1b]0;owned\x07.png")
    assert done.code == 2 and "\x1b" not in done.err and "\\x1b" in done.err


def test_a_link_in_a_temporary_files_place_is_not_followed(convert: Command, tmp_path: Path) -> None:
    source, out, other = make_source(tmp_path / "source"), tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.write_text("mine")
    (out / f"convert.csv{SUFFIX}").symlink_to(other)
    assert convert(source, "--out", out).code == 0 and other.read_text() == "mine"


def test_hidden_files_and_files_outside_of_class_folders_are_excluded(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    excluded = (".hidden.png", "loose.png", "covid/.DS_Store", "covid/.thumbnails/a.png", ".cache/covid/a.png")
    for index, path in enumerate(excluded):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(png(300 + index))
    done = convert(source, "--out", tmp_path / "out")
    assert done.code == 0
    assert "8 files in = 8 written + 0 rejected + 0 duplicates; 5 more excluded" in done.out
    for path in excluded:
        row = row_of(tmp_path / "out", path)
        assert row["verdict"] == "excluded" and row["reason"] in ("hidden file", "outside the folders of the classes")


def test_every_file_is_in_the_table_and_in_the_sum(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", classes=[*CLASSES, "other"])
    (source / "notes.txt").write_text("of two readers")
    (source / "covid" / "zero.png").write_bytes(b"")
    (source / "covid" / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    (source / "covid" / "flat.png").write_bytes(bomb(64))
    (source / "covid" / "again.png").write_bytes((source / "covid" / "covid0_0.png").read_bytes())
    (source / "normal" / "loop").symlink_to(source, target_is_directory=True)
    done = convert(source, "--out", tmp_path / "out", "--classes", "covid,normal")
    assert done.code == 0
    counts = Counter(row["verdict"] for row in rows_of(tmp_path / "out"))
    assert counts == {"written": 8, "rejected": 3, "duplicate": 1, "excluded": 6}
    assert "12 files in = 8 written + 3 rejected + 1 duplicate; 6 more excluded" in done.out
    on_disk = {
        Path(folder, name).relative_to(source).as_posix()
        for folder, folders, names in os.walk(source)
        for name in [*names, *(name for name in folders if Path(folder, name).is_symlink())]
    }
    paths = [row["path"] for row in rows_of(tmp_path / "out")]
    assert len(paths) == len(set(paths)) and set(paths) == on_disk


def test_a_png_that_a_viewer_refuses_but_whose_pixels_are_sound_does_not_stop_a_conversion(
    convert: Command, tmp_path: Path
) -> None:
    source = make_source(tmp_path / "source")
    body = b"Comment\0\0" + zlib.compress(bytes(1 << 24))  # Pillow refuses so long a text, after the pixels
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    content = png(70)
    (source / "covid" / "0.png").write_bytes(content[:-12] + chunk + content[-12:])
    done = convert(source, "--out", tmp_path / "out")
    assert done.code == 0 and row_of(tmp_path / "out", "covid/0.png")["verdict"] in ("written", "rejected")
    assert (tmp_path / "out" / "preparation.png").exists()


# ---- what a user without rights meets


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder of nobody, which pytest's own are closed to."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        if os.getuid() == 0:
            os.chown(folder, NOBODY, NOBODY)
        yield folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Forks processes that have converted something before, since Python's own library may be root's alone."""
    imports = (
        "import contextlib, io, os, tempfile\n"
        "from pathlib import Path\n"
        "import cli\n"
        "from tests.test_bad_input import make_source, quick\n"
        "with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):\n"
        "    source, out = make_source(Path(name) / 'source'), Path(name) / 'out'\n"
        "    assert cli.main(['convert', *map(str, [source, '--out', out, *quick(Path(name))])]) == 0\n"
    )
    with ForkServer(tmp_path_factory.mktemp("children"), imports=imports) as one:
        yield one


def as_nobody(server: ForkServer, folder: Path, *arguments: object) -> Outcome:
    """Run a command in a process without root's rights, whose home is folder."""
    before = (
        f"import os; os.environ['HOME'] = {str(folder)!r}\n"
        f"if os.getuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
    )
    ending = server.run([*map(str, arguments)], before=before, timeout=120)
    return Outcome(ending.code, ending.output, ending.errors)


def test_an_unreadable_file_is_rejected_and_the_rest_is_converted(server: ForkServer, shared_folder: Path) -> None:
    source = make_source(shared_folder / "source")
    (source / "covid" / "secret.png").write_bytes(png(80))
    (source / "covid" / "secret.png").chmod(0)
    done = as_nobody(server, shared_folder, "convert", source, "--out", shared_folder / "out", *quick(shared_folder))
    assert done.code == 0, done.err
    assert "9 files in = 8 written + 1 rejected + 0 duplicates" in done.out
    assert row_of(shared_folder / "out", "covid/secret.png")["reason"].startswith("Permission denied, expected")


def test_an_unreadable_subfolder_is_named(server: ForkServer, shared_folder: Path) -> None:
    source = make_source(shared_folder / "source")
    (source / "normal").chmod(0)
    try:
        done = as_nobody(
            server, shared_folder, "convert", source, "--out", shared_folder / "out", *quick(shared_folder)
        )
        done.fails(4, source / "normal", "Permission denied", "permissions")
    finally:
        (source / "normal").chmod(0o755)


@pytest.mark.parametrize(("mode", "tail"), [(0o555, ""), (0, "deeper/out")])
def test_a_target_that_is_not_writable_is_named(server: ForkServer, shared_folder: Path, mode: int, tail: str) -> None:
    source = make_source(shared_folder / "source")
    (shared_folder / "target").mkdir()
    (shared_folder / "target").chmod(mode)
    out = shared_folder / "target" / tail
    done = as_nobody(server, shared_folder, "convert", source, "--out", out, *quick(shared_folder))
    done.fails(4, out, "Permission denied", "permissions")
    (shared_folder / "target").chmod(0o755)
    assert_nothing_half(shared_folder / "target")


def test_a_home_that_is_not_writable_leaves_no_beton_without_a_key(server: ForkServer, shared_folder: Path) -> None:
    source = make_source(shared_folder / "source")
    (shared_folder / "home").mkdir(0o555)
    settings = ["--size", 32, "--workers", 1, "--page-mib", 2]
    done = as_nobody(server, shared_folder / "home", "convert", source, "--out", shared_folder / "out", *settings)
    done.fails(4, ".config", "Permission denied")
    assert_nothing_half(shared_folder / "out")


@pytest.mark.parametrize("tail", ["", "deeper/out"])
def test_a_file_where_the_out_folder_should_be_is_named(convert: Command, tmp_path: Path, tail: str) -> None:
    source = make_source(tmp_path / "source")
    (tmp_path / "taken").write_text("mine")
    convert(source, "--out", tmp_path / "taken" / tail).fails(4, tmp_path / "taken", "expected a folder")
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_site_key_that_is_none_stops_before_the_first_beton(plainfilm: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    (tmp_path / "site.key").write_text("password123")
    done = plainfilm("convert", source, "--out", tmp_path / "out", *quick(tmp_path))
    done.fails(3, tmp_path / "site.key", "not a site key", "64 hexadecimal digits")
    assert "password123" not in done.err
    assert_nothing_half(tmp_path / "out")


def test_a_user_without_a_home_names_a_key_and_needs_nothing_more(
    plainfilm: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_account(user: int) -> None:
        raise KeyError(user)

    source = make_source(tmp_path / "source", per_class=8)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", no_account)
    for more in ([], ["--dry-run"]):
        done = plainfilm("convert", source, "--out", tmp_path / "out", "--size", 32, "--workers", 1, *more)
        done.fails(2, "--site-key", "this user has no home folder", "name a file")
    assert not (tmp_path / "out").exists()
    betons, run = tmp_path / "out", tmp_path / "run"
    held_out = [run, betons / "heldout.beton"]
    assert plainfilm("convert", source, "--out", betons, "--dry-run", *quick(tmp_path)).code == 0
    assert plainfilm("convert", source, "--out", betons, "--holdout", 0.3, *quick(tmp_path)).code == 0
    assert plainfilm("audit", source, "--out", tmp_path / "audit", "--workers", 1).code == 0
    assert plainfilm("train", betons, "--out", run, "--epochs", 1, "--device", "cpu").code == 0
    assert plainfilm("evaluate", *held_out, "--resamples", 100).code == 0
    assert plainfilm("explain", *held_out).code == 0
    predicted = ["--out", tmp_path / "predicted.csv", "--audit", "off", "--workers", 1]
    assert plainfilm("predict", run, source, *predicted).code == 0


def test_a_name_for_each_file_in_the_column_of_sources_is_refused_before_decoding(
    convert: Command, tmp_path: Path
) -> None:
    lines = [f"{number}.png,{CLASSES[number % 2]},{number}" for number in range(65_536)]
    for column in ("source", "view"):
        table = write_manifest(tmp_path, f"path,label,{column}", *lines)
        done = convert("--manifest", table, "--out", tmp_path / "out")
        done.fails(3, table, f"65,536 {column}s, expected at most 65,535", f"the column {column} is for")
    assert_nothing_half(tmp_path / "out")


def test_a_second_converter_is_locked_out(convert: Command, plainfilm: Command, sound: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    program = (
        "import sys\nfrom pathlib import Path\nfrom loaders.atomic_file import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        convert(source, "--out", tmp_path / "out").fails(6, tmp_path / "out", "another plainfilm process")
        done = plainfilm("train", sound / "betons", "--out", tmp_path / "out")
        done.fails(6, tmp_path / "out", "another plainfilm process")
        assert_nothing_half(tmp_path / "out")
        other.communicate("")
    assert convert(source, "--out", tmp_path / "out").code == 0  # the lock died with its owner


# ---- manifests


def test_a_manifest_that_does_not_exist_is_named(convert: Command, tmp_path: Path) -> None:
    done = convert("--manifest", tmp_path / "lost.csv", "--out", tmp_path / "out")
    done.fails(4, tmp_path / "lost.csv", "No such file", "check the path")


@pytest.mark.parametrize(
    ("header", "line", "found"),
    [
        ("path,remarks", "a.png,covid", "columns path, remarks, expected at least path and label"),
        ("path/label", "a.png/covid", "columns path/label, expected at least path and label"),
        ("path,label", "a.png,", "line 2 has no label"),
        ("path,label", ",covid", "line 2 has no path"),
        ("path,label,split", "a.png,covid,fold 1", "line 2 has split 'fold 1', expected train, val, heldout"),
    ],
)
def test_a_manifest_with_something_missing_is_refused_with_the_place(
    convert: Command, tmp_path: Path, header: str, line: str, found: str
) -> None:
    manifest = write_manifest(tmp_path, header, line)
    convert("--manifest", manifest, "--out", tmp_path / "out").fails(3, manifest, found)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"path,label\n", b"\xff\xfep\0a\0t\0h\0,\0", b"\0\0\0\0", png(), b'path,label\n"' + b"x" * 200_000],
    ids=["empty", "header", "utf16", "nul", "png", "quote"],
)
def test_a_manifest_that_is_no_table_is_refused(convert: Command, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.csv").write_bytes(content)
    convert("--manifest", tmp_path / "odd.csv", "--out", tmp_path / "out").fails(3, tmp_path / "odd.csv")
    assert not (tmp_path / "out").exists()


def test_a_manifests_repeated_file_is_refused_with_both_lines(convert: Command, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, "path,label", "a.png,covid", "b.png,normal", "./a.png,normal")
    convert("--manifest", manifest, "--out", tmp_path / "out").fails(
        3, "a.png is 'covid' (line 2) and 'normal' (line 4)", "correct a row"
    )


def test_a_manifests_rows_without_a_file_or_from_outside_are_rejected_and_the_rest_is_converted(
    convert: Command, tmp_path: Path
) -> None:
    inner = make_source(tmp_path / "inner")
    (tmp_path / "x.png").write_bytes(png(77))
    good = [f"{path.relative_to(inner)},{path.parent.name}" for path in sorted(inner.glob("*/*.png"))]
    bad = {
        "lost.png": "not found",
        "../x.png": "leads outside",
        str(tmp_path / "x.png"): "leads outside",
        "covid/../../x.png": "leads outside",
        "covid": "a directory",
        "a\0b.png": "",
    }
    manifest = write_manifest(inner, "path,label", *good, *(f"{path},covid" for path in bad))
    done = convert("--manifest", manifest, "--out", tmp_path / "out")
    assert done.code == 0
    assert f"14 files in = 8 written + {len(bad)} rejected + 0 duplicates" in done.out
    for path, reason in bad.items():
        row = row_of(tmp_path / "out", path)
        assert row["verdict"] == "rejected"
        assert reason in row["reason"] and "expected" in row["reason"] and ";" in row["reason"]


def test_a_manifests_split_must_not_cut_through_a_patient(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    split_of = {"0": "train", "1": "val"}
    lines = [
        f"{path.relative_to(source)},{path.parent.name},{path.stem[:-2]},{split_of[path.stem[-1]]}"
        for path in sorted(source.glob("*/*.png"))
    ]
    manifest = write_manifest(source, "path,label,patient,split", *lines)
    done = convert("--manifest", manifest, "--out", tmp_path / "out")
    done.fails(3, manifest, "covid/covid0_0.png is in train, covid/covid0_1.png in val", "one patient")
    assert_nothing_half(tmp_path / "out")


def test_a_row_whose_name_is_too_long_is_rejected_and_the_rest_converted(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    lines = [f"{path.relative_to(source)},{path.parent.name}" for path in sorted(source.glob("*/*.png"))]
    manifest = write_manifest(source, "path,label", *lines, f"covid/{'y' * 300}.png,covid")
    done = convert("--manifest", manifest, "--out", tmp_path / "out", "--val", "0.5")
    assert done.code == 0 and "1 rejected" in done.out and "File name too long" in done.out


def test_a_manifests_half_filled_split_is_refused(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    lines = [f"{path.relative_to(source)},{path.parent.name},train" for path in sorted(source.glob("*/*.png"))]
    manifest = write_manifest(source, "path,label,split", *lines[:-1], lines[-1].removesuffix("train"))
    convert("--manifest", manifest, "--out", tmp_path / "out").fails(3, manifest, "normal/normal1_1.png has no split")
    assert_nothing_half(tmp_path / "out")


# ---- wrong usage


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--group-regex", "(["], "--group-regex: '([' is no regular expression"),
        (["--group-regex", "abc"], "--group-regex: 'abc' has no group"),
        (["--positive", "flu"], "--positive: found flu, expected one of covid, normal"),
        (["--classes", "covid,normal", "--positive", "flu"], "--positive: found flu, expected one of covid, normal"),
        (["--classes", "covid,covid"], "--classes: found covid,covid"),
        (["--manifest", "x.csv"], "found both of SOURCE and --manifest"),
        (["--val", "0"], "--val: found 0.0"),
        (["--val", "nan"], "--val: found nan"),
        (["--holdout", "1"], "--holdout: found 1.0"),
        (["--size", "31"], "--size: found 31, expected 32 to 2048"),
        (["--workers", "-1"], "--workers: found -1"),
        (["--page-mib", "3"], "--page-mib: found 3, expected a power of two"),
        (["--max-pixels", "0"], "--max-pixels: found 0"),
        (["--seed", "-1"], "--seed: found -1"),
        (["--seed", "99999999999999999999"], "--seed: found 99999999999999999999"),
    ],
)
def test_a_conversions_setting_out_of_range_is_wrong_usage(
    plainfilm: Command, tmp_path: Path, arguments: list[str], found: str
) -> None:
    source = make_source(tmp_path / "source")
    plainfilm("convert", source, "--out", tmp_path / "out", *quick(tmp_path), *arguments).fails(2, found)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--epochs", "0"], "--epochs: found 0"),
        (["--learning-rate", "nan"], "--learning-rate: found nan"),
        (["--learning-rate", "0"], "--learning-rate: found 0.0"),
        (["--learning-rate", "1e38"], "--learning-rate: found 1e+38"),
        (["--dropout", "1"], "--dropout: found 1.0"),
        (["--patience", "0"], "--patience: found 0"),
        (["--batch-size", "0"], "--batch-size: found 0"),
        (["--zoom-low", "0.5"], "--zoom-low: found 0.5"),
        (["--rotation", "inf"], "--rotation: found inf"),
        (["--threads", "-1"], "--threads: found -1"),
        (["--seed", "-1"], "--seed: found -1"),
    ],
)
def test_a_trainings_setting_out_of_range_is_wrong_usage(
    plainfilm: Command, sound: Path, tmp_path: Path, arguments: list[str], found: str
) -> None:
    plainfilm("train", sound / "betons", "--out", tmp_path / "out", *arguments).fails(2, found)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["paint"], "invalid choice: 'paint'"),
        (["convert", "x", "--out", "y", "--size", "large"], "invalid int value: 'large'"),
        (["convert", "x", "--out", "y", "--fit", "diagonal"], "invalid choice: 'diagonal'"),
        (["train", "x", "--out", "y", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["train", "x", "--out", "y", "--colour"], "unrecognized arguments: --colour"),
        (["info"], "the following arguments are required: BETON"),
    ],
)
def test_an_unknown_command_flag_or_choice_is_wrong_usage(plainfilm: Command, arguments: list[str], found: str) -> None:
    plainfilm(*arguments).misused(found)


def test_no_command_shows_the_help_and_is_wrong_usage(plainfilm: Command) -> None:
    done = plainfilm()
    assert done.code == 2 and "usage:" in done.out and "exit codes:" in done.out


def test_what_has_no_default_must_be_given(plainfilm: Command, tmp_path: Path) -> None:
    plainfilm("convert", tmp_path).fails(2, "--out: missing")
    plainfilm("train", tmp_path).fails(2, "--out: missing")
    plainfilm("train", "--out", tmp_path).fails(2, "DATA: missing")
    plainfilm("phantom").fails(2, "OUT: missing")


def test_a_class_that_no_file_has_is_named(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    done = convert(source, "--out", tmp_path / "out", "--classes", "covid,flu")
    done.fails(3, source, "no file of class flu", "expected some of covid, normal", "check --classes")
    done = convert(source, "--out", tmp_path / "out", "--classes", "flu,tb")
    done.fails(3, source, "no file of class flu, tb", "expected some of covid, normal", "check --classes")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--seed", "-1"], "--seed: found -1"),
        (["--classes", "cat"], "--classes: found cat"),
        (["--size", "1"], "--size"),
    ],
)
def test_phantoms_of_a_wrong_setting_are_not_drawn(
    plainfilm: Command, tmp_path: Path, arguments: list[str], found: str
) -> None:
    plainfilm("phantom", tmp_path / "out", "--patients", 2, *arguments).fails(2, found)
    assert not (tmp_path / "out").exists()


def test_phantoms_are_not_drawn_over_files(plainfilm: Command, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("all of it")
    plainfilm("phantom", tmp_path / "out", "--patients", 2).fails(4, tmp_path / "out", "a folder with files in it")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"size": 32, "colour": "red"}', "unknown setting colour"),
        ('{"size": 32', "not JSON"),
        ("[1, 2]", "found a list, expected an object"),
        ('{"size": "large"}', "size: found 'large', expected int"),
        ('{"size": true}', "size: found True, expected int"),
        ('{"val": 1' + "0" * 400 + "}", "val"),
        ('{"out": "a\\u0000b"}', "out: found"),
        ('{"out": "a\\ud800b"}', "out: found"),
        ("[" * 100_000, "not JSON"),
        ("\xff", "not JSON"),
    ],
    ids=["unknown", "cut", "list", "text", "bool", "huge", "nul", "surrogate", "deep", "latin-1"],
)
def test_a_settings_file_that_cannot_be_used_is_wrong_usage(
    plainfilm: Command, tmp_path: Path, content: str, found: str
) -> None:
    source = make_source(tmp_path / "source")
    (tmp_path / "settings.json").write_text(content, encoding="latin-1")
    flags = [] if '"out"' in content else ["--out", tmp_path / "out"]
    done = plainfilm("convert", source, *flags, "--config", tmp_path / "settings.json")
    done.fails(2, tmp_path / "settings.json", found)
    assert not (tmp_path / "out").exists()


def test_a_settings_file_that_does_not_exist_is_named(plainfilm: Command, tmp_path: Path) -> None:
    done = plainfilm("train", tmp_path, "--out", tmp_path / "out", "--config", tmp_path / "lost.json")
    done.fails(2, tmp_path / "lost.json", "No such file")


# ---- betons


def four_commands(plainfilm: Command, betons: Path, run: Path, out: Path) -> Iterator[Outcome]:
    """Everything that opens a beton, on the training beton."""
    yield plainfilm("info", betons / "train.beton")
    yield plainfilm("verify", betons / "train.beton")
    yield plainfilm("train", betons, "--out", out)
    yield plainfilm("evaluate", run, betons / "train.beton", "--force", "--out", out)


def test_a_truncated_beton_is_refused_by_every_command(
    plainfilm: Command, betons: Path, sound: Path, tmp_path: Path
) -> None:
    path = betons / "train.beton"
    size = path.stat().st_size
    with Beton(path) as beton:
        table, pages = beton.table_start, beton.pages_start
    for cut in (size - 1, size - 24, table + 1, table, table - 1, table - 500, pages + 1, pages, 2110, 1000, 24, 3, 0):
        os.truncate(path, cut)
        for done in four_commands(plainfilm, betons, sound / "run", tmp_path / "out"):
            done.fails(5, path, "convert the radiographs again")
    assert not (tmp_path / "out").exists()


def test_a_beton_with_something_appended_is_refused_by_every_command(
    plainfilm: Command, betons: Path, sound: Path, tmp_path: Path
) -> None:
    for extra in (b"\0", bytes(24), bytes(4096)):
        with (betons / "train.beton").open("ab") as file:
            file.write(extra)
        for done in four_commands(plainfilm, betons, sound / "run", tmp_path / "out"):
            done.fails(5, betons / "train.beton", "something follows it")


@pytest.mark.parametrize("content", [b"not a beton", b"not a beton\n" * 1000, png(), bytes(5000)])
def test_what_is_not_a_beton_is_refused_by_every_command(
    plainfilm: Command, betons: Path, sound: Path, tmp_path: Path, content: bytes
) -> None:
    (betons / "train.beton").write_bytes(content)
    for done in four_commands(plainfilm, betons, sound / "run", tmp_path / "out"):
        done.fails(5, betons / "train.beton")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_beton_that_is_a_folder_or_not_there_is_named(plainfilm: Command, tmp_path: Path, command: str) -> None:
    plainfilm(command, tmp_path).fails(4, tmp_path, "Is a directory")
    plainfilm(command, tmp_path / "lost.beton").fails(4, tmp_path / "lost.beton", "No such file", "check the path")


def test_a_flipped_byte_of_a_frame_is_found_by_verify_training_and_evaluation(
    plainfilm: Command, betons: Path, sound: Path, tmp_path: Path
) -> None:
    path = betons / "train.beton"
    with Beton(path) as beton:
        place = int(beton.offset_N[3]) + 17
    flip(path, place)
    info, verify, train, evaluate = four_commands(plainfilm, betons, sound / "run", tmp_path / "out")
    assert info.code == 0  # opening checks structure and tables only
    for done in (verify, train, evaluate):
        done.fails(5, path, "sample 3: checksum differs", "convert the radiographs again")
    assert not {"summary.json", "best.safetensors"} & {path.name for path in (tmp_path / "out").iterdir()}


def test_a_flipped_byte_anywhere_is_found_by_verify(plainfilm: Command, betons: Path) -> None:
    path = betons / "val.beton"
    sound = path.read_bytes()
    with Beton(path) as beton:
        tables = [range(2200), range(beton.pages_end, len(sound)), range(beton.pages_start)]
        tables += [range(beton.pages_start, beton.pages_end)]
    rng = np.random.default_rng(0)
    for table in tables:
        for place in rng.choice(np.array(table), 40, replace=False):
            content = bytearray(sound)
            content[place] ^= 1 << int(rng.integers(8))
            path.write_bytes(content)
            done = plainfilm("verify", path)
            assert done.code == 5, (place, done.code, done.err)
            done.fails(5, path)


def test_betons_of_two_conversions_do_not_train_together(
    plainfilm: Command, convert: Command, betons: Path, tmp_path: Path
) -> None:
    source = make_source(tmp_path / "source", seed=5)
    assert convert(source, "--out", tmp_path / "other").code == 0
    shutil.copy(tmp_path / "other" / "val.beton", betons / "val.beton")
    ids = [Beton(betons / f"{split}.beton").facts.conversion_id for split in ("train", "val")]
    plainfilm("train", betons, "--out", tmp_path / "out").fails(3, betons, *ids, "expected one conversion")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["train.beton", "val.beton"])
def test_training_without_one_of_its_betons_is_refused(
    plainfilm: Command, betons: Path, tmp_path: Path, name: str
) -> None:
    (betons / name).unlink()
    plainfilm("train", betons, "--out", tmp_path / "out").fails(3, betons, f"no {name}")
    assert not (tmp_path / "out").exists()


# ---- runs


def test_a_run_is_not_trained_over(plainfilm: Command, betons: Path, run: Path) -> None:
    before = (run / "last.safetensors").read_bytes()
    done = plainfilm("train", betons, "--out", run)
    assert done.code == 2 and f"{run}: already holds a run" in done.err and "--resume" in done.err
    assert (run / "last.safetensors").read_bytes() == before


def test_a_device_that_is_not_there_leaves_no_run_behind(plainfilm: Command, betons: Path, tmp_path: Path) -> None:
    absent = "cuda" if sys.platform == "darwin" else "mps"
    plainfilm("train", betons, "--out", tmp_path / "out", "--device", absent).fails(2, f"--device {absent}")
    assert plainfilm("train", betons, "--out", tmp_path / "out", "--epochs", 1).code == 0


def test_a_file_where_the_run_should_be_is_named(plainfilm: Command, betons: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    plainfilm("train", betons, "--out", tmp_path / "taken").fails(4, tmp_path / "taken", "expected a folder")


def test_resuming_takes_no_other_settings(plainfilm: Command, run: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    plainfilm("train", "--resume", run, "--epochs", 5, "--seed", 1).fails(2, "--resume: found epochs, seed with it")
    plainfilm("train", "--resume", run, "--config", tmp_path / "settings.json").fails(2, "--resume: found config")


@pytest.mark.parametrize("folder", ["lost", "."])
def test_a_folder_without_a_run_is_neither_resumed_nor_evaluated(
    plainfilm: Command, betons: Path, tmp_path: Path, folder: str
) -> None:
    plainfilm("train", "--resume", tmp_path / folder).fails(2, tmp_path / folder, "no config.json, expected a run")
    code, found = (2, "not a folder") if folder == "lost" else (5, "not there")
    plainfilm("evaluate", tmp_path / folder, betons / "heldout.beton").fails(code, tmp_path / folder, found)


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"", "not JSON"), (b"\xff\xfe", "not JSON"), (b'{"epochs": "many"}', "epochs: found 'many'")],
)
def test_a_corrupt_config_of_a_run_is_refused(plainfilm: Command, run: Path, content: bytes, found: str) -> None:
    (run / "config.json").write_bytes(content)
    plainfilm("train", "--resume", run).fails(2, run / "config.json", found)


def test_a_config_of_other_settings_than_the_states_is_refused(plainfilm: Command, run: Path) -> None:
    (run / "config.json").write_bytes(b"{}")
    plainfilm("train", "--resume", run).fails(5, run / "last.safetensors", "the settings in config.json make it")


def damage(path: Path, how: str) -> None:
    """Damage a checkpoint."""
    if how == "flipped":
        flip(path, path.stat().st_size - 1000)
    elif how == "cut":
        os.truncate(path, path.stat().st_size // 2)
    elif how == "empty":
        os.truncate(path, 0)
    elif how == "text":
        path.write_text("safe tensors")
    elif how == "swapped":
        other = {"last": "best", "best": "last", "leakage": "best"}[path.stem]
        shutil.copy(path.with_stem(other), path)


@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "text", "swapped"])
def test_a_damaged_last_state_is_not_resumed(plainfilm: Command, run: Path, how: str) -> None:
    damage(run / "last.safetensors", how)
    plainfilm("train", "--resume", run).fails(5, "last.safetensors")


@pytest.mark.parametrize("name", ["best.safetensors", "leakage.safetensors"])
@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "text", "swapped", "gone"])
def test_a_run_with_damaged_weights_or_hashes_is_not_evaluated(
    plainfilm: Command, betons: Path, run: Path, name: str, how: str
) -> None:
    damage(run / name, how) if how != "gone" else (run / name).unlink()
    plainfilm("evaluate", run, betons / "heldout.beton").fails(5, run / name)
    assert not list((run).rglob("metrics.json"))


def test_a_beton_of_another_size_is_not_evaluated(plainfilm: Command, run: Path, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", seed=5)
    settings = [*quick(tmp_path), "--size", 64]
    assert plainfilm("convert", source, "--out", tmp_path / "other", *settings).code == 0
    path = tmp_path / "other" / "val.beton"
    plainfilm("evaluate", run, path).fails(3, path, "frames of 92 with crops of 64", "46 with 32", "--size 32")
    assert not (run / "evaluation").exists()


@pytest.mark.parametrize("classes", [("flu", "normal"), ("covid", "normal", "tb"), ("normal", "covid")])
def test_a_beton_of_other_classes_or_another_order_is_not_evaluated(
    plainfilm: Command, convert: Command, run: Path, tmp_path: Path, classes: tuple[str, ...]
) -> None:
    source = make_source(tmp_path / "source", classes=classes, seed=5)
    assert convert(source, "--out", tmp_path / "other", "--classes", ",".join(classes)).code == 0
    path = tmp_path / "other" / "val.beton"
    done = plainfilm("evaluate", run, path)
    done.fails(3, path, f"classes {', '.join(classes)}, expected covid, normal", "--classes")
    assert not (run / "evaluation").exists()


def test_the_training_beton_is_evaluated_only_by_force_and_with_a_caution(
    plainfilm: Command, betons: Path, run: Path
) -> None:
    path = betons / "train.beton"
    plainfilm("evaluate", run, path).fails(3, path, "images of the training set", "expected none", "--force")
    assert not (run / "evaluation").exists()
    done = plainfilm("evaluate", run, path, "--force")
    assert done.code == 0 and "Caution, train-" in done.out and "the score is leaked" in done.out.replace("\n", " ")
    metrics = json.loads((results_of(run / "evaluation", "train") / "metrics.json").read_text())
    assert "leakage-forced" in [caution["code"] for caution in metrics["cautions"]]


def test_one_set_is_not_evaluated_twice_at_once(plainfilm: Command, betons: Path, run: Path) -> None:
    path = betons / "heldout.beton"
    copy = shutil.copyfile(path, betons / "copy.beton")
    plainfilm("evaluate", run, path, copy).fails(2, path, "different sets")


def test_evaluating_where_a_file_lies_is_refused(plainfilm: Command, betons: Path, run: Path) -> None:
    (run / "evaluation").write_text("mine")
    plainfilm("evaluate", run, betons / "heldout.beton").fails(4, run / "evaluation", "expected a folder")
    (run / "evaluation").unlink()
    (run / "evaluation").mkdir()
    with Beton(betons / "heldout.beton") as beton:
        place = run / "evaluation" / beton.set_name
    place.write_text("mine")
    plainfilm("evaluate", run, betons / "heldout.beton").fails(4, place)


# ---- divergence


def test_a_diverging_training_keeps_its_last_finite_state(plainfilm: Command, sound: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ["--learning-rate", 1e36, "--batch-size", 2, "--epochs", 3, "--threads", 1]
    plainfilm("train", sound / "betons", "--out", out, *settings).fails(7, "expected finite numbers", "--learning-rate")
    for attempt in range(2):
        tensors, state = load_checkpoint(out / "last.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
        assert np.isfinite(state["loss_sum"])
        assert not (out / "summary.json").exists() and not list(out.rglob("*" + SUFFIX))
        if not attempt:
            plainfilm("train", "--resume", out).fails(7, "expected finite numbers")


def test_a_training_that_diverges_in_its_last_step_is_no_success(
    plainfilm: Command, sound: Path, tmp_path: Path
) -> None:
    settings = ["--learning-rate", 1e36, "--batch-size", 1000, "--epochs", 1, "--threads", 1]
    plainfilm("train", sound / "betons", "--out", tmp_path / "out", *settings).fails(7, "expected finite numbers")
    assert not (tmp_path / "out" / "best.safetensors").exists()


# ---- the true command


def test_the_program_itself_gives_code_and_message_on_any_terminal(tmp_path: Path, sound: Path) -> None:
    for encoding in ("utf-8", "ascii"):
        environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, str(REPOSITORY / "cli.py")]
        for arguments, code in ((["info", sound / "betons" / "val.beton"], 0), (["info", tmp_path / "é.beton"], 4)):
            done = subprocess.run(
                [*command, *map(str, arguments)],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
            outcome = Outcome(done.returncode, done.stdout, done.stderr)
            assert outcome.code == code
            if code:
                outcome.fails(4, "No such file")


def test_an_output_folder_inside_the_source_is_refused(plainfilm: Command, tmp_path: Path) -> None:
    (tmp_path / "source" / "covid").mkdir(parents=True)
    out = tmp_path / "source" / "out"
    plainfilm("convert", tmp_path / "source", "--out", out).fails(2, "--out", out, "lies inside", "expected")
    assert not out.exists()


def test_evaluating_without_a_beton_names_what_is_missing(plainfilm: Command, tmp_path: Path) -> None:
    plainfilm("evaluate", tmp_path / "run").fails(2, "found", "expected RUN and at least one BETON")


def test_a_kernel_compiles_where_nothing_can_be_cached(tmp_path: Path) -> None:
    program = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "from kernels.crops import crop_into\n"
        "import numpy as np\n"
        "out = np.empty((1, 1, 1, 1), np.float32)\n"
        "crop_into(out, np.array([255], np.uint8), np.zeros(1, np.int64), 1)\n"
        "print(out[0, 0, 0, 0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1]
    )
    assert done.stdout.strip() == "1.0", done.stderr


def test_settings_of_a_config_file_count_and_flags_override_them(plainfilm: Command, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"patients": 3, "images_per_patient": 1, "size": 32}')
    assert plainfilm("phantom", tmp_path / "a", "--config", tmp_path / "c.json").code == 0
    assert plainfilm("phantom", tmp_path / "b", "--config", tmp_path / "c.json", "--patients", 5).code == 0
    assert [len(list((tmp_path / name / "images").rglob("*.png"))) for name in "ab"] == [3, 5]


def test_many_reasons_of_one_kind_are_one_line(convert: Command, tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    for number in range(30):
        (source / "covid" / f"broken{number}.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(number % 10))
    done = convert(source, "--out", tmp_path / "out")
    assert done.code == 0 and "  rejected 30: cut short; the first: truncated PNG" in done.out


def test_running_out_of_memory_is_reported_with_a_remedy(
    plainfilm: Command, betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import loaders.batches.loader as loader

    def too_much(*arguments: object) -> None:
        raise MemoryError("Unable to allocate 13 GiB")

    monkeypatch.setattr(loader.Loader, "make_batch", too_much)
    plainfilm("train", betons, "--out", tmp_path / "r").fails(4, "13 GiB", "--batch-size")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_an_output_that_takes_nothing_is_exit_4_with_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, cli.__file__, "phantom", str(tmp_path / "P"), "--patients", "2", "--size", "64"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ended.returncode == 4 and ended.stderr.startswith("plainfilm: output: No space left")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("info none.beton 2>/dev/full", 4), ("train 2>/dev/full", 2), (">/dev/full 2>&1", 2),
        ("--version >/dev/full", 4),
        ("info none.beton 2>&-", 4), (">&-", 2), ("--version <&- >&- 2>&-", 0),
    ],
)  # fmt: skip
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_streams_that_take_nothing_or_are_closed_change_no_exit_code(command: str, code: int, tmp_path: Path) -> None:
    script = f'"$0" "$1" {command}'
    ended = subprocess.run(["sh", "-c", script, sys.executable, cli.__file__], cwd=tmp_path, capture_output=True)
    assert ended.returncode == code and b"Traceback" not in ended.stderr, ended.stderr
