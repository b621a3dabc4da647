"""Hostile images: bombs, corners of every format, cuts and flips, converted; the corners audited and predicted too."""

# H rows, W columns

import csv
import os
import random
import re
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3
from PIL import Image, ImageFile

from loaders.beton.reader import Beton
from loaders.images.dicom import decode_dicom
from loaders.images.frame import stored_frame
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.image_files import (
    GREY,
    Hostile,
    corners,
    dicom,
    dicom_grey,
    golden_of,
    noise,
    pillow_grey,
    plain,
    png,
    saved,
    zeros,
)
from tests.faults.processes import REPOSITORY, Ending, ForkServer

CUTS = 20  # places where each file of the sample is cut
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".bmp", ".dcm"}
PREAMBLE = 132  # bytes of a DICOM before its first tag


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


def read(place: int) -> tuple[str, str, bytes]:
    """The file at a place among the stand-ins and, behind them, the real ones: name, suffix, bytes."""
    if place < len(stand_ins()):
        return f"stand-in {place}", *stand_ins()[place]
    path = sample()[place - len(stand_ins())]
    return path.name, path.suffix, path.read_bytes()


def original(place: int) -> tuple[str, str, bytes]:
    """A real file, or a stand-in every fourth time or where there is none: name, suffix, bytes."""
    if sample() and place % 4:
        return read(len(stand_ins()) + place % len(sample()))
    return read(place // 4 % len(stand_ins()))


def cut(number: int, rng: random.Random) -> Hostile:
    """A file ending early: each stand-in and each real one in turn, then each at the next place.

    It may be refused, or show what the whole file shows.  What a real DICOM shows is known to no other reader here,
    so that a cut one may only be refused.
    """
    files = len(stand_ins()) + len(sample())
    turn, file = divmod(number, files)
    place = (turn + 7 * file) % CUTS
    name, suffix, data = read(file)
    first, last = len(data) * place // CUTS, len(data) * (place + 1) // CUTS
    size = rng.choice((first, last - 1, rng.randrange(first, max(last, first + 1))))
    name = f"{name} cut to {size} of {len(data)} bytes"
    whole = b"" if suffix == ".dcm" and file >= len(stand_ins()) else data
    return Hostile(name=name, suffix=suffix, data=data[:size], whole=whole, demand="either")


def flipped(number: int, rng: random.Random) -> Hostile:
    """A file with one to three bits flipped, half of the time near its beginning, where its header is.

    It may be refused, or show what another reader finds in the very same bytes.  A real DICOM has windows, which no
    other reader here applies: one made for the attempt is in its place, which may also show its samples by sound tags.
    """
    name, suffix, data = original(number)
    first, header = 0, min(len(data), 600)
    if suffix == ".dcm":
        bits = rng.choice((8, 12, 16))
        samples = noise(np.random.default_rng(rng.getrandbits(32)), 8 if bits == 8 else 16) >> (4 * (bits == 12))
        name, data = f"dicom {bits} bit", dicom(samples, bits)
        first, header = PREAMBLE, len(data) - samples.nbytes - samples.nbytes % 2
    damaged, whole = bytearray(data), b""
    for place in places(rng, first, header, len(data)):
        damaged[place] ^= 1 << rng.randrange(8)
    if (
        suffix == ".dcm" and dicom_grey(bytes(damaged)) is None
    ):  # pydicom wants every VR sound, which is needed for no number
        whole = data[:header] + bytes(damaged[header:])
    name = f"{name} with bits flipped"
    return Hostile(name=name, suffix=suffix, data=bytes(damaged), whole=whole, demand="either")


def places(rng: random.Random, first: int, header: int, end: int) -> Iterator[int]:
    """Where one to three bits are flipped, from the first byte: in the header half of the time, else anywhere."""
    for _ in range(rng.randint(1, 3)):
        yield rng.randrange(first, header if rng.random() < 0.5 else end)


# ---- attempts


BATCH = 64  # files of one conversion
FOR_ALL_COMMANDS = 20  # one batch in as many is audited and predicted too, beside those of the corners
CORNERS = tuple(corners())
SIZE, STORED = 32, 46  # pixels of an image and of its stored frame
ANCHORS = 6  # sound files of each class, so that there is something to split
MOST_MEMORY = 1 << 30  # bytes of a process that decodes
SHAPES = ("too-small", "odd-shape")  # kinds of rejection of what a mask may yet be
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


def for_all_commands(first: int) -> bool:
    """Whether the batch that begins with an attempt is audited and predicted too: all that have corners in a row."""
    return first < BATCH + len(CORNERS) or first // BATCH % FOR_ALL_COMMANDS == 0


# ---- what became of them


def pixel_hash(grey_HW: np.ndarray) -> bytes:
    """The hash that a beton keeps of decoded pixels."""
    return blake3(f"{grey_HW.dtype.str} {grey_HW.shape}".encode() + grey_HW.tobytes()).digest()[:16]


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


def convert(server: ForkServer, folder: Path, files: Sequence[Hostile], name: str, defect: str) -> list[str]:
    """Convert a batch; gives, for each file, what broke a promise, or its verdict with a full stop before it."""
    source, out = folder / "source", folder / "out"
    paths = write_files(source, files, name)
    argv = ["convert", str(source), "--out", str(out), "--size", str(SIZE), "--page-mib", "2", "--workers", "1"]
    ending = server.run([*argv, "--site-key", str(folder / "key")], before=defect, timeout=300)
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


def other_commands(server: ForkServer, folder: Path, defect: str = "") -> list[str]:
    """Audit the batch and predict on it; gives what broke a promise.  defect: as of run."""
    source, troubles = folder / "source", []
    files = sorted(path for path in source.rglob("*") if path.is_file())
    argv = ["audit", str(source), "--out", str(folder / "audit"), "--workers", "1", "--size", str(SIZE)]
    audited = server.run(argv, before=defect, timeout=300)
    server.run(None, before=UNTRAINED.format(run=str(folder / "run")))
    table = folder / "predictions.csv"
    argv = ["predict", str(folder / "run"), str(source), "--out", str(table), "--workers", "1", "--device", "cpu"]
    predicted = server.run([*argv, "--audit", "off"], before=defect, timeout=300)
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


def sound_mask(folder: Path, row: dict[str, str]) -> str:
    """The name of a mask of a film's proportions, of 64 pixels or fewer."""
    width, height = int(row["width"] or 8), int(row["height"] or 8)
    width, height = (max(2, round(side * min(1, 64 / max(width, height)))) for side in (width, height))
    mask_HW = np.zeros((height, width), np.uint8)
    mask_HW[: -(-height // 2), : -(-width // 2)] = 255
    Image.fromarray(mask_HW).save(folder / f"{width}x{height}.png")
    return f"{width}x{height}.png"


def convert_lungs(server: ForkServer, folder: Path, defect: str = "") -> list[str]:
    """Convert the lungs alone, found, and with the batch's files as masks of sound ones; gives what broke a promise.

    A file with a sound mask is written only if it was as a whole film; a sound one only if its mask is a picture.
    """
    source = folder / "source"
    with (folder / "out" / "convert.csv").open(newline="", errors="replace") as text:
        whole = {row["path"]: row for row in csv.DictReader(text)}
    sound = [path for path in whole if "sound" in path]
    hostile = [path for path in whole if "sound" not in path]
    # those of the first three in each class have sound masks, so that there is something to split
    attacked = [path for path in sound if int(path[-5]) > 2]
    mask_of = {path: sound_mask(folder, row) for path, row in whole.items()}
    mask_of |= dict(zip(attacked, (f"source/{path}" for path in hostile)))  # noqa: B905
    with (folder / "masks.csv").open("w", newline="") as table:
        csv.writer(table).writerows([("path", "mask"), *mask_of.items()])
    out, troubles = folder / "lungs", []
    argv = ["convert", str(source), "--out", str(out), "--size", str(SIZE), "--page-mib", "2", "--workers", "1"]
    argv += ["--site-key", str(folder / "key"), "--lungs", "boxed-equal", "--masks"]
    found = server.run([*argv, "auto", "--dry-run"], before=defect, timeout=300)
    if found.code not in (0, 3) or found.traceback or found.peak > MOST_MEMORY:  # 3: hardly any film has lungs
        troubles.append(f"convert --lungs ended with {found.code}: {found.errors[-200:]}")
    if trouble := ill(given := server.run([*argv, str(folder / "masks.csv")], before=defect, timeout=300)):
        return [*troubles, f"convert --masks {trouble}: {given.errors[-200:]}"]
    with (out / "convert.csv").open(newline="", errors="replace") as text:
        rows = {row["path"]: row for row in csv.DictReader(text)}
    written = [path for path, row in rows.items() if row["verdict"] == "written"]
    if rows.keys() != whole.keys() or len(written) != len(stored(out)):
        troubles.append(f"convert --masks: {len(rows)} rows, {len(written)} written, {len(stored(out))} stored")
    for path, row in rows.items():
        mask = whole[mask_of[path].removeprefix("source/")] if path in attacked[: len(hostile)] else None
        bad = whole[path]["verdict"] != "written" or (
            mask and mask["verdict"] == "rejected" and mask["kind"] not in SHAPES
        )
        if row["verdict"] == "written" and bad:
            troubles.append(f"convert --masks wrote {path}, whose mask is {mask_of[path]}")
        if row["verdict"] == "rejected" and (", expected " not in row["reason"] or CONTROLS.search(row["reason"])):
            troubles.append(f"convert --masks rejected {path} without a reason ({row['reason']!r})")
    return troubles


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """Attempts in batches.  defect: a fault for the children, to try the campaign itself."""
    tally = Tally()
    with ForkServer(folder / "server", imports=IMPORTS) as server:
        for first in range(0, count, BATCH):
            here = folder / f"batch{first:06}"
            attempts = range(first, min(first + BATCH, count))
            files = [hostile(attempt, seed) for attempt in attempts]
            found = convert(server, here, files, f"{seed}-{first}", defect)
            others = other_commands(server, here, defect) if for_all_commands(first) else []
            if for_all_commands(first) and not found[0].startswith("the batch"):
                others += convert_lungs(server, here, defect)
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
    "in = written + rejected + duplicates; audit and predict: a row for each file; 1 GiB a process; "
    "convert --lungs: no film whose mask is no picture, and none without lungs "
    "(golden: known where PNG or DICOM is made; of JPEG, TIFF, BMP and damaged files, what Pillow or pydicom reads)",
    run=run,
    short=64,
    full=10_240,
)


# ---- what the campaign notices


HERE = sys.modules[__name__]
ONE_LEVEL_OFF = """
import loaders.images.radiograph as reading
whole = reading._finish
reading._finish = lambda image, grey_HW, **more: whole(image, grey_HW ^ 1, **more)
"""
OTHER_FRAMES = """
import loaders.images.decode as spool
whole = spool.stored_frame
def other(grey_HW, side, fit):
    frame_SS, saturated = whole(grey_HW, side, fit)
    return frame_SS[::-1].copy(), saturated
spool.stored_frame = other
"""
DAMAGE_IS_WHOLE = """
import numpy as np
import loaders.images.radiograph as reading
def patient(decode):
    def decoded(data, max_pixels, **about_dicom):
        try:
            return decode(data, max_pixels, **about_dicom)
        except Exception:
            grey_HW = np.frombuffer(data[:40] * 100, np.uint8)[:1600].reshape(40, 40).copy()
            return reading.Radiograph(grey_HW=grey_HW, format="PNG", bits=8, note="")
    return decoded
reading._DECODERS = {name: patient(decode) for name, decode in reading._DECODERS.items()}
"""
CUTS_ARE_WHOLE = """
import loaders.images.radiograph as reading
from PIL import ImageFile
ImageFile.LOAD_TRUNCATED_IMAGES = True
reading.check_jpeg = lambda data: None
"""
A_FILE_IS_LOST = """
import loaders.convert.convert as converting
whole = converting.table_bytes
converting.table_bytes = lambda rows, *of: whole(rows[:-1], *of)
"""
NO_REASON = """
import loaders.images.radiograph as reading
from loaders.errors import RadiographError
def refuse(found, expected, code="", remedy=""):
    return RadiographError("no")
reading.refuse = refuse
"""
ONE_ROW_TWICE = """
import loaders.audit.audit as auditing
import engine.predict.table as prediction
whole, line = auditing.table_bytes, prediction.row_line
auditing.table_bytes = lambda files: whole((files[0], *files[:-1]))
prediction.row_line = lambda row, *how, first=[]: first.append(row) or line(first[-2:][0], *how)
"""
ANY_MASK_WILL_DO = """
import numpy as np
import loaders.convert.lungs as keeping
keeping.given_mask = lambda config, given, row: np.ones((46, 46), bool)
"""
MUCH_MEMORY = "held = bytes([1]) * (1100 << 20)"


@pytest.mark.parametrize(
    ("fault", "noticed"),
    [
        (ONE_LEVEL_OFF, "with other pixels"),
        (OTHER_FRAMES, "with another frame"),
        (DAMAGE_IS_WHOLE, "though another reader refuses it"),
        (A_FILE_IS_LOST, "files in, ["),
        (NO_REASON, "without a reason"),
        (MUCH_MEMORY, "took 1"),
        (ANY_MASK_WILL_DO, "convert --masks wrote"),
    ],
    ids=["pixels", "frames", "damage", "count", "reason", "memory", "masks"],
)
def test_a_planted_fault_is_noticed(fault: str, noticed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HERE, "other_commands", lambda *given: [])
    if fault is not ANY_MASK_WILL_DO:
        monkeypatch.setattr(HERE, "convert_lungs", lambda *given: [])
    monkeypatch.setattr(HERE, "sample", tuple)  # small files of every format
    tally = run(16, 1, tmp_path, lambda: None, defect=fault)
    assert any(noticed in failure for failure in tally.failures), tally.failures


def test_a_file_that_another_has_taken_the_row_of_is_noticed_in_every_table(tmp_path: Path) -> None:
    made = corners()[0](np.random.default_rng(0))
    write_files(tmp_path / "batch" / "source", [made], "1")
    with ForkServer(tmp_path / "server", imports=IMPORTS) as server:
        found = other_commands(server, tmp_path / "batch", ONE_ROW_TWICE)
    assert found == [f"{command} has 13 rows, 12 of the 13 files" for command in ("audit", "predict")]


def test_a_cut_file_that_another_reader_fills_up_is_not_golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(attempt: int, seed: int) -> Hostile:
        data = saved(Image.fromarray(noise), "JPEG" if attempt else "BMP")
        name, suffix = ("jpeg", ".jpg") if attempt else ("bmp", ".bmp")
        return Hostile(name=name, suffix=suffix, data=data[: len(data) * 2 // 3], whole=data, demand="either")

    noise = np.random.default_rng(5).integers(0, 256, (40, 40)).astype(np.uint8)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for commands in ("other_commands", "convert_lungs"):
        monkeypatch.setattr(HERE, commands, lambda *given: [])
    monkeypatch.setattr(HERE, "hostile", cut)
    tally = run(2, 1, tmp_path, lambda: None, defect=CUTS_ARE_WHOLE)
    assert sum("was written with other pixels" in failure for failure in tally.failures) == 2, tally.failures


def test_files_of_every_format_are_cut_and_flipped_beside_the_real_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tmp_path / "real.png"
    real.write_bytes(png(np.eye(9, dtype=np.uint8)))
    monkeypatch.setattr(HERE, "sample", lambda: (real,))
    for damage in (cut, flipped):
        made = [damage(number, random.Random(number)) for number in range(100)]
        assert {file.suffix for file in made} == {".png", ".jpg", ".tif", ".bmp", ".dcm"}
        assert any(file.name.startswith("real.png") for file in made)


def test_bits_of_a_dicoms_tags_are_flipped_and_what_it_then_shows_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HERE, "sample", tuple)
    made = [flipped(40, random.Random(number)) for number in range(60)]
    assert {file.suffix for file in made} == {".dcm"}
    refused = sum(dicom_grey(file.data) is None for file in made)
    assert 5 < refused < 55 and all(golden_of(file) is not None for file in made)
    samples = np.random.default_rng(3).integers(0, 256, (9, 11)).astype(np.uint8)
    for bits in (8, 12, 16):
        high = {"BitsStored": bits - 2, "HighBit": bits - 1}
        for tags in ({}, {"PixelRepresentation": 1}, {"PhotometricInterpretation": "MONOCHROME1"}, high):
            data = dicom(samples if bits == 8 else samples.astype(np.uint16) << (bits - 8), bits, **tags)
            shown_HW = decode_dicom(data, 1000).grey_HW
            golden_HW = dicom_grey(data)
            if bits == 12 and "PixelRepresentation" in tags:
                continue  # pydicom does not extend the sign
            assert golden_HW is not None and golden_HW.dtype == shown_HW.dtype
            assert np.array_equal(golden_HW, shown_HW)


def test_every_corner_is_drawn_in_a_batch_that_all_commands_see() -> None:
    drawn = {
        corner_of(attempt)
        for first in range(0, CAMPAIGN.full, BATCH)
        for attempt in range(first, first + BATCH)
        if for_all_commands(first)
    }
    assert drawn >= set(range(len(corners())))


def test_every_corner_can_be_made_and_its_golden_pixels_are_another_readers() -> None:
    compared = 0
    for place, make in enumerate(corners()):
        file = make(np.random.default_rng(place))
        assert file.demand != "golden" or file.golden is not None, file.name
        # Pillow keeps 8 bits, and gives a transparent level of fewer bits in the file's units, not its pixels'
        differs = "16 bit" in file.name or any(f"tRNS {depth} bit kind 0" in file.name for depth in (1, 2, 4))
        sound = file.demand == "golden" and file.suffix == ".png" and not differs
        if sound and (other := pillow_grey(file.data)) is not None:
            assert other.shape == file.golden.shape and np.array_equal(other, file.golden), file.name  # type: ignore
            compared += 1
    assert compared > 80


def test_the_writer_of_png_and_of_bombs_is_right() -> None:
    samples = np.random.default_rng(1).integers(0, 256, (9, 11)).astype(np.uint8)
    grey_HW = pillow_grey(png(samples, 8, GREY, interlaced=True, filters=(1, 2, 3, 4, 0)))
    assert grey_HW is not None and grey_HW.tobytes() == samples.tobytes()
    assert zlib.decompress(zeros((3 << 20) + 5)) == bytes((3 << 20) + 5)


def test_every_promise_holds_under_attack(tmp_path: Path) -> None:
    check_short_form(CAMPAIGN, tmp_path)
