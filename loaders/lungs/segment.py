"""The lungs' masks of a source of radiographs, with what each is worth."""

# N films, H W rows and columns of a file, S side of a stored frame

import secrets
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Literal

import cv2
import numpy as np

from loaders.atomic_file import SUFFIX, locked, publish_bytes, storage_error
from loaders.cautions import Caution
from loaders.config import SegmentConfig, stored_side
from loaders.errors import ConfigError, InputError
from loaders.images.decode import Decoded, DecodeSettings, Task, decode_all, temporary_spool
from loaders.images.files import REFUSALS
from loaders.images.lungs import LungFinder, Lungs, load_segmenter
from loaders.lungs.masks import SEGMENTED
from loaders.lungs.sheet import DOUBTFUL, FOUND, MOST_TILES, Tile, contact_sheet
from loaders.output import Line, Parts, PhaseProgress, Sheet, caution_lines, counted, path_line, share_text
from loaders.sources.catalog import read_catalog
from loaders.sources.entry import (
    EXCLUDED,
    PRESENT,
    Entry,
    as_text,
    csv_bytes,
    may_be_picture,
    other_view,
    table_path,
)
from loaders.sources.patient_hash import load_site_key, patient_hash, site_key_id
from loaders.sources.split import group_by, known_patients
from loaders.statistics import Progress, wilson

Verdict = Literal["credible", "doubtful", "no mask"]
VERDICTS: tuple[Verdict, ...] = ("credible", "doubtful", "no mask")
MASKS, DOUBTS, TABLE, PICTURE = "masks", "doubtful", SEGMENTED, "contact-sheet.png"
COLUMNS = (
    "path", "mask", "verdict", "kind", "reason", "area", "agreement", "balance", "cut", "nets", "width", "height",
)  # fmt: skip
MOST_DOUBTFUL = 48  # of the contact sheet's tiles
LONGEST_NAME = 200  # bytes of a file's name to which .mask.png is added; file systems take 255


@dataclass(kw_only=True, slots=True)
class Row:
    """The outcome for one file.  kind: code of the reason against its mask, of REFUSALS or EXCLUDED; "" for none.

    nets: the two that found the mask, counted from 1; empty where there is none, `seen` where each saw its patient.
    numbers: area, agreement, balance and cut of the lungs that were found; none where there is no mask.
    """

    entry: Entry
    decoded: Decoded
    verdict: Verdict = "no mask"
    kind: str = ""
    reason: str = ""
    nets: str = ""
    numbers: tuple[float, ...] = ()

    def drop(self, kind: str, reason: str) -> None:
        """Leave the file without a mask."""
        self.kind, self.reason = kind, reason

    @property
    def mask(self) -> str:
        """The mask's path in the folder: masks/… of a credible one, doubtful/… of another; "" of none."""
        if not self.numbers:
            return ""
        folder = MASKS if self.verdict == "credible" else DOUBTS
        *parents, name = (part if part != ".." else "_" for part in PurePosixPath(self.entry.path).parts if part != "/")
        if len(raw := name.encode("utf-8", "surrogateescape")) > LONGEST_NAME:
            name = blake2b(raw, digest_size=16).hexdigest()
        return "/".join((folder, *parents, f"{name}.mask.png"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Segmented:
    """The masks of a source.  rows: one a file."""

    out: Path
    rows: Sequence[Row]
    classes: Sequence[str]
    cautions: Sequence[Caution]


def segment(
    config: SegmentConfig,
    progress: PhaseProgress = lambda phase, done, total: None,
    segmenter: LungFinder | None = None,
) -> Segmented:
    """Find the lungs of every radiograph of a source, by nets that are not known to have seen it or its patient.

    Writes masks/ and doubtful/, a PNG a film at the film's own size; masks.csv, which ties credible masks alone to
    their films; and a contact sheet.  All are their owner's: files' names are in them.

    segmenter: what finds them; None: what config.segmenter names.
    Errors: InputError where no file can be read; ConfigError; IntegrityError for a damaged segmenter; LockedError;
    StorageError.
    """
    source = config.catalog.origin
    if source.is_dir() and config.out.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"--out {config.out}: lies inside {source}, expected a folder beside it; choose another")
    segmenter = segmenter or load_segmenter(config.segmenter)
    catalog = read_catalog(config.catalog, labelled=config.labelled)
    entries = [entry for entry in catalog.entries if not entry.excluded and may_be_picture(entry.path)]
    if not entries:
        raise InputError(f"{source}: no radiographs found, expected some; check the path")
    side, work = stored_side(config.size), config.out / f"segment{SUFFIX}"
    with locked(config.out):
        there = [name for name in (TABLE, MASKS, DOUBTS) if (config.out / name).exists()]
        if there and (there[0] == TABLE or not (work / TABLE).exists()):  # a killed run's table lies in work
            raise ConfigError(f"--out {config.out}: has {there[0]} already, expected a new folder; choose another")
        for folder in (*(config.out / name for name in there), work):  # of a killed run
            shutil.rmtree(folder, ignore_errors=True)
        spool, left = config.out / f"spool-{secrets.token_hex(8)}{SUFFIX}", config.out.glob(f"spool*{SUFFIX}")
        with temporary_spool(spool, len(entries) * side**2, left):
            rows = decode_rows(config, catalog.root, entries, spool, partial(progress, "decode"))
            frames_NSS = np.memmap(spool, np.uint8, "r").reshape(-1, side, side)
            nets_N2, of_patients = choose_nets(config, segmenter, rows)
            found = segmenter.find_all(lambda place: frames_NSS[place], nets_N2, config.workers)
            for done, (row, lungs, nets) in enumerate(zip(rows, found, nets_N2.tolist(), strict=True), 1):
                if lungs is not None:
                    judge(row, lungs, nets)
                    publish_mask(work, row.mask, lungs.mask_SS, row.decoded)
                progress("segment", done, len(rows))
            content = picture(segmenter, rows, nets_N2, frames_NSS)
        work.mkdir(mode=0o700, exist_ok=True)
        publish_bytes(work / PICTURE, content, mode=0o600)
        publish_bytes(work / TABLE, csv_bytes(COLUMNS, map(cells, rows)), mode=0o600)
        for name in (MASKS, DOUBTS, PICTURE, TABLE):  # the table last: what lies there without it is a killed run's
            if (work / name).exists():
                (work / name).rename(config.out / name)
        work.rmdir()
    labels = catalog.classes or tuple(sorted({entry.label for entry in entries} - {""}))
    return Segmented(out=config.out, rows=rows, classes=labels, cautions=[*catalog.cautions, *of_patients])


def decode_rows(
    config: SegmentConfig, root: Path, entries: Sequence[Entry], spool: Path, progress: Progress
) -> list[Row]:
    """Decode every file into the spool.  Errors: InputError where none can be used; StorageError."""
    read = config.catalog
    settings = DecodeSettings(
        side=stored_side(config.size), fit="stretch", max_pixels=read.max_pixels, workers=config.workers,
        within=read.within, assume_modality=read.assume_modality,
    )  # fmt: skip
    tasks = [Task(place, entry.path) for place, entry in enumerate(entries)]
    rows = []
    for entry, decoded in zip(entries, decode_all(root, tasks, settings, spool, progress), strict=True):
        rows.append(row := Row(entry=entry, decoded=decoded))
        if decoded.problem:
            row.drop(decoded.code, decoded.problem)
        elif reason := other_view(entry.view or as_text(decoded.view), read.views):
            row.drop("other-view", reason)
    if all(row.kind for row in rows):
        raise InputError(
            f"{read.origin}: none of {counted(len(rows), 'file')} is usable; the first, {rows[0].entry.path}: "
            f"{rows[0].reason}; expected radiographs; check the path"
        )
    return rows


def choose_nets(config: SegmentConfig, segmenter: LungFinder, rows: Sequence[Row]) -> tuple[np.ndarray, list[Caution]]:
    """The two nets for each film, int64 N×2, -1 where there is none; and a caution of identifiers that tell nobody."""
    patients, cautions = known_patients([row.entry.patient_or(row.decoded.patient) for row in rows])
    pixels = [row.decoded.pixel_hash for row in rows]
    group_N = group_by([patient.casefold() or None for patient in patients], [pixel or None for pixel in pixels])
    hashes = [b""] * len(rows)
    if any(net.patients for net in segmenter.record.nets):
        key = load_site_key(config.site_key)
        if site_key_id(key) == segmenter.record.site_key_id:
            hashes = [patient_hash(key, patient).tobytes() if patient else b"" for patient in patients]
    nets_N2 = segmenter.nets_for(pixels, hashes, group_N)
    for row, (first, _) in zip(rows, nets_N2, strict=True):
        if first < 0 and not row.kind:
            row.nets = "seen"
            row.drop("lungs-seen", REFUSALS["lungs-seen"][0])
    return np.where([[bool(row.kind)] for row in rows], -1, nets_N2), cautions


def judge(row: Row, lungs: Lungs, nets: Sequence[int]) -> None:
    """Record what was found, and whether it can be believed."""
    row.numbers = (lungs.area, lungs.agreement, lungs.balance, lungs.cut)
    row.kind, row.nets = lungs.problem, " ".join(str(net + 1) for net in nets)
    row.verdict, row.reason = ("doubtful", REFUSALS[row.kind][0]) if row.kind else ("credible", "")


def publish_mask(work: Path, name: str, mask_SS: np.ndarray, decoded: Decoded) -> None:
    """Write a mask as a PNG of its file's size, 255 in the lungs, in a folder of its owner.  Errors: StorageError."""
    path, size = work / name, (decoded.width, decoded.height)
    mask_HW = cv2.resize(mask_SS.astype(np.uint8) * 255, size, interpolation=cv2.INTER_LINEAR)
    content = cv2.imencode(".png", np.where(mask_HW > 127, np.uint8(255), np.uint8(0)))[1].tobytes()
    try:
        for folder in (work, work / PurePosixPath(name).parts[0]):
            folder.mkdir(mode=0o700, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path.parent, error) from error
    publish_bytes(path, content)


def cells(row: Row) -> list[object]:
    """A row of masks.csv."""
    decoded = row.decoded
    return [
        table_path(row.entry.path), row.mask if row.verdict == "credible" else "", row.verdict, row.kind, row.reason,
        *([f"{number:.4f}" for number in row.numbers] or [""] * 4), row.nets,
        *((decoded.width, decoded.height) if decoded.width else ("", "")),
    ]  # fmt: skip


def picture(segmenter: LungFinder, rows: Sequence[Row], nets_N2: np.ndarray, frames_NSS: np.ndarray) -> bytes:
    """The contact sheet, by row of masks.csv: doubtful masks first, then credible ones, the least certain first.

    Lungs are found once more: the masks of all films would not fit into memory.
    """
    places = {verdict: [place for place, row in enumerate(rows) if row.verdict == verdict] for verdict in VERDICTS}
    doubtful = places["doubtful"][:MOST_DOUBTFUL]
    credible = sorted(places["credible"], key=lambda place: rows[place].numbers[1])
    few = np.linspace(0, len(credible) - 1, min(len(credible), MOST_TILES - len(doubtful))).astype(int)
    tiles = []
    for place in doubtful + [credible[number] for number in few]:
        row, lungs = rows[place], segmenter.find(frames_NSS[place], nets_N2[place].tolist())
        line = f"agreement {lungs.agreement:.2f}, balance {lungs.balance:.2f}"
        tiles.append(
            Tile(
                frame_SS=frames_NSS[place],
                outlines=[(lungs.mask_SS, DOUBTFUL if row.kind else FOUND)],
                lines=(f"{place + 2}: {row.kind or row.verdict}", line),
            )
        )
    shown = f"{len(doubtful)} of {len(places['doubtful'])} doubtful, {len(few)} of {len(credible)} credible"
    return contact_sheet(tiles, f"Lungs by row of {TABLE}: {shown}")


def segment_parts(done: Segmented) -> Parts:
    """The totals, by reason and by class, and the files."""
    counts = Counter(row.verdict for row in done.rows)
    parts: list[Line | Sheet] = [
        Line(
            f"{counted(len(done.rows), 'file')}: " + " + ".join(f"{counts[name]:,} {name}" for name in VERDICTS), "bold"
        )
    ]
    for (verdict, kind), number in Counter((row.verdict, row.kind) for row in done.rows if row.kind).most_common():
        first = next(row for row in done.rows if row.kind == kind)
        why = EXCLUDED.get(kind) or REFUSALS[kind][0]
        parts.append(Line(f"  {number:,} {verdict}: {why}; the first: {first.entry.path}"))
    if done.classes:
        rows = [
            (name, *class_cells([row for row in done.rows if has_label(row.entry, name, place)]))
            for place, name in enumerate(done.classes)
        ]
        headers = ("class or finding", "files", "not credible", "share", "95 % interval")
        parts.append(Sheet(headers=headers, rows=tuple(rows)))
    parts += caution_lines(done.cautions)
    parts.append(
        Line(
            f"Look at {PICTURE}. Before `convert --masks {TABLE}`, empty the cell of each wrong mask, and fill in the "
            f"path of each below {DOUBTS} that is right."
        )
    )
    return [*parts, *(path_line(done.out / name) for name in (TABLE, MASKS, PICTURE))]


def has_label(entry: Entry, name: str, place: int) -> bool:
    """Whether a file is of a class, or shows a finding.  place: of the finding."""
    return entry.findings[place] == PRESENT if entry.findings else entry.label == name


def class_cells(rows: Sequence[Row]) -> tuple[str, ...]:
    """How many of these files have no credible mask, and the share with its interval."""
    lost = sum(row.verdict != "credible" for row in rows)
    low, high = (share_text(end).removesuffix(" %") for end in wilson(lost, len(rows)))
    share = share_text(lost / len(rows)) if rows else share_text(None)
    return f"{len(rows):,}", f"{lost:,}", share, f"{low} to {high} %"
