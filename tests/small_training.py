"""The settings of a small training."""

from __future__ import annotations

from pathlib import Path

from engine.config import TrainConfig
from loaders.settings import build


def small_training(data: Path, out: Path, **settings: object) -> TrainConfig:
    """One epoch on the CPU, unless told otherwise.  settings: by name, those of the recipe and the loader too."""
    return build(TrainConfig, {"data": data, "out": out, "epochs": 1, "device": "cpu"} | settings)
