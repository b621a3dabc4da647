from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from loaders.atomic_file import LOCK, locked, publish, publish_bytes
from loaders.errors import StorageError


def failing_sync(number: int) -> object:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_missing_space_is_reported_in_bytes(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing_sync(number))
    with pytest.raises(StorageError, match=r"a\.bin: .*, expected 12,345 bytes of room; (free|raise)"):
        publish_bytes(tmp_path / "a.bin", bytes(12_345))
    with pytest.raises(StorageError, match="expected 7 bytes of room"), publish(tmp_path / "b.bin") as file:
        file.write(b"unknown")
    with pytest.raises(StorageError, match="expected 99 bytes of room"), publish(tmp_path / "c.bin", size=99) as file:
        file.write(b"known")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_disk_is_not_called_a_lack_of_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", failing_sync(errno.EIO))
    with pytest.raises(StorageError, match=r"Input/output error, expected no error; check the disk"):
        publish_bytes(tmp_path / "a.bin", bytes(12_345))


def test_a_lock_that_finds_no_room_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *given: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.open", full)
    with pytest.raises(StorageError, match=rf"{LOCK}: No space left on device"), locked(tmp_path):
        pass
