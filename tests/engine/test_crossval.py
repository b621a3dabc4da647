"""A cross-validation: who is tested by whom, what is reported of it, and that an interrupted one goes on."""

import contextlib
import csv
import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics as oracle

import cli
import engine.crossval.crossval
from engine.config import CompareConfig, CrossvalConfig, EvaluateConfig, FoldSplit, TrainConfig
from engine.crossval.controls import Answer, beyond_outline
from engine.crossval.crossval import crossval
from engine.crossval.folds import Pool, deal_folds, open_pool, renumber
from engine.crossval.lungs import PoolLungs, pool_lungs
from engine.crossval.output import crossval_parts, not_measured, sentences, shown_targets
from engine.crossval.scores import Crossval, FindingTarget
from engine.evaluate.evaluate import evaluate
from engine.evaluate.trained import load_trained
from engine.statistics.estimates import Estimate
from engine.train.checkpoint import load_checkpoint, validation_scores
from engine.train.run_folder import BEST, RunFolder
from engine.train.state import UNWATCHED, Watch
from engine.train.summary import Summary
from loaders.audit.removals import lost_cautions, removals
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton, write_subset
from loaders.cautions import caution
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.convert.target import like_target, read_task
from loaders.errors import BetonError, CheckpointError, ConfigError, InputError, IntegrityError, Interrupted
from loaders.images.frame import LUNG_MARGIN, template_SS
from loaders.images.lungs import shipped_segmenter
from loaders.images.regions import LUNG_CONTROLS, without_region
from loaders.lungs.masks import Masks, find_masks
from loaders.output import Sheet
from loaders.phantom.phantom import write_phantoms
from loaders.records import read_record
from loaders.settings import build
from tests.example_run import crossval as example_crossval
from tests.example_run import crossval_of_lungs, estimate
from tests.findings_example import relabel, write_findings
from tests.loaders.test_beton import strip_footer

SPLITS = ("random", "group", "lungs-hidden")


def config(betons: Path, out: Path, **changes: Any) -> CrossvalConfig:
    usual = {"folds": 2, "epochs": 2, "device": "cpu", "resamples": 100, "batch_size": 16, "threads": 1}
    return build(CrossvalConfig, {"data": betons, "out": out} | usual | changes)


def converted(folder: Path, **changes: Any) -> Path:
    """The betons of some phantoms."""
    phantoms = PhantomConfig(**({"out": folder / "p", "patients": 16, "size": 64, "seed": 77} | changes))
    table = write_phantoms(phantoms)
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=table),
            out=folder / "b",
            size=32,
            page_mib=2,
            workers=1,
            site_key=folder / "key",
        )
    )
    return folder / "b"


@pytest.fixture(scope="module", autouse=True)
def _no_curves() -> Iterator[None]:
    """Trainings draw no curves here, which takes longer than their steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "draw", lambda *arguments: None)
        yield


@pytest.fixture(scope="module")
def external(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A beton of other phantoms."""
    return converted(tmp_path_factory.mktemp("external")) / "train.beton"


@pytest.fixture(scope="module")
def whole(betons: Path, external: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole cross-validation, nothing of it removed."""
    out = tmp_path_factory.mktemp("crossval") / "c"
    crossval(config(betons, out, external=external, keep=True))
    return out


def content_of(out: Path) -> Crossval:
    return read_record(Crossval, out / "crossval.json")


def rows_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "crossval.csv").read_text().splitlines()))


# ---- folds


@given(
    sizes=st.lists(st.integers(1, 4), min_size=16, max_size=40),
    num_folds=st.integers(3, 5),
    seed=st.integers(0, 2**63 - 1),
)
@settings(max_examples=40, deadline=None)
def test_folds_by_groups_share_no_group_and_test_each_sample_once_and_each_class(
    sizes: list[int], num_folds: int, seed: int
) -> None:
    group_N = np.repeat(np.arange(len(sizes)), sizes)
    label_N = group_N % 3
    folds = deal_folds(
        group_N, label_N, "abc", num_folds=num_folds, val=0.2, seed=seed, split="group", where="B"
    )  # fmt: skip
    assert sorted(np.concatenate([fold.test_N for fold in folds]).tolist()) == list(range(len(group_N)))
    for fold in folds:
        parts = [fold.train_N, fold.val_N, fold.test_N]
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(group_N)))
        groups = [set(group_N[part].tolist()) for part in parts]
        assert not (groups[0] & groups[1] or groups[0] & groups[2] or groups[1] & groups[2])
        assert all(set(label_N[part].tolist()) == {0, 1, 2} for part in parts)
    for label in range(3):
        tested = [int((label_N[fold.test_N] == label).sum()) for fold in folds]
        assert max(tested) - min(tested) <= 2 * max(sizes)


def test_random_folds_split_patients_but_stop_on_whole_groups() -> None:
    group_N = np.repeat(np.arange(30), 4)
    label_N = group_N % 2
    folds = deal_folds(group_N, label_N, "ab", num_folds=3, val=0.2, seed=0, split="random", where="B")
    assert sorted(np.concatenate([fold.test_N for fold in folds]).tolist()) == list(range(len(group_N)))
    for fold in folds:
        train, val, test = (set(group_N[part].tolist()) for part in (fold.train_N, fold.val_N, fold.test_N))
        assert train & test and not train & val
        assert abs((label_N[fold.test_N] == 0).mean() - 0.5) < 0.05


def test_groups_of_their_own_make_folds_by_groups_the_random_ones() -> None:
    group_N = renumber(np.random.default_rng(0).permutation(40))
    label_N = np.arange(40) % 2
    a, b = (
        deal_folds(group_N, label_N, "ab", num_folds=4, val=0.2, seed=3, split=split, where="B")
        for split in ("group", "random")
    )
    for x, y in zip(a, b, strict=True):
        assert (x.train_N == y.train_N).all() and (x.val_N == y.val_N).all() and (x.test_N == y.test_N).all()


def test_too_few_groups_or_images_are_refused_with_their_numbers() -> None:
    group_N = np.repeat(np.arange(9), 4)
    label_N = (group_N > 5).astype(int)
    common: dict[str, Any] = {"val": 0.2, "seed": 0, "where": "B"}
    with pytest.raises(InputError, match=r"B: class b has 3 groups.*at least 5.*lower --folds to at most 3"):
        deal_folds(group_N, label_N, "ab", num_folds=5, split="group", **common)
    with pytest.raises(InputError, match=r"B: class b has 12 images, expected at least 13"):
        deal_folds(group_N, label_N, "ab", num_folds=13, split="random", **common)
    with pytest.raises(InputError, match=r"beside test fold \d, class b keeps 1 groups.*at least 2"):
        deal_folds(group_N, label_N, "ab", num_folds=2, split="group", **common)
    with pytest.raises(
        InputError, match=r"class b has 1 groups \(patients\), expected at least 2, one a fold; convert"
    ):
        deal_folds(np.arange(5), np.array([0, 0, 0, 0, 1]), "ab", num_folds=2, split="group", **common)


@pytest.mark.parametrize("split", ["group", "random"])
def test_folds_of_findings_keep_patients_whole_and_each_finding_as_common_and_a_rare_one_is_no_error(
    split: FoldSplit,
) -> None:
    rng, group_N = np.random.default_rng(0), np.repeat(np.arange(200), 2)
    finding_NK = (rng.random((400, 3)) < (0.3, 0.1, 0)).astype(np.float32)
    finding_NK[rng.random(finding_NK.shape) < 0.2] = np.nan
    finding_NK[7, 2] = 1  # in one film of all
    folds = deal_folds(group_N, finding_NK, "abc", num_folds=5, val=0.2, seed=3, split=split, where="B")
    assert sorted(np.concatenate([fold.test_N for fold in folds]).tolist()) == list(range(400))
    for fold in folds:
        train, val, test = (set(group_N[part].tolist()) for part in (fold.train_N, fold.val_N, fold.test_N))
        assert not train & val and bool((train | val) & test) == (split == "random")
        for part_N in (fold.test_N, fold.val_N):
            share_K = np.nanmean(finding_NK[part_N, :2], axis=0)
            assert share_K == pytest.approx(np.nanmean(finding_NK[:, :2], axis=0), abs=0.04)
    hidden = deal_folds(group_N, finding_NK, "abc", num_folds=5, val=0.2, seed=3, split="lungs-hidden", where="B")
    same = [(one.test_N == other.test_N).all() for one, other in zip(folds, hidden, strict=True) if split == "group"]
    assert all(same)


def test_too_few_patients_for_folds_of_findings_are_refused() -> None:
    finding_NK = np.zeros((6, 2), np.float32)
    common: dict[str, Any] = {"val": 0.2, "seed": 0, "where": "B", "split": "group"}
    with pytest.raises(
        InputError, match=r"^B: 3 groups \(patients\), expected at least 5, one a fold; lower --folds to "
    ):
        deal_folds(np.repeat(np.arange(3), 2), finding_NK, "ab", num_folds=5, **common)
    with pytest.raises(
        InputError, match=r"^B: beside test fold \d, there are 1 groups \(patients\), expected at least 2"
    ):
        deal_folds(np.repeat(np.arange(2), 3), finding_NK, "ab", num_folds=2, **common)
    finding_NK[0, 0] = 1
    with pytest.raises(InputError, match=r"^B: beside test fold \d, no finding is present in some films to train on"):
        deal_folds(np.arange(6), finding_NK, "ab", num_folds=2, **common)


# ---- what a cross-validation does


def test_the_test_fold_is_never_seen_in_training_or_validation(betons: Path, whole: Path) -> None:
    for split in SPLITS:
        tested: list[bytes] = []
        for number in (1, 2):
            folder, parts = whole / "folds" / f"{split}-{number}", {}
            for part in ("train", "val", "heldout"):
                with Beton(folder / f"{part}.beton") as beton:
                    parts[part] = {kind: beton.rows_N[kind].copy() for kind in ("pixel_hash", "group")}
            pixels = {part: {row.tobytes() for row in found["pixel_hash"]} for part, found in parts.items()}
            groups = {part: set(found["group"].tolist()) for part, found in parts.items()}
            assert not (pixels["train"] & pixels["heldout"] or pixels["val"] & pixels["heldout"])
            assert not (pixels["train"] & pixels["val"] or groups["train"] & groups["val"])
            assert bool((groups["train"] | groups["val"]) & groups["heldout"]) == (split == "random")
            tested += [row.tobytes() for row in parts["heldout"]["pixel_hash"]]
        assert len(tested) == len(set(tested)) == content_of(whole).num_samples


def test_training_and_test_alike_see_all_but_the_lungs_and_that_only_where_they_are_hidden(
    betons: Path, whole: Path
) -> None:
    frames = {}
    for path in betons.glob("*.beton"):
        with Beton(path) as beton:
            frames |= {row.tobytes(): beton.frame(place).copy() for place, row in enumerate(beton.rows_N["pixel_hash"])}
    region_SS = lungs_of(betons)[1].region_SS
    for split in ("group", "lungs-hidden"):
        for part in ("train", "val", "heldout"):
            with Beton(whole / "folds" / f"{split}-1" / f"{part}.beton") as beton:
                for place, row in enumerate(beton.rows_N["pixel_hash"]):
                    frame_SS, before_SS = beton.frame(place), frames[row.tobytes()]
                    wanted_SS = (
                        before_SS if split == "group" else without_region(before_SS, region_SS, beton.facts.crop)
                    )
                    assert (frame_SS == wanted_SS).all()


def test_hidden_lungs_are_tested_on_the_groups_folds_and_random_folds_differ(whole: Path) -> None:
    fold_of = {
        split: {(row["beton"], row["sample"]): row["fold"] for row in rows_of(whole) if row["split"] == split}
        for split in SPLITS
    }
    assert fold_of["group"] == fold_of["lungs-hidden"] != fold_of["random"]
    assert all(len(found) == content_of(whole).num_samples for found in fold_of.values())


def scored(lines: list[dict[str, str]]) -> dict[str, float]:
    """scikit-learn's scores of rows of crossval.csv."""
    true, predicted = [line["label"] for line in lines], [line["predicted"] for line in lines]
    return {
        "accuracy": oracle.accuracy_score(true, predicted),
        "f1": oracle.f1_score(true, predicted, pos_label="covid", zero_division=0),
        "auc": oracle.roc_auc_score(np.array(true) == "covid", [float(line["probability_covid"]) for line in lines]),
    }


def test_the_table_follows_from_every_samples_scores(betons: Path, whole: Path, external: Path) -> None:
    content, scores = content_of(whole), rows_of(whole)
    assert [row.target for row in content.targets] == [*SPLITS, "external"]
    for row in content.targets:
        split = row.target
        mine = [line for line in scores if line["split"] == split]
        folds = [[line for line in mine if line["fold"] == fold] for fold in ("1", "2")]
        assert row.num_groups == len({line["group"] for line in mine})
        assert row.num_samples == len({(line["beton"], line["sample"]) for line in mine})
        tested = folds if split == "external" else [mine]  # each network alone, or all folds together
        for metric, close in (("accuracy", 1e-9), ("f1", 1e-9), ("auc", 5e-3)):
            found = getattr(row, metric)
            wanted = np.mean([scored(lines)[metric] for lines in tested])
            assert found.estimate.value == pytest.approx(wanted, abs=close), (split, metric)
            assert found.estimate.low <= found.estimate.value <= found.estimate.high
            assert found.folds == pytest.approx([scored(lines)[metric] for lines in folds], abs=close)
            assert found.mean == pytest.approx(np.mean(found.folds))
        true, predicted = [line["label"] for line in mine], [line["predicted"] for line in mine]
        assert row.confusion == oracle.confusion_matrix(true, predicted, labels=["covid", "normal"]).tolist()
        if split != "external":
            matrices = [np.array(fold.confusion) for fold in content.folds if fold.training.split == split]
            assert len(matrices) == 2 and sum(matrices).tolist() == row.confusion
    for path in betons.glob("*.beton"):  # a sample's label stands at its place in its beton
        with Beton(path) as beton:
            for line in scores:
                if line["beton"] == path.stem and line["split"] == "group":
                    assert line["label"] == beton.facts.classes[beton.label_N[int(line["sample"])]]
                    assert int(line["group"]) == beton.rows_N["group"][int(line["sample"])]
    assert content.not_for_diagnosis is True and content.settings["epochs"] == 2
    assert (whole / "crossval.png").read_bytes().startswith(b"\x89PNG")


def test_each_network_of_the_group_split_is_tested_alone_on_the_external_beton(whole: Path, external: Path) -> None:
    settings = config(Path("B"), whole)
    for number in (1, 2):
        run = whole / "folds" / f"group-{number}" / "run"
        wanted_NK = engine.crossval.crossval.test_on(settings, run, external, UNWATCHED)
        lines = [line for line in rows_of(whole) if (line["split"], line["fold"]) == ("external", str(number))]
        predicted = [float(line["probability_covid"]) for line in lines]
        assert predicted == pytest.approx(wanted_NK[:, 0].tolist(), abs=1e-6)
    assert caution("external-site-key-differs", beton="train.beton") in content_of(whole).cautions


def test_an_interrupted_one_keeps_finished_folds_and_goes_on_to_the_same_numbers(
    betons: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, real = signal.SIGTERM, engine.crossval.crossval.train
    trained = []

    def train(settings: Any, **others: Any) -> Any:
        trained.append(settings.data.name)
        if trained == ["group-1", "group-2"]:
            os.kill(os.getpid(), number)
        return real(settings, **others)

    monkeypatch.setattr(engine.crossval.crossval, "train", train)
    arguments = [
        "crossval", str(betons), "--out", str(tmp_path / "c"), "--folds", "2", "--splits", "group", "--epochs", "2",
        "--batch-size", "16", "--device", "cpu", "--resamples", "100",
    ]  # fmt: skip
    assert cli.main(arguments) == 75
    assert not (tmp_path / "c" / "crossval.json").exists()
    first = tmp_path / "c" / "folds" / "group-1"
    assert (first / "fold.json").is_file() and not list(first.glob("*.beton"))
    assert not (first / "run" / "last.safetensors").exists() and (first / "run" / "best.safetensors").exists()
    assert not (tmp_path / "c" / "folds" / "group-2" / "fold.json").exists()
    assert cli.main([*arguments, "--threads", "1"]) == 0
    assert trained == ["group-1", "group-2", "group-2"]
    names = ("split", "fold", "beton", "sample", "label", "probability_covid")
    again, once = (
        [[line[name] for name in names] for line in rows_of(out) if line["split"] == "group"]
        for out in (tmp_path / "c", whole)
    )
    assert again == once  # the same numbers twice, on a CPU
    resumed = content_of(tmp_path / "c")
    assert resumed.target("random") is None and not_measured(resumed)["random"].startswith("not measured: ")
    assert resumed.target("group") == content_of(whole).target("group")


def test_an_interruption_says_where_and_how_to_go_on(betons: Path, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match=r"group split, fold 1 of 2; 0 finished folds are kept: the same command"):
        crossval(config(betons, tmp_path / "c", splits=("group",)), Watch(stopping=lambda: True))


def copied(whole: Path, tmp_path: Path) -> Path:
    """A finished cross-validation, to try things on."""
    shutil.copytree(whole, tmp_path / "c")
    return tmp_path / "c"


def test_results_among_the_betons_are_refused(betons: Path) -> None:
    for config in (CrossvalConfig, CompareConfig):
        with pytest.raises(ConfigError, match="found the folder of the betons"):
            config(data=betons, out=betons / ".." / betons.name)


def test_other_settings_are_refused_and_a_finished_one_is_not_trained_again(
    betons: Path, external: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.crossval.crossval, "train", None)  # whoever trains fails
    out = copied(whole, tmp_path)
    with pytest.raises(ConfigError, match=r"found --dropout 0\.25, --epochs 3, expected 0\.5, 2; repeat"):
        crossval(config(betons, out, epochs=3, dropout=0.25))
    with pytest.raises(ConfigError, match=r"--seed 1"):
        crossval(config(betons, out, seed=1))
    crossval(config(betons, out))  # without the external beton
    assert (out / "crossval.json").read_text() != (whole / "crossval.json").read_text()
    assert content_of(out).targets == content_of(whole).targets[:3]
    with Beton(external) as beton:
        write_subset([(beton, np.array([0]))], tmp_path / "one.beton", "train")
    row = crossval(config(betons, out, external=tmp_path / "one.beton")).targets[3]  # joins what is finished
    assert row.num_samples == row.num_groups == 1
    assert row.auc.estimate.value is None and row.accuracy.estimate.low is None
    assert not list((out / "folds").glob("*/*.beton"))  # kept no longer


def test_a_collection_converted_like_the_pool_or_the_cross_validation_fills_the_row(
    betons: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.crossval.crossval, "train", None)  # whoever trains fails
    table = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=12, size=64, seed=78))
    for like, classes in ((betons / "train.beton", 2), (whole, 1)):
        lines = table.read_text().splitlines()
        rows = lines[1:] if classes == 2 else [line for line in lines[1:] if "/covid/" in line]
        (table.parent / "list.csv").write_text("\n".join([lines[0], *rows]))
        catalog = CatalogConfig(manifest=table.parent / "list.csv")
        out, key = tmp_path / f"b{classes}", tmp_path / "key"
        convert(ConvertConfig(catalog=catalog, out=out, like=like, workers=1, site_key=key))
        result = crossval(config(betons, copied(whole, tmp_path / str(classes)), external=out / "heldout.beton"))
        row = result.target("external")
        assert row is not None and row.num_samples == len(rows) and row.accuracy.estimate.value is not None
        assert (row.auc.estimate.value is None) == (classes == 1)
        assert not any("another collection: not measured" in str(part) for part in crossval_parts(result, tmp_path))


def test_other_betons_and_damaged_scores_are_refused(
    betons: Path, external: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.crossval.crossval, "train", None)
    out = copied(whole, tmp_path)
    with pytest.raises(ConfigError, match=r"fold\.json: the fold was made of other betons"):
        crossval(config(external.parent, out))
    assert (out / "local.json").read_bytes() == (whole / "local.json").read_bytes()  # it still names its own betons
    path = out / "folds" / "group-2" / "fold.json"
    sound = json.loads(path.read_text())
    for name, spoilt, found in (
        ("probability", sound["probability"][:-1], "scores of"),
        ("probability", [row[:1] for row in sound["probability"]], "scores of"),
        ("probability", [[float("nan"), 1.0], *sound["probability"][1:]], "no JSON"),
        ("probability", [[None, 1.0], *sound["probability"][1:]], r"field probability\.0\.0: found null"),
        ("place", sound["place"][::-1], "scores of"),
    ):
        path.write_text(json.dumps(sound | {name: spoilt}))
        with pytest.raises(IntegrityError, match=rf"group-2/fold\.json: .*{found}.*expected.*; remove it"):
            crossval(config(betons, out))
    path.write_text('{"place": 3')
    with pytest.raises(IntegrityError, match=r"group-2/fold\.json: no JSON .*; remove it"):
        crossval(config(betons, out))
    (out / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"holds folds but no config\.json"):
        crossval(config(betons, out))


def test_images_that_are_all_groups_of_their_own_are_trained_once_and_reported_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    betons = converted(tmp_path, images_per_patient=1)
    real, trained = engine.crossval.crossval.train, []

    def count(settings: TrainConfig, **others: Any) -> Summary:
        trained.append(settings)
        return real(settings, **others)

    monkeypatch.setattr(engine.crossval.crossval, "train", count)
    content = crossval(config(betons, tmp_path / "c", epochs=1, splits=("random", "group")))
    random, group = content.targets
    assert len(trained) == 2 and content.every_image_its_own_group
    assert msgspec.structs.replace(random, target="group") == group
    assert sentences(content)[0].startswith("Each image is a group of its own")
    assert Counter(row["split"] for row in rows_of(tmp_path / "c")) == {"random": 16, "group": 16}


def test_three_classes_are_scored_by_macro_means(tmp_path: Path) -> None:
    names = ("covid", "normal", "pneumonia")
    betons = converted(tmp_path, classes=names, patients=18)
    content = crossval(config(betons, tmp_path / "c", epochs=1, splits=("group",)))
    scores = rows_of(tmp_path / "c")
    (row,) = content.targets
    true, predicted = [line["label"] for line in scores], [line["predicted"] for line in scores]
    assert row.accuracy.estimate.value == pytest.approx(oracle.accuracy_score(true, predicted))
    each = oracle.f1_score(true, predicted, labels=list(names), average=None, zero_division=0)
    assert row.f1.estimate.value == pytest.approx(each.mean())
    assert np.array(row.confusion).shape == (3, 3)


# ---- lungs alone, and all but them


def lungs_of(betons: Path, **changes: Any) -> tuple[Pool, PoolLungs]:
    """The pool that is cross-validated, and its lungs."""
    with contextlib.ExitStack() as stack:
        pool = open_pool(betons, stack)
        return pool_lungs(pool, config(betons, Path("C"), **changes), UNWATCHED)


LUNG_SPLITS = ("group", "lungs-hidden", "lungs-only", "silhouette")
LACKING = 3


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Betons of phantoms, and a table of masks that lacks the first films'."""
    folder = tmp_path_factory.mktemp("drawn")
    betons = converted(folder, patients=18)
    head, *rows = (folder / "p" / "phantoms.csv").read_text().splitlines()
    (folder / "p" / "masks.csv").write_text("\n".join([head, *rows[LACKING:]]))
    return betons, folder / "p" / "masks.csv"


@pytest.fixture(scope="module")
def alone(drawn: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-validation on lungs alone and their outline, nothing of it removed."""
    out = tmp_path_factory.mktemp("alone") / "c"
    betons, masks = drawn
    crossval(config(betons, out, masks=str(masks), splits=LUNG_SPLITS, epochs=1, keep=True))
    return out


def test_films_without_a_mask_are_in_no_split_and_counted_by_reason_and_class(
    drawn: tuple[Path, Path], alone: Path
) -> None:
    betons, masks = drawn
    content, lines = content_of(alone), rows_of(alone)
    with contextlib.ExitStack() as stack:
        opened = {path.stem: stack.enter_context(Beton(path)) for path in betons.glob("*.beton")}
        given = {name: find_masks(beton, str(masks), None).path_of for name, beton in opened.items()}
        wanted = {(name, str(sample)) for name, path_of in given.items() for sample in path_of or {}}
        for split in LUNG_SPLITS:
            mine = [line for line in lines if line["split"] == split]
            assert {(line["beton"], line["sample"]) for line in mine} == wanted and len(mine) == len(wanted)
            for line in mine:
                beton = opened[line["beton"]]
                assert line["label"] == beton.facts.classes[beton.label_N[int(line["sample"])]]
    assert content.num_samples == len(wanted)
    assert content.lungs and content.lungs.lacking == {"no-mask": LACKING} and content.lungs.left_out
    assert content.lungs.num_films == content.num_samples + LACKING and content.lungs.kind == "folder"
    by_class = content.lungs.lacking_by_class
    assert sum(lost for lost, _ in by_class.values()) == LACKING
    assert {name: total - lost for name, (lost, total) in by_class.items()} == dict(
        zip(content.classes, content.class_counts, strict=True)
    )
    assert "masks-lacking" in {one.code for one in content.cautions}
    assert content.settings["masks"] == "given" and str(masks) not in (alone / "config.json").read_text()


def test_each_split_of_lungs_shows_what_it_is_named_after(drawn: tuple[Path, Path], alone: Path) -> None:
    betons, masks = drawn
    films, region_SS = {}, lungs_of(betons, masks=str(masks), splits=LUNG_SPLITS)[1].region_SS
    for path in betons.glob("*.beton"):
        with Beton(path) as beton:
            given = find_masks(beton, str(masks), None)
            for sample, row in enumerate(beton.rows_N["pixel_hash"]):
                films[row.tobytes()] = beton.frame(sample).copy(), given.frame_of(beton, sample)
    tested = dict[str, list[bytes]]()
    for split in LUNG_SPLITS:
        for part in ("train", "val", "heldout"):
            with Beton(alone / "folds" / f"{split}-2" / f"{part}.beton") as beton:
                for sample, row in enumerate(beton.rows_N["pixel_hash"]):
                    before_SS, mask_SS = films[row.tobytes()]
                    assert mask_SS is not None
                    wanted_SS = {
                        "group": before_SS, "lungs-hidden": without_region(before_SS, region_SS, beton.facts.crop)
                    }  # fmt: skip
                    wanted_SS |= {name: show(before_SS, mask_SS, 32) for name, show in LUNG_CONTROLS.items()}
                    assert (beton.frame(sample) == wanted_SS[split]).all()
                if part == "heldout":
                    tested[split] = [row.tobytes() for row in beton.rows_N["pixel_hash"]]
    assert all(found == tested["group"] for found in tested.values())


def test_weights_and_betons_of_changed_frames_serve_crossval_alone(betons: Path, alone: Path, tmp_path: Path) -> None:
    folds, shows = alone / "folds", "what `crossval` shows in its split {}, expected"
    assert load_trained(folds / "group-1" / "run").lungs == "off"
    for split in ("lungs-hidden", "silhouette"):
        with pytest.raises(CheckpointError, match=f"trained on {shows.format(split)} films.*; name a run"):
            load_trained(folds / f"{split}-1" / "run")
        with pytest.raises(InputError, match=f"frames show {shows.format(split)} whole films, as of"):
            tested = folds / f"{split}-1" / "heldout.beton"
            evaluate(EvaluateConfig(run=folds / "group-1" / "run", betons=(tested,), force=True))
        with pytest.raises(InputError, match=f"frames show {shows.format(split)} films"):
            like_target(ConvertConfig(catalog=CatalogConfig(source=betons), out=tmp_path), tested)
    assert read_task(alone).lungs == "off", "a collection is converted like whole films"


def test_lungs_alone_are_compared_with_their_outline_on_the_same_films(alone: Path) -> None:
    content = content_of(alone)
    only, outline = content.target("lungs-only"), content.target("silhouette")
    assert only and outline
    for metric in ("f1", "auc", "accuracy"):
        apart = only.beyond_outline[metric]
        wanted = getattr(only, metric).estimate.value - getattr(outline, metric).estimate.value
        assert apart.value == pytest.approx(wanted) and apart.low is not None and apart.low <= apart.value
    assert not outline.beyond_outline and "beyond_outline" not in json.loads((alone / "crossval.json").read_text())


def test_other_masks_are_refused_and_the_same_compute_nothing(
    drawn: tuple[Path, Path], alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    betons, masks = drawn
    monkeypatch.setattr(engine.crossval.crossval, "train", None)  # whoever trains fails
    out = copied(alone, tmp_path)
    same = {"splits": LUNG_SPLITS, "epochs": 1, "masks": str(masks), "keep": True}
    crossval(config(betons, out, **same))
    assert (out / "crossval.json").read_bytes() == (alone / "crossval.json").read_bytes()
    for changes in (
        {"masks": str(masks.with_name("phantoms.csv"))},  # all films have one
        {"masks": "usual"},
    ):
        with pytest.raises(
            ConfigError, match=r"group-1/fold\.json: the fold was made of other betons, samples or masks"
        ):
            crossval(config(betons, out, **same | changes))
    hidden = config(betons, out, **same | {"splits": ("lungs-hidden",)})
    with pytest.raises(ConfigError, match=r"lungs-hidden-1/fold\.json: the fold was made of other"):
        crossval(hidden)


def test_masks_of_few_films_hide_the_usual_region(drawn: tuple[Path, Path]) -> None:
    betons, masks = drawn
    usual_SS = template_SS(46, LUNG_MARGIN)
    _, given = lungs_of(betons, masks=str(masks), splits=("lungs-hidden",))
    _, usual = lungs_of(betons, masks="usual", splits=("lungs-hidden",))
    (table := masks.with_name("few.csv")).write_text("\n".join(masks.read_text().splitlines()[:30:2]))
    kept, few = lungs_of(betons, masks=str(table), splits=("lungs-hidden",))
    assert (few.region_SS == usual_SS).all() and (usual.region_SS == usual_SS).all()
    made = [one.made_with("lungs-hidden") for one in (few, usual, replace(usual, region_SS=~usual_SS), given)]
    assert made[0] == made[1] and len({*made, given.made_with("lungs-only")}) == 4, "each region is another"
    assert [one.code for one in few.cautions] == ["usual-region-hidden"] and not usual.cautions
    assert len(kept.labels) == few.use.num_films, "lungs-hidden needs no mask of each film"
    assert given.use.region_cover is not None and given.use.region_cover > 0.97 > given.use.region_share


def test_found_masks_are_of_nets_that_saw_neither_film_nor_group(betons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Beton(betons / "train.beton") as beton:
        groups = beton.rows_N["group"]
        seen = beton.rows_N["pixel_hash"][0].tobytes().hex()
        of_group = int((groups == groups[0]).sum())
    record = shipped_segmenter().record
    nets = [msgspec.structs.replace(record.nets[0], pixels=[seen]), msgspec.structs.replace(record.nets[1], pixels=[])]
    for saw, problems in (([nets[0], nets[1]], {}), ([nets[0], nets[0]], {"lungs-seen": of_group})):
        other = replace(shipped_segmenter(), record=msgspec.structs.replace(record, nets=saw))
        monkeypatch.setattr("loaders.lungs.masks.load_segmenter", lambda name, other=other: other)
        _, lungs = lungs_of(betons, splits=("lungs-only",))
        assert lungs.use.num_seen == of_group and lungs.use.segmenter == record.identity
        assert {code: count for code, count in lungs.use.lacking.items() if code == "lungs-seen"} == problems


def test_a_share_without_masks_that_differs_between_classes_is_named() -> None:
    label_N, even_N = np.arange(60) % 2, np.arange(60) // 2 % 2 == 0
    assert not lost_cautions(removals(("covid", "normal"), label_N, even_N), findings=False)
    (found,) = lost_cautions(removals(("covid", "normal"), label_N, label_N == 0), findings=False)
    assert found == caution("lungs-lost-by-class", left_out={"covid": 100.0, "normal": 0.0})
    label_NK = np.stack([label_N == 0, even_N], axis=1).astype(np.float32)
    (found,) = lost_cautions(removals(("Mass", "Edema"), label_NK, label_N == 0), findings=True)
    assert found == caution("lungs-lost-by-finding", findings=["Mass"])


def test_betons_of_lungs_alone_and_masks_that_nothing_needs_are_refused(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Beton(betons / "val.beton") as beton:
        frames = [beton.frame(sample) for sample in range(len(beton))]
        facts = replace(beton.facts, lungs="masked", segmenter="given")
        write_beton(tmp_path / "val.beton", frames, beton.label_N, beton.rows_N, facts, beton.page_size)
    with pytest.raises(InputError, match=r"of --lungs masked, expected whole ones for lungs-hidden; name other splits"):
        crossval(config(tmp_path, tmp_path / "c"))
    monkeypatch.setattr(Masks, "each", lambda masks, beton, index_N: [(None, "lungs-missing")] * len(index_N))
    with pytest.raises(InputError, match=r"no film with a credible mask of its lungs \(no lungs found\)"):
        crossval(config(betons, tmp_path / "c", splits=("lungs-only",)))
    for changes in ({"masks": "M"}, {"segmenter": "S"}, {"table": Path("T")}):
        with pytest.raises(ConfigError, match=r"found --splits random,group, expected one that needs masks"):
            config(betons, tmp_path / "c", splits=("random", "group"), **changes)


# ---- findings

FINDINGS = ("Effusion", "Nodule", "Edema", "Rare")
FAST = {"epochs": 1, "val": 0.4, "splits": ("random", "group")}


def with_a_rare_one(finding_NK: np.ndarray) -> np.ndarray:
    """The last finding is present in one film."""
    finding_NK[:, 3] = np.arange(len(finding_NK)) == 0
    return finding_NK


def lacking(finding_NK: np.ndarray) -> np.ndarray:
    """The second finding is unknown."""
    finding_NK[:, 1] = np.nan
    return finding_NK


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Betons of findings, another beton that lacks one, and a cross-validation of both."""
    folder = tmp_path_factory.mktemp("findings")
    small: dict[str, Any] = {"names": FINDINGS, "crop": 32, "unknown": 0.15, "strength": 120}
    betons = relabel(write_findings(folder / "B", counts={"train": 70, "val": 30}, **small), with_a_rare_one)
    abroad = relabel(write_findings(folder / "A", counts={"heldout": 60}, seed=5, **small), lacking)
    crossval(config(betons, folder / "C", external=abroad / "heldout.beton", **FAST))
    return betons, abroad / "heldout.beton", folder / "C"


def scored_finding(lines: list[dict[str, str]], name: str) -> dict[str, float]:
    """scikit-learn's scores of one finding over its known films in rows of crossval.csv."""
    known = [line for line in lines if line[f"label_{name}"]]
    true, predicted = ([int(line[f"{what}_{name}"]) for line in known] for what in ("label", "predicted"))
    return {
        "accuracy": oracle.accuracy_score(true, predicted),
        "f1": oracle.f1_score(true, predicted, zero_division=0),
        "auc": oracle.roc_auc_score(true, [float(line[f"probability_{name}"]) for line in known]),
    }


def test_each_finding_is_scored_over_its_known_films_and_means_say_over_how_many(
    findings: tuple[Path, Path, Path],
) -> None:
    _, _, out = findings
    content, lines = content_of(out), rows_of(out)
    assert [row.target for row in content.targets] == ["random", "group", "external"] and content.positive == ""
    for row in content.targets:
        mine = [line for line in lines if line["split"] == row.target]
        folds = [[line for line in mine if line["fold"] == fold] for fold in ("1", "2")]
        measured = [one for one in row.findings if one.refused is None]
        assert [one.name for one in measured] == [
            name for name in FINDINGS if name != ("Nodule" if row.target == "external" else "Rare")
        ]
        for one in measured:
            known = [line for line in folds[0] + folds[1] if line[f"label_{one.name}"]]
            times = 2 if row.target == "external" else 1  # each network is tested on all of it
            assert one.num_known == len(known) / times
            assert one.num_present == sum(line[f"label_{one.name}"] == "1" for line in known) / times
            assert np.sum(one.confusion) == len(known)
            tested = folds if row.target == "external" else [mine]
            for metric, close in (("f1", 1e-9), ("accuracy", 1e-9), ("auc", 5e-3)):
                found = getattr(one, metric)
                wanted = np.mean([scored_finding(part, one.name)[metric] for part in tested])
                assert found.estimate.value == pytest.approx(wanted, abs=close)
                each = [scored_finding(part, one.name)[metric] for part in folds]
                assert found.folds == pytest.approx(each, abs=close) and found.spread is not None
        for metric in ("f1", "auc", "accuracy"):
            mean = getattr(row, metric)
            of_each = [getattr(one, metric) for one in measured]
            assert mean.estimate.value == pytest.approx(np.mean([one.estimate.value for one in of_each]))
            assert (mean.estimate.defined, mean.estimate.classes) == (3, 4)
            assert mean.folds == pytest.approx([np.mean([one.folds[fold] for one in of_each]) for fold in range(2)])


def test_a_rare_finding_is_named_and_undefined_and_never_0_or_1(findings: tuple[Path, Path, Path]) -> None:
    _, _, out = findings
    content = content_of(out)
    rare = content.targets[1].findings[3]
    assert rare.refused is not None and rare.num_present == 2
    assert rare.f1.estimate.value is rare.auc.estimate.value is rare.f1.mean is None and rare.f1.folds == [None, None]
    assert caution("findings-not-measured", findings=["Rare"], least=5) in content.cautions


def test_a_finding_is_predicted_from_its_folds_own_threshold_of_the_highest_f1_on_validation(
    findings: tuple[Path, Path, Path],
) -> None:
    _, _, out = findings
    for fold in content_of(out).folds:
        training = fold.training
        run = out / "folds" / f"{training.split}-{training.fold}" / "run"
        scores = validation_scores(load_checkpoint(run / BEST)[0], run / BEST)
        lines = [line for line in rows_of(out)
                 if (line["split"], line["fold"]) == (training.split, str(training.fold))]  # fmt: skip
        for place, (name, threshold) in enumerate(zip(FINDINGS, training.thresholds, strict=True)):
            cut = 0.5 if threshold is None else threshold
            for line in lines:
                over = float(line[f"probability_{name}"]) - cut  # which is written to six decimals
                assert line[f"predicted_{name}"] == str(int(over >= 0)) or abs(over) < 1e-6
            if threshold is not None:
                known = np.isfinite(scores.labels[:, place])
                true, score = scores.labels[known, place], expit(scores.logits_NK[known, place].astype(float))
                best = max(oracle.f1_score(true, score >= value) for value in score)
                assert oracle.f1_score(true, score >= threshold) == pytest.approx(best)
        assert training.thresholds[3] is None and any(training.thresholds)


def test_splits_of_findings_differ_by_pairs(findings: tuple[Path, Path, Path]) -> None:
    _, _, out = findings
    content = content_of(out)
    random, group, abroad = content.targets
    for metric in ("f1", "auc", "accuracy"):
        apart = content.differences["random"][metric]
        assert apart.value == pytest.approx(
            getattr(random, metric).estimate.value - getattr(group, metric).estimate.value
        )
        assert apart.low is not None and apart.low <= apart.value and apart.defined == 3
        for one, other in zip(random.findings, group.findings, strict=True):
            if one.refused is None:
                wanted = getattr(one, metric).estimate.value - getattr(other, metric).estimate.value
                assert one.difference[metric].value == pytest.approx(wanted)
    assert not any(one.difference for one in (*group.findings, *abroad.findings, random.findings[3]))


def test_lungs_alone_are_compared_with_their_outline_finding_by_finding(
    findings: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    splits = ("lungs-only", "silhouette")
    content = crossval(config(findings[0], tmp_path / "c", **FAST | {"splits": splits, "masks": "usual"}))
    only, outline = content.targets
    for one, other in zip(only.findings, outline.findings, strict=True):
        if one.refused is None:
            wanted = one.auc.estimate.value - other.auc.estimate.value
            assert one.beyond_outline["auc"].value == pytest.approx(wanted) and not one.difference
    assert only.beyond_outline["auc"].defined == 3 and not only.findings[3].beyond_outline
    assert content.lungs and content.lungs.kind == "template" and not content.lungs.lacking
    assert any("mean AUC" in text and "their outline" in text for text in sentences(content))


def test_a_finished_cross_validation_of_findings_computes_nothing_and_damage_is_refused(
    findings: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    betons, abroad, whole = findings
    out = copied(whole, tmp_path)
    again = config(betons, out, external=abroad, **FAST)
    monkeypatch.setattr(engine.crossval.crossval, "train", None)  # whoever trains fails
    crossval(again)
    for name in ("crossval.json", "crossval.csv", "crossval.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    path = out / "folds" / "group-1" / "fold.json"
    sound = json.loads(path.read_text())
    for thresholds in (sound["training"]["thresholds"][:-1], []):
        spoilt = sound | {"training": sound["training"] | {"thresholds": thresholds}}
        path.write_text(json.dumps(spoilt))
        with pytest.raises(
            IntegrityError, match=r"group-1/fold\.json: .*thresholds, expected 4, one a finding; remove it"
        ):
            crossval(again)
    path.unlink()
    shutil.rmtree(path.parent / "run")
    monkeypatch.undo()
    monkeypatch.setattr(RunFolder, "draw", lambda *arguments: None)
    crossval(again)  # as one that was interrupted there
    for name in ("crossval.json", "crossval.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_an_external_beton_of_classes_or_other_findings_is_refused(
    findings: tuple[Path, Path, Path], external: Path, betons: Path, tmp_path: Path
) -> None:
    mine, abroad, _ = findings
    other = write_findings(tmp_path / "B", ("Effusion", "Mass"), counts={"heldout": 4}, crop=32) / "heldout.beton"
    for data, found, message in (
        (mine, external, r"train\.beton: a beton of classes, expected one of findings .*--like"),
        (betons, abroad, r"heldout\.beton: a beton of findings, expected one of classes .*--like"),
        (mine, other, r"findings Effusion, Mass, expected Effusion, Nodule, Edema, Rare in this order"),
    ):
        with pytest.raises(InputError, match=message):
            crossval(config(data, tmp_path / "c", external=found))
    nothing = relabel(write_findings(tmp_path / "N", counts={"train": 8}, crop=32), np.zeros_like)
    with pytest.raises(InputError, match="8 images, and no finding that is present in some and absent in others"):
        crossval(config(nothing, tmp_path / "c"))
    assert not (tmp_path / "c").exists()


def test_the_terminal_has_a_line_a_finding_and_says_which_means_leave_some_out(
    findings: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    content = content_of(findings[2])
    folds, headline, by_finding, *others = crossval_parts(content, tmp_path)
    assert isinstance(folds, Sheet) and isinstance(headline, Sheet) and isinstance(by_finding, Sheet)
    assert headline.rows[1][3].endswith("3 of 4 findings") and "matrix" not in folds.headers
    assert [row[0] for row in headline.rows[-2:]] == ["always the commoner", "always present"]
    scores = {one.name: one.f1.estimate.value for one in content.targets[1].findings}
    order = [row[0] for row in by_finding.rows]
    assert order[-1] == "Rare" and [scores[name] for name in order[:-1]] == sorted(scores[name] for name in order[:-1])
    assert by_finding.rows[-1][1].startswith("2 of ") and by_finding.rows[-1][2] == "undefined"
    assert by_finding.headers[-1] == "ROC-AUC, another collection"
    assert any(part.text.startswith("Mean F1 is ") for part in others if not isinstance(part, Sheet))


def test_a_difference_of_findings_by_their_thresholds_alone_is_not_called_recognising_patients() -> None:
    wide = {"f1": estimate(0.05, low=0.02, high=0.08), "auc": estimate(0.01, low=-0.02, high=0.04)}
    for auc, sure in ((wide["auc"], False), (estimate(0.03, low=0.01, high=0.05), True)):
        result = example_crossval(positive="", differences={"random": wide | {"auc": auc}})
        assert (", and the network recognises patients" in sentences(result)[0]) is sure


def test_files_of_classes_have_no_fields_of_findings(whole: Path) -> None:
    text = (whole / "crossval.json").read_text() + (whole / "folds" / "group-1" / "fold.json").read_text()
    assert '"findings"' not in text and '"thresholds"' not in text


# ---- bad input


def refused(capsys: pytest.CaptureFixture[str], arguments: list[object], code: int, *expected: str) -> None:
    """The command ends with a code and one clear line."""
    assert cli.main(["crossval", *map(str, arguments)]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error
    for part in expected:
        assert part in error


def test_bad_folders_end_with_one_clear_line(betons: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", tmp_path / "c"]
    refused(capsys, [tmp_path / "none", *out], 3, "none of train.beton, val.beton, heldout.beton")
    refused(capsys, [betons, *out, "--folds", 1], 2, "--folds: found 1, expected 2 to 100")
    refused(capsys, [betons, *out, "--splits", "group,groups"], 2, "random,group,lungs-hidden")
    refused(capsys, [betons, *out, "--splits", "random", "--external", "x.beton"], 2, "expected group among them")
    refused(capsys, [betons, *out, "--folds", 60, "--splits", "group"], 3, "class covid has 20 groups (patients)")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.beton").write_text("no beton")
    refused(capsys, [tmp_path / "text", *out], 5, "train.beton")
    (tmp_path / "text" / "train.beton").write_bytes(strip_footer((betons / "train.beton").read_bytes()))
    refused(capsys, [tmp_path / "text", *out], 3, "train.beton: no plainfilm footer", "expected a beton of")
    with Beton(betons / "train.beton") as beton:
        (tmp_path / "one").mkdir()
        write_subset([(beton, np.flatnonzero(beton.label_N == 1))], tmp_path / "one" / "train.beton", "train")
        refused(capsys, [tmp_path / "one", *out], 3, "all of class normal, expected two classes or more")
        (tmp_path / "single").mkdir()
        write_subset([(beton, np.array([0]))], tmp_path / "single" / "val.beton", "val")
        refused(capsys, [tmp_path / "single", *out], 3, "1 images, all of class")
    shutil.copytree(betons, tmp_path / "mixed")
    with Beton(betons / "val.beton") as beton:
        frames = [beton.frame(sample) for sample in range(len(beton))]
        facts = replace(beton.facts, conversion_id="another")
        path = tmp_path / "mixed" / "val.beton"
        write_beton(path, frames, beton.label_N, beton.rows_N, facts, beton.page_size)
    refused(capsys, [tmp_path / "mixed", *out], 3, "val.beton: of conversion another", "expected one conversion")
    assert not (tmp_path / "c").exists()


def test_an_external_beton_of_the_same_patients_another_size_or_other_classes_is_refused(
    betons: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"heldout\.beton: shares \d+ images with .*expected none"):
        crossval(config(betons, tmp_path / "c", external=betons / "heldout.beton"))
    with Beton(betons / "heldout.beton") as beton:
        frames = [beton.frame(sample) for sample in range(len(beton))]
        for name, facts in (
            ("classes covid, other, expected covid, normal", replace(beton.facts, classes=("covid", "other"))),
            ("frames of .* with crops of 30, expected", replace(beton.facts, crop=30)),
        ):
            write_beton(tmp_path / "x.beton", frames, beton.label_N, beton.rows_N, facts, beton.page_size)
            with pytest.raises(InputError, match=name):
                crossval(config(betons, tmp_path / "c", external=tmp_path / "x.beton"))
    with pytest.raises((BetonError, OSError), match=r"none\.beton"):
        crossval(config(betons, tmp_path / "c", external=tmp_path / "none.beton"))


# ---- sentences


def test_what_random_folds_add_is_called_recognising_patients_only_where_the_interval_says_so() -> None:
    low, value, high = 0.02, 0.05, 0.08
    sure = sentences(example_crossval(differences={"random": {"f1": estimate(value, low=low, high=high)}}))[0]
    assert "0.050 higher" in sure and ", and the network recognises patients" in sure
    unsure = sentences(example_crossval(differences={"random": {"f1": estimate(value, low=-low, high=0.12)}}))[0]
    assert "neither shows nor excludes" in unsure and ", and the network recognises patients" not in unsure


def test_hidden_lungs_are_called_needless_only_where_the_interval_is_above_guessing() -> None:
    assert "can be predicted without the lungs, so" in sentences(example_crossval(hidden=0.9))[0]
    assert "neither shows nor excludes" in sentences(example_crossval(hidden=0.52))[0]


@pytest.mark.parametrize(
    ("scores", "named"),
    [
        ({"Edema": 0.9, "Mass": 0.5}, " Taken singly, Edema can be predicted without them."),
        ({"Edema": 0.9, "Mass": 0.8}, " Taken singly, Edema, Mass can be predicted without them."),
        ({"Edema": 0.5}, ""),
    ],
)
def test_findings_that_need_no_lungs_are_named(scores: dict[str, float], named: str) -> None:
    result = msgspec.structs.replace(example_crossval(hidden=0.52), positive="", classes=list(scores))
    hidden = result.target("lungs-hidden")
    assert hidden is not None
    of_finding = [
        FindingTarget(
            name=name, num_known=100, num_present=30, num_groups=80, f1=found, auc=found, accuracy=found,
            refused=None, confusion=[[1, 2], [3, 4]], difference={},
        )
        for name, score in scores.items()
        for found in [msgspec.structs.replace(hidden.auc, estimate=msgspec.convert(estimate(score), Estimate))]
    ]  # fmt: skip
    targets = [msgspec.structs.replace(hidden, findings=of_finding)]
    (sentence,) = sentences(msgspec.structs.replace(result, targets=targets))
    assert f"the findings can be predicted without the lungs.{named} The network was given" in sentence


@pytest.mark.parametrize(
    ("lungs", "outline", "apart", "answer"),
    [
        (0.97, 0.7, (0.27, 0.2, 0.34), "more"),
        (0.97, 0.96, (0.01, -0.01, 0.03), "none"),
        (0.9, 0.92, (-0.02, -0.06, 0.02), "none"),
        (0.9, 0.92, (-0.02, -0.1, 0.06), "unknown"),
        (0.9, 0.8, (0.1, -0.02, 0.22), "unknown"),
        (0.52, 0.3, (0.22, 0.1, 0.34), "unknown"),  # no better than guessing
    ],
)
def test_lungs_alone_are_evidence_only_where_they_show_more_than_their_outline(
    lungs: float, outline: float, apart: tuple[float, float, float], answer: Answer
) -> None:
    result = crossval_of_lungs(lungs, outline, apart)
    assert beyond_outline(result.target("lungs-only")) == answer
    (text,) = (line for line in sentences(result) if line.startswith("The lungs alone"))
    said = {"more": "adds to their outline (difference", "none": "are no evidence here", "unknown": "cannot be told"}
    assert [name for name, words in said.items() if words in text] == [answer]
    assert ("The outline alone tells the label" in text) is (outline > 0.6)


def test_lungs_alone_without_their_outline_are_called_no_evidence() -> None:
    (text,) = (line for line in sentences(crossval_of_lungs(0.97, None)) if line.startswith("The lungs alone"))
    assert "no evidence without the outline beside it: run `crossval` with silhouette" in text


def test_whose_masks_they_are_and_what_remains_unknown_is_said(alone: Path) -> None:
    content = content_of(alone)
    assert content.lungs
    assert f"of the lungs in {content.lungs.region_masks} masks on average" in " ".join(sentences(content))
    for changes, said in (
        ({"kind": "phantom"}, "The masks are the phantoms’ own"),
        ({"kind": "folder"}, "The masks were given"),
        ({"kind": "template"}, "no outline differs"),
        ({"kind": "segmenter", "num_trained": 34, "sources": ["v7labs"]}, "`segment-train --out S` without --manifest"),
        ({"kind": "segmenter", "num_phantoms": 300}, "learnt from no film of these classes"),
    ):
        use = msgspec.structs.replace(content.lungs, **changes)
        text = " ".join(sentences(msgspec.structs.replace(content, lungs=use)))
        assert said in text and ("What remains unknown" in text) is (use.kind != "template")
    assert "remains unknown" not in " ".join(sentences(example_crossval()))


def test_controls_that_were_not_measured_are_one_line_and_have_no_rows(whole: Path, tmp_path: Path) -> None:
    parts = crossval_parts(content_of(whole), tmp_path)
    (line,) = (part.text for part in parts if not isinstance(part, Sheet) and part.text.startswith("Not measured: "))
    assert "--splits group,lungs-hole,lungs-only,silhouette,boxed,boxed-silhouette" in line
    assert shown_targets(content_of(whole)) == ["random", "group", "lungs-hidden", "external"]
    assert shown_targets(crossval_of_lungs(0.9, 0.8))[2:] == ["lungs-hidden", "lungs-only", "silhouette", "external"]


def test_the_terminal_says_what_is_not_measured_and_the_score_of_guessing(whole: Path, tmp_path: Path) -> None:
    content = msgspec.structs.replace(content_of(whole), targets=content_of(whole).targets[:3])
    parts = crossval_parts(content, tmp_path)
    table = next(part for part in parts if isinstance(part, Sheet) and part.title.startswith("Headline and honest"))
    assert [row[0] for row in table.rows] == [
        "random split", "group split", "lungs hidden", "another collection", "always covid",
    ]  # fmt: skip
    assert "not measured" in table.rows[3] and all(len(row) == len(table.headers) for row in table.rows)
    assert any(
        "another collection: not measured: run `crossval` with --external" in part.text
        for part in parts
        if not isinstance(part, Sheet)
    )


def test_means_that_leave_classes_out_say_so_and_a_matrix_of_many_classes_is_left_to_the_file(
    whole: Path, tmp_path: Path
) -> None:
    found, f1 = content_of(whole), Estimate(value=0.5, low=0.4, high=0.6, method="bootstrap", defined=18, classes=20)
    first, fold = found.targets[0], found.folds[0]
    content = msgspec.structs.replace(
        found,
        classes=[f"class {place}" for place in range(20)],
        targets=[msgspec.structs.replace(first, f1=msgspec.structs.replace(first.f1, estimate=f1))],
        folds=[msgspec.structs.replace(fold, estimates=fold.estimates | {"f1": f1})],
    )
    folds, table, *others = crossval_parts(content, tmp_path)
    assert isinstance(folds, Sheet) and isinstance(table, Sheet)
    assert folds.rows[0][3] == "0.500, 18 of 20 classes" and "matrix" not in folds.headers
    assert table.rows[0][3] == "0.500 (0.400–0.600), 18 of 20 classes"
    assert any("matrix is in crossval.json" in part.text for part in others if not isinstance(part, Sheet))
    two, *_ = crossval_parts(content_of(whole), tmp_path)
    assert isinstance(two, Sheet) and "matrix" in two.headers
