"""The reference pipeline with one change: frames that were decoded once, read from betons through their memory map.

python -m benchmarks.stored_reference BETONS --size 224
"""

# H W rows and columns of the crop

from __future__ import annotations

import argparse
import time

import torch
from PIL import Image
from torch.utils.data import Dataset

from benchmarks.reference import Sets, Transform, main, transforms_for
from loaders.beton.reader import Beton


class StoredFrames(Dataset):
    """Crops and labels from a beton, with the seconds as in `Radiographs`: decoding is a copy out of the map."""

    def __init__(self, beton: Beton, to_crop: Transform) -> None:
        self.beton, self.to_crop = beton, to_crop

    def __len__(self) -> int:
        return len(self.beton)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int, float, float]:
        begin = time.perf_counter()
        square = Image.fromarray(self.beton.frame(index))
        decoded = time.perf_counter()
        crop_1HW = self.to_crop(square)
        return crop_1HW, int(self.beton.label_N[index]), decoded - begin, time.perf_counter() - decoded


def open_betons(arguments: argparse.Namespace) -> Sets:
    """Training and validation set from train.beton and val.beton."""
    train, val = (Beton(arguments.folder / name) for name in ("train.beton", "val.beton"))
    _, to_training_crop, to_crop = transforms_for(arguments.size)
    return StoredFrames(train, to_training_crop), StoredFrames(val, to_crop), len(train.facts.classes)


if __name__ == "__main__":
    main(open_betons)
