"""The file of a radiograph: its bytes, and the format that they have whatever the name says."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from loaders.errors import RadiographError
from loaders.images.png import COPY_AGAIN


MAX_BYTES = 1 << 30  # a 64-megapixel 16-bit RGBA bitmap is half of it; anything larger is not a radiograph

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
    ".tiff": "TIFF", ".bmp": "BMP", ".dib": "BMP", ".dcm": "DICOM", ".gif": "GIF", ".webp": "WebP",
}  # fmt: skip

_BARE_DICOM = re.compile(rb"(\x02\0[\0-\x18]|\x08\0[\0\x01\x05\x08\x12-\x18])\0")  # no preamble: its first tag


def refuse(found: str, expected: str, remedy: str = COPY_AGAIN) -> RadiographError:
    """The error of a file that is not used.  Its texts hold no free text of the file: that may name a patient."""
    return RadiographError(f"{found}, expected {expected}; {remedy}")


def read_file(path: Path) -> bytes:
    """The whole file, provided that it is a regular one; never waits on a FIFO and touches no device.

    Errors: RadiographError.
    """
    try:
        _check_kind(path.stat())
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:  # noqa: PTH123
            _check_kind(os.fstat(descriptor))  # the path may have been swapped since
            data = file.read()
    except OSError as error:
        raise refuse(error.strerror or str(error), "a readable file", "check its permissions") from error
    except (ValueError, MemoryError) as error:  # a NUL in the path; no room for the bytes
        raise refuse(str(error) or "no memory for this file", "a readable file", "check the path") from error
    if not data:
        raise refuse("0 bytes", "a radiograph", COPY_AGAIN)
    return data


def _check_kind(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise refuse(kind, "a regular file", "remove it from the source")
    if status.st_size > MAX_BYTES:
        raise refuse(f"{status.st_size} bytes", f"at most {MAX_BYTES}", "remove or shrink it")


def format_of(data: bytes) -> str:
    """PNG, JPEG, TIFF, BMP or DICOM; else what the bytes may be, in words."""
    for offset, magic, name in _SIGNATURES:
        if data.startswith(magic, offset):
            return name
    if _BARE_DICOM.match(data):
        return "DICOM"
    if re.fullmatch(rb"[\t\n\f\r -~\x80-\xff]+", data[:512]):
        return "HTML" if b"<html" in data[:512].lower() else "text"
    return f"an unknown format that begins {data[:8].hex(' ')}"
