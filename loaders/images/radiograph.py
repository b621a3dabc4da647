"""A radiograph decoded from a file of any format: upright grey levels, with the colour that a grey film lacks."""

# H rows, W columns, C colour channels (red, green, blue, and perhaps alpha), B bytes of a row

import struct
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from isal import isal_zlib
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from kernels.decoding import luma_into, unfilter_into
from loaders.config import Modality
from loaders.images.files import DECODER_ERRORS, Radiograph, check_jpeg, colour_share, read_file, refuse

BAND = 1 << 20  # pixels of a picture that are converted at once
SAMPLE_BYTES = 6  # of a pixel of 16-bit RGB, the most that max_pixels of a PNG may have
CHANNELS = {0: 1, 2: 3, 6: 4}  # PNG colour types without a palette, and without OpenCV's own ideas of grey with alpha
_TURNS = {  # EXIF 2.32, tag 274: step over stored rows, over stored columns, then transpose
    2: (1, -1, False), 3: (-1, -1, False), 4: (-1, 1, False),
    5: (1, 1, True), 6: (-1, 1, True), 7: (-1, -1, True), 8: (1, -1, True),
}  # fmt: skip


def decode_radiograph(
    path: Path, *, max_pixels: int, with_colour: bool = False, assume_modality: Modality = "none"
) -> Radiograph:
    """Read one file and give its upright grey levels, at the depth of its samples.

    Grey is Rec. 601 luma (for JPEG the file's own Y channel); transparency is laid over black; the EXIF
    orientation is applied.  max_pixels: checked from the header, before anything of that size is allocated.
    with_colour: measure the colour of JPEGs too, which takes a second, smaller decoding.
    assume_modality: of DICOM files that state none.
    Errors: RadiographError for whatever keeps this file from being used; its message leaves out the path, which the
    caller has.  Source: DESIGN, Geometry.
    For processes, not threads: Pillow's warnings are silenced by a filter that the whole process shares.
    """
    data, found, note = read_file(path)
    radiograph = decode_bytes(
        data, found, max_pixels=max_pixels, with_colour=with_colour, assume_modality=assume_modality
    )
    return replace(radiograph, note=f"{radiograph.note}; {note}".lstrip("; ")) if note else radiograph


def decode_bytes(
    data: bytes, found: str, *, max_pixels: int, with_colour: bool = False, assume_modality: Modality = "none"
) -> Radiograph:
    """The same of a file's bytes.  found: its format, as `read_file` says."""
    if found not in _DECODERS:
        raise refuse(found, " or ".join(_DECODERS), "other-format")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            about_dicom = {"assume_modality": assume_modality} if found == "DICOM" else {}
            radiograph = _DECODERS[found](data, max_pixels, **about_dicom)
            if with_colour and found == "JPEG":
                radiograph = replace(radiograph, colour=_jpeg_colour(data))
        except Image.DecompressionBombError as error:
            raise refuse("more pixels than Pillow ever reads", f"at most {max_pixels}", "too-large") from error
        except Image.UnidentifiedImageError as error:
            raise refuse(f"{found} with a rare or damaged header", "a common one", "unsupported") from error
        except DECODER_ERRORS as error:
            reason = str(error) or type(error).__name__
            raise refuse(f"{found} that does not decode ({reason})", "a whole image") from error
    return radiograph


def _open_header(data: bytes, name: str, max_pixels: int) -> Image.Image:
    image = Image.open(BytesIO(data), formats=[name])
    width, height = image.size
    if width * height > max_pixels:
        raise refuse(f"{width}x{height} pixels", f"at most {max_pixels}", "too-large")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a phone's MPO has a whole JPEG first, then thumbnails or depth
        raise refuse(f"{name} of {frames} images", "one", "several-images")
    return image


def _finish(
    image: Image.Image, grey_HW: np.ndarray, *, name: str, bits: int, note: str = "", colour: float = 0.0
) -> Radiograph:
    """Turn the grey upright by its EXIF tag; loading a TIFF has already done so."""
    if grey_HW.shape != image.size[::-1]:
        raise refuse(f"{name} decoded to {grey_HW.shape}", f"its header's {image.size[::-1]}", "unsupported")
    try:
        orientation = image.getexif().get(0x0112, 1)
    except DECODER_ERRORS:
        orientation, note = 1, f"{note}; EXIF unreadable, taken as upright".lstrip("; ")
    rows, columns, transposed = _TURNS.get(orientation, (1, 1, False))
    grey_HW = grey_HW[::rows, ::columns].T if transposed else grey_HW[::rows, ::columns]
    grey_HW = np.require(grey_HW, requirements=["C", "W"])
    return Radiograph(grey_HW=grey_HW, format=name, bits=bits, note=note, colour=colour)


def _flatten(colour_HWC: np.ndarray, red: int = 0, blue: int = 2) -> tuple[np.ndarray, str]:
    """Rec. 601 luma, rounded to nearest, laid over black if the fourth channel is not opaque, and a note."""
    grey_HW = np.empty(colour_HWC.shape[:2], colour_HWC.dtype)
    luma_into(grey_HW, colour_HWC, red, blue)
    top = 255 if grey_HW.dtype == np.uint8 else 65535
    if colour_HWC.shape[2] == 3 or colour_HWC[..., 3].min() == top:
        return grey_HW, ""
    _check_opaque(colour_HWC[..., 3])
    for rows in _bands(*grey_HW.shape):
        products_HW = grey_HW[rows].astype(np.uint32) * colour_HWC[rows, :, 3]  # 65535 squared just fits
        grey_HW[rows] = (products_HW + top // 2) // top
    return grey_HW, "transparency laid over black"


def _check_opaque(alpha_HW: np.ndarray) -> None:
    if not alpha_HW.any():
        raise refuse("transparent everywhere", "an opaque picture", "one-level", "save it without transparency")


def _bands(height: int, width: int) -> list[slice]:
    """The rows of a picture in bands of about a megapixel, so that intermediate arrays stay small."""
    rows = max(1, BAND // max(1, width))
    return [slice(start, min(start + rows, height)) for start in range(0, height, rows)]


def _jpeg_colour(data: bytes) -> float:
    """The share of colour in a JPEG, decoded at an eighth to a half of its size."""
    image = Image.open(BytesIO(data), formats=["JPEG"])
    if image.mode == "L":
        return 0.0
    image.draft("RGB", (320, 320))
    return colour_share(np.asarray(image.convert("RGB")))


def _grey_of(image: Image.Image) -> tuple[np.ndarray, str, float]:
    """Decode an image of any mode that has no more than 8 bits or only grey: levels, a note, share of colour."""
    image.load()
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")), "", 0.0
    if image.mode in ("I;16", "I;16B", "I;16L"):
        return np.asarray(image).astype(np.uint16), "", 0.0
    image = image.convert("LA") if image.mode == "La" else image  # alone, Pillow makes nothing else of it
    if image.mode in ("P", "PA", "LA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"):
        mode = "RGBA" if image.has_transparency_data else "RGB"
        colour_HWC = np.empty((image.height, image.width, len(mode)), np.uint8)
        for rows in _bands(image.height, image.width):  # of the whole, Pillow would make three copies
            colour_HWC[rows] = np.asarray(image.crop((0, rows.start, image.width, rows.stop)).convert(mode))
        return *_flatten(colour_HWC), colour_share(colour_HWC)
    raise refuse(f"{image.format} of mode {image.mode}", "grey of 1 to 16 bits or 8-bit colour", "unsupported")


def _decode_png(data: bytes, max_pixels: int) -> Radiograph:
    """By OpenCV where it is not ordinary: Pillow drops the lower byte of 16-bit colour, and overlooks missing rows."""
    pixels_only, bodies = sound_png(data)
    depth, note, colour = data[24], "", 0.0
    image = _open_header(data, "PNG", max_pixels)
    if "Raw profile type exif" not in image.info:
        image.info["exif"] = bodies[b"eXIf"]  # else Pillow decodes all pixels in search of it
    red, blue, pixels = 0, 2, None if bodies[b"tRNS"] else plain_png(pixels_only, bodies[b"IDAT"])
    if pixels is None:
        # bytes of a pixel, which OpenCV holds twice; grey with alpha becomes RGBA
        size = {0: 1, 2: 3, 3: 4}.get(data[25], 4) * max(1, depth // 8)
        most = SAMPLE_BYTES * max_pixels // size
        if image.width * image.height > most:
            raise refuse(f"{image.width}x{image.height} pixels of {size} bytes", f"at most {most}", "too-large")
        red, blue, pixels = 2, 0, cv2.imdecode(np.frombuffer(pixels_only, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise refuse("PNG that does not decode", "a sound one")
    if pixels.ndim == 3:
        colour = colour_share(pixels)
        pixels, note = _flatten(pixels, red, blue)
    elif bodies[b"tRNS"]:  # names one level of grey, in the file's own units
        hidden = int.from_bytes(bodies[b"tRNS"][:2], "big") * {1: 255, 2: 85, 4: 17}.get(depth, 1)
        _check_opaque(pixels != hidden)
        pixels[pixels == hidden] = 0
        note = "transparency laid over black"
    return _finish(image, pixels, name="PNG", bits=depth if depth in (1, 16) else 8, note=note, colour=colour)


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
            raise refuse(f"damaged PNG (wrong CRC32 in the chunk at byte {at})", "a sound one")
        if (kind == b"IHDR") != (at == 8):
            raise refuse(f"PNG chunk {kind!r} at byte {at}", "IHDR first and once", "unsupported")
        if kind in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
            kept.append(view[at:end])
        if kind == b"IDAT":
            compressed.append(view[at + 8 : end - 4])
        elif kind in bodies:
            bodies[kind] = data[at + 8 : end - 4]
        if kind == b"IEND":
            return b"".join(kept), bodies | {b"IDAT": b"".join(compressed)}
        at = end
    raise refuse(f"truncated PNG ({len(data)} bytes, no IEND chunk)", "a whole one", "cut")


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


def _decode_jpeg(data: bytes, max_pixels: int) -> Radiograph:
    check_jpeg(data)
    image = _open_header(data, "JPEG", max_pixels)
    note = "first image of several (MPO)" if image.format == "MPO" else ""
    image.draft("L", image.size)  # libjpeg then decodes Y alone; CMYK stays as it is
    return _finish(image, _grey_of(image)[0], name="JPEG", bits=8, note=note)


def _decode_tiff(data: bytes, max_pixels: int) -> Radiograph:
    # Pillow only warns about a cut file; libtiff then fails, and writes to stderr
    warnings.filterwarnings("error", message=".*orrupt EXIF data|Truncated File|Tag data larger than file")
    if data.startswith(b"MM\0+"):
        raise refuse("big-endian BigTIFF", "any other TIFF", "unsupported")  # Pillow takes it for another
    white_is_zero = False
    try:
        image = _open_header(data, "TIFF", max_pixels)
    except Image.UnidentifiedImageError:
        data, white_is_zero = _black_is_zero(data), True
        image = _open_header(data, "TIFF", max_pixels)
    assert isinstance(image, TiffImageFile)
    tags = image.tag_v2
    depth, sample_format = max(tags.get(258, (1,))), max(tags.get(339, (1,)))
    white_is_zero |= tags.get(262) == 0
    if (depth > 8 and not image.mode.startswith("I;16")) or sample_format not in (1, 4):  # 4: undefined
        kind = {2: "signed", 3: "floating-point"}.get(sample_format, "colour")
        raise refuse(f"TIFF of {depth}-bit {kind} samples", "unsigned grey or 8-bit colour", "unsupported")
    for starts, sizes in ((273, 279), (324, 325)):  # strips, tiles
        for start, size in zip(tags.get(starts, ()), tags.get(sizes, ()), strict=False):
            if start + size > len(data):
                raise refuse(f"truncated TIFF ({len(data)} bytes)", f"{start + size} or more", "cut")
    grey_HW, note, colour = _grey_of(image)
    if white_is_zero and grey_HW.dtype == np.uint16:  # Pillow inverts the others itself
        grey_HW = 65535 - grey_HW
    bits = 1 if image.mode == "1" else 8 * grey_HW.itemsize
    return _finish(image, grey_HW, name="TIFF", bits=bits, note=note, colour=colour)


def _black_is_zero(data: bytes) -> bytes:
    """A big-endian TIFF that is WhiteIsZero, said to be BlackIsZero: of 16-bit ones, Pillow reads only these.

    Errors: UnidentifiedImageError for any other.  Source: TIFF 6.0, section 2.
    """
    if data.startswith(b"MM\0*"):
        [directory] = struct.unpack_from(">L", data, 4)
        [num_entries] = struct.unpack_from(">H", data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * num_entries, 12):
            if data[entry : entry + 2] == b"\1\6" and data[entry + 8 : entry + 10] == b"\0\0":  # 262
                return data[: entry + 8] + b"\0\1" + data[entry + 10 :]
    raise Image.UnidentifiedImageError


def _decode_bmp(data: bytes, max_pixels: int) -> Radiograph:
    image = _open_header(data, "BMP", max_pixels)
    grey_HW, note, colour = _grey_of(image)
    return _finish(image, grey_HW, name="BMP", bits=1 if image.mode == "1" else 8, note=note, colour=colour)


def _decode_dicom(data: bytes, max_pixels: int, assume_modality: Modality) -> Radiograph:
    from loaders.images.dicom import decode_dicom  # pydicom and its codecs only where there is a DICOM file

    return decode_dicom(data, max_pixels, assume_modality)


_DECODERS: dict[str, Callable[..., Radiograph]] = {
    "PNG": _decode_png, "JPEG": _decode_jpeg, "TIFF": _decode_tiff, "BMP": _decode_bmp, "DICOM": _decode_dicom,
}  # fmt: skip
