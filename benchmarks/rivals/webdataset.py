"""webdataset, where it is installed: its WebLoader on a beton's frames, stored in shards of tar files.

As its README and FAQ have it: `.npy` and `.cls` members under the sample's key; shards split among worker processes,
shuffled, and their samples again in a buffer before they are decoded; batches made in the workers, since single
samples are slow to pass on. Its examples shuffle between workers as well; that is left out, which spares it a copy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.rivals.augmentation import Preparation
from benchmarks.rivals.installed import why_missing
from benchmarks.settings import BATCH, THREADS
from loaders.beton.reader import Beton

NUM_SHARDS = 4 * THREADS  # as many for each worker
BUFFER = 1000  # samples among which one is drawn, as in its README


def missing() -> str | None:
    """Why it is not there, or None."""
    return why_missing("webdataset", "webdataset")


@dataclass(frozen=True, kw_only=True, slots=True)
class Collate:
    """Makes a batch of samples, in a worker process."""

    prepare: Preparation

    def __call__(self, samples: list[tuple[np.ndarray, int, str]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Crops, labels and numbers of the samples, whose keys are their numbers."""
        frames, labels, keys = zip(*samples, strict=True)
        return self.prepare(frames, labels, [int(key) for key in keys])


def write(beton: Path, folder: Path) -> None:
    """Store a beton's samples in a new folder, in its order."""
    from webdataset import ShardWriter

    folder.mkdir()
    with Beton(beton) as opened:
        samples_each = -(-len(opened) // NUM_SHARDS)
        with ShardWriter(str(folder / "shard-%06d.tar"), maxcount=samples_each, verbose=0) as writer:
            for n in range(len(opened)):
                writer.write({"__key__": f"{n:06d}", "npy": opened.frame(n), "cls": int(opened.label_N[n])})


def open_loader(folder: Path, prepare: Preparation, workers: int, *, shuffled: bool) -> Any:
    """Its loader of a stored beton: batches of crops, labels and numbers, each sample once an epoch."""
    from webdataset import WebDataset, WebLoader

    shards = sorted(map(str, folder.glob("*.tar")))
    dataset = WebDataset(shards, shardshuffle=NUM_SHARDS if shuffled else False)
    if shuffled:
        dataset = dataset.shuffle(BUFFER)
    decoded = dataset.decode().to_tuple("npy", "cls", "__key__")
    return WebLoader(
        decoded.batched(BATCH, collation_fn=Collate(prepare=prepare)),
        batch_size=None,
        num_workers=workers,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )
