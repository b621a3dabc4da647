"""The loader: batches of normalised crops out of a beton, made ahead by threads.

    with Loader("train.beton", LoaderConfig(training=True, seed=1)) as loader:
        for frames_N1HW, labels_N, index_N in loader:
            ...

One `for` is one epoch. Batches are the consumer's to keep. Order, rotation and zoom are pure functions of
(seed, epoch, sample), so any number of threads gives the same bytes.
"""

# N samples of a batch, H W rows and columns of the crop

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from kernels.affine import affine_into, affine_scratch
from kernels.crop import crop_into
from loaders.augmentation import epoch_matrices
from loaders.beton import Beton
from loaders.config import LoaderConfig
from loaders.errors import ConfigError
from loaders.randomness import epoch_order

Batch = tuple[Any, Any, Any]  # three numpy arrays, or three tensors


class Loader:
    """Batches of one beton.  Owns the beton's map; threads live only while an epoch is iterated.

    Yields frames float32 (N, 1, H, W) in [-1, 1], labels int64 (N,), index int64 (N,), the samples' places in
    the beton; with tensors=True as torch tensors.
    Errors: BetonError at once for a bad file, and from the iteration for a sample whose checksum differs.
    """

    def __init__(
        self, path: str | Path, config: LoaderConfig | None = None, *, tensors: bool = False, **changes: Any
    ) -> None:
        self.config = replace(config or LoaderConfig(), **changes)
        self.beton = Beton(path, trust_unverified=self.config.trust_unverified)
        self.tensors = tensors
        self.epoch = 0
        self.position = 0  # samples of this epoch that the consumer has
        self._resumed = False
        self._checked = np.zeros(len(self.beton), np.bool_)

    def __len__(self) -> int:
        """Batches an epoch."""
        return -(-len(self.beton) // self.config.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Begin the next iteration at the start of this epoch."""
        self.epoch, self.position, self._resumed = epoch, 0, False

    def state_dict(self) -> dict[str, int]:
        """Where the consumer is: enough to yield the identical remaining batches."""
        return {"seed": self.config.seed, "epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was taken.  Errors: ConfigError for another seed or an impossible position."""
        if state["seed"] != self.config.seed:
            raise ConfigError(f"loader state: seed {state['seed']}, expected {self.config.seed}; use the same --seed")
        if not 0 <= state["position"] <= len(self.beton):
            raise ConfigError(
                f"loader state: position {state['position']}, expected 0 to {len(self.beton)}; use the same beton"
            )
        self.epoch, self.position, self._resumed = state["epoch"], state["position"], True

    def __iter__(self) -> Iterator[Batch]:
        """One epoch, from its start, or from a state that was just loaded; then the next epoch is due."""
        num_samples, config = len(self.beton), self.config
        if not self._resumed:
            self.position = 0
        self._resumed = False
        epoch = self.epoch
        order_N = epoch_order(config.seed, epoch, num_samples) if config.training else np.arange(num_samples)
        inverse_N23 = None
        if config.training:
            inverse_N23 = epoch_matrices(config, epoch, num_samples, self.beton.facts.crop, self.beton.side)
        threads = config.threads or os.cpu_count() or 1
        starts = iter(range(self.position, num_samples, config.batch_size))
        pending: deque[Future[Batch]] = deque()
        pool = ThreadPoolExecutor(threads, thread_name_prefix="plainfilm-loader")
        try:
            while True:
                while len(pending) < threads + config.prefetch and (start := next(starts, None)) is not None:
                    index_N = order_N[start : start + config.batch_size]
                    pending.append(pool.submit(self.make_batch, index_N, inverse_N23))
                if not pending:
                    break
                batch = pending.popleft().result()
                self.position += len(batch[2])
                yield batch
        finally:  # also when the consumer breaks off
            pool.shutdown(wait=True, cancel_futures=True)
        self.epoch, self.position = epoch + 1, 0

    def make_batch(self, index_N: np.ndarray, inverse_N23: np.ndarray | None) -> Batch:
        """One batch of the samples index_N; inverse_N23 has the matrix of every sample of the beton, or is None."""
        beton, crop = self.beton, self.beton.facts.crop
        self.check_first_touch(index_N)
        frames_N1HW = np.empty((len(index_N), 1, crop, crop), np.float32)
        offset_N = beton.offset_N[index_N]
        if inverse_N23 is None:
            crop_into(frames_N1HW, beton.bytes_B, offset_N, beton.side)
        else:
            margin = (beton.side - crop) // 2 if self.config.augment_from == "crop" else 0
            low, high = margin, beton.side - 1 - margin
            inverse_N23, scratch = inverse_N23[index_N], affine_scratch(crop, beton.side)
            affine_into(frames_N1HW, beton.bytes_B, offset_N, beton.side, inverse_N23, low, high, scratch)
        labels_N = beton.label_N[index_N]
        if not self.tensors:
            return frames_N1HW, labels_N, index_N
        import torch  # only here, so that the loader works without it

        return torch.from_numpy(frames_N1HW), torch.from_numpy(labels_N), torch.from_numpy(index_N)

    def check_first_touch(self, index_N: np.ndarray) -> None:
        """Compare each sample with its CRC the first time it is read."""
        for sample in index_N[~self._checked[index_N]]:
            self.beton.check_sample(int(sample))
            self._checked[sample] = True

    def close(self) -> None:
        """Give the beton's map back."""
        self.beton.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
