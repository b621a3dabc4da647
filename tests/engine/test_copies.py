"""Copies: films of a test set that training has, too, by frames or by looks, are left out of the score and listed."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import cli
from engine.config import CrossvalConfig, EvaluateConfig
from engine.crossval.crossval import crossval
from engine.evaluate.copies import shared_films
from engine.evaluate.evaluate import Evaluation, evaluate
from engine.evaluate.output import evaluation_parts
from engine.evaluate.results import Metrics
from engine.report.report import write_report
from engine.report.results import read_results
from engine.report.verdict import judge
from engine.train.checkpoint import load_checkpoint, save_checkpoint
from engine.train.leakage import load_record
from engine.train.run_folder import load_config
from engine.train.state import Watch
from engine.train.train import train
from loaders.audit.copies import LOOK_BYTES, Copy
from loaders.beton.reader import Beton
from loaders.cautions import caution
from loaders.config import ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.errors import InputError, Interrupted
from loaders.output import Line
from loaders.phantom.phantom import write_phantoms
from loaders.records import read_record
from loaders.settings import build
from tests.engine.test_evaluate import chosen
from tests.example_run import small_training
from tests.faults.beton_layout import hashed_formerly
from tests.loaders.test_audit_page import Reader
from tests.loaders.test_beton import strip_footer

COPIED = {"train": 3, "val": 2}  # films of home in the other collection
FILES = ("metrics.json", "scores.csv", "copies.csv")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Betons at home and runs on them; betons of another collection with copies of some films of home.

    planted: samples of the other collection → the set at home and the sample there.
    """

    home: Path
    run: Path
    unseen: Path
    away: Path
    planted: dict[int, tuple[str, int]]

    def moved(self, folder: Path, run: Path | None = None) -> Path:
        """A copy of a run that came without its local.json, so that its betons are not at hand."""
        shutil.copytree(run or self.run, folder)
        (folder / "local.json").unlink()
        return folder


def converted(table: Path, out: Path, **settings: Any) -> dict[str, dict[str, str]]:
    """Betons of a table of films, and what convert.csv says of each file."""
    usual = {"manifest": table, "workers": 1, "page_mib": 2, "site_key": table.parent.parent / "key"}
    convert(build(ConvertConfig, usual | settings | {"out": out}))
    with (out / "convert.csv").open(newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file) if row["verdict"] == "written"}


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("copies")
    phantoms = {"patients": 24, "images_per_patient": 1, "size": 256}
    tables = [
        write_phantoms(PhantomConfig(out=folder / name, seed=seed, **phantoms)) for name, seed in (("p", 1), ("q", 3))
    ]
    of_home = converted(tables[0], folder / "b", val=0.3, size=96)
    lines = tables[1].read_text().splitlines()
    copies = {}
    for name, number in COPIED.items():
        for path in [path for path, row in of_home.items() if row["split"] == name][:number]:
            film_HW = cv2.imread(str(folder / "p" / path), cv2.IMREAD_GRAYSCALE)
            smaller_HW = cv2.resize(film_HW, (190, 190), interpolation=cv2.INTER_AREA)
            copy = f"{name}-{len(copies)}.jpg"
            cv2.imwrite(str(folder / "q" / copy), smaller_HW, [cv2.IMWRITE_JPEG_QUALITY, 75])
            lines.append(f"{copy},{of_home[path]['label']},{copy},PA,synthetic,,down,no")
            copies[copy] = name, int(of_home[path]["sample"])
    tables[1].write_text("\n".join(lines))
    train(small_training(folder / "b", folder / "run", batch_size=8))
    train(small_training(folder / "b", folder / "unseen", batch_size=8, look=False))
    of_away = converted(tables[1], folder / "away", like=folder / "run")
    planted = {int(of_away[copy]["sample"]): place for copy, place in copies.items()}
    return Case(
        home=folder / "b", run=folder / "run", unseen=folder / "unseen", away=folder / "away" / "heldout.beton",
        planted=planted,
    )  # fmt: skip


def scored(case: Case, run: Path, **changes: Any) -> Evaluation:
    settings = {"run": run, "betons": (case.away,), "device": "cpu", "resamples": 100} | changes
    (result,) = evaluate(EvaluateConfig(**settings))
    return result


@pytest.fixture(autouse=True)
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.evaluate.evaluate.figures", lambda *arguments: {})


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def listed(folder: Path) -> dict[int, tuple[str, int]]:
    """The copies that a copies.csv lists, by sample: the set and the sample there."""
    return {int(row["sample"]): (row["set"], int(row["sample_there"])) for row in rows_of(folder / "copies.csv")}


def codes(result: Evaluation) -> set[str]:
    return {found.code for found in result.metrics.cautions}


def test_films_shared_with_betons_at_hand_are_named_once_by_the_first_reason(
    betons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sample 0 has a frame of the training set, 1 a patient, 2 a film that looks alike in both sets, 3 nothing."""
    monkeypatch.setattr("engine.evaluate.copies.can_compare", lambda beton: True)
    copies = {"train": [Copy(0, 5, 1.0), Copy(2, 6, 0.7)], "val": [Copy(2, 1, 0.9)]}
    monkeypatch.setattr("engine.evaluate.copies.copies_by_frames", lambda tested, known, _: copies[known.facts.split])
    with Beton(betons / "train.beton") as train_beton, Beton(betons / "val.beton") as val:
        row_N = train_beton.rows_N[[7, 8]]
        pixel_N16, patient_N16 = np.arange(1, 129, dtype=np.uint8).reshape(2, 4, 16)
        pixel_N16[0], patient_N16[1], patient_N16[3] = row_N["pixel_hash"][0], row_N["patient_hash"][1], 0
        hashes = {"pixel_hash": pixel_N16, "patient_hash": patient_N16}
        first = {name: int(np.flatnonzero((train_beton.rows_N[name] == row_N[name][place]).all(1))[0])
                 for place, name in enumerate(hashes)}  # fmt: skip
        path = chosen(betons / "heldout.beton", np.arange(4), tmp_path / "a.beton", **hashes)
        with Beton(path) as tested:
            found = shared_films(tested, [train_beton, val])
            monkeypatch.setattr(tested, "facts", replace(tested.facts, site_key_id="another"))
            assert [film.sample for film in shared_films(tested, [train_beton, val])] == [0, 2]
            monkeypatch.setattr(tested, "facts", replace(tested.facts, hash_algorithm="another"))
            assert [film.reason for film in shared_films(tested, [train_beton, val])] == ["copy", "copy"]
    assert [(film.sample, film.reason, film.of, film.place, film.similarity) for film in found] == [
        (0, "pixels", "train", first["pixel_hash"], None),
        (1, "patient", "train", first["patient_hash"], None),
        (2, "copy", "val", 1, 0.9),
    ]


@pytest.mark.parametrize("by", ["frames", "looks"])
def test_copies_of_known_films_are_left_out_of_the_score_counted_and_listed(
    case: Case, tmp_path: Path, by: str
) -> None:
    run = case.run if by == "frames" else case.moved(tmp_path / "run")
    result = scored(case, run, out=tmp_path / "e")
    assert listed(result.out) == case.planted
    assert all(
        row["removed"] == "yes" and 0.5 < float(row["similarity"]) <= 1 for row in rows_of(result.out / "copies.csv")
    )
    with Beton(case.away) as beton:
        kept_N = np.setdiff1d(np.arange(len(beton)), [*case.planted])
        counts = np.bincount(beton.label_N[kept_N], minlength=2).tolist()
        groups = len(np.unique(beton.rows_N["group"][kept_N]))
        removed = caution("copies-removed", copies=len(case.planted), images=len(beton), sets=["train", "val"])
    content = read_record(Metrics, result.out / "metrics.json")
    assert removed in content.cautions and codes(result).isdisjoint({"copies-kept", "no-looks"})
    assert content.num_samples == len(kept_N) and content.num_groups == groups
    assert [*content.class_counts.values()] == counts
    assert [int(row["sample"]) for row in rows_of(result.out / "scores.csv")] == kept_N.tolist()
    assert any(part.text.endswith(f"{removed.text}.") for part in evaluation_parts(result) if isinstance(part, Line))


@pytest.mark.parametrize("which", ["of the run's own conversion", "unverified"])
def test_copies_are_looked_for_whatever_a_set_says_of_itself(case: Case, tmp_path: Path, which: str) -> None:
    path = tmp_path / "heldout.beton"
    with Beton(case.home / "train.beton") as known, Beton(case.away) as beton:
        every_N, own = np.arange(len(beton)), known.facts.conversion_id
    if which == "unverified":
        path.write_bytes(strip_footer(case.away.read_bytes()))
    else:
        chosen(case.away, every_N, path, conversion=own)
    result = scored(case, case.run, betons=(path,), trust_unverified=True, out=tmp_path / "e")
    assert listed(result.out) == case.planted and result.metrics.num_samples == 24
    assert result.metrics.collection == ("unknown-source" if which == "unverified" else "own")


def test_copies_are_found_by_their_look_where_pixels_are_hashed_otherwise(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "heldout.beton"
    with Beton(case.away) as beton:
        path.write_bytes(hashed_formerly(case.away.read_bytes(), beton.side))
    result = scored(case, case.run, betons=(path,), out=tmp_path / "e")
    assert listed(result.out) == case.planted and {"hashed-otherwise", "copies-removed"} <= codes(result)


def test_scores_of_what_is_left_are_those_of_the_same_samples_with_copies_kept(case: Case, tmp_path: Path) -> None:
    without, whole = (scored(case, case.run, out=tmp_path / str(keep), keep_copies=keep) for keep in (False, True))
    kept = {row["sample"]: row for row in rows_of(whole.out / "scores.csv")}
    assert len(kept) == whole.metrics.num_samples == without.metrics.num_samples + len(case.planted)
    assert all(row == kept[row["sample"]] for row in rows_of(without.out / "scores.csv"))
    assert listed(whole.out) == case.planted
    assert {row["removed"] for row in rows_of(whole.out / "copies.csv")} == {"no"}


@pytest.mark.parametrize("how", ["keep_copies", "force"])
def test_a_score_with_copies_is_recorded_as_leaked_and_flagged(case: Case, tmp_path: Path, how: str) -> None:
    shutil.copytree(case.run, tmp_path / "run")
    result = scored(case, tmp_path / "run", **{how: True})
    assert {"copies-kept"} == {code for code in codes(result) if code.startswith("copies")}
    assert result.metrics.collection == "shared-source" and result.metrics.num_samples == 24 + len(case.planted)
    verdict = judge(read_results(tmp_path / "run"))
    assert verdict.how_good.startswith("This score is leaked") and "which training never saw" not in verdict.how_good
    assert "a set that training never saw" in verdict.unchecked
    shown = " ".join(Reader(write_report(tmp_path / "run").page.read_text()).text.split())
    assert "are copies, by their look, of images that the network was trained or chosen on (train, val)" in shown


def test_a_later_evaluation_without_copies_leaves_no_list_of_them(case: Case, tmp_path: Path) -> None:
    run = case.moved(tmp_path / "unseen", case.unseen)
    result = scored(case, case.run, out=tmp_path / "e")
    assert (result.out / "copies.csv").exists()
    scored(case, run, out=tmp_path / "e")
    assert not (result.out / "copies.csv").exists()


def of_an_earlier_release(run: Path) -> None:
    """Take from the record what earlier releases did not keep."""
    tensors, state = load_checkpoint(run / "leakage.safetensors")
    save_checkpoint(
        run / "leakage.safetensors", {name: rows for name, rows in tensors.items() if "look" not in name}, state
    )


@pytest.mark.parametrize("which", ["--no-look", "an earlier release"])
def test_that_copies_were_not_looked_for_is_told_and_no_error(case: Case, tmp_path: Path, which: str) -> None:
    run = case.moved(tmp_path / "run", case.unseen if which == "--no-look" else case.run)
    if which != "--no-look":
        of_an_earlier_release(run)
    result = scored(case, run)
    assert caution("no-looks", sets=["train", "val"]) in result.metrics.cautions
    assert result.metrics.num_samples == 24 + len(case.planted) and not (result.out / "copies.csv").exists()
    beside = scored(case, case.unseen if which == "--no-look" else case.run, out=tmp_path / "beside")
    assert "no-looks" not in codes(beside) and listed(beside.out) == case.planted, "with the betons at hand"


def other_conversion(case: Case, folder: Path) -> None:
    for name in ("train", "val"):
        shutil.copy(case.away, folder / f"{name}.beton")


def damaged(case: Case, folder: Path) -> None:
    for name in ("train", "val"):
        (folder / f"{name}.beton").write_bytes((case.home / f"{name}.beton").read_bytes()[:-5000])


@pytest.mark.parametrize("put", [lambda case, folder: None, other_conversion, damaged])
def test_where_the_runs_own_betons_do_not_lie_looks_are_compared(
    case: Case, tmp_path: Path, put: Callable[[Case, Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = case.moved(tmp_path / "run")
    (tmp_path / "data").mkdir()
    (run / "local.json").write_text(json.dumps({"data": str(tmp_path / "data")}))
    put(case, tmp_path / "data")
    monkeypatch.setattr("engine.evaluate.copies.copies_by_frames", None)  # whoever compares frames fails
    assert listed(scored(case, run).out) == case.planted


def test_a_set_of_copies_alone_is_refused_and_leaves_nothing(case: Case, tmp_path: Path) -> None:
    path = chosen(case.away, np.array(sorted(case.planted)), tmp_path / "copies.beton", conversion="c" * 32)
    with pytest.raises(
        InputError, match=r"copies\.beton: found copies of training films alone, 5 of them, expected other"
    ):
        scored(case, case.run, betons=(case.away, path), out=tmp_path / "e")
    assert not list(tmp_path.glob("e*"))
    result = scored(case, case.run, betons=(path,), out=tmp_path / "e", keep_copies=True)
    assert result.metrics.num_samples == 5 and "copies-kept" in codes(result)


def test_a_set_that_is_mostly_copies_is_no_other_collection_even_without_them(case: Case, tmp_path: Path) -> None:
    places = {}
    for others in (4, 6):
        with Beton(case.away) as beton:
            rest = [sample for sample in range(len(beton)) if sample not in case.planted]
        index_N = np.array([*case.planted, *rest[:others]])
        path = chosen(case.away, index_N, tmp_path / f"{others}.beton", conversion=str(others) * 32)
        places[others] = scored(case, case.run, betons=(path,), out=tmp_path / "e").metrics.collection
    assert places == {4: "shared-source", 6: "external"}


def test_two_runs_are_judged_on_what_neither_has_a_copy_of(case: Case, tmp_path: Path) -> None:
    """The rival keeps looks and its betons are gone; the run itself can compare nothing."""
    run, rival = case.moved(tmp_path / "run", case.unseen), case.moved(tmp_path / "rival")
    result = scored(case, run, against=rival)
    assert result.metrics.num_samples == 24 and result.metrics.difference is not None
    assert {"no-looks"} == codes(result) & {"no-looks", "copies-removed"}
    assert {"copies-removed"} == {one.code for one in result.metrics.difference.cautions} & {
        "no-looks",
        "copies-removed",
    }
    assert listed(result.out) == {sample: (f"{name} of rival", of) for sample, (name, of) in case.planted.items()}


def test_frames_that_are_too_small_are_said_not_to_have_been_compared(betons: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(small_training(betons, run))
    (result,) = evaluate(EvaluateConfig(run=run, betons=(betons / "heldout.beton",), device="cpu", resamples=100))
    assert caution("frames-too-small-for-copies", stored=46, least=64) in result.metrics.cautions
    assert not [name for name in load_checkpoint(run / "leakage.safetensors")[0] if "look" in name]


def test_a_run_keeps_a_look_of_each_film_unless_told_not_to(case: Case) -> None:
    for run, kept in ((case.run, True), (case.unseen, False)):
        record = load_record(run, load_checkpoint(run / "best.safetensors")[1]["run"]).sets
        for name in ("train", "val"):
            with Beton(case.home / f"{name}.beton") as beton:
                assert ("look" in record[name]) == kept
                assert not kept or record[name]["look"].shape == (len(beton), LOOK_BYTES)


def test_looks_are_watched_and_a_stop_in_them_leaves_a_folder_that_training_begins_in(
    case: Case, tmp_path: Path
) -> None:
    seen, config = [], small_training(case.home, tmp_path / "run", batch_size=8)
    with pytest.raises(Interrupted):
        train(config, watch=Watch(stopping=lambda: True))
    assert not (tmp_path / "run" / "config.json").exists()
    train(config, watch=Watch(phases=lambda *told: seen.append(told)))
    assert {phase for phase, _, _ in seen} == {"looks"} and all(done <= total for _, done, total in seen)
    before = (tmp_path / "run" / "leakage.safetensors").read_bytes()
    train(load_config(tmp_path / "run"), resume=True)
    assert (tmp_path / "run" / "leakage.safetensors").read_bytes() == before


def test_a_run_of_an_earlier_release_resumes_and_is_the_same_run_with_looks_or_without(
    case: Case, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(case.run, run)
    of_an_earlier_release(run)
    settings = json.loads((run / "config.json").read_text())
    assert settings.pop("look") is True
    (run / "config.json").write_text(json.dumps(settings))
    train(load_config(run), resume=True)
    states = [load_checkpoint(folder / "best.safetensors")[1]["run"] for folder in (run, case.run, case.unseen)]
    assert len(set(states)) == 1


def test_the_command_line_has_both_switches(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["train", str(case.home), "--out", str(tmp_path / "run"), "--epochs", "1", "--device", "cpu", "--no-look"]
    assert cli.main(argv) == 0
    tensors, _ = load_checkpoint(tmp_path / "run" / "leakage.safetensors")
    assert not [name for name in tensors if "look" in name]
    argv = ["evaluate", str(tmp_path / "run"), str(case.away), "--resamples", "100", "--device", "cpu", "--keep-copies"]
    assert cli.main(argv) == 0
    assert "5 of the 29 images tested are copies" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("keep", [False, True])
def test_a_cross_validation_leaves_copies_of_its_pool_out_of_the_external_score(
    case: Case, tmp_path: Path, keep: bool
) -> None:
    settings = {
        "data": case.home, "out": tmp_path / "c", "folds": 2, "splits": ("group",), "epochs": 1, "batch_size": 8,
        "resamples": 100, "device": "cpu", "external": case.away, "keep_copies": keep,
    }  # fmt: skip
    result = crossval(build(CrossvalConfig, settings))
    away = result.target("external")
    kept = [sample for sample in range(29) if keep or sample not in case.planted]
    assert away is not None and away.num_samples == len(kept)
    code = "external-copies-kept" if keep else "external-copies-removed"
    assert caution(code, beton="heldout.beton", copies=5, images=29, sets=["train", "val"]) in result.cautions
    rows = [row for row in rows_of(tmp_path / "c" / "crossval.csv") if row["split"] == "external"]
    assert [int(row["sample"]) for row in rows] == kept * len({row["fold"] for row in rows})
    assert listed(tmp_path / "c") == case.planted
    assert {row["removed"] for row in rows_of(tmp_path / "c" / "copies.csv")} == {"no" if keep else "yes"}
    crossval(build(CrossvalConfig, settings | {"external": None}))
    assert not (tmp_path / "c" / "copies.csv").exists()
