"""`make bench-gpu`: everything that is to be measured on a CUDA machine, in one command, offline, in a few minutes.

    python -m benchmarks.device.gpu

The frames are noise: the times do not depend on their content.
"""

# N batch

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.device.report import DeviceReport, DeviceTarget, OutOfTimeError, device_facts, refuse, time_limit
from benchmarks.device.rivals import (
    BATCH,
    CROP,
    fp32,
    interleave,
    noise_beton,
    noise_betons,
    our_epochs,
    our_steps,
    rival_steps,
)
from engine.config import Recipe, TrainConfig
from engine.device import Policy, choose_policy, settle_precision
from engine.train.device_batches import DeviceBatches, ResidentFrames
from loaders.batches.loader import Loader
from loaders.config import LoaderConfig

REPOSITORY = Path(__file__).parents[2]
NUM_TRAINING, NUM_VALIDATION, EPOCHS = 1648, 412, 27  # of the report
NUM_PHANTOMS, FILE_SIDE = 103, 640  # drawn for the reference pipeline, which reads 20 copies of each
NUM_FRAMES = 4096  # for batch making: 419 MB, several times any device's cache
BUDGET = 440.0  # seconds for all sections; with the start, the end and the making of frames, 8 minutes
REFERENCE_SECONDS, CANDIDATE_SECONDS = 150.0, 45.0  # for the reference pipeline; for one number of workers
ENDING = 15.0  # seconds in which processes that were stopped end
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
    """Measure, print, write.

    Gives the exit code: 2 without a CUDA device, 1 when the CUDA tests fail or something could not be measured.
    """
    if not torch.cuda.is_available():
        return refuse("CUDA")
    policy = choose_policy("cuda", "auto", "off", 0)
    settle_precision(policy)
    facts = device_facts() | {"policy": policy.describe(), "cores": os.cpu_count()}
    report = DeviceReport(device=torch.cuda.get_device_name(), facts=facts, budget=BUDGET)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:  # a stopped process may still write
        folder = Path(name)
        noise_betons(folder, NUM_TRAINING, NUM_VALIDATION)
        report.measure("tests", cuda_tests, 120)
        report.measure("batch making", lambda: batch_making(folder, policy), 40)
        report.measure("training", lambda: whole_training(folder), 50)
        report.measure("cold process", lambda: cold_process(folder), 50)
        report.measure("step", lambda: step_contest(folder, policy), 180)
        left = min(REFERENCE_SECONDS, report.budget - report.seconds - ENDING)
        report.measure("reference", lambda: reference_pipeline(folder, left))
    report.publish(TARGETS)
    return 1 if report.failures(TARGETS) else 0


def cuda_tests() -> dict[str, Any]:
    """The tests that need a CUDA device; with a reason unless all of them ran and passed."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-m", "cuda", "-o", "filterwarnings=default"]
    done = subprocess.run(
        [*command, "tests/kernels/test_cuda_kernels.py"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).strip().splitlines()
    if "No module named pytest" in done.stderr:
        return {"reason": "pytest is not installed"}
    print("\n".join(lines[-40:]))
    last_line = lines[-1] if lines else "nothing"
    found: dict[str, Any] = {"returncode": done.returncode, "last_line": last_line}
    return (
        found
        if done.returncode == 0 and "passed" in last_line
        else found | {"reason": f"pytest ended with: {last_line}"}
    )


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
    """Images a second, of launches one after another over resident frames, more of them than the cache holds."""
    path, properties = folder / "frames.beton", torch.cuda.get_device_properties(policy.device)
    noise_beton(path, "train", NUM_FRAMES)
    found: dict[str, Any] = {"batch": batch_size, "cache_bytes": getattr(properties, "L2_cache_size", None)}
    for name, training in (("affine", True), ("crop", False)):
        with Loader(path, training=training, batch_size=batch_size) as loader:
            frames = ResidentFrames(loader, policy.device)
            batches = DeviceBatches(loader, frames, policy, batch_size)
            batches.begin(0, 0)
            found["frame_bytes"] = frames.frames_MSS.numel()
            found[f"{name}_images_per_second"] = NUM_FRAMES / seconds_each(partial(make_epoch, batches))
    return found


def make_epoch(batches: DeviceBatches) -> None:
    """Every full batch of an epoch from its start, so that each frame is read once before it is read again."""
    batches.position.zero_()
    for _ in range(batches.loader.num_samples // batches.batch_size):
        batches.make(batches.batch_size)
        batches.advance(batches.batch_size)


def seconds_each(call: Callable[[], object], repeats: int = 12) -> float:
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
    from engine.train.state import Watch
    from engine.train.train import train  # only here: it needs TensorBoard, without which the rest can be measured

    ends: list[float] = []

    def show(progress: Any) -> None:
        if progress.phase == "epoch":
            ends.append(time.perf_counter())

    config = TrainConfig(
        data=folder,
        out=folder / "run",
        recipe=Recipe(epochs=EPOCHS, patience=EPOCHS, device="cuda"),
        loader=LoaderConfig(training=True, batch_size=BATCH),
    )
    begin = time.perf_counter()
    summary = train(config, watch=Watch(show=show))
    total = time.perf_counter() - begin
    steady = (ends[-1] - ends[1]) / (EPOCHS - 2) * EPOCHS
    return {"steady_seconds": steady, "total_seconds": total, "images_per_second": summary.images_per_second}


def cold_process(folder: Path) -> dict[str, Any]:
    """`cli.py train` from nothing to its summary, as a user waits for it."""
    options = ["--epochs", str(EPOCHS), "--patience", str(EPOCHS), "--batch-size", str(BATCH), "--device", "cuda"]
    command = [sys.executable, "cli.py", "train", str(folder), "--out", str(folder / "cold"), *options]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"reason": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return {"seconds": time.perf_counter() - begin}


def reference_pipeline(folder: Path, seconds: float) -> dict[str, Any]:
    """The report's recipe as one writes it, on as many files as the report's, at its best number of workers.

    seconds: for all of them; those that it isn't enough for are named in a reason.
    """
    end, epochs, left_out = time.perf_counter() + seconds, {}, {}
    files = report_files(folder, NUM_TRAINING + NUM_VALIDATION)
    for workers in worker_counts(os.cpu_count() or 1):
        try:
            with time_limit(min(CANDIDATE_SECONDS, end - time.perf_counter())):
                epochs[workers] = reference_epoch(files, workers, "cuda")
        except (RuntimeError, OutOfTimeError) as error:
            left_out[workers] = str(error)
    found: dict[str, Any] = {"epochs": epochs}
    if epochs:
        best = min(epochs, key=lambda workers: epochs[workers]["seconds_per_epoch"])
        found |= {"workers": best, "seconds_per_epoch": epochs[best]["seconds_per_epoch"]}
    return found | ({"reason": f"without these numbers of workers: {left_out}"} if left_out else {})


def report_files(folder: Path, num_files: int) -> Path:
    """Phantoms, and copies of them until there are so many; gives the folder with one subfolder a class."""
    from benchmarks.datasets import draw_phantoms  # only here: it needs what decodes radiographs

    files = draw_phantoms(folder, num_phantoms=min(NUM_PHANTOMS, num_files), side=FILE_SIDE).parent / "images"
    drawn = sorted(files.glob("*/*.png"))
    for number in range(len(drawn), num_files):
        original = drawn[number % len(drawn)]
        shutil.copyfile(original, original.with_stem(f"{original.stem}-{number // len(drawn)}"))
    return files


def worker_counts(cores: int) -> list[int]:
    """Worker processes to try, up to the cores.  More than an epoch has batches would have nothing to do."""
    most = min(cores, -(-NUM_TRAINING // BATCH))
    return sorted({0, most * 3 // 4, most, *(count for count in (4, 8, 16, 32) if count < most)}, reverse=True)


def reference_epoch(files: Path, workers: int, device: str) -> dict[str, float]:
    """Seconds of the report's epoch with so many worker processes: training and validation, each at its own rate."""
    from benchmarks.contest import Worker

    numbers = {"workers": workers, "size": CROP, "batch-size": BATCH}
    options = [option for name, value in numbers.items() for option in (f"--{name}", str(value))]
    # whole epochs, so that what workers wait for between them counts as often as it happens
    steps = -(-NUM_TRAINING // BATCH) * (3 if workers >= 8 else 1) if workers else 20
    with Worker("engine.profile.reference", str(files), *options, "--device", device, "--serve") as reference:
        process = reference.process
        assert process.stdin is not None and process.stdout is not None
        if not process.stdout.readline():  # its greeting
            raise RuntimeError("the reference pipeline did not start: see its stderr")
        trained = reference.ask(json.dumps({"do": "train", "steps": steps, "seconds": 0}))
        validated = [reference.ask(json.dumps({"do": "validate"})) for _ in range(6)][1:]  # the first starts workers
        process.stdin.write('{"do": "end"}\n')  # its workers end with it, and take no cores from the next
        process.stdin.flush()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDING)
    training = trained["seconds"] / trained["images"]
    validation = sum(turn["seconds"] for turn in validated) / sum(turn["images"] for turn in validated)
    return {
        "training_images_per_second": 1 / training,
        "validation_images_per_second": 1 / validation,
        "seconds_per_epoch": NUM_TRAINING * training + NUM_VALIDATION * validation,
    }


if __name__ == "__main__":
    sys.exit(main())
