"""Campaign: files taken away, changed, replaced or cut short while plainfilm uses them, and places it may not write."""

# N samples, H W rows and columns, S side of a stored frame

import contextlib
import csv
import ctypes
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from loaders.batches.loader import Loader
from loaders.beton.ffcv_fields import FieldReader
from loaders.beton.reader import Beton
from loaders.errors import BetonError
from loaders.images.frame import stored_frame
from loaders.images.radiograph import decode_radiograph
from loaders.sources.patient_hash import load_site_key
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.processes import Ending, ForkServer
from tests.loaders.test_beton import PAGE, write

STORED = 46  # side of the frames


def without_privileges() -> None:
    """Give up every capability: else root may write anywhere."""
    if os.getuid():
        return
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    nothing = (ctypes.c_uint32 * 6)()
    if ctypes.CDLL(None, use_errno=True).capset(header, nothing):
        raise OSError(ctypes.get_errno(), "capset")


def disturb(action: Callable[[], None], when: str, count: int) -> None:
    """Act once during a conversion: before the count-th file is decoded, or when all are and the betons are due."""
    import loaders.convert.convert
    import loaders.images.decode

    owner, name = (
        (loaders.images.decode, "decode_into_spool") if when == "decode" else (loaders.convert.convert, "write")
    )
    inner, calls = getattr(owner, name), iter(range(1 << 30))

    def acting(*given: object, **named: object) -> object:
        if next(calls) == (count if when == "decode" else 0):
            action()
        return inner(*given, **named)

    setattr(owner, name, acting)


def cut_later(path: Path, size: int, owner: type, name: str, count: int, delay: float) -> None:
    """Cut a file short in place, in another thread, some seconds after the count-th call of a method has begun."""
    inner, calls = getattr(owner, name), iter(range(1 << 30))

    def cut() -> None:
        time.sleep(delay)
        os.truncate(path, size)

    def acting(*given: object, **named: object) -> object:
        if next(calls) == count:
            thread = threading.Thread(target=cut)
            thread.start()
            if not delay:
                thread.join()
        return inner(*given, **named)

    setattr(owner, name, acting)


def batches_of(path: Path, kind: str) -> Iterator[tuple[np.ndarray, ...]]:
    """What a reader of this kind gives, one batch after another."""
    if kind == "fields":
        with FieldReader(path) as reader:
            for sample in range(len(reader)):
                yield reader.value("image", sample), np.array(reader.value("label", sample))
        return
    options: dict[str, Any] = {"training": kind == "training", "resident": "on" if kind == "resident" else "auto"}
    with Loader(path, batch_size=4, threads=2, seed=3, **options) as loader:
        yield from loader


def be_reader(path: Path, truth: Path, kind: str, action: Callable[[], None], count: int) -> None:
    """Read a beton, act on it before the count-th batch, and print how it ended: equal, wrong or reported."""
    expected = list(batches_of(truth, kind))
    given = 0
    try:
        for batch in batches_of(path, kind):
            if not all(map(np.array_equal, batch, expected[given])):
                sys.stdout.write(f"wrong: batch {given}")
                return
            if (given := given + 1) == count:
                time.sleep(0.05)  # until the batches that are made ahead are there: the cut falls between two uses
                action()
                time.sleep(0.01)
    except BetonError as error:
        sys.stdout.write(f"reported: {error}")
        return
    sys.stdout.write("equal" if given == len(expected) else f"wrong: {given} of {len(expected)} batches")


# ---- actions: what a child does to a file


def write_over(path: Path, content: Path) -> None:
    """Write another file's bytes over this one, as cp does."""
    time.sleep(0.02)  # a clock tick of the file system after it was written
    with path.open("r+b") as file:
        file.write(content.read_bytes())


def become(path: Path, kind: str, other: Path) -> None:
    """Make a picture something else.  other: another picture, of which it may get the bytes."""
    match kind:
        case "gone":
            path.unlink()
        case "folder gone":
            shutil.rmtree(path.parent.parent)
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "other":
            path.write_bytes(other.read_bytes())
        case "text":
            path.write_text("no radiograph any more\n")
        case "fifo":
            path.unlink()
            os.mkfifo(path)


# ---- attempts


FILES, SIDE = 24, 32  # pictures to convert, and their crops
SAMPLES = 64  # of the betons that are read
CHANGED = "written in place while it was read"


# ---- attacks


class Setup:
    """What attempts work on: pictures to convert and betons to read, made once.  server: of the children."""

    def __init__(self, folder: Path, seed: int, server: ForkServer, defect: str) -> None:
        self.folder, self.server, self.defect = folder, server, defect
        rng = np.random.default_rng(seed)
        for place in range(FILES):
            path = folder / "pictures" / ("covid", "normal")[place % 2] / f"{place:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _, content = cv2.imencode(".png", rng.integers(0, 256, (40, 40)).astype(np.uint8))
            path.write_bytes(content.tobytes())
        _, content = cv2.imencode(".png", rng.integers(0, 256, (40, 40)).astype(np.uint8))
        (folder / "other.png").write_bytes(content.tobytes())
        write(folder / "whole.beton", SAMPLES)
        write(folder / "other.beton", SAMPLES + 1)
        self.key = folder / "keys" / "site.key"  # not the key of whoever runs this
        load_site_key(self.key)

    def here(self, attempt: int) -> Path:
        """An empty folder for one attempt."""
        place = self.folder / f"attempt-{attempt}"
        place.mkdir()
        return place

    def child(self, argv: list[str] | None, call: str) -> Ending:
        """Run a child.  call: of a function of live_children, beforehand."""
        given = "import os\nfrom functools import partial\nfrom pathlib import PosixPath\n"
        before = f"{self.defect}\n{given}from tests.faults.test_live_files import *\n{call}"
        return self.server.run(argv, before=before, timeout=60)


Outcome = tuple[str, str]  # what it ended as; what is wrong, or ""


def plain_failure(ending: Ending, code: int, place: Path) -> str:
    """What is wrong with a child that should have failed with this exit code, naming the place."""
    if ending.timed_out or ending.traceback or ending.code != code or str(place) not in ending.errors:
        return f"exit {ending.code}, expected {code} and {place} named: {ending.errors[-300:]!r}"
    return ""


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but the lock."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".plainfilm-lock"
    }


def read_only(setup: Setup, here: Path, variant: str, rng: random.Random) -> Outcome:
    """Convert, draw or train into a place where nothing may be written."""
    out = here / "out"
    flags = ["--size", str(SIDE), "--workers", "1", "--site-key", str(setup.key)]
    command = ["convert", str(setup.folder / "pictures"), *flags, "--out"]
    if variant == "below a file":
        (here / "file").write_text("in the way")
        out = here / "file" / "out"
    elif variant == "old betons":
        out.mkdir()
        shutil.copy(setup.folder / "whole.beton", out / "train.beton")
        (out / ".plainfilm-lock").touch()
    elif variant == "phantoms":
        command = ["phantom", "--patients", "4", "--size", "64"]
    elif variant == "training":
        betons = here / "betons"
        betons.mkdir()
        for name in ("train", "val"):
            write(betons / f"{name}.beton", 8)
        command = ["train", str(betons), "--epochs", "1", "--out"]
    before = files_of(here)
    for place in (out, here):
        if place.is_dir():
            place.chmod(0o555)
    ending = setup.child([*command, str(out)], "without_privileges()")
    wrong = plain_failure(ending, 4, out)
    if not wrong and files_of(here) != before:
        wrong = f"files are not as before: {sorted(files_of(here))}"
    for place in (here, out):
        with contextlib.suppress(OSError):
            place.chmod(0o755)
    return "exit 4, everything as before", wrong


def changing_source(setup: Setup, here: Path, variant: str, rng: random.Random) -> Outcome:
    """Convert pictures of which one becomes something else."""
    kind, when = variant.split("/")
    source, out = here / "pictures", here / "out"
    shutil.copytree(setup.folder / "pictures", source)
    paths = sorted(source.rglob("*.png"))
    child, count = rng.choice(paths), rng.randrange(FILES)
    other = setup.folder / "other.png"
    pictures = {str(path.relative_to(source)): {path.read_bytes()} for path in paths}
    pictures[str(child.relative_to(source))].add(other.read_bytes())
    argv = ["convert", str(source), "--size", str(SIDE), "--workers", "1", "--page-mib", "2", "--out", str(out)]
    act = f"partial(become, {child!r}, {kind!r}, {other!r})"
    ending = setup.child([*argv, "--site-key", str(here / "key")], f"disturb({act}, {when!r}, {count})")
    if ending.timed_out or ending.traceback or ending.code not in (0, 3, 4):
        return "", f"{variant}: exit {ending.code}: {ending.errors[-300:]!r}"
    if ending.code:
        left = sorted(files_of(out)) if out.exists() else []
        return f"exit {ending.code}, nothing written", f"{variant}: left {left}" if left else ""
    return "whole betons, every file accounted for", wrong_conversion(out, pictures, here / "scratch.png")


def wrong_conversion(out: Path, pictures: dict[str, set[bytes]], scratch: Path) -> str:
    """What is wrong with the betons of these pictures, each of which had one of several contents; or ""."""
    with (out / "convert.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    named = {row["path"]: row for row in rows if row["path"] in pictures}
    if named.keys() != pictures.keys():
        return f"{len(named)} of {len(pictures)} files in convert.csv"
    betons = {path.stem: Beton(path) for path in out.glob("*.beton")}
    try:
        for beton in betons.values():
            beton.verify()
        written = [row for row in named.values() if row["verdict"] == "written"]
        if len(written) != sum(map(len, betons.values())):
            return f"{len(written)} files written by the table, {sum(map(len, betons.values()))} samples in betons"
        for row in written:
            frame_SS = betons[row["split"]].frame(int(row["sample"]))
            may_be = []
            for content in pictures[row["path"]]:
                scratch.write_bytes(content)
                grey_HW = decode_radiograph(scratch, max_pixels=1 << 20).grey_HW
                may_be.append(stored_frame(grey_HW, STORED, "stretch")[0])
            if not any(np.array_equal(frame_SS, wanted_SS) for wanted_SS in may_be):
                return f"{row['path']}: a frame that the file never had"
        return ""
    finally:
        for beton in betons.values():
            beton.close()


def live_reader(setup: Setup, here: Path, variant: str, rng: random.Random) -> Outcome:
    """Read a beton that is replaced, removed, cut or written over between two batches."""
    action, kind = variant.split("/")
    path, truth, other = here / "live.beton", setup.folder / "whole.beton", here / "other.beton"
    shutil.copy(truth, path)
    shutil.copy(setup.folder / "other.beton", other)
    size = path.stat().st_size
    sizes = (0, 1, PAGE - 1, PAGE, PAGE + 1, PAGE + 50_000, 2 * PAGE, size - 1, rng.randrange(size))
    calls = {
        "replaced": f"partial(os.replace, {other!r}, {path!r})",
        "removed": f"partial(os.unlink, {path!r})",
        "cut": f"partial(os.truncate, {path!r}, {rng.choice(sizes)})",
        "grown": f"partial(os.truncate, {path!r}, {size + rng.choice((1, PAGE))})",
        "written over": f"partial(write_over, {path!r}, {other!r})",
    }
    count = rng.randrange(1, 8)
    ending = setup.child(None, f"be_reader({path!r}, {truth!r}, {kind!r}, {calls[action]}, {count})")
    serves = action in ("replaced", "removed") or kind == "resident"
    printed = ending.output.strip()
    if ending.code == 0 and serves and printed == "equal":
        return "old file serves to the end", ""
    if (
        ending.code == 0
        and not serves
        and printed.startswith("reported: ")
        and str(path) in printed
        and CHANGED in printed
    ):
        return "reported before a wrong pixel", ""
    return "", f"{variant}, {calls[action]} at batch {count}: exit {ending.code}, {printed!r}, {ending.errors[-300:]!r}"


def cut_command(setup: Setup, here: Path, variant: str, rng: random.Random) -> Outcome:
    """Cut a beton short at any moment of a command that reads it."""
    path = here / "live.beton"
    shutil.copy(setup.folder / "whole.beton", path)
    size = rng.choice((0, 1, 5000, PAGE - 1, PAGE, PAGE + 4096, PAGE + 50_000, rng.randrange(path.stat().st_size)))
    owner, name, most, command = {
        "opening": ("loaders.beton.map.BetonMap", "_read_tables", 1, "info"),
        "verifying": ("loaders.beton.reader.Beton", "check_samples", 1, "verify"),
        "first touch": ("loaders.batches.loader.Loader", "room_for_checksums", 6, "bench-loader"),
        "batches": ("loaders.batches.loader.Loader", "make_batch", 12, "bench-loader"),
    }[variant]
    count, delay = rng.randrange(most), rng.choice((0.0, 0.0, 0.0005, 0.002) if most > 1 else (0.0,))
    flags = ["--batch-size", "4", "--threads", "2"] if command == "bench-loader" else []
    call = f"import loaders.batches.throughput\ncut_later({path!r}, {size}, {owner}, {name!r}, {count}, {delay})"
    ending = setup.child([command, str(path), *flags], call)
    wrong = plain_failure(ending, 5, path)
    return "exit 5, the beton named", wrong and f"{variant}, cut to {size} at call {count}, {delay} s later: {wrong}"


CASES: tuple[tuple[Callable[[Setup, Path, str, random.Random], Outcome], tuple[str, ...]], ...] = (
    (read_only, ("old betons", "new folder", "below a file", "phantoms", "training")),
    (changing_source, (
        "gone/decode", "other/decode", "folder gone/decode", "cut/decode", "text/write", "other/write",
        "folder gone/write", "fifo/decode", "gone/write",
    )),
    (live_reader, (
        "replaced/training", "cut/training", "written over/evaluation", "cut/evaluation", "removed/training",
        "cut/fields", "replaced/fields", "cut/resident", "grown/training", "replaced/evaluation", "written over/fields",
    )),
    (live_reader, ("cut/training", "cut/evaluation")),
    (cut_command, ("batches", "first touch", "opening", "verifying")),
)  # fmt: skip


def case(attempt: int) -> tuple[Callable[[Setup, Path, str, random.Random], Outcome], str]:
    """The attack of an attempt, and its variant."""
    attack, variants = CASES[attempt % len(CASES)]
    return attack, variants[attempt // len(CASES) % len(variants)]


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """defect: Python source that each child runs first, where a test breaks the product."""
    tally = Tally()
    with ForkServer(folder / "children") as server:
        setup = Setup(folder, seed, server, defect)
        for attempt in range(count):
            rng = random.Random(f"{seed}-{attempt}")
            attack, variant = case(attempt)
            here = setup.here(attempt)
            ended, wrong = attack(setup, here, variant, rng)
            if wrong:
                tally.broke(f"{attack.__name__}: {wrong} (seed {seed}, attempt {attempt})")
            else:
                tally.held(ended)
            shutil.rmtree(here, ignore_errors=True)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="live-files",
    attack="read-only target; source vanished or changed while converting; beton replaced, removed, cut short or "
    "written over under a live reader",
    holds="read-only: exit 4, everything as before; source: every file accounted for, each frame one that its file "
    "had; replaced: the old file serves to the end; cut or written over: reported (exit 5) before a wrong pixel",
    run=run,
    short=5,
    full=55,  # which draws each variant
)


# ---- what the campaign notices


def test_a_reader_that_never_checks_its_file_is_counted_as_broken(tmp_path: Path) -> None:
    advanced: list[None] = []
    fault = "from loaders.beton.map import BetonMap; BetonMap.check_unchanged = lambda self: None"
    tally = run(5, 0, tmp_path, lambda: advanced.append(None), fault)
    assert len(advanced) == 5 == tally.attempts
    assert any(failure.startswith("live_reader: cut") for failure in tally.failures), tally.failures
    assert any(failure.startswith("cut_command") for failure in tally.failures), tally.failures


def test_a_bus_error_is_reported_with_the_file_and_what_it_was(tmp_path: Path) -> None:
    write(path := tmp_path / "x.beton", 5)
    cut = (
        "import os; from loaders.beton.reader import Beton\n"
        f"Beton.check_samples = lambda self, *given: os.truncate(self.path, {PAGE}) or self.bytes_B[-9:].sum()"
    )
    with ForkServer(tmp_path / "children") as server:
        ending = server.run(["verify", str(path)], before=cut)
        assert ending.code == 5 and not ending.traceback
        assert f"plainfilm: {path}: written in place while it was read, {PAGE} bytes now, expected the" in ending.errors
        other = "import ctypes; import cli; cli.run = lambda *given: os.kill(os.getpid(), 7)"
        assert server.run(["--version"], before="import os; " + other).code == -7  # any other ends it as ever


def test_every_variant_is_drawn_by_the_full_campaign() -> None:
    drawn = {case(attempt) for attempt in range(CAMPAIGN.full)}
    assert drawn == {(attack, variant) for attack, variants in CASES for variant in variants}


def test_the_site_key_of_whoever_attacks_is_neither_made_nor_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(home := tmp_path / "home"))
    assert not run(1, 0, tmp_path / "faults", lambda: None).failures
    assert not list(home.rglob("site.key"))


def test_every_promise_holds_under_attack(tmp_path: Path) -> None:
    check_short_form(CAMPAIGN, tmp_path)
