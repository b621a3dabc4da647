"""Phantom folder: synthetic radiographs on disk, their lung masks, and a manifest of the ground truth."""

# H rows, W columns, P patients, I images of a patient

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from loaders.atomic_file import SUFFIX, storage_error
from loaders.config import PhantomConfig, check_range
from loaders.errors import StorageError
from loaders.phantom.phantom import draw_phantom
from loaders.sources.catalog import PHANTOM_TABLE, SYNTHETIC
from loaders.statistics import stream

COLUMNS = ("path", "label", "patient", "view", "source", "mask", "arms", "mark")
EXTENSIONS = {"png": "png", "png16": "png", "jpeg": "jpg", "tiff": "tif", "tiff16": "tif"}
LABEL, COUNT, ARMS, MARKS = range(4)  # random streams; their keys are shorter than the drawing's


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPhantom:
    """One film to draw.  patient: counts from 1.  image: counts from 0 for each patient."""

    patient: int
    image: int
    label: str
    arms_up: bool
    marked: bool

    @property
    def name(self) -> str:
        """The name of the patient, such as phantom-0001."""
        return f"phantom-{self.patient:04d}"


def plan_phantoms(config: PhantomConfig) -> list[PlannedPhantom]:
    """The label, arms and mark of every film; a pure function of the config.

    Classes differ by at most one patient; a patient has one label and 1 to images_per_patient images.
    Each image's arms follow the class (raised for the first) with probability config.arms, and a fair coin
    otherwise; marks likewise, with config.marks.  Errors: ConfigError.
    """
    check_range("seed", config.seed, 0, 2**63)
    class_P = stream(config.seed, LABEL).permutation(config.patients) % len(config.classes)
    first_P1 = class_P[:, None] == 0
    count_P = stream(config.seed, COUNT).integers(1, config.images_per_patient + 1, config.patients)
    shape = config.patients, config.images_per_patient
    arms_up_PI = follow_or_toss(stream(config.seed, ARMS), config.arms, first_P1, shape)
    marked_PI = follow_or_toss(stream(config.seed, MARKS), config.marks, first_P1, shape)
    return [
        PlannedPhantom(
            patient=index + 1,
            image=image,
            label=config.classes[class_P[index]],
            arms_up=bool(arms_up_PI[index, image]),
            marked=bool(marked_PI[index, image]),
        )
        for index in range(config.patients)
        for image in range(count_P[index])
    ]


def follow_or_toss(rng: np.random.Generator, rho: float, first_P1: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """With probability rho whether the class is the first, else a fair coin: bool (P, I)."""
    follow_PI, coin_PI = rng.random((2, *shape))
    return np.where(follow_PI < rho, first_P1, coin_PI < 0.5)


def write_phantoms(config: PhantomConfig, progress: Callable[[int, int], None] | None = None) -> Path:
    """Draw the plan into config.out, the whole folder at once, and return the path of phantoms.csv.

    Images go to images/<class>/, masks (8-bit png, 255 in lung) to masks/<class>/; the csv's paths are
    relative to it.  progress(done, total) is called after each film.
    Errors: ConfigError; StorageError, also if the folder is not empty.
    """
    out, plan = config.out, plan_phantoms(config)
    building = out.with_name(out.name + SUFFIX)  # an interrupted run leaves nothing that seems complete
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            found = "a folder with files in it" if out.is_dir() else "a file"
            raise StorageError(f"{out}: found {found}, expected a new or empty folder; choose another")
        shutil.rmtree(building, ignore_errors=True)
        write_films(replace(config, out=building), plan, progress)
        building.replace(out)
        return out / PHANTOM_TABLE
    except StorageError:
        raise
    except OSError as error:
        pixel_bytes = 3 if config.format.endswith("16") else 2  # of image and mask; most formats compress them
        raise storage_error(out, error, len(plan) * config.size**2 * pixel_bytes) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def write_films(config: PhantomConfig, plan: list[PlannedPhantom], progress: Callable[[int, int], None] | None) -> None:
    """Draw and write every planned film, then the csv."""
    for kind in ("images", "masks"):
        for label in config.classes:
            (config.out / kind / label).mkdir(parents=True, exist_ok=True)
    rows = []
    for done, film in enumerate(plan, 1):
        phantom = draw_phantom(
            seed=config.seed,
            patient=film.patient,
            image=film.image,
            label=film.label,
            size=config.size,
            strength=config.strength,
            arms_up=film.arms_up,
            marked=film.marked,
        )
        place = f"{film.label}/{film.name}_{film.image:03d}"
        path, mask = f"images/{place}.{EXTENSIONS[config.format]}", f"masks/{place}.png"
        (config.out / path).write_bytes(encode(phantom.image_HW, config.format))
        (config.out / mask).write_bytes(encode(phantom.lung_mask_HW, "png"))
        arms, mark = "up" if film.arms_up else "down", "yes" if film.marked else "no"
        rows.append((path, film.label, film.name, "PA", SYNTHETIC, mask, arms, mark))
        if progress is not None:
            progress(done, len(plan))
    with (config.out / PHANTOM_TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def encode(image_HW: np.ndarray, format: str) -> bytes:
    """File bytes; formats without 16 in their name take uint16 down to 8 bits, 65535 to 255, rounded."""
    if image_HW.dtype == np.uint16 and not format.endswith("16"):
        image_HW = ((image_HW.astype(np.uint32) + 128) // 257).astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if format == "jpeg" else []
    _, bytes_B = cv2.imencode("." + EXTENSIONS[format], image_HW, options)
    return bytes_B.tobytes()
