"""Hostile names: files, links, pipes and tables that would lead a command astray, or out of its folders."""

import csv
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.image_files import png
from tests.faults.processes import Ending, ForkServer

NAMES = {  # of sound files, which must be used under these names and shown as text
    "newline": b"a\nb.png", "colour": b"\x1b[31mred\x1b[0m.png", "title": b"\x1b]0;owned\x07.png",
    "C1": "\x9b31m.png".encode(), "no UTF-8": b"\xff\xfe\xed\xa0\x80.png", "NFC": "\u00e9.png".encode(),
    "NFD": "e\u0301.png".encode(), "255 bytes": b"x" * 251 + b".png", "tag": b"<img src=x onerror=alert(1)>.png",
    "formula": b"=cmd()|'x'!A1.png", "option": b"--out=elsewhere.png", "turned": "\u202egnp.exe.png".encode(),
    "shell": b"$(touch planted)`touch planted`;.png", "quotes": b"\",',\".png", "backslash": b"x\\..\\..\\a.png",
    "format": b"%s%n{0}.png", "carriage return": b"\r=1+1.png", "markup": b"[bold red]x[blink].png",
    "bell": b"\a\b\x7f.png",
}  # fmt: skip
TRAPS = ("FIFO", "socket", "link out", "link to a folder out", "link to itself", "link to nothing", "link to /dev/zero",
         "device", "folder named .png", "links in a ring")  # fmt: skip
PATHS = ("../outside/secret.png", "{outside}/secret.png", "a/../../outside/secret.png", "a/out/secret.png",
         "a/" + "y" * 300 + ".png", "/dev/zero", "a/pipe.png", "a/\0.png", "")  # fmt: skip
MASKS = ("link out", "FIFO", "../outside/secret.png", "{outside}/secret.png", "FIFO for a table", "link to itself")
PRESETS = ("table out", "list out", "FIFO for a table", "image out", "name out")
TWINS = "NFC beside NFD"  # two files whose names are shown alike, with other pixels
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
    """Sound files of two classes, and a secret outside."""
    for number in range(SOUND):
        path = place.tree / folder.format(label="ab"[number % 2]) / f"sound{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(film(number))
    place.outside.mkdir()
    (place.outside / "secret.png").write_bytes(film(999))
    (place.outside / "secret.csv").write_text("Image Index,secret\nx,ZQXKANARIE\n")


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
            "link out": outside / "secret.png", "link to a folder out": outside, "link to itself": path,
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
    odd = {"image out": "trap.png", "name out": "../outside/secret.png"}.get(kind, "sound0.png")
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
            table.symlink_to(place.outside / "secret.csv")
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
    (place.out / kind).symlink_to(place.outside / "secret.png")
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


# ---- attempts


ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
WATCH = """
import os, sys
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, given):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(given[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.fsdecode(given[0]))
        if path.startswith({outside!r}):
            os.write(log, path.encode("utf-8", "backslashreplace") + b"\\n")
sys.addaudithook(watch)
"""
OUTPUT = "server"  # where the children' own output lies


def state_of(folder: Path, apart: set[Path]) -> dict[str, tuple[int, ...]]:
    """Of all below a folder, but not below those apart, what changes with it: kind, size, file, time of change."""
    found: dict[str, tuple[int, ...]] = {}
    above = {path.parent for path in apart}  # whose time changes with what is apart
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if Path(place) / name not in apart]
        for path in (Path(place) / name for name in [*subfolders, *names]):
            if path not in apart:
                status = path.lstat()
                time = 0 if path in above else status.st_mtime_ns
                found[str(path)] = (status.st_mode, status.st_size, status.st_ino, time)
    return found


def mark_unread(folder: Path) -> dict[Path, int]:
    """Set the last time of reading a folder and its files before that of writing; gives the time of each.

    The next reading then renews it, whoever reads (by C or in a worker too), if the file system keeps such times.
    """
    paths = [*folder.iterdir(), folder]
    for path in paths:
        os.utime(path, ns=(1, path.stat().st_mtime_ns))
    return read_times(paths)


def read_times(paths: Iterable[Path]) -> dict[Path, int]:
    """When each was last read, ns."""
    return {path: path.stat().st_atime_ns for path in paths}


def rows_of(table: Path) -> list[dict[str, str]]:
    """A table's rows."""
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def of_ending(ending: Ending) -> Iterator[str]:
    """What broke a promise in how a command ended, and on the terminal."""
    if ending.timed_out or ending.code not in (0, 2, 3) or ending.traceback:
        yield f"ended with {ending.code}{' for lack of time' * ending.timed_out}: {ending.errors.strip()[-150:]!r}"
    if ODD.search(ending.output + ending.errors):
        yield f"put control characters on the terminal: {ODD.findall(ending.output + ending.errors)[:5]}"


def of_results(out: Path) -> Iterator[str]:
    """What broke a promise in pages and tables."""
    for page in out.rglob("*.html") if out.is_dir() else ():
        text = page.read_text()
        if ODD.search(text) or "<img src=x" in text:
            yield f"{page.name} holds control characters or a name's markup"
    for table in out.rglob("*.csv") if out.is_dir() else ():
        cells = [cell or "" for row in rows_of(table) for cell in row.values()]
        if formulas := [cell for cell in cells if re.match(r"[=+@\t\r]|-(?![0-9.])", cell)]:
            yield f"{table.name} has a formula: {formulas[0][:30]!r}"


def of_rows(case: Case, ending: Ending) -> Iterator[str]:
    """What broke a promise in the rows of the hostile files."""
    if case.table is None:
        return
    if not case.table.is_file():
        if case.used:
            yield f"left no {case.table.name}: {ending.errors.strip()[-150:]!r}"
        return
    of_path = {row["path"].removeprefix("./"): row for row in rows_of(case.table)}
    for path in case.rows:
        row = of_path.get(path.removeprefix("./"))
        if row is None:
            yield f"has no row for {path[-40:]!r}"
            continue
        found = row.get("verdict") or row.get("reason") or ""
        refused = "unreadable" in f"{row.get('defects')} {row.get('reason')}"
        refused = found != "written" if case.table.name == "convert.csv" else refused
        if refused == case.used:
            good = {"convert.csv": "written", "audit.csv": "", "predictions.csv": "an answer"}[case.table.name]
            yield f"{path[-40:]!r} is {found}{row.get('defects', '')}, expected {good if case.used else 'a refusal'}"


def attack(server: ForkServer, make: Maker, here: Path, defect: str = "") -> tuple[Case, Ending, list[str]]:
    """Run a case's commands beside what prepare left; gives it, how the first ended, and what broke a promise."""
    place = Place(tree=here / "tree", out=here / "out", outside=here / "outside", key=here.parent / "key")
    case, opened = make(place), here / "opened"
    untouched = state_of(here.parent, apart := {place.out, opened, here.parent / OUTPUT})
    unread = mark_unread(place.outside)
    watch = WATCH.format(log=str(opened), outside=str(place.outside.resolve()))
    ending = server.run(case.argv, before=watch + defect, cwd=place.tree, timeout=60)
    endings = [ending]
    if case.then and not ending.code:
        endings.append(server.run(case.then, before=watch + defect, cwd=place.tree, timeout=60))
    read = {path.name for path, time in read_times(unread).items() if time != unread[path]}  # before we read them
    wrong = [sentence for each in endings for sentence in of_ending(each)]
    read |= {Path(path).name for path in opened.read_text().splitlines()} if opened.exists() else set()
    if read:
        wrong.append(f"opened {', '.join(sorted(read))} outside the roots")
    after = state_of(here.parent, apart)
    if changed := [path for path in untouched | after if untouched.get(path) != after.get(path)]:
        wrong.append(f"changed what lies outside: {[Path(path).name[-40:] for path in changed[:3]]}")
    wrong += [*of_results(place.out), *of_rows(case, ending)]
    if len(endings) == 2 and not list(place.out.rglob("report.html")):
        wrong.append("left no report.html")
    return case, ending, wrong


def prepare(server: ForkServer, folder: Path) -> None:
    """A conversion and a run, for predict and explain."""
    place = Place(tree=folder / "tree", out=folder / "betons", outside=folder / "far", key=folder / "key")
    plant(place)
    server.run(convert_argv(place, str(place.tree)), timeout=120)
    ending = server.run(["train", str(place.out), "--out", str(folder / "run"), *RECIPE], timeout=120)
    assert ending.code == 0, ending.errors


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """Case after case.  defect: a fault for the children, to try the campaign itself."""
    tally, every = Tally(), cases()
    with ForkServer(folder / OUTPUT) as server:
        prepare(server, folder)
        for attempt in range(count):
            here = folder / f"{attempt:04}"
            case, ending, wrong = attack(server, every[attempt % len(every)], here, defect)
            if wrong:
                tally.broke(f"{case.name}: {'; '.join(wrong)} (seed {seed}, attempt {attempt})")
            else:
                tally.held("used under its name" if case.used else "refused" if ending.code else "row with a reason")
            shutil.rmtree(here)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="hostile-names",
    attack="`../`, newlines, escapes, no UTF-8, NFC beside NFD, 255 bytes, formulas, pipes, sockets, devices, "
    "links out, rings; as files, classes, arguments, rows of tables, masks and results",
    holds="nothing read outside the roots, nothing changed but the results; pages of audit and training, tables and "
    "terminal stay clean; nothing waits for ever",
    run=run,
    short=8,
    full=len(cases()),
)


# ---- what the campaign notices


UNCHECKED = "import loaders.images.decode as decode\ndecode.inside = lambda root, path, within: root / path"
UNESCAPED = "import cli\ncli.printable = str"
ELSEWHERE = """
import cli
whole = cli.run
def run(parser, namespace):
    {deed}
    return whole(parser, namespace)
cli.run = run
"""
OVERWRITTEN = ELSEWHERE.format(deed='open("../outside/secret.png", "ab").write(b"!")')
TOUCHED = ELSEWHERE.format(deed='open("planted", "ab").close()')
READ_BY_C = ELSEWHERE.format(deed='assert __import__("cv2").imread("../outside/secret.png") is not None')
TWINS_ARE_ONE = """
import dataclasses, unicodedata
import loaders.convert.convert as converting
whole = converting.table_bytes
def one(row):
    entry = dataclasses.replace(row.entry, path=unicodedata.normalize("NFC", row.entry.path))
    return dataclasses.replace(row, entry=entry)
converting.table_bytes = lambda rows, *of: whole(tuple(map(one, rows)), *of)
"""
DEVICE_USED = """
import loaders.images.radiograph as reading
from tests.faults.test_hostile_names import film
whole = reading.read_file
reading.read_file = lambda path: (film(77), "PNG", "") if path.is_char_device() else whole(path)
"""
PAGE_AS_IT_IS = "import markupsafe, loaders.html; loaders.html.visible = markupsafe.Markup"
ASTRAY = partial(of_manifest, "../outside/secret.png", command="convert")
COLOUR, OPTION = (partial(of_folder, kind, command="convert") for kind in ("colour", "option"))
DEVICE = partial(of_folder, "device", command="convert")
TWO = partial(of_folder, TWINS, command="convert")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ForkServer, Path]]:
    """A server and the folder of a campaign."""
    folder = tmp_path_factory.mktemp("names")
    with ForkServer(folder / OUTPUT) as server:
        prepare(server, folder)
        yield server, folder


@pytest.mark.parametrize(
    ("fault", "case", "noticed"),
    [
        pytest.param(UNCHECKED, ASTRAY, "opened secret.png outside", id="unchecked"),
        pytest.param(UNESCAPED, partial(of_typed, "colour"), "control characters", id="unescaped"),
        pytest.param(OVERWRITTEN, COLOUR, "changed what lies outside: ['secret.png'", id="overwritten"),
        pytest.param(TOUCHED, OPTION, "changed what lies outside: ['tree', 'planted'", id="written into the source"),
        pytest.param(READ_BY_C, COLOUR, "opened secret.png outside", id="read by C"),
        pytest.param(DEVICE_USED, DEVICE, "trap.png' is written, expected a refusal", id="device"),
        pytest.param(TWINS_ARE_ONE, TWO, "has no row for", id="twins"),
        pytest.param(PAGE_AS_IT_IS, partial(of_class, "tag"), "report.html holds", id="page"),
    ],
)
def test_a_planted_fault_is_noticed(prepared: tuple[ForkServer, Path], fault: str, case: Maker, noticed: str) -> None:
    server, folder = prepared
    here = folder / "attempt"
    wrong = attack(server, case, here, fault)[2]
    shutil.rmtree(here)
    assert any(noticed in sentence for sentence in wrong), wrong


def test_every_case_is_tried_in_full() -> None:
    assert CAMPAIGN.full >= len(cases())


def test_every_promise_holds_under_attack(tmp_path: Path) -> None:
    check_short_form(CAMPAIGN, tmp_path)
