"""Kernels beside OpenCV, DALI and numpy."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.kernel_contests import affine_contest, affine_scaling_contest, crop_contest
from benchmarks.material import Converted


def test_affine(compare: Callable, converted_224: Converted) -> None:
    with affine_contest(converted_224.beton) as contest:
        compare(contest)


def test_affine_scaling(compare: Callable, converted_224: Converted) -> None:
    with affine_scaling_contest(converted_224.beton) as contest:
        compare(contest)


def test_crop(compare: Callable, converted_224: Converted) -> None:
    with crop_contest(converted_224.beton) as contest:
        compare(contest)
