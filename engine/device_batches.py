"""Batches made on the device: an epoch's order, labels and matrices uploaded once, and a position that counts there."""

# N batch, H W rows and columns of the crop, M stored frames, S their side, O samples of an epoch in its order,
# 23 the two rows of an inverse affine matrix

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import grid_sample

from engine.device import Policy
from engine.resident import Frames
from kernels.crop import MIDDLE, SCALE
from loaders.augmentation import epoch_matrices, sampled_pixels
from loaders.loader import Loader


class DeviceBatches:
    """The batches of one loader's epochs, in the loader's order, made on the device.

    Everything that `make` reads has a fixed place on the device, so that a captured step can be replayed.
    position: int64 (1,), where in the epoch the next batch begins.
    """

    def __init__(self, loader: Loader, frames: Frames, policy: Policy, batch_size: int) -> None:
        device, crop, total = policy.device, loader.beton.facts.crop, loader.num_samples
        self.loader, self.frames, self.batch_size = loader, frames, batch_size
        self.device = device
        self.order_O = torch.zeros(total, dtype=torch.int64, device=device)
        self.label_O = torch.zeros(total, dtype=torch.int64, device=device)
        self.inverse_O23 = torch.zeros((total, 2, 3), dtype=torch.float32, device=device)
        self.position = torch.zeros(1, dtype=torch.int64, device=device)
        self._count_N = torch.arange(batch_size, device=device)
        dtype = policy.autocast or torch.float32
        layout = policy.memory_format
        # bytes are the same in both layouts, there is one channel; strides tell the convolution which is meant
        self._out_N1HW = torch.empty((batch_size, 1, crop, crop), dtype=dtype, device=device, memory_format=layout)
        self._label_N = torch.empty(batch_size, dtype=torch.int64, device=device)
        self.trouble = triton_trouble() if device.type == "cuda" else ""
        self.triton = device.type == "cuda" and not self.trouble
        self.low, self.high = sampled_pixels(loader.config, crop, loader.beton.side)

    def begin(self, epoch: int, position: int) -> Iterator[int]:
        """Upload an epoch.  Gives the size of each batch from a position on, at the moment when `make` can make it."""
        loader, beton = self.loader, self.loader.beton
        order_O = loader.epoch_order(epoch)
        upload(self.order_O, order_O)
        upload(self.label_O, beton.label_N[order_O])
        if loader.config.training:
            inverse_N23 = epoch_matrices(loader.config, epoch, len(beton), beton.facts.crop, beton.side)
            upload(self.inverse_O23, inverse_N23[order_O])
        self.position.fill_(position)
        return self.frames.walk(order_O, position, self.batch_size)

    def sizes(self, position: int) -> list[int]:
        """The different sizes that batches of an epoch have from a position on: the full one, and the tail's."""
        left = self.loader.num_samples - position
        return [size for size in dict.fromkeys((min(self.batch_size, left), left % self.batch_size)) if size > 0]

    def make(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The batch at the position: crops (count, 1, H, W) in the network's precision, labels (count,).

        Both are overwritten by the next batch.  The position stays; see `advance`.
        """
        out_N1HW, label_N, frames_MSS = self._out_N1HW[:count], self._label_N[:count], self.frames.frames_MSS
        training, staged = self.loader.config.training, self.frames.staged
        if self.triton:
            from kernels.cuda import affine_batch, crop_batch  # only here: Triton is where CUDA is

            places = (self.order_O, self.label_O)
            if training:
                inverse_O23, low, high = self.inverse_O23, self.low, self.high
                affine_batch(
                    out_N1HW,
                    label_N,
                    frames_MSS,
                    *places,
                    inverse_O23,
                    self.position,
                    low=low,
                    high=high,
                    staged=staged,
                )
            else:
                crop_batch(out_N1HW, label_N, frames_MSS, *places, self.position, staged=staged)
            return out_N1HW, label_N
        place_N = self.position + self._count_N[:count]
        label_N.copy_(self.label_O[place_N])
        frames_NSS = frames_MSS[:count] if staged else frames_MSS[self.order_O[place_N]]
        if training:
            crops_NHW = affine_portable(
                frames_NSS, self.inverse_O23[place_N], out_N1HW.shape[3], low=self.low, high=self.high
            )
        else:
            crops_NHW = crop_portable(frames_NSS, out_N1HW.shape[3])
        out_N1HW.copy_(crops_NHW[:, None])
        return out_N1HW, label_N

    def advance(self, count: int | torch.Tensor) -> None:
        """Move the position on."""
        self.position += count


def triton_trouble() -> str:
    """Why Triton cannot make batches on this CUDA machine, and what serves instead; "" where it can."""
    try:
        from kernels.cuda import crop_batch

        one = torch.zeros(1, dtype=torch.int64, device="cuda")
        frame_MSS = torch.zeros((1, 2, 2), dtype=torch.uint8, device="cuda")
        out_N1HW = torch.empty((1, 1, 2, 2), device="cuda")
        crop_batch(out_N1HW, one.clone(), frame_MSS, one, one, one, staged=False)
    except torch.OutOfMemoryError:
        raise
    except (ImportError, OSError, RuntimeError) as error:  # no Triton, or no C compiler for its launcher
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return f"batches are made by plain PyTorch and slower, expected Triton with a C compiler: {reason}"
    return ""


def upload(place: torch.Tensor, array: np.ndarray) -> None:
    """Copy an array to its place on the device; without waiting for it on CUDA, which alone keeps such copies safe."""
    source, on_cuda = torch.from_numpy(np.ascontiguousarray(array)), place.device.type == "cuda"
    place.copy_(source.pin_memory() if on_cuda else source, non_blocking=on_cuda)


def to_unit(levels: torch.Tensor) -> torch.Tensor:
    """Map grey levels, float32 0 to 255, to [-1, 1], as the kernels do."""
    return (levels - float(MIDDLE)) * float(SCALE)


def crop_portable(frames_NSS: torch.Tensor, crop: int) -> torch.Tensor:
    """Central crops float32 (N, H, W) in [-1, 1], copied: to the bit those of the crop kernel."""
    margin = (frames_NSS.shape[1] - crop) // 2
    inner = slice(margin, margin + crop)
    return to_unit(frames_NSS[:, inner, inner].float())


def affine_portable(
    frames_NSS: torch.Tensor, inverse_N23: torch.Tensor, crop: int, *, low: int, high: int
) -> torch.Tensor:
    """Rotated, zoomed crops float32 (N, H, W) in [-1, 1] by PyTorch's own operations; within 1e-3 of the kernels.

    Coordinates are clamped to pixels low to high first, so that what grid_sample puts beyond the frame never matters.
    """
    count, side = frames_NSS.shape[:2]
    centre = torch.arange(crop, device=frames_NSS.device, dtype=torch.float32) + 0.5
    down_HW, across_HW = torch.meshgrid(centre, centre, indexing="ij")
    matrix = inverse_N23[:, :, :, None, None]
    place_N2HW = matrix[:, :, 0] * across_HW + (matrix[:, :, 1] * down_HW + matrix[:, :, 2] - 0.5)
    place_N2HW = place_N2HW.clamp(low, high)
    grid_NHW2 = (place_N2HW * (2 / (side - 1)) - 1).permute(0, 2, 3, 1)
    levels_N1HW = grid_sample(frames_NSS[:, None].float(), grid_NHW2, mode="bilinear", align_corners=True)
    return to_unit(levels_N1HW[:, 0]).view(count, crop, crop)
