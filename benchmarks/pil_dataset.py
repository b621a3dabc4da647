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

    The same function as plainfilm's conversion and loader together: grey levels are stretched by what the crop shows,
    and the crop is sampled from itself, its edge drawn out, since Pillow has no border but a fill.
    inverse_N23: each sample's matrix, from crop to crop.
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
            grey = file.convert("L")
        grey = ImageOps.autocontrast(grey, cutoff=0.1, mask=central_mask(grey.size, self.crop / self.stored))
        grey = grey.resize((self.stored, self.stored), Image.Resampling.BOX)
        low, pad = (self.stored - self.crop) // 2, self.crop // 4
        crop_HW = np.asarray(grey)[low : low + self.crop, low : low + self.crop]
        padded = Image.fromarray(np.pad(crop_HW, pad, "edge"))
        matrix_23 = self.inverse_N23[sample].astype(np.float64)
        matrix_23[:, 2] += pad
        turned = padded.transform(
            (self.crop, self.crop), Image.Transform.AFFINE, tuple(matrix_23.ravel().tolist()), Image.Resampling.BILINEAR
        )
        frame_1HW = np.array(turned, np.float32)[None]
        # in numpy: for one small frame torch's threads cost more than they save, most of all on a busy machine
        frame_1HW *= np.float32(1 / 127.5)
        frame_1HW -= np.float32(1)
        return torch.from_numpy(frame_1HW), int(self.labels_N[sample])


def central_mask(size: tuple[int, int], share: float) -> Image.Image:
    """Which pixels of a picture its crop will show: the middle `share` of each side."""
    mask = Image.new("L", size)
    left, top = (round(length * (1 - share) / 2) for length in size)
    mask.paste(255, (left, top, size[0] - left, size[1] - top))
    return mask
