"""The test of a segmenter: how well its masks agree with given ones, beside two guesses that see no film."""

# N films, T side of the nets' input, M kinds of masks, G groups

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from engine.config import SegmentTestConfig
from engine.segmentation.films import Film, groups_of, read_films
from engine.segmentation.sam2 import open_sam2
from engine.statistics.estimates import Estimate, estimate
from engine.statistics.names import interval_text, short_name, size_text, value_text
from loaders.atomic_file import locked, publish_bytes
from loaders.cautions import Caution
from loaders.errors import InputError
from loaders.images.files import REFUSALS
from loaders.images.frame import template_SS
from loaders.images.lungs import SIDE, LungFinder, Lungs, Segmenter, dice, is_sam2, load_segmenter, shipped_segmenter
from loaders.lungs.sheet import FOUND, GIVEN, Tile, contact_sheet
from loaders.output import Line, Parts, PhaseProgress, Sheet, caution_lines, counted, path_line
from loaders.records import Count, Record, write_record
from loaders.sources.entry import csv_bytes, table_path
from loaders.sources.patient_hash import load_site_key, patient_hash, site_key_id
from loaders.statistics import Progress, resampled_means

Kind = Literal["segmenter", "mean mask", "usual region", "shipped net"]
KINDS: tuple[Kind, ...] = ("segmenter", "mean mask", "usual region")
BESIDE: Kind = "shipped net"  # where SAM 2 is tested
METRICS: tuple[Literal["dice", "iou"], ...] = ("dice", "iou")
RESULT, TABLE, PICTURE = "segmentation.json", "segmentation.csv", "worst.png"
COLUMNS = (
    "path", "group", "dice", "iou", "dice_mean_mask", "dice_usual_region", "area", "agreement", "balance", "cut",
    "reason",
)  # fmt: skip
WORST = 24  # films in the picture


class SegmentationResult(Record, frozen=True, kw_only=True):
    """How well a segmenter's masks agree with given ones, as segmentation.json holds it.

    segmenter: its identity.  num_seen: films left out, since every net saw them or their patient.  worst: least Dice.
    scores: mean Dice and intersection over union, each by kind of mask, with intervals over groups.  doubtful: code of
    the reason → films whose mask is not credible; they count in the scores.
    """

    made_by = "segment-test"
    version: int = 1
    segmenter: str
    num_films: Count
    num_groups: Count
    num_seen: Count
    worst: float
    scores: dict[Literal["dice", "iou"], dict[Kind, Estimate]]
    doubtful: dict[str, Count]


@dataclass(frozen=True, kw_only=True, slots=True)
class FilmScore:
    """One film's masks against its given one.  dice_M: by kind of mask, NaN for a mean of no other patient's."""

    film: Film
    group: int
    lungs: Lungs
    dice_M: np.ndarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Tested:
    """The test of a segmenter, its films from the worst on."""

    out: Path
    result: SegmentationResult
    films: Sequence[FilmScore]
    cautions: Sequence[Caution] = ()


def segment_test(config: SegmentTestConfig, progress: PhaseProgress = lambda phase, done, total: None) -> Tested:
    """Segment the films of tables, by nets not known to have seen their patients, and compare with given masks.

    Writes segmentation.json, segmentation.csv, which has file names and is its owner's, and a picture of the worst.
    Errors: ConfigError; InputError for films or masks that cannot be used, or of which every net saw each;
    IntegrityError for a damaged segmenter; LockedError; StorageError.
    """
    is_large = is_sam2(config.segmenter)
    segmenter = open_sam2(config.segmenter) if is_large else load_segmenter(config.segmenter)
    films, cautions = read_films(config.manifest, progress)
    with locked(config.out):
        beside, key = shipped_segmenter() if is_large else None, load_site_key(config.site_key)
        scored, seen = score_films(segmenter, films, key, partial(progress, "segment"), beside)
        if not scored:
            raise InputError(
                f"{config.manifest[0]}: every net of the segmenter saw all {counted(len(films), 'film')}, or their "
                "patients, expected films of other patients; name their table"
            )
        tested = write_test(config.out, segmenter, scored, seen, config.resamples, config.seed)
    return replace(tested, cautions=cautions)


def score_films(
    segmenter: LungFinder, films: Sequence[Film], key: bytes, progress: Progress, beside: Segmenter | None = None
) -> tuple[list[FilmScore], int]:
    """Each film's scores, the worst first, and how many films were left out since every net saw their group.

    The mean mask is that of all other groups' films: where most of them have lung.
    beside: a second segmenter, which is scored as BESIDE.
    """
    group_N = groups_of(films)
    known = segmenter.record.site_key_id == site_key_id(key)
    patients = [patient_hash(key, film.patient).tobytes() if known and film.patient else b"" for film in films]
    nets_N2 = segmenter.nets_for([film.pixels for film in films], patients, group_N)
    lung_GTT = np.zeros((int(group_N.max()) + 1, SIDE, SIDE), np.int32)
    for group, film in zip(group_N, films, strict=True):
        lung_GTT[group] += film.mask_TT > 127
    lung_TT, size_G, usual_TT = lung_GTT.sum(0), np.bincount(group_N), template_SS(SIDE)
    found = segmenter.find_all(lambda place: films[place].frame_TT, nets_N2)
    scored = []
    for done, (film, group, lungs) in enumerate(zip(films, group_N.tolist(), found, strict=True), 1):
        progress(done, len(films))
        if lungs is None:
            continue
        given_TT, others = film.mask_TT > 127, len(films) - int(size_G[group])
        mean_TT = 2 * (lung_TT - lung_GTT[group]) > others
        masks = [lungs.mask_SS, mean_TT, usual_TT]
        if beside is not None:
            own = int(nets_N2[done - 1, 1])
            masks.append(beside.find(film.frame_TT, (own, own)).mask_SS)
        dice_M = np.array([dice(given_TT, mask_TT) for mask_TT in masks])
        dice_M[1] = dice_M[1] if others else np.nan
        scored.append(FilmScore(film=film, group=group, lungs=lungs, dice_M=dice_M))
    scored.sort(key=lambda score: float(score.dice_M[0]))
    return scored, len(films) - len(scored)


def write_test(
    out: Path, segmenter: LungFinder, scored: Sequence[FilmScore], seen: int, resamples: int, seed: int
) -> Tested:
    """Estimate the means, and publish the result, the table and the picture of the worst films."""
    dice_NM, group_N = np.stack([score.dice_M for score in scored]), np.array([score.group for score in scored])
    num_groups = len(np.unique(group_N))
    value_NM = {"dice": dice_NM, "iou": dice_NM / (2 - dice_NM)}
    scores = {
        metric: {
            kind: estimate(metric, resampled_means(of_NM[:, place], group_N, resamples, seed), num_groups)
            for place, kind in enumerate((*KINDS, BESIDE)[: dice_NM.shape[1]])
        }
        for metric, of_NM in value_NM.items()
    }
    doubtful = Counter(score.lungs.problem for score in scored if score.lungs.problem)
    result = SegmentationResult(
        segmenter=segmenter.record.identity, num_films=len(scored), num_groups=num_groups, num_seen=seen,
        worst=float(dice_NM[0, 0]), scores=scores, doubtful=dict(sorted(doubtful.items())),  # type: ignore[arg-type]
    )  # fmt: skip
    tested = Tested(out=out, result=result, films=scored)
    publish_bytes(out / TABLE, csv_bytes(COLUMNS, map(cells, scored)), mode=0o600)
    publish_bytes(out / PICTURE, worst_sheet(tested), mode=0o600)
    write_record(out / RESULT, result)
    return tested


def cells(score: FilmScore) -> list[object]:
    """A row of segmentation.csv."""
    own, mean, usual = score.dice_M[: len(KINDS)].tolist()
    lungs = score.lungs
    numbers = (own, own / (2 - own), mean, usual, lungs.area, lungs.agreement, lungs.balance, lungs.cut)
    return [table_path(score.film.path), score.group, *(f"{number:.4f}" for number in numbers), lungs.problem]


def worst_sheet(tested: Tested) -> bytes:
    """The films with the least Dice, without their names, which segmentation.csv has in the same order."""
    tiles = [
        Tile(
            frame_SS=score.film.frame_TT,
            outlines=[(score.film.mask_TT > 127, GIVEN), (score.lungs.mask_SS, FOUND)],
            lines=[f"{row}: {short_name('dice')} {value_text('dice', float(score.dice_M[0]))}"],
        )
        for row, score in enumerate(tested.films[:WORST], 2)
    ]
    title = f"The worst of {counted(len(tested.films), 'film')}, by row of {TABLE}: yellow as given, blue as found"
    return contact_sheet(tiles, title)


def score_parts(tested: Tested) -> Parts:
    """The scores, the worst film, and the files."""
    result, worst = tested.result, tested.films[0]
    seen = f"; {result.num_seen:,} more left out, since every net saw them or their patient" if result.num_seen else ""
    rows = [
        (kind, *(text for metric in METRICS for text in texts_of(metric, result.scores[metric][kind])))
        for kind in result.scores["dice"]
    ]
    headers = ("masks", *(text for metric in METRICS for text in (short_name(metric), "95 % interval")))
    lines: list[Line | Sheet] = [
        Line(f"{size_text(result.num_films, result.num_groups, 'film')}{seen}", "bold"),
        Sheet(headers=headers, rows=tuple(rows)),
        Line(f"worst: {worst.film.path}, {short_name('dice')} {value_text('dice', result.worst)}"),
        *(Line(f"  {number} doubtful: {REFUSALS[code][0]}") for code, number in result.doubtful.items()),
    ]
    lines += caution_lines(tested.cautions)
    return [*lines, *(path_line(tested.out / name) for name in (RESULT, TABLE, PICTURE))]


def texts_of(metric: str, found: Estimate) -> tuple[str, str]:
    """A score and its interval."""
    return value_text(metric, found.value), interval_text(metric, found)
