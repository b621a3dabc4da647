"""Training steps to compare on a device: plainfilm's, and what one writes in PyTorch with tensors already there."""

# N batch, H W rows and columns of the crop

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.device.report import time_limit
from engine.device import Policy
from engine.networks.cnn import Cnn
from engine.train.epochs import DeviceEpochs
from engine.train.state import State
from engine.train.step import make_learner
from loaders.batches.loader import Loader
from loaders.beton.format import ROW, Facts
from loaders.beton.writer import write_beton

BATCH, CROP, STORED = 32, 224, 320
LEARNING_RATE, DROPPED = 1e-3, 0.5
PAGE_SIZE = 8 << 20
ROUNDS, STEPS = 7, 100  # of each rival, interleaved
WARMING = 75.0  # seconds that a rival may take to compile

Steps = Callable[[int], None]  # queues so many steps of a full batch


def noise_betons(folder: Path, num_training: int, num_validation: int) -> None:
    """Write train.beton and val.beton of noise; the times do not depend on its content."""
    for split, count in (("train", num_training), ("val", num_validation)):
        noise_beton(folder / f"{split}.beton", split, count)


def noise_beton(path: Path, split: str, num_samples: int) -> None:
    """Write one beton of noise, no two frames alike."""
    generator = np.random.default_rng(0)
    facts = Facts(
        classes=("covid", "normal"),
        positive="covid",
        stored=STORED,
        crop=CROP,
        fit="stretch",
        split=split,
        seed=0,
        conversion_id="made up",
        site_key_id="",
        source_fingerprint="",
        synthetic=True,
    )
    frames = (generator.integers(0, 256, (STORED, STORED), np.uint8) for _ in range(num_samples))
    rows_N, label_N = np.zeros(num_samples, ROW), np.arange(num_samples) % 2
    write_beton(path, frames, label_N, rows_N, facts, PAGE_SIZE)


@contextlib.contextmanager
def our_epochs(folder: Path, policy: Policy, batch_size: int = BATCH) -> Iterator[DeviceEpochs]:
    """The engine's epochs on the betons of a folder."""
    torch.manual_seed(0)
    network = Cnn(2, CROP, DROPPED)
    learner = make_learner(network, policy, learning_rate=LEARNING_RATE, batch_size=batch_size, class_weight_K=None)
    options: dict[str, Any] = {"batch_size": batch_size, "tensors": True}
    with (
        Loader(folder / "train.beton", training=True, **options) as loader,
        Loader(folder / "val.beton", **options) as val_loader,
    ):
        yield DeviceEpochs(learner, loader, val_loader)


def our_steps(epochs: DeviceEpochs) -> Steps:
    """Whole steps of the engine, the making of each batch included; epochs follow one another.

    Images are what counts: the smaller batch at an epoch's end is a step as long as another, and a part of one here.
    """
    loader, batch_size = epochs.loader, epochs.batches.batch_size

    def steps() -> Iterator[int]:
        state = State(conversion_id="", confusion=[[0, 0], [0, 0]])
        while True:
            position = loader.position
            for _ in epochs.train(state):
                yield loader.position - position
                position = loader.position

    endless, owed = steps(), 0

    def run(count: int) -> None:
        nonlocal owed
        owed += count * batch_size
        while owed > 0:
            owed -= next(endless)

    return run


def resident_batches(device: torch.device, layout: torch.memory_format, count: int = 4) -> list[Any]:
    """Finished batches on the device, so that a rival has nothing to do but to train."""
    torch.manual_seed(1)
    frames = [torch.rand((BATCH, 1, CROP, CROP)) * 2 - 1 for _ in range(count)]
    labels = torch.arange(BATCH, device=device) % 2
    return [(batch.to(device, memory_format=layout), labels) for batch in frames]


def rival_steps(device: torch.device, *, autocast: bool, layout: torch.memory_format, mode: str | None) -> Steps:
    """Steps as one writes them: the same network, fused Adam, nothing read back.  mode: torch.compile's, or None."""
    torch.manual_seed(0)
    network = Cnn(2, CROP, DROPPED, fused=False).to(device, memory_format=layout).train()
    forward = network if mode is None else torch.compile(network, mode=mode, dynamic=False)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=True)
    loss_of = nn.CrossEntropyLoss()
    batches, turn = resident_batches(device, layout), 0

    def run(count: int) -> None:
        nonlocal turn
        for _ in range(count):
            frames_N1HW, label_N = batches[turn % len(batches)]
            turn += 1
            if mode == "reduce-overhead":
                torch.compiler.cudagraph_mark_step_begin()
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                logits_NK = forward(frames_N1HW)
            loss = loss_of(logits_NK.float(), label_N)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    return run


def interleave(rivals: dict[str, Steps], wait: Callable[[], None], steps: int = STEPS) -> dict[str, Any]:
    """Milliseconds a step of each rival, round after round; the median, and all of them.  Ratios are of one run."""
    milliseconds: dict[str, list[float]] = {name: [] for name in rivals}
    reasons: dict[str, str] = {}
    for name, run in rivals.items():  # warm up: compile, capture, time convolutions
        try:
            with time_limit(WARMING):
                run(12)
                wait()
        except Exception as error:  # noqa: BLE001 - a rival that does not run here is left out, with its reason
            reasons[name] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    for _ in range(ROUNDS):
        for name in (name for name in rivals if name not in reasons):
            begin = time.perf_counter()
            rivals[name](steps)
            wait()
            milliseconds[name].append((time.perf_counter() - begin) / steps * 1e3)
    found = {name: median(values) for name, values in milliseconds.items() if values}
    return {"ms_per_step": found, "all_ms": milliseconds, "left_out": reasons}


def fp32(policy: Policy) -> Policy:
    """The same device in float32."""
    return replace(policy, autocast=None)
