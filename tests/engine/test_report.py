"""The report of a run: an honest verdict by plain rules, nothing hidden, nothing that leaves the page."""

import base64
import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import cli
from engine.config import ReportConfig
from engine.crossval.scores import Crossval
from engine.evaluate.dataflow import DataFlow, count_files, dataflow_beside, keep_dataflow
from engine.evaluate.findings import FindingsMetrics
from engine.evaluate.results import Metrics
from engine.explain.gallery import overlay, picture_bytes
from engine.explain.lungs import LUNGS_ALONE
from engine.hurdles.results import Cell, Hurdles
from engine.report.findings_tables import finding_rows
from engine.report.page import flow_classes
from engine.report.probes import Probes, probe_run
from engine.report.report import report, write_report
from engine.report.results import read_results
from engine.report.tables import train_command
from engine.report.verdict import Verdict, judge
from engine.statistics.names import METRICS
from loaders.audit.findings import DEFECTS
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.errors import InputError
from loaders.html import visible
from loaders.phantom.phantom import write_phantoms
from loaders.records import Record, encode_record, read_record
from tests.browser import Browser, check_page
from tests.example_run import (
    CHECKPOINT,
    CONVERSION,
    FINDINGS,
    SET,
    alone,
    crossval,
    crossval_of_lungs,
    dataflow,
    deletion,
    draw_pictures,
    estimate,
    example,
    explanation,
    finding,
    finding_explained,
    findings_dataflow,
    findings_explanation,
    findings_metrics,
    findings_probes,
    hurdles,
    hurdles_cell,
    leave_one_out,
    lungs,
    make_findings_run,
    make_run,
    metrics,
    probes,
    put,
    subgroup,
    summary,
    unmeasured,
)
from tests.loaders.test_audit_page import HOSTILE, Reader, luminance
from tests.loaders.test_beton import strip_footer

PRAISE = re.compile(r"excellent|good\b|accurate|reliable|strong|impressive|robust|high", re.IGNORECASE)


def cautions(*found: Caution) -> list[dict[str, Any]]:
    """As JSON holds them."""
    return msgspec.to_builtins(found)  # type: ignore[no-any-return]


OTHER = SET.replace("a9efac4d", "bbbbbbbb")
PHANTOMS = caution("synthetic-phantoms")
TRAP = caution("confounded-with-source", classes=["covid"], images=9)
OWN = {"covid": 99.0, "normal": 100.0}
NUMBERS = {"label": "covid", "accuracy": 0.995, "low": 0.985, "high": 1.0, "own_percent": OWN}
NEARLY = caution("strongly-confounded-with-source", **NUMBERS)
PARTLY = caution("moderately-confounded-with-source", **NUMBERS | {"low": 0.7})
UNKNOWN = caution("patients-unknown", unknown=3, images=400)
SEVEN = caution("few-groups", groups=7)
LEAKED = caution("leakage-forced", images=3, patients=5)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound run with its pictures; not to be changed."""
    return draw_pictures(make_run(tmp_path_factory.mktemp("drawn") / "run"))


def verdict_of(run: Path) -> Verdict:
    return judge(read_results(run))


def planted(tmp_path: Path, **parts: Any) -> Verdict:
    return verdict_of(make_run(tmp_path / "run", **parts))


def test_a_sound_run_gets_plain_numbers_with_their_lower_ends_and_no_praise(tmp_path: Path) -> None:
    verdict = planted(tmp_path)
    assert verdict.state == "held" and not verdict.red_flags and not verdict.unchecked
    assert verdict.how_good.startswith(f"On 400 radiographs ({SET}), which training never saw, it finds 89.3")
    assert "interval from 85.3" in verdict.how_good and "always answering normal finds none" in verdict.how_good
    assert "0.918 to 0.978" in verdict.how_sure and "310 groups" in verdict.how_sure
    assert "does not prove" in verdict.what_could_fool
    for sentence in verdict.sentences.values():
        assert not PRAISE.search(sentence), sentence
        assert sentence.endswith(".") and sentence.count(". ") == 0


RED_FLAGS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"metrics": metrics(cautions=cautions(LEAKED))},
        "This score is leaked",
        "holds 3 images known to be of the training set",
    ),
    (
        {"metrics": metrics(cautions=cautions(caution("validation-leakage")))},
        "This score is optimistic",
        "holds images or patients of the validation set",
    ),
    (
        {"summary": summary(cautions=cautions(TRAP))},
        "This score is evidence of nothing clinical",
        "images of covid (9)",
    ),
    (
        {"metrics": metrics(cautions=cautions(TRAP))},
        "This score is evidence of nothing clinical",
        "images of covid (9)",
    ),
    (
        {"probes": probes(cautions=cautions(TRAP))},
        "This score is evidence of nothing clinical",
        "sources that have no other class",
    ),
    (
        {"summary": summary(synthetic=True, cautions=cautions(PHANTOMS))},
        "This score says nothing about patients",
        "all images are synthetic phantoms, drawn by a program",
    ),
    (
        {"explanation": explanation(region="outside", lungs=lungs(0.8, 0.7, 0.93))},
        "This score need not come from the lungs",
        "0.80 times their share",
    ),
    (
        {"probes": probes("lungs-hidden", "histogram")},
        "This score need not come from the disease",
        "2 of 7 probes predict the class or its source from little or nothing of the finding (at best lungs-hidden, "
        "AUC 0.860)",
    ),
    ({"crossval": crossval(hidden=0.8)}, "This score need not come from the lungs", "still reaches AUC 0.80"),
    (
        {"crossval": crossval_of_lungs(0.97, 0.96, (0.01, -0.01, 0.03))},
        "This score need not come from the disease",
        "the outline of the lungs alone, without a pixel inside, reaches AUC 0.960, the lungs themselves 0.970",
    ),
    (
        {"crossval": crossval_of_lungs(0.97, 0.96, (0.01, -0.01, 0.03), ("boxed", "boxed-silhouette"))},
        "This score need not come from the disease",
        "in cross-validation, at one size, the outline of the lungs alone, without a pixel inside, reaches AUC 0.960",
    ),
    ({"crossval": crossval(random=0.99)}, "This score may be inflated", "random folds reach F1 0.99"),
    ({"crossval": crossval(abroad=0.6)}, "This score does not hold on another collection", "falls from 0.940 to 0.650"),
    ({"first_f1": 0.995}, "This score came suspiciously early", "validation F1 was 0.995 after one epoch"),
    (
        {"metrics": metrics(cautions=cautions(UNKNOWN))},
        f"This score {UNKNOWN.meaning.effect}",
        "unknown for 3 of 400 images",
    ),
    (
        {"crossval": crossval(cautions=cautions(caution("every-image-its-own-group")))},
        "This score may be inflated, since leakage between patients is not excluded",
        "no two images are known to be of one patient",
    ),
    ({"metrics": metrics(confusion=[[50, 8], [21, 211]])}, "This score rests on few images", "58 of covid"),
    (
        {"metrics": metrics(cautions=cautions(SEVEN))},
        "This score rests on few patients",
        "only 7 groups",
    ),
    (
        {"metrics": metrics(subgroups=[subgroup("source", "hospital C", 90, {"auc": estimate(0.7)})])},
        "This score does not hold everywhere",
        "for source hospital C the ROC-AUC is only 0.700",
    ),
]


@pytest.mark.parametrize(("parts", "lead", "finding"), RED_FLAGS)
def test_whatever_could_fool_opens_the_verdict_and_is_named(
    tmp_path: Path, parts: dict[str, Any], lead: str, finding: str
) -> None:
    verdict = planted(tmp_path, **parts)
    assert verdict.state == "flagged" and len(verdict.red_flags) == 1
    assert verdict.how_good.startswith(lead) and not PRAISE.search(verdict.how_good)
    assert finding.lower() in verdict.what_could_fool.lower()


NOT_RED_FLAGS: list[dict[str, Any]] = [
    {"crossval": crossval(hidden=0.54)},  # its interval holds 0.5
    {"crossval": crossval(random=0.905)},
    {"crossval": crossval_of_lungs(0.97, 0.7, (0.27, 0.2, 0.34))},
    {"crossval": crossval_of_lungs(0.5, 0.5, (0.0, -0.02, 0.02))},  # neither is better than guessing
    {"first_f1": 0.98},
    {"metrics": metrics(confusion=[[50, 9], [21, 211]])},
    {"metrics": metrics(subgroups=[subgroup("source", "C", 29, {"auc": estimate(0.7)})])},
]


@pytest.mark.parametrize("parts", NOT_RED_FLAGS)
def test_what_the_numbers_do_not_show_is_no_red_flag(tmp_path: Path, parts: dict[str, Any]) -> None:
    assert planted(tmp_path, **parts).state == "held"


def test_the_gravest_red_flag_leads_three_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    verdict = planted(
        tmp_path,
        summary=summary(synthetic=True),
        metrics=metrics(cautions=cautions(TRAP), confusion=[[9, 1], [2, 8]]),
        probes=probes("view"),
        crossval=crossval(hidden=0.9),
    )
    assert len(verdict.red_flags) == 5
    assert verdict.how_good.startswith("This score is evidence of nothing clinical")
    assert "2 further red flags" in verdict.what_could_fool and "too few images" not in verdict.what_could_fool
    page = write_report(tmp_path / "run").page.read_text()
    assert all(flag.effect in page for flag in verdict.red_flags)


@pytest.mark.parametrize(
    ("tested", "trained", "lead", "flags"),
    [
        (TRAP, TRAP, "This score is evidence of nothing clinical", 1),
        (NEARLY, NEARLY, "This score is evidence of nothing clinical", 1),  # a few films of another source
        (NEARLY, TRAP, "This score is evidence of nothing clinical", 1),
        (PARTLY, TRAP, "This score is evidence of nothing clinical", 2),
        (PARTLY, PARTLY, "This score may come from the source instead of the disease", 1),
    ],
)
def test_a_few_films_of_another_source_do_not_soften_the_verdict(
    tmp_path: Path, tested: Caution, trained: Caution, lead: str, flags: int
) -> None:
    found, own = metrics(cautions=cautions(tested)), summary(cautions=cautions(trained))
    verdict = planted(tmp_path, metrics=found, summary=own)
    assert verdict.state == "flagged" and verdict.how_good.startswith(lead) and len(verdict.red_flags) == flags
    if tested is not TRAP:
        page = write_report(tmp_path / "run").page.read_text()
        assert "balanced accuracy of 0.995" in page and "99 % of covid, 100 % of normal" in page


def test_a_score_that_guessing_reaches_is_not_reported_as_good(tmp_path: Path) -> None:
    bad = metrics(estimates={"auc": estimate(0.55, low=0.49, high=0.61)})
    verdict = planted(tmp_path, metrics=bad)
    assert (
        "not shown to be better than always answering normal (AUC 0.550, interval 0.490 to 0.610)" in verdict.how_good
    )
    assert verdict.how_sure.startswith("Not very sure")
    one_class = metrics(estimates={"accuracy": estimate(0.6, low=0.55, high=0.65)})
    assert "not shown to be better" in verdict_of(make_run(tmp_path / "b", metrics=one_class)).how_good


def test_a_perfect_ranking_is_not_called_certain(tmp_path: Path) -> None:
    point, accuracy = estimate(1.0, low=1.0, high=1.0), estimate(1.0, low=0.93, high=1.0)
    verdict = planted(tmp_path, metrics=metrics(estimates={"auc": point, "accuracy": accuracy}))
    assert "of the accuracy" in verdict.how_sure and "93.0 to 100 %" in verdict.how_sure


def test_without_a_test_set_nothing_is_known_whatever_validation_says(tmp_path: Path) -> None:
    verdict = planted(tmp_path, metrics=None, summary=summary(best_f1=0.999))
    assert "is not known" in verdict.how_good and "is not known" in verdict.how_sure
    assert "a set that training never saw" in verdict.what_could_fool
    assert not re.search(r"\d", verdict.how_good)


@pytest.mark.parametrize(
    ("lacking", "check", "command"),
    [
        ("metrics", "a set that training never saw", "python cli.py evaluate RUN BETONS/heldout.beton"),
        ("explanation", "what the model relies on", "python cli.py explain RUN BETONS/heldout.beton"),
        ("probes", "shortcuts in the collection", "python cli.py report RUN --data BETONS"),
        (
            "crossval",
            "cross-validation, hidden lungs and another collection",
            "python cli.py crossval BETONS --out FOLDS",
        ),
    ],
)
def test_a_check_that_was_not_made_is_named_with_the_command_that_makes_it(
    tmp_path: Path, lacking: str, check: str, command: str
) -> None:
    verdict = planted(tmp_path, **{lacking: None} | ({"hurdles": None} if lacking == "crossval" else {}))
    assert verdict.state == "unchecked"
    assert f"not checked: {check}" in verdict.what_could_fool.lower()
    text = Reader(write_report(tmp_path / "run").page.read_text()).text
    assert "Not measured" in text and command in text


def test_targets_and_maps_without_a_result_count_as_not_checked(tmp_path: Path) -> None:
    found = msgspec.structs.replace(crossval(), targets=crossval().targets[:2], external=None)
    unknown = explanation(region="unknown", randomised={"correlation": 0.97, "num_samples": 32, "num_empty": 0})
    verdict = planted(tmp_path, crossval=found, explanation=unknown, hurdles=None)
    assert verdict.unchecked == ("what the model relies on", "hidden lungs", "another collection")
    assert verdict.how_good.startswith("Not everything that could fool it was checked: on 400")
    text = Reader(write_report(tmp_path / "run").page.read_text()).text
    assert "Not measured: run `crossval` with --external" in text and "must not be relied on" in text
    for collection in ("own", "shared-source", "unknown-source", "external"):
        abroad = metrics(conversion_id="b" * 32, collection=collection)
        put(tmp_path / "run" / "evaluation" / "abroad" / "metrics.json", abroad)
        lacking = () if collection == "external" else ("another collection",)
        assert verdict_of(tmp_path / "run").unchecked == ("what the model relies on", "hidden lungs", *lacking)


@pytest.mark.parametrize("crossvalidated", [True, False])
def test_an_external_set_fills_the_row_of_another_collection(tmp_path: Path, crossvalidated: bool) -> None:
    found = msgspec.structs.replace(crossval(), targets=crossval().targets[:2], external=None)
    run = make_run(tmp_path / "run", crossval=found if crossvalidated else None)
    estimates = {"f1": estimate(0.617), "auc": estimate(0.733, 0.4), "accuracy": estimate(0.712)}
    abroad = metrics(conversion_id="b" * 32, collection="external", num_samples=36, estimates=estimates)
    put(run / "evaluation" / "abroad" / "metrics.json", abroad)
    page = write_report(run).page.read_text()
    (row,) = re.findall(r"<tr[^>]*><th[^>]*>another collection<small>.*?</tr>", page)
    assert all(text in row for text in (">36<", "0.617", "0.733", "71.2")) and "ot measured" not in row
    assert ("Not measured: run `crossval` with group" in page) is not crossvalidated
    assert "External collection: it shares no source with training." in page
    assert not verdict_of(run).red_flags, "its interval reaches what is scored at home"


@pytest.mark.parametrize(
    ("home", "away", "expected"),
    [
        ({}, {"auc": estimate(0.7)}, "the ROC-AUC falls from 0.958 to 0.700"),
        ({"collection": "shared-source"}, {"auc": estimate(0.7)}, "the ROC-AUC falls from 0.940 to 0.700"),
        ({}, {"sensitivity": estimate(0.4), "accuracy": estimate(0.4)}, "the sensitivity falls from 89.3 % to 40.0 %"),
        ({}, {"specificity": estimate(0.9), "accuracy": estimate(0.9)}, ""),
    ],
    ids=["own-set", "folds", "one-class", "none"],
)
def test_a_fall_on_an_external_set_is_a_red_flag(
    tmp_path: Path, home: dict[str, Any], away: dict[str, Any], expected: str
) -> None:
    run = make_run(tmp_path / "run", metrics=metrics(**home))
    confusion = [[80, 20], [20, 80]] if "auc" in away else [[80, 120], [0, 0]]
    abroad = metrics(
        conversion_id="b" * 32, collection="external", num_samples=200, confusion=confusion, estimates=away
    )
    put(run / "evaluation" / "abroad" / "metrics.json", abroad)
    found = [flag.finding for flag in verdict_of(run).red_flags if "another collection" in flag.effect]
    assert found == ([f"on the external set abroad {expected}"] if expected else [])


ANOTHER = "another collection"
SHARED = caution("external-shares-sources", beton="south", sources=["x"])
KEYS = caution("external-site-key-differs", beton="south")


def cells_of(result: Hurdles, **cells: Cell) -> Hurdles:
    """The hurdles with other cells of the row north, by their columns."""
    changed = [cells.get(cell.column, cell) if cell.row == "north" else cell for cell in result.cells]
    return msgspec.structs.replace(result, cells=changed)


def test_the_hurdles_least_favourable_cell_fills_the_row_of_another_collection(tmp_path: Path) -> None:
    found = msgspec.structs.replace(crossval(), targets=crossval().targets[:2], external=None)
    worst = hurdles_cell("north", "south", 0.87, 0.95, num_samples=36)
    run = make_run(tmp_path / "run", crossval=found, hurdles=cells_of(hurdles(), south=worst))
    page = write_report(run).page.read_text()
    (row,) = re.findall(r"<tr[^>]*><th[^>]*>another collection<small>.*?</tr>", page)
    assert all(text in row for text in (">36<", "0.870", "0.810 to 0.900", "87.0", "<bdi>south</bdi>", "15 networks"))
    assert ANOTHER not in verdict_of(run).unchecked and not verdict_of(run).red_flags
    # what the run itself, or the cross-validation, was tested on comes first
    estimates = {"f1": estimate(0.617), "auc": estimate(0.933), "accuracy": estimate(0.712)}
    abroad = metrics(conversion_id="b" * 32, collection="external", num_samples=77, estimates=estimates)
    put(run / "evaluation" / "abroad" / "metrics.json", abroad)
    for expected, part in ((">77<", found), (">655<", crossval())):
        put(run / "crossval.json", part)
        (row,) = re.findall(r"<tr[^>]*><th[^>]*>another collection<small>.*?</tr>", write_report(run).page.read_text())
        assert expected in row and "15 networks" not in row


@pytest.mark.parametrize(
    ("by", "changes", "counted"),
    [
        ("folder", {}, True),
        ("source", {}, False),  # its rows are parts of the conversion
        ("folder", {"cautions": cautions(KEYS)}, True),
        ("folder", {"cautions": cautions(KEYS, SHARED)}, False),
        ("folder", {"estimates": {}}, False),
    ],
    ids=["own", "by-source", "other-caution", "shared-sources", "no-score"],
)
def test_another_collection_is_checked_by_a_row_of_the_runs_own_conversion_on_one_that_shares_no_source(
    tmp_path: Path, by: str, changes: dict[str, Any], counted: bool
) -> None:
    away = {name: hurdles_cell("north", name, 0.9, 0.95, **changes) for name in ("south", "clinic")}
    found = cells_of(hurdles(by=by), **away)
    alone = msgspec.structs.replace(crossval(), targets=crossval().targets[:3], external=None)
    run = make_run(tmp_path / "run", crossval=alone, hurdles=found)
    assert verdict_of(run).unchecked == (() if counted else (ANOTHER,))
    page = write_report(run).page.read_text()
    assert ("not known to be another collection" in page) is (by == "folder" and not counted)


def test_the_hurdles_of_another_conversion_are_shown_and_not_counted(tmp_path: Path) -> None:
    fallen = cells_of(hurdles(), clinic=hurdles_cell("north", "clinic", 0.6, 0.95))
    alone = msgspec.structs.replace(crossval(), targets=crossval().targets[:3], external=None)
    other = caution("hurdles-of-other-conversion").text
    for conversion, counted in ((CONVERSION, True), ("b" * 32, False), ("", False)):
        found = summary(conversion_id=conversion)
        run = make_run(tmp_path / (conversion or "unknown"), summary=found, hurdles=fallen, crossval=alone)
        effects = [flag.effect for flag in verdict_of(run).red_flags]
        assert effects == (["This score does not hold on another collection"] if counted else [])
        assert (ANOTHER in verdict_of(run).unchecked) is not counted
        text = " ".join(Reader(write_report(run).page.read_text()).text.split())
        assert (other in text) is not counted and "falls from 0.960 at home to 0.600 on clinic" in text
        assert ("on this run’s films" in text) is counted


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (hurdles_cell("north", "clinic", 0.6, 0.95),
         "fall on clinic from a mean ROC-AUC of 0.960 at home to 0.600, a drop of 0.350 (0.260 to 0.430)"),
        (hurdles_cell("north", "clinic", None, 0.95),
         "fall on clinic from a mean sensitivity of 96.0 % at home to 62.5 %, a drop of 32.5 (23.5 to 40.5 points)"),
        (hurdles_cell("north", "clinic", 0.6, 0.95, cautions=cautions(SHARED)),
         "fall on clinic from a mean ROC-AUC of 0.960 at home to 0.600, a drop of 0.350 (0.260 to 0.430)"),
        (hurdles_cell("north", "clinic", 0.88, 0.95), ""),  # its interval holds 0
        (hurdles_cell("north", "clinic", 0.6, 0.95, drop={"auc": alone(0.35)}), ""),
    ],
    ids=["auc", "one-class", "shared-source", "none", "no-interval"],
)  # fmt: skip
def test_a_drop_in_the_hurdles_is_a_red_flag(tmp_path: Path, cell: Cell, expected: str) -> None:
    verdict = planted(tmp_path, hurdles=cells_of(hurdles(), clinic=cell))
    assert [flag.finding for flag in verdict.red_flags] == (
        [f"networks trained on the same films {expected}"] if expected else []
    )


def test_a_row_whose_sources_are_confounded_makes_the_score_evidence_of_nothing(tmp_path: Path) -> None:
    first, *others = hurdles().rows
    trapped = msgspec.structs.replace(first, confounded=True, cautions=[TRAP])
    verdict = planted(tmp_path, hurdles=msgspec.structs.replace(hurdles(), rows=[trapped, *others]))
    assert verdict.how_good.startswith("This score is evidence of nothing clinical")
    assert "confounded with source" in Reader((write_report(tmp_path / "run")).page.read_text()).text


def test_the_hurdles_table_has_a_header_a_row_and_a_cell_for_each_pair(tmp_path: Path) -> None:
    found = leave_one_out(cells_of(hurdles(), south=hurdles_cell("north", "south", None, 0.96, num_samples=36)))
    text = " ".join(Reader(write_report(make_run(tmp_path / "run", hurdles=found)).page.read_text()).text.split())
    for wanted in (
        "Trained on north south clinic test only at home",
        "north 15 networks, on this run’s films 0.960 0.900 to 0.990 239 images, at home "
        "62.5 % sensitivity 56.5 to 65.5 % 36 images drop 33.5 (24.5 to 41.5 points) "
        "0.930 0.870 to 0.960 239 images drop 0.030 (−0.060 to 0.110)",
        "all but north 15 networks 0.880 0.820 to 0.910 239 images drop 0.070 (−0.020 to 0.150) in training 0.880",
        "predict the collection within class covid with AUC 0.97",
        "they leave out how much another training would differ",
    ):
        assert wanted in text, wanted


def test_a_set_of_one_class_is_judged_only_where_there_is_no_other(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    alone = metrics(num_samples=200, confusion=[[80, 120], [0, 0]], estimates={"accuracy": estimate(0.4)})
    put(run / "evaluation" / "alone" / "metrics.json", alone)
    assert "On 400 radiographs" in verdict_of(run).how_good
    shutil.rmtree(run / "evaluation" / SET)
    assert "200 radiographs (alone)" in verdict_of(run).how_good


def test_an_explanation_brings_its_cautions_and_the_curves_of_its_control(drawn: Path, tmp_path: Path) -> None:
    run = shutil.copytree(drawn, tmp_path / "run")
    shutil.copy(run / "curves.png", run / "explanation" / SET / "deletion.png")
    put(run / "explanation" / SET / "explanation.json", explanation(cautions=cautions(PHANTOMS)))
    page = write_report(run).page.read_text()
    shown = " ".join(Reader(page).text.split())
    assert f"Caution: {PHANTOMS.text}." in shown
    assert f'alt="Deletion on {SET}: probability' in page


def test_the_page_says_whose_masks_showed_the_lungs_and_how_many_films_had_none(tmp_path: Path) -> None:
    left_out = {"num_empty": 2, "without_mask": {"lungs-missing": 3, "lungs-seen": 1}}
    found = lungs(1.71, 1.58, 1.83, masks="segmenter", segmenter="c0ffee", **left_out)
    shown = text_of(make_run(tmp_path / "run", explanation=explanation(lungs=found)))
    assert "By each film's own mask, found by segmenter c0ffee, images measured: 200" in shown
    assert "200 (2 empty maps and 4 images without a credible mask left out)" in shown


def test_where_frames_show_the_lungs_alone_the_page_does_not_tell_what_the_model_relies_on(tmp_path: Path) -> None:
    alone = explanation(lungs=None, region="unknown", cautions=cautions(LUNGS_ALONE))
    shown = text_of(make_run(tmp_path / "run", explanation=alone))
    assert f"It cannot be told what the model relies on: {LUNGS_ALONE.finding}." in shown and "Lung share" not in shown
    assert verdict_of(tmp_path / "run").unchecked == ("what the model relies on",)
    one = finding_explained("Edema", lungs=None, region="unknown")
    run = make_findings_run(tmp_path / "findings", explained=findings_explanation(one, cautions=cautions(LUNGS_ALONE)))
    shown = text_of(run)
    assert "Edema cannot be told 80 Not measured passed passed" in shown and LUNGS_ALONE.finding in shown
    assert "cannot be told the lungs alone are shown" in shown


def test_a_cross_validation_of_other_data_is_reported_as_such(tmp_path: Path) -> None:
    apart = {"random": {"f1": estimate(0.1, low=0.05, high=0.15)}}
    found = crossval(conversion_id="b" * 32, cautions=cautions(PHANTOMS), differences=apart)
    shown = Reader(write_report(make_run(tmp_path / "run", crossval=found, hurdles=None)).page.read_text()).text
    assert caution("crossval-of-other-conversion").text in shown
    verdict = verdict_of(tmp_path / "run")  # neither a check that was made nor a red flag
    assert verdict.unchecked == ("cross-validation", "hidden lungs", "another collection") and not verdict.red_flags
    assert "this is one training on one split" in verdict.how_sure
    assert f"Caution: {PHANTOMS.text}" in shown and "the network recognises patients" in shown


@pytest.mark.parametrize(
    ("control", "found"),
    [
        ("randomised", {"correlation": 0.97, "num_samples": 32, "num_empty": 0}),
        ("deletion", deletion(0.63, 0.62)),
    ],
)
@pytest.mark.parametrize("ratio", [lungs(1.71, 1.58, 1.83), lungs(0.8, 0.7, 0.93)])
def test_an_explanation_whose_control_failed_gives_no_answer(
    tmp_path: Path, control: str, found: dict[str, Any], ratio: dict[str, Any]
) -> None:
    with pytest.raises(msgspec.ValidationError, match="expected unknown"):
        explanation(lungs=ratio, **{control: found}, region="lungs")
    verdict = planted(tmp_path, explanation=explanation(lungs=ratio, **{control: found}, region="unknown"))
    assert verdict.unchecked == ("what the model relies on",) and not verdict.red_flags
    text = " ".join(Reader(write_report(tmp_path / "run").page.read_text()).text.split())
    assert "It cannot be told what the model relies on: " in text and "must not be relied on" in text
    assert "as chance would put there" not in text and "It shows where" not in text


def test_an_explanation_without_an_answer_is_a_missing_check_and_no_red_flag(tmp_path: Path) -> None:
    verdict = planted(tmp_path, explanation=explanation(region="unknown", lungs=lungs(1.5, 1.4, 1.6)))
    assert verdict.unchecked == ("what the model relies on",) and not verdict.red_flags


def test_a_narrow_interval_from_few_images_or_groups_is_not_called_sure(tmp_path: Path) -> None:
    assert planted(tmp_path / "a").how_sure.startswith("Sure within limits: ")
    few_images = metrics(confusion=[[20, 2], [21, 211]])
    assert planted(tmp_path / "b", metrics=few_images).how_sure.startswith("Not very sure: ")
    few_groups = metrics(cautions=cautions(SEVEN))
    assert planted(tmp_path / "c", metrics=few_groups).how_sure.startswith("Not very sure: ")


def test_results_of_weights_that_the_run_no_longer_has_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    of_old = {"checkpoint": CHECKPOINT | {"sha256": "0" * 64}}
    run = make_run(tmp_path / "run", metrics=metrics(**of_old), explanation=explanation(**of_old))
    verdict = verdict_of(run)
    assert "That is not known" in verdict.how_good and "what the model relies on" in verdict.unchecked
    text = Reader(write_report(run).page.read_text()).text
    for name in (f"evaluation/{SET}", f"explanation/{SET}"):
        assert f"{name} is of weights that the run no longer has" in text
    assert text.index("no longer has") < text.index("Data flow")  # above, where it is read
    assert cli.main(["report", str(run)]) == 0  # as after `train --resume`, whose page is written by the same words
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Caution, report.html: evaluation/{SET} is of weights that the run no longer has and was left out" in shown
    make_run(run)
    assert verdict_of(run).state == "held"


def test_an_undefined_measure_is_called_so_and_a_temperature_at_its_bound_is_a_caution(tmp_path: Path) -> None:
    at_bound = caution("temperature-at-bound", temperature=20.0)
    found = metrics(
        cautions=cautions(at_bound),
        temperature=20.0,
        estimates={"npv": alone(None), "auc": estimate(0.9), "ece": estimate(0.1)},
    )
    page = write_report(make_run(tmp_path / "run", metrics=found)).page.read_text()
    text = " ".join(Reader(page).text.split())
    assert f"Negative predictive value {METRICS['npv'].meaning} – undefined" in text
    assert at_bound.text in text and "nan" not in page.lower().split('"')
    sound = write_report(make_run(tmp_path / "sound")).page.read_text()
    assert "at its bound" not in sound and "undefined" not in sound


def test_the_page_does_not_name_where_a_run_or_its_betons_lie(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    put(run / "config.json", {"data": "/scans/Doe^John/b", "out": "/home/Doe^John/runs/third", "seed": 4})
    page = write_report(run).page.read_text()
    assert "Doe" not in page and "third" not in page
    assert "python cli.py train BETONS --out RUN --seed 4" in page


def test_a_folder_of_no_class_is_not_named_in_the_data_flow() -> None:
    rows = [row("Doe John/1.png", "excluded", "class Doe John not asked for", kind="other-class")]
    assert count_files(rows).reasons == {"excluded": {"other-class": 1}}


def test_a_table_cell_or_a_probes_picture_without_end_does_no_harm(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "metrics.csv").write_text("epoch,val_f1\n1," + "9" * 200_000)
    assert "metrics.csv could not be read: field larger" in write_report(run).page.read_text()
    bomb = bytearray(cv2.imencode(".png", np.zeros((4, 4), np.uint8))[1].tobytes())
    bomb[16:24] = (60_000).to_bytes(4) * 2
    stored = msgspec.to_builtins(probes("view"))
    stored["probes"][0]["picture"] = base64.b64encode(bomb).decode()
    put(run / "probes.json", stored)
    read = read_results(run)
    assert read.probes is None and "60000" in read.left_out[-1].text


def test_the_verdict_speaks_of_the_least_favourable_set_that_did_not_leak(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    better = metrics(num_samples=100, estimates={"auc": estimate(0.99)})
    worse = metrics(num_samples=200, estimates={"auc": estimate(0.8)}, confusion=[[80, 20], [20, 80]])
    leaked = metrics(num_samples=300, estimates={"auc": estimate(0.6)}, cautions=cautions(LEAKED))
    for name, content in (("better", better), ("worse", worse), ("leaked", leaked)):
        put(run / "evaluation" / name / "metrics.json", content)
    verdict = verdict_of(run)
    assert "On 200 radiographs (worse)" in verdict.how_good
    page = write_report(run).page.read_text()
    assert page.index("Results on <bdi>worse") < page.index("Results on <bdi>better")


def test_a_set_whose_overlap_could_not_be_checked_is_not_called_unseen(tmp_path: Path) -> None:
    unverified, ungrouped = caution("unverified-beton"), caution("groups-unknown")
    verdict = planted(tmp_path, metrics=metrics(cautions=cautions(ungrouped, unverified)))
    assert "never saw" not in verdict.how_good and "a set that training never saw" in verdict.unchecked
    assert [flag.finding for flag in verdict.red_flags] == [unverified.finding, ungrouped.finding]
    assert verdict.how_sure.startswith("Not very sure: ")


def test_three_classes_are_summed_up_by_accuracy_and_macro_f1(tmp_path: Path) -> None:
    names = ["covid", "normal", "pneumonia"]
    three = metrics(classes=names, operating_points=[], confusion=[[70, 5, 5], [6, 90, 4], [3, 7, 80]])
    verdict = planted(tmp_path, metrics=three, summary=summary(classes=names))
    assert "it is right for 90.2" in verdict.how_good and "macro F1 of 0.8" in verdict.how_good
    assert "always answering normal is right for 58.0" in verdict.how_good
    text = Reader(write_report(tmp_path / "run").page.read_text()).text
    assert "covid, normal and pneumonia" in text


def many(estimates: dict[str, Any] | None = None, **changes: Any) -> Metrics:
    """metrics.json of twenty classes, of which two are ever predicted."""
    names, trivial = [f"class {20 - place}" for place in range(20)], {"ppv": 1, "sensitivity": 20}
    over = {"defined": 20, "classes": 20}
    found = {
        name: estimate(0.7) | over for name in ("sensitivity", "specificity", "npv", "f1", "f1_macro", "auc", "pr_auc")
    }
    found |= {"accuracy": estimate(0.7), "ppv": estimate(0.25) | {"defined": 2, "classes": 20}}
    found |= {f"{name}[{place}]": estimate(0.7) for name in ("f1", "auc") for place in range(20)}
    return metrics(
        **{
            "classes": names,
            "positive": names[0],
            "estimates": found | (estimates or {}),
            "trivial": {name: alone(0.05, defined=count, classes=20) for name, count in trivial.items()},
            "confusion": [[60 + place] + [0] * 19 for place in range(20)],
            "subgroups": [],
        }
        | changes
    )


def test_every_mean_over_classes_says_over_how_many_it_is_and_none_is_of_the_positive_class(tmp_path: Path) -> None:
    planted(tmp_path, metrics=many(), summary=summary(classes=many().classes))
    text = " ".join(Reader(write_report(tmp_path / "run").page.read_text()).text.split())
    assert (
        "Positive predictive value mean over 2 of 20 classes: of the images predicted as a class, those of it" in text
    )
    assert "5.0\u00a0% over 1 of 20 classes".replace("\u00a0", " ") in text.replace("\u00a0", " ")
    assert "Sensitivity mean over 20 of 20 classes: of the images of a class, those predicted as it" in text
    assert "of the positive class" not in text and "F1, macro" not in text
    assert "by the numbers of the rows" in text and "1: class 20 60 0" in text and "20: class 1 79 0" in text


def test_a_mean_that_leaves_classes_out_says_so_in_the_verdict(tmp_path: Path) -> None:
    found = many({name: estimate(0.7, defined=18, classes=20) for name in ("f1", "auc")})
    verdict = planted(tmp_path, metrics=found)
    assert "with a macro F1 of 0.700 over 18 of 20 classes" in verdict.how_good
    assert "interval of the mean AUC over 18 of 20 classes" in verdict.how_sure


def test_where_means_are_over_other_classes_a_subgroup_is_not_called_worse(tmp_path: Path) -> None:
    for defined, flagged in ((20, True), (12, False)):
        part = {"auc": estimate(0.3, defined=defined, classes=20)}
        found = many(subgroups=[subgroup("source", "C", 90, part)])
        effects = [flag.effect for flag in planted(tmp_path / str(defined), metrics=found).red_flags]
        assert ("This score does not hold everywhere" in effects) is flagged


def test_of_many_classes_with_few_images_the_rarest_are_named_and_the_others_counted(tmp_path: Path) -> None:
    few = many(confusion=[[20 - place] + [0] * 19 for place in range(20)])
    (flag,) = planted(tmp_path, metrics=few).red_flags
    assert flag.finding.startswith(
        "too few images: 1 of class 1, 2 of class 2, 3 of class 3 and few of 17 further classes, "
    )


def test_without_an_interval_of_the_mean_auc_the_verdict_goes_by_accuracy(tmp_path: Path) -> None:
    found = many({"auc": estimate(0.7, low=None, high=None, defined=20, classes=20)})
    verdict = planted(tmp_path, metrics=found)
    assert "interval of the accuracy" in verdict.how_sure and "not known" not in verdict.how_sure


def test_the_data_flow_has_a_row_a_class_in_the_runs_order(tmp_path: Path) -> None:
    names = [f"class {number}" for number in (1, 2, 10)]
    counts = {split: dict.fromkeys(sorted(names), 5) | {"other": 1} for split in ("train", "val")}
    assert flow_classes(dataflow(splits=counts), names) == [*names, "other"]
    run = make_run(tmp_path / "run", dataflow=dataflow(splits=counts))
    text = " ".join(Reader(write_report(run).page.read_text()).text.split())
    assert "class 1 5 5 class 10 5 5 class 2 5 5 other 1 1 All images 16 16 Groups 1,240 311" in text


def test_the_same_files_give_the_same_bytes_wherever_the_run_lies(drawn: Path, tmp_path: Path) -> None:
    run = shutil.copytree(drawn, tmp_path / "a")
    first = write_report(run).page.read_bytes()
    assert write_report(run).page.read_bytes() == first
    moved = shutil.copytree(run, tmp_path / "elsewhere" / "b")
    assert write_report(moved).page.read_bytes() == first
    assert len(first) < 15_000_000


def test_an_empty_folder_and_a_run_without_results_still_have_a_page(tmp_path: Path) -> None:
    empty = write_report(tmp_path).page.read_text()
    assert "is not known" in empty and "python cli.py evaluate RUN BETONS/heldout.beton" in empty
    run = make_run(tmp_path / "run", explanation=None, probes=None, crossval=None, hurdles=None, dataflow=None)
    text = Reader(write_report(run).page.read_text()).text
    assert text.count("Not measured") == 5  # the data flow, what it relies on, shortcuts, cross-validation, hurdles
    assert "nan" not in text.lower().split() and "None" not in text


@pytest.mark.parametrize(
    "bytes_",
    [b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"version": 1, "classes": 3}', b"[" * 100_000, b'{"version": 2}'],
)
def test_a_damaged_file_is_named_and_the_page_is_made(tmp_path: Path, bytes_: bytes) -> None:
    run = make_run(tmp_path / "run")
    files = sorted(path for path in run.rglob("*.json") if path.name != "config.json")
    assert len(files) == 7
    for path in files:
        path.write_bytes(bytes_)
    (run / "metrics.csv").write_bytes(bytes_)
    (run / "config.json").write_bytes(b"{")
    text = Reader(write_report(run).page.read_text()).text
    assert "That is not known" in text
    for path in (*files, run / "config.json"):
        assert f"{path.relative_to(run)} could not be read" in text


RECORDS = (
    "summary.json",
    f"evaluation/{SET}/metrics.json",
    f"explanation/{SET}/explanation.json",
    "probes.json",
    "crossval.json",
    "hurdles.json",
    "dataflow.json",
)
WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FINDINGS_RECORDS = (
    "summary.json", f"evaluation/{SET}/findings.json", f"explanation/{SET}/explanation-by-finding.json",
    "probes-by-finding.json", "crossval.json", "hurdles.json", "dataflow.json",
)  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound run without pictures; a test that changes a file of it puts it back."""
    return make_run(tmp_path_factory.mktemp("sound") / "run")


@pytest.fixture(scope="module")
def sound_findings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of three findings, one of which is not measured, with each check."""
    names = FINDINGS[:3]
    tested = findings_metrics(unmeasured(names[0]), finding(names[1]), finding(names[2], 0.7))
    run = make_findings_run(
        tmp_path_factory.mktemp("sound") / "run", names, tested=tested, crossval=folds_of(names), hurdles=raced(names)
    )
    away = findings_metrics(*(finding(name) for name in names), collection="external", conversion_id="b" * 32)
    put(run / "evaluation" / OTHER / "findings.json", away)
    return run


@settings(max_examples=40, deadline=None)
@given(data=st.data(), name=st.sampled_from(RECORDS), wild=WILD)
def test_a_file_with_a_wild_value_is_read_or_named_and_the_page_is_made(
    sound: Path, data: st.DataObject, name: str, wild: Any
) -> None:
    check_wild_value(sound, data, name, wild)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), name=st.sampled_from(FINDINGS_RECORDS), wild=WILD)
def test_a_file_of_findings_with_a_wild_value_is_read_or_named_and_the_page_is_made(
    sound_findings: Path, data: st.DataObject, name: str, wild: Any
) -> None:
    check_wild_value(sound_findings, data, name, wild)


def check_wild_value(run: Path, data: st.DataObject, name: str, wild: Any) -> None:
    """Put a value anywhere into a file of a run: it is read or named, and the page is made."""
    path = run / name
    before = path.read_bytes()
    node = content = json.loads(before)
    for _ in range(data.draw(st.integers(0, 6))):  # so deep, as far as there are objects and lists
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        inner = [key for key in keys if isinstance(node[key], dict | list) and node[key]]
        if not inner:
            break
        node = node[data.draw(st.sampled_from(inner))]
    node[data.draw(st.sampled_from(list(node) if isinstance(node, dict) else range(len(node))))] = wild
    try:
        path.write_text(json.dumps(content))
        done = write_report(run)
    finally:
        path.write_bytes(before)
    assert "not for diagnosis" in done.page.read_text()
    assert all(found.code == "file-unreadable" and found.parameters["file"] == name for found in done.left_out)


@pytest.mark.parametrize("wrong", [None, 3, -1, 1e400, True, "text", [], {}, [None], {"value": "x"}, {"a": {"b": 1}}])
def test_settings_of_another_kind_do_no_harm(tmp_path: Path, wrong: Any) -> None:
    config = dict.fromkeys(("data", "out", "seed", "epochs", "batch_size", "weights", "unknown"), wrong)
    assert "not for diagnosis" in write_report(make_run(tmp_path / "run", config=config)).page.read_text()


def test_the_caption_within_an_overlay_is_not_shown_a_second_time(drawn: Path, tmp_path: Path) -> None:
    run = shutil.copytree(drawn, tmp_path / "run")
    crop_HW = np.zeros((32, 32), np.uint8)
    drawn = overlay(crop_HW, np.eye(32), None, ("predicted covid", "sample 0"))
    (run / "explanation" / SET / "0001.png").write_bytes(picture_bytes(drawn))
    samples = [example(sample=place, overlay=f"000{place}.png") for place in (1, 2)]
    put(run / "explanation" / SET / "explanation.json", explanation(samples=samples))
    shutil.copy(run / "curves.png", run / "explanation" / SET / "0002.png")
    page = write_report(run).page.read_text()
    assert len(re.findall(r'<div class="film"><img', page)) == 2
    assert len(re.findall(r'<div class="film"><img class="captioned"', page)) == 1


def test_pictures_from_outside_the_run_or_that_are_none_stay_out(drawn: Path, tmp_path: Path) -> None:
    run = shutil.copytree(drawn, tmp_path / "run")
    secret = tmp_path / "secret.png"
    shutil.copy(run / "curves.png", secret)
    (run / "evaluation" / SET / "roc.png").write_bytes(b"<svg onload=alert(1)>")
    samples = [example(overlay=name) for name in ("../../../secret.png", str(secret), "..")]
    put(run / "explanation" / SET / "explanation.json", explanation(samples=samples))
    reader = Reader(write_report(run).page.read_text())
    uris = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "src")]
    assert uris.count("data:image/png;base64," + base64.b64encode(secret.read_bytes()).decode()) == 1  # the curves
    assert "3 overlays not shown here" in reader.text


def test_a_run_with_huge_pictures_stays_below_15_megabytes(drawn: Path, tmp_path: Path) -> None:
    run = shutil.copytree(drawn, tmp_path / "run")
    samples = [example(sample=place, overlay=f"{place:04d}.png") for place in range(30)]
    put(run / "explanation" / SET / "explanation.json", explanation(samples=samples))
    head = (run / "curves.png").read_bytes()
    for place in range(30):
        (run / "explanation" / SET / f"{place:04d}.png").write_bytes(head + bytes(1_000_000))
    page = write_report(run).page
    assert 8_000_000 < page.stat().st_size < 15_000_000
    assert "page would be too large" in page.read_text()


def test_the_command_repeats_the_settings_that_are_not_defaults(tmp_path: Path) -> None:
    config = {"epochs": 30, "dropout": 0.25, "class_weights": True, "arena": False}
    command = train_command(config | {"seed": 7, "unknown": 1})
    assert command.startswith("python cli.py train BETONS --out RUN ")
    for flag in ("--dropout 0.25", "--class-weights", "--no-arena", "--seed 7"):
        assert flag in command
    assert "epochs" not in command and "unknown" not in command
    assert train_command({}) == ""


def test_numbers_of_the_page_are_those_of_the_files(tmp_path: Path) -> None:
    run = make_run(
        tmp_path / "run",
        metrics=metrics(difference={"against": "b", "estimates": {"auc": estimate(0.03)}, "cautions": []}),
    )
    text = " ".join(Reader(write_report(run).page.read_text()).text.split())
    for wanted in (
        "2,713 in = 2,460 written + 212 rejected + 41 duplicates; 377 more were excluded",
        "lateral (audit) rejected 118",
        "same pixels as another file duplicate 41",
        "Class train val heldout covid 660 ",
        "All images 1,648 ",
        "Groups 1,240 ",
        "Refused: validation has 41 positives, expected at least 59",
        "150 89.3",
        f"Calibration slope {METRICS['calibration_slope'].meaning} 0.880 0.840 to 0.900",
        "hospital A source 230 172 92",
        "too small: fewer than 10 samples",
        "Beside the run b",
        "1.71 (95 % interval 1.58 to 1.83)",
        "passed (correlation 0.08)",
        "random split images dealt at random: what most papers report 2,060 1,545 0.900 0.860 to 0.920",
        "979 s",
        "other hardware: Apple M3 Max",
        "413",
        "118.4 s",
        "torch 2.13.0",
        "python cli.py train BETONS --out RUN --no-arena --batch-size 64 --seed 3",
    ):
        assert wanted in text, wanted
    assert text.count("not for diagnosis") >= 2


@pytest.fixture(scope="module")
def written(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with red flags, pictures and hostile names everywhere."""
    run = shutil.copytree(drawn, tmp_path_factory.mktemp("report") / "run")
    return write_report(hostile_run(run, *HOSTILE[:2])).page


def hostile_run(run: Path, first: str, second: str) -> Path:
    """A run whose every name is hostile."""
    names = [first, second]
    found_in = cautions(caution("confounded-with-source", classes=[first], images=3))
    part = subgroup(first, second, 90, {"auc": estimate(0.6)})
    samples = [msgspec.structs.replace(one, label=first, predicted=second) for one in explanation().samples]
    alarmed, *others = probes("view").probes
    alarmed = msgspec.structs.replace(alarmed, name=f"source-within-{first}")
    return make_run(
        run,
        summary=summary(classes=names, positive=first, cautions=found_in, device=first, versions={first: second}),
        config={"data": second, "out": first, "seed": 3},
        metrics=metrics(
            classes=names,
            positive=first,
            cautions=found_in,
            split=first,
            subgroups=[part],
            difference={"against": first, "estimates": {"auc": estimate(0.03)}, "cautions": found_in},
            operating_points=[{"name": first, "threshold": None, "refused": None, "estimates": {}}],
        ),
        explanation=explanation(samples=samples, method=second, layer=first),
        probes=probes(
            probes=[alarmed, *others], cautions=found_in, skipped={first: caution("absent-classes", classes=[second])}
        ),
        crossval=crossval(external=first, classes=names),
        hurdles=leave_one_out(hurdles((first, second, "third"), classes=names)),
        dataflow=dataflow(
            reasons={"rejected": {first: 3, second: 1}}, splits={first: {second: 3, first: 2}}, groups={}
        ),
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_text_wherever_it_stands(name: str, tmp_path: Path) -> None:
    page = write_report(hostile_run(tmp_path / "run", name, name + "2")).page.read_bytes().decode("utf-8")
    plain = write_report(hostile_run(tmp_path / "plain", "plain", "plain2")).page.read_text()
    assert Reader(page).tags == Reader(plain).tags
    stored = name.encode("utf-8", "backslashreplace").decode()  # as JSON can hold it
    assert Reader(page).text.count(visible(stored)[:20]) >= 15
    assert not set(re.findall("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page))


def test_no_element_can_run_or_fetch_anything_and_the_policy_says_so(written: Path) -> None:
    page = written.read_text()
    reader = Reader(page)
    for tag in ("script", "iframe", "object", "embed", "form", "base", "audio", "video"):
        assert reader.tags[tag] == 0
    for tag, name, value in reader.attributes:
        assert not name.startswith("on") and name not in ("style", "srcset", "xlink:href", "action"), (tag, name)
        if name in ("src", "href"):
            assert value.startswith(("data:", "#")), value
    style = re.search("<style>(.*?)</style>", page, re.DOTALL)
    assert style and "url(" not in style[1] and "@import" not in style[1]
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert policy in page


def test_pictures_are_described_and_every_link_has_its_target(written: Path) -> None:
    reader = Reader(written.read_text())
    described = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "alt")]
    assert len(described) == reader.tags["img"] >= 15 and all(described)
    scopes = [value for tag, name, value in reader.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == reader.tags["th"] and reader.tags["thead"] == reader.tags["table"]
    targets = [value for _, name, value in reader.attributes if name == "id"]
    links = {value[1:] for tag, name, value in reader.attributes if (tag, name) == ("a", "href")}
    assert len(targets) == len(set(targets)) and links and links <= set(targets)


def test_the_verdict_comes_first_and_the_parts_in_their_order(written: Path) -> None:
    page = written.read_text()
    order = ("How good", "How sure", "What could fool it", *(f'id="{name}"' for name in PARTS))
    places = [page.index(mark) for mark in order]
    assert places == sorted(places)


PARTS = ("red-flags", "flow-1", "set-1-1", "map-1-1", "shortcuts-1", "crossval", "training", "repeat")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(written: Path, scheme: str) -> None:
    colours = re.findall(r":root \{(.*?)\}", written.read_text(), re.DOTALL)[scheme == "dark"]
    level = {name: luminance(colour) for name, colour in re.findall(r"--([\w-]+): (#\w{6})", colours)}
    for ink in ("ink", "muted", "accent", "quarantine"):
        for ground in ("paper", "card", "caution"):
            light, dark = sorted((level[ink], level[ground]), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


# ---- data flow and probes


def row(path: str, verdict: str = "written", reason: str = "", **others: str) -> dict[str, str]:
    cells = {"path": path, "label": "a", "group": path, "split": "train", "verdict": verdict, "kind": ""}
    return cells | {"reason": reason} | others


def test_the_data_flow_adds_up_and_holds_no_name_of_a_file(tmp_path: Path) -> None:
    rows = [
        row("a/Müller, Anna.png"),
        row("a/2.png", group="a/Müller, Anna.png"),
        row("a/3.png", split="val", label="b"),
        row("a/4.png", "duplicate", "same pixels as a/Müller, Anna.png", kind="same-pixels"),
        row("a/5.png", "rejected", "cannot be read like a/Müller, Anna.png is", kind="no-access"),
        row("a/6.png", "rejected", "blurred (quarantined in /home/anna/audit.csv)", kind="blurred"),
        row("a/7.png", "rejected", "image file is truncated: 17 bytes of Müller, Anna.png", kind="cut"),
        row("a/8.png", "rejected", "image file is truncated: 9 bytes", kind="cut"),
        row("a/9.png", "excluded", "of Anna Müller", kind="Anna Müller"),  # by a person's hand
        row("a/10.png", "rejected", "the same pixels have the labels a, b: a/10.png, a/11.png", kind="other-label"),
    ]
    flow = count_files(rows)
    assert flow.files == 9 == flow.written + flow.rejected + flow.duplicate and flow.excluded == 1
    for verdict, reasons in flow.reasons.items():
        assert sum(reasons.values()) == getattr(flow, verdict)
    assert flow.reasons["rejected"] == {"cut": 2, "blurred": 1, "no-access": 1, "other-label": 1}
    assert flow.reasons["duplicate"] == {"same-pixels": 1} and flow.reasons["excluded"] == {"other": 1}
    assert flow.splits == {"train": {"a": 2}, "val": {"b": 1}} and flow.groups == {"train": 1, "val": 1}
    text = encode_record(flow).decode()
    assert "Müller" not in text and "anna" not in text.lower() and ".png" not in text and "home" not in text


def test_reasons_are_counted_by_kind_whatever_the_text(tmp_path: Path) -> None:
    rows = [
        row("1.png", "duplicate", "any words", kind="same-pixels"),
        row("2.png", "duplicate", "other words: 2.png", kind="same-pixels"),
        row("3.png", "rejected", "words, 1", kind="lateral;blurred"),
        row("4.png", "rejected", "words, 2", kind="lateral;blurred"),
        row("5.png", "rejected", "same pixels as a film that nobody coded"),
        row("6.png", "rejected", "a kind of a later release", kind="unheard-of"),
        row("7.png", "excluded", "any words", kind="other-class"),
    ]
    flow = count_files(rows)
    assert flow.reasons == {
        "rejected": {"lateral;blurred": 2, "other": 2},
        "duplicate": {"same-pixels": 2},
        "excluded": {"other-class": 1},
    }
    page = write_report(make_run(tmp_path / "run", dataflow=flow)).page.read_text()
    text = " ".join(Reader(page).text.split())
    for shown in ("lateral and blurred (audit) rejected 2", "other reasons rejected 2", "of a class not asked for"):
        assert shown in text


def test_many_reasons_are_cut_short_without_losing_a_file() -> None:
    pairs = list(permutations(DEFECTS, 2))[:100]
    rows = [row(str(n), "rejected", kind=";".join(pair)) for n, pair in enumerate(pairs)]
    reasons = count_files([*rows, row("another", "rejected", kind="unheard-of")]).reasons["rejected"]
    assert len(reasons) == 13 and sum(reasons.values()) == 101 and reasons["other"] == 89


def test_a_table_of_another_conversion_is_not_taken(tmp_path: Path, betons: Path) -> None:
    table = io.StringIO((betons / "convert.csv").read_text(), newline="")
    counts = count_files(list(csv.DictReader(table))).splits
    sizes = {split: sum(counts[split].values()) for split in ("train", "val")}
    assert keep_dataflow(tmp_path, betons, sizes) == "" and (tmp_path / "dataflow.json").is_file()
    other = tmp_path / "other"
    other.mkdir()
    assert "another conversion" in keep_dataflow(other, betons, sizes | {"train": 1})
    (other / "convert.csv").write_text("no,such,columns\n1,2,3\n")
    assert "no table of `convert`" in keep_dataflow(other, other, {})
    assert "has no convert.csv" in keep_dataflow(other, tmp_path, {})
    assert not (other / "dataflow.json").exists()


@pytest.fixture(scope="module")
def probed(betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("probed") / "run", probes=None, dataflow=None)
    put(run / "config.json", {"data": str(betons), "out": "r"})
    with Beton(betons / "train.beton") as train, Beton(betons / "val.beton") as val:
        counts = {"training_images": len(train), "validation_images": len(val)}
        put(run / "summary.json", summary(conversion_id="", **counts))
    report(ReportConfig(run=run))
    return run


def test_the_probes_of_the_training_beton_are_kept_and_shown(probed: Path, betons: Path, tmp_path: Path) -> None:
    found = read_record(Probes, probed / "probes.json")
    assert {probe.name for probe in found.probes} >= {"outside-crop", "lungs-hidden", "thumbnail", "view"}
    assert found.skipped["header"] == caution("no-headers")
    assert found.beton == "train.beton" and found.num_samples > 10
    assert str(betons) not in (probed / "probes.json").read_text()
    text = Reader((probed / "report.html").read_text()).text
    assert text.count("Not measured") == text.count("Not measured: ") == 1, "but for controls of the lungs, in one line"
    assert "0 excluded" not in (probed / "report.html").read_text() and (probed / "dataflow.json").is_file()
    before = (probed / "probes.json").stat().st_mtime_ns
    report(ReportConfig(run=probed))
    assert (probed / "probes.json").stat().st_mtime_ns == before  # the answer is there: not asked again


def test_probes_that_cannot_be_run_say_why(betons: Path, tmp_path: Path) -> None:
    bare = tmp_path / "train.beton"
    bare.write_bytes(strip_footer((betons / "train.beton").read_bytes()))
    found = probe_run(tmp_path, bare)
    assert not found.probes and found.skipped == {"all probes": caution("no-groups-to-probe")}
    assert verdict_of(make_run(tmp_path, probes=None)).unchecked == ("shortcuts in the collection",)
    text = Reader(write_report(tmp_path).page.read_text()).text
    assert "What the probes could not examine" in text and "unverified" in text


def test_the_command_prints_the_sentences_and_where_the_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    assert cli.main(["report", str(run), "--no-probes"]) == 0
    out = capsys.readouterr().out
    assert "How good: On 400 radiographs" in out and "How sure: " in out and "What could fool it: No check" in out
    assert str(run / "report.html") in out and "not for diagnosis" in out and "name it with --data" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none"], 2, "expected a run folder"),
        ([""], 2, "expected a run folder"),
        (["run", "--data", "run"], 3, "no train.beton"),
        (["run", "--data", "BETONS"], 3, "expected a9efac4d58bcfb8dbbdab38ef22a2732"),
        (["run", "--crossval", "run/evaluation"], 2, "no crossval.json"),
        (["run", "--crossval", "bad"], 5, "found [], expected object"),
        (["run", "--crossval", "worse"], 5, "no JSON"),
        (["run", "--crossval", "foreign"], 3, "classes a, b, expected covid, normal"),
        (["run", "--hurdles", "run/evaluation"], 2, "no hurdles.json, expected a folder of `hurdles`"),
        (["run", "--hurdles", "bad"], 5, "found [], expected object"),
        (["run", "--hurdles", "worse"], 5, "no JSON"),
        (["run", "--hurdles", "foreign"], 3, "classes a, b, expected covid, normal"),
    ],
)
def test_bad_input_is_reported_in_one_line(
    tmp_path: Path,
    betons: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "run")
    (tmp_path / "worse").mkdir()
    for name, foreign in (("crossval", crossval(classes=["a", "b"])), ("hurdles", hurdles(classes=["a", "b"]))):
        put(tmp_path / "bad" / f"{name}.json", [])
        put(tmp_path / "foreign" / f"{name}.json", foreign)
        (tmp_path / "worse" / f"{name}.json").write_text("{")
    arguments = [str(betons) if word == "BETONS" else word for word in arguments]
    assert cli.main(["report", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and "Traceback" not in error


@pytest.mark.parametrize(
    ("name", "result", "shown"),
    [("crossval", crossval(), "group split"), ("hurdles", hurdles(), "Matrix of training and test collections")],
)
def test_a_result_of_another_folder_joins_the_page_and_stays_for_the_next_one(
    tmp_path: Path, drawn: Path, name: str, result: Record, shown: str
) -> None:
    run, folder = make_run(tmp_path / "run", crossval=None, hurdles=None), tmp_path / "c"
    put(folder / f"{name}.json", result)
    shutil.copy(drawn / "curves.png", folder / f"{name}.png")
    config = ReportConfig(run=run, probes=False, **{name: folder})  # type: ignore[arg-type]
    first = report(config).page.read_text()
    assert shown in first and first.count("<img") == 4 and write_report(run).page.read_text() == first
    (folder / f"{name}.png").unlink()
    assert report(config).page.read_text().count("<img") == 3, "the picture of an earlier one is gone"


# ---- findings


def judged(run: Path) -> Verdict:
    return write_report(run).verdict


def text_of(run: Path) -> str:
    return " ".join(Reader(write_report(run).page.read_text()).text.split())


def plus(*findings: dict[str, Any], **changes: Any) -> FindingsMetrics:
    """Ten sound findings, and those."""
    return findings_metrics(*(finding(name, 0.9) for name in FINDINGS[:10]), *findings, **changes)


def folds_of(names: tuple[str, ...] = FINDINGS, **aucs: dict[str, float]) -> Crossval:
    """A cross-validation of findings with these AUCs by target."""
    targets = []
    for target in crossval(hidden=0.5).targets:
        auc_of = {name: aucs.get(target.target.replace("-", "_"), {}).get(name, target.auc.mean) for name in names}
        found = [
            {"name": name, "num_known": 1900, "num_present": 300, "num_groups": 1400, "refused": None,
             "f1": over_folds(0.6), "auc": over_folds(auc or 0.5), "accuracy": over_folds(0.8),
             "confusion": [[1, 1], [1, 1]], "difference": {}}
            for name, auc in auc_of.items()
        ]  # fmt: skip
        targets.append(msgspec.to_builtins(target) | {"findings": found, "confusion": []})
    return crossval(classes=list(names), positive="", targets=targets)


def raced(names: tuple[str, ...] = FINDINGS, fallen: str = "") -> Hurdles:
    """Hurdles of findings, in which one of them may drop elsewhere."""
    plain = hurdles(classes=list(names), positive="")
    cells = []
    for cell in plain.cells:
        away = cell.place == "away"
        found = [
            {"name": name, "num_known": 200, "num_present": 60, "num_groups": 150, "refused": None, "networks": [],
             "estimates": {"auc": estimate(0.6 if away and name == fallen else 0.9)},
             "drop": {"auc": estimate(0.3, low=0.2 if name == fallen else -0.1)} if away else {}}
            for name in names
        ]  # fmt: skip
        drop = {key: msgspec.structs.replace(one, low=-0.05) for key, one in cell.drop.items()}
        cells.append(
            msgspec.convert(msgspec.to_builtins(cell) | {"findings": found, "drop": msgspec.to_builtins(drop)}, Cell)
        )
    return msgspec.structs.replace(plain, cells=cells)


def over_folds(auc: float) -> dict[str, Any]:
    return {"estimate": estimate(auc), "mean": auc, "spread": 0.02, "folds": [auc] * 5}


def test_a_sound_run_of_findings_names_the_weakest_and_the_best_founded_and_praises_neither(tmp_path: Path) -> None:
    weak, founded = finding("Weak", 0.62, 0.06, present=66), finding("Founded", 0.88, 0.02, present=190)
    tested = plus(weak, founded)
    explained = findings_explanation(*map(finding_explained, tested.names))
    run = make_findings_run(tmp_path / "run", tested=tested, explained=explained, crossval=folds_of())
    verdict = judged(run)
    assert (not verdict.red_flags and verdict.unchecked == ("another collection",)) or verdict.state == "held"
    assert "the mean AUC over 12 of 12 findings is 0.875 (interval 0.855 to 0.885)" in verdict.how_good
    assert "the weakest is Weak with 0.620 (interval 0.560 to 0.650), present in 66 of 380 known" in verdict.how_good
    assert "the best founded Founded with 0.880 (interval 0.860 to 0.890), present in 190 of 380" in verdict.how_good
    assert "Sure within limits" in verdict.how_sure and "310 groups" in verdict.how_sure
    for sentence in verdict.sentences.values():
        assert not PRAISE.search(sentence.replace("Founded", "")), sentence
        assert sentence.endswith(".") and sentence.count(". ") == 0


def test_an_explanation_of_some_of_the_findings_that_were_measured_is_no_answer_for_the_others(tmp_path: Path) -> None:
    some = findings_explanation(*map(finding_explained, FINDINGS[:3]))
    assert "what the model relies on" in judged(make_findings_run(tmp_path / "run", explained=some)).unchecked
    assert "what the model relies on" not in judged(make_findings_run(tmp_path / "whole")).unchecked


def test_films_too_few_for_a_score_worth_having_get_no_number(tmp_path: Path) -> None:
    few = [finding(name, 0.97, 0.3, present=11) for name in FINDINGS[:3]] + [unmeasured(name) for name in FINDINGS[3:]]
    verdict = judged(make_findings_run(tmp_path / "run", tested=findings_metrics(*few, num_samples=60)))
    assert verdict.how_good.startswith("No score here is worth having: on 60 radiographs")
    assert "11 of 14 findings could not be measured" in verdict.how_good and "the other 3 rest on" in verdict.how_good
    assert verdict.how_sure.startswith("Not sure at all") and "0.9" not in verdict.how_good + verdict.how_sure
    everything = [unmeasured(name) for name in FINDINGS]
    nothing = judged(make_findings_run(tmp_path / "nothing", tested=findings_metrics(*everything)))
    assert "14 of 14 findings could not be measured" in nothing.how_good and "other" not in nothing.how_good


def test_where_few_findings_have_a_score_there_is_no_mean(tmp_path: Path) -> None:
    found = [finding("Edema", 0.8), *(unmeasured(name) for name in FINDINGS if name != "Edema")]
    verdict = judged(make_findings_run(tmp_path / "run", tested=findings_metrics(*found)))
    assert verdict.how_good.startswith("Only 1 of 14 findings has a score worth having: on 400 radiographs")
    assert "the AUC of Edema is 0.800" in verdict.how_good and "mean" not in verdict.how_good


def test_findings_that_guessing_reaches_are_named(tmp_path: Path) -> None:
    verdict = judged(make_findings_run(tmp_path / "run", tested=plus(finding("Weak", 0.55, 0.1))))
    assert verdict.how_good.endswith("; Weak was not shown to be better than guessing.")
    guesses = findings_metrics(*(finding(name, 0.505) for name in FINDINGS))
    verdict = judged(make_findings_run(tmp_path / "guess", tested=guesses))
    assert "the mean AUC over 14 of 14 findings was not shown to be better than guessing" in verdict.how_good


OUTSIDE = {"region": "outside", "lungs": lungs(0.8, 0.7, 0.93)}
WORSE = subgroup("source", "hospital C", 90, {"auc": estimate(0.6)})
FINDING_FLAGS: list[tuple[dict[str, Any], str, str]] = [
    (
        {"tested": plus(cautions=cautions(LEAKED))},
        "This score is leaked",
        "holds 3 images known to be of the training set",
    ),
    (
        {"explained": findings_explanation(finding_explained("Edema", **OUTSIDE), finding_explained("Mass", 3))},
        "Some of these scores need not come from the lungs",
        "for Edema the model relies on what lies outside the lungs",
    ),
    (
        {"probed": findings_probes(("view", "Mass"), ("thumbnail", "Edema"))},
        "Some of these scores need not come from the finding",
        "probes predict Edema and Mass from little or nothing of the finding (at best Edema by thumbnail, AUC 0.860)",
    ),
    (
        {"probed": findings_probes(cautions=cautions(caution("findings-of-one-source", findings=["Edema (A)"])))},
        "The score of some findings says nothing about the other sources",
        "one alone has all films in which a finding is known, or all in which it is present (Edema (A))",
    ),
    (
        {"tested": plus(unmeasured("Hernia"))},
        "Some findings have no score",
        "too few patients are known to have Hernia",
    ),
    (
        {"tested": plus(finding("Hernia", present=58))},
        "Some of these scores rest on few images",
        "too few images: 58 of Hernia",
    ),
    (
        {"tested": plus(finding("Mass", subgroups=[WORSE]))},
        "Some of these scores do not hold everywhere",
        "for source hospital C the ROC-AUC of Mass is only 0.600",
    ),
    (
        {"crossval": folds_of(lungs_hidden={"Mass": 0.7} | dict.fromkeys(FINDINGS[:9], 0.5))},
        "Some of these scores need not come from the lungs",
        "with the lungs hidden, cross-validation still predicts Mass",
    ),
]


@pytest.mark.parametrize(("parts", "lead", "finding"), FINDING_FLAGS)
def test_whatever_could_fool_a_run_of_findings_opens_its_verdict(
    tmp_path: Path, parts: dict[str, Any], lead: str, finding: str
) -> None:
    verdict = judged(make_findings_run(tmp_path / "run", **parts))
    assert [flag.effect[: len(lead)] for flag in verdict.red_flags] == [lead]
    assert verdict.how_good.startswith(lead) and finding.lower() in verdict.what_could_fool.lower()


def test_random_folds_above_group_folds_are_leakage_only_where_the_auc_shows_it_too(tmp_path: Path) -> None:
    found = msgspec.to_builtins(folds_of())
    for target in found["targets"]:
        if target["target"] == "random":
            target["f1"] = over_folds(0.99)
    for low, flagged in ((0.01, True), (-0.01, False)):
        apart = {"auc": estimate(0.03) | {"low": low, "high": 0.06}}
        made = msgspec.convert(found | {"differences": {"random": apart}}, Crossval)
        verdict = judged(make_findings_run(tmp_path / str(flagged), crossval=made))
        assert ("images leak between folds" in str(verdict.red_flags)) is flagged


def test_means_over_different_findings_are_not_compared_with_another_collection(tmp_path: Path) -> None:
    found = msgspec.to_builtins(folds_of())
    group = next(target for target in found["targets"] if target["target"] == "group")
    away = msgspec.to_builtins(group) | {"target": "external"}
    for defined, flagged in ((14, True), (3, False)):
        group["auc"], away["auc"] = over_folds(0.9), over_folds(0.6)
        group["auc"]["estimate"] |= {"defined": 14, "classes": 14}
        away["auc"]["estimate"] |= {"defined": defined, "classes": 14}
        made = msgspec.convert(found | {"targets": [group, away], "external": "x.beton"}, Crossval)
        verdict = judged(make_findings_run(tmp_path / str(flagged), crossval=made))
        assert ("on an external set the AUC falls" in str(verdict.red_flags)) is flagged


def test_a_finding_that_falls_elsewhere_is_a_red_flag_and_stands_in_its_row(tmp_path: Path) -> None:
    run = make_findings_run(tmp_path / "run")
    fallen = [finding(name, 0.6 if name == "Mass" else 0.85) for name in FINDINGS]
    away = findings_metrics(*fallen, collection="external", conversion_id="b" * 32, set_name=OTHER)
    put(run / "evaluation" / OTHER / "findings.json", away)
    verdict = judged(run)
    assert "on the external set heldout-bbbbbbbb the AUC falls, of Mass from 0.850 to 0.600" in str(verdict.red_flags)
    rows = finding_rows(read_results(run), read_results(run).tested_findings[0], True)
    assert {row.found.name for row in rows if row.elsewhere.alarm} == {"Mass"}
    assert "another collection" not in verdict.unchecked


def test_the_row_of_a_finding_that_needs_attention_stands_first(tmp_path: Path) -> None:
    found = [finding("Sound", 0.9), finding("Weak", 0.6), finding("Few", 0.95, present=12), unmeasured("Rare")]
    run = make_findings_run(tmp_path / "run", tested=findings_metrics(*found))
    text = text_of(run)
    table = text[text.index("What needs attention first") :]
    places = [table.index(f" {name} ") for name in ("Rare", "Few", "Weak", "Sound")]
    assert places == sorted(places)
    assert "with it: 3, without: 370; at least 5 of each" in table and "Rare not measured 3 of 380 known" in table


def test_what_was_not_measured_of_findings_is_reported_with_its_command(tmp_path: Path) -> None:
    run = make_findings_run(tmp_path / "run", tested=None, explained=None, probed=None, dataflow=None)
    verdict, text = judged(run), text_of(run)
    assert verdict.how_good.startswith("That is not known") and len(verdict.unchecked) == 6
    assert text.count("Not measured") == 6 and "14 findings" not in verdict.how_good
    assert "chose them, so that it is no evidence" in text


@pytest.mark.parametrize("number", [1, 20])
def test_runs_of_one_finding_and_of_twenty_have_pages(tmp_path: Path, number: int) -> None:
    names = tuple(f"Finding {place}" for place in range(number))
    run = make_findings_run(tmp_path / "run", names=names)
    text, verdict = text_of(run), judged(run)
    assert all(f" {name} " in text for name in names)
    assert ("the AUC of Finding 0 is 0.850" in verdict.how_good) == (number == 1)
    assert ("mean AUC" in verdict.how_good) == (number == 20) and "1 findings" not in text


def test_labels_and_policies_stand_on_the_page_by_finding(tmp_path: Path) -> None:
    text = text_of(make_findings_run(tmp_path / "run"))
    assert "Uncertain values were read as present for Atelectasis; otherwise as unknown." in text
    assert "Empty cells were read as absent." in text
    assert "Cardiomegaly 201 present 1,300 absent, 147 unknown" in text and "All images 1,648 412 400" in text


def test_the_data_flow_of_findings_counts_their_labels_and_is_of_its_own_conversion(tmp_path: Path) -> None:
    phantoms = PhantomConfig(out=tmp_path / "p", patients=24, size=64, findings=("effusion", "nodule"), unknown=0.2)
    catalog = CatalogConfig(manifest=write_phantoms(phantoms), findings=("all",))
    for name, seed in (("b", 0), ("c", 5)):
        places = {"out": tmp_path / name, "site_key": tmp_path / "site.key"}
        convert(ConvertConfig(catalog=catalog, size=32, workers=1, holdout=0.3, seed=seed, **places))
    data = tmp_path / "b"
    with Beton(data / "train.beton") as train, Beton(data / "val.beton") as val, Beton(data / "heldout.beton") as beton:
        sizes, conversion_id = {"train": len(train), "val": len(val)}, beton.facts.conversion_id
        assert keep_dataflow(tmp_path, data, sizes, conversion_id) == ""
        flow = read_record(DataFlow, tmp_path / "dataflow.json")
        assert dataflow_beside(beton) == flow and flow.findings is not msgspec.UNSET
        assert flow.splits["heldout"] == {"": len(beton)}, "which findings films have together is nobody's business"
        for found, finding_N in zip(flow.findings.splits["heldout"], beton.labels.T, strict=True):
            assert (found.present, found.absent) == ((finding_N == 1).sum(), (finding_N == 0).sum())
            assert found.unknown == np.isnan(finding_N).sum()
    shutil.copy(data / "convert.csv", tmp_path / "c")
    with Beton(tmp_path / "c" / "heldout.beton") as beton:
        assert dataflow_beside(beton) is None
    (data / "val.beton").write_bytes(b"damaged")
    assert "val.beton" in keep_dataflow(tmp_path, data, sizes, conversion_id)
    assert read_record(DataFlow, tmp_path / "dataflow.json") == flow
    assert b"findings" not in encode_record(dataflow()), "of classes the file is as it was"


def test_a_finding_that_drops_in_the_hurdles_is_a_red_flag_and_stands_in_its_table(tmp_path: Path) -> None:
    run = make_findings_run(tmp_path / "run", hurdles=raced(fallen="Mass"))
    verdict, text = judged(run), text_of(run)
    assert [flag.finding for flag in verdict.red_flags] == ["networks trained on the same films fall on south in Mass"]
    part = text[text.index("By finding, of networks trained on this run’s films") :]
    assert "Mass 0.900 0.860 to 0.920 0.600 0.560 to 0.620 drop 0.300" in part
    rows = finding_rows(read_results(run), read_results(run).tested_findings[0], True)
    assert {row.found.name for row in rows if row.elsewhere.alarm} == {"Mass"}


def test_a_cross_validation_of_findings_has_a_row_a_finding(tmp_path: Path) -> None:
    text = text_of(make_findings_run(tmp_path / "run", crossval=folds_of(group={"Mass": 0.66})))
    part = text[text.index("The AUC of each finding, over the images") :]
    assert "Mass 300 of 1,900 known" in part and "0.660 0.620 to 0.680" in part


@pytest.mark.parametrize("kind", ["crossval", "hurdles"])
def test_a_result_of_classes_of_the_same_names_does_not_join_a_run_of_findings(tmp_path: Path, kind: str) -> None:
    run = make_findings_run(tmp_path / "run", names=("covid", "normal"))
    put(tmp_path / "c" / f"{kind}.json", crossval() if kind == "crossval" else hurdles())
    with pytest.raises(InputError, match=r"classes covid, normal, expected covid, normal as of"):
        report(ReportConfig(run=run, probes=False, **{kind: tmp_path / "c"}))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_of_a_finding_stays_text(name: str, tmp_path: Path) -> None:
    def page(run: Path, *names: str) -> str:
        first = finding(names[0], present=12, subgroups=[WORSE | {"name": names[1]}], difference={"auc": estimate(0.1)})
        tested = findings_metrics(
            first, unmeasured(names[1]), against=names[0], macro_difference={"auc": estimate(0.1)}, split=names[1]
        )
        one = finding_explained(names[0], cautions=cautions(caution("empty-maps", empty=1, images=9)))
        audit = findings_probes(("view", names[0]), names=names)
        make_findings_run(run, names=names, tested=tested, explained=findings_explanation(one), probed=audit)
        return write_report(run).page.read_bytes().decode("utf-8")

    hostile, plain = page(tmp_path / "a", name, name + "2"), page(tmp_path / "b", "plain", "plain2")
    assert Reader(hostile).tags == Reader(plain).tags
    stored = name.encode("utf-8", "backslashreplace").decode()
    assert Reader(hostile).text.count(visible(stored)[:20]) >= 15


def test_a_data_flow_with_counts_of_other_findings_is_named_and_the_page_is_made(tmp_path: Path) -> None:
    whole = json.loads(encode_record(findings_dataflow()))
    whole["findings"]["splits"]["val"] = []
    assert "counts of other findings" in text_of(make_findings_run(tmp_path / "run", dataflow=whole))


@pytest.mark.parametrize(
    "changes",
    [
        {"present": [[1]]}, {"told_by_source": []}, {"phi": []},
        {"sources": [{"source": "A", "images": 1, "groups": 1, "known": [1, 1], "present": [5, 0]}]},
    ],
)  # fmt: skip
def test_an_audit_whose_tables_are_of_other_findings_is_named_and_the_page_is_made(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = make_findings_run(tmp_path / "run", names=("Edema", "Mass"), probed=None)
    whole = json.loads(encode_record(findings_probes(names=("Edema", "Mass"))))
    put(run / "probes-by-finding.json", whole | {"audit": whole["audit"] | changes})
    assert "numbers of other findings" in text_of(run)


# ---- in a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.extras
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_its_window_without_complaint_or_request(
    browser: Browser, written: Path, width: int, dark: bool
) -> None:
    check_page(
        browser,
        written,
        width=width,
        dark=dark,
        boxes="figure, figcaption *, .verdict, .verdict p, pre, .wide:not([tabindex])",
    )
    size = browser.evaluate("parseFloat(getComputedStyle(document.querySelector('.verdict p')).fontSize)")
    assert size >= 20  # the verdict is large, on a phone as well
    if folder := os.environ.get("PLAINFILM_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"report-{width}-{'dark' if dark else 'light'}.png")


@pytest.mark.extras
def test_hostile_names_are_shown_as_text(browser: Browser, written: Path) -> None:
    browser.open(written, width=390)
    title = browser.evaluate("document.querySelector('h1').textContent")
    assert title == r"<script>alert(1)</script>.png and line\nbreak.png"
    assert browser.evaluate("document.querySelectorAll('script').length") == 0
    before = "getComputedStyle(document.querySelector('.stack td[data-name]'), '::before')"
    assert browser.evaluate(f"{before}.unicodeBidi") == "isolate"  # a name in Arabic moves no number beside it


@pytest.mark.extras
@pytest.mark.parametrize("width", [390, 1280])
def test_twelve_collections_of_long_names_fit_the_page(browser: Browser, tmp_path: Path, width: int) -> None:
    names = ("W" * 200, *(f"collection of the hospital {number} " * 6 for number in range(11)))
    page = write_report(make_run(tmp_path / "run", hurdles=leave_one_out(hurdles(names)))).page
    check_page(browser, page, width=width, dark=False, boxes="pre, .wide:not([tabindex]), .hurdles tbody > tr > *")


@pytest.mark.extras
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_of_fourteen_findings_fits_its_window(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    names = ("W" * 60, "Enlarged Cardiomediastinum and a long name of a finding", *FINDINGS[2:])
    found = [unmeasured(names[0]), *(finding(name, 0.8, 0.1) for name in names[1:])]
    parts = {
        "tested": findings_metrics(*found),
        "crossval": folds_of(),
        "probed": findings_probes(("view", names[1]), names=names),
    }
    run = make_findings_run(tmp_path / "run", names=names, **parts)
    for place in range(3 * len(names)):
        (run / "explanation" / SET / f"{place + 1:04d}.png").write_bytes(picture_bytes(Image.new("RGB", (518, 300))))
    page = write_report(run).page
    check_page(
        browser,
        page,
        width=width,
        dark=dark,
        boxes="figure, figcaption *, .verdict, .verdict p, pre, .findings tbody th",
    )
    least = "Math.min(...[...document.querySelectorAll('main td, main th, main p, main small')].map("
    least += "one => parseFloat(getComputedStyle(one).fontSize)))"
    assert browser.evaluate(least) >= 9
    if folder := os.environ.get("PLAINFILM_SCREENSHOTS"):
        browser.screenshot(Path(folder) / f"findings-{width}-{'dark' if dark else 'light'}.png")
