"""Sampling: the order of samples and their rotation and zoom, as pure functions of (seed, epoch, sample)."""

# N samples, P pages of the beton, 4 the 32-bit words of a Philox block, 23 the two rows of an inverse affine matrix

import numpy as np

from loaders.config import LoaderConfig

AUGMENTATION, ORDER, SPLIT, DROPOUT, PAGE_ORDER, FILE_ORDER = range(6)  # streams
WINDOW_BYTES = 32 << 20  # of the file whose samples are mixed: some 320 frames of 320 × 320

_MULTIPLIERS = np.array([0xD2511F53, 0xCD9E8D57], np.uint64)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(counter_N4: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox-4x32.  counter_N4: 32-bit words.  key: two 32-bit words.  Gives uint32 words_N4."""
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
    words = np.broadcast_arrays(sample_N & _LOW, sample_N >> _SHIFT, np.uint64(epoch), np.uint64(stream))
    return philox(np.stack(words, axis=1), (seed & 0xFFFFFFFF, seed >> 32))


def unit_interval(words: np.ndarray) -> np.ndarray:
    """Map 32-bit words to float64 in the open interval (0, 1)."""
    return (words.astype(np.float64) + 0.5) / 2**32


def order_keys(seed: int, stream: int, epoch: int, num_samples: int) -> np.ndarray:
    """A 64-bit sort key for each of num_samples samples, uint64."""
    words_N4 = draw(seed, stream, epoch, np.arange(num_samples, dtype=np.uint64)).astype(np.uint64)
    return (words_N4[:, 0] << _SHIFT) | words_N4[:, 1]


def epoch_order(seed: int, epoch: int, num_samples: int) -> np.ndarray:
    """The order of the samples in an epoch: a permutation, int64."""
    return np.argsort(order_keys(seed, ORDER, epoch, num_samples), kind="stable")


def scalar_seed(seed: int, stream: int, step: int) -> int:
    """One 63-bit seed for a step, for generators that keep their own state (torch's dropout)."""
    return scalar_seeds(seed, stream, np.array([step], np.uint64))[0]


def scalar_seeds(seed: int, stream: int, step_N: np.ndarray) -> list[int]:
    """The scalar_seed of each of many steps, drawn at once."""
    words_N4 = draw(seed, stream, 0, step_N).astype(np.uint64)
    return (words_N4[:, 0] << np.uint64(31) | words_N4[:, 1] >> np.uint64(1)).tolist()


def paged_order(seed: int, epoch: int, offset_N: np.ndarray, page_size: int) -> np.ndarray:
    """A permutation, int64, that reads each page once: random pages make a window, whose samples are shuffled.

    `convert` writes samples in random order, so a window is a random choice of samples too.
    """
    page_P, place_N = np.unique(offset_N // page_size, return_inverse=True)
    window_P = np.empty(len(page_P), np.int64)
    shuffled_P = np.argsort(order_keys(seed, PAGE_ORDER, epoch, len(page_P)), kind="stable")
    window_P[shuffled_P] = np.arange(len(page_P)) // max(1, WINDOW_BYTES // page_size)
    return np.lexsort((order_keys(seed, ORDER, epoch, len(offset_N)), window_P[place_N]))


def affine_parameters(config: LoaderConfig, epoch: int, sample_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle in radians and zoom factor of each sample in this epoch, float64.

    The angle is uniform in ±rotation; the zoom 1 ± m, m uniform in [zoom_low, zoom_high], the sign fair.
    """
    words_N4 = draw(config.seed, AUGMENTATION, epoch, sample_N)
    angle_N = np.deg2rad(config.rotation) * (2 * unit_interval(words_N4[:, 0]) - 1)
    amount_N = config.zoom_low + (config.zoom_high - config.zoom_low) * unit_interval(words_N4[:, 1])
    sign_N = np.where(words_N4[:, 2] & 1, 1.0, -1.0)
    return angle_N, 1 + sign_N * amount_N


def inverse_matrices(angle_N: np.ndarray, zoom_N: np.ndarray, crop: int, stored: int) -> np.ndarray:
    """Inverse matrices about the frame's centre: from output pixel centres to stored coordinates, float32 N23.

    A positive angle turns the picture counter-clockwise; zoom above 1 magnifies.
    """
    cosine_N, sine_N = np.cos(angle_N) / zoom_N, np.sin(angle_N) / zoom_N
    inverse_N23 = np.empty((len(angle_N), 2, 3), np.float64)
    inverse_N23[:, 0, 0], inverse_N23[:, 0, 1] = cosine_N, -sine_N
    inverse_N23[:, 1, 0], inverse_N23[:, 1, 1] = sine_N, cosine_N
    inverse_N23[:, 0, 2] = stored / 2 - crop / 2 * (cosine_N - sine_N)
    inverse_N23[:, 1, 2] = stored / 2 - crop / 2 * (sine_N + cosine_N)
    return inverse_N23.astype(np.float32)


def sampled_pixels(config: LoaderConfig, crop: int, stored: int) -> tuple[int, int]:
    """The first and the last row, and column, of the stored frame that training reads; beyond them it clamps."""
    margin = (stored - crop) // 2 if config.augment_from == "crop" else 0
    return margin, stored - 1 - margin


def epoch_matrices(config: LoaderConfig, epoch: int, num_samples: int, crop: int, stored: int) -> np.ndarray:
    """The inverse matrix of every sample for a whole epoch, float32 N23, drawn on the host."""
    return inverse_matrices(*affine_parameters(config, epoch, np.arange(num_samples)), crop, stored)
