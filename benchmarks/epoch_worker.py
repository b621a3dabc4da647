"""One side of the contest of whole epochs, as a process: plainfilm on betons, or the reference pipeline on their files.

Obeys lines: `count 1` tells the numbers of training and validation images, `epochs 2` trains and validates twice.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.settings import BATCH, THREADS


def plainfilm(betons: Path) -> tuple[list[int], Callable[[], object]]:
    """Numbers of images, and an epoch."""
    from benchmarks.bare_training import BareTraining
    from loaders.config import LoaderConfig
    from loaders.machine import keep_allocations

    keep_allocations()
    training = BareTraining(betons, LoaderConfig(batch_size=BATCH, threads=THREADS))
    return [training.loader.num_samples, training.val_loader.num_samples], training.epoch


def reference(manifest: Path, crop: int) -> tuple[list[int], Callable[[], object]]:
    """Numbers of images, and an epoch."""
    from benchmarks.reference import Reference, open_files

    settings = argparse.Namespace(
        folder=manifest.parent, manifest=manifest, size=crop, batch_size=BATCH, workers=0, device="cpu", seed=0
    )
    sets = open_files(settings)
    training = Reference(sets, settings)

    def epoch() -> None:
        training.train(training.train_loader)
        training.validate(training.val_loader)

    return [len(data) for data in sets[:2]], epoch  # type: ignore[arg-type]


def main() -> None:
    """Obey."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=["plainfilm", "reference"])
    parser.add_argument("material", type=Path, help="folder of betons, or table of files")
    parser.add_argument("--crop", type=int, required=True)
    chosen = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    ours = chosen.side == "plainfilm"
    counts, epoch = plainfilm(chosen.material) if ours else reference(chosen.material, chosen.crop)
    for line in sys.stdin:
        what, number = line.split()
        if what == "epochs":
            for _ in range(int(number)):
                epoch()
        print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
