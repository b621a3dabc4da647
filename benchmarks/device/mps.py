"""`make bench-mps`: what is to be known of a Mac, in one command: which choices are right there, and how fast it is.

    python -m benchmarks.device.mps

No such machine was at hand when this was written; its results file is what engine/device.py waits for.
"""

import copy
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.device.report import DeviceReport, DeviceTarget, device_facts, refuse
from benchmarks.device.rivals import BATCH, CROP, fp32, interleave, noise_betons, our_epochs, our_steps, rival_steps
from engine.config import Recipe, TrainConfig
from engine.device import choose_policy, device_name
from engine.networks.cnn import Cnn
from engine.train.device_batches import DeviceBatches, ResidentFrames
from loaders.batches.loader import Loader
from loaders.config import LoaderConfig

NUM_TRAINING, NUM_VALIDATION, EPOCHS, STEPS = 1648, 412, 3, 20
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
REPORT_SECONDS_PER_EPOCH = 36.3  # DESIGN, reference run, on an M3 Max

TARGETS = (
    DeviceTarget(
        what="batches over the host's, largest difference",
        asked="<= 0.001",
        value=lambda found: found["batches"]["largest_difference"],
        met=lambda difference: difference <= 1e-3,
    ),
    DeviceTarget(
        what="gradients in the layout that we use, relative distance from the CPU's",
        asked="<= 0.001",
        value=lambda found: found["gradients"]["contiguous"],
        met=lambda distance: distance <= 1e-3,
    ),
    DeviceTarget(
        what="an epoch of the report's size over the report's own",
        asked=">= 2",
        value=lambda found: REPORT_SECONDS_PER_EPOCH / found["training"]["seconds_per_epoch"],
        met=lambda ratio: ratio >= 2,
    ),
)


def main() -> int:
    """Measure, print, write.  Gives the exit code: 2 without MPS, 1 when something could not be measured."""
    if not torch.backends.mps.is_available():
        return refuse("MPS")
    policy = choose_policy("mps", "auto", "off", 0)
    report = DeviceReport(device=device_name(policy.device), facts=device_facts() | {"policy": policy.describe()})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise_betons(folder, NUM_TRAINING, NUM_VALIDATION)
        report.measure("found_inf", found_inf_is_heeded)
        report.measure("gradients", gradients)
        report.measure("batches", lambda: batches(folder))
        report.measure("step", lambda: step_contest(folder))
        report.measure("training", lambda: whole_training(folder))
    report.publish(TARGETS)
    return 1 if report.failures(TARGETS) else 0


def found_inf_is_heeded() -> dict[str, Any]:
    """Whether fused Adam leaves a weight alone when found_inf asks for it."""
    weight = torch.ones(4, device="mps", requires_grad=True)
    weight.grad = torch.ones_like(weight)
    optimiser = torch.optim.Adam([weight], fused=True)
    optimiser.found_inf = torch.ones((), device="mps")  # type: ignore[attr-defined]
    optimiser.step()
    return {"heeded": bool((weight == 1).all())}


def gradients() -> dict[str, Any]:
    """Relative distance of one step's gradients from the CPU's, in each layout, in float32 and in bfloat16."""
    torch.manual_seed(0)
    reference = Cnn(2, CROP, 0.0, fused=False)
    frames_N1HW, label_N = torch.rand((8, 1, CROP, CROP)) * 2 - 1, torch.arange(8) % 2
    wanted = gradient(reference, frames_N1HW, label_N, autocast=False)
    found = {}
    for name, layout in LAYOUTS.items():
        for autocast in (False, True):
            network = copy.deepcopy(reference).to("mps", memory_format=layout)
            frames = frames_N1HW.to("mps", memory_format=layout)
            ours = gradient(network, frames, label_N.to("mps"), autocast=autocast)
            found[name + ", bf16" * autocast] = float((ours - wanted).norm() / wanted.norm())
    return found


def gradient(network: nn.Module, frames_N1HW: torch.Tensor, label_N: torch.Tensor, *, autocast: bool) -> torch.Tensor:
    """The gradient of every parameter, in one vector on the host."""
    network.train().zero_grad()
    with torch.autocast(frames_N1HW.device.type, torch.bfloat16, enabled=autocast):
        logits_NK = network(frames_N1HW)
    nn.functional.cross_entropy(logits_NK.float(), label_N).backward()
    return torch.cat([value.grad.reshape(-1).cpu() for value in network.parameters() if value.grad is not None])


def batches(folder: Path) -> dict[str, Any]:
    """Batches made by grid_sample on the device beside the host's, and how many images a second."""
    policy = choose_policy("mps", "off", "off", 0)
    with Loader(folder / "train.beton", training=True, batch_size=BATCH, tensors=True) as loader:
        made = DeviceBatches(loader, ResidentFrames(loader, policy.device), policy, BATCH)
        made.begin(0, 0)
        wanted_N1HW, _, _ = next(iter(loader))
        difference = float((made.make(BATCH)[0].cpu() - wanted_N1HW).abs().max())
        torch.mps.synchronize()
        begin = time.perf_counter()
        for _ in range(STEPS):
            made.make(BATCH)
            made.advance(BATCH)
        torch.mps.synchronize()
        rate = STEPS * BATCH / (time.perf_counter() - begin)
    return {"largest_difference": difference, "images_per_second": rate}


def step_contest(folder: Path) -> dict[str, Any]:
    """Our step, in float32 and in bfloat16, beside what one writes in PyTorch."""
    exact, mixed = choose_policy("mps", "off", "off", 0), choose_policy("mps", "on", "off", 0)
    device, plain = exact.device, torch.contiguous_format
    with our_epochs(folder, fp32(exact)) as ours, our_epochs(folder, mixed) as ours_mixed:
        return interleave(
            {
                "plainfilm": our_steps(ours),
                "plainfilm, bf16": our_steps(ours_mixed),
                "eager fp32, resident tensors": rival_steps(device, autocast=False, layout=plain, mode=None),
                "eager bf16, resident tensors": rival_steps(device, autocast=True, layout=plain, mode=None),
                "torch.compile, fp32": rival_steps(device, autocast=False, layout=plain, mode="default"),
            },
            torch.mps.synchronize,
            STEPS,
        )


def whole_training(folder: Path) -> dict[str, Any]:
    """A few epochs of the report's size through `train`."""
    from engine.train.state import Watch
    from engine.train.train import train  # only here: it needs TensorBoard, without which the rest can be measured

    ends: list[float] = []

    def show(progress: Any) -> None:
        if progress.phase == "epoch":
            ends.append(time.perf_counter())

    settings = LoaderConfig(training=True, batch_size=BATCH)
    train(
        TrainConfig(data=folder, out=folder / "run", recipe=Recipe(epochs=EPOCHS, device="mps"), loader=settings),
        watch=Watch(show=show),
    )
    return {"seconds_per_epoch": (ends[-1] - ends[0]) / (EPOCHS - 1)}


if __name__ == "__main__":
    sys.exit(main())
