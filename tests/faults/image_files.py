"""Image files, sound and hostile, of every format; and the grey levels that another reader finds in them."""

# H rows, W columns, C channels

import io
import struct
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
import pydicom
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from loaders.images.decode import LEAST_SIDE

Demand = Literal["golden", "rejection", "either"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hostile:
    """One file.  golden: its upright grey levels, where they are known; else those that another reader finds in whole.

    demand: what must become of it.  whole: other bytes than the file's own, if it is these that say what it may show.
    """

    name: str
    suffix: str
    data: bytes
    golden: np.ndarray | None = None
    whole: bytes = b""
    demand: Demand = "golden"


Maker = Callable[[np.random.Generator], Hostile]


def noise(rng: np.random.Generator, depth: int = 8, channels: int = 0) -> np.ndarray:
    """Random samples of a random small shape, uint8 or uint16."""
    shape = (*rng.integers(LEAST_SIDE, 60, 2).tolist(), *([channels] if channels else []))
    return rng.integers(0, 1 << depth, shape).astype(np.uint16 if depth == 16 else np.uint8)


def luma(colour_HWC: np.ndarray) -> np.ndarray:
    """Rec. 601 to nearest, weights in 65536ths as DESIGN has them; a fourth channel is laid over black."""
    top = np.iinfo(colour_HWC.dtype).max
    wide = colour_HWC.astype(np.int64)
    grey = (19595 * wide[..., 0] + 38470 * wide[..., 1] + 7471 * wide[..., 2] + 32768) >> 16
    if colour_HWC.shape[2] == 4:
        grey = (grey * wide[..., 3] + top // 2) // top
    return grey.astype(colour_HWC.dtype)


def exif(orientation: int) -> bytes:
    """EXIF of nothing but an orientation."""
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def turned(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Upright, as Pillow turns it."""
    picture = Image.fromarray(samples)
    picture.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file as Pillow writes it."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def oracle_of(file: Hostile) -> Hostile:
    """The file with what Pillow makes of it; without golden pixels where Pillow refuses."""
    return replace(file, golden=pillow_grey(file.data))


def upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says, or as it is where that cannot be read, which plainfilm takes as upright."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 — of damaged EXIF: whatever Pillow raises
        return image


def pillow_grey(data: bytes) -> np.ndarray | None:
    """Upright grey levels by Pillow and numpy alone; None where Pillow refuses."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            if image.format in ("JPEG", "MPO") and image.mode == "RGB":
                image.draft("YCbCr", image.size)
            image.load()
            inverted = isinstance(image, TiffImageFile) and image.tag_v2.get(262) == 0 and image.mode.startswith("I;16")
            picture = image if image.format == "TIFF" else upright(image)  # loading has turned a TIFF
            if picture.mode == "YCbCr" and image.format in ("JPEG", "MPO"):
                return np.ascontiguousarray(np.asarray(picture)[..., 0])
            if picture.mode in ("1", "L"):
                grey_HW = np.array(picture.convert("L"))
                if image.format == "PNG" and isinstance(hidden := image.info.get("transparency"), int):
                    grey_HW[grey_HW == hidden] = 0
                return grey_HW
            if picture.mode.startswith("I;16"):
                grey_HW = np.asarray(picture).astype(np.uint16)
                return 65535 - grey_HW if inverted else grey_HW
            return luma(np.asarray(picture.convert("RGBA" if picture.has_transparency_data else "RGB")))
    except Exception:  # noqa: BLE001 — of damaged bytes: whatever Pillow and its libraries raise
        return None


def dicom_grey(data: bytes) -> np.ndarray | None:
    """Grey levels of an uncompressed DICOM that has no window and no LUT, by pydicom and numpy; None where it refuses.

    The whole range of the stored bits is shown (PS3.4 section N.2), at 8 bits or 16.  pydicom overlooks the high bit.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            dataset = pydicom.dcmread(io.BytesIO(data))
            dataset.file_meta.setdefault("TransferSyntaxUID", EXPLICIT)
            values_HW = dataset.pixel_array.astype(np.int64)
        stored = int(dataset.BitsStored)
        if shift := int(dataset.HighBit) + 1 - stored:
            words = np.frombuffer(dataset.PixelData, f"<u{dataset.BitsAllocated // 8}")[: values_HW.size]
            values_HW = (words.reshape(values_HW.shape) >> shift).astype(np.int64) & ((1 << stored) - 1)
            values_HW -= (values_HW >> stored - 1 << stored) * int(dataset.PixelRepresentation)
        shown_HW = (values_HW + (1 << stored - 1) * int(dataset.PixelRepresentation)) / ((1 << stored) - 1)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            shown_HW = 1 - shown_HW
        return np.rint(shown_HW * (255 if stored <= 8 else 65535)).astype(np.uint8 if stored <= 8 else np.uint16)
    except Exception:  # noqa: BLE001 — of damaged bytes: whatever pydicom raises
        return None


def golden_of(file: Hostile) -> np.ndarray | None:
    """The pixels that the file may become: those known, else what another reader finds in its whole bytes."""
    if file.golden is not None:
        return file.golden
    data = file.whole or file.data
    return dicom_grey(data) if data[128:132] == b"DICM" else pillow_grey(data)


# ---- a small PNG writer that can also write what no other would


SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))  # Adam7


def chunk(kind: bytes, body: bytes = b"", crc: int | None = None) -> bytes:
    """One chunk.  crc: instead of the right one."""
    right = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", right if crc is None else crc)


def header(width: int, height: int, depth: int = 8, kind: int = GREY, *more: int) -> bytes:
    """IHDR.  more: compression, filter and interlace method; 0 where left out."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, *(*more, 0, 0, 0)[:3]))


def packed(row: np.ndarray, depth: int) -> bytes:
    """The samples of one row as bytes; of fewer than 8 bits several share one."""
    flat = row.reshape(-1)
    if depth == 16:
        return flat.astype(">u2").tobytes()
    if depth == 8:
        return flat.astype(np.uint8).tobytes()
    bits = (flat[:, None].astype(np.uint8) >> np.arange(depth - 1, -1, -1, dtype=np.uint8)) & 1
    return np.packbits(bits.reshape(-1)).tobytes()


def filtered(line: bytes, above: bytes, kind: int, step: int) -> bytes:
    """A line by one of the five filters.  step: bytes of a pixel, at least 1."""
    current = np.frombuffer(line, np.uint8).astype(np.int64)
    up = np.frombuffer(above, np.uint8).astype(np.int64)
    left, corner = (np.concatenate([np.zeros(step, np.int64), values])[: len(current)] for values in (current, up))
    guess = left + up - corner
    away = [abs(guess - value) for value in (left, up, corner)]
    paeth = np.where(
        (away[0] <= away[1]) & (away[0] <= away[2]), left, np.where(away[1] <= away[2], up, corner)
    )  # fmt: skip
    taken = (0, left, up, (left + up) // 2, paeth)[kind if kind < 5 else 0]
    return bytes([kind]) + ((current - taken) & 255).astype(np.uint8).tobytes()


def scanlines(samples: np.ndarray, depth: int, filters: Sequence[int]) -> bytes:
    """One picture, or one pass of an interlaced one; filters take turns."""
    if not samples.size:
        return b""
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    step = max(1, channels * depth // 8)
    lines = [packed(row, depth) for row in samples]
    before = [bytes(len(lines[0])), *lines]
    return b"".join(
        filtered(line, above, filters[place % len(filters)], step)
        for place, (line, above) in enumerate(zip(lines, before[:-1], strict=True))
    )


def raw_pixels(samples: np.ndarray, depth: int, *, interlaced: bool = False, filters: Sequence[int] = (0,)) -> bytes:
    """What IDAT holds, before it is compressed."""
    if not interlaced:
        return scanlines(samples, depth, filters)
    return b"".join(scanlines(samples[top::down, left::right], depth, filters) for top, left, down, right in PASSES)


def png(
    samples: np.ndarray,
    depth: int = 8,
    kind: int = GREY,
    *,
    interlaced: bool = False,
    filters: Sequence[int] = (0,),
    before: bytes = b"",
    after: bytes = b"",
    parts: Sequence[int] = (),
) -> bytes:
    """A PNG of samples (H, W) or (H, W, C).  before, after: chunks around the pixels.  parts: sizes of the first IDATs.

    Sizes may be 0; the rest of the pixels is in a last IDAT.
    """
    body = zlib.compress(raw_pixels(samples, depth, interlaced=interlaced, filters=filters))
    pixels = b""
    for size in parts:
        pixels += chunk(b"IDAT", body[:size])
        body = body[size:]
    head = header(samples.shape[1], samples.shape[0], depth, kind, 0, 0, int(interlaced))
    return SIGNATURE + head + before + pixels + chunk(b"IDAT", body) + after + chunk(b"IEND")


def deflated_zeros(size: int) -> bytes:
    """So many zeros as raw deflate, a thousandth of their size: one block of a MiB, again and again."""
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packing.compress(bytes(1 << 20)) + packing.flush(zlib.Z_FULL_FLUSH)
    packing = zlib.compressobj(9, zlib.DEFLATED, -15)
    return block * (size >> 20) + packing.compress(bytes(size & ((1 << 20) - 1))) + packing.flush()


def zeros(size: int) -> bytes:
    """So many zeros as zlib has them; their Adler-32 needs no pass over them."""
    return b"\x78\xda" + deflated_zeros(size) + struct.pack(">HH", size % 65521, 1)


def bomb(width: int, height: int, depth: int, kind: int, size: int) -> bytes:
    """A PNG whose IDAT inflates to `size` zeros, whatever its header says."""
    return SIGNATURE + header(width, height, depth, kind) + chunk(b"IDAT", zeros(size)) + chunk(b"IEND")


# ---- PNGs


def shown(samples: np.ndarray, depth: int, kind: int) -> np.ndarray:
    """The grey that samples of a PNG without palette mean."""
    if kind == GREY:
        return samples if depth >= 8 else (samples * (255 // ((1 << depth) - 1))).astype(np.uint8)
    if kind == GREY_ALPHA:
        return luma(np.concatenate([samples[..., :1].repeat(3, 2), samples[..., 1:]], axis=2))
    return luma(samples)


def plain(rng: np.random.Generator, *, depth: int, kind: int, interlaced: bool, filters: tuple[int, ...]) -> Hostile:
    """A sound PNG of any kind but a palette's."""
    samples = noise(rng, depth, {GREY: 0, RGB: 3, GREY_ALPHA: 2, RGBA: 4}[kind])
    data = png(samples, depth, kind, interlaced=interlaced, filters=filters)
    name = f"png {depth} bit kind {kind}{' interlaced' * interlaced} filters {filters}"
    return Hostile(name=name, suffix=".png", data=data, golden=shown(samples, depth, kind))


def palette(rng: np.random.Generator, *, depth: int, interlaced: bool, alpha: bool) -> Hostile:
    """A sound PNG with a palette, perhaps with transparency."""
    samples = noise(rng, depth)
    colours = rng.integers(0, 256, (1 << depth, 3)).astype(np.uint8)
    before = chunk(b"PLTE", colours.tobytes())
    opaque = np.full((1 << depth, 1), 255, np.uint8)
    if alpha:
        opaque = rng.integers(0, 256, (1 << depth, 1)).astype(np.uint8)
        before += chunk(b"tRNS", opaque.tobytes())
    data = png(samples, depth, PALETTE, interlaced=interlaced, before=before)
    name = f"png palette {depth} bit{' interlaced' * interlaced}{' tRNS' * alpha}"
    golden = luma(np.concatenate([colours, opaque], axis=1)[samples])
    return Hostile(name=name, suffix=".png", data=data, golden=golden)


def hidden_level(rng: np.random.Generator, *, depth: int, kind: int) -> Hostile:
    """tRNS that names one level of grey, or one colour, which is then laid over black."""
    samples = noise(rng, depth, 3 if kind == RGB else 0)
    chosen = samples[0, 0].reshape(-1)
    data = png(samples, depth, kind, before=chunk(b"tRNS", chosen.astype(">u2").tobytes()))
    golden = shown(samples, depth, kind).copy()
    golden[(samples.reshape(*samples.shape[:2], -1) == chosen).all(2)] = 0
    return Hostile(name=f"png tRNS {depth} bit kind {kind}", suffix=".png", data=data, golden=golden)


ANCILLARY = {
    "gAMA": chunk(b"gAMA", struct.pack(">I", 45455)),
    "odd gAMA": chunk(b"gAMA", struct.pack(">I", 1)) + chunk(b"gAMA", struct.pack(">I", 0)),
    "cHRM": chunk(b"cHRM", struct.pack(">8I", *[31270] * 8)),
    "sRGB": chunk(b"sRGB", b"\0") + chunk(b"sRGB", b"\x09"),
    "iCCP": chunk(b"iCCP", b"x\0\0" + zlib.compress(b"no profile")),
    "sBIT": chunk(b"sBIT", b"\x03"),
    "bKGD": chunk(b"bKGD", b"\0\x80"),
    "pHYs": chunk(b"pHYs", struct.pack(">IIB", 1, 2**31 - 1, 1)),
    "tIME": chunk(b"tIME", struct.pack(">HBBBBB", 2026, 13, 32, 25, 61, 61)),
    "hIST": chunk(b"hIST", b"\0\1"),
    "texts": chunk(b"tEXt", b"Title\0\x1b[31m\xff") + chunk(b"iTXt", b"a\0\0\0\0\0\x1b]0;x\x07") + chunk(b"tEXt", b""),
    "damaged zTXt": chunk(b"zTXt", b"a\0\0no zlib"),
    "unknown": chunk(b"prVt", bytes(100)) + chunk(b"zzZz"),
    "acTL": chunk(b"acTL", struct.pack(">II", 3, 0)),
}


def with_chunks(rng: np.random.Generator, *, name: str, behind: bool) -> Hostile:
    """Ancillary chunks, which change no level, before the pixels or behind them."""
    samples = noise(rng)
    data = png(samples, after=ANCILLARY[name]) if behind else png(samples, before=ANCILLARY[name])
    # an animation has several pictures, and Pillow may refuse text that does not inflate
    demand: Demand = "either" if name in ("acTL", "damaged zTXt") else "golden"
    name = f"png with {name} {'behind' if behind else 'before'}"
    return Hostile(name=name, suffix=".png", data=data, golden=samples, demand=demand)


def in_parts(rng: np.random.Generator, *, parts: tuple[int, ...]) -> Hostile:
    """IDATs of odd sizes, zero among them."""
    samples = noise(rng)
    return Hostile(name=f"png IDATs {parts[:4]}", suffix=".png", data=png(samples, parts=parts), golden=samples)


def turned_png(rng: np.random.Generator, *, orientation: int) -> Hostile:
    """eXIf with an orientation."""
    samples = noise(rng)
    body = exif(orientation).removeprefix(b"Exif\0\0")
    data = png(samples, before=chunk(b"eXIf", body))
    return Hostile(name=f"png EXIF {orientation}", suffix=".png", data=data, golden=turned(samples, orientation))


def broken_png(rng: np.random.Generator, *, fault: str) -> Hostile:
    """A PNG with one fault; a reader may see through some, but must never give other pixels."""
    samples = noise(rng)
    rows, columns = samples.shape
    head, good = header(columns, rows), zlib.compress(raw_pixels(samples, 8))
    end, body = chunk(b"IEND"), chunk(b"IDAT", good)
    wrong = zlib.compress(b"\5" + raw_pixels(samples, 8)[1:])
    data = SIGNATURE + {
        "CRC of IHDR": head[:-1] + bytes([head[-1] ^ 1]) + body + end,
        "CRC of IDAT": head + chunk(b"IDAT", good, 0) + end,
        "CRC of IEND": head + body + chunk(b"IEND", b"", 0),
        "CRC of text": head + chunk(b"tEXt", b"a\0b", 0) + body + end,
        "no IDAT": head + end,
        "no IEND": head + body,
        "empty IDAT": head + chunk(b"IDAT") + end,
        "too few rows": head + chunk(b"IDAT", zlib.compress(raw_pixels(samples, 8)[: -2 * columns])) + end,
        "too many rows": head + chunk(b"IDAT", zlib.compress(raw_pixels(samples, 8) + bytes(columns + 1))) + end,
        "wrong Adler": head + chunk(b"IDAT", good[:-1] + bytes([good[-1] ^ 1])) + end,
        "cut deflate": head + chunk(b"IDAT", good[: len(good) // 2]) + end,
        "filter 5": head + chunk(b"IDAT", wrong) + end,
        "depth 3": header(columns, rows, 3) + body + end,
        "kind 1": header(columns, rows, 8, 1) + body + end,
        "RGB of 4 bits": header(columns, rows, 4, RGB) + body + end,
        "interlace 2": header(columns, rows, 8, GREY, 0, 0, 2) + body + end,
        "compression 1": header(columns, rows, 8, GREY, 1) + body + end,
        "filter method 1": header(columns, rows, 8, GREY, 0, 1) + body + end,
        "width 0": header(0, rows) + body + end,
        "height 0": header(columns, 0) + body + end,
        "width 2^31": header(1 << 31, 1) + body + end,
        "two IHDRs": head + head + body + end,
        "IHDR second": chunk(b"tEXt", b"a\0b") + head + body + end,
        "short IHDR": chunk(b"IHDR", head[8:18]) + body + end,
        "no palette": header(columns, rows, 8, PALETTE) + body + end,
        "palette of 5 bytes": header(columns, rows, 8, PALETTE) + chunk(b"PLTE", bytes(5)) + body + end,
        "small palette": header(columns, rows, 8, PALETTE) + chunk(b"PLTE", b"\1\2\3\4\5\6") + body + end,
        "unknown critical chunk": head + chunk(b"ZZZZ", b"?") + body + end,
        "chunk of 2^32 - 1": head + b"\xff\xff\xff\xffIDAT" + good + end,
        "IDATs apart": head + chunk(b"IDAT", good[:9]) + chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", good[9:]) + end,
        "data behind IEND": head + body + end + bytes(50),
    }[fault]  # fmt: skip
    seen_through = fault in (
        "unknown critical chunk",
        "IDATs apart",
        "data behind IEND",
        "too many rows",
        "CRC of IEND",
    )
    seen_through |= fault in ("wrong Adler", "CRC of text")
    demand: Demand = "either" if seen_through else "rejection"
    if fault == "small palette":  # a reader may also take what is beyond the palette for black
        return oracle_of(Hostile(name=f"png {fault}", suffix=".png", data=data, demand="either"))
    return Hostile(name=f"png {fault}", suffix=".png", data=data, golden=samples, demand=demand)


PNG_FAULTS = (
    "CRC of IHDR", "CRC of IDAT", "CRC of IEND", "CRC of text", "no IDAT", "no IEND", "empty IDAT", "too few rows",
    "too many rows", "wrong Adler", "cut deflate", "filter 5", "depth 3", "kind 1", "RGB of 4 bits", "interlace 2",
    "compression 1", "filter method 1", "width 0", "height 0", "width 2^31", "two IHDRs", "IHDR second", "short IHDR",
    "no palette", "palette of 5 bytes", "small palette", "unknown critical chunk", "chunk of 2^32 - 1", "IDATs apart",
    "data behind IEND",
)  # fmt: skip


def png_corners() -> list[Maker]:
    """Every corner of PNG once."""
    every: list[Maker] = []
    depths = {GREY: (1, 2, 4, 8, 16), RGB: (8, 16), GREY_ALPHA: (8, 16), RGBA: (8, 16)}
    for kind, of_kind in depths.items():
        for depth in of_kind:
            for interlaced in (False, True):
                for filters in ((0,), (1, 2, 3, 4, 0)) if depth >= 8 else ((0,),):
                    every.append(partial(plain, depth=depth, kind=kind, interlaced=interlaced, filters=filters))
    every += [
        partial(plain, depth=8, kind=kind, interlaced=False, filters=(f,)) for kind in depths for f in range(1, 5)
    ]
    every += [
        partial(palette, depth=depth, interlaced=interlaced, alpha=alpha)
        for depth in (1, 2, 4, 8) for interlaced in (False, True) for alpha in (False, True)
    ]  # fmt: skip
    every += [partial(hidden_level, depth=depth, kind=GREY) for depth in (1, 2, 4, 8, 16)]
    every += [partial(hidden_level, depth=depth, kind=RGB) for depth in (8, 16)]
    every += [partial(with_chunks, name=name, behind=behind) for name in ANCILLARY for behind in (False, True)]
    every += [partial(in_parts, parts=parts) for parts in ((0,), (0, 0, 3, 0), (1,) * 200, (2, 5, 1, 0, 7))]
    every += [partial(broken_png, fault=fault) for fault in PNG_FAULTS]
    every += [partial(turned_png, orientation=number) for number in range(10)]
    return every


# ---- files of every format


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
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n(x) run\n", "script": b"#!/bin/sh\ntouch planted\n",
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
