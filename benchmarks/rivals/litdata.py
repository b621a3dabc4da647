"""litdata, where it is installed: its StreamingDataLoader on a beton's frames, which its `optimize` has stored.

As its README has it: chunks of 64 MB, dictionaries of an array and numbers, a local folder, which it maps and reads in
place; the batch is prepared by `collate_fn`, in worker processes that outlive the epoch.
As a program it stores a beton: `optimize` changes how its process starts others, and prints.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.contest import REPOSITORY
from benchmarks.rivals.augmentation import Preparation
from benchmarks.rivals.installed import why_missing
from benchmarks.settings import BATCH
from loaders.beton.reader import Beton

CACHES = ("TMPDIR", "DATA_OPTIMIZER_CACHE_FOLDER", "DATA_OPTIMIZER_DATA_CACHE_FOLDER")  # where it writes otherwise
CHUNK = "64MB"  # its default, and what it advises for samples below a few megabytes


def missing() -> str | None:
    """Why it is not there, or None."""
    return why_missing("litdata", "litdata")


@dataclass(frozen=True, kw_only=True, slots=True)
class Collate:
    """Makes a batch of samples, in a worker process."""

    prepare: Preparation

    def __call__(self, samples: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Crops, labels and numbers of the samples."""
        frames, labels, index = zip(*((one["image"], one["class"], one["index"]) for one in samples), strict=True)
        return self.prepare(frames, labels, index)


def write(beton: Path, folder: Path) -> None:
    """Store a beton's samples in a new folder.  Errors: RuntimeError with what litdata printed."""
    scratch = folder.with_suffix(".scratch")
    scratch.mkdir()
    caches = dict.fromkeys(CACHES, str(scratch))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.rivals.litdata", str(beton), str(folder)],
        capture_output=True, text=True, check=False, cwd=REPOSITORY, env={**os.environ, **caches},
    )  # fmt: skip
    if done.returncode or not (folder / "index.json").exists():
        raise RuntimeError(f"{folder}: litdata ended with {done.returncode}: {done.stdout}{done.stderr}")


def open_loader(folder: Path, prepare: Preparation, workers: int, *, shuffled: bool) -> Any:
    """Its loader of a stored beton: batches of crops, labels and numbers, each sample once an epoch."""
    from litdata import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(str(folder), shuffle=shuffled, drop_last=False)
    return StreamingDataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=workers,
        collate_fn=Collate(prepare=prepare),
        persistent_workers=True,
        multiprocessing_context="spawn",
    )


def sample(beton: Path, number: int) -> dict[str, Any]:
    """What is stored of one sample."""
    with Beton(beton) as opened:
        return {"index": number, "image": opened.frame(number).copy(), "class": int(opened.label_N[number])}


def main() -> None:
    """Store the beton of the first argument in the folder of the second."""
    from litdata import optimize

    beton, folder = map(Path, sys.argv[1:])
    with Beton(beton) as opened:
        numbers = list(range(len(opened)))
    optimize(fn=partial(sample, beton), inputs=numbers, output_dir=str(folder), chunk_bytes=CHUNK, num_workers=1)


if __name__ == "__main__":
    main()
