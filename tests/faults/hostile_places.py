"""The cases of hostile names: trees with a trap in them, and the commands that are led into it."""

from __future__ import annotations

import csv
import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from tests.faults.png_writer import png

NAMES = {  # of sound files, which must be used under these names and shown as text
    "newline": b"a\nb.png", "colour": b"\x1b[31mred\x1b[0m.png", "title": b"\x1b]0;owned\x07.png",
    "C1": "\x9b31m.png".encode(), "no UTF-8": b"\xff\xfe\xed\xa0\x80.png", "NFC": "\u00e9.png".encode(),
    "NFD": "e\u0301.png".encode(), "255 bytes": b"x" * 251 + b".png", "tag": b"<img src=x onerror=alert(1)>.png",
    "formula": b"=cmd()|'x'!A1.png", "option": b"--out=elsewhere.png", "turned": "\u202egnp.exe.png".encode(),
    "shell": b"$(touch canary)`touch canary`;.png", "quotes": b"\",',\".png", "backslash": b"x\\..\\..\\a.png",
    "format": b"%s%n{0}.png", "carriage return": b"\r=1+1.png", "markup": b"[bold red]x[blink].png",
    "bell": b"\a\b\x7f.png",
}  # fmt: skip
TRAPS = ("FIFO", "socket", "link out", "link to a folder out", "link to itself", "link to nothing", "link to /dev/zero",
         "device", "folder named .png", "links in a ring")  # fmt: skip
PATHS = ("../outside/canary.png", "{outside}/canary.png", "a/../../outside/canary.png", "a/out/canary.png",
         "a/" + "y" * 300 + ".png", "/dev/zero", "a/pipe.png", "a/\0.png", "")  # fmt: skip
MASKS = ("link out", "FIFO", "../outside/canary.png", "{outside}/canary.png", "FIFO for a table", "link to itself")
PRESETS = ("table out", "list out", "FIFO for a table", "image out", "name out")
TWINS = "NFC beside NFD"  # two files whose names look alike, with other pixels
RECIPE = ("--epochs", "1", "--batch-size", "4", "--threads", "1", "--device", "cpu")
SOUND = 12  # files of a tree beside the hostile one


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One attempt.  rows: of the hostile files in the table.  used: they must be; else refused, or the whole command.

    then: a second command, which must leave a page, if the first has not refused.
    """

    name: str
    argv: list[str]
    table: Path | None = None
    rows: tuple[str, ...] = ()
    used: bool = False
    then: list[str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an attempt lies.  outside: what nobody may touch."""

    tree: Path
    out: Path
    outside: Path
    key: Path


Maker = Callable[[Place], Case]


# ---- trees


def film(number: int) -> bytes:
    """A small sound PNG, another for each number."""
    return png(np.random.default_rng(number).integers(0, 256, (64, 60)).astype(np.uint8))


def plant(place: Place, folder: str = "{label}") -> None:
    """Sound files of two classes, and the canary outside."""
    for number in range(SOUND):
        path = place.tree / folder.format(label="ab"[number % 2]) / f"sound{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(film(number))
    place.outside.mkdir()
    (place.outside / "canary.png").write_bytes(film(999))
    (place.outside / "canary.csv").write_text("Image Index,secret\nx,ZQXKANARIE\n")


def may_make_devices(path: Path) -> bool:
    """Put a device of endless zeros there, if that is allowed here."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    except PermissionError:
        return False
    return True


def set_trap(path: Path, kind: str, outside: Path) -> None:
    """Put a file there that is none, or lies elsewhere."""
    if kind.startswith("FIFO"):
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            here = os.open(path.parent, os.O_RDONLY)
            one.bind(f"/proc/self/fd/{here}/{path.name}")  # the whole path may be too long for a socket
            os.close(here)
    elif kind == "device" and may_make_devices(path):
        return
    elif kind == "folder named .png":
        path.mkdir()
        (path / "inner.png").write_bytes(b"no picture")
    elif kind == "links in a ring":
        path.symlink_to(path.parent / "other.png")
        (path.parent / "other.png").symlink_to(path)
    else:
        path.symlink_to({
            "link out": outside / "canary.png", "link to a folder out": outside, "link to itself": path,
            "link to nothing": outside / "nothing.png", "link to /dev/zero": Path("/dev/zero"),
            "device": Path("/dev/zero"),
        }[kind])  # fmt: skip


def make_files(place: Place, kind: str) -> tuple[str, ...]:
    """A hostile file of class a, or two; gives their paths below the tree."""
    if kind in NAMES or kind == TWINS:
        names = ("NFC", "NFD") if kind == TWINS else (kind,)
        paths = [place.tree / "a" / os.fsdecode(NAMES[name]) for name in names]
        for number, path in enumerate(paths):
            path.write_bytes(film(500 + number))
    else:
        path = place.tree / "a" / "trap.png"
        set_trap(path, kind, place.outside)
        paths = [path / "inner.png" if kind == "folder named .png" else path]
    return tuple(path.relative_to(place.tree).as_posix() for path in paths)


# ---- commands


def convert_argv(place: Place, *source: str) -> list[str]:
    """The arguments of a small conversion."""
    options = ["--size", "32", "--page-mib", "2", "--workers", "1", "--site-key", str(place.key)]
    return ["convert", *source, "--out", str(place.out), *options]


def of_folder(kind: str, place: Place, *, command: str) -> Case:
    """A file below a folder of classes, for convert, audit and predict."""
    plant(place)
    rows, used = make_files(place, kind), kind in NAMES or kind == TWINS
    tree, name = str(place.tree), f"{command} {kind}"
    if command == "convert":
        argv, table = convert_argv(place, tree), "convert.csv"
    elif command == "audit":
        argv, table = ["audit", tree, "--out", str(place.out), "--workers", "1"], "audit.csv"
    else:
        place.out.mkdir()
        table, rows = "predictions.csv", tuple(f"{tree}/{row}" for row in rows)
        run = place.key.parent / "run"
        argv = ["predict", str(run), tree, "--out", str(place.out / table), "--audit", "off", "--workers", "1"]
    return Case(name=name, argv=argv, table=place.out / table, rows=rows, used=used)


def of_manifest(path: str, place: Place, *, command: str) -> Case:
    """A path in a CSV that leads elsewhere."""
    plant(place)
    (place.tree / "a" / "out").symlink_to(place.outside)
    os.mkfifo(place.tree / "a" / "pipe.png")
    wanted = path.format(outside=place.outside)
    table = place.tree / "table.csv"
    rows = [(f"{label}/sound{n}.png", label) for n in range(SOUND) for label in ["ab"[n % 2]]]
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows, (wanted, "a")])
    if command == "convert":
        argv, name = convert_argv(place, "--manifest", str(table)), "convert.csv"
    else:
        argv, name = ["audit", "--manifest", str(table), "--out", str(place.out), "--workers", "1"], "audit.csv"
    return Case(name=f"{command} --manifest {path[:30]!r}", argv=argv, table=place.out / name, rows=(wanted,))


def of_mask(kind: str, place: Place) -> Case:
    """A mask that lies elsewhere, or is none."""
    base, masks = place.key.parent, place.tree / "masks"
    plant(place)
    masks.mkdir()
    with (base / "betons" / "convert.csv").open(newline="") as file:
        path = next(row["path"] for row in csv.DictReader(file) if row["split"] == "train")
    named = masks
    if kind == "FIFO for a table" or "/" in kind:
        named = masks / "masks.csv"
        if "/" in kind:
            named.write_text(f"path,mask\n{path},{kind.format(outside=place.outside)}\n")
        else:
            os.mkfifo(named)
    else:
        set_trap(masks / f"{Path(path).stem}_mask.png", kind, place.outside)
    argv = ["explain", str(base / "run"), str(base / "betons" / "train.beton"), "--masks", str(named)]
    return Case(name=f"explain --masks {kind}", argv=[*argv, "--out", str(place.out), "--samples", "1"])


def of_preset(kind: str, place: Place) -> Case:
    """NIH's layout with a table, a list or an image that lies elsewhere."""
    plant(place, "images")
    tree = place.tree
    rows = [(f"sound{n}.png", "No Finding" if n % 2 else "Pneumonia", n, "PA") for n in range(SOUND)]
    odd = {"image out": "trap.png", "name out": "../outside/canary.png"}.get(kind, "sound0.png")
    with (tree / "Data_Entry_2017.csv").open("w", newline="") as file:
        named = [("Image Index", "Finding Labels", "Patient ID", "View Position"), *rows]
        csv.writer(file).writerows(named + [(odd, "Pneumonia", 99, "PA")] * (kind in ("image out", "name out")))
    if kind == "image out":
        set_trap(tree / "images" / "trap.png", "link out", place.outside)
    elif kind != "name out":
        table = tree / ("test_list.txt" if kind == "list out" else "Data_Entry_2017.csv")
        table.unlink(missing_ok=True)
        if kind == "FIFO for a table":
            os.mkfifo(table)
        else:
            table.symlink_to(place.outside / "canary.csv")
    return Case(name=f"convert --preset {kind}", argv=convert_argv(place, str(tree), "--preset", "nih"))


def of_class(kind: str, place: Place) -> Case:
    """A class whose folder has a hostile name, trained on so that its page has it too."""
    plant(place)
    (place.tree / "a").rename(place.tree / os.fsdecode(NAMES[kind].removesuffix(b".png")))
    then = ["train", str(place.out), "--out", str(place.out / "run"), *RECIPE]
    return Case(name=f"convert of a class {kind}", argv=convert_argv(place, str(place.tree)), then=then)


def of_typed(kind: str, place: Place) -> Case:
    """A hostile name as an argument, as a shell's * puts it there."""
    plant(place)
    name = os.fsdecode(b"--" + NAMES[kind])
    return Case(name=f"predict an option {kind}", argv=["predict", str(place.key.parent / "run"), name])


def of_out(kind: str, place: Place) -> Case:
    """A link that waits in the folder of results under a temporary file's name."""
    plant(place)
    place.out.mkdir()
    (place.out / kind).symlink_to(place.outside / "canary.png")
    return Case(name=f"link {kind} in --out", argv=convert_argv(place, str(place.tree)))


def cases() -> list[Maker]:
    """Every case once; the first few are of every command."""
    every: list[list[Maker]] = []
    for command in ("convert", "audit", "predict"):
        pairs = zip(TRAPS, NAMES, strict=False)
        kinds = [kind for pair in pairs for kind in pair] + [TWINS, *list(NAMES)[len(TRAPS) :]]
        every.append([partial(of_folder, kind, command=command) for kind in kinds])
    every.append([partial(of_mask, kind) for kind in MASKS])
    every.append([partial(of_manifest, path, command="convert") for path in PATHS])
    every.append([partial(of_preset, kind) for kind in PRESETS])
    every.append([partial(of_manifest, path, command="audit") for path in PATHS[:3]])
    every.append([partial(of_class, kind) for kind in ("colour", "tag", "formula", "no UTF-8", "turned", "markup")])
    every.append([partial(of_typed, kind) for kind in ("colour", "title", "no UTF-8", "newline")])
    links = ("train.beton.plainfilm-tmp", "convert.csv", "convert.csv.plainfilm-tmp")
    every.append([partial(of_out, kind) for kind in links])
    longest = max(map(len, every))
    return [row[place] for place in range(longest) for row in every if place < len(row)]
