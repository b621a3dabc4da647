"""The contest of the converter with a loop over the files in Pillow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.agreement import expect_same_pictures
from benchmarks.array_rivals import middle_of
from benchmarks.contest import Contest
from benchmarks.material import convert_table, listed_files
from benchmarks.rivals import Comparison
from benchmarks.settings import FULL
from benchmarks.targets import CONVERSION, FILES
from loaders.beton.reader import Beton

SIZE = 224
STORED = 320
NUM_CHECKED = 16


def pillow_loop(paths: list[Path], folder: Path) -> None:
    """One process: to grey, to the stored side, to a file each."""
    for place, path in enumerate(paths):
        np.save(folder / f"{place}.npy", shrink(path))


def shrink(path: Path) -> np.ndarray:
    """One radiograph as Pillow's users prepare it."""
    with warnings.catch_warnings(), Image.open(path) as file:
        warnings.simplefilter("ignore")  # Pillow's, about palettes
        return np.asarray(file.convert("L").resize((STORED, STORED), Image.Resampling.BILINEAR))


@contextmanager
def conversion_contest(manifest: Path, folder: Path) -> Iterator[Contest]:
    """Every file of a table, each time into a folder of its own.

    Ours also splits, finds duplicates, writes and verifies betons, and draws the two pictures.
    """
    paths, runs = listed_files(manifest), count()

    def ours() -> None:
        convert_table(manifest, new_folder(folder, next(runs)), SIZE)

    def check() -> None:
        converted = convert_table(manifest, new_folder(folder, next(runs)), SIZE)
        with Beton(converted.beton) as beton:
            # of the crop alone: its grey levels set the window, which the margin may leave and the loop does not have
            middle = middle_of(beton)
            found = [shrink(path)[middle] for path in converted.paths[:NUM_CHECKED]]
            expect_same_pictures("PIL loop", found, [beton.frame(sample)[middle] for sample in range(len(found))])

    yield Contest(
        what=CONVERSION,
        amount=len(paths),
        unit="files",
        rivals={
            "plainfilm": ours,
            "PIL loop": lambda: pillow_loop(paths, new_folder(folder, next(runs))),
        },
        check=check,
    )


def new_folder(folder: Path, number: int) -> Path:
    """A folder that is not there yet."""
    made = folder / str(number)
    made.mkdir()
    return made


def payback(comparisons: list[Comparison]) -> str | None:
    """How long 2,060 radiographs take, and when that has paid for itself against decoding each time.

    None unless conversion and the DataLoader that decodes were both measured.
    """
    by_what = {comparison.what: comparison for comparison in comparisons}
    if not {CONVERSION, FILES} <= by_what.keys():
        return None
    files, conversion = by_what[FILES], by_what[CONVERSION]
    decoding = [name for name in files.cpu_seconds if name.startswith("DataLoader")]
    if not decoding:
        return None
    seconds = FULL.files / conversion.rate(conversion.ours)
    saved = FULL.files / files.rate(decoding[0]) - FULL.files / files.rate(files.ours)
    return (
        f"conversion of {FULL.files:,} radiographs: {seconds:.1f} s; an epoch then takes "
        f"{saved:.1f} s less than with {decoding[0]}: paid for after {seconds / saved:.2f} epochs"
    )
