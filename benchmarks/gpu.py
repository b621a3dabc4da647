"""`make bench-gpu`: everything that is to be measured on a CUDA machine, in one command, offline, in a few minutes.

    python -m benchmarks.gpu

The radiographs are made up: what is timed does not depend on what they show.
"""

# N batch

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.device_report import DeviceReport, DeviceTarget, device_facts, refuse
from benchmarks.device_rivals import BATCH, CROP, fp32, interleave, noise_betons, our_epochs, our_steps, rival_steps
from engine.config import TrainConfig
from engine.device import Policy, choose_policy, settle_precision
from engine.device_batches import DeviceBatches
from engine.resident import ResidentFrames
from loaders.config import LoaderConfig
from loaders.loader import Loader

REPOSITORY = Path(__file__).parent.parent
NUM_TRAINING, NUM_VALIDATION, EPOCHS = 1648, 412, 27  # of the report
NUM_FILES, FILE_SIDE = 256, 640  # of the reference pipeline, which is extrapolated
REPORT_IMAGES = NUM_TRAINING + NUM_VALIDATION
EAGER, FP32 = "eager bf16 channels_last, resident tensors", "eager fp32, TF32 off, resident tensors"
OURS = "plainfilm"

TARGETS = (
    DeviceTarget(
        what="step over eager bf16 channels_last with resident tensors",
        asked=">= 1.8",
        value=lambda found: found["step"]["ms_per_step"][EAGER] / found["step"]["ms_per_step"][OURS],
        met=lambda ratio: ratio >= 1.8,
    ),
    DeviceTarget(
        what="step over eager fp32 (TF32 off)",
        asked=">= 3.5",
        value=lambda found: found["step"]["ms_per_step"][FP32] / found["step"]["ms_per_step"][OURS],
        met=lambda ratio: ratio >= 3.5,
    ),
    DeviceTarget(
        what="batch making (gather and affine), resident, batch 256, million images/s",
        asked=">= 5",
        value=lambda found: found["batch making"]["affine_images_per_second"] / 1e6,
        met=lambda rate: rate >= 5,
    ),
    DeviceTarget(
        what="27 epochs of 2,060 images with validation and best checkpoint, steady, seconds",
        asked="<= 1.2",
        value=lambda found: found["training"]["steady_seconds"],
        met=lambda seconds: seconds <= 1.2,
    ),
    DeviceTarget(
        what="whole cold process to final metrics, seconds",
        asked="<= 10",
        value=lambda found: found["cold process"]["seconds"],
        met=lambda seconds: seconds <= 10,
    ),
    DeviceTarget(
        what="training epochs over the reference pipeline at its best worker count",
        asked=">= 100",
        value=lambda found: found["reference"]["seconds_per_epoch"] * EPOCHS / found["training"]["steady_seconds"],
        met=lambda ratio: ratio >= 100,
    ),
)


def main() -> int:
    """Measure, print, write.  Gives the exit code: 2 without a CUDA device, 1 when the CUDA tests fail."""
    if not torch.cuda.is_available():
        return refuse("CUDA")
    policy = choose_policy("cuda", "auto", "off", 0)
    settle_precision(policy)
    report = DeviceReport(device=torch.cuda.get_device_name(), facts=device_facts() | {"policy": policy.describe()})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        noise_betons(folder, NUM_TRAINING, NUM_VALIDATION)
        report.measure("tests", cuda_tests)
        report.measure("step", lambda: step_contest(folder, policy))
        report.measure("batch making", lambda: batch_making(folder, policy))
        report.measure("training", lambda: whole_training(folder))
        report.measure("cold process", lambda: cold_process(folder))
        report.measure("reference", lambda: reference_pipeline(folder))
    report.publish(TARGETS)
    return 0 if report.sections["tests"].get("returncode", 0) == 0 else 1


def cuda_tests() -> dict[str, Any]:
    """The tests that need a CUDA device."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "cuda", "-o", "filterwarnings=default"]
    done = subprocess.run(
        [*command, "tests/test_cuda_kernels.py"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    if "No module named pytest" in done.stderr:
        return {"reason": "pytest is not installed"}
    print("\n".join(lines[-40:]))
    return {"returncode": done.returncode, "said": lines[-1] if lines else ""}


def step_contest(folder: Path, policy: Policy) -> dict[str, Any]:
    """The captured step beside what one writes in PyTorch."""
    last, device = torch.channels_last, policy.device
    with our_epochs(folder, policy) as mixed, our_epochs(folder, fp32(policy)) as exact:
        found = interleave(
            {
                OURS: our_steps(mixed),
                "plainfilm, fp32": our_steps(exact),
                EAGER: rival_steps(device, autocast=True, layout=last, mode=None),
                FP32: rival_steps(device, autocast=False, layout=torch.contiguous_format, mode=None),
                "torch.compile, bf16": rival_steps(device, autocast=True, layout=last, mode="default"),
                "torch.compile reduce-overhead, bf16": rival_steps(
                    device, autocast=True, layout=last, mode="reduce-overhead"
                ),
            },
            torch.cuda.synchronize,
        )
        return found | {"captured": sorted(mixed.run_step.graphs)}


def batch_making(folder: Path, policy: Policy, batch_size: int = 256) -> dict[str, Any]:
    """Images a second, of launches one after another over resident frames."""
    found: dict[str, Any] = {"batch": batch_size}
    for name, training in (("affine", True), ("crop", False)):
        with Loader(folder / "train.beton", training=training, batch_size=batch_size) as loader:
            batches = DeviceBatches(loader, ResidentFrames(loader, policy.device), policy, batch_size)
            batches.begin(0, 0)
            found[f"{name}_images_per_second"] = batch_size / seconds_each(partial(batches.make, batch_size))
    return found


def seconds_each(call: Callable[[], object], repeats: int = 200) -> float:
    """Seconds of one call by the device's clock: the median of seven runs, captured so that launching costs nothing."""
    call(), torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            call()
    taken = []
    for _ in range(7):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) / 1e3 / repeats)
    return sorted(taken)[len(taken) // 2]


def whole_training(folder: Path) -> dict[str, Any]:
    """The report's epochs through `train`; steady: without the first two, scaled to all of them.

    The first captures, and its state is written during the second; the best weights and curves are written in the last.
    """
    from engine.training import train  # only here: it needs TensorBoard, without which the rest can be measured

    ends: list[float] = []

    def watch(progress: Any) -> None:
        if progress.phase == "epoch":
            ends.append(time.perf_counter())

    config = TrainConfig(
        data=folder,
        out=folder / "run",
        epochs=EPOCHS,
        patience=EPOCHS,
        device="cuda",
        loader=LoaderConfig(training=True, batch_size=BATCH),
    )
    begin = time.perf_counter()
    summary = train(config, watch=watch)
    total = time.perf_counter() - begin
    steady = (ends[-1] - ends[1]) / (EPOCHS - 2) * EPOCHS
    return {"steady_seconds": steady, "total_seconds": total, "images_per_second": summary["images_per_second"]}


def cold_process(folder: Path) -> dict[str, Any]:
    """`cli.py train` from nothing to its summary, as a user waits for it."""
    options = ["--epochs", str(EPOCHS), "--patience", str(EPOCHS), "--batch-size", str(BATCH), "--device", "cuda"]
    command = [sys.executable, "cli.py", "train", str(folder), "--out", str(folder / "cold"), *options]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"reason": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return {"seconds": time.perf_counter() - begin}


def reference_pipeline(folder: Path) -> dict[str, Any]:
    """The report's recipe as one writes it, on files, at its best number of workers; an epoch is extrapolated."""
    from benchmarks.material import draw_phantoms  # only here: it needs what decodes radiographs

    files = draw_phantoms(folder, num_phantoms=NUM_FILES, side=FILE_SIDE).parent / "images"
    cores = os.cpu_count() or 1
    rates = {count: reference_rate(files, count, "cuda") for count in sorted({0, *(min(n, cores) for n in (4, 8, 16))})}
    best = max(rates, key=lambda workers: rates[workers])
    return {"images_per_second": rates, "workers": best, "seconds_per_epoch": REPORT_IMAGES / rates[best]}


def reference_rate(files: Path, workers: int, device: str) -> float:
    """Training images a second of the reference pipeline with so many worker processes."""
    from benchmarks.worker_process import Worker

    options = (
        "--serve",
        "--workers",
        str(workers),
        "--size",
        str(CROP),
        "--batch-size",
        str(BATCH),
        "--device",
        device,
    )
    with Worker("benchmarks.reference", str(files), *options) as reference:
        assert reference.process.stdout is not None
        if not reference.process.stdout.readline():  # its greeting
            raise RuntimeError("the reference pipeline did not start: its stderr says why")
        found = reference.ask(json.dumps({"do": "train", "steps": 20, "seconds": 3}))
        return found["images"] / found["seconds"]


if __name__ == "__main__":
    sys.exit(main())
