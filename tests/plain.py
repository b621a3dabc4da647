"""The report's network as its text has it: the reference for parity and for speed."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import nn

from engine.networks.cnn import CHANNELS, HIDDEN


class Plain(nn.Module):
    """Biased convolutions, ReLU before the pooling, contiguous; weights are named as in `Cnn`."""

    def __init__(self, num_classes: int, crop: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise(CHANNELS):
            layers += [
                nn.Conv2d(channels_in, channels_out, 3, padding=1),
                nn.BatchNorm2d(channels_out),
                nn.ReLU(),
                nn.MaxPool2d(2, 2),
            ]
        self.features = nn.Sequential(*layers)
        flat = CHANNELS[-1] * (crop // 32) ** 2
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(flat, HIDDEN), nn.ReLU(), nn.Dropout(dropout), nn.Linear(HIDDEN, num_classes)
        )

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(frames))
