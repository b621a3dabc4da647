"""The training augmentation of a batch of uint8 frames, as users of grid_sample, torchvision and kornia write it."""

# N samples of a batch, S side of a stored frame, H W rows and columns of the crop,
# 23 the two rows of an inverse affine matrix

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

from benchmarks.torchvision_import import import_functional
from loaders.augmentation import affine_parameters, inverse_matrices
from loaders.config import LoaderConfig

MIDDLE = 127.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """Rotation and zoom of each sample: in degrees and as a factor, and the same as inverse matrices."""

    degrees_N: np.ndarray
    zoom_N: np.ndarray
    inverse_N23: np.ndarray

    def part(self, samples: slice) -> Turns:
        """Those of some samples."""
        return Turns(
            degrees_N=self.degrees_N[samples], zoom_N=self.zoom_N[samples], inverse_N23=self.inverse_N23[samples]
        )


Augment = Callable[[torch.Tensor, Turns, int], torch.Tensor]  # frames_NSS uint8, turns, crop: frames_N1HW float32


def turns_of(config: LoaderConfig, num_samples: int, crop: int, stored: int) -> Turns:
    """The recipe's, of the first epoch."""
    angle_N, zoom_N = affine_parameters(config, 0, np.arange(num_samples))
    inverse_N23 = inverse_matrices(angle_N, zoom_N, crop, stored)
    return Turns(degrees_N=np.rad2deg(angle_N), zoom_N=zoom_N, inverse_N23=inverse_N23)


def by_grid_sample(frames_NSS: torch.Tensor, turns: Turns, crop: int) -> torch.Tensor:
    """In torch, whose coordinates run from -1 to 1 across an image."""
    stored = frames_NSS.shape[1]
    inverse_N23 = torch.from_numpy(turns.inverse_N23)
    theta_N23 = inverse_N23 * (crop / stored)
    centre_N2 = inverse_N23[:, :, :2].sum(2) * (crop / 2) + inverse_N23[:, :, 2]
    theta_N23[:, :, 2] = centre_N2 * (2 / stored) - 1
    grid = affine_grid(theta_N23, [len(frames_NSS), 1, crop, crop], align_corners=False)
    frames_N1SS = frames_NSS[:, None].float()
    out_N1HW = grid_sample(frames_N1SS, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return out_N1HW.div_(MIDDLE).sub_(1)


def by_torchvision() -> Augment:
    """Its affine takes one rotation and zoom at a time; then the central crop.  Errors: ImportError."""
    functional = import_functional()
    modes = importlib.import_module("torchvision.transforms").InterpolationMode

    def augment(frames_NSS: torch.Tensor, turns: Turns, crop: int) -> torch.Tensor:
        out_N1HW = torch.empty(len(frames_NSS), 1, crop, crop)
        for n, frame_SS in enumerate(frames_NSS):
            turned_1SS = functional.affine(
                frame_SS[None].float(),
                angle=-float(turns.degrees_N[n]),
                translate=[0, 0],
                scale=float(turns.zoom_N[n]),
                shear=[0.0, 0.0],
                interpolation=modes.BILINEAR,
            )
            out_N1HW[n] = functional.center_crop(turned_1SS, [crop, crop])
        return out_N1HW.div_(MIDDLE).sub_(1)

    return augment


def by_kornia() -> Augment:
    """Its warp_affine takes a whole batch, with matrices from input to output.  Errors: ImportError."""
    warp_affine = importlib.import_module("kornia.geometry.transform").warp_affine

    def augment(frames_NSS: torch.Tensor, turns: Turns, crop: int) -> torch.Tensor:
        # its pixel centres lie at integers, ours at integer + 0.5
        inverse_N33 = torch.eye(3, dtype=torch.float64).repeat(len(frames_NSS), 1, 1)
        inverse_N33[:, :2] = torch.from_numpy(turns.inverse_N23)
        inverse_N33[:, :2, 2] += inverse_N33[:, :2, :2].sum(2) / 2 - 0.5
        forward_N23 = torch.linalg.inv(inverse_N33)[:, :2].float()
        frames_N1SS = frames_NSS[:, None].float()
        out_N1HW = warp_affine(frames_N1SS, forward_N23, (crop, crop), padding_mode="border", align_corners=True)
        return out_N1HW.div_(MIDDLE).sub_(1)

    return augment
