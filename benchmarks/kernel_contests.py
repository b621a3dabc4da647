"""Contests of the kernels with OpenCV, DALI and numpy: frames of 320 to crops of 224, in two threads."""

# N samples, H W rows and columns of the crop, 23 the two rows of an inverse affine matrix

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.agreement import expect_oracle, expected_affine, expected_crops
from benchmarks.contest import Call, Contest, Missing, consume, first_samples
from benchmarks.rivals import dali
from benchmarks.rivals.arrays import (
    Fill,
    middle_of,
    numpy_affine,
    numpy_crop,
    opencv_affine,
    opencv_crop,
    single_threaded_opencv,
)
from benchmarks.rivals.augmentation import turns_of
from benchmarks.settings import BATCH, THREADS
from benchmarks.targets import AFFINE, AFFINE_SCALING, CROP
from kernels.crops import affine_into, affine_scratch, crop_into
from loaders.beton.reader import Beton
from loaders.config import LoaderConfig
from loaders.sampling import epoch_matrices

NUM_SAMPLES = 128
NUM_CHECKED = 16
AFFINE_PASSES = 4  # of all samples in one call: a pass takes only some ten milliseconds, one of the crop some three
CROP_PASSES = 10

Part = Callable[[np.ndarray, slice], None]  # writes the samples of a slice into out_N1HW


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The frames to crop, and what runs parts of them side by side.

    inverse_N23: of the first samples, those that are cropped, from the crop to the stored frame.
    """

    beton: Beton
    inverse_N23: np.ndarray
    pool: ThreadPoolExecutor

    def call(self, part: Part, passes: int = 1, *, threads: int = THREADS) -> Callable[[], np.ndarray]:
        """All samples by one rival, so many times over, into an array of its own, which the call gives."""
        crop, num_samples = self.beton.facts.crop, len(self.inverse_N23)
        out_N1HW = np.empty((num_samples, 1, crop, crop), np.float32)
        step = -(-num_samples // threads)
        slices = [slice(start, min(start + step, num_samples)) for start in range(0, num_samples, step)]

        def own(samples: slice) -> None:
            # all passes of a slice are one thread's: two at once would write the same crops, some in two steps
            for _ in range(passes):
                part(out_N1HW, samples)

        def run() -> np.ndarray:
            list(self.pool.map(own, slices) if threads > 1 else map(own, slices))
            return out_N1HW

        return run

    def affine(self, out_N1HW: np.ndarray, samples: slice) -> None:
        """Ours, sampled from the crop as in training."""
        beton, side, crop = self.beton, self.beton.side, self.beton.facts.crop
        low = (side - crop) // 2
        matrices, offset_N = self.inverse_N23[samples], beton.offset_N[samples]
        scratch = affine_scratch(crop, side)
        affine_into(out_N1HW[samples], beton.bytes_B, offset_N, side, matrices, low, side - 1 - low, scratch)


@contextmanager
def work_on(path: Path) -> Iterator[Work]:
    """Frames of a beton; OpenCV keeps to the thread that calls it."""
    with single_threaded_opencv(), Beton(path) as beton, ThreadPoolExecutor(THREADS) as pool:
        num_samples = min(NUM_SAMPLES, len(beton))
        inverse_N23 = epoch_matrices(LoaderConfig(training=True), 0, num_samples, beton.facts.crop, beton.side)
        yield Work(beton=beton, inverse_N23=inverse_N23, pool=pool)


def part_of(fill: Fill) -> Part:
    """A rival on a slice of the samples."""
    return lambda out_N1HW, samples: fill(out_N1HW[samples], range(samples.start, samples.stop))


@contextmanager
def affine_contest(path: Path, passes: int = AFFINE_PASSES) -> Iterator[Contest]:
    """The training crop of all samples, so many times in one call."""
    with work_on(path) as work:
        beton, crop, num_samples = work.beton, work.beton.facts.crop, len(work.inverse_N23)
        turns = turns_of(LoaderConfig(training=True), num_samples, crop)
        outputs: dict[str, Callable[[], np.ndarray] | Missing] = {
            "plainfilm": work.call(work.affine, passes),
            "OpenCV": work.call(part_of(opencv_affine(beton, turns.inverse_N23)), passes),
            "numpy": work.call(part_of(numpy_affine(beton, turns.inverse_N23))),
        }
        rivals: dict[str, Call | Missing] = dict(outputs)
        reason = dali.missing()
        rivals["DALI, CPU"] = outputs["DALI, CPU"] = Missing(reason=reason or "")
        if reason is None:
            # cut out beforehand, outside its time: it needs contiguous input
            middle = middle_of(beton)
            crops = [np.ascontiguousarray(beton.frame(n)[middle])[..., None] for n in range(num_samples)]
            matrices = np.concatenate([turns.inverse_N23] * AFFINE_PASSES)
            epoch = dali.frame_pipeline(crops * AFFINE_PASSES, matrices, crop, BATCH, THREADS)
            outputs["DALI, CPU"] = lambda: first_samples(epoch, NUM_CHECKED)
            rivals["DALI, CPU"] = consume(epoch)
        yield Contest(
            what=AFFINE,
            amount=num_samples * passes,
            rivals=rivals,
            check=lambda: expect_oracle(outputs, expected_affine(beton, work.inverse_N23, NUM_CHECKED)),
            amounts={"numpy": num_samples, "DALI, CPU": num_samples * AFFINE_PASSES},
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
            amount=len(work.inverse_N23) * AFFINE_PASSES,
            rivals=dict(outputs),
            check=lambda: expect_oracle(outputs, expected_affine(work.beton, work.inverse_N23, NUM_CHECKED)),
        )


@contextmanager
def crop_contest(path: Path) -> Iterator[Contest]:
    """The evaluation crop."""
    with work_on(path) as work:
        beton, side = work.beton, work.beton.side

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
            amount=len(work.inverse_N23) * CROP_PASSES,
            rivals=dict(outputs),
            check=lambda: expect_oracle(outputs, expected_crops(beton, NUM_CHECKED), mean=1e-6),
        )
