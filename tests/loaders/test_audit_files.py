"""The audit of files: the defects of one, the copies among several, and conversion by its verdicts."""

import csv
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from benchmarks.audit.defects import PLANTED, VARIANTS
from kernels.hog import directions_into
from loaders.audit.audit import audit
from loaders.audit.findings import DEFECTS, FileFinding
from loaders.audit.near_duplicates import Pair, find_pairs
from loaders.audit.table import read_decisions, table_bytes
from loaders.audit.verdicts import judge, lungs_of
from loaders.beton.reader import Beton
from loaders.cautions import caution
from loaders.config import AuditConfig, AuditLimits, CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.conversion import given_decisions
from loaders.convert.convert import convert
from loaders.errors import BetonError, ConfigError, InputError, IntegrityError, RadiographError
from loaders.images.decode import Decoded
from loaders.images.frame import grey_window, repair
from loaders.images.kind import KINDS, kind_features, kind_of, shipped_weights
from loaders.images.lungs import Lungs, Segmenter, dice, shipped_segmenter
from loaders.images.quality import (
    DETECTORS,
    OF_LUNGS,
    Measurement,
    find_keypoints,
    inner_box,
    limit_of,
    measure,
    own_defects,
    share_at_edge,
)
from loaders.images.radiograph import decode_radiograph
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom, write_phantoms
from loaders.settings import build
from loaders.sources.entry import ABSENT, PRESENT, UNKNOWN, Entry
from loaders.statistics import wilson
from tests.loaders.test_audit_page import make_file
from tests.loaders.test_dicom import native
from tests.naive import directions

ROOT = Path(__file__).parents[2]
LIMITS = AuditLimits()


def phantom(patient: int, size: int = 400) -> np.ndarray:
    film = draw_phantom(PlannedPhantom(seed=1, patient=patient, size=size))
    return (film.image_HW // 257).astype(np.uint8)


def measured(grey_HW: np.ndarray, colour: float = 0.0) -> Measurement:
    low, high, _ = grey_window(grey_HW)
    return measure(np.ascontiguousarray(grey_HW), (low, high), colour, 320)


def judged(
    path: str, grey_HW: np.ndarray | None = None, *, label: str = "", patient: str = "", **changes: object
) -> FileFinding:
    decoded = Decoded(problem="cut short")
    if grey_HW is not None:
        rows, columns = grey_HW.shape
        decoded = Decoded(pixel_hash=path.encode(), width=columns, height=rows, measurement=measured(grey_HW))
    entry = Entry(path=path, label=label, patient=patient)
    return FileFinding(entry=entry, decoded=replace(decoded, **changes))  # type: ignore[arg-type]


# ---- one file


@pytest.mark.parametrize("sides", [(8, 8), (16, 40), (64, 64)])
def test_directions_are_those_of_the_slow_oracle(sides: tuple[int, int]) -> None:
    picture_HW = np.random.default_rng(0).normal(0, 50, sides).astype(np.float32)
    found_RCB = np.full((4, 4, 12), np.nan, np.float32)
    directions_into(found_RCB, picture_HW)
    np.testing.assert_allclose(found_RCB, directions(picture_HW, 4, 12), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("size", [256, 400, 512])
def test_clean_phantoms_of_all_classes_have_no_defect(size: int) -> None:
    for patient in range(10):
        label = ("covid", "normal", "pneumonia")[patient % 3]
        film = draw_phantom(PlannedPhantom(seed=5, patient=patient, label=label, size=size))
        assert set(own_defects(measured(film.image_HW), LIMITS)) <= {"borders"}, patient  # air may be as even


@pytest.mark.parametrize("defect", ["blurred", "inverted", "rotated", "borders", "low-resolution", "text-or-mark"])
def test_blatant_defects_are_found_in_phantoms(defect: str) -> None:
    found = 0
    for patient in range(8):
        spoilt = PLANTED[defect](phantom(patient, 512), 5, np.random.default_rng(patient))
        found += defect in own_defects(measured(spoilt), LIMITS)
    assert found >= 6


@pytest.mark.parametrize(("defect", "severity", "least"), [("no-lungs", 1, 5), ("lungs-not-two", 4, 7)])
def test_parts_of_phantoms_without_lungs_or_with_one_are_found(defect: str, severity: int, least: int) -> None:
    found = 0
    for patient in range(8):
        part_HW = PLANTED[defect](phantom(patient, 512), severity, np.random.default_rng(patient))
        # what is beside the lungs may show one "lung": any of these defects leaves the film out
        found += bool({*OF_LUNGS, "not-a-radiograph"} & set(own_defects(measured(part_HW), LIMITS)))
        assert defect not in own_defects(measured(phantom(patient, 512)), LIMITS)
    assert found >= least


@pytest.mark.parametrize("side", ["t", "l", "r"])
def test_lungs_that_end_at_the_films_edge_are_cut_off_and_whole_ones_are_not(side: str) -> None:
    grade = {"t": 5, "l": 2, "r": 2}[side]  # more of a side is a lung of the two
    films = [phantom(patient) for patient in range(6)]
    cut = [VARIANTS["lungs-cut-off"][side](film, grade, np.random.default_rng(0)) for film in films]
    assert sum("lungs-cut-off" in own_defects(measured(film), LIMITS) for film in cut) >= 5
    assert not any("lungs-cut-off" in own_defects(measured(film), LIMITS) for film in films)


def test_the_share_at_an_edge_is_of_the_lungs_width_above_and_below_and_of_their_height_at_a_side() -> None:
    mask_SS = np.zeros((128, 128), bool)
    assert share_at_edge(mask_SS) == 0
    cv2.ellipse(whole := mask_SS.astype(np.uint8), (64, 40), (30, 40), 0, 0, 360, 1, cv2.FILLED)
    assert 0 < share_at_edge(whole > 0) < 0.3  # the apex touches
    mask_SS[50:90, 80:] = True
    assert share_at_edge(mask_SS) == 1
    mask_SS[90:110, 10:40] = True
    assert share_at_edge(mask_SS) == 40 / 60
    mask_SS[124:, 0:20] = True
    assert share_at_edge(mask_SS) == pytest.approx(max(20 / 88, 40 / 64, 4 / 64))


@pytest.mark.parametrize("change", ["none", "letterbox", "inverted"])
def test_lungs_are_found_inside_the_borders_of_a_film_and_of_its_negative(change: str) -> None:
    grey_HW = phantom(4)
    if change == "letterbox":
        grey_HW = np.pad(grey_HW, ((80, 80), (0, 40)))
    found = measured(255 - grey_HW if change == "inverted" else grey_HW).lungs
    truth_HW = draw_phantom(PlannedPhantom(seed=1, patient=4, size=400)).lung_mask_HW
    truth_SS = cv2.resize(truth_HW, (92, 92), interpolation=cv2.INTER_AREA) > 127
    assert found.problem == "" and found.mask_SS.shape == (92, 92) and dice(found.mask_SS, truth_SS) > 0.9


def test_a_quarter_turn_is_undone_in_the_right_direction() -> None:
    for turns in (1, 2, 3):
        grey_HW = np.ascontiguousarray(np.rot90(phantom(3), turns))
        film = judged("a", grey_HW)
        judge([film], [], LIMITS)
        assert film.verdict == "fix"
        np.testing.assert_array_equal(repair(grey_HW, film.fix), phantom(3))


@pytest.mark.parametrize("level", [0, 255])
@pytest.mark.parametrize("share", [6, 10])
def test_a_film_in_a_letterbox_is_repaired_and_has_no_other_defect(level: int, share: int) -> None:
    for patient in range(4):
        pad = 400 // share
        grey_HW = np.pad(phantom(patient), ((pad, pad), (pad, pad)), constant_values=level)
        film = judged("a", grey_HW)
        judge([film], [], LIMITS)
        assert film.defects == ["borders"], film.measurement
        repaired_HW = repair(grey_HW, film.fix)
        assert all(400 - 8 <= side <= 400 for side in repaired_HW.shape)
        assert repaired_HW.min() > level or repaired_HW.max() < level or (repaired_HW == level).mean() < 0.3


def test_resolution_is_that_of_the_film_and_not_of_the_page_around_it() -> None:
    page_HW = np.full((600, 600), 255, np.uint8)
    page_HW[200:380, 200:380] = phantom(1, 180)
    assert measured(page_HW).scores["low-resolution"] == pytest.approx(320 / 180, rel=0.03)


def test_an_inverted_film_in_a_letterbox_is_repaired_in_two_steps() -> None:
    grey_HW = np.pad(255 - phantom(2), ((60, 60), (0, 0)), constant_values=0)
    film = judged("a", grey_HW)
    judge([film], [], LIMITS)
    assert film.defects == ["inverted", "borders"] and film.verdict == "fix"
    repaired_HW = repair(grey_HW, film.fix)
    assert abs(repaired_HW.shape[0] - 400) <= 4 and own_defects(measured(repaired_HW), LIMITS) == []


def test_what_is_no_radiograph_gets_no_other_opinion_on_its_pose() -> None:
    page_HW = np.full((400, 400), 255, np.uint8)
    for row in range(20, 380, 14):
        page_HW[row : row + 5, 20:380:3] = 20
    found = own_defects(measured(page_HW), LIMITS)
    assert found[0] == "not-a-radiograph"
    assert not {"lateral", "rotated", "inverted", "misaligned", "blurred", "exposure", *OF_LUNGS} & set(found)


@pytest.mark.parametrize("defect", ["not-a-radiograph", "lateral", "rotated"])
def test_the_lungs_of_what_is_no_upright_frontal_film_are_no_defect(defect: str) -> None:
    spoilt = measured(phantom(1))
    bad = replace(spoilt, scores=spoilt.scores | dict.fromkeys((defect, *OF_LUNGS), 1.0))
    assert own_defects(bad, LIMITS) == [defect]


def test_where_no_lungs_are_found_they_are_not_called_one_or_cut_off_besides() -> None:
    clean = measured(phantom(1))
    found = own_defects(replace(clean, scores=clean.scores | dict.fromkeys(OF_LUNGS, 1.0)), LIMITS)
    assert found == ["no-lungs"]


def test_the_box_inside_borders_is_exact_on_drawn_margins() -> None:
    frame_HW = np.pad(np.random.default_rng(0).integers(40, 200, (70, 50), np.uint8), ((5, 9), (0, 13)))
    assert inner_box(frame_HW) == (5, 75, 0, 50)
    assert inner_box(np.zeros((64, 64), np.uint8)) == (0, 64, 0, 64)


def test_a_crop_that_no_longer_fits_is_refused() -> None:
    with pytest.raises(RadiographError, match="40x30 pixels, expected room for the audit's crop 0:31,0:40"):
        repair(np.zeros((30, 40), np.uint8), "crop 0:31,0:40")


def test_16_bit_inversion_uses_the_whole_depth() -> None:
    assert repair(np.array([[0, 65535, 5]], np.uint16), "invert").tolist() == [[65535, 0, 65530]]


def test_colour_is_counted_where_it_stands_out_and_not_in_a_tint(tmp_path: Path) -> None:
    grey_HW = phantom(1)
    tinted_HWC = np.stack([grey_HW, grey_HW, grey_HW // 2], 2)
    marked_HWC = np.stack([grey_HW] * 3, 2)
    marked_HWC[100:140, 100:180] = (0, 0, 255)
    share = 40 * 80 / grey_HW.size
    for suffix in ("png", "jpg", "tif", "bmp"):
        for name, pixels, expected in (("tint", tinted_HWC, 0.0), ("mark", marked_HWC, share), ("grey", grey_HW, 0.0)):
            path = tmp_path / f"{name}.{suffix}"
            cv2.imwrite(str(path), pixels)
            found = decode_radiograph(path, max_pixels=10**7, with_colour=True).colour
            assert found == pytest.approx(expected, abs=0.01 if name == "tint" else 0.003), (name, suffix)


def test_kinds_add_up_and_weights_have_finite_numbers() -> None:
    weights = shipped_weights()
    odds_K, pose_P = kind_of(kind_features(phantom(0)), weights)
    assert odds_K.sum() == pytest.approx(1, abs=1e-5) and KINDS[int(odds_K.argmax())] == "frontal"
    assert np.isfinite(pose_P).all() and all(np.isfinite(getattr(weights, name)).all() for name in weights.__slots__)


@pytest.mark.parametrize("sides", [(32, 32), (33, 480), (517, 97)])
def test_odd_and_small_sizes_are_measured(sides: tuple[int, int]) -> None:
    for dtype in (np.uint8, np.uint16):
        grey_HW = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, sides).astype(dtype)
        found = measured(grey_HW)
        assert set(found.scores) == set(DETECTORS) and all(np.isfinite(list(found.scores.values())))
        assert found.thumbnail.startswith(b"\xff\xd8")


def test_every_detector_has_a_limit_and_a_name_in_the_vocabulary() -> None:
    for detector in DETECTORS:
        assert detector in DEFECTS and limit_of(LIMITS, detector) > 0


# ---- the lungs, for the probes


def seeing(*seen_by: set[bytes]) -> Segmenter:
    """The shipped nets, as if each had been trained on the films with these hashes."""
    shipped = shipped_segmenter()
    nets = [
        msgspec.structs.replace(net, pixels=[pixels.hex() for pixels in seen], patients=[])
        for net, seen in zip(shipped.record.nets, seen_by, strict=True)
    ]
    return replace(shipped, record=msgspec.structs.replace(shipped.record, nets=nets))


def test_lungs_are_found_by_nets_that_saw_no_film_of_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    films = [judged(name, phantom(place)) for place, name in enumerate("abcd")]
    group_N = np.array([0, 1, 1, 2])
    monkeypatch.setattr("loaders.audit.verdicts.shipped_segmenter", lambda: seeing({b"a", b"b"}, {b"a"}))
    asked: list[tuple[str, list[int]]] = []
    find = Segmenter.find

    def watched(self: Segmenter, frame_SS: np.ndarray, nets: Sequence[int] = (0, 0)) -> Lungs:
        (name,) = [
            film.path for film, one in zip(films, measured_N, strict=True) if np.array_equal(one.compared_SS, frame_SS)
        ]
        asked.append((name, list(nets)))
        return find(self, frame_SS, nets)

    measured_N = [film.decoded.measurement for film in films if film.decoded.measurement]
    monkeypatch.setattr(Segmenter, "find", watched)
    masks_NSS = lungs_of(films, measured_N, group_N, lambda done, total: None)
    assert asked == [("b", [1, 1]), ("c", [1, 1])]  # that of d was found when it was measured
    assert masks_NSS.any((1, 2)).tolist() == [False, True, True, True]  # every net saw a
    np.testing.assert_array_equal(masks_NSS[3], measured_N[3].lungs.mask_SS)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_the_lungs_of_a_turned_film_are_those_of_the_film_as_it_is_repaired(turns: int) -> None:
    upright, turned = judged("a", phantom(3)), judged("b", np.ascontiguousarray(np.rot90(phantom(3), turns)))
    judge([upright, turned], [], LIMITS)
    assert turned.defects == ["rotated"]
    films = [upright, turned]
    measured_N = [film.decoded.measurement for film in films if film.decoded.measurement]
    first_SS, second_SS = lungs_of(films, measured_N, np.arange(2), lambda done, total: None)
    assert dice(first_SS, second_SS) > 0.95


# ---- copies


def test_copies_in_all_their_forms_are_paired_and_others_are_not() -> None:
    original = phantom(1, 500)
    rng = np.random.default_rng(0)
    forms = {
        "smaller": cv2.resize(original, (333, 333), interpolation=cv2.INTER_AREA),
        "cropped": np.ascontiguousarray(original[15:480, 20:490]),
        "equalised": cv2.equalizeHist(original),
        "jpeg": cv2.imdecode(cv2.imencode(".jpg", original, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 0),
        "darker": (original * 0.6 + rng.normal(0, 1, original.shape)).clip(0, 255).astype(np.uint8),
    }
    forms["negative"] = 255 - original
    others = [phantom(patient, 500) for patient in range(2, 8)]
    measurements = [measured(grey_HW) for grey_HW in (original, *forms.values(), *others)]
    pairs = find_pairs(
        [one.keypoints for one in measurements], [one.compared_SS for one in measurements], lambda done, total: None
    )
    alike = {(pair.first, pair.second) for pair in pairs if pair.similarity >= LIMITS.limit_near_duplicate}
    family = range(len(forms) + 1)
    assert {second for first, second in alike if first == 0} == set(family) - {0}
    assert all(first in family and second in family for first, second in alike)


def test_nothing_and_blank_pictures_have_no_pairs() -> None:
    blank_SS = np.zeros((160, 160), np.uint8)
    assert find_pairs([], [], lambda done, total: None) == []
    assert find_pairs([find_keypoints(blank_SS)] * 2, [blank_SS] * 2, lambda done, total: None) == []


def test_the_best_copy_stays_and_is_never_the_equalised_one() -> None:
    original, larger = phantom(1, 400), phantom(1, 600)
    films = [
        judged("a-equalised.png", cv2.equalizeHist(larger)),
        judged("b.png", original),
        judged("c.png", larger),
    ]
    judge(films, [Pair(0, 1, 0.99), Pair(0, 2, 0.99)], LIMITS)
    assert [film.verdict for film in films] == ["quarantine", "quarantine", "keep"]
    assert films[1].note == "copy of c.png" and len({film.group for film in films}) == 1


def test_a_quarantined_file_is_never_the_best_copy() -> None:
    larger = cv2.GaussianBlur(phantom(1, 800), (0, 0), 16)
    films = [judged("a", larger), judged("b", phantom(1, 400))]
    judge(films, [Pair(0, 1, 1.0)], LIMITS)
    assert films[0].defects == ["blurred", "near-duplicate"] and films[0].copy_of == "b"
    assert films[1].verdict == "keep" and films[1].copy_of == ""


def test_the_note_of_a_large_conflict_stays_short() -> None:
    one = measured(phantom(1, 64))
    films = [
        judged(str(number), label=str(number % 2), problem="", pixel_hash=b"same", measurement=one)
        for number in range(50)
    ]
    judge(films, [], LIMITS)
    assert films[0].note == "one film with different labels: 0 (0), 1 (1), 2 (0) and 47 more"


def test_a_pair_below_the_limit_changes_nothing() -> None:
    films = [judged("a", phantom(1)), judged("b", phantom(2))]
    judge(films, [Pair(0, 1, 0.899)], LIMITS)
    assert [film.verdict for film in films] == ["keep", "keep"] and films[0].group != films[1].group


@pytest.mark.parametrize(
    ("values", "note", "kept"),
    [
        ([(PRESENT, ABSENT), (PRESENT, PRESENT)], "one film with different labels of Mass: a, b", []),
        ([(PRESENT, ABSENT), (ABSENT, PRESENT)], "one film with different labels of Edema and Mass: a, b", []),
        ([(PRESENT, UNKNOWN), (PRESENT, PRESENT)], "copy of b", ["b"]),
        ([(UNKNOWN, UNKNOWN), (UNKNOWN, UNKNOWN)], "", ["a"]),
    ],
)
def test_copies_contradict_in_a_known_finding_alone_and_that_with_most_known_is_kept(
    values: list[tuple[int, int]], note: str, kept: list[str]
) -> None:
    films = [judged("a", phantom(1)), judged("b", phantom(1))]
    films = [
        replace(film, entry=replace(film.entry, findings=bytes(pair))) for film, pair in zip(films, values, strict=True)
    ]
    judge(films, [Pair(0, 1, 1.0)], LIMITS, ("Edema", "Mass"))
    assert films[0].note == note and [film.path for film in films if film.verdict == "keep"] == kept
    assert ["label-conflict" in film.defects for film in films] == [not kept] * 2


def test_copies_with_different_labels_all_go() -> None:
    films = [judged("a", phantom(1), label="covid"), judged("b", phantom(1), label="normal")]
    judge(films, [Pair(0, 1, 1.0)], LIMITS)
    assert all("label-conflict" in film.defects and film.verdict == "quarantine" for film in films)
    assert films[0].note == "one film with different labels: a (covid), b (normal)"


def test_patients_and_copies_make_groups_together() -> None:
    films = [
        judged("a", phantom(1), patient="x"),
        judged("b", phantom(2), patient="x"),
        judged("c", phantom(2)),
        judged("d", phantom(4)),
        judged("e"),
    ]
    judge(films, [Pair(1, 2, 1.0)], LIMITS)
    assert films[0].group == films[1].group == films[2].group
    assert len({film.group for film in films}) == 3
    assert films[4].defects == ["unreadable"] and films[4].note == "cut short" and films[4].verdict == "quarantine"


# ---- the table


def test_the_table_survives_hostile_names_and_is_read_back(tmp_path: Path) -> None:
    names = ["a\rb.png", "a\nb.png", 'quo"te,.png', "\udcff.png", "<script>.png", "=1+1.png"]
    files = [make_file(name, "inverted", fix="crop 1:9,0:4; invert; rotate 90") for name in names]
    (tmp_path / "audit.csv").write_bytes(table_bytes(files))
    read = read_decisions(tmp_path / "audit.csv")
    assert list(read) == names
    assert {(one.verdict, one.fix, one.defects) for one in read.values()} == {
        ("fix", "crop 1:9,0:4; invert; rotate 90", ("inverted",))
    }


@pytest.mark.parametrize(
    "text",
    [
        "path,verdict,fix,group\r\na.png,Keep,,1\r\nb c.png,QUARANTINE ,,2\r\nd.png,Fix,Rotate 90,3\r\n",
        "path;verdict;fix;group\r\na.png;keep;;1\r\nb c.png;quarantine;;2\r\nd.png;fix;rotate 90;3\r\n;;;\r\n",
        "\ufeffPath\tVerdict\tFix\tGroup\na.png\tkeep\t\t1\n\n./b c.png\tquarantine\t\t2\nd.png\tfix\trotate 90\t3\n",
        "group,fix,verdict,path,my notes\n1,,keep,a.png,\n2,,quarantine,b c.png,x\n3,rotate 90,fix,d.png,\n,,,,\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_table_edited_in_a_spreadsheet_keeps_its_decisions(tmp_path: Path, text: str, encoding: str) -> None:
    (tmp_path / "audit.csv").write_bytes(text.encode(encoding))
    decisions = read_decisions(tmp_path / "audit.csv")
    assert {path: (one.verdict, one.fix, one.group) for path, one in decisions.items()} == {
        "a.png": ("keep", "", "1"), "b c.png": ("quarantine", "", "2"), "d.png": ("fix", "rotate 90", "3"),
    }  # fmt: skip


def test_a_table_that_a_spreadsheet_saved_in_latin_1_decides_on_the_same_files(tmp_path: Path) -> None:
    (tmp_path / "audit.csv").write_bytes("path,verdict,fix,group\ngröße.png,quarantine,,1\n".encode("latin-1"))
    (tmp_path / "größe.png").touch()
    entries = [Entry(path="größe.png", label="a")]
    assert given_decisions(str(tmp_path / "audit.csv"), tmp_path, entries)["größe.png"].verdict == "quarantine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na,b\n", "columns path, label, expected at least path, verdict, fix and group"),
        ("path,verdict,fix,group\na,maybe,,1\n", "line 2 has verdict 'maybe', expected keep, fix, quarantine"),
        ("path,verdict,fix,group\na,fix,,1\n", "line 2 has fix ''"),
        ("path,verdict,fix,group\na,fix,rotate 45,1\n", "line 2 has fix 'rotate 45'"),
        ("path,verdict,fix,group\na,keep,,1\na,keep,,1\n", "line 3 repeats a of line 2"),
        ("path,verdict,fix,group\na\n", "line 2 has verdict ''"),
    ],
)
def test_a_table_that_is_not_an_audits_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "audit.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_decisions(tmp_path / "audit.csv")
    assert message in str(caught.value)


@pytest.mark.parametrize("pixels", ["0123456789abcdef" * 2, "blake9:" + "0123456789abcdef" * 2])
def test_a_table_whose_pixels_are_hashed_in_another_way_is_refused_and_no_file_is_taken_for_changed(
    audited: Path, messy: Path, tmp_path: Path, pixels: str
) -> None:
    rows = rows_of(audited / "audit.csv")
    hashed = [row["pixels"] for row in rows.values() if row["pixels"]]
    assert hashed and all(re.fullmatch("blake3:[0-9a-f]{32}", text) for text in hashed)
    table = tmp_path / "audit.csv"
    table.write_bytes((audited / "audit.csv").read_bytes().replace(hashed[0].encode(), pixels.encode()))
    with pytest.raises(InputError, match=rf"has pixels '{pixels[:16]}', expected blake3:…, .*another.*; audit again"):
        converted(messy, tmp_path, str(table))
    assert not list(tmp_path.rglob("*.beton"))


def test_wilsons_interval_is_the_published_one() -> None:
    low, high = wilson(15, 148)  # Newcombe 1998, table I
    assert (round(low, 4), round(high, 4)) == (0.0624, 0.1605)
    assert wilson(0, 0) == (0.0, 1.0) and all(
        (wilson(0, number)[0], wilson(number, number)[1]) == (0.0, 1.0) for number in range(1, 100)
    )


# ---- whole audits, and conversions that apply them


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of phantoms by class, with an inverted, a blurred, a copied, a cut and a turned one among them."""
    out = tmp_path_factory.mktemp("messy") / "p"
    write_phantoms(PhantomConfig(out=out, patients=36, images_per_patient=1, size=224, seed=3))
    first = sorted((out / "images" / "covid").iterdir())
    read = {path: cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in first}
    cv2.imwrite(str(first[0]), 255 - read[first[0]])
    cv2.imwrite(str(first[1]), cv2.GaussianBlur(read[first[1]], (0, 0), 5))
    cv2.imwrite(str(first[2]), np.rot90(read[first[2]], 1))
    cv2.imwrite(str(first[3].with_name("copy.jpg")), read[first[3]])
    cut = first[4].read_bytes()
    first[4].with_name("cut.png").write_bytes(cut[: len(cut) // 2])
    (out / "images" / "notes.txt").write_text("no picture")
    return out / "images"


@pytest.fixture(scope="module")
def audited(messy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder's audit by the command line."""
    out = tmp_path_factory.mktemp("audited") / "A"
    command = [sys.executable, "cli.py", "audit", str(messy), "--labels", "folder", "--out", str(out)]
    command += ["--permutations", "999"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert "38 files: " in done.stdout and " + 3 quarantine" in done.stdout
    assert "outside-crop" in done.stdout
    return out


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def test_an_audit_finds_what_was_planted_and_nothing_else(audited: Path) -> None:
    rows = rows_of(audited / "audit.csv")
    # the air beside two narrow phantoms is as even as a letterbox
    found = {
        path: (row["verdict"], row["defects"])
        for path, row in rows.items()
        if row["verdict"] != "keep" and row["defects"] != "borders"
    }
    assert len(rows) == 38 and sum(row["defects"] == "borders" for row in rows.values()) <= 2
    names = sorted(path for path in rows if path.startswith("covid/phantom"))
    assert found == {
        names[0]: ("fix", "inverted"),
        names[1]: ("quarantine", "blurred"),
        names[2]: ("fix", "rotated"),
        "covid/copy.jpg": ("quarantine", "near-duplicate"),
        "covid/cut.png": ("quarantine", "unreadable"),
    }
    assert rows["covid/copy.jpg"]["group"] == rows[names[3]]["group"]


def test_the_table_and_the_page_are_for_their_owners_eyes(audited: Path) -> None:
    for name in ("audit.csv", "audit.html"):
        assert stat.S_IMODE((audited / name).stat().st_mode) == 0o600


def converted(messy: Path, out: Path, audit: str) -> Path:
    convert(
        ConvertConfig(
            catalog=CatalogConfig(source=messy),
            out=out / "B",
            size=64,
            audit=audit,
            workers=1,
            site_key=out / "site.key",
        )
    )
    return out / "B"


def test_the_table_of_an_audit_leaves_out_and_repairs_what_an_automatic_one_does(
    messy: Path, audited: Path, tmp_path: Path
) -> None:
    by_table, automatic = (
        rows_of(converted(messy, tmp_path / name, audit) / "convert.csv")
        for name, audit in (("table", str(audited / "audit.csv")), ("auto", "auto"))
    )
    outcomes = [
        {path: (row["verdict"], row["kind"], row["fix"]) for path, row in rows.items()}
        for rows in (by_table, automatic)
    ]
    assert outcomes[0] == outcomes[1]
    assert {verdict for verdict, _, _ in outcomes[0].values()} >= {"written", "rejected", "duplicate"}


def test_conversion_applies_an_edited_table(messy: Path, audited: Path, tmp_path: Path) -> None:
    rows = rows_of(audited / "audit.csv")
    names = sorted(path for path in rows if path.startswith("covid/phantom"))
    rows[names[1]]["verdict"] = "keep"  # a person thinks that it is sharp enough
    rows[names[5]]["verdict"] = "quarantine"
    with (tmp_path / "edited.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(next(iter(rows.values()))))
        table.writeheader()
        table.writerows(rows.values())
    betons = converted(messy, tmp_path, str(tmp_path / "edited.csv"))
    outcome = rows_of(betons / "convert.csv")
    assert outcome[names[1]]["verdict"] == "written"
    assert outcome[names[5]]["verdict"] == "rejected" and "by hand" in outcome[names[5]]["reason"]
    assert outcome[names[5]]["kind"] == "by-hand" and outcome["covid/copy.jpg"]["kind"] == "near-duplicate"
    assert outcome["covid/copy.jpg"]["verdict"] == "duplicate"
    assert "near-duplicate" in outcome["covid/copy.jpg"]["reason"]
    assert outcome[names[0]]["fix"] == "invert" and outcome[names[2]]["fix"].startswith("rotate")


def twins(folder: Path) -> Path:
    """Phantoms by class; one film twice in a class, one in both classes, all else different patients."""
    out = write_phantoms(PhantomConfig(out=folder / "p", patients=24, images_per_patient=1, size=128, seed=9)).parent
    first = {label: sorted((out / "images" / label).iterdir())[:2] for label in ("covid", "normal")}
    (out / "images" / "covid" / "aaa.bmp").write_bytes(
        cv2.imencode(".bmp", cv2.imread(str(first["covid"][0]), cv2.IMREAD_GRAYSCALE))[1].tobytes()
    )
    (out / "images" / "normal" / "both.png").write_bytes(first["covid"][1].read_bytes())
    (out / "images" / "covid" / "notes.txt").write_text("no picture, and no verdict")
    return out / "images"


@pytest.mark.parametrize("labels", ["none", "folder"])
@pytest.mark.parametrize("mode", ["auto", "table", "off"])
def test_of_exact_copies_one_is_written_and_of_conflicting_ones_none(tmp_path: Path, mode: str, labels: str) -> None:
    source = twins(tmp_path)
    if mode == "table":
        audit(
            AuditConfig(
                catalog=CatalogConfig(source=source),
                labels=labels,
                out=tmp_path / "A",
                workers=1,
                size=64,
                permutations=999,
            )
        )
    outcome = rows_of(
        converted(source, tmp_path, str(tmp_path / "A" / "audit.csv") if mode == "table" else mode) / "convert.csv"
    )
    original = sorted(path for path in outcome if path.startswith("covid/phantom"))
    copies = [outcome["covid/aaa.bmp"]["verdict"], outcome[original[0]]["verdict"]]
    assert sorted(copies)[1] == "written" and copies.count("written") == 1
    assert outcome["normal/both.png"]["verdict"] == outcome[original[1]]["verdict"] == "rejected"
    assert outcome["covid/notes.txt"]["verdict"] == "rejected"
    assert sum(row["verdict"] == "written" for row in outcome.values()) == 23


def test_a_person_can_settle_a_conflict(tmp_path: Path) -> None:
    source = twins(tmp_path)
    audit(
        AuditConfig(
            catalog=CatalogConfig(source=source),
            labels="folder",
            out=tmp_path / "A",
            workers=1,
            size=64,
            permutations=999,
        )
    )
    rows = rows_of(tmp_path / "A" / "audit.csv")
    original = sorted(path for path in rows if path.startswith("covid/phantom"))[1]
    assert "label-conflict" in rows[original]["defects"]
    rows[original]["verdict"], rows["normal/both.png"]["copy_of"] = "keep", ""
    with (tmp_path / "edited.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[original]))
        table.writeheader()
        table.writerows(rows.values())
    outcome = rows_of(converted(source, tmp_path, str(tmp_path / "edited.csv")) / "convert.csv")
    assert outcome[original]["verdict"] == "written" and outcome["normal/both.png"]["verdict"] == "rejected"


def test_a_file_that_changed_since_its_audit_is_rejected(tmp_path: Path) -> None:
    source = twins(tmp_path)
    audit(AuditConfig(catalog=CatalogConfig(source=source), out=tmp_path / "A", workers=1, size=64))
    changed = sorted((source / "normal").glob("phantom*"))[3]
    cv2.imwrite(str(changed), phantom(77, 128))
    outcome = rows_of(converted(source, tmp_path, str(tmp_path / "A" / "audit.csv")) / "convert.csv")
    assert outcome[f"normal/{changed.name}"]["reason"].startswith("changed since ")
    assert (outcome[f"normal/{changed.name}"]["verdict"], outcome[f"normal/{changed.name}"]["kind"]) == (
        "rejected",
        "changed",
    )


@pytest.mark.parametrize("mode", ["auto", "table"])
def test_one_patient_id_for_everything_is_none_for_an_audit_and_for_a_conversion_by_it(
    tmp_path: Path, mode: str
) -> None:
    for number in range(16):
        path = tmp_path / "films" / ("covid", "normal")[number % 2] / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(native(phantom(number, 200), 8, PatientID="SITE 4", PatientSex="F", PatientAge="058Y"))
    source, out = tmp_path / "films", tmp_path / "A"
    found = audit(AuditConfig(catalog=CatalogConfig(source=source), out=out, workers=1, permutations=999))
    assert found.cautions == [caution("one-patient", shared=16, films=16)]
    page = (out / "audit.html").read_text()
    assert "16 of 16 films have a patient identifier" in page and "SITE 4" not in page
    assert not any("058Y" in (out / name).read_text() for name in ("audit.csv", "audit.html"))
    limits = build(AuditLimits, dict.fromkeys(AuditLimits.__slots__, 1000.0)) if mode == "auto" else AuditLimits()
    settings = {"size": 32, "workers": 1, "site_key": tmp_path / "key", "limits": limits}
    table = str(out / "audit.csv")
    if mode == "table":
        rows = rows_of(out / "audit.csv")
        with (out / "audit.csv").open("w", newline="") as file:
            edited = csv.DictWriter(file, list(next(iter(rows.values()))))
            edited.writeheader()
            edited.writerows(row | {"verdict": "keep", "fix": ""} for row in rows.values())
    audited = "auto" if mode == "auto" else table
    catalog = CatalogConfig(source=source)
    done = convert(ConvertConfig(catalog=catalog, out=tmp_path / "B", audit=audited, **settings))
    assert caution("one-patient", shared=16, films=16) in done.cautions
    written = [row.group for row in done.rows if row.verdict == "written"]
    assert len(written) > 10 and len(set(written)) == len(written)


@pytest.mark.parametrize("mode", ["auto", "table"])
def test_what_an_audit_joins_stays_in_one_split(tmp_path: Path, mode: str) -> None:
    """Negatives are repaired and written, each in its original's split; so is what a person's group column ties."""
    out = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=40, images_per_patient=1, size=128, seed=4)).parent
    source = out / "images"
    films = sorted(source.rglob("*.png"))
    audit(AuditConfig(catalog=CatalogConfig(source=source), out=tmp_path / "A", workers=1, size=64))
    rows = rows_of(tmp_path / "A" / "audit.csv")
    if mode == "table":
        tied = {film.relative_to(source).as_posix(): str(number // 2) for number, film in enumerate(films)}
        for path, group in tied.items():
            rows[path]["group"] = group
        with (tmp_path / "A" / "audit.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, list(next(iter(rows.values()))))
            table.writeheader()
            table.writerows(rows.values())
        outcome = rows_of(converted(source, tmp_path, str(tmp_path / "A" / "audit.csv")) / "convert.csv")
        for first, second in zip(films[::2], films[1::2], strict=True):
            a, b = (outcome[film.relative_to(source).as_posix()] for film in (first, second))
            assert a["group"] == b["group"] and a["split"] == b["split"] != ""
    else:
        for film in films[::3]:
            negative_HW = 255 - cv2.imread(str(film), cv2.IMREAD_GRAYSCALE)
            cv2.imwrite(str(film.with_name("negative-" + film.name)), negative_HW)
        outcome = rows_of(converted(source, tmp_path, "auto") / "convert.csv")
        for film in films[::3]:
            label = film.parent.name
            pair = [outcome[f"{label}/{film.name}"], outcome[f"{label}/negative-{film.name}"]]
            assert pair[0]["group"] == pair[1]["group"]
            assert [row["verdict"] for row in pair].count("written") == 1


def test_a_table_in_the_folder_of_betons_is_kept(messy: Path, audited: Path, tmp_path: Path) -> None:
    (tmp_path / "B").mkdir()
    for name in ("audit.csv", "audit.html"):
        shutil.copy(audited / name, tmp_path / "B" / name)
    converted(messy, tmp_path, str(tmp_path / "B" / "audit.csv"))
    for name in ("audit.csv", "audit.html"):
        assert (tmp_path / "B" / name).read_bytes() == (audited / name).read_bytes()


def test_another_conversions_audit_is_taken_away(messy: Path, tmp_path: Path) -> None:
    converted(messy, tmp_path, "auto")
    betons = converted(messy, tmp_path, "off")
    assert not (betons / "audit.csv").exists() and not (betons / "audit.html").exists()


def test_a_red_overlay_on_a_jpeg_is_found_from_end_to_end(tmp_path: Path) -> None:
    (tmp_path / "S").mkdir()
    colour_HWC = np.stack([phantom(1)] * 3, 2)
    cv2.imwrite(str(tmp_path / "S" / "grey.jpg"), colour_HWC)
    colour_HWC[100:200, 100:200, 2] = 255
    cv2.imwrite(str(tmp_path / "S" / "red.jpg"), colour_HWC)
    film = native(np.ascontiguousarray(colour_HWC[..., ::-1]), 8, PhotometricInterpretation="RGB")
    (tmp_path / "S" / "red.dcm").write_bytes(film)
    found = {
        file.path: file
        for file in audit(
            AuditConfig(catalog=CatalogConfig(source=tmp_path / "S"), out=tmp_path / "A", workers=1)
        ).files
    }
    assert "colour-annotation" in found["red.jpg"].defects and "colour-annotation" in found["red.dcm"].defects
    assert "colour-annotation" not in found["grey.jpg"].defects


def test_limits_without_an_automatic_audit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--limit-…: found with --audit off"):
        ConvertConfig(
            catalog=CatalogConfig(source=tmp_path), out=tmp_path / "B", limits=replace(LIMITS, limit_blurred=3.0)
        )


def test_automatic_audit_repairs_frames_and_leaves_its_page(messy: Path, tmp_path: Path) -> None:
    betons = converted(messy, tmp_path, "auto")
    outcome = rows_of(betons / "convert.csv")
    for name in ("audit.html", "audit.csv", "convert.csv"):
        assert stat.S_IMODE((betons / name).stat().st_mode) == 0o600
    assert outcome["covid/copy.jpg"]["verdict"] == "duplicate"
    names = sorted(path for path in outcome if path.startswith("covid/phantom"))
    assert outcome[names[1]]["verdict"] == "rejected" and outcome[names[1]]["reason"].startswith("blurred (audit)")
    assert outcome[names[1]]["kind"] == "blurred" and outcome["covid/copy.jpg"]["kind"] == "near-duplicate"
    counts = [row["verdict"] for row in outcome.values()]
    assert counts.count("written") + counts.count("rejected") + counts.count("duplicate") == 38
    row = outcome[names[0]]
    with Beton(betons / f"{row['split']}.beton") as beton:
        stored_SS = beton.frame(int(row["sample"]))
        upright_HW = 255 - decode_radiograph(messy / names[0], max_pixels=10**7).grey_HW
        frame_SS = cv2.resize(upright_HW, stored_SS.shape, interpolation=cv2.INTER_AREA)
        inside = slice(14, 78)  # the crop, whose grey levels the window is for
        assert np.corrcoef(stored_SS[inside, inside].ravel(), frame_SS[inside, inside].ravel())[0, 1] > 0.99


def test_without_an_audit_nothing_is_repaired(messy: Path, tmp_path: Path) -> None:
    outcome = rows_of(converted(messy, tmp_path, "off") / "convert.csv")
    assert not any(row["fix"] for row in outcome.values())
    assert not (tmp_path / "B" / "audit.csv").exists()


def test_a_table_of_another_folder_is_refused(messy: Path, tmp_path: Path) -> None:
    (tmp_path / "audit.csv").write_text("path,verdict,fix,group\nelsewhere.png,keep,,0\n")
    with pytest.raises(InputError, match=r"no verdict for covid/.* and 37 more, expected one for each file"):
        converted(messy, tmp_path, str(tmp_path / "audit.csv"))


def test_an_audit_is_the_same_with_any_number_of_workers(messy: Path, tmp_path: Path) -> None:
    tables = []
    for workers in (1, 2):
        audit(AuditConfig(catalog=CatalogConfig(source=messy), out=tmp_path / str(workers), workers=workers))
        tables.append((tmp_path / str(workers) / "audit.csv").read_bytes())
    assert tables[0] == tables[1]


def test_names_in_the_terminal_are_escaped(tmp_path: Path) -> None:
    for label in ("\x1b[31mred", "a\nb"):
        (tmp_path / "S" / label).mkdir(parents=True)
        for patient in range(11):
            cv2.imwrite(str(tmp_path / "S" / label / f"{patient}.png"), phantom(patient + 20 * len(label), 64))
    command = [sys.executable, "cli.py", "audit", str(tmp_path / "S"), "--labels", "folder", "--permutations", "999"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "A")], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout and "\\x1b[31mred" in done.stdout and "a\\nb" in done.stdout


def test_no_name_of_a_dicom_patient_is_in_any_output(tmp_path: Path) -> None:
    (tmp_path / "S").mkdir()
    for number in range(2):
        film = native((phantom(number, 128).astype(np.uint16) * 16), 12, PatientID="CANARY", PatientName="CANARY^NAME")
        (tmp_path / "S" / f"{number}.dcm").write_bytes(film)
    result = audit(AuditConfig(catalog=CatalogConfig(source=tmp_path / "S"), out=tmp_path / "A", workers=1))
    assert result.files[0].group == result.files[1].group
    for path in (tmp_path / "A").iterdir():
        assert b"CANARY" not in path.read_bytes()


def test_without_labels_the_collection_is_not_audited(messy: Path, tmp_path: Path) -> None:
    result = audit(AuditConfig(catalog=CatalogConfig(source=messy), out=tmp_path / "A", workers=1))
    assert result.collection is None and result.removals == [] and {file.label for file in result.files} == {""}


def test_a_beton_is_audited_too(messy: Path, tmp_path: Path) -> None:
    betons = converted(messy, tmp_path, "auto")
    result = audit(
        AuditConfig(catalog=CatalogConfig(source=betons / "train.beton"), out=tmp_path / "A", permutations=999)
    )
    assert result.files == [] and result.collection is not None
    assert {probe.name for probe in result.collection.probes} >= {"outside-crop", "lungs-hidden", "view"}
    assert "header" in result.collection.skipped and not (tmp_path / "A" / "audit.csv").exists()


def test_an_empty_folder_and_a_folder_inside_the_source_are_refused(tmp_path: Path) -> None:
    (tmp_path / "S").mkdir()
    with pytest.raises(InputError, match="no radiographs found"):
        audit(AuditConfig(catalog=CatalogConfig(source=tmp_path / "S"), out=tmp_path / "A"))
    with pytest.raises(ConfigError, match="lies inside"):
        audit(AuditConfig(catalog=CatalogConfig(source=tmp_path / "S"), out=tmp_path / "S" / "A"))
    with pytest.raises(InputError, match="not a folder"):
        audit(AuditConfig(catalog=CatalogConfig(source=tmp_path / "nowhere"), out=tmp_path / "A"))


@pytest.mark.radiographs
def test_the_real_defects_are_found(radiographs: Path, tmp_path: Path) -> None:
    """The shipped classifier has learnt from these files; its patient-grouped scores are in docs/AUDIT.md."""
    result = audit(AuditConfig(catalog=CatalogConfig(source=radiographs), out=tmp_path / "A"))
    by_path = {file.path: file for file in result.files}
    with (radiographs / "audit.csv").open(newline="") as file:
        truth = {row["path"]: row["defect"] for row in csv.DictReader(file)}
    found = {kind: [by_path[path] for path in truth if truth[path] == kind] for kind in set(truth.values())}
    assert sum("lateral" in file.defects for file in found["lateral"]) >= 7
    assert sum(file.verdict == "quarantine" for file in found["ct"]) >= 11
    assert all("colour-annotation" in file.defects for file in found["annotated"])
    masks = [file for path, file in by_path.items() if path.startswith("lung_masks/")]
    assert len(masks) == 34 and all("not-a-radiograph" in file.defects for file in masks)
    clean = [file for path, file in by_path.items() if path.startswith("radiographs/")]
    copies = {"near-duplicate", "exact-duplicate"}
    assert sum(bool(set(file.defects) - copies) and file.verdict == "quarantine" for file in clean) <= 11
    assert sum(bool({"colour-annotation", "borders"} & set(file.defects)) for file in clean) <= 18
    originals = {Path(file.path).stem: file.group for file in clean}
    joined = [
        file.group == originals.get(Path(file.path).stem.removeprefix("Equalized")) for file in found["equalised-copy"]
    ]
    assert sum(joined) >= 26


def test_limits_are_settings(messy: Path, tmp_path: Path) -> None:
    strict = AuditConfig(
        catalog=CatalogConfig(source=messy), out=tmp_path / "A", workers=1, limits=replace(LIMITS, limit_blurred=1.0)
    )
    assert sum("blurred" in file.defects for file in audit(strict).files) > 20


def test_a_spreadsheet_takes_no_file_name_for_a_formula_and_the_table_still_names_the_file(tmp_path: Path) -> None:
    table = write_phantoms(PhantomConfig(out=tmp_path / "p", patients=12, images_per_patient=1, size=128))
    (table.parent / "images").rename(table.parent / "=images")
    table.write_text(table.read_text().replace("images/", "=images/"))
    audit(AuditConfig(catalog=CatalogConfig(manifest=table), out=tmp_path / "A", workers=1, size=64, permutations=999))
    rows = rows_of(tmp_path / "A" / "audit.csv")
    assert all(path.startswith("./=") for path in rows)
    edited, key = str(tmp_path / "A" / "audit.csv"), tmp_path / "site.key"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=table), out=tmp_path / "B", size=64, audit=edited, workers=1, site_key=key
        )
    )
    outcome = rows_of(tmp_path / "B" / "convert.csv")
    assert outcome.keys() == rows.keys() and {row["verdict"] for row in outcome.values()} <= {"written", "rejected"}
    assert sum(row["verdict"] == "written" for row in outcome.values()) >= 8


def test_damaged_weights_of_the_classifier_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from loaders.images import kind

    content = bytearray(kind.WEIGHTS.read_bytes())
    content[-1] ^= 1
    (tmp_path / "kind.safetensors").write_bytes(content)
    monkeypatch.setattr(kind, "WEIGHTS", tmp_path / "kind.safetensors")
    with pytest.raises(IntegrityError, match=r"kind\.safetensors: checksum"):
        shipped_weights.__wrapped__()


def test_an_audit_of_a_beton_refuses_a_damaged_frame(betons: Path, tmp_path: Path) -> None:
    content = bytearray((betons / "val.beton").read_bytes())
    with Beton(betons / "val.beton") as beton:
        content[beton.offset_N[1] + 7] ^= 4
    (tmp_path / "damaged.beton").write_bytes(content)
    with pytest.raises(BetonError, match=r"damaged\.beton: sample 1: checksum differs"):
        audit(AuditConfig(catalog=CatalogConfig(source=tmp_path / "damaged.beton"), out=tmp_path / "a"))
