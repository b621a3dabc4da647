"""profile: the variants do the same work, the accounts add up, and planted bottlenecks are named."""

# N batch, H W rows and columns of the crop, 23 the two rows of an inverse affine matrix

import argparse
import contextlib
import csv
import io
import json
import math
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import cv2
import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

import cli
import engine.profile.profile
from engine.config import ProfileConfig
from engine.figures import png
from engine.networks.cnn import Cnn
from engine.profile.breakdown import (
    EPOCHS,
    Bottleneck,
    Measured,
    Variant,
    judge,
    measured,
    overhead_share,
    variants_for,
)
from engine.profile.output import profile_figure
from engine.profile.probes import activation_bytes, bound_of, training_flops
from engine.profile.profile import Converter, machine_cautions, profile, training_files
from engine.profile.reference import (
    Reference,
    endless,
    for_a_while,
    make_network,
    open_files,
    rows_of_folder,
    transforms_for,
)
from engine.profile.worker import DeviceRounds, HostRounds, VariantProcess, trace
from loaders.atomic_file import locked
from loaders.batches.loader import Batch, Loader
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.config import ORDINARY_PIXELS, LoaderConfig
from loaders.errors import ConfigError, InputError
from loaders.images.decode import Task, decode_into_spool
from loaders.machine import usable_cores
from tests.conftest import made_once
from tests.faults.beton_layout import hashed_formerly
from tests.findings_example import write_findings
from tests.naive import Plain

ENGINE = variants_for("cpu")[-1]


def test_betons_of_findings_are_refused_with_what_to_do(tmp_path: Path) -> None:
    data = write_findings(tmp_path / "b", counts={"train": 8, "val": 8}, crop=32)
    with pytest.raises(ConfigError, match=r"a conversion of findings, expected one of classes.*one label a film"):
        profile(ProfileConfig(data=data, source=tmp_path, device="cpu"))
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


class SlowDisk(Loader):
    """Every batch's bytes come late."""

    def make_batch(self, index_N: np.ndarray, inverse_N23: np.ndarray | None) -> Batch:
        time.sleep(0.4)
        return super().make_batch(index_N, inverse_N23)


class HeavyAugmentation(Loader):
    """Every batch takes a thread's processor time, and no interpreter lock."""

    def make_batch(self, index_N: np.ndarray, inverse_N23: np.ndarray | None) -> Batch:
        begin, numbers = time.thread_time(), np.random.default_rng(0).random(400_000)
        while time.thread_time() - begin < 0.3:
            np.sort(numbers)
        return super().make_batch(index_N, inverse_N23)


def verdict_of(betons: Path, turns: int = 1, **settings: int) -> str:
    """Run the engine's variant on a CPU, and judge it by the median of its turns."""
    config = LoaderConfig(training=True, **({"batch_size": 8, "threads": 1, "prefetch": 0} | settings))
    with contextlib.closing(HostRounds(ENGINE, betons, config, "cpu")) as rounds:
        rounds.train(1, 0)
        trained, validated = [rounds.train(3, 0.1) for _ in range(turns)], [rounds.validate()]
        overhead = overhead_share(rounds.sizes()["sizes"], config.batch_size)
    found = measured(ENGINE, trained, validated, threads=config.threads, conversion=0.0)
    verdict = judge(
        found, threads=config.threads, cores=2, batch_size=config.batch_size, overhead=overhead, arithmetic=0.5
    )
    return f"{verdict.bottleneck}: {verdict.text}"


def test_a_slow_disk_is_named(betons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.profile.worker.Loader", SlowDisk)
    verdict = verdict_of(betons)
    assert verdict.startswith("disk: ") and "--resident on" in verdict


def test_too_few_threads_for_heavy_augmentation_are_named(betons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.profile.worker.Loader", HeavyAugmentation)
    monkeypatch.setattr(time, "thread_time", time.perf_counter)  # as if no other process took the thread's core away
    verdict = verdict_of(betons, turns=3)
    assert verdict.startswith("loader: ") and "more --threads (now 1, on 2 cores)" in verdict


def test_tiny_batches_are_named(betons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.profile.worker.REPEATS", 9)
    verdict = verdict_of(betons, turns=5, batch_size=1, prefetch=2)
    assert verdict.startswith("small batches: ") and "raise --batch-size (now 1)" in verdict


def timed(**changes: object) -> Measured:
    usual = {
        "variant": ENGINE,
        "parts": {"wait": 0.0001, "transfer": 0.0, "forward": 0.004, "backward": 0.006, "augment": 0.001},
        "overlapped": ("augment",),
        "training": 0.0101,
        "validation": 0.003,
        "turns": (0.0101,),
        "worked": 0.05,
        "computed": 0.04,
    }
    return Measured(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "overhead", "arithmetic", "bottleneck", "remedy"),
    [
        ({}, 0.03, 0.86, "computing", "0.86 of the rate of large matrices on this machine; only faster hardware"),
        ({}, 0.03, 0.2, "computing", "larger batches"),
        ({}, None, 0.2, "computing", "larger batches"),
        ({}, 0.9, 0.2, "small batches", "--batch-size (now 32)"),
        ({"parts": {"wait": 0.0001, "transfer": 0.005}}, 0.9, 0.2, "transfer", "--resident on"),
        ({"parts": {"wait": 0.004}, "worked": 0.9, "computed": 0.8}, 0.9, 0.2, "loader", "waits 40 % of the time"),
        ({"parts": {"wait": 0.004}, "worked": 0.9, "computed": 0.1}, 0.0, 0.2, "disk", "89 % of theirs for bytes"),
    ],
)
def test_the_bottleneck_follows_from_where_the_time_went(
    changes: dict[str, object], overhead: float | None, arithmetic: float, bottleneck: str, remedy: str
) -> None:
    verdict = judge(timed(**changes), threads=2, cores=4, batch_size=32, overhead=overhead, arithmetic=arithmetic)
    assert verdict.bottleneck == bottleneck and remedy in verdict.text


def test_threads_are_no_remedy_where_every_core_has_one() -> None:
    waiting = timed(parts={"wait": 0.004}, worked=0.9, computed=0.8)
    verdict = judge(waiting, threads=4, cores=4, batch_size=32, overhead=None, arithmetic=0.2)
    assert "more cores" in verdict.text and "--threads" not in verdict.text


def test_a_variant_is_measured_by_medians_and_counts_conversion_once() -> None:
    trained = [
        {"images": 10, "steps": 2, "seconds": seconds, "parts": {"forward": seconds}, "overlapped": []}
        for seconds in (1.0, 9.0, 2.0)
    ]
    found = measured(ENGINE, trained, [{"images": 4, "seconds": 1.0}], threads=1, conversion=0.5)
    assert found.parts == {"forward": 0.2} and found.training == 0.2
    assert found.epoch_seconds == pytest.approx(1648 * 0.2 + 412 * 0.25)
    assert found.run_seconds == pytest.approx(EPOCHS * found.epoch_seconds + 2060 * 0.5)


def test_the_overhead_of_a_step_is_what_no_image_adds_to() -> None:
    sizes = [(1, 0.3), (8, 1.0)]  # 0.2 s, and 0.1 s an image
    assert [overhead_share(sizes, count) for count in (1, 8, 38)] == pytest.approx([2 / 3, 0.2, 0.05])
    assert overhead_share([(1, 0.1), (8, 0.8)], 8) == pytest.approx(0)
    assert overhead_share([(1, 0.2), (8, 0.1)], 8) == 1
    assert overhead_share([], 8) is None


def test_the_reports_step_has_the_arithmetic_that_its_layers_add_up_to() -> None:
    sides, channels = (224, 112, 56, 28, 14), (1, 32, 64, 128, 256, 256)
    layers = [2 * 9 * channels[i] * channels[i + 1] * sides[i] ** 2 for i in range(5)]
    layers += [2 * 256 * 7 * 7 * 512, 2 * 512 * 2]
    assert training_flops(Cnn(2, 224, 0.5), 224) == 3 * sum(layers) - layers[0]
    outputs = sum(width * side**2 for width, side in zip(channels[1:], sides, strict=True))
    assert activation_bytes(Cnn(2, 224, 0.5), 224, 4) == 4 * outputs


def test_the_bound_is_a_share_of_what_the_machine_gave_in_the_middle_round() -> None:
    network = Cnn(2, 32, 0.5)
    flops, outputs = training_flops(network, 32), activation_bytes(network, 32, 4)
    bound = bound_of(network, 32, 2.0, [flops, flops * 4, flops], [outputs] * 3, 4)
    assert (bound.arithmetic, bound.copying, bound.matmul_spread) == (0.5, 1.0, 4.0)


def test_every_row_of_a_waterfall_adds_something_and_the_last_is_the_engine() -> None:
    for device, mixed in (("cpu", False), ("cpu", True), ("cuda", True), ("mps", False), ("mps", True)):
        rows = variants_for(device, mixed=mixed)
        assert rows[-1].mixed == mixed and (device != "cpu" or rows[-1].fused)
        assert [row.name for row in rows][:3] == ["reference", "decoded once", "kernels"] and rows[-1].name == "engine"
        assert len({row.adds for row in rows}) == len(rows)


def test_the_reference_has_the_reports_network_and_the_engines_geometry(betons: Path) -> None:

    torch.manual_seed(3)
    theirs, plain = make_network(2, 64), Plain(2, 64, 0.5)
    plain.load_state_dict(dict(zip(plain.state_dict(), theirs.state_dict().values(), strict=True)))
    frames_N1HW = torch.rand(4, 1, 64, 64) * 2 - 1
    assert torch.allclose(theirs.eval()(frames_N1HW), plain.eval()(frames_N1HW), atol=1e-5)

    _, to_training_crop, to_crop = transforms_for(32)
    with Loader(betons / "val.beton", LoaderConfig(batch_size=1), tensors=True) as loader:
        frame_SS = Image.fromarray(loader.beton.frame(0))
        (ours_N1HW, _, _) = next(iter(loader))
    assert torch.allclose(to_crop(frame_SS), ours_N1HW[0], atol=1e-5)
    turned = [to_training_crop(frame_SS) for _ in range(20)]
    assert all(crop.shape == (1, 32, 32) and crop.min() >= -1 and crop.max() <= 1 for crop in turned)
    assert len({float(crop.sum()) for crop in turned}) == 20


def test_the_reference_takes_a_folder_or_a_table_and_its_parts_add_up(betons: Path, phantoms: Path) -> None:
    rows = rows_of_folder(phantoms.parent / "images", seed=0)
    splits = [split for _, _, split in rows]
    assert splits.count("val") == round(0.2 * len(rows)) > 0 and {label for _, label, _ in rows} == {"covid", "normal"}
    settings = {"manifest": betons / "convert.csv", "size": 32, "batch_size": 8, "workers": 0, "device": "cpu"}
    arguments = argparse.Namespace(folder=phantoms.parent, **settings)
    reference = Reference(open_files(arguments), arguments)
    with Beton(betons / "train.beton") as train, Beton(betons / "val.beton") as val:
        sizes = (len(train), len(val))
    turn = reference.train(for_a_while(endless(reference.train_loader), -(-sizes[0] // 8) + 1, 0))
    assert turn["images"] == sizes[0] + 8 and sum(turn["parts"].values()) == pytest.approx(turn["seconds"])
    assert turn["parts"]["decode"] > 0 < turn["parts"]["augment"] and not turn["overlapped"]
    assert reference.validate(reference.val_loader)["images"] == sizes[1]


def test_the_variants_compute_the_same(betons: Path) -> None:
    losses = []
    for variant in variants_for("cpu", mixed=True)[2:]:
        config = LoaderConfig(training=True, batch_size=8, threads=1)
        with contextlib.closing(HostRounds(variant, betons, config, "cpu")) as rounds:
            rounds.learner.network.eval()
            with contextlib.closing(rounds.batches()) as batches:
                frames_N1HW, labels_N = next(batches)
            with torch.no_grad(), rounds.policy.precision():
                losses.append(float(rounds.learner.loss(rounds.learner.network(frames_N1HW), labels_N)))
    *exact, rounded = losses
    assert np.ptp(exact) < 1e-5 and 0 < abs(rounded - exact[0]) < 1e-2


def test_a_turn_counts_its_images_and_its_parts_add_up(betons: Path) -> None:
    config = LoaderConfig(training=True, batch_size=16, threads=1)
    with contextlib.closing(HostRounds(ENGINE, betons, config, "cpu")) as rounds:
        turn = rounds.train(7, 0)  # more than an epoch has
        whole = rounds.loader.num_samples
        assert turn["steps"] == 7 and 6 * (whole % 16) < turn["images"] <= 7 * 16 and turn["images"] > whole - 16
        alone = sum(seconds for part, seconds in turn["parts"].items() if part not in turn["overlapped"])
        assert alone == pytest.approx(turn["seconds"]) and turn["making"] == turn["parts"]["augment"] > 0


def test_steps_on_a_device_are_counted_over_the_ends_of_epochs(betons: Path) -> None:
    config = LoaderConfig(training=True, batch_size=16, threads=1)
    variant = Variant(name="engine", adds="", fast_layout=True, on_device=True)
    with contextlib.closing(DeviceRounds(variant, betons, config, "cpu")) as rounds:
        total = rounds.loader.num_samples
        per_epoch = len(rounds.loader)
        images, steps = rounds.run(per_epoch, 0)
        assert (images, steps) == (total, per_epoch)
        assert rounds.run(per_epoch + 1, 0) == (total + 16, per_epoch + 1)
        turn = rounds.train(2, 0)
        assert turn["steps"] == 2 and turn["images"] <= 32 and turn["parts"] == {"step": turn["seconds"]}
        assert 0 < rounds.validate()["images"] <= 32


def test_files_are_not_compared_with_a_beton_whose_pixels_are_hashed_otherwise(
    betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    shutil.copytree(betons, tmp_path / "older")
    content = (betons / "train.beton").read_bytes()
    (tmp_path / "older" / "train.beton").write_bytes(hashed_formerly(content, 46))
    with pytest.raises(ConfigError, match=r"train\.beton: pixels are hashed by blake2b, expected blake3"):
        Converter(tmp_path / "older", phantoms.parent)


def test_a_source_that_is_not_the_betons_is_refused(betons: Path, phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the folder that the betons were converted from"):
        training_files(betons, tmp_path)
    with pytest.raises(InputError, match=r"no convert\.csv"):
        training_files(tmp_path, phantoms.parent)
    other = tmp_path / "other"
    shutil.copytree(phantoms.parent, other)
    a, b = (other / path for path in training_files(betons, other)[:2])
    a.write_bytes(b.read_bytes())
    with contextlib.closing(Converter(betons, other)) as converter, pytest.raises(ConfigError, match="other pixels"):
        converter.convert(1)
    fewer = tmp_path / "fewer"
    shutil.copytree(betons, fewer)
    with (fewer / "convert.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with (fewer / "convert.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(row for row in rows if not (row["split"] == "train" and row["sample"] == "0"))
    with pytest.raises(ConfigError, match=r"the samples of train\.beton"):
        training_files(fewer, phantoms.parent)


def test_a_variant_that_fails_says_why() -> None:
    with (
        pytest.raises(InputError, match=r"variant reference ended with exit code 2.*arguments are required"),
        VariantProcess("reference", "engine.profile.reference", []) as process,
    ):
        process.answer()


@pytest.fixture(scope="module")
def profiled(betons: Path, phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole profile where `train` would compute in bfloat16, with a trace and, beside it, what it printed.

    Any load is too much for it, and any spread.
    """

    def make(folder: Path) -> None:
        command = ["profile", str(betons), "--source", str(phantoms.parent), "--out", str(folder / "p")]
        command += ["--rounds", "1", "--steps", "1", "--batch-size", "8", "--device", "cpu"]
        printed = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
            patch.setattr("engine.device.bfloat16_unit", lambda: "AMX")
            patch.setattr("engine.profile.profile.BUSY", -1)
            patch.setattr("engine.profile.profile.NOISE", 0)
            assert cli.main([*command, "--trace", str(folder / "trace.json")]) == 0
        (folder / "printed.txt").write_text(printed.getvalue())

    return made_once(tmp_path_factory, "profile", make) / "p"  # each of its variants is a process: half a minute


def test_a_profile_shows_its_cautions_in_the_terminal_and_has_their_codes_in_its_file(profiled: Path) -> None:
    text = (profiled / "profile.json").read_text()
    cautions = msgspec.convert(json.loads(text)["cautions"], list[Caution])
    assert [found.code for found in cautions] == ["machine-busy", "machine-unsteady"]
    printed = " ".join((profiled.parent / "printed.txt").read_text().split())
    for found in cautions:
        assert f"Caution: {found.text}." in printed and found.finding not in text


def test_a_folder_that_another_process_has_is_not_written_into(
    betons: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with locked(tmp_path / "p"):
        command = ["profile", str(betons), "--source", str(phantoms.parent), "--out", str(tmp_path / "p")]
        assert cli.main([*command, "--device", "cpu"]) == 6
    assert "another plainfilm process" in capsys.readouterr().err


def test_a_profile_leaves_the_number_of_torchs_threads_as_it_was(
    betons: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(*given: object) -> None:
        counts.append(torch.get_num_threads())
        raise InputError("here")

    counts: list[int] = []
    monkeypatch.setattr(engine.profile.profile, "arguments_for", ends)
    before = torch.get_num_threads()
    torch.set_num_threads(usable_cores() + 1)
    try:
        with pytest.raises(InputError, match="here"):
            profile(ProfileConfig(data=betons, source=phantoms.parent, out=tmp_path / "p", device="cpu"))
        assert (counts, torch.get_num_threads()) == ([usable_cores()], usable_cores() + 1)
    finally:
        torch.set_num_threads(before)


def test_a_busy_machine_and_an_unsteady_one_are_cautions() -> None:
    assert machine_cautions(1.1, 0.5, 2) == []
    assert machine_cautions(1.1, 4.0, 2) == [caution("machine-busy", load=4.0, cores=2)]
    assert machine_cautions(2.0, 0.5, 2) == [caution("machine-unsteady", ratio=2.0)]


def test_a_profile_leaves_a_picture_a_record_and_a_trace(profiled: Path) -> None:
    assert (profiled / "profile.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((profiled / "profile.json").read_text())
    assert [row["variant"] for row in record["variants"]] == list(map(asdict, variants_for("cpu", mixed=True)))
    assert record["verdict"]["bottleneck"] in get_args(Bottleneck)
    assert record["report_seconds"] == {"seconds": 979.0, "hardware": "other: Apple M3 Max"}
    assert record["variants"][0]["conversion_seconds"] == 0 < record["variants"][-1]["conversion_seconds"]
    assert record["verdict"]["text"] and record["versions"].keys() >= {"torch", "torchvision", "plainfilm"}
    assert record["variants"][0]["parts"]["decode"] > 0 and "decode" not in record["variants"][-1]["parts"]
    names = {event.get("name") for event in json.loads((profiled.parent / "trace.json").read_text())["traceEvents"]}
    assert any("backward" in str(name).lower() for name in names)


def test_a_trace_that_cannot_be_recorded_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: object, path: str) -> None:
        Path(path).write_text("half a trace")
        raise OSError("disk full")

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", breaks)
    policy = SimpleNamespace(device=torch.device("cpu"))
    (tmp_path / "trace.json").write_text("an earlier one")
    with pytest.raises(OSError, match="disk full"):
        trace(SimpleNamespace(policy=policy, train=lambda *given: None), tmp_path / "trace.json", 1)  # type: ignore[arg-type]
    assert [path.read_text() for path in tmp_path.iterdir()] == ["an earlier one"]


def test_a_trace_with_the_name_of_a_folder_is_refused_at_once(
    betons: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["profile", str(betons), "--source", str(phantoms.parent), "--out", str(tmp_path / "p")]
    assert cli.main([*command, "--device", "cpu", "--trace", str(tmp_path)]) == 2
    assert f"--trace {tmp_path}: a folder" in capsys.readouterr().err and not (tmp_path / "p").exists()


def test_a_profile_decodes_what_a_conversion_with_more_pixels_took(
    betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    side = math.isqrt(ORDINARY_PIXELS) + 1
    levels_HW = np.tile(np.arange(side, dtype=np.uint16) % 251, (side, 1)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "large.png"), levels_HW)
    with contextlib.closing(Converter(betons, phantoms.parent)) as converter:
        settings, spool = converter.settings, converter.spool
        decoded = decode_into_spool(Task(0, "large.png"), root=tmp_path, spool=spool, settings=settings)
    assert (decoded.problem, decoded.width) == ("", side)


def test_a_picture_can_be_drawn_of_a_reference_that_is_quicker_than_the_report() -> None:
    reference = timed(variant=variants_for("cuda")[0], parts={"decode": 0.001, "forward": 0.002}, overlapped=())
    whole = timed(variant=variants_for("cuda")[-1], parts={"step": 0.00001}, training=0.00001, overlapped=())
    assert png(profile_figure([reference, whole], "cuda")).startswith(b"\x89PNG")


def test_a_profile_without_torchvision_says_what_to_install(
    betons: Path, phantoms: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert cli.main(["profile", str(betons), "--source", str(phantoms.parent)]) == 2
    assert "pip install torchvision" in capsys.readouterr().err
