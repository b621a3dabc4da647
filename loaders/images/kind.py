"""The kind of a picture, by a small classifier: upright frontal, turned, inverted, lateral, or no radiograph.

Directions of gradients in 8 × 8 cells, a 16 × 16 thumbnail and a histogram go through one linear layer and a softmax; a
second linear layer estimates how far a frontal's thorax is misaligned.  `make kind` (benchmarks/audit/kind_recipe.py),
which documents the training pictures, trains both; their weights are shipped as kind.safetensors.
"""

# S side of a frame, T side of the small picture, L levels, F features, K kinds, P parameters of a pose

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import load

from kernels.decoding import histogram_into
from kernels.hog import directions_into
from loaders.errors import IntegrityError

KINDS = ("frontal", "turned-90", "turned-180", "turned-270", "inverted", "lateral", "other")
POSE = ("right", "down", "tilt", "zoom")  # shares of the side, degrees clockwise, log of the factor
SIDE, CELLS, BINS, THUMBNAIL, LEVELS = 64, 8, 12, 16, 16
WEIGHTS = Path(__file__).with_name("kind.safetensors")
# benchmarks/audit/kind_recipe.py prints a new one
WEIGHTS_SHA256 = "58bc79fdb451d3ece120a366417f055300a78d75db810cb28af0c2ab863089ec"


@dataclass(frozen=True, slots=True)
class KindWeights:
    """Linear layers over features that are centred and scaled first; float32."""

    centre_F: np.ndarray
    scale_F: np.ndarray
    kind_FK: np.ndarray
    kind_K: np.ndarray
    pose_FP: np.ndarray
    pose_P: np.ndarray


@cache
def shipped_weights() -> KindWeights:
    """The weights that come with plainfilm.  Errors: IntegrityError for damaged ones."""
    content = WEIGHTS.read_bytes()
    if hashlib.sha256(content).hexdigest() != WEIGHTS_SHA256:
        raise IntegrityError(f"{WEIGHTS}: checksum differs from the expected: damaged; install plainfilm again")
    tensors = load(content)
    return KindWeights(**{name: tensors[name] for name in KindWeights.__slots__})


def kind_features(frame_SS: np.ndarray) -> np.ndarray:
    """The classifier's features of a frame of any shape, uint8: float32 F.

    The frame is stretched to a square, so that its aspect ratio, which betrays the source, plays no part.
    """
    count_L = np.empty(256, np.int64)
    histogram_into(count_L, np.ascontiguousarray(frame_SS))
    histogram_L = count_L.reshape(LEVELS, -1).sum(1) / frame_SS.size
    small_TT = cv2.resize(frame_SS, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    directions_RCB = np.empty((CELLS, CELLS, BINS), np.float32)
    directions_into(directions_RCB, small_TT)
    # a cell counts relative to its neighbourhood; the constant keeps flat ones from dominating
    energy_RC = cv2.blur((directions_RCB**2).sum(2), (3, 3), borderType=cv2.BORDER_REPLICATE)
    directions_RCB /= np.sqrt(4 * energy_RC[..., None] + 1000)
    thumbnail = cv2.resize(small_TT, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    thumbnail = (thumbnail - thumbnail.mean()) / (thumbnail.std() + 4)
    parts = np.sqrt(directions_RCB).ravel(), thumbnail.ravel() / 4, np.sqrt(histogram_L)
    return np.concatenate(parts).astype(np.float32)


def kind_of(features_F: np.ndarray, weights: KindWeights) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of KINDS, float32 K, and the POSE that an upright frontal would have, float32 P."""
    scaled_F = (features_F - weights.centre_F) / weights.scale_F
    logits_K = scaled_F @ weights.kind_FK + weights.kind_K
    odds_K = np.exp(logits_K - logits_K.max())
    return odds_K / odds_K.sum(), scaled_F @ weights.pose_FP + weights.pose_P
