"""Findings evaluated and compared: each over its known films, from betons to files, terminal and figures."""

# N samples, K findings

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec import structs
from sklearn import metrics as oracle

import cli
from engine.compare import compare, comparison_parts
from engine.config import CompareConfig, EvaluateConfig
from engine.evaluate.evaluate import Evaluation, evaluate
from engine.evaluate.findings import FIGURES, FINDINGS, FindingsMetrics
from engine.evaluate.output import evaluation_parts
from engine.evaluate.trained import load_trained
from engine.statistics.estimates import Estimate
from engine.statistics.findings import POINT
from engine.train.train import train
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton, write_subset
from loaders.errors import ConfigError, InputError
from loaders.output import Line, Parts, Sheet, table_blocks
from loaders.records import read_record
from loaders.settings import build
from tests.example_run import small_training
from tests.findings_example import NAMES, evaluated, write_findings

COUNTS = {"train": 96, "val": 160, "heldout": 160}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Betons of three findings, a fifth of whose labels are unknown."""
    return write_findings(tmp_path_factory.mktemp("findings") / "B", counts=COUNTS, crop=32, unknown=0.2, strength=30)


@pytest.fixture(scope="module")
def runs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs of these findings."""
    folder, made = tmp_path_factory.mktemp("runs"), []
    for name, epochs in (("first", 2), ("second", 1)):
        train(small_training(data, folder / name, epochs=epochs, batch_size=16))
        made.append(folder / name)
    return made[0], made[1]


def on(run: Path, beton: Path, out: Path, **changes: Any) -> EvaluateConfig:
    return EvaluateConfig(run=run, betons=(beton,), out=out, device="cpu", **({"resamples": 100} | changes))


@pytest.fixture(scope="module")
def evaluation(data: Path, runs: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """The first run beside the second."""
    (found,) = evaluate(on(runs[0], data / "heldout.beton", tmp_path_factory.mktemp("out"), against=runs[1]))
    return found


def content(found: Evaluation) -> FindingsMetrics:
    return read_record(FindingsMetrics, found.out / FINDINGS)


def changed(data: Path, path: Path, change: Callable[[np.ndarray], np.ndarray], **facts: Any) -> Path:
    """The held-out beton with other values, or other facts."""
    with Beton(data / "heldout.beton") as beton:
        frames = [beton.frame(sample) for sample in range(len(beton))]
        values_NK = change(beton.labels.copy())
        write_beton(path, iter(frames), values_NK, beton.rows_N, replace(beton.facts, **facts), beton.page_size)
    return path


def without(place: int) -> Callable[[np.ndarray], np.ndarray]:
    """Values of which one finding is known of no film."""

    def change(finding_NK: np.ndarray) -> np.ndarray:
        finding_NK[:, place] = np.nan
        return finding_NK

    return change


def test_scores_give_every_metric_of_every_finding_and_labels_are_empty_where_unknown(
    evaluation: Evaluation, data: Path
) -> None:
    result = content(evaluation)
    rows = list(csv.DictReader((evaluation.out / "scores.csv").read_text().splitlines()))
    with Beton(data / "heldout.beton") as beton:
        finding_NK = beton.labels
        assert len(rows) == result.num_samples == len(beton)
    assert result.names == [*NAMES] and result.against == "second" and not (evaluation.out / "metrics.json").exists()
    for place, found in enumerate(result.findings):
        label = [row[f"label_{found.name}"] for row in rows]
        assert [one == "" for one in label] == np.isnan(finding_NK[:, place]).tolist()
        known = [row for row, one in zip(rows, label, strict=True) if one]
        true_M = np.array([row[f"label_{found.name}"] == "1" for row in known])
        score_M = np.array([float(row[f"probability_{found.name}"]) for row in known])
        predicted_M = np.array([row[f"predicted_{found.name}"] == "1" for row in known])
        assert (found.num_known, found.num_present) == (len(known), true_M.sum())
        assert found.confusion == oracle.confusion_matrix(true_M, predicted_M).tolist()
        assert found.estimates["auc"].value == pytest.approx(oracle.roc_auc_score(true_M, score_M))
        assert found.estimates["f1"].value == pytest.approx(oracle.f1_score(true_M, predicted_M))
        assert found.trivial["sensitivity"].value in (0, 1) and found.refused is None
        point = next(one for one in found.operating_points if one.name == POINT)
        assert point.threshold == found.threshold and point.estimates["f1"] == found.estimates["f1"]
        parts = [part for part in found.subgroups if part.kind == "source"]
        assert sum(part.num_samples for part in parts) == found.num_known
    values = [found.estimates["f1"].value for found in result.findings]
    assert result.macro["f1"].value == pytest.approx(np.mean([value for value in values if value is not None]))
    assert {figure.name for figure in evaluation.out.glob("*.png")} == {*FIGURES}
    assert "NaN" not in (evaluation.out / FINDINGS).read_text()


def test_a_run_beside_another_shows_the_differences_of_the_same_films(
    evaluation: Evaluation, data: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    (other,) = evaluate(on(runs[1], data / "heldout.beton", tmp_path))
    for found, rival in zip(content(evaluation).findings, content(other).findings, strict=True):
        for name in ("auc", "f1", "sensitivity"):
            pair = (found.estimates[name].value, rival.estimates[name].value)
            assert found.difference[name].value == pytest.approx(pair[0] - pair[1])
        assert rival.difference == {}
    apart = [found.difference["auc"].value for found in content(evaluation).findings]
    assert content(evaluation).macro_difference["auc"].value == pytest.approx(np.mean(apart))


def test_a_finding_that_a_set_does_not_know_is_refused_and_takes_no_part_in_means(
    data: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    beton = changed(data, tmp_path / "h.beton", without(1), conversion_id="e" * 32)
    (found,) = evaluate(on(runs[0], beton, tmp_path / "out"))
    result = content(found)
    lacking = result.findings[1]
    assert lacking.refused is not None and lacking.refused.parameters == {"present": 0, "absent": 0, "least": 5}
    assert lacking.estimates == lacking.trivial == {} and lacking.operating_points == lacking.subgroups == []
    assert (result.macro["auc"].defined, result.macro["auc"].classes) == (2, 3)
    whole = content(evaluate(on(runs[0], data / "heldout.beton", tmp_path / "whole"))[0])
    assert [result.findings[place].estimates["auc"].value for place in (0, 2)] == [
        whole.findings[place].estimates["auc"].value for place in (0, 2)
    ]
    (one,) = (one for one in result.cautions if one.code == "findings-not-measured")
    assert one.parameters["findings"] == [NAMES[1]]
    text = "\n".join(part.text for part in evaluation_parts(found) if isinstance(part, Line))
    assert f"Not measured, {NAMES[1]}: patients (groups) with it: 0, without: 0; at least 5 of each are needed." in text


def test_where_nothing_is_known_everything_is_undefined_and_nothing_is_drawn(
    data: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    beton = changed(data, tmp_path / "h.beton", lambda finding_NK: np.full_like(finding_NK, np.nan))
    (found,) = evaluate(on(runs[0], beton, tmp_path / "out", against=runs[1], force=True))
    result = content(found)
    assert all(one.refused for one in result.findings) and not list(found.out.glob("*.png"))
    assert (result.macro["f1"].value, result.macro["f1"].defined) == (None, 0)
    assert any(isinstance(part, Sheet) and "not measured" in part.rows[1] for part in evaluation_parts(found))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("Effusion", "Edema", "Nodule"),
            r"findings Effusion, Edema, Nodule, expected Effusion, Nodule, Edema in this",
        ),
        (("Effusion", "Nodule", "Mass"), r"findings Effusion, Nodule, Mass, expected .*; convert it with --like "),
    ],
)
def test_other_findings_or_another_order_are_refused(
    data: Path, runs: tuple[Path, Path], tmp_path: Path, names: tuple[str, ...], expected: str
) -> None:
    beton = changed(data, tmp_path / "h.beton", lambda finding_NK: finding_NK, classes=names)
    with pytest.raises(InputError, match=expected):
        evaluate(on(runs[0], beton, tmp_path / "out"))


def test_classes_and_findings_are_not_mixed(data: Path, betons: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    of_classes = tmp_path / "classes"
    train(small_training(betons, of_classes, epochs=1))
    with pytest.raises(
        InputError, match=r"heldout\.beton: a beton of classes, expected one of findings as of .*--like"
    ):
        evaluate(on(runs[0], betons / "heldout.beton", tmp_path / "a"))
    with pytest.raises(InputError, match="a beton of findings, expected one of classes"):
        evaluate(on(of_classes, data / "heldout.beton", tmp_path / "b"))
    with pytest.raises(InputError, match="classes: a run of classes, expected one of findings"):
        evaluate(on(runs[0], data / "heldout.beton", tmp_path / "c", against=of_classes))


def test_one_prevalence_for_all_findings_is_refused(data: Path, runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--prevalence: found 0.1 for findings, expected none"):
        evaluate(on(runs[0], data / "heldout.beton", tmp_path, prevalence=0.1))


def test_films_of_training_are_refused_and_copies_are_left_out(
    data: Path, runs: tuple[Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="holds 96 images of the training set"):
        evaluate(on(runs[0], data / "train.beton", tmp_path / "a"))
    with Beton(data / "heldout.beton") as tested, Beton(data / "val.beton") as known:
        both = [(tested, np.arange(40)), (known, np.arange(3))]
        write_subset(both, tmp_path / "mixed.beton", "heldout", conversion_id="d" * 32)
    (found,) = evaluate(on(runs[0], tmp_path / "mixed.beton", tmp_path / "b"))
    assert "validation-leakage" in [one.code for one in content(found).cautions]


def test_the_table_has_the_mean_on_top_and_the_weakest_first_and_no_number_is_broken() -> None:
    _, result = evaluated(tuple(f"finding of a long name, number {number}" for number in range(14)), rare=2)
    parts = parts_of(result)
    table = next(part for part in parts if isinstance(part, Sheet))
    assert [row[0] for row in table.rows] == ["mean over 12 of 14 findings", *(one.name for one in result.by_need)]
    assert [row[3] for row in table.rows[-2:]] == ["not measured"] * 2
    aucs = [one.estimates["auc"].value for one in result.by_need if not one.refused]
    assert aucs == sorted(aucs)
    lines = [line for block in table_blocks(table, 80, "-") for line in block]
    for found in result.by_need[:12]:
        estimate = found.estimates["auc"]
        whole = f"{estimate.value:.3f} ({estimate.low:.3f}–{estimate.high:.3f})"
        assert any(whole in line for line in lines) and max(map(len, lines)) <= 80


def test_a_subgroup_that_lies_below_is_named_with_its_finding() -> None:
    _, result = evaluated(("a", "b"))
    assert "Subgroups: in none does" in "\n".join(one.text for one in parts_of(result) if isinstance(one, Line))
    low = Estimate(value=0.3, low=0.2, high=0.4, method="bootstrap")
    part = structs.replace(result.findings[1].subgroups[0], estimates={"auc": low})
    second = structs.replace(result.findings[1], subgroups=[part, result.findings[1].subgroups[1]])
    weak = structs.replace(result, findings=[result.findings[0], second])
    sheets = [one for one in parts_of(weak) if isinstance(one, Sheet)]
    assert [row[0] for row in sheets[-1].rows] == ["b"] and sheets[-1].rows[0][-1] == "source: A"


def test_networks_of_findings_are_compared_by_mean_f1_and_auc(data: Path, tmp_path: Path) -> None:
    settings = {"data": data, "out": tmp_path / "c", "models": ("cnn",), "epochs": 1, "resamples": 100}
    config = build(CompareConfig, settings | {"device": "cpu", "batch_size": 32})
    done = compare(config)
    (row,) = done.networks
    heldout = next((config.out / "cnn" / "evaluation").glob("heldout-*"))
    macro = read_record(FindingsMetrics, heldout / FINDINGS).macro
    assert (row.heldout_f1, row.heldout_auc) == (macro["f1"], macro["auc"])
    assert row.validation_f1.value == pytest.approx(row.training.best_f1) and row.validation_auc.classes == 3
    (flat,) = csv.DictReader((config.out / "comparison.csv").read_text().splitlines())
    assert float(flat["heldout_auc"]) == macro["auc"].value and flat["validation_auc_defined"] == "3"
    parts = comparison_parts(done, config.out)
    table = next(part for part in parts if isinstance(part, Sheet))
    assert table.headers[1:5] == ("validation F1", "held-out F1", "validation AUC", "held-out AUC")
    assert any("means over the findings" in part.text for part in parts if isinstance(part, Line))


def test_networks_are_compared_where_nothing_can_be_measured(tmp_path: Path) -> None:
    folder = write_findings(tmp_path / "B", ("Mass",), counts={"train": 24, "val": 6, "heldout": 6}, crop=32)
    settings = {"data": folder, "out": tmp_path / "c", "models": ("cnn",), "epochs": 1, "resamples": 100}
    done = compare(build(CompareConfig, settings | {"device": "cpu"}))
    assert done.networks[0].heldout_auc.value is None and (tmp_path / "c" / "comparison.png").is_file()


def test_the_command_evaluates_findings(
    data: Path, runs: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(runs[0]), str(data / "heldout.beton"), "--out", str(tmp_path), "--resamples", "100"]
    assert cli.main([*command, "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "mean over 3 of 3 findings" in re.sub(r"\s+", " ", shown) and "not for diagnosis" in shown
    (folder,) = (path.parent for path in tmp_path.rglob(FINDINGS))
    assert json.loads((folder / FINDINGS).read_text())["uncertain"] == dict.fromkeys(NAMES, "unknown")


def test_thresholds_and_temperatures_are_those_of_validation(evaluation: Evaluation, runs: tuple[Path, Path]) -> None:
    rule = load_trained(runs[0]).findings
    for place, found in enumerate(content(evaluation).findings):
        assert (found.threshold, found.temperature) == (rule.threshold_K[place], rule.by_finding[place].temperature)


def parts_of(result: FindingsMetrics) -> Parts:
    """What the terminal shows."""
    return evaluation_parts(Evaluation(metrics=result, out=Path("nowhere"), figures=()))
