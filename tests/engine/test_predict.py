"""A prediction: the path of conversion and evaluation on any file, and an honest refusal where it does not lead."""

import csv
import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cli
from engine.config import EvaluateConfig, PredictConfig
from engine.device import choose_policy
from engine.evaluate.evaluate import evaluate
from engine.evaluate.trained import Decision, FindingDecisions, load_trained
from engine.predict import predict as prediction
from engine.predict.decisions import ABSENT, ABSTAINS, PRESENT, ClassRule, PredictedFile, finding_rule
from engine.predict.predict import Predicted, predict_files, prediction_parts
from engine.predict.table import opened_spool
from engine.statistics.findings import POINT
from engine.statistics.thresholds import OperatingPoint
from engine.train.train import train
from loaders.atomic_file import SUFFIX
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.cautions import caution
from loaders.config import AuditLimits, CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.errors import CheckpointError, ConfigError, InputError, LockedError, StorageError
from loaders.images.decode import write_frame
from loaders.images.frame import stored_frame
from loaders.output import Line, Sheet
from loaders.phantom.phantom import write_phantoms
from tests.example_run import hashed_formerly, results_of, small_training
from tests.findings_example import NAMES, write_findings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs."""
    out = tmp_path_factory.mktemp("prediction") / "run"
    train(small_training(betons, out, epochs=2, batch_size=8))
    return out


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a few phantoms that no run was trained on, in which the audit finds nothing."""
    folder = tmp_path_factory.mktemp("films")
    write_phantoms(PhantomConfig(out=folder / "p", patients=6, images_per_patient=1, size=256, seed=77))
    return folder / "p" / "images"


def ask(run: Path, out: Path, *files: Path, **changes: object) -> tuple[Predicted, list[dict[str, str]]]:
    found = predict_files(PredictConfig(run=run, files=files, out=out, device="cpu", workers=1, **changes))  # type: ignore[arg-type]
    text = out.read_bytes().decode("utf-8", "surrogateescape")
    return found, list(csv.DictReader(text.splitlines(keepends=True)))


def output_text(found: Predicted) -> str:
    return "\n".join(part.text for part in prediction_parts(found) if isinstance(part, Line))


def scores_by_path(run: Path, betons: Path, source: Path, out: Path) -> dict[str, tuple[str, list[float]]]:
    """What evaluate predicts for the held-out beton: source file → predicted class and probabilities."""
    evaluate(EvaluateConfig(run=run, betons=(betons / "heldout.beton",), out=out, device="cpu", resamples=100))
    scores = list(csv.DictReader((results_of(out) / "scores.csv").read_text().splitlines()))
    table = csv.DictReader((betons / "convert.csv").read_text().splitlines())
    sample_of = {str(source / row["path"]): int(row["sample"]) for row in table if row["split"] == "heldout"}
    assert sorted(sample_of.values()) == list(range(len(scores)))
    return {
        path: (scores[sample]["predicted"], [float(scores[sample][f"probability_{name}"]) for name in CLASSES])
        for path, sample in sample_of.items()
    }


CLASSES = ("covid", "normal")


def test_the_files_of_a_beton_get_the_probabilities_of_its_evaluation(
    run: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    expected = scores_by_path(run, betons, phantoms.parent, tmp_path / "e")
    paths = tuple(map(Path, expected))
    found, rows = ask(run, tmp_path / "t.csv", *paths, audit="off", min_confidence=0, batch_size=3)
    assert found.temperature is not None and found.usable == len(paths)
    assert [row["path"] for row in rows] == list(expected)
    for row, (predicted, probabilities) in zip(rows, expected.values(), strict=True):
        assert row["predicted_class"] == predicted
        np.testing.assert_allclose([float(row[f"probability_{name}"]) for name in CLASSES], probabilities, atol=2e-6)
        assert not row["in_set"]


def test_a_prediction_does_without_scikit_learn_which_takes_a_second_to_import(
    run: Path, films: Path, tmp_path: Path
) -> None:
    film = next(films.rglob("*.png"))
    arguments = ["predict", str(run), str(film), "--out", str(tmp_path / "t.csv"), "--workers", "1", "--device", "cpu"]
    script = f"import sys, cli; assert cli.main({arguments!r}) == 0; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT, capture_output=True)
    assert (tmp_path / "t.csv").is_file()


def test_with_the_audit_files_are_repaired_as_conversion_repairs_them(tmp_path: Path) -> None:
    table = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=30, images_per_patient=1, size=256, seed=9))
    for number, path in enumerate(sorted((tmp_path / "p" / "images").rglob("*.png"))):
        if number % 3 == 0:
            grey_HW = np.asarray(Image.open(path))
            damaged_HW = np.pad(grey_HW, 40) if number % 2 else 255 - grey_HW
            Image.fromarray(damaged_HW).save(path)
    key = tmp_path / "site.key"
    out = tmp_path / "b"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=table), out=out, size=32, holdout=0.4, workers=1, site_key=key, audit="auto"
        )
    )
    train(small_training(out, tmp_path / "run"))
    expected = scores_by_path(tmp_path / "run", out, table.parent, tmp_path / "e")
    _, rows = ask(tmp_path / "run", tmp_path / "t.csv", *map(Path, expected), min_confidence=0)
    assert {row["fix"].split(" ")[0] for row in rows} >= {"", "crop", "invert"}
    for row, (predicted, probabilities) in zip(rows, expected.values(), strict=True):
        assert row["predicted_class"] == predicted
        np.testing.assert_allclose([float(row[f"probability_{name}"]) for name in CLASSES], probabilities, atol=2e-6)


def test_it_abstains_on_what_the_audit_would_quarantine_and_gives_the_reason(
    run: Path, films: Path, radiographs: Path, tmp_path: Path
) -> None:
    listed = list(csv.DictReader((radiographs / "audit.csv").read_text().splitlines()))
    paths = [
        radiographs / next(row["path"] for row in listed if row["defect"] == kind)
        for kind in ("lateral", "ct", "annotated")
    ]
    film = next(films.rglob("*.png"))
    found, rows = ask(run, tmp_path / "t.csv", *paths, film, min_confidence=0)
    assert [row["predicted_class"] for row in rows[:3]] == ["abstains"] * 3 and rows[3]["predicted_class"] in CLASSES
    for row, defect in zip(rows, ("lateral", "not-a-radiograph", "colour-annotation"), strict=False):
        assert defect in row["defects"].split(";") and defect in row["kind"].split(";")
        assert row["reason"].startswith(f"{' and '.join(row['kind'].split(';'))}: ")
        assert row["probability_covid"] == ""  # a number would be believed
    assert found.usable == 1 and sum(found.abstained.values()) == 3
    _, rows = ask(run, tmp_path / "t.csv", paths[0], audit="off", min_confidence=0)
    assert rows[0]["predicted_class"] in CLASSES and rows[0]["defects"] == ""


def test_a_limit_of_the_audit_can_be_moved(run: Path, films: Path, tmp_path: Path) -> None:
    film = next(films.rglob("*.png"))
    ask(run, tmp_path / "t.csv", film, min_confidence=0)
    with pytest.raises(InputError, match=r"\(1 blurred\), the first because: .*: blurred: blurred; expected"):
        ask(run, tmp_path / "t.csv", film, limits=AuditLimits(limit_blurred=0.1), min_confidence=0)


def test_below_the_confidence_it_abstains_and_shows_the_probability(run: Path, films: Path, tmp_path: Path) -> None:
    _, bold = ask(run, tmp_path / "t.csv", films, min_confidence=0)
    found, rows = ask(run, tmp_path / "t.csv", films, min_confidence=1)
    surest = [max(float(row[f"probability_{name}"]) for name in CLASSES) for row in bold]
    assert len(rows) == 6 and max(surest) < 1
    for row, sure, before in zip(rows, surest, bold, strict=True):
        assert row["predicted_class"] == "abstains"
        assert row["reason"] == f"low-confidence: {sure:.2f} for {before['predicted_class']}, expected at least 1"
        assert row["probability_covid"] == before["probability_covid"]
    assert found.abstained == {"low-confidence": 6} and found.usable == 6
    found.check()  # the network was asked: nothing is wrong with the inputs


def test_unreadable_files_are_rows_with_their_reasons_in_order(run: Path, films: Path, tmp_path: Path) -> None:
    film = next(films.rglob("*.png"))
    source = tmp_path / "s"
    source.mkdir()
    (source / "b.png").write_text("no picture")
    (source / "c.png").write_bytes(film.read_bytes()[:2000])
    (source / "d.png").write_bytes(b"")
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save(source / "e.png")
    os.mkfifo(source / "f.png")
    (source / "g.png").symlink_to(tmp_path / "nowhere.png")
    (source / "h.png").symlink_to(film)  # leads out of the folder
    (source / "notes.txt").write_text("not listed")
    (source / ".hidden.png").write_text("not listed")
    found, rows = ask(run, tmp_path / "t.csv", film, source, min_confidence=0)
    assert [row["path"] for row in rows] == [str(film), *(str(source / f"{letter}.png") for letter in "bcdefg")]
    assert rows[0]["predicted_class"] in CLASSES
    for row in rows[1:]:
        assert (
            row["predicted_class"] == "abstains"
            and row["reason"].startswith("unreadable: ")
            and row["defects"] == "unreadable"
        )
    assert "text" in rows[1]["reason"] and "FIFO" in rows[5]["reason"] and "outside" in rows[6]["reason"]
    assert found.abstained == {"unreadable": 6}


def test_a_name_at_which_nothing_is_is_refused_before_any_file_is_decoded_and_the_earlier_table_stays(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, film = tmp_path / "t.csv", next(films.rglob("*.png"))
    ask(run, out, films)
    before = out.read_bytes()
    (tmp_path / "ring.png").symlink_to(tmp_path / "ring.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing.png")
    monkeypatch.setattr(prediction, "rows_of", lambda *given: pytest.fail("a file was decoded"))
    for name, why in (
        ("missing.png", "No such file"),
        ("dangling.png", "No such file"),
        ("ring.png", "symbolic links"),
        ("x" * 300, "too long"),
    ):
        with pytest.raises(InputError, match=f"{name}: .*{why}.*, expected a radiograph or a folder; check the path"):
            ask(run, out, film, tmp_path / name)
        assert out.read_bytes() == before


def test_where_no_file_can_be_predicted_the_earlier_table_stays(run: Path, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    ask(run, out, films)
    before = out.read_bytes()
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(InputError, match=r"\(1 unreadable\), the first because: .*b\.png: unreadable: text"):
        ask(run, out, tmp_path / "b.png")
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"t.csv", "b.png"}


def test_a_link_that_leads_out_of_a_folder_is_not_followed(run: Path, films: Path, tmp_path: Path) -> None:
    film = next(films.rglob("*.png"))
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "link.png").symlink_to(film)
    with pytest.raises(InputError, match="unreadable: leads outside"):
        ask(run, tmp_path / "t.csv", tmp_path / "s", min_confidence=0)
    _, rows = ask(run, tmp_path / "t.csv", tmp_path / "s" / "link.png", min_confidence=0)  # named by the user
    assert rows[0]["predicted_class"] in CLASSES


def test_a_file_named_twice_has_one_row_and_a_caution(run: Path, films: Path, tmp_path: Path) -> None:
    film = next(films.rglob("*.png"))
    found, rows = ask(run, tmp_path / "t.csv", film, films, film.parent / ".." / film.parent.name / film.name)
    assert len(rows) == 6 and "2 of the files were named more than once" in output_text(found)


def test_a_file_of_the_training_set_is_recognised_by_its_pixels(
    run: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    table = list(csv.DictReader((betons / "convert.csv").read_text().splitlines()))
    splits = ("train", "val", "heldout")
    paths = [next(phantoms.parent / row["path"] for row in table if row["split"] == split) for split in splits]
    copied = tmp_path / "renamed.png"
    shutil.copy(paths[0], copied)
    found, rows = ask(run, tmp_path / "t.csv", copied, *paths[1:], audit="off")
    assert [row["in_set"] for row in rows] == ["training", "validation", ""]
    assert caution("files-of-the-run", set="training", files=1) in found.cautions
    other = tmp_path / "run"
    shutil.copytree(run, other)
    (other / "leakage.safetensors").unlink()
    found, rows = ask(other, tmp_path / "t.csv", copied, audit="off")
    assert rows[0]["in_set"] == "" and "no-leakage-record" in {one.code for one in found.cautions}


def test_whether_a_run_of_an_earlier_release_knows_a_file_is_reported_as_unknown(
    run: Path, betons: Path, phantoms: Path, tmp_path: Path
) -> None:
    table = list(csv.DictReader((betons / "convert.csv").read_text().splitlines()))
    path = next(phantoms.parent / row["path"] for row in table if row["split"] == "train")
    older = tmp_path / "run"
    shutil.copytree(run, older)
    hashed_formerly(older)
    found, rows = ask(older, tmp_path / "t.csv", path, audit="off")
    assert rows[0]["in_set"] == ""
    assert caution("run-hashed-otherwise", found="blake2b", expected="blake3") in found.cautions
    shown = [part.text for part in prediction_parts(found) if isinstance(part, Line)]
    assert any("it is unknown which files the run was trained on" in text for text in shown)
    assert not [one for one in found.cautions if one.code == "files-of-the-run"]


def test_names_that_hurt_tables_stay_one_row(run: Path, films: Path, tmp_path: Path) -> None:
    film = next(films.rglob("*.png"))
    source = tmp_path / "s"
    source.mkdir()
    names = ["a\nb.png", 'c",d.png', os.fsdecode(b"e\xff.png")]
    for name in names:
        shutil.copy(film, source / name)
    _, rows = ask(run, tmp_path / "t.csv", source)
    assert [row["path"] for row in rows] == [str(source / name) for name in names]
    ask_json = PredictConfig(run=run, files=(source,), out=tmp_path / "t.jsonl", device="cpu", workers=1)
    predict_files(ask_json)
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert [line["path"] for line in lines] == [str(source / name) for name in names]


def test_json_lines_hold_what_the_csv_holds(run: Path, films: Path, tmp_path: Path) -> None:
    (tmp_path / "b.png").write_text("no picture")
    _, rows = ask(run, tmp_path / "t.csv", films, tmp_path / "b.png")
    predict_files(
        PredictConfig(run=run, files=(films, tmp_path / "b.png"), out=tmp_path / "t", format="jsonl", device="cpu")
    )
    lines = [json.loads(line) for line in (tmp_path / "t").read_text().splitlines()]
    assert len(lines) == len(rows) == 7
    for line, row in zip(lines, rows, strict=True):
        assert line.pop("not_for_diagnosis") is True
        assert list(line) == list(row)
        assert (line["path"], line["predicted_class"], line["reason"]) == (
            row["path"],
            row["predicted_class"],
            row["reason"],
        )
        assert line["defects"] == [name for name in row["defects"].split(";") if name]
        assert line["probability_covid"] == (float(row["probability_covid"]) if row["probability_covid"] else None)


def test_many_windows_and_workers_give_the_rows_of_one(
    run: Path, betons: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = phantoms.parent / "images"
    _, whole = ask(run, tmp_path / "t.csv", folder, audit="off")
    monkeypatch.setattr(prediction, "WINDOW", 40)
    done: list[int] = []
    config = PredictConfig(
        run=run, files=(folder,), out=tmp_path / "u.csv", device="cpu", workers=2, batch_size=7, audit="off"
    )
    predict_files(config, lambda phase, number, total: done.append(number))
    assert len(whole) > 40 and done == list(range(1, len(whole) + 1))
    parts = list(csv.DictReader((tmp_path / "u.csv").read_text().splitlines()))
    for row, other in zip(whole, parts, strict=True):
        assert (row["path"], row["predicted_class"]) == (other["path"], other["predicted_class"])
        assert float(row["probability_covid"]) == pytest.approx(float(other["probability_covid"]), abs=2e-6)


def test_the_table_is_for_its_owner_alone_and_appears_whole_or_not_at_all(
    run: Path, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "t.csv"
    out.write_text("old")
    monkeypatch.setattr(prediction, "predicted_rows", lambda *given: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        ask(run, out, films)
    assert out.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    monkeypatch.undo()
    ask(run, out, films)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_what_a_killed_run_left_is_taken_over_and_a_living_one_is_not(run: Path, films: Path, tmp_path: Path) -> None:
    import fcntl

    out = tmp_path / "t.csv"
    lock = tmp_path / f"t.csv.lock{SUFFIX}"
    (tmp_path / f"t.csv.frames-0123{SUFFIX}").write_bytes(b"left")
    with lock.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="another plainfilm process"):
            ask(run, out, films)
    ask(run, out, films)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_workers_of_a_killed_prediction_do_not_find_the_next_ones_spool(tmp_path: Path) -> None:
    with opened_spool(tmp_path / "[t].csv", 16) as killed:
        lived = killed.read_bytes()
    killed.write_bytes(lived)  # as kill -9 leaves it
    with opened_spool(tmp_path / "[t].csv", 16) as next_one:
        with pytest.raises(FileNotFoundError):
            write_frame(killed, 0, np.ones(4, np.uint8))
        assert next_one.read_bytes() == bytes(16) and stat.S_IMODE(next_one.stat().st_mode) == 0o600


def test_a_table_that_cannot_be_locked_is_not_called_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(StorageError, match="No locks available"), opened_spool(tmp_path / "t.csv", 16):
        pass


def test_probabilities_are_called_calibrated(run: Path, films: Path, tmp_path: Path) -> None:
    found, _ = ask(run, tmp_path / "t.csv", films)
    assert f"calibrated on validation, at temperature {found.temperature:.3g}" in output_text(found)


def test_settings_that_cannot_be_are_refused(run: Path, films: Path, tmp_path: Path) -> None:
    film = next(films.rglob("*.png"))
    for changes, message in (
        ({"out": Path("t.txt")}, r"t\.txt: expected a name in \.csv or \.jsonl"),
        ({"min_confidence": 1.5}, "min-confidence"),
        ({"files": ()}, "files: found none"),
        ({"audit": "off", "limits": AuditLimits(limit_blurred=1)}, "limit"),
        ({"limits": AuditLimits(limit_near_duplicate=0.5)}, "near-duplicate"),
    ):
        with pytest.raises(ConfigError, match=message):
            PredictConfig(**({"run": run, "files": (film,)} | changes))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no folder"):
        ask(run, tmp_path / "missing" / "t.csv", film)
    copied = tmp_path / "film.csv"
    shutil.copy(film, copied)
    with pytest.raises(ConfigError, match="is one of the files"):
        ask(run, copied, copied)
    assert copied.read_bytes() == film.read_bytes()
    os.mkfifo(tmp_path / "pipe.csv")  # as /dev/null would be, with --format
    with pytest.raises(ConfigError, match="no regular file"):
        ask(run, tmp_path / "pipe.csv", film)
    assert (tmp_path / "pipe.csv").is_fifo()
    with pytest.raises(ConfigError, match="not a folder"):
        ask(tmp_path / "nowhere", tmp_path / "t.csv", film)


def test_a_run_without_weights_is_refused(run: Path, films: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(CheckpointError, match=r"best\.safetensors: not there"):
        ask(tmp_path / "run", tmp_path / "t.csv", films)
    assert not (tmp_path / "t.csv").exists()


def test_an_empty_folder_is_refused_alone_and_a_caution_beside_others(run: Path, films: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="no radiographs found"):
        ask(run, tmp_path / "t.csv", tmp_path / "empty")
    found, rows = ask(run, tmp_path / "t.csv", tmp_path / "empty", films)
    assert len(rows) == 6 and "empty holds no file that may be a picture" in output_text(found)


def test_the_command_counts_by_class_and_reason(
    run: Path, films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b\n.png").write_text("no picture")
    arguments = ["predict", str(run), str(films), str(tmp_path / "b\n.png"), "--out", str(tmp_path / "t.csv")]
    assert cli.main([*arguments, "--min-confidence", "0", "--workers", "1", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "7 files: 6 predicted + 1 abstained" in shown and "unreadable" in shown
    assert "not for diagnosis" in shown and str(tmp_path / "t.csv") in shown


def test_the_command_exits_with_3_when_no_file_could_be_predicted_and_gives_the_reasons(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "b.png").write_text("no picture")
    out = tmp_path / "t.csv"
    assert cli.main(["predict", str(run), str(tmp_path / "b.png"), "--out", str(out), "--device", "cpu"]) == 3
    printed = capsys.readouterr()
    assert "none of 1 files could be predicted (1 unreadable)" in printed.err and "Traceback" not in printed.err
    assert "b.png: unreadable: text" in printed.err and not out.exists()


def test_the_command_exits_with_2_for_wrong_usage_and_5_without_weights(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "b.png"
    film.write_text("no picture")
    assert cli.main(["predict", str(film)]) == 2
    assert cli.main(["predict", str(run), str(film), "--out", str(tmp_path / "x" / "t.csv")]) == 2
    (tmp_path / "run").mkdir()
    assert cli.main(["predict", str(tmp_path / "run"), str(film), "--out", str(tmp_path / "t.csv")]) == 5
    (tmp_path / "empty").mkdir()
    assert cli.main(["predict", str(run), str(tmp_path / "empty"), "--out", str(tmp_path / "t.csv")]) == 3
    assert "Traceback" not in capsys.readouterr().err


# ---- findings


def settled(*thresholds: float | None) -> FindingDecisions:
    """What validation settled of findings; None: it knew too few films of one."""
    rules = [Decision(temperature=1.0, points=(OperatingPoint(name=POINT, threshold=found),)) for found in thresholds]
    return FindingDecisions(
        names=tuple(f"finding {place}" for place in range(len(rules))),
        by_finding=tuple(rules),
        enough_K=np.array([found is not None for found in thresholds]),
    )


def decisions(probability: float, threshold: float | None, min_confidence: float) -> PredictedFile:
    rule = finding_rule(("Effusion",), settled(threshold), min_confidence)
    return rule.decided(PredictedFile(path="a.png"), np.array([probability]))


@pytest.mark.parametrize("min_confidence", [0.0, 0.5, 0.7, 0.95, 1.0])
@pytest.mark.parametrize("threshold", [1e-12, 0.01, 0.1, 0.5, 0.97, 1.0])
def test_a_finding_is_absent_then_undecided_then_present_as_its_probability_rises(
    threshold: float, min_confidence: float
) -> None:
    rising = np.unique([0.0, *np.logspace(-13, 0, 400), *(1 - np.logspace(-13, 0, 400)), threshold])
    order = [ABSENT, ABSTAINS, PRESENT]
    places = [order.index(decisions(value, threshold, min_confidence).decisions[0]) for value in rising.tolist()]
    assert places == sorted(places)
    if min_confidence <= 0.5:  # then every film is decided, and as `evaluate` predicts it
        assert [order[place] for place in places] == [PRESENT if value >= threshold else ABSENT for value in rising]
    elif 1e-9 < threshold < 1:
        assert decisions(threshold, threshold, min_confidence).decisions == (ABSTAINS,)


def test_at_a_threshold_of_a_half_a_finding_is_decided_as_two_classes_are_and_a_rare_one_in_proportion() -> None:
    for value in np.linspace(0.001, 0.999, 99).tolist():
        (found,) = decisions(value, 0.5, 0.7).decisions
        assert (found == ABSTAINS) == (max(value, 1 - value) < 0.7), value
    # odds of 1 to 9 at the threshold: those of 7 to 3 relative to it, and of 3 to 7
    assert [decisions(p, 0.1, 0.7).decisions[0] for p in (0.0454, 0.0456, 0.2058, 0.2060)] == [
        ABSENT, ABSTAINS, ABSTAINS, PRESENT,
    ]  # fmt: skip
    assert decisions(0.1, 0.1, 0.7).undecided == "abstains on Effusion: 0.1 lies between 0.0455 and 0.206"


def test_a_finding_abstains_where_its_questions_are_answered_differently() -> None:
    rule = finding_rule(("Effusion", "Mass"), settled(0.5, 0.2), 0.0)
    by_prompt_PK = np.array([[0.9, 0.25], [0.8, 0.9], [0.4, 0.2]])
    row = rule.decided(PredictedFile(path="a.png"), np.array([0.7, 0.5]), by_prompt_PK)
    assert row.decisions == (ABSTAINS, PRESENT)
    assert row.undecided == "abstains on Effusion: its questions are answered differently"


def test_a_class_abstains_where_questions_are_answered_differently_or_confidence_is_low_and_says_which() -> None:
    rule = ClassRule(classes=("a", "b"), min_confidence=0.6)
    film = PredictedFile(path="a.png")
    agreed = rule.decided(film, np.array([0.7, 0.3]), np.array([[0.6, 0.4], [0.9, 0.1]]))
    assert (agreed.predicted_class, agreed.kind) == ("a", "")
    split = rule.decided(film, np.array([0.7, 0.3]), np.array([[0.4, 0.6], [0.9, 0.1], [0.8, 0.2]]))
    assert (split.predicted_class, split.kind) == ("", "prompts-disagree")
    assert split.reason == "prompts-disagree: 2 answered a and 1 answered b"
    both = rule.decided(film, np.array([0.55, 0.45]), np.array([[0.4, 0.6], [0.7, 0.3]]))
    assert both.kind == "low-confidence;prompts-disagree" and "; " in both.reason
    assert rule.decided(film, np.array([0.55, 0.45])).kind == "low-confidence"


def test_a_finding_that_validation_hardly_knew_is_never_decided_and_has_no_probability() -> None:
    for value in (0.0, 0.5, 1.0):
        row = decisions(value, None, 0.0)
        assert row.decisions == (ABSTAINS,) and row.probabilities == (None,)
        assert row.undecided == "abstains on Effusion: it was known in too few films of validation"


@pytest.fixture(scope="module")
def finding_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on findings, of one of which validation knows too few films; its betons lie beside it."""
    folder = tmp_path_factory.mktemp("findings")
    counts = {"train": 48, "val": 40, "heldout": 12}
    write_findings(folder / "b", (*NAMES, "=Hernia\n"), counts=counts, crop=32)
    with Beton(folder / "b" / "val.beton") as beton:
        labels, rows_N, facts = beton.labels.copy(), beton.rows_N.copy(), beton.facts
        frames_NSS = np.stack([beton.frame(sample) for sample in range(len(beton))])
    labels[3:, 3] = np.nan
    write_beton(folder / "b" / "val.beton", iter(frames_NSS), labels, rows_N, facts, 1 << 21)
    train(small_training(folder / "b", folder / "run", epochs=2, batch_size=16))
    return folder / "run"


@pytest.fixture(scope="module")
def finding_films(finding_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames of the held-out beton as files, and one that is none."""
    folder = tmp_path_factory.mktemp("finding-films")
    with Beton(finding_run.parent / "b" / "heldout.beton") as beton:
        for sample in range(len(beton)):
            Image.fromarray(beton.frame(sample)).save(folder / f"{sample:02}.png")
    (folder / "broken.png").write_text("no picture")
    return folder


def test_each_finding_of_each_file_has_a_probability_and_a_decision(
    finding_run: Path, finding_films: Path, tmp_path: Path
) -> None:
    names, trained = (*NAMES, "=Hernia\n"), load_trained(finding_run)
    found, rows = ask(finding_run, tmp_path / "t.csv", finding_films, audit="off", min_confidence=0.6)
    assert list(rows[0]) == [
        "path", "kind", "reason", *(f"{what}_{name}" for name in names for what in ("probability", "decision")),
        "defects", "fix", "in_set", "note",
    ]  # fmt: skip
    assert len(rows) == 13 and rows[-1]["kind"] == "unreadable" and rows[-1]["reason"].startswith("unreadable: ")
    assert all(rows[-1][f"decision_{name}"] == ABSTAINS and not rows[-1][f"probability_{name}"] for name in names)
    rule = finding_rule(names, trained.findings, 0.6)
    for row in rows[:-1]:
        assert row["decision_=Hernia\n"] == ABSTAINS and row["probability_=Hernia\n"] == "" and not row["kind"]
        assert row["reason"].startswith("abstains on ") and "=Hernia\n: it was known in too few" in row["reason"]
        for place, name in enumerate(NAMES):
            value, decision = float(row[f"probability_{name}"]), row[f"decision_{name}"]
            expected = PRESENT if value >= rule.present_from_K[place] else ABSTAINS
            assert decision == (ABSENT if value <= rule.absent_to_K[place] else expected)
            assert (f"{name}: " in row["reason"]) == (decision == ABSTAINS)
    parts = prediction_parts(found)
    table = next(part for part in parts if isinstance(part, Sheet))
    assert table.headers[:4] == ("finding", "present", "absent", "abstained")
    for name, *counts, low, high in table.rows:
        decided = [row[f"decision_{name}"] for row in rows[:-1]]
        assert counts == [str(decided.count(what)) for what in (PRESENT, ABSENT, ABSTAINS)]
        assert (low == "–") == (name == "=Hernia\n") == (high == "–")
    assert isinstance(parts[0], Line) and parts[0].text == "13 files: 12 scored + 1 not scored"
    assert found.cautions.count(caution("few-known-in-validation", findings=["=Hernia\n"], least=5)) == 1


def test_probabilities_of_findings_are_those_of_the_frames_in_the_beton_and_json_has_the_same(
    finding_run: Path, finding_films: Path, tmp_path: Path
) -> None:
    _, rows = ask(finding_run, tmp_path / "t.csv", finding_films, audit="off", batch_size=5)
    trained = load_trained(finding_run)
    policy = choose_policy("cpu", "off", "off", 0)
    stored = trained.state["stored"]
    grey = [np.asarray(Image.open(path)) for path in sorted(finding_films.glob("[0-9]*.png"))]
    frames_NSS = np.stack([stored_frame(grey_HW, stored, "stretch")[0] for grey_HW in grey])
    expected_NK = trained.probabilities(frames_NSS.reshape(-1), np.arange(12) * stored**2, policy)
    found_NK = [[float(row[f"probability_{name}"]) for name in NAMES] for row in rows[:-1]]
    np.testing.assert_allclose(found_NK, expected_NK[:, :3], atol=2e-6)
    config = PredictConfig(run=finding_run, files=(finding_films,), out=tmp_path / "t.jsonl", device="cpu", audit="off")
    predict_files(config)
    for line, row in zip((tmp_path / "t.jsonl").read_text().splitlines(), rows, strict=True):
        content = json.loads(line)
        assert content.pop("not_for_diagnosis") is True and content.keys() == row.keys()
        content["defects"] = ";".join(content["defects"])
        for name, cell in row.items():
            number = name.startswith("probability_")
            assert content[name] == ((float(cell) if cell else None) if number else cell)
