"""The comparison of networks: one table, whatever became of each, and a comparison that goes on after a stop."""

import csv
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
import torch

import cli
from engine.compare import Comparison, Contender, compare, comparison_parts, flat_row
from engine.config import CompareConfig, Recipe
from engine.evaluate.results import Metrics
from engine.networks.registry import make_network
from engine.statistics.estimates import Estimate
from engine.statistics.names import with_interval
from engine.train.checkpoint import load_checkpoint
from engine.train.state import Watch
from engine.train.summary import EARLY_SCORE, Summary, early_convergence
from loaders.cautions import caution
from loaders.errors import ConfigError, InputError, Interrupted, LockedError
from loaders.output import Line, Sheet, caution_lines
from loaders.records import encode_record, read_record
from loaders.settings import build
from tests.example_run import comparison, results_of, summary

FEW = 100  # resamples
SURE = Estimate(value=1.0, low=0.9, high=1.0, method="wilson")


def config(betons: Path, out: Path, **changes: object) -> CompareConfig:
    usual = {"models": ("cnn", "resnet18"), "epochs": 2, "resamples": FEW, "device": "cpu", "batch_size": 16}
    return build(CompareConfig, {"data": betons, "out": out} | usual | changes)


@dataclass(frozen=True, kw_only=True)
class Done:
    """A finished comparison."""

    out: Path
    result: Comparison


@pytest.fixture(scope="module")
def done(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Two networks, two epochs each, compared without interruption."""
    out = tmp_path_factory.mktemp("comparison") / "c"
    return Done(out=out, result=compare(config(betons, out)))


def test_every_network_is_trained_and_reported_with_intervals(done: Done) -> None:
    found = read_record(Comparison, done.out / "comparison.json")
    assert found == done.result and [row.model for row in found.networks] == ["cnn", "resnet18"]
    assert found.not_for_diagnosis and found.synthetic and found.settings["epochs"] == 2
    for row in found.networks:
        summary = read_record(Summary, done.out / row.model / "summary.json")
        assert summary.model == row.model and row.training == summary
        assert row.validation_f1.value == pytest.approx(summary.best_f1, abs=1e-6)
        for f1 in (row.validation_f1, row.heldout_f1):
            assert 0 <= f1.low <= f1.value <= f1.high <= 1 and f1.low < f1.high
        assert summary.epochs == 2 and summary.seconds > 0 and summary.images_per_second > 0
        assert (results_of(done.out / row.model / "evaluation") / "metrics.json").is_file()
    rows = list(csv.DictReader((done.out / "comparison.csv").read_text().splitlines()))
    for row, network in zip(rows, found.networks, strict=True):
        summary, columns = network.training, ("parameters", "epochs_to_best", "epochs", "seconds", "device")
        values = (summary.parameters, summary.best_epoch, summary.epochs, summary.seconds, summary.device)
        assert [row[name] for name in columns] == list(map(str, values))
    assert float(rows[0]["validation_f1_low"]) == found.networks[0].validation_f1.low
    assert (done.out / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_the_networks_learn_from_the_same_split_by_the_same_recipe(betons: Path) -> None:
    settings = config(betons, Path("c"), weights="w.pth", learning_rate=0.5, class_weights=True)
    one, other = settings.trainings()["cnn"], settings.trainings()["resnet18"]
    assert replace(other, model="cnn", out=one.out) == one
    assert (one.recipe, one.loader) == (settings.recipe, settings.loader)
    assert one.recipe == Recipe(weights="w.pth", learning_rate=0.5, class_weights=True, epochs=2, device="cpu")
    assert (one.out, other.out) == (Path("c/cnn"), Path("c/resnet18"))


def without(done: Done, folder: Path, *names: str) -> Path:
    """A copy of a comparison that lacks some networks and its results."""
    shutil.copytree(done.out, folder, ignore=shutil.ignore_patterns("comparison.*", *names))
    return folder


@pytest.mark.parametrize("model", ["cnn", "resnet18"])
def test_an_interrupted_comparison_goes_on_and_ends_as_if_it_had_not_been(
    betons: Path, done: Done, tmp_path: Path, model: str
) -> None:
    other = {"cnn": "resnet18", "resnet18": "cnn"}[model]
    settings = config(betons, without(done, tmp_path / "c", model))
    begun: list[str] = []
    learns: list[str] = []
    watch = Watch(begin=begun.append, show=lambda progress: learns.append(begun[-1]))
    with pytest.raises(Interrupted, match="run the same `compare` again"):
        compare(settings, replace(watch, stopping=lambda: learns.count(model) >= 2))
    assert not (settings.out / "comparison.json").exists() and not (settings.out / model / "summary.json").exists()
    compare(settings, watch)
    assert other not in learns and learns.count(model) > 2
    a, b = (load_checkpoint(folder / model / "best.safetensors")[0] for folder in (done.out, settings.out))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_comparison_trains_and_evaluates_nothing_again(
    betons: Path, done: Done, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("evaluated again")

    monkeypatch.setattr("engine.compare.evaluate", never)
    before = {path: path.read_bytes() for path in done.out.rglob("*.safetensors")}
    again = compare(config(betons, done.out), Watch(show=never))
    assert again == done.result
    assert {path: path.read_bytes() for path in done.out.rglob("*.safetensors")} == before


def test_a_damaged_evaluation_or_one_of_other_settings_is_made_again(betons: Path, done: Done) -> None:
    path = results_of(done.out / "cnn" / "evaluation") / "metrics.json"
    before = path.read_text()
    other = msgspec.structs.replace(read_record(Metrics, path), seed=7, estimates={"f1": SURE})
    for content in (encode_record(other), b"{"):
        path.write_bytes(content)
        assert compare(config(betons, done.out)) == done.result
        assert path.read_text() == before


def test_other_settings_in_the_same_folder_are_refused_before_anything_is_trained(betons: Path, done: Done) -> None:
    with pytest.raises(ConfigError, match=r"cnn: began with other settings: found --epochs 5, expected 2"):
        compare(config(betons, done.out, epochs=5))


def test_a_network_that_cannot_be_trained_is_named_and_the_others_go_on(betons: Path, tmp_path: Path) -> None:
    torch.save(make_network("cnn", 2, 32, 0.5).state_dict(), tmp_path / "cnn.pth")
    settings = config(betons, tmp_path / "c", models=("resnet18", "cnn"), weights=str(tmp_path / "cnn.pth"), epochs=1)
    result = compare(settings)
    bad, good = result.networks
    assert "expected resnet18's" in bad.failed and bad.validation_f1 is None and bad.training is None
    assert not good.failed and good.validation_f1 is not None
    rows = list(csv.DictReader((tmp_path / "c" / "comparison.csv").read_text().splitlines()))
    assert rows[0]["validation_f1"] == "" and "expected resnet18's" in rows[0]["failed"]
    parts = comparison_parts(result, settings.out)
    assert isinstance(parts[0], Sheet) and parts[0].rows[0][:2] == ("resnet18", "not trained")
    assert any(isinstance(part, Line) and part.text.startswith("Not trained, resnet18: ") for part in parts)


def test_a_comparison_of_which_nothing_can_be_trained_fails_with_every_reason(betons: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none of the networks.*cnn: --weights.*; resnet18: --weights"):
        compare(config(betons, tmp_path / "c", weights=str(tmp_path / "away.pth")))
    assert not (tmp_path / "c" / "comparison.json").exists()


def test_an_interrupted_comparison_stays_in_the_precision_that_it_began_in(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = CompareConfig(data=betons, out=tmp_path / "c", models=("cnn",), recipe=Recipe(epochs=1, device="cpu"))
    monkeypatch.setattr("engine.device.bfloat16_unit", lambda: "AMX")
    compare(settings)
    monkeypatch.setattr("engine.device.bfloat16_unit", lambda: "")  # on another machine
    compare(replace(settings, models=("cnn", "resnet18")))
    for model in ("cnn", "resnet18"):
        assert json.loads((tmp_path / "c" / model / "config.json").read_text())["amp"] == "on"


def test_a_comparison_without_a_held_out_beton_says_nothing_of_one(betons: Path, tmp_path: Path) -> None:
    for name in ("train.beton", "val.beton"):
        (tmp_path / "b").mkdir(exist_ok=True)
        shutil.copy(betons / name, tmp_path / "b" / name)
    result = compare(config(tmp_path / "b", tmp_path / "c", models=("cnn",), epochs=1))
    assert result.networks[0].heldout_f1 is None and not result.networks[0].heldout_refused
    shutil.copy(tmp_path / "b" / "train.beton", tmp_path / "b" / "heldout.beton")
    result = compare(config(tmp_path / "b", tmp_path / "c", models=("cnn",), epochs=1))
    assert result.networks[0].heldout_f1 is None and "expected none" in result.networks[0].heldout_refused


def test_bad_settings_and_folders_are_refused(betons: Path, tmp_path: Path) -> None:
    for models, message in (((), "found none"), (("cnn", "cnn"), "different ones"), (("lenet",), "'lenet'")):
        with pytest.raises(ConfigError, match=message):
            config(betons, tmp_path / "c", models=models)
    with pytest.raises(InputError, match=r"no train\.beton"):
        compare(config(tmp_path, tmp_path / "c"))

    def second(progress: object) -> None:
        with pytest.raises(LockedError):
            compare(config(betons, tmp_path / "d"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(config(betons, tmp_path / "d", models=("cnn",)), Watch(show=second))


def test_a_score_that_is_too_good_after_one_epoch_is_suspected() -> None:
    early = caution("early-convergence", metric="F1", value=EARLY_SCORE)
    assert early_convergence({"val_f1": EARLY_SCORE, "val_accuracy": 1.0}) == [early]
    assert early_convergence({"val_f1": EARLY_SCORE - 1e-6, "val_accuracy": EARLY_SCORE - 1e-6}) == []
    assert early_convergence({"val_f1": 0.9, "val_accuracy": 1.0})[0].parameters == {"metric": "accuracy", "value": 1.0}


def test_the_table_shows_intervals_and_names_the_network_of_a_caution_that_not_all_have(tmp_path: Path) -> None:
    early, phantoms = caution("early-convergence", metric="F1", value=0.993), caution("synthetic-phantoms")
    row = Contender(
        model="resnet18",
        training=summary(
            model="resnet18",
            parameters=11_171_266,
            images_per_second=57.4,
            best_epoch=3,
            epochs=10,
            seconds=979.0,
            cautions=[early, phantoms],
        ),
        validation_f1=Estimate(value=0.9, low=0.8, high=0.95, method="bootstrap"),
    )
    done = msgspec.structs.replace(row.training, model="cnn", cautions=[phantoms])
    other = msgspec.structs.replace(row, model="cnn", training=done)
    result = msgspec.structs.replace(comparison(), networks=[row, other], synthetic=True)
    sheet, *lines = comparison_parts(result, tmp_path)
    assert isinstance(sheet, Sheet)
    cells = (with_interval("f1", row.validation_f1), "–", "11,171,266", "57", "3 of 10", "979.0")
    assert sheet.rows == (("resnet18", *cells), ("cnn", *cells))
    assert lines[:2] == [*caution_lines([early], "resnet18"), *caution_lines([phantoms])]
    assert flat_row(row)["cautions"] == "early-convergence;synthetic-phantoms"
    assert flat_row(row)["heldout_f1"] is None and flat_row(row)["validation_f1_high"] == 0.95


def test_cautions_of_the_held_out_set_are_in_the_table_the_file_and_the_csv(done: Done, tmp_path: Path) -> None:
    for row in done.result.networks:
        tested = read_record(Metrics, results_of(done.out / row.model / "evaluation") / "metrics.json")
        assert list(row.heldout_cautions) == tested.cautions != []
    few, phantoms = caution("few-groups", groups=4), caution("synthetic-phantoms")
    row = Contender(model="cnn", training=summary(cautions=[phantoms]), heldout_cautions=(few, phantoms))
    other = msgspec.structs.replace(row, model="resnet18", heldout_cautions=(phantoms,))
    _, *lines = comparison_parts(msgspec.structs.replace(comparison(), networks=[row, other]), tmp_path)
    expected = [*caution_lines([phantoms]), *caution_lines([few], "cnn on heldout.beton")]
    assert lines[:3] == [*expected, *caution_lines([phantoms], "heldout.beton")]
    assert flat_row(row)["cautions"] == "synthetic-phantoms;few-groups"


def test_a_mean_f1_that_leaves_classes_out_says_so_in_the_table_and_the_csv(tmp_path: Path) -> None:
    f1 = Estimate(value=0.9, low=0.8, high=0.95, method="bootstrap", defined=18, classes=20)
    row = Contender(
        model="cnn", training=summary(), validation_f1=f1, heldout_f1=msgspec.structs.replace(f1, defined=20)
    )
    names = list(map(str, range(20)))
    sheet = comparison_parts(msgspec.structs.replace(comparison(), networks=[row], classes=names), tmp_path)[0]
    assert isinstance(sheet, Sheet)
    assert sheet.rows[0][1:3] == ("0.900 (0.800–0.950), 18 of 20 classes", "0.900 (0.800–0.950)")
    assert flat_row(row)["validation_f1_defined"] == 18 and flat_row(row)["validation_f1_classes"] == 20


def test_an_early_score_reaches_the_summary_of_a_run_and_the_table_once(
    betons: Path, done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.train.summary.EARLY_SCORE", 0.0)
    result = compare(config(betons, without(done, tmp_path / "c", "resnet18"), models=("cnn",)))
    (early,) = [found for found in result.networks[0].training.cautions if found.code == "early-convergence"]
    assert early in read_record(Summary, tmp_path / "c" / "cnn" / "summary.json").cautions
    assert early in read_record(Comparison, tmp_path / "c" / "comparison.json").networks[0].training.cautions
    shown = [line.text for line in comparison_parts(result, tmp_path) if isinstance(line, Line)]
    assert shown.count(f"Caution: {early.text}.") == 1


def test_the_command_prints_the_table_and_what_it_is_not_for(betons: Path, done: Done, capsys) -> None:
    arguments = ["--models", "cnn,resnet18", "--epochs", "2", "--device", "cpu", "--batch-size", "16"]
    arguments += ["--resamples", str(FEW), "--out", str(done.out)]
    assert cli.main(["compare", str(betons), *arguments]) == 0
    printed = capsys.readouterr().out
    assert "resnet18" in printed and "11,171,266" in printed and str(done.out / "comparison.png") in printed
    assert printed.rstrip().endswith(cli.NOT_FOR_DIAGNOSIS)
    assert cli.main(["compare", str(betons), "--models", "lenet", "--out", str(done.out)]) == 2
    assert "expected one of cnn" in capsys.readouterr().err


def test_ctrl_c_exits_75_and_says_how_to_go_on(betons: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    import signal
    import threading

    real = cli.TrainingView.show

    def pressed(view: cli.TrainingView, now: object) -> None:
        real(view, now)
        signal.raise_signal(signal.SIGINT)

    assert threading.current_thread() is threading.main_thread()
    monkeypatch.setattr(cli.TrainingView, "show", pressed)
    out = str(tmp_path / "c")
    assert cli.main(["compare", str(betons), "--models", "cnn", "--device", "cpu", "--out", out]) == 75
    assert "run the same `compare` again" in capsys.readouterr().err
