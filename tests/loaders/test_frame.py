"""The stored frame: grey window, fit and resize."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from loaders.config import AuditLimits, stored_side
from loaders.errors import RadiographError
from loaders.images.decode import DecodeSettings, Task, decode_into_spool
from loaders.images.frame import crop_area, fit_square, grey_window, resize, stored_frame
from loaders.images.quality import SIDE, SMALL
from tests import naive

pytestmark = [pytest.mark.numerical, pytest.mark.opencv]

ALL = (0, 255)


@pytest.mark.parametrize(("crop", "stored"), [(224, 320), (128, 182), (64, 92), (32, 46)])
def test_the_stored_side_leaves_whole_pixels_around_the_crop(crop: int, stored: int) -> None:
    assert stored_side(crop) == stored
    assert (stored - crop) % 2 == 0


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.uint16, 4095)])
def test_the_window_is_percentiles_a_thousandth_from_either_end(dtype: type, top: int) -> None:
    grey_HW = np.random.default_rng(top).beta(2, 5, (113, 97))
    grey_HW = (grey_HW * top).astype(dtype)
    low, high, saturated = grey_window(grey_HW)
    assert (low, high) == (naive.percentile_level(grey_HW, 0.001), naive.percentile_level(grey_HW, 0.999))
    assert saturated == pytest.approx(((grey_HW < low) | (grey_HW > high)).mean())


def test_a_frame_of_one_level_is_rejected_with_its_level() -> None:
    with pytest.raises(RadiographError, match="grey level 77"):
        grey_window(np.full((50, 50), 77, np.uint8))


def test_bit_depths_of_one_picture_give_one_frame() -> None:
    coarse_HW = np.random.default_rng(0).integers(3, 250, (90, 90)).astype(np.uint8)
    fine_HW = coarse_HW.astype(np.uint16) * 257
    np.testing.assert_array_equal(stored_frame(coarse_HW, 46, "stretch")[0], stored_frame(fine_HW, 46, "stretch")[0])


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (2, 2), (400, 31), (31, 400), (46, 46), (47, 45)])
@pytest.mark.parametrize("fit", ["stretch", "cover", "contain"])
def test_any_shape_becomes_a_square_of_the_asked_side(shape: tuple[int, int], fit: str) -> None:
    grey_HW = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    if fit == "cover" and min(shape) == 1:
        with pytest.raises(RadiographError):
            stored_frame(np.full(shape, 9, np.uint8), 46, fit)
        return
    frame_SS, _ = stored_frame(grey_HW, 46, fit)
    assert frame_SS.shape == (46, 46) and frame_SS.dtype == np.uint8 and frame_SS.flags.c_contiguous


def test_cover_cuts_the_longer_side_and_contain_pads_the_shorter_with_black() -> None:
    grey_HW = np.arange(12, dtype=np.uint8).reshape(2, 6) + 1
    assert fit_square(grey_HW, 2, "cover", ALL).tolist() == [[3, 4], [9, 10]]
    padded_SS = fit_square(grey_HW, 6, "contain", ALL)
    assert (padded_SS[:2] == 0).all() and (padded_SS[4:] == 0).all() and (padded_SS[2:4] == grey_HW).all()
    assert fit_square(grey_HW, 6, "stretch", ALL).shape == (6, 6)


@pytest.mark.parametrize("fit", ["stretch", "cover", "contain"])
@pytest.mark.parametrize("shape", [(200, 200), (260, 200), (200, 300)])
def test_a_mark_outside_the_crop_changes_no_pixel_of_the_crop(shape: tuple[int, int], fit: str) -> None:
    plain_HW = np.random.default_rng(1).integers(20, 180, shape).astype(np.uint8)
    marked_HW = plain_HW.copy()
    top, left = (0, 0) if fit != "cover" else ((shape[0] - min(shape)) // 2, (shape[1] - min(shape)) // 2)
    marked_HW[top : top + 20, left : left + 20] = 255  # a whole per cent of the frame, white
    marked_HW[-2:, -30:] = 0
    plain, marked = (stored_frame(grey_HW, 92, fit)[0] for grey_HW in (plain_HW, marked_HW))
    crop = slice(14, 78)
    assert (plain != marked).any()
    np.testing.assert_array_equal(plain[crop, crop], marked[crop, crop])


def test_the_audit_uses_the_window_of_the_whole_file(tmp_path: Path) -> None:
    grey_HW = np.random.default_rng(3).integers(100, 150, (80, 90)).astype(np.uint8)
    grey_HW[:4] = 255
    low, high, _ = grey_window(grey_HW)
    assert high == 255
    cv2.imwrite(str(tmp_path / "film.png"), grey_HW)
    settings = DecodeSettings(side=40, fit="stretch", max_pixels=10_000, workers=1, limits=AuditLimits())
    measurement = decode_into_spool(Task(0, "film.png"), root=tmp_path, spool=None, settings=settings).measurement
    assert measurement is not None
    whole_SS, stored_SS = resize(grey_HW, SIDE, SIDE, (low, high)), stored_frame(grey_HW, SIDE, "stretch")[0]
    wanted_SS, other_SS = (
        cv2.resize(frame_SS, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for frame_SS in (whole_SS, stored_SS)
    )
    np.testing.assert_array_equal(measurement.small_SS, wanted_SS)
    assert (measurement.small_SS != other_SS).any()


def test_the_window_is_that_of_the_crop() -> None:
    grey_HW = np.zeros((100, 60), np.uint8)
    grey_HW[15:85, 9:51] = np.random.default_rng(2).integers(40, 200, (70, 42))
    assert crop_area(grey_HW, "stretch").min() >= 40 and crop_area(grey_HW, "stretch").shape == (70, 42)
    assert crop_area(grey_HW, "cover").shape == (42, 42) and crop_area(grey_HW, "contain").shape == (70, 60)
    assert crop_area(grey_HW[:1, :1], "stretch").shape == crop_area(grey_HW[:2, :1], "cover")[:1].shape == (1, 1)


def test_a_sliver_is_contained_without_a_square_of_its_length() -> None:
    sliver_HW = np.random.default_rng(0).integers(0, 256, (1, 1_000_000)).astype(np.uint8)
    frame_SS, _ = stored_frame(sliver_HW, 46, "contain")
    assert frame_SS.shape == (46, 46) and frame_SS[22].any() and not frame_SS[:22].any()


def test_shrinking_averages_areas() -> None:
    grey_HW = np.kron(np.array([[10, 200], [60, 90]], np.uint8), np.ones((8, 8), np.uint8))
    assert resize(grey_HW, 2, 2, ALL).tolist() == [[10, 200], [60, 90]]
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    assert np.abs(resize(checks.astype(np.uint8), 16, 16, ALL).astype(int) - 127.5).max() <= 1


def test_an_axis_that_grows_is_bilinear_while_the_other_is_averaged() -> None:
    grey_HW = np.zeros((200, 10), np.uint8)
    grey_HW[:, 5:] = 240
    grey_HW[::2] //= 2
    got = resize(grey_HW, 50, 50, ALL).astype(int)
    rows_averaged = grey_HW.reshape(50, 4, 10).mean(1)
    wanted = cv2.resize(rows_averaged.astype(np.uint8), (50, 50), interpolation=cv2.INTER_LINEAR)
    assert np.abs(got - wanted).max() <= 1
