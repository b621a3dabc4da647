"""Random numbers as a pure function of (seed, stream, epoch, sample): Philox-4x32-10.

Counter-based: no state, so any thread, device or resumed run draws the same numbers. Under one seed the counter is
(sample, epoch, stream) and Philox is a bijection of counters, so no two draws share a block.
Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; golden values in tests/test_randomness.py.
"""

# N samples, 4 words of a Philox block

from __future__ import annotations

import numpy as np

AUGMENTATION, ORDER, SPLIT, DROPOUT, PAGE_ORDER, FILE_ORDER = range(6)  # streams

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counter_N4: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox-4x32.  counter_N4: uint32.  key: two 32-bit words.  Gives uint32 words_N4."""
    c0, c1, c2, c3 = (counter_N4[:, word].astype(np.uint64) for word in range(4))
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (product1 >> _SHIFT) ^ c1 ^ np.uint64(k0), (product0 >> _SHIFT) ^ c3 ^ np.uint64(k1)
        c1, c3 = product1 & _LOW, product0 & _LOW
        k0, k1 = (k0 + _WEYL[0]) & 0xFFFFFFFF, (k1 + _WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def draw(seed: int, stream: int, epoch: int, sample_N: np.ndarray) -> np.ndarray:
    """Four 32-bit words for each sample.

    seed: 0 to 2^64-1.  epoch, stream: 0 to 2^32-1.  sample_N: integers 0 to 2^64-1.  Gives uint32 words_N4.
    """
    sample_N = np.asarray(sample_N, np.uint64)
    counter_N4 = np.empty((sample_N.size, 4), np.uint32)
    counter_N4[:, 0] = sample_N & _LOW
    counter_N4[:, 1] = sample_N >> _SHIFT
    counter_N4[:, 2] = epoch
    counter_N4[:, 3] = stream
    return philox(counter_N4, (seed & 0xFFFFFFFF, seed >> 32))


def unit_interval(words: np.ndarray) -> np.ndarray:
    """Map 32-bit words to float64 in the open interval (0, 1)."""
    return (words.astype(np.float64) + 0.5) / 2**32


def order_keys(seed: int, stream: int, epoch: int, num_samples: int) -> np.ndarray:
    """A 64-bit sort key for each of num_samples samples, uint64."""
    words_N4 = draw(seed, stream, epoch, np.arange(num_samples, dtype=np.uint64)).astype(np.uint64)
    return (words_N4[:, 0] << _SHIFT) | words_N4[:, 1]


def epoch_order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """The order in which an epoch visits the samples: a permutation, int64."""
    return np.argsort(order_keys(seed, ORDER, epoch, num_samples), kind="stable")


def scalar_seed(seed: int, stream: int, step: int) -> int:
    """One 63-bit seed for a step, for generators that keep a state of their own (torch's dropout)."""
    return scalar_seeds(seed, stream, np.array([step], np.uint64))[0]


def scalar_seeds(seed: int, stream: int, step_N: np.ndarray) -> list[int]:
    """The scalar_seed of each of many steps, drawn at once."""
    words_N4 = draw(seed, stream, 0, step_N).astype(np.uint64)
    return (words_N4[:, 0] << np.uint64(31) | words_N4[:, 1] >> np.uint64(1)).tolist()
