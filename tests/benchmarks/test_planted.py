"""Planted defects: films are spoilt as documented."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.audit.defects import ONE_GRADE, PLANTED, SEVERITIES, VARIANTS, Planter, side_marker
from loaders.audit.findings import DEFECTS
from loaders.images.radiograph import decode_radiograph
from loaders.phantom.phantom import draw_phantom

ALL = [
    pytest.param(defect, planter, id=f"{defect}: {name}")
    for defect, variants in VARIANTS.items()
    for name, planter in variants.items()
]
GRADED = [param for param in ALL if param.values[0] not in ONE_GRADE]


@pytest.fixture(scope="module")
def film_HW() -> np.ndarray:
    """A phantom, uint16 of 160 × 160."""
    return draw_phantom(
        seed=3, patient=1, image=0, label="normal", size=160, strength=1, arms_up=False, marked=False
    ).image_HW


def small(film_HW: np.ndarray) -> np.ndarray:
    """The phantom as uint8 of 97 × 131."""
    return cv2.resize((film_HW >> 8).astype(np.uint8), (131, 97), interpolation=cv2.INTER_AREA)


def distance(spoilt: np.ndarray, film_HW: np.ndarray) -> float:
    """Mean difference in shares of white, after a resize back where the shape is another."""
    rows, columns = film_HW.shape
    spoilt = spoilt.astype(np.float32)
    if spoilt.shape[:2] != film_HW.shape:
        spoilt = cv2.resize(spoilt, (columns, rows), interpolation=cv2.INTER_LINEAR)
    clean = film_HW if spoilt.ndim == 2 else film_HW[..., None]
    return float(np.abs(spoilt - clean).mean()) / np.iinfo(film_HW.dtype).max


def test_planted_defects_are_ones_that_the_audit_names() -> None:
    assert set(PLANTED) == set(VARIANTS) <= set(DEFECTS)
    assert set(ONE_GRADE) < set(PLANTED)


@pytest.mark.parametrize(("defect", "planter"), ALL)
@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_planted_defect_spoils_a_picture_of_odd_sides_and_keeps_its_type(
    film_HW: np.ndarray, defect: str, planter: Planter, severity: int, dtype: type
) -> None:
    clean_HW = small(film_HW) if dtype is np.uint8 else np.ascontiguousarray(film_HW[:97, :131])
    before_HW = clean_HW.copy()
    spoilt = planter(clean_HW, severity, np.random.default_rng(7))
    assert spoilt.dtype == dtype and spoilt.flags.c_contiguous and min(spoilt.shape) > 0
    assert spoilt.ndim == (3 if defect == "colour-annotation" else 2) and spoilt.shape[2:] in ((), (3,))
    assert not np.array_equal(spoilt, clean_HW if spoilt.ndim == 2 else np.repeat(clean_HW[..., None], 3, 2))
    np.testing.assert_array_equal(clean_HW, before_HW)


@pytest.mark.parametrize(("defect", "planter"), ALL)
def test_the_generator_alone_decides(film_HW: np.ndarray, defect: str, planter: Planter) -> None:
    first, second = (planter(small(film_HW), 3, np.random.default_rng(11)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("defect", "planter"), GRADED)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_graver_defect_differs_more(film_HW: np.ndarray, defect: str, planter: Planter, seed: int) -> None:
    grades = [distance(planter(film_HW, severity, np.random.default_rng(seed)), film_HW) for severity in SEVERITIES]
    assert grades == sorted(grades) and grades[4] > 1.5 * grades[0], grades


@pytest.mark.parametrize("defect", ONE_GRADE)
def test_a_defect_of_one_grade_is_the_same_at_any_severity(film_HW: np.ndarray, defect: str) -> None:
    faint, blatant = (PLANTED[defect](film_HW, severity, np.random.default_rng(2)) for severity in (1, 5))
    np.testing.assert_array_equal(faint, blatant)


@pytest.mark.parametrize("defect", PLANTED)
def test_every_variant_of_a_defect_is_drawn(film_HW: np.ndarray, defect: str) -> None:
    rng = np.random.default_rng(0)
    drawn = {PLANTED[defect](small(film_HW), 5, rng).tobytes() for _ in range(60)}
    assert len(drawn) >= len(VARIANTS[defect])


@pytest.mark.parametrize("severity", [0, 6, -1])
@pytest.mark.parametrize(("defect", "planter"), ALL)
def test_a_severity_out_of_range_is_refused(film_HW: np.ndarray, defect: str, planter: Planter, severity: int) -> None:
    with pytest.raises(ValueError, match=f"severity: found {severity}, expected one of 1 to 5"):
        planter(small(film_HW), severity, np.random.default_rng(0))


def test_inversion_and_turns_can_be_undone(film_HW: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    invert = VARIANTS["inverted"]["inverted"]
    np.testing.assert_array_equal(invert(invert(film_HW, 1, rng), 1, rng), film_HW)
    turned_HW = VARIANTS["rotated"]["90 degrees"](film_HW, 1, rng)
    np.testing.assert_array_equal(VARIANTS["rotated"]["270 degrees"](turned_HW, 1, rng), film_HW)


@pytest.mark.parametrize(("severity", "share"), [(1, 0.04), (5, 0.3)])
def test_margins_are_the_named_share_of_what_results(film_HW: np.ndarray, severity: int, share: float) -> None:
    framed_HW = VARIANTS["borders"]["white frame"](film_HW, severity, np.random.default_rng(0))
    width = round(share * len(framed_HW))
    np.testing.assert_array_equal(framed_HW[width:-width, width:-width], film_HW)
    assert (framed_HW[:width] == 65535).all() and (framed_HW[:, -width:] == 65535).all()


def test_a_small_picture_of_low_resolution_is_still_smaller_than_it_was(film_HW: np.ndarray) -> None:
    sides = [
        min(PLANTED["low-resolution"](film_HW, severity, np.random.default_rng(0)).shape) for severity in SEVERITIES
    ]
    assert sides == sorted(sides, reverse=True) and sides[0] < 160 and sides[-1] == 40


def test_a_side_marker_stays_small_and_in_an_upper_corner(film_HW: np.ndarray) -> None:
    for seed in range(8):
        marked_HW = side_marker(film_HW, np.random.default_rng(seed))
        rows, columns = np.nonzero(marked_HW != film_HW)
        assert 0 < len(rows) < 0.01 * film_HW.size
        assert rows.max() < 0.2 * 160 and (columns.max() < 0.2 * 160 or columns.min() > 0.8 * 160)


@pytest.mark.radiographs
@pytest.mark.parametrize("defect", PLANTED)
def test_a_real_radiograph_is_spoilt_by_each_defect_at_each_severity(radiographs: Path, defect: str) -> None:
    path = sorted((radiographs / "radiographs" / "normal").iterdir())[0]
    grey_HW = decode_radiograph(path, max_pixels=64_000_000).grey_HW
    clean_HW = cv2.resize(grey_HW, (256, 256), interpolation=cv2.INTER_AREA)
    for severity in SEVERITIES:
        spoilt = PLANTED[defect](clean_HW, severity, np.random.default_rng(severity))
        assert spoilt.dtype == clean_HW.dtype
        assert spoilt.shape != clean_HW.shape or not np.array_equal(spoilt, clean_HW)
