"""The file of a radiograph: its bytes, their format whatever the file's name, and what decoding gives."""

# H rows, W columns, C colour channels

import os
import re
import stat
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from kernels.decoding import count_coloured
from loaders.atomic_file import remedy_of
from loaders.errors import RadiographError

MAX_BYTES = 1 << 30  # a 64-megapixel 16-bit RGBA bitmap is half of it; anything larger is not a radiograph
SAMPLES, TINT_SAMPLES = 320, 80  # pixels along either axis that are sampled for colour and for the tint
COLOURFUL = 25  # levels of 255 between a channel and the mean of all three; JPEG's noise stays below
COPY_AGAIN = "copy it again from its source"
REFUSALS = {  # code of a RadiographError → its meaning, the usual remedy
    "no-access": ("cannot be opened", "check its permissions"),
    "not-found": ("not found", "check the column of paths, or name the folder that has them by --root"),
    "no-file": ("not a regular file", "remove it from the source"),
    "outside-source": (
        "leads outside the source folder",
        "copy the file there, or name the folder that it lies in by --root",
    ),
    "empty": ("empty", COPY_AGAIN),
    "cut": ("cut short", COPY_AGAIN),
    "damaged": ("damaged", COPY_AGAIN),
    "too-large": ("too large", "shrink it, or raise --max-pixels if you trust it"),
    "too-small": ("too small to be a radiograph", "leave it out, or use the original"),
    "odd-shape": ("too long and narrow to be a radiograph", "leave it out, or crop it to the chest"),
    "other-format": ("not a PNG, JPEG, TIFF, BMP or DICOM file", "replace or remove it"),
    "unsupported": ("of an unsupported kind", "open it in a viewer and save it as grey PNG"),
    "several-images": ("several images in one file", "save each as a file of its own"),
    "one-level": ("a single grey level", "leave it out"),
    "other-modality": ("DICOM of another modality", "leave it out"),
    "for-processing": ("DICOM for processing", "export the processed image"),
    "no-image": ("DICOM without an image", "leave it out"),
    "dicom-header": ("DICOM with an unusable header", "export it again"),
    "dicom-pixels": ("DICOM with unsupported pixels", "export it again as plain grey"),
    "mapping": ("DICOM without one plain grey mapping", "export it again with one plain grey mapping"),
    "lungs-missing": ("no lungs found", "leave it out, or give its mask by --masks"),
    "lungs-unequal": ("one lung found, or much of one missing", "leave it out, or give its mask by --masks"),
    "lungs-at-edge": ("lungs cut off by the film's edge", "leave it out, or give its mask by --masks"),
    "lungs-differ": ("SAM 2 and the shipped net find the lungs in different places", "give its mask by --masks"),
    "lungs-uncertain": ("lungs found at another place when the film is turned a little", "give its mask by --masks"),
    "lungs-seen": ("every net of the segmenter was trained on it or its patient", "give its mask by --masks"),
    "no-mask": ("no mask given", "add it to the table of masks, or leave the film out"),
    "mask-unusable": ("a mask that cannot be used", "make it again, or leave it out"),
    "mask-of-another-film": ("a mask far from the lungs that are found", "check which film the mask is of"),
    "changed": ("changed since the audit", "audit the files again"),
}
_SIGNATURES = (  # offset, magic, format; the first that fits
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),  # BigTIFF
    (0, b"MM\0+", "TIFF"),
    (128, b"DICM", "DICOM"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (4, b"ftyp", "HEIF, AVIF or a film"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"PK\3\4", "a ZIP archive"),
    (0, b"BM", "BMP"),
)
SUFFIXES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".tif": "TIFF",
    ".tiff": "TIFF", ".bmp": "BMP", ".dib": "BMP", ".dcm": "DICOM", ".dicom": "DICOM", ".gif": "GIF", ".webp": "WebP",
}  # fmt: skip
# no preamble: the first tag, then a VR or a short length; little-endian or big-endian
_BARE_DICOM = re.compile(rb"[\x02\x08]\0.\0([A-Z]{2}|..\0\0)|\0\x08\0.([A-Z]{2}|\0\0)", re.DOTALL)
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # not stuffing, filling, or a restart inside a scan
# what Pillow's Python and C, its libraries and OpenCV raise on damaged bytes; Warning: see _decode_tiff
DECODER_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError,
    MemoryError, RuntimeError, AssertionError, Warning, struct.error, zlib.error, cv2.error,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Radiograph:
    """The decoded content of one file.

    grey_HW: uint8 or uint16, upright, C-contiguous, writable; larger is brighter on the screen.
    format: PNG, JPEG, TIFF, BMP or DICOM: what the bytes are, whatever the file's name.
    bits: 1, 8 or 16: the smallest of these that holds a sample of the file.
    note: an oddity that is no reason to reject, such as "named .png, is JPEG"; else empty.
    colour: share of pixels with another colour than the picture's tint; of a JPEG only if asked for.
    patient: a DICOM's patient ID, to be hashed and never to be written; else empty.
    sex, age: a DICOM's, as they stand there; else empty.
    view: a DICOM's view position if it is a term of the standard; else empty.
    """

    grey_HW: np.ndarray
    format: str
    bits: int
    note: str
    colour: float = 0.0
    patient: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    age: str = field(default="", repr=False)
    view: str = ""


def refuse(found: str, expected: str, code: str = "damaged", remedy: str = "") -> RadiographError:
    """The error of a file that is not used.  Its texts quote no free text of the file, which may name a patient.

    code: one of REFUSALS.  remedy: where it differs from that code's.
    """
    return RadiographError(f"{found}, expected {expected}; {remedy or REFUSALS[code][1]}", code)


def read_file(path: Path) -> tuple[bytes, str, str]:
    """The whole file, if it is a regular one; its format, as format_of has it; a note if its name is another's.

    Never waits on a FIFO and touches no device.  Errors: RadiographError.
    """
    try:
        _check_kind(path.stat())
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:  # noqa: PTH123
            _check_kind(os.fstat(descriptor))  # the path may have been swapped since
            data = file.read()
    except OSError as error:
        remedy = "" if isinstance(error, PermissionError) else remedy_of(error)[1]
        raise refuse(error.strerror or str(error), "a readable file", "no-access", remedy) from error
    except (ValueError, MemoryError) as error:  # a NUL in the path; no room for the bytes
        found = str(error) or "no memory for this file"
        raise refuse(found, "a readable file", "no-access", "check the path") from error
    if not data:
        raise refuse("0 bytes", "a radiograph", "empty")
    found = format_of(data)
    agrees = SUFFIXES.get(path.suffix.lower(), found) == found
    return data, found, "" if agrees else f"named {path.suffix}, is {found}"


def _check_kind(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise refuse(kind, "a regular file", "no-file")
    if status.st_size > MAX_BYTES:
        raise refuse(f"{status.st_size} bytes", f"at most {MAX_BYTES}", "too-large", "remove or shrink it")


def format_of(data: bytes) -> str:
    """PNG, JPEG, TIFF, BMP or DICOM; else a description of what the bytes may be."""
    for offset, magic, name in _SIGNATURES:
        if data.startswith(magic, offset):
            return name
    if _BARE_DICOM.match(data):
        return "DICOM"
    if re.fullmatch(rb"[\t\n\f\r -~\x80-\xff]+", data[:512]):
        return "HTML" if b"<html" in data[:512].lower() else "text"
    return f"an unknown format that begins {data[:8].hex(' ')}"


def check_jpeg(data: bytes) -> None:
    """Raise unless an end-of-image marker follows the scans: libjpeg decodes zeros that pad a cut file."""
    at, scans = 2, 0
    while marker := _NEXT_MARKER.search(data, at):
        code, at = data[marker.end() - 1], marker.end()
        if code == 0xD9 and scans:
            return
        if code not in (0x01, 0xD8, 0xD9):  # all others have a length; it steps over EXIF thumbnails
            at += int.from_bytes(data[at : at + 2], "big")
            scans += code == 0xDA
    raise refuse(f"truncated JPEG ({len(data)} bytes, no end-of-image marker)", "a whole one", "cut")


def colour_share(colour_HWC: np.ndarray) -> float:
    """Share of pixels whose colour differs from the tint of the whole picture; a tinted film has none.

    colour_HWC: uint8 or uint16, three channels in any order, a fourth is ignored.
    """
    levels = 1 if colour_HWC.dtype == np.uint8 else 257
    few_HWC = sampled(colour_HWC, TINT_SAMPLES).astype(np.float32) * (1 / levels)
    grey_HW1 = few_HWC.mean(2, keepdims=True)
    # a tint is the same share of grey everywhere
    tint_C = np.median((few_HWC - grey_HW1) / (grey_HW1 + 1), axis=(0, 1))
    sampled_HWC = sampled(colour_HWC, SAMPLES)
    coloured = count_coloured(sampled_HWC, tint_C.astype(np.float32), np.float32(COLOURFUL * levels))
    return coloured / (sampled_HWC.shape[0] * sampled_HWC.shape[1])


def sampled(colour_HWC: np.ndarray, samples: int) -> np.ndarray:
    """Every n-th pixel, so that at least `samples` along either axis are left, or all; without a fourth channel."""
    rows, columns = (max(1, side // samples) for side in colour_HWC.shape[:2])
    return colour_HWC[::rows, ::columns, :3]
