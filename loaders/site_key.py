"""The site key: a secret that turns patient identifiers into hashes that only this site can compare."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

import numpy as np

from loaders.atomic_file import storage_error
from loaders.errors import InputError


def load_site_key(path: Path) -> bytes:
    """Read the key, or make one that only its owner can read.  Errors: StorageError, InputError for another file."""
    path = path.expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            text = path.read_text(encoding="ascii", errors="replace").strip()
        else:
            text = secrets.token_hex(32)
            with os.fdopen(descriptor, "w") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise InputError(f"{path}: not a site key, expected 64 hexadecimal digits; choose another --site-key")
    return key


def site_key_id(key: bytes) -> str:
    """A name for the key that does not give it away."""
    return hashlib.blake2b(key, digest_size=8, person=b"plainfilm-key-id").hexdigest()


def patient_hash(key: bytes, patient: str) -> np.ndarray:
    """HMAC-SHA256 of a patient identifier, its first 128 bits, uint8 (16,)."""
    digest = hmac.new(key, b"patient:" + patient.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
    return np.frombuffer(digest[:16], np.uint8)
