"""Reading a beton: a memory map whose structure is checked at every open (docs/BETON.md)."""

# N samples, S side of a stored frame, B bytes of the file

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import numpy as np
from crc32c import crc32c

from loaders.atomic_file import storage_error
from loaders.beton_footer import BLOCK, BLOCK_MAGIC, ROW, TAIL, TAIL_MAGIC, Facts, header_crc, parse_footer
from loaders.beton_format import (
    ALLOCATION,
    DESCRIPTOR,
    HEADER,
    MIN_PAGE_SIZE,
    TYPE_INT,
    TYPE_NDARRAY,
    VERSION,
    Field,
    first_page,
    metadata_dtype,
    metadata_start,
    parse_descriptor,
)
from loaders.errors import BetonError, ConfigError

REMEDY = "convert the radiographs again"


class Beton:
    """An open beton.  Owns the memory map; close it, or use `with`.

    bytes_B: uint8, the whole file.  offset_N: int64, each frame's first byte.  label_N: int64.
    rows_N: beton_footer.ROW, one a sample.  facts: of the whole set.  verified: False for a foreign file.
    Errors: BetonError naming the place; StorageError when it cannot be opened.
    """

    def __init__(self, path: str | Path, *, trust_unverified: bool = False) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:  # an empty file cannot be mapped
            raise BetonError(f"{path}: 0 bytes, expected a beton; {REMEDY}") from error
        except OSError as error:
            raise storage_error(self.path, error) from error
        self.bytes_B = np.frombuffer(self._map, np.uint8)
        try:
            self._open(trust_unverified)
        except BaseException:
            self.close()
            raise

    def _bad(self, what: str) -> BetonError:
        return BetonError(f"{self.path}: {what}; {REMEDY}")

    def _take(self, start: int, dtype: np.dtype, count: int, what: str) -> np.ndarray:
        """Copy `count` records from byte `start`, which may be unaligned."""
        end = start + count * dtype.itemsize
        if end > self.bytes_B.size:
            raise self._bad(
                f"{what} ends at byte {end}, the file at {self.bytes_B.size}: truncated, expected all of it"
            )
        return np.frombuffer(self.bytes_B[start:end].tobytes(), dtype)

    def _open(self, trust_unverified: bool) -> None:
        header = self._take(0, HEADER, 1, "header")[0]
        if header["version"] != VERSION:
            raise self._bad(f"format version {header['version']}, expected {VERSION}")
        num_fields, self.page_size = int(header["num_fields"]), int(header["page_size"])
        self.num_samples, self.table_start = int(header["num_samples"]), int(header["alloc_table_ptr"])
        if not 1 <= num_fields <= 64:
            raise self._bad(f"{num_fields} fields, expected 1 to 64")
        if self.page_size < MIN_PAGE_SIZE or self.page_size & (self.page_size - 1):
            raise self._bad(f"page size {self.page_size}, expected a power of two of at least {MIN_PAGE_SIZE}")
        if self.num_samples < 1:
            raise self._bad("no samples, expected at least one")
        descriptors = self._take(HEADER.itemsize, DESCRIPTOR, num_fields, "field descriptors")
        fields = [parse_descriptor(row, f"{self.path}: field {i}") for i, row in enumerate(descriptors)]
        self.side, label_index = self._check_fields(fields)
        row_dtype = metadata_dtype(fields)
        start = metadata_start(num_fields)
        metadata_N = self._take(start, row_dtype, self.num_samples, "metadata")
        self.metadata_end = start + metadata_N.nbytes
        self.pages_start = first_page(num_fields, self.num_samples, row_dtype.itemsize, self.page_size)

        footer = self._find_footer(header.tobytes(), descriptors, label_index)
        self.pages_end = self.table_start - footer.size
        self._check_pages(foreign=footer.size == 0)
        table_size = self.bytes_B.size - self.table_start
        if table_size != self.num_samples * ALLOCATION.itemsize:  # an ndarray and an int own one region a sample
            raise self._bad(
                f"allocation table of {table_size} bytes, expected {self.num_samples * ALLOCATION.itemsize}: "
                "truncated, or something follows it"
            )
        allocation = self._take(self.table_start, ALLOCATION, self.num_samples, "allocation table")
        self.offset_N = self._check_regions(metadata_N["image"], allocation)
        self.label_N = metadata_N["label"].astype(np.int64)
        self.verified = footer.size > 0
        if self.verified:
            self.facts, self.rows_N, crcs = parse_footer(footer, self.num_samples, str(self.path))
            if crc32c(metadata_N.tobytes()) != crcs["metadata_crc"]:
                raise self._bad("metadata checksum differs from the expected")
            if crc32c(allocation.tobytes()) != crcs["allocation_crc"]:
                raise self._bad("allocation table checksum differs from the expected")
            self._check_facts()
        else:
            if not trust_unverified:
                raise BetonError(
                    f"{self.path}: no plainfilm footer: written by another program, so nothing vouches for its bytes, "
                    "expected plainfilm's; "
                    "convert the radiographs, or pass --trust-unverified"
                )
            self.facts = self._foreign_facts()
            self.rows_N = np.zeros(self.num_samples, ROW)

    def _check_fields(self, fields: list[Field]) -> tuple[int, int]:
        by_name = {field.name: (index, field) for index, field in enumerate(fields)}
        if len(by_name) != len(fields) or not {"image", "label"} <= by_name.keys():
            raise self._bad(f"fields {', '.join(f.name for f in fields)}, expected image and label")
        image, (label_index, label) = by_name["image"][1], by_name["label"]
        if image.type_id != TYPE_NDARRAY or image.dtype != np.uint8 or len(image.shape) != 2:
            raise self._bad(f"image is {image.dtype} of shape {image.shape}, expected a two-dimensional uint8 ndarray")
        if image.shape[0] != image.shape[1] or not 1 <= image.shape[0] ** 2 <= self.page_size:
            raise self._bad(f"frames of {image.shape[0]}×{image.shape[1]}, expected squares that fit in a page")
        if label.type_id != TYPE_INT:
            raise self._bad(f"label has field type {label.type_id}, expected an int")
        return image.shape[0], label_index

    def _find_footer(self, header: bytes, descriptors: np.ndarray, label_index: int) -> np.ndarray:
        """The footer's bytes, CRC checked; empty for a foreign file, which has neither magic."""
        if not self.pages_start <= self.table_start <= self.bytes_B.size:
            raise self._bad(
                f"allocation table at byte {self.table_start} of {self.bytes_B.size}: truncated, expected all of it"
            )
        arguments = descriptors["arguments"][label_index]
        block = np.frombuffer(arguments[: BLOCK.itemsize].tobytes(), BLOCK)[0]
        tail = self._take(max(self.table_start - TAIL.itemsize, 0), TAIL, 1, "footer")[0]
        if block["magic"] != BLOCK_MAGIC and tail["magic"] != TAIL_MAGIC:
            return self.bytes_B[:0]
        if block["magic"] != BLOCK_MAGIC or tail["magic"] != TAIL_MAGIC:
            raise self._bad("one of the footer's two marks is missing, expected both")
        start, size = int(block["ptr"]), int(block["size"])
        if size != int(tail["size"]) or start + size != self.table_start or start < self.pages_start:
            raise self._bad(f"footer of {size} bytes at {start}, expected to end at the table, byte {self.table_start}")
        if arguments[BLOCK.itemsize :].any():
            raise self._bad("the footer's pointer block is not padded with the expected zeros")
        if header_crc(header, descriptors, label_index) != block["header_crc"]:
            raise self._bad("header checksum differs from the expected")
        footer = self.bytes_B[start : self.table_start]
        if crc32c(footer.data) != block["footer_crc"]:
            raise self._bad("footer checksum differs from the expected")
        return np.frombuffer(footer.tobytes(), np.uint8)

    def _check_pages(self, foreign: bool) -> None:
        if (self.pages_end - self.pages_start) % self.page_size:
            what = "a gap where a footer should be" if foreign else "pages of broken length"
            raise self._bad(f"{what} before byte {self.table_start}, expected whole pages")

    def _check_regions(self, ptr_N: np.ndarray, allocation: np.ndarray) -> np.ndarray:
        """Check that every frame lies in the pages, in one page, apart from the others, and in the table."""
        size = self.side**2
        if int(ptr_N.min()) < self.pages_start or int(ptr_N.max()) > self.pages_end - size:
            raise self._bad(f"a frame lies outside the pages, expected at bytes {self.pages_start} to {self.pages_end}")
        if (ptr_N // self.page_size != (ptr_N + (size - 1)) // self.page_size).any():
            raise self._bad("a frame crosses a page, expected in one")
        if (np.diff(np.sort(ptr_N)) < size).any():
            raise self._bad("two frames overlap, expected apart")
        order = np.argsort(allocation["ptr"], kind="stable")
        place_N = np.searchsorted(allocation["ptr"], ptr_N, sorter=order)
        found = allocation[order[np.minimum(place_N, len(order) - 1)]]
        sample_N = np.arange(self.num_samples, dtype=np.uint64)
        if (
            not len(found)
            or not ((found["ptr"] == ptr_N) & (found["size"] == size) & (found["sample_id"] == sample_N)).all()
        ):
            raise self._bad("the allocation table does not match the metadata, expected the same frames")
        return ptr_N.astype(np.int64)

    def _check_facts(self) -> None:
        facts = self.facts
        if facts.stored != self.side or not 1 <= facts.crop <= facts.stored or (facts.stored - facts.crop) % 2:
            raise self._bad(
                f"footer tells of frames {facts.stored} and crops {facts.crop}, expected frames {self.side}"
            )
        if facts.positive not in facts.classes:
            raise self._bad(f"positive class {facts.positive}, expected one of {', '.join(facts.classes)}")
        if self.label_N.min() < 0 or self.label_N.max() >= len(facts.classes):
            raise self._bad(
                f"labels {self.label_N.min()} to {self.label_N.max()}, expected 0 to {len(facts.classes) - 1}"
            )
        if self.rows_N["view"].max() >= len(facts.views) or self.rows_N["source"].max() >= len(facts.sources):
            raise self._bad("a row names a view or source, expected one that the footer lists")

    def _foreign_facts(self) -> Facts:
        if self.label_N.min() < 0 or self.label_N.max() >= 1024:
            raise self._bad(f"labels {self.label_N.min()} to {self.label_N.max()}, expected 0 to 1023")
        classes = tuple(f"class {label}" for label in range(int(self.label_N.max()) + 1))
        return Facts(
            classes=classes,
            positive=classes[0],
            stored=self.side,
            crop=self.side - 2 * round(0.15 * self.side),
            fit="unknown",
            split="unknown",
            seed=0,
            conversion_id="",
            site_key_id="",
            source_fingerprint="",
        )

    def frame(self, sample: int) -> np.ndarray:
        """One stored frame, uint8 (S, S), a read-only view of the map."""
        start = int(self.offset_N[sample])
        return self.bytes_B[start : start + self.side**2].reshape(self.side, self.side)

    def check_sample(self, sample: int) -> None:
        """Compare one frame with its CRC; nothing to compare in a foreign file.  Errors: BetonError."""
        if self.verified and crc32c(self.frame(sample).data) != self.rows_N["crc"][sample]:
            raise self._bad(f"sample {sample}: checksum differs from the expected: its pixels are not what was written")

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Check every frame's CRC, and that whatever belongs to nothing is zero.  Errors: BetonError, ConfigError."""
        if not self.verified:
            raise ConfigError(f"{self.path}: a foreign beton has no checksums to verify; {REMEDY}")
        for sample in range(self.num_samples):
            self.check_sample(sample)
            if progress is not None:
                progress(sample + 1, self.num_samples)
        begins = np.sort(self.offset_N)
        ends = np.concatenate([[self.metadata_end], begins + self.side**2])
        begins = np.concatenate([begins, [self.pages_end]])
        for begin, end in zip(ends, begins, strict=True):  # the gaps between frames
            if self.bytes_B[begin:end].any():
                raise self._bad(f"padding at bytes {begin} to {end} is not zero, as expected")

    def close(self) -> None:
        """Give the map back; arrays that callers kept keep it alive."""
        for name in ("bytes_B", "offset_N", "label_N", "rows_N"):
            self.__dict__.pop(name, None)
        self.__dict__.pop("_map", None)

    def __len__(self) -> int:
        return self.num_samples

    def __enter__(self) -> Beton:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
