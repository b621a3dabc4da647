"""The choice of samples to show: most confident right, most confident wrong, borderline, each class in turn."""

# N samples, K classes

from __future__ import annotations

from itertools import zip_longest
from typing import Literal

import numpy as np

Kind = Literal["right", "wrong", "borderline"]
KINDS: tuple[Kind, ...] = ("right", "wrong", "borderline")


def choose(label_N: np.ndarray, probability_NK: np.ndarray, count: int) -> list[tuple[int, Kind]]:
    """At most count samples, each once, by kind; a third of the count each, more where another kind has too few.

    right, wrong: highest probability of the class said first.  borderline: the two most probable classes closest first.
    Within a kind the true classes take turns.  Ties go by the sample's place.
    """
    said_N = probability_NK.argmax(1)
    ordered_NK = np.sort(probability_NK, 1)
    margin_N = ordered_NK[:, -1] - ordered_NK[:, -2]
    right_N = said_N == label_N
    confidence_N = probability_NK.max(1)
    queues = {
        "right": take_turns(label_N, np.flatnonzero(right_N), -confidence_N),
        "wrong": take_turns(label_N, np.flatnonzero(~right_N), -confidence_N),
        "borderline": take_turns(label_N, np.arange(len(label_N)), margin_N),
    }
    chosen: dict[int, Kind] = {}
    for turn in zip_longest(*queues.values()):  # one of each kind a round
        for kind, sample in zip(KINDS, turn, strict=True):
            if sample is not None and len(chosen) < count:
                chosen.setdefault(sample, kind)
    return sorted(chosen.items(), key=lambda pair: KINDS.index(pair[1]))  # stable: best first within a kind


def take_turns(label_N: np.ndarray, sample_M: np.ndarray, key_N: np.ndarray) -> list[int]:
    """The samples by rising key, one of each true class a round."""
    order_M = sample_M[np.argsort(key_N[sample_M], kind="stable")]
    by_class = [order_M[label_N[order_M] == label].tolist() for label in np.unique(label_N)]
    return [sample for turn in zip_longest(*by_class) for sample in turn if sample is not None]
