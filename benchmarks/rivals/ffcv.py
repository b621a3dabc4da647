"""FFCV, where it is installed: its loader on plainfilm's beton."""

# N samples of a batch, S side of a stored frame, H W rows and columns of the crop

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit

from benchmarks.rivals.installed import why_missing
from benchmarks.settings import BATCH
from kernels.crops import crop_into
from kernels.jit import POLICY
from loaders.config import LoaderConfig

Prepare = Callable[[torch.Tensor, int], torch.Tensor]  # of FFCV's frames_NSS, and the first one's place in the epoch


def missing() -> str | None:
    """Why it is not there, or None.  Importing it changes torch's number of threads; `why_missing` puts that back."""
    return why_missing("ffcv", "ffcv.loader")


def open_loader(beton: Path, threads: int, *, shuffled: bool, image: tuple[Any, ...] = ()) -> Any:
    """FFCV's Loader: batches of what its operations make of frames, and labels (N, 1).

    image: a decoder and operations, by default FFCV's own decoder alone, for stored frames uint8 (N, S, S).
    Sets torch's number of threads to its own.
    """
    from ffcv.fields.decoders import IntDecoder, NDArrayDecoder  # not at the top: it may be missing
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    order = OrderOption.RANDOM if shuffled else OrderOption.SEQUENTIAL
    return Loader(
        str(beton),
        BATCH,
        num_workers=threads,
        os_cache=True,
        order=order,
        drop_last=False,
        seed=0,
        pipelines={
            "image": [*(image or (NDArrayDecoder(),)), ToTensor()],
            "label": [IntDecoder(), ToTensor()],
        },
    )


@contextmanager
def in_order(loader: Any) -> Iterator[None]:
    """For the `with`, the loader's epochs go in the beton's order: the pipeline that is timed is the one compared."""
    from ffcv.loader.loader import ORDER_MAP, OrderOption

    before = loader.traversal_order
    loader.traversal_order = ORDER_MAP[OrderOption.SEQUENTIAL](loader)
    try:
        yield
    finally:
        loader.traversal_order = before


def batches(loader: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's, about FFCV's code, when its first epoch compiles it
        yield from loader


def frames(loader: Any, prepare: Prepare | None = None) -> Iterator[np.ndarray]:
    """An epoch of crops float32 (N, 1, H, W), prepared in torch unless FFCV did so."""
    start = 0
    for frames_N, _ in batches(loader):
        yield (frames_N if prepare is None else prepare(frames_N, start)).numpy()
        start += len(frames_N)


def our_decoder(config: LoaderConfig) -> tuple[Any, ...]:
    """plainfilm's own fused operation in FFCV's pipeline, for a beton whose crop is 70 %."""
    from loaders.beton.ffcv_operation import FusedCropDecoder

    return (FusedCropDecoder(config),)


def decoder_and_crop(crop: int) -> tuple[Any, ...]:
    """FFCV's decoder, then plainfilm's evaluation crop, compiled into its pipeline, parallel over the samples."""
    from ffcv.fields.decoders import NDArrayDecoder
    from ffcv.pipeline.allocation_query import AllocationQuery
    from ffcv.pipeline.compiler import Compiler
    from ffcv.pipeline.operation import Operation
    from ffcv.pipeline.state import State

    # compiled apart for each pipeline, as in loaders/beton/ffcv_operation.py, which explains why
    crop_apart = njit(**POLICY)(crop_into.py_func)

    class Crop(Operation):
        """Frames uint8 (N, S, S) to crops float32 (N, 1, H, W) in [-1, 1]."""

        def generate_code(self) -> Callable:
            samples, first = Compiler.get_iterator(), np.zeros(1, np.int64)

            def cut(frames_NSS: np.ndarray, out_N1HW: np.ndarray) -> np.ndarray:
                stored = frames_NSS.shape[1]
                for n in samples(len(frames_NSS)):
                    crop_apart(out_N1HW[n : n + 1], frames_NSS[n].reshape(-1), first, stored)
                return out_N1HW[: len(frames_NSS)]

            cut.is_parallel = True  # type: ignore[attr-defined]
            return cut

        def declare_state_and_memory(self, previous_state: State) -> tuple[State, AllocationQuery]:
            shape, dtype = (1, crop, crop), np.dtype(np.float32)
            return replace(previous_state, shape=shape, dtype=dtype, jit_mode=True), AllocationQuery(shape, dtype)

    return NDArrayDecoder(), Crop()
