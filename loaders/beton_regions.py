"""The regions of a beton, where the values outside the metadata lie: the allocation table, checked and searched."""

# N samples, R regions

from __future__ import annotations

from bisect import bisect_left

import numpy as np

from loaders.beton_map import BetonMap


def sorted_regions(source: BetonMap, pages_end: int) -> np.ndarray:
    """The regions of at least one byte in the order of the file, ALLOCATION; a view where the table has that order.

    Each lies between pages_start and pages_end, whole pages apart, in one page, clear of the others, and has a sample.
    FFCV points regions of no bytes anywhere, even before the first page; nothing reads them.
    Errors: BetonError naming the sample.
    """
    region_R = source.region_R
    if not region_R["size"].all():
        region_R = region_R[region_R["size"] > 0]
    ptr_R, size_R = region_R["ptr"].copy(), region_R["size"].copy()  # contiguous: these checks are half of opening

    def refuse(wrong_R: np.ndarray, what: str) -> None:
        if wrong_R.any():
            found = region_R[int(wrong_R.argmax())]
            raise source.bad(
                f"sample {found['sample_id']}: its region of {found['size']} bytes at byte {found['ptr']} {what}"
            )

    outside_R = (ptr_R < source.pages_start) | (ptr_R >= pages_end)
    refuse(outside_R, f"lies outside the pages, expected at bytes {source.pages_start} to {pages_end}")
    refuse(size_R > source.page_size, "crosses a page, expected in one")
    last_R = ptr_R + (size_R - 1)  # cannot wrap around 2**64 any more
    refuse((ptr_R ^ last_R) >= source.page_size, "crosses a page, expected in one")
    refuse(region_R["sample_id"] >= source.num_samples, f"has no sample, expected one of {source.num_samples}")
    if (ptr_R[1:] < ptr_R[:-1]).any():
        order = np.argsort(ptr_R, kind="stable")
        region_R, ptr_R, last_R = region_R[order], ptr_R[order], last_R[order]
    refuse(np.append(False, ptr_R[1:] <= last_R[:-1]), "overlaps another, expected apart")
    return region_R


def find_region(region_R: np.ndarray, sample: int, ptr: int) -> int | None:
    """The size of a sample's region at byte ptr; None when the table has none.  region_R: of sorted_regions."""
    place = bisect_left(region_R["ptr"], ptr)
    if place == len(region_R) or region_R["ptr"][place] != ptr or region_R["sample_id"][place] != sample:
        return None
    return int(region_R["size"][place])


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
