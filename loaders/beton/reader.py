"""Reading a beton: a memory map whose structure is checked at every open (docs/BETON.md)."""

# N samples, S side of a stored frame, K findings, B bytes of the file

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Self

import numpy as np
from crc32c import crc32c

from kernels.checksum import checksums_into
from loaders.beton.format import (
    AGES,
    FINDING,
    NO_LABEL,
    ROW,
    TYPE_INT,
    TYPE_NDARRAY,
    TYPE_RGB,
    Facts,
    frames_text,
    parse_footer,
    read_facts,
    sexes_and_ages,
)
from loaders.beton.map import BetonMap, find_footer, first_missing, sorted_regions
from loaders.config import crop_side
from loaders.errors import BetonError, ConfigError
from loaders.output import Parts, Sheet

REMEDY = "convert the radiographs again"
READ_AHEAD = 1 << 17  # Linux reads no more in one request than the device's read_ahead_kb or largest transfer
SET_DIGITS = 8  # of a conversion's id, in the name of a set
FINDINGS_AT_ONCE = 1 << 16  # samples; their index has 8 bytes for each byte of a value
VERIFY_BYTES = 1 << 23  # of frames between two reports of progress


class Beton:
    """An open beton of frames and labels.  Owns the memory map; close it, or use `with`.

    bytes_B: uint8, the whole file.  offset_N: int64, each frame's first byte.  label_N: int64, -1 of findings.
    labels: what networks learn: label_N, or of the task findings float32 (N, K), 1 present, 0 absent, NaN unknown.
    rows_N: loaders.beton.format.ROW, one for each sample, a view of the map.  facts: of the whole set.
    verified: False for a foreign file, which may have further fields (loaders.beton.ffcv_fields reads those).
    Errors: BetonError naming the place; StorageError when it cannot be opened.
    """

    def __init__(self, path: str | Path, *, trust_unverified: bool = False) -> None:
        self._map = source = BetonMap(path, REMEDY)
        self.path, self.num_samples, self.page_size = source.path, source.num_samples, source.page_size
        self.metadata_end, self.pages_start = source.metadata_end, source.pages_start
        self.table_start, self.bytes_B = source.table_start, source.bytes_B
        try:
            self._open(source, trust_unverified)
        except BaseException:
            self.close()
            raise

    def _open(self, source: BetonMap, trust_unverified: bool) -> None:
        footer = find_footer(source)
        self.verified = footer.size > 0
        if self.verified:
            read_facts(footer, str(self.path))  # of a newer version, which may have other fields
        self.side = self._check_fields(source)
        self.pages_end = self.table_start - footer.size
        if (self.pages_end - self.pages_start) % self.page_size:
            what = "pages of broken length" if self.verified else "a gap where a footer should be"
            raise source.bad(f"{what} before byte {self.table_start}, expected whole pages")
        region_R = sorted_regions(source, self.pages_end)  # before the next array: they are large
        ptr_N = source.metadata_N["image"].astype(np.uint64)
        missing = first_missing(region_R, ptr_N, self.side**2)
        if missing is not None:
            found = f"sample {missing} has its frame at byte {ptr_N[missing]}"
            raise source.bad(f"the allocation table does not match the metadata: {found}, expected in the table")
        self.offset_N = ptr_N.view(np.int64)  # inside the file
        self.labels = self.label_N = source.metadata_N["label"].astype(np.int64)
        if self.verified:
            self.facts, self.rows_N, crcs = parse_footer(footer, self.num_samples, str(self.path))
            self._crc_N = self.rows_N["crc"].copy()  # a resident loader asks for them, and reads the map no more
            start, end = self.metadata_end - source.metadata_N.nbytes, self.metadata_end
            for table, part in (("metadata", slice(start, end)), ("allocation", slice(self.table_start, None))):
                if crc32c(self.bytes_B[part].data) != crcs[f"{table}_crc"]:
                    raise source.bad(f"{table} table checksum differs from the expected")
            self._check_facts()
            if self.facts.num_findings:
                self.labels = self._read_findings(source, region_R)
            return
        if not trust_unverified:
            found = "no plainfilm footer: written by another program, without checksums"
            remedy = "convert the radiographs, or pass --trust-unverified"
            raise BetonError(f"{self.path}: {found}, expected plainfilm's; {remedy}")
        self.facts = self._foreign_facts()
        self.rows_N = np.zeros(self.num_samples, ROW)

    def _check_fields(self, source: BetonMap) -> int:
        """The frames' side."""
        by_name = {field.name: field for field in source.fields}
        if not {"image", "label"} <= by_name.keys():
            raise self._map.bad(f"fields {', '.join(by_name)}, expected image and label")
        image, label = by_name["image"], by_name["label"]
        if image.type_id == TYPE_RGB:
            remedy = "save its images as files (loaders.beton.ffcv_fields.FieldReader gives them) and convert those"
            raise BetonError(f"{self.path}: image is an RGB image, expected grey frames; {remedy}")
        if image.type_id != TYPE_NDARRAY or image.dtype != np.uint8 or len(image.shape) != 2:
            found = f"{image.kind} {image.dtype} of shape {image.shape}"
            raise self._map.bad(f"image is {found}, expected a two-dimensional uint8 ndarray")
        if image.shape[0] != image.shape[1] or not 1 <= image.shape[0] ** 2 <= self.page_size:
            raise self._map.bad(f"frames of {image.shape[0]}×{image.shape[1]}, expected squares that fit in a page")
        if label.type_id != TYPE_INT:
            raise self._map.bad(f"label is {label.kind}, expected an int")
        return image.shape[0]

    def _check_facts(self) -> None:
        facts, label_N = self.facts, self.label_N
        if facts.stored != self.side or not 1 <= facts.crop <= facts.stored or (facts.stored - facts.crop) % 2:
            found = f"frames of {facts.stored} and crops of {facts.crop}"
            raise self._map.bad(f"footer has {found}, expected frames of {self.side}")
        if (facts.lungs != "off") != bool(facts.segmenter):
            found = f"lungs {facts.lungs} and segmenter {facts.segmenter or 'none'}"
            raise self._map.bad(f"footer has {found}, expected both, or neither where frames show whole films")
        if facts.task == "findings":
            if facts.positive or (label_N != NO_LABEL).any() or not facts.classes:
                raise self._map.bad(
                    "labels or a positive class beside findings, or no findings, expected findings alone"
                )
        elif facts.positive not in facts.classes:
            raise self._map.bad(f"positive class {facts.positive}, expected one of {', '.join(facts.classes)}")
        elif label_N.min() < 0 or label_N.max() >= len(facts.classes):
            raise self._map.bad(f"labels {label_N.min()} to {label_N.max()}, expected 0 to {len(facts.classes) - 1}")
        if self.rows_N["view"].max() >= len(facts.views) or self.rows_N["source"].max() >= len(facts.sources):
            raise self._map.bad("a row has a view or source that the footer does not list, expected one of the list")
        if facts.demographics and (highest := sexes_and_ages(self.rows_N)[1].max()) >= len(AGES):
            raise self._map.bad(f"a row has the age code {highest}, expected 0 to {len(AGES) - 1}")

    def _read_findings(self, source: BetonMap, region_R: np.ndarray) -> np.ndarray:
        """The values of the findings, checked, float32 (N, K)."""
        names, field = self.facts.classes, next((field for field in source.fields if field.name == "findings"), None)
        if field is None or field.type_id != TYPE_NDARRAY or field.dtype != FINDING or field.shape != (len(names),):
            raise source.bad(f"no field of {len(names)} findings in float32, expected one as the footer has it")
        ptr_N, size = source.metadata_N["findings"].astype(np.uint64), field.array_size
        missing = first_missing(region_R, ptr_N, size)
        if missing is not None:
            raise source.bad(f"sample {missing} has its findings at byte {ptr_N[missing]}, expected in the table")
        finding_NK, crc, valid = np.empty((self.num_samples, len(names)), FINDING), 0, True
        for first in range(0, self.num_samples, FINDINGS_AT_ONCE):
            part_NK, start_N = (values[first : first + FINDINGS_AT_ONCE] for values in (finding_NK, ptr_N))
            part_NK.view(np.uint8)[:] = self.bytes_B[start_N.view(np.int64)[:, None] + np.arange(size)]
            crc = crc32c(part_NK.data, crc)
            valid &= bool(((part_NK == 0) | (part_NK == 1) | np.isnan(part_NK)).all())
        if crc != self.facts.findings_crc:
            raise source.bad("findings checksum differs from the expected: their values are not what was written")
        if not valid:
            raise source.bad("a finding is neither 1, 0 nor NaN, expected one of these")
        return finding_NK

    def _foreign_facts(self) -> Facts:
        lowest, highest = int(self.label_N.min()), int(self.label_N.max())
        if lowest < 0 or highest >= 1024:
            raise self._map.bad(f"labels {lowest} to {highest}, expected 0 to 1023")
        classes = tuple(f"class {label}" for label in range(highest + 1))
        return Facts(
            classes=classes, positive=classes[0], stored=self.side, crop=crop_side(self.side), fit="unknown",
            split="unknown", seed=0, conversion_id="", site_key_id="", source_fingerprint="", hash_algorithm="",
        )  # fmt: skip

    @property
    def set_name(self) -> str:
        """A name for this set of samples, fit for a folder: its split and conversion, such as `heldout-1f3a90bc`.

        A conversion's id covers all that its betons hold, so another set has another name, whatever its file's path.
        A beton without a conversion is named by a hash of all its bytes.
        """
        split, conversion_id = self.facts.split, self.facts.conversion_id
        if re.fullmatch("[a-z]{1,16}", split) and re.fullmatch("[0-9a-f]{8,}", conversion_id):
            return f"{split}-{conversion_id[:SET_DIGITS]}"
        self.check_unchanged()
        return f"unverified-{hashlib.blake2b(self.bytes_B.data, digest_size=SET_DIGITS // 2).hexdigest()}"

    def check_unchanged(self) -> None:
        """Errors: BetonError when the file was written in place or cut short since it was opened (BetonMap)."""
        self._map.check_unchanged()

    def frame(self, sample: int) -> np.ndarray:
        """One stored frame, uint8 (S, S), a read-only view of the map."""
        start = int(self.offset_N[sample])
        return self.bytes_B[start : start + self.side**2].reshape(self.side, self.side)

    def read_ahead(self, page_start: int) -> None:
        """Ask the system to read the page at this byte, in the background."""
        for start in range(page_start, page_start + self.page_size, READ_AHEAD):
            self._map.advise("MADV_WILLNEED", start, READ_AHEAD)

    def let_go(self, page_start: int) -> None:
        """Let the system drop the page at this byte."""
        self._map.advise("MADV_DONTNEED", page_start, self.page_size)

    def check_samples(self, sample_N: np.ndarray) -> None:
        """Check the CRCs of frames; a foreign file has none.  Errors: BetonError."""
        self.check_unchanged()
        if not self.verified:
            return
        crc_N = np.empty(len(sample_N), np.uint32)
        checksums_into(crc_N, self.bytes_B, self.offset_N[sample_N], self.side**2)
        self.expect_checksums(sample_N, crc_N)

    def expect_checksums(self, sample_N: np.ndarray, crc_N: np.ndarray) -> None:
        """Compare CRCs of frames, uint32, with those that were written.  Errors: BetonError."""
        differing = np.flatnonzero(self._crc_N[sample_N] != crc_N)
        if len(differing):
            what = "checksum differs from the expected: its pixels are not what was written"
            raise self._map.bad(f"sample {sample_N[differing[0]]}: {what}")

    def verify(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Check every frame's CRC, and that all padding is zero.  Errors: BetonError, ConfigError."""
        if not self.verified:
            raise ConfigError(f"{self.path}: a foreign beton has no checksums to verify; {REMEDY}")
        size = self.side**2
        block = -(-VERIFY_BYTES // size)
        for first in range(0, self.num_samples, block):
            last = min(first + block, self.num_samples)
            self.check_samples(np.arange(first, last))
            progress(last, self.num_samples)
        regions_R = sorted_regions(self._map, self.pages_end)
        begins, sizes = regions_R["ptr"].astype(np.int64), regions_R["size"].astype(np.int64)
        ends = np.append(self.metadata_end, begins + sizes)
        begins = np.append(begins, self.pages_end)
        for gap in np.flatnonzero(ends < begins):  # between regions
            if self.bytes_B[ends[gap] : begins[gap]].any():
                raise self._map.bad(f"padding at bytes {ends[gap]} to {begins[gap]} is not zero, as expected")
        self.check_unchanged()

    def close(self) -> None:
        """Release the map; arrays that callers kept keep it alive."""
        self._map.close()
        for name in ("bytes_B", "offset_N", "label_N", "labels", "rows_N"):
            self.__dict__.pop(name, None)

    def __len__(self) -> int:
        return self.num_samples

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def beton_parts(path: Path, beton: Beton) -> Parts:
    """A beton's facts as a table.  path: as the user named it."""
    facts, rows_N = beton.facts, beton.rows_N
    findings = facts.task == "findings"
    if findings:
        found = [f"{int((value_N == 1).sum())} of {int((value_N == value_N).sum())}" for value_N in beton.labels.T]
    else:
        found = list(map(str, np.bincount(beton.label_N, minlength=len(facts.classes))))
    by_class = ", ".join(f"{name} {count}" for name, count in zip(facts.classes, found, strict=True))
    rows = {
        "verified": "structure, header and tables" if beton.verified else "no: foreign, without checksums",
        "samples": f"{len(beton):,}: {by_class}",
        **({"findings": "present of known, by finding"} if findings else {"positive class": facts.positive}),
        "frames": f"{facts.stored}×{facts.stored} uint8, crop {facts.crop}, {facts.fit}",
        **({} if facts.lungs == "off" else {"shows": frames_text(facts.lungs, facts.segmenter)}),
        "split": f"{facts.split}, seed {facts.seed}",
        "groups": f"{len(np.unique(rows_N['group'])):,}" if beton.verified else "unknown",
        "patients": f"{int(rows_N['patient_hash'].any(1).sum()):,} images with a known patient",
        "views": ", ".join(view or "unknown" for view in facts.views),
        "sources": ", ".join(source or "unknown" for source in facts.sources),
        "demographics": "sex, and age in decades" if facts.demographics else "not kept",
        "synthetic": "yes" if facts.synthetic else "no",
        "conversion": facts.conversion_id or "unknown",
        "site key": facts.site_key_id or "unknown",
        "pixel hashes": facts.hash_algorithm or "none",
        "bytes": f"{beton.bytes_B.size:,} in pages of {beton.page_size:,}",
        "versions": ", ".join(f"{name} {version}" for name, version in facts.versions.items()) or "unknown",
    }
    return [Sheet(headers=("beton", str(path)), rows=tuple(rows.items()), ends_in_text=True)]
