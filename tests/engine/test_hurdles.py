"""A hurdles run: who is tested on what, that all cells are scored alike, and that nothing is computed twice."""

import contextlib
import csv
import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from sklearn import metrics as oracle

import cli
import engine.crossval.crossval
import engine.hurdles.hurdles
import engine.hurdles.networks
from engine.config import HurdlesConfig
from engine.crossval.folds import away_cautions
from engine.hurdles.collections import Plan, open_collections, plan_rows
from engine.hurdles.hurdles import gravest, hurdles
from engine.hurdles.networks import NetworkScores
from engine.hurdles.output import sentences
from engine.hurdles.overlaps import Overlap, find_overlaps, open_training
from engine.hurdles.results import Hurdles
from engine.train.run_folder import RunFolder, check_settings, save_settings
from engine.train.state import UNWATCHED
from loaders.atomic_file import locked
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.errors import ConfigError, InputError, IntegrityError, LockedError
from loaders.phantom.phantom import write_phantoms
from loaders.records import read_record
from loaders.settings import build
from tests.faults.beton_layout import facts_of, hashed_formerly, own_layout, with_facts
from tests.findings_example import relabel, write_findings

FAST = {"folds": 2, "seeds": 1, "epochs": 2, "device": "cpu", "resamples": 100, "batch_size": 16, "threads": 1}
FILES = ("hurdles.json", "hurdles.csv", "hurdles.png", "removed.csv")


def config(collections: Sequence[Path], out: Path, **changes: Any) -> HurdlesConfig:
    return build(HurdlesConfig, {"collections": tuple(collections), "out": out} | FAST | changes)


def converted(folder: Path, seed: int, *, keep: Any = None, **changes: Any) -> Path:
    """The betons of 14 phantoms.  keep: the lines of the table that are converted.  changes: of the conversion."""
    table = folder / f"p{seed}" / "phantoms.csv"
    if not table.exists():
        write_phantoms(PhantomConfig(out=table.parent, patients=14, size=64, seed=seed))
    if keep:
        header, *lines = table.read_text().splitlines()
        table = table.with_name(f"{len(list(table.parent.glob('*.csv')))}.csv")
        table.write_text("\n".join([header, *filter(keep, lines)]) + "\n")
    out = changes.pop("out", folder / f"B{seed}")
    usual = {"size": 32, "page_mib": 2, "workers": 1, "site_key": folder / "key"}
    if "like" in changes:
        del usual["size"]
    convert(ConvertConfig(catalog=CatalogConfig(manifest=table), out=out, **(usual | changes)))
    return out


@pytest.fixture(scope="module", autouse=True)
def _no_curves() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "draw", lambda *arguments: None)
        yield


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Two collections to train on, and one to test on alone."""
    folder = tmp_path_factory.mktemp("collections")
    first = converted(folder, 1)
    return first, converted(folder, 2), converted(folder, 3, like=first / "train.beton")


@pytest.fixture(scope="module")
def whole(three: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hurdles") / "H"
    hurdles(config(three, out))
    return out


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """A finished run, to try things on."""
    return shutil.copytree(whole, tmp_path / "H")


def result_of(out: Path) -> Hurdles:
    return read_record(Hurdles, out / "hurdles.json")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is computed: a folder for each training, and a beton for each forward pass."""
    done: list[str] = []
    train, predict = engine.crossval.crossval.train, engine.hurdles.networks.predict

    def counting_train(settings: Any, **others: Any) -> Any:
        done.append(f"train {settings.data.parent.name}")
        return train(settings, **others)

    def counting_predict(network: Any, loader: Any, *others: Any) -> Any:
        done.append(f"predict {loader.beton.path.parent.name}")
        return predict(network, loader, *others)

    monkeypatch.setattr(engine.crossval.crossval, "train", counting_train)
    monkeypatch.setattr(engine.hurdles.networks, "predict", counting_predict)
    return done


# ---- what is computed


def test_collections_with_train_and_val_are_rows_and_columns_and_a_test_set_is_a_column(
    three: tuple[Path, Path, Path], whole: Path
) -> None:
    result = result_of(whole)
    assert [(one.name, one.trained) for one in result.collections] == [("B1", True), ("B2", True), ("B3", False)]
    assert [row.name for row in result.rows] == ["B1", "B2"]
    places = {(cell.row, cell.column): cell.place for cell in result.cells}
    assert places == {
        ("B1", "B1"): "home", ("B1", "B2"): "away", ("B1", "B3"): "away",
        ("B2", "B1"): "away", ("B2", "B2"): "home", ("B2", "B3"): "away",
    }  # fmt: skip
    assert all(row.num_networks == 2 for row in result.rows)
    assert all((whole / name).is_file() for name in FILES)
    assert not list(whole.glob("networks/*/*/*.beton")) and not list(whole.glob("networks/*/*/run/last.safetensors"))


def test_every_cell_is_the_mean_of_networks_that_are_scored_singly(three: tuple[Path, Path, Path], whole: Path) -> None:
    result = result_of(whole)
    for row, folder in zip(result.rows, three[:2], strict=True):
        paths = sorted(whole.glob(f"networks/{row.identity[:12]}/*/network.json"))
        networks = [read_record(NetworkScores, path) for path in paths]
        label_N = labels(folder)
        home = [oracle.roc_auc_score(label_N[net.place] == 0, np.array(net.probability)[:, 0]) for net in networks]
        assert result.home(row.name).estimates["auc"].value == pytest.approx(np.mean(home))
        assert sorted(place for net in networks for place in net.place) == list(range(len(label_N)))
        for cell, other in zip(result.away(row.name), [path for path in three if path != folder], strict=True):
            label_M, alone, right = labels(other), [], []
            for path, net in zip(paths, networks, strict=True):
                (away,) = (
                    np.array(found["probability"])
                    for found in map(json.loads, (one.read_text() for one in (path.parent / "away").glob("*.json")))
                    if found["identity"] == next(one.identity for one in result.collections if one.name == cell.column)
                )
                alone.append(oracle.roc_auc_score(label_M == 0, away[:, 0]))
                assert net.threshold is not None
                right.append(oracle.balanced_accuracy_score(label_M == 0, away[:, 0] >= net.threshold))
            assert cell.estimates["auc"].value == pytest.approx(np.mean(alone))
            assert cell.estimates["balanced_accuracy"].value == pytest.approx(np.mean(right))
            assert [one.values["auc"] for one in cell.networks] == pytest.approx(alone)
            assert cell.drop["auc"].value == pytest.approx(np.mean(home) - np.mean(alone))
            assert cell.num_samples == len(label_M) and not cell.removed


def labels(folder: Path) -> np.ndarray:
    """The labels of a collection, as its betons have them one after the other."""
    found = []
    for name in ("train", "val", "heldout"):
        if (folder / f"{name}.beton").exists():
            with Beton(folder / f"{name}.beton") as beton:
                found.append(beton.label_N.copy())
    return np.concatenate(found)


def test_thresholds_and_temperature_are_the_networks_own_wherever_it_is_tested(whole: Path) -> None:
    result = result_of(whole)
    for row in result.rows:
        used = {
            tuple((one.seed, one.fold, one.threshold, one.temperature) for one in cell.networks)
            for cell in result.cells
            if cell.row == row.name
        }
        assert len(used) == 1


def test_a_second_call_computes_nothing_and_gives_the_same_bytes(
    three: tuple[Path, Path, Path], copied: Path, counted: list[str]
) -> None:
    before = {name: (copied / name).read_bytes() for name in FILES}
    hurdles(config(three, copied))
    assert counted == []
    assert {name: (copied / name).read_bytes() for name in FILES} == before


def test_a_collection_and_a_seed_join_what_is_done(
    three: tuple[Path, Path, Path], tmp_path: Path, counted: list[str]
) -> None:
    hurdles(config(three[:2], tmp_path / "H"))
    first = result_of(tmp_path / "H")
    counted.clear()
    hurdles(config(three, tmp_path / "H"))
    assert counted == ["predict B3"] * 4  # two networks of two rows
    assert [cell for cell in result_of(tmp_path / "H").cells if cell.column != "B3"] == first.cells
    counted.clear()
    hurdles(config(three[:2], tmp_path / "H", seeds=2))
    assert sorted(what for what in counted if what.startswith("train")) == sorted(
        f"train {path.parent.name}" for path in (tmp_path / "H").glob("networks/*/seed-1-fold-*")
    )
    assert len(list((tmp_path / "H").glob("networks/*/seed-1-fold-*"))) == 4
    more = result_of(tmp_path / "H")
    assert all(row.num_networks == 4 for row in more.rows)
    for cell, old in zip(more.cells, first.cells, strict=True):
        assert list(cell.networks[:2]) == list(old.networks)


def test_an_interrupted_one_goes_on_cell_by_cell_to_the_same_bytes(
    three: tuple[Path, Path, Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "H"
    arguments = ["hurdles", *map(str, three), "--out", str(out), "--folds", "2", "--seeds", "1", "--epochs", "2",
                 "--device", "cpu", "--resamples", "100", "--batch-size", "16", "--threads", "1"]  # fmt: skip
    whole_train, whole_away = engine.hurdles.hurdles.train_network, engine.hurdles.hurdles.predict_away
    calls = {"train": 0, "away": 0}

    def stopping(name: str, real: Any, at: int) -> Any:
        def call(*given: Any) -> Any:
            calls[name] += 1
            if calls[name] == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return real(*given)

        return call

    monkeypatch.setattr(engine.hurdles.hurdles, "train_network", stopping("train", whole_train, 3))
    assert cli.main(arguments) == 75
    assert "interrupted while training on B2; 2 finished networks of 4 are kept" in capsys.readouterr().err
    assert not (out / "hurdles.json").exists()
    monkeypatch.setattr(engine.hurdles.hurdles, "train_network", whole_train)
    monkeypatch.setattr(engine.hurdles.hurdles, "predict_away", stopping("away", whole_away, 4))
    assert cli.main(arguments) == 75
    assert "interrupted while testing on B3" in capsys.readouterr().err
    monkeypatch.setattr(engine.hurdles.hurdles, "predict_away", whole_away)
    assert cli.main(arguments) == 0
    trained = [what for what in counted if what.startswith("train")]
    assert len(trained) == 4 and counted.count("predict B3") == 4
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


# ---- collections that are what they are


def test_a_collection_of_one_class_is_tested_on_alone(three: tuple[Path, Path, Path], tmp_path: Path) -> None:
    alone = converted(tmp_path, 4, keep=lambda line: "/covid/" in line, like=three[0] / "train.beton")
    result = hurdles(config([three[0], alone], tmp_path / "H"))
    assert [row.name for row in result.rows] == ["B1"]
    (cell,) = result.away("B1")
    assert cell.class_counts[1] == 0 and cell.estimates["sensitivity"].value is not None
    assert cell.estimates["auc"].value is None and cell.estimates["specificity"].value is None
    assert "one-class" in {one.code for one in cell.cautions}


def test_a_source_of_one_class_is_a_column_and_the_rest_may_be_trained_on_together(tmp_path: Path) -> None:
    def sourced(line: str) -> str:
        """Covid films are of hospital a, normal ones of b or c."""
        covid, patient = "/covid/" in line, int("".join(filter(str.isdigit, line.split("/")[2].split("_")[0])) or 0)
        return line.replace(",phantom,", f",{'a' if covid else 'bc'[patient % 2]},").replace(
            ",synthetic,", f",{'a' if covid else 'bc'[patient % 2]},"
        )

    table = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=24, size=64, seed=8))
    header, *lines = table.read_text().splitlines()
    table.write_text("\n".join([header, *map(sourced, lines)]) + "\n")
    convert(ConvertConfig(catalog=CatalogConfig(manifest=table), out=tmp_path / "B", size=32, workers=1))
    with pytest.raises(InputError, match=r"a has films of covid alone.*expected a collection of two classes"):
        hurdles(config([tmp_path / "B"], tmp_path / "H", by="source"))
    result = hurdles(config([tmp_path / "B"], tmp_path / "H", by="source", leave_one_out=True))
    assert [row.name for row in result.rows] == ["all but b", "all but c"]
    assert all(row.confounded for row in result.rows)
    assert [cell.column for cell in result.away("all but b")] == ["b"]
    assert {one.code for one in result.cautions} == {"collection-of-one-class", "frames-too-small-for-copies"}
    assert {path.name for path in (tmp_path / "H").iterdir()} >= set(FILES)
    assert not (tmp_path / "H" / "sources").exists() and not (tmp_path / "H" / "unions").exists()


def test_all_but_one_is_trained_on_together_and_shared_patients_are_of_one_group(tmp_path: Path) -> None:
    folders = [converted(tmp_path, 1), converted(tmp_path, 2)]
    # a third collection with some of the first's films, and others
    table = tmp_path / "p9" / "phantoms.csv"
    write_phantoms(PhantomConfig(out=table.parent, patients=14, size=64, seed=9))
    first = (tmp_path / "p1" / "phantoms.csv").read_text().splitlines()[1:4]
    for line in first:
        path = line.split(",")[0]
        shutil.copy(tmp_path / "p1" / path, table.parent / path)
    table.write_text(table.read_text() + "\n".join(first) + "\n")
    folders.append(tmp_path / "B9")
    convert(ConvertConfig(catalog=CatalogConfig(manifest=table), out=folders[2], size=32, workers=1,
                          site_key=tmp_path / "key"))  # fmt: skip
    result = hurdles(config(folders, tmp_path / "H", leave_one_out=True, epochs=1))
    assert [row.name for row in result.rows] == ["B1", "B2", "B9", "all but B1", "all but B2", "all but B9"]
    assert [cell.column for cell in result.cells if cell.row == "all but B2"] == ["all but B2", "B2"]
    cell = result.cell("B1", "B9")
    assert cell is not None
    assert cell.removed == {"pixels": 3}  # B1 has them, and so its networks may have
    lines = [
        line
        for line in csv.DictReader((tmp_path / "H" / "removed.csv").read_text().splitlines())
        if line["row"] == "B1"
    ]
    assert len(lines) == sum(cell.removed.values()) and {line["column"] for line in lines} == {"B9"}
    home = result.home("all but B2")
    # the two patients of these films are in both collections, and one group each
    assert home.num_groups == result.collections[0].num_groups + result.collections[2].num_groups - 2


def test_copies_by_their_look_are_left_out_and_listed_or_tested_on_knowingly(tmp_path: Path) -> None:
    first = converted(tmp_path, 1, size=64)
    source, table = tmp_path / "p1" / "images", tmp_path / "p2" / "phantoms.csv"
    write_phantoms(PhantomConfig(out=table.parent, patients=14, size=96, seed=2))
    header, *lines = table.read_text().splitlines()
    for number, path in enumerate(sorted(source.glob("covid/*.png"))[:3]):
        film = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(table.parent / f"copy{number}.jpg"), cv2.resize(film, (90, 90)), [cv2.IMWRITE_JPEG_QUALITY, 90])
        lines.append(f"copy{number}.jpg,covid,other-{number},PA,elsewhere,,,")
    table.write_text("\n".join([header, *lines]) + "\n")
    odd = tmp_path / "caf\udcff"
    convert(ConvertConfig(catalog=CatalogConfig(manifest=table), out=odd, like=first / "train.beton", workers=1,
                          site_key=tmp_path / "key"))  # fmt: skip
    result = hurdles(config([first, odd], tmp_path / "H", epochs=1))
    (cell,) = result.away("B1")
    assert cell.removed == {"copy": 3} and cell.num_samples == len(labels(odd)) - 3
    (kept,) = hurdles(config([first, odd], tmp_path / "H", epochs=1, keep_copies=True)).away("B1")
    assert not kept.removed and kept.num_samples == len(labels(odd))
    assert "external-copies-kept" in {one.code for one in kept.cautions}
    rows = list(csv.DictReader((tmp_path / "H" / "removed.csv").read_text().splitlines()))
    assert [row["removed"] for row in rows] == ["no"] * 3 and all(float(row["similarity"]) > 0.87 for row in rows)


def test_copies_within_a_collection_lie_in_one_fold(tmp_path: Path) -> None:
    """As the first three films and their copies, which are of other patients by name."""
    table = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=14, size=96, images_per_patient=1, seed=3))
    header, *lines = table.read_text().splitlines()
    for number, line in enumerate(lines[:3]):
        path, label = line.split(",")[:2]
        film = cv2.imread(str(table.parent / path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(table.parent / f"{number}.jpg"), cv2.resize(film, (90, 90)), [cv2.IMWRITE_JPEG_QUALITY, 90])
        lines.append(f"{number}.jpg,{label},other-{number},PA,elsewhere,,,")
    table.write_text("\n".join([header, *lines]) + "\n")
    convert(ConvertConfig(catalog=CatalogConfig(manifest=table), out=tmp_path / "B", size=64, workers=1))
    result = hurdles(config([tmp_path / "B"], tmp_path / "H", epochs=1))
    assert result.collections[0].num_groups == 17 and result.home("B").num_groups == 14


def test_a_film_that_is_equal_to_one_member_and_a_copy_of_another_is_never_kept(tmp_path: Path) -> None:
    films = [("a", overlap("copy", 0.99)), ("b", overlap("pixels", None))]
    assert [(name, film.reason) for name, film in gravest(films)] == [("b", "pixels")]
    assert [film.reason for _, film in gravest([*films, ("c", overlap("copy", 1.0, sample=1))])] == ["pixels", "copy"]


def overlap(reason: str, similarity: float | None, sample: int = 0) -> Overlap:
    return Overlap(sample=sample, of=0, reason=reason, similarity=similarity)


def test_sources_that_share_a_group_for_any_reason_are_not_tested_on_it(tmp_path: Path) -> None:
    table = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=30, size=64, seed=6))
    betons = tmp_path / "B"
    convert(ConvertConfig(catalog=CatalogConfig(manifest=table), out=betons, size=32, workers=1))
    (tmp_path / "S").mkdir()
    with Beton(betons / "train.beton") as beton:
        rows_N = beton.rows_N.copy()
        rows_N["source"], rows_N["patient_hash"] = np.arange(len(beton)) % 2, 0
        facts = dataclasses.replace(beton.facts, sources=("north", "south"), split="heldout")
        frames = [beton.frame(sample) for sample in range(len(beton))]
        write_beton(tmp_path / "S" / "heldout.beton", iter(frames), beton.label_N, rows_N, facts, beton.page_size)
        north, south = (rows_N["group"][rows_N["source"] == source] for source in range(2))
        shared = int(np.isin(south, north).sum())
    assert shared
    result = hurdles(config([tmp_path / "S"], tmp_path / "H", by="source", epochs=1))
    cell = result.cell("north", "south")
    assert cell is not None and cell.removed == {"group": shared}


# ---- findings

SMALL: dict[str, Any] = {"crop": 32, "strength": 140, "counts": {"train": 40, "val": 24}}


def unlike(finding_NK: np.ndarray) -> np.ndarray:
    """Nodule's patch, by which it is learnt at home, means nothing here, and Edema is unknown."""
    finding_NK[:, 1] = np.random.default_rng(0).permutation(finding_NK[:, 1])
    finding_NK[:, 2] = np.nan
    return finding_NK


@pytest.fixture(scope="module")
def of_findings(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[Path, Path], Path]:
    """Two collections of findings, and a hurdles run of both."""
    folder = tmp_path_factory.mktemp("findings")
    home = write_findings(folder / "A", sources=("", "a"), seed=1, **SMALL)
    away = relabel(write_findings(folder / "B", sources=("", "b"), seed=2, **SMALL), unlike)
    hurdles(config((home, away), folder / "H", **LEARNING))
    return (home, away), folder / "H"


LEARNING = {"epochs": 4, "batch_size": 8, "val": 0.4}


def finding_labels(folder: Path) -> np.ndarray:
    """The labels of a collection of findings, as its betons have them one after the other."""
    found = []
    for name in ("train", "val"):
        with Beton(folder / f"{name}.beton") as beton:
            found.append(beton.labels.copy())
    return np.concatenate(found)


def test_what_a_finding_follows_at_home_only_is_a_drop_of_it_and_of_no_other(
    of_findings: tuple[tuple[Path, Path], Path],
) -> None:
    result = result_of(of_findings[1])
    assert result.classes == ["Effusion", "Nodule", "Edema"] and result.positive == ""
    (cell,) = result.away("A")
    effusion, nodule, edema = cell.findings
    assert nodule.drop["auc"].low > 0.2 > abs(effusion.drop["auc"].value)
    assert effusion.drop["auc"].low < 0 < effusion.drop["auc"].high
    assert edema.refused is not None and not edema.estimates and not edema.drop and edema.num_known == 0
    assert (cell.drop["auc"].defined, cell.drop["auc"].classes) == (2, 3)
    assert cell.drop["auc"].value == pytest.approx((nodule.drop["auc"].value + effusion.drop["auc"].value) / 2)
    named = [one.parameters["findings"] for one in cell.cautions if one.code == "findings-not-measured"]
    assert named == [["Edema"]]
    told = next(sentence for sentence in sentences(result) if sentence.startswith("Trained on A, the mean AUC is"))
    assert "over 3 of 3 findings at home" in told and "over 2 of 3 findings on B" in told
    assert "over 2 findings measured in both the drop is" in told and "Taken singly, Nodule falls by" in told


def test_each_finding_of_a_cell_is_the_mean_of_networks_that_are_scored_singly(
    of_findings: tuple[tuple[Path, Path], Path],
) -> None:
    folders, out = of_findings
    result = result_of(out)
    for row, folder, other in zip(result.rows, folders, folders[::-1], strict=True):
        paths = sorted(out.glob(f"networks/{row.identity[:12]}/*/network.json"))
        networks = [read_record(NetworkScores, path) for path in paths]
        away = [json.loads(next(path.parent.glob("away/*.json")).read_text())["probability"] for path in paths]
        home_NK, away_NK = finding_labels(folder), finding_labels(other)
        tested = {
            "home": [(home_NK[net.place], np.array(net.probability)) for net in networks],
            "away": [(away_NK, np.array(probability)) for probability in away],
        }
        for cell in (result.home(row.name), *result.away(row.name)):
            for place, one in enumerate(cell.findings):
                if one.refused:
                    continue
                areas, balanced = [], []
                for (true_NK, score_NK), net in zip(tested[cell.place], networks, strict=True):
                    known = np.isfinite(true_NK[:, place])
                    true, score, threshold = true_NK[known, place], score_NK[known, place], net.threshold[place]
                    areas.append(oracle.roc_auc_score(true, score))
                    balanced.append(oracle.balanced_accuracy_score(true, score >= (threshold or 0.5)))
                assert one.estimates["auc"].value == pytest.approx(np.mean(areas))
                assert one.estimates["balanced_accuracy"].value == pytest.approx(np.mean(balanced))
                assert [line.values["auc"] for line in one.networks] == pytest.approx(areas)
                assert [line.threshold for line in one.networks] == [net.threshold[place] for net in networks]
            measured = [one for one in cell.findings if one.refused is None]
            assert len(measured) == (3 if row.name == "A" and cell.place == "home" else 2)
            for key in ("auc", "balanced_accuracy", "brier"):
                mean = np.mean([one.estimates[key].value for one in measured])
                assert cell.estimates[key].value == pytest.approx(mean)
                assert (cell.estimates[key].defined, cell.estimates[key].classes) == (len(measured), 3)
            assert cell.networks[0].threshold is cell.networks[0].temperature is None
    assert [one.class_counts[2] for one in result.collections] == [
        int((finding_labels(folders[0])[:, 2] == 1).sum()),
        0,
    ]


def test_networks_that_cannot_have_learnt_a_finding_are_not_tested_on_it(
    of_findings: tuple[tuple[Path, Path], Path],
) -> None:
    """Those of B, where Edema is unknown, on A, where it is known."""
    (cell,) = result_of(of_findings[1]).away("B")
    edema = cell.findings[2]
    assert edema.num_known == 64 and edema.refused is not None and not edema.estimates
    assert edema.refused.code == "findings-not-in-training"
    assert [one.parameters for one in cell.cautions if one.code == edema.refused.code] == [{"findings": ["Edema"]}]
    assert "findings-not-measured" not in {one.code for one in cell.cautions}


def test_collections_of_findings_are_told_apart_over_all_films(of_findings: tuple[tuple[Path, Path], Path]) -> None:
    (probe,) = result_of(of_findings[1]).told_apart
    assert probe.auc is not None and "predict the collection" in probe.sentence and "class" not in probe.sentence


def test_a_second_call_on_findings_computes_nothing_and_damage_is_refused(
    of_findings: tuple[tuple[Path, Path], Path], tmp_path: Path, counted: list[str]
) -> None:
    folders, whole = of_findings
    out = shutil.copytree(whole, tmp_path / "H")
    hurdles(config(folders, out, **LEARNING))
    assert counted == []
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    path = next(out.glob("networks/*/seed-0-fold-1/network.json"))
    sound = json.loads(path.read_text())
    for spoilt in ({"threshold": sound["threshold"][:-1]}, {"threshold": 0.5, "temperature": 1.0}):
        path.write_text(json.dumps(sound | spoilt))
        with pytest.raises(IntegrityError, match=r"network\.json: temperatures and thresholds of \d findings"):
            hurdles(config(folders, out, **LEARNING))
    shutil.rmtree(path.parent)
    hurdles(config(folders, out, **LEARNING))  # as one that was interrupted there
    assert len([what for what in counted if what.startswith("train")]) == 1
    for name in FILES:
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_the_csv_of_findings_has_each_and_says_over_how_many_a_mean_is(
    of_findings: tuple[tuple[Path, Path], Path],
) -> None:
    rows = list(csv.DictReader((of_findings[1] / "hurdles.csv").read_text().splitlines()))
    away = {row["finding"]: row for row in rows if (row["row"], row["column"], row["metric"]) == ("A", "B", "auc")}
    assert away.keys() == {"", "Effusion", "Nodule"}
    assert (away[""]["over"], away[""]["drop_over"], away["Nodule"]["over"]) == ("2", "2", "")
    assert float(away["Nodule"]["drop"]) > 0.2


def test_sources_of_findings_are_collections_and_a_union_has_all_labels(tmp_path: Path) -> None:
    folder = write_findings(tmp_path / "S", unknown=0.3, sources=("", "x", "y"), **SMALL | {"counts": {"train": 80}})
    with Beton(folder / "train.beton") as beton:
        source_N, values_NK, group_N = beton.rows_N["source"].copy(), beton.labels.copy(), beton.rows_N["group"]
        shared = [len({*group_N[source_N == one]} & {*group_N[source_N == 3 - one]}) for one in (1, 2)]
    result = hurdles(config([folder], tmp_path / "H", by="source", epochs=1, leave_one_out=True))
    assert [row.name for row in result.rows] == ["x", "y"] and sum(shared)
    assert {one.code for one in result.cautions} >= {"left-out-like-another"}
    short = [one for row in result.rows for one in row.cautions if one.code == "few-known-to-choose"]
    assert "Effusion (2 of 2)" in short[0].parameters["findings"]  # the two folds' validation sets are of few patients
    for one, column in enumerate(result.collections, 1):
        assert column.class_counts == (values_NK[source_N == one] == 1).sum(0).tolist()
    with contextlib.ExitStack() as stack:
        others = [write_findings(tmp_path / name, unknown=0.2, seed=seed, **SMALL) for seed, name in enumerate("mn")]
        members = tuple(open_collections(others, stack))
        (tmp_path / "U").mkdir()
        union = open_training(tmp_path / "U", Plan(name="all but x", members=members, without="x"), {}, stack)
        wanted_NK = np.concatenate([member.pool.labels for member in members])
        assert np.array_equal(union.labels, wanted_NK, equal_nan=True) and np.isnan(wanted_NK).any()
        assert len(np.unique(union.group_N)) == sum(len(np.unique(member.pool.group_N)) for member in members)


def test_collections_whose_pixels_are_hashed_otherwise_cannot_be_compared_by_them_or_united(tmp_path: Path) -> None:
    """The same films twice, the second time as of another site and an earlier release."""
    folder = write_findings(tmp_path / "new", **SMALL)
    facts = {"site_key_id": "f" * 16, "conversion_id": "f" * 32}
    for path in folder.glob("*.beton"):
        with Beton(path) as beton:
            side = beton.side
        content = path.read_bytes()
        layout = own_layout(content, side)
        made = {
            "same": with_facts(content, layout, facts_of(content, layout) | facts),
            "older": hashed_formerly(content, side, **facts),
        }
        for name, changed in made.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / path.name).write_bytes(changed)
    for name, reasons in (("same", {"pixels"}), ("older", set())):
        with contextlib.ExitStack() as stack:
            members = tuple(open_collections([folder, tmp_path / name], stack))
            out = tmp_path / f"out {name}"
            shared = find_overlaps(out, members[1], members[0], UNWATCHED)
            assert {film.reason for film in shared} == reasons
            told = {one.code for one in away_cautions("x", members[1].pool.betons, members[0].pool.betons)}
            assert ("external-hashed-otherwise" in told) == (name == "older")
            if name == "older":
                with pytest.raises(InputError, match=r"hashed by blake.*convert the radiographs of .*older again"):
                    open_training(out, Plan(name="all but x", members=members, without="x"), {}, stack)
                # before anything is searched for: leaving one out unites the others
                third = replace(members[0], name="third")
                settings = HurdlesConfig(collections=(folder,), out=out, leave_one_out=True, folds=2)
                with pytest.raises(InputError, match=r"hashed by blake.*convert the radiographs of .*older again"):
                    plan_rows([*members, third], settings)


def test_findings_beside_classes_or_other_findings_are_refused(
    three: tuple[Path, Path, Path], of_findings: tuple[tuple[Path, Path], Path], tmp_path: Path
) -> None:
    (home, _), _ = of_findings
    other = write_findings(tmp_path / "O", ("Effusion", "Mass", "Edema"), seed=3, **SMALL)
    for folders, message in (
        (
            (home, three[0]),
            r"B1: labels are classes, expected findings, as .*A has; convert .* --like",
        ),
        (
            (three[0], home),
            r"A: labels are findings, expected classes, as .*B1 has; convert .* --like",
        ),
        (
            (home, other),
            r"O: findings Effusion, Mass, Edema, expected Effusion, Nodule, Edema, .*--findings, --size",
        ),
    ):
        with pytest.raises(InputError, match=message):
            hurdles(config(folders, tmp_path / "H"))
    nothing = relabel(write_findings(tmp_path / "N", seed=4, **SMALL), np.zeros_like)
    with pytest.raises(InputError, match="no finding is present in some films of N and absent in others"):
        hurdles(config([nothing], tmp_path / "H"))
    assert not (tmp_path / "H").exists()


def test_files_of_classes_have_no_fields_of_findings(whole: Path) -> None:
    assert '"findings"' not in (whole / "hurdles.json").read_text()


# ---- bad input


def test_a_collection_called_as_the_row_of_all_others_is_refused(
    three: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    odd = shutil.copytree(three[2], tmp_path / "all but B2")
    third = converted(tmp_path, 4)
    with pytest.raises(ConfigError, match="found one called 'all but B2', as the row of all others is"):
        hurdles(config([*three[:2], third, odd], tmp_path / "H", leave_one_out=True))
    assert not (tmp_path / "H").exists()


def test_a_file_of_weights_may_be_named_again(three: tuple[Path, Path, Path], copied: Path, tmp_path: Path) -> None:
    weights = next(copied.glob("networks/*/*/run/best.safetensors"))
    began = config(three, tmp_path / "H", weights=str(weights))
    save_settings(tmp_path / "H", began)
    check_settings(tmp_path / "H", began, ())
    with pytest.raises(ConfigError, match="--weights"):
        other = config(three, tmp_path / "H", weights=str(weights.with_name("other") / weights.name))
        check_settings(tmp_path / "H", other, ())


def test_other_weights_than_those_tested_at_home_are_refused(three: tuple[Path, Path, Path], copied: Path) -> None:
    one, two = sorted(copied.glob("networks/*/seed-0-fold-*/run/best.safetensors"))[:2]
    shutil.rmtree(one.parents[1] / "away")
    shutil.rmtree(one.parent)
    shutil.copytree(two.parent, one.parent)  # a whole run, with its own records
    with pytest.raises(IntegrityError, match="other weights than those that were tested at home"):
        hurdles(config(three, copied))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"size": 48}, "crops of 48, expected 32; frames of 68, expected 46"),
        ({"fit": "cover"}, "fitted by cover, expected stretch"),
        ({"positive": "normal"}, "positive class normal, expected covid"),
    ],
)
def test_betons_of_another_task_are_refused_with_what_differs(
    three: tuple[Path, Path, Path], tmp_path: Path, changes: dict[str, Any], found: str
) -> None:
    other = converted(tmp_path, 5, **changes)
    with pytest.raises(InputError, match=f"B5: {found}.*as .*B1 has; convert its radiographs with --like"):
        hurdles(config([three[0], other], tmp_path / "H"))
    assert not (tmp_path / "H").exists()


def test_the_same_conversion_twice_is_refused(three: tuple[Path, Path, Path], tmp_path: Path) -> None:
    shutil.copytree(three[0], tmp_path / "again")
    with pytest.raises(InputError, match=r"again: conversion .*expected another collection"):
        hurdles(config([three[0], tmp_path / "again"], tmp_path / "H"))
    with pytest.raises(ConfigError, match="B1 twice, expected different folders"):
        hurdles(config([three[0], three[0] / ".." / "B1"], tmp_path / "H"))


def test_fewer_groups_than_folds_and_nothing_to_train_on_are_refused(
    three: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"B1: 7 groups \(patients\) of \w+, expected at least 8, one a fold"):
        hurdles(config(three, tmp_path / "H", folds=8))
    with pytest.raises(InputError, match=r"none has train\.beton and val\.beton"):
        hurdles(config(three[2:], tmp_path / "H"))
    with pytest.raises(InputError, match=r"none of train\.beton"):
        hurdles(config([three[0], tmp_path], tmp_path / "H"))
    with pytest.raises(ConfigError, match="--by source: found 2 folders, expected one"):
        config(three[:2], tmp_path / "H", by="source")
    with pytest.raises(InputError, match=r"films of known sources: .*expected two sources or more"):
        hurdles(config(three[:1], tmp_path / "H", by="source"))


def test_other_settings_another_process_and_damage_are_refused(
    three: tuple[Path, Path, Path], copied: Path, counted: list[str]
) -> None:
    with pytest.raises(ConfigError, match=r"found --epochs 3, expected 2; repeat the old ones"):
        hurdles(config(three, copied, epochs=3))
    with locked(copied), pytest.raises(LockedError):
        hurdles(config(three, copied))
    path = next(copied.glob("networks/*/seed-0-fold-1/network.json"))
    sound = json.loads(path.read_text())
    for name, spoilt in (("probability", sound["probability"][:-1]), ("place", sound["place"][::-1])):
        path.write_text(json.dumps(sound | {name: spoilt}))
        with pytest.raises(IntegrityError, match=r"network\.json: .*expected.*; remove"):
            hurdles(config(three, copied))
    path.write_text(json.dumps(sound | {"identity": "0" * 32}))
    with pytest.raises(ConfigError, match=r"network\.json: the network was trained on other betons"):
        hurdles(config(three, copied))
    (copied / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"holds networks but no config\.json"):
        hurdles(config(three, copied))
    assert not counted
