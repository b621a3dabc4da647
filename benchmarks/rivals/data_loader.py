"""torch's DataLoader on the original files, decoded with Pillow and augmented with Pillow or torchvision.

Little of plainfilm's is imported, so that a worker starts with no more than it needs.
"""

# N samples, S side of the stretched frame, H W rows and columns of the crop, P side of the padded crop

import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import Dataset

from engine.networks.extras import import_torchvision

MIDDLE = 127.5


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


def import_functional() -> ModuleType:
    """torchvision.transforms.v2.functional."""
    return import_torchvision("torchvision.transforms.v2.functional")


def turned(crop_1HW: torch.Tensor, degrees: float, zoom: float) -> torch.Tensor:
    """A crop rotated and zoomed within itself, float32 (1, H, W) in grey levels.

    Its affine has no border but a fill, so the crop's edge is drawn out first, as far as a rotation by 15 degrees and a
    zoom of 0.85 reach: (cos + sin) / 0.85 of the side, 0.22 of it beyond either edge.
    """
    functional = import_functional()
    side = crop_1HW.shape[-1]
    padded_1PP = functional.pad(crop_1HW.float(), [side // 4], padding_mode="edge")
    turned_1PP = functional.affine(
        padded_1PP,
        angle=-degrees,
        translate=[0, 0],
        scale=zoom,
        shear=[0.0, 0.0],
        interpolation=functional.InterpolationMode.BILINEAR,
    )
    return functional.center_crop(turned_1PP, [side, side])


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
        crop_1HW = import_functional().center_crop(self.frame(sample), [self.crop, self.crop])
        # on the tensor, not on the picture: Pillow's affine cuts the fractions of grey levels off
        turned_1HW = turned(crop_1HW, float(self.degrees_N[sample]), float(self.zoom_N[sample]))
        return turned_1HW.div_(MIDDLE).sub_(1), int(self.labels_N[sample])
