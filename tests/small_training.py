"""The settings of a small training, and where what is tested afterwards lies."""

from __future__ import annotations

from pathlib import Path

from engine.config import TrainConfig
from loaders.settings import build


def small_training(data: Path, out: Path, **settings: object) -> TrainConfig:
    """One epoch on the CPU, unless told otherwise.  settings: by name, those of the recipe and the loader too."""
    return build(TrainConfig, {"data": data, "out": out, "epochs": 1, "device": "cpu"} | settings)


def results_of(folder: Path, split: str = "heldout") -> Path:
    """The folder of the one set of this split that was tested there."""
    (found,) = folder.glob(f"{split}-????????")
    return found
