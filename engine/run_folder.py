"""The run folder: everything that a training leaves behind."""

# N samples

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter

from engine.checkpoint import save_checkpoint
from engine.config import TrainConfig
from engine.figures import curves_figure
from loaders.atomic_file import publish_bytes
from loaders.errors import ConfigError
from loaders.settings import build, flatten, read_settings

BEST, LAST, CONFIG, SUMMARY = (
    "best.safetensors",
    "last.safetensors",
    "config.json",
    "summary.json",
)


class RunFolder:
    """An open run folder.  Owns train.log and the TensorBoard events; close it, or use `with`."""

    def __init__(self, path: Path, purge_epoch: int | None = None) -> None:
        self.path = path
        self._handler = logging.FileHandler(path / "train.log", encoding="utf-8")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for name in ("engine", "loaders"):
            logging.getLogger(name).addHandler(self._handler)
            logging.getLogger(name).setLevel(logging.INFO)
        self._events = SummaryWriter(str(path), purge_step=purge_epoch)
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
        publish_bytes(self.path / "metrics.csv", text.getvalue().encode())
        for row in history[self._told :]:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self._events.add_scalar(name.replace("_", "/", 1), value, row["epoch"])
        self._told = len(history)
        self._events.flush()

    def draw(self, history: Sequence[dict[str, Any]], best_epoch: int, title: str) -> None:
        """Write curves.png anew."""
        publish_bytes(self.path / "curves.png", curves_figure(history, best_epoch, title))

    def save_summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        publish_bytes(self.path / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())

    def close(self) -> None:
        """Close log and events."""
        self._events.close()
        for name in ("engine", "loaders"):
            logging.getLogger(name).removeHandler(self._handler)
        self._handler.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def save_config(path: Path, config: TrainConfig) -> None:
    """Write config.json, which `--config` and `--resume` read."""
    publish_bytes(path / CONFIG, (json.dumps(flatten(config), indent=2) + "\n").encode())


def load_config(path: Path) -> TrainConfig:
    """Read a run's config.json.  Errors: ConfigError when path is no run folder."""
    if not (path / CONFIG).is_file():
        raise ConfigError(f"{path}: no {CONFIG}, expected a run folder of `train`; check the path")
    try:
        return build(TrainConfig, read_settings(path / CONFIG))
    except ConfigError as error:
        where = "" if str(path / CONFIG) in str(error) else f"{path / CONFIG}: "
        raise ConfigError(f"{where}{error}") from error
