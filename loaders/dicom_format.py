"""The format of a DICOM image: what its header says of its samples, checked before they are decoded."""

from __future__ import annotations

import re
from dataclasses import dataclass

from loaders.dicom_elements import Dicom, raw, text, whole
from loaders.radiograph import SHRINK
from loaders.radiograph_file import refuse

EXPORT_AGAIN = "export it again as plain grey"
GREY = ("MONOCHROME1", "MONOCHROME2")
LUMA_FIRST = ("YBR_FULL", "YBR_FULL_422")  # their first sample is Rec. 601 luma (PS3.3 section C.7.6.3.1.2)
FROM_RGB = ("YBR_RCT", "YBR_ICT")  # JPEG 2000's own transforms, which its decoder undoes
OTHER = ("PALETTE COLOR", "HSV", "ARGB", "CMYK", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "XYB")


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """How an image's samples are laid out.  planar: all red, then all green, then all blue."""

    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    signed: bool
    photometric: str
    planar: bool


def read_format(dicom: Dicom, max_pixels: int) -> Format:
    """Check the image pixel module (PS3.3 section C.7.6.3), and that it is one image of at most max_pixels.

    Grey of 6 to 16 stored bits, signed or not, or colour of 8 unsigned bits.  The high bit is the highest stored one
    (PS3.5 section 8.1.1).  Errors: RadiographError for anything missing, contradictory or larger.
    """
    dataset, little = dicom.dataset, dicom.little_endian
    rows, columns = whole(dataset, 0x00280010, "rows", little), whole(dataset, 0x00280011, "columns", little)
    if rows * columns > max_pixels:
        raise refuse(f"{columns}x{rows} pixels", f"at most {max_pixels}", SHRINK)
    if not rows * columns:
        raise refuse(f"DICOM of {columns}x{rows} pixels", "one with an image", "leave it out")
    frames = text(dataset, 0x00280008) or "1"
    if frames != "1":
        number = int(frames) if re.fullmatch(r"\+?\d{1,11}", frames, re.ASCII) else 0
        if number != 1:
            raise refuse(f"DICOM of {number or 'an unknown number of'} frames", "one", "save each as a file of its own")
    photometric = text(dataset, 0x00280004)
    if photometric not in (*GREY, "RGB", *LUMA_FIRST, *FROM_RGB):
        name = photometric if photometric in OTHER else "unknown" if photometric else "no"
        raise refuse(f"DICOM of {name} photometric interpretation", "grey, RGB or YBR_FULL", EXPORT_AGAIN)
    samples, allocated, stored, high, signed = (
        whole(dataset, tag, name, little)
        for tag, name in (
            (0x00280002, "samples per pixel"),
            (0x00280100, "bits allocated"),
            (0x00280101, "bits stored"),
            (0x00280102, "high bit"),
            (0x00280103, "pixel representation"),
        )
    )
    if samples != (1 if photometric in GREY else 3):
        raise refuse(f"DICOM of {samples} samples a pixel in {photometric}", "1 for grey, 3 for colour", EXPORT_AGAIN)
    if allocated not in (8, 16) or not 6 <= stored <= allocated or high != stored - 1 or signed > 1:
        found = f"{allocated} bits allocated, {stored} stored, high bit {high}, pixel representation {signed}"
        raise refuse(f"DICOM of {found}", "6 to 16 stored in 8 or 16, the high bit one less, 0 or 1", EXPORT_AGAIN)
    if samples == 3 and (allocated, stored, signed) != (8, 8, 0):
        raise refuse(f"DICOM of {stored}-bit colour", "grey or 8-bit colour", EXPORT_AGAIN)
    planar = raw(dataset, 0x00280006)
    if samples == 3 and planar not in (b"\0\0", b"\1\0", b"\0\1"):
        raise refuse("DICOM of colour without planar configuration", "0 or 1", EXPORT_AGAIN)
    return Format(
        rows=rows,
        columns=columns,
        samples=samples,
        allocated=allocated,
        stored=stored,
        signed=bool(signed),
        photometric=photometric,
        planar=any(planar),
    )
