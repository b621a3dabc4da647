"""Phantoms: synthetic frontal chest radiographs, drawn from a seed, and folders of them with their ground truth.

Layers add up as attenuation does, and a digital film is bright in proportion to attenuation; hence sums, not blends.
The finding has its own random streams and is added pixel by pixel, after every blur: outside it, and at strength 0
everywhere, a film equals the normal film to the bit.
"""

# H rows, W columns, A patients, I images of a patient, P points, C coordinates (x to the viewer's right, y down)

import csv
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from loaders.atomic_file import SUFFIX, storage_error
from loaders.config import PHANTOM_FINDINGS, PhantomConfig
from loaders.errors import StorageError
from loaders.phantom.anatomy import (
    FINDING,
    GRAIN,
    MARK,
    TEXTURE,
    Body,
    PlannedPhantom,
    draw_anatomy,
    draw_lungs,
    random_stream,
    round_off,
    sample_body,
    shrink,
    two_levels,
)
from loaders.phantom.findings import OPACITIES, enlarge_heart
from loaders.sources.folders import PHANTOM_TABLE, SYNTHETIC
from loaders.statistics import stream

COLUMNS = ("patient", "view", "source", "mask", "arms", "mark")
FINDING_OF_CLASS = {"covid": "opacity", "pneumonia": "consolidation"}
NAMES = tuple(PHANTOM_FINDINGS)
EXTENSIONS = {"png": "png", "png16": "png", "jpeg": "jpg", "tiff": "tif", "tiff16": "tif"}
LABEL, COUNT, ARMS, MARKS, PRESENT, UNKNOWN = range(6)  # random streams; their keys are shorter than the drawing's


@dataclass(frozen=True, kw_only=True, slots=True)
class Phantom:
    """One synthetic radiograph and its ground truth.  image_HW: uint16, bright tissue, dark air.

    lung_mask_HW: uint8, 255 in both lungs, with what of them lies behind the heart, without the mediastinum; else 0.
    aerated_HW: the same without the heart.
    """

    image_HW: np.ndarray
    lung_mask_HW: np.ndarray
    aerated_HW: np.ndarray


def draw_phantom(film: PlannedPhantom) -> Phantom:
    """Draw one radiograph; a pure function of the film."""
    size, body = film.size, sample_body(film)
    for name, strength, place in planned_findings(film):
        if name == "cardiomegaly":
            body = enlarge_heart(body, strength, random_stream(film, place, shared=True))
    lungs_HW, region_HW = draw_lungs(body)
    air_HW = body.air * round_off(lungs_HW, body, 0.16)
    film_HW = shrink(draw_anatomy(body, air_HW, film.arms_up, random_stream(film, TEXTURE, shared=True)), size)
    aerated_HW, mask_HW = (two_levels(shrink(shape_HW.astype(np.float32), size)) for shape_HW in (lungs_HW, region_HW))
    shares = [
        strength * OPACITIES[name](body, lungs_HW, random_stream(film, place, shared=True), random_stream(film, place))
        for name, strength, place in planned_findings(film)
        if name in OPACITIES
    ]
    if shares:
        film_HW += shrink(air_HW * np.minimum(sum(shares), 1), size) * (aerated_HW > 0)
    film_HW = expose(film_HW, body, random_stream(film, GRAIN))
    if film.marked:
        film_HW += shrink(draw_mark(body.side, random_stream(film, MARK)), size) * (0.97 - film_HW)
    return Phantom(
        image_HW=(np.clip(film_HW, 0, 1) * 65535 + 0.5).astype(np.uint16), lung_mask_HW=mask_HW, aerated_HW=aerated_HW
    )


def planned_findings(film: PlannedPhantom) -> list[tuple[str, float, int]]:
    """Each finding of a film, its strength and its random stream: that of its class, and its own."""
    of_class = [(FINDING_OF_CLASS[film.label], film.strength, FINDING)] if film.label != "normal" else []
    return of_class + [(name, strength, FINDING + 1 + NAMES.index(name)) for name, strength in film.findings]


def expose(film_HW: np.ndarray, body: Body, rng: np.random.Generator) -> np.ndarray:
    """Attenuation to film, 0.03 in air to 0.95, pixel by pixel; grain grows where few photons arrive."""
    grain_HW = rng.standard_normal(film_HW.shape, np.float32)
    noisy_HW = film_HW + body.grain * grain_HW * np.exp(np.float32(0.9) * film_HW)
    tone_HW = np.maximum(noisy_HW + np.float32(body.exposure), 0) ** np.float32(1.35 * body.gamma)
    return 0.03 + 0.92 * np.tanh(1.15 * tone_HW)


def draw_mark(side: int, rng: np.random.Generator) -> np.ndarray:
    """A framed letter R, centred near (0.21, 0.21) of the frame, just inside the 70 % crop: float32, 0-1."""
    mark_HW = np.zeros((side, side), np.uint8)
    left, top = np.rint((0.175 + 0.012 * rng.random(2)) * side).astype(int).tolist()
    box, width = round(0.06 * side), max(1, side // 150)
    cv2.rectangle(mark_HW, (left, top), (left + box, top + box), 255, width, cv2.LINE_AA)
    origin = left + round(0.22 * box), top + round(0.82 * box)
    cv2.putText(mark_HW, "R", origin, cv2.FONT_HERSHEY_SIMPLEX, 0.03 * box, 255, width, cv2.LINE_AA)
    return mark_HW.astype(np.float32) / 255


def plan_phantoms(config: PhantomConfig) -> list[PlannedPhantom]:
    """The label or findings, arms and mark of every film; a pure function of the config.

    Classes differ by at most one patient; a patient has one label and 1 to images_per_patient images.  Of findings,
    each patient has each or not, whatever others there are.
    Each image's arms follow the class (raised for the first), or the first finding, with probability config.arms, and a
    fair coin otherwise; marks likewise, with config.marks.
    """
    if config.findings:
        present_KA = plan_findings(config)
        label_A, first_A1 = ["normal"] * config.patients, present_KA[0][:, None]
    else:
        class_A = stream(config.seed, LABEL).permutation(config.patients) % len(config.classes)
        present_KA, first_A1 = np.empty((0, config.patients), bool), class_A[:, None] == 0
        label_A = [config.classes[place] for place in class_A]
    strengths = config.finding_strengths
    count_A = stream(config.seed, COUNT).integers(1, config.images_per_patient + 1, config.patients)
    shape = config.patients, config.images_per_patient
    arms_up_AI = follow_or_toss(stream(config.seed, ARMS), config.arms, first_A1, shape)
    marked_AI = follow_or_toss(stream(config.seed, MARKS), config.marks, first_A1, shape)
    return [
        PlannedPhantom(
            seed=config.seed, patient=index + 1, image=image, label=label_A[index], size=config.size,
            strength=config.strength, arms_up=bool(arms_up_AI[index, image]), marked=bool(marked_AI[index, image]),
            findings=tuple(
                planned for planned, has_A in zip(strengths.items(), present_KA, strict=True) if has_A[index]
            ),
        )
        for index in range(config.patients)
        for image in range(count_A[index])
    ]  # fmt: skip


def plan_findings(config: PhantomConfig) -> np.ndarray:
    """Which patients have each of the config's findings, as many as its prevalence: bool (K, A)."""
    rng, number = stream(config.seed, PRESENT), round(config.prevalence * config.patients)
    present_of = {name: rng.permutation(config.patients) < number for name in NAMES}
    return np.array([present_of[name] for name in config.finding_strengths])


def follow_or_toss(rng: np.random.Generator, rho: float, first_A1: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """With probability rho whether the class is the first, else a fair coin: bool (A, I)."""
    follow_AI, coin_AI = rng.random((2, *shape))
    return np.where(follow_AI < rho, first_A1, coin_AI < 0.5)


def write_phantoms(config: PhantomConfig, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Draw the plan into config.out, the whole folder at once, and return the path of phantoms.csv.

    Images go to images/<class>/, masks (8-bit png, 255 in lung) to masks/<class>/; those of findings to images/ and
    masks/, and the csv has a column for each finding: 1 present, 0 absent, blank unknown.  The csv's paths are relative
    to it.  progress(done, total) is called after each film.
    Errors: StorageError, also if the folder is not empty.
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


def write_films(config: PhantomConfig, plan: list[PlannedPhantom], progress: Callable[[int, int], None]) -> None:
    """Draw and write every planned film, then the csv."""
    findings = tuple(config.finding_strengths)
    columns = ("path", *(PHANTOM_FINDINGS[name] for name in findings)) if findings else ("path", "label")
    unknown_NK = stream(config.seed, UNKNOWN).random((len(plan), len(findings))) < config.unknown
    for kind in ("images", "masks"):
        for label in ("",) if findings else config.classes:
            (config.out / kind / label).mkdir(parents=True, exist_ok=True)
    rows = []
    for done, (film, unknown_K) in enumerate(zip(plan, unknown_NK, strict=True), 1):
        phantom = draw_phantom(film)
        place = f"{film.name}_{film.image:03d}" if findings else f"{film.label}/{film.name}_{film.image:03d}"
        path, mask = f"images/{place}.{EXTENSIONS[config.format]}", f"masks/{place}.png"
        (config.out / path).write_bytes(encode(phantom.image_HW, config.format))
        (config.out / mask).write_bytes(encode(phantom.lung_mask_HW, "png"))
        arms, mark = "up" if film.arms_up else "down", "yes" if film.marked else "no"
        if findings:
            mark = "marked" if film.marked else "plain"  # yes and no would be a finding's values
        present = dict(film.findings)
        values = ["" if lost else int(name in present) for name, lost in zip(findings, unknown_K, strict=True)]
        rows.append((path, *(values or [film.label]), film.name, "PA", SYNTHETIC, mask, arms, mark))
        progress(done, len(plan))
    with (config.out / PHANTOM_TABLE).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([(*columns, *COLUMNS), *rows])


def encode(image_HW: np.ndarray, format: str) -> bytes:
    """File bytes; formats without 16 in their name take uint16 down to 8 bits, 65535 to 255, rounded."""
    if image_HW.dtype == np.uint16 and not format.endswith("16"):
        image_HW = ((image_HW.astype(np.uint32) + 128) // 257).astype(np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if format == "jpeg" else []
    _, bytes_B = cv2.imencode("." + EXTENSIONS[format], image_HW, options)
    return bytes_B.tobytes()
