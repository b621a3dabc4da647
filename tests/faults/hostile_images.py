"""Hostile images: bombs, corners of every format, cuts and flipped bits, converted, audited and predicted."""

# H rows, W columns

from __future__ import annotations

import csv
import hashlib
import os
import random
import re
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from loaders.beton import Beton
from tests.faults.golden import Hostile, noise, pillow_grey, saved
from tests.faults.hostile_files import corners, dicom
from tests.faults.hostile_pngs import plain
from tests.faults.png_writer import GREY, png
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import REPOSITORY, Ending, Nursery

BATCH = 64  # files of one conversion
ANCHORS = 6  # sound files of each class, so that there is something to split
CUTS = 20  # places where each file of the sample is cut
MOST_MEMORY = 1 << 30  # bytes of a process that decodes
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".bmp", ".dcm"}
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
IMPORTS = "import cli, loaders.convert, loaders.convert_words, loaders.audit.audit, loaders.audit.words"
UNTRAINED = """
import pathlib, sys, torch
from engine.checkpoint import save_checkpoint
from engine.network import Cnn
run = pathlib.Path({run!r})
run.mkdir()
state = dict(network="cnn", classes=["a", "b"], positive="a", crop=32, stored=46, fit="stretch", dropout=0.5)
weights = {{f"network.{{name}}": value for name, value in Cnn(2, 32, dropout=0.5).state_dict().items()}}
state |= dict(began_with="none", conversion_id="none", epoch=1, validation={{}}, run="")
save_checkpoint(run / "best.safetensors", weights, state)
"""


# ---- the sample


@cache
def sample() -> tuple[Path, ...]:
    """The real radiographs, if they are here."""
    data = Path(os.environ.get("PLAINFILM_DATA", REPOSITORY.parent / "shared" / "data"))
    folders = [data / "radiographs", data / "dicom"]
    return tuple(sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in SUFFIXES))


@cache
def stand_ins() -> tuple[tuple[str, bytes], ...]:
    """Small files of every format, for cuts and flips beside the real ones: suffix and bytes."""
    from PIL import Image

    rng = np.random.default_rng(7)
    made: list[tuple[str, bytes]] = []
    for kind, suffix in (("PNG", ".png"), ("JPEG", ".jpg"), ("TIFF", ".tif"), ("BMP", ".bmp")):
        made += [(suffix, saved(Image.fromarray(noise(rng, channels=3 * colour)), kind)) for colour in (0, 1)]
    made += [(".tif", saved(Image.fromarray(noise(rng, 16)), "TIFF", compression="tiff_lzw"))]
    made += [(".png", png(noise(rng, 16), 16, interlaced=True)), (".dcm", dicom(noise(rng, 16), 16))]
    return tuple(made)


def original(place: int) -> tuple[str, str, bytes]:
    """A file of the sample, or a stand-in every tenth time or where there is none: name, suffix, bytes."""
    if sample() and place % 10:
        path = sample()[place % len(sample())]
        return path.name, path.suffix, path.read_bytes()
    suffix, data = stand_ins()[place // 10 % len(stand_ins())]
    return f"stand-in {place // 10 % len(stand_ins())}", suffix, data


def cut(number: int, rng: random.Random) -> Hostile:
    """One file of the sample, ending early: each file in turn, then each at the next place.

    What a DICOM shows is known to no other reader here, so that a cut one may only be refused, or lack nothing.
    """
    files = sample() or tuple(Path(str(place)) for place in range(len(stand_ins())))
    place, file = number // len(files) % CUTS, files[number % len(files)]
    suffix, data = (file.suffix, file.read_bytes()) if sample() else stand_ins()[number % len(files)]
    first, last = len(data) * place // CUTS, len(data) * (place + 1) // CUTS
    size = rng.choice((first, last - 1, rng.randrange(first, max(last, first + 1))))
    name = f"{file.name} cut to {size} of {len(data)} bytes"
    return Hostile(name=name, suffix=suffix, data=data[:size], demand="either")


def flipped(number: int, rng: random.Random) -> Hostile:
    """A file with one to three bits flipped.  Golden is what Pillow makes of the very same bytes; a PNG has checksums.

    Of a DICOM, only bits of its pixels: of damaged tags no other reader says what they mean.
    """
    name, suffix, data = original(number)
    if suffix == ".dcm":
        samples = noise(np.random.default_rng(rng.getrandbits(32)), 16)
        body = bytearray(samples.tobytes())
        body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        golden = np.frombuffer(bytes(body), np.uint16).reshape(samples.shape)
        return Hostile(name="dicom bits", suffix=suffix, data=dicom(golden, 16), golden=golden)
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(min(len(data), 600) if rng.random() < 0.5 else len(data))
        damaged[place] ^= 1 << rng.randrange(8)
    return Hostile(name=f"{name} with bits flipped", suffix=suffix, data=bytes(damaged), demand="either")


def hostile(attempt: int, seed: int) -> Hostile:
    """The attempt's file: a corner, a cut, or flipped bits."""
    rng = random.Random(f"{seed}-{attempt}")
    turn, kind = divmod(attempt, 8)
    if kind == 0:
        every = corners()
        return every[(turn * 89 + 17) % len(every)](np.random.default_rng(rng.getrandbits(64)))
    if kind == 1:
        return flipped(turn, rng)
    return cut(turn * 6 + kind - 2, rng)


# ---- what became of them


def pixel_hash(grey_HW: np.ndarray) -> bytes:
    """The hash that a beton keeps of decoded pixels."""
    hasher = hashlib.blake2b(f"{grey_HW.dtype.str} {grey_HW.shape}".encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(grey_HW).data)
    return hasher.digest()


def golden_of(file: Hostile) -> np.ndarray | None:
    """The pixels that the file may become: those known, else what Pillow finds in the very same bytes."""
    return file.golden if file.golden is not None else pillow_grey(file.data)


def stored_hashes(out: Path) -> dict[tuple[str, int], bytes]:
    """(split, sample) → hash of the decoded pixels."""
    found = {}
    for path in out.glob("*.beton"):
        with Beton(path) as beton:
            found |= {(path.stem, place): row.tobytes() for place, row in enumerate(beton.rows_N["pixel_hash"])}
    return found


def wrong_with(file: Hostile, row: dict[str, str], hashes: dict[str, bytes]) -> str:
    """What breaks the promise in what became of a file; "" for nothing.  hashes: path → of the pixels written."""
    verdict, reason = row["verdict"], row["reason"]
    if verdict == "rejected":
        if not reason:
            return "was rejected without a reason"
        return f"was rejected ({reason}), though it is sound" if file.demand == "golden" else ""
    if file.demand == "rejection":
        return f"was {verdict}, expected a rejection"
    golden = golden_of(file)
    path = row["path"] if verdict == "written" else reason.removeprefix("same pixels as ")
    if golden is None:
        return f"was {verdict}, though Pillow refuses it"
    return "" if hashes.get(path) == pixel_hash(golden) else f"was {verdict} with other pixels than the golden ones"


def ill(ending: Ending) -> str:
    """What is wrong with how a command ended; "" for nothing."""
    if ending.timed_out or ending.code:
        last = ending.errors.strip().splitlines()[-1:]
        return f"ended with {ending.code}{' for lack of time' * ending.timed_out}: {''.join(last)[:200]}"
    if ending.traceback or CONTROLS.search(ending.output + ending.errors):
        return "printed a traceback or control characters"
    return f"took {ending.peak >> 20} MiB" if ending.peak > MOST_MEMORY else ""


def write_files(folder: Path, files: Sequence[Hostile], seed: str) -> list[str]:
    """The files as class a, and sound ones of both classes; gives the paths of the former."""
    rng = np.random.default_rng([*seed.encode()])
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for number in range(ANCHORS):
            anchor = plain(rng, depth=8, kind=GREY, interlaced=False, filters=(0,))
            (folder / label / f"sound{number}.png").write_bytes(anchor.data)
    paths = [f"a/{place:04}{file.suffix}" for place, file in enumerate(files)]
    for path, file in zip(paths, files, strict=True):
        (folder / path).write_bytes(file.data)
    return paths


def convert(nursery: Nursery, folder: Path, files: Sequence[Hostile], name: str, before: str) -> list[str]:
    """Convert a batch; gives, for each file, what broke a promise, or its verdict with a full stop before it."""
    source, out = folder / "source", folder / "out"
    paths = write_files(source, files, name)
    argv = ["convert", str(source), "--out", str(out), "--size", "32", "--page-mib", "2", "--workers", "1"]
    ending = nursery.run([*argv, "--site-key", str(folder / "key")], before=before, timeout=300)
    if ill(ending) and not (out / "convert.csv").is_file():
        return [f"the batch {ill(ending)}"] * len(files)
    with (out / "convert.csv").open(newline="") as table:
        rows = {row["path"]: row for row in csv.DictReader(table)}
    counts = [
        sum(row["verdict"] == verdict for row in rows.values()) for verdict in ("written", "rejected", "duplicate")
    ]
    stored = stored_hashes(out)
    of_all = ill(ending)
    if sum(counts) != len(files) + 2 * ANCHORS or set(rows) < set(paths) or counts[0] != len(stored):
        of_all = f"{len(files) + 2 * ANCHORS} files in, {counts} written, rejected, duplicate, {len(stored)} stored"
    written = [row for row in rows.values() if row["verdict"] == "written"]
    hashes = {row["path"]: stored.get((row["split"], int(row["sample"])), b"") for row in written}
    return [
        of_all or wrong_with(file, rows[path], hashes) or f".{rows[path]['verdict']}"
        for path, file in zip(paths, files, strict=True)
    ]


def other_commands(nursery: Nursery, folder: Path) -> list[str]:
    """Audit the batch and predict on it; gives what broke a promise."""
    source, troubles = folder / "source", []
    files = len([path for path in source.rglob("*") if path.is_file()])
    argv = ["audit", str(source), "--out", str(folder / "audit"), "--workers", "1", "--size", "32"]
    ending = nursery.run(argv, timeout=300)
    tables = {"audit": (ending, folder / "audit" / "audit.csv")}
    nursery.run(None, before=UNTRAINED.format(run=str(folder / "run")))
    table = folder / "predictions.csv"
    argv = ["predict", str(folder / "run"), str(source), "--out", str(table), "--workers", "1", "--device", "cpu"]
    tables["predict"] = nursery.run([*argv, "--audit", "off"], timeout=300), table
    for name, (ended, path) in tables.items():
        if trouble := ill(ended):
            troubles.append(f"{name} {trouble}")
            continue
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        if (rows := sum(1 for _ in csv.reader(lines)) - 1) != files:
            troubles.append(f"{name} has {rows} rows of {files} files")
    return troubles


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], before: str = "") -> Tally:
    """Attempts in batches.  before: a fault for the victims, to try the campaign itself."""
    tally = Tally()
    with Nursery(folder / "nursery", imports=IMPORTS) as nursery:
        for number, first in enumerate(range(0, count, BATCH)):
            here = folder / f"batch{number:04}"
            attempts = range(first, min(first + BATCH, count))
            files = [hostile(attempt, seed) for attempt in attempts]
            found = convert(nursery, here, files, f"{seed}-{first}", before)
            others = other_commands(nursery, here) if number % 16 == 0 else []
            for attempt, file, what in zip(attempts, files, found, strict=True):
                where = f"(seed {seed}, attempt {attempt})"
                if what.startswith("."):
                    tally.held(what[1:])
                else:
                    tally.broke(f"{file.name} {what} {where}")
                advance()
            for trouble in others:
                tally.broke(f"{trouble} (seed {seed}, attempts from {first})")
            shutil.rmtree(here)
    return tally


CAMPAIGN = Campaign(
    name="hostile-images",
    attack="bombs, corners of every format (EXIF, CMYK, alpha, 1 to 16 bits, pages), wrong names, cuts, flipped bits",
    holds="golden pixels or a rejection with its reason; 1 GiB a process; in = written + rejected + duplicates",
    run=run,
    short=64,
    full=10_240,
)
