"""The account of a profile: what the turns of each variant took, image by image, and what a whole run would."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Any

from engine.profile.variants import Variant

Answer = dict[str, Any]

PARTS = ("decode", "augment", "wait", "transfer", "forward", "backward", "optimiser", "step", "other")
EPOCHS, TRAINING, VALIDATION = 27, 1648, 412  # the report's run (DESIGN, recipe): 2,060 images
REPORT_SECONDS = 979.0  # of that run, on other hardware


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One variant.  Seconds an image, the medians of all turns: by part, of training and of validation.

    overlapped: parts that other threads or processes do beside the training; in seconds of theirs.
    turns: seconds an image of training, turn by turn.  worked, computed: share of the time that a loader thread works
    on batches, and computes for them.  conversion: seconds an image, once; 0 for a variant that reads files.
    """

    variant: Variant
    parts: dict[str, float]
    overlapped: tuple[str, ...]
    training: float
    validation: float
    turns: tuple[float, ...]
    worked: float = 0.0
    computed: float = 0.0
    conversion: float = 0.0

    @property
    def epoch_seconds(self) -> float:
        """Of an epoch of the report's size, validation included."""
        return TRAINING * self.training + VALIDATION * self.validation

    @property
    def conversion_seconds(self) -> float:
        """Of converting the report's images, once."""
        return (TRAINING + VALIDATION) * self.conversion

    @property
    def run_seconds(self) -> float:
        """Of the report's run, conversion included."""
        return EPOCHS * self.epoch_seconds + self.conversion_seconds

    def share(self, part: str) -> float:
        """Of the time of training."""
        return self.parts.get(part, 0.0) / self.training


def measured(
    variant: Variant, trained: list[Answer], validated: list[Answer], threads: int, conversion: float
) -> Measured:
    """Sum up a variant's turns.  trained, validated: the answers of its process.  threads: of the loader."""
    turns = [turn["seconds"] / turn["images"] for turn in trained]
    names = [part for part in PARTS if any(part in turn["parts"] for turn in trained)]

    def by_thread(name: str) -> float:
        return statistics.median(turn.get(name, 0.0) / (threads * turn["seconds"]) for turn in trained)

    return Measured(
        variant=variant,
        parts={
            part: statistics.median(turn["parts"].get(part, 0.0) / turn["images"] for turn in trained) for part in names
        },
        overlapped=tuple(trained[0]["overlapped"]),
        training=statistics.median(turns),
        validation=statistics.median(turn["seconds"] / turn["images"] for turn in validated),
        turns=tuple(turns),
        worked=by_thread("making"),
        computed=by_thread("computing"),
        conversion=conversion,
    )


def overhead_share(sizes: list[tuple[int, float]], batch_size: int) -> float | None:
    """The share of a step that its images do not change, from seconds by batch size; None without two sizes."""
    if len(sizes) < 2:
        return None
    (small, small_seconds), (large, large_seconds) = sizes[0], sizes[-1]
    an_image = max(0.0, (large_seconds - small_seconds) / (large - small))
    overhead = max(0.0, small_seconds - an_image * small)
    return overhead / (overhead + an_image * batch_size)
