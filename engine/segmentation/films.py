"""Films with masks of their lungs: from tables, and drawn."""

# T side of the nets' input, N films

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path

import cv2
import numpy as np

from loaders.cautions import Caution
from loaders.config import ORDINARY_PIXELS
from loaders.errors import InputError
from loaders.images.decode import check_shape, hash_pixels
from loaders.images.frame import read_mask, stored_frame
from loaders.images.lungs import SIDE
from loaders.images.radiograph import decode_radiograph
from loaders.output import PhaseProgress
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom
from loaders.sources.entry import as_text, patient_id
from loaders.sources.split import group_by, known_patients
from loaders.sources.table import read_rows
from loaders.statistics import stream

REMEDY = "name a table of path and mask, perhaps with patient and source"
PHANTOM = 22  # random stream
MOST_NAMED = 8  # files in an error


@dataclass(frozen=True, kw_only=True, slots=True)
class Film:
    """A radiograph with a mask.  frame_TT, mask_TT: uint8, the mask 0 or 255.  pixels: hash, as in a beton."""

    path: str
    frame_TT: np.ndarray
    mask_TT: np.ndarray
    pixels: bytes
    patient: str = ""
    source: str = ""


def read_films(manifests: Sequence[Path], progress: PhaseProgress) -> tuple[list[Film], list[Caution]]:
    """The radiographs of tables of path, mask and perhaps patient and source; paths are relative to each table.

    Rows without a mask are left out; identifiers that stand for nobody are no patients, with a caution.
    Errors: InputError for no row with a mask, and for files that cannot be used, naming as many as MOST_NAMED;
    StorageError.
    """
    rows = [
        (manifest, row)
        for manifest in manifests
        for _, row in read_rows(
            manifest, itemgetter("path"), ("path", "mask"), ("patient", "source"), REMEDY, strip=False
        ).values()
        if row["mask"].strip()
    ]
    if manifests and not rows:
        raise InputError(f"{manifests[0]}: no row has a mask, expected some; fill in the column mask")
    films, problems = list[Film](), list[str]()
    for done, (manifest, row) in enumerate(rows, 1):
        try:
            films.append(read_film(manifest.parent, row))
        except InputError as error:
            problems.append(str(error))
        progress("read", done, len(rows))
    if problems:
        more = f" · and {len(problems) - MOST_NAMED} more" * (len(problems) > MOST_NAMED)
        raise InputError(
            f"{manifests[0]}: {len(problems)} of {len(rows)} rows cannot be used, expected all; correct these files, "
            "or empty their cells of the column mask, and they are left out: "
            + " · ".join(problems[:MOST_NAMED])
            + more
        )
    patients, cautions = known_patients([film.patient for film in films])
    return [replace(film, patient=patient) for film, patient in zip(films, patients, strict=True)], cautions


def read_film(folder: Path, row: Mapping[str, str]) -> Film:
    """One row's radiograph and mask.  Errors: InputError, naming the file."""
    path = folder / row["path"]
    try:
        grey_HW = decode_radiograph(path, max_pixels=ORDINARY_PIXELS).grey_HW
        check_shape(*grey_HW.shape)
        frame_SS, _ = stored_frame(grey_HW, 2 * SIDE, "stretch")
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    mask_SS = read_mask(folder / row["mask"], 2 * SIDE, "stretch", size=grey_HW.shape[::-1])
    return Film(
        path=row["path"], pixels=hash_pixels(grey_HW), patient=patient_id(as_text(row["patient"])),
        source=as_text(row["source"]),
        frame_TT=cv2.resize(frame_SS, (SIDE, SIDE), interpolation=cv2.INTER_AREA),
        mask_TT=cv2.resize(mask_SS.astype(np.uint8) * 255, (SIDE, SIDE), interpolation=cv2.INTER_AREA),
    )  # fmt: skip


def draw_films(number: int, seed: int, progress: PhaseProgress) -> list[Film]:
    """Phantoms of every class, with arms up or down and marks at random."""
    rng, films = stream(seed, PHANTOM), []
    for patient in range(number):
        label, arms_up, marked = ("covid", "normal", "pneumonia")[patient % 3], rng.random() < 0.5, rng.random() < 0.3
        planned = PlannedPhantom(
            seed=seed, patient=patient, label=label, size=SIDE, strength=float(rng.uniform(0, 2)), arms_up=arms_up,
            marked=marked,
        )  # fmt: skip
        phantom = draw_phantom(planned)
        frame_TT, _ = stored_frame(phantom.image_HW, SIDE, "stretch")
        films.append(Film(path=planned.name, frame_TT=frame_TT, mask_TT=phantom.lung_mask_HW, pixels=b""))
        progress("draw", patient + 1, number)
    return films


def groups_of(films: Sequence[Film]) -> np.ndarray:
    """Films of one patient, or of the same pixels, share a number: int64 N, counted from 0."""
    if not films:
        return np.empty(0, np.int64)
    return group_by([film.patient.casefold() or None for film in films], [film.pixels for film in films])
