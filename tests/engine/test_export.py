"""An export: the ONNX file says what the network says, and its card what is known and what is not."""

import contextlib
import csv
import io
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import cli
from engine.config import ExportConfig, PredictConfig
from engine.evaluate.findings import FindingResult, FindingsMetrics
from engine.evaluate.trained import Decision, Trained, load_trained
from engine.export import export as exporting
from engine.export.export import export
from engine.export.model_card import card_of, plain
from engine.networks.registry import make_network
from engine.predict.predict import predict_files
from engine.train.checkpoint import load_checkpoint, save_checkpoint
from engine.train.train import train
from loaders import __version__
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.cautions import caution
from loaders.errors import CheckpointError, ConfigError, IntegrityError
from tests.example_run import CHECKPOINT, alone, deletion, estimate, explanation, metrics, put, small_training
from tests.findings_example import NAMES, write_findings
from tests.lungs_example import SHIPPED, run_with

pytestmark = pytest.mark.extras

ROOT = Path(__file__).parents[2]
SURE = 0.8  # how often the validation logits are right


@pytest.fixture(scope="module")
def run(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, whose validation logits have been replaced by ones that are far too sure."""
    out = tmp_path_factory.mktemp("export") / "run"
    train(small_training(betons, out, batch_size=8))
    tensors, state = load_checkpoint(out / "best.safetensors")
    label_N = torch.arange(100) % 2
    predicted_N = torch.where(torch.arange(100) < 100 * SURE, label_N, 1 - label_N)
    tensors |= {
        "validation.logits": 6.0 * torch.nn.functional.one_hot(predicted_N, 2).float(),
        "validation.label": label_N,
        "validation.group": torch.arange(100),
    }
    save_checkpoint(out / "best.safetensors", tensors, state)
    return out


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """The run's model, exported once."""
    return export(ExportConfig(run=run)).model


@torch.no_grad()
def reference(trained: Trained, frames_NSS: np.ndarray) -> np.ndarray:
    """The probabilities of stored frames, written out: crop, grey levels to [-1, 1], network, temperature, softmax."""
    margin = (trained.state["stored"] - trained.state["crop"]) // 2
    inner_N1HW = torch.from_numpy(frames_NSS)[:, None, margin:-margin, margin:-margin]
    logits_NK = trained.network(inner_N1HW / 127.5 - 1).double()
    return (logits_NK / (trained.decision.temperature or 1)).softmax(1).numpy()


def session_of(model: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def test_the_file_gives_the_networks_probabilities_on_any_number_of_frames(
    run: Path, exported: Path, betons: Path
) -> None:
    trained = load_trained(run)
    with Beton(betons / "heldout.beton") as beton:
        real_NSS = np.stack([beton.frame(sample) for sample in range(3)])
        stored = beton.facts.stored
    random_NSS = np.random.default_rng(1).integers(0, 256, (3, stored, stored), np.uint8)
    session = session_of(exported)
    for frames_NSS in (random_NSS[:1], random_NSS, real_NSS[:1], real_NSS, np.concatenate([real_NSS] * 4)):
        (found_NK,) = session.run(None, {"frames": frames_NSS})
        assert found_NK.shape == (len(frames_NSS), 2) and found_NK.dtype == np.float32
        np.testing.assert_allclose(found_NK, reference(trained, frames_NSS), atol=1e-4)
    np.testing.assert_allclose(found_NK.sum(1), 1, atol=1e-6)


def test_the_file_takes_frames_outside_the_crop_for_nothing_and_inside_for_much(run: Path, exported: Path) -> None:
    state = load_trained(run).state
    stored, margin = state["stored"], (state["stored"] - state["crop"]) // 2
    frames_NSS = np.random.default_rng(2).integers(0, 256, (2, stored, stored), np.uint8)
    frames_NSS[1] = frames_NSS[0]
    frames_NSS[1, :margin] = 255
    session = session_of(exported)
    (found_NK,) = session.run(None, {"frames": frames_NSS})
    np.testing.assert_array_equal(found_NK[0], found_NK[1])
    frames_NSS[1, margin : stored - margin] = 255
    (found_NK,) = session.run(None, {"frames": frames_NSS})
    assert (found_NK[0] != found_NK[1]).all()


def test_temperature_is_inside_the_file(run: Path, exported: Path) -> None:
    trained = load_trained(run)
    assert trained.decision.temperature == pytest.approx(6 / np.log(SURE / (1 - SURE)), rel=1e-3)
    frames_NSS = np.random.default_rng(0).integers(0, 256, (3, *[trained.state["stored"]] * 2), np.uint8)
    (found_NK,) = session_of(exported).run(None, {"frames": frames_NSS})
    as_they_are = replace(trained, rule=Decision(temperature=1.0, points=()))
    assert abs(reference(as_they_are, frames_NSS) - found_NK).max() > 1e-3
    assert "at its bound" not in card_of(trained, "m.onnx")
    at_its_bound = replace(trained, rule=Decision(temperature=20.0, points=()))
    card = card_of(at_its_bound, "m.onnx")
    assert "by temperature 20." in card and "- the temperature is at its bound, 20: " in card


def test_networks_of_torchvision_are_exported_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = make_network("resnet18", 3, 32, 0.0)
    state = {
        "network": "resnet18", "classes": ["a", "b", "c"], "positive": "b", "crop": 32, "stored": 46, "fit": "stretch",
        "dropout": 0.0, "conversion_id": "", "run": "", "epoch": 1,
    }  # fmt: skip
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    tensors |= {"validation.logits": torch.eye(3), "validation.label": torch.arange(3)}
    tensors["validation.group"] = torch.arange(3)
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / "best.safetensors", tensors, state)
    done = export(ExportConfig(run=tmp_path / "run", out=tmp_path / "m.onnx"))
    assert done.difference <= 1e-4
    frames_NSS = np.random.default_rng(3).integers(0, 256, (5, 46, 46), np.uint8)
    (found_NK,) = session_of(done.model).run(None, {"frames": frames_NSS})
    np.testing.assert_allclose(found_NK, reference(load_trained(tmp_path / "run"), frames_NSS), atol=1e-4)


def test_the_file_is_valid_says_what_it_is_and_names_no_path(run: Path, exported: Path, betons: Path) -> None:
    model = onnx.load(exported)
    onnx.checker.check_model(model, full_check=True)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    with Beton(betons / "train.beton") as beton:
        known = beton.facts
    assert json.loads(facts["classes"]) == list(known.classes) and facts["positive"] == known.positive
    assert (int(facts["crop"]), int(facts["stored"]), facts["fit"]) == (known.crop, known.stored, known.fit)
    assert (facts["conversion_id"], facts["plainfilm"]) == (known.conversion_id, __version__)
    assert not {"lungs", "segmenter"} & facts.keys() and "lungs" not in model.doc_string  # of whole films
    assert facts["not_for_diagnosis"] == "true" and "not for diagnosis" in model.doc_string
    (frames,) = model.graph.input
    assert frames.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert frames.type.tensor_type.shape.dim[0].dim_param
    for path in (ROOT, Path(sys.prefix), betons, run):
        assert str(path).encode() not in exported.read_bytes()


def test_a_file_that_says_something_else_is_not_published(
    run: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(trained: object) -> object:
        model = onnx.load(exported)
        weight = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
        weight.raw_data = bytes(len(weight.raw_data))
        return model

    monkeypatch.setattr(exporting, "onnx_model", damaged)
    with pytest.raises(IntegrityError, match="as ONNX its probabilities differ by"):
        export(ExportConfig(run=run, out=tmp_path / "m.onnx"))
    assert not (tmp_path / "m.onnx").exists() and not (tmp_path / "model_card.md").exists()


def test_the_card_names_data_recipe_and_cautions_and_no_file_of_a_patient(
    run: Path, exported: Path, betons: Path
) -> None:
    card = (run / "model_card.md").read_text()
    with Beton(betons / "train.beton") as beton:
        counts = np.bincount(beton.label_N)
        groups = len(np.unique(beton.rows_N["group"]))
    for name, number in (("covid", counts[0]), ("normal", counts[1]), ("groups", groups)):
        assert f"\n| {name} | {number} | " in card
    assert "All are synthetic phantoms." in card and "says nothing about patients" in card
    assert "not for diagnosis" in card and "Not measured: run `plainfilm evaluate`" in card
    assert "epochs 1" in card and f"SHA-256 `{load_trained(run).sha256}`" in card
    table = csv.DictReader((betons / "convert.csv").read_text().splitlines())
    for name in {Path(row["path"]).name for row in table} | {str(betons), str(run.parent)}:
        assert name not in card


def test_the_cards_example_runs_and_says_what_predict_says(
    run: Path, exported: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = sorted((phantoms.parent / "images").rglob("*.png"))[0]
    shutil.copy(film, tmp_path / "radiograph.png")
    shutil.copy(exported, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    code = (run / "model_card.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(code.strip().splitlines()) <= 11
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "card", "exec"), {})
    found = json.loads(printed.getvalue().replace("'", '"'))
    predict_files(PredictConfig(run=run, files=(film,), audit="off", device="cpu"))
    (row,) = csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines())
    assert found == {name: pytest.approx(float(row[f"probability_{name}"]), abs=1e-4) for name in ("covid", "normal")}


def test_of_a_run_on_the_lungs_alone_file_and_card_say_so_and_the_example_finds_them(
    run: Path, exported: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxed = run_with(run, tmp_path / "run", lungs="boxed", segmenter=SHIPPED)
    trained, model = load_trained(boxed), onnx.load(exported)  # the network is the same
    exporting.describe(onnx, model, trained)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    frames = f"the lungs alone (boxed), as segmenter {SHIPPED} finds them"
    assert (facts["lungs"], facts["segmenter"]) == ("boxed", SHIPPED) and frames in model.doc_string
    card = card_of(trained, "model.onnx")
    assert f"They show {frames}." in card.replace("\\", "")
    film = sorted((phantoms.parent / "images").rglob("*.png"))[0]
    shutil.copy(film, tmp_path / "radiograph.png")
    shutil.copy(exported, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(card.split("```python\n")[1].split("```")[0], "card", "exec"), {})
    found = json.loads(printed.getvalue().replace("'", '"'))
    for predicting, same in ((boxed, True), (run, False)):
        predict_files(PredictConfig(run=predicting, files=(film,), audit="off", device="cpu"))
        (row,) = csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines())
        expected = {name: pytest.approx(float(row[f"probability_{name}"]), abs=5e-6) for name in ("covid", "normal")}
        assert (found == expected) is same


def test_the_card_shows_results_of_these_weights_with_intervals_and_of_no_others(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    trained = load_trained(other)
    hostile = msgspec.to_builtins([caution("absent-classes", classes=["<b>holds</b>"])])
    own = CHECKPOINT | msgspec.to_builtins(trained.checkpoint)
    path, auc = other / "evaluation" / "held" / "metrics.json", estimate(0.9, low=0.85, high=0.95)
    found = metrics(
        set_name="heldout-1f3a90bc", beton="held.beton", num_samples=1234, num_groups=77, cautions=hostile,
        checkpoint=own, estimates={"auc": auc, "ece": alone(None)}, trivial={"auc": alone(0.5)},
    )  # fmt: skip
    put(path, found)
    card = card_of(trained, "model.onnx")
    assert "| ROC-AUC | 0.900 | 0.850 to 0.950 | 0.500 |" in card
    assert "heldout-1f3a90bc (held.beton): 1,234 images in 77 groups" in card
    assert "ECE" not in card and "\\<b\\>holds" in card and "<b>" not in card
    of_three, least = alone(0.25, defined=2, classes=3), alone(0.1, defined=1, classes=3)
    put(path, metrics(checkpoint=own, estimates={"ppv": of_three}, trivial={"ppv": least}))
    row = "| positive predictive value, mean over 2 of 3 classes | 25.0 % | – | 10.0 %, 1 of 3 classes"
    assert row in card_of(trained, "model.onnx")
    put(path, found)
    explained = other / "explanation" / "held" / "explanation.json"
    put(explained, explanation(checkpoint=own))
    assert "the model relies on the lungs" in card_of(trained, "model.onnx")
    put(explained, explanation(checkpoint=own, deletion=deletion(0.63, 0.62), region="unknown"))
    failed = card_of(trained, "model.onnx")
    assert "the model relies on the lungs" not in failed and "it cannot be told what the model relies on" in failed
    put(path, msgspec.structs.replace(found, checkpoint=metrics().checkpoint))
    put(explained, explanation())
    card = card_of(trained, "model.onnx")
    assert "ROC-AUC" not in card and "holds" not in card.partition("## Cautions")[2].partition("a score")[0]
    assert "relies on the lungs" not in card
    for broken in ("{", "[]", '{"checkpoint": 3}', '{"version": 1, "estimates": [1], "cautions": 7}'):
        path.write_text(broken)
        assert "Not measured" in card_of(trained, "model.onnx")


def test_a_card_without_betons_and_summary_says_not_recorded(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for name in ("best.safetensors",):
        shutil.copy(run / name, tmp_path / "run" / name)
    card = card_of(load_trained(tmp_path / "run"), "model.onnx")
    assert "## Data\n\nNot recorded." in card and "## Training\n\nNot recorded." in card


# ---- findings


@pytest.fixture(scope="module")
def finding_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on three findings, of one of which validation knows too few films; blank ones of another were absent."""
    folder = tmp_path_factory.mktemp("findings")
    data = write_findings(folder / "b", counts={"train": 24, "val": 40}, crop=32, unknown=0.1)
    for split in ("train", "val"):
        with Beton(data / f"{split}.beton") as beton:
            labels, rows_N, size = beton.labels.copy(), beton.rows_N.copy(), beton.page_size
            facts = replace(beton.facts, blank=dict.fromkeys(NAMES, "unknown") | {"Nodule": "absent"})
            frames = [beton.frame(sample) for sample in range(len(beton))]
        if split == "val":
            labels[5:, 2] = np.nan
        write_beton(data / f"{split}.beton", iter(frames), labels, rows_N, facts, size)
    train(small_training(data, folder / "run", batch_size=8))
    return folder / "run"


@pytest.fixture(scope="module")
def finding_export(finding_run: Path) -> Path:
    """The run's model, exported once."""
    return export(ExportConfig(run=finding_run)).model


def test_the_file_gives_calibrated_probabilities_that_each_finding_is_present(
    finding_run: Path, finding_export: Path
) -> None:
    trained, temperature_K = load_trained(finding_run), []
    stored, margin = trained.state["stored"], (trained.state["stored"] - trained.state["crop"]) // 2
    frames_NSS = np.random.default_rng(1).integers(0, 256, (5, stored, stored), np.uint8)
    with torch.no_grad():
        inner_N1HW = torch.from_numpy(frames_NSS)[:, None, margin:-margin, margin:-margin] / 127.5 - 1
        logits_NK = trained.network(inner_N1HW).double().numpy()
    temperature_K = np.array([rule.temperature for rule in trained.findings.by_finding])
    expected_NK = 1 / (1 + np.exp(-logits_NK / temperature_K))
    session = session_of(finding_export)
    for size in (1, 5):
        (found_NK,) = session.run(None, {"frames": frames_NSS[:size]})
        assert found_NK.shape == (size, 3) and found_NK.dtype == np.float32
        np.testing.assert_allclose(found_NK, expected_NK[:size], atol=1e-4)
    assert abs(1 / (1 + np.exp(-logits_NK)) - expected_NK)[:, :2].max() > 1e-4 and temperature_K[2] == 1
    facts = {entry.key: entry.value for entry in onnx.load(finding_export).metadata_props}
    assert facts["task"] == "findings" and json.loads(facts["classes"]) == list(NAMES) and facts["positive"] == ""
    assert json.loads(facts["temperature"]) == [*temperature_K.tolist()[:2], None]
    assert json.loads(facts["threshold"]) == [*trained.findings.threshold_K[:2], None]


def test_the_card_of_findings_has_counts_policies_and_thresholds(finding_run: Path, finding_export: Path) -> None:
    card, trained = (finding_run / "model_card.md").read_text(), load_trained(finding_run)
    columns = []
    for split in ("train", "val"):
        with Beton(finding_run.parent / "b" / f"{split}.beton") as beton:
            known_K, present_K = np.isfinite(beton.labels).sum(0), (beton.labels == 1).sum(0)
            columns.append([f"{present} of {known}" for present, known in zip(present_K, known_K, strict=True)])
    for name, *cells in zip(NAMES, *columns, strict=True):
        assert f"\n| {name} | {' | '.join(cells)} |" in card
    assert "Uncertain values were read as unknown." in card
    assert "Empty cells were read as absent for Nodule; otherwise as unknown." in card
    for place, name in enumerate(NAMES[:2]):
        rule = trained.findings.by_finding[place]
        f1, youden = (f"{rule.point(point).threshold:.3g}" for point in ("f1", "youden"))
        assert f"\n| {name} | {rule.temperature:.3g} | {youden} | – | {f1} |" in card
    assert "\n| Edema | not calibrated | – | – | – |" in card and "Sigmoid and temperatures are inside" in card
    assert "a finding that fewer than 5 groups (patients) of the validation set are known to have" in card
    assert "best validation macro F1" in card and "over 2 of 3 findings" in card and "Not measured: run" in card


def finding_result(name: str, **changes: object) -> dict[str, object]:
    values = {"auc": estimate(0.81), "sensitivity": estimate(0.7), "specificity": estimate(0.8), "f1": estimate(0.4)}
    known = {"num_known": 300, "num_present": 21, "num_groups": 200, "refused": None, "temperature": 1.2}
    counts = {"threshold": 0.2, "confusion": [[250, 29], [6, 15]], "estimates": values, "trivial": {}}
    rest = {"operating_points": [], "subgroups": [], "difference": {}}
    return {"name": name, **known, **counts, **rest} | changes


def test_the_card_shows_each_finding_as_it_was_measured_and_those_that_were_not(
    finding_run: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finding_run, tmp_path / "run"))
    trained = load_trained(run)
    few = msgspec.to_builtins(caution("few-known-in-validation", findings=["Ede|ma"], least=5))
    content = {name: getattr(metrics(), name) for name in ("set_name", "beton", "split", "synthetic", "conversion_id")}
    content |= {name: getattr(metrics(), name) for name in ("collection", "num_samples", "num_groups", "resamples")}
    content |= {"cautions": [], "difference_cautions": [], "against": "", "macro_difference": {}, "device": "cpu"}
    content |= {"uncertain": {}, "blank": {}, "seed": 0, "checkpoint": msgspec.to_builtins(trained.checkpoint)}
    content["findings"] = [
        finding_result("<Effusion>"), finding_result("Edema", refused=few, num_known=4, num_present=1, estimates={})
    ]  # fmt: skip
    content["macro"] = {"auc": estimate(0.81, defined=1, classes=2)}
    found = msgspec.convert(msgspec.to_builtins(content), FindingsMetrics)
    assert isinstance(found.findings[0], FindingResult)
    path = run / "evaluation" / "heldout-1f3a90bc" / "findings.json"
    put(path, found)
    card = card_of(trained, "model.onnx")
    assert "| finding | present of known | ROC-AUC | sensitivity | specificity | F1 |" in card
    assert "\n| \\<Effusion\\> | 21 of 300 | 0.810 (0.770–0.830) | 70.0 % (66.0–72.0) |" in card
    assert "\n| Edema | 1 of 4 | not measured: no temperature, no threshold" in card and "Ede\\|ma" in card
    assert "\n| mean over 1 of 2 findings |  | 0.810 (0.770–0.830) | – | – | – |" in card
    put(path, msgspec.structs.replace(found, checkpoint=metrics().checkpoint))  # of other weights
    assert "Not measured: run" in card_of(trained, "model.onnx")


def test_markup_in_names_stays_text() -> None:
    assert plain("<script>\n# x|y") == "\\<script\\>�\\# x\\|y"


def test_bad_input_is_refused_before_anything_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"expected a name in \.onnx"):
        ExportConfig(run=run, out=tmp_path / "model.pt")
    with pytest.raises(ConfigError, match="no folder"):
        export(ExportConfig(run=run, out=tmp_path / "missing" / "m.onnx"))
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(ConfigError, match="no regular file"):
        export(ExportConfig(run=run, out=tmp_path / "pipe.onnx"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"best\.safetensors: not there"):
        export(ExportConfig(run=tmp_path / "empty"))
    assert list((tmp_path / "empty").iterdir()) == []
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"onnxscript is not installed.*pip install 'plainfilm\[export\]'"):
        export(ExportConfig(run=run, out=tmp_path / "m.onnx"))
    assert not (tmp_path / "m.onnx").exists()


def test_the_command_says_what_it_wrote(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = exporting.Exported(
        model=tmp_path / "m.onnx", card=tmp_path / "model_card.md", classes=("a", "b"), stored=46,
        difference=1e-7, size=1_000_000,
    )  # fmt: skip
    monkeypatch.setattr(cli.importlib, "import_module", fake_import(done, cli.importlib.import_module))
    assert cli.main(["export", str(run), "--out", str(tmp_path / "m.onnx")]) == 0
    shown = capsys.readouterr().out
    for text in ("(N, 46, 46)", "1e-07", "m.onnx", "model_card.md", "not for diagnosis"):
        assert text in shown
    assert cli.main(["export"]) == 2


def fake_import(done: exporting.Exported, original: object) -> object:
    def import_module(name: str) -> object:
        if name == "engine.export.export":
            return SimpleNamespace(export=lambda config, progress: done, export_parts=exporting.export_parts)
        return original(name)  # type: ignore[operator]

    return import_module
