"""A small PNG writer that can also write what no other would: every corner of the format, sound or not."""

# H rows, W columns, C channels

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

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
    """So many zeros as zlib has them; their Adler-32 needs no look at them."""
    return b"\x78\xda" + deflated_zeros(size) + struct.pack(">HH", size % 65521, 1)


def bomb(width: int, height: int, depth: int, kind: int, size: int) -> bytes:
    """A PNG whose IDAT inflates to `size` zeros, whatever its header says."""
    return SIGNATURE + header(width, height, depth, kind) + chunk(b"IDAT", zeros(size)) + chunk(b"IEND")
