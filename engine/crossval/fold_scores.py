"""The scores of one fold: what its network said of its test set, kept so that a finished fold is not made again."""

# N samples of the test set, K classes

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from loaders.atomic_file import publish_bytes
from loaders.errors import ConfigError

SCORES = "fold.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FoldScores:
    """One finished fold.  place_N: the test samples' places in the pool, int64.  probability_NK: float64."""

    identity: str
    """Conversion id of the fold's betons, which tells the pool, the split and who is where."""
    split: str
    number: int
    num_train: int
    num_val: int
    place_N: np.ndarray
    probability_NK: np.ndarray
    validation_f1: float
    epochs: int
    best_epoch: int
    stopped: str
    seconds: float


def save_scores(folder: Path, scores: FoldScores) -> None:
    """Write fold.json.  Errors: StorageError."""
    content = asdict(scores)
    for name in ("place_N", "probability_NK"):
        content[name.split("_")[0]] = content.pop(name).tolist()  # JSON keeps every bit of a float
    publish_bytes(folder / SCORES, (json.dumps(content) + "\n").encode())


def load_scores(folder: Path, identity: str, test_N: np.ndarray, num_classes: int) -> FoldScores | None:
    """Read fold.json; None where the fold was not finished.  test_N: the places that it must tell of.

    Errors: ConfigError for a fold of other betons, or one that cannot be read.
    """
    path = folder / SCORES
    if not path.is_file():
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        place_N = np.array(content.pop("place"), np.int64)
        probability_NK = np.array(content.pop("probability"), np.float64)
        scores = FoldScores(place_N=place_N, probability_NK=probability_NK, **content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path}: damaged ({error}), expected the scores of a finished fold; remove it, and the fold is made again"
        ) from error
    if scores.identity != identity:
        raise ConfigError(
            f"{path}: the fold was made of other betons or samples, expected the same; bring the old betons back, "
            "or choose another --out"
        )
    wanted = (len(test_N), num_classes)
    if not (np.array_equal(place_N, test_N) and probability_NK.shape == wanted and np.isfinite(probability_NK).all()):
        raise ConfigError(
            f"{path}: damaged (scores of shape {probability_NK.shape} for {len(place_N)} samples), expected {wanted}, "
            "all finite, of the fold's own samples; remove it, and the fold is made again"
        )
    return scores
