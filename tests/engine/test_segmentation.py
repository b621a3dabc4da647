"""A segmenter's training in folds by patient, its nets as ONNX, and its test on given masks."""

import csv
import stat
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import cli
from engine.config import SegmentTestConfig, SegmentTrainConfig
from engine.segmentation.augment import augmented
from engine.segmentation.films import Film, draw_films, groups_of, read_films
from engine.segmentation.network import LungNet, onnx_bytes
from engine.segmentation.test import SegmentationResult, score_films, score_parts, segment_test
from engine.segmentation.train import segment_train, trained_parts
from loaders.errors import ConfigError, InputError, IntegrityError
from loaders.images.lungs import RECORD, SIDE, SegmenterRecord, load_segmenter, shipped_segmenter, standardised
from loaders.output import Line, caution_lines
from loaders.records import read_record
from loaders.sources.patient_hash import load_site_key
from loaders.statistics import no_progress


@pytest.fixture(scope="module")
def table(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of twelve phantoms of eight patients and more with their masks, and one without."""
    with phantoms.open(newline="") as file:
        rows = list(csv.DictReader(file))[:13]
    path = tmp_path_factory.mktemp("masks") / "masks.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "mask", "patient", "source"))
        for place, row in enumerate(rows):
            mask = phantoms.parent / row["mask"] if place else ""
            writer.writerow((phantoms.parent / row["path"], mask, row["patient"], "here"))
    return path


def recipe(table: Path, out: Path, **changes: object) -> SegmentTrainConfig:
    config = SegmentTrainConfig(
        manifest=(table,), out=out, folds=2, steps=1, phantoms=2, device="cpu", site_key=table.with_name("site.key")
    )
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(table: Path) -> Path:
    """A segmenter of two nets, trained for one step."""
    segment_train(recipe(table, out := table.with_name("S")))
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# ---- training


def test_no_net_saw_the_patients_of_the_films_that_it_is_tested_on(table: Path, trained: Path) -> None:
    films, _ = read_films((table,), lambda *_: None)
    assert len(films) == 12
    record, group_N = read_record(SegmenterRecord, trained / RECORD), groups_of(films)
    saw = [{place for place, film in enumerate(films) if film.pixels.hex() in net.pixels} for net in record.nets]
    assert saw[0] | saw[1] == set(range(12)) and not saw[0] & saw[1]
    assert not {group_N[place] for place in saw[0]} & {group_N[place] for place in saw[1]}
    assert [len(net.patients) for net in record.nets] == [len({films[place].patient for place in own}) for own in saw]
    assert record.num_nets == 2 and record.sources == ["here"]
    result = read_record(SegmentationResult, trained / "segmentation.json")
    assert (result.num_films, result.num_seen, result.segmenter) == (12, 0, record.identity)


def test_an_interrupted_training_goes_on_to_the_same_bytes(table: Path, trained: Path, tmp_path: Path) -> None:
    phases: list[str] = []

    def stop_in(phase: str, done: int, total: int) -> None:
        phases.append(phase)
        if phase == "net 2/2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # exit 75
        segment_train(recipe(table, tmp_path / "S"), stop_in)
    with pytest.raises(ConfigError, match="1 of 2 nets, expected all; run the same `segment-train` again"):
        load_segmenter(str(tmp_path / "S"))
    segment_train(recipe(table, tmp_path / "S"), lambda phase, done, total: phases.append(phase))
    assert phases.count("net 1/2") == 1 and phases.count("net 2/2") == 2
    assert contents(tmp_path / "S") == contents(trained)


def test_a_finished_net_that_was_damaged_since_is_noticed(table: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "S").mkdir()
    for name, content in contents(trained).items():
        (tmp_path / "S" / name).write_bytes(content)
    (tmp_path / "S" / "net-1.onnx").write_bytes(contents(trained)["net-2.onnx"])
    with pytest.raises(IntegrityError, match=r"net-1\.onnx: checksum differs"):
        segment_train(recipe(table, tmp_path / "S"))


@pytest.mark.parametrize("where", ["pixels", "patients"])
def test_a_record_that_lost_what_a_net_saw_is_refused(where: str, trained: Path, tmp_path: Path) -> None:
    record = read_record(SegmenterRecord, trained / RECORD)
    digest = getattr(record.nets[0], where)[0]
    text = (trained / RECORD).read_text().replace(digest, digest[::-1])
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(IntegrityError, match=r"segmenter\.json: checksum differs, expected what `segment-train` wrote"):
        load_segmenter(str(tmp_path))


def test_a_folder_of_another_segmenter_is_refused(table: Path, trained: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds a segmenter of .* nets and .* phantoms, expected one of"):
        segment_train(recipe(table, trained, seed=1))


def test_phantoms_alone_make_a_segmenter_that_saw_no_film(table: Path, tmp_path: Path) -> None:
    done = segment_train(recipe(table, tmp_path / "S", manifest=()))
    record = read_record(SegmenterRecord, tmp_path / "S" / RECORD)
    assert [(net.num_films, net.pixels, net.patients) for net in record.nets] == [(0, [], [])] * 2
    assert len({net.sha256 for net in record.nets}) == 2, "two nets look at each film"
    assert done.tested is None and "No net saw a radiograph" in trained_parts(done)[-1].text  # type: ignore[union-attr]


def test_fewer_patients_than_folds_exit_with_3(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["segment-train", "--manifest", str(table), "--out", str(tmp_path / "S"), "--folds", "20"]
    assert cli.main([*argv, "--site-key", str(tmp_path / "key")]) == 3
    assert "patients, expected at least 20, one a fold; lower --folds" in capsys.readouterr().err
    assert not (tmp_path / "S").exists()


def test_identifiers_that_stand_for_nobody_join_no_films(table: Path, tmp_path: Path) -> None:
    zeros = tmp_path / "zeros.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    zeros.write_text("path,mask,patient\n" + "".join(f"{path},{mask},0\n" for path, mask, *_ in rows))
    films, cautions = read_films((zeros,), lambda *_: None)
    assert {film.patient for film in films} == {""} and len(set(groups_of(films))) == len(films)
    assert [one.code for one in cautions] == ["one-patient"]
    config = SegmentTestConfig(manifest=(zeros,), out=tmp_path / "T", resamples=100, site_key=tmp_path / "site.key")
    done = segment_test(config)
    assert list(done.cautions) == cautions
    text = " ".join(part.text for part in score_parts(done) if isinstance(part, Line))
    assert caution_lines(cautions)[0].text in text


def test_a_loss_that_is_not_finite_ends_the_training_with_7(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engine.segmentation.train.PEAK_RATE", float("inf"))
    argv = ["segment-train", "--manifest", str(table), "--out", str(tmp_path / "S"), "--folds", "2", "--steps", "3"]
    assert cli.main([*argv, "--phantoms", "0", "--device", "cpu", "--site-key", str(tmp_path / "site.key")]) == 7
    assert "expected finite numbers" in capsys.readouterr().err
    assert not list((tmp_path / "S").glob("*.onnx"))


def test_unusable_films_and_masks_are_named_all_at_once(table: Path, phantoms: Path, tmp_path: Path) -> None:
    with phantoms.open(newline="") as file:
        row = next(csv.DictReader(file))
    film, mask = phantoms.parent / row["path"], phantoms.parent / row["mask"]
    cv2.imwrite(str(tmp_path / "black.png"), np.zeros((64, 64), np.uint8))
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((64, 90), 255, np.uint8) * (np.arange(90) < 40))
    (tmp_path / "text.png").write_text("no picture")
    lines = [(film, "black.png"), (tmp_path / "lost.png", mask), (tmp_path / "text.png", mask)]
    content = "".join(f"{path},{of}\n" for path, of in lines) + f"{mask},wide.png\n"
    (tmp_path / "masks.csv").write_text(f"path,mask\n{content}")
    with pytest.raises(InputError) as caught:
        read_films((tmp_path / "masks.csv",), lambda *_: None)
    text = str(caught.value)
    assert "masks.csv: 4 of 4 rows cannot be used, expected all" in text and "empty their cells" in text
    for part in ("black.png: black all over", "lost.png: ", "text.png: text, expected", "wide.png: 90x64 pixels"):
        assert part in text
    (tmp_path / "masks.csv").write_text(f"path,mask\n{film},\n")
    with pytest.raises(InputError, match="no row has a mask"):
        read_films((tmp_path / "masks.csv",), lambda *_: None)


def test_augmented_lungs_stay_lungs() -> None:
    (film,), rng = draw_films(1, 0, lambda *_: None), np.random.default_rng(0)
    inside, outside = [], []
    for _ in range(20):
        frame_TT, mask_TT = augmented(film.mask_TT, film.mask_TT, rng)  # a film whose lungs are white
        assert frame_TT.dtype == mask_TT.dtype == np.uint8 and set(np.unique(mask_TT)) == {0, 255}
        inside.append(frame_TT[mask_TT > 0].mean())
        outside.append(frame_TT[mask_TT == 0].mean())
    assert np.mean(inside) > np.mean(outside) + 50, "film and mask are moved alike"


# ---- the nets as ONNX


def test_opencv_and_onnxruntime_run_a_net_as_torch_does() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    torch.manual_seed(0)
    net = LungNet().train()
    rng = np.random.default_rng(0)
    frame_TT = cv2.resize(rng.integers(0, 256, (9, 9)).astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    x_N1TT = np.stack([standardised(frame_TT), standardised(255 - frame_TT)])[:, None]
    with torch.no_grad():
        for _ in range(10):
            net(torch.from_numpy(x_N1TT))  # so that the norms have something to fold
        for parameter in net.parameters():  # what float16 holds, so that only the arithmetic differs
            parameter.copy_(parameter.half().float())
        expected = net.eval()(torch.from_numpy(x_N1TT[:1])).numpy()
    content = onnx_bytes(net)
    reader = cv2.dnn.readNetFromONNX(np.frombuffer(content, np.uint8))
    reader.setInput(x_N1TT[:1])
    by_opencv = reader.forward()
    by_runtime = onnxruntime.InferenceSession(content).run(None, {"frame": x_N1TT[:1]})[0]
    assert np.abs(by_opencv - by_runtime).max() < 1e-4
    assert np.abs(by_opencv - expected).max() < 5e-3 * max(1.0, np.abs(expected).max())


def test_the_shipped_nets_give_the_same_in_onnxruntime() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    (film,) = draw_films(1, 3, lambda *_: None)
    for net, content in enumerate(shipped_segmenter().content_K):
        session = onnxruntime.InferenceSession(content)
        small = session.run(None, {"frame": standardised(film.frame_TT)[None, None]})[0][0, 0]
        expected = cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        assert np.abs(shipped_segmenter().logits(film.frame_TT, net) - expected).max() < 1e-3


# ---- the test


def test_masks_that_the_segmenter_finds_itself_agree_and_others_less(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["segment-test", "--manifest", str(table), "--out", str(tmp_path / "T"), "--resamples", "100"]
    assert cli.main([*argv, "--site-key", str(tmp_path / "key")]) == 0
    shown = capsys.readouterr().out
    result = read_record(SegmentationResult, tmp_path / "T" / "segmentation.json")
    found = {kind: of.value for kind, of in result.scores["dice"].items()}
    assert found["segmenter"] is not None and found["segmenter"] > 0.95
    assert found["segmenter"] > found["mean mask"] > 0.6 and found["usual region"] > 0.3  # type: ignore[operator]
    interval = result.scores["dice"]["segmenter"]
    assert interval.low is not None and interval.low < found["segmenter"] < interval.high  # type: ignore[operator]
    assert "12 films of" in shown and "usual region" in shown and "worst: /" in shown
    with (tmp_path / "T" / "segmentation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    dice_N = [float(row["dice"]) for row in rows]
    assert dice_N == sorted(dice_N) and dice_N[0] == pytest.approx(result.worst, abs=1e-4)
    assert np.mean(dice_N) == pytest.approx(found["segmenter"], abs=1e-4)
    assert [float(row["iou"]) for row in rows] == pytest.approx([d / (2 - d) for d in dice_N], abs=1e-3)
    assert stat.S_IMODE((tmp_path / "T" / "segmentation.csv").stat().st_mode) == 0o600
    assert ".png" not in (tmp_path / "T" / "segmentation.json").read_text(), "the names of files are not shared"


def test_films_that_every_net_saw_are_left_out_and_counted(table: Path, trained: Path, tmp_path: Path) -> None:
    films, _ = read_films((table,), lambda *_: None)
    key = load_site_key(table.with_name("site.key"))
    joined = [replace(film, patient="one") for film in films[:6]] + films[6:]  # of films that either net saw
    scored, seen = score_films(load_segmenter(str(trained)), joined, key, no_progress)
    assert seen == 6 and {score.film.path for score in scored} == {film.path for film in films[6:]}
    of_one = tmp_path / "one.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()[2:]]
    of_one.write_text(
        "\n".join(
            ["path,mask,patient", *(f"{path},{mask},{place % 2}-of-two" for place, (path, mask, *_) in enumerate(rows))]
        )
    )
    key_file = table.with_name("site.key")
    config = SegmentTestConfig(manifest=(of_one,), out=tmp_path / "T", segmenter=str(trained), site_key=key_file)
    with pytest.raises(InputError, match="every net of the segmenter saw all 12 films"):
        segment_test(config)


def test_the_mean_mask_is_of_other_patients_alone() -> None:
    left, right = np.zeros((2, SIDE, SIDE), np.uint8)
    left[:, :64], right[:, 64:] = 255, 255
    frame = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    films = [
        Film(path=str(place), frame_TT=frame, mask_TT=mask, pixels=bytes([place]), patient=patient)
        for place, (mask, patient) in enumerate([(left, "a"), (left, "a"), (right, "b")])
    ]
    scored, _ = score_films(shipped_segmenter(), films, b"k" * 32, no_progress)
    assert [score.dice_M[1] for score in sorted(scored, key=lambda score: score.film.path)] == [0, 0, 0]
    alone, _ = score_films(shipped_segmenter(), films[:2], b"k" * 32, no_progress)
    assert np.isnan([score.dice_M[1] for score in alone]).all()


@pytest.mark.radiographs
def test_the_shipped_segmenter_finds_the_lungs_of_public_films_that_it_never_saw(
    radiographs: Path, tmp_path: Path
) -> None:
    config = SegmentTestConfig(
        manifest=(radiographs / "lung_masks.csv",), out=tmp_path / "T", site_key=tmp_path / "key", resamples=100
    )
    tested = segment_test(config)
    assert tested.result.num_films == 34 and tested.result.num_seen == 0 and not tested.result.doubtful
    found = tested.result.scores["dice"]["segmenter"].value
    assert found is not None and found > 0.93 and tested.result.worst > 0.85
    assert score_parts(tested)
