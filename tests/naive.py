"""Slow, obvious oracles in float64 numpy."""

# N batch, H W rows and columns

import math
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from engine.networks.cnn import CHANNELS, HIDDEN


def to_unit(levels: np.ndarray) -> np.ndarray:
    """Grey levels 0-255 to [-1, 1]."""
    return np.asarray(levels, np.float64) / 255 * 2 - 1


def crop(frame_SS: np.ndarray, side: int) -> np.ndarray:
    """The central crop in [-1, 1]."""
    margin = (frame_SS.shape[0] - side) // 2
    return to_unit(frame_SS[margin : margin + side, margin : margin + side])


def affine(frame_SS: np.ndarray, inverse_23: np.ndarray, side: int, low: int, high: int) -> np.ndarray:
    """Bilinear samples at the inverse-mapped pixel centres, clamped to pixels low..high, in [-1, 1]."""
    matrix_23 = np.asarray(inverse_23, np.float64)
    centre = np.arange(side) + 0.5
    column_HW, row_HW = np.meshgrid(centre, centre)
    points_3HW = np.stack([column_HW, row_HW, np.ones_like(column_HW)])
    x_HW, y_HW = np.clip(np.tensordot(matrix_23, points_3HW, 1) - 0.5, low, high)
    left, top = np.floor(x_HW).astype(int), np.floor(y_HW).astype(int)
    right, below = np.minimum(left + 1, high), np.minimum(top + 1, high)
    part_x, part_y = x_HW - left, y_HW - top
    frame = frame_SS.astype(np.float64)
    upper = frame[top, left] * (1 - part_x) + frame[top, right] * part_x
    lower = frame[below, left] * (1 - part_x) + frame[below, right] * part_x
    return to_unit(upper * (1 - part_y) + lower * part_y)


def percentile_level(grey_HW: np.ndarray, share: float) -> int:
    """The smallest level that at least this share of the pixels does not exceed."""
    return int(np.percentile(grey_HW, 100 * share, method="inverted_cdf"))


def area_average(level_HW: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Each output pixel's mean over its area, with parts of pixels at its edges."""

    def shares(length: int, parts: int) -> np.ndarray:
        edges, pixel = np.arange(parts + 1) * (length / parts), np.arange(length)
        covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
        return np.maximum(covered, 0) / (length / parts)

    return shares(level_HW.shape[0], rows) @ level_HW @ shares(level_HW.shape[1], columns).T


def unfilter(filtered: bytes, rows: int, width: int, pixel_bytes: int) -> np.ndarray:
    """PNG rows put back byte by byte, as the specification has it."""
    out = np.zeros((rows, width), np.uint8)
    for row in range(rows):
        kind, line = filtered[row * (width + 1)], filtered[row * (width + 1) + 1 :]
        for place in range(width):
            left = int(out[row, place - pixel_bytes]) if place >= pixel_bytes else 0
            above = int(out[row - 1, place]) if row else 0
            corner = int(out[row - 1, place - pixel_bytes]) if row and place >= pixel_bytes else 0
            nearest = min((left, above, corner), key=lambda byte, p=left + above - corner: abs(p - byte))
            guess = (0, left, above, (left + above) // 2, nearest)[kind]
            out[row, place] = (line[place] + guess) % 256
    return out


def directions(picture_HW: np.ndarray, cells: int, bins: int) -> np.ndarray:
    """Gradient magnitudes by signed direction in cells × cells, shared linearly between bins, pixel by pixel."""
    rows, columns = picture_HW.shape
    found_RCB = np.zeros((cells, cells, bins))
    for row in range(rows):
        for column in range(columns):
            inside_row, inside_column = 0 < row < rows - 1, 0 < column < columns - 1
            across = float(picture_HW[row, column + 1]) - float(picture_HW[row, column - 1]) if inside_column else 0.0
            down = float(picture_HW[row + 1, column]) - float(picture_HW[row - 1, column]) if inside_row else 0.0
            place = math.atan2(down, across) / (2 * math.pi) % 1.0 * bins
            share = place % 1.0
            cell_B = found_RCB[row * cells // rows, column * cells // columns]
            cell_B[int(place) % bins] += math.hypot(across, down) * (1 - share)
            cell_B[(int(place) + 1) % bins] += math.hypot(across, down) * share
    return found_RCB


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
