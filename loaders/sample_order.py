"""The order of an epoch by pages, for betons larger than memory: a pure function of seed, epoch and layout."""

# N samples of the beton, P its pages

from __future__ import annotations

import numpy as np

from loaders.randomness import ORDER, PAGE_ORDER, order_keys

WINDOW_BYTES = 32 << 20  # of the file whose samples are mixed: some 320 frames of 320 × 320


def paged_order(seed: int, epoch: int, offset_N: np.ndarray, page_size: int) -> np.ndarray:
    """A permutation, int64, that needs each page once: random pages make a window, whose samples are mixed.

    `convert` writes samples in random order, so that a window is a random choice of samples too.
    """
    page_P, place_N = np.unique(offset_N // page_size, return_inverse=True)
    window_P = np.empty(len(page_P), np.int64)
    shuffled_P = np.argsort(order_keys(seed, PAGE_ORDER, epoch, len(page_P)), kind="stable")
    window_P[shuffled_P] = np.arange(len(page_P)) // max(1, WINDOW_BYTES // page_size)
    return np.lexsort((order_keys(seed, ORDER, epoch, len(offset_N)), window_P[place_N]))
