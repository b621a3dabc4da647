"""DALI on the CPU, where it is installed: warp_affine of frames, and of pictures that it decodes itself."""

# N samples of a batch, H W rows and columns of the crop, 23 the two rows of an inverse affine matrix

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rivals.installed import why_missing

MIDDLE = 127.5
AHEAD = 2  # batches that the pipeline makes ahead, its own default


def missing() -> str | None:
    """Why it is not there, or None."""
    return why_missing("dali", "nvidia.dali.fn")


class Samples:
    """One epoch of a pipeline's input; starts again after the end, which drains the pipeline.

    So nothing of DALI's is at work while another rival has its turn.
    """

    def __init__(self, load: Callable[[int], np.ndarray], inverse_N23: np.ndarray, batch: int) -> None:
        self.load, self.inverse_N23, self.batch = load, inverse_N23, batch
        self.start = 0

    def __call__(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The next batch."""
        chosen = range(self.start, min(self.start + self.batch, len(self.inverse_N23)))
        if not chosen:
            self.start = 0
            raise StopIteration
        self.start = chosen.stop
        return [self.load(sample) for sample in chosen], [self.inverse_N23[sample] for sample in chosen]


def warp(images: Any, matrices: Any, crop: int) -> Any:
    """Bilinear, clamped at the crop's edge, to float32 in [-1, 1].  images: crops.  matrices: from crop to crop.

    The float output of warp_affine with crop_mirror_normalize is the fastest of DALI's ways, and keeps the fractions.
    """
    from nvidia.dali import fn, types

    warped = fn.warp_affine(
        images,
        matrix=matrices,
        size=(crop, crop),
        inverse_map=True,
        interp_type=types.INTERP_LINEAR,
        fill_value=None,
        dtype=types.FLOAT,
    )
    return fn.crop_mirror_normalize(
        warped, dtype=types.FLOAT, output_layout="CHW", mean=[MIDDLE], std=[MIDDLE]
    )  # fused: subtract, divide, transpose


def build(define: Callable[[], Any], batch: int, threads: int) -> Any:
    """A pipeline on the CPU alone."""
    from nvidia.dali import Pipeline

    pipeline = Pipeline(batch, threads, device_id=None, prefetch_queue_depth=AHEAD)
    with pipeline:
        pipeline.set_outputs(define())
    pipeline.build()
    return pipeline


def epoch_of(pipeline: Any) -> Iterator[np.ndarray]:
    """Batches of crops until the input ends."""
    while True:
        try:
            (crops,) = pipeline.run()
        except StopIteration:
            pipeline.reset()
            return
        yield crops.as_array()


def frame_pipeline(
    crops: Sequence[np.ndarray], inverse_N23: np.ndarray, crop: int, batch: int, threads: int
) -> Callable[[], Iterator[np.ndarray]]:
    """Epochs of augmented crops out of uint8 crops (H, W, 1), which are not copied."""
    from nvidia.dali import fn

    samples = Samples(crops.__getitem__, inverse_N23, batch)

    def define() -> Any:
        images, matrices = fn.external_source(source=samples, num_outputs=2, layout=["HWC", ""], no_copy=True)
        return warp(images, matrices, crop)

    pipeline = build(define, batch, threads)
    return lambda: epoch_of(pipeline)


def file_pipeline(
    paths: Sequence[Path], inverse_N23: np.ndarray, stored: int, crop: int, batch: int, threads: int
) -> Callable[[], Iterator[np.ndarray]]:
    """Epochs of crops out of original files: decoded to grey, stretched to the stored side, cut out, warped."""
    from nvidia.dali import fn, types

    samples = Samples(lambda sample: np.fromfile(paths[sample], np.uint8), inverse_N23, batch)

    def define() -> Any:
        files, matrices = fn.external_source(source=samples, num_outputs=2, no_copy=True)
        images = fn.decoders.image(files, device="cpu", output_type=types.GRAY)
        frames = fn.resize(images, size=(stored, stored), interp_type=types.INTERP_LINEAR, antialias=True)
        return warp(fn.crop(frames, crop=(crop, crop)), matrices, crop)

    pipeline = build(define, batch, threads)
    return lambda: epoch_of(pipeline)
