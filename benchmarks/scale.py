"""Scale: the loader on betons of a thousand to a million small samples."""

import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contest import touch
from benchmarks.datasets import noise_beton
from benchmarks.settings import THREADS
from benchmarks.table import show, show_seconds
from loaders.batches.loader import Loader

STORED, CROP = 24, 16
BATCH = 256
ENOUGH = 20_000  # samples of warm epochs that are timed, at the least


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaling:
    """One size.  opening, first_batch: seconds from nothing to an open loader, and to its first batch."""

    num_samples: int
    opening: float
    first_batch: float
    training_rate: float
    evaluation_rate: float

    def cells(self) -> tuple[str, ...]:
        """For the table."""
        return (
            f"{self.num_samples:,}",
            show_seconds(self.opening),
            show_seconds(self.first_batch),
            show(self.training_rate),
            show(self.evaluation_rate),
        )


def scaling(folder: Path, num_samples: int) -> Scaling:
    """Open, make the first batch, and run epochs; the beton is written before and removed after."""
    path = noise_beton(folder / f"{num_samples}.beton", num_samples, STORED, CROP)
    rates: dict[bool, float] = {}
    for training in (False, True):
        start = time.perf_counter()
        with Loader(path, training=training, threads=THREADS, batch_size=BATCH) as loader:
            opening = time.perf_counter() - start
            batches = iter(loader)
            touch(next(batches)[0])
            first_batch = time.perf_counter() - start
            for frames_N1HW, *_ in batches:  # the first epoch, with checksums, is not counted
                touch(frames_N1HW)
            epochs = max(1, ENOUGH // num_samples)
            start = time.perf_counter()
            for _ in range(epochs):
                for frames_N1HW, *_ in loader:
                    touch(frames_N1HW)
            rates[training] = epochs * num_samples / (time.perf_counter() - start)
    path.unlink()
    return Scaling(
        num_samples=num_samples,
        opening=opening,
        first_batch=first_batch,
        training_rate=rates[True],
        evaluation_rate=rates[False],
    )


def scaling_table(found: list[Scaling]) -> list[str]:
    """One line a size."""
    rows = [("samples", "open", "first batch", "training/s", "evaluation/s"), *(size.cells() for size in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
