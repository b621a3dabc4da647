"""Hostile files: one as an attempt has it, and the grey levels that another reader finds in it."""

# H rows, W columns, C channels

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pydicom
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

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
    shape = (*rng.integers(9, 60, 2).tolist(), *([channels] if channels else []))
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

    The whole range of the stored bits is shown (PS3.4 section N.2), at 8 bits or 16.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            dataset = pydicom.dcmread(io.BytesIO(data))
            values_HW = dataset.pixel_array.astype(np.int64)
        stored = int(dataset.BitsStored)
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
