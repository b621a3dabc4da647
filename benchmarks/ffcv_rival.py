"""FFCV, where it is installed: its loader on plainfilm's beton."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

PRESENT = importlib.util.find_spec("ffcv") is not None


def open_loader(beton: Path, batch_size: int, threads: int, *, shuffled: bool) -> Any:
    """FFCV's Loader with its default pipelines: batches of stored frames uint8 (N, S, S) and labels (N, 1).

    Sets torch's number of threads to its own.
    """
    from ffcv.loader import Loader, OrderOption  # not at the top: it may be missing, and importing it has effects

    order = OrderOption.RANDOM if shuffled else OrderOption.SEQUENTIAL
    return Loader(str(beton), batch_size, num_workers=threads, os_cache=True, order=order, drop_last=False, seed=0)


def batches(loader: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """One epoch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numba's, about FFCV's code, when its first epoch compiles it
        yield from loader
