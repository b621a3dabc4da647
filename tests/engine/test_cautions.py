"""Cautions: each code is planted where it is made, and found as text in terminal and page, and as a code in JSON."""

import contextlib
import csv
import json
import re
import shutil
import string
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from engine.config import CrossvalConfig, EvaluateConfig, ExplainConfig, HurdlesConfig, PredictConfig, Switch
from engine.crossval.crossval import crossval
from engine.crossval.findings import fold_cautions
from engine.crossval.folds import away_cautions, deal_folds, external_copies, open_external, open_pool
from engine.crossval.lungs import pool_lungs
from engine.crossval.output import crossval_parts
from engine.device import as_stored, choose_policy
from engine.evaluate.checks import check_beton, class_cautions, finding_cautions, group_cautions, set_cautions
from engine.evaluate.copies import KnownSet, SharedFilm, unsearched
from engine.evaluate.evaluate import evaluate, look_for_copies
from engine.evaluate.looking import Looking, looking_cautions
from engine.evaluate.output import evaluation_parts
from engine.evaluate.trained import Decision, Trained, decide_findings, load_trained
from engine.explain.by_finding import unexplained
from engine.explain.controls import Deletion, Randomised
from engine.explain.explain import explain
from engine.explain.findings import explanation_parts, map_cautions, region_cautions
from engine.explain.lungs import LungRatio
from engine.export.model_card import card_of
from engine.hurdles.cells import cell_of
from engine.hurdles.collections import Collection as Member
from engine.hurdles.collections import Plan, plan_rows, split_by_source
from engine.hurdles.hurdles import TrainedRow, away_cell
from engine.hurdles.matrix import NOT_ELSEWHERE
from engine.hurdles.output import hurdles_parts
from engine.hurdles.overlaps import Overlap
from engine.predict.predict import predict_files, prediction_parts
from engine.predict.table import list_sources
from engine.profile.profile import machine_cautions
from engine.report.page import crossval_cautions, hurdles_cautions
from engine.report.probes import probe_run
from engine.report.report import report_parts, write_report
from engine.report.results import read_results
from engine.report.verdict import judge
from engine.statistics.calibration import TEMPERATURES
from engine.statistics.estimates import UNDEFINED, Estimate
from engine.statistics.thresholds import choose_operating_points
from engine.train.checkpoint import ValidationScores, load_checkpoint, save_checkpoint
from engine.train.device_batches import triton_trouble
from engine.train.epochs import Captured
from engine.train.leakage import HASHES, save_record, training_cautions
from engine.train.run_folder import BEST, run_id, save_settings
from engine.train.state import UNWATCHED
from engine.train.summary import Summary, early_convergence, label_cautions
from engine.train.train import train, training_parts
from engine.train.validated import nothing_to_recompute
from loaders.audit.by_finding import probed_findings
from loaders.audit.collection import Collection, class_tasks, source_tasks
from loaders.audit.copies import Copy
from loaders.audit.findings import CollectionFinding
from loaders.audit.page import audit_parts, page_html
from loaders.batches.loader import Loader
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.cautions import CODES, Caution, Gravity, caution, each_once
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig
from loaders.convert.conversion import Row
from loaders.convert.convert import convert
from loaders.convert.demographics import demographics_caution
from loaders.convert.lungs import LungMasks, lungs_kept
from loaders.images.frame import template_SS
from loaders.images.lungs import shipped_segmenter
from loaders.lungs.masks import Masks
from loaders.output import Line, Parts
from loaders.records import encode_record, read_record
from loaders.settings import build
from loaders.sources import confounding
from loaders.sources.catalog import Catalog, read_catalog
from loaders.sources.entry import Entry
from loaders.sources.split import known_patients
from loaders.statistics import Progress, no_progress
from tests.engine.test_device_step import CUDA, Recorder, recorder  # noqa: F401 - a fixture
from tests.example_run import (
    CHECKPOINT,
    hashed_formerly,
    make_run,
    metrics,
    probes,
    results_of,
    small_training,
    summary,
)
from tests.example_run import crossval as example_crossval
from tests.example_run import hurdles as example_hurdles
from tests.findings_example import write_findings
from tests.loaders.test_audit_page import Reader, make_result
from tests.loaders.test_beton import strip_footer

ROOT = Path(__file__).parents[2]
SEEDS: dict[str, Any] = {"device": "cpu", "resamples": 100}
TERMINAL, JSON, PAGE, CARD = "terminal", "json", "page", "card"
PLACES = {  # where a code can appear, if not in terminal, JSON and page; a card also lists those of its run's results
    "crossval-of-other-conversion": {PAGE},
    "hurdles-of-other-conversion": {PAGE},
    "machine-busy": {TERMINAL, JSON},
    "machine-unsteady": {TERMINAL, JSON},
    "audit-off": {TERMINAL},
    "no-leakage-record": {TERMINAL},
    "run-hashed-otherwise": {TERMINAL},
    "masks-given-in-training": {TERMINAL},
    "files-of-the-run": {TERMINAL},
    "folder-without-pictures": {TERMINAL},
    "files-named-twice": {TERMINAL},
    "file-unreadable": {TERMINAL, PAGE},
    "file-too-large": {TERMINAL, PAGE},
    "result-of-other-weights": {TERMINAL, PAGE},
    "valid-for-its-data-only": {CARD},
    "shortcuts-not-excluded": {CARD},
}


def places_of(code: str) -> set[str]:
    return PLACES.get(code, {TERMINAL, JSON, PAGE})


@dataclass(frozen=True, kw_only=True)
class Case:
    """A run, its betons and their radiographs, and a place for variants of them."""

    run: Path
    betons: Path
    source: Path
    place: Path
    trained: Trained

    def beton(self, name: str = "heldout", /, *, facts: dict[str, Any] | None = None, **rows: Any) -> Path:
        """A copy of one of the betons, with some facts and columns of its rows changed."""
        with Beton(self.betons / f"{name}.beton") as beton:
            rows_N = beton.rows_N.copy()
            for column, value in rows.items():
                rows_N[column] = value(beton) if callable(value) else value
            changed = replace(beton.facts, **{"sources": ("here", "there"), "views": ("PA", "AP")} | (facts or {}))
            frames = [beton.frame(sample) for sample in range(len(beton))]
            path = self.place / f"{len(list(self.place.iterdir()))}.beton"
            write_beton(path, iter(frames), beton.label_N, rows_N, changed, beton.page_size)
        return path

    def foreign(self) -> Path:
        """The held-out beton as another program would have written it."""
        path = self.place / "foreign.beton"
        path.write_bytes(strip_footer((self.betons / "heldout.beton").read_bytes()))
        return path

    def checked(self, path: Path, run: Path | None = None, **state: Any) -> list[Caution]:
        """What `check_beton` and `set_cautions` find."""
        settings = LoaderConfig(batch_size=8, trust_unverified=True)
        with Loader(path, settings, tensors=True) as loader:
            found = check_beton(run or self.run, self.trained.state | state, loader, force=True)
            return found + set_cautions(loader.beton)


@pytest.fixture(scope="module")
def case(phantoms: Path, betons: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A run that was killed before its first state, and resumed; each of its cautions is planted."""
    folder = tmp_path_factory.mktemp("cautions")
    config = small_training(betons, folder / "run", batch_size=16)
    config.out.mkdir()
    with Beton(betons / "train.beton") as first, Beton(betons / "val.beton") as second:
        save_record(config.out, {"train": first, "val": second}, run_id(config, first.facts.conversion_id), look=False)
    save_settings(config.out, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.train.trainer.training_cautions", lambda beton: examples("training"))
        train(config, resume=True)
    (folder / "variants").mkdir()
    return Case(
        run=config.out, betons=betons, source=phantoms.parent, place=folder / "variants",
        trained=load_trained(config.out),
    )  # fmt: skip


# ---- the plants: code → where it belongs, and what makes it under a condition that was planted


def unknown_patients(case: Case) -> list[Caution]:
    return case.checked(case.beton(patient_hash=0, flags=0))


def unknown_training_patients(case: Case) -> list[Caution]:
    run = case.place / "anonymous"
    shutil.copytree(case.run, run)
    anonymous = case.beton("train", patient_hash=0)
    with Beton(anonymous) as first, Beton(case.betons / "val.beton") as second:
        save_record(run, {"train": first, "val": second}, case.trained.state["run"], look=False)
    return case.checked(case.betons / "heldout.beton", run)


def external(case: Case, **facts: Any) -> list[Caution]:
    """An external beton of other images and patients, with some facts changed."""

    def others(beton: Beton) -> np.ndarray:
        return np.random.default_rng(1).integers(1, 255, (len(beton), 16), np.uint8)

    rows: dict[str, Any] = {"pixel_hash": others, "patient_hash": 0 if facts.pop("anonymous", False) else others}
    path = case.beton(facts={"conversion_id": "e" * 32} | facts, **rows)
    with contextlib.ExitStack() as stack:
        return open_external(path, open_pool(case.betons, stack), stack)[1]


def found_otherwise(case: Case) -> list[Caution]:
    """An external beton whose lungs were found by a segmenter, beside a pool with given masks."""
    paths = [case.beton(facts=facts) for facts in (GIVEN_MASKS | {"segmenter": "f" * 16}, GIVEN_MASKS)]
    with Beton(paths[0]) as tested, Beton(paths[1]) as trained:
        return away_cautions("elsewhere", [tested], [trained])


def copied(case: Case, searched: bool = True, **settings: bool) -> list[Caution]:
    """What is said of a set whose first film is a copy of one in training, where that can be searched for."""

    def find(tested: Beton, progress: Progress) -> list[Copy]:
        return [Copy(0, 7, 0.9)]

    none_N16 = np.zeros((9, 16), np.uint8)
    known = KnownSet(
        name="train",
        site_key_id="",
        hash_algorithm="",
        hashes=dict.fromkeys(HASHES, none_N16),
        copies=find if searched else None,
    )
    path = case.betons / "heldout.beton"
    config = EvaluateConfig(run=case.run, betons=(path,), **settings)
    with pytest.MonkeyPatch.context() as patch, Beton(path) as beton:
        patch.setattr("engine.evaluate.copies.can_compare", lambda beton: True)
        return look_for_copies(config, beton, [[known]], [[]], no_progress).cautions[0]


def too_small(case: Case) -> list[Caution]:
    with Beton(case.betons / "heldout.beton") as beton:
        return unsearched(beton, [])


def copied_outside(case: Case, kept: bool) -> list[Caution]:
    """What is said of an external beton of which all but one film are copies."""
    with Beton(case.betons / "heldout.beton") as beton:
        copies = [
            SharedFilm(sample=sample, reason="copy", of="val", place=0, similarity=0.9)
            for sample in range(1, len(beton))
        ]
        return external_copies(beton, copies, kept=kept)


def pool_of(case: Case) -> list[Caution]:
    """A pool in which each image is a group of its own."""
    folder = case.place / "alone"
    folder.mkdir()
    shutil.copy(case.beton(group=lambda beton: np.arange(len(beton))), folder / "heldout.beton")
    with contextlib.ExitStack() as stack:
        return open_pool(folder, stack).cautions()


def maps(**changes: Any) -> list[Caution]:
    """An explanation of maps of which some part went wrong."""
    none = Estimate(value=-0.5, low=-0.6, high=0.1, method="bootstrap")
    counts = {"num_samples": 4, "num_empty": 2, "num_outside": 1}
    lungs = LungRatio(
        ratio=none, area=0.3, masks="segmenter", segmenter="0" * 16, without_mask={"lungs-missing": 2}, **counts
    )
    correlation = changes.get("correlation")
    flat = [0.0, 0.0]
    blanked = Deletion(share=flat, by_map=flat, at_random=flat, difference=none, num_samples=4)
    return map_cautions(lungs, Randomised(correlation=correlation, num_samples=4, num_empty=0), blanked, 40)


def captured(made: Recorder) -> list[Caution]:
    """A capture that fails.  made: of the fixture that stands for a CUDA device."""
    made.fails = True
    step = Captured(made, [made.total], CUDA, "training step")
    step.prepare([32])
    return [step.failed] if step.failed else []


def without_triton(case: Case) -> list[Caution]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "kernels.cuda", None)
        found = triton_trouble()
    return [found] if found else []


def restarted(case: Case) -> list[Caution]:
    return read_record(Summary, case.run / "summary.json").cautions


def predicted(case: Case, gone: bool = False, older: bool = False, **state: Any) -> list[Caution]:
    """A prediction for one of the run's own training files, without an audit.  gone: the leakage record is.

    older: the record is of an earlier release.
    state: of the weights, changed.
    """
    rows = [line.split(",") for line in (case.betons / "convert.csv").read_text().splitlines()]
    path = next(row[0] for row in rows if row[3] == "train")
    run = case.run
    if gone:
        run = case.place / "gone"
        shutil.copytree(case.run, run)
        (run / "leakage.safetensors").unlink()
    if older:
        run = case.place / "older"
        shutil.copytree(case.run, run)
        hashed_formerly(run)
    if state:
        run = case.place / "other-state"
        shutil.copytree(case.run, run)
        tensors, content = load_checkpoint(run / BEST)
        save_checkpoint(run / BEST, tensors, content | state)
    settings = {
        "run": run,
        "files": (case.source / path,),
        "out": case.place / "t.csv",
        "audit": "off",
        "workers": 1,
    }
    return predict_files(build(PredictConfig, settings | {"device": "cpu"})).cautions


def few_learnt(case: Case, absent: int = 0) -> list[Caution]:
    """Of labels of few films.  absent: findings that no film has."""
    folder = write_findings(case.place / f"findings {absent}", counts={"train": 8, "val": 8}, crop=32)

    def beton(split: str) -> Beton:
        found = Beton(folder / f"{split}.beton")
        found.labels[:, :absent] = 0
        return found

    return label_cautions(beton("train"), beton("val"))


def monitored(case: Case) -> list[Caution]:
    """A training on findings of which validation knows nothing."""
    folder = write_findings(case.place / "monitored", counts={"train": 40, "val": 4}, crop=32)
    return train(small_training(folder, case.place / "monitored-run")).cautions


def sources(case: Case) -> list[Caution]:
    """An empty folder and a file named twice."""
    empty, film = case.place / "empty", case.place / "film.png"
    empty.mkdir(exist_ok=True)
    film.write_bytes(b"x")
    return list_sources([empty, film, film])[1]


def in_latin_1(case: Case) -> list[Caution]:
    table = case.place / "latin-1.csv"
    table.write_bytes("path,label\na.png,Gesund\nb.png,größe\nc.png,gesund\n".encode("latin-1"))
    return [*read_catalog(CatalogConfig(manifest=table)).cautions]


def by_spelling(case: Case) -> list[Caution]:
    table = case.place / "spelling.csv"
    rows = ("a.png,covid,A,chest", "a.png,covid,A,chest", "b.png,normal,a,", "c.png,normal,A,PA")
    table.write_text("\n".join(["Image Index,Finding Labels,hospital,view", *rows]))
    return [*read_catalog(CatalogConfig(manifest=table)).cautions]


def of_table(case: Case) -> list[Caution]:
    """A table by studies whose cells leave much open, as a test set of two findings of which it has one."""
    folder = case.place / "studies"
    for film in ("s1/a.png", "s2/b.png"):
        (folder / film).parent.mkdir(parents=True, exist_ok=True)
        (folder / film).touch()
    (folder / "films.csv").write_text("path,No Finding,Edema,Mass\ns1,1,,1\ns2,,-1,\n")
    found = read_catalog(CatalogConfig(manifest=folder / "films.csv", findings=("all",))).cautions
    config = CatalogConfig(manifest=folder / "films.csv", findings=("Edema", "Rib"))
    return [*found, *read_catalog(config, partial=True).cautions]


def of_copies(case: Case) -> list[Caution]:
    """Copies of a film with another finding each, and too few of all."""
    table = case.source / "findings.csv"
    copied_to = case.source / "copy.png"
    first, second = list(csv.DictReader((case.source / "phantoms.csv").read_text().splitlines()))[:2]
    shutil.copyfile(case.source / first["path"], copied_to)
    table.write_text(f"path,Edema\n{first['path']},1\ncopy.png,0\n{second['path']},1\n")
    catalog = CatalogConfig(manifest=table, findings=("all",))
    done = convert(ConvertConfig(catalog=catalog, out=case.place / "f", size=32, dry_run=True, workers=1))
    copied_to.unlink()
    return [*done.cautions]


def of_sources(case: Case) -> list[Caution]:
    """Findings that the source tells wholly, and better than chance; and one of a single source."""
    own_N, film_N = np.arange(400) % 2, np.arange(400)
    near_N = np.where(film_N % 8 < 6, own_N, 1 - own_N)
    lonely_N = np.where(own_N == 1, film_N // 2 % 2, np.nan)
    value_NK = np.column_stack([own_N, near_N, lonely_N])
    return confounding.finding_cautions(("own", "near", "lonely"), value_NK, own_N.tolist(), film_N)


def of_lungs(task: Literal["classes", "findings"]) -> list[Caution]:
    """Of 60 films each with and without something, of which a third of those with it have no credible mask."""
    rows = [
        Row(
            entry=Entry(path=f"{place}", label="ab"[place % 2], findings=bytes([place % 2])),
            group=place,
            verdict="rejected" if place % 6 == 1 else "written",
        )
        for place in range(120)
    ]
    names = ("a", "b") if task == "classes" else ("a",)
    masks = LungMasks(mode="masked", segmenter=shipped_segmenter(), given={}, num_lost=1)
    return [*lungs_kept(masks, Catalog(root=Path(), entries=(), classes=names, task=task), rows).cautions]


def in_folders(case: Case) -> list[Caution]:
    """A public set in a folder, with masks and an empty class."""
    source = case.place / "around"
    for path in ("set/COVID/images/a.png", "set/COVID/masks/a.png", "set/Normal/images/b.png"):
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).touch()
    (source / "set" / "Viral Pneumonia").mkdir(exist_ok=True)
    return [*read_catalog(CatalogConfig(source=source)).cautions]


def in_crossed_splits(case: Case) -> list[Caution]:
    source = case.place / "chest_xray"
    for folder in ("train/NORMAL", "train/PNEUMONIA", "test/NORMAL"):
        (source / folder).mkdir(parents=True, exist_ok=True)
        (source / folder / "IM-0001-0001.jpeg").touch()
    return [*read_catalog(CatalogConfig(source=source, preset="kaggle-pneumonia")).cautions]


def in_split_folders(case: Case) -> list[Caution]:
    for folder in ("train/a", "train/b", "test/a", "test/b"):
        (case.place / "folders" / folder).mkdir(parents=True, exist_ok=True)
        (case.place / "folders" / folder / "x.png").touch()
    return [*read_catalog(CatalogConfig(source=case.place / "folders")).cautions]


def as_a_test_set(case: Case) -> list[Caution]:
    """The phantoms under other labels, of which one is no class of the run."""
    rows = list(csv.DictReader((case.source / "phantoms.csv").read_text().splitlines()))
    labels = [row["label"].upper() if place else "tb" for place, row in enumerate(rows)]
    lines = [f"{row['path']},{label},train" for row, label in zip(rows, labels, strict=True)]
    (case.source / "like.csv").write_text("\n".join(["path,label,split", *lines]))
    catalog = CatalogConfig(manifest=case.source / "like.csv", map_label=("NORMAL=normal",))
    config = ConvertConfig(catalog=catalog, out=case.place / "like", like=case.run, dry_run=True, workers=1)
    return [*convert(config).cautions]


def without_a_positive_class(case: Case) -> list[Caution]:
    catalog = CatalogConfig(manifest=case.source / "phantoms.csv", map_label=("covid=tb",))
    return [*convert(ConvertConfig(catalog=catalog, out=case.place / "c", size=32, dry_run=True, workers=1)).cautions]


def left_out(case: Case, plant: Callable[[Path], None]) -> list[Caution]:
    run = case.place / "example"
    shutil.rmtree(run, ignore_errors=True)
    plant(make_run(run, metrics=metrics(checkpoint=CHECKPOINT | {"sha256": "0" * 64})))
    return read_results(run).left_out


def large(run: Path) -> None:
    with (run / "probes.json").open("r+b") as file:
        file.truncate(60_000_000)


def of_other_data(case: Case) -> list[Caution]:
    run = make_run(case.place / "other", crossval=example_crossval(conversion_id="b" * 32))
    results = read_results(run)
    return crossval_cautions(results.crossval, results.own_crossval)


def of_other_hurdles(case: Case) -> list[Caution]:
    run = make_run(case.place / "other-hurdles", summary=summary(conversion_id="b" * 32))
    return [one for _, one in hurdles_cautions(read_results(run))]


def on_card(case: Case) -> list[Caution]:
    card = card_of(case.trained, "model.onnx").replace("\\", "")
    return [caution(code) for code in CODES if CARD in places_of(code) and CODES[code].finding in card]


def confounded(case: Case, exceptions: int = 0) -> list[Caution]:
    """Of a set whose sources follow the classes, but for some films; each is a patient of its own."""

    def sources(beton: Beton) -> np.ndarray:
        return np.where(np.arange(len(beton)) < exceptions, 1 - beton.label_N, beton.label_N)

    path = case.beton("train", source=sources, group=lambda beton: np.arange(len(beton)))
    with Beton(path) as beton:
        return training_cautions(beton)


def at(temperature: float) -> list[Caution]:
    return Decision(temperature=temperature, points=()).cautions()


def unmeasured() -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names, values and groups of two findings, of which one is known of a single film."""
    finding_NK = np.stack([np.arange(12) % 2, np.where(np.arange(12), np.nan, 1)], axis=1)
    return ("a", "b"), finding_NK, np.arange(12)


def decided(groups: int) -> list[Caution]:
    """What limits the rule of a finding that validation tells without an error, in 58 films with it and 58 without."""
    finding_N1 = np.repeat([1, 0], 58)[:, None].astype(np.float32)
    scores = ValidationScores(labels=finding_N1, logits_NK=9 * finding_N1 - 4, group_N=np.arange(116) % groups)
    return decide_findings(scores, ("a",)).cautions()


def refusals(num_positive: int, num_negative: int) -> list[Caution]:
    """Why validation gives no operating points."""
    is_N = np.repeat([True, False], [num_positive, num_negative])
    return [point.refused for point in choose_operating_points(is_N, np.arange(len(is_N)) / 100) if point.refused]


def unprobed(*patients: int, masks_NSS: np.ndarray | None = None, lungs_alone: bool = False) -> list[Caution]:
    """Why probes of stored frames from one source are not run.  patients: of each class, with one image each."""
    label_N, skipped = np.repeat(np.arange(len(patients)), patients), dict[str, Caution]()
    collection = Collection(
        frames_NSS=np.zeros((len(label_N), 92, 92), np.uint8), label_N=label_N, classes=("a", "b"),
        group_N=np.arange(len(label_N)), source_N=("s",) * len(label_N), finding_NK=np.eye(len(label_N)),
        masks_NSS=masks_NSS, lungs_alone=lungs_alone,
    )  # fmt: skip
    for tasks in (class_tasks, source_tasks):
        list(tasks(collection, skipped))  # runs none of them
    assert probed_findings(collection, collection.group_N, skipped) == []  # each is present in one
    return list(skipped.values())


def compiled_on(device: str, switch: Switch) -> list[Caution]:
    """Why a run on this device is compiled, or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.device.choose_device", torch.device)
        return [choose_policy(device, "off", switch, 1).why]


def precision_on(device: str, amp: Switch = "auto", unit: str = "") -> list[Caution]:
    """Why a run on this device, with this unit for bfloat16, is in mixed precision, or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.device.choose_device", torch.device)
        patch.setattr("engine.device.bfloat16_unit", lambda: unit)
        return [choose_policy(device, amp, "off", 1).why_precision]


def pools(case: Case, stack: contextlib.ExitStack, others: int = 0) -> tuple[Member, Member]:
    """The case's betons as two collections; in the second so many groups are of the second class."""
    pool = open_pool(case.betons, stack)
    alone = replace(pool, labels=np.where(pool.group_N < others, 1, 0))
    first = Member(name="a", pool=pool, to_train=True, numbered="x")
    return first, Member(name="b", pool=alone, to_train=True, numbered="y")


def planned(case: Case, others: int | None = None, **settings: Any) -> list[Caution]:
    """What is said of rows.  others: the groups of the second class in the second collection; None: as they are."""
    config = build(HurdlesConfig, {"collections": (case.betons,), "out": case.place / "h"} | settings)
    with contextlib.ExitStack() as stack:
        first, second = pools(case, stack, others or 0)
        return plan_rows([first, replace(first, name="c") if others is None else second], config)[1]


def rare_findings(case: Case, name: str, **changes: Any) -> Path:
    """15 patients, of whom few have any finding."""
    return write_findings(case.place / name, **({"counts": {"train": 30}, "crop": 32, "prevalence": 0.1} | changes))


def short_in_folds(case: Case) -> list[Caution]:
    with contextlib.ExitStack() as stack:
        pool = open_pool(rare_findings(case, "few"), stack)
        labels = pool.group_N, pool.labels, pool.facts.classes
        return fold_cautions(pool, deal_folds(*labels, num_folds=2, val=0.2, seed=0, split="group", where="B"))


def not_in_training(case: Case) -> list[Caution]:
    with contextlib.ExitStack() as stack:
        folders = [rare_findings(case, f"of {share}", prevalence=share) for share in (0.4, 0.0)]
        some, none = (open_pool(folder, stack, least_classes=1) for folder in folders)
        return cell_of("a", "b", some, slice(None), none, (), None, None, {}, []).cautions


def without_findings(case: Case) -> list[Caution]:
    config = build(HurdlesConfig, {"collections": (case.betons,), "out": case.place / "h", "folds": 2})
    with contextlib.ExitStack() as stack:
        pools = [open_pool(rare_findings(case, name, prevalence=share), stack, least_classes=1)
                 for name, share in (("some", 0.4), ("none", 0.0))]  # fmt: skip
        members = [Member(name=pool.folder.name, pool=pool, to_train=True, numbered="x") for pool in pools]
        return plan_rows(members, config)[1]


def by_source(case: Case) -> list[Caution]:
    folder = case.place / "sourced"
    folder.mkdir(exist_ok=True)
    sources = {"sources": ("unknown", "north", "south"), "views": ("",)}
    path = case.beton(facts=sources, source=lambda beton: np.arange(len(beton)) % 3, view=0)
    path.replace(folder / "heldout.beton")
    with contextlib.ExitStack() as stack:
        whole = Member(name="a", pool=open_pool(folder, stack), to_train=True, numbered="")
        return split_by_source(whole, folder / "sources", stack)[1]


def nothing_left(case: Case) -> list[Caution]:
    config = build(HurdlesConfig, {"collections": (case.betons,), "out": case.place / "h"})
    with contextlib.ExitStack() as stack:
        known, tested = pools(case, stack)
        row = TrainedRow(plan=Plan(name="a", members=(known,)), pool=known.pool, cautions=[], networks=())
        places = range(len(tested.pool.labels))
        films = [Overlap(sample=place, of=0, reason="pixels", similarity=None) for place in places]
        return away_cell(config, row, tested, [(known, film) for film in films], (), None, UNWATCHED).cautions


def of_few_masks(case: Case) -> list[Caution]:
    """What is said where few films have a credible mask."""
    settings = {"data": case.betons, "out": case.place / "c", "splits": ("lungs-only",)}
    with contextlib.ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        pool = open_pool(case.betons, stack)
        mask_SS = template_SS(pool.facts.stored)
        each = [(mask_SS, ""), *[(None, "lungs-missing")] * len(pool.labels)]
        patch.setattr(Masks, "each", lambda masks, beton, index_N: each[: len(index_N)])
        return pool_lungs(pool, build(CrossvalConfig, settings), UNWATCHED)[1].cautions


def looked(film: float) -> list[Caution]:
    """What is said of a model whose log-odds another film changes by so much, and another wording by 0.5."""
    return looking_cautions(
        Looking(
            run="R", num_wordings=6, replaced=[], spread=0.1, film_effect=film, word_effect=0.5, auc=UNDEFINED,
            hidden_auc=UNDEFINED,
        )
    )  # fmt: skip


GIVEN_MASKS = {"lungs": "masked", "segmenter": "given"}  # facts of a beton, or of a run's weights
Plant = Callable[[Case], list[Caution]]
PLANTS: dict[str, tuple[str, Plant]] = {
    "does-not-look": ("evaluation", lambda case: looked(film=0.001)),
    "words-over-film": ("evaluation", lambda case: looked(film=0.2)),
    "leakage-forced": ("evaluation", lambda case: case.checked(case.betons / "train.beton")),
    "validation-leakage": ("evaluation", lambda case: case.checked(case.betons / "val.beton")),
    "copies-kept": ("evaluation", lambda case: copied(case, keep_copies=True)),
    "copies-removed": ("evaluation", copied),
    "no-looks": ("evaluation", lambda case: copied(case, searched=False)),
    "frames-too-small-for-copies": ("evaluation", too_small),
    "confounded-with-source": ("evaluation", lambda case: case.checked(case.beton(source=lambda beton: beton.label_N))),
    "strongly-confounded-with-source": ("training", lambda case: confounded(case, 1)),
    "moderately-confounded-with-source": ("training", lambda case: confounded(case, 5)),
    "findings-confounded-with-source": ("catalog", of_sources),
    "findings-near-source": ("catalog", of_sources),
    "findings-of-one-source": ("catalog", of_sources),
    "synthetic-phantoms": ("training", lambda case: training_cautions(Beton(case.betons / "train.beton"))),
    "lungs-alone": ("training", lambda case: training_cautions(Beton(case.beton("train", facts=GIVEN_MASKS)))),
    "early-convergence": ("training", lambda case: early_convergence({"val_f1": 0.5, "val_accuracy": 0.995})),
    "patients-unknown": ("evaluation", unknown_patients),
    "training-patients-unknown": ("evaluation", unknown_training_patients),
    "site-keys-differ": ("evaluation", lambda case: case.checked(case.beton(facts={"site_key_id": "0" * 16}))),
    "hashed-otherwise": ("evaluation", lambda case: case.checked(case.beton(facts={"hash_algorithm": "blake2b"}))),
    "unverified-beton": ("evaluation", lambda case: case.checked(case.foreign())),
    "every-image-its-own-group": ("crossval", pool_of),
    "frames-fitted-differently": ("evaluation", lambda case: case.checked(case.beton(), fit="contain")),
    "lungs-found-otherwise": (
        "evaluation",
        lambda case: case.checked(case.beton(facts=GIVEN_MASKS), lungs="masked", segmenter="f" * 16),
    ),
    "groups-unknown": ("evaluation", lambda case: case.checked(case.foreign())),
    "one-group": ("evaluation", lambda case: group_cautions(1)),
    "few-groups": ("evaluation", lambda case: group_cautions(9)),
    "ungrouped-images": ("evaluation", unknown_patients),
    "one-class": ("evaluation", lambda case: class_cautions(("a", "b"), np.zeros(3, int))),
    "absent-classes": ("evaluation", lambda case: class_cautions(("a", "b", "c"), np.arange(2))),
    "temperature-at-bound": ("evaluation", lambda case: at(max(TEMPERATURES))),
    "one-class-in-validation": ("evaluation", lambda case: refusals(70, 0)),
    "few-validation-positives": ("evaluation", lambda case: refusals(58, 5)),
    "findings-not-measured": ("evaluation", lambda case: finding_cautions(*unmeasured())),
    "few-known-in-validation": ("evaluation", lambda case: decided(4)),
    "findings-without-rule-out": ("evaluation", lambda case: decided(116)),
    "temperatures-at-bound": ("evaluation", lambda case: decided(116)),
    "findings-not-explained": ("explanation", lambda case: unexplained(["Edema"], 30)),
    "usual-lung-region": ("explanation", lambda case: region_cautions(Masks(kind="template"))),
    "maps-of-lungs-alone": ("explanation", lambda case: region_cautions(None)),
    "images-without-mask": ("explanation", lambda case: maps()),
    "empty-maps": ("explanation", lambda case: maps()),
    "lungs-outside-crop": ("explanation", lambda case: maps()),
    "maps-of-random-weights": ("explanation", lambda case: maps(correlation=0.97)),
    "maps-not-comparable": ("explanation", lambda case: maps(correlation=None)),
    "deletion-not-faster": ("explanation", lambda case: maps()),
    "external-fitted-differently": ("crossval", lambda case: external(case, fit="contain")),
    "external-lungs-found-otherwise": ("crossval", found_otherwise),
    "external-shares-sources": ("crossval", lambda case: external(case, sources=("", "Synthetic"))),
    "external-sources-unknown": ("crossval", lambda case: external(case, sources=("", ""))),
    "external-site-key-differs": ("crossval", lambda case: external(case, site_key_id="0" * 16)),
    "external-hashed-otherwise": ("crossval", lambda case: external(case, hash_algorithm="blake2b")),
    "external-patients-unknown": ("crossval", lambda case: external(case, anonymous=True)),
    "external-copies-kept": ("crossval", lambda case: copied_outside(case, kept=True)),
    "external-copies-removed": ("crossval", lambda case: copied_outside(case, kept=False)),
    "external-mostly-copies": ("crossval", lambda case: copied_outside(case, kept=False)),
    "findings-not-in-training": ("hurdles", not_in_training),
    "few-known-to-test": ("crossval", short_in_folds),
    "few-known-to-choose": ("crossval", short_in_folds),
    "masks-lacking": ("crossval", of_few_masks),
    "usual-region-hidden": ("crossval", of_few_masks),
    "collection-without-findings": ("hurdles", without_findings),
    "collection-of-one-class": ("hurdles", lambda case: planned(case, 0)),
    "collection-of-few-groups": ("hurdles", lambda case: planned(case, 2, by="source")),
    "films-without-source": ("hurdles", by_source),
    "nothing-left-to-test": ("hurdles", nothing_left),
    "left-out-like-another": ("hurdles", lambda case: planned(case, leave_one_out=True)),
    "crossval-of-other-conversion": ("report", of_other_data),
    "hurdles-of-other-conversion": ("report", of_other_hurdles),
    "findings-not-learnt": ("training", lambda case: few_learnt(case, absent=1)),
    "few-known-in-training": ("training", few_learnt),
    "monitored-by-loss": ("training", lambda case: monitored(case)),
    "nothing-to-recompute": ("training", lambda case: nothing_to_recompute("recomputed", nn.Identity(), "vit_b_16")),
    "training-restarted": ("training", restarted),
    "not-captured": ("training", lambda case: []),  # `captured`, which needs a fixture
    "triton-unavailable": ("training", without_triton),
    "machine-busy": ("profile", lambda case: machine_cautions(1.0, 4.0, 2)),
    "machine-unsteady": ("profile", lambda case: machine_cautions(2.0, 0.1, 2)),
    "audit-off": ("prediction", predicted),
    "masks-given-in-training": ("prediction", lambda case: predicted(case, **GIVEN_MASKS)),
    "no-leakage-record": ("prediction", lambda case: predicted(case, gone=True)),
    "run-hashed-otherwise": ("prediction", lambda case: predicted(case, older=True)),
    "files-of-the-run": ("prediction", predicted),
    "folder-without-pictures": ("prediction", sources),
    "files-named-twice": ("prediction", sources),
    "file-unreadable": ("report", lambda case: left_out(case, lambda run: (run / "probes.json").write_text("{"))),
    "file-too-large": ("report", lambda case: left_out(case, large)),
    "result-of-other-weights": ("report", lambda case: left_out(case, lambda run: None)),
    "valid-for-its-data-only": ("card", on_card),
    "shortcuts-not-excluded": ("card", on_card),
    "names-in-latin": ("catalog", in_latin_1),
    "labels-joined": ("catalog", in_latin_1),
    "folders-are-splits": ("catalog", in_split_folders),
    "folders-around-all": ("catalog", in_folders),
    "folders-without-films": ("catalog", in_folders),
    "masks-left-out": ("catalog", in_folders),
    "looks-like-preset": ("catalog", in_folders),
    "own-splits-not-used": ("catalog", in_crossed_splits),
    "columns-taken": ("catalog", by_spelling),
    "findings-taken": ("catalog", of_table),
    "findings-lacking": ("catalog", of_table),
    "uncertain-cells": ("catalog", of_table),
    "blank-cells": ("catalog", of_table),
    "no-finding-cells": ("catalog", of_table),
    "studies-taken": ("catalog", of_table),
    "rows-merged": ("catalog", by_spelling),
    "sources-joined": ("catalog", by_spelling),
    "views-not-understood": ("catalog", by_spelling),
    "one-patient": ("catalog", lambda case: known_patients(["0"] * 3)[1]),
    "demographics-kept": ("catalog", lambda case: [demographics_caution([(1, 0, "", 0)])]),
    "no-demographics": ("catalog", lambda case: [demographics_caution([(0, 0, "", 0)])]),
    "labels-translated": ("catalog", as_a_test_set),
    "labels-left-out": ("catalog", as_a_test_set),
    "copies-contradict": ("catalog", of_copies),
    "findings-undefined": ("catalog", of_copies),
    "masks-of-no-film": ("catalog", lambda case: of_lungs("classes")),
    "lungs-lost-by-class": ("catalog", lambda case: of_lungs("classes")),
    "lungs-lost-by-finding": ("catalog", lambda case: of_lungs("findings")),
    "splits-set-aside": ("catalog", as_a_test_set),
    "healthy-not-positive": ("catalog", without_a_positive_class),
    "few-patients-of-class": ("probes", lambda case: unprobed(12, 9)),
    "few-patients-of-finding": ("probes", lambda case: unprobed(12, 9)),
    "few-classes-to-probe": ("probes", lambda case: unprobed(12, 9)),
    "few-sources-to-probe": ("probes", lambda case: unprobed(12, 9)),
    "no-headers": ("probes", lambda case: unprobed(12, 10)),
    "no-predicted-views": ("probes", lambda case: unprobed(12, 10)),
    "amp-as-set": ("precision", lambda case: precision_on("cpu", "off")),
    "amp-by-weights": (
        "precision",
        lambda case: [as_stored(choose_policy("cpu", "off", "off", 0), torch.bfloat16).why_precision],
    ),
    "amp-always": ("precision", lambda case: precision_on("cuda")),
    "amp-never": ("precision", lambda case: precision_on("cpu")),
    "amp-by-unit": ("precision", lambda case: precision_on("cpu", unit="AMX")),
    "amp-by-race": ("precision", lambda case: precision_on("cpu", unit="AVX-512 BF16")),
    "compile-as-set": ("compilation", lambda case: compiled_on("cpu", "off")),
    "compile-by-steps": ("compilation", lambda case: compiled_on("cuda", "auto")),
    "compile-never": ("compilation", lambda case: compiled_on("cpu", "auto")),
    "compile-not-yet": ("compilation", lambda case: compiled_on("mps", "auto")),
    "no-lung-masks": ("probes", lambda case: unprobed(12, 10)),
    "frames-of-lungs-alone": ("probes", lambda case: unprobed(12, 10, lungs_alone=True)),
    "lungs-not-found": ("probes", lambda case: unprobed(12, 10, masks_NSS=np.zeros((22, 92, 92), bool))),
    "no-groups-to-probe": ("probes", lambda case: [*probe_run(case.place, case.foreign()).skipped.values()]),
}


def example(code: str) -> Caution:
    """A caution of this code, each parameter made up."""
    values: dict[Any, Any] = {
        int: 3, float: 0.75, str: "what was found", list[str]: ["covid", "tb"], dict[str, float]: {"covid": 0.5},
    }  # fmt: skip
    return Caution(code, {name: values[kind] for name, kind in CODES[code].parameters.items()})


def examples(origin: str) -> list[Caution]:
    """A caution of each code that belongs there."""
    return [example(code) for code, (of, _) in PLANTS.items() if of == origin]


def test_every_code_has_a_plant_and_a_place_that_is_looked_at() -> None:
    assert PLANTS.keys() == CODES.keys()
    # a profile's are looked for in test_profile, a card's by its plant, the others' in tests of their own
    assert {origin for origin, _ in PLANTS.values()} == {
        *ORIGINS,
        "profile",
        "card",
        "probes",
        "compilation",
        "precision",
        "catalog",
    }


@pytest.mark.parametrize("code", PLANTS)
def test_each_condition_makes_its_caution(case: Case, code: str, request: pytest.FixtureRequest) -> None:
    made = captured(request.getfixturevalue("recorder")) if code == "not-captured" else PLANTS[code][1](case)
    assert code in [one.code for one in made]


# ---- the places: where each origin shows its cautions


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What one origin shows, everywhere.  None: it has no such place."""

    terminal: str
    cautions: list[dict[str, Any]] | None = None
    file: str = ""
    page: str | None = None


def lines(parts: Parts) -> str:
    return "\n".join(part.text for part in parts if isinstance(part, Line))


def page_of(run: Path) -> str:
    return " ".join(Reader(write_report(run).page.read_text()).text.split())


def training(case: Case, patch: pytest.MonkeyPatch) -> Shown:
    file = (case.run / "summary.json").read_text()
    summary = read_record(Summary, case.run / "summary.json")
    return Shown(
        terminal=lines(training_parts(summary, case.run)), cautions=json.loads(file)["cautions"], file=file,
        page=page_of(case.run),
    )  # fmt: skip


def rival_of(case: Case) -> Path:
    run = case.place / "second-run"
    if not run.exists():
        shutil.copytree(case.run, run)
    return run


def evaluation(case: Case, patch: pytest.MonkeyPatch) -> Shown:
    patch.setattr("engine.evaluate.evaluate.set_cautions", lambda *given: examples("evaluation"))
    (result,) = evaluate(EvaluateConfig(run=case.run, betons=(case.betons / "heldout.beton",), **SEEDS))
    file = (results_of(case.run / "evaluation") / "metrics.json").read_text()
    return Shown(
        terminal=lines(evaluation_parts(result)), cautions=json.loads(file)["cautions"], file=file,
        page=page_of(case.run),
    )  # fmt: skip


def explained(case: Case, patch: pytest.MonkeyPatch) -> Shown:
    patch.setattr("engine.explain.explain.set_cautions", lambda beton: examples("explanation"))
    result = explain(
        ExplainConfig(run=case.run, beton=case.betons / "heldout.beton", device="cpu", samples=2, measured=4)
    )
    file = (results_of(case.run / "explanation") / "explanation.json").read_text()
    return Shown(
        terminal=lines(explanation_parts(result)), cautions=json.loads(file)["cautions"], file=file,
        page=page_of(case.run),
    )  # fmt: skip


def validated(case: Case, patch: pytest.MonkeyPatch) -> Shown:
    patch.setattr("engine.crossval.folds.Pool.cautions", lambda pool: examples("crossval"))
    out = case.place / "folds"
    settings = {"data": case.betons, "out": out, "folds": 2, "splits": ("group",), "epochs": 1, "batch_size": 32}
    content = crossval(build(CrossvalConfig, settings | SEEDS))
    file = (out / "crossval.json").read_text()
    run = make_run(case.place / "validated", crossval=json.loads(file))
    return Shown(
        terminal=lines(crossval_parts(content, out)), cautions=json.loads(file)["cautions"], file=file,
        page=page_of(run),
    )  # fmt: skip


def raced(case: Case, patch: pytest.MonkeyPatch) -> Shown:
    result = example_hurdles(cautions=examples("hurdles"))
    file = encode_record(result).decode()
    run = make_run(case.place / "raced", hurdles=result)
    return Shown(
        terminal=lines(hurdles_parts(result, case.place)), cautions=json.loads(file)["cautions"], file=file,
        page=page_of(run),
    )  # fmt: skip


def prediction(case: Case, patch: pytest.MonkeyPatch) -> Shown:
    patch.setattr("engine.predict.predict.list_sources", lambda files: (list_sources(files)[0], examples("prediction")))
    film = next(case.source.rglob("images/**/*.png"))
    settings = {"run": case.run, "files": (film,), "out": case.place / "p.csv", "workers": 1, "device": "cpu"}
    return Shown(terminal=lines(prediction_parts(predict_files(build(PredictConfig, settings)))))


def reported(case: Case, patch: pytest.MonkeyPatch) -> Shown:
    of_report = examples("report")
    patch.setattr(
        "engine.report.results.RunFolderReader.history", lambda reader: reader.left_out.extend(of_report) or []
    )
    done = write_report(make_run(case.place / "reported"))
    page = " ".join(Reader(done.page.read_text()).text.split())
    return Shown(terminal=lines(report_parts(done)), page=page)


ORIGINS = {
    "training": training, "evaluation": evaluation, "explanation": explained, "crossval": validated,
    "hurdles": raced, "prediction": prediction, "report": reported,
}  # fmt: skip


@pytest.fixture(scope="module")
def places(case: Case) -> dict[str, Shown]:
    """What each origin shows when every code that belongs there is planted in it."""
    found = {}
    for origin, show in ORIGINS.items():
        with pytest.MonkeyPatch.context() as patch:
            found[origin] = show(case, patch)
    return found


ALL = [(code, origin) for code, (origin, _) in PLANTS.items() if origin in ORIGINS]


@pytest.mark.parametrize(("code", "origin"), ALL)
def test_each_caution_is_text_in_the_terminal_and_on_the_page_and_a_code_in_the_file(
    places: dict[str, Shown], code: str, origin: str
) -> None:
    planted, shown = example(code), places[origin]
    assert (f": {planted.text}." in shown.terminal) or TERMINAL not in places_of(code)
    if JSON in places_of(code):
        assert shown.cautions is not None and msgspec.to_builtins(planted) in shown.cautions
        assert json.dumps(planted.finding)[1:-1] not in shown.file and "warnings" not in json.loads(shown.file)
    assert (JSON in places_of(code)) == (shown.cautions is not None)
    assert (PAGE in places_of(code)) == (shown.page is not None)
    if shown.page is not None:
        assert f"Caution: {planted.text}." in shown.page


def test_why_a_probe_was_not_run_is_text_in_the_terminal_and_on_both_pages_and_a_code_in_the_file(case: Case) -> None:
    skipped = {f"probe {place}": one for place, one in enumerate(examples("probes"))}
    skipped["class b"] = skipped["probe 0"]
    found = make_result(collection=CollectionFinding(probes=[], cautions=[], skipped=skipped))
    run = make_run(case.place / "unprobed", probes=probes(skipped=skipped))
    assert json.loads((run / "probes.json").read_text())["skipped"] == msgspec.to_builtins(skipped)
    terminal, pages = lines(audit_parts(found)), [" ".join(Reader(page_html(found)).text.split()), page_of(run)]
    for name, reason in skipped.items():
        assert all(f" {name} {reason.finding} " in page for page in pages)
        more = " and 1 more" if name == "probe 0" else ""
        assert (f"Not probed: {name}{more}: {reason.finding}" in terminal.split("\n")) == (name != "class b")


@pytest.mark.parametrize("why", [one.code for one in examples("precision")])
def test_why_a_run_is_in_this_precision_is_text_in_the_terminal(case: Case, why: str) -> None:
    assert lines(training_parts(summary(amp=example(why)), case.run)).split("\n").count(example(why).finding) == 1


@pytest.mark.parametrize("why", [one.code for one in examples("compilation")])
def test_why_a_run_was_compiled_is_text_in_the_terminal_unless_it_ran_on_a_cpu(case: Case, why: str) -> None:
    for device_type, shown in (("cpu", 0), ("cuda", 1)):
        # whatever the device is called
        found = summary(device="cpu of a kind, by NVIDIA", device_type=device_type, compile=example(why))
        assert lines(training_parts(found, case.run)).split("\n").count(example(why).finding) == shown


def test_a_rivals_caution_is_not_taken_for_this_runs(case: Case, places: dict[str, Shown]) -> None:
    def one_leaks(run: Path, *given: Any, **options: Any) -> list[Caution]:
        return [example("leakage-forced")] if run == rival_of(case) else []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.evaluate.evaluate.check_beton", one_leaks)
        settings: dict[str, Any] = SEEDS | {"against": rival_of(case), "out": case.place / "against"}
        (result,) = evaluate(EvaluateConfig(run=case.run, betons=(case.betons / "heldout.beton",), **settings))
    content = json.loads((results_of(case.place / "against") / "metrics.json").read_text())
    leak = msgspec.to_builtins(example("leakage-forced"))
    assert leak not in content["cautions"] and leak in content["difference"]["cautions"]
    assert f", the run second-run: {example('leakage-forced').text}." in lines(evaluation_parts(result))
    run = make_run(case.place / "beside", metrics=metrics(difference=content["difference"]))
    verdict = judge(read_results(run))
    assert verdict.state == "held" and verdict.how_good.startswith("On 400 radiographs")
    assert f"Caution, second-run: {example('leakage-forced').text}." in page_of(run)
    own = judge(read_results(make_run(case.place / "own", metrics=metrics(cautions=[leak]))))
    assert own.state == "flagged" and own.how_good.startswith("This score is leaked")


def test_the_external_betons_cautions_are_no_red_flags_of_the_run(case: Case) -> None:
    found = [example(code) for code in CODES if code.startswith("external-")]
    another = [one for one in found if one.code not in NOT_ELSEWHERE]
    assert len(found) == 10 and len(another) == 5
    for name, cautions, state in (("beyond", another, "held"), ("no-other", found, "unchecked")):
        found_away = example_crossval(cautions=msgspec.to_builtins(cautions))
        run = make_run(case.place / name, crossval=found_away, hurdles=None)
        assert judge(read_results(run)).state == state


# ---- the table


@pytest.mark.parametrize("code", CODES)
def test_a_caution_is_the_same_after_json(code: str) -> None:
    one = example(code)
    assert msgspec.json.decode(msgspec.json.encode([one]), type=list[Caution]) == [one]
    assert msgspec.convert(json.loads(json.dumps(msgspec.to_builtins(one))), Caution) == one
    assert set(msgspec.to_builtins(one)) == {"code", "parameters"}


@pytest.mark.parametrize("code", CODES)
def test_a_code_is_whole(code: str) -> None:
    entry, one = CODES[code], example(code)
    fields = {name for _, name, _, _ in string.Formatter().parse(entry.finding) if name}
    assert fields == entry.parameters.keys()
    assert bool(entry.effect) == (entry.gravity < Gravity.NOTE)
    assert not one.text.endswith(".") and "{" not in one.text
    assert re.fullmatch("[a-z]+(-[a-z]+)*", code)


@pytest.mark.parametrize(
    "code",
    [code for code, entry in CODES.items() if {"findings", "cells"} & entry.parameters.keys()]
    + ["studies-taken", "copies-contradict"],
)
def test_a_caution_about_findings_reads_well_with_one_of_all_that_it_counts(code: str) -> None:
    kinds: dict[type, Any] = {int: 1, float: 1.0, str: "train", list[str]: ["Edema"]}
    few = {name: 5 if name == "least" else kinds[kind] for name, kind in CODES[code].parameters.items()}
    assert not re.search(
        r"\b1 (?!of)\w+s\b|Edema (are|do|have)\b|[Tt]hese findings|\bthem\b", caution(code, **few).text
    )


@pytest.mark.parametrize(
    ("code", "parameters", "message"),
    [
        ("unheard-of", {}, "caution 'unheard-of'"),
        ("few-groups", {}, r"parameters \[\], expected \['groups'\]"),
        ("few-groups", {"groups": 3, "images": 4}, "expected"),
        ("few-groups", {"groups": "three"}, "groups 'three', expected int"),
        ("few-groups", {"groups": True}, "groups True, expected int"),
        ("few-groups", {"groups": 3.5}, "groups 3.5, expected int"),
        ("absent-classes", {"classes": "tb"}, "classes 'tb', expected list"),
    ],
)
def test_a_caution_that_does_not_fit_the_table_can_neither_be_made_nor_read(
    code: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        caution(code, **parameters)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps({"code": code, "parameters": parameters}), type=Caution)


def test_a_name_that_holds_braces_stays_as_it_is() -> None:
    assert "of {images} ({0}), tb:" in caution("absent-classes", classes=["{images} ({0})", "tb"]).text


def test_equal_cautions_are_kept_once_in_order() -> None:
    assert each_once([caution("one-class"), caution("one-group"), caution("one-class")]) == [
        caution("one-class"),
        caution("one-group"),
    ]


def product_files() -> Iterator[tuple[Path, str]]:
    for folder in ("engine", "loaders", "kernels", "cli.py"):
        for path in sorted((ROOT / folder).rglob("*")) if folder != "cli.py" else [ROOT / folder]:
            if path.suffix in (".py", ".jinja"):
                yield path, path.read_text()


def test_the_texts_stand_in_one_module_alone_and_every_code_is_made_somewhere() -> None:
    pieces = [piece for entry in CODES.values() for piece in re.split(r"\{.*?\}", entry.finding) if len(piece) >= 24]
    pieces += [entry.effect for entry in CODES.values() if len(entry.effect) >= 24]
    others = {path: text for path, text in product_files() if path != ROOT / "loaders" / "cautions.py"}
    assert len(pieces) > 40 and len(others) > 100
    for path, text in others.items():
        joined = re.sub(r'"\n\s*f?"', "", text)  # of literals that stand side by side
        assert not [piece for piece in pieces if piece in joined], path
    for code in CODES:
        assert any(f'"{code}"' in text for text in others.values()), code
