"""The recipe's network: five convolution blocks, then two linear layers (DESIGN, recipe)."""

# N batch, H W rows and columns of the crop, K classes

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

CHANNELS = (1, 32, 64, 128, 256, 256)
HIDDEN = 512


class Cnn(nn.Module):
    """Logits of K classes for crops of one side.

    forward: frames_N1HW float in [-1, 1] → logits_NK.
    Each block is convolution 3×3 → batch norm → max-pool 2×2 → ReLU. The report pools after the ReLU; the two commute,
    and pooling first hands the ReLU a quarter of the bytes. The convolutions have no bias: batch norm subtracts any.
    """

    def __init__(self, num_classes: int, crop: int, dropout: float) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for channels_in, channels_out in pairwise(CHANNELS):
            blocks += [
                nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels_out),
                nn.MaxPool2d(2),
                nn.ReLU(),
            ]
        side = crop // 2 ** (len(CHANNELS) - 1)
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(CHANNELS[-1] * side**2, HIDDEN),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward(self, frames_N1HW: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(frames_N1HW))
