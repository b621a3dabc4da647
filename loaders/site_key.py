"""The site key: a secret that turns patient identifiers into hashes that only this site can compare."""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
from pathlib import Path

import numpy as np

from loaders.atomic_file import SUFFIX, storage_error
from loaders.errors import InputError


def load_site_key(path: Path) -> bytes:
    """Read the key, or make one that only its owner can read.  Errors: StorageError, InputError for another file."""
    path = path.expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            make_site_key(path)
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise InputError(f"{path}: not a site key, expected 64 hexadecimal digits; choose another --site-key")
    return key


def make_site_key(path: Path) -> None:
    """Write a new key whole, unless another process was first; what a killed one left is written over."""
    temporary = path.with_name(path.name + SUFFIX)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)  # its owner's only
    try:
        with os.fdopen(descriptor, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists():  # another was first, and may have made the file that is open here the key
                return
            os.fchmod(file.fileno(), 0o600)
            file.truncate(0)
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
            temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)


def site_key_id(key: bytes) -> str:
    """A name for the key that does not give it away."""
    return hashlib.blake2b(key, digest_size=8, person=b"plainfilm-key-id").hexdigest()


def patient_hash(key: bytes, patient: str) -> np.ndarray:
    """HMAC-SHA256 of a patient identifier, its first 128 bits, uint8 (16,)."""
    digest = hmac.new(key, b"patient:" + patient.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
    return np.frombuffer(digest[:16], np.uint8)
