"""A training: what it leaves, when it stops, and that an interrupted run is the same run."""

import csv
import functools
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import cli
from engine.config import CrossvalConfig, EvaluateConfig, Recipe, TrainConfig
from engine.evaluate.evaluate import evaluate
from engine.evaluate.results import Metrics
from engine.evaluate.trained import load_trained
from engine.train.checkpoint import load_checkpoint, save_checkpoint
from engine.train.epochs import HostEpochs
from engine.train.run_folder import Events, RunFolder, load_config, run_id, settled_recipe, shared_settings
from engine.train.state import Progress, State, Watch
from engine.train.summary import Summary, early_convergence
from engine.train.train import epoch_line, live_line, train, training_parts
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.cautions import caution
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.errors import (
    CheckpointError,
    ConfigError,
    DivergedError,
    InputError,
    Interrupted,
    LockedError,
    StorageError,
)
from loaders.phantom.phantom import write_phantoms
from loaders.records import read_record
from tests.example_run import small_training
from tests.findings_example import NAMES, write_findings

ROOT = Path(__file__).parents[2]


def config(betons: Path, out: Path, **changes: object) -> TrainConfig:
    return small_training(betons, out, **({"epochs": 3, "batch_size": 8} | changes))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(run / "last.safetensors")[0]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def run(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of three epochs."""
    out = tmp_path_factory.mktemp("training") / "run"
    train(config(betons, out))
    return out


def test_a_run_leaves_everything_that_was_promised(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    promised = {"config.json", "metrics.csv", "train.log", "best.safetensors", "last.safetensors", "curves.png"}
    assert promised | {"summary.json", "leakage.safetensors"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    summary = read_record(Summary, run / "summary.json")
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert summary.best_f1 == max(float(row["val_f1"]) for row in rows)
    assert summary.epochs == 3 and summary.stopped == "epochs"
    assert summary.seconds > 0 and summary.images_per_second > 0 and summary.parameters > 0 and summary.versions
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not any(b"pickle" in path.read_bytes()[:200] for path in run.glob("*.safetensors"))


def test_curves_are_drawn_early_seldom_and_at_the_end(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = []
    draw = RunFolder.draw
    monkeypatch.setattr(
        RunFolder, "draw", lambda self, history, *rest: (lengths.append(len(history)), draw(self, history, *rest))[1]
    )
    monkeypatch.setattr("engine.train.trainer.SECONDS_BETWEEN_CURVES", 3600)
    train(config(betons, tmp_path / "run"))
    assert lengths == [1, 3]


def test_the_tensorboard_events_hold_every_epoch(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    assert [event.step for event in events.Scalars("val/f1")] == [1, 2, 3]


def test_two_runs_of_one_seed_are_bit_identical_and_another_seed_differs(
    betons: Path, run: Path, tmp_path: Path
) -> None:
    train(config(betons, tmp_path / "again"))
    assert same(weights(run), weights(tmp_path / "again"))
    train(config(betons, tmp_path / "other", seed=1))
    assert not same(weights(run), weights(tmp_path / "other"))


def test_thread_count_of_the_loader_changes_nothing(betons: Path, run: Path, tmp_path: Path) -> None:
    train(config(betons, tmp_path / "one", threads=1, prefetch=0))
    assert same(weights(run), weights(tmp_path / "one"))


def interrupted(settings: TrainConfig, after: int) -> None:
    """Run until the stop is asked for the given number of times, then be interrupted."""
    asked = 0

    def stopping() -> bool:
        nonlocal asked
        asked += 1
        return asked > after

    with pytest.raises(Interrupted, match="--resume"):
        train(settings, watch=Watch(stopping=stopping))


# asked before each epoch, after each of the steps and validation batches: covers starts, middles and validations
@pytest.mark.parametrize("after", [0, 1, 3, 5, 6, 7, 8, 9, 13, 17])
def test_a_run_interrupted_anywhere_resumes_to_identical_weights(
    betons: Path, run: Path, tmp_path: Path, after: int
) -> None:
    out = tmp_path / "run"
    interrupted(config(betons, out), after)
    train(load_config(out), resume=True)
    assert same(weights(run), weights(out))
    a, b = ((folder / "metrics.csv").read_text() for folder in (run, out))

    def without_speed(text: str) -> list[str]:
        return [line.rsplit(",", 1)[0] for line in text.splitlines()]

    assert without_speed(a) == without_speed(b)
    assert same(*(load_checkpoint(folder / "best.safetensors")[0] for folder in (run, out)))


def test_a_run_in_bfloat16_is_another_run_and_resumes_to_identical_weights(
    betons: Path, run: Path, tmp_path: Path
) -> None:
    train(config(betons, tmp_path / "whole", amp="on"))
    assert not same(weights(run), weights(tmp_path / "whole"))
    interrupted(config(betons, tmp_path / "part", amp="on"), 5)
    train(load_config(tmp_path / "part"), resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "part"))
    kept = weights(tmp_path / "whole")["network.features.4.weight"]
    assert kept.dtype == torch.float32 and not torch.equal(kept, kept.bfloat16().float())


def test_a_run_keeps_the_precision_that_auto_chose_when_it_began(
    betons: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.device.bfloat16_unit", lambda: "AMX")
    train(config(betons, tmp_path / "whole", amp="on"))
    interrupted(config(betons, tmp_path / "part"), 5)
    assert json.loads((tmp_path / "part" / "config.json").read_text())["amp"] == "on"
    monkeypatch.setattr("engine.device.bfloat16_unit", lambda: "")  # it is continued on another machine
    summary = train(load_config(tmp_path / "part"), resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "part"))
    assert summary.amp == caution("amp-by-unit", unit="AMX")


def test_a_run_of_an_earlier_release_stays_in_float32(
    betons: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "part"
    interrupted(config(betons, out), 5)
    before = json.loads((out / "config.json").read_text()) | {"amp": "auto"}  # as those left it
    (out / "config.json").write_text(json.dumps(before))
    for name in ("last.safetensors", "leakage.safetensors"):
        tensors, state = load_checkpoint(out / name)
        state["run"] = run_id(load_config(out), state["conversion_id"])
        state.pop("amp", None)
        save_checkpoint(out / name, tensors, state)
    monkeypatch.setattr("engine.device.bfloat16_unit", lambda: "AMX")
    assert train(load_config(out), resume=True).amp is None
    assert same(weights(run), weights(out))


def test_what_belongs_together_is_of_the_precision_of_what_began_first(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    assert settled_recipe(folders, Recipe(device="cpu")).amp == "off"  # as auto is in these tests
    train(config(betons, folders[1], epochs=1, amp="on"))
    assert settled_recipe(folders, Recipe(device="cpu")).amp == "on"
    assert settled_recipe(folders, Recipe(device="cpu", amp="off")).amp == "off"  # as asked for: it is then refused
    stored = json.loads((folders[1] / "config.json").read_text())
    (folders[1] / "config.json").write_text(json.dumps(stored | {"amp": "auto"}))
    with pytest.raises(ConfigError, match=r"found --amp auto in config\.json, .* begun by an earlier release"):
        settled_recipe(folders, Recipe(device="cpu"))


def test_a_run_interrupted_again_and_again_still_ends_the_same(betons: Path, run: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupted(config(betons, out), 2)
    for _ in range(40):
        count = iter(range(100))
        try:
            train(load_config(out), resume=True, watch=Watch(stopping=lambda count=count: next(count) > 2))
            break
        except Interrupted:
            continue
    assert same(weights(run), weights(out))


def test_the_events_of_a_resumed_run_hold_every_epoch_once(betons: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    interrupted(config(betons, tmp_path / "run"), 12)
    train(load_config(tmp_path / "run"), resume=True)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert [event.step for event in events.Scalars("val/f1")] == [1, 2, 3]


def test_resuming_a_finished_run_changes_nothing(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    before = {path.name: path.read_bytes() for path in copied.glob("*.safetensors")}
    summary = train(load_config(copied), resume=True)
    assert summary == read_record(Summary, run / "summary.json")
    assert {path.name: path.read_bytes() for path in copied.glob("*.safetensors")} == before


def test_early_stopping_keeps_the_best_epoch(betons: Path, tmp_path: Path) -> None:
    summary = train(config(betons, tmp_path / "run", epochs=40, patience=2))
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))[summary.best_epoch :]
    apart = [float(row["val_sensitivity"]) + float(row["val_specificity"]) > 1 for row in rows]
    assert summary.epochs < 40 and apart.count(True) == 2 and apart[-1]
    assert all(float(row["val_f1"]) <= summary.best_f1 + 0.001 for row in rows)
    assert summary.stopped == "patience" and "(stopped early: " in training_parts(summary, tmp_path)[0].text


def test_patience_does_not_run_while_every_image_gets_one_answer() -> None:
    def row(sensitivity: float | None, specificity: float | None) -> dict[str, Any]:
        return {"val_sensitivity": sensitivity, "val_specificity": specificity}

    silent, macro = [row(0.0, 1.0), row(1.0, 0.0)], row(1 / 3, 2 / 3)
    assert State(conversion_id="", best_epoch=1, history=[*silent, macro, *silent]).idle() == 0
    assert State(conversion_id="", best_epoch=1, history=[row(0.9, 0.9), *silent, row(0.6, 0.5), macro]).idle() == 1
    assert State(conversion_id="", best_epoch=3, history=[*silent, row(0.9, 0.9)]).idle() == 0
    assert State(conversion_id="", best_epoch=1, history=[*silent, row(None, 1.0), row(0.5, 0.6)]).idle() == 2


def test_divergence_keeps_the_last_healthy_state(betons: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(DivergedError, match="expected finite"):
        train(config(betons, out, learning_rate=1e30))
    kept = weights(out)
    assert all(torch.isfinite(value).all() for value in kept.values())


def test_betons_that_changed_under_a_run_are_noticed(betons: Path, phantoms: Path, tmp_path: Path) -> None:
    from loaders.config import CatalogConfig, ConvertConfig
    from loaders.convert.convert import convert

    data, out = tmp_path / "b", tmp_path / "run"
    shutil.copytree(betons, data)
    interrupted(config(data, out), 3)
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=phantoms), out=data, size=32, seed=9, workers=1, site_key=tmp_path / "k"
        )
    )
    with pytest.raises(CheckpointError, match="bring the old betons back"):
        train(load_config(out), resume=True)


def test_a_folder_that_mixes_conversions_is_refused(betons: Path, phantoms: Path, tmp_path: Path) -> None:
    from loaders.config import CatalogConfig, ConvertConfig
    from loaders.convert.convert import convert

    mixed = tmp_path / "mixed"
    shutil.copytree(betons, mixed)
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=phantoms),
            out=tmp_path / "c",
            size=32,
            seed=9,
            workers=1,
            site_key=tmp_path / "k",
        )
    )
    shutil.copy(tmp_path / "c" / "val.beton", mixed / "val.beton")
    with pytest.raises(InputError, match="expected one conversion"):
        train(config(mixed, tmp_path / "run"))


def test_a_run_folder_is_not_overwritten_and_is_locked(betons: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--resume"):
        train(config(betons, run))

    def second(progress: object) -> None:
        with pytest.raises(LockedError, match="another plainfilm process"):
            train(load_config(tmp_path / "run"), resume=True)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(betons, tmp_path / "run"), watch=Watch(show=second))


def test_config_json_repeats_the_run(betons: Path, run: Path) -> None:
    assert load_config(run) == config(betons, run, amp="off")  # as auto settled it


def test_what_a_run_shares_names_no_path_and_what_names_one_is_for_its_owner_alone(
    betons: Path, run: Path, tmp_path: Path
) -> None:
    local = run / "local.json"
    assert local.stat().st_mode & 0o777 == 0o600
    assert json.loads(local.read_text()) == {"data": str(betons), "out": str(run)}
    for path in run.iterdir():
        assert path == local or str(betons.parent).encode() not in path.read_bytes(), path.name
    recipe = Recipe(weights="/home/doe/w.pth")
    weights = CrossvalConfig(data=betons, out=run, external=betons / "x.beton", recipe=recipe)
    assert not {"data", "out", "external"} & shared_settings(weights).keys()
    assert shared_settings(weights)["weights"] == "w.pth"
    shared = shutil.copytree(run, tmp_path / "shared", ignore=shutil.ignore_patterns("local.json"))
    with pytest.raises(ConfigError, match=r"no local\.json, .*name that folder: train BETONS --resume"):
        load_config(shared)
    assert load_config(shared, betons) == config(betons, shared, amp="off")


def test_damaged_and_foreign_checkpoints_are_refused(run: Path, tmp_path: Path) -> None:
    content = bytearray((run / "best.safetensors").read_bytes())
    for place in (0, 9, 300, len(content) // 2, len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 4
        (tmp_path / "x.safetensors").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"x\.safetensors"):
            load_checkpoint(tmp_path / "x.safetensors")
    for length in (0, 7, 100, len(content) - 1):
        (tmp_path / "x.safetensors").write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path / "x.safetensors")


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "b": torch.tensor(7),
        "c": torch.zeros(0, 2),
        "d": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    save_checkpoint(tmp_path / "c", tensors, {"text": "ü", "number": 0.1 + 0.2})
    back, state = load_checkpoint(tmp_path / "c")
    assert same(tensors, back) and state == {"text": "ü", "number": 0.1 + 0.2}


def test_three_classes_train_with_macro_f1(tmp_path: Path) -> None:
    from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
    from loaders.convert.convert import convert
    from loaders.phantom.phantom import write_phantoms

    names = ("covid", "normal", "pneumonia")
    table = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=18, size=64, classes=names))
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=table), out=tmp_path / "b", size=32, workers=1, site_key=tmp_path / "k"
        )
    )
    summary = train(config(tmp_path / "b", tmp_path / "run", epochs=1))
    assert summary.classes == list(names) and 0 <= summary.best_f1 <= 1


LONG = 8  # epochs that leave time for a signal


@pytest.fixture(scope="module")
def long_run(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that no signal came to."""
    out = tmp_path_factory.mktemp("long") / "run"
    train(config(betons, out, epochs=LONG, patience=LONG))
    return out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_exits_75_and_the_resumed_run_is_the_same_run(
    betons: Path, tmp_path: Path, number: signal.Signals, long_run: Path
) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-u", "cli.py", "train", str(betons), "--out", str(out)]
    command += ["--epochs", str(LONG), "--patience", str(LONG), "--batch-size", "8", "--device", "cpu", "--amp", "off"]
    as_here = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # whose bits depend on it
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=as_here
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("epoch   1")
        process.send_signal(number)
        printed = process.stderr.read()
    assert process.returncode == 75
    assert f"continue with --resume {out}" in printed and "Traceback" not in printed
    assert load_checkpoint(out / "last.safetensors")[1]["finished"] is None
    assert cli.main(["train", "--resume", str(out)]) == 0
    assert same(weights(out), weights(long_run))


def test_a_finished_run_without_its_summary_gets_it_back(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied)
    for damage in (lambda path: path.unlink(), lambda path: path.write_text("{}")):
        damage(copied / "summary.json")
        train(load_config(copied), resume=True)
        assert read_record(Summary, copied / "summary.json") == read_record(Summary, run / "summary.json")


def test_class_weights_change_what_is_learnt(betons: Path, run: Path, tmp_path: Path) -> None:
    train(config(betons, tmp_path / "run", class_weights=True))
    assert not same(weights(run), weights(tmp_path / "run"))


@pytest.mark.parametrize("changes", [{"amp": "on"}, {"compile": "on"}])
def test_precision_and_compilation_reach_the_training(
    betons: Path, tmp_path: Path, changes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if changes.get("compile") and not shutil.which("g++"):
        pytest.skip("torch.compile on a CPU needs a C++ compiler: install g++")
    # captured and differentiated, but left to PyTorch's own kernels; test_step compiles them, which takes a minute
    compiling = mock.Mock(wraps=functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(torch, "compile", compiling)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))  # where it is remembered
    summary = train(config(betons, tmp_path / "run", epochs=1, **changes))
    assert ("bfloat16" in summary.device) == ("amp" in changes)
    assert ("compiled" in summary.device) == ("compile" in changes) == compiling.called
    assert f"--compile {changes.get('compile', 'auto')}" in (tmp_path / "run" / "train.log").read_text()


def test_phantoms_are_called_synthetic_in_the_summary_and_the_log(run: Path) -> None:
    summary = read_record(Summary, run / "summary.json")
    assert summary.synthetic and caution("synthetic-phantoms") in summary.cautions
    assert caution("synthetic-phantoms").text in (run / "train.log").read_text()


def test_a_folder_is_resumable_only_once_its_hashes_are_kept(betons: Path, tmp_path: Path, monkeypatch) -> None:
    import engine.train.train as training

    def killed(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "save_record", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config(betons, tmp_path / "run"))
    assert not (tmp_path / "run" / "config.json").exists()
    with pytest.raises(ConfigError, match="no config"):
        load_config(tmp_path / "run")


def test_the_file_that_a_setting_cannot_be_read_from_is_named_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = {"data": "betons", "epochs": 2}
    for name, text, found in (
        ("local.json", "[]", "local.json: found a list, expected an object of settings"),
        ("config.json", "{", "config.json: not JSON"),
        ("config.json", json.dumps(settings | {"epochs": "two"}), "config.json: epochs: found 'two', expected int"),
        # a value that is a path to the file itself
        ("config.json", json.dumps(settings | {"amp": str(run / "config.json")}), "config.json: amp: found '/"),
    ):
        shutil.rmtree(run, ignore_errors=True)
        run.mkdir()
        (run / "config.json").write_text(json.dumps(settings))
        (run / name).write_text(text)
        with pytest.raises(ConfigError) as error:
            load_config(run)
        assert str(error.value).startswith(str(run / found)), found
        assert str(error.value).count(f"{run / name}: ") == 1


def test_a_new_best_must_be_better_by_more_than_min_delta(betons: Path, tmp_path: Path, monkeypatch) -> None:
    from engine.train import trainer

    scores = iter([0.5, 0.501, 0.5005, 0.502, 0.502, 0.5029, 0.5031])
    real = trainer.all_metrics
    monkeypatch.setattr(trainer, "all_metrics", lambda *arguments: real(*arguments) | {"f1": next(scores)})
    summary = train(config(betons, tmp_path / "run", epochs=7))
    assert summary.best_epoch == 7 and summary.best_f1 == 0.5031
    best = load_checkpoint(tmp_path / "run" / "best.safetensors")[1]
    assert best["epoch"] == 7
    scores = iter([0.5, 0.501, 0.5005, 0.502, 0.502, 0.5029, 0.503])
    summary = train(config(betons, tmp_path / "tie", epochs=7))
    assert summary.best_epoch == 4  # 0.501 is not better than 0.5 by more than 0.001, nor 0.503 than 0.502
    assert load_checkpoint(tmp_path / "tie" / "best.safetensors")[1]["epoch"] == 4
    scores = iter([None, 0.5])  # validation without a positive, and none predicted
    summary = train(config(betons, tmp_path / "undefined", epochs=2))
    assert summary.best_epoch == 2 and "\n1," in (tmp_path / "undefined" / "metrics.csv").read_text()


@pytest.fixture(scope="module")
def half(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run interrupted in its second epoch; copy it."""
    out = tmp_path_factory.mktemp("half") / "run"
    interrupted(config(betons, out), 10)
    return out


@pytest.fixture(scope="module")
def other(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of another seed on the same betons, interrupted there too."""
    out = tmp_path_factory.mktemp("other") / "run"
    interrupted(config(betons, out, seed=1), 10)
    return out


@pytest.mark.parametrize("name", ["last.safetensors", "best.safetensors", "leakage.safetensors", "config.json"])
def test_a_run_is_not_resumed_with_another_runs_file(half: Path, other: Path, tmp_path: Path, name: str) -> None:
    copied = Path(shutil.copytree(half, tmp_path / "run"))
    shutil.copy(other / name, copied / name)
    with pytest.raises(CheckpointError, match=r"of run [0-9a-f]{32}, expected [0-9a-f]{32}"):
        train(load_config(copied), resume=True)


def test_a_changed_setting_is_noticed_before_any_state_was_saved(betons: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def killed(progress: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config(betons, out), watch=Watch(show=killed))
    path = out / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"learning_rate": 0.01}))
    with pytest.raises(CheckpointError, match=r"leakage\.safetensors: of run"):
        train(load_config(out), resume=True)


def test_another_runs_weights_in_a_folder_are_not_used(run: Path, other: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    load_trained(copied)
    shutil.copy(other / "best.safetensors", copied / "best.safetensors")
    with pytest.raises(CheckpointError, match=r"of run [0-9a-f]{32}"):
        load_trained(copied)


def test_best_weights_of_another_network_are_noticed_by_resuming(half: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(half, tmp_path / "run"))
    tensors, state = load_checkpoint(copied / "best.safetensors")
    tensors = {name: torch.cat([value, value]) if value.dim() else value for name, value in tensors.items()}
    save_checkpoint(copied / "best.safetensors", tensors, state)
    with pytest.raises(CheckpointError, match="of another network"):
        train(load_config(copied), resume=True)


@pytest.mark.parametrize("which", ["half", "run"])
def test_a_run_whose_best_weights_are_damaged_is_not_resumed(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    copied = Path(shutil.copytree(request.getfixturevalue(which), tmp_path / "run"))
    best = copied / "best.safetensors"
    content = bytearray(best.read_bytes())
    content[-1000] ^= 1
    best.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"best\.safetensors: checksum"):
        train(load_config(copied), resume=True)
    best.unlink()
    with pytest.raises(CheckpointError, match=r"best\.safetensors: not there"):
        train(load_config(copied), resume=True)


def test_a_run_whose_state_is_gone_after_its_second_epoch_is_not_begun_anew(run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    tensors, state = load_checkpoint(copied / "best.safetensors")
    save_checkpoint(copied / "best.safetensors", tensors, state | {"epoch": 2})
    (copied / "last.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"last\.safetensors: not there, expected the state"):
        train(load_config(copied), resume=True)


@pytest.mark.parametrize("lost", ["summary.json", "metrics.csv"])
def test_a_lost_state_is_noticed_though_the_first_epoch_was_the_best(run: Path, tmp_path: Path, lost: str) -> None:
    gone = shutil.ignore_patterns("last.safetensors", "best.safetensors", lost)
    copied = Path(shutil.copytree(run, tmp_path / "run", ignore=gone))
    with pytest.raises(CheckpointError, match=r"last\.safetensors: not there, expected the state"):
        train(load_config(copied), resume=True)


def test_a_run_that_came_without_its_paths_knows_them_once_it_is_resumed(
    betons: Path, half: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(half, tmp_path / "run", ignore=shutil.ignore_patterns("local.json")))
    with pytest.raises(ConfigError, match=r"no local\.json"):
        load_config(copied)
    with pytest.raises(Interrupted, match="continue with --resume"):
        train(load_config(copied, betons), resume=True, watch=Watch(stopping=lambda: True))
    assert load_config(copied).data == betons


def test_whole_numbers_for_fractions_are_the_same_run(betons: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = replace(config(betons, out), recipe=Recipe(epochs=3, device="cpu", dropout=0))
    with pytest.raises(Interrupted):
        train(settings, watch=Watch(stopping=lambda: (out / "last.safetensors").exists()))
    train(load_config(out), resume=True)


@pytest.mark.parametrize(("name", "kind"), [("train.log", "link"), ("train.log", "FIFO"), (".plainfilm-lock", "link")])
def test_a_foreign_run_folder_does_not_lead_a_training_out_of_it(
    half: Path, tmp_path: Path, name: str, kind: str
) -> None:
    copied = Path(shutil.copytree(half, tmp_path / "run"))
    (copied / name).unlink()
    if kind == "link":
        (copied / name).symlink_to(tmp_path / "profile")
    else:
        os.mkfifo(copied / name)
    with pytest.raises(StorageError, match=name):
        train(load_config(copied), resume=True)
    assert not (tmp_path / "profile").exists()


def test_best_weights_that_a_kill_cut_off_from_their_state_stay_the_best_with_their_own_score(
    run: Path, half: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(half, tmp_path / "run"))
    tensors, state = load_checkpoint(copied / "best.safetensors")
    score = state["validation"] | {"f1": 2.0, "score": 2.0}  # as of a device that would not find it again
    save_checkpoint(copied / "best.safetensors", tensors, state | {"epoch": 2, "validation": score})
    summary = train(load_config(copied), resume=True)
    assert (summary.best_epoch, summary.best_f1) == (2, 2.0)
    assert load_checkpoint(copied / "best.safetensors")[1]["epoch"] == 2
    assert same(weights(run), weights(copied))


@pytest.mark.parametrize("place", ["weight", "moment"])
def test_a_state_that_is_spoilt_does_not_replace_the_healthy_one(
    betons: Path, half: Path, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    copied = Path(shutil.copytree(half, tmp_path / "run"))
    healthy = (copied / "last.safetensors").read_bytes()
    validate = HostEpochs.validate

    def spoil(self: HostEpochs, progress: object) -> object:
        found = validate(self, progress)
        parameter = next(self.learner.network.parameters())
        spoilt = parameter.detach() if place == "weight" else self.learner.optimiser.state[parameter]["exp_avg_sq"]
        spoilt.view(-1)[0] = float("inf")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(HostEpochs, "validate", spoil)
        with pytest.raises(DivergedError, match=r"not finite, expected finite.*the state of step \d+ is kept"):
            train(load_config(copied), resume=True)
    assert (copied / "last.safetensors").read_bytes() == healthy
    train(load_config(copied), resume=True)
    assert same(weights(run), weights(copied))


def test_no_best_weights_are_taken_from_a_state_that_is_spoilt(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validate = HostEpochs.validate

    def spoil(self: HostEpochs, progress: object) -> object:
        next(iter(self.learner.optimiser.state.values()))["exp_avg_sq"].view(-1)[0] = float("inf")
        return validate(self, progress)

    monkeypatch.setattr(HostEpochs, "validate", spoil)
    with pytest.raises(DivergedError, match=r"exp_avg_sq.* is not finite.*no state was saved yet"):
        train(config(betons, tmp_path / "run"))
    assert not any((tmp_path / "run" / f"{name}.safetensors").exists() for name in ("best", "last"))


def test_a_state_of_a_later_release_is_refused_by_a_message(half: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(half, tmp_path / "run"))
    tensors, state = load_checkpoint(copied / "last.safetensors")
    save_checkpoint(copied / "last.safetensors", tensors, state | {"momentum": 1})
    with pytest.raises(CheckpointError, match="found momentum"):
        train(load_config(copied), resume=True)
    save_checkpoint(copied / "last.safetensors", tensors, state | {"finished": "divergence"})
    with pytest.raises(CheckpointError, match=r"Invalid enum value 'divergence' - at `\$\.finished`, expected a state"):
        train(load_config(copied), resume=True)
    save_checkpoint(copied / "last.safetensors", tensors, [state])  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="its state is a list"):
        train(load_config(copied), resume=True)


def test_a_training_is_done_though_another_process_took_its_folder_before_the_page(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def taken(config: object) -> None:
        raise LockedError("another plainfilm process is writing here")

    monkeypatch.setattr("engine.report.report.report", taken)
    flags = ["--epochs", "1", "--device", "cpu", "--no-arena"]
    assert cli.main(["train", str(betons), "--out", str(tmp_path / "run"), *flags]) == 0
    assert "report.html is not written" in capsys.readouterr().out


FULL = Path("/dev/full")  # takes no byte
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")


def test_tensorboard_reads_the_events_and_leaves_out_those_that_were_taken_back(tmp_path: Path) -> None:
    for purge_epoch, epochs in ((1, (1, 2, 3)), (3, (3, 4))):
        events = Events(tmp_path, purge_epoch)
        for epoch in epochs:
            events.add("val/f1", epoch / 10, epoch)
        events.close()
    found = EventAccumulator(str(tmp_path))
    found.Reload()
    assert [event.step for event in found.Scalars("val/f1")] == [1, 2, 3, 4]
    assert [event.value for event in found.Scalars("val/f1")] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_the_events_do_not_name_the_machine(tmp_path: Path) -> None:
    Events(tmp_path).close()
    (path,) = tmp_path.iterdir()
    assert f".{socket.gethostname()}" not in path.name and socket.gethostname().encode() not in path.read_bytes()


@needs_full
def test_events_on_a_full_disk_are_an_error_of_the_caller(tmp_path: Path) -> None:
    events = Events(tmp_path)
    events._file.close()
    events._file = FULL.open("wb")
    events._records._writer = events._file
    events.add("val/f1", 0.5, 1)
    with pytest.raises(StorageError, match=r"tfevents.* bytes of room"):
        events.flush()
    with pytest.raises(StorageError, match="tfevents"):
        events.close()


@needs_full
def test_a_log_on_a_full_disk_stops_the_training_by_a_message(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(StorageError, match=r"train\.log: .* bytes of room"), RunFolder(tmp_path) as folder:
        folder._handler.stream.close()
        folder._handler.stream = FULL.open("w")
        logging.getLogger("engine.train.train").info("epoch 1")
    assert capfd.readouterr().err == ""


# ---- findings


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Betons of three findings, of which the labels of two fifths are unknown."""
    counts = {"train": 40, "val": 40}
    return write_findings(tmp_path_factory.mktemp("findings") / "b", counts=counts, crop=32, unknown=0.4)


def to_the_bit(path: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """What a checkpoint holds: labels that are unknown equal themselves."""
    tensors, state = load_checkpoint(path)
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, state


@pytest.mark.parametrize(
    "changes", [{"class_weights": True}, {"monitor": "auc"}, {"monitor": "loss"}], ids=["weighed", "auc", "loss"]
)
def test_a_run_of_findings_interrupted_anywhere_resumes_to_identical_weights(
    findings: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    settings = {"epochs": 2, "batch_size": 16, **changes}
    train(config(findings, tmp_path / "whole", **settings))
    best = to_the_bit(tmp_path / "whole" / "best.safetensors")
    for after in (2, 5, 8):
        out = tmp_path / f"after {after}"
        interrupted(config(findings, out, **settings), after)
        train(load_config(out), resume=True)
        assert same(weights(tmp_path / "whole"), weights(out)) and to_the_bit(out / "best.safetensors") == best


@pytest.mark.parametrize("data", ["betons", "findings"])
@pytest.mark.parametrize("monitor", ["f1", "auc", "loss"])
def test_the_best_epoch_is_the_best_by_what_is_monitored(
    data: str, monitor: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "run"
    folder = request.getfixturevalue(data)
    summary = train(config(folder, out, epochs=4, monitor=monitor, min_delta=0))
    values = [float(row[f"val_{monitor}"]) for row in csv.DictReader((out / "metrics.csv").read_text().splitlines())]
    best = min(values) if monitor == "loss" else max(values)
    assert values.index(best) + 1 == summary.best_epoch and summary.monitor == monitor
    assert (summary.best_f1 if monitor == "f1" else summary.best_value) == pytest.approx(best, rel=1e-6)
    name = {"f1": "F1", "auc": "ROC-AUC", "loss": "cross-entropy"}[monitor]
    shown = training_parts(summary, out)[0].text
    digits = 4 if monitor == "loss" else 3
    if data == "betons":
        assert shown.startswith(f"Best validation {name} {best:.{digits}f} ")
        assert ("(F1 0." in shown or "(F1 1." in shown) == (monitor != "f1")
    else:
        prefix = {"f1": "macro ", "auc": "mean ", "loss": ""}[monitor]
        assert shown.startswith(f"Best validation {prefix}{name} {best:.{digits}f} ") and " over 3 findings" in shown


def test_min_delta_and_patience_are_of_what_is_monitored(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.train.step import Learner

    losses = iter([0.7, 0.65, 0.6495, 0.6488, 0.66, 0.67])
    monkeypatch.setattr(Learner, "loss_of", lambda *given: next(losses))
    monkeypatch.setattr("engine.train.state.discriminates", lambda row: True)
    summary = train(config(betons, tmp_path / "run", epochs=9, monitor="loss", patience=2))
    assert (summary.best_epoch, summary.best_value, summary.epochs) == (4, 0.6488, 6)
    assert "(stopped early: no better validation cross-entropy)" in training_parts(summary, tmp_path)[0].text


def test_the_state_of_a_version_that_knew_f1_alone_resumes(half: Path, run: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(half, tmp_path / "run"))
    for name in ("last", "best"):
        path = copied / f"{name}.safetensors"
        tensors, state = load_checkpoint(path)
        state.pop("best_score", None), state.pop("task", None)
        state.get("validation", {}).pop("score", None)
        save_checkpoint(path, tensors, state)
    train(load_config(copied), resume=True)
    assert same(weights(run), weights(copied))


def test_of_findings_each_ones_auc_is_recorded_under_its_own_name_however_hostile(tmp_path: Path) -> None:
    names = ("a\nb", "a\tb", 'Pleural, "thick"', "\udcff/x", "[0]")
    data, out = write_findings(tmp_path / "b", names, counts={"train": 24, "val": 40}, crop=32), tmp_path / "run"
    train(config(data, out, epochs=2))
    expected = ["a\ufffdb (1)", "a\ufffdb (2)", 'Pleural, "thick"', "\ufffd/x", "[0]"]
    header, *rows = csv.reader((out / "metrics.csv").read_text().splitlines())
    assert header[10:] == [f"val_auc[{name}]" for name in expected] and header[:3] == [
        "epoch",
        "train_loss",
        "train_f1",
    ]
    events = EventAccumulator(str(out))
    events.Reload()
    for place, name in enumerate(expected):
        found = [event.value for event in events.Scalars(f"findings/auc/{name}")]
        assert found == pytest.approx([float(row[10 + place]) for row in rows])
    mean = np.mean([float(cell) for cell in rows[0][10:]])
    assert float(rows[0][header.index("val_auc")]) == pytest.approx(mean)


def codes_of(summary: Summary) -> dict[str, dict[str, object]]:
    return {one.code: one.parameters for one in summary.cautions}


def relabelled(folder: Path, out: Path, split: str, change: Any) -> None:
    """A beton of findings with other labels: change takes them, float32 (N, K), and changes them in place."""
    with Beton(folder / f"{split}.beton") as beton:
        labels = beton.labels.copy()
        change(labels)
        frames = (beton.frame(sample) for sample in range(len(beton)))
        write_beton(out / f"{split}.beton", frames, labels, beton.rows_N, beton.facts, beton.page_size)


def test_findings_known_in_too_few_films_are_named_and_none_of_them_counts(findings: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(findings, tmp_path / "b"))

    def rare(labels_NK: np.ndarray) -> None:
        labels_NK[:, 0] = np.where(np.arange(len(labels_NK)) < 6, 1, 0)  # in three groups

    relabelled(findings, data, "train", lambda labels_NK: (rare(labels_NK), labels_NK[:, 1].fill(0)))
    relabelled(findings, data, "val", rare)
    summary = train(config(data, tmp_path / "run", epochs=1))
    assert codes_of(summary) == {
        "findings-not-learnt": {"findings": [NAMES[1]]},
        "few-known-in-training": {"findings": [NAMES[0]], "least": 5},
        "few-known-in-validation": {"findings": [NAMES[0]], "least": 5},
    }
    assert summary.measured == 2 and "over 2 of 3 findings" in training_parts(summary, tmp_path)[0].text
    (row,) = csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines())
    values = [row[f"val_auc[{name}]"] for name in NAMES]
    assert values[0] == "" and float(row["val_auc"]) == pytest.approx(np.mean([float(value) for value in values[1:]]))


def test_where_validation_measures_no_finding_the_loss_decides_and_no_score_is_made_up(
    findings: Path, betons: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(findings, tmp_path / "b"))
    relabelled(findings, data, "val", lambda labels_NK: labels_NK[8:].fill(np.nan))
    lines: list[str] = []

    def show(now: Progress) -> None:
        lines.extend([live_line(now), epoch_line(now)] if now.phase == "epoch" else [live_line(now)])

    summary = train(config(data, tmp_path / "run", epochs=2), watch=Watch(show=show))
    assert codes_of(summary)["monitored-by-loss"] == {"monitor": "f1"}
    assert (summary.monitor, summary.measured, summary.best_f1) == ("loss", 0, None)
    assert "val loss –" in lines[0] and "val macro F1 undefined" in lines[-1]
    assert "(macro F1 undefined)" in training_parts(summary, tmp_path)[0].text
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert {row["val_f1"] for row in rows} == {""} == {row["val_auc"] for row in rows}
    assert min(rows, key=lambda row: float(row["val_loss"]))["epoch"] == str(summary.best_epoch)


def test_findings_of_which_nothing_can_be_learnt_are_refused(findings: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(findings, tmp_path / "b"))
    relabelled(findings, data, "train", lambda labels_NK: labels_NK.fill(0))
    with pytest.raises(
        InputError, match=r"no finding is known to be present in one training film and absent in another"
    ):
        train(config(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_class_weights_of_findings_weigh_the_present_against_the_absent(
    findings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.train import trainer

    given = []
    real = trainer.make_learner
    monkeypatch.setattr(
        trainer, "make_learner", lambda *rest, **how: (given.append(how["class_weight_K"]), real(*rest, **how))[1]
    )
    data = Path(shutil.copytree(findings, tmp_path / "b"))
    relabelled(findings, data, "train", lambda labels_NK: labels_NK[:, 2].fill(1))  # nothing to weigh it against
    for weighed in (True, False):
        train(config(data, tmp_path / f"run {weighed}", epochs=1, class_weights=weighed))
    with Beton(data / "train.beton") as beton:
        present_K, absent_K = ((beton.labels == value).sum(0) for value in (1, 0))
    np.testing.assert_allclose(given[0], [*(absent_K / present_K)[:2], 1])
    assert given[1] is None and not same(*(weights(tmp_path / f"run {weighed}") for weighed in (True, False)))


def test_early_convergence_of_findings_is_by_f1_and_auc_since_rare_ones_are_easily_accurate() -> None:
    rare = {"val_f1": 0.2, "val_accuracy": 0.999, "val_auc": 0.6, "val_auc[0]": 0.6}
    assert early_convergence(rare) == [] and early_convergence(rare | {"val_f1": None}) == []
    (found,) = early_convergence(rare | {"val_auc": 0.992})
    assert found.parameters == {"metric": "ROC-AUC", "value": 0.992}
    assert early_convergence(rare | {"val_f1": 1.0})[0].parameters["metric"] == "macro F1"


@pytest.fixture(scope="module")
def hard_enough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms at a set difficulty, without arms or marks tied to the class: 240 patients, strength 1."""
    return write_phantoms(PhantomConfig(out=tmp_path_factory.mktemp("hard") / "p", patients=240, size=92, seed=11))


def held_out(manifest: Path, folder: Path, *, epochs: int, share: float) -> Metrics:
    """Convert, train and evaluate on the held-out share of the patients; the metrics."""
    key = folder / "k"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=manifest), out=folder / "b", size=64, holdout=share, workers=1, site_key=key
        )
    )
    train(small_training(folder / "b", folder / "run", epochs=epochs, patience=30))
    (result,) = evaluate(EvaluateConfig(run=folder / "run", betons=(folder / "b" / "heldout.beton",), device="cpu"))
    return result.metrics


def test_the_finding_is_learnt_and_generalises_to_new_patients(hard_enough: Path, tmp_path: Path) -> None:
    metrics = held_out(hard_enough, tmp_path, epochs=12, share=0.2)
    assert metrics.num_samples >= 70
    assert metrics.estimates["f1"].value >= 0.90, metrics


def test_labels_permuted_by_patient_leave_nothing_to_learn(hard_enough: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(hard_enough.read_text().splitlines()))
    patients = sorted({row["patient"] for row in rows})
    label_of = {row["patient"]: row["label"] for row in rows}
    shuffled = np.random.default_rng(4).permutation([label_of[patient] for patient in patients])
    permuted = dict(zip(patients, shuffled, strict=True))
    manifest = hard_enough.parent / "permuted.csv"
    lines = [f"{row['path']},{permuted[row['patient']]},{row['patient']}" for row in rows]
    manifest.write_text("\n".join(["path,label,patient", *lines]))
    metrics = held_out(manifest, tmp_path, epochs=6, share=0.4)
    num_samples = metrics.num_samples
    assert num_samples >= 130
    # images of a patient go together, so about half as many independent cases: 3 standard errors of chance
    assert abs(metrics.estimates["auc"].value - 0.5) <= 3 * (1 / (3 * num_samples / 2)) ** 0.5, metrics
