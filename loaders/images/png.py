"""A PNG file: its chunks checked, and the pixels of ordinary ones."""

# H rows, W columns, C colour channels (red, green, blue, and perhaps alpha), B bytes of a row

from __future__ import annotations

import struct
import zlib

import numpy as np
from isal import isal_zlib

from kernels.decoding import unfilter_into
from loaders.errors import RadiographError

COPY_AGAIN = "copy it again from its source"
SAVE_AGAIN = "open it in a viewer and save it as grey PNG"
CHANNELS = {0: 1, 2: 3, 6: 4}  # colour types without a palette, and without OpenCV's own ideas of grey with alpha


def sound_png(data: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Check each CRC32; give a PNG of the pixel chunks only (libpng comments on others), and some bodies.

    Bodies are those of eXIf and tRNS, empty if missing, and of IDAT: the compressed pixels.
    Errors: RadiographError for a damaged or truncated file.
    """
    view, at, bodies = memoryview(data), 8, {b"eXIf": b"", b"tRNS": b""}
    kept: list[bytes | memoryview] = [data[:8]]
    compressed: list[memoryview] = []
    while at + 12 <= len(data):
        kind, end = data[at + 4 : at + 8], at + 12 + int.from_bytes(data[at : at + 4], "big")
        if end > len(data):
            break
        if zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise RadiographError(
                f"damaged PNG (wrong CRC32 in the chunk at byte {at}), expected a sound one; {COPY_AGAIN}"
            )
        if (kind == b"IHDR") != (at == 8):
            raise RadiographError(f"PNG chunk {kind!r} at byte {at}, expected IHDR first and once; {SAVE_AGAIN}")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(view[at:end])
        if kind == b"IDAT":
            compressed.append(view[at + 8 : end - 4])
        elif kind in bodies:
            bodies[kind] = data[at + 8 : end - 4]
        if kind == b"IEND":
            return b"".join(kept), bodies | {b"IDAT": b"".join(compressed)}
        at = end
    raise RadiographError(f"truncated PNG ({len(data)} bytes, no IEND chunk), expected a whole one; {COPY_AGAIN}")


def plain_png(pixels_only: bytes, compressed: bytes) -> np.ndarray | None:
    """The pixels of an ordinary 8-bit PNG, uint8 (H, W) or (H, W, C), red first; None for any other.

    Both of `sound_png`, without tRNS.
    Twice as fast as libpng, whose time goes to zlib and to filters. Anything unexpected or wrong is left for OpenCV to
    read or to refuse.
    """
    length, _, columns, rows, depth, colour_type, *methods = struct.unpack(">I4sIIBBBBB", pixels_only[8:29])
    if length != 13 or depth != 8 or colour_type not in CHANNELS or any(methods):  # compression, filters, interlacing
        return None
    channels = CHANNELS[colour_type]
    size = rows * (1 + columns * channels)
    if compressed[:1] > b"\x78":  # a window larger than zlib's: isal takes it, zlib does not
        return None
    try:
        inflating = isal_zlib.decompressobj()
        filtered = inflating.decompress(compressed, size + 1)  # no room for a bomb
    except (isal_zlib.error, ValueError):  # type: ignore[misc]
        return None
    if len(filtered) != size or not inflating.eof:
        return None
    pixels_HB = np.empty((rows, columns * channels), np.uint8)
    if not unfilter_into(pixels_HB, np.frombuffer(filtered, np.uint8), channels):
        return None
    return pixels_HB if channels == 1 else pixels_HB.reshape(rows, columns, channels)
