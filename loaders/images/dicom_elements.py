"""The elements of a DICOM file: their structure is checked and bounded before pydicom reads them."""

import contextlib
import logging
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

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
DECIMAL = re.compile(r"[+-]?(\d{1,32}\.?\d{0,32}|\.\d{1,32})([eE][+-]?\d{1,2})?", re.ASCII)
LONG_LENGTH = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # PS3.5 7.1.2
IMPLICIT, DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Dicom:
    """A file whose elements are sound.  dataset: all before the pixel data.  body: the bytes of elements and pixels.

    little: whether numbers have their low byte first.
    pixels_at, pixels_length: where the pixel data's value is in body; the length is UNDEFINED for fragments.
    """

    dataset: Dataset
    syntax: str
    little: bool
    body: bytes
    pixels_at: int
    pixels_length: int


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
    than MAX_ELEMENTS elements, nested at most MAX_OPEN sequences and items deep.
    Errors: RadiographError for no preamble, an unknown or missing transfer syntax, wrong lengths, deep nesting, a
    deflate bomb, or no pixel data.  Source: DICOM PS3.10 section 7.1, PS3.5 sections 7 and A.
    """
    if data[128:META_START] != b"DICM":
        remedy = "export it again as a DICOM file (PS3.10)"
        raise refuse("DICOM without the 128-byte preamble", "a DICOM file", "dicom-header", remedy)
    group_ends = walk(data, META_START, implicit=False, little=True, only_group=2)
    syntax = text(read_dataset(BytesIO(data[META_START:group_ends]), False, True), 0x00020010)
    if syntax not in syntaxes:
        name = UID_dictionary[syntax][0] if syntax in UID_dictionary else "an unknown transfer syntax"
        found = f"DICOM in {name}" if syntax else "DICOM without a transfer syntax"
        expected = "uncompressed, JPEG, JPEG-LS, JPEG 2000 or RLE"
        raise refuse(found, expected, "dicom-pixels", "export it in one of these")
    body, start = (inflate(data, group_ends), 0) if syntax == DEFLATED else (data, group_ends)
    implicit, little = syntax == IMPLICIT, syntax != BIG_ENDIAN
    at = walk(body, start, implicit=implicit, little=little)
    if at == len(body):
        raise refuse("DICOM without pixel data", "one with an image", "no-image")
    long_header = not implicit and body[at + 4 : at + 6] in LONG_LENGTH
    length_at = at + (8 if long_header else 4 if implicit else 6)
    width = 4 if implicit or long_header else 2
    value_at = length_at + width
    length = int.from_bytes(body[length_at:value_at], "little" if little else "big")
    if length != UNDEFINED and value_at + length > len(body):
        raise refuse(f"truncated DICOM ({len(body) - value_at} of {length} bytes of pixel data)", "a whole one", "cut")
    dataset = read_dataset(BytesIO(body[start:at]), implicit, little)
    return Dicom(dataset=dataset, syntax=syntax, little=little, body=body, pixels_at=value_at, pixels_length=length)


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


def walk(body: bytes, start: int, *, implicit: bool, little: bool, only_group: int | None = None) -> int:
    """Step over all elements before the pixel data, and into sequences of undefined length and those of LUTs.

    Gives where the pixel data's tag is, or the end; with only_group where that group ends.  Builds nothing.
    Errors: RadiographError for lengths that lead outside, unbalanced or deep nesting, or too many elements.
    """
    order, at, end = "<" if little else ">", start, len(body)
    cut = refuse(f"truncated DICOM ({end} bytes, cut within its elements)", "a whole one", "cut")
    if at + 6 <= end and implicit == bool(VR.match(body, at + 4)):  # pydicom would switch to it, unchecked
        raise refuse("DICOM whose elements are not encoded in its transfer syntax", "one encoding")
    opened: list[tuple[int, bool]] = []  # of each open sequence or item: where it ends or UNDEFINED, whether fragments
    for _ in range(MAX_ELEMENTS):
        while opened and opened[-1][0] == at:
            opened.pop()
        if at == end and not opened:
            return at
        if at + 8 > end:
            raise cut
        group, element, length = struct.unpack_from(order + "HHL", body, at)
        tag, vr = group << 16 | element, body[at + 4 : at + 6]
        if not opened and (tag == PIXEL_DATA or only_group not in (None, group)):
            return at
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
            explicit = not implicit and VR.match(vr) is not None
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
    return raw(dataset, tag).decode("utf-8", "surrogateescape").strip(" \0")


def whole(dataset: Dataset, tag: int, name: str, little: bool) -> int:
    """An unsigned short.  Errors: RadiographError unless it is there once."""
    value = raw(dataset, tag)
    if len(value) != 2:
        raise refuse(f"DICOM without one value of {name}", "one", "dicom-header")
    return int.from_bytes(value, "little" if little else "big")


def decimals(dataset: Dataset, tag: int, name: str) -> list[float]:
    """Decimal strings (PS3.5 section 6.2).  Errors: RadiographError for what is no number."""
    found = text(dataset, tag)
    parts = [part.strip() for part in found.split("\\")] if found else []
    if not all(map(DECIMAL.fullmatch, parts)):
        raise refuse(f"DICOM with a {name} that is no number", "a decimal", "dicom-header")
    return [float(part) for part in parts]


def items(dataset: Dataset, tag: int, name: str) -> list[Dataset]:
    """A sequence's items; none if it is missing.  Errors: RadiographError for what is no sequence."""
    if tag not in dataset:
        return []
    value = dataset[tag].value
    if not isinstance(value, Sequence):
        raise refuse(f"DICOM with a {name} that is no sequence", "a sequence", "dicom-header")
    return list(value)
