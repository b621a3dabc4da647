"""The summary of a training: what a run says of itself, in its files and beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.config import TrainConfig
from engine.train.state import State
from loaders import __version__
from loaders.beton.format import Facts
from loaders.cautions import Caution, caution
from loaders.figure_text import ClassNames

EARLY_SCORE = 0.99  # of validation after one epoch; the report saw 99 %, and its data gave the class without the lungs


def early_convergence(first: Mapping[str, Any]) -> list[Caution]:
    """A caution where a score was too good too soon, which points to the data.  first: the first epoch's metrics."""
    for name, metric in (("val_f1", "F1"), ("val_accuracy", "accuracy")):
        value = first.get(name)
        if value is not None and value >= EARLY_SCORE:
            return [caution("early-convergence", metric=metric, value=value)]
    return []


def title(facts: Facts, names: ClassNames, num_train: int, num_val: int) -> str:
    """What the curves show."""
    kind = "synthetic phantoms" if facts.synthetic else "radiographs"
    which = f"F1 of {names.text_of[facts.positive]}" if len(facts.classes) == 2 else "macro F1"
    return f"{names.listed()}: {num_train} training and {num_val} validation {kind}; {which}"


def weights_name(config: TrainConfig) -> str:
    """The weights that a training began with: none, default, or a file's name without its folder."""
    weights = config.recipe.weights
    return weights if weights in ("none", "default") else Path(weights).name


def weights_description(
    config: TrainConfig, facts: Facts, run: str, epoch: int, metrics: dict[str, Any]
) -> dict[str, Any]:
    """What must be known of the weights to use them.  run: of run_id."""
    return {
        "network": config.model,
        "began_with": weights_name(config),
        "classes": list(facts.classes),
        "positive": facts.positive,
        "crop": facts.crop,
        "stored": facts.stored,
        "fit": facts.fit,
        "dropout": config.recipe.dropout,
        "conversion_id": facts.conversion_id,
        "run": run,
        "epoch": epoch,
        "validation": metrics,
    }


def summary(state: State, facts: Facts, **others: Any) -> dict[str, Any]:
    """The content of summary.json.  others: what neither the state nor the betons know."""
    rates = [row["images_per_second"] for row in state.history]
    return {
        "best_f1": state.best_f1,
        "best_epoch": state.best_epoch,
        "epochs": len(state.history),
        "stopped": state.finished,
        "images_per_second": float(np.median(rates)),
        "seconds": round(state.seconds, 3),
        "steps": state.step,
        "classes": list(facts.classes),
        "positive": facts.positive,
        "crop": facts.crop,
        "synthetic": facts.synthetic,
        "conversion_id": facts.conversion_id,
        **others,
        "versions": {"plainfilm": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
