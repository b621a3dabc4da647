"""The usual rival of the loader: a torch dataset that decodes with Pillow and augments with torchvision.

A file of its own, without plainfilm, so that a DataLoader's worker starts with no more than it needs.
"""

# N samples, S side of the stretched frame, H W rows and columns of the crop

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from benchmarks.torchvision_import import import_functional

MIDDLE = 127.5


class TorchvisionDataset(Dataset):
    """Rotated, zoomed crops float32 (1, H, W) in [-1, 1] and labels, from the original files.

    degrees_N, zoom_N: each sample's rotation and zoom.
    """

    def __init__(
        self,
        paths: list[Path],
        labels_N: np.ndarray,
        stored: int,
        crop: int,
        degrees_N: np.ndarray,
        zoom_N: np.ndarray,
    ) -> None:
        self.paths, self.labels_N, self.stored, self.crop = paths, labels_N, stored, crop
        self.degrees_N, self.zoom_N = degrees_N, zoom_N

    def __len__(self) -> int:
        return len(self.paths)

    def frame(self, sample: int) -> torch.Tensor:
        """The whole radiograph, stretched to uint8 (1, S, S)."""
        functional = import_functional()
        with warnings.catch_warnings(), Image.open(self.paths[sample]) as file:
            warnings.simplefilter("ignore")  # Pillow's, about palettes
            file.draft("L", (self.stored, self.stored))  # JPEGs are decoded no larger than needed
            grey = file.convert("L").resize((self.stored, self.stored), Image.Resampling.BILINEAR)
        return functional.pil_to_tensor(grey)

    def __getitem__(self, sample: int) -> tuple[torch.Tensor, int]:
        functional = import_functional()
        # on the tensor, not on the picture: Pillow's affine cuts the fractions of grey levels off
        turned_1SS = functional.affine(
            self.frame(sample),
            angle=-float(self.degrees_N[sample]),
            translate=[0, 0],
            scale=float(self.zoom_N[sample]),
            shear=[0.0, 0.0],
            interpolation=functional.InterpolationMode.BILINEAR,
        )
        crop_1HW = functional.center_crop(turned_1SS, [self.crop, self.crop])
        return crop_1HW.float().div_(MIDDLE).sub_(1), int(self.labels_N[sample])
