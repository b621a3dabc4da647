"""The loader: batches of normalised crops from a beton, made ahead by threads.

    with Loader("train.beton", LoaderConfig(training=True, seed=1)) as loader:
        for frames_N1HW, labels_N, index_N in loader:
            ...

One `for` is one epoch. Batches are yours to keep. Order, rotation and zoom are pure functions of
(seed, epoch, sample), so any number of threads gives the same bytes.
"""

# N samples of a batch, O samples of an epoch in its order, H W rows and columns of the crop, B bytes,
# 23 the two rows of an inverse affine matrix

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from kernels.crops import affine_into, affine_scratch, crop_into
from loaders.batches.memory import BatchMemory, ReadAhead, anonymous_memory
from loaders.beton.reader import Beton
from loaders.config import LoaderConfig, check_choice
from loaders.errors import ConfigError
from loaders.machine import usable_cores, usable_memory
from loaders.sampling import epoch_matrices, epoch_order, paged_order, sampled_pixels
from loaders.workers import WatchedThreads

Batch = tuple[Any, Any, Any]  # three numpy arrays, or three tensors


class Loader:
    """Batches of one beton.  Owns the beton's map; threads live only while an epoch is iterated.

    Yields frames float32 (N, 1, H, W) in [-1, 1], labels int64 (N,), or of findings float32 (N, K), index int64 (N,),
    the samples' places in the beton; with tensors=True as torch tensors.
    Seconds of the current or last epoch: wait_seconds, for which the consumer waited for batches; consumer_seconds,
    which it spent between batches; making_seconds, which all threads together spent on batches; cpu_seconds, the
    processor time of that.
    Errors: BetonError at once for a bad file, and while iterating for a sample whose checksum differs; ConfigError
    for page-locked memory without CUDA, and from an iteration that continues after `close` or after another one began;
    RuntimeError when a thread died.
    """

    def __init__(
        self, path: str | Path, config: LoaderConfig | None = None, *, tensors: bool = False, **changes: Any
    ) -> None:
        self.config = config = replace(config or LoaderConfig(), **changes)
        self.tensors = tensors
        if config.pin_memory:
            require_cuda(tensors)
        self.beton = Beton(path, trust_unverified=config.trust_unverified)
        self.threads = config.threads or usable_cores()
        self.resident = config.resident == "on"
        self.streamed = not self.resident and self.beton.bytes_B.size > usable_memory() // 2
        self.order = config.order
        if self.order == "auto":
            self.order = "pages" if self.streamed else "random"
        self.epoch = 0
        self.position = 0  # samples of this epoch that the consumer has
        self._reset_seconds()
        self._resumed = False
        self._epoch_set = False  # while an epoch is iterated
        self._iterations = 0
        self._checked = np.full(len(self.beton), not self.beton.verified)  # where there are checksums
        self._cached = False  # after one epoch the beton is in the system's file cache, if it fits
        self._own = threading.local()  # each thread's scratch
        spare = self.threads + config.prefetch + 2  # one in use by the consumer, one that it has just dropped
        self._memory = BatchMemory(config.batch_size, self.beton.facts.crop, spare=spare)
        bytes_B, offset_N = self.beton.bytes_B, self.beton.offset_N
        if self.resident:
            start, stop = self.beton.pages_start, self.beton.pages_end
            bytes_B = np.frombuffer(anonymous_memory(stop - start), np.uint8)
            self.beton.check_unchanged()
            bytes_B[:] = self.beton.bytes_B[start:stop]
            self.beton.check_unchanged()
            offset_N = offset_N - start
        # where frames are read from: one object, so that a thread has both or, once closed, neither
        self._frames: tuple[np.ndarray, np.ndarray] | None = (bytes_B, offset_N)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self.num_samples // self.config.batch_size)

    @property
    def num_samples(self) -> int:
        """Samples in an epoch: all of the beton's, or this rank's share."""
        return len(range(self.config.rank, len(self.beton), self.config.world_size))

    def set_epoch(self, epoch: int) -> None:
        """Start the next iteration at the beginning of this epoch."""
        self.epoch, self.position, self._resumed, self._epoch_set = epoch, 0, False, True

    def state_dict(self) -> dict[str, Any]:
        """The consumer's position: enough to yield the identical remaining batches."""
        return {
            "seed": self.config.seed, "epoch": self.epoch, "position": self.position, "order": self.order,
            "world_size": self.config.world_size,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`, in the order that was chosen there, on the same rank or another.

        Errors: ConfigError for another seed, another number of ranks or an impossible position.
        """
        if state["seed"] != self.config.seed:
            raise ConfigError(f"loader state: seed {state['seed']}, expected {self.config.seed}; use the same --seed")
        if state["world_size"] != self.config.world_size:
            found, expected = state["world_size"], self.config.world_size
            raise ConfigError(f"loader state: of {found} ranks, expected {expected}; use the same number")
        most = -(-len(self.beton) // self.config.world_size)  # of the first rank, which may have one more than this one
        if not 0 <= state["position"] <= most:
            raise ConfigError(f"loader state: position {state['position']}, expected 0 to {most}; use the same beton")
        check_choice("order", state["order"], ("random", "pages"))
        self.order, self.epoch = state["order"], state["epoch"]
        self.position, self._resumed, self._epoch_set = min(state["position"], self.num_samples), True, True

    def epoch_order(self, epoch: int) -> np.ndarray:
        """The samples of one epoch in their order, int64: all, or this rank's share of every batch."""
        config, beton = self.config, self.beton
        if not config.training:
            order_O = np.arange(len(beton))
        elif self.order == "pages":
            order_O = paged_order(config.seed, epoch, beton.offset_N, beton.page_size)
        else:
            order_O = epoch_order(config.seed, epoch, len(beton))
        return order_O[config.rank :: config.world_size]

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over one epoch, from its start or from a state that was just loaded; the next epoch follows it."""
        self._check_open()
        self._iterations += 1
        if not self._resumed:
            self.position = 0
        self._resumed = self._epoch_set = False
        self._reset_seconds()
        return self._epoch(self._iterations, self.epoch, self.position)

    def _reset_seconds(self) -> None:
        self.wait_seconds = self.consumer_seconds = self.making_seconds = self.cpu_seconds = 0.0

    def _epoch(self, iteration: int, epoch: int, position: int) -> Iterator[Batch]:
        """The batches of one epoch from a position on."""
        batch_size, beton, begun = self.config.batch_size, self.beton, position > 0
        order_O = self.epoch_order(epoch)
        inverse_N23 = None
        if self.config.training:
            inverse_N23 = epoch_matrices(self.config, epoch, len(beton), beton.facts.crop, beton.side)
        starts = iter(range(position, len(order_O), batch_size))
        pending: deque[Future[tuple[Batch, float, float]]] = deque()
        reading = self.read_ahead(order_O, position)
        pool = WatchedThreads(self.threads, "plainfilm-loader")
        try:
            while True:
                while len(pending) < self.threads + self.config.prefetch and (start := next(starts, None)) is not None:
                    if reading is not None:
                        reading.advance(start + batch_size, position)
                    pending.append(pool.submit(self._timed_batch, order_O[start : start + batch_size], inverse_N23))
                if not pending:
                    break
                asked = time.perf_counter()
                batch, making_seconds, cpu_seconds = pool.result(pending.popleft())
                given = time.perf_counter()
                position += len(batch[2])
                if not self._epoch_set:
                    self.position = position
                yield batch
                del batch  # else its memory could not be reused before the next one is here
                self._check_open()
                if iteration != self._iterations:
                    what = "another iteration of this loader has begun, expected one at a time"
                    raise ConfigError(f"{beton.path}: {what}; open a second Loader")
                self.wait_seconds += given - asked
                self.consumer_seconds += time.perf_counter() - given
                self.making_seconds += making_seconds
                self.cpu_seconds += cpu_seconds
        finally:  # also when the consumer breaks off
            pool.close()
            if reading is not None:
                reading.close()
        if self.config.world_size == 1 and not begun:
            self._cached = True
        if not self._epoch_set:
            self.epoch, self.position = epoch + 1, 0

    def _check_open(self) -> None:
        if self._frames is None:
            raise ConfigError(f"{self.beton.path}: this loader is closed, expected an open one; open it again")

    def read_ahead(self, order_O: np.ndarray, position: int) -> ReadAhead | None:
        """The reader of pages ahead of this epoch; None where they are in memory already."""
        if self.resident or (self._cached and not self.streamed):
            return None
        return ReadAhead(self.beton, order_O, position, let_go=self.streamed)

    def _timed_batch(self, index_N: np.ndarray, inverse_N23: np.ndarray | None) -> tuple[Batch, float, float]:
        """A batch, and the seconds that it took this thread: by the clock, and of processor time."""
        wall, processor = time.perf_counter(), time.thread_time()
        batch = self.make_batch(index_N, inverse_N23)
        return batch, time.perf_counter() - wall, time.thread_time() - processor

    def make_batch(self, index_N: np.ndarray, inverse_N23: np.ndarray | None) -> Batch:
        """One batch of the samples index_N; inverse_N23: the matrix of every sample of the beton, or None for crops."""
        self._check_open()
        assert self._frames is not None
        bytes_B, all_offset_N = self._frames
        side, crop, labels = self.beton.side, self.beton.facts.crop, self.beton.labels
        if not self.resident:
            self.beton.check_unchanged()
        crc_N = self.room_for_checksums(index_N)
        pinned = None
        if self.config.pin_memory:
            import torch  # only here, so that the loader works without it

            # torch's own cache of page-locked memory: it alone knows which copies to the device are still under way
            pinned = torch.empty(len(index_N), 1, crop, crop, pin_memory=True)
        frames_N1HW = self._memory.take(len(index_N)) if pinned is None else pinned.numpy()
        offset_N = all_offset_N[index_N]
        if inverse_N23 is None:
            crop_into(frames_N1HW, bytes_B, offset_N, side, crc_N)
        else:
            if not hasattr(self._own, "scratch"):
                self._own.scratch = affine_scratch(crop, side)
            low, high = sampled_pixels(self.config, crop, side)
            matrix_N23, scratch = inverse_N23[index_N], self._own.scratch
            affine_into(frames_N1HW, bytes_B, offset_N, side, matrix_N23, low, high, scratch, crc_N)
        if not self.resident:
            self.beton.check_unchanged()
        self.check_first_touch(index_N, crc_N)
        if not self.tensors:
            return frames_N1HW, labels[index_N], index_N
        import torch

        frames = torch.from_numpy(frames_N1HW) if pinned is None else pinned
        return frames, torch.from_numpy(labels[index_N]), torch.from_numpy(index_N)

    def room_for_checksums(self, index_N: np.ndarray) -> np.ndarray | None:
        """Where to write these samples' CRCs as their frames are read, uint32; None where all were compared before."""
        return None if self._checked[index_N].all() else np.empty(len(index_N), np.uint32)

    def check_first_touch(self, index_N: np.ndarray, crc_N: np.ndarray | None) -> None:
        """Compare the CRCs that were written, if any.  Errors: BetonError for a frame that is not what was stored."""
        if crc_N is not None:
            self.beton.expect_checksums(index_N, crc_N)
            self._checked[index_N] = True

    def close(self) -> None:
        """Release the beton's map; a running iteration ends with a ConfigError."""
        self._frames = None
        self.beton.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def require_cuda(tensors: bool) -> None:
    """Errors: ConfigError unless page-locked memory is available and useful."""
    try:
        import torch  # only here, so that the loader works without it

        found = "numpy batches" if not tensors else "" if torch.cuda.is_available() else "no CUDA device"
    except ImportError:
        found = "no torch"
    if found:
        raise ConfigError(f"--pin-memory: found {found}, expected tensors and CUDA; leave it out")
