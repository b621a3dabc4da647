"""Fields of any FFCV 1.0.2 beton, value by value, such as other programs write, read without FFCV (docs/BETON.md)."""

# N samples, H W rows and columns of an image, R regions, B bytes

import io
import json
from bisect import bisect_left
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from loaders.beton.format import RGB_JPEG, RGB_RAW, TYPE_FLOAT, TYPE_JSON, TYPE_RGB, Field
from loaders.beton.map import BetonMap, sorted_regions
from loaders.errors import ConfigError
from loaders.images.files import DECODER_ERRORS

REMEDY = "write the beton again"
MAX_JPEG_PIXELS = 1 << 26  # a few bytes can claim four billion


class FieldReader:
    """An open beton of float, int, RGB, bytes, ndarray, JSON and tensor fields.  Owns the memory map; use `with`.

    names: of the fields, in the file's order.  num_samples.
    Checks structure at opening, but no checksums, not even of plainfilm's own betons: loaders.beton.reader does.
    Errors: BetonError naming file, field and sample; StorageError when the file cannot be opened;
    ConfigError for a field or sample that the beton does not have.
    """

    def __init__(self, path: str | Path) -> None:
        self._map = BetonMap(path, REMEDY)
        self.path, self.num_samples = self._map.path, self._map.num_samples
        self._fields = {field.name: field for field in self._map.fields}
        self.names = tuple(self._fields)
        whole_pages = (self._map.table_start - self._map.pages_start) // self._map.page_size
        pages_end = self._map.pages_start + whole_pages * self._map.page_size  # a footer may follow
        self._region_R = sorted_regions(self._map, pages_end)

    def kind(self, name: str) -> str:
        """A field's type: one of loaders.beton.format.KINDS."""
        return self._field(name).kind

    def column(self, name: str) -> np.ndarray:
        """A field of numbers for all samples: float64 or int64 (N,)."""
        field = self._field(name)
        if field.has_region:
            raise ConfigError(f"{self.path}: field {name} is {field.kind}, expected float or int; read it with value()")
        self._map.check_unchanged()
        column_N = self._map.metadata_N[name].astype(np.float64 if field.type_id == TYPE_FLOAT else np.int64)
        self._map.check_unchanged()
        return column_N

    def value(self, name: str, sample: int) -> Any:
        """One value, which the caller may keep.

        float, int: of Python.  RGB image: uint8 (H, W, 3), red first.  bytes: uint8 (B,).
        ndarray, tensor: an array of the field's dtype and shape.  JSON: its content.
        """
        field = self._field(name)
        if not 0 <= sample < self.num_samples:
            expected = f"expected 0 to {self.num_samples - 1}; ask for one of those"
            raise ConfigError(f"{self.path}: sample {sample}, {expected}")
        self._map.check_unchanged()
        found = self._map.metadata_N[name][sample]
        try:
            value = self._read(field, sample, found) if field.has_region else found.item()
            self._map.check_unchanged()
            return value
        except (ValueError, RecursionError) as error:
            what = f"field {name}, sample {sample}: {error}, expected a sound {field.kind}"
            raise self._map.bad(what) from error

    def _field(self, name: str) -> Field:
        if name not in self._fields:
            expected = f"expected one of {', '.join(self.names)}; ask for one of those"
            raise ConfigError(f"{self.path}: field {name}, {expected}")
        return self._fields[name]

    def _read(self, field: Field, sample: int, found: Any) -> Any:
        """A value from its region.  found: its metadata.  Errors: ValueError, RecursionError."""
        if field.dtype is not None:
            return self._region(sample, int(found), field.array_size).view(field.dtype).reshape(field.shape)
        if field.type_id == TYPE_RGB:
            mode, height, width, ptr = (int(found[name]) for name in ("mode", "height", "width", "ptr"))
            if mode == RGB_RAW:
                return self._region(sample, ptr, height * width * 3).reshape(height, width, 3)
            if mode == RGB_JPEG:
                return decode_jpeg(self._region(sample, ptr).tobytes(), height, width)
            raise ValueError(f"mode {mode}, expected {RGB_JPEG} for JPEG or {RGB_RAW} for raw")
        bytes_B = self._region(sample, int(found["ptr"]), int(found["size"]))
        return unpack_json(bytes_B.tobytes()) if field.type_id == TYPE_JSON else bytes_B

    def _region(self, sample: int, ptr: int, size: int | None = None) -> np.ndarray:
        """A copy of a sample's region at byte ptr, uint8; size: None for any.  Errors: ValueError."""
        if size == 0:
            return np.empty(0, np.uint8)
        place = bisect_left(self._region_R["ptr"], ptr)
        for owner, begin, listed in self._region_R[place : place + 1].tolist():  # one or none
            if (owner, begin) == (sample, ptr) and size in (None, listed):
                return self._map.bytes_B[ptr : ptr + listed].copy()
        wanted = "a region" if size is None else f"{size} bytes"
        raise ValueError(f"{wanted} at byte {ptr}, which the allocation table does not list for this sample")

    def close(self) -> None:
        """Release the map."""
        self._map.close()
        self.__dict__.pop("_region_R", None)

    def __len__(self) -> int:
        return self.num_samples

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def decode_jpeg(content: bytes, height: int, width: int) -> np.ndarray:
    """Decode a JPEG of a known size by Pillow: uint8 (H, W, 3), red first.  Errors: ValueError."""
    if height * width > MAX_JPEG_PIXELS:
        raise ValueError(f"a JPEG of {width}×{height} pixels, above the limit of {MAX_JPEG_PIXELS}")
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
            found = image.size
            if found == (width, height):
                return np.array(image.convert("RGB"))
    except (*DECODER_ERRORS, Image.DecompressionBombError) as error:
        raise ValueError(f"unreadable JPEG: {error}") from error
    raise ValueError(f"a JPEG of {found[0]}×{found[1]} pixels, not {width}×{height}")


def unpack_json(content: bytes) -> Any:
    """The content of a JSON field: UTF-8, ended by a zero byte.  Errors: ValueError, RecursionError."""
    text, end, _ = content.partition(b"\0")
    if not end:
        raise ValueError("no zero byte at the end")
    return json.loads(text.decode("utf-8"))
