"""The memory map of a beton: its tables, footer and regions, checked, and whether the file has changed since."""

# N samples, R regions, B bytes of the file

import contextlib
import errno
import mmap
import os
import stat
import weakref
from pathlib import Path

import numpy as np
from crc32c import crc32c

from loaders.atomic_file import storage_error
from loaders.beton.format import (
    ALLOCATION,
    BLOCK,
    BLOCK_MAGIC,
    DESCRIPTOR,
    HEADER,
    MIN_PAGE_SIZE,
    TAIL,
    TAIL_MAGIC,
    VERSION,
    Field,
    first_page,
    header_crc,
    metadata_dtype,
    metadata_start,
    parse_descriptor,
)
from loaders.errors import BetonError


class BetonMap:
    """An FFCV file.  Owns the memory map; `close` releases it, once no other array views it.

    bytes_B: uint8, the whole file.  header: HEADER.  descriptors: DESCRIPTOR, one for each field.  fields: as parsed.
    metadata_N: a row for each sample, a column for each field.  region_R: ALLOCATION.  Both are read-only views and
    may be unaligned.
    metadata_end, pages_start, table_start: offsets in bytes; a file of numbers only has no page between the last
    two, and its table may begin before pages_start.
    remedy: the end of every error.  Errors: BetonError naming the file; StorageError when it cannot be opened.
    The regions are checked by sorted_regions.
    """

    def __init__(self, path: str | Path, remedy: str) -> None:
        self.path, self.remedy = Path(path), remedy
        try:
            self._descriptor, self._status = open_regular(self.path)
        except OSError as error:
            raise storage_error(self.path, error) from error
        try:
            if not self._status.st_size:  # an empty file cannot be mapped
                raise self.bad("0 bytes, expected a beton")
            self._mapped = mmap.mmap(self._descriptor, self._status.st_size, access=mmap.ACCESS_READ)
        except BaseException as error:
            os.close(self._descriptor)
            if isinstance(error, OSError):
                raise storage_error(self.path, error) from error
            if isinstance(error, ValueError):
                raise self.bad(f"cut below {self._status.st_size} bytes while it was opened, expected all") from error
            raise
        weakref.finalize(self._mapped, os.close, self._descriptor).atexit = False
        self.bytes_B = np.frombuffer(self._mapped, np.uint8)
        try:
            self._read_tables()
        except BaseException:
            self.close()
            raise

    def _read_tables(self) -> None:
        self.header = header = self.view(0, HEADER, 1, "header")[0]
        if header["version"] != VERSION:
            raise self.bad(f"format version {header['version']}, expected {VERSION}")
        num_fields, self.page_size = int(header["num_fields"]), int(header["page_size"])
        self.num_samples, self.table_start = int(header["num_samples"]), int(header["alloc_table_ptr"])
        if num_fields < 1:
            raise self.bad("no fields, expected at least one")
        if self.page_size < MIN_PAGE_SIZE or self.page_size & (self.page_size - 1):
            raise self.bad(f"page size {self.page_size}, expected a power of two of at least {MIN_PAGE_SIZE}")
        if self.num_samples < 1:
            raise self.bad("no samples, expected at least one")
        self.descriptors = self.view(HEADER.itemsize, DESCRIPTOR, num_fields, "field descriptors")
        self.fields = self._parse_fields()
        row_dtype, start = metadata_dtype(self.fields), metadata_start(num_fields)
        self.metadata_N = self.view(start, row_dtype, self.num_samples, "metadata")
        self.metadata_end = start + self.metadata_N.nbytes
        self.pages_start = first_page(num_fields, self.num_samples, row_dtype.itemsize, self.page_size)
        self.region_R = self._view_table()

    def bad(self, what: str) -> BetonError:
        """An error with what was found and expected."""
        return BetonError(f"{self.path}: {what}; {self.remedy}")

    def view(self, start: int, dtype: np.dtype, count: int, what: str) -> np.ndarray:
        """View `count` records from byte `start`, which may be unaligned.  Errors: BetonError beyond the file's end."""
        end = start + count * dtype.itemsize
        if end > self.bytes_B.size:
            raise self.bad(f"{what} ends at byte {end}, the file at {self.bytes_B.size}: truncated, expected all of it")
        return self.bytes_B[start:end].view(dtype)

    def _parse_fields(self) -> list[Field]:
        fields = [
            parse_descriptor(row, f"{self.path}: field {i}", self.remedy) for i, row in enumerate(self.descriptors)
        ]
        names = [field.name for field in fields]
        if "" in names or len(set(names)) < len(names):
            raise self.bad(f"fields {', '.join(map(repr, names))}, expected names that differ")
        for field in fields:
            # no side above a page, even beside a zero: numpy multiplies them all
            sides = [max(side, 1) for side in field.shape]
            if field.dtype is not None and max(field.array_size, *sides, 1) > self.page_size:
                raise self.bad(f"field {field.name}: arrays of shape {field.shape}, expected to fit in a page")
        return fields

    def _view_table(self) -> np.ndarray:
        """The allocation table: it ends where the file does, and FFCV gives each value outside the metadata one row."""
        start, end = self.table_start, self.bytes_B.size
        if not self.metadata_end <= start <= end:
            raise self.bad(f"allocation table at byte {start} of {end}: truncated, expected all of it")
        num_regions = self.num_samples * sum(field.has_region for field in self.fields)
        expected = num_regions * ALLOCATION.itemsize
        if end - start != expected:
            what = "truncated, or something follows it"
            raise self.bad(f"allocation table of {end - start} bytes, expected {expected}: {what}")
        return self.view(start, ALLOCATION, num_regions, "allocation table")

    def check_unchanged(self) -> None:
        """Errors: BetonError when the open file has been written in place since it was opened, or cut short.

        To be called before the map is read, since SIGBUS ends a reader beyond a cut file's end; and after, since
        between that end and its page's it reads zeros.  A rename over the path changes nothing here.
        """
        mapped = self.__dict__.get("_mapped")  # a reference, so that no other thread closes the descriptor meanwhile
        if mapped is None:
            return
        then, now = self._status, os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            raise BetonError(
                f"{self.path}: written in place while it was read, {now.st_size} bytes now, expected the "
                f"{then.st_size} that were opened, untouched; {self.remedy}, and replace files only by renaming"
            )

    def advise(self, advice: str, start: int, num_bytes: int) -> None:
        """Advise the system about these bytes: MADV_WILLNEED to read them ahead, MADV_DONTNEED to release them.

        start: a multiple of the system's page size.
        """
        if hasattr(mmap, advice):
            with contextlib.suppress(OSError):  # this system does not take it; the bytes are there all the same
                self._mapped.madvise(getattr(mmap, advice), start, num_bytes)

    def close(self) -> None:
        """Release the map and every view of it; the file is closed with the last."""
        for name in ("_mapped", "bytes_B", "header", "descriptors", "metadata_N", "region_R"):
            self.__dict__.pop(name, None)


def open_regular(path: Path) -> tuple[int, os.stat_result]:
    """A descriptor of a regular file, and its status; never waits on a FIFO, touches no device.  Errors: OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status
    os.close(descriptor)
    raise OSError(errno.EISDIR, "Is a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file")


def find_footer(source: BetonMap) -> np.ndarray:
    """The footer's bytes, CRC checked, a view; empty for a foreign file, without magic numbers.  Errors: BetonError."""
    arguments = source.descriptors["arguments"][-1]
    block = arguments[: BLOCK.itemsize].view(BLOCK)[0]
    tail = source.view(source.table_start - TAIL.itemsize, TAIL, 1, "footer")[0]
    if block["magic"] != BLOCK_MAGIC and tail["magic"] != TAIL_MAGIC:
        return source.bytes_B[:0]
    if block["magic"] != BLOCK_MAGIC or tail["magic"] != TAIL_MAGIC:
        raise source.bad("one of the footer's two marks is missing, expected both")
    start, size = int(block["ptr"]), int(block["size"])
    if size != int(tail["size"]) or start + size != source.table_start or start < source.pages_start:
        found = f"footer of {size} bytes at {start}"
        raise source.bad(f"{found}, expected to end at the table, byte {source.table_start}")
    if arguments[BLOCK.itemsize :].any():
        raise source.bad("the footer's pointer block is not padded with the expected zeros")
    if header_crc(source.header.tobytes(), source.descriptors) != block["header_crc"]:
        raise source.bad("header checksum differs from the expected")
    footer = source.bytes_B[start : source.table_start]
    if crc32c(footer.data) != block["footer_crc"]:
        raise source.bad("footer checksum differs from the expected")
    return footer


def sorted_regions(source: BetonMap, pages_end: int) -> np.ndarray:
    """The regions of at least one byte in file order, ALLOCATION; a view where the table has that order.

    Each is between pages_start and pages_end, inside one page, apart from the others, and has a sample.
    FFCV points empty regions anywhere, even before the first page; nothing reads them.
    Errors: BetonError naming the sample.
    """
    region_R = source.region_R
    if not region_R["size"].all():
        region_R = region_R[region_R["size"] > 0]
    ptr_R, size_R = region_R["ptr"].copy(), region_R["size"].copy()  # contiguous: these checks are half of opening

    def refuse(wrong_R: np.ndarray, what: str) -> None:
        if wrong_R.any():
            sample, ptr, size = region_R[int(wrong_R.argmax())].tolist()
            raise source.bad(f"sample {sample}: its region of {size} bytes at byte {ptr} {what}")

    outside_R = (ptr_R < source.pages_start) | (ptr_R >= pages_end)
    refuse(outside_R, f"lies outside the pages, expected at bytes {source.pages_start} to {pages_end}")
    last_R = ptr_R + (size_R - 1)  # where this wraps around 2**64, the size is larger than any page
    crosses_R = (size_R > source.page_size) | ((ptr_R ^ last_R) >= source.page_size)
    refuse(crosses_R, "crosses a page, expected in one")
    refuse(region_R["sample_id"] >= source.num_samples, f"has no sample, expected one of {source.num_samples}")
    if (ptr_R[1:] < ptr_R[:-1]).any():
        order = np.argsort(ptr_R, kind="stable")
        region_R, ptr_R, last_R = region_R[order], ptr_R[order], last_R[order]
    refuse(np.append(False, ptr_R[1:] <= last_R[:-1]), "overlaps another, expected apart")
    return region_R


def first_missing(region_R: np.ndarray, ptr_N: np.ndarray, size: int) -> int | None:
    """The first sample whose region of `size` bytes at ptr_N the table lacks, or None.  region_R: of sorted_regions."""
    if not len(region_R):
        return 0 if len(ptr_N) else None
    if len(region_R) == len(ptr_N) and (region_R["ptr"] == ptr_N).all():  # the order of plainfilm's own files
        found_N = region_R
    else:
        place_N = np.searchsorted(region_R["ptr"], ptr_N)
        found_N = region_R[np.minimum(place_N, len(region_R) - 1)]
    sample_N = np.arange(len(ptr_N), dtype=np.uint64)
    found = (found_N["ptr"] == ptr_N) & (found_N["size"] == size) & (found_N["sample_id"] == sample_N)
    return None if found.all() else int(found.argmin())
