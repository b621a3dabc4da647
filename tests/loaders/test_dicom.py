"""Tests of DICOM: against pydicom's own pixels and mappings, phantoms in every form, and damage."""

# H rows, W columns, L levels

import hashlib
import math
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.pixels.utils import pixel_array

from loaders.beton.format import AGES, PATIENT_KNOWN, SEXES
from loaders.beton.reader import Beton
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.errors import RadiographError
from loaders.images.dicom import decode_dicom, shown_picture
from loaders.images.dicom_elements import MAX_ELEMENTS, quiet, read_dicom
from loaders.images.dicom_pixels import SYNTAXES
from loaders.images.files import Radiograph
from loaders.images.radiograph import decode_radiograph
from loaders.phantom.phantom import write_phantoms
from loaders.sources.patient_hash import load_site_key, patient_hash

REPOSITORY = Path(__file__).parents[2]
MAX_PIXELS = 1 << 20
PREFIX = "1.2.840.10008.1.2"
EXPLICIT, IMPLICIT, DEFLATED, BIG = f"{PREFIX}.1", PREFIX, f"{PREFIX}.1.99", f"{PREFIX}.2"
BASELINE, EXTENDED, LOSSLESS = f"{PREFIX}.4.50", f"{PREFIX}.4.51", f"{PREFIX}.4.70"
JPEG_LS, JPEG_2000, RLE = f"{PREFIX}.4.80", f"{PREFIX}.4.90", f"{PREFIX}.5"
IMAGES = "1.2.840.10008.5.1.4.1.1"  # of SOP classes
CANARY = "CANARY^NAME"


# ---- writers


def film(bits: int, signed: bool = False) -> np.ndarray:
    """A smooth field over all levels of so many bits, of an odd number of pixels."""
    y, x = np.mgrid[:37, :51]
    unit = (np.sin(x / 9) + np.cos(y / 7) + 2) / 4
    unit = (unit - unit.min()) / np.ptp(unit)
    level_HW = np.rint(unit * ((1 << bits) - 1)).astype(np.int64) - ((1 << (bits - 1)) if signed else 0)
    return level_HW.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def header(shape: tuple[int, ...], bits: int, **tags: object) -> Dataset:
    dataset = Dataset()
    dataset.Modality = "DX"
    dataset.PhotometricInterpretation = "MONOCHROME2" if len(shape) == 2 else "RGB"
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = 1 if len(shape) == 2 else 3
    if len(shape) == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 if bits <= 8 else 16, bits, bits - 1
    dataset.PixelRepresentation = 0
    with quiet():
        for name, value in tags.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
    return dataset


def write(dataset: Dataset, syntax: str = EXPLICIT) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    buffer = BytesIO()
    with quiet():
        dataset.save_as(buffer, enforce_file_format=False)
    data = buffer.getvalue()
    return data if data[128:132] == b"DICM" else bytes(128) + b"DICM" + data


def native(pixels: np.ndarray, bits: int, syntax: str = EXPLICIT, **tags: object) -> bytes:
    signed = int(pixels.dtype.kind == "i")
    dataset = header(pixels.shape, bits, **{"PixelRepresentation": signed, **tags})
    data = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == BIG else "<")).tobytes()
    if syntax == BIG and pixels.itemsize == 1:
        data = data + b"\0" * (len(data) % 2)
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if bits <= 8 else "OW"
    return write(dataset, syntax)


def packed(frame: bytes, like: np.ndarray, bits: int, syntax: str, fragments: int = 1, **tags: object) -> bytes:
    signed = int(like.dtype.kind == "i")
    dataset = header(like.shape, bits, **{"PixelRepresentation": signed, **tags})
    dataset.PixelData = encapsulate([frame], fragments_per_frame=fragments)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return write(dataset, syntax)


def rle(pixels: np.ndarray) -> bytes:
    """RLE by hand: literal runs of one byte and repeats, high bytes first."""
    planes = [pixels] if pixels.ndim == 2 else [pixels[..., channel] for channel in range(3)]
    segments = []
    for plane in planes:
        for part in [plane >> 8, plane & 255] if plane.itemsize == 2 else [plane]:
            body = b""
            for row in part.astype(np.uint8):
                for run in np.split(row, np.flatnonzero(np.diff(row.astype(int))) + 1):
                    body += bytes([257 - len(run), run[0]]) if len(run) > 1 else bytes([0, run[0]])
            segments.append(body + b"\x80" * (len(body) % 2))
    starts = 64 + np.cumsum([0, *map(len, segments[:-1])])
    return struct.pack("<16L", len(segments), *starts, *[0] * (15 - len(segments))) + b"".join(segments)


def stretched(level_HW: np.ndarray, bits: int) -> np.ndarray:
    """What a whole range becomes: 8 bits as they are, more over 16 bits."""
    return np.rint(level_HW * 65535.0 / ((1 << bits) - 1)) if bits > 8 else level_HW


def check(found: Radiograph, expected_HW: np.ndarray, bits: int, tolerance: float = 0) -> None:
    assert found.grey_HW.dtype == (np.uint16 if bits > 8 else np.uint8)
    assert found.grey_HW.shape == expected_HW.shape
    assert found.grey_HW.flags.c_contiguous and found.grey_HW.flags.writeable
    assert np.abs(found.grey_HW - expected_HW.astype(np.float64)).max() <= tolerance
    assert (found.format, found.bits) == ("DICOM", 16 if bits > 8 else 8)


def refused(data: bytes, reason: str, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(RadiographError, match=reason) as caught:
        decode_dicom(data, max_pixels)
    message = str(caught.value)
    assert ", expected " in message and "; " in message and "CANARY" not in message
    assert caught.value.__context__ is None or isinstance(caught.value.__context__, RadiographError)
    return message


# ---- golden: pydicom's pixels and mappings, any modality


@pytest.mark.parametrize(
    "name",
    [
        "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm",
        "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "image_dfl.dcm",
        "693_J2KI.dcm", "JPEGLSNearLossless_08.dcm", "JPEGLSNearLossless_16.dcm", "JPEG2000.dcm", "liver_1frame.dcm",
    ],
)  # fmt: skip
def test_pydicoms_own_grey_files_are_mapped_as_pydicom_maps_them(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    with quiet():
        dataset = dcmread(path)
        if dataset.BitsAllocated < 8:
            with pytest.raises(RadiographError, match="bits allocated"):
                shown_picture(read_dicom(Path(path).read_bytes(), SYNTAXES), MAX_PIXELS)
            return
        level_HW = apply_modality_lut(pixel_array(dataset), dataset)
        top, signed = (1 << dataset.BitsStored) - 1, dataset.PixelRepresentation
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        lowest = (-(top + 1) // 2 if signed else 0) * slope + intercept
        if "WindowCenter" in dataset or "VOILUTSequence" in dataset:
            shown_HW = apply_voi_lut(level_HW, dataset)
            # pydicom spreads a window over the range of the stored values after rescaling
            shown_HW = (shown_HW - lowest) / (top * slope)
        else:
            shown_HW = (level_HW - lowest) / (top * slope)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            shown_HW = 1 - shown_HW
        found = shown_picture(read_dicom(Path(path).read_bytes(), SYNTAXES), MAX_PIXELS)
    white = np.iinfo(found.grey_HW.dtype).max
    assert found.grey_HW.shape == (dataset.Rows, dataset.Columns)
    assert np.abs(found.grey_HW - shown_HW * white).max() <= 1


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_rle.dcm", "SC_rgb_small_odd.dcm", "SC_rgb_small_odd_big_endian.dcm", "SC_rgb_jls_lossy_line.dcm",
        "SC_rgb_jls_lossy_sample.dcm", "examples_rgb_color.dcm", "SC_ybr_full_422_uncompressed.dcm",
        "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_dcmtk_+eb+cr.dcm", "examples_jpeg2k.dcm",
    ],
)  # fmt: skip
def test_pydicoms_own_colour_files_become_the_luma_of_pydicoms_rgb(name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    with quiet():
        dataset = dcmread(path)
        rgb_HWC = pixel_array(dataset)  # converted from YCbCr to RGB by pydicom
        found = shown_picture(read_dicom(Path(path).read_bytes(), SYNTAXES), MAX_PIXELS)
    expected_HW = rgb_HWC @ [0.299, 0.587, 0.114]
    assert found.grey_HW.dtype == np.uint8
    # RGB that pydicom makes is clipped where chroma leaves no room, and its JPEG upsampling may differ
    assert np.median(np.abs(found.grey_HW - expected_HW)) <= 1
    assert np.mean(np.abs(found.grey_HW - expected_HW) <= 2) > 0.9


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("J2K_pixelrep_mismatch.dcm", "disagree on signs"),
        ("SC_rgb_rle_2frame.dcm", "2 frames"),
        ("SC_rgb_rle_16bit.dcm", "16-bit colour"),
        ("examples_palette.dcm", "PALETTE COLOR"),
        ("MR_truncated.dcm", "truncated"),
        ("rtplan.dcm", "without pixel data"),
        ("rtdose_1frame.dcm", "32 bits allocated"),
        ("meta_missing_tsyntax.dcm", "0 bytes of Rows"),
        ("no_meta.dcm", "element of 173228800 bytes where 38863 are left"),  # a byte too many at its beginning
    ],
)
def test_pydicoms_own_odd_files_are_refused_with_a_reason(name: str, reason: str) -> None:
    path = get_testdata_file(name, download=False)
    assert path is not None
    with quiet(), pytest.raises(RadiographError, match=reason):
        shown_picture(read_dicom(Path(path).read_bytes(), SYNTAXES), MAX_PIXELS)


def test_of_two_real_files_monochrome1_is_the_inverse_of_monochrome2(radiographs: Path) -> None:
    found = {}
    for path in sorted((radiographs / "dicom").glob("*.dcm")):
        dataset = dcmread(path)
        picture = decode_radiograph(path, max_pixels=1 << 24)
        stored_HW = pixel_array(dataset)
        inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
        check(picture, 255 - stored_HW if inverted else stored_HW, bits=8, tolerance=1)  # two builds of libjpeg
        assert (picture.patient, picture.view, picture.note) == (str(dataset.PatientID), "PA", "")
        found[inverted] = picture.grey_HW
    assert np.array_equal(found[True], 255 - found[False])


# ---- every form


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, DEFLATED, BIG])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_uncompressed_grey_keeps_every_level(bits: int, signed: bool, syntax: str, photometric: str) -> None:
    stored_HW = film(bits, signed)
    found = decode_dicom(native(stored_HW, bits, syntax, PhotometricInterpretation=photometric), MAX_PIXELS)
    level_HW = stored_HW.astype(np.int64) + ((1 << (bits - 1)) if signed else 0)
    level_HW = (1 << bits) - 1 - level_HW if photometric == "MONOCHROME1" else level_HW
    check(found, stretched(level_HW, bits), bits)
    assert len(np.unique(found.grey_HW)) == len(np.unique(stored_HW))


CODECS: dict[str, tuple[str, int, Callable[[np.ndarray], bytes], float]] = {
    "JPEG baseline": (BASELINE, 8, lambda p: imagecodecs.jpeg8_encode(p, level=98), 3),
    "JPEG extended": (EXTENDED, 12, lambda p: imagecodecs.jpeg8_encode(p, level=98, bitspersample=12), 64),
    "JPEG lossless 8": (LOSSLESS, 8, lambda p: imagecodecs.jpeg8_encode(p, lossless=True, bitspersample=8), 0),
    "JPEG lossless 12": (LOSSLESS, 12, lambda p: imagecodecs.jpeg8_encode(p, lossless=True, bitspersample=12), 0),
    "JPEG lossless 16": (LOSSLESS, 16, lambda p: imagecodecs.jpeg8_encode(p, lossless=True, bitspersample=16), 0),
    "JPEG-LS 8": (JPEG_LS, 8, imagecodecs.jpegls_encode, 0),
    "JPEG-LS 12": (JPEG_LS, 12, imagecodecs.jpegls_encode, 0),
    "JPEG-LS 16": (JPEG_LS, 16, imagecodecs.jpegls_encode, 0),
    "JPEG 2000 8": (JPEG_2000, 8, lambda p: j2k(p, 8), 0),
    "JPEG 2000 12": (JPEG_2000, 12, lambda p: j2k(p, 12), 0),
    "JPEG 2000 16": (JPEG_2000, 16, lambda p: j2k(p, 16), 0),
    "RLE 8": (RLE, 8, rle, 0),
    "RLE 12": (RLE, 12, rle, 0),
    "RLE 16": (RLE, 16, rle, 0),
}


def j2k(pixels: np.ndarray, bits: int) -> bytes:
    return imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", reversible=True, level=0, bitspersample=bits)


@pytest.mark.parametrize("fragments", [1, 3])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("codec", CODECS)
def test_compressed_grey_is_the_same_in_each_codec(codec: str, photometric: str, fragments: int) -> None:
    syntax, bits, encode, tolerance = CODECS[codec]
    stored_HW = film(bits)
    data = packed(encode(stored_HW), stored_HW, bits, syntax, fragments, PhotometricInterpretation=photometric)
    level_HW = stored_HW.astype(np.int64)
    level_HW = (1 << bits) - 1 - level_HW if photometric == "MONOCHROME1" else level_HW
    check(decode_dicom(data, MAX_PIXELS), stretched(level_HW, bits), bits, tolerance)


def test_signed_jpeg_2000_keeps_its_negative_levels() -> None:
    stored_HW = film(16, signed=True)
    data = packed(j2k(stored_HW, 16), stored_HW, 16, JPEG_2000)
    check(decode_dicom(data, MAX_PIXELS), stored_HW.astype(np.int64) + 32768, bits=16)


def test_pydicoms_own_rle_encoder_is_read_too() -> None:
    stored_HW = film(12)
    with quiet():
        dataset = dcmread(BytesIO(native(stored_HW, 12)))
        dataset.compress(RLE, generate_instance_uid=False)
    check(decode_dicom(write(dataset, RLE), MAX_PIXELS), stretched(stored_HW, 12), bits=12)


def colour() -> tuple[np.ndarray, np.ndarray]:
    grey_HW = film(8)[:36, :50]
    rgb_HWC = np.ascontiguousarray(np.stack([grey_HW, 255 - grey_HW, grey_HW // 2 + 60], axis=2))
    return rgb_HWC, rgb_HWC @ [0.299, 0.587, 0.114]


def ycbcr(rgb_HWC: np.ndarray) -> np.ndarray:
    """PS3.3 section C.7.6.3.1.2."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return np.clip(np.rint(rgb_HWC @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED, BIG])
def test_uncompressed_colour_becomes_luma(syntax: str, photometric: str, planar: bool) -> None:
    rgb_HWC, luma_HW = colour()
    pixels_HWC = rgb_HWC if photometric == "RGB" else ycbcr(rgb_HWC)
    tags = {"PhotometricInterpretation": photometric, "PlanarConfiguration": int(planar)}
    dataset = dcmread(BytesIO(native(pixels_HWC, 8, syntax, **tags)))
    if planar:
        dataset.PixelData = np.ascontiguousarray(np.moveaxis(pixels_HWC, 2, 0)).tobytes()
    check(decode_dicom(write(dataset, syntax), MAX_PIXELS), luma_HW, bits=8, tolerance=0.51)


def test_halved_chroma_does_not_matter_to_luma() -> None:
    rgb_HWC, luma_HW = colour()
    ybr_HWC = ycbcr(rgb_HWC)
    pairs = np.concatenate([ybr_HWC[..., 0].reshape(-1, 2), ybr_HWC[:, ::2, 1:].reshape(-1, 2)], axis=1)
    dataset = header(rgb_HWC.shape, 8, PhotometricInterpretation="YBR_FULL_422", PixelData=pairs.tobytes())
    dataset["PixelData"].VR = "OB"
    check(decode_dicom(write(dataset), MAX_PIXELS), luma_HW, bits=8, tolerance=0.51)


@pytest.mark.parametrize(
    ("syntax", "photometric", "encode", "tolerance"),
    [
        (BASELINE, "YBR_FULL_422", lambda rgb: imagecodecs.jpeg8_encode(rgb, level=98, subsampling="422"), 4),
        (BASELINE, "YBR_FULL", lambda rgb: imagecodecs.jpeg8_encode(rgb, level=98, subsampling="444"), 4),
        (BASELINE, "RGB", lambda rgb: imagecodecs.jpeg8_encode(rgb, 98, colorspace="RGB", outcolorspace="RGB"), 4),
        (JPEG_LS, "RGB", imagecodecs.jpegls_encode, 0.51),
        (JPEG_LS, "YBR_FULL", lambda rgb: imagecodecs.jpegls_encode(ycbcr(rgb)), 0.51),
        (JPEG_2000, "YBR_RCT", lambda rgb: j2k(rgb, 8), 0.51),
        (RLE, "RGB", rle, 0.51),
        (RLE, "YBR_FULL", lambda rgb: rle(ycbcr(rgb)), 0.51),
    ],
)
def test_compressed_colour_becomes_luma(
    syntax: str, photometric: str, encode: Callable[[np.ndarray], bytes], tolerance: float
) -> None:
    rgb_HWC, luma_HW = colour()
    data = packed(encode(rgb_HWC), rgb_HWC, 8, syntax, PhotometricInterpretation=photometric)
    check(decode_dicom(data, MAX_PIXELS), luma_HW, bits=8, tolerance=tolerance)


def test_a_jpeg_in_another_colour_space_than_its_header_is_refused() -> None:
    rgb_HWC, _ = colour()
    data = packed(imagecodecs.jpeg8_encode(rgb_HWC), rgb_HWC, 8, BASELINE, PhotometricInterpretation="RGB")
    refused(data, "RGB with a JPEG in another colour space")


# ---- the mapping


def window_oracle(x: float, center: float, width: float, function: str) -> float:
    """The pseudo-code of PS3.3 sections C.11.2.1.2.1, C.11.2.1.3.2 and C.11.2.1.3.1, for one value."""
    if function == "SIGMOID":
        return 1 / (1 + math.exp(min(700, -4 * (x - center) / width)))
    if function == "LINEAR":
        if x <= center - 0.5 - (width - 1) / 2:
            return 0
        return 1 if x > center - 0.5 + (width - 1) / 2 else (x - (center - 0.5)) / (width - 1) + 0.5
    if x <= center - width / 2:
        return 0
    return 1 if x > center + width / 2 else (x - center) / width + 0.5


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("rescale", [None, (1, 0), (2.5, -1024), (-1, 4095)])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000, 300.5), (700.25, 1)])
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_a_window_is_the_standards_pseudo_code(
    function: str | None, center: float, width: float, rescale: tuple[float, float] | None, photometric: str
) -> None:
    stored_HW = film(12)
    tags: dict[str, object] = {"WindowCenter": center, "WindowWidth": width}
    if function:
        tags["VOILUTFunction"] = function
    if rescale:
        tags["RescaleSlope"], tags["RescaleIntercept"] = rescale
    data = native(stored_HW, 12, PhotometricInterpretation=photometric, **tags)
    slope, intercept = rescale or (1, 0)
    shown_L = [window_oracle(level * slope + intercept, center, width, function or "LINEAR") for level in range(4096)]
    shown_HW = np.array(shown_L)[stored_HW]
    shown_HW = 1 - shown_HW if photometric == "MONOCHROME1" else shown_HW
    check(decode_dicom(data, MAX_PIXELS), shown_HW * 65535, bits=12, tolerance=0.51)


def test_a_negative_slope_exchanges_black_and_white() -> None:
    stored_HW = film(8)
    data = native(stored_HW, 8, RescaleSlope=-2, RescaleIntercept=7)
    check(decode_dicom(data, MAX_PIXELS), 255 - stored_HW, bits=8)


def test_a_window_too_wide_for_8_bits_gives_16_so_that_no_level_is_lost() -> None:
    stored_HW = film(8)
    found = decode_dicom(native(stored_HW, 8, WindowCenter=500, WindowWidth=1000), MAX_PIXELS)
    assert found.grey_HW.dtype == np.uint16 and found.bits == 8
    assert len(np.unique(found.grey_HW)) == len(np.unique(stored_HW))
    narrow = decode_dicom(native(stored_HW, 8, WindowCenter=128, WindowWidth=256), MAX_PIXELS)
    check(narrow, stored_HW, bits=8)


def lut(entries: np.ndarray, first: int, bits: int, vr: str = "US", packed: bool = False) -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, vr, [len(entries) % 65536, first, bits])
    item.add_new(0x00283006, "OW", entries.astype(np.uint8 if packed else "<u2").tobytes())
    return item


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
@pytest.mark.parametrize("kind", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("first", [0, 500])
def test_a_lut_maps_each_level_and_its_ends_go_on(first: int, kind: str, syntax: str) -> None:
    stored_HW = film(12)
    entries = np.rint(1023 * np.linspace(0, 1, 3000) ** 0.5).astype(np.uint16)
    found = decode_dicom(native(stored_HW, 12, syntax, **{kind: [lut(entries, first, 10)]}), MAX_PIXELS)
    expected_HW = entries[np.clip(stored_HW.astype(int) - first, 0, 2999)] / 1023 * 65535
    check(found, expected_HW, bits=12, tolerance=0.51)


@pytest.mark.parametrize(("syntax", "vr"), [(EXPLICIT, "SS"), (IMPLICIT, "SS")])
def test_a_lut_of_signed_levels_begins_below_zero(syntax: str, vr: str) -> None:
    stored_HW = film(12, signed=True)
    entries = np.arange(4096) ** 2 // 4096
    data = native(stored_HW, 12, syntax, VOILUTSequence=[lut(entries, -2048, 12, vr)])
    expected_HW = entries[stored_HW.astype(int) + 2048] / 4095 * 65535
    check(decode_dicom(data, MAX_PIXELS), expected_HW, bits=12, tolerance=0.51)


def test_a_lut_of_8_bit_entries_may_be_packed_and_may_have_65536_of_them() -> None:
    stored_HW = film(16)
    entries = np.arange(65536) >> 8
    found = decode_dicom(native(stored_HW, 16, VOILUTSequence=[lut(entries, 0, 8, packed=True)]), MAX_PIXELS)
    check(found, (stored_HW >> 8) * 257, bits=16)


def test_of_alternatives_the_first_lut_then_the_first_window_is_taken_and_noted() -> None:
    stored_HW, ramp = film(12), np.arange(4096)
    windows = {"WindowCenter": [1000, 3000], "WindowWidth": [500, 900]}
    one = decode_dicom(native(stored_HW, 12, **windows), MAX_PIXELS)
    assert one.note == "first of 2 windows"
    alone = decode_dicom(native(stored_HW, 12, WindowCenter=1000, WindowWidth=500), MAX_PIXELS)
    assert alone.note == "" and np.array_equal(one.grey_HW, alone.grey_HW)
    luts = [lut(ramp, 0, 12), lut(ramp[::-1], 0, 12)]
    two = decode_dicom(native(stored_HW, 12, VOILUTSequence=luts, **windows), MAX_PIXELS)
    assert two.note == "first of 2 VOI LUTs"
    check(two, stretched(stored_HW, 12), bits=12)
    assert decode_dicom(native(stored_HW, 12, VOILUTSequence=luts[:1], **windows), MAX_PIXELS).note


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"PhotometricInterpretation": None}, "no photometric"),
        ({"PhotometricInterpretation": CANARY}, "unknown photometric"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PhotometricInterpretation": "RGB"}, "1 samples a pixel .* in RGB"),
        ({"BitsStored": 17, "HighBit": 16}, "17 stored"),
        ({"HighBit": 10}, "high bit 10"),
        ({"HighBit": 16}, "high bit 16"),
        ({"PixelRepresentation": None}, r"0 bytes of Pixel Representation \(0028,0103\), expected one"),
        ({"PixelRepresentation": 2}, "pixel representation 2"),
        ({"BitsAllocated": 32}, "32 bits allocated"),
        ({"RescaleSlope": [1, 2], "RescaleIntercept": 0}, r"2 slopes \(0028,1053\) and 1 intercepts"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "expected one slope other than 0"),
        ({"ModalityLUTSequence": [lut(np.arange(9), 0, 8)] * 2}, r"2 modality LUTs \(0028,3000\), expected one"),
        ({"WindowCenter": 5, "WindowWidth": 6, "VOILUTFunction": "CANARY"}, "unknown VOI LUT function"),
        ({"VOILUTSequence": [Dataset()]}, r"VOI LUT \(0028,3010\) without LUT Descriptor \(0028,3002\)"),
        ({"VOILUTSequence": [lut(np.arange(300), 0, 8)]}, "8 bits and values up to 299"),
        ({"VOILUTSequence": [lut(np.arange(300), 0, 17)]}, "17 bits"),
        ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}, r"all of its Pixel Padding Value \(0028,0120\)"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for processing"),
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"SOPClassUID": f"{IMAGES}.1.1.1"}, "for processing"),
        ({"Rows": None}, r"0 bytes of Rows \(0028,0010\)"),
        ({"Rows": 0}, "51x0 pixels"),
        ({"Modality": "CT"}, "DICOM of modality CT"),
        ({"Modality": "CANARY"}, "another modality"),
        ({"Modality": None}, r"without a modality \(0008,0060\), expected CR, DX or RG.*--assume-modality DX"),
        ({"Modality": "OT", "SOPClassUID": f"{IMAGES}.7"}, "modality OT.*--assume-modality DX"),
        ({"Modality": "CT", "SOPClassUID": f"{IMAGES}.1.1"}, "modality CT"),
    ],
)
def test_what_is_ambiguous_or_no_radiograph_is_refused_with_a_reason(
    caplog: pytest.LogCaptureFixture, tags: dict[str, object], reason: str
) -> None:
    refused(native(film(12), 12, PatientID=CANARY, PatientName=CANARY, SpecificCharacterSet="CANARY", **tags), reason)
    assert "CANARY" not in caplog.text


def test_bits_beside_the_stored_ones_may_repeat_the_sign_and_are_else_ignored_with_a_note() -> None:
    stored_HW = film(12, signed=True)
    whole = decode_dicom(native(stored_HW, 12), MAX_PIXELS)
    cleared_HW = (stored_HW.view(np.uint16) & 0x0FFF).view(np.int16)
    cleared = decode_dicom(native(cleared_HW, 12), MAX_PIXELS)
    cleared_HW[3, 4] ^= 0x4000
    other = decode_dicom(native(cleared_HW, 12), MAX_PIXELS)
    assert np.array_equal(cleared.grey_HW, whole.grey_HW) and np.array_equal(other.grey_HW, whole.grey_HW)
    assert (whole.note, cleared.note, other.note) == ("", "", "bits above the high bit ignored")


# ---- as it comes: unusual, but its meaning plain


ODD_TAGS: dict[str, tuple[dict[str, object], str, Callable[[np.ndarray], np.ndarray]]] = {
    # name → tags, note, shown level from 0 to 1 of stored levels from 0 to 4095
    "MONOCHROME1, IDENTITY": (
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"},
        "Presentation LUT Shape ignored, MONOCHROME1 counts", lambda x: 1 - x / 4095,
    ),
    "MONOCHROME1, INVERSE": (
        {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, "", lambda x: 1 - x / 4095,
    ),
    "MONOCHROME2, INVERSE": (
        {"PresentationLUTShape": "INVERSE"}, "Presentation LUT Shape ignored, MONOCHROME2 counts", lambda x: x / 4095,
    ),
    "MONOCHROME2, IDENTITY": ({"PresentationLUTShape": "IDENTITY"}, "", lambda x: x / 4095),
    "LUT and windows": (
        {"VOILUTSequence": [lut(np.arange(4096) // 16, 0, 8)], "WindowCenter": [9, 99], "WindowWidth": [9, 99]},
        "first of VOI LUT and window", lambda x: x // 16 / 255,
    ),
    "two windows": (
        {"WindowCenter": [1000.5, 99], "WindowWidth": [1001, 99]}, "first of 2 windows",
        lambda x: np.clip((x - 500) / 1000, 0, 1),
    ),
    "slope alone": ({"RescaleSlope": -2}, "no rescale intercept, taken as 0", lambda x: 1 - x / 4095),
    "intercept alone": (
        {"RescaleIntercept": -500, "WindowCenter": 500.5, "WindowWidth": 1001}, "no rescale slope, taken as 1",
        lambda x: np.clip((x - 500) / 1000, 0, 1),
    ),
    "modality LUT and rescale": (
        {"ModalityLUTSequence": [lut(np.arange(4096)[::-1], 0, 12)], "RescaleSlope": 3, "RescaleIntercept": 1},
        "modality LUT, not rescale", lambda x: 1 - x / 4095,
    ),
    "empty LUT sequences": ({"VOILUTSequence": [], "ModalityLUTSequence": []}, "", lambda x: x / 4095),
    "DR": ({"Modality": "DR"}, "modality DR taken as DX", lambda x: x / 4095),
    "no modality": (
        {"Modality": None, "SOPClassUID": f"{IMAGES}.1.1"}, "modality DX by the SOP class",
        lambda x: x / 4095,
    ),
    "empty modality": (
        {"Modality": "", "SOPClassUID": f"{IMAGES}.1"}, "modality CR by the SOP class",
        lambda x: x / 4095,
    ),
    "OT": ({"Modality": "OT", "SOPClassUID": f"{IMAGES}.1"}, "modality CR by the SOP class", lambda x: x / 4095),
    "RF": ({"Modality": "RF", "SOPClassUID": f"{IMAGES}.1"}, "modality CR by the SOP class", lambda x: x / 4095),
    "unknown": (
        {"Modality": "XRAY", "SOPClassUID": f"{IMAGES}.1.1"}, "modality DX by the SOP class",
        lambda x: x / 4095,
    ),
    "small letters": ({"Modality": "dx"}, "", lambda x: x / 4095),
    "overlay": (
        {"OverlayRows": 37, "OverlayColumns": 51, "OverlayBitPosition": 0, "OverlayData": b"\xff" * 236},
        "overlay not drawn", lambda x: x / 4095,
    ),
    "padding that does not occur": ({"PixelPaddingValue": 65535}, "", lambda x: x / 4095),
    "no pixel padding": ({"PixelPaddingRangeLimit": 4000}, "", lambda x: x / 4095),
}  # fmt: skip


@pytest.mark.parametrize("case", ODD_TAGS)
def test_odd_tags_of_plain_meaning_are_followed_and_noted(case: str) -> None:
    tags, note, shown = ODD_TAGS[case]
    stored_HW = film(12)
    numbers = {"OverlayRows": 0x60020010, "OverlayColumns": 0x60020011, "OverlayBitPosition": 0x60020102}
    dataset = dcmread(BytesIO(native(stored_HW, 12, **{k: v for k, v in tags.items() if not k.startswith("Overlay")})))
    for name, tag in numbers.items():
        if name in tags:
            dataset.add_new(tag, "US", tags[name])
            dataset.add_new(0x60023000, "OW", tags["OverlayData"])
    found = decode_dicom(write(dataset), MAX_PIXELS)
    check(found, shown(stored_HW.astype(float)) * 65535, bits=12, tolerance=0.51)
    assert found.note == note


WHOLE, WINDOW = "no valid window (0028,1050), whole range shown", (2048.5, 2001.0)  # 1048 to 3048


@pytest.mark.parametrize(
    ("center", "width", "note"),
    [
        (b" 2.0485E+003 ", b"2001.000", ""),
        (b"2048,5", b"2001,0", "decimal comma in Window Center (0028,1050); decimal comma in Window Width (0028,1051)"),
        (b"2048.5\\", b"2001\\", "first of 2 windows"),
        (b"2048.5\\12", b"2001", "first of 2 windows"),
        (b"NaN\\2048.5", b"10\\2001", "first valid of 2 windows"),
        (b"\\2048.5\\7", b"\\ 2001\\7", "first valid of 3 windows"),
        (b"9\\ 2048.5", b"0\\+2001", "first valid of 2 windows"),
        (b"NaN", b"NaN", WHOLE),
        (b"1.#QNAN", b"-1.#IND", WHOLE),
        (b"12", b"inf", WHOLE),
        (b"0", b"0", WHOLE),
        (b"5", b"0.5", WHOLE),
        (b"5", b"-4", WHOLE),
        (b"5", b"", WHOLE),
        (b"", b"7", WHOLE),
        (b"", b"", ""),
        (b"  ", b"\0\0", ""),
    ],
)  # fmt: skip
def test_numbers_are_read_as_they_are_written_and_windows_that_are_none_passed_over(
    center: bytes, width: bytes, note: str
) -> None:
    stored_HW = film(12)
    marks = {"WindowCenter": "1" * 24, "WindowWidth": "2" * 24}
    with quiet():
        data = native(stored_HW, 12, **marks)
    for value, mark in ((center, b"1" * 24), (width, b"2" * 24)):
        data = data.replace(mark, value.ljust(24))
    found = decode_dicom(data, MAX_PIXELS)
    low, high = (0, 4095) if WHOLE in note or not center.strip(b" \0") else (1048, 3048)
    check(found, np.clip((stored_HW.astype(float) - low) / (high - low), 0, 1) * 65535, bits=12, tolerance=0.51)
    assert found.note == note


@pytest.mark.parametrize("value", [b"1,024.5", b"12 5", b"CANARY", b"0x10", b"1e9999", b"1_0"])
def test_what_is_no_number_is_refused_with_its_tag_and_without_its_text(value: bytes) -> None:
    with quiet():
        data = native(film(12), 12, WindowCenter="1" * 24, WindowWidth=9)
    message = refused(
        data.replace(b"1" * 24, value.ljust(24)), r"Window Center \(0028,1050\) is no number, expected a dec"
    )
    assert value.decode() not in message


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [False, True])
@pytest.mark.parametrize(
    ("bits", "signed", "tags", "levels"),
    [
        (16, False, {"PixelPaddingValue": 65535}, (65535,)),
        (16, True, {"PixelPaddingValue": -32768}, (-32768,)),
        (12, False, {"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}, (4000, 4095)),
        (12, True, {"PixelPaddingValue": -2000, "PixelPaddingRangeLimit": -2048}, (-2048, -2010, -2000)),
    ],
)
def test_padding_is_black_and_left_out_of_the_whole_range(
    bits: int, signed: bool, tags: dict[str, int], levels: tuple[int, ...], window: bool, photometric: str
) -> None:
    lowest, highest = (-900, 1100) if signed else (100, 2100)
    stored_HW = np.linspace(lowest, highest, 37 * 51).round().reshape(37, 51).astype("i2" if signed else "u2")
    stored_HW[:, :5] = np.resize(levels, (37, 5))
    dataset = dcmread(BytesIO(native(stored_HW, bits, PhotometricInterpretation=photometric)))
    for tag, (name, value) in zip((0x00280120, 0x00280121), tags.items(), strict=False):
        assert name
        dataset.add_new(tag, "SS" if signed else "US", value)
    if window:
        dataset.WindowCenter, dataset.WindowWidth = (lowest + highest) / 2, highest - lowest
        dataset.VOILUTFunction = "LINEAR_EXACT"
    found = decode_dicom(write(dataset), MAX_PIXELS)
    low, high = (lowest, highest) if window else (int(stored_HW[:, 5:].min()), int(stored_HW[:, 5:].max()))
    shown_HW = np.clip((stored_HW.astype(float) - low) / (high - low), 0, 1)
    shown_HW = 1 - shown_HW if photometric == "MONOCHROME1" else shown_HW
    shown_HW[:, :5] = 0
    check(found, shown_HW * 65535, bits=bits, tolerance=0.51)
    assert found.note == "padding shown black"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("stored", ["left", "left, with an overlay below", "right", "with an overlay above"])
def test_the_stored_bits_are_those_from_the_high_bit_down(stored: str, signed: bool) -> None:
    level_HW = film(12, signed)
    pattern_HW = level_HW.astype(np.int64) & 0xFFF
    overlay_HW = (np.indices(level_HW.shape).sum(0) % 3 == 0).astype(np.int64)
    words_HW, high, note = {
        "left": (pattern_HW << 4, 15, "12 bits from high bit 15 down"),
        "left, with an overlay below": (pattern_HW << 4 | overlay_HW, 15, "12 bits from high bit 15 down"),
        "right": (pattern_HW, 15, "high bit 15 not reached, taken as 11"),
        "with an overlay above": (pattern_HW | overlay_HW << 14, 11, "bits above the high bit ignored"),
    }[stored]
    words_HW = words_HW.astype(np.uint16).view("i2" if signed else "u2")
    found = decode_dicom(native(words_HW, 12, HighBit=high), MAX_PIXELS)
    check(found, stretched(level_HW.astype(np.int64) + (2048 if signed else 0), 12), bits=12)
    assert found.note == note


@pytest.mark.parametrize(("bits", "extra"), [(8, 2), (8, 101), (12, 1), (12, 2), (12, 512), (16, 2048)])
def test_a_few_bytes_more_than_the_pixels_need_are_ignored_and_noted(bits: int, extra: int) -> None:
    stored_HW = film(bits)
    dataset = dcmread(BytesIO(native(stored_HW, bits)))
    dataset["PixelData"]._value = stored_HW.tobytes() + b"\xaa" * extra
    found = decode_dicom(write(dataset), MAX_PIXELS)
    check(found, stretched(stored_HW, bits), bits=bits)
    assert re.fullmatch(r"\d+ bytes after the pixels ignored", found.note)


@pytest.mark.parametrize("meta", ["preamble", "meta alone", "meta without a syntax", "neither", "preamble alone"])
@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG])
def test_a_file_may_lack_its_preamble_and_its_transfer_syntax(tmp_path: Path, syntax: str, meta: str) -> None:
    stored_HW = film(12)
    data = native(
        stored_HW, 12, syntax, SpecificCharacterSet="ISO_IR 100", PatientID="007", WindowCenter=2048, WindowWidth=4096
    )
    at = 132 + data[132:].index(b"1.2.840.10008.1.2") - 8
    start = at + 8 + data[at + 6]
    data = {
        "preamble": data, "meta alone": data[132:], "neither": data[start:],
        "preamble alone": data[:132] + data[start:],
        "meta without a syntax": data[:132] + struct.pack("<HH2sH", 2, 0x10, b"UI", 0) + data[start:],
    }[meta]  # fmt: skip
    (tmp_path / "film").write_bytes(data)
    found = decode_radiograph(tmp_path / "film", max_pixels=MAX_PIXELS)
    check(found, stretched(stored_HW, 12), bits=12, tolerance=0.51)
    assert found.patient == "007"
    no_preamble, no_syntax = meta in ("meta alone", "neither"), meta not in ("preamble", "meta alone")
    assert found.note == "; ".join(["no preamble"] * no_preamble + ["no transfer syntax"] * no_syntax)


def test_elements_are_as_they_are_encoded_whatever_the_transfer_syntax_says() -> None:
    stored_HW = film(8)
    data = native(stored_HW, 8).replace(EXPLICIT.encode() + b"\0", IMPLICIT.encode() + b"\0\0\0")
    found = decode_dicom(data, MAX_PIXELS)
    check(found, stored_HW, bits=8)
    assert found.note == "explicit VR whatever the transfer syntax"


ITEM_, END_ITEM_, END_SEQUENCE_ = (struct.pack("<HHL", 0xFFFE, number, size) for number, size in (
    (0xE000, 0xFFFFFFFF), (0xE00D, 0), (0xE0DD, 0),
))  # fmt: skip


def element(tag: int, vr: bytes, value: bytes) -> bytes:
    """In explicit little-endian bytes, of a short length, or a long one that may be undefined."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    if vr in (b"OB", b"SQ", b"UN"):
        length = 0xFFFFFFFF if value.endswith(END_SEQUENCE_) else len(value)
        return head + struct.pack("<HL", 0, length) + value
    return head + struct.pack("<H", len(value)) + value


PRIVATE = {
    "creator": element(0x00090010, b"LO", CANARY.encode() + b" "),
    "unknown VR": element(0x00091001, b"ZZ", b"abcd"),
    "small letters": element(0x00091001, b"ox", b"abcd"),
    "question marks": element(0x00091001, b"??", b"abcd"),
    "no VR": element(0x00091001, b"\0\0", b"abcd"),
    "blank VR": element(0x00091001, b"  ", b""),
    "UN": element(0x00091001, b"UN", b"abcd"),
    "odd length": element(0x00091001, b"UN", b"abc"),
    "wrong VR": element(0x00091001, b"DS", b"no number"),
    "sequence": element(0x00091001, b"SQ", ITEM_ + element(0x00091002, b"LO", b"ab") + END_ITEM_ + END_SEQUENCE_),
    "UN sequence": element(
        0x00091001, b"UN", ITEM_ + struct.pack("<HHL", 9, 0x1002, 2) + b"ab" + END_ITEM_ + END_SEQUENCE_
    ),
    "fragments": element(0x00091001, b"OB", struct.pack("<HHL", 0xFFFE, 0xE000, 2) + b"ab" + END_SEQUENCE_),
    "broken sequence of known length": element(0x00091001, b"SQ", b"abcdefghijkl"),
    "large": element(0x00091001, b"OB", bytes(100_000)),
    "twice": element(0x00091001, b"LO", b"ab") * 2,
    "out of order": element(0x00291001, b"LO", b"ab") + element(0x00091001, b"LO", b"ab"),
}


@pytest.mark.parametrize("place", ["first", "last"])
@pytest.mark.parametrize("kind", PRIVATE)
def test_private_elements_of_any_kind_are_passed_over(kind: str, place: str) -> None:
    stored_HW = film(12)
    data = native(stored_HW, 12, PatientID="007", WindowCenter=2048, WindowWidth=4096)
    at = data.index(b"\x08\x00\x60\x00CS") + 10 if place == "first" else data.index(b"\xe0\x7f\x10\x00O")
    found = decode_dicom(data[:at] + PRIVATE[kind] + data[at:], MAX_PIXELS)
    check(found, stretched(stored_HW, 12), bits=12, tolerance=0.51)
    assert (found.patient, found.note) == ("007", "")


def test_a_film_without_a_patient_id_is_of_an_unknown_patient() -> None:
    for tags in ({}, {"PatientID": ""}, {"PatientID": "  "}):
        found = decode_dicom(native(film(8), 8, **tags), MAX_PIXELS)
        assert (found.patient, found.note) == ("", "")


@pytest.mark.parametrize(
    "tags", [{"Modality": None}, {"Modality": ""}, {"Modality": "OT", "SOPClassUID": f"{IMAGES}.7"}]
)
def test_a_modality_is_assumed_only_where_none_is_stated(tags: dict[str, object]) -> None:
    data = native(film(8), 8, **tags)
    refused(data, "expected CR, DX or RG, or a SOP class")
    found = decode_dicom(data, MAX_PIXELS, "DX")
    check(found, film(8), bits=8)
    assert found.note == "modality DX assumed"
    for stated in ({"Modality": "CT"}, {"Modality": None, "SOPClassUID": f"{IMAGES}.2"}):
        with pytest.raises(RadiographError):
            decode_dicom(native(film(8), 8, **stated), MAX_PIXELS, "DX")


def draw_film(rng: np.random.Generator) -> tuple[bytes, np.ndarray, str]:
    """A film of random depth, sign, high bit and mapping; its shown levels from 0 to 1 by pydicom; what it has.

    pydicom 3.0.2 wraps what lies beyond an 8-bit VOI LUT and truncates fractions, so levels are rounded and clipped to
    the LUT first; it knows modality LUTs of 8 and 16 bits only, so that all entries are given as 16-bit ones.  It
    ignores the high bit and inverts nothing: both are done here.
    """
    bits, signed = int(rng.integers(6, 17)), bool(rng.integers(2))
    allocated = 8 if bits <= 8 and rng.integers(2) else 16
    lowest = -(1 << bits - 1) if signed else 0
    level_HW = rng.integers(lowest, lowest + (1 << bits), (9, 11))
    level_HW[0, :2] = lowest, lowest + (1 << bits) - 1
    shift = int(rng.integers(allocated - bits + 1))
    words_HW = ((level_HW & ((1 << bits) - 1)) << shift).astype(f"u{allocated // 8}")
    if allocated > bits + shift:  # what the standard gives no meaning
        words_HW |= (rng.integers(2, size=level_HW.shape) << (allocated - 1)).astype(words_HW.dtype)
    tags: dict[str, object] = {
        "PhotometricInterpretation": f"MONOCHROME{rng.integers(1, 3)}", "BitsAllocated": allocated,
        "HighBit": bits + shift - 1, "PixelRepresentation": int(signed),
    }  # fmt: skip
    by_pydicom = Dataset()
    by_pydicom.PhotometricInterpretation, by_pydicom.BitsStored = "MONOCHROME2", bits
    by_pydicom.PixelRepresentation = int(signed)
    values_HW, ends = level_HW, np.array([lowest, lowest + (1 << bits) - 1])
    step = rng.choice(["none", "rescale", "LUT"])
    if step == "rescale":
        slope = float(rng.choice([1, 2, -1, 0.5, -3.25, 1.7]))
        rescale = {"RescaleSlope": slope, "RescaleIntercept": float(rng.choice([0, -1024, 12.5]))}
        tags |= rescale
        by_pydicom.update(rescale)
    elif step == "LUT":
        first, depth = int(rng.integers(lowest, lowest + 50)), int(rng.integers(10, 17))
        entries = rng.integers(0, 1 << depth, int(rng.integers(2, 3000)))
        entries[:2] = 0, 1
        tags["ModalityLUTSequence"] = [lut(entries, first, depth, "SS" if signed else "US")]
        by_pydicom.ModalityLUTSequence = [lut(entries, first, 16, "SS" if signed else "US")]
    by_pydicom.file_meta = FileMetaDataset()
    by_pydicom.file_meta.TransferSyntaxUID = EXPLICIT
    values_HW = apply_modality_lut(level_HW, by_pydicom)
    ends = apply_modality_lut(np.arange(lowest, lowest + (1 << bits)), by_pydicom)
    ends = np.array([ends.min(), ends.max()], float)
    voi = rng.choice(["none", "window", "LUT", "both"])
    if voi in ("window", "both"):
        function = str(rng.choice(["", "LINEAR", "LINEAR_EXACT", "SIGMOID"]))
        window = {
            "WindowCenter": round(float(rng.uniform(*ends)), 2),
            "WindowWidth": round(float(rng.uniform(1, 1.5 * np.ptp(ends) + 1)), 2),
        }
        window |= {"VOILUTFunction": function} if function else {}
        tags |= window
    if voi in ("LUT", "both"):
        depth, below = int(rng.choice([8, 10, 12, 16])), ends.min() < 0
        first = int(rng.integers(max(-32768, int(ends[0])), min(32767, max(int(ends[0]) + 1, int(ends[1])))))
        entries = rng.integers(0, 1 << depth, int(rng.integers(2, 3000)))
        tags["VOILUTSequence"] = [lut(entries, first, depth, "SS" if below else "US")]
        by_pydicom.VOILUTSequence = [lut(entries, first, 16, "SS" if below else "US")]
        inside_HW = np.clip(np.rint(values_HW), first, first + len(entries) - 1).astype(np.int64)
        shown_HW = apply_voi_lut(inside_HW, by_pydicom, prefer_lut=True) / ((1 << depth) - 1)
    elif voi == "window":
        by_pydicom.update(window)
        shown_HW = apply_voi_lut(values_HW, by_pydicom)
        low, high = (0, 65535) if step == "LUT" else (lowest, lowest + (1 << bits) - 1)
        if step == "rescale":
            low, high = (end * rescale["RescaleSlope"] + rescale["RescaleIntercept"] for end in (low, high))
        shown_HW = (shown_HW - low) / (high - low)  # pydicom spreads a window over the range of the stored values
    else:
        shown_HW = (values_HW - ends[0]) / np.ptp(ends)
    shown_HW = 1 - shown_HW if tags["PhotometricInterpretation"] == "MONOCHROME1" else shown_HW
    return native(words_HW, bits, **tags), shown_HW, f"{step} {voi} {tags}"


def test_600_random_films_are_shown_as_by_pydicom() -> None:
    rng = np.random.default_rng(19)
    for _ in range(600):
        with quiet():
            data, shown_HW, what = draw_film(rng)
        found = decode_dicom(data, MAX_PIXELS)
        white = np.iinfo(found.grey_HW.dtype).max
        assert np.abs(found.grey_HW - shown_HW * white).max() < 0.51, what


@pytest.mark.parametrize("modality", ["CR", "DX", "RG"])
def test_patient_and_view_come_from_the_file(modality: str) -> None:
    data = native(film(8), 8, Modality=modality, PatientID=" 007 ", ViewPosition="AP")
    found = decode_dicom(data, MAX_PIXELS)
    assert (found.patient, found.view) == ("007", "AP")
    assert "007" not in repr(found)
    assert decode_dicom(native(film(8), 8, ViewPosition="CANARY"), MAX_PIXELS).view == ""


# ---- damage


def nested(depth: int, undefined: bool) -> bytes:
    """Sequences in sequences, in explicit little-endian bytes."""
    body = b""
    for _ in range(depth):
        length = 0xFFFFFFFF if undefined else len(body)
        item = struct.pack("<HHL", 0xFFFE, 0xE000, length) + body
        item += struct.pack("<HHL", 0xFFFE, 0xE00D, 0) if undefined else b""
        length = 0xFFFFFFFF if undefined else len(item)
        body = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, length) + item
        body += struct.pack("<HHL", 0xFFFE, 0xE0DD, 0) if undefined else b""
    return body


def before_pixels(data: bytes, extra: bytes) -> bytes:
    at = data.index(b"\xe0\x7f\x10\x00O")
    return data[:at] + extra + data[at:]


@pytest.mark.parametrize("depth", [3, 300, 5000])
@pytest.mark.parametrize("undefined", [False, True])
def test_nested_sequences_are_passed_over_or_refused_and_never_recursed_into(undefined: bool, depth: int) -> None:
    if not undefined and depth > 300:
        depth = 1000
    data = before_pixels(native(film(8), 8), nested(depth, undefined))
    if undefined and depth > 3:
        refused(data, "sequences more than 32 deep")
    else:
        check(decode_dicom(data, MAX_PIXELS), film(8), bits=8)


def test_many_elements_or_items_are_refused_before_they_take_memory() -> None:
    items = struct.pack("<HH2sHL", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    items += struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 1_000_000
    items += struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    tracemalloc.start()
    try:
        refused(before_pixels(native(film(8), 8), items), f"more than {MAX_ELEMENTS} elements")
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_deflate_bomb_is_refused_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loaders.images.dicom_elements.MAX_INFLATED", 1 << 22)
    data = native(film(8), 8, DEFLATED)
    at = data.index(b"\x02\x00\x10\x00UI")  # the transfer syntax, last of its group
    start = at + 8 + int.from_bytes(data[at + 6 : at + 8], "little")
    body = zlib.decompress(data[start:], -15)
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = data[:start] + stream.compress(body + bytes(1 << 26)) + stream.flush()
    assert len(bomb) < 1 << 20
    tracemalloc.start()
    try:
        refused(bomb, "inflates to more than 4194304 bytes")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    refused(data[: start + 20], "truncated DICOM")


def test_a_deflate_bomb_takes_less_than_a_gibibyte() -> None:
    data = native(film(8), 8, DEFLATED)
    at = data.index(b"\x02\x00\x10\x00UI")
    stream = zlib.compressobj(1, zlib.DEFLATED, -15)
    part = bytes(1 << 24)
    bomb = b"".join([data[: at + 8 + data[at + 6]], *(stream.compress(part) for _ in range(17))])
    tracemalloc.start()
    try:
        refused(bomb, "DICOM that inflates to more than")
        assert tracemalloc.get_traced_memory()[1] < 640 << 20
    finally:
        tracemalloc.stop()


def test_pixels_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("jpeg8_decode", "jpegls_decode", "jpeg2k_decode", "packbits_decode"):
        monkeypatch.setattr(imagecodecs, name, lambda *a, **k: pytest.fail("decoded"))
    stored_HW = film(8)
    for syntax, frame in ((BASELINE, imagecodecs.jpeg8_encode(stored_HW)), (JPEG_2000, j2k(stored_HW, 8))):
        refused(packed(frame, stored_HW, 8, syntax), "51x37 pixels, expected at most 1000", max_pixels=1000)
    # a codestream that claims more than the header
    frame = bytearray(j2k(stored_HW, 8))
    frame[8:16] = struct.pack(">LL", 65535, 65535)
    refused(packed(bytes(frame), stored_HW, 8, JPEG_2000), "65535x65535 pixels and 1 samples")
    wide_HW = np.zeros((80, 80), np.uint8)
    frame = bytearray(j2k(wide_HW, 8))
    frame[24:32] = struct.pack(">LL", 1, 1)
    refused(packed(bytes(frame), wide_HW, 8, JPEG_2000), "6400 tiles in DICOM, expected at most 4096")
    frame = bytearray(imagecodecs.jpegls_encode(stored_HW))
    at = frame.index(b"\xff\xf7")
    frame[at + 5 : at + 9] = struct.pack(">HH", 65535, 65535)
    refused(packed(bytes(frame), stored_HW, 8, JPEG_LS), "65535x65535 pixels and 1 samples")


def test_an_rle_bomb_stops_at_the_images_size() -> None:
    stored_HW = film(8)
    frame = struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\x00" * (1 << 20)
    tracemalloc.start()
    try:
        refused(packed(frame, stored_HW, 8, RLE), "does not decode")
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    refused(packed(frame[:80], stored_HW, 8, RLE), "RLE segment of")


def test_a_jpeg_ls_without_end_marker_never_reaches_charls_which_would_take_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(imagecodecs, "jpegls_decode", lambda *a, **k: pytest.fail("decoded"))
    frame = imagecodecs.jpegls_encode(film(12))
    for padding in (b"", b"\0", b"\xff", b"\xff\xd9\1"):
        refused(packed(frame[: len(frame) // 3] + padding, film(12), 12, JPEG_LS), "^truncated JPEG-LS")


@pytest.mark.parametrize("codec", ["JPEG baseline", "JPEG lossless 12", "JPEG-LS 12", "JPEG 2000 12", "RLE 12"])
def test_a_cut_codestream_is_refused_even_if_its_fragment_is_whole(codec: str) -> None:
    syntax, bits, encode, _ = CODECS[codec]
    frame = encode(film(bits))
    for share in (0.02, 0.3, 0.9):
        refused(packed(frame[: int(len(frame) * share)], film(bits), bits, syntax), "DICOM|truncated")


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED, BASELINE])
def test_a_file_cut_anywhere_is_refused(syntax: str) -> None:
    stored_HW = film(8)[:8, :8]
    data = native(stored_HW, 8, syntax, WindowCenter=128, WindowWidth=256) if syntax != BASELINE else (
        packed(imagecodecs.jpeg8_encode(stored_HW), stored_HW, 8, syntax)
    )  # fmt: skip
    decode_dicom(data, MAX_PIXELS)
    for length in range(132, len(data) - 8):
        refused(data[:length], "DICOM|truncated")


def test_bytes_of_big_endian_words_are_swapped_back() -> None:
    stored_HW = film(8)[:36]
    dataset = header(stored_HW.shape, 8, PixelData=stored_HW.tobytes())
    dataset["PixelData"].VR = "OB"
    data = write(dataset, BIG)
    pairs = stored_HW.reshape(-1, 2)[:, ::-1].tobytes()
    swapped = data.replace(b"\x7f\xe0\0\x10OB", b"\x7f\xe0\0\x10OW").replace(stored_HW.tobytes(), pairs)
    for each in (data, swapped):
        check(decode_dicom(each, MAX_PIXELS), stored_HW, bits=8)


def test_lengths_that_are_not_the_pixels_are_refused() -> None:
    dataset = header((37, 51), 8, PixelData=film(8).tobytes() * 2)
    dataset["PixelData"].VR = "OB"
    refused(write(dataset), r"3774 bytes of pixel data \(7FE0,0010\), expected 1887 for its Rows")
    dataset.PixelData = film(8).tobytes()[:1000]
    refused(write(dataset), "1000 bytes of pixel data .* expected 1887")
    extra = struct.pack("<HH2sHL", 0x0040, 0x0001, b"OB", 0, 0xFFFFFFF0)
    refused(before_pixels(native(film(8), 8), extra), "element of 4294967280 bytes where")
    refused(native(film(8), 8)[:132], "without pixel data")


def test_no_pixel_data_or_an_unknown_syntax_is_refused_plainly() -> None:
    refused(write(header((37, 51), 8)), "without pixel data")
    data = native(film(8), 8)
    assert "unknown" in refused(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.99999.1.2.1\0"), "transfer syntax")
    refused(packed(b"\0\0", film(8), 8, f"{PREFIX}.4.102"), "MPEG-4")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_changed_bytes_give_a_picture_or_a_reason_and_nothing_else(draw: st.DataObject) -> None:
    stored_HW = film(12)[:9, :11]
    codec = draw.draw(st.sampled_from(["none", "deflated", *CODECS]))
    if codec in ("none", "deflated"):
        extra = {"VOILUTSequence": [lut(np.arange(300), 0, 12)], "RescaleSlope": 1, "RescaleIntercept": 0}
        data = bytearray(native(stored_HW, 12, EXPLICIT if codec == "none" else DEFLATED, **extra))
    else:
        syntax, bits, encode, _ = CODECS[codec]
        stored_HW = film(bits)[:9, :11]
        data = bytearray(packed(encode(np.ascontiguousarray(stored_HW)), stored_HW, bits, syntax))
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(132, len(data) - 1))
        data[at] = draw.draw(st.integers(0, 255))
    try:
        found = decode_dicom(bytes(data), 1 << 16)
    except RadiographError as error:
        assert ", expected " in str(error)
    else:
        assert found.grey_HW.size <= 1 << 16


def test_pydicom_is_not_imported_until_a_dicom_file_is_met() -> None:
    program = "import sys, loaders.convert.convert; assert not {'pydicom', 'imagecodecs'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY, timeout=120)


# ---- conversion


@pytest.fixture
def clinic(tmp_path: Path) -> Path:
    """Phantoms as DICOM, two images a patient, with a name in every tag that may hold one."""
    table = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=24, images_per_patient=2, size=48, seed=3))
    for number, line in enumerate(table.read_text().splitlines()[1:]):
        path, label = line.split(",")[:2]
        with Image.open(table.parent / path) as image:
            grey_HW = np.asarray(image.convert("L"))
        names = {"PatientName", "InstitutionName", "StudyDescription", "SeriesDescription", "StudyID", "OperatorsName"}
        tags = dict.fromkeys(names, CANARY) | {"WindowCenterWidthExplanation": CANARY, "ImageComments": CANARY}
        view = "PA" if number % 2 else CANARY[:6]
        data = native(grey_HW, 8, PatientID=f"{CANARY}{number // 2}", ViewPosition=view, **tags)
        out = tmp_path / "source" / label / f"{number:03}.dcm"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(data)
    bad = native(grey_HW, 8, PatientID=CANARY, Modality="CANARY", PhotometricInterpretation=CANARY)
    (tmp_path / "source" / label / "bad.dcm").write_bytes(bad)
    return tmp_path / "source"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_conversion_groups_by_patient_and_copies_no_tag_into_any_output(clinic: Path, workers: int) -> None:
    key_file = clinic.parent / "site.key"
    out = clinic.parent / "out"
    done = convert(
        ConvertConfig(
            catalog=CatalogConfig(source=clinic), out=out, size=32, workers=workers, site_key=key_file, holdout=0.2
        )
    )
    assert done.counts["rejected"] == 1 and done.counts["written"] + done.counts["duplicate"] == done.files - 1
    assert "patients-unknown" not in {found.code for found in done.cautions}
    by_number: dict[int, set[int]] = {}
    for row in done.rows:
        if row.verdict == "written":
            by_number.setdefault(int(Path(row.entry.path).stem) // 2, set()).add(row.group)
    assert all(len(groups) == 1 for groups in by_number.values())
    key = load_site_key(key_file)
    known = {patient_hash(key, f"{CANARY}{number}").tobytes() for number in by_number}
    found = set()
    for split in done.samples:
        with Beton(out / f"{split}.beton") as beton:
            assert (beton.rows_N["flags"] & PATIENT_KNOWN).all()
            assert beton.facts.views == ("", "PA")
            found |= {row.tobytes() for row in beton.rows_N["patient_hash"]}
    assert found == known
    files = [path for path in out.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} >= {".beton", ".csv", ".png"}
    for path in files:
        data = path.read_bytes()
        assert b"CANARY" not in data.upper() and "CANARY".encode("utf-16-le") not in data, path
    digests = {hashlib.sha256(f"{CANARY}{number}".encode()).digest()[:16] for number in by_number}
    assert not digests & found  # a hash without the key would reveal the patient


def test_sex_and_age_are_the_tables_or_else_the_files_own(tmp_path: Path) -> None:
    own = {"PatientSex": "F", "PatientAge": "058Y"}
    cells = (",", "unknown,411", "M,23", "M,", "O,030Y", ",") * 4
    rows = ["path,label,patient,sex,age"]
    for number, cell in enumerate(cells):
        tags = own if number % 6 < 5 else {}
        grey_HW = np.random.default_rng(number).integers(0, 256, (48, 48), np.uint8)
        (tmp_path / f"{number}.dcm").write_bytes(native(grey_HW, 8, **tags))
        rows.append(f"{number}.dcm,{'ab'[number // 6 % 2]},p{number},{cell}")
    table = tmp_path / "table.csv"
    table.write_text("\n".join(rows))
    settings = {"size": 32, "workers": 1, "site_key": tmp_path / "key", "keep_demographics": True}
    done = convert(ConvertConfig(catalog=CatalogConfig(manifest=table), out=tmp_path / "out", **settings))
    found = [(SEXES[row.sex], AGES[row.age]) for row in done.rows]
    filed = ("female", "50-59")
    assert found == [filed, filed, ("male", "20-29"), ("male", "50-59"), ("other", "30-39"), ("", "")] * 4


def test_the_catalogs_patient_and_view_win_over_the_files(clinic: Path) -> None:
    rows = ["path,label,patient,view"]
    for path in sorted(clinic.rglob("*.dcm")):
        if path.stem != "bad":
            rows.append(f"{path.relative_to(clinic.parent)},{path.parent.name},mine{int(path.stem) // 2},AP")
    table = clinic.parent / "table.csv"
    table.write_text("\n".join(rows) + "\n")
    key_file = clinic.parent / "site.key"
    done = convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=table), out=clinic.parent / "out", size=32, workers=1, site_key=key_file
        )
    )
    key = load_site_key(key_file)
    mine = {patient_hash(key, f"mine{number}").tobytes() for number in range(24)}
    with Beton(done.out / "train.beton") as beton:
        assert beton.facts.views == ("", "AP")
        assert {row.tobytes() for row in beton.rows_N["patient_hash"]} <= mine
