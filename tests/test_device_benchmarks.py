"""The benchmarks of a device: what they say where there is none, and how targets are judged."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import benchmarks.device_report as device_report
from benchmarks.device_report import DeviceReport, DeviceTarget
from benchmarks.device_rivals import interleave, noise_betons, our_epochs, our_steps
from engine.device import Policy

ROOT = Path(__file__).parent.parent
THERE = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


@pytest.mark.parametrize(("module", "device"), [("gpu", "CUDA"), ("mps", "MPS")])
def test_without_the_device_they_say_so_and_exit_2(module: str, device: str) -> None:
    if THERE[module]:
        pytest.skip(f"this machine has {device}")
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"no {device} device found" in done.stderr and "Traceback" not in done.stderr


def test_targets_are_met_missed_or_not_measured_and_a_failure_is_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_report, "RESULTS", tmp_path)

    def broken() -> dict:
        raise OSError("no room")

    report = DeviceReport(device="NVIDIA H200", facts={"commit": "abc"})
    report.measure("a", lambda: {"ms": 2.0})
    report.measure("b", broken)
    target = DeviceTarget(what="a", asked=">= 2", value=lambda found: found["a"]["ms"], met=lambda value: value >= 2)
    path = report.publish(
        (
            target,
            replace(target, met=lambda value: value >= 3),
            replace(target, value=lambda found: found["b"]["ms"]),
            replace(target, value=lambda found: 1 / (found["a"]["ms"] - 2)),
        )
    )
    content = json.loads(path.read_text())
    assert path.name.endswith("-nvidia-h200.json") and content["commit"] == "abc"
    verdicts = [row["verdict"] for row in content["targets"]]
    assert verdicts == ["met", "missed", "not measured", "not measured"]
    assert content["sections"]["b"]["reason"] == "OSError: no room"


def test_rivals_take_turns_and_one_that_fails_is_left_out_with_its_reason() -> None:
    said: list[str] = []

    def broken(count: int) -> None:
        raise RuntimeError("no kernel\nmore")

    found = interleave(
        {"a": lambda count: said.append(f"a{count}"), "b": broken, "c": lambda count: said.append(f"c{count}")},
        lambda: None,
        steps=3,
    )
    assert said == ["a12", "c12"] + ["a3", "c3"] * 7
    assert found["left_out"] == {"b": "RuntimeError: no kernel"} and found["ms_per_step"].keys() == {"a", "c"}


def test_made_up_betons_can_be_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.config import TrainConfig
    from engine.training import train
    from loaders.config import LoaderConfig

    monkeypatch.setattr("benchmarks.device_rivals.CROP", 32)
    monkeypatch.setattr("benchmarks.device_rivals.STORED", 46)
    noise_betons(tmp_path, 40, 10)
    settings = LoaderConfig(training=True, batch_size=32)
    summary = train(TrainConfig(data=tmp_path, out=tmp_path / "run", epochs=1, device="cpu", loader=settings))
    assert (summary["training_images"], summary["validation_images"]) == (40, 10)


@pytest.mark.parametrize("module", ["gpu", "mps"])
def test_they_can_be_imported_without_what_only_a_part_needs(module: str) -> None:
    code = (
        "import sys\n"
        "for name in ('rich', 'tensorboard', 'torch.utils.tensorboard', 'isal', 'matplotlib', 'triton', 'pytest'):\n"
        "    sys.modules[name] = None\n"
        f"import benchmarks.{module}"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_our_steps_run_from_epoch_to_epoch(betons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.device_rivals.CROP", 32)
    policy = Policy(device=torch.device("cpu"), autocast=None, memory_format=torch.channels_last, compiled=False)
    with our_epochs(betons, policy, batch_size=16) as epochs:
        steps = our_steps(epochs)
        steps(len(epochs.loader) + 2)
        assert epochs.loader.epoch == 1 and epochs.loader.position == 32
