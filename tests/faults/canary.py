"""The canary: a name that no output may show, in whatever form it stands there."""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
import zlib

import numpy as np

from loaders.phantom.phantom import patient_name

TOKEN = "ZQXKANARIE"
NAME = f"{TOKEN}^PRIVATE"
PATIENTS = 16  # whose identifiers may be planted


def planted_patient(patient: str) -> str:
    """A patient's identifier with the canary in it."""
    return f"{NAME}-{patient}"


def needles() -> tuple[bytes, ...]:
    """The canary in every form that is looked for, in small letters where it is text."""
    return (
        TOKEN.lower().encode(),
        *(TOKEN.encode(code) for code in ("utf-16-le", "utf-16-be")),
        TOKEN.encode().hex().encode(),
    )


def bare_hashes() -> np.ndarray:
    """First 8 bytes, as uint64 in order, of each hash without a secret that a planted name or identifier may have.

    Any longer part of a hash begins with them.  A bare hash of an identifier can be looked up; so can one with the
    product's own prefix, or with a key of nothing or of zeros.
    """
    names = [TOKEN, NAME, *(planted_patient(patient_name(number)) for number in range(1, PATIENTS + 1))]
    found = []
    for text in (prefix + name.encode() for name in names for prefix in (b"", b"patient:", b"patient")):
        found += [hashlib.new(kind, text).digest() for kind in ("md5", "sha1", "sha256", "sha512", "sha3_256")]
        found += [hashlib.blake2b(text, digest_size=size).digest() for size in (8, 16, 32, 64)]
        found += [hmac.new(key, text, "sha256").digest() for key in (b"", bytes(32))]
    return np.unique(np.frombuffer(b"".join(digest[:8] for digest in found), np.uint64))


def shows_hash(data: bytes, hashes: np.ndarray) -> bool:
    """Whether bytes hold one of these hashes, as it is or in hexadecimal."""
    words = [np.frombuffer(data, np.uint64, (len(data) - at) // 8, at) for at in range(8) if len(data) >= at + 8]
    digits = b"".join(
        bytes.fromhex(found[at : at + 16].decode()) for found in HEX.findall(data) for at in range(len(found) - 15)
    )
    words += [np.frombuffer(digits, np.uint64)] if digits else []
    places = [np.searchsorted(hashes, some).clip(max=len(hashes) - 1) for some in words]
    return any((hashes[place] == some).any() for place, some in zip(places, words, strict=True))


NEEDLES = needles()
HASHES = bare_hashes()
PACKED = re.compile(rb"\x78[\x01\x5e\x9c\xda]")
HEX = re.compile(rb"[0-9a-fA-F]{16,}")
BASE64 = re.compile(rb"[A-Za-z0-9+/]{16,}={0,2}")
MOST = 4 << 20  # bytes of a file whose packed parts are looked into; betons hold no packed parts


def shows(data: bytes, depth: int = 2) -> bool:
    """Whether bytes hold the canary, or a bare hash of it: as it is, in base64, or deflated."""
    small = data.lower()
    if any(needle in data or needle in small for needle in NEEDLES) or shows_hash(data, HASHES):
        return True
    if not depth or len(data) > MOST:
        return False
    for found in PACKED.finditer(data):
        try:
            if shows(zlib.decompressobj().decompress(data[found.start() :], 1 << 16), depth - 1):
                return True
        except zlib.error:
            continue
    for found in BASE64.finditer(data):
        try:
            if shows(binascii.a2b_base64(found[0][: len(found[0]) // 4 * 4]), depth - 1):
                return True
        except binascii.Error:
            continue
    return False
