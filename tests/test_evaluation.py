"""An evaluation: numbers of one forward pass, and what speaks against them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as oracle

from engine.checkpoint import file_hash
from engine.config import EvaluateConfig, TrainConfig
from engine.evaluation import evaluate
from engine.training import train
from loaders.beton import Beton
from loaders.config import ConvertConfig, LoaderConfig, PhantomConfig
from loaders.convert import convert
from loaders.errors import CheckpointError, ConfigError, InputError
from loaders.phantom_folder import write_phantoms


@pytest.fixture(scope="module")
def run(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs."""
    out = tmp_path_factory.mktemp("evaluation") / "run"
    train(TrainConfig(data=betons, out=out, epochs=2, device="cpu", loader=LoaderConfig(training=True, batch_size=8)))
    return out


def on(run: Path, *betons: Path, **changes: object) -> EvaluateConfig:
    return EvaluateConfig(run=run, betons=betons, device="cpu", **changes)


def test_metrics_follow_from_the_scores_of_one_named_checkpoint(run: Path, betons: Path, tmp_path: Path) -> None:
    (result,) = evaluate(on(run, betons / "heldout.beton", out=tmp_path))
    content = json.loads((tmp_path / "heldout" / "metrics.json").read_text())
    assert content["checkpoint"]["sha256"] == file_hash(run / "best.safetensors")
    scores = list(csv.DictReader((tmp_path / "heldout" / "scores.csv").read_text().splitlines()))
    true = [row["label"] for row in scores]
    said = [row["predicted"] for row in scores]
    with Beton(betons / "heldout.beton") as beton:
        assert true == [beton.facts.classes[label] for label in beton.label_N]
    assert content["accuracy"] == pytest.approx(oracle.accuracy_score(true, said))
    assert content["f1"] == pytest.approx(oracle.f1_score(true, said, pos_label="covid", zero_division=0))
    positive = np.array([float(row["probability_covid"]) for row in scores])
    assert content["auc"] == pytest.approx(oracle.roc_auc_score(np.array(true) == "covid", positive), abs=1e-3)
    assert content["confusion"] == oracle.confusion_matrix(true, said, labels=["covid", "normal"]).tolist()
    assert content["synthetic"] is True and content["not_for_diagnosis"] is True
    assert (tmp_path / "heldout" / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert result.metrics["num_samples"] == len(true)


def test_the_training_set_is_refused_unless_forced_and_then_recorded(run: Path, betons: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.beton: holds \d+ images of the training set.*--force"):
        evaluate(on(run, betons / "train.beton", out=tmp_path))
    assert not (tmp_path / "train").exists()
    evaluate(on(run, betons / "train.beton", out=tmp_path, force=True))
    content = json.loads((tmp_path / "train" / "metrics.json").read_text())
    assert any("leaked" in warning for warning in content["warnings"])


def test_a_renamed_training_set_is_still_recognised(run: Path, betons: Path, tmp_path: Path) -> None:
    shutil.copy(betons / "train.beton", tmp_path / "external.beton")
    with pytest.raises(InputError, match="of the training set"):
        evaluate(on(run, tmp_path / "external.beton"))


def test_another_conversion_of_the_same_patients_is_refused(
    run: Path, phantoms: Path, betons: Path, tmp_path: Path
) -> None:
    key = betons.parent / "site.key"
    convert(ConvertConfig(manifest=phantoms, out=tmp_path, size=32, seed=77, workers=1, site_key=key))
    with pytest.raises(InputError, match="of the training set"):
        evaluate(on(run, tmp_path / "train.beton"))


def test_under_another_site_key_images_are_still_compared_and_patients_are_said_not_to_be(
    run: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    convert(ConvertConfig(manifest=phantoms, out=tmp_path, size=32, workers=1, holdout=0.2, site_key=tmp_path / "k"))
    (result,) = evaluate(on(run, tmp_path / "heldout.beton"))  # the same seed: the same held-out images
    assert any("site keys differ" in warning and "not excluded" in warning for warning in result.warnings)
    with pytest.raises(InputError):
        evaluate(on(run, tmp_path / "train.beton"))


def test_the_validation_set_is_called_optimistic(run: Path, betons: Path) -> None:
    (result,) = evaluate(on(run, betons / "val.beton"))
    assert any("optimistic" in warning for warning in result.warnings)


def test_unknown_patients_are_said(tmp_path: Path, phantoms: Path) -> None:
    rows = list(csv.DictReader(phantoms.read_text().splitlines()))
    manifest = phantoms.parent / "anonymous.csv"
    manifest.write_text("path,label\n" + "\n".join(f"{row['path']},{row['label']}" for row in rows))
    out = tmp_path / "b"
    convert(ConvertConfig(manifest=manifest, out=out, size=32, holdout=0.2, workers=1, site_key=tmp_path / "k"))
    train(TrainConfig(data=out, out=tmp_path / "run", epochs=1, device="cpu"))
    (result,) = evaluate(on(tmp_path / "run", out / "heldout.beton"))
    assert any("leakage between patients is not excluded" in warning for warning in result.warnings)


def test_a_set_whose_sources_tell_the_label_is_called_no_evidence(tmp_path: Path, phantoms: Path) -> None:
    rows = list(csv.DictReader(phantoms.read_text().splitlines()))
    manifest = phantoms.parent / "confounded.csv"
    lines = [f"{row['path']},{row['label']},{row['patient']},from-{row['label']}" for row in rows]
    manifest.write_text("\n".join(["path,label,patient,source", *lines]))
    out = tmp_path / "b"
    done = convert(ConvertConfig(manifest=manifest, out=out, size=32, holdout=0.2, workers=1, site_key=tmp_path / "k"))
    assert done.told_by_source == ["covid", "normal"]
    train(TrainConfig(data=out, out=tmp_path / "run", epochs=1, device="cpu"))
    (result,) = evaluate(on(tmp_path / "run", out / "heldout.beton"))
    assert any("evidence of nothing clinical" in warning for warning in result.warnings)


def test_other_sizes_and_classes_are_refused_with_the_remedy(run: Path, phantoms: Path, tmp_path: Path) -> None:
    key = tmp_path / "k"
    convert(ConvertConfig(manifest=phantoms, out=tmp_path / "big", size=64, workers=1, site_key=key))
    with pytest.raises(InputError, match="--size 32"):
        evaluate(on(run, tmp_path / "big" / "val.beton"))
    swapped = ("normal", "covid")
    convert(
        ConvertConfig(manifest=phantoms, out=tmp_path / "swapped", size=32, classes=swapped, workers=1, site_key=key)
    )
    with pytest.raises(InputError, match="classes normal, covid, expected covid, normal"):
        evaluate(on(run, tmp_path / "swapped" / "val.beton"))


def test_a_run_without_weights_and_betons_of_one_name_are_refused(run: Path, betons: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"best\.safetensors: not there"):
        evaluate(on(tmp_path / "run", betons / "heldout.beton"))
    with pytest.raises(ConfigError, match="different names"):
        evaluate(on(run, betons / "heldout.beton", betons / "heldout.beton"))


def test_no_file_name_and_no_patient_reaches_the_run_folder(run: Path, betons: Path) -> None:
    evaluate(on(run, betons / "heldout.beton"))
    for path in run.rglob("*"):
        if path.is_file():
            assert b"phantom-0" not in path.read_bytes(), path


def test_hashes_of_another_run_do_not_open_the_training_set(
    run: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    convert(ConvertConfig(manifest=phantoms, out=tmp_path / "b", size=32, seed=5, workers=1, site_key=tmp_path / "k"))
    train(TrainConfig(data=tmp_path / "b", out=tmp_path / "other", epochs=1, device="cpu"))
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(tmp_path / "other" / "seen.safetensors", tmp_path / "run" / "seen.safetensors")
    with pytest.raises(CheckpointError, match=r"seen\.safetensors: of conversion"):
        evaluate(on(tmp_path / "run", betons / "train.beton"))


def test_three_classes_are_evaluated_by_macro_means(tmp_path: Path) -> None:
    names = ("covid", "normal", "pneumonia")
    table = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=30, size=64, classes=names))
    convert(ConvertConfig(manifest=table, out=tmp_path / "b", size=32, holdout=0.2, workers=1, site_key=tmp_path / "k"))
    train(TrainConfig(data=tmp_path / "b", out=tmp_path / "run", epochs=1, device="cpu"))
    (result,) = evaluate(on(tmp_path / "run", tmp_path / "b" / "heldout.beton"))
    scores = list(csv.DictReader((result.out / "scores.csv").read_text().splitlines()))
    true, said = [row["label"] for row in scores], [row["predicted"] for row in scores]
    assert result.metrics["f1"] == pytest.approx(
        oracle.f1_score(true, said, average="macro", labels=names, zero_division=0)
    )
    probability_NK = np.array([[float(row[f"probability_{name}"]) for name in names] for row in scores])
    wanted = [oracle.roc_auc_score([t == name for t in true], probability_NK[:, k]) for k, name in enumerate(names)]
    assert result.metrics["auc"] == pytest.approx(np.mean(wanted), abs=1e-3)
