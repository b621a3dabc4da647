"""Hostile files of every format, bombs among them, with what must become of each."""

# H rows, W columns, C channels

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from tests.faults.golden import Demand, Hostile, Maker, exif, noise, oracle_of, saved
from tests.faults.hostile_pngs import plain, png_corners
from tests.faults.png_writer import (
    GREY,
    GREY_ALPHA,
    RGB,
    RGBA,
    SIGNATURE,
    bomb,
    chunk,
    deflated_zeros,
    header,
    png,
    zeros,
)

EXPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"
TEXT_BOMB = 200 << 20  # bytes that a text or a profile of a few hundred kB inflates to


def by_pillow(
    rng: np.random.Generator, *, mode: str, kind: str, options: Mapping[str, object], demand: Demand = "golden"
) -> Hostile:
    """A file of any mode as Pillow writes it, read back by Pillow."""
    channels = {"RGB": 3, "CMYK": 4, "RGBA": 4, "LA": 2, "YCbCr": 3}.get(mode, 0)
    samples = noise(rng, 16 if mode.startswith("I;16") else 8, channels)
    if mode in ("1", "P", "F"):
        picture = Image.fromarray(samples).convert(mode)
    elif mode in ("CMYK", "LA", "YCbCr"):
        picture = Image.frombytes(mode, samples.shape[1::-1], samples.tobytes())
    else:
        picture = Image.fromarray(samples)
    given = dict(options)
    if orientation := given.pop("orientation", None):
        given["exif"] = exif(int(str(orientation)))
    if given.get("append_images"):
        given["append_images"] = [picture.transpose(Image.Transpose.ROTATE_180)]
    suffix = {"JPEG": ".jpg", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".gif", "WEBP": ".webp", "PNG": ".png"}[kind]
    file = Hostile(name=f"{kind} {mode} {options}", suffix=suffix, data=saved(picture, kind, **given), demand=demand)
    return oracle_of(file)


def dicom(samples: np.ndarray, bits: int, syntax: str = EXPLICIT, **tags: object) -> bytes:
    """An uncompressed grey DICOM whose last bytes are its samples, all inflated where the syntax is deflated."""
    dataset = Dataset()
    dataset.Modality, dataset.PhotometricInterpretation = "DX", "MONOCHROME2"
    dataset.Rows, dataset.Columns = samples.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 if bits <= 8 else 16, bits, bits - 1
    dataset.PixelData = samples.tobytes() + b"\0" * (samples.nbytes % 2)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset["PixelData"].VR = "OB" if bits <= 8 else "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=False)
    data = file.getvalue()
    return data if data[128:132] == b"DICM" else bytes(128) + b"DICM" + data


def grey_dicom(rng: np.random.Generator, *, bits: int, syntax: str = EXPLICIT, **tags: object) -> Hostile:
    """A DICOM of 8, 12 or 16 bits; with tags that ask for more than there is, one to refuse."""
    samples = noise(rng, 8 if bits == 8 else 16) >> (0 if bits in (8, 16) else 16 - bits)
    golden = samples if bits in (8, 16) else np.rint(samples / (2**bits - 1) * 65535).astype(np.uint16)
    data = dicom(samples, bits, syntax, **tags)
    demand: Demand = "rejection" if tags else "golden"
    name = f"dicom {bits} bit {syntax[-4:]} {tags}"
    return Hostile(name=name, suffix=".dcm", data=data, golden=golden, demand=demand)


def misnamed(rng: np.random.Generator, *, file: Maker, suffix: str) -> Hostile:
    """A sound file under another format's name, or none."""
    made = file(rng)
    return replace(made, suffix=suffix, name=f"{made.name} named {suffix or 'nothing'}")


NO_IMAGES = {
    "empty": b"", "one byte": b"\x89", "text": b"no picture\n" * 50, "HTML": b"<html><script>alert(1)</script>",
    "zip": b"PK\3\4" + bytes(100), "zeros": bytes(5000), "PNG signature": SIGNATURE, "JPEG marker": b"\xff\xd8\xff",
    "TIFF alone": b"II*\0\x08\0\0\0", "TIFF loop": b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "DICM alone": bytes(128) + b"DICM",
    "BM alone": b"BM" + bytes(12), "JPEG 2000": b"\0\0\0\x0cjP  \r\n\x87\n", "SVG": b"<svg xmlns='a'/>",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n(x) run\n", "script": b"#!/bin/sh\ntouch canary\n",
}  # fmt: skip


def no_image(rng: np.random.Generator, *, name: str, suffix: str) -> Hostile:
    """What is no picture, under a picture's name."""
    return Hostile(name=f"{name} named {suffix}", suffix=suffix, data=NO_IMAGES[name], demand="rejection")


# ---- bombs


def tiff_header(width: int, height: int, **tags: int) -> bytes:
    """A TIFF of one strip that says so; tags: number as t259 → value."""
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 100}
    values |= {int(name[1:]): value for name, value in tags.items()}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(values.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(values)) + entries + bytes(104)


def jpeg_header(width: int, height: int) -> bytes:
    """A whole small JPEG whose header says that it is larger."""
    data = bytearray(saved(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def small_bomb(rng: np.random.Generator, *, name: str) -> Hostile:
    """A file that declares, or inflates to, far more than it should; quickly made."""
    samples = noise(rng)
    text = zeros(TEXT_BOMB)
    made: dict[str, Callable[[], tuple[str, bytes]]] = {
        "png 100000 x 100000": lambda: (".png", bomb(100_000, 100_000, 1, GREY, 1 << 20)),
        "png 2^31 - 1": lambda: (".png", bomb(2**31 - 1, 2**31 - 1, 16, RGBA, 1 << 20)),
        "png just too large": lambda: (".png", bomb(8001, 8000, 8, GREY, 1 << 20)),
        "png of little that inflates": lambda: (".png", bomb(20, 20, 8, GREY, 300 << 20)),
        "png of little that inflates, interlaced": lambda: (
            ".png", SIGNATURE + header(20, 20, 8, GREY, 0, 0, 1) + chunk(b"IDAT", zeros(300 << 20)) + chunk(b"IEND"),
        ),
        "png zTXt": lambda: (".png", png(samples, before=chunk(b"zTXt", b"a\0\0" + text))),
        "png iTXt": lambda: (".png", png(samples, before=chunk(b"iTXt", b"a\0\1\0\0\0" + text))),
        "png iCCP": lambda: (".png", png(samples, before=chunk(b"iCCP", b"a\0\0" + text))),
        "png zTXt of EXIF": lambda: (".png", png(samples, before=chunk(b"zTXt", b"Raw profile type exif\0\0" + text))),
        "jpeg 65500 x 65500": lambda: (".jpg", jpeg_header(65500, 65500)),
        "jpeg 7900 x 7900": lambda: (".jpg", jpeg_header(7900, 7900)),
        "tiff 2^32 - 1": lambda: (".tif", tiff_header(2**32 - 1, 2**32 - 1)),
        "tiff 60000 x 1000": lambda: (".tif", tiff_header(60_000, 1000)),
        "tiff strips": lambda: (".tif", tiff_header(1000, 1000, t278=1)),
        "bmp 2^30": lambda: (".bmp", b"BM" + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, 2**30, 2**30, 1, 8,
                                                         0, 0, 1, 1, 0, 0) + bytes(200)),
        "dicom 65535 x 65535": lambda: (".dcm", dicom(samples, 8, Rows=65535, Columns=65535)),
        "dicom deflated": lambda: (".dcm", deflated_bomb()),
    }  # fmt: skip
    suffix, data = made[name]()
    about_text = name in ("png zTXt", "png iTXt", "png iCCP", "png zTXt of EXIF")
    golden = samples if about_text else None
    return Hostile(
        name=f"bomb {name}",
        suffix=suffix,
        data=data,
        golden=golden,
        demand="either" if golden is not None else "rejection",
    )


BOMBS = (
    "png 100000 x 100000", "png 2^31 - 1", "png just too large", "png of little that inflates",
    "png of little that inflates, interlaced", "png zTXt", "png iTXt", "png iCCP", "png zTXt of EXIF",
    "jpeg 65500 x 65500", "jpeg 7900 x 7900", "tiff 2^32 - 1", "tiff 60000 x 1000", "tiff strips", "bmp 2^30",
    "dicom 65535 x 65535", "dicom deflated",
)  # fmt: skip


def deflated_bomb() -> bytes:
    """A deflated DICOM of some hundred kB that inflates to 1.5 GB."""
    meta = dicom(np.zeros((2, 2), np.uint8), 8, DEFLATED)
    start = meta.index(DEFLATED.encode()) + len(DEFLATED)
    return meta[: start + start % 2] + deflated_zeros(1500 << 20)


def large_bomb(rng: np.random.Generator, *, depth: int, kind: int, interlaced: bool = False) -> Hostile:
    """All zeros, within the limit of pixels: a picture of nothing, which must cost no more memory than it may."""
    channels = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGBA: 4}[kind]
    side = 7990
    body = zeros(side * (1 + side * channels * depth // 8) + side * 8)
    data = SIGNATURE + header(side, side, depth, kind, 0, 0, int(interlaced)) + chunk(b"IDAT", body) + chunk(b"IEND")
    return Hostile(
        name=f"bomb png {side} x {side} {depth} bit kind {kind}", suffix=".png", data=data, demand="rejection"
    )


# ---- all of them


def corners() -> list[Maker]:
    """Every corner once, from the commonest formats to the oddest."""
    every = png_corners()
    for number in range(1, 9):
        every.append(partial(by_pillow, mode="L", kind="JPEG", options={"orientation": number}))
        every.append(partial(by_pillow, mode="RGB", kind="JPEG", options={"orientation": number, "quality": 90}))
        every.append(partial(by_pillow, mode="L", kind="TIFF", options={"tiffinfo": {274: number}}))
    jpegs = (
        {"progressive": True},
        {"subsampling": 0},
        {"subsampling": 2},
        {"comment": b"\x1b[31m" * 9},
        {"quality": 1},
    )
    every += [partial(by_pillow, mode=mode, kind="JPEG", options=o) for mode in ("L", "RGB", "CMYK") for o in jpegs]
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"):
        packings = ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"] + ["group4"] * (mode == "1")
        every += [partial(by_pillow, mode=mode, kind="TIFF", options={"compression": name}) for name in packings]
    every.append(partial(by_pillow, mode="L", kind="TIFF", options={"big_tiff": True}))
    every.append(partial(by_pillow, mode="F", kind="TIFF", options={}, demand="rejection"))
    pages = {"save_all": True, "append_images": True}
    every.append(partial(by_pillow, mode="L", kind="TIFF", options=pages, demand="rejection"))
    every.append(partial(by_pillow, mode="L", kind="PNG", options=pages, demand="rejection"))
    every += [partial(by_pillow, mode=mode, kind="BMP", options={}) for mode in ("1", "L", "P", "RGB", "RGBA")]
    every += [partial(by_pillow, mode="L", kind=kind, options={}, demand="rejection") for kind in ("GIF", "WEBP")]
    every += [partial(grey_dicom, bits=bits, syntax=syntax) for bits in (8, 12, 16) for syntax in (EXPLICIT, DEFLATED)]
    every += [
        partial(grey_dicom, bits=8, **tags) for tags in ({"NumberOfFrames": "3"}, {"Rows": 0}, {"Modality": "CT"})
    ]
    sound: tuple[Maker, ...] = (
        partial(plain, depth=8, kind=GREY, interlaced=False, filters=(0,)),
        partial(by_pillow, mode="L", kind="JPEG", options={}),
        partial(by_pillow, mode="L", kind="TIFF", options={}),
        partial(grey_dicom, bits=16),
    )
    every += [partial(misnamed, file=file, suffix=suffix) for file in sound for suffix in (".png", ".jpg", ".dcm", "")]
    every += [partial(no_image, name=name, suffix=suffix) for name in NO_IMAGES for suffix in (".png", ".dcm")]
    every += [partial(small_bomb, name=name) for name in BOMBS]
    every += [
        partial(large_bomb, depth=8, kind=GREY),
        partial(large_bomb, depth=16, kind=GREY),
        partial(large_bomb, depth=8, kind=RGBA),
        partial(large_bomb, depth=16, kind=RGBA),
        partial(large_bomb, depth=16, kind=GREY_ALPHA, interlaced=True),
    ]
    return every
