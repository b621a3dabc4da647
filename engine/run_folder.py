"""The run folder: everything that a training leaves behind."""

# N samples

from __future__ import annotations

import csv
import io
import json
import logging
import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import torch

from engine.checkpoint import save_checkpoint
from engine.config import TrainConfig
from engine.events import Events
from engine.figures import curves_figure, png
from engine.run_settings import CONFIG, LOCAL, read_run_settings
from loaders.atomic_file import publish_bytes, storage_error
from loaders.errors import ConfigError, StorageError
from loaders.settings import build

BEST, LAST, SUMMARY = "best.safetensors", "last.safetensors", "summary.json"
METRICS, LOG = "metrics.csv", "train.log"


class RunFolder:
    """An open run folder.  Owns train.log and the TensorBoard events; close it, or use `with`."""

    def __init__(self, path: Path, purge_epoch: int | None = None) -> None:
        self.path = path
        self._log = path / LOG
        self._handler = logging.StreamHandler(opened_log(self._log))
        try:
            self._events = Events(path, purge_epoch)
        except StorageError:
            self._handler.stream.close()
            raise
        self._handler.handleError = self._log_failed  # type: ignore[method-assign]  # its own prints a traceback
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for name in ("engine", "loaders"):
            logging.getLogger(name).addHandler(self._handler)
            logging.getLogger(name).setLevel(logging.INFO)
        self._told = (purge_epoch or 1) - 1  # epochs whose events are written

    def save_last(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Keep the state that `--resume` continues from."""
        save_checkpoint(self.path / LAST, tensors, state)

    def save_best(self, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
        """Keep the weights that `evaluate` uses, and the validation scores that its thresholds come from."""
        save_checkpoint(self.path / BEST, tensors, state)

    def record(self, history: Sequence[dict[str, Any]]) -> None:
        """Write metrics.csv anew, and the events of epochs that have none yet."""
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, list(history[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(history)
        publish_bytes(self.path / METRICS, text.getvalue().encode())
        for row in history[self._told :]:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self._events.add(name.replace("_", "/", 1), value, row["epoch"])
        self._told = len(history)
        self._events.flush()

    def draw(self, history: Sequence[dict[str, Any]], best_epoch: int, title: str, note: str) -> None:
        """Write curves.png anew."""
        publish_bytes(self.path / "curves.png", png(curves_figure(history, best_epoch, title, note)))

    def save_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        publish_bytes(self.path / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())

    def close(self) -> None:
        """Close log and events.  Errors: StorageError."""
        for name in ("engine", "loaders"):
            logging.getLogger(name).removeHandler(self._handler)
        self._handler.close()
        try:
            self._handler.stream.close()
        except OSError as error:
            raise storage_error(self._log, error) from error
        finally:
            self._events.close()

    def _log_failed(self, record: logging.LogRecord) -> None:
        """Raise what befell a line of the log.  Errors: StorageError."""
        error = sys.exception()
        assert error is not None, "logging calls this where it caught one"
        if isinstance(error, OSError):
            raise storage_error(self._log, error, len(self._handler.format(record)) + 1) from error
        raise error

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except StorageError:
            if error is None:  # else the first one tells more
                raise


def opened_log(path: Path) -> TextIO:
    """A log to append to.  Errors: StorageError; also for a link or a FIFO, which a foreign run folder may hold."""
    try:
        descriptor = os.open(
            path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        )
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise StorageError(f"{path}: no regular file, expected the log of the run; remove it")
    except OSError as error:
        raise error if isinstance(error, StorageError) else storage_error(path, error) from error
    return os.fdopen(descriptor, "a", encoding="utf-8", errors="backslashreplace")


def epochs_recorded(folder: Path) -> int:
    """How many epochs the table of metrics has; 0 where there is none."""
    path = folder / METRICS
    return max(0, len(path.read_bytes().splitlines()) - 1) if path.is_file() else 0


def load_config(path: Path, data: Path | None = None) -> TrainConfig:
    """Read a run's settings.  data: where its betons lie now; else where they lay.

    Errors: ConfigError when path is no run folder, or nothing tells where its betons are.
    """
    if not (path / CONFIG).is_file():
        raise ConfigError(f"{path}: no {CONFIG}, expected a run folder of `train`; check the path")
    try:
        values = {"out": str(path)} | read_run_settings(path) | ({"data": str(data)} if data else {})
        if "data" not in values:
            raise ConfigError(
                f"{path}: no {LOCAL}, expected it to tell where the run's betons lie; name their folder: "
                f"train BETONS --resume {path}"
            )
        return build(TrainConfig, values)
    except ConfigError as error:
        where = "" if any(str(path / name) in str(error) for name in (CONFIG, LOCAL)) else f"{path / CONFIG}: "
        raise ConfigError(f"{where}{error}") from error
