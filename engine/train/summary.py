"""The summary of a training: summary.json, and what lies beside the weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.config import TrainConfig
from engine.statistics.names import headline_name, short_name
from engine.train.state import Ending
from loaders.beton.format import Facts
from loaders.cautions import Caution, caution
from loaders.figure_text import ClassNames
from loaders.records import Count, Record

SUMMARY = "summary.json"
EARLY_SCORE = 0.99  # of validation after one epoch; the report saw 99 %, and its data gave the class without the lungs

ENDINGS: dict[Ending, str] = {"patience": "stopped early: no better validation F1", "epochs": "all epochs done"}


class Summary(Record, frozen=True, kw_only=True):
    """A finished training, as summary.json holds it.  best_f1: of validation.  seconds: of all sessions together.

    device: for people.  device_type: torch's, such as cpu.  compile: why torch.compile is used, or not.
    """

    made_by = "train"
    version: int = 1
    best_f1: float
    best_epoch: Count
    epochs: Count
    stopped: Ending
    images_per_second: float
    seconds: float
    steps: Count
    classes: list[str]
    positive: str
    crop: Count
    synthetic: bool
    conversion_id: str
    cautions: list[Caution]
    training_images: Count
    validation_images: Count
    model: str
    weights: str
    head_epochs: Count
    parameters: Count
    device: str
    device_type: str
    compile: Caution
    checkpoint_sha256: str
    versions: dict[str, str]
    not_for_diagnosis: bool = True

    @property
    def ending(self) -> str:
        """Why it ended, to stand in brackets."""
        return ENDINGS[self.stopped]


def early_convergence(first: Mapping[str, Any]) -> list[Caution]:
    """A caution where a score was too good too soon, which points to the data.  first: the first epoch's metrics."""
    for metric in ("f1", "accuracy"):
        value = first.get(f"val_{metric}")
        if value is not None and value >= EARLY_SCORE:
            return [caution("early-convergence", metric=short_name(metric), value=value)]
    return []


def title(facts: Facts, names: ClassNames, num_train: int, num_val: int) -> str:
    """What the curves show."""
    kind = "synthetic phantoms" if facts.synthetic else "radiographs"
    which = headline_name("f1", len(facts.classes), names.text_of[facts.positive])
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
