"""The elements of a DICOM file: their structure is checked and bounded before pydicom reads them."""

import contextlib
import logging
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from pydicom.datadict import dictionary_description
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID_dictionary

from loaders.images.files import refuse

META_START = 132  # after the preamble and DICM
MAX_ELEMENTS, MAX_OPEN = 20_000, 64  # a radiograph has a few hundred, seldom more than 3 sequences deep
MAX_INFLATED = 1 << 28  # 64 megapixels of 16-bit grey, twice; zlib needs as much again to put its parts together
UNDEFINED = 0xFFFFFFFF
PIXEL_DATA, MODALITY_LUTS, VOI_LUTS = 0x7FE00010, 0x00283000, 0x00283010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
VR = re.compile(rb"[A-Z]{2}")  # PS3.5 section 6.2: value representations have capital letters only
PRIVATE_VR = re.compile(rb"[A-Za-z]{2}|\?\?|--|  |\0\0")  # what writers put before the short length of private elements
DECIMAL = re.compile(r"[+-]?(\d{1,32}\.?\d{0,32}|\.\d{1,32})([eE][+-]?0{0,8}\d{1,2})?", re.ASCII)
NO_NUMBER = re.compile(r"([+-]?(nan|inf|infinity|1[.]#\w{1,9}))?", re.ASCII | re.IGNORECASE)  # 1.#QNAN: of C on Windows
LONG_LENGTH = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # PS3.5 7.1.2
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
GROUPS = (0x0002, 0x0008, 0x0010, 0x0018, 0x0028, 0x2050, *range(0x6000, 0x6020, 2))  # all that is ever asked for


@dataclass(frozen=True, kw_only=True, slots=True)
class Dicom:
    """A file whose elements are sound.  dataset: those of GROUPS.  body: the bytes of elements and pixels.

    little: whether numbers have their low byte first.
    pixels_at, pixels_length: where the pixel data's value is in body; the length is UNDEFINED for fragments.
    notes: how the film was understood where its file is unusual; whoever reads a part of it adds to them.
    """

    dataset: Dataset
    syntax: str
    little: bool
    body: bytes
    pixels_at: int
    pixels_length: int
    notes: list[str]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's warnings about odd files: they may quote tags.  For processes, not threads."""
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def read_dicom(data: bytes, syntaxes: frozenset[str]) -> Dicom:
    """Read the elements before the pixel data, and find the pixels.

    syntaxes: the transfer syntaxes that can be decoded.  Inflates at most MAX_INFLATED bytes; hands pydicom no more
    than MAX_ELEMENTS elements, nested at most MAX_OPEN sequences and items deep, and no private ones.
    A file may lack its preamble and its transfer syntax; whether it is explicit its first element shows, as to pydicom.
    Errors: RadiographError for an unknown transfer syntax, wrong lengths, deep nesting, a deflate bomb, or no pixel
    data.  Source: DICOM PS3.10 section 7.1, PS3.5 sections 7 and A.
    """
    start = META_START if data[128:META_START] == b"DICM" else 0
    notes, syntax, group_ends = [] if start else ["no preamble"], "", start
    if data[start : start + 2] == b"\2\0":
        group_ends, meta = walk(data, start, implicit=not VR.match(data, start + 4), little=True, only_group=2)
        syntax = text(read_dataset(BytesIO(meta), not VR.match(meta, 4), True), 0x00020010)
    if not syntax:
        notes.append("no transfer syntax")
        little_endian = EXPLICIT if VR.match(data, group_ends + 4) else IMPLICIT
        syntax = BIG_ENDIAN if data[group_ends : group_ends + 1] == b"\0" else little_endian
    if syntax not in syntaxes:
        name = UID_dictionary[syntax][0] if syntax in UID_dictionary else "an unknown transfer syntax"
        expected = "uncompressed, JPEG, JPEG-LS, JPEG 2000 or RLE"
        raise refuse(f"DICOM in {name} (0002,0010)", expected, "dicom-pixels", "export it in one of these")
    body, start = (inflate(data, group_ends), 0) if syntax == DEFLATED else (data, group_ends)
    implicit, little = not VR.match(body, start + 4), syntax != BIG_ENDIAN
    if implicit != (syntax == IMPLICIT):
        notes.append(f"{'implicit' if implicit else 'explicit'} VR whatever the transfer syntax")
    at, elements = walk(body, start, implicit=implicit, little=little)
    if at == len(body):
        raise refuse("DICOM without pixel data", "one with an image", "no-image")
    long_header = not implicit and body[at + 4 : at + 6] in LONG_LENGTH
    length_at = at + (8 if long_header else 4 if implicit else 6)
    width = 4 if implicit or long_header else 2
    value_at = length_at + width
    length = int.from_bytes(body[length_at:value_at], "little" if little else "big")
    if length != UNDEFINED and value_at + length > len(body):
        raise refuse(f"truncated DICOM ({len(body) - value_at} of {length} bytes of pixel data)", "a whole one", "cut")
    if implicit == bool(VR.match(elements, 4)):  # pydicom would switch to it, unchecked
        raise refuse("DICOM whose elements are implicit and explicit by turns", "one encoding")
    return Dicom(
        dataset=read_dataset(BytesIO(elements), implicit, little), syntax=syntax, little=little, body=body,
        pixels_at=value_at, pixels_length=length, notes=notes,
    )  # fmt: skip


def inflate(data: bytes, start: int) -> bytes:
    """The inflated rest of the file.  Errors: RadiographError for more than MAX_INFLATED bytes, or a cut stream."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    body = stream.decompress(memoryview(data)[start:], MAX_INFLATED)
    if not stream.eof:
        if stream.unconsumed_tail:
            found = f"DICOM that inflates to more than {MAX_INFLATED} bytes"
            raise refuse(found, "less", "too-large", "remove it from the source")
        raise refuse("truncated DICOM (its deflated stream has no end)", "a whole one", "cut")
    return body


def walk(body: bytes, start: int, *, implicit: bool, little: bool, only_group: int | None = None) -> tuple[int, bytes]:
    """Step over all elements before the pixel data, and into sequences of undefined length and those of LUTs.

    Gives where the pixel data's tag is, or the end; with only_group where that group ends; and the elements of GROUPS.
    Errors: RadiographError for lengths that lead outside, unbalanced or deep nesting, or too many elements.
    """
    order, at, end = "<" if little else ">", start, len(body)
    cut = refuse(f"truncated DICOM ({end} bytes, cut within its elements)", "a whole one", "cut")
    kept, began, needed = [], at, False
    opened: list[tuple[int, bool]] = []  # of each open sequence or item: where it ends or UNDEFINED, whether fragments
    for _ in range(MAX_ELEMENTS):
        while opened and opened[-1][0] == at:
            opened.pop()
        if needed and not opened:
            kept.append(body[began:at])
        if at == end and not opened:
            return at, b"".join(kept)
        if at + 8 > end:
            raise cut
        group, element, length = struct.unpack_from(order + "HHL", body, at)
        tag, vr = group << 16 | element, body[at + 4 : at + 6]
        private = not opened and group % 2 == 1
        if not opened:
            if tag == PIXEL_DATA or only_group not in (None, group):
                return at, b"".join(kept)
            began, needed = at, group in GROUPS
        at += 8
        into = fragments = False
        if tag == ITEM:
            if not opened:
                raise refuse("DICOM with an item outside a sequence", "balanced sequences")
            into = not opened[-1][1]
        elif tag in (ITEM_END, SEQUENCE_END):
            if not opened or opened.pop()[0] != UNDEFINED:
                raise refuse("DICOM with a sequence that ends twice", "balanced sequences")
            length = 0
        else:
            explicit = not implicit and (PRIVATE_VR if private else VR).match(vr) is not None
            if explicit:
                if vr in LONG_LENGTH:
                    if at + 4 > end:
                        raise cut
                    length = struct.unpack_from(order + "L", body, at)[0]
                    at += 4
                else:
                    length = struct.unpack_from(order + "H", body, at - 2)[0]
            fragments = length == UNDEFINED and explicit and vr not in (b"SQ", b"UN")
            into = length == UNDEFINED or (tag in (MODALITY_LUTS, VOI_LUTS) and not opened)
        limit = next((ends for ends, _ in reversed(opened) if ends != UNDEFINED), end)
        if length != UNDEFINED and at + length > limit:
            raise refuse(f"DICOM with an element of {length} bytes where {limit - at} are left", "correct lengths")
        if into:
            opened.append((length if length == UNDEFINED else at + length, fragments))
            if len(opened) > MAX_OPEN:
                found = f"DICOM with sequences more than {MAX_OPEN // 2} deep"
                raise refuse(found, "fewer", "too-large", "remove nested sequences")
        elif length == UNDEFINED:
            raise refuse("DICOM with a fragment of undefined length", "correct lengths")
        else:
            at += length
    raise refuse(f"DICOM of more than {MAX_ELEMENTS} elements", "fewer", "too-large", "remove private sequences")


# ---- values, from raw bytes: pydicom's own conversions warn, guess and quote tags


def raw(dataset: Dataset, tag: int) -> bytes:
    """An element's bytes, or none if it is missing or a sequence."""
    element = dataset.get_item(tag)
    return element.value if element is not None and isinstance(element.value, bytes) else b""


def text(dataset: Dataset, tag: int) -> str:
    """An element's text without its padding, any undecodable byte kept as a surrogate; "" if it is missing."""
    return raw(dataset, tag).decode("utf-8", "surrogateescape").strip(" \0\t\r\n")


def named(tag: int) -> str:
    """The element's name in the standard, and its tag."""
    return f"{dictionary_description(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})"


def whole(dicom: Dicom, tag: int) -> int:
    """An unsigned short.  Errors: RadiographError unless it is there once."""
    value = raw(dicom.dataset, tag)
    if len(value) != 2:
        raise refuse(f"DICOM with {len(value)} bytes of {named(tag)}", "one number, 2 bytes", "dicom-header")
    return int.from_bytes(value, "little" if dicom.little else "big")


def decimals(dicom: Dicom, tag: int) -> list[float]:
    """Decimal strings (PS3.5 section 6.2), NaN where one is empty or not finite; a decimal comma is a point, noted.

    Errors: RadiographError for what is no number.
    """
    found, numbers = text(dicom.dataset, tag), []
    for part in map(str.strip, found.split("\\") if found else []):
        if NO_NUMBER.fullmatch(part):
            numbers.append(math.nan)
        elif DECIMAL.fullmatch(part.replace(",", ".")):
            numbers.append(float(part.replace(",", ".")))
        else:
            raise refuse(f"DICOM whose {named(tag)} is no number", "a decimal such as -4.096E3", "dicom-header")
    if "," in found:
        dicom.notes.append(f"decimal comma in {named(tag)}")
    return numbers


def items(dicom: Dicom, tag: int) -> list[Dataset]:
    """A sequence's items; none if it is missing.  Errors: RadiographError for what is no sequence."""
    if tag not in dicom.dataset:
        return []
    value = dicom.dataset[tag].value
    if not isinstance(value, Sequence):
        raise refuse(f"DICOM whose {named(tag)} is no sequence", "a sequence of LUTs", "dicom-header")
    return list(value)
