"""Damaged images: files of every format that end early, or have some bits flipped."""

# H rows, W columns

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from tests.faults.golden import Hostile, dicom_grey, noise, saved
from tests.faults.hostile_files import dicom
from tests.faults.png_writer import png
from tests.faults.victim import REPOSITORY

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
