"""Planted defects: what share of them the audit finds, by kind and severity, and what else each kind triggers.

Clean films are phantoms that the classifier of kinds has not learnt from, and the files of `radiographs/`, judged by
weights that never saw the patient.  Patients are halved: one half's clean films fix the thresholds, the other half's
are damaged and reported.
"""

# H rows, W columns

import csv
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.audit.defects import ONE_GRADE, PLANTED, SEVERITIES, side_marker
from benchmarks.audit.kind_recipe import fit_kind_folds, rescored
from benchmarks.audit.outcome import Outcome, above, auprc, columns, count_text, counted, cross_effects, threshold_at
from benchmarks.datasets import data_folder
from loaders.audit.near_duplicates import find_pairs
from loaders.config import PHANTOM_LABELS, AuditLimits, stored_side
from loaders.errors import RadiographError
from loaders.images.frame import grey_window
from loaders.images.kind import KindWeights, shipped_weights
from loaders.images.quality import DETECTORS, Measurement, limit_of, measure, own_defects
from loaders.images.radiograph import decode_radiograph
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom

COPY = "near-duplicate"
CONTROL = "side marker"  # no defect: no detector should flag it
SHORT_SIDE = 512  # what is larger is shrunk before it is damaged: scores come from 320 pixels anyway
PHANTOM_SIDE, PHANTOM_SEED = 448, 1  # the classifier has learnt from seed 0
LIMITS = AuditLimits()
STORED = stored_side(224)


@dataclass(frozen=True, slots=True)
class Film:
    """A clean film, before it is damaged.  colour: of its file.  weights: trained without the patient."""

    grey_HW: np.ndarray
    colour: float
    patient: str
    weights: KindWeights


@dataclass(frozen=True, slots=True)
class Grade:
    """Scores of the films damaged by one defect at one severity, and the detectors that flag each before and after."""

    scores: list[float]
    flagged: list[tuple[list[str], list[str]]]


def phantom_films(number: int) -> list[Film]:
    """One a patient, labels, arms and marks in turn."""
    films = []
    for patient in range(1, number + 1):
        planned = PlannedPhantom(
            seed=PHANTOM_SEED, patient=patient, label=PHANTOM_LABELS[patient % 3], size=PHANTOM_SIDE,
            arms_up=patient % 2 == 0,
        )  # fmt: skip
        films.append(Film(draw_phantom(planned).image_HW, 0.0, f"phantom-{patient}", shipped_weights()))
    return films


def real_films(data: Path, every: int) -> list[Film]:
    """Every `every`th readable file of `radiographs/`, at most SHORT_SIDE pixels wide or high."""
    folds = fit_kind_folds(data)
    with (data / "radiographs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::every]
    films = []
    for row in rows:
        try:
            radiograph = decode_radiograph(data / row["path"], max_pixels=64_000_000, with_colour=True)
        except RadiographError:
            continue
        grey_HW, scale = radiograph.grey_HW, SHORT_SIDE / min(radiograph.grey_HW.shape)
        if scale < 1:
            sides = tuple(round(side * scale) for side in grey_HW.shape[::-1])
            grey_HW = np.asarray(cv2.resize(grey_HW, sides, interpolation=cv2.INTER_AREA))
        films.append(Film(grey_HW, radiograph.colour, row["patient"], folds.of(row["patient"])))
    return films


def halves(films: Sequence[Film], seed: int) -> tuple[list[Film], list[Film]]:
    """Films whose patients fix the thresholds, and those whose patients are reported."""
    patients = sorted({film.patient for film in films})
    chosen = np.random.default_rng(seed).permutation(len(patients))[: len(patients) // 2]
    fixing = {patients[place] for place in chosen}
    return [film for film in films if film.patient in fixing], [film for film in films if film.patient not in fixing]


def measured(film: Film, picture: np.ndarray, folder: Path) -> Measurement:
    """The audit's measurement of a picture made of a film; coloured ones go through a file, as the audit's do."""
    colour = film.colour
    if picture.ndim == 3:
        cv2.imwrite(str(folder / "coloured.png"), picture[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
        radiograph = decode_radiograph(folder / "coloured.png", max_pixels=64_000_000, with_colour=True)
        picture, colour = radiograph.grey_HW, radiograph.colour
    low, high, _ = grey_window(picture)
    found = measure(picture, (low, high), colour, STORED)
    if film.weights is shipped_weights():
        return found
    return rescored(found, picture, (low, high), film.weights)


def likest(measurements: Sequence[Measurement], patients: Sequence[str]) -> list[float]:
    """For each file its highest similarity with a file of another patient; 0 where nothing was compared."""
    best = [0.0] * len(measurements)
    pairs = find_pairs(
        [one.keypoints for one in measurements], [one.compared_SS for one in measurements], lambda done, total: None
    )
    for pair in pairs:
        if patients[pair.first] != patients[pair.second]:
            for index in (pair.first, pair.second):
                best[index] = max(best[index], pair.similarity)
    return best


def joined(originals: Sequence[Measurement], copies: Sequence[Measurement]) -> list[float]:
    """The similarity of each copy with its original, all of them compared with one another; 0 if they were not."""
    everything = [*originals, *copies]
    pairs = find_pairs(
        [one.keypoints for one in everything], [one.compared_SS for one in everything], lambda done, total: None
    )
    found = {(pair.first, pair.second): pair.similarity for pair in pairs}
    return [found.get((index, index + len(originals)), 0.0) for index in range(len(copies))]


def spoil(
    films: Sequence[Film], clean: Sequence[Measurement], folder: Path, progress: Callable[[str], None]
) -> dict[str, dict[int, Grade]]:
    """Defect → severity → what the audit found in these damaged films; of ONE_GRADE and the control only severity 1."""
    found: dict[str, dict[int, Grade]] = defaultdict(dict)
    before = [own_defects(one, LIMITS) for one in clean]
    for number, defect in enumerate([*PLANTED, CONTROL]):
        progress(defect)
        for severity in SEVERITIES[: 1 if defect in (*ONE_GRADE, CONTROL) else None]:
            after = []
            for index, film in enumerate(films):
                rng = np.random.default_rng([number, index])
                if defect == CONTROL:
                    picture = side_marker(film.grey_HW, rng)
                else:
                    picture = PLANTED[defect](film.grey_HW, severity, rng)
                after.append(measured(film, picture, folder))
            if defect == COPY:
                scores = joined(clean, after)
            else:
                name = "text-or-mark" if defect == CONTROL else defect
                scores = [one.scores[name] for one in after]
            now = [own_defects(one, LIMITS) for one in after]
            found[defect][severity] = Grade(scores, list(zip(before, now, strict=True)))
    return found


def report(
    fixing: dict[str, list[float]], clean: dict[str, list[float]], planted: dict[str, dict[int, Grade]]
) -> dict[str, Any]:
    """Defect → thresholds, false positives, recall by severity and AUPRC.

    fixing, clean: detector → scores of the clean films of either half.
    """
    found_of: dict[str, Any] = {}
    for defect, grades in planted.items():
        if defect == CONTROL:
            continue
        limits = {"fixed": threshold_at(fixing[defect]), "shipped": limit_of(LIMITS, defect)}
        found_of[defect] = {"films that fixed it": len(fixing[defect])} | {
            name: {
                "threshold": round(limit, 4),
                "false positives": counted(above(clean[defect], limit), len(clean[defect])),
                "recall": {
                    severity: counted(above(grade.scores, limit), len(grade.scores))
                    for severity, grade in grades.items()
                },
            }
            for name, limit in limits.items()
        }
        found_of[defect]["auprc"] = {
            severity: round(auprc(grade.scores, clean[defect]), 4) for severity, grade in grades.items()
        }
    return found_of


def scores_of(films: Sequence[Film], measurements: Sequence[Measurement]) -> dict[str, list[float]]:
    """Detector → scores of clean films."""
    found = {name: [one.scores[name] for one in measurements] for name in DETECTORS}
    return found | {COPY: likest(measurements, [film.patient for film in films])}


def figures_of(
    films: list[Film], number: int, seed: int, progress: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, dict[str, tuple[int, int]]]]:
    """Figures and cross effects of phantoms or of real films.  number: films to spoil, each of another patient."""
    fixing, reported = halves(films, seed)
    once = list({film.patient: film for film in reversed(reported)}.values())
    spoilt = [once[place] for place in sorted(np.random.default_rng(seed).permutation(len(once))[:number])]
    with tempfile.TemporaryDirectory() as folder:
        progress("clean films")
        fixing_scores, clean_scores = (
            scores_of(half, [measured(film, film.grey_HW, Path(folder)) for film in half])
            for half in (fixing, reported)
        )
        clean = [measured(film, film.grey_HW, Path(folder)) for film in spoilt]
        planted = spoil(spoilt, clean, Path(folder), progress)
    flagged = {
        defect: [pair for grade in grades.values() for pair in grade.flagged] for defect, grades in planted.items()
    }
    record = {
        "clean films that fix thresholds": len(fixing),
        "clean films reported": len(reported),
        "films damaged": len(spoilt),
        "defects": report(fixing_scores, clean_scores, planted),
    }
    return record, cross_effects(flagged, DETECTORS)


def report_step(progress: Callable[[str], None], films: str, step: str) -> None:
    """Progress within phantoms or real films."""
    progress(f"{films}: {step}")


def table(record: dict[str, Any]) -> list[str]:
    """For each defect two lines: at the threshold of 1 % false positives, and at the shipped limit."""
    rows = [
        ["planted", "threshold", "false positives", *(f"recall {severity}" for severity in SEVERITIES), "AUPRC 1 to 5"]
    ]
    for defect, found in record["defects"].items():
        areas = " ".join(f"{area:.2f}" for area in found["auprc"].values())
        for name, head, tail in (("fixed", defect, areas), ("shipped", "  at the shipped limit", "")):
            recall = [f"{count['hits']}/{count['trials']}" for count in found[name]["recall"].values()]
            recall += [""] * (len(SEVERITIES) - len(recall))
            limit = f"{found[name]['threshold']:g}"
            rows.append([head, limit, count_text(found[name]["false positives"]), *recall, tail])
    return columns(rows)


def matrix_table(effects: dict[str, dict[str, tuple[int, int]]]) -> list[str]:
    """Per cent of films that a detector flags only after they were damaged; a dot for none."""
    rows = [["planted \\ flagged, %", *DETECTORS]]
    for defect, by_detector in effects.items():
        shares = [round(100 * hits / films) if films else 0 for hits, films in by_detector.values()]
        some = [hits > 0 for hits, _ in by_detector.values()]
        cells = [(str(share) if share else "<1") if any_ else "·" for share, any_ in zip(shares, some, strict=True)]
        rows.append([defect, *cells])
    return columns(rows)


def planted(
    *, phantoms: int = 120, spoilt: int = 60, every: int = 1, seed: int = 0,
    progress: Callable[[str], None] = lambda step: None,
) -> Outcome:  # fmt: skip
    """Spoil half as many phantoms as real films, and report both; without real films, phantoms only."""
    collections = {"phantoms": (phantom_films(phantoms), spoilt // 2)}
    if data := data_folder():
        progress("classifiers of kinds, one a fold")
        collections["real films"] = real_films(data, every), spoilt
    lines: list[str] = []
    record: dict[str, Any] = {}
    for name, (films, number) in collections.items():
        found, effects = figures_of(films, number, seed, partial(report_step, progress, name))
        listed = {
            defect: {detector: list(pair) for detector, pair in row.items() if pair[0]}
            for defect, row in effects.items()
        }
        record[name] = found | {"cross effects": listed}
        counts = (
            f"{found['clean films that fix thresholds']} clean films fix the thresholds, "
            f"{found['clean films reported']} of other patients are reported, {found['films damaged']} of them damaged"
        )
        lines += [
            f"{name}: {counts}",
            *table(found),
            "",
            f"{name}: cross effects at the shipped limits, all severities",
        ]
        lines += [*matrix_table(effects), ""]
    return Outcome(lines=tuple(lines), record=record)
