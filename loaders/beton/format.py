"""The beton format as bytes: FFCV's header, fields and tables, and plainfilm's footer (docs/BETON.md)."""

# N samples, K findings

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from crc32c import crc32c

from loaders.config import FORMER_ALGORITHM, FrameMode, Task
from loaders.errors import BetonError

VERSION = 2
MIN_PAGE_SIZE = 1 << 21
TYPE_FLOAT, TYPE_INT, TYPE_RGB, TYPE_BYTES, TYPE_NDARRAY, TYPE_JSON, TYPE_TENSOR = range(7)
TYPE_CUSTOM = 255
KINDS = ("float", "int", "RGB image", "bytes", "ndarray", "JSON", "tensor")  # by type id
RGB_JPEG, RGB_RAW = 0, 1  # modes of an RGB image
HEADER = np.dtype(
    [("version", "<u2"), ("num_fields", "<u2"), ("page_size", "<u4"), ("num_samples", "<u8"),
     ("alloc_table_ptr", "<u8")]
)  # fmt: skip
DESCRIPTOR = np.dtype([("type_id", "u1"), ("name", "u1", 16), ("arguments", "u1", 1024)])
ALLOCATION = np.dtype([("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")])
NDARRAY_ARGUMENTS = np.dtype([("shape", "<u8", 32), ("type_length", "<u8")])
RGB_METADATA = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("ptr", "<u8")])  # packed: 13 bytes
SIZED_METADATA = np.dtype([("ptr", "<u8"), ("size", "<u8")])
METADATA = {
    TYPE_FLOAT: np.dtype("<f8"),
    TYPE_INT: np.dtype("<i8"),
    TYPE_RGB: RGB_METADATA,
    TYPE_BYTES: SIZED_METADATA,
    TYPE_NDARRAY: np.dtype("<u8"),
    TYPE_JSON: SIZED_METADATA,
    TYPE_TENSOR: np.dtype("<u8"),
}
# one type of dtype.descr: "<f4", "<M8[ns]"
_TYPE_CODE = re.compile(r"[<>|][biufcmMSUV]\d{1,9}(\[([1-9]\d{0,8})?[A-Za-z]+\])?")
BLOCK_MAGIC = b"PLNFILM\x01"
HEAD_MAGIC = b"PLNFOOT\x01"
TAIL_MAGIC = b"PLNFEND\x01"
BLOCK = np.dtype([("magic", "S8"), ("ptr", "<u8"), ("size", "<u8"), ("footer_crc", "<u4"), ("header_crc", "<u4")])
HEAD = np.dtype(
    [("magic", "S8"), ("facts_size", "<u8"), ("num_samples", "<u8"), ("metadata_crc", "<u4"), ("allocation_crc", "<u4")]
)
TAIL = np.dtype([("size", "<u8"), ("magic", "S8")])
ROW = np.dtype(
    [("pixel_hash", "u1", 16), ("patient_hash", "u1", 16), ("crc", "<u4"), ("group", "<u4"), ("view", "<u2"),
     ("source", "<u2"), ("flags", "<u4")]
)  # fmt: skip
FINDING = np.dtype("<f4")  # 1 present, 0 absent, NaN unknown
NO_LABEL = -1  # of every sample of the task findings
PATIENT_KNOWN, BELOW_STORED_SIDE = 1, 2  # flags
SEXES = ("", "female", "male", "other")  # by the code in bits 2 and 3 of flags
AGES = ("", *(f"{decade}0-{decade}9" if decade else "0-9" for decade in range(9)), "90 and above")  # bits 4 to 7
FOOTER_VERSION = 5  # the newest; 1 has no demographics, 2 no findings, 3 no lungs alone, 4 pixels hashed by BLAKE2b
TASK_FACTS = ("task", "uncertain", "blank", "findings_crc")  # of findings
LUNG_FACTS = ("lungs", "segmenter")  # of frames that show the lungs alone
GIVEN = "given"  # the segmenter of masks that were given as files


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One field of a beton; dtype and shape only for ndarrays and tensors."""

    name: str
    type_id: int
    dtype: np.dtype | None = None
    shape: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """The name of the type."""
        return KINDS[self.type_id]

    @property
    def has_region(self) -> bool:
        """Whether values are regions of pages; else they are in the metadata."""
        return self.type_id not in (TYPE_FLOAT, TYPE_INT)

    @property
    def array_size(self) -> int:
        """Bytes of one ndarray or tensor."""
        assert self.dtype is not None
        return math.prod(self.shape) * self.dtype.itemsize


def metadata_dtype(fields: list[Field]) -> np.dtype:
    """The row of the metadata table, laid out as FFCV does: `align=True`."""
    return np.dtype([(field.name, METADATA[field.type_id]) for field in fields], align=True)


def metadata_start(num_fields: int) -> int:
    """First byte of the metadata table."""
    return HEADER.itemsize + num_fields * DESCRIPTOR.itemsize


def first_page(num_fields: int, num_samples: int, row_size: int, page_size: int) -> int:
    """First byte of the first page: the metadata's end, rounded up to whole pages."""
    end = metadata_start(num_fields) + num_samples * row_size
    return -(-end // page_size) * page_size


def frame_fields(side: int, num_findings: int = 0) -> list[Field]:
    """The fields that plainfilm writes: image, square frames; findings, if there are any; and label."""
    image = Field(name="image", type_id=TYPE_NDARRAY, dtype=np.dtype("u1"), shape=(side, side))
    findings = Field(name="findings", type_id=TYPE_NDARRAY, dtype=FINDING, shape=(num_findings,))
    return [image, *([findings] if num_findings else []), Field(name="label", type_id=TYPE_INT)]


def pack_head(fields: list[Field], num_samples: int, page_size: int, pages_end: int, footer: bytes) -> bytes:
    """Header and descriptors of frame_fields, with the footer's block in the label's arguments."""
    header = np.array((VERSION, len(fields), page_size, num_samples, pages_end + len(footer)), HEADER).tobytes()
    descriptors = np.zeros(len(fields), DESCRIPTOR)
    for index, field in enumerate(fields):
        descriptors["type_id"][index] = field.type_id
        descriptors["name"][index, : len(field.name)] = np.frombuffer(field.name.encode("ascii"), np.uint8)
        if field.dtype is not None:
            arguments = np.zeros(1, NDARRAY_ARGUMENTS)
            description = json.dumps([["", field.dtype.str]]).encode("ascii")  # what FFCV writes for dtype.descr
            arguments["shape"][0, : len(field.shape)] = field.shape
            arguments["type_length"] = len(description)
            packed = np.frombuffer(arguments.tobytes() + description, np.uint8)
            descriptors["arguments"][index, : packed.size] = packed
    crcs = crc32c(footer), header_crc(header, descriptors)
    block = np.array((BLOCK_MAGIC, pages_end, len(footer), *crcs), BLOCK)
    descriptors["arguments"][-1, : BLOCK.itemsize] = np.frombuffer(block.tobytes(), np.uint8)
    return header + descriptors.tobytes()


def parse_descriptor(descriptor: np.void, where: str, remedy: str) -> Field:
    """Read one descriptor.  where: the file and field in errors; remedy: the end of errors.  Errors: BetonError."""
    type_id = int(descriptor["type_id"])
    if type_id == TYPE_CUSTOM:
        found = "a custom field, whose layout only its program knows"
        raise BetonError(f"{where}: {found}, expected types 0 to 6; {remedy}")
    if type_id not in METADATA:
        raise BetonError(f"{where}: field type {type_id}, expected 0 to 6; {remedy}")
    try:
        name = descriptor["name"].tobytes().decode("ascii").split("\0")[0]
    except ValueError as error:
        raise BetonError(f"{where}: unreadable name ({error}), expected ASCII; {remedy}") from error
    if type_id not in (TYPE_NDARRAY, TYPE_TENSOR):
        return Field(name=name, type_id=type_id)
    packed = descriptor["arguments"].tobytes()
    arguments = np.frombuffer(packed, NDARRAY_ARGUMENTS, 1)[0]
    try:
        description = packed[NDARRAY_ARGUMENTS.itemsize :][: min(int(arguments["type_length"]), len(packed))]
        dtype = parse_dtype(json.loads(description.decode("ascii")))
        shape = tuple(np.trim_zeros(arguments["shape"], "b").tolist())
        return Field(name=name, type_id=type_id, dtype=dtype, shape=shape)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BetonError(f"{where}: unreadable arguments ({error}), expected a shape and a dtype; {remedy}") from error


def parse_dtype(description: object) -> np.dtype:
    """The dtype in the JSON of `dtype.descr`: one unnamed entry, or the named fields of a structure.

    Errors: ValueError, TypeError or OverflowError for anything else, Python objects and empty types included.
    """
    match description:
        case str() if _TYPE_CODE.fullmatch(description):  # numpy would also take "O", and whole expressions
            dtype = np.dtype(description)
        case [["", code]]:
            dtype = parse_dtype(code)
        case [_, *_] as entries:
            dtype = _parse_structure(entries)
        case _:
            raise ValueError(f"dtype {description}")
    if dtype.itemsize == 0 or dtype.names == ():
        raise ValueError(f"dtype {description} of nothing")
    return dtype


def _parse_structure(entries: Sequence[object]) -> np.dtype:
    """A structured dtype; unnamed entries are its padding."""
    names, formats, offsets, offset = [], [], [], 0
    for entry in entries:
        match entry:
            case [str(name), code]:
                dtype = parse_dtype(code)
            case [str(name), code, list(shape)]:
                dtype = np.dtype((parse_dtype(code), tuple(shape)))
            case _:
                raise ValueError(f"dtype with the entry {entry}")
        if name:
            names.append(name)
            formats.append(dtype)
            offsets.append(offset)
        offset += dtype.itemsize
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": offset})


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Facts about a whole beton; no file names, no patient identifiers.

    task: classes, one label a film, an index into classes; or findings, of which classes has the names, with a value
    each.  positive: the positive class of every metric; "" of findings, each of which is its own.
    stored, crop: sides of the stored frames and of the central crop in pixels.  fit: how frames became square.
    split: train, val or heldout.  seed: of the split.  conversion_id: the same for all betons of one conversion.
    site_key_id: identifier of the site key of the patient hashes, which are comparable only under the same key.
    hash_algorithm: of the pixel hashes, which are comparable only under the same one; "" of a foreign beton.
    source_fingerprint: hash of the decoded pixels and labels of the whole conversion.
    views, sources: view positions and sources that rows refer to.  synthetic: every image is a phantom.
    versions: of the software that decoded and wrote it.  demographics: the rows' flags have sex and age.
    uncertain, blank: finding → what became of a table's uncertain and empty cells: present, absent or unknown.
    findings_crc: CRC32C of all values of the findings, sample by sample.
    lungs: whether frames show the lungs alone, and how.  segmenter: the identity of what found them, or "given"; of
    frames that `crossval` changed, its split.
    """

    classes: tuple[str, ...]
    positive: str
    stored: int
    crop: int
    fit: str
    split: str
    seed: int
    conversion_id: str
    site_key_id: str
    source_fingerprint: str
    views: tuple[str, ...] = ("",)
    sources: tuple[str, ...] = ("",)
    synthetic: bool = False
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    # a conversion's id is made of the repr of the facts above
    demographics: bool = dataclasses.field(default=False, repr=False)
    task: Task = dataclasses.field(default="classes", repr=False)
    uncertain: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    blank: dict[str, str] = dataclasses.field(default_factory=dict, repr=False)
    findings_crc: int = dataclasses.field(default=0, repr=False, compare=False)
    lungs: FrameMode = dataclasses.field(default="off", repr=False)
    segmenter: str = dataclasses.field(default="", repr=False)
    hash_algorithm: str = dataclasses.field(default=FORMER_ALGORITHM, repr=False)

    @property
    def num_findings(self) -> int:
        """Values of each sample's field findings; 0 of the task classes, which has no such field."""
        return len(self.classes) if self.task == "findings" else 0


class Versioned(msgspec.Struct):
    """The version of a footer, in its facts; the first had none there."""

    footer_version: Annotated[int, msgspec.Meta(ge=1)] = 1


def sexes_and_ages(rows_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sex and the age of each row, places in SEXES and AGES: uint32 (N,) each."""
    return rows_N["flags"] >> 2 & 3, rows_N["flags"] >> 4 & 15


def frames_text(lungs: str, segmenter: str) -> str:
    """What frames show, for a person, to follow "frames show"; as of Facts."""
    if lungs == "off":
        return "whole films"
    if lungs == "crossval":
        return f"what `crossval` shows in its split {segmenter}"
    by = "as given masks have them" if segmenter == GIVEN else f"as segmenter {segmenter} finds them"
    return f"the lungs alone ({lungs}), {by}"


def conversion_text(facts: Facts) -> str:
    """A conversion, for a person, with what its frames show if not whole films."""
    shown = "" if facts.lungs == "off" else f" (--lungs {facts.lungs}, {facts.segmenter})"
    return f"conversion {facts.conversion_id or 'unknown'}{shown}"


def demographic_flags(sex: int, age: int) -> int:
    """The flags of a sex and an age, places in SEXES and AGES."""
    return sex << 2 | age << 4


def pack_footer(facts: Facts, rows_N: np.ndarray, metadata_crc: int, allocation_crc: int) -> bytes:
    """The footer's bytes, a multiple of eight, of the lowest version that has what the facts hold.

    Any plainfilm reads version 1, which has neither demographics nor findings, whole frames, and pixels hashed by
    BLAKE2b.  An older one must not read hashes of another kind: it would compare them, and find that none is equal.
    """
    listed, version = dataclasses.asdict(facts), 1
    for has, names, needed in (
        (facts.demographics, ("demographics",), 2),
        (facts.task == "findings", TASK_FACTS, 3),
        (facts.lungs != "off", LUNG_FACTS, 4),
        (facts.hash_algorithm != FORMER_ALGORITHM, ("hash_algorithm",), 5),
    ):
        if has:
            version = needed
        else:
            listed = {name: value for name, value in listed.items() if name not in names}
    if facts.task == "findings":
        listed["demographics"] = facts.demographics
    if version > 1:
        listed["footer_version"] = version
    text = json.dumps(listed, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)  # JSON ignores trailing blanks
    head = np.array((HEAD_MAGIC, len(text), len(rows_N), metadata_crc, allocation_crc), HEAD)
    content = head.tobytes() + text + rows_N.tobytes()
    return content + np.array((len(content) + TAIL.itemsize, TAIL_MAGIC), TAIL).tobytes()


def read_facts(packed: np.ndarray, where: str) -> tuple[dict[str, Any], np.void]:
    """The facts of a footer of any version, as JSON, and its head.  packed: its bytes, uint8, whose CRC was checked.

    Errors: BetonError for a damaged footer, and for one of a newer version, whose facts and rows may be others.
    """
    if packed.size < HEAD.itemsize + TAIL.itemsize:
        raise bad_footer(where, f"of {packed.size} bytes, expected at least {HEAD.itemsize + TAIL.itemsize}")
    head = packed[: HEAD.itemsize].view(HEAD)[0]
    if head["magic"] != HEAD_MAGIC.rstrip(b"\0"):
        raise bad_footer(where, f"begins with {bytes(head['magic'])!r}, expected {HEAD_MAGIC!r}")
    try:
        text = packed[HEAD.itemsize : HEAD.itemsize + int(head["facts_size"])]
        content = json.loads(text.tobytes())  # msgspec would refuse lone surrogates
        version = msgspec.convert(content, Versioned).footer_version
    except (ValueError, RecursionError, msgspec.ValidationError) as error:
        raise bad_footer(where, f"has unreadable facts ({error}), expected JSON") from error
    if version > FOOTER_VERSION:
        found = f"written by a newer plainfilm (footer version {version})"
        raise BetonError(f"{where}: {found}, expected at most {FOOTER_VERSION}; update plainfilm")
    return content, head


def parse_footer(packed: np.ndarray, num_samples: int, where: str) -> tuple[Facts, np.ndarray, np.void]:
    """Facts, rows_N and the head of a footer.  Errors: as read_facts."""
    content, head = read_facts(packed, where)
    if int(head["num_samples"]) != num_samples:
        raise bad_footer(where, f"has {int(head['num_samples'])} samples, expected the header's {num_samples}")
    facts_size = int(head["facts_size"])
    rows_start = HEAD.itemsize + facts_size
    if rows_start + num_samples * ROW.itemsize + TAIL.itemsize != packed.size:
        raise bad_footer(where, f"of {packed.size} bytes, expected {num_samples} rows and {facts_size} bytes of facts")
    try:
        facts = msgspec.convert(content, Facts)
        if unknown := content.keys() - {*Facts.__slots__, *Versioned.__struct_fields__}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
    except (ValueError, msgspec.ValidationError) as error:
        raise bad_footer(where, f"has unreadable facts ({error}), expected JSON") from error
    return facts, packed[rows_start : packed.size - TAIL.itemsize].view(ROW), head


def bad_footer(where: str, what: str) -> BetonError:
    """The error of a damaged footer."""
    return BetonError(f"{where}: footer {what}; convert the radiographs again")


def header_crc(header: bytes, descriptors: np.ndarray) -> int:
    """CRC32C of header and descriptors, the last one's arguments counted as zero (they hold this very number)."""
    blank = descriptors.copy()
    blank["arguments"][-1] = 0
    return crc32c(blank.tobytes(), crc32c(header))
