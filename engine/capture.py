"""A captured function: work on fixed tensors as one CUDA graph for each batch size; elsewhere it is called as it is."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable

import torch

logger = logging.getLogger(__name__)

WARM_UPS = 3  # torch's own number: allocations, cuDNN's timings and compilations settle before the capture


class Captured:
    """A function of a batch size that reads and writes fixed tensors.  Owns its graphs, which share one memory pool.

    touched: every tensor that the function changes; a warm-up's effects on them are taken back in place.
    Where a capture fails, everything not captured yet runs as it is from then on; `failed` says why.
    """

    def __init__(
        self, function: Callable[[int], None], touched: list[torch.Tensor], device: torch.device, name: str
    ) -> None:
        self.function, self.touched, self.device, self.name = function, touched, device, name
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.failed = ""
        self._kept: list[torch.cuda.CUDAGraph] = []  # failed ones: torch's allocator may still refer to them
        self._settled: set[int] = set()
        if device.type == "cuda":
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def prepare(self, sizes: Iterable[int]) -> None:
        """Capture what is not captured yet.  Warms up and captures on one stream, as torch's autograd asks for."""
        if self.device.type != "cuda" or self.failed:
            return
        for size in dict.fromkeys(sizes):
            if size in self._settled:
                continue
            self._settled.add(size)
            current = torch.cuda.current_stream(self.device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                warm_up(self.function, size, self.touched, self.device)
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    self.function(size)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                torch.cuda.set_stream(current)  # a capture that fails at its end leaves its own behind
                torch.cuda.synchronize(self.device)
                self._kept.append(graph)
                reason = str(error).strip().splitlines()[0]
                self.failed = f"{self.name} of {size} runs uncaptured and slower, expected a CUDA graph: {reason}"
                logger.warning("%s", self.failed)
                return
            self.graphs[size] = graph
            logger.info("%s of %d captured in a CUDA graph", self.name, size)

    def __call__(self, size: int) -> None:
        """Queue the work for a batch of this size."""
        graph = self.graphs.get(size)
        if graph is None:
            self.function(size)
        else:
            graph.replay()


def warm_up(function: Callable[[int], None], size: int, touched: list[torch.Tensor], device: torch.device) -> None:
    """Run a function a few times, and put everything back each time: tensors in place, and torch's generators.

    Each time, since a position that went on would lead beyond the epoch.
    """
    before = [tensor.detach().clone() for tensor in touched]
    rng = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with rng, warnings.catch_warnings():
        # Adam's, that it is meant to be captured and is not yet
        warnings.filterwarnings("ignore", message=".*capturable=True")
        for _ in range(WARM_UPS):
            function(size)
            with torch.no_grad():
                for tensor, saved in zip(touched, before, strict=True):
                    tensor.copy_(saved)
