"""Kernels against their float64 oracles."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from kernels.bfloat16 import narrow, wide
from kernels.crops import affine_into, affine_scratch, crop_into
from kernels.decoding import count_coloured, histogram_into, luma_into, shrink_into, unfilter_into
from kernels.hamming import nearest_into
from loaders.sampling import inverse_matrices
from tests import naive

SIZES = [(1, 1), (2, 2), (3, 1), (33, 23), (46, 32), (182, 128)]


def frames(num_samples: int, stored: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random frames in a flat beton with odd gaps: frames_NSS, bytes_B, offset_N."""
    rng = np.random.default_rng(seed)
    frames_NSS = rng.integers(0, 256, (num_samples, stored, stored)).astype(np.uint8)
    offset_N = 7 + np.arange(num_samples) * (stored**2 + 13)
    bytes_B = np.zeros(int(offset_N[-1]) + stored**2 if num_samples else 1, np.uint8)
    for frame_SS, offset in zip(frames_NSS, offset_N, strict=True):
        bytes_B[offset : offset + stored**2] = frame_SS.reshape(-1)
    return frames_NSS, bytes_B, offset_N.astype(np.int64)


@pytest.mark.numerical
@pytest.mark.parametrize(("stored", "crop"), [(s, c) for s, c in SIZES if (s - c) % 2 == 0])
def test_crop_is_the_centre_mapped_to_unit_range(stored: int, crop: int) -> None:
    frames_NSS, bytes_B, offset_N = frames(3, stored)
    out_N1HW = np.full((3, 1, crop, crop), np.nan, np.float32)
    crop_into(out_N1HW, bytes_B, offset_N, stored)
    for frame_SS, out in zip(frames_NSS, out_N1HW, strict=True):
        np.testing.assert_allclose(out[0], naive.crop(frame_SS, crop), atol=2e-7)


@pytest.mark.numerical
def test_grey_levels_0_and_255_map_to_exactly_minus_1_and_1() -> None:
    out_N1HW = np.empty((1, 1, 2, 2), np.float32)
    crop_into(out_N1HW, np.array([0, 255, 255, 0], np.uint8), np.zeros(1, np.int64), 2)
    assert out_N1HW.ravel().tolist() == [-1, 1, 1, -1]


@pytest.mark.numerical
def test_affine_stays_within_a_thousandth_at_the_largest_size() -> None:
    frames_NSS, bytes_B, offset_N = frames(1, 2926)
    frames_NSS[:] = bytes_B[7:].reshape(frames_NSS.shape)[:] = np.where(frames_NSS > 127, 255, 0)
    inverse_N23 = inverse_matrices(np.array([0.26]), np.array([0.87]), 2048, 2926)
    out_N1HW = np.empty((1, 1, 2048, 2048), np.float32)
    affine_into(out_N1HW, bytes_B, offset_N, 2926, inverse_N23, 0, 2925, affine_scratch(2048, 2926))
    assert np.abs(out_N1HW[0, 0] - naive.affine(frames_NSS[0], inverse_N23[0], 2048, 0, 2925)).max() <= 1e-3


@pytest.mark.numerical
@pytest.mark.parametrize(("stored", "crop"), SIZES)
@pytest.mark.parametrize("whole_frame", [True, False])
def test_affine_stays_within_a_thousandth_of_the_oracle(stored: int, crop: int, whole_frame: bool) -> None:
    frames_NSS, bytes_B, offset_N = frames(8, stored, seed=stored)
    rng = np.random.default_rng(1)
    angle_N, zoom_N = rng.uniform(-3.2, 3.2, 8), rng.uniform(0.5, 2, 8)
    inverse_N23 = inverse_matrices(angle_N, zoom_N, crop, stored)
    margin = 0 if whole_frame else (stored - crop) // 2
    out_N1HW = np.full((8, 1, crop, crop), np.nan, np.float32)
    affine_into(
        out_N1HW, bytes_B, offset_N, stored, inverse_N23, margin, stored - 1 - margin, affine_scratch(crop, stored)
    )
    for frame_SS, inverse_23, out in zip(frames_NSS, inverse_N23, out_N1HW, strict=True):
        wanted = naive.affine(frame_SS, inverse_23, crop, margin, stored - 1 - margin)
        assert np.abs(out[0] - wanted).max() <= 1e-3


@pytest.mark.numerical
@pytest.mark.parametrize(("stored", "crop"), [(320, 224), (182, 128), (92, 64), (46, 32), (1, 1)])
def test_affine_at_the_identity_equals_crop_to_the_bit(stored: int, crop: int) -> None:
    _, bytes_B, offset_N = frames(2, stored)
    identity_N23 = inverse_matrices(np.zeros(2), np.ones(2), crop, stored)
    by_crop, by_affine = np.empty((2, 2, 1, crop, crop), np.float32)
    crop_into(by_crop, bytes_B, offset_N, stored)
    affine_into(by_affine, bytes_B, offset_N, stored, identity_N23, 0, stored - 1, affine_scratch(crop, stored))
    assert by_crop.tobytes() == by_affine.tobytes()


@pytest.mark.numerical
def test_an_empty_batch_is_left_alone() -> None:
    _, bytes_B, offset_N = frames(0, 4)
    out_N1HW = np.empty((0, 1, 2, 2), np.float32)
    crop_into(out_N1HW, bytes_B, offset_N, 4)
    affine_into(out_N1HW, bytes_B, offset_N, 4, np.empty((0, 2, 3), np.float32), 0, 3, affine_scratch(2, 4))
    assert out_N1HW.shape == (0, 1, 2, 2)


@pytest.mark.numerical
def test_far_coordinates_clamp_to_the_nearest_allowed_pixel() -> None:
    frames_NSS, bytes_B, offset_N = frames(1, 6)
    far_N23 = np.array([[[1, 0, 1e6], [0, 1, -1e6]]], np.float32)
    out_N1HW = np.empty((1, 1, 2, 2), np.float32)
    affine_into(out_N1HW, bytes_B, offset_N, 6, far_N23, 1, 4, affine_scratch(2, 6))
    np.testing.assert_allclose(out_N1HW.ravel(), naive.to_unit(frames_NSS[0, 1, 4]), atol=2e-7)


@pytest.mark.numerical
@given(angle=st.floats(-7, 7), zoom=st.floats(0.1, 10), side=st.integers(1, 12), margin=st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_affine_agrees_with_the_oracle_whatever_the_matrix(angle: float, zoom: float, side: int, margin: int) -> None:
    stored = side + 2 * margin
    frames_NSS, bytes_B, offset_N = frames(1, stored)
    inverse_N23 = inverse_matrices(np.array([angle]), np.array([zoom]), side, stored)
    out_N1HW = np.empty((1, 1, side, side), np.float32)
    affine_into(out_N1HW, bytes_B, offset_N, stored, inverse_N23, 0, stored - 1, affine_scratch(side, stored))
    assert np.abs(out_N1HW[0, 0] - naive.affine(frames_NSS[0], inverse_N23[0], side, 0, stored - 1)).max() <= 1e-3


@pytest.mark.numerical
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (17, 31)])
def test_luma_is_rec_601_rounded_to_nearest(dtype: type, shape: tuple[int, int]) -> None:
    top = np.iinfo(dtype).max
    colour_HWC = np.random.default_rng(0).integers(0, top + 1, (*shape, 3)).astype(dtype)
    out_HW = np.empty(shape, dtype)
    for red, blue in ((0, 2), (2, 0)):
        luma_into(out_HW, colour_HWC, red, blue)
        weights = np.array([0.299, 0.587, 0.114])[[red, 1, blue]]
        assert np.abs(out_HW - colour_HWC.astype(np.float64) @ weights).max(initial=0) <= 0.5 + top * 1e-5
    white = np.full((1, 1, 3), top, dtype)
    luma_into(out := np.empty((1, 1), dtype), white, 0, 2)
    assert out[0, 0] == top


@pytest.mark.numerical
@pytest.mark.parametrize(("dtype", "levels"), [(np.uint8, 256), (np.uint16, 65536)])
def test_histogram_counts_every_level(dtype: type, levels: int) -> None:
    for shape in ((1, 1), (3, 5), (40, 50), (0, 7)):  # words of eight bytes, and what is left
        grey_HW = np.random.default_rng(0).integers(0, levels, shape).astype(dtype)
        count_L = np.full(levels, 99)
        histogram_into(count_L, grey_HW)
        assert (count_L == np.bincount(grey_HW.ravel(), minlength=levels)).all()


@pytest.mark.numerical
def test_shrinking_maps_the_window_to_0_255_and_saturates() -> None:
    grey_HW = np.array([[0, 100, 151, 200, 65535]], np.uint16)
    out_hw, sum_W = np.empty((1, 5), np.uint8), np.empty(5, np.float32)
    shrink_into(out_hw, grey_HW, 100, 200, sum_W)
    assert out_hw.tolist() == [[0, 0, 130, 255, 255]]


@pytest.mark.numerical
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("shape", "small"), [((1, 1), (1, 1)), ((7, 5), (7, 5)), ((7, 5), (3, 2)), ((97, 64), (46, 46)), ((300, 5), (1, 5))]
)
def test_shrinking_averages_areas_within_half_a_level_of_the_oracle(
    dtype: type, shape: tuple[int, int], small: tuple[int, int]
) -> None:
    top = np.iinfo(dtype).max
    grey_HW = np.random.default_rng(0).integers(0, top + 1, shape).astype(dtype)
    low, high = top // 10, top - top // 10
    out_hw = np.empty(small, np.uint8)
    shrink_into(out_hw, grey_HW, low, high, np.empty(shape[1], np.float32))
    level_HW = np.clip((grey_HW.astype(np.float64) - low) * (255 / (high - low)), 0, 255)
    assert np.abs(out_hw - naive.area_average(level_HW, *small)).max() <= 0.5 + 1e-3


@pytest.mark.numerical
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), seed=st.integers(0, 99))
@settings(max_examples=80, deadline=None)
def test_shrinking_a_flat_picture_keeps_it_flat(rows: int, columns: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    grey_HW = np.full((rows, columns), rng.integers(0, 256), np.uint8)
    out_hw = np.empty((rng.integers(1, rows + 1), rng.integers(1, columns + 1)), np.uint8)
    shrink_into(out_hw, grey_HW, 0, 255, np.empty(columns, np.float32))
    assert (out_hw == grey_HW[0, 0]).all()


@pytest.mark.numerical
@pytest.mark.parametrize("pixel_bytes", [1, 3, 4])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, 7), (6, 1), (12, 9)])
def test_unfiltering_is_the_specifications(rows: int, columns: int, pixel_bytes: int) -> None:
    rng = np.random.default_rng(rows * columns)
    width = columns * pixel_bytes
    for first in range(5):  # each filter meets the first row, and each other filter above it
        filtered_HF = rng.integers(0, 256, (rows, width + 1)).astype(np.uint8)
        filtered_HF[:, 0] = (first + rng.integers(0, 5, rows)) % 5
        filtered_HF[0, 0] = first
        out_HB = np.full((rows, width), 77, np.uint8)
        assert unfilter_into(out_HB, filtered_HF.reshape(-1), pixel_bytes)
        np.testing.assert_array_equal(out_HB, naive.unfilter(filtered_HF.tobytes(), rows, width, pixel_bytes))


@pytest.mark.numerical
def test_a_filter_that_does_not_exist_is_reported() -> None:
    assert not unfilter_into(np.empty((2, 3), np.uint8), np.array([0, 1, 2, 3, 5, 1, 2, 3], np.uint8), 1)


@pytest.mark.numerical
def test_coloured_pixels_are_counted_as_the_definition_has_it() -> None:
    rng = np.random.default_rng(4)
    for dtype, top in ((np.uint8, 255), (np.uint16, 65535)):
        colour_HWC = rng.integers(0, top, (13, 17, 3), dtype=dtype)
        tint_C = np.array([0.1, -0.05, 0.0], np.float32)
        grey_HW1 = colour_HWC.astype(np.float64).mean(2, keepdims=True)
        away_HW = np.abs(colour_HWC - grey_HW1 * (1 + tint_C)).max(2)
        least = np.float32(0.1 * top)
        assert 0 < (expected := int((away_HW > least).sum())) < away_HW.size
        assert count_coloured(colour_HWC[::1, ::1], tint_C, least) == expected


REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import numpy as np
from kernels.fused_first_block import first_block_into
out, corner = np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1, 1), np.uint8)
frame, weight = np.zeros((1, 4, 4), np.float32), np.zeros((9, 1), np.float32)
frame[0, 1:3, 1:3], weight[4] = [[1, 2], [3, 4]], 1  # the convolution gives the frame
zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
first_block_into(out, corner, frame, weight, one, zero, one, zero, np.empty((4, 1), np.float32), 0, 1)
print(out[0, 0, 0, 0], sum(first_block_into.stats.cache_hits.values()))
"""


def run(folder: Path) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_kernel_is_compiled_again_when_what_it_inlines_from_another_file_has_changed(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(tmp_path) == ["4.0", "0"]
    assert run(tmp_path) == ["4.0", "1"]
    source = tmp_path / "kernels" / "fused_block.py"
    largest = "return lower if is_lower else upper, corner"
    assert source.read_text().count(largest) == 1
    source.write_text(source.read_text().replace(largest, "return upper if is_lower else lower, corner"))
    assert run(tmp_path) == ["2.0", "0"]


@pytest.mark.numerical
@pytest.mark.parametrize("queries", [0, 1, 7])
@pytest.mark.parametrize("codes", [0, 1, 1023, 2049])
def test_the_nearest_code_is_the_oracles(codes: int, queries: int) -> None:
    rng = np.random.default_rng(codes)
    code_NW, query_QW = (rng.integers(0, 2**64, (number, 2), np.uint64) for number in (codes, queries))
    query_QW[5:] = query_QW[:2]  # of equals the first
    code_NW[:queries:3] = query_QW[: min(codes, queries) : 3]  # distance 0
    best_N = np.zeros(codes, np.uint64)
    nearest_into(best_N, np.ascontiguousarray(code_NW.T), query_QW)
    if not queries:
        assert (best_N == 2**64 - 1).all()
        return
    distance_NQ = np.bitwise_count(code_NW[:, None] ^ query_QW).sum(2, dtype=np.int64)
    assert (best_N >> np.uint64(32)).tolist() == distance_NQ.min(1).tolist()
    assert (best_N & np.uint64(2**32 - 1)).tolist() == distance_NQ.argmin(1).tolist()


@njit
def to_bfloat16_and_back(narrow_N, wide_N, value_N):
    for place in range(value_N.size):
        narrow_N[place] = narrow(value_N[place], narrow_N)
        wide_N[place] = wide(narrow_N[place])


@pytest.mark.numerical
def test_bfloat16_is_rounded_as_by_torch_to_the_bit() -> None:
    upper_N = np.arange(1 << 16, dtype=np.uint32) << 16
    for lower in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):  # below, at and above half of the last place
        value_N = (upper_N | lower).view(np.float32)
        narrow_N, wide_N = np.empty(value_N.size, np.uint16), np.empty(value_N.size, np.float32)
        to_bfloat16_and_back(narrow_N, wide_N, value_N)
        wanted = torch.from_numpy(value_N).bfloat16()
        none_N = np.isnan(value_N)
        np.testing.assert_array_equal(np.isnan(wide_N), none_N)
        np.testing.assert_array_equal(narrow_N[~none_N], wanted.view(torch.uint16).numpy()[~none_N])
        np.testing.assert_array_equal(wide_N, wanted.float().numpy())
