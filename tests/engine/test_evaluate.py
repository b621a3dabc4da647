"""An evaluation: numbers of one forward pass, and what speaks against them."""

import csv
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import softmax
from sklearn import metrics as oracle

import cli
from engine.config import EvaluateConfig, ExplainConfig, Recipe, TrainConfig
from engine.evaluate.checks import class_cautions
from engine.evaluate.dataflow import dataflow_beside
from engine.evaluate.evaluate import Evaluation, evaluate
from engine.evaluate.output import evaluation_parts, in_order
from engine.evaluate.results import Difference, Metrics, Scores, figures
from engine.evaluate.trained import decide
from engine.explain.explain import explain
from engine.figures import png
from engine.report.report import write_report
from engine.report.results import read_results
from engine.report.verdict import judge
from engine.statistics.calibration import TEMPERATURES
from engine.statistics.estimates import estimates, paired_differences, trivial
from engine.statistics.metrics import all_metrics
from engine.statistics.thresholds import choose_operating_points
from engine.train.checkpoint import ValidationScores, file_hash, load_checkpoint, save_checkpoint, validation_scores
from engine.train.train import train
from loaders.atomic_file import locked
from loaders.beton.format import AGES, PATIENT_KNOWN, demographic_flags
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.cautions import Caution, caution
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.errors import CheckpointError, ConfigError, InputError
from loaders.output import Line, Sheet
from loaders.phantom.phantom import write_phantoms
from loaders.records import read_record, write_record
from tests.engine.test_figures import check_texts, drawn_texts
from tests.example_run import hashed_formerly, results_of, small_training
from tests.example_run import metrics as example_metrics
from tests.faults import beton_layout
from tests.loaders.test_audit_page import Reader
from tests.loaders.test_beton import strip_footer


@pytest.fixture(scope="module")
def run(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs."""
    out = tmp_path_factory.mktemp("evaluation") / "run"
    train(small_training(betons, out, epochs=2, batch_size=8))
    return out


def on(run: Path, *betons: Path, **changes: object) -> EvaluateConfig:
    return EvaluateConfig(run=run, betons=betons, device="cpu", **({"resamples": 100} | changes))


@pytest.fixture(scope="module")
def rival(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run on the same betons, of one epoch and another seed."""
    out = tmp_path_factory.mktemp("evaluation") / "rival"
    loader = LoaderConfig(training=True, batch_size=8, seed=7)
    train(TrainConfig(data=betons, out=out, recipe=Recipe(epochs=1, device="cpu"), loader=loader))
    return out


def scores_of(folder: Path, classes: Sequence[str] = ("covid", "normal")) -> tuple[np.ndarray, np.ndarray]:
    """Labels, int64 (N,), and probabilities, float64 (N, K), of a scores.csv."""
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    label_N = np.array([classes.index(row["label"]) for row in rows])
    return label_N, np.array([[float(row[f"probability_{name}"]) for name in classes] for row in rows])


def codes(result: Evaluation) -> set[str]:
    """Codes of the run's own cautions, as metrics.json has them."""
    return {found.code for found in content_of(result.out).cautions}


def content_of(folder: Path) -> Metrics:
    """A metrics.json, which must be JSON to the letter: no NaN, no infinity."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((folder / "metrics.json").read_text(), parse_constant=refuse)
    return read_record(Metrics, folder / "metrics.json")


@pytest.fixture
def pictures() -> None:
    """Asked for by the tests that need figures drawn; the others go without, since drawing takes most of their time."""


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr("engine.evaluate.evaluate.figures", lambda *arguments: {})


def chosen(
    origin: Path,
    index_N: np.ndarray,
    path: Path,
    /,
    *,
    conversion: str = "",
    demographics: bool = False,
    **changes: Any,
) -> Path:
    """A beton of some of another's samples.  conversion: an id of its own, else the other's.  changes: of its rows."""
    path.parent.mkdir(exist_ok=True)
    with Beton(origin) as beton:
        rows_N = beton.rows_N[index_N].copy()
        for name, value in changes.items():
            rows_N[name] = value
        conversion_id = conversion or beton.facts.conversion_id
        facts = replace(
            beton.facts, sources=("here", "there"), views=("PA", "AP"), conversion_id=conversion_id,
            demographics=demographics,
        )  # fmt: skip
        frames = [beton.frame(int(sample)) for sample in index_N]
        write_beton(path, iter(frames), beton.label_N[index_N], rows_N, facts, beton.page_size)
    return path


def test_metrics_follow_from_the_scores_of_one_named_checkpoint(
    run: Path, betons: Path, tmp_path: Path, pictures: None
) -> None:
    (result,) = evaluate(on(run, betons / "heldout.beton", out=tmp_path))
    content = content_of(results_of(tmp_path))
    assert content.checkpoint.sha256 == file_hash(run / "best.safetensors")
    scores = list(csv.DictReader((results_of(tmp_path) / "scores.csv").read_text().splitlines()))
    true = [row["label"] for row in scores]
    predicted = [row["predicted"] for row in scores]
    with Beton(betons / "heldout.beton") as beton:
        assert true == [beton.facts.classes[label] for label in beton.label_N]
    assert content.estimates["accuracy"].value == pytest.approx(oracle.accuracy_score(true, predicted))
    assert content.estimates["f1"].value == pytest.approx(
        oracle.f1_score(true, predicted, pos_label="covid", zero_division=0)
    )
    positive = np.array([float(row["probability_covid"]) for row in scores])
    assert content.estimates["auc"].value == pytest.approx(
        oracle.roc_auc_score(np.array(true) == "covid", positive), abs=1e-3
    )
    assert content.confusion == oracle.confusion_matrix(true, predicted, labels=["covid", "normal"]).tolist()
    assert content.synthetic is True and content.not_for_diagnosis is True
    assert (results_of(tmp_path) / "confusion.png").read_bytes().startswith(b"\x89PNG")
    assert result.metrics == content and content.num_samples == len(true)


def test_the_training_set_is_refused_unless_forced_and_then_recorded(run: Path, betons: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"train\.beton: holds \d+ images of the training set.*--force"):
        evaluate(on(run, betons / "train.beton", out=tmp_path))
    assert not list(tmp_path.iterdir())
    evaluate(on(run, betons / "train.beton", out=tmp_path, force=True))
    content = content_of(results_of(tmp_path, "train"))
    with Beton(betons / "train.beton") as beton:
        images = len(beton)
    assert caution("leakage-forced", images=images, patients=images) in content.cautions


def test_a_renamed_training_set_is_still_recognised(run: Path, betons: Path, tmp_path: Path) -> None:
    shutil.copy(betons / "train.beton", tmp_path / "external.beton")
    with pytest.raises(InputError, match="of the training set"):
        evaluate(on(run, tmp_path / "external.beton"))


def test_another_conversion_of_the_same_patients_is_refused(
    run: Path, phantoms: Path, betons: Path, tmp_path: Path
) -> None:
    key = betons.parent / "site.key"
    convert(
        ConvertConfig(catalog=CatalogConfig(manifest=phantoms), out=tmp_path, size=32, seed=77, workers=1, site_key=key)
    )
    with pytest.raises(InputError, match="of the training set"):
        evaluate(on(run, tmp_path / "train.beton"))


def test_under_another_site_key_images_are_still_compared_and_patients_are_reported_as_not(
    run: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    out = tmp_path / "b"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=phantoms), out=out, size=32, workers=1, holdout=0.2, site_key=tmp_path / "k"
        )
    )
    (result,) = evaluate(on(run, out / "heldout.beton"))  # the same seed: the same held-out images
    assert "site-keys-differ" in codes(result)
    with pytest.raises(InputError):
        evaluate(on(run, out / "train.beton"))


@pytest.mark.parametrize("older", ["beton", "run"])
def test_images_whose_pixels_are_hashed_otherwise_are_reported_as_not_compared(
    run: Path, betons: Path, tmp_path: Path, older: str
) -> None:
    """Of the very films that the run was trained on, of which nothing else tells."""
    tested, path = tmp_path / "run", tmp_path / "x.beton"
    shutil.copytree(run, tested, ignore=shutil.ignore_patterns("evaluation"))
    facts = {"site_key_id": "0" * 16, "conversion_id": "c" * 32, "sources": ["", "elsewhere"]}
    content = (betons / "train.beton").read_bytes()
    if older == "beton":
        path.write_bytes(beton_layout.hashed_formerly(content, 46, **facts))
        kinds = {"found": "blake2b", "expected": "blake3"}
    else:
        hashed_formerly(tested)
        layout = beton_layout.own_layout(content, 46)
        path.write_bytes(beton_layout.with_facts(content, layout, beton_layout.facts_of(content, layout) | facts))
        kinds = {"found": "blake3", "expected": "blake2b"}
    (result,) = evaluate(on(tested, path))
    told = caution("hashed-otherwise", **kinds)
    assert told in content_of(result.out).cautions and content_of(result.out).collection == "not-compared"
    assert any(part.text.endswith(f"{told.text}.") for part in evaluation_parts(result) if isinstance(part, Line))
    verdict = judge(read_results(tested))
    assert "which training never saw" not in verdict.how_good and verdict.state == "flagged"
    assert {"a set that training never saw", "another collection"} <= {*verdict.unchecked}
    shown = " ".join(Reader(write_report(tested).page.read_text()).text.split())
    assert "images cannot be compared with those of the training set" in shown
    assert "External collection: it shares no source" not in shown


def test_patients_are_still_compared_where_images_cannot_be(run: Path, betons: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.beton"
    path.write_bytes(beton_layout.hashed_formerly((betons / "train.beton").read_bytes(), 46))
    with pytest.raises(InputError, match=r"x\.beton: holds \d+ images of patients of the training set, expected none"):
        evaluate(on(run, path))
    (result,) = evaluate(on(run, path, force=True))
    assert {"leakage-forced", "hashed-otherwise"} <= codes(result)


def test_the_validation_set_is_called_optimistic(run: Path, betons: Path) -> None:
    (result,) = evaluate(on(run, betons / "val.beton"))
    assert "validation-leakage" in codes(result)


def test_unknown_patients_are_a_caution(tmp_path: Path, phantoms: Path) -> None:
    rows = list(csv.DictReader(phantoms.read_text().splitlines()))
    manifest = phantoms.parent / "anonymous.csv"
    manifest.write_text("path,label\n" + "\n".join(f"{row['path']},{row['label']}" for row in rows))
    out = tmp_path / "b"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=manifest), out=out, size=32, holdout=0.2, workers=1, site_key=tmp_path / "k"
        )
    )
    train(small_training(out, tmp_path / "run"))
    (result,) = evaluate(on(tmp_path / "run", out / "heldout.beton"))
    assert {"patients-unknown", "training-patients-unknown"} <= codes(result)


@pytest.mark.parametrize(("moved", "code"), [(0, "confounded-with-source"), (2, "strongly-confounded-with-source")])
def test_a_set_whose_sources_give_the_label_is_called_no_evidence_with_a_few_films_of_another_too(
    tmp_path: Path, phantoms: Path, moved: int, code: str
) -> None:
    rows = list(csv.DictReader(phantoms.read_text().splitlines()))
    manifest = phantoms.parent / f"confounded-{moved}.csv"
    first = [row["path"] for row in rows if row["label"] == "covid"][:moved]
    source_of = {row["path"]: "from-normal" if row["path"] in first else f"from-{row['label']}" for row in rows}
    lines = [f"{row['path']},{row['label']},{row['patient']},{source_of[row['path']]}" for row in rows]
    manifest.write_text("\n".join(["path,label,patient,source", *lines]))
    out, run = tmp_path / "b", tmp_path / "run"
    done = convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=manifest), out=out, size=32, holdout=0.2, workers=1, site_key=tmp_path / "k"
        )
    )
    (confounded,) = done.cautions
    assert confounded.code == code
    train(small_training(out, run))
    (result,) = evaluate(on(run, out / "heldout.beton"))
    assert moved or code in codes(result)  # eight patients are too few to grade a set by, but training's caution leads
    assert "This score is evidence of nothing clinical" in write_report(run).page.read_text()


def test_other_sizes_and_classes_are_refused_with_the_remedy(run: Path, phantoms: Path, tmp_path: Path) -> None:
    key = tmp_path / "k"
    convert(
        ConvertConfig(catalog=CatalogConfig(manifest=phantoms), out=tmp_path / "big", size=64, workers=1, site_key=key)
    )
    with pytest.raises(InputError, match="--size 32"):
        evaluate(on(run, tmp_path / "big" / "val.beton"))
    swapped = ("normal", "covid")
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=phantoms, classes=swapped),
            out=tmp_path / "swapped",
            size=32,
            workers=1,
            site_key=key,
        )
    )
    with pytest.raises(InputError, match="classes normal, covid, expected covid, normal"):
        evaluate(on(run, tmp_path / "swapped" / "val.beton"))


def test_a_run_without_weights_and_one_set_twice_are_refused(run: Path, betons: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "best.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"best\.safetensors: not there"):
        evaluate(on(tmp_path / "run", betons / "heldout.beton"))
    with pytest.raises(ConfigError, match="different sets"):
        evaluate(on(run, betons / "heldout.beton", betons / "heldout.beton"))


def test_no_file_name_and_no_patient_reaches_the_run_folder(run: Path, betons: Path) -> None:
    evaluate(on(run, betons / "heldout.beton"))
    for path in run.rglob("*"):
        if path.is_file():
            assert b"phantom-5-0" not in path.read_bytes(), path


def test_hashes_of_another_run_do_not_open_the_training_set(
    run: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=phantoms),
            out=tmp_path / "b",
            size=32,
            seed=5,
            workers=1,
            site_key=tmp_path / "k",
        )
    )
    train(small_training(tmp_path / "b", tmp_path / "other"))
    shutil.copytree(run, tmp_path / "run")
    shutil.copy(tmp_path / "other" / "leakage.safetensors", tmp_path / "run" / "leakage.safetensors")
    with pytest.raises(CheckpointError, match=r"leakage\.safetensors: of run"):
        evaluate(on(tmp_path / "run", betons / "train.beton"))


def test_three_classes_are_evaluated_by_macro_means(tmp_path: Path, pictures: None) -> None:
    names = ("covid", "normal", "pneumonia")
    table = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=30, size=64, classes=names))
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=table),
            out=tmp_path / "b",
            size=32,
            holdout=0.2,
            workers=1,
            site_key=tmp_path / "k",
        )
    )
    train(small_training(tmp_path / "b", tmp_path / "run"))
    (result,) = evaluate(on(tmp_path / "run", tmp_path / "b" / "heldout.beton"))
    scores = list(csv.DictReader((result.out / "scores.csv").read_text().splitlines()))
    true, predicted = [row["label"] for row in scores], [row["predicted"] for row in scores]
    assert result.metrics.estimates["f1"].value == pytest.approx(
        oracle.f1_score(true, predicted, average="macro", labels=names, zero_division=0)
    )
    probability_NK = np.array([[float(row[f"probability_{name}"]) for name in names] for row in scores])
    wanted = [oracle.roc_auc_score([t == name for t in true], probability_NK[:, k]) for k, name in enumerate(names)]
    assert result.metrics.estimates["auc"].value == pytest.approx(np.mean(wanted), abs=1e-3)
    content = content_of(result.out)
    for label, auc in enumerate(wanted):
        assert content.estimates[f"auc[{label}]"].value == pytest.approx(auc, abs=1e-3)
    assert content.estimates["auc"].value == pytest.approx(np.mean(wanted), abs=1e-3)
    assert len(result.figures) == 5 and set(content.trivial) == set(content.estimates)
    (youden,) = (point for point in content.operating_points if point.name == "youden")  # covid against the rest
    is_covid_N = np.array(true) == "covid"
    called_N = probability_NK[:, 0] >= youden.threshold * (1 - 1e-8)
    assert youden.estimates["sensitivity"].value == pytest.approx(called_N[is_covid_N].mean())
    assert youden.estimates["specificity"].value == pytest.approx((~called_N)[~is_covid_N].mean())
    shown = [part.text if isinstance(part, Line) else str(part) for part in evaluation_parts(result)]
    (by_class,) = (part for part in evaluation_parts(result) if isinstance(part, Sheet) and part.headers[0] == "class")
    assert [row[0] for row in by_class.rows] == list(names) and by_class.headers[-1] == "ROC-AUC"
    assert any("each against the rest" in text for text in shown)
    assert not any("macro F1" in text for text in shown), "which F1 itself is"


def test_the_weights_hold_what_the_best_epoch_predicted_for_the_validation_set_in_its_order(
    run: Path, betons: Path, tmp_path: Path
) -> None:
    tensors, state = load_checkpoint(run / "best.safetensors")
    scores = validation_scores(tensors, run)
    assert scores.logits_NK.dtype == np.float32
    with Beton(betons / "val.beton") as beton:
        assert (scores.labels == beton.label_N).all()
        assert (scores.group_N == beton.rows_N["group"]).all()
    assert (softmax(scores.logits_NK, axis=1).argmax(1) == scores.labels).mean() == state["validation"]["accuracy"]
    (result,) = evaluate(on(run, betons / "val.beton", out=tmp_path))  # the same weights predict the same again
    _, probability_NK = scores_of(result.out)
    assert np.allclose(probability_NK, softmax(scores.logits_NK / result.metrics.temperature, axis=1), atol=1e-4)


def test_temperature_and_thresholds_come_from_validation_and_no_set_under_test_moves_them(
    run: Path, betons: Path, tmp_path: Path
) -> None:
    with Beton(betons / "heldout.beton") as beton:
        half = np.arange(0, len(beton), 2)
    part = chosen(betons / "heldout.beton", half, tmp_path / "part.beton", conversion="d" * 32)
    whole, some = (content_of(result.out) for result in evaluate(on(run, betons / "heldout.beton", part, out=tmp_path)))
    assert whole.temperature == some.temperature > 0
    scores = validation_scores(load_checkpoint(run / "best.safetensors")[0], run)
    probability_NK = softmax(scores.logits_NK.astype(np.float64) / whole.temperature, axis=1)
    wanted = choose_operating_points(scores.labels == 0, probability_NK[:, 0])
    for content in (whole, some):
        assert [point.name for point in content.operating_points] == ["0.5", "youden", "rule-out"]
        for found, point in zip(content.operating_points, wanted, strict=True):
            assert found.refused == point.refused
            assert found.threshold == (None if point.threshold is None else pytest.approx(point.threshold))


def test_a_class_without_an_image_is_a_caution_where_means_over_classes_leave_it_out() -> None:
    classes, label_N = ("covid", "normal", "pneumonia"), np.array([0, 1, 0])
    assert class_cautions(classes, label_N) == [caution("absent-classes", classes=["pneumonia"])]
    assert class_cautions(classes, np.arange(3)) == []
    assert class_cautions(classes[:2], np.zeros(3, int)) == [caution("one-class")]


def measured(classes: tuple[str, ...], label_N: np.ndarray, called_N: np.ndarray) -> Evaluation:
    """An evaluation of samples that are called as given, beside a network that calls all of them rightly."""
    first_NK, second_NK = (
        np.where(np.arange(len(classes)) == kind_N[:, None], 0.9, 0.1 / (len(classes) - 1))
        for kind_N in (called_N, label_N)
    )
    scores = Scores(
        label_N=label_N, probability_NK=first_NK, group_N=np.arange(len(label_N)), classes=classes, positive=0
    )
    rest = (np.arange(len(label_N)), 0)
    apart = paired_differences(label_N, second_NK, first_NK, *rest, resamples=50)
    metrics = msgspec.structs.replace(
        example_metrics(), classes=list(classes), positive=classes[0], num_samples=len(label_N), operating_points=[],
        subgroups=[], difference=Difference(against="other", estimates=apart, cautions=[]),
        num_groups=scores.num_groups, confusion=scores.confusion,
        estimates=estimates(label_N, first_NK, *rest, resamples=50), trivial=trivial(label_N, len(classes), 0),
    )  # fmt: skip
    return Evaluation(metrics=metrics, out=Path("out"), figures=())


def test_twenty_classes_are_shown_in_the_betons_order_and_every_mean_says_over_how_many_it_is() -> None:
    classes = tuple(f"class {20 - place}" for place in range(20))
    label_N = np.repeat(np.arange(20), 5)
    result = measured(classes, label_N, np.zeros_like(label_N))
    sheets = [part for part in evaluation_parts(result) if isinstance(part, Sheet)]
    headline = {row[0]: row[1:] for row in sheets[0].rows}
    assert headline["PPV, over 1 of 20 classes"][0] == "5.0 %"
    assert headline["PPV, over 1 of 20 classes"][2] == "5.0 %, 1 of 20 classes"  # always the largest class
    assert "sensitivity, over 20 of 20 classes" in headline and "accuracy" in headline
    numbered = [f"{1 + place}: {name}" for place, name in enumerate(classes)]
    by_class, matrix = sheets[1], sheets[-1]
    assert [row[0] for row in by_class.rows] == [row[0] for row in matrix.rows] == numbered
    assert matrix.headers[1:] == tuple(str(1 + place) for place in range(20))
    against = next(sheet for sheet in sheets if sheet.title.startswith("This run minus other"))
    assert any(row[0] == "PPV, over 1 of 20 classes" for row in against.rows)


def test_metrics_of_single_classes_are_in_the_classes_order_not_the_alphabets() -> None:
    result = measured(tuple("abcdefghijkl"), np.arange(24) % 12, np.arange(24) % 12)
    names = [name for name, _ in in_order(result.metrics.estimates) if name.startswith("f1[")]
    assert names == [f"f1[{place}]" for place in range(12)]


def test_two_classes_keep_their_names_and_say_how_many_define_a_mean_only_where_one_does_not() -> None:
    both = measured(("covid", "normal"), np.arange(8) % 2, np.arange(8) % 2)
    (headline, *_, matrix) = (part for part in evaluation_parts(both) if isinstance(part, Sheet))
    assert "macro F1" in [row[0] for row in headline.rows] and matrix.headers[1:] == (
        "predicted covid",
        "predicted normal",
    )
    one = measured(("covid", "normal"), np.zeros(8, int), np.zeros(8, int))
    headline = next(part for part in evaluation_parts(one) if isinstance(part, Sheet))
    assert "macro F1, over 1 of 2 classes" in [row[0] for row in headline.rows]


def test_the_figures_titles_say_over_how_many_classes_a_mean_is(monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[str] = []
    monkeypatch.setattr("engine.evaluate.results.roc_figure", lambda *given: titles.append(given[2]))
    label_N = np.array([0, 0, 1, 1])  # none of the third class
    classes = ("covid", "normal", "pneumonia")
    probability_NK, group_N = np.eye(3)[label_N], np.arange(4)
    scores = Scores(label_N=label_N, probability_NK=probability_NK, group_N=group_N, classes=classes, positive=0)
    found = estimates(label_N, probability_NK, group_N, 0, resamples=50)
    figures(scores, msgspec.structs.replace(example_metrics(), estimates=found, operating_points=[]))
    assert "mean ROC-AUC over 2 of 3 classes 1.000" in titles[0]


def test_a_temperature_at_its_bound_is_a_caution() -> None:
    def at_bound(temperature: float) -> Caution:
        return caution("temperature-at-bound", temperature=temperature)

    logits_NK = np.array([[4.0, -4.0], [3.0, -3.0], [-4.0, 4.0], [-3.0, 3.0]], np.float32)
    easy_scores = ValidationScores(labels=np.array([0, 0, 1, 1]), logits_NK=logits_NK, group_N=np.arange(4))
    easy = decide(easy_scores, 0)
    assert easy.temperature == min(TEMPERATURES) and easy.cautions() == [at_bound(min(TEMPERATURES))]
    wrong_too = decide(replace(easy_scores, logits_NK=logits_NK[[0, 2, 3, 1]]), 0)
    assert wrong_too.temperature == max(TEMPERATURES) and wrong_too.cautions() == [at_bound(max(TEMPERATURES))]
    logits_NK[1] *= -0.5
    assert decide(easy_scores, 0).cautions() == []


def test_an_operating_point_is_reported_on_the_set_under_test(run: Path, betons: Path, tmp_path: Path) -> None:
    evaluate(on(run, betons / "heldout.beton", out=tmp_path, prevalence=0.1))
    content = content_of(results_of(tmp_path))
    label_N, probability_NK = scores_of(results_of(tmp_path))
    known = [point for point in content.operating_points if point.threshold is not None]
    assert len(known) >= 2
    for point in known:
        called_N, is_covid_N = probability_NK[:, 0] >= point.threshold * (1 - 1e-8), label_N == 0
        found = {name: estimate.value for name, estimate in point.estimates.items()}
        assert found["sensitivity"] == pytest.approx(called_N[is_covid_N].mean())
        assert found["specificity"] == pytest.approx((~called_N)[~is_covid_N].mean())
        assert "ppv_at_prevalence" in found and "auc" not in found
        for name in ("sensitivity", "specificity"):
            estimate = point.estimates[name]
            assert estimate.low <= estimate.value <= estimate.high
    (refused,) = (point for point in content.operating_points if point.name == "rule-out")
    assert refused.threshold is None and refused.estimates == {}
    assert refused.refused.code == "few-validation-positives" and refused.refused.parameters["least"] == 59
    written = json.loads((results_of(tmp_path) / "metrics.json").read_text())["operating_points"]
    assert written[2]["refused"] == msgspec.to_builtins(refused.refused) and written[0]["refused"] is None
    assert content.prevalence == pytest.approx((label_N == 0).mean()) and content.stated_prevalence == 0.1


def test_every_estimate_has_its_interval_and_the_trivial_value_beside_it(
    run: Path, betons: Path, tmp_path: Path
) -> None:
    evaluate(on(run, betons / "heldout.beton", out=tmp_path))
    content = content_of(results_of(tmp_path))
    label_N, probability_NK = scores_of(results_of(tmp_path))
    names = ("accuracy", "sensitivity", "specificity", "ppv", "npv", "f1", "f1_macro", "auc", "pr_auc", "brier", "ece")
    assert set(names) <= content.estimates.keys() and content.estimates.keys() == content.trivial.keys()
    for name in ("accuracy", "auc", "brier", "f1"):
        estimate = content.estimates[name]
        assert estimate.low <= estimate.value <= estimate.high
    one = all_metrics(label_N, probability_NK, 0)
    for name in ("accuracy", "f1", "sensitivity", "specificity", "auc"):
        assert content.estimates[name].value == pytest.approx(one[name])
        assert content.trivial[name].value == pytest.approx(one["largest_class"][name])
    assert content.estimates["pr_auc"].value == pytest.approx(
        oracle.average_precision_score(label_N == 0, probability_NK[:, 0])
    )
    with Beton(betons / "heldout.beton") as beton:
        assert content.num_groups == len(np.unique(beton.rows_N["group"]))
    again = tmp_path / "again"
    evaluate(on(run, betons / "heldout.beton", out=again))
    assert content_of(results_of(again)) == content
    evaluate(on(run, betons / "heldout.beton", out=again, seed=1))
    assert content_of(results_of(again)).estimates != content.estimates


def test_weights_without_validation_scores_are_refused(run: Path, betons: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    tensors, state = load_checkpoint(run / "best.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("validation.")}
    save_checkpoint(other / "best.safetensors", kept, state)
    with pytest.raises(CheckpointError, match=r"best\.safetensors: no validation scores, expected .*; train again"):
        evaluate(on(other, betons / "heldout.beton", out=tmp_path / "a"))


def test_subgroups_by_source_view_and_flag_have_sizes_and_small_ones_no_numbers(
    run: Path, betons: Path, tmp_path: Path
) -> None:
    with Beton(betons / "heldout.beton") as beton:
        num_samples = len(beton)
        label_N, group_N, flags_N = beton.label_N.copy(), beton.rows_N["group"].copy(), beton.rows_N["flags"].copy()
    source_N = (np.arange(num_samples) < 2).astype(np.uint16)  # two samples are from there
    path = chosen(
        betons / "heldout.beton", np.arange(num_samples), tmp_path / "mixed.beton", source=source_N, view=0,
        flags=np.where(np.arange(num_samples) % 2, flags_N & ~np.uint32(2), flags_N | 2),
    )  # fmt: skip
    (result,) = evaluate(on(run, path, out=tmp_path))
    content = content_of(result.out)
    by_name = {(found.kind, found.name): found for found in content.subgroups}
    assert {kind for kind, _ in by_name} == {"source", "flag"}  # one view alone would be the whole set
    there, here = by_name["source", "there"], by_name["source", "here"]
    assert there.num_samples == 2 and there.estimates == {} and "too small" in there.refused
    assert here.num_samples == num_samples - 2 and not here.refused
    assert here.num_groups == len(np.unique(group_N[2:])) and here.num_positives == (label_N[2:] == 0).sum()
    true_N, probability_NK = scores_of(result.out)
    correct = (probability_NK.argmax(1) == true_N)[2:]
    assert here.estimates["accuracy"].value == pytest.approx(correct.mean())
    assert by_name["flag", "smaller than the stored frame"].num_samples == (num_samples + 1) // 2


@pytest.mark.parametrize("kept", [False, True])
def test_sex_and_age_are_subgroups_where_the_beton_keeps_them(
    run: Path, betons: Path, tmp_path: Path, kept: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with Beton(betons / "heldout.beton") as beton:
        number = np.arange(len(beton))
    woman_of_58, man_of_95 = demographic_flags(1, AGES.index("50-59")), demographic_flags(2, AGES.index("90 and above"))
    path = chosen(
        betons / "heldout.beton", number, tmp_path / "h.beton", source=0, view=0, demographics=kept,
        flags=PATIENT_KNOWN | np.where(number == 1, 0, np.where(number < 1, man_of_95, woman_of_58)),
    )  # fmt: skip
    settings = ["--out", tmp_path, "--resamples", 100, "--device", "cpu"]
    assert cli.main(list(map(str, ["evaluate", run, path, *settings]))) == 0
    found = content_of(results_of(tmp_path)).subgroups
    rest = len(number) - 2
    assert [(one.kind, one.name, one.num_samples) for one in found] == [
        ("sex", "female", rest), ("sex", "male", 1), ("sex", "unknown", 1),
        ("age", "50-59", rest), ("age", "90 and above", 1), ("age", "unknown", 1),
    ] * kept  # fmt: skip
    assert [bool(one.estimates) for one in found] == [True, False, False] * 2 * kept  # none of few
    shown = capsys.readouterr().out
    assert ("sex: female" in shown and "age: 90 and above" in shown) == kept


def test_the_difference_of_two_runs_is_of_the_same_samples_and_signed(
    run: Path, rival: Path, betons: Path, tmp_path: Path
) -> None:
    heldout = betons / "heldout.beton"
    evaluate(on(run, heldout, out=tmp_path / "a", against=rival))
    evaluate(on(rival, heldout, out=tmp_path / "b", against=run))
    first, second = content_of(results_of(tmp_path / "a")), content_of(results_of(tmp_path / "b"))
    assert first.difference is not None and second.difference is not None
    assert first.difference.against == "rival" and second.difference.against == "run"
    for name in ("accuracy", "auc", "brier"):
        found = first.difference.estimates[name]
        assert found.value == pytest.approx(first.estimates[name].value - second.estimates[name].value)
        assert found.low <= found.value <= found.high
        assert found.low == pytest.approx(-second.difference.estimates[name].high, abs=1e-9)


def test_a_run_to_compare_with_is_checked_like_the_first(
    run: Path, rival: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    heldout = betons / "heldout.beton"
    with pytest.raises(ConfigError, match="the run itself"):
        evaluate(on(run, heldout, against=run))
    with pytest.raises(ConfigError, match="lost: not a folder"):
        evaluate(on(run, heldout, against=tmp_path / "lost"))
    key = betons.parent / "site.key"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=phantoms), out=tmp_path / "b", size=32, seed=77, workers=1, site_key=key
        )
    )
    train(small_training(tmp_path / "b", tmp_path / "leaky"))
    with pytest.raises(InputError, match="of the training set"):  # of the second run's
        evaluate(on(run, heldout, against=tmp_path / "leaky", out=tmp_path / "e"))
    (result,) = evaluate(on(run, heldout, against=tmp_path / "leaky", out=tmp_path / "e", force=True))
    difference = result.metrics.difference
    assert difference is not None
    assert "leakage-forced" in {found.code for found in difference.cautions} - codes(result)
    tensors, state = load_checkpoint(rival / "best.safetensors")
    shutil.copytree(rival, tmp_path / "other")
    save_checkpoint(tmp_path / "other" / "best.safetensors", tensors, state | {"classes": ["covid", "tb"]})
    with pytest.raises(InputError, match=r"other: classes covid, tb, expected covid, normal"):
        evaluate(on(run, heldout, against=tmp_path / "other"))


def test_one_class_alone_has_no_auc_which_is_reported_and_no_crash(
    run: Path, betons: Path, tmp_path: Path, pictures: None
) -> None:
    with Beton(betons / "heldout.beton") as beton:
        covid_N, normal_N = (np.flatnonzero(beton.label_N == label) for label in (0, 1))
    evaluate(on(run, betons / "heldout.beton", out=tmp_path))
    kept = results_of(tmp_path) / "roc.png"
    assert kept.exists()
    for name, index_N in (("covid", covid_N), ("normal", normal_N)):
        path = chosen(betons / "heldout.beton", index_N, tmp_path / name / "heldout.beton")
        (result,) = evaluate(on(run, path, out=tmp_path))
        content = content_of(result.out)
        assert content.estimates["auc"].value is None
        assert "one-class" in codes(result)
        assert "roc.png" not in result.figures and not kept.exists()  # the earlier one is not left to mislead
        undefined = "specificity" if name == "covid" else "sensitivity"
        assert content.estimates[undefined].value is None


def test_one_sample_and_one_group_are_evaluated_without_a_false_interval(
    run: Path, betons: Path, tmp_path: Path, pictures: None
) -> None:
    one = chosen(betons / "heldout.beton", np.array([0]), tmp_path / "one.beton", conversion="1" * 32)
    with Beton(betons / "heldout.beton") as beton:
        num_samples = len(beton)
    group = chosen(betons / "heldout.beton", np.arange(num_samples), tmp_path / "group.beton", group=4)
    for result in evaluate(on(run, one, group, out=tmp_path)):
        content = content_of(result.out)
        assert content.num_groups == 1
        assert "one-group" in codes(result)
        assert all(estimate.method != "bootstrap" for estimate in content.estimates.values())


def test_an_unverified_beton_names_no_groups_and_its_samples_count_as_independent(
    run: Path, betons: Path, tmp_path: Path
) -> None:
    from tests.loaders.test_beton import strip_footer

    path = tmp_path / "foreign.beton"
    path.write_bytes(strip_footer((betons / "heldout.beton").read_bytes()))
    (result,) = evaluate(on(run, path, out=tmp_path, trust_unverified=True))
    content = content_of(result.out)
    assert content.num_groups == content.num_samples and content.subgroups == []
    assert {"unverified-beton", "groups-unknown", "frames-too-small-for-copies"} == codes(result)


def test_every_figure_that_is_named_is_a_picture(run: Path, betons: Path, tmp_path: Path, pictures: None) -> None:
    (result,) = evaluate(on(run, betons / "heldout.beton", out=tmp_path))
    assert result.figures == ("roc.png", "pr.png", "reliability.png", "confusion.png", "scores.png")
    for name in result.figures:
        assert (result.out / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("setting", "found"), [("prevalence", 0.0), ("prevalence", 1.0), ("prevalence", float("nan")), ("resamples", 5)]
)
def test_impossible_settings_are_refused(setting: str, found: float) -> None:
    with pytest.raises(ConfigError, match=f"--{setting}: found"):
        EvaluateConfig(run=Path("r"), betons=(Path("b"),), **{setting: found})


def test_the_terminal_shows_intervals_points_subgroups_matrix_and_cautions(
    run: Path, rival: Path, betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Beton(betons / "heldout.beton") as beton:
        num_samples = len(beton)
    source_N = (np.arange(num_samples) < 3).astype(np.uint16)
    path = chosen(betons / "heldout.beton", np.arange(num_samples), tmp_path / "h.beton", source=source_N)
    settings = ["--out", tmp_path, "--resamples", 100, "--prevalence", 0.2, "--against", rival, "--device", "cpu"]
    assert cli.main(list(map(str, ["evaluate", run, path, *settings]))) == 0
    shown = capsys.readouterr().out
    for part in (
        f"(h.beton): {num_samples} images of", "95 % interval", "always ", "ROC-AUC", "Brier", "youden", "No rule-out",
        "PPV at prevalence 0.2", "This run minus rival", "source: there", "too small", "predicted covid",
        "Caution, heldout-", "not for diagnosis",
    ):  # fmt: skip
        assert part in shown, part


def test_bad_input_at_the_command_line_gets_its_exit_code_and_one_line(
    run: Path, betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    heldout, empty = betons / "heldout.beton", tmp_path / "empty"
    empty.mkdir()
    for code, found, arguments in (
        (2, "--prevalence: found 2.0", [run, heldout, "--prevalence", 2]),
        (2, "--resamples: found 0", [run, heldout, "--resamples", 0]),
        (2, "the run itself", [run, heldout, "--against", run]),
        (5, f"{empty / 'best.safetensors'}: not there", [run, heldout, "--against", empty]),
        (5, f"{empty / 'best.safetensors'}: not there", [empty, heldout]),
    ):
        assert cli.main(["evaluate", *map(str, arguments)]) == code
        printed = capsys.readouterr().err.strip().splitlines()
        assert len(printed) == 1 and found in printed[0] and "expected" in printed[0]


def test_the_page_is_made_anew_after_an_evaluation(run: Path, betons: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied, ignore=shutil.ignore_patterns("evaluation", "report.html"))
    command = ["evaluate", str(copied), str(betons / "heldout.beton")]
    assert cli.main([*command, "--out", str(tmp_path / "elsewhere")]) == 0
    assert not (copied / "report.html").exists()  # nothing in the run folder changed
    assert cli.main(command) == 0
    assert (copied / "report.html").is_file()


def test_the_page_is_not_written_while_another_process_has_the_run(
    run: Path, betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run, copied, ignore=shutil.ignore_patterns("evaluation", "report.html"))
    with locked(copied):  # of two at once, one would publish what the other is in the middle of writing
        assert cli.main(["evaluate", str(copied), str(betons / "heldout.beton")]) == 0
    assert "report.html is not written" in capsys.readouterr().out
    assert (results_of(copied / "evaluation") / "metrics.json").is_file() and not (copied / "report.html").exists()


def forbid(path: Path, *mode: str, **how: Any) -> NoReturn:
    raise PermissionError(13, "Permission denied", str(path))


def test_a_set_never_replaces_the_results_of_another_whatever_its_file_is_called(
    run: Path, betons: Path, tmp_path: Path, pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Beton(betons / "heldout.beton") as beton:
        index_N, conversion_id = np.arange(len(beton)), beton.facts.conversion_id
    abroad = chosen(betons / "heldout.beton", index_N[::2], tmp_path / "b" / "heldout.beton", conversion="d" * 32)
    table = tmp_path / "b" / "convert.csv"
    with Beton(abroad) as beton:
        rows = [
            f"{n}.png,{beton.facts.classes[label]},heldout,{n},{group},written,,"
            for n, (label, group) in enumerate(zip(beton.label_N, beton.rows_N["group"], strict=True))
        ]
        head = "path,label,split,sample,group,verdict,kind,reason"
        table.write_text("\n".join([head, *reversed(rows), "lost.png,covid,,,,rejected,,truncated"]))
        assert (flow := dataflow_beside(beton)) is not None and flow.files == len(rows) + 1
        for other in ("heldout,0,9999,written", "heldout,x,0,written", "heldout,0,,written"):  # another conversion's
            table.write_text("\n".join([head, *rows[1:], f"0.png,covid,{other},"]))
            assert dataflow_beside(beton) is None
        with monkeypatch.context() as patched:  # as root may read everything
            patched.setattr(Path, "open", forbid)
            assert dataflow_beside(beton) is None
        table.write_text("\n".join([head, *reversed(rows), "lost.png,covid,,,,rejected,,truncated"]))
    copied = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "explanation"))
    (home,) = evaluate(on(copied, betons / "heldout.beton"))
    before = {path: path.read_bytes() for path in home.out.iterdir()}
    assert home.out.name == f"heldout-{conversion_id[:8]}" and len(before) > 5
    (away,) = evaluate(on(copied, abroad))
    assert away.out.name == "heldout-dddddddd"
    assert {path: path.read_bytes() for path in home.out.iterdir()} == before
    with pytest.raises(ConfigError, match=r"heldout\.beton \(heldout-.*different sets"):
        evaluate(on(copied, betons / "heldout.beton", shutil.copy(betons / "heldout.beton", tmp_path / "x.beton")))
    page = " ".join(Reader(write_report(copied).page.read_text()).text.split())
    ours, _, others = page.partition("Tested on another: dddddddd")
    assert f"Results on heldout-{conversion_id[:8]} " in ours and f"heldout-{conversion_id[:8]}" not in others
    assert f"{len(index_N[::2]) + 1} in = {len(index_N[::2])} written + 1 rejected" in others
    assert "Results on heldout-dddddddd " in others
    assert (
        "What the model relies on: heldout-dddddddd Not measured python cli.py explain RUN OTHER/heldout.beton"
        in others
    )


def test_a_foreign_beton_is_named_after_its_content(betons: Path, tmp_path: Path) -> None:
    whole = strip_footer((betons / "heldout.beton").read_bytes())
    with Beton(betons / "heldout.beton") as beton:
        place = int(beton.offset_N[0])  # of a pixel
    contents = {"a": whole, "b": whole, "c": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]}
    names = {}
    for name, content in contents.items():
        (tmp_path / f"{name}.beton").write_bytes(content)
        with Beton(tmp_path / f"{name}.beton", trust_unverified=True) as beton:
            names[name] = beton.set_name
    assert names["a"] == names["b"] != names["c"]
    assert all(re.fullmatch("unverified-[0-9a-f]{8}", name) for name in names.values())


@pytest.mark.parametrize(("split", "conversion"), [("../x", "d" * 32), ("heldout", "made up"), ("", "")])
def test_a_set_of_an_odd_split_or_conversion_has_a_name_fit_for_a_folder(
    betons: Path, tmp_path: Path, split: str, conversion: str
) -> None:
    with Beton(betons / "heldout.beton") as beton:
        facts = replace(beton.facts, split=split, conversion_id=conversion)
        write_beton(
            tmp_path / "x.beton", iter([beton.frame(0)]), beton.label_N[:1], beton.rows_N[:1].copy(), facts,
            beton.page_size,
        )  # fmt: skip
    with Beton(tmp_path / "x.beton") as beton:
        assert re.fullmatch("unverified-[0-9a-f]{8}", beton.set_name)


def test_the_figures_of_an_evaluation_and_an_explanation_have_titles_that_fit(
    run: Path, betons: Path, tmp_path: Path, pictures: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    for module in ("engine.evaluate.evaluate", "engine.explain.explain"):
        monkeypatch.setattr(f"{module}.png", lambda figure: drawn.append(figure) or png(figure))
    evaluate(on(run, betons / "heldout.beton", out=tmp_path))
    explain(ExplainConfig(run=run, beton=betons / "heldout.beton", out=tmp_path / "x", samples=1, device="cpu"))
    with Beton(betons / "heldout.beton") as beton:
        name = f"{beton.set_name} (synthetic phantoms)"
    assert len(drawn) >= 6
    for figure in drawn:
        check_texts(drawn_texts(figure), (figure.bbox.width, figure.bbox.height), ())
        assert name in " ".join(figure.get_suptitle().split()) and "\\" not in figure.get_suptitle()


def test_a_resumed_training_says_which_results_its_page_leaves_out(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("evaluation", "explanation"))
    old = copied / "evaluation" / "heldout-1f3a90bc"
    old.mkdir(parents=True)
    write_record(old / "metrics.json", example_metrics())
    assert cli.main(["train", "--resume", str(copied)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Caution, report.html: evaluation/{old.name} is of weights that the run no longer has" in shown


# ---- another collection


def collected(folder: Path, seed: int, source: str, labels: Sequence[str] = ("covid", "normal")) -> Path:
    """A manifest of phantoms under other labels, of one source, "" for an unknown one."""
    table = write_phantoms(PhantomConfig(out=folder, patients=24, images_per_patient=1, size=64, seed=seed))
    rows = csv.DictReader(table.read_text().splitlines())
    names = dict(zip(("covid", "normal"), labels, strict=True))
    lines = [f"{row['path']},{names[row['label']]},{row['patient']},{source}" for row in rows]
    (folder / "table.csv").write_text("\n".join(["path,label,patient,source", *lines]))
    return folder / "table.csv"


def beton_like(manifest: Path, like: Path, **catalog: Any) -> Path:
    """heldout.beton of a collection that is converted for a run."""
    out = manifest.parent / "out"
    key = like.parent / "site.key"
    settings = CatalogConfig(manifest=manifest, **catalog)
    convert(ConvertConfig(catalog=settings, out=out, like=like, workers=1, site_key=key))
    return out / "heldout.beton"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of a collection of one named source; its betons lie beside it in B."""
    folder = tmp_path_factory.mktemp("home")
    catalog = CatalogConfig(manifest=collected(folder / "p", 21, "Home  Hospital"))
    key = folder / "site.key"
    convert(ConvertConfig(catalog=catalog, out=folder / "B", size=32, holdout=0.25, workers=1, site_key=key))
    train(small_training(folder / "B", folder / "R", epochs=2, batch_size=8))
    return folder / "R"


@pytest.mark.parametrize(
    ("source", "expected", "told"),
    [
        ("Abroad", "external", "External collection: it shares no source with training."),
        (" home hospital", "shared-source", "The set is no external collection: it shares sources"),
        ("", "unknown-source", "It cannot be told whether this is an external collection, since sources are unknown"),
    ],
)
def test_a_collection_is_called_external_where_no_source_is_shared(
    home: Path, tmp_path: Path, source: str, expected: str, told: str
) -> None:
    beton = beton_like(collected(tmp_path / "p", 22, source), home)
    shutil.copytree(home, tmp_path / "R")
    (result,) = evaluate(on(tmp_path / "R", beton))
    assert content_of(result.out).collection == expected
    texts = [part.text for part in evaluation_parts(result) if isinstance(part, Line)]
    assert any(text.startswith(told) for text in texts)
    page = " ".join(Reader(write_report(tmp_path / "R").page.read_text()).text.split())
    assert told in page
    assert ("another collection" in judge(read_results(tmp_path / "R")).unchecked) == (expected != "external")


def test_the_runs_own_conversion_and_a_set_that_leaks_are_not_external(home: Path, tmp_path: Path) -> None:
    (own,) = evaluate(on(home, home.parent / "B" / "heldout.beton", out=tmp_path))
    assert own.metrics.collection == "own"
    again = collected(tmp_path / "p", 21, "Abroad")  # the same films, as of another source
    beton = beton_like(again, home)
    (leaked,) = evaluate(on(home, beton, out=tmp_path / "leaked", force=True))
    assert leaked.metrics.collection == "shared-source"


def test_a_run_of_an_earlier_release_kept_no_sources_so_that_nothing_can_be_called_external(
    home: Path, tmp_path: Path
) -> None:
    shutil.copytree(home, tmp_path / "R")
    tensors, state = load_checkpoint(home / "leakage.safetensors")
    assert state.pop("sources") == ["home hospital"]
    save_checkpoint(tmp_path / "R" / "leakage.safetensors", tensors, state)
    (result,) = evaluate(on(tmp_path / "R", beton_like(collected(tmp_path / "p", 22, "Abroad"), home)))
    assert result.metrics.collection == "unknown-source"


@pytest.mark.parametrize(
    ("kept", "known", "unknown"), [("covid", "sensitivity", "specificity"), ("normal", "specificity", "sensitivity")]
)
def test_a_collection_of_one_class_is_evaluated_as_far_as_it_goes(
    home: Path, tmp_path: Path, kept: str, known: str, unknown: str
) -> None:
    names = {"covid": "COVID-19", "normal": "No finding"}
    manifest = collected(tmp_path / "p", 23, "Abroad", list(names.values()))
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join([lines[0], *(line for line in lines if names[kept] in line)]))
    (result,) = evaluate(on(home, beton_like(manifest, home, map_label=(f"{names[kept]}={kept}",)), out=tmp_path / "e"))
    content = content_of(result.out)
    assert content.collection == "external" and "one-class" in codes(result)
    found = content.estimates
    assert found[known].value == found["accuracy"].value and found[known].low is not None
    assert found["auc"].value is None and found[unknown].value is None
    assert "confounded-with-source" not in codes(result), "one class alone has sources of its own"


def test_another_collection_goes_from_conversion_to_the_page(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(home, tmp_path / "R")
    manifest = collected(tmp_path / "p", 24, "Abroad", ("COVID-19", "No finding"))
    key = ["--site-key", str(home.parent / "site.key"), "--workers", "1"]
    names = ["--map-label", "covid-19=covid", "--map-label", "No finding=normal"]
    run, out = str(tmp_path / "R"), tmp_path / "E"
    assert cli.main(["convert", "--manifest", str(manifest), "--like", run, "--out", str(out), *names, *key]) == 0
    assert "heldout.beton" in capsys.readouterr().out
    assert cli.main(["evaluate", run, str(out / "heldout.beton"), "--device", "cpu", "--resamples", "100"]) == 0
    assert "External collection" in capsys.readouterr().out
    assert cli.main(["report", run, "--no-probes"]) == 0
    assert "another collection" not in capsys.readouterr().out.split("not checked: ")[1].split("\n")[0]
