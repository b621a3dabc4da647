"""Patient hashes, which only the holder of the site key, a secret file, can compute."""

import fcntl
import hashlib
import hmac
import os
import secrets
from pathlib import Path

import numpy as np

from loaders.atomic_file import SUFFIX, storage_error, sync_folder
from loaders.errors import ConfigError, InputError

KEY_BYTES = 65  # of the file: 64 hexadecimal digits and a newline


def site_key_path(path: Path) -> Path:
    """The key's path, with the user's home in place of ~.  Errors: ConfigError for a user without one."""
    try:
        return path.expanduser()
    except RuntimeError as error:  # a container's user id that no account has
        raise ConfigError(
            f"--site-key {path}: this user has no home folder, expected a path without ~; name a file, which is made"
        ) from error


def load_site_key(path: Path) -> bytes:
    """Read the key, or make one that only its owner can read.

    Errors: StorageError; InputError for another file; ConfigError for a user without a home.
    """
    path = site_key_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            make_site_key(path)
        if not path.is_file():  # reading a FIFO would wait for ever
            raise InputError(f"{path}: no regular file, expected a site key; choose another --site-key")
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise storage_error(path, error, KEY_BYTES) from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise InputError(f"{path}: not a site key, expected 64 hexadecimal digits; choose another --site-key")
    return key


def make_site_key(path: Path) -> None:
    """Write a new key atomically, unless another process was first; overwrites what a killed one left."""
    temporary = path.with_name(path.name + SUFFIX)
    while not path.exists():
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)  # its owner's
        with os.fdopen(descriptor, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not is_at(file.fileno(), temporary):  # another process was first, and renamed or deleted it
                continue
            try:
                if not path.exists():
                    os.fchmod(file.fileno(), 0o600)
                    file.truncate(0)
                    file.write(secrets.token_hex(32) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                    temporary.rename(path)
                    sync_folder(path.parent)
            finally:
                temporary.unlink(missing_ok=True)


def is_at(descriptor: int, path: Path) -> bool:
    """Whether path still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat(follow_symlinks=False))
    except FileNotFoundError:
        return False


def site_key_id(key: bytes) -> str:
    """An identifier of the key that does not reveal it."""
    return hashlib.blake2b(key, digest_size=8, person=b"plainfilm-key-id").hexdigest()


def patient_hash(key: bytes, patient: str) -> np.ndarray:
    """HMAC-SHA256 of a patient identifier, its first 128 bits, uint8 (16,)."""
    digest = hmac.new(key, b"patient:" + patient.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
    return np.frombuffer(digest[:16], np.uint8)
