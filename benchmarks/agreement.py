"""Agreement of outputs, which comes before speeds."""

# N samples, H W rows and columns of the crop

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.contest import Missing
from loaders.beton.reader import Beton
from tests import naive

BORDER = 2  # pixels of the crop where rivals may treat the frame's edge in their own way
LEVEL = 1 / 127.5  # one grey level, in [-1, 1]
OURS = 1e-3  # largest error of a kernel of ours (DESIGN, Geometry)
LEAST_CORRELATION = 0.99  # of pictures that two libraries shrank, each in its own way
THEIRS = 0.25 * LEVEL  # largest mean error of a rival: what rounding to whole levels costs


class Disagreement(AssertionError):
    """Two rivals give different outputs, so that their speeds cannot be compared."""


def expect_close(name: str, found: Any, expected: Any, *, mean: float, most: float = np.inf) -> None:
    """Compare outputs before they are timed.

    mean, most: largest mean and largest single absolute difference, in the arrays' unit.
    Errors: Disagreement, also for another shape or for numbers that are not finite.
    """
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    if found.shape != expected.shape:
        raise Disagreement(f"{name}: output of shape {found.shape}, expected {expected.shape}")
    difference = np.abs(found - expected)
    if not (difference.mean() <= mean and difference.max() <= most):  # in this form a NaN disagrees too
        raise Disagreement(
            f"{name}: outputs differ by {difference.mean():.3g} on average and {difference.max():.3g} at most, "
            f"expected {mean:.3g} and {most:.3g}"
        )


def expect_inside(name: str, found_NHW: Any, expected_NHW: Any, *, mean: float) -> None:
    """Compare crops, their border apart.  Errors: Disagreement."""
    inside = np.s_[:, BORDER:-BORDER, BORDER:-BORDER]
    expect_close(name, np.asarray(found_NHW)[inside], np.asarray(expected_NHW)[inside], mean=mean)


def expect_oracle(
    outputs: dict[str, Callable[[], np.ndarray] | Missing], expected_NHW: np.ndarray, mean: float = THEIRS
) -> None:
    """The first rival within 1e-3 of the float64 oracle everywhere, the others on average, their border apart.

    outputs: by rival, what gives its crops (N, 1, H, W), of which as many are compared as expected_NHW has.
    Errors: Disagreement.
    """
    for place, (name, output) in enumerate(outputs.items()):
        if isinstance(output, Missing):
            continue
        found_NHW = np.asarray(output())[: len(expected_NHW), 0]
        if place == 0:
            expect_close(name, found_NHW, expected_NHW, mean=OURS, most=OURS)
        else:
            expect_inside(name, found_NHW, expected_NHW, mean=mean)


def expected_affine(beton: Beton, inverse_N23: np.ndarray, count: int) -> np.ndarray:
    """The oracle's training crops of the first samples, each sampled from its own crop, float64 (count, H, W).

    inverse_N23: from the crop to the stored frame.
    """
    crop, low = beton.facts.crop, (beton.side - beton.facts.crop) // 2
    high = beton.side - 1 - low
    return np.stack([naive.affine(beton.frame(n), inverse_N23[n], crop, low, high) for n in range(count)])


def expected_crops(beton: Beton, count: int) -> np.ndarray:
    """The oracle's evaluation crops of the first samples, float64 (count, H, W)."""
    return np.stack([naive.crop(beton.frame(n), beton.facts.crop) for n in range(count)])


def expect_same_pictures(name: str, found_N: Any, expected_N: Any) -> None:
    """Compare what pictures show, where each library shrinks and stretches the levels of an original in its own way.

    Of N pictures each is to correlate with the expected one.  Errors: Disagreement.
    """
    found_N, expected_N = np.asarray(found_N, np.float64), np.asarray(expected_N, np.float64)
    if found_N.shape != expected_N.shape:
        raise Disagreement(f"{name}: output of shape {found_N.shape}, expected {expected_N.shape}")
    for place, (found, expected) in enumerate(zip(found_N, expected_N, strict=True)):
        correlation = float(np.corrcoef(found.ravel(), expected.ravel())[0, 1])
        if not correlation >= LEAST_CORRELATION:
            raise Disagreement(
                f"{name}: picture {place} correlates at {correlation:.3f} with ours, expected {LEAST_CORRELATION}"
            )
