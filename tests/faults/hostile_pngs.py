"""Corners of PNG, sound and broken, with the grey levels they mean."""

# H rows, W columns, C channels

from __future__ import annotations

import struct
import zlib
from functools import partial

import numpy as np

from tests.faults.golden import Demand, Hostile, Maker, exif, luma, noise, oracle_of, turned
from tests.faults.png_writer import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, SIGNATURE, chunk, header, png, raw_pixels


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
