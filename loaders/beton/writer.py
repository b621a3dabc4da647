"""Writing a beton or a subset of betons: pages, tables and footer, published atomically (docs/BETON.md)."""

# N samples, S side of a stored frame, K findings

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from crc32c import crc32c

from loaders.atomic_file import publish
from loaders.beton.format import (
    ALLOCATION,
    BELOW_STORED_SIDE,
    FINDING,
    NO_LABEL,
    PATIENT_KNOWN,
    Facts,
    conversion_text,
    first_page,
    frame_fields,
    metadata_dtype,
    pack_footer,
    pack_head,
)
from loaders.beton.reader import Beton
from loaders.config import FORMER_ALGORITHM
from loaders.errors import InputError, StorageError


def beton_size(num_samples: int, stored: int, page_size: int, num_findings: int = 0) -> int:
    """Upper bound of a beton's size in bytes, to check disk space in advance."""
    pages = 1 + sum(num_pages(num_samples, size, page_size) for size in (stored**2, num_findings * FINDING.itemsize))
    return page_size * pages + num_samples * 160 + 1_000_000


def num_pages(num_samples: int, size: int, page_size: int) -> int:
    """Pages that regions of one size fill, of which none crosses a page."""
    return -(-num_samples // max(1, page_size // size)) if size else 0


def place_regions(start: int, num_samples: int, size: int, page_size: int) -> np.ndarray:
    """The first byte of each sample's region in pages from start on, uint64 N."""
    sample_N, per_page = np.arange(num_samples, dtype=np.uint64), page_size // size
    return start + (sample_N // per_page) * page_size + (sample_N % per_page) * size


def write_beton(
    path: Path, frames: Iterable[np.ndarray], labels: np.ndarray, rows_N: np.ndarray, facts: Facts, page_size: int
) -> None:
    """Write frames and labels to path, atomically; read all back and verify before the file gets its name.

    frames: N uint8 arrays of (stored, stored), read once, in order.  labels: integers (N,); of the task findings
    float32 (N, K) of 1, 0 and NaN for unknown, which go to pages of their own behind the frames'.
    rows_N: loaders.beton.format.ROW; the CRC column is filled in here.  page_size: bytes, a power of two.
    Errors: InputError for no samples or a frame larger than a page; StorageError; BetonError if reading back fails.
    """
    num_samples, frame_size, num_findings = len(labels), facts.stored**2, facts.num_findings
    if num_samples == 0:
        raise InputError(f"{path}: no samples to write, expected at least one")
    if frame_size > page_size:
        expected = f"at most one page of {page_size}; use a larger --page-mib"
        raise InputError(f"{path}: a frame of {frame_size} bytes, expected {expected}")
    fields = frame_fields(facts.stored, num_findings)
    row_dtype = metadata_dtype(fields)
    start = first_page(len(fields), num_samples, row_dtype.itemsize, page_size)
    per_page = page_size // frame_size
    frames_end = pages_end = start + num_pages(num_samples, frame_size, page_size) * page_size

    metadata_N = np.zeros(num_samples, row_dtype)
    metadata_N["image"] = place_regions(start, num_samples, frame_size, page_size)
    regions = [(metadata_N["image"], frame_size)]
    if num_findings:
        finding_NK = np.ascontiguousarray(labels, FINDING)
        assert finding_NK.shape == (num_samples, num_findings)
        size = num_findings * FINDING.itemsize
        metadata_N["label"] = NO_LABEL
        metadata_N["findings"] = place_regions(frames_end, num_samples, size, page_size)
        regions.append((metadata_N["findings"], size))
        pages_end += num_pages(num_samples, size, page_size) * page_size
        facts = replace(facts, findings_crc=crc32c(finding_NK.tobytes()))
    else:
        metadata_N["label"] = labels
    allocation_N = np.zeros(num_samples * len(regions), ALLOCATION)  # in the order of the file
    allocation_N["sample_id"] = np.tile(np.arange(num_samples), len(regions))
    allocation_N["ptr"] = np.concatenate([ptr_N for ptr_N, _ in regions])
    allocation_N["size"] = np.repeat([size for _, size in regions], num_samples)
    rows_N = rows_N.copy()

    footer_size = len(pack_footer(facts, rows_N, 0, 0))
    with publish(path, verify_beton, size=pages_end + footer_size + allocation_N.nbytes) as file:
        # gaps are written as zeros: to read a hole takes room, and a bus error ends who does so on a full tmpfs
        file.write(bytes(start))
        page = np.zeros(page_size, np.uint8)
        for sample, frame_SS in zip(range(num_samples), frames, strict=True):
            assert frame_SS.dtype == np.uint8 and frame_SS.shape == (facts.stored, facts.stored)
            place = sample % per_page * frame_size
            page[place : place + frame_size] = frame_SS.reshape(-1)
            rows_N["crc"][sample] = crc32c(page[place : place + frame_size].data)
            if sample % per_page == per_page - 1 or sample == num_samples - 1:
                page[place + frame_size :] = 0
                file.write(page.data)
        if num_findings:
            for first in range(0, num_samples, page_size // size):
                values = finding_NK[first : first + page_size // size].tobytes()
                file.write(values + bytes(page_size - len(values)))

        footer = pack_footer(facts, rows_N, crc32c(metadata_N.tobytes()), crc32c(allocation_N.tobytes()))
        file.write(footer + allocation_N.tobytes())
        file.seek(0)
        head = pack_head(fields, num_samples, page_size, pages_end, footer)
        file.write(head + metadata_N.tobytes())
        assert len(head) + metadata_N.nbytes <= start


def verify_beton(path: Path) -> None:
    """Open and check every byte.  Errors: BetonError."""
    with Beton(path) as beton:
        beton.verify()


def subset_id(beton: Beton, purpose: str, *index_N: np.ndarray) -> str:
    """The conversion id of subsets of a beton's conversion, made for a purpose; index_N: the samples of each."""
    identity = hashlib.blake2b(f"{beton.facts.conversion_id}\0{purpose}\0".encode(), digest_size=16)
    for chosen_N in index_N:
        identity.update(len(chosen_N).to_bytes(8, "little") + chosen_N.astype("<i8").tobytes())
    return identity.hexdigest()


def check_own(beton: Beton) -> None:
    """Errors: InputError unless the beton is plainfilm's own."""
    if not beton.verified:
        found = "no plainfilm footer, so neither groups nor patients are known"
        raise InputError(f"{beton.path}: {found}, expected a beton of `convert`; convert the radiographs")


def check_same_conversion(betons: Sequence[Beton]) -> None:
    """Errors: InputError unless all betons are plainfilm's own and of one conversion."""
    first = betons[0]
    for beton in betons:
        check_own(beton)
        if replace(beton.facts, split="") != replace(first.facts, split=""):
            both = f"of {conversion_text(beton.facts)}, {first.path.name} of {conversion_text(first.facts)}"
            raise InputError(f"{beton.path}: {both}, expected one conversion; convert the radiographs again")


def check_same_algorithm(betons: Sequence[Beton]) -> None:
    """Errors: InputError unless all betons' pixels are hashed by one algorithm."""
    first = betons[0]
    for beton in betons:
        if (found := beton.facts.hash_algorithm) != (expected := first.facts.hash_algorithm):
            older = beton if found == FORMER_ALGORITHM else first
            raise InputError(
                f"{beton.path}: pixels are hashed by {found}, expected {expected}, as in {first.path}, since films of "
                f"both could not be told; convert the radiographs of {older.path.parent} again"
            )


def write_subset(
    sources: Sequence[tuple[Beton, np.ndarray]],
    path: Path,
    split: str,
    *,
    conversion_id: str | None = None,
    change: Callable[[np.ndarray, int], np.ndarray] | None = None,
    shows: str = "",
) -> None:
    """Write a beton of the chosen samples of each source, one source after the other, atomically.

    sources: verified betons of one conversion, each with index_N: the samples, in their new order.
    split: the name of the new set.  conversion_id: by default the sources' own.
    change: frame_SS, number in the new set → frame_SS, uint8; without it the bytes are copied.  Labels and rows stay:
    group, view, source, flags and both hashes; that of the pixels is still of the decoded radiograph.
    shows: the split of `crossval` for which frames are changed, so that nothing else takes them for whole films.
    Errors: InputError for betons of different conversions, or no samples; BetonError for a damaged frame; StorageError.
    """
    betons = [beton for beton, _ in sources]
    check_same_conversion(betons)
    labels = np.concatenate([beton.labels[index_N] for beton, index_N in sources])
    rows_N = np.concatenate([beton.rows_N[index_N] for beton, index_N in sources])
    facts = replace(betons[0].facts, split=split, conversion_id=conversion_id or betons[0].facts.conversion_id)
    facts = replace(facts, lungs="crossval", segmenter=shows) if shows else facts
    frames = checked_frames(sources)
    frames = map(change, frames, range(len(labels))) if change else frames
    write_beton(path, frames, labels, rows_N, facts, betons[0].page_size)


def checked_frames(sources: Sequence[tuple[Beton, np.ndarray]]) -> Iterator[np.ndarray]:
    """The chosen frames of each source.  Errors: BetonError for a damaged one, which would get a valid checksum."""
    for beton, index_N in sources:
        for sample in index_N.tolist():
            beton.check_samples(np.array([sample]))
            yield beton.frame(sample)
        beton.check_unchanged()  # since the last check


def write_union(betons: Sequence[Beton], group_N: np.ndarray, path: Path, split: str, conversion_id: str) -> None:
    """Write a beton of all samples of betons of several conversions with one task, atomically.

    group_N: of all samples, one after the other, since groups of different conversions may have the same numbers.
    Patients under another site key than the first beton's become unknown: their hashes cannot be compared.
    Errors: InputError for pixels hashed by different algorithms; BetonError for a damaged frame; StorageError.
    """
    check_same_algorithm(betons)
    views, sources = (
        tuple(dict.fromkeys(name for beton in betons for name in names(beton.facts)))
        for names in (lambda facts: facts.views, lambda facts: facts.sources)
    )
    first, parts = betons[0].facts, []
    demographics = all(beton.facts.demographics for beton in betons)
    for beton in betons:
        rows_N, facts = beton.rows_N.copy(), beton.facts
        rows_N["view"] = np.array([views.index(name) for name in facts.views])[rows_N["view"]]
        rows_N["source"] = np.array([sources.index(name) for name in facts.sources])[rows_N["source"]]
        if facts.site_key_id != first.site_key_id:
            rows_N["patient_hash"] = 0
        if not demographics:
            rows_N["flags"] &= PATIENT_KNOWN | BELOW_STORED_SIDE
        parts.append(rows_N)
    all_N = np.concatenate(parts)
    all_N["group"] = group_N
    facts = replace(
        first, split=split, conversion_id=conversion_id, source_fingerprint="", views=views, sources=sources,
        synthetic=all(beton.facts.synthetic for beton in betons), demographics=demographics,
    )  # fmt: skip
    labels = np.concatenate([beton.labels for beton in betons])
    frames = checked_frames([(beton, np.arange(len(beton))) for beton in betons])
    write_beton(path, frames, labels, all_N, facts, betons[0].page_size)


def check_room(folder: Path, needed: int) -> None:
    """Errors: StorageError when the disk of folder, which need not exist yet, has fewer bytes free."""
    existing = next(place for place in [folder, *folder.absolute().parents] if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StorageError(f"{folder}: {free:,} bytes free on the disk, expected {needed:,}; free some space")
