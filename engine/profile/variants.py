"""The variants of a profile: from the reference pipeline to the engine, each with one more step of the design."""

from __future__ import annotations

import sys
from dataclasses import dataclass

WORKER = "engine.profile.worker"
REFERENCE = "reference"


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to train.  adds: what it has that the one above it has not.  module: the program that runs it.

    For the engine's program: fused blocks, fast layout (channels_last and fused Adam), the arena, mixed precision,
    and whether the device makes batches and steps on its own (engine.device_epochs).
    """

    name: str
    adds: str
    module: str = WORKER
    fast_layout: bool = False
    arena: bool = False
    mixed: bool = False
    fused: bool = False
    on_device: bool = False


def variants_for(device: str) -> tuple[Variant, ...]:
    """The waterfall on a kind of device, cuda, mps or cpu: first the reference, last the engine as `train` runs it."""
    start = (
        Variant(name=REFERENCE, adds="files, Pillow, torchvision, eager PyTorch", module="benchmarks.reference"),
        Variant(name="decoded once", adds="stored frames from a beton", module="benchmarks.stored_reference"),
        Variant(name="kernels", adds="loader threads, one kernel for all of augmentation"),
    )
    layout = Variant(name="layout", adds="channels_last and fused Adam", fast_layout=True)
    if device == "cuda":
        return (
            *start,
            layout,
            Variant(name="precision", adds="bfloat16", fast_layout=True, mixed=True),
            Variant(
                name="engine",
                adds="resident frames, batches made on the GPU, the step as one CUDA graph",
                fast_layout=True,
                mixed=True,
                on_device=True,
            ),
        )
    if device == "mps":
        adds = "resident frames, batches made on the GPU"
        return (*start, Variant(name="engine", adds=adds, fast_layout=True, mixed=True, on_device=True))
    keeps = sys.platform == "linux"
    arena = Variant(name="arena", adds="memory that stays in the process", fast_layout=True, arena=True)
    engine = Variant(
        name="engine", adds="batch norm, pooling, ReLU in one function", fast_layout=True, arena=keeps, fused=True
    )
    return (*start, layout, arena, engine) if keeps else (*start, layout, engine)
