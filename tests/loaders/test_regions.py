"""Regions of a frame: what is left of it when the lungs alone are shown."""

import numpy as np
import pytest

from loaders.images.frame import MID_GREY
from loaders.images.regions import LUNG_MODES, boxed, boxed_equal, masked

SIDE, CROP = 92, 64


def film(top: int, left: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A frame of noise with a smooth pattern in a mask of two halves, and that mask."""
    frame_SS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    mask_SS = np.zeros((SIDE, SIDE), bool)
    for part in (slice(left, left + width // 3), slice(left + width - width // 3, left + width)):
        mask_SS[top : top + height, part] = True
    rows, columns = np.mgrid[0:height, 0:width]
    frame_SS[top : top + height, left : left + width] = 40 + 80 * rows / height + 60 * columns / width
    return frame_SS, mask_SS


def test_masked_lungs_stay_and_all_else_is_the_frames_median() -> None:
    frame_SS, mask_SS = film(20, 15, 50, 60)
    shown_SS = masked(frame_SS, mask_SS, CROP)
    assert (shown_SS[mask_SS] == frame_SS[mask_SS]).all()
    assert (shown_SS[~mask_SS] == np.sort(frame_SS.ravel())[(frame_SS.size - 1) // 2]).all()


def test_boxed_lungs_fill_the_frame_at_one_size_wherever_and_however_large_they_were() -> None:
    first, second = (boxed(*film(*box), CROP).astype(int) for box in ((20, 15, 60, 60), (50, 40, 30, 30)))
    assert np.abs(first - second).mean() < 6, "only their edges differ, which were sampled more or less finely"
    rows, columns = (np.flatnonzero((first != MID_GREY).any(axis))[[0, -1]] for axis in (1, 0))
    wanted = round(SIDE * 0.05 / 1.1)
    assert abs(rows[0] - wanted) <= 1 and abs(columns[-1] - (SIDE - 1 - wanted)) <= 1


def test_nothing_beside_the_lungs_changes_what_is_boxed() -> None:
    frame_SS, mask_SS = film(20, 15, 50, 60)
    other_SS = np.where(mask_SS, frame_SS, 255 - frame_SS)
    for mode in (boxed, boxed_equal):
        assert (mode(frame_SS, mask_SS, CROP) == mode(other_SS, mask_SS, CROP)).all()


def test_equalised_lungs_are_the_same_at_any_exposure_and_use_all_levels() -> None:
    frame_SS, mask_SS = film(20, 15, 50, 60)
    darker_SS = (16 * np.sqrt(frame_SS)).astype(np.uint8)
    first, second = (boxed_equal(shown_SS, mask_SS, CROP) for shown_SS in (frame_SS, darker_SS))
    assert np.abs(first.astype(int) - second).mean() < 3 < np.abs(frame_SS.astype(int) - darker_SS)[mask_SS].mean()
    levels = first[first != MID_GREY]
    assert levels.min() < 12 and levels.max() > 242


@pytest.mark.parametrize("mode", LUNG_MODES)
@pytest.mark.parametrize("mask", ["whole", "pixel", "corner", "row"])
def test_any_mask_that_is_not_empty_gives_a_frame(mode: str, mask: str) -> None:
    frame_SS, mask_SS = film(20, 15, 50, 60)[0], np.zeros((SIDE, SIDE), bool)
    mask_SS[{"whole": np.s_[:, :], "pixel": np.s_[40, 40], "corner": np.s_[-1, -1], "row": np.s_[50, :]}[mask]] = True
    shown_SS = LUNG_MODES[mode](frame_SS, mask_SS, CROP)  # type: ignore[index]
    assert shown_SS.shape == frame_SS.shape and shown_SS.dtype == np.uint8
    if mask == "whole" and mode == "boxed":
        assert (shown_SS == frame_SS).all()
