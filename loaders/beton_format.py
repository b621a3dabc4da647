"""The byte layout of a beton: FFCV 1.0.2's header, descriptors and tables (docs/BETON.md)."""

# N samples

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loaders.errors import BetonError

VERSION = 2
MIN_PAGE_SIZE = 1 << 21
TYPE_FLOAT, TYPE_INT, TYPE_RGB, TYPE_BYTES, TYPE_NDARRAY, TYPE_JSON, TYPE_TENSOR = range(7)
TYPE_CUSTOM = 255
KINDS = ("float", "int", "RGB image", "bytes", "ndarray", "JSON", "tensor")  # by type id
RGB_JPEG, RGB_RAW = 0, 1  # modes of an RGB image

HEADER = np.dtype(
    [
        ("version", "<u2"),
        ("num_fields", "<u2"),
        ("page_size", "<u4"),
        ("num_samples", "<u8"),
        ("alloc_table_ptr", "<u8"),
    ]
)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One field of a beton; dtype and shape only for ndarrays and tensors."""

    name: str
    type_id: int
    dtype: np.dtype | None = None
    shape: tuple[int, ...] = ()

    @property
    def kind(self) -> str:
        """The type in words."""
        return KINDS[self.type_id]

    @property
    def has_region(self) -> bool:
        """Whether each value is a region of a page; else it is in the metadata."""
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


def pack_descriptor(field: Field) -> np.ndarray:
    """A descriptor of one field.  Gives a DESCRIPTOR array of one."""
    descriptor = np.zeros(1, DESCRIPTOR)
    name = field.name.encode("ascii")
    descriptor["type_id"] = field.type_id
    descriptor["name"][0, : len(name)] = np.frombuffer(name, np.uint8)
    if field.type_id == TYPE_NDARRAY and field.dtype is not None:
        arguments = np.zeros(1, NDARRAY_ARGUMENTS)
        description = json.dumps([["", field.dtype.str]]).encode("ascii")  # what FFCV writes for dtype.descr
        arguments["shape"][0, : len(field.shape)] = field.shape
        arguments["type_length"] = len(description)
        packed = np.frombuffer(arguments.tobytes() + description, np.uint8)
        descriptor["arguments"][0, : packed.size] = packed
    return descriptor


def parse_descriptor(descriptor: np.void, where: str, remedy: str) -> Field:
    """Read one descriptor.  where: the file and field in errors; remedy: their last words.  Errors: BetonError."""
    type_id = int(descriptor["type_id"])
    if type_id == TYPE_CUSTOM:
        raise BetonError(
            f"{where}: a custom field, whose layout only its program knows, expected types 0 to 6; {remedy}"
        )
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
        shape = tuple(int(side) for side in arguments["shape"])
        while shape and shape[-1] == 0:
            shape = shape[:-1]
        return Field(name=name, type_id=type_id, dtype=dtype, shape=shape)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BetonError(f"{where}: unreadable arguments ({error}), expected a shape and a dtype; {remedy}") from error


def parse_dtype(description: object) -> np.dtype:
    """The dtype that the JSON of `dtype.descr` tells of: one unnamed entry, or the named fields of a structure.

    Errors: ValueError, TypeError or OverflowError for anything else; Python objects and types of nothing among it.
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
