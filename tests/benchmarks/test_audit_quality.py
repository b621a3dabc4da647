"""The arithmetic of `make audit-quality`, on inputs small enough to check by hand."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.audit import quality
from benchmarks.audit.defects import ONE_GRADE, PLANTED, SEVERITIES, VARIANTS, Planter, side_marker
from benchmarks.audit.formats import QUESTIONS, WAYS, recognise
from benchmarks.audit.outcome import (
    Outcome,
    Target,
    above,
    auprc,
    columns,
    count_text,
    counted,
    cross_effects,
    exact_interval,
    threshold_at,
)
from benchmarks.audit.outside_mark import conclude as conclude_marks
from benchmarks.audit.outside_mark import with_mark
from benchmarks.audit.planted import Film, Grade, halves, report
from benchmarks.audit.real import compare
from benchmarks.audit.shortcuts import alarms, tie
from benchmarks.audit.shortcuts import conclude as conclude_shortcuts
from benchmarks.audit.speed import conclude as conclude_speed
from benchmarks.document import AUDIT, PLACE, with_audit
from loaders.audit.findings import DEFECTS, FileFinding
from loaders.audit.probes import LABEL_PROBES
from loaders.audit.table import COLUMNS
from loaders.config import AuditLimits, stored_side
from loaders.images.kind import shipped_weights
from loaders.images.quality import DETECTORS, OF_LUNGS, limit_of
from loaders.images.radiograph import decode_radiograph
from loaders.phantom.anatomy import PlannedPhantom
from loaders.phantom.phantom import draw_phantom
from tests.loaders.test_audit_page import make_file

# ---- statistics


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        (81, 263, 0.2527, 0.3676),  # Newcombe 1998, table I, method 5
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0, 0.1684),
        (1, 29, 0.0009, 0.1776),
        (29, 29, 0.8806, 1.0),
    ],
)
def test_intervals_are_the_published_exact_ones(hits: int, trials: int, low: float, high: float) -> None:
    assert exact_interval(hits, trials) == pytest.approx((low, high), abs=6e-5)


def test_no_trials_leave_the_whole_interval() -> None:
    assert exact_interval(0, 0) == (0.0, 1.0)


def test_a_threshold_lets_one_clean_film_in_a_hundred_pass_and_no_more() -> None:
    clean = np.arange(250.0)
    assert threshold_at(clean) == 247 and above(clean, 247) == 2
    assert threshold_at(clean[:99]) == 98 and above(clean[:99], 98) == 0
    assert threshold_at([1.0, 1.0, 0.0]) == 1.0  # a film that is as bad as a clean one is not called


def test_the_area_is_one_when_all_is_separated_and_the_share_when_nothing_is() -> None:
    assert auprc([3.0, 4.0], [1.0, 2.0]) == 1.0
    assert auprc([1.0] * 3, [1.0] * 9) == 0.25


def test_cross_effects_count_what_a_defect_adds_and_not_what_was_there() -> None:
    films = {"blurred": [([], ["blurred"]), (["exposure"], ["blurred", "exposure"]), ([], ["blurred", "exposure"])]}
    assert cross_effects(films, ("blurred", "exposure", "lateral")) == {
        "blurred": {"blurred": (3, 3), "exposure": (1, 2), "lateral": (0, 3)}
    }


# ---- planted defects


def test_no_patient_is_in_both_halves() -> None:
    films = [Film(np.zeros((8, 8), np.uint8), 0.0, f"p{number % 7}", shipped_weights()) for number in range(30)]
    fixing, reported = halves(films, 0)
    assert len(fixing) + len(reported) == 30
    assert len({film.patient for film in fixing}) == 3
    assert not {film.patient for film in fixing} & {film.patient for film in reported}


def test_recall_is_counted_above_the_threshold_of_the_other_half() -> None:
    fixing, clean = {"blurred": [1.0, 1.5]}, {"blurred": [1.0, 1.6, 1.2]}
    found = report(fixing, clean, {"blurred": {1: Grade([1.4, 1.6], []), 5: Grade([2.0, 3.0], [])}})["blurred"]
    assert found["fixed"]["threshold"] == 1.5 and found["films that fixed it"] == 2
    assert (found["fixed"]["false positives"]["hits"], found["fixed"]["false positives"]["trials"]) == (1, 3)
    assert [count["hits"] for count in found["fixed"]["recall"].values()] == [1, 2]
    assert [count["hits"] for count in found["shipped"]["recall"].values()] == [0, 1]
    assert found["auprc"][5] == 1.0 and found["auprc"][1] < 1.0


# ---- real defects


def real_files() -> tuple[list[FileFinding], dict[str, str]]:
    """A folder in which everything is found."""
    truth = {f"audit/lateral/{n}.png": "lateral" for n in range(8)} | {f"audit/ct/{n}.png": "ct" for n in range(12)}
    files = [make_file(path, "lateral" if "lateral" in path else "not-a-radiograph") for path in truth]
    clean = [make_file(f"radiographs/{n}.png", group=n) for n in range(100)]
    copies = [make_file(f"audit/equalised/Equalized{n}.png", "near-duplicate", group=n) for n in range(29)]
    notes = [make_file(f"audit/annotated/{n}.png", "colour-annotation") for n in range(29)]
    masks = [make_file(f"lung_masks/{n}.png", "not-a-radiograph") for n in range(34)]
    truth |= {copy.path: "equalised-copy" for copy in copies} | {note.path: "annotated" for note in notes}
    return [*files, *clean, *copies, *notes, *masks], truth


def missed(outcome: Outcome) -> list[str]:
    return [target.what for target in outcome.targets if not target.met]


def test_an_audit_that_finds_everything_meets_every_target() -> None:
    files, truth = real_files()
    outcome = compare(files, truth)
    assert missed(outcome) == [] and len(outcome.targets) == 7
    assert "MISSED" not in "\n".join(outcome.lines)


@pytest.mark.parametrize(
    ("prefix", "spoilt", "what"),
    [
        ("audit/lateral", 2, "lateral views flagged as lateral"),
        ("audit/ct", 2, "CT slices quarantined"),
        ("audit/annotated", 1, "annotated copies flagged as annotated"),
        ("lung_masks", 1, "lung masks flagged as no radiographs"),
    ],
)
def test_one_file_too_few_misses_its_target_alone(prefix: str, spoilt: int, what: str) -> None:
    files, truth = real_files()
    places = [place for place, one in enumerate(files) if one.path.startswith(prefix)]
    for place in places[: spoilt - 1]:
        files[place] = make_file(files[place].path)
    assert missed(compare(files, truth)) == []
    files[places[spoilt - 1]] = make_file(files[places[spoilt - 1]].path)
    assert missed(compare(files, truth)) == [what]


def test_a_copy_in_another_group_is_not_joined() -> None:
    files, truth = real_files()
    places = [place for place, one in enumerate(files) if "Equalized" in one.path]
    for place in places[:4]:
        files[place] = make_file(files[place].path, group=1000 + place)
    assert missed(compare(files, truth)) == ["equalised copies joined to their originals"]


def test_too_many_suspected_clean_files_miss_their_targets() -> None:
    files, truth = real_files()
    places = [place for place, one in enumerate(files) if one.path.startswith("radiographs/")]
    for place in places[:4]:
        files[place] = make_file(files[place].path, "blurred", group=files[place].group)
    assert missed(compare(files, truth)) == ["radiographs/ quarantined"]
    for place in places[:6]:
        files[place] = make_file(files[place].path, "borders", fix="crop 0:9,0:9", group=files[place].group)
    assert missed(compare(files, truth)) == ["radiographs/ with annotation or borders"]


# ---- shortcuts


def test_ties_follow_the_class_as_often_as_rho_says() -> None:
    first_N = np.arange(40_000) % 2 == 0
    for rho in (0.0, 0.25, 1.0):
        tied_N = tie(np.random.default_rng(1), first_N, rho)
        assert (tied_N == first_N).mean() == pytest.approx((1 + rho) / 2, abs=0.02)


def test_one_probe_is_enough_for_an_alarm() -> None:
    family, each = alarms([{"a": 0.05, "b": 0.3}, {"a": 0.2, "b": 0.2}, {"a": 0.01, "b": 0.01}])
    assert (family["hits"], family["trials"]) == (2, 3) and each == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("tied", "rho", "hits", "trials", "met"),
    [
        ("", 0.0, 10, 200, True),
        ("", 0.0, 3, 200, False),  # 0.3 to 4.3 %: too careful
        ("", 0.0, 20, 200, False),  # 6.2 to 15.0 %: too rash
        ("arms", 1.0, 40, 40, True),
        ("arms", 1.0, 39, 40, False),
        ("mark", 0.25, 32, 40, True),
        ("mark", 0.25, 31, 40, False),
    ],
)
def test_alarm_rates_are_held_against_their_targets(tied: str, rho: float, hits: int, trials: int, met: bool) -> None:
    outcome = conclude_shortcuts([(tied, rho, counted(hits, trials), {})], 400, {})
    assert [target.met for target in outcome.targets] == [met]


# ---- formats, speed, marks


def test_ways_are_recognised_by_a_feature_that_holds_them_and_not_by_noise() -> None:
    rng = np.random.default_rng(0)
    noise_PWF = rng.normal(size=(40, len(WAYS), 3))
    holding_PWF = noise_PWF.copy()
    holding_PWF[:, :, 0] = [way[0] == "jpeg" for way in WAYS] + 0.1 * noise_PWF[:, :, 0]
    assert recognise(holding_PWF, "JPEG or PNG")["auc"] > 0.99
    noise = recognise(noise_PWF, "JPEG or PNG")
    assert noise["low"] < 0.5 < noise["high"] and noise["low"] < noise["auc"] < noise["high"]
    for takes_part, positive in QUESTIONS.values():
        chosen = [positive(way) for way in WAYS if takes_part(way)]
        assert sum(chosen) == len(chosen) / 2 > 0


def test_the_median_of_the_rounds_ratios_counts() -> None:
    seconds = {"plainfilm": [1.0, 2.0, 1.0], "cleanvision": [4.5, 7.0, 5.0]}
    outcome = conclude_speed(100, seconds, "0.3.7")
    assert outcome.record["ratio"] == 4.5 and outcome.targets[0].met
    assert not conclude_speed(100, seconds | {"cleanvision": [3.0, 7.0, 5.0]}, "0.3.7").targets[0].met


def test_a_rival_that_is_not_installed_is_called_missing() -> None:
    outcome = conclude_speed(100, {"plainfilm": [1.0]}, None)
    assert not outcome.targets and "missing" in "\n".join(outcome.lines)


def test_the_mark_lies_outside_the_crop() -> None:
    side = stored_side(64)
    margin = (side - 64) // 2
    marked_SS = with_mark(np.zeros((side, side), np.uint8), margin)
    assert marked_SS.max() == 255 and not marked_SS[margin:-margin, margin:-margin].any()
    rows, columns_ = np.nonzero(marked_SS)
    assert rows.max() < margin and margin <= columns_.min() and columns_.max() < side - margin


def test_f1_is_unchanged_only_if_its_whole_interval_lies_within_a_point() -> None:
    even = [(0.900, 0.901), (0.910, 0.909), (0.905, 0.905)]
    outcome = conclude_marks({"crop": even, "frame": [(0.90, 0.93), (0.91, 0.93), (0.90, 0.94)]}, {})
    assert [target.met for target in outcome.targets] == [True, False]


# ---- the program


def test_parts_are_stored_beside_one_another_and_a_missed_target_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = Target(what="alarms", found="1/2", expected="always", met=False)

    def missing_it(*, seeds: int = 3, progress: object) -> Outcome:
        return Outcome(lines=("a table",), record={"seeds": seeds}, targets=(target,))

    def meeting_it(*, progress: object) -> Outcome:
        return Outcome(lines=(), record={"figure": 1})

    monkeypatch.setitem(quality.PARTS, "outside-mark", missing_it)
    monkeypatch.setitem(quality.PARTS, "formats", meeting_it)
    monkeypatch.setattr(quality, "provenance", dict)
    monkeypatch.setattr(quality, "describe", lambda facts: "here")
    out = tmp_path / "new" / "audit.json"
    assert quality.main(["formats", "--out", str(out)]) == 0
    assert quality.main(["outside-mark", "--seeds", "7", "--out", str(out)]) == 1
    assert "MISSED  alarms: 1/2, expected always" in capsys.readouterr().out
    stored = json.loads(out.read_text())
    assert list(stored) == ["formats", "outside-mark"] and stored["outside-mark"]["seeds"] == 7
    assert stored["outside-mark"]["targets"][0]["met"] is False and stored["formats"]["figure"] == 1


def test_all_leaves_out_what_trains() -> None:
    assert set(quality.PARTS) - set(quality.ALL) == {"outside-mark"}


def test_tables_stand_in_columns() -> None:
    assert columns([["a", "bb"], ["ccc", ""]]) == ["a    bb", "ccc"]
    assert count_text(counted(29, 29)) == "29/29 (88–100 %)"


# ---- the document


def test_the_document_has_a_place_for_every_part_and_is_filled_anew_without_leftovers() -> None:
    text = AUDIT.read_text()
    assert {mark[1] for mark in PLACE.finditer(text)} == set(quality.PARTS)
    target = Target(what="alarms", found="1/2", expected="always", met=False)
    speed = Outcome(lines=("a table",), record={}, targets=(target,)).stored({})
    once = with_audit(text, {"speed": speed})
    assert "a table\nMISSED  alarms: 1/2, expected always\n```" in once and "Not measured yet." in once
    assert with_audit(once, {"speed": speed}) == once
    assert "a table" not in with_audit(once, {})


def test_the_document_has_every_detector_with_its_limit_and_every_probe() -> None:
    text = AUDIT.read_text()
    limits = AuditLimits()
    for name in (*DETECTORS, "near-duplicate"):
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        assert float(row.split("|")[3]) == limit_of(limits, name), name
    for probe in LABEL_PROBES:
        assert f"| `{probe.name}` |" in text
    assert all(f"`{column}`" in text for column in COLUMNS)


ALL = [
    pytest.param(defect, planter, id=f"{defect}: {name}")
    for defect, variants in VARIANTS.items()
    for name, planter in variants.items()
]
GRADED = [param for param in ALL if param.values[0] not in (*ONE_GRADE, *OF_LUNGS)]


@pytest.fixture(scope="module")
def film_HW() -> np.ndarray:
    """A phantom, uint16 of 160 × 160."""
    return draw_phantom(PlannedPhantom(seed=3, patient=1, size=160)).image_HW


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


@pytest.mark.parametrize("side", ["t", "b", "l", "r"])
@pytest.mark.parametrize(("defect", "lost"), [("lungs-cut-off", (0.08, 0.24, 0.4)), ("lungs-not-two", (0.3, 0.4, 0.5))])
def test_of_lungs_that_are_cut_the_named_share_is_lost(
    film_HW: np.ndarray, defect: str, side: str, lost: tuple[float, ...]
) -> None:
    mask_HW = draw_phantom(PlannedPhantom(seed=3, patient=1, size=160)).lung_mask_HW > 0
    for severity, share in zip((1, 3, 5), lost, strict=True):
        if planter := VARIANTS[defect].get(side):
            rows, columns = planter(film_HW, severity, np.random.default_rng(0)).shape
            kept = (
                slice(160 - rows, None) if side == "t" else slice(rows),
                (slice(160 - columns, None) if side == "l" else slice(columns)),
            )
            assert 1 - mask_HW[kept].sum() / mask_HW.sum() == pytest.approx(share, abs=0.05)


def test_a_part_beside_the_lungs_shows_hardly_any_of_them(film_HW: np.ndarray) -> None:
    marked_HW = film_HW.copy()
    marked_HW[draw_phantom(PlannedPhantom(seed=3, patient=1, size=160)).lung_mask_HW > 0] |= 1
    marked_HW[draw_phantom(PlannedPhantom(seed=3, patient=1, size=160)).lung_mask_HW == 0] &= 65534
    part_HW = PLANTED["no-lungs"](marked_HW, 1, np.random.default_rng(0))
    assert part_HW.shape == (56, 56) and (part_HW & 1).mean() < 0.1


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
