"""Copies between two sets: each kind is found, other films are not, and a look does not show its film."""

# N samples, S side of a stored frame

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import loaders.audit.copies
from benchmarks.copies import KINDS, copy_of, correlation, real_films, reconstruct, small_films, unlike
from benchmarks.datasets import repeat_frames
from loaders.audit.copies import (
    LEAST_SIDE,
    LOOK_BYTES,
    Copy,
    can_compare,
    copies_by_frames,
    copies_by_looks,
    looks_of,
)
from loaders.audit.near_duplicates import find_pairs
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.errors import BetonError, ConfigError
from loaders.images.frame import stored_frame
from loaders.images.quality import find_keypoints
from loaders.images.regions import boxed
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom

SIDE = 92  # of a crop of 64
WAYS: dict[str, Callable[[Beton, Beton], list[Copy]]] = {
    "looks": lambda tested, known: copies_by_looks(tested, looks_of(known)),
    "frames": copies_by_frames,
}


def film(patient: int) -> np.ndarray:
    return draw_phantom(PlannedPhantom(seed=3, patient=patient, size=200, arms_up=patient % 2 == 0)).image_HW


def beton(path: Path, *films: np.ndarray, side: int = SIDE) -> Beton:
    """A beton of these films, in its order."""
    frames_NSS = np.stack([stored_frame(grey_HW, side, "stretch")[0] for grey_HW in films])
    return Beton(repeat_frames(path, frames_NSS, len(films), side - 28))


def frames_beton(path: Path, *frames: np.ndarray) -> Beton:
    return Beton(repeat_frames(path, np.stack(frames), len(frames), 64))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Beton:
    """Films of six patients."""
    return beton(tmp_path_factory.mktemp("known") / "known.beton", *map(film, range(1, 7)))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("side", [SIDE, 182])
def test_each_kind_of_copy_is_found_and_other_films_are_not(way: str, side: int, known: Beton, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    copies = [cv2.imdecode(np.frombuffer(copy_of(film(4), kind, rng)[1], np.uint8), 0) for kind in KINDS]
    with beton(tmp_path / "tested.beton", film(7), *copies, film(8), film(2), side=side) as tested:
        found = WAYS[way](tested, known)
    assert [(copy.sample, copy.of) for copy in found] == [*((place, 3) for place in range(1, 6)), (7, 1)]
    assert all(0.87 <= copy.similarity <= 1 for copy in found)
    assert side != SIDE or found[-1].similarity == 1  # equal frames


def test_the_whole_film_of_a_known_crop_is_found(known: Beton, tmp_path: Path) -> None:
    whole = film(9)
    crop = whole[15:-3, 12:-15]  # 7.5 and 1.5, 6 and 7.5 % of the sides
    with beton(tmp_path / "a.beton", film(7), crop) as crops, beton(tmp_path / "b.beton", whole) as wholes:
        for tested, other, pair in ((crops, wholes, (1, 0)), (wholes, crops, (0, 1))):
            found = copies_by_looks(tested, looks_of(other))
            assert [(copy.sample, copy.of) for copy in found] == [pair]


def test_a_brighter_copy_of_lungs_in_their_box_is_found(tmp_path: Path) -> None:
    masks = [draw_phantom(PlannedPhantom(seed=3, patient=patient, size=200)).lung_mask_HW for patient in range(1, 7)]
    known, brighter = [], []
    for patient, mask_HW in enumerate(masks, 1):
        frame_SS = stored_frame(film(patient), SIDE, "stretch")[0]
        mask_SS = cv2.resize(mask_HW, (SIDE, SIDE)) > 127
        known.append(boxed(frame_SS, mask_SS, SIDE - 28))
        brighter.append(boxed((255 * (frame_SS / 255) ** 0.6).astype(np.uint8), mask_SS, SIDE - 28))
    opened = []
    for name, frames in (("known", known), ("brighter", brighter)):
        with frames_beton(tmp_path / "plain.beton", *frames) as plain:
            facts = replace(plain.facts, lungs="boxed", segmenter="given")
            write_beton(tmp_path / f"{name}.beton", frames, plain.labels, plain.rows_N, facts, plain.page_size)
        opened.append(Beton(tmp_path / f"{name}.beton"))
    found = copies_by_looks(opened[1], looks_of(opened[0]))
    assert [(copy.sample, copy.of) for copy in found] == [(place, place) for place in range(6)]
    for one in opened:
        one.close()


def test_a_look_has_128_bytes_and_is_the_same_for_any_number_of_threads(
    known: Beton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    with beton(tmp_path / "tested.beton", film(1)[10:], film(2), film(9)) as tested:
        for cores in (1, 3):
            monkeypatch.setattr(loaders.audit.copies, "usable_cores", lambda cores=cores: cores)
            monkeypatch.setattr(loaders.audit.near_duplicates, "usable_cores", lambda cores=cores: cores)
            look_NB = looks_of(known)
            assert look_NB.shape == (6, LOOK_BYTES) == (6, 128) and look_NB.dtype == np.uint8
            results.append((look_NB.tobytes(), copies_by_looks(tested, look_NB), copies_by_frames(tested, known)))
    assert results[0] == results[1] and len(results[0][1]) == 2


@pytest.mark.parametrize("way", WAYS)
def test_films_without_details_are_no_copies(way: str, known: Beton, tmp_path: Path) -> None:
    blank_SS, ramp_SS = np.full((SIDE, SIDE), 90, np.uint8), np.tile(np.arange(SIDE, dtype=np.uint8), (SIDE, 1))
    with frames_beton(tmp_path / "blank.beton", blank_SS, blank_SS, ramp_SS) as blank:
        assert not looks_of(blank)[:2].any() and looks_of(blank)[2].any()
        assert WAYS[way](blank, known) == WAYS[way](known, blank) == []
    with frames_beton(tmp_path / "another.beton", blank_SS // 2) as another, Beton(tmp_path / "blank.beton") as blank:
        assert WAYS[way](another, blank) == []


def test_nothing_is_a_copy_of_nothing_and_one_film_is_enough(known: Beton, tmp_path: Path) -> None:
    assert copies_by_looks(known, np.empty((0, LOOK_BYTES), np.uint8)) == []
    with beton(tmp_path / "one.beton", film(5)) as one:
        assert copies_by_looks(known, looks_of(one)) == copies_by_frames(known, one) == [Copy(4, 0, 1.0)]


@pytest.mark.parametrize("way", WAYS)
def test_frames_that_are_too_small_are_refused(way: str, known: Beton, tmp_path: Path) -> None:
    with beton(tmp_path / "small.beton", film(1), side=LEAST_SIDE - 2) as small:
        assert not can_compare(small) and can_compare(known)
        for pair in ((small, known), (known, small)):
            with pytest.raises(ConfigError, match=r"small\.beton: frames of \d+ pixels a side, expected at least"):
                WAYS[way](*pair)


@pytest.mark.parametrize("way", WAYS)
def test_damaged_frames_are_refused(way: str, known: Beton, tmp_path: Path) -> None:
    path = tmp_path / "damaged.beton"
    with beton(path, film(1), film(2)) as whole:
        place = int(whole.offset_N[1])
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with Beton(path) as damaged, pytest.raises(BetonError, match="sample 1: checksum"):
        WAYS[way](known, damaged)


def test_many_films_are_compared_by_looks_alone(known: Beton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders.audit.copies, "MOST_BY_FRAMES", 6)
    monkeypatch.setattr(loaders.audit.copies, "find_pairs", None)
    with beton(tmp_path / "one.beton", film(5)) as one:
        assert copies_by_frames(one, known) == [Copy(0, 4, 1.0)]


def test_across_two_sets_only_pairs_of_one_film_of_each_are_compared() -> None:
    frames = [cv2.resize((film(patient) // 257).astype(np.uint8), (160, 160)) for patient in (1, 2, 1, 2, 1)]
    keypoints = [find_keypoints(frame_SS) for frame_SS in frames]
    pairs = find_pairs(keypoints, frames, lambda done, total: None, 2)
    assert {(pair.first, pair.second) for pair in pairs if pair.similarity > 0.9} == {(0, 2), (0, 4), (1, 3)}
    assert all(pair.first < 2 <= pair.second for pair in pairs)
    assert find_pairs(keypoints, frames, lambda done, total: None, 5) == []
    blank = find_keypoints(np.zeros((160, 160), np.uint8))  # of the first set alone, of which nothing can be compared
    assert find_pairs([blank, *keypoints], [frames[0], *frames], lambda done, total: None, 1) == []


def reconstructed(own: Beton, victims: Beton) -> dict[str, float]:
    """How → correlation with the film, of what the mean film does not explain."""
    own_NF, film_NF = (small_films(beton, range(len(beton))) for beton in (own, victims))
    mean_F = own_NF.mean(0)
    made = reconstruct(film_NF, looks_of(victims), own_NF, looks_of(own))
    return {how: correlation(unlike(film_NF, mean_F), unlike(made_NF, mean_F)) for how, made_NF in made.items()}


def test_the_inverse_of_a_look_does_not_show_its_phantom(tmp_path: Path) -> None:
    # phantoms are drawn from so few numbers that whoever has many can guess one from any detail: not so real films
    with (
        beton(tmp_path / "own.beton", *map(film, range(1, 25))) as own,
        beton(tmp_path / "victims.beton", *map(film, range(30, 40))) as victims,
    ):
        assert reconstructed(own, victims)["direct inverse"] < 0.3


@pytest.mark.radiographs
def test_no_reconstruction_from_a_look_shows_a_real_film(radiographs: Path, tmp_path: Path) -> None:
    films = real_films(radiographs, "radiographs.csv")[::4]
    patients = sorted({one.patient for one in films})
    held = set(patients[::4])
    with (
        beton(tmp_path / "own.beton", *(one.grey() for one in films if one.patient not in held)) as own,
        beton(tmp_path / "victims.beton", *(one.grey() for one in films if one.patient in held)) as victims,
    ):
        found = reconstructed(own, victims)
    assert max(found.values()) < 0.3 and found.keys() >= {"ridge", "direct inverse", "film of the nearest look"}
