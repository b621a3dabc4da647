"""The benchmarks of a device: what they report where there is none, and how targets are judged."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import benchmarks.device.gpu as gpu
import benchmarks.device.report as device_report
from benchmarks.device.report import DeviceReport, DeviceTarget, OutOfTimeError, time_limit
from benchmarks.device.rivals import interleave, noise_betons, our_epochs, our_steps
from engine.device import choose_policy

ROOT = Path(__file__).parents[2]
THERE = {"gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}


@pytest.mark.parametrize(("module", "device"), [("gpu", "CUDA"), ("mps", "MPS")])
def test_they_are_imported_without_what_only_a_part_needs_and_exit_2_without_the_device(
    module: str, device: str
) -> None:
    code = (
        "import sys\n"
        "lacking = ('rich', 'tensorboard', 'torch.utils.tensorboard', 'isal', 'matplotlib', 'triton', 'pytest')\n"
        "sys.modules |= dict.fromkeys(lacking)\n"
        f"import benchmarks.device.{module} as it\n"
        "for name in lacking: del sys.modules[name]\n"
        f"sys.exit(0 if {THERE[module]} else it.main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == (0 if THERE[module] else 2)
    assert THERE[module] or f"no {device} device found" in done.stderr


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
    assert content["failures"] == ["b: OSError: no room", "not measured: a", "not measured: a"]
    assert content["total_seconds"] >= 0 and report.failures((target,)) == ["b: OSError: no room"]


def test_a_section_that_takes_too_long_is_stopped_and_one_beyond_the_budget_is_not_begun() -> None:
    report = DeviceReport(device="", facts={})
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    report.measure("a", lambda: {"returncode": subprocess.run(command, check=False).returncode}, limit=0.1)
    assert report.sections["a"]["reason"].startswith("OutOfTimeError: not done")
    assert report.seconds < 30
    report.budget = 0.0
    report.measure("b", lambda: {"ms": 1.0})
    assert report.sections["b"]["reason"] == "OutOfTimeError: no time was left for it"


def test_a_time_limit_within_another_leaves_the_outer_one_in_force() -> None:
    with pytest.raises(OutOfTimeError), time_limit(0.2):
        with time_limit(60):
            pass
        with pytest.raises(OutOfTimeError), time_limit(0.01):
            time.sleep(60)
        time.sleep(60)


def test_rivals_take_turns_and_one_that_fails_is_left_out_with_its_reason() -> None:
    called: list[str] = []

    def broken(count: int) -> None:
        raise RuntimeError("no kernel\nmore")

    found = interleave(
        {"a": lambda count: called.append(f"a{count}"), "b": broken, "c": lambda count: called.append(f"c{count}")},
        lambda: None,
        steps=3,
    )
    assert called == ["a12", "c12"] + ["a3", "c3"] * 7
    assert found["left_out"] == {"b": "RuntimeError: no kernel"} and found["ms_per_step"].keys() == {"a", "c"}


def test_made_up_betons_can_be_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.train.train import train
    from tests.example_run import small_training

    monkeypatch.setattr("benchmarks.device.rivals.CROP", 32)
    monkeypatch.setattr("benchmarks.device.rivals.STORED", 46)
    noise_betons(tmp_path, 40, 10)
    summary = train(small_training(tmp_path, tmp_path / "run", batch_size=32))
    assert (summary.training_images, summary.validation_images) == (40, 10)


@pytest.mark.parametrize(
    ("cores", "counts"),
    [(1, [1, 0]), (2, [2, 1, 0]), (16, [16, 12, 8, 4, 0]), (200, [52, 39, 32, 16, 8, 4, 0])],
)
def test_the_reference_is_tried_with_up_to_as_many_workers_as_cores(cores: int, counts: list[int]) -> None:
    assert gpu.worker_counts(cores) == counts


def test_the_reference_reads_as_many_files_as_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "NUM_PHANTOMS", 3)
    monkeypatch.setattr(gpu, "FILE_SIDE", 64)
    files = list(gpu.report_files(tmp_path, 11).glob("*/*.png"))
    assert len(files) == 11 and {path.parent.name for path in files} == {"covid", "normal"}
    assert len({path.read_bytes() for path in files}) == 3


def test_an_epoch_of_the_reference_is_its_training_and_its_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "CROP", 32)
    monkeypatch.setattr(gpu, "BATCH", 4)
    monkeypatch.setattr(gpu, "FILE_SIDE", 64)
    found = gpu.reference_epoch(gpu.report_files(tmp_path, 20), 0, "cpu")
    training, validation = (found[f"{part}_images_per_second"] for part in ("training", "validation"))
    assert found["seconds_per_epoch"] == pytest.approx(1648 / training + 412 / validation)


def test_workers_that_fail_or_have_no_time_left_are_a_reason_beside_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def epoch(files: Path, workers: int, device: str) -> dict[str, float]:
        if workers == 4:
            raise RuntimeError("no shared memory")
        return {"seconds_per_epoch": {3: 5.0, 1: 4.0, 0: 6.0}[workers]}

    monkeypatch.setattr(gpu, "reference_epoch", epoch)
    monkeypatch.setattr(gpu, "report_files", lambda folder, num_files: folder)
    monkeypatch.setattr(gpu, "worker_counts", lambda cores: [4, 3, 1, 0])
    found = gpu.reference_pipeline(tmp_path, 60)
    assert (found["workers"], found["seconds_per_epoch"]) == (1, 4.0) and "no shared memory" in found["reason"]
    late = gpu.reference_pipeline(tmp_path, 0)
    assert "workers" not in late and late["reason"].count("no time was left") == 4


def test_our_steps_count_images_and_run_from_epoch_to_epoch(betons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.device.rivals.CROP", 32)
    with our_epochs(betons, choose_policy("cpu", "off", "off", 0), batch_size=16) as epochs:
        steps = our_steps(epochs)
        assert epochs.loader.num_samples % 16  # so that an epoch ends with a smaller batch
        for turn in range(1, 5):
            steps(2)
            trained = epochs.loader.epoch * epochs.loader.num_samples + epochs.loader.position
            assert 32 * turn <= trained < 32 * turn + 16
        assert epochs.loader.epoch
