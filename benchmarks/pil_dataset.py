"""The plain rival of the loader: a torch dataset that decodes and prepares each radiograph anew with Pillow.

A file of its own, without plainfilm, so that a DataLoader's worker starts with no more than it needs.
"""

# N samples, H W rows and columns of the crop, 23 the two rows of an inverse affine matrix

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset


class PilDataset(Dataset):
    """Rotated, zoomed crops float32 (1, H, W) in [-1, 1] and labels, from the original files.

    The same function as plainfilm's conversion and loader together; inverse_N23 has each sample's matrix.
    """

    def __init__(
        self, paths: list[Path], labels_N: np.ndarray, stored: int, crop: int, inverse_N23: np.ndarray
    ) -> None:
        self.paths, self.labels_N = paths, labels_N
        self.stored, self.crop, self.inverse_N23 = stored, crop, inverse_N23

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, sample: int) -> tuple[torch.Tensor, int]:
        with Image.open(self.paths[sample]) as file:
            grey = ImageOps.autocontrast(file.convert("L"), cutoff=0.1)
        grey = grey.resize((self.stored, self.stored), Image.Resampling.BOX)
        matrix = tuple(self.inverse_N23[sample].ravel().tolist())
        grey = grey.transform((self.crop, self.crop), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        frame_1HW = np.array(grey, np.float32)[None]
        # in numpy: for one small frame torch's threads cost more than they save, most of all on a busy machine
        frame_1HW *= np.float32(1 / 127.5)
        frame_1HW -= np.float32(1)
        return torch.from_numpy(frame_1HW), int(self.labels_N[sample])
