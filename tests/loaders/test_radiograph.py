"""Tests of one radiograph's decoding, against pixels whose grey levels are known before they are saved."""

# H rows, W columns, C colour channels (red, green, blue, and perhaps alpha)

import io
import os
import socket
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from loaders.config import HASH_ALGORITHM
from loaders.errors import RadiographError
from loaders.images.decode import hash_pixels
from loaders.images.files import MAX_BYTES, Radiograph
from loaders.images.radiograph import decode_radiograph, plain_png, sound_png

pytestmark = pytest.mark.opencv

REPOSITORY = Path(__file__).parents[2]
RADIOGRAPHS = Path(os.environ.get("PLAINFILM_DATA", REPOSITORY / "../shared/data")) / "radiographs"
SHAPES = [(1, 1), (1, 9), (8, 1), (13, 17), (33, 20)]


# ---- oracles and writers


def luma(rgb_HWC: np.ndarray) -> np.ndarray:
    """Rec. 601 in float64, unrounded."""
    return rgb_HWC[..., :3].astype(np.float64) @ [0.299, 0.587, 0.114]


def noise(*shape: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, int(np.iinfo(dtype).max) + 1, shape, dtype)


def smooth(height: int, width: int) -> np.ndarray:
    """Soft grey content that JPEG keeps within a level or two."""
    y, x = np.mgrid[:height, :width]
    return (127 + 60 * np.sin(x / 9) + 50 * np.cos(y / 7)).astype(np.uint8)


def pillow(pixels: np.ndarray | Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(buffer, format, **options)
    return buffer.getvalue()


def tiff(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(pixels: np.ndarray, *, depth: int, colour_type: int, extra: bytes = b"", size: tuple = ()) -> bytes:
    """A PNG of our own, filter 0; pixels: HWC or HW of uint8 or uint16; sub-byte depths are packed here."""
    height, width = size or pixels.shape[:2]
    rows = pixels.reshape(pixels.shape[0], -1)
    if depth < 8:
        bits = (rows[..., None] >> np.arange(depth - 1, -1, -1, dtype=np.uint8)) & 1
        rows = np.packbits(bits.reshape(len(rows), -1), axis=1)
    raw = b"".join(b"\0" + row.astype(">u2" if depth == 16 else "u1").tobytes() for row in rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(raw))
    return b"\x89PNG\r\n\x1a\n" + header + extra + body + chunk(b"IEND", b"")


def exif(orientation: int) -> bytes:
    """An EXIF block with nothing but the orientation, as a little-endian TIFF."""
    return b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)


def decode(folder: Path, data: bytes, name: str = "file.png", max_pixels: int = 1 << 20) -> Radiograph:
    path = folder / name
    path.write_bytes(data)
    return decode_radiograph(path, max_pixels=max_pixels)


def check(found: Radiograph, expected_HW: np.ndarray, *, format: str, bits: int, tolerance: float = 0) -> None:
    grey_HW = found.grey_HW
    assert grey_HW.dtype == (np.uint16 if bits == 16 else np.uint8)
    assert grey_HW.shape == expected_HW.shape
    assert grey_HW.flags.c_contiguous and grey_HW.flags.writeable
    assert np.abs(grey_HW - expected_HW.astype(np.float64)).max() <= tolerance
    assert (found.format, found.bits) == (format, bits)


# ---- formats, depths, modes


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_grey_of_8_bits_is_kept_to_the_bit(tmp_path: Path, format: str, shape: tuple[int, int]) -> None:
    grey_HW = noise(*shape)
    found = decode(tmp_path, pillow(grey_HW, format), f"file.{format.lower()}")
    check(found, grey_HW, format=format, bits=8)
    assert found.note == ""


@pytest.mark.parametrize("shape", SHAPES)
def test_png_of_16_bit_grey_keeps_all_bits(tmp_path: Path, shape: tuple[int, int]) -> None:
    grey_HW = noise(*shape, dtype=np.uint16)
    check(decode(tmp_path, png(grey_HW, depth=16, colour_type=0)), grey_HW, format="PNG", bits=16)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_comes_out_bright_where_white_whichever_end_is_zero(
    tmp_path: Path, dtype: type, photometric: str, compression: str | None
) -> None:
    stored_HW = noise(13, 17, dtype=dtype)
    top = np.iinfo(dtype).max
    grey_HW = top - stored_HW if photometric == "miniswhite" else stored_HW
    data = tiff(stored_HW, photometric=photometric, compression=compression)
    check(decode(tmp_path, data), grey_HW, format="TIFF", bits=8 * np.dtype(dtype).itemsize)


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits"])
@pytest.mark.parametrize("layout", [{}, {"bigtiff": True}, {"tile": (16, 16)}, {"rowsperstrip": 5}])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_of_either_byte_order_size_and_layout_is_the_same(
    tmp_path: Path, dtype: type, byteorder: str, layout: dict, compression: str | None, photometric: str
) -> None:
    if (byteorder, layout) == (">", {"bigtiff": True}):
        with pytest.raises(RadiographError, match=r"^big-endian BigTIFF"):
            decode(tmp_path, tiff(noise(9, 9, dtype=dtype), byteorder=byteorder, **layout))
        return
    stored_HW = noise(37, 21, dtype=dtype)
    grey_HW = np.iinfo(dtype).max - stored_HW if photometric == "miniswhite" else stored_HW
    data = tiff(stored_HW, photometric=photometric, compression=compression, byteorder=byteorder, **layout)
    check(decode(tmp_path, data), grey_HW, format="TIFF", bits=8 * np.dtype(dtype).itemsize)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_of_colour_in_either_order_becomes_luma(tmp_path: Path, planar: str, byteorder: str) -> None:
    rgb_HWC = noise(37, 21, 3)
    pixels = rgb_HWC if planar == "contig" else np.ascontiguousarray(np.moveaxis(rgb_HWC, 2, 0))
    data = tiff(pixels, photometric="rgb", planarconfig=planar, byteorder=byteorder)
    check(decode(tmp_path, data), luma(rgb_HWC), format="TIFF", bits=8, tolerance=0.51)


def test_tiff_of_grey_that_is_multiplied_by_its_alpha_is_read(tmp_path: Path) -> None:
    pixels_HWC = noise(9, 11, 2)
    pixels_HWC[..., 1] = 255
    data = tiff(pixels_HWC, photometric="minisblack", planarconfig="contig", extrasamples=["assocalpha"])
    check(decode(tmp_path, data), pixels_HWC[..., 0], format="TIFF", bits=8)


@pytest.mark.parametrize(
    "data", [b"MM\0*", b"MM\0*\0\0\0\x08\xff\xff\1\6", b"MM\0*" + b"\xff" * 30, b"MM\0*" + b"\0\0\0\x08" * 30]
)
def test_a_broken_header_of_a_big_endian_tiff_is_rejected(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RadiographError, match=r"^TIFF"):
        decode(tmp_path, data)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_of_fewer_than_8_bits_spans_black_to_white(tmp_path: Path, depth: int) -> None:
    level_HW = noise(9, 11) >> (8 - depth)
    expected_HW = level_HW * (255 // (2**depth - 1))
    found = decode(tmp_path, png(level_HW, depth=depth, colour_type=0))
    check(found, expected_HW, format="PNG", bits=1 if depth == 1 else 8)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_one_bit_becomes_0_and_255(tmp_path: Path, format: str) -> None:
    mask_HW = noise(9, 11) > 127
    check(decode(tmp_path, pillow(mask_HW, format)), mask_HW * 255, format=format, bits=1)
    if format == "TIFF":
        check(decode(tmp_path, tiff(~mask_HW, photometric="miniswhite")), mask_HW * 255, format=format, bits=1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_colour_of_8_bits_becomes_luma_rounded_to_nearest(tmp_path: Path, format: str, shape: tuple[int, int]) -> None:
    rgb_HWC = noise(*shape, 3)
    check(decode(tmp_path, pillow(rgb_HWC, format)), luma(rgb_HWC), format=format, bits=8, tolerance=0.51)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("opaque", [True, False])
@pytest.mark.parametrize(("channels", "colour_type"), [(2, 4), (3, 2), (4, 6)])
def test_png_of_16_bit_colour_or_alpha_keeps_16_bits(
    tmp_path: Path, channels: int, colour_type: int, opaque: bool, shape: tuple[int, int]
) -> None:
    pixels_HWC = noise(*shape, channels, dtype=np.uint16)
    expected_HW = luma(pixels_HWC) if channels > 2 else pixels_HWC[..., 0].astype(np.float64)
    if channels != 3 and opaque:
        pixels_HWC[..., -1] = 65535
    elif channels != 3:
        expected_HW = expected_HW * pixels_HWC[..., -1] / 65535
    found = decode(tmp_path, png(pixels_HWC, depth=16, colour_type=colour_type))
    check(found, expected_HW, format="PNG", bits=16, tolerance=2.1)  # of 65535: OpenCV's 15-bit weights


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_saved_as_colour_is_the_same_grey(tmp_path: Path, dtype: type) -> None:
    every_level = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(-1, 16)
    colour_HWC = np.repeat(every_level[..., None], 3, axis=2)
    bits = 8 * np.dtype(dtype).itemsize
    check(decode(tmp_path, png(colour_HWC, depth=bits, colour_type=2)), every_level, format="PNG", bits=bits)


@pytest.mark.parametrize("opaque", [True, False])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_alpha_of_8_bits_is_dropped_if_opaque_and_else_laid_over_black(
    tmp_path: Path, format: str, mode: str, opaque: bool
) -> None:
    pixels_HWC = noise(13, 17, len(mode))
    expected_HW = luma(pixels_HWC) if mode == "RGBA" else pixels_HWC[..., 0].astype(np.float64)
    if opaque:
        pixels_HWC[..., -1] = 255
    else:
        expected_HW = expected_HW * pixels_HWC[..., -1] / 255
    found = decode(tmp_path, pillow(Image.fromarray(pixels_HWC, mode), format), f"file.{format.lower()}")
    check(found, expected_HW, format=format, bits=8, tolerance=1.01)  # two roundings
    assert found.note == ("" if opaque else "transparency laid over black")


@pytest.mark.parametrize(
    "data",
    [
        pillow(Image.new("RGBA", (20, 30), (200, 90, 80, 0)), "PNG"),
        pillow(Image.new("LA", (20, 30), (200, 0)), "PNG"),
        pillow(Image.new("RGBA", (20, 30), (200, 90, 80, 0)), "TIFF"),
        png(noise(9, 11)[..., None] * 0 + 7, depth=8, colour_type=0, extra=chunk(b"tRNS", b"\0\7")),
        png(noise(9, 11, 4, dtype=np.uint16) * [1, 1, 1, 0], depth=16, colour_type=6),
    ],
)  # fmt: skip
def test_what_is_transparent_everywhere_is_rejected_for_that(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RadiographError, match=r"^transparent everywhere, expected .*; save it without") as caught:
        decode(tmp_path, data)
    assert caught.value.code == "one-level"


@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palette_becomes_the_luma_of_its_colours_over_black(tmp_path: Path, depth: int, transparent: bool) -> None:
    index_HW = noise(9, 11) >> (8 - depth)
    palette = noise(2**depth, 3, seed=1)
    alpha = noise(2**depth, seed=2)
    extra = chunk(b"PLTE", palette.tobytes()) + (chunk(b"tRNS", alpha.tobytes()) if transparent else b"")
    expected_HW = luma(palette[index_HW]) * (alpha[index_HW] / 255 if transparent else 1)
    found = decode(tmp_path, png(index_HW, depth=depth, colour_type=3, extra=extra))
    check(found, expected_HW, format="PNG", bits=1 if depth == 1 else 8, tolerance=1.01)


@pytest.mark.parametrize(("colour_type", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_the_one_transparent_level_of_a_png_is_black(tmp_path: Path, colour_type: int, depth: int) -> None:
    dtype = np.uint16 if depth == 16 else np.uint8
    level_HWC = noise(9, 11, 3 if colour_type else 1, dtype=dtype) >> (0 if depth == 16 else 8 - depth)
    level_HWC[4, 5] = hidden = np.maximum(level_HWC[4, 5], 1)
    scale = 255 // (2**depth - 1) if depth < 8 else 1
    grey_HW = luma(level_HWC) if colour_type else level_HWC[..., 0] * float(scale)
    grey_HW[(level_HWC == hidden).all(axis=2)] = 0
    extra = chunk(b"tRNS", hidden.astype(">u2").tobytes())
    found = decode(tmp_path, png(level_HWC, depth=depth, colour_type=colour_type, extra=extra))
    check(
        found,
        grey_HW,
        format="PNG",
        bits=depth if depth in (1, 16) else 8,
        tolerance=2.1 if depth == 16 else 1.1,
    )
    assert found.grey_HW[4, 5] == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("colour", [False, True])
def test_jpeg_is_within_2_levels_of_pillows_luma(
    tmp_path: Path, colour: bool, progressive: bool, shape: tuple[int, int]
) -> None:
    grey_HW = smooth(*shape)
    pixels = np.stack([grey_HW, 255 - grey_HW, grey_HW // 2 + 60], axis=2) if colour else grey_HW
    data = pillow(pixels, "JPEG", quality=95, progressive=progressive)
    with Image.open(io.BytesIO(data)) as image:
        expected_HW = np.asarray(image.convert("L"))
    check(decode(tmp_path, data, "file.jpg"), expected_HW, format="JPEG", bits=8, tolerance=2)


def test_jpeg_grey_is_the_y_channel_that_opencv_decodes(tmp_path: Path) -> None:
    data = pillow(noise(61, 47, 3), "JPEG", quality=90)
    expected_HW = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    check(decode(tmp_path, data), expected_HW, format="JPEG", bits=8, tolerance=1)  # two builds of libjpeg


def test_cmyk_jpeg_is_the_luma_of_pillows_rgb(tmp_path: Path) -> None:
    grey_HW = smooth(40, 56)
    cmyk = Image.fromarray(np.stack([grey_HW, grey_HW[::-1], 255 - grey_HW, grey_HW // 4], axis=2), "CMYK")
    data = pillow(cmyk, "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "CMYK"
        expected_HW = luma(np.asarray(image.convert("RGB")))
    check(decode(tmp_path, data), expected_HW, format="JPEG", bits=8, tolerance=0.51)
    white = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert decode(tmp_path, pillow(white, "JPEG")).grey_HW.min() >= 253


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (tiff(noise(5, 7).astype(np.float32)), "TIFF"),
        (tiff(noise(5, 7).astype(np.uint32)), "TIFF"),
        (tiff(noise(5, 7).astype(np.int16)), "16-bit signed"),
        (tiff(noise(5, 7).astype(np.int8)), "signed"),
        (tiff(noise(5, 7, 3, dtype=np.uint16), photometric="rgb"), "16-bit colour"),
        (pillow(Image.new("LAB", (5, 7)), "TIFF"), "LAB"),
        (pillow(Image.new("I", (5, 7)), "TIFF"), "32-bit signed"),
    ],
)
def test_pixels_that_are_no_plain_grey_or_colour_are_rejected_with_a_reason(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    with pytest.raises(RadiographError, match=reason):
        decode(tmp_path, data)


def test_a_pngs_gamma_profile_and_text_change_no_pixel_and_print_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    profile = b"bad profile\0\0" + zlib.compress(b"no ICC")
    extra = chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"iCCP", profile) + chunk(b"tEXt", b"a\0b")
    grey_HW = noise(13, 17)
    check(decode(tmp_path, png(grey_HW, depth=8, colour_type=0, extra=extra)), grey_HW, format="PNG", bits=8)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("shape", SHAPES)
def test_an_interlaced_png_is_put_together(tmp_path: Path, shape: tuple[int, int]) -> None:
    grey_HW = noise(*shape)
    adam7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    passes = [grey_HW[y::down, x::right] for y, x, down, right in adam7]
    raw = b"".join(b"\0" + row.tobytes() for lines in passes if lines.size for row in lines)
    header = struct.pack(">IIBBBBB", shape[1], shape[0], 8, 0, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)
    check(decode(tmp_path, data), grey_HW, format="PNG", bits=8)


def test_an_animation_of_one_frame_is_a_picture(tmp_path: Path) -> None:
    extra = chunk(b"acTL", struct.pack(">II", 1, 0))
    extra += chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 17, 13, 0, 0, 1, 1, 0, 0))
    grey_HW = noise(13, 17)
    check(decode(tmp_path, png(grey_HW, depth=8, colour_type=0, extra=extra)), grey_HW, format="PNG", bits=8)


def test_several_frames_are_rejected_with_their_count(tmp_path: Path) -> None:
    frames = [Image.fromarray(noise(5, 7, seed=seed)) for seed in range(3)]
    for format in ("TIFF", "PNG"):
        data = pillow(frames[0], format, save_all=True, append_images=frames[1:])
        with pytest.raises(RadiographError, match=f"{format} of 3 images, expected one"):
            decode(tmp_path, data)


def test_the_first_image_of_a_phones_mpo_is_read_as_jpeg(tmp_path: Path) -> None:
    first, second = Image.fromarray(smooth(24, 32)), Image.fromarray(255 - smooth(24, 32))
    data = pillow(first, "MPO", save_all=True, append_images=[second], quality=95)
    found = decode(tmp_path, data, "file.jpg")
    check(found, smooth(24, 32), format="JPEG", bits=8, tolerance=4)
    assert found.note == "first image of several (MPO)"


# ---- orientation

# Where EXIF says that the stored picture's row 0 and column 0 belong (EXIF 2.32, tag 274)
SIDES = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def turned(stored_HW: np.ndarray, orientation: int) -> np.ndarray:
    """The upright picture, placed pixel by pixel from the definition."""
    height, width = stored_HW.shape
    row_side, column_side = SIDES[orientation]
    upright_HW = np.zeros((height, width) if row_side in ("top", "bottom") else (width, height), stored_HW.dtype)
    for row in range(height):
        for column in range(width):
            place = {row_side: row, column_side: column}
            y = place["top"] if "top" in place else upright_HW.shape[0] - 1 - place["bottom"]
            x = place["left"] if "left" in place else upright_HW.shape[1] - 1 - place["right"]
            upright_HW[y, x] = stored_HW[row, column]
    return upright_HW


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once_whatever_the_format(tmp_path: Path, orientation: int) -> None:
    stored_HW = smooth(13, 22)
    colour_HWC = np.repeat(stored_HW.astype(np.uint16)[..., None] * 257, 3, axis=2)
    tag = {"extratags": [(274, "H", 1, orientation, True)], "photometric": "minisblack"}
    block = chunk(b"eXIf", exif(orientation))
    late = png(stored_HW, depth=8, colour_type=0)[:-12] + block + chunk(b"IEND", b"")
    expected_HW = turned(stored_HW, orientation)
    deep_HW = expected_HW.astype(np.uint16) * 257
    for data, format, bits, expected, tolerance in (
        (
            pillow(stored_HW, "JPEG", quality=97, exif=b"Exif\0\0" + exif(orientation)),
            "JPEG",
            8,
            expected_HW,
            3,
        ),
        (png(stored_HW, depth=8, colour_type=0, extra=block), "PNG", 8, expected_HW, 0),
        (late, "PNG", 8, expected_HW, 0),
        (png(colour_HWC, depth=16, colour_type=2, extra=block), "PNG", 16, deep_HW, 0),
        (tiff(stored_HW, **tag), "TIFF", 8, expected_HW, 0),
        (tiff(stored_HW, compression="zlib", **tag), "TIFF", 8, expected_HW, 0),
        (tiff(stored_HW.astype(np.uint16) * 257, **tag), "TIFF", 16, deep_HW, 0),
        (tiff(stored_HW.astype(np.uint16) * 257, byteorder=">", **tag), "TIFF", 16, deep_HW, 0),
    ):
        check(decode(tmp_path, data), expected, format=format, bits=bits, tolerance=tolerance)


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_in_a_pngs_raw_profile_or_xmp_is_applied(tmp_path: Path, orientation: int) -> None:
    stored_HW = smooth(9, 16)
    block = b"Exif\0\0" + exif(orientation)
    profile = b"\nexif\n" + str(len(block)).encode() + b"\n" + block.hex().encode() + b"\n"
    xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()
    for extra in (
        chunk(b"tEXt", b"Raw profile type exif\0" + profile),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp),
    ):
        found = decode(tmp_path, png(stored_HW, depth=8, colour_type=0, extra=extra))
        check(found, turned(stored_HW, orientation), format="PNG", bits=8)


def test_an_orientation_outside_1_to_8_is_taken_as_upright(tmp_path: Path) -> None:
    for orientation in (0, 9, 65535):
        data = pillow(smooth(9, 16), "JPEG", exif=b"Exif\0\0" + exif(orientation))
        assert decode(tmp_path, data).grey_HW.shape == (9, 16)


def test_an_unreadable_exif_block_is_noted_and_the_picture_kept(tmp_path: Path) -> None:
    found = decode(tmp_path, png(noise(9, 16), depth=8, colour_type=0, extra=chunk(b"eXIf", b"rubbish, not TIFF")))
    check(found, noise(9, 16), format="PNG", bits=8)
    assert found.note == "EXIF unreadable, taken as upright"


# ---- damage


def thumbnailed(pixels_HW: np.ndarray, **options: object) -> bytes:
    """A JPEG whose EXIF block holds a complete small JPEG, with an end-of-image marker of its own."""
    return pillow(pixels_HW, "JPEG", exif=b"Exif\0\0" + exif(1) + pillow(smooth(8, 8), "JPEG"), **options)


WHOLE = {
    "baseline": pillow(smooth(64, 80), "JPEG"),
    "grey restarts": pillow(noise(64, 80), "JPEG", restart_marker_blocks=2),
    "progressive": pillow(smooth(64, 80), "JPEG", progressive=True),
    "thumbnail": thumbnailed(noise(64, 80), progressive=True),
    "png": pillow(noise(30, 40), "PNG"),
    "png16": png(noise(20, 20, 3, dtype=np.uint16), depth=16, colour_type=2),
    "tiff": pillow(noise(30, 40), "TIFF"),
    "tiff lzw": pillow(smooth(30, 40), "TIFF", compression="tiff_lzw"),
    "tiff jpeg": pillow(smooth(30, 40), "TIFF", compression="jpeg"),
    "tiff ends with its tags": tiff(noise(30, 40), compression="zlib", metadata=None),
    "bmp": pillow(noise(30, 39), "BMP"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_cut_file_is_rejected_wherever_it_is_cut(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = WHOLE[kind]
    intact_HW = decode(tmp_path, whole).grey_HW
    for length in {*np.linspace(1, len(whole) - 1, 20).astype(int).tolist(), len(whole) - 2, len(whole) - 4}:
        try:
            found = decode(tmp_path, whole[:length])
        except RadiographError as error:
            assert str(error).count("expected") == 1, error
        else:
            assert kind.startswith(("tiff", "bmp")) and np.array_equal(found.grey_HW, intact_HW), length
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["baseline", "progressive", "thumbnail", "grey restarts"])
def test_a_cut_jpeg_padded_with_zeros_is_rejected(tmp_path: Path, kind: str) -> None:
    whole = WHOLE[kind]
    for length in np.linspace(2, len(whole) - 1, 20).astype(int):
        with pytest.raises(RadiographError):
            decode(tmp_path, whole[:length] + bytes(len(whole)))


@pytest.mark.parametrize("kind", ["baseline", "progressive", "thumbnail", "png", "png16"])
def test_bytes_after_the_end_do_no_harm(tmp_path: Path, kind: str) -> None:
    expected_HW = decode(tmp_path, WHOLE[kind]).grey_HW
    for tail in (b"\0" * 100, b"\xff\xd8\xff\xe0", b"trailing text"):
        assert np.array_equal(decode(tmp_path, WHOLE[kind] + tail).grey_HW, expected_HW)


def by_opencv(data: bytes) -> np.ndarray:
    """OpenCV's pixels, red first."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels if pixels.ndim == 2 else pixels[..., [2, 1, 0, 3][: pixels.shape[2]]]


def plain(data: bytes) -> np.ndarray | None:
    pixels_only, bodies = sound_png(data)
    return plain_png(pixels_only, bodies[b"IDAT"])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(
    "row_filter",
    [
        cv2.IMWRITE_PNG_FILTER_NONE,
        cv2.IMWRITE_PNG_FILTER_SUB,
        cv2.IMWRITE_PNG_FILTER_UP,
        cv2.IMWRITE_PNG_FILTER_AVG,
        cv2.IMWRITE_PNG_FILTER_PAETH,
        cv2.IMWRITE_PNG_ALL_FILTERS,
    ],
)
@pytest.mark.parametrize("shape", [(1, 1), (37, 50), (400, 300)])
def test_an_ordinary_png_is_read_as_opencv_reads_it(shape: tuple[int, int], row_filter: int, channels: int) -> None:
    pixels = np.repeat(smooth(*shape)[..., None], channels, axis=2) + noise(*shape, channels) // 16
    data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_FILTER, row_filter, cv2.IMWRITE_PNG_COMPRESSION, 6])[1]
    found = plain(data.tobytes())
    assert found is not None
    np.testing.assert_array_equal(found, by_opencv(data.tobytes()))


def test_a_png_of_many_small_chunks_is_read_whole() -> None:
    rows = noise(40, 30)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [body[start : start + 7] for start in range(0, len(body), 7)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 40, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + b"".join(chunk(b"IDAT", part) for part in parts) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(plain(data), rows)


@pytest.mark.parametrize(
    "make",
    [
        "bomb", "cut", "other checksum", "filter 5", "interlaced", "palette", "16 bits", "compression 207",
        "filter method 64", "longer header", "window of 64 KiB",
    ],
)  # fmt: skip
def test_a_png_that_is_not_ordinary_is_left_to_opencv(make: str) -> None:
    filtered = b"".join(b"\0" + bytes(30) for _ in range(40))
    facts = {
        "palette": (8, 3, 0, 0, 0), "16 bits": (16, 0, 0, 0, 0), "interlaced": (8, 0, 0, 0, 1),
        "compression 207": (8, 0, 207, 0, 0), "filter method 64": (8, 0, 0, 64, 0),
    }.get(make, (8, 0, 0, 0, 0))  # fmt: skip
    if make == "filter 5":
        filtered = b"\5" + filtered[1:]
    body = zlib.compress(filtered + bytes(50_000_000 if make == "bomb" else 0))
    body = {
        "cut": body[:-9], "other checksum": body[:-4] + b"\1\2\3\4", "window of 64 KiB": b"\x88\x1c" + body[2:],
    }.get(make, body)  # fmt: skip
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 40, *facts) + bytes(make == "longer header"))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    assert plain(data) is None


@pytest.mark.parametrize("kind", ["png", "png16"])
def test_a_png_with_any_one_bit_flipped_is_rejected(
    tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = WHOLE[kind]
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(RadiographError):
            decode(tmp_path, bytes(damaged))
    assert capfd.readouterr().err == ""


def test_a_png_with_sound_chunks_but_missing_rows_is_rejected(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:  # capfd: libpng prints a message about this one
    for depth, colour_type, channels in ((8, 0, 1), (16, 0, 1), (16, 2, 3)):
        rows = noise(20, 40, channels, dtype=np.uint16 if depth == 16 else np.uint8)
        with pytest.raises(RadiographError, match="does not decode"):
            decode(tmp_path, png(rows, depth=depth, colour_type=colour_type, size=(40, 40)))


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(WHOLE)),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=6)), max_size=4),
)
def test_damage_of_any_kind_gives_pixels_or_a_radiograph_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, edits: list[tuple[float, bytes]]
) -> None:
    data = bytearray(WHOLE[kind])
    for share, replacement in edits:
        at = int(share * len(data))
        data[at : at + len(replacement)] = replacement
    try:
        grey_HW = decode(tmp_path_factory.getbasetemp(), bytes(data)).grey_HW
    except RadiographError as error:
        assert "expected" in str(error)
    else:
        assert grey_HW.ndim == 2 and grey_HW.size


# ---- files that are no radiographs


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "^0 bytes, expected"),
        (b"patient,label\n1,covid\n", "^text, expected PNG or JPEG or TIFF or BMP or DICOM; "),
        (b"<!DOCTYPE html>\n<HTML>404</HTML>", "^HTML, expected"),
        (pillow(noise(5, 7), "GIF"), "^GIF, expected"),
        (pillow(noise(5, 7), "WEBP"), "^WebP, expected"),
        (bytes(128) + b"DICM" + bytes(50), "^truncated DICOM"),
        (b"\0\1\2\3\4\5\6\7\x08", "^an unknown format that begins 00 01 02 03 04 05 06 07, expected"),
        (b"\x89PNG\r\n\x1a\n", "^truncated PNG"),
        (b"\xff\xd8\xff", "^truncated JPEG"),
        (b"BM", "^BMP with a rare or damaged header"),
        (b"II*\0", "^TIFF"),
    ],
)
def test_what_was_found_begins_the_message_and_the_path_is_left_out(tmp_path: Path, data: bytes, reason: str) -> None:
    with pytest.raises(RadiographError, match=reason) as caught:
        decode(tmp_path, data)
    assert "file.png" not in str(caught.value)


def test_a_wrong_extension_is_noted_and_does_not_matter(tmp_path: Path) -> None:
    grey_HW = smooth(9, 11)
    for name, format, note in (
        ("a.png", "JPEG", "named .png, is JPEG"),
        ("a.JPG", "PNG", "named .JPG, is PNG"),
        ("a.dcm", "TIFF", "named .dcm, is TIFF"),
        ("a.jpeg", "JPEG", ""),
        ("a.TIF", "TIFF", ""),
        ("a", "PNG", ""),
        ("a.bak", "BMP", ""),
    ):
        found = decode(tmp_path, pillow(grey_HW, format), name)
        assert (found.format, found.note) == (format, note)


def test_notes_are_joined(tmp_path: Path) -> None:
    found = decode(tmp_path, png(noise(5, 5, 2), depth=8, colour_type=4), "a.jpg")
    assert found.note == "transparency laid over black; named .jpg, is PNG"


@pytest.mark.parametrize("side", [5000, 12000, 20000])  # around Pillow's own warning and error
def test_a_bomb_is_refused_from_its_header_and_without_a_warning(tmp_path: Path, side: int) -> None:
    bomb = png(np.zeros((1, 1), np.uint8), depth=8, colour_type=0, size=(side, side))
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb)
    limit = Image.MAX_IMAGE_PIXELS
    with (
        warnings.catch_warnings(record=True) as caught,
        pytest.raises(RadiographError, match="expected at most 64"),
    ):
        decode_radiograph(path, max_pixels=64_000 if side == 5000 else 64_000_000)
    assert not caught and limit == Image.MAX_IMAGE_PIXELS


def test_the_pixel_limit_is_inclusive(tmp_path: Path) -> None:
    data = pillow(noise(10, 12), "TIFF")
    assert decode(tmp_path, data, max_pixels=120).grey_HW.shape == (10, 12)
    with pytest.raises(RadiographError, match=r"^12x10 pixels, expected at most 119; .*--max-pixels"):
        decode(tmp_path, data, max_pixels=119)


def test_a_file_too_large_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(RadiographError, match=f"^{MAX_BYTES + 1} bytes, expected at most"):
        decode_radiograph(tmp_path / "sparse.png", max_pixels=100)


def test_only_regular_files_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    Path("folder").mkdir()
    os.mkfifo("fifo")
    Path("loop").symlink_to("loop")
    Path("dangling").symlink_to("nothing")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name, reason in (
            ("folder", "^a directory, expected a regular file"),
            ("fifo", "^a FIFO"),
            ("socket", "^a socket"),
            ("/dev/null", "^a device"),
            ("loop", "(?i)symbolic link"),
            ("dangling", "(?i)no such file"),
            ("missing", "(?i)no such file"),
            ("x" * 300, "(?i)too long"),
            ("nul\0byte", "null"),
        ):
            with pytest.raises(RadiographError, match=reason):
                decode_radiograph(Path(name), max_pixels=100)


def test_a_link_to_a_radiograph_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(WHOLE["png"])
    (tmp_path / "link.png").symlink_to("real.png")
    assert decode_radiograph(tmp_path / "link.png", max_pixels=10**6).grey_HW.shape == (30, 40)


def test_a_file_without_permission_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(WHOLE["png"])
    path.chmod(0)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from loaders.errors import RadiographError\n"
        "from loaders.images.radiograph import decode_radiograph\n"
        "os.chdir(sys.argv[1])\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try: decode_radiograph(Path('secret.png'), max_pixels=10**6)\n"
        "except RadiographError as error: print(error)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True)
    assert finished.stdout.startswith("Permission denied, expected a readable file")


def test_a_file_name_that_is_not_utf_8_is_read(tmp_path: Path) -> None:
    name = os.fsdecode(b"radiograph-\xe9\xff.png")
    try:
        (tmp_path / name).write_bytes(WHOLE["png"])
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    assert decode_radiograph(tmp_path / name, max_pixels=10**6).grey_HW.shape == (30, 40)


# ---- real ones


@pytest.mark.radiographs
@pytest.mark.skipif(not RADIOGRAPHS.is_dir(), reason=f"no real radiographs in {RADIOGRAPHS}; set PLAINFILM_DATA")
def test_real_radiographs_decode_to_the_size_and_luma_of_pillow() -> None:
    paths = sorted(path for path in RADIOGRAPHS.rglob("*.*") if path.stat().st_size < 2_000_000)
    for path in paths[:: max(1, len(paths) // 40)]:
        found = decode_radiograph(path, max_pixels=64_000_000)
        with Image.open(path) as image:
            assert found.grey_HW.shape == image.size[::-1], path
            assert found.format == image.format and found.note in (
                "",
                f"named {path.suffix}, is {image.format}",
            )
            difference = np.abs(found.grey_HW.astype(float) / (257 if found.bits == 16 else 1) - image.convert("L"))
        assert np.percentile(difference, 99) <= 2, path


def test_colour_and_transparency_take_no_memory_beyond_the_pixels_and_a_little(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    for mode, name in (("CMYK", "a.tif"), ("RGBA", "b.tif")):
        picture = Image.frombytes(mode, (3000, 2000), rng.integers(0, 256, 24_000_000).astype(np.uint8).tobytes())
        picture.save(tmp_path / name, compression=None)
        whole_HWC = np.asarray(picture.convert("RGB" if mode == "CMYK" else mode))
        tracemalloc.start()
        found = decode_radiograph(tmp_path / name, max_pixels=1 << 23)
        peak = tracemalloc.get_traced_memory()[1] - (tmp_path / name).stat().st_size
        tracemalloc.stop()
        assert peak < whole_HWC.nbytes + 6_000_000 + 22_000_000, (mode, peak)  # colour, grey, bands of a megapixel
        weighted_HW = whole_HWC[..., :3].astype(np.int64) @ np.array([19595, 38470, 7471]) + 32768 >> 16
        if mode == "RGBA":
            weighted_HW = (weighted_HW * whole_HWC[..., 3] + 127) // 255
        assert np.array_equal(found.grey_HW, weighted_HW)


def test_a_png_whose_samples_would_take_too_much_memory_is_refused_before_they_do(tmp_path: Path) -> None:
    """OpenCV holds a decoded PNG twice: 64 million pixels of 16-bit RGBA took 1.1 GiB."""
    for colour_type, channels, taken in ((2, 3, True), (6, 4, False), (4, 2, False), (0, 1, True)):
        samples = noise(40, 30, channels).astype(np.uint16) if channels > 1 else noise(40, 30).astype(np.uint16)
        path = tmp_path / f"{colour_type}.png"
        path.write_bytes(png(samples, depth=16, colour_type=colour_type))
        if taken:
            assert decode_radiograph(path, max_pixels=1200).grey_HW.shape == (40, 30)
        else:
            with pytest.raises(RadiographError, match="30x40 pixels of 8 bytes, expected at most 900"):
                decode_radiograph(path, max_pixels=1200)


# ---- the hash of pixels


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_are_hashed_by_blake3_over_their_type_shape_and_levels(dtype: type) -> None:
    grey_HW = np.arange(5 * 300, dtype=dtype).reshape(5, 300)
    told = f"{np.dtype(dtype).str} (5, 300)".encode()
    assert hash_pixels(grey_HW) == blake3(told + grey_HW.tobytes()).digest()[:16]
    assert hash_pixels(grey_HW[:, ::2]) == hash_pixels(grey_HW[:, ::2].copy()), "whatever the layout in memory"
    assert hash_pixels(grey_HW.reshape(300, 5)) != hash_pixels(grey_HW)


def test_hashes_of_pixels_never_change() -> None:
    """Betons, runs and segmenters keep them: another hash needs another name."""
    assert HASH_ALGORITHM == "blake3"
    eight_HW = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert hash_pixels(eight_HW).hex() == "921163d691afb3db99083d125defc568"
    assert hash_pixels(eight_HW.astype(np.uint16)).hex() == "1c22c6f11a0585c6e139715bc6e626c0"
