"""What the benchmarks read: phantoms or real radiographs, converted on the spot."""

# N samples, S side of a stored frame

import csv
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.settings import FULL, THREADS
from loaders.beton.format import ROW, Facts
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.config import CatalogConfig, ConvertConfig, LungMode, PhantomConfig
from loaders.convert.convert import convert
from loaders.phantom.phantom import write_phantoms

PHANTOM_SIDE = 640  # twice 320: all libraries halve alike, so that outputs compare
PAGE_SIZE = 8 << 20
NUM_NOISE_FRAMES = 64  # different ones in a beton of noise


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """A training beton, and the files that its samples came from, in its order."""

    beton: Path
    paths: list[Path]


def data_folder() -> Path | None:
    """The real radiographs: PLAINFILM_DATA, or ../shared/data; None where there are none."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PLAINFILM_DATA", default)).absolute()
    return folder if (folder / "radiographs.csv").is_file() else None


def draw_phantoms(folder: Path, *, num_phantoms: int = FULL.phantoms, side: int = PHANTOM_SIDE) -> Path:
    """Draw synthetic radiographs, one a patient; gives their table."""
    return write_phantoms(
        PhantomConfig(out=folder / "phantoms", patients=num_phantoms, images_per_patient=1, size=side)
    )


def choose_radiographs(folder: Path, every: int = 1) -> Path | None:
    """Copy every `every`th real radiograph, and write their table; None where there are none."""
    data = data_folder()
    if data is None:
        return None
    with (data / "radiographs.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[::every]
    manifest = folder / "radiographs.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "label", "patient"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        copy = folder / row["path"]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data / row["path"], copy)
    return manifest


def vary(manifest: Path, folder: Path, num_files: int) -> Path:
    """Write the files of a table again and again, each time with another pixel changed, until there are so many.

    As many radiographs as a real collection has, none of them another's duplicate.  Gives their table.
    """
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    varied = folder / "varied.csv"

    def write(number: int) -> dict[str, str]:
        row, turn = rows[number % len(rows)], number // len(rows)
        path = Path(f"{turn}") / row["path"]
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if turn == 0:
            shutil.copyfile(manifest.parent / row["path"], folder / path)
        else:
            pixels = cv2.imread(str(manifest.parent / row["path"]), cv2.IMREAD_UNCHANGED)
            pixels[turn - 1, 0] = pixels[turn - 1, 0] // 2 + 64 * (pixels[turn - 1, 0] < 128)
            made = [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_PAETH, cv2.IMWRITE_PNG_COMPRESSION, 2]
            cv2.imwrite(str(folder / path), pixels, made if path.suffix == ".png" else [])
        return {"path": path.as_posix(), "label": row["label"], "patient": row.get("patient", "")}

    with ThreadPoolExecutor(THREADS) as pool, varied.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "label", "patient"])
        writer.writeheader()
        writer.writerows(pool.map(write, range(num_files)))
    return varied


def convert_table(manifest: Path, folder: Path, size: int, lungs: LungMode = "off") -> Converted:
    """Convert in a folder of its own, with a site key of its own."""
    out, catalog = folder / "betons", CatalogConfig(manifest=manifest)
    conversion = convert(ConvertConfig(catalog=catalog, out=out, size=size, site_key=folder / "site.key", lungs=lungs))
    written = (row for row in conversion.rows if row.verdict == "written" and row.split == "train")
    rows = sorted(written, key=lambda row: row.sample)
    return Converted(beton=out / "train.beton", paths=[manifest.parent / row.entry.path for row in rows])


def convert_with_table(manifest: Path, folder: Path, size: int) -> tuple[Path, Path]:
    """Convert; gives the folder of betons, and a table of the files that were written, with each one's split."""
    out = folder / "betons"
    conversion = convert(
        ConvertConfig(catalog=CatalogConfig(manifest=manifest), out=out, size=size, site_key=folder / "site.key")
    )
    table = folder / "written.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for row in conversion.rows:
            if row.verdict == "written":
                writer.writerow([(manifest.parent / row.entry.path).absolute(), row.entry.label, row.split])
    return out, table


def listed_files(manifest: Path) -> list[Path]:
    """Every file of a table."""
    with manifest.open(newline="", encoding="utf-8") as file:
        return [manifest.parent / row["path"] for row in csv.DictReader(file)]


def noise_beton(path: Path, num_samples: int, stored: int, crop: int) -> Path:
    """Write a beton of noise, of any size."""
    frames_NSS = np.random.default_rng(0).integers(0, 256, (NUM_NOISE_FRAMES, stored, stored), np.uint8)
    return repeat_frames(path, frames_NSS, num_samples, crop)


def repeat(converted: Converted, path: Path, num_samples: int = FULL.training_images) -> Path:
    """Write a beton of another size out of the frames of this one; by default as large as the report's training set."""
    with Beton(converted.beton) as beton:
        frames_NSS = np.stack([beton.frame(sample) for sample in range(len(beton))])
        return repeat_frames(path, frames_NSS, num_samples, beton.facts.crop)


def repeat_frames(path: Path, frames_NSS: np.ndarray, num_samples: int, crop: int) -> Path:
    """Write a beton of these frames again and again."""
    facts = Facts(
        classes=("covid", "normal"),
        positive="covid",
        stored=frames_NSS.shape[1],
        crop=crop,
        fit="stretch",
        split="train",
        seed=0,
        conversion_id="",
        site_key_id="",
        source_fingerprint="",
        synthetic=True,
    )
    frames = (frames_NSS[sample % len(frames_NSS)] for sample in range(num_samples))
    write_beton(path, frames, np.arange(num_samples) % 2, np.zeros(num_samples, ROW), facts, PAGE_SIZE)
    return path
