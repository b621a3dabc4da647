"""Parts of a batch, computed side by side: the threads, and the weight gradient."""

# N images, C channels in, K channels out, H W rows and columns, 33 the convolution's window, 3 its rows

import os
from collections.abc import Callable
from functools import cache
from threading import Barrier
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kernels.fused_block import columns_into
from loaders.workers import WatchedThreads

T = TypeVar("T")
PARTS = 16  # of a batch, whatever the number of threads, so that sums are added in the same order
CACHED = 300_000  # floats of columns at once: they should stay in a core's cache


def pixels(tensor_NCHW: Tensor) -> np.ndarray:
    """A channels_last tensor's own memory as an array (N, H, W, C): float32, or bfloat16 as uint16."""
    tensor_NHWC = tensor_NCHW.detach().permute(0, 2, 3, 1)
    return (tensor_NHWC.view(torch.uint16) if tensor_NHWC.dtype == torch.bfloat16 else tensor_NHWC).numpy()


def empty(shape_NHWC: tuple[int, int, int, int], dtype: torch.dtype) -> Tensor:
    """A tensor (N, C, H, W) whose strides are those of channels_last also where a side is 1."""
    num_images, height, width, channels = shape_NHWC
    strides = (height * width * channels, 1, width * channels, channels)
    return torch.empty_strided((num_images, channels, height, width), strides, dtype=dtype)


def for_each_part(work: Callable[[int, int], T], num_images: int) -> list[T]:
    """Call work(start, stop) for parts of the batch, side by side on as many threads as torch has; results in order.

    Inside, torch computes on one thread.  Errors: whatever work raises; RuntimeError when a thread died.
    """
    size = max(1, -(-num_images // PARTS))
    parts = [(start, min(start + size, num_images)) for start in range(0, num_images, size)]
    results: dict[int, T] = {}
    waiting = iter(range(len(parts)))

    def take_parts() -> None:
        for number in waiting:  # each goes to one thread
            results[number] = work(*parts[number])

    number_of_threads = torch.get_num_threads()
    threads = _threads(number_of_threads, os.getpid())
    for done in [threads.submit(take_parts) for _ in range(min(number_of_threads, len(parts)))]:
        threads.result(done)
    return [results[number] for number in range(len(parts))]


@cache  # threads live as long as the process; a forked one has none of its parent's, and makes its own
def _threads(number: int, process: int) -> WatchedThreads:
    started = Barrier(number + 1)

    def start() -> None:
        torch.get_num_threads()  # takes over the default, which would otherwise undo the next line later
        torch.set_num_threads(1)
        started.wait()

    pool = WatchedThreads(number, "plainfilm-block", start)
    try:
        for _ in range(number):
            pool.submit(int)  # each starts a thread, since none is idle before all are there
    except RuntimeError:  # the system has no more threads
        started.abort()
        raise
    started.wait()
    torch.set_num_threads(number)  # what a thread sets becomes the default of threads to come
    return pool


def weight_gradient(pictures_NCHW: Tensor, gradient_NKHW: Tensor) -> Tensor:
    """The gradient for weights (K, C, 3, 3) of a convolution with stride 1 and padding 1.

    Both float32 in channels_last.  Gives float32 in channels_last.
    With AVX2 oneDNN adds up all pixels of a batch one after another in float32, with AVX-512 in somewhat shorter
    chains.  Here each of up to PARTS parts of the batch is summed up by itself, and they are added at the end: against
    float64 the error is smaller, 3 to 16 times at size 224 with AVX2 and 1 to 4 times with AVX-512.  The time depends
    on the processor: less than oneDNN's on an EPYC with AVX2, 1.2 to 2 times as long on a Xeon with AVX-512 and AMX.
    """
    num_images, channels, height, width = pictures_NCHW.shape
    out_channels = gradient_NKHW.shape[1]
    picture_NHWC, gradient_NHWK = pixels(pictures_NCHW), pixels(gradient_NKHW)
    rows = max(1, min(height, CACHED // (3 * channels * width)))

    def of_part(start: int, stop: int) -> Tensor:
        columns_M3C = np.empty((rows * width, 3 * channels), np.float32)
        sum_33CK = torch.zeros(3, 3 * channels, out_channels)
        for image in range(start, stop):
            gradient_HWK = torch.from_numpy(gradient_NHWK[image])
            for first in range(0, height, rows):
                last = min(first + rows, height)
                columns_into(columns_M3C, picture_NHWC[image], first, last)
                for line in range(3):  # row r of the picture meets row r + 1 - line of the gradient
                    begin, end = max(first, line - 1), min(last, height + line - 1)
                    if begin < end:
                        met_M3C = torch.from_numpy(columns_M3C[(begin - first) * width : (end - first) * width])
                        met_MK = gradient_HWK[begin + 1 - line : end + 1 - line].reshape(-1, out_channels)
                        sum_33CK[line].addmm_(met_M3C.t(), met_MK)
        return sum_33CK

    total_33CK, *others = for_each_part(of_part, num_images)
    for part_33CK in others:
        total_33CK += part_33CK
    gradient_KC33 = total_33CK.view(3, 3, channels, out_channels).permute(3, 2, 0, 1)
    return gradient_KC33.contiguous(memory_format=torch.channels_last)
