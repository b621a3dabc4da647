"""The pixels of a DICOM image: the header's description of its samples, checked first, then the decoding."""

# H rows, W columns, C samples of a pixel

import re
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise

import imagecodecs
import numpy as np
from pydicom.encaps import generate_fragments, parse_basic_offsets

from loaders.images.dicom_elements import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, UNDEFINED, Dicom, raw, text, whole
from loaders.images.files import check_jpeg, refuse

GREY = ("MONOCHROME1", "MONOCHROME2")
LUMA_FIRST = ("YBR_FULL", "YBR_FULL_422")  # their first sample is Rec. 601 luma (PS3.3 section C.7.6.3.1.2)
FROM_RGB = ("YBR_RCT", "YBR_ICT")  # JPEG 2000's own transforms, which its decoder undoes
OTHER = ("PALETTE COLOR", "HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")
JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")  # baseline; extended, 8 or 12 bit
LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
RLE = "1.2.840.10008.1.2.5"
NATIVE = (IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN)
SYNTAXES = frozenset((*NATIVE, *JPEG, *LOSSLESS_JPEG, *JPEG_LS, *JPEG_2000, RLE))
MAX_TILES = 4096  # OpenJPEG sets aside some kilobytes for each before it reads the first
MAX_PADDING = 4096  # bytes after the pixels: a page of a disk
_MARKER = re.compile(rb"\xff[^\x00\xff]")


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """How an image's samples are laid out.  high: the bit number of the highest stored bit.

    planar: all red, then all green, then all blue.
    """

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high: int
    signed: bool
    photometric: str
    planar: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the samples: (H, W) or (H, W, 3)."""
        return (self.rows, self.columns) if self.samples == 1 else (self.rows, self.columns, 3)


def read_format(dicom: Dicom, max_pixels: int) -> Format:
    """Check the image pixel module (PS3.3 section C.7.6.3), and that it is one image of at most max_pixels.

    Grey of 6 to 16 stored bits, signed or not, or colour of 8 unsigned bits (PS3.5 section 8.1.1).
    Errors: RadiographError for anything missing, contradictory or larger.
    """
    dataset = dicom.dataset
    rows, columns = whole(dicom, 0x00280010), whole(dicom, 0x00280011)
    if rows * columns > max_pixels:
        raise refuse(f"{columns}x{rows} pixels", f"at most {max_pixels}", "too-large")
    if not rows * columns:
        raise refuse(f"DICOM of {columns}x{rows} pixels", "one with an image", "no-image")
    frames = text(dataset, 0x00280008) or "1"
    if frames != "1":
        number = int(frames) if re.fullmatch(r"\+?\d{1,11}", frames, re.ASCII) else 0
        if number != 1:
            found = f"DICOM of {number or 'an unknown number of'} frames (0028,0008)"
            raise refuse(found, "one", "several-images")
    photometric = text(dataset, 0x00280004)
    if photometric not in (*GREY, "RGB", *LUMA_FIRST, *FROM_RGB):
        name = photometric if photometric in OTHER else "unknown" if photometric else "no"
        expected = "MONOCHROME1, MONOCHROME2, RGB or YBR_FULL"
        raise refuse(f"DICOM of {name} photometric interpretation (0028,0004)", expected, "dicom-pixels")
    samples, allocated, stored = whole(dicom, 0x00280002), whole(dicom, 0x00280100), whole(dicom, 0x00280101)
    high, signed = whole(dicom, 0x00280102), whole(dicom, 0x00280103)
    if samples != (1 if photometric in GREY else 3):
        found = f"DICOM of {samples} samples a pixel (0028,0002) in {photometric}"
        raise refuse(found, "1 for grey, 3 for colour", "dicom-pixels")
    if allocated not in (8, 16) or not 6 <= stored <= high + 1 <= allocated or signed > 1:
        found = f"{allocated} bits allocated, {stored} stored, high bit {high}, pixel representation {signed}"
        expected = "8 or 16 bits that hold the stored ones, at least 6, up to the high bit; 0 or 1"
        raise refuse(f"DICOM of {found} (0028,0100-0103)", expected, "dicom-pixels")
    if samples == 3 and (allocated, stored, signed) != (8, 8, 0):
        raise refuse(f"DICOM of {stored}-bit colour (0028,0101)", "grey or 8-bit colour", "dicom-pixels")
    planar = raw(dataset, 0x00280006)
    if samples == 3 and planar not in (b"\0\0", b"\1\0", b"\0\1"):
        raise refuse("DICOM of colour without Planar Configuration (0028,0006)", "0 or 1", "dicom-pixels")
    return Format(
        rows=rows, columns=columns, samples=samples, allocated=allocated, stored=stored, high=high,
        signed=bool(signed), photometric=photometric, planar=any(planar),
    )  # fmt: skip


def stored_values(dicom: Dicom, form: Format) -> np.ndarray:
    """The samples as unsigned patterns of the stored bits, (H, W) of luma or grey or (H, W, 3) of RGB; uint8 or uint16.

    Allocates little more than the header's image: codestreams of other sizes are refused before they are decoded.
    Errors: RadiographError; and what the decoders raise on damage.
    """
    if dicom.syntax in NATIVE:
        return significant(_native(dicom, form), form, dicom.notes)
    if dicom.pixels_length != UNDEFINED:
        raise refuse("DICOM whose compressed pixel data is not in fragments", "fragments (PS3.5 section A.4)")
    frame = _frame(dicom)
    if dicom.syntax == RLE:
        pixels = _run_lengths(frame, form)
    elif dicom.syntax in JPEG_2000:
        pixels = _jpeg_2000(frame, form)
    else:
        pixels = _jpeg(frame, form, dicom.syntax)
    allocated = np.dtype(f"{pixels.dtype.kind}{form.allocated // 8}")
    return significant(np.ascontiguousarray(pixels, allocated), form, dicom.notes)


def significant(pixels: np.ndarray, form: Format, notes: list[str]) -> np.ndarray:
    """Bring samples to patterns of the stored bits: those from the high bit down (PS3.5 section 8.1.1).

    The standard gives the other bits no meaning; old files keep overlays there.  A high bit above the stored ones that
    no sample reaches, while bits below the stored ones are in use, is a mistake of the header.
    """
    if form.samples == 3:
        return pixels if form.photometric not in LUMA_FIRST or pixels.ndim == 2 else pixels[..., 0]
    whole_HW, shift = pixels.view(f"u{pixels.itemsize}"), form.high + 1 - form.stored
    if shift and (whole_HW & ((1 << shift) - 1)).any() and _fits(whole_HW, form):
        notes.append(f"high bit {form.high} not reached, taken as {form.stored - 1}")
    elif shift:
        notes.append(f"{form.stored} bits from high bit {form.high} down")
        whole_HW = whole_HW >> shift
    if not _fits(whole_HW, form):
        notes.append("bits above the high bit ignored")
    return whole_HW & ((1 << form.stored) - 1)


def _fits(whole_HW: np.ndarray, form: Format) -> bool:
    """Whether samples have only zeros, or copies of the sign, above as many bits as are stored."""
    unused = form.allocated - form.stored
    pattern_HW = whole_HW & ((1 << form.stored) - 1)
    if np.array_equal(whole_HW, pattern_HW):
        return True
    kind = f"i{whole_HW.itemsize}"
    return form.signed and np.array_equal(whole_HW.view(kind), (pattern_HW << unused).view(kind) >> unused)


def _native(dicom: Dicom, form: Format) -> np.ndarray:
    if dicom.pixels_length == UNDEFINED:
        raise refuse("uncompressed DICOM with fragments of pixel data", "one run of bytes")
    num_pixels, halved = form.rows * form.columns, form.photometric == "YBR_FULL_422"
    if form.photometric in FROM_RGB or (halved and (form.columns % 2 or form.planar)):
        found = f"uncompressed DICOM in {form.photometric} (0028,0004)"
        raise refuse(found, "grey, RGB or YBR_FULL", "dicom-pixels")
    expected = num_pixels * (2 if halved else form.samples * form.allocated // 8)
    padding = dicom.pixels_length - expected
    if not 0 <= padding <= MAX_PADDING or padding >= max(2, expected):
        found = f"DICOM with {dicom.pixels_length} bytes of pixel data (7FE0,0010)"
        raise refuse(found, f"{expected} for its Rows, Columns and Bits Allocated")
    if padding > expected % 2:
        dicom.notes.append(f"{padding} bytes after the pixels ignored")
    swapped = not dicom.little and form.allocated == 8
    if swapped and dicom.pixels_length % 2:
        raise refuse("big-endian DICOM with an odd length of pixel data", "an even one", "dicom-pixels")
    if form.allocated == 16:
        kind = ("<" if dicom.little else ">") + "u2"
        pixels = np.frombuffer(dicom.body, kind, num_pixels, dicom.pixels_at).astype(np.uint16)
    else:
        pixels = np.frombuffer(dicom.body, np.uint8, dicom.pixels_length, dicom.pixels_at)
        if swapped and dicom.body[dicom.pixels_at - 8 : dicom.pixels_at - 6] == b"OW":  # bytes in swapped pairs
            pixels = pixels.view(">u2").astype("<u2").view(np.uint8)
        pixels = pixels[:expected]
    if halved:  # luma, luma, blue, red
        return pixels.reshape(-1, 4)[:, :2].reshape(form.rows, form.columns)
    if form.samples == 3 and form.planar:
        return np.moveaxis(pixels.reshape(3, form.rows, form.columns), 0, 2)
    return pixels.reshape(form.shape)


def _frame(dicom: Dicom) -> bytes:
    """All fragments as one codestream; by the header there is one frame."""
    rest = BytesIO(dicom.body)
    rest.seek(dicom.pixels_at)
    if len(parse_basic_offsets(rest)) > 1:
        raise refuse("DICOM of several frames", "one", "several-images")
    fragments = list(generate_fragments(rest))
    closed = dicom.body[rest.tell() - 4 : rest.tell()] == b"\xfe\xff\xdd\xe0"
    if not closed or not any(fragments):
        raise refuse("truncated DICOM (its fragments of pixel data have no end)", "a whole one", "cut")
    return b"".join(fragments)


def _check_codestream(form: Format, name: str, rows: int, columns: int, samples: int, bits: int, exact: bool) -> None:
    if (rows, columns, samples) != (form.rows, form.columns, form.samples):
        found = f"{name} of {columns}x{rows} pixels and {samples} samples in DICOM"
        raise refuse(found, f"its header's {form.columns}x{form.rows} and {form.samples}", "dicom-pixels")
    if not 2 <= bits <= form.allocated or (exact and bits != form.stored):
        raise refuse(f"{name} of {bits} bits in DICOM", f"its header's {form.stored}", "dicom-pixels")


def _ended(frame: bytes, name: str) -> bytes:
    """The codestream without padding.  Without its end marker OpenJPEG may fill in, and CharLS may take a minute."""
    ended = frame.rstrip(b"\0").removesuffix(b"\xff")  # some pad with that
    if not ended.endswith(b"\xff\xd9"):
        raise refuse(f"truncated {name} in DICOM ({len(frame)} bytes)", "a whole one", "cut")
    return ended


def _jpeg(frame: bytes, form: Format, syntax: str) -> np.ndarray:
    """Baseline, extended sequential and lossless JPEG by libjpeg-turbo, JPEG-LS by CharLS; samples untransformed."""
    is_ls = syntax in JPEG_LS
    name = "JPEG-LS" if is_ls else "JPEG"
    allowed = (0xF7,) if is_ls else (0xC3,) if syntax in LOSSLESS_JPEG else (0xC0, 0xC1)
    if is_ls:
        frame = _ended(frame, name)
    else:
        check_jpeg(frame)
    code, bits, rows, columns, samples, transform = _frame_header(frame, name)
    if code not in allowed:
        raise refuse(f"DICOM with a {name} of frame type {code:X}", "that of its transfer syntax", "dicom-pixels")
    _check_codestream(form, name, rows, columns, samples, bits, exact=form.signed)
    if form.samples == 3 and (form.photometric in FROM_RGB or (form.photometric == "RGB" and transform == 1)):
        raise refuse(f"DICOM in {form.photometric} with a {name} in another colour space", "the same", "dicom-pixels")
    if form.photometric in LUMA_FIRST and transform == 0:
        raise refuse(f"DICOM in {form.photometric} with a {name} in RGB", "the same", "dicom-pixels")
    out = np.zeros(form.shape, "u1" if bits <= 8 else "u2")
    if is_ls:
        return imagecodecs.jpegls_decode(frame, out=out)
    space = "YCBCR" if form.samples == 3 else "GRAYSCALE"  # to and from the same: no transform
    return imagecodecs.jpeg8_decode(frame, colorspace=space, outcolorspace=space, out=out)


def _frame_header(frame: bytes, name: str) -> tuple[int, int, int, int, int, int | None]:
    """Of the first frame header: its code, bits, rows, columns, samples; and the colour transform that is declared.

    The transform is 0 for RGB, 1 for YCbCr, None without an Adobe or JFIF segment.
    """
    at, transform = 2, None
    while marker := _MARKER.search(frame, at):
        code, at = frame[marker.end() - 1], marker.end()
        body = frame[at + 2 : at + int.from_bytes(frame[at : at + 2], "big")]
        if code == 0xEE and body.startswith(b"Adobe") and len(body) >= 12:
            transform = body[11]
        elif code == 0xE0 and body.startswith(b"JFIF\0") and transform is None:
            transform = 1
        elif (0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC)) or code == 0xF7:
            if len(body) < 6:
                break
            rows, columns = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            return code, body[0], rows, columns, body[5], transform
        at += 2 + len(body)
    raise refuse(f"DICOM with a {name} without frame header", "a whole one")


def _jpeg_2000(frame: bytes, form: Format) -> np.ndarray:
    """By OpenJPEG, which undoes its own colour transforms; the file format's boxes are not allowed (PS3.5 A.4.4)."""
    if not frame.startswith(b"\xff\x4f\xff\x51") or len(frame) < 45:
        raise refuse("DICOM with a JPEG 2000 without its header", "a codestream", "dicom-pixels")
    frame = _ended(frame, "JPEG 2000")
    right, bottom, left, top = (int.from_bytes(frame[at : at + 4], "big") for at in (8, 12, 16, 20))
    samples, depth = int.from_bytes(frame[40:42], "big"), frame[42]
    signed, bits = bool(depth & 0x80), (depth & 0x7F) + 1
    _check_codestream(form, "JPEG 2000", bottom - top, right - left, samples, bits, exact=False)
    across, down = (max(1, int.from_bytes(frame[at : at + 4], "big")) for at in (24, 28))
    num_tiles = -(-right // across) * -(-bottom // down)
    if num_tiles > MAX_TILES:
        raise refuse(f"JPEG 2000 of {num_tiles} tiles in DICOM", f"at most {MAX_TILES}", "dicom-pixels")
    if signed != form.signed:
        raise refuse("JPEG 2000 whose samples and DICOM header disagree on signs", "agreement", "dicom-pixels")
    if form.photometric in LUMA_FIRST:
        raise refuse(f"DICOM in {form.photometric} with a JPEG 2000", "RGB, YBR_RCT or YBR_ICT", "dicom-pixels")
    out = np.zeros(form.shape, f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")
    return imagecodecs.jpeg2k_decode(frame, numthreads=1, out=out)


def _run_lengths(frame: bytes, form: Format) -> np.ndarray:
    """Segments of packed bytes: of each sample the high byte's, then the low byte's (PS3.5 section G)."""
    num_segments = form.samples * form.allocated // 8
    starts = np.frombuffer(frame[:64], "<u4")
    if len(starts) < 16 or starts[0] != num_segments:
        raise refuse("DICOM with a broken RLE header", f"{num_segments} segments", "dicom-pixels")
    if form.photometric not in (*GREY, "RGB", "YBR_FULL"):
        raise refuse(f"DICOM in {form.photometric} with RLE", "RGB or YBR_FULL", "dicom-pixels")
    edges = [*starts[1 : 1 + num_segments].tolist(), len(frame)]
    if edges[0] != 64 or sorted(set(edges)) != edges:
        raise refuse("DICOM with RLE segments out of order", "rising offsets", "dicom-pixels")
    num_pixels = form.rows * form.columns
    planes = []
    for start, end in pairwise(edges):
        decoded = imagecodecs.packbits_decode(frame[start:end], out=num_pixels)  # never more
        if len(decoded) != num_pixels:
            raise refuse(f"DICOM with an RLE segment of {len(decoded)} bytes", f"{num_pixels}")
        planes.append(np.frombuffer(decoded, np.uint8))
    if form.allocated == 16:
        return ((planes[0].astype(np.uint16) << 8) | planes[1]).reshape(form.shape)
    return np.stack(planes, axis=-1).reshape(form.shape)
