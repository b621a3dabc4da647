"""The footer of a plainfilm beton: dataset facts, checksums and one row a sample, invisible to FFCV.

Found through a pointer block in the argument bytes of the label's int field (FFCV ignores them), and found again
through a magic at its own end, just before the allocation table.  Layout: docs/BETON.md.
"""

# N samples

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
from crc32c import crc32c

from loaders.errors import BetonError

BLOCK_MAGIC = b"PLNFILM\x01"
HEAD_MAGIC = b"PLNFOOT\x01"
TAIL_MAGIC = b"PLNFEND\x01"

BLOCK = np.dtype([("magic", "S8"), ("ptr", "<u8"), ("size", "<u8"), ("footer_crc", "<u4"), ("header_crc", "<u4")])
HEAD = np.dtype(
    [
        ("magic", "S8"),
        ("facts_size", "<u8"),
        ("num_samples", "<u8"),
        ("metadata_crc", "<u4"),
        ("allocation_crc", "<u4"),
    ]
)
TAIL = np.dtype([("size", "<u8"), ("magic", "S8")])
ROW = np.dtype(
    [
        ("pixel_hash", "u1", 16),
        ("patient_hash", "u1", 16),
        ("crc", "<u4"),
        ("group", "<u4"),
        ("view", "<u2"),
        ("source", "<u2"),
        ("flags", "<u4"),
    ]
)
PATIENT_KNOWN, BELOW_STORED_SIDE = 1, 2  # flags


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a beton says of itself as a whole; no file names, no patient identifiers."""

    classes: tuple[str, ...]
    """Class names; a label is an index into them."""
    positive: str
    """The positive class of every metric."""
    stored: int
    """Side of the stored frames in pixels."""
    crop: int
    """Side of the central crop in pixels."""
    fit: str
    """How frames became square."""
    split: str
    """train, val or heldout."""
    seed: int
    """Seed of the split."""
    conversion_id: str
    """The same for all betons of one conversion."""
    site_key_id: str
    """Which site key made the patient hashes; two betons compare only under one key."""
    source_fingerprint: str
    """Hash of the decoded pixels and labels of the whole conversion."""
    views: tuple[str, ...] = ("",)
    """View positions that rows refer to."""
    sources: tuple[str, ...] = ("",)
    """Sources that rows refer to."""
    synthetic: bool = False
    """Every image is a phantom."""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    """Versions of what decoded and wrote it."""


def pack_footer(facts: Facts, rows_N: np.ndarray, metadata_crc: int, allocation_crc: int) -> bytes:
    """The footer's bytes, a multiple of eight."""
    text = json.dumps(dataclasses.asdict(facts), sort_keys=True).encode()
    text += b" " * (-len(text) % 8)  # JSON ignores trailing blanks
    head = np.array([(HEAD_MAGIC, len(text), len(rows_N), metadata_crc, allocation_crc)], HEAD)
    size = HEAD.itemsize + len(text) + rows_N.nbytes + TAIL.itemsize
    tail = np.array([(size, TAIL_MAGIC)], TAIL)
    return head.tobytes() + text + rows_N.tobytes() + tail.tobytes()


def parse_footer(packed: np.ndarray, num_samples: int, where: str) -> tuple[Facts, np.ndarray, np.void]:
    """Read a footer whose CRC was checked.  packed: its bytes, uint8.  Gives facts, rows_N and the head."""

    def bad(what: str) -> BetonError:
        return BetonError(f"{where}: footer {what}; convert the radiographs again")

    if packed.size < HEAD.itemsize + TAIL.itemsize:
        raise bad(f"of {packed.size} bytes, expected at least {HEAD.itemsize + TAIL.itemsize}")
    head = packed[: HEAD.itemsize].view(HEAD)[0]
    if head["magic"] != HEAD_MAGIC.rstrip(b"\0"):
        raise bad(f"begins with {bytes(head['magic'])!r}, expected {HEAD_MAGIC!r}")
    if int(head["num_samples"]) != num_samples:
        raise bad(f"tells of {int(head['num_samples'])} samples, expected the header's {num_samples}")
    facts_size = int(head["facts_size"])
    if HEAD.itemsize + facts_size + num_samples * ROW.itemsize + TAIL.itemsize != packed.size:
        raise bad(f"of {packed.size} bytes, expected {num_samples} rows and {facts_size} bytes of facts")
    start = HEAD.itemsize
    try:
        facts = parse_facts(json.loads(packed[start : start + facts_size].tobytes()))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise bad(f"has unreadable facts ({error}), expected JSON") from error
    rows_N = packed[start + facts_size : packed.size - TAIL.itemsize].view(ROW)
    return facts, rows_N, head


def parse_facts(content: object) -> Facts:
    """Facts from their JSON, each value of its type: a forged file may have any.  Errors: TypeError, ValueError."""
    if not isinstance(content, dict):
        raise TypeError(f"{type(content).__name__} instead of an object")
    for field in dataclasses.fields(Facts):
        value = content.get(field.name)
        if field.name not in content:
            continue
        if field.type == "tuple[str, ...]" and isinstance(value, list):
            parts, wanted, content[field.name] = value, "str", tuple(value)
        elif field.type == "dict[str, str]" and isinstance(value, dict):
            parts, wanted = list(value.values()), "str"
        else:
            parts, wanted = [value], str(field.type)
        if any(type(part).__name__ != wanted for part in parts):
            raise TypeError(f"{field.name} is no {field.type}")
    return Facts(**content)


def header_crc(header: bytes, descriptors: np.ndarray, label_index: int) -> int:
    """CRC32C of header and descriptors, the label's argument block counted as zero (it holds this very number)."""
    blank = descriptors.copy()
    blank["arguments"][label_index] = 0
    return crc32c(blank.tobytes(), crc32c(header))
