"""The TensorBoard events of a run, written by the caller.

torch's SummaryWriter writes from a thread of its own, which prints a traceback when the disk is full, and puts the
machine's name into the file's.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from loaders.atomic_file import storage_error


class Events:
    """An open file of events in a run folder; close it.

    purge_epoch: events of earlier files from this epoch on do not count any more.  Errors of all methods: StorageError.
    """

    def __init__(self, folder: Path, purge_epoch: int | None = None) -> None:
        self._path = folder / f"events.out.tfevents.{time.time():.6f}"
        try:
            self._file = self._path.open("xb")
        except OSError as error:
            raise storage_error(self._path, error) from error
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        if purge_epoch is not None:
            self._write(step=purge_epoch, session_log=SessionLog(status=SessionLog.START))

    def add(self, name: str, value: float, epoch: int) -> None:
        """Add one number; flush() brings it to the disk."""
        self._write(step=epoch, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))

    def flush(self) -> None:
        """Write what waits."""
        with self._told():
            self._file.flush()

    def close(self) -> None:
        """Write what waits, and close the file."""
        with self._told():
            self._file.close()

    def _write(self, **content: Any) -> None:
        with self._told():
            self._records.write(Event(wall_time=time.time(), **content).SerializeToString())

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            size = self._file.tell()
            yield
        except OSError as error:
            raise storage_error(self._path, error, size) from error
