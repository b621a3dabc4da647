"""Findings of real films through every command, as a user runs them: films too few for a score worth having."""

import contextlib
import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cli
from engine.statistics.findings import LEAST_KNOWN
from loaders.beton.reader import Beton
from loaders.sources.finding_sets import NIH_FINDINGS
from tests.conftest import made_once

SPLITS = ("train", "val", "heldout")
CPU = ("--device", "cpu")
SMALL = ("--size", 64, "--workers", 1, "--page-mib", 2)
COMMANDS = ("convert", "train", "evaluate", "crossval", "explain", "predict", "report", "audit")


def chosen_rows(radiographs: Path) -> list[dict[str, str]]:
    """The films of every third patient of NIH's table, in which each finding is present at least once."""
    with (radiographs / "nih_labels.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    taken = list(dict.fromkeys(row["Patient ID"] for row in rows))[::3]
    return [row for row in rows if row["Patient ID"] in taken]


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def secret(patient: str) -> str:
    """A patient's identifier in the table of the chain, which no number in a result could be mistaken for."""
    return f"NIHP{patient}X"


def run_command(folder: Path, command: str, *arguments: object) -> None:
    """Run a command, and keep what it prints in a file that is named by it."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert cli.main([command, *map(str, arguments)]) == 0, command
    (folder / f"{command}.txt").write_text(printed.getvalue(), encoding="utf-8")


@pytest.fixture(scope="module")
def chain(radiographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of every command: betons B, the run R, cross-validation C, the audit A."""

    def make(folder: Path) -> None:
        rows = chosen_rows(radiographs)
        table = write_rows(folder / "t.csv", [row | {"Patient ID": secret(row["Patient ID"])} for row in rows])
        betons, run, heldout = folder / "B", folder / "R", folder / "B" / "heldout.beton"
        columns = ("--label-column", "Finding Labels", "--separator", "|", "--patient-column", "Patient ID")
        key = ("--site-key", folder / "site.key")
        run_command(
            folder, "convert", "--manifest", table, "--root", radiographs, *columns, "--holdout", 0.3, *SMALL, *key,
            "--out", betons,
        )  # fmt: skip
        run_command(folder, "train", betons, "--out", run, "--epochs", 1, *CPU)
        run_command(folder, "evaluate", run, heldout, "--resamples", 100, *CPU)
        folds = ("--folds", 2, "--splits", "group", "--resamples", 100)
        run_command(folder, "crossval", betons, "--out", folder / "C", *folds, "--epochs", 1, *CPU)
        run_command(folder, "explain", run, heldout, "--samples", 6, "--minutes", 0.001, *CPU)
        films = [radiographs / row["path"] for row in rows[:3]]
        run_command(folder, "predict", run, *films, "--out", folder / "p.csv", "--workers", 1, *CPU)
        run_command(folder, "report", run, "--crossval", folder / "C")
        run_command(folder, "audit", betons / "train.beton", "--out", folder / "A", "--permutations", 999)

    return made_once(tmp_path_factory, "findings-chain", make)


def by_film(betons: Path) -> dict[str, tuple[bytes, ...]]:
    """Name of a film → its pixels' hash and its findings, of all betons of a folder."""
    with (betons / "convert.csv").open(newline="", encoding="utf-8") as file:
        name_of = {(row["split"], int(row["sample"])): Path(row["path"]).name for row in csv.DictReader(file)}
    result = {}
    for split in SPLITS:
        with Beton(betons / f"{split}.beton") as beton:
            assert beton.facts.classes == tuple(NIH_FINDINGS)
            for sample, findings_K in enumerate(beton.labels):
                result[name_of[split, sample]] = (beton.rows_N["pixel_hash"][sample].tobytes(), findings_K.tobytes())
    assert len(result) == len(name_of)
    return result


def result_of(folder: Path, pattern: str) -> dict[str, Any]:
    (path,) = folder.glob(pattern)
    return json.loads(path.read_text(encoding="utf-8"))


def refused_in_validation(chain: Path) -> set[str]:
    """Findings that validation knows too little of, by its own films."""
    with Beton(chain / "B" / "val.beton") as beton:
        groups = [
            [len({*beton.rows_N["group"][beton.labels[:, place] == value].tolist()}) for value in (0, 1)]
            for place in range(len(NIH_FINDINGS))
        ]
    return {name for name, counts in zip(NIH_FINDINGS, groups, strict=True) if min(counts) < LEAST_KNOWN}


@pytest.mark.radiographs
def test_films_keep_the_findings_of_their_table(chain: Path, radiographs: Path) -> None:
    expected = {}
    for row in chosen_rows(radiographs):
        listed = row["Finding Labels"].split("|")
        expected[Path(row["path"]).name] = np.array([name in listed for name in NIH_FINDINGS], np.float32).tobytes()
    assert {name: findings for name, (_, findings) in by_film(chain / "B").items()} == expected


@pytest.mark.radiographs
def test_every_file_that_a_command_names_is_there(chain: Path) -> None:
    named = {
        command: [line for line in (chain / f"{command}.txt").read_text("utf-8").splitlines() if line.startswith("/")]
        for command in COMMANDS
    }
    assert all(named.values()), named
    missing = [path for paths in named.values() for path in paths if not Path(path).is_file()]
    assert not missing
    page = (chain / "R" / "report.html").read_text("utf-8")
    links = [link for link in re.findall(r'(?:href|src)="([^"#]*)"', page) if not re.match(r"data:|https?:", link)]
    assert all((chain / "R" / link).exists() for link in links)
    explained = result_of(chain, "R/explanation/*/explanation-by-finding.json")
    (folder,) = (chain / "R" / "explanation").glob("heldout-*")
    shown = {sample["overlay"] for found in explained["findings"] for sample in found["samples"]}
    assert shown and shown == {path.name for path in folder.glob("0*.png")}


@pytest.mark.radiographs
def test_the_page_says_by_itself_that_no_score_is_worth_having(chain: Path) -> None:
    page, printed = (chain / "R" / "report.html").read_text("utf-8"), (chain / "report.txt").read_text("utf-8")
    assert "How good: No score here is worth having" in printed and "How sure: Not sure at all" in printed
    assert "No score here is worth having" in page and "Not sure at all" in page
    assert not re.search(r"How (good|sure): [^\n]*AUC (of|over)", printed)


@pytest.mark.radiographs
def test_findings_known_of_too_few_patients_are_undefined_and_none_is_zero_or_one_for_want_of_films(
    chain: Path,
) -> None:
    with Beton(chain / "B" / "heldout.beton") as beton:
        labels_NK, group_N = beton.labels.copy(), beton.rows_N["group"].copy()
    tested = result_of(chain, "R/evaluation/*/findings.json")
    (pooled,) = result_of(chain, "C/crossval.json")["targets"]
    assert [found["name"] for found in tested["findings"]] == list(NIH_FINDINGS)
    refused = set()
    for place, found in enumerate(tested["findings"]):
        groups = [np.unique(group_N[labels_NK[:, place] == value]).size for value in (0, 1)]
        values = {name: one["value"] for name, one in found["estimates"].items()}
        if min(groups) < LEAST_KNOWN:
            refused.add(found["name"])
            assert found["refused"]["parameters"] == {"absent": groups[0], "present": groups[1], "least": LEAST_KNOWN}
            assert set(values.values()) <= {None} and not found["operating_points"] and not found["subgroups"]
        else:
            assert found["refused"] is None and values["auc"] is not None
    measured = len(NIH_FINDINGS) - len(refused)
    assert refused and measured and tested["macro"]["auc"]["defined"] == measured
    assert tested["macro"]["auc"]["classes"] == len(NIH_FINDINGS)
    lacking = [found for found in pooled["findings"] if found["refused"]]
    assert lacking and len(lacking) < len(NIH_FINDINGS)
    for found in lacking:
        for metric in ("f1", "auc", "accuracy"):
            assert found[metric]["estimate"]["value"] is None and set(found[metric]["folds"]) == {None}


@pytest.mark.radiographs
def test_of_findings_that_validation_hardly_knows_nothing_is_predicted(chain: Path) -> None:
    with (chain / "p.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    few = refused_in_validation(chain)
    assert len(rows) == 3 and few
    for row in rows:
        for name in few:
            assert (row[f"decision_{name}"], row[f"probability_{name}"]) == ("abstains", "")


@pytest.mark.radiographs
def test_no_patient_and_no_file_name_is_in_what_may_be_shared(chain: Path, radiographs: Path) -> None:
    private = re.compile(rb"000\d{5}_\d{3}"), re.compile(rb"NIHP\d+X")  # two, each quickly found by its beginning
    films, patients = ({*pattern.findall((chain / "t.csv").read_bytes())} for pattern in private)
    rows = chosen_rows(radiographs)
    assert films == {Path(row["path"]).stem.encode() for row in rows}
    assert patients == {secret(row["Patient ID"]).encode() for row in rows}
    shared = [path for part in "RCA" for path in (chain / part).rglob("*") if path.is_file()]
    shared += (chain / "B").glob("*.beton")
    found = {path.name for path in shared}
    assert {"findings.json", "report.html", "dataflow.json", "crossval.json", "probes-by-finding.json"} <= found
    assert {"audit.html", "train.beton", "explanation-by-finding.json"} <= found
    contents = {path: path.read_bytes() for path in shared}
    assert not [path for path, content in contents.items() if any(pattern.search(content) for pattern in private)]


@pytest.mark.radiographs
@pytest.mark.extras
def test_the_card_of_an_exported_run_names_what_was_not_measured_and_nobody(chain: Path, tmp_path: Path) -> None:
    run_command(tmp_path, "export", chain / "R", "--out", tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").stat().st_size > 0
    card = (tmp_path / "model_card.md").read_text("utf-8")
    assert all(name in card for name in NIH_FINDINGS) and "not measured" in card
    assert "NIHP" not in card and not re.search(r"\d{8}_\d{3}", card)


@pytest.mark.radiographs
def test_the_layout_of_the_set_made_of_links_gives_each_film_the_same_findings(
    chain: Path, radiographs: Path, tmp_path: Path
) -> None:
    rows = chosen_rows(radiographs)
    source = tmp_path / "nih"
    for place, row in enumerate(rows):
        folder = source / f"images_{1 + place % 2:03}" / "images"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / row["Image Index"]).symlink_to(radiographs / row["path"])
    names = [name for name in rows[0] if name != "path"]
    write_rows(source / "Data_Entry_2017_v2020.csv", [{name: row[name] for name in names} for row in rows])
    run_command(
        tmp_path, "convert", source, "--preset", "nih", "--findings", "all", "--root", radiographs, *SMALL,
        "--holdout", 0.3, "--site-key", tmp_path / "site.key", "--out", tmp_path / "B",
    )  # fmt: skip
    assert by_film(tmp_path / "B") == by_film(chain / "B")
