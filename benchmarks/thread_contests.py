"""Contests of the loader with the simplest one that is fast: OpenCV or numpy in a pool of plain Python threads.

What else the machine does falls on such threads as it does on ours, which is not so of the pools of OpenMP behind torch
and FFCV, whose threads wait for each other. So these are the loader's pairs for `make bench-compare`.
"""

# N samples of a batch or beton, H W rows and columns of the crop

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.agreement import expect_oracle, expected_affine, expected_crops
from benchmarks.array_rivals import Fill, numpy_crop, opencv_affine, single_threaded_opencv
from benchmarks.augmentation_rivals import turns_of
from benchmarks.contest import Contest
from benchmarks.epochs import Epoch, arrays, consume, first_samples
from benchmarks.loader_contests import NUM_CHECKED, by_sample, open_ours
from benchmarks.settings import BATCH, THREADS
from benchmarks.targets import EVALUATION_THREADS, TRAINING_THREADS
from loaders.beton.reader import Beton
from loaders.sampling import epoch_matrices

AHEAD = 2 * THREADS  # batches in the making


def threaded(beton: Beton, fill: Fill, *, shuffled: bool) -> Epoch:
    """Epochs of batches that threads make ahead."""
    generator = np.random.default_rng(0)
    crop = beton.facts.crop

    def make(index_N: np.ndarray) -> np.ndarray:
        out_N1HW = np.empty((len(index_N), 1, crop, crop), np.float32)
        fill(out_N1HW, index_N)
        return out_N1HW

    def epoch() -> Iterator[np.ndarray]:
        order_N = generator.permutation(len(beton)) if shuffled else np.arange(len(beton))
        pending: deque[Future[np.ndarray]] = deque()
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(beton), BATCH):
                pending.append(pool.submit(make, order_N[start : start + BATCH]))
                if len(pending) == AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    return epoch


@contextmanager
def training_threads_contest(path: Path, epochs: int = 1) -> Iterator[Contest]:
    """Shuffled, rotated and zoomed crops, so many epochs in one call."""
    with open_ours(path, training=True) as loader, single_threaded_opencv():
        beton = loader.beton
        crop = beton.facts.crop
        fill = opencv_affine(beton, turns_of(loader.config, len(beton), crop).inverse_N23)
        in_order = threaded(beton, fill, shuffled=False)
        yield Contest(
            what=TRAINING_THREADS,
            amount=len(beton) * epochs,
            rivals={
                "plainfilm": consume(arrays(loader), epochs),
                "OpenCV in threads": consume(threaded(beton, fill, shuffled=True), epochs),
            },
            check=lambda: expect_oracle(
                {
                    "plainfilm": lambda: by_sample(loader),
                    "OpenCV in threads": lambda: first_samples(in_order, NUM_CHECKED),
                },
                expected_affine(beton, epoch_matrices(loader.config, 0, len(beton), crop, beton.side), NUM_CHECKED),
            ),
        )


@contextmanager
def evaluation_threads_contest(path: Path, epochs: int = 1) -> Iterator[Contest]:
    """Central crops in the beton's order, so many epochs in one call."""
    with open_ours(path, training=False) as loader:
        beton = loader.beton
        in_order = threaded(beton, numpy_crop(beton), shuffled=False)
        yield Contest(
            what=EVALUATION_THREADS,
            amount=len(beton) * epochs,
            rivals={
                "plainfilm": consume(arrays(loader), epochs),
                "numpy in threads": consume(in_order, epochs),
            },
            check=lambda: expect_oracle(
                {
                    "plainfilm": lambda: by_sample(loader),
                    "numpy in threads": lambda: first_samples(in_order, NUM_CHECKED),
                },
                expected_crops(beton, NUM_CHECKED),
            ),
        )
