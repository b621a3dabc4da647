"""Hostile images: bombs, corners of every format, cuts and flips, converted; the corners audited and predicted too."""

# H rows, W columns

from __future__ import annotations

import csv
import hashlib
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from loaders.beton.reader import Beton
from loaders.images.frame import stored_frame
from tests.faults.golden import Hostile, golden_of
from tests.faults.hostile_damage import cut, flipped
from tests.faults.hostile_files import corners
from tests.faults.hostile_pngs import plain
from tests.faults.png_writer import GREY
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import Ending, Nursery

BATCH = 64  # files of one conversion
SEEN_BY_ALL = 20  # one batch in as many is audited and predicted too, beside those of the corners
CORNERS = tuple(corners())
SIZE, STORED = 32, 46  # pixels of an image and of its stored frame
ANCHORS = 6  # sound files of each class, so that there is something to split
MOST_MEMORY = 1 << 30  # bytes of a process that decodes
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
IMPORTS = "import cli, loaders.convert.convert, loaders.audit.audit, loaders.audit.page; cli.make_parser()"
UNTRAINED = """
import pathlib, sys, torch
from engine.train.checkpoint import save_checkpoint
from engine.networks.cnn import Cnn
run = pathlib.Path({run!r})
run.mkdir()
state = dict(network="cnn", classes=["a", "b"], positive="a", crop=32, stored=46, fit="stretch", dropout=0.5)
weights = {{f"network.{{name}}": value for name, value in Cnn(2, 32, dropout=0.5).state_dict().items()}}
scores = dict(logits=torch.tensor([[1.0, 0.0], [0.0, 1.0]]), label=torch.arange(2), group=torch.arange(2))
weights |= {{f"validation.{{name}}": value for name, value in scores.items()}}
state |= dict(began_with="none", conversion_id="none", epoch=1, validation={{}}, run="")
save_checkpoint(run / "best.safetensors", weights, state)
"""


# ---- the attempts


def corner_of(attempt: int) -> int | None:
    """Which corner an attempt is, if it is one: all of them in a row behind the first batch, then every eighth.

    None for a cut or flipped file.
    """
    place = attempt - BATCH
    if 0 <= place < len(CORNERS):
        return place
    return None if attempt % 8 else (attempt // 8 * 89 + 17) % len(CORNERS)


def hostile(attempt: int, seed: int) -> Hostile:
    """The attempt's file: a corner, flipped bits, or a cut."""
    rng = random.Random(f"{seed}-{attempt}")
    if (corner := corner_of(attempt)) is not None:
        return CORNERS[corner](np.random.default_rng(rng.getrandbits(64)))
    turn, kind = divmod(attempt, 8)
    return flipped(turn, rng) if kind == 1 else cut(turn * 6 + kind - 2, rng)


def seen_by_all(first: int) -> bool:
    """Whether the batch that begins with an attempt is audited and predicted too: all that have corners in a row."""
    return first < BATCH + len(CORNERS) or first // BATCH % SEEN_BY_ALL == 0


# ---- what became of them


def pixel_hash(grey_HW: np.ndarray) -> bytes:
    """The hash that a beton keeps of decoded pixels."""
    hasher = hashlib.blake2b(f"{grey_HW.dtype.str} {grey_HW.shape}".encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(grey_HW).data)
    return hasher.digest()


def stored(out: Path) -> dict[tuple[str, int], tuple[bytes, bytes]]:
    """(split, sample) → hash of the decoded pixels, and the stored frame."""
    found = {}
    for path in out.glob("*.beton"):
        with Beton(path) as beton:
            for place, row in enumerate(beton.rows_N["pixel_hash"]):
                found[path.stem, place] = row.tobytes(), beton.frame(place).tobytes()
    return found


def wrong_with(file: Hostile, row: dict[str, str], shown: dict[str, tuple[bytes, bytes]]) -> str:
    """What breaks the promise in what became of a file; "" for nothing.

    shown: path → hash of the pixels written, and their frame.
    """
    verdict, reason = row["verdict"], row["reason"]
    if verdict == "rejected":
        if ", expected " not in reason or CONTROLS.search(reason):
            return f"was rejected without a reason that says what was expected ({reason!r})"
        return f"was rejected ({reason}), though it is sound" if file.demand == "golden" else ""
    if file.demand == "rejection":
        return f"was {verdict}, expected a rejection"
    golden_HW = golden_of(file)
    if golden_HW is None:
        return f"was {verdict}, though another reader refuses it"
    path = row["path"] if verdict == "written" else reason.removeprefix("same pixels as ")
    kept, frame = shown.get(path, (b"", b""))
    if kept != pixel_hash(golden_HW):
        return f"was {verdict} with other pixels than the golden ones"
    if frame != stored_frame(golden_HW, STORED, "stretch")[0].tobytes():
        return f"was {verdict} with another frame than that of the golden pixels"
    return ""


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


def convert(nursery: Nursery, folder: Path, files: Sequence[Hostile], name: str, defect: str) -> list[str]:
    """Convert a batch; gives, for each file, what broke a promise, or its verdict with a full stop before it."""
    source, out = folder / "source", folder / "out"
    paths = write_files(source, files, name)
    argv = ["convert", str(source), "--out", str(out), "--size", str(SIZE), "--page-mib", "2", "--workers", "1"]
    ending = nursery.run([*argv, "--site-key", str(folder / "key")], before=defect, timeout=300)
    if ill(ending) and not (out / "convert.csv").is_file():
        return [f"the batch {ill(ending)}"] * len(files)
    with (out / "convert.csv").open(newline="") as table:
        rows = {row["path"]: row for row in csv.DictReader(table)}
    counts = [
        sum(row["verdict"] == verdict for row in rows.values()) for verdict in ("written", "rejected", "duplicate")
    ]
    frames = stored(out)
    of_all = ill(ending)
    if sum(counts) != len(files) + 2 * ANCHORS or not set(rows) >= set(paths) or counts[0] != len(frames):
        of_all = f"{len(files) + 2 * ANCHORS} files in, {counts} written, rejected, duplicate, {len(frames)} stored"
    written = [row for row in rows.values() if row["verdict"] == "written"]
    shown = {row["path"]: frames.get((row["split"], int(row["sample"])), (b"", b"")) for row in written}
    return [
        of_all or wrong_with(file, rows[path], shown) or f".{rows[path]['verdict']}"
        for path, file in zip(paths, files, strict=True)
    ]


def other_commands(nursery: Nursery, folder: Path, defect: str = "") -> list[str]:
    """Audit the batch and predict on it; gives what broke a promise.  defect: as of run."""
    source, troubles = folder / "source", []
    files = sorted(path for path in source.rglob("*") if path.is_file())
    argv = ["audit", str(source), "--out", str(folder / "audit"), "--workers", "1", "--size", str(SIZE)]
    audited = nursery.run(argv, before=defect, timeout=300)
    nursery.run(None, before=UNTRAINED.format(run=str(folder / "run")))
    table = folder / "predictions.csv"
    argv = ["predict", str(folder / "run"), str(source), "--out", str(table), "--workers", "1", "--device", "cpu"]
    predicted = nursery.run([*argv, "--audit", "off"], before=defect, timeout=300)
    for name, ended, path, root in (
        ("audit", audited, folder / "audit" / "audit.csv", source),
        ("predict", predicted, table, Path()),
    ):
        if trouble := ill(ended):
            troubles.append(f"{name} {trouble}")
            continue
        with path.open(newline="", errors="replace") as text:
            rows = sorted(root / row["path"] for row in csv.DictReader(text))
        if rows != files:
            troubles.append(f"{name} has {len(rows)} rows, {len(set(rows) & set(files))} of the {len(files)} files")
    return troubles


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """Attempts in batches.  defect: a fault for the victims, to try the campaign itself."""
    tally = Tally()
    with Nursery(folder / "nursery", imports=IMPORTS) as nursery:
        for first in range(0, count, BATCH):
            here = folder / f"batch{first:06}"
            attempts = range(first, min(first + BATCH, count))
            files = [hostile(attempt, seed) for attempt in attempts]
            found = convert(nursery, here, files, f"{seed}-{first}", defect)
            others = other_commands(nursery, here, defect) if seen_by_all(first) else []
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
    holds="convert: the golden pixels and their frame, of a cut file the whole one's, or a rejection with its reason; "
    "in = written + rejected + duplicates; audit and predict: a row for each file; 1 GiB a process "
    "(golden: known where PNG or DICOM is made; of JPEG, TIFF, BMP and damaged files, what Pillow or pydicom reads)",
    run=run,
    short=64,
    full=10_240,
)
