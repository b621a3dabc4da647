"""Tensors in channels_last, and their memory as arrays."""

# N images, C channels, H W rows and columns

from __future__ import annotations

import numpy as np
import torch


def pixels(tensor_NCHW: torch.Tensor) -> np.ndarray:
    """A channels_last tensor's own memory as an array (N, H, W, C)."""
    return tensor_NCHW.detach().permute(0, 2, 3, 1).numpy()


def empty(shape_NHWC: tuple[int, int, int, int]) -> torch.Tensor:
    """A tensor (N, C, H, W), float32, whose strides are those of channels_last also where a side is 1."""
    num_images, height, width, channels = shape_NHWC
    strides = (height * width * channels, 1, width * channels, channels)
    return torch.empty_strided((num_images, channels, height, width), strides)
