"""Atomic files, which appear complete or not at all, and the lock of a folder that is written."""

import contextlib
import csv
import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from loaders.errors import LockedError, StorageError

SUFFIX = ".plainfilm-tmp"  # one fixed name for each target: a rerun after a crash overwrites what the crash left
LOCK = ".plainfilm-lock"


REMEDIES = {  # errno → what was expected, and the remedy
    errno.ENOSPC: ("room", "free some disk space"),
    errno.EDQUOT: ("room", "free some of your quota"),
    errno.EFBIG: ("room", "raise the limit of a file's size (ulimit -f)"),
    errno.EACCES: ("access", "change its permissions, or choose another place"),
    errno.EPERM: ("access", "change its permissions, or choose another place"),
    errno.EROFS: ("a writable place", "choose another"),
    errno.ENOENT: ("it to exist", "check the path"),
    errno.EEXIST: ("a folder", "choose another path"),
    errno.ENOTDIR: ("a folder", "check the path: part of it is a file"),
    errno.EISDIR: ("a file", "choose another path"),
    errno.ELOOP: ("no link, or one that ends", "remove or correct the link"),
    errno.ENAMETOOLONG: ("a shorter name", "shorten it, or the folders it lies in"),
    errno.EMFILE: ("fewer open files", "raise their limit (ulimit -n), or use fewer --workers"),
    errno.ENOLCK: ("a file system with locks", "choose another place"),
}


def remedy_of(error: OSError) -> tuple[str, str]:
    """What was expected where the system raised this error, and the remedy."""
    return REMEDIES.get(error.errno or 0, ("no error", "check the disk"))


def storage_error(path: Path, error: OSError, needed: int | None = None) -> StorageError:
    """The one translation of an OSError while reading or writing path."""
    expected, remedy = remedy_of(error)
    if needed and expected == "room":
        expected = f"{needed:,} bytes of room"
    return StorageError(f"{path}: {error.strerror or error}, expected {expected}; {remedy}")


@contextlib.contextmanager
def publish(
    path: Path, check: Callable[[Path], None] | None = None, mode: int | None = None, size: int | None = None
) -> Iterator[BinaryIO]:
    """Open a temporary file beside path for writing; at the end sync it, check it, and rename it to path.

    mode: permissions, such as 0o600 for a file that names patients' files; by default those of the umask.
    size: the final size in bytes, for the error's message; by default what has been written so far.

    An error or a kill leaves the old file, or none.  Errors: StorageError.
    """
    temporary = path.with_name(path.name + SUFFIX)
    try:
        temporary.unlink(missing_ok=True)  # left by a crash, or a link to anywhere
        with temporary.open("xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
            finally:
                size = size or file.tell()
        if check is not None:
            check(temporary)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError) and not isinstance(error, StorageError):
            raise storage_error(path, error, size) from error
        raise


def publish_bytes(path: Path, content: bytes, mode: int | None = None) -> None:
    """Write a small file atomically.  mode: as in publish.  Errors: StorageError."""
    with publish(path, mode=mode, size=len(content)) as file:
        file.write(content)


def publish_rows(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV, whole or not at all.  rows: the header first.  Errors: StorageError."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    publish_bytes(path, text.getvalue().encode())


def sync_folder(folder: Path) -> None:
    """Make a rename in folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make folder if need be and hold its lock; the kernel drops it when the owner dies.

    Errors: LockedError when another process holds it, StorageError when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error
    busy = f"{folder}: another plainfilm process is writing here, expected none; wait for it, or choose another folder"
    with locked_file(folder / LOCK, busy):
        yield


@contextlib.contextmanager
def locked_file(lock: Path, busy: str, *, fleeting: bool = False) -> Iterator[None]:
    """Make an empty lock file if need be, with the umask's permissions, and hold it; the kernel drops it when the owner
    dies.

    busy: the error's text when another process holds it.  fleeting: gone at the end.
    Errors: LockedError, StorageError.
    """
    try:
        descriptor = opened_lock(lock)
    except OSError as error:
        raise storage_error(lock, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(descriptor), lock.stat())  # else its owner has just taken it away
        except (BlockingIOError, FileNotFoundError):
            mine = False
        except OSError as error:  # such as a file system without locks
            raise storage_error(lock, error) from error
        if not mine:
            raise LockedError(busy)
        try:
            yield
        finally:
            if fleeting:
                with contextlib.suppress(PermissionError):  # another user's, in a folder with the sticky bit
                    lock.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def opened_lock(lock: Path) -> int:
    """The descriptor of a lock file, which is made if need be.

    One that another user of the folder made may be readable alone, which is enough to lock it; and Linux lets nobody
    "make" another's file in a sticky folder (fs.protected_regular).
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(lock, flags | os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if not lock.exists():
            raise
        return os.open(lock, flags | os.O_RDONLY)
