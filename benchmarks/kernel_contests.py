"""Contests of the kernels with OpenCV, DALI and numpy: frames of 320 to crops of 224, in two threads."""

# N samples, S side of a stored frame, H W rows and columns of the crop, 23 the two rows of an inverse affine matrix

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import dali_rival
from benchmarks.agreement import expect_oracle
from benchmarks.array_rivals import (
    Fill,
    numpy_affine,
    numpy_crop,
    opencv_affine,
    opencv_crop,
    single_threaded_opencv,
)
from benchmarks.contest import Call, Contest, Missing
from benchmarks.epochs import consume, first_samples
from benchmarks.settings import BATCH, THREADS
from benchmarks.targets import AFFINE, AFFINE_SCALING, CROP
from kernels.affine import affine_into, affine_scratch
from kernels.crop import crop_into
from loaders.augmentation import epoch_matrices
from loaders.beton import Beton
from loaders.config import LoaderConfig
from tests import naive

NUM_SAMPLES = 128
NUM_CHECKED = 16
AFFINE_PASSES = 4  # of all samples in one call: a pass takes only some ten milliseconds, one of the crop some three
CROP_PASSES = 10

Part = Callable[[np.ndarray, slice], None]  # writes the samples of a slice into out_N1HW


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The frames to crop, and what runs parts of them side by side."""

    beton: Beton
    inverse_N23: np.ndarray
    pool: ThreadPoolExecutor

    def call(
        self, part: Part, passes: int = 1, *, threads: int = THREADS, num_samples: int = NUM_SAMPLES
    ) -> Callable[[], np.ndarray]:
        """All samples by one rival, so many times over, into an array of its own, which the call gives."""
        crop = self.beton.facts.crop
        out_N1HW = np.empty((num_samples, 1, crop, crop), np.float32)
        step = num_samples // threads
        slices = [slice(start, start + step) for start in range(0, num_samples, step)]

        def run() -> np.ndarray:
            list(self.pool.map(lambda samples: part(out_N1HW, samples), slices * passes))
            return out_N1HW

        def run_alone() -> np.ndarray:
            for samples in slices * passes:
                part(out_N1HW, samples)
            return out_N1HW

        return run if threads > 1 else run_alone

    def affine(self, out_N1HW: np.ndarray, samples: slice) -> None:
        """Ours."""
        beton, side = self.beton, self.beton.side
        scratch = affine_scratch(out_N1HW.shape[3], side)
        matrices = self.inverse_N23[samples]
        affine_into(out_N1HW[samples], beton.bytes_B, beton.offset_N[samples], side, matrices, 0, side - 1, scratch)

    def expected_affine(self) -> np.ndarray:
        """The oracle's crops of the first samples."""
        crop, last = self.beton.facts.crop, self.beton.side - 1
        frames = ((self.beton.frame(n), self.inverse_N23[n]) for n in range(NUM_CHECKED))
        return np.stack([naive.affine(frame_SS, matrix, crop, 0, last) for frame_SS, matrix in frames])


@contextmanager
def work_on(path: Path) -> Iterator[Work]:
    """Frames of a beton; OpenCV keeps to the thread that calls it."""
    with single_threaded_opencv(), Beton(path) as beton, ThreadPoolExecutor(THREADS) as pool:
        inverse_N23 = epoch_matrices(LoaderConfig(training=True), 0, NUM_SAMPLES, beton.facts.crop, beton.side)
        yield Work(beton=beton, inverse_N23=inverse_N23, pool=pool)


def part_of(fill: Fill) -> Part:
    """A rival on a slice of the samples."""
    return lambda out_N1HW, samples: fill(out_N1HW[samples], range(samples.start, samples.stop))


@contextmanager
def affine_contest(path: Path, passes: int = AFFINE_PASSES) -> Iterator[Contest]:
    """The training crop of all samples, so many times in one call."""
    with work_on(path) as work:
        beton, crop, inverse_N23 = work.beton, work.beton.facts.crop, work.inverse_N23
        outputs: dict[str, Callable[[], np.ndarray] | Missing] = {
            "plainfilm": work.call(work.affine, passes),
            "OpenCV": work.call(part_of(opencv_affine(beton, inverse_N23)), passes),
            "numpy": work.call(part_of(numpy_affine(beton, inverse_N23))),
        }
        rivals: dict[str, Call | Missing] = dict(outputs)
        reason = dali_rival.missing()
        rivals["DALI, CPU"] = outputs["DALI, CPU"] = Missing(reason=reason or "")
        if reason is None:
            frames = [beton.frame(n)[..., None] for n in range(NUM_SAMPLES)] * AFFINE_PASSES
            matrices = np.concatenate([inverse_N23] * AFFINE_PASSES)
            epoch = dali_rival.frame_pipeline(frames, matrices, crop, BATCH, THREADS)
            outputs["DALI, CPU"] = lambda: first_samples(epoch, NUM_CHECKED)
            rivals["DALI, CPU"] = consume(epoch)
        yield Contest(
            what=AFFINE,
            amount=NUM_SAMPLES * passes,
            rivals=rivals,
            check=lambda: expect_oracle(outputs, work.expected_affine()),
            amounts={"numpy": NUM_SAMPLES, "DALI, CPU": NUM_SAMPLES * AFFINE_PASSES},
        )


@contextmanager
def affine_scaling_contest(path: Path) -> Iterator[Contest]:
    """The training crop in two threads and in one."""
    with work_on(path) as work:
        outputs: dict[str, Callable[[], np.ndarray] | Missing] = {
            "plainfilm": work.call(work.affine, AFFINE_PASSES),
            "one thread": work.call(work.affine, AFFINE_PASSES, threads=1),
        }
        yield Contest(
            what=AFFINE_SCALING,
            amount=NUM_SAMPLES * AFFINE_PASSES,
            rivals=dict(outputs),
            check=lambda: expect_oracle(outputs, work.expected_affine()),
        )


@contextmanager
def crop_contest(path: Path) -> Iterator[Contest]:
    """The evaluation crop."""
    with work_on(path) as work:
        beton, crop, side = work.beton, work.beton.facts.crop, work.beton.side

        def ours(out_N1HW: np.ndarray, samples: slice) -> None:
            crop_into(out_N1HW[samples], beton.bytes_B, beton.offset_N[samples], side)

        parts: dict[str, Part] = {
            "plainfilm": ours,
            "OpenCV": part_of(opencv_crop(beton)),
            "numpy": part_of(numpy_crop(beton)),
        }
        outputs: dict[str, Callable[[], np.ndarray] | Missing] = {
            name: work.call(part, CROP_PASSES) for name, part in parts.items()
        }
        yield Contest(
            what=CROP,
            amount=NUM_SAMPLES * CROP_PASSES,
            rivals=dict(outputs),
            check=lambda: expect_oracle(
                outputs, np.stack([naive.crop(beton.frame(n), crop) for n in range(NUM_CHECKED)]), mean=1e-6
            ),
        )
