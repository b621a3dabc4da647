"""The source of a profile: the files that betons were converted from, checked to be the very same radiographs."""

from __future__ import annotations

import csv
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from loaders.beton import Beton
from loaders.config import PILLOW_PIXELS, Fit
from loaders.errors import ConfigError, InputError, StorageError
from loaders.spool import Decoded, DecodeSettings, Task, decode_into_spool

TABLE = "convert.csv"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """folder: what paths are relative to.  paths: of the training samples, in the order of their beton."""

    folder: Path
    paths: tuple[str, ...]
    num_val: int

    def convert(self, sample: int, settings: DecodeSettings, spool: Path) -> tuple[Decoded, float]:
        """Decode one file as a conversion does, into a spool of one frame.  Gives what became of it, and seconds."""
        begin = time.perf_counter()
        decoded = decode_into_spool(Task(0, self.paths[sample]), root=self.folder, spool=spool, settings=settings)
        return decoded, time.perf_counter() - begin


def find_source(data: Path, folder: Path) -> Source:
    """Read convert.csv, and check that its files are there and as many as the betons' samples.

    Errors: ConfigError when the folder is not the betons' source; InputError without a convert.csv.
    """
    try:
        with (data / TABLE).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            rows = [row for row in csv.DictReader(file) if row["verdict"] == "written"]
    except FileNotFoundError as error:
        raise InputError(
            f"{data}: no {TABLE}, expected the table of files that `convert` leaves; convert the radiographs again"
        ) from error
    for row in rows:
        if not (folder / row["path"]).is_file():
            raise ConfigError(
                f"--source {folder}: no {row['path']}, which {data / TABLE} names, expected the folder that the betons "
                "were converted from; for a manifest, the folder that it lies in"
            )
    by_split = {
        split: sorted((row for row in rows if row["split"] == split), key=lambda row: int(row["sample"]))
        for split in ("train", "val")
    }
    for split, chosen in by_split.items():
        with Beton(data / f"{split}.beton") as beton:
            if len(beton) != len(chosen):
                raise ConfigError(
                    f"{data / TABLE}: {len(chosen)} files of split {split}, expected {len(beton)}, the samples of "
                    f"{split}.beton; convert the radiographs again"
                )
    paths = tuple(row["path"] for row in by_split["train"])
    return Source(folder=folder, paths=paths, num_val=len(by_split["val"]))


class Converter:
    """Conversion, file by file, of the training samples.  Owns a temporary spool."""

    def __init__(self, source: Source, data: Path) -> None:
        with Beton(data / "train.beton") as beton:
            facts, self.pixel_hashes = beton.facts, beton.rows_N["pixel_hash"].copy()
        self.source, self.table, self.next = source, data / TABLE, 0
        # the conversion has judged how large a file may be
        self.settings = DecodeSettings(side=facts.stored, fit=cast(Fit, facts.fit), max_pixels=PILLOW_PIXELS, workers=1)
        self._folder = tempfile.TemporaryDirectory(prefix="plainfilm-")
        self.spool = Path(self._folder.name) / "spool"
        self.spool.write_bytes(bytes(facts.stored**2))

    def convert(self, count: int) -> float:
        """Seconds a file, of the next few.  Errors: ConfigError for other pixels than the beton's sample has."""
        total = 0.0
        for _ in range(count):
            sample = self.next % len(self.source.paths)
            decoded, seconds = self.source.convert(sample, self.settings, self.spool)
            if decoded.problem:
                raise StorageError(f"{self.source.paths[sample]}: {decoded.problem}")
            if decoded.pixel_hash != self.pixel_hashes[sample].tobytes():
                raise ConfigError(
                    f"--source {self.source.folder}: {self.source.paths[sample]} has other pixels than sample "
                    f"{sample} of train.beton, expected the same radiographs; convert them again"
                )
            total += seconds
            self.next += 1
        return total / count

    def close(self) -> None:
        """Remove the spool."""
        self._folder.cleanup()
