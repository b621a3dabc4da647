"""Files that are taken away, changed, replaced or cut short while plainfilm uses them, and places it may not write."""

# N samples, H W rows and columns, S side of a stored frame

from __future__ import annotations

import contextlib
import csv
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from loaders.beton.reader import Beton
from loaders.convert.patient_hash import load_site_key
from loaders.images.frame import stored_frame
from loaders.images.radiograph import decode_radiograph
from tests.faults.live_victims import STORED
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import Ending, Nursery
from tests.loaders.test_beton import PAGE, write

IMPORTS = (
    "import cli, loaders.convert.convert, loaders.batches.throughput, "
    "loaders.phantom.folder, tests.faults.live_victims as v; v.load_kernels()"
)
FILES, SIDE = 24, 32  # pictures to convert, and their crops
SAMPLES = 64  # of the betons that are read
TOLD = "written in place while it was read"


# ---- attacks


class Grounds:
    """What attempts work on: pictures to convert and betons to read, made once.  nursery: of the victims."""

    def __init__(self, folder: Path, seed: int, nursery: Nursery, defect: str) -> None:
        self.folder, self.nursery, self.defect = folder, nursery, defect
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

    def victim(self, argv: list[str] | None, call: str) -> Ending:
        """Run a victim.  call: of a function of live_victims, beforehand."""
        given = "import os\nfrom functools import partial\nfrom pathlib import PosixPath\n"
        before = f"{self.defect}\n{given}from tests.faults.live_victims import *\n{call}"
        return self.nursery.run(argv, before=before, timeout=60)


Outcome = tuple[str, str]  # what it ended as; what is wrong, or ""


def plain_failure(ending: Ending, code: int, place: Path) -> str:
    """What is wrong with a victim that should have failed with this exit code, naming the place."""
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


def read_only(grounds: Grounds, here: Path, variant: str, rng: random.Random) -> Outcome:
    """Convert, draw or train into a place where nothing may be written."""
    out = here / "out"
    flags = ["--size", str(SIDE), "--workers", "1", "--site-key", str(grounds.key)]
    command = ["convert", str(grounds.folder / "pictures"), *flags, "--out"]
    if variant == "below a file":
        (here / "file").write_text("in the way")
        out = here / "file" / "out"
    elif variant == "old betons":
        out.mkdir()
        shutil.copy(grounds.folder / "whole.beton", out / "train.beton")
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
    ending = grounds.victim([*command, str(out)], "without_privileges()")
    wrong = plain_failure(ending, 4, out)
    if not wrong and files_of(here) != before:
        wrong = f"files are not as before: {sorted(files_of(here))}"
    for place in (here, out):
        with contextlib.suppress(OSError):
            place.chmod(0o755)
    return "exit 4, everything as before", wrong


def changing_source(grounds: Grounds, here: Path, variant: str, rng: random.Random) -> Outcome:
    """Convert pictures of which one becomes something else."""
    kind, when = variant.split("/")
    source, out = here / "pictures", here / "out"
    shutil.copytree(grounds.folder / "pictures", source)
    paths = sorted(source.rglob("*.png"))
    victim, count = rng.choice(paths), rng.randrange(FILES)
    other = grounds.folder / "other.png"
    pictures = {str(path.relative_to(source)): {path.read_bytes()} for path in paths}
    pictures[str(victim.relative_to(source))].add(other.read_bytes())
    argv = ["convert", str(source), "--size", str(SIDE), "--workers", "1", "--page-mib", "2", "--out", str(out)]
    act = f"partial(become, {victim!r}, {kind!r}, {other!r})"
    ending = grounds.victim([*argv, "--site-key", str(here / "key")], f"disturb({act}, {when!r}, {count})")
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


def live_reader(grounds: Grounds, here: Path, variant: str, rng: random.Random) -> Outcome:
    """Read a beton that is replaced, removed, cut or written over between two batches."""
    action, kind = variant.split("/")
    path, truth, other = here / "live.beton", grounds.folder / "whole.beton", here / "other.beton"
    shutil.copy(truth, path)
    shutil.copy(grounds.folder / "other.beton", other)
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
    ending = grounds.victim(None, f"be_reader({path!r}, {truth!r}, {kind!r}, {calls[action]}, {count})")
    serves = action in ("replaced", "removed") or kind == "resident"
    said = ending.output.strip()
    if ending.code == 0 and serves and said == "equal":
        return "old file serves to the end", ""
    may_tell = not serves or kind == "resident"  # which asks the file for checksums in its first epoch
    if ending.code == 0 and may_tell and said.startswith("told: ") and str(path) in said and TOLD in said:
        return "told before a wrong pixel", ""
    return "", f"{variant}, {calls[action]} at batch {count}: exit {ending.code}, {said!r}, {ending.errors[-300:]!r}"


def cut_command(grounds: Grounds, here: Path, variant: str, rng: random.Random) -> Outcome:
    """Cut a beton short at any moment of a command that reads it."""
    path = here / "live.beton"
    shutil.copy(grounds.folder / "whole.beton", path)
    size = rng.choice((0, 1, 5000, PAGE - 1, PAGE, PAGE + 4096, PAGE + 50_000, rng.randrange(path.stat().st_size)))
    owner, name, most, command = {
        "opening": ("loaders.beton.map.BetonMap", "_read_tables", 1, "info"),
        "verifying": ("loaders.beton.reader.Beton", "check_samples", 1, "verify"),
        "first touch": ("loaders.batches.loader.Loader", "check_first_touch", 6, "bench-loader"),
        "batches": ("loaders.batches.loader.Loader", "make_batch", 12, "bench-loader"),
    }[variant]
    count, delay = rng.randrange(most), rng.choice((0.0, 0.0, 0.0005, 0.002) if most > 1 else (0.0,))
    flags = ["--batch-size", "4", "--threads", "2"] if command == "bench-loader" else []
    call = f"import loaders.batches.throughput\ncut_later({path!r}, {size}, {owner}, {name!r}, {count}, {delay})"
    ending = grounds.victim([command, str(path), *flags], call)
    wrong = plain_failure(ending, 5, path)
    return "exit 5, the beton named", wrong and f"{variant}, cut to {size} at call {count}, {delay} s later: {wrong}"


CASES: tuple[tuple[Callable[[Grounds, Path, str, random.Random], Outcome], tuple[str, ...]], ...] = (
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


def case(attempt: int) -> tuple[Callable[[Grounds, Path, str, random.Random], Outcome], str]:
    """The attack of an attempt, and its variant."""
    attack, variants = CASES[attempt % len(CASES)]
    return attack, variants[attempt // len(CASES) % len(variants)]


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """defect: Python source that each victim runs first, where a test breaks the product."""
    tally = Tally()
    with Nursery(folder / "victims", imports=IMPORTS) as nursery:
        grounds = Grounds(folder, seed, nursery, defect)
        for attempt in range(count):
            rng = random.Random(f"{seed}-{attempt}")
            attack, variant = case(attempt)
            here = grounds.here(attempt)
            ended, wrong = attack(grounds, here, variant, rng)
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
    "had; replaced: the old file serves to the end; cut or written over: told (exit 5) before a wrong pixel",
    run=run,
    short=5,
    full=55,  # which draws each variant
)
