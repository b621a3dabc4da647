"""Lungs alone from betons to runs: a run says what its frames show, is tested on the like, and predicts on the like."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from engine.config import (
    CrossvalConfig,
    EvaluateConfig,
    ExplainConfig,
    HurdlesConfig,
    PredictConfig,
    ProfileConfig,
)
from engine.crossval.crossval import crossval
from engine.device import choose_policy
from engine.evaluate.checks import check_beton
from engine.evaluate.evaluate import evaluate
from engine.evaluate.trained import load_trained
from engine.explain.explain import explain
from engine.export.model_card import card_of
from engine.hurdles.hurdles import hurdles
from engine.predict.predict import Predicted, predict_files, prediction_parts
from engine.profile.profile import profile
from engine.report.report import write_report
from engine.train.checkpoint import load_checkpoint
from engine.train.run_folder import BEST
from engine.train.summary import SUMMARY, Summary
from engine.train.train import train, training_parts
from loaders.batches.loader import Loader
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.cautions import caution
from loaders.config import LoaderConfig
from loaders.errors import CheckpointError, ConfigError, InputError, IntegrityError
from loaders.images.lungs import RECORD, SHIPPED, SegmenterRecord
from loaders.output import Line
from loaders.records import read_record, write_record
from loaders.settings import build
from tests.conftest import made_once
from tests.example_run import small_training
from tests.lungs_example import SHIPPED as IDENTITY
from tests.lungs_example import run_with, write_lungs

FRAMES = f"the lungs alone (masked), as segmenter {IDENTITY} finds them"
SHOWN = r"frames show {}, expected {}, as of .+; convert it with --like"


@pytest.fixture(scope="module")
def chain(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the betons `masked`, the run `R` on them, and the run `whole` on whole films."""

    def make(folder: Path) -> None:
        write_lungs(betons, folder / "masked")
        train(small_training(folder / "masked", folder / "R", batch_size=8))
        train(small_training(betons, folder / "whole", batch_size=8))

    return made_once(tmp_path_factory, "lungs chain", make)


def beton_with(source: Path, path: Path, **facts: Any) -> Path:
    """A copy of a beton with other facts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with Beton(source) as beton:
        frames, changed = map(beton.frame, range(len(beton))), replace(beton.facts, **facts)
        write_beton(path, frames, beton.labels, beton.rows_N, changed, beton.page_size)
    return path


def evaluated(run: Path, beton: Path, **changes: Any) -> Any:
    (result,) = evaluate(build(EvaluateConfig, {"run": run, "betons": (beton,), "resamples": 100} | changes))
    return result


def test_a_run_says_what_its_frames_show_and_one_of_whole_films_says_nothing(chain: Path) -> None:
    known = {"lungs": "masked", "segmenter": IDENTITY}
    for name, expected in (("R", known), ("whole", {})):
        run = chain / name
        state, summary = load_checkpoint(run / BEST)[1], read_record(Summary, run / SUMMARY)
        written, log = json.loads((run / SUMMARY).read_text()), (run / "train.log").read_text()
        for found in (state, written):
            assert {key: found[key] for key in known if key in found} == expected
        first, page = training_parts(summary, run)[0], write_report(run).page.read_text()
        assert isinstance(first, Line) and (first.text == f"Frames show {FRAMES}.") is bool(expected)
        for text in (log.splitlines()[1], page, card_of(load_trained(run), "m.onnx").replace("\\", "")):
            assert (FRAMES in text) is bool(expected)
            assert ("the lungs alone" in text) is bool(expected)
        assert (caution("lungs-alone", lungs="masked") in summary.cautions) is bool(expected)


Test = Callable[[Path, Path, Path], object]
TESTS: dict[str, Test] = {  # run, beton, out
    "evaluate": lambda run, beton, out: evaluated(run, beton, out=out, force=True),
    "explain": lambda run, beton, out: explain(ExplainConfig(run=run, beton=beton, out=out, samples=1, measured=1)),
}


@pytest.mark.parametrize("command", TESTS)
def test_a_set_that_shows_more_or_less_of_a_film_than_training_did_is_refused(
    chain: Path, betons: Path, tmp_path: Path, command: str
) -> None:
    boxed = beton_with(chain / "masked" / "heldout.beton", tmp_path / "boxed.beton", lungs="boxed")
    alone, other = (
        rf"the lungs alone \({lungs}\), as segmenter {IDENTITY} finds them" for lungs in ("masked", "boxed")
    )
    for run, beton, found, expected in (
        ("R", betons / "heldout.beton", "whole films", alone),
        ("R", boxed, other, alone),
        ("whole", chain / "masked" / "heldout.beton", alone, "whole films"),
    ):
        with pytest.raises(InputError, match=SHOWN.format(found, expected) + f" {chain / run}"):
            TESTS[command](chain / run, beton, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_masks_from_elsewhere_than_in_training_are_a_caution(chain: Path, tmp_path: Path) -> None:
    own, state = chain / "masked" / "heldout.beton", load_trained(chain / "R").state
    given = beton_with(own, tmp_path / "given.beton", segmenter="given")
    for beton, expected in ((own, []), (given, [caution("lungs-found-otherwise", found="given", expected=IDENTITY)])):
        with Loader(beton, LoaderConfig(batch_size=8), tensors=True) as loader:
            found = check_beton(chain / "R", state, loader, force=False)
            assert [one for one in found if one.code == "lungs-found-otherwise"] == expected


def test_a_rival_on_other_parts_of_a_film_is_refused(chain: Path) -> None:
    with pytest.raises(InputError, match=r"whole: trained on --lungs off, expected masked as of .*R, since both"):
        evaluated(chain / "R", chain / "masked" / "heldout.beton", against=chain / "whole")


@pytest.mark.parametrize("changes", [{"lungs": "off", "segmenter": ""}, {"segmenter": "given"}, {"lungs": "boxed"}])
@pytest.mark.parametrize("command", ["train", "crossval"])
def test_betons_of_one_folder_that_show_different_parts_are_refused_with_both(
    chain: Path, tmp_path: Path, command: str, changes: dict[str, str]
) -> None:
    shutil.copytree(chain / "masked", tmp_path / "mixed")
    beton_with(chain / "masked" / "val.beton", tmp_path / "mixed" / "val.beton", **changes)
    data, out = tmp_path / "mixed", tmp_path / "out"
    with pytest.raises(InputError) as refused:
        if command == "train":
            train(small_training(data, out))
        else:
            crossval(build(CrossvalConfig, {"data": data, "out": out}))
    now = {"lungs": "masked", "segmenter": IDENTITY} | changes
    shown = "" if now["lungs"] == "off" else f"--lungs {now['lungs']}, {now['segmenter']}"
    assert f"(--lungs masked, {IDENTITY})" in str(refused.value) and shown in str(refused.value)
    assert "val.beton" in str(refused.value) and "expected one conversion; convert the" in str(refused.value)
    assert not out.exists()


def test_an_external_beton_must_show_what_the_pool_shows(chain: Path, betons: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    folder.mkdir()
    shutil.copyfile(chain / "masked" / "train.beton", folder / "train.beton")
    whole = betons / "heldout.beton"
    with pytest.raises(InputError, match=SHOWN.format("whole films", r"the lungs alone \(masked\), as .*")):
        same = {"data": folder, "out": tmp_path / "C", "folds": 2, "splits": ("random", "group")}
        crossval(build(CrossvalConfig, same | {"external": whole}))
    assert not list(tmp_path.glob("C/folds/*"))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"lungs": "off", "segmenter": ""}, "frames show whole films"),
        ({"segmenter": "given"}, r"frames show the lungs alone \(masked\), as given masks have them"),
    ],
)
def test_collections_that_show_different_parts_are_refused_with_both(
    chain: Path, tmp_path: Path, changes: dict[str, str], found: str
) -> None:
    beton_with(chain / "masked" / "heldout.beton", tmp_path / "B" / "heldout.beton", conversion_id="9" * 32, **changes)
    expected = rf"{found}, expected the lungs alone \(masked\), as segmenter {IDENTITY} finds them, as .*masked has"
    with pytest.raises(InputError, match=f"B: {expected}; convert its radiographs with --like .*--lungs"):
        hurdles(build(HurdlesConfig, {"collections": (chain / "masked", tmp_path / "B"), "out": tmp_path / "H"}))
    assert not (tmp_path / "H").exists()


def test_a_profile_is_of_whole_films(chain: Path, phantoms: Path, tmp_path: Path) -> None:
    config = ProfileConfig(data=chain / "masked", source=phantoms.parent, out=tmp_path / "P", device="cpu")
    with pytest.raises(ConfigError, match=r"masked: frames show the lungs alone, expected whole films.*--lungs"):
        profile(config)


@pytest.mark.parametrize("state", [{"lungs": "hidden"}, {"lungs": ["masked"]}, {"segmenter": ""}, {"lungs": "off"}])
def test_weights_of_lungs_that_are_unknown_or_found_by_nothing_are_refused(
    chain: Path, tmp_path: Path, state: dict[str, Any]
) -> None:
    with pytest.raises(CheckpointError, match=r"best\.safetensors: lungs .*, expected a mode of `convert --lungs`"):
        load_trained(run_with(chain / "R", tmp_path / "R", **state))


# ---- predictions


def ask(run: Path, out: Path, *files: Path, **changes: Any) -> tuple[Predicted, list[dict[str, str]]]:
    usual = {"run": run, "files": files, "out": out, "device": "cpu", "workers": 1, "audit": "off", "min_confidence": 0}
    found = predict_files(build(PredictConfig, usual | changes))
    return found, list(csv.DictReader(out.read_text().splitlines()))


def segmenter_folder(folder: Path, **changes: Any) -> Path:
    """A copy of the shipped segmenter with another record."""
    shutil.copytree(SHIPPED, folder)
    record = msgspec.structs.replace(read_record(SegmenterRecord, folder / RECORD), **changes)
    write_record(folder / RECORD, record.summed())
    return folder


def files_of(betons: Path, phantoms: Path) -> list[Path]:
    """The file of each sample of the held-out beton."""
    table = csv.DictReader((betons / "convert.csv").read_text().splitlines())
    heldout = [row for row in table if row["split"] == "heldout"]
    return [phantoms.parent / row["path"] for row in sorted(heldout, key=lambda row: int(row["sample"]))]


def test_files_get_the_probabilities_that_their_frames_get_in_a_beton_of_the_lungs_alone(
    chain: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    trained, policy = load_trained(chain / "R"), choose_policy("cpu", "off", "off", 0)
    with Beton(chain / "masked" / "heldout.beton") as beton:
        expected_NK = trained.probabilities(beton.bytes_B, beton.offset_N, policy)
    files = files_of(betons, phantoms)
    (tmp_path / "broken.png").write_text("no picture")
    for batch_size in (3, 64):
        found, rows = ask(chain / "R", tmp_path / "t.csv", tmp_path / "broken.png", *files, batch_size=batch_size)
        assert rows[0]["kind"] == "unreadable" and found.usable == len(files)
        found_NK = [[float(row[f"probability_{name}"]) for name in trained.classes] for row in rows[1:]]
        np.testing.assert_allclose(found_NK, expected_NK, atol=2e-6)
        assert not [one for one in found.cautions if one.code == "masks-given-in-training"]
    assert ask(chain / "whole", tmp_path / "w.csv", *files)[0].usable == len(files)


def film_in(folder: Path) -> Path:
    """A picture in which there are no lungs: black on the left, white on the right."""
    level_HW = np.repeat(np.array([[0, 255]], np.uint8), 32, axis=1).repeat(64, axis=0)
    Image.fromarray(level_HW).save(folder / "halves.png")
    return folder / "halves.png"


def test_a_film_without_a_credible_mask_abstains_with_the_reason(
    chain: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    with Beton(betons / "heldout.beton") as beton:
        pixels = beton.rows_N["pixel_hash"][0].tobytes().hex()
    nets = read_record(SegmenterRecord, SHIPPED / RECORD).nets
    seen = [msgspec.structs.replace(net, pixels=[*net.pixels, pixels]) for net in nets]
    folder = segmenter_folder(tmp_path / "seen", nets=seen)
    first, second, *_ = files_of(betons, phantoms)
    found, rows = ask(chain / "R", tmp_path / "t.csv", film_in(tmp_path), first, second, segmenter=str(folder))
    assert rows[0]["kind"] in ("lungs-missing", "lungs-uncertain", "lungs-unequal", "lungs-at-edge")
    assert rows[0]["reason"].startswith(f"{rows[0]['kind']}: ") and rows[0]["predicted_class"] == "abstains"
    assert (rows[1]["kind"], rows[2]["kind"]) == ("lungs-seen", "")
    assert "every net of the segmenter was trained on it" in rows[1]["reason"] and not rows[1]["probability_covid"]
    assert found.abstained == {rows[0]["kind"]: 1, "lungs-seen": 1} and found.usable == 1
    shown = " ".join(part.text for part in prediction_parts(found) if isinstance(part, Line))
    assert "3 files: 1 predicted + 2 abstained" in shown
    with pytest.raises(InputError, match="none of 1 files could be predicted"):
        ask(chain / "R", tmp_path / "n.csv", film_in(tmp_path))


def test_lungs_are_found_by_the_runs_own_segmenter_or_not_at_all(chain: Path, tmp_path: Path) -> None:
    film, out = film_in(tmp_path), tmp_path / "t.csv"
    other = segmenter_folder(tmp_path / "other", identity="f" * 16)
    of_other = run_with(chain / "R", tmp_path / "R", segmenter="f" * 16)
    for run, segmenter, found, expected in (
        (chain / "R", str(other), "f" * 16, IDENTITY),
        (of_other, "shipped", IDENTITY, "f" * 16),
    ):
        with pytest.raises(
            ConfigError, match=rf"--segmenter {segmenter}: segmenter {found}, expected {expected}, which"
        ):
            ask(run, out, film, segmenter=segmenter)
    with pytest.raises(ConfigError, match=r"--segmenter: found .*other, expected none, since .*whole films; leave it"):
        ask(chain / "whole", out, film, segmenter=str(other))
    with pytest.raises(ConfigError, match=r"--segmenter .*lost: no segmenter\.json there"):
        ask(chain / "R", out, film, segmenter=str(tmp_path / "lost"))
    net = next(other.glob("*.onnx"))
    net.write_bytes(net.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match=rf"{net.name}: checksum differs"):
        ask(of_other, out, film, segmenter=str(other))
    assert not out.exists()


@pytest.mark.parametrize("own", [False, True])
def test_a_run_on_given_masks_predicts_by_a_segmenter_and_says_so(
    chain: Path, phantoms: Path, tmp_path: Path, own: bool
) -> None:
    run = run_with(chain / "R", tmp_path / "R", segmenter="given")
    identity = "f" * 16 if own else IDENTITY
    segmenter = str(segmenter_folder(tmp_path / "other", identity=identity)) if own else "shipped"
    film = next((phantoms.parent / "images").rglob("*.png"))
    found, rows = ask(run, tmp_path / "t.csv", film, segmenter=segmenter)
    assert caution("masks-given-in-training", segmenter=identity) in found.cautions and rows[0]["predicted_class"]
