"""The training augmentation of a batch of uint8 crops, as users of grid_sample, torchvision and kornia write it.

Each crop is sampled from itself and clamped at its edge, as plainfilm does it by default (DESIGN, Geometry).
"""

# N samples of a batch, H W rows and columns of the crop, before and after, 23 the two rows of an inverse affine matrix,
# S side of a stored frame

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

from benchmarks.rivals.data_loader import turned
from loaders.config import LoaderConfig
from loaders.sampling import affine_parameters, inverse_matrices

MIDDLE = 127.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """Rotation and zoom of each sample: in degrees and as a factor, and the same as inverse matrices, crop to crop."""

    degrees_N: np.ndarray
    zoom_N: np.ndarray
    inverse_N23: np.ndarray

    def part(self, samples: slice | np.ndarray) -> Self:
        """Those of some samples."""
        return Turns(
            degrees_N=self.degrees_N[samples], zoom_N=self.zoom_N[samples], inverse_N23=self.inverse_N23[samples]
        )


Augment = Callable[[torch.Tensor, Turns], torch.Tensor]  # crops_NHW uint8: augmented crops float32 (N, 1, H, W)


def turns_of(config: LoaderConfig, num_samples: int, crop: int) -> Turns:
    """The recipe's, of the first epoch."""
    angle_N, zoom_N = affine_parameters(config, 0, np.arange(num_samples))
    inverse_N23 = inverse_matrices(angle_N, zoom_N, crop, crop)
    return Turns(degrees_N=np.rad2deg(angle_N), zoom_N=zoom_N, inverse_N23=inverse_N23)


def by_grid_sample(crops_NHW: torch.Tensor, turns: Turns) -> torch.Tensor:
    """In torch, whose coordinates run from -1 to 1 across an image."""
    crop = crops_NHW.shape[1]
    inverse_N23 = torch.from_numpy(turns.inverse_N23)
    theta_N23 = inverse_N23.clone()
    centre_N2 = inverse_N23[:, :, :2].sum(2) * (crop / 2) + inverse_N23[:, :, 2]
    theta_N23[:, :, 2] = centre_N2 * (2 / crop) - 1
    crops_N1HW = crops_NHW[:, None].float()
    grid = affine_grid(theta_N23, list(crops_N1HW.shape), align_corners=False)
    out_N1HW = grid_sample(crops_N1HW, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return out_N1HW.div_(MIDDLE).sub_(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Preparation:
    """Makes a batch of stored frames, in a worker process; it can be sent there, which kornia's closure cannot.

    middle: where the crop lies in a frame.  turns: of every sample, in the beton's order; without them crops alone.
    """

    middle: tuple[slice, slice]
    turns: Turns | None = None

    def __call__(
        self, frames_SS: Sequence[np.ndarray], labels: Sequence[int], index: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Crops float32 (N, 1, H, W) in [-1, 1], labels, and numbers in the beton.

        Frames are cut before they are stacked, so that the least is copied.
        """
        crops_NHW = torch.from_numpy(np.stack([frame_SS[self.middle] for frame_SS in frames_SS]))
        if self.turns is None:
            out_N1HW = crops_NHW[:, None].float().div_(MIDDLE).sub_(1)
        else:
            out_N1HW = by_grid_sample(crops_NHW, self.turns.part(np.asarray(index)))
        return out_N1HW, torch.tensor(labels), torch.tensor(index)


def by_torchvision(crops_NHW: torch.Tensor, turns: Turns) -> torch.Tensor:
    """`turned` for one crop after the other, whose rotation and zoom it takes."""
    out_N1HW = torch.empty(len(crops_NHW), 1, *crops_NHW.shape[1:])
    for n, crop_HW in enumerate(crops_NHW):
        out_N1HW[n] = turned(crop_HW[None], float(turns.degrees_N[n]), float(turns.zoom_N[n]))
    return out_N1HW.div_(MIDDLE).sub_(1)


def by_kornia() -> Augment:
    """Its warp_affine takes a whole batch, with matrices from input to output.  Errors: ImportError."""
    warp_affine = importlib.import_module("kornia.geometry.transform").warp_affine

    def augment(crops_NHW: torch.Tensor, turns: Turns) -> torch.Tensor:
        # its pixel centres lie at integers, ours at integer + 0.5
        inverse_N33 = torch.eye(3, dtype=torch.float64).repeat(len(crops_NHW), 1, 1)
        inverse_N33[:, :2] = torch.from_numpy(turns.inverse_N23)
        inverse_N33[:, :2, 2] += inverse_N33[:, :2, :2].sum(2) / 2 - 0.5
        forward_N23 = torch.linalg.inv(inverse_N33)[:, :2].float()
        crops_N1HW = crops_NHW[:, None].float()
        size = (crops_NHW.shape[1], crops_NHW.shape[2])
        out_N1HW = warp_affine(crops_N1HW, forward_N23, size, padding_mode="border", align_corners=True)
        return out_N1HW.div_(MIDDLE).sub_(1)

    return augment
