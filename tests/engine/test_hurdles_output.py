"""The matrix of a hurdles run: as a figure, in the terminal, as a table, and in plain English."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from engine.hurdles.figure import NO_AUC, hurdles_figure, shade
from engine.hurdles.matrix import OWN_FOLDS, is_elsewhere, least_favourable
from engine.hurdles.output import (
    MOST_SENTENCES,
    gathered_cautions,
    hurdle_rows,
    hurdles_parts,
    sentences,
)
from engine.hurdles.results import SHOWN, Hurdles
from loaders.cautions import caution
from loaders.output import Line, Sheet
from loaders.records import decode_record, encode_record
from tests.example_run import (
    alone,
    estimate,
    finding_cell,
    hurdles,
    hurdles_cell,
    hurdles_collection,
    hurdles_row,
    leave_one_out,
)
from tests.loaders.test_audit_page import luminance

UNDEFINED = hurdles_cell("north", "south", None, 0.96)


def of_two(away: float | None = 0.55, home: float = 0.98, **changes: Any) -> Hurdles:
    """Networks of north, tested at home and in the south.  changes: of the cell away."""
    cells = [hurdles_cell("north", "north", home), hurdles_cell("north", "south", away, home, **changes)]
    collections = [hurdles_collection("north"), hurdles_collection("south", trained=False)]
    return hurdles(collections=collections, rows=[hurdles_row("north")], cells=cells, told_apart=[])


def auc(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"auc": alone(value, low=low, high=high)}


# ---- what it means


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            of_two(estimates=auc(0.7, 0.6, 0.8), drop=auc(0.28, 0.11, 0.45)),
            "Trained on north, the AUC falls from 0.980 at home to 0.700 on south (drop 0.280, 95 % interval 0.110 to "
            "0.450).",
        ),
        (
            of_two(estimates=auc(0.9, 0.8, 0.95), drop=auc(0.08, -0.02, 0.18)),
            "Trained on north, the AUC is 0.980 at home and 0.900 on south (drop 0.080, 95 % interval −0.020 to "
            "0.180), which neither shows nor excludes a fall.",
        ),
        (
            of_two(0.99, 0.7, drop=auc(-0.29, -0.4, -0.1)),
            "Trained on north, the AUC rises from 0.700 at home to 0.990 on south (drop −0.290, 95 % interval "
            "−0.400 to −0.100).",
        ),
        (
            of_two(estimates=auc(0.55, 0.35, 0.74), drop=auc(0.43, 0.2, 0.66)),
            "Trained on north, the AUC falls from 0.980 at home to 0.550 on south (drop 0.430, 95 % interval 0.200 to "
            "0.660); there it is not shown to be better than guessing (95 % interval 0.350 to 0.740).",
        ),
        (
            of_two(estimates=auc(0.3, 0.2, 0.45), drop=auc(0.68, 0.5, 0.8)),
            "Trained on north, the AUC falls from 0.980 at home to 0.300 on south (drop 0.680, 95 % interval 0.500 to "
            "0.800); there it is worse than guessing (95 % interval 0.200 to 0.450).",
        ),
        (
            of_two(estimates=auc(0.5, None, None), drop=auc(0.48, None, None)),
            "Trained on north, the AUC is 0.980 at home and 0.500 on south, without an interval of the drop; there it "
            "is not shown to be better than guessing.",
        ),
        (
            of_two(None),
            "Trained on north, the sensitivity falls from 98.0 % at home to 62.5 % on south (drop 35.5 points, 95 % "
            "interval 26.5 to 43.5 points).",
        ),
        (of_two(num_samples=0, estimates={}, drop={}), "Trained on north, no score is defined on south."),
        (
            of_two(estimates={"auc": estimate(0.9, defined=2, classes=3)}, drop=auc(0.1, 0.05, 0.15)),
            "Trained on north, the AUC (mean over 2 of 3 classes) falls from 0.980 at home to 0.900 on south (drop "
            "0.100, 95 % interval 0.050 to 0.150).",
        ),
    ],
    ids=["falls", "unknown", "rises", "guessing", "worse", "no-interval", "one-class", "nothing", "fewer-classes"],
)
def test_a_sentence_claims_what_the_intervals_show_and_no_more(result: Hurdles, expected: str) -> None:
    assert sentences(result) == [expected]


def test_networks_that_guess_at_home_are_called_so_before_a_fall_or_a_rise() -> None:
    at_home, away = sentences(of_two(0.9, 0.53))
    assert at_home == (
        "Trained on north, the AUC at home, 0.530, is not shown to be better than guessing (95 % interval 0.470 to "
        "0.560)."
    )
    assert away.startswith("Trained on north, the AUC rises from 0.530 at home to 0.900 on south")


def test_a_row_confounded_with_source_is_called_evidence_of_nothing_before_its_scores() -> None:
    row = hurdles_row("north", confounded=True)
    confounded, score = sentences(msgspec.structs.replace(of_two(), rows=[row]))
    assert confounded.startswith("The row of north is confounded with source: ")
    assert confounded.endswith("its score at home is evidence of nothing clinical.") and "0.550" in score


def test_of_many_cells_the_least_favourable_of_each_row_is_described_and_the_falls_are_counted() -> None:
    names = tuple("abcdefg")
    result = hurdles(names, told_apart=[])
    cells = [
        hurdles_cell("a", cell.column, 0.6 if cell.column == "d" else 0.7, 0.96)
        if cell.row == "a" and cell.column in "cd"
        else cell
        for cell in result.cells
    ]
    assert sum(cell.place == "away" for cell in cells) == 36 > MOST_SENTENCES
    first, second, *_ = found = sentences(msgspec.structs.replace(result, cells=cells))
    assert len(found) == 6 and "0.960 at home to 0.600 on d" in first
    assert first.endswith("of 6 other collections; the drop's interval lies wholly above 0 on 2 of them.")
    assert second.endswith("wholly above 0 on none of them.")


def test_without_another_collection_and_without_a_common_class_it_says_so() -> None:
    only = of_two()
    only = msgspec.structs.replace(only, collections=only.collections[:1], cells=only.cells[:1])
    assert sentences(only) == ["north was tested on no other collection."]
    lines = [part.text for part in hurdles_parts(only, Path("H")) if isinstance(part, Line)]
    assert any(line.startswith("How well collections are told apart was not measured") for line in lines)


def test_a_pair_that_shares_sources_or_of_unknown_ones_is_no_other_collection() -> None:
    shared = caution("external-shares-sources", beton="south", sources=["x"])
    unknown = caution("external-sources-unknown", beton="south")
    keys = caution("external-site-key-differs", beton="south")
    for found, other in (([], True), ([keys], True), ([shared], False), ([keys, unknown], False)):
        assert is_elsewhere(hurdles_cell("north", "south", 0.7, 0.9, cautions=msgspec.to_builtins(found))) is other
    assert not is_elsewhere(hurdles_cell("north", "north", 0.9))
    assert not is_elsewhere(hurdles_cell("north", "south", 0.7, 0.9, estimates={}))


def test_the_least_favourable_cell_has_the_surest_drop_whatever_its_metric() -> None:
    small, unsure = hurdles_cell("r", "small", 0.8, 0.95), hurdles_cell("r", "unsure", 0.6, 0.95)
    unsure = msgspec.structs.replace(unsure, drop={"auc": msgspec.structs.replace(small.drop["auc"], low=-0.1)})
    undefined = hurdles_cell("r", "one class", None, 0.95)
    none = hurdles_cell("r", "none", 0.2, 0.95, estimates={}, drop={})
    for cells, worst in (([small, unsure, none], small), ([small, undefined], undefined), ([none, unsure], unsure)):
        assert least_favourable(cells) is worst and least_favourable(cells[::-1]) is worst
    assert least_favourable([]) is None


# ---- tables


def sheets_of(result: Hurdles) -> list[Sheet]:
    return [part for part in hurdles_parts(result, Path("H")) if isinstance(part, Sheet)]


def test_the_terminal_shows_the_matrix_first_and_then_every_cell() -> None:
    result = leave_one_out(hurdles())
    cells = [UNDEFINED if (cell.row, cell.column) == ("north", "south") else cell for cell in result.cells]
    result = msgspec.structs.replace(result, cells=cells)
    assert hurdles_parts(result, Path("H"))[:2] == sheets_of(result)
    matrix, of_cells = sheets_of(result)
    assert matrix.headers[1:] == (
        "north",
        "south",
        "clinic",
        OWN_FOLDS,
    )
    assert matrix.rows[0] == (
        "north", "home 0.960 (0.900–0.990)", "sensitivity 62.5 % (56.5–65.5)", "0.930 (0.870–0.960)", "",
    )  # fmt: skip
    assert matrix.rows[2] == (
        "all but north", "0.880 (0.820–0.910)", "in training", "0.880 (0.820–0.910)", "home 0.950 (0.890–0.980)",
    )  # fmt: skip
    assert len(of_cells.rows) == len(result.cells) and len(of_cells.headers) == 3 + len(SHOWN) + 2
    by_name = {row[0]: row for row in of_cells.rows}
    assert by_name["north, at home"][-2:] == ("", "15: 0.820 to 0.960")
    assert by_name["north → south"][3:5] == ("undefined", "undefined")
    assert by_name["north → south"][-2:] == ("33.5 (24.5 to 41.5 points)", "15: 48.5 to 62.5 %")


def test_films_left_out_of_a_test_and_the_files_are_listed() -> None:
    result = of_two(removed={"pixels": 3, "copy": 1_200})
    lines = [part.text for part in hurdles_parts(result, Path("H")) if isinstance(part, Line)]
    reasons = "(equal pixels 3, copies by their look 1,200)"
    assert f"north → south: 1,203 films of this test left out as in training {reasons}." in lines
    assert lines[-4:] == [f"H/{name}" for name in ("hurdles.json", "hurdles.csv", "removed.csv", "hurdles.png")]


def test_a_caution_of_many_pairs_is_shown_once_and_one_of_the_whole_alone() -> None:
    result = hurdles(tuple("abcdefg"))
    one_class, phantoms = caution("one-class"), caution("synthetic-phantoms")
    cells = [
        msgspec.structs.replace(cell, cautions=[one_class, phantoms] if cell.column == "g" else [])
        for cell in result.cells
    ]
    collections = [msgspec.structs.replace(one, cautions=[caution("one-group")]) for one in result.collections[:1]]
    rows = [msgspec.structs.replace(one, cautions=[caution("few-groups", groups=3)]) for one in result.rows[:1]]
    planted = msgspec.structs.replace(
        result, cells=cells, cautions=[phantoms], collections=[*collections, *result.collections[1:]],
        rows=[*rows, *result.rows[1:]],
    )  # fmt: skip
    assert gathered_cautions(planted) == [
        ("", phantoms),
        ("a", caution("one-group")),
        ("a", caution("few-groups", groups=3)),
        ("a → g; b → g; c → g and 3 more", one_class),
    ]


def test_the_csv_has_a_row_a_cell_and_metric_with_what_was_left_out() -> None:
    result = of_two(removed={"copy": 7}, num_samples=36, num_groups=35)
    header, *rows = hurdle_rows(msgspec.structs.replace(result, rows=[hurdles_row("north", confounded=True)]))
    tidy = [dict(zip(header, row, strict=True)) for row in rows]
    assert len(tidy) == len({(row["column"], row["metric"]) for row in tidy}) == 2 * 8
    assert set(SHOWN) < {row["metric"] for row in tidy} and {row["confounded"] for row in tidy} == {"yes"}
    home, away = (row for row in tidy if row["metric"] == "auc")
    assert home["place"] == "home" and home["drop"] is home["drop_low"] is None and home["removed_copy"] == 0
    expected = {"row": "north", "column": "south", "place": "away", "images": 36, "groups": 35, "networks": 15}
    assert away | expected == away and (away["removed_pixels"], away["removed_copy"]) == (0, 7)
    numbers = [away[name] for name in ("value", "low", "high", "drop", "drop_low", "drop_high")]
    assert numbers == pytest.approx([0.55, 0.49, 0.58, 0.43, 0.34, 0.51])


def test_a_name_that_is_no_unicode_can_be_written() -> None:
    (_, first, *_) = hurdle_rows(hurdles(("\udcff", "b")))
    assert first[0].encode() == b"\\udcff"


# ---- findings


def of_findings(fall: float | None = 0.2, near: int = 3, far: int = 2, **changes: Any) -> Hurdles:
    """Networks of north on three findings, of which the south lacks the last.  fall: the first's drop, its low end."""
    home = [finding_cell(name, 0.9) for name in ("Effusion", "Nodule", "Edema")]
    away = [finding_cell("Effusion", 0.6, fall), finding_cell("Nodule", 0.88, -0.02), finding_cell("Edema", None)]
    means: dict[str, Any] = {
        "estimates": {key: estimate(0.74, defined=far, classes=3) for key in ("auc", "ece")},
        "drop": {"auc": estimate(0.15, low=0.1, high=0.2, defined=2, classes=3)},
    }
    cells = [
        hurdles_cell("north", "north", 0.9, estimates={"auc": estimate(0.9, defined=near, classes=3)}, findings=home),
        hurdles_cell("north", "south", 0.74, 0.9, **({"findings": away} | means | changes)),
    ]
    return msgspec.structs.replace(of_two(), classes=["Effusion", "Nodule", "Edema"], positive="", cells=cells)


def test_a_mean_over_findings_is_told_with_how_many_and_findings_that_fall_by_name() -> None:
    told = (
        "Trained on north, the mean AUC is 0.900 over 3 of 3 findings at home and 0.740 over 2 of 3 findings on south; "
        "over 2 findings measured in both the drop is 0.150 (95 % interval 0.100 to 0.200). "
    )
    assert sentences(of_findings()) == [told + "Taken singly, Effusion falls by 0.290."]
    assert sentences(of_findings(-0.1)) == [told + "No single finding is shown to fall."]


@pytest.mark.parametrize(
    ("number", "ending"), [(3, "c falls by 0.290."), (4, "1 other falls as well."), (5, "2 others fall as well.")]
)
def test_findings_that_fall_are_counted_beyond_three(number: int, ending: str) -> None:
    (told,) = sentences(of_findings(findings=[finding_cell(name, 0.6, 0.2) for name in "abcde"[:number]]))
    assert "Taken singly, a falls by 0.290, b falls by 0.290, c falls by" in told and told.endswith(ending)


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        ({"drop": {"auc": alone(None)}}, "over 2 of 3 findings on south; none is measured in both."),
        ({"estimates": {}, "drop": {}}, "Trained on north, no finding is measured on south."),
        (
            {"drop": {"auc": estimate(0.05, low=-0.1, high=0.2, defined=2, classes=3)}},
            "−0.100 to 0.200), which neither shows nor excludes a fall. Taken singly, Effusion falls by 0.290.",
        ),
        (
            {"drop": {"auc": alone(0.05, low=None, high=None) | {"defined": 2, "classes": 3}}},
            "the drop is 0.050, without an interval. Taken singly, Effusion falls by 0.290.",
        ),
        (
            {"drop": {"auc": estimate(0.15, low=0.1, high=0.2, defined=1, classes=3)}},
            "over 1 finding measured in both the drop is 0.150 (95 % interval 0.100 to 0.200). "
            "Taken singly, Effusion falls by 0.290.",
        ),
        (
            {"estimates": {"auc": estimate(0.5, defined=2, classes=3)}},
            "There the mean is not shown to be better than guessing (95 % interval 0.460 to 0.520).",
        ),
    ],
    ids=["none-in-both", "none", "unsure", "no-interval", "one", "guessing"],
)
def test_what_is_not_known_of_findings_is_told_so(changes: dict[str, Any], ending: str) -> None:
    (told,) = sentences(of_findings(**changes))
    assert told.endswith(ending)


def test_each_finding_is_shown_at_home_and_where_it_does_worst_the_surest_fall_first() -> None:
    matrix, of_cells, by_finding = sheets_of(of_findings(-0.1))
    assert matrix.title.startswith("Mean AUC over findings") and by_finding.title.endswith(
        "south, the least favourable"
    )
    assert matrix.rows[0][1:] == (
        "home 0.900 (0.860–0.920)",
        "0.740 (0.700–0.760), 2 of 3 findings",
    )
    assert of_cells.rows[1][3].endswith(", 2 of 3 findings") and of_cells.rows[1][8] == "0.740 (0.700–0.760)"
    assert of_cells.rows[1][-2] == "0.150 (0.100 to 0.200), 2 of 3 findings"
    assert [row[0] for row in by_finding.rows] == ["Nodule", "Effusion", "Edema"]
    assert by_finding.rows[2] == (
        "Edema", "34 of 120", "34 of 120", "0.900 (0.860–0.920)", "undefined", "not measured in both",
    )  # fmt: skip
    assert len(sheets_of(of_two())) == 2


# ---- the figure


def boxes_of(figure: Figure) -> list[Rectangle]:
    """The cells: rectangles that are filled, from the upper left."""
    found = [patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle) and patch.get_fill()]
    return sorted((box for box in found if to_hex(box.get_facecolor(), True) != "#00000000"), key=by_place)


def by_place(box: Rectangle) -> tuple[float, float]:
    return round(box.get_y(), 3), round(box.get_x(), 3)


def contrast(first: str, second: str) -> float:
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_guessing_is_pale_a_perfect_score_is_dark_and_lightness_alone_tells() -> None:
    levels = [luminance(to_hex(shade(0.5 + step / 100))) for step in range(51)]
    assert levels == sorted(levels, reverse=True) and levels[0] > 0.9 and levels[-1] < 0.08
    assert shade(0.2) == shade(0.5)


@pytest.mark.parametrize("score", [0.3, 0.5, 0.6, 0.7, 0.8, 0.84, 0.85, 0.855, 0.86, 0.9, 1.0, None])
def test_the_numbers_of_a_cell_can_be_read_on_its_colour(score: float | None) -> None:
    figure = hurdles_figure(of_two(score))
    box = boxes_of(figure)[1]
    inks = [
        text.get_color()
        for text in figure.axes[0].texts
        if box.get_x() < text.get_position()[0] < box.get_x() + box.get_width()
        and box.get_y() < text.get_position()[1] < box.get_y() + box.get_height()
    ]
    assert len(inks) >= 4 and {contrast(to_hex(ink), to_hex(box.get_facecolor())) >= 4.5 for ink in inks} == {True}


def test_home_cells_are_outlined_rows_of_all_but_one_stand_below_and_what_was_not_tested_is_white() -> None:
    result = leave_one_out(hurdles())
    result = msgspec.structs.replace(result, rows=[*result.rows[2:], *result.rows[:2]])  # whatever their order
    boxes = boxes_of(hurdles_figure(result))
    assert [box.get_linewidth() > 2 for box in boxes] == [
        True, False, False,
        False, True, False,
        False, False, False, True,
        False, False, False, True,
    ]  # fmt: skip
    assert [to_hex(box.get_facecolor()) == "#ffffff" for box in boxes[6:]] == [
        False, True, False, False, True, False, False, False,
    ]  # fmt: skip


def test_what_a_cell_shows_instead_of_the_auc_is_named_and_a_confounded_row_has_its_heading() -> None:
    rows = [hurdles_row("north", confounded=True)]
    figure = hurdles_figure(msgspec.structs.replace(of_two(None, num_samples=36), rows=rows))
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "sensitivity" in texts and "62.5 %" in texts and "n = 36" in texts and "confounded with source" in texts
    assert "test only" in texts and "drop 35.5 (26.5 to 43.5 points)" in texts
    assert to_hex(boxes_of(figure)[1].get_facecolor()) == NO_AUC
    plain = [text.get_text() for text in hurdles_figure(of_two()).axes[0].texts]
    assert not {"sensitivity", "confounded with source"} & {*plain} and "0.550" in plain


# ---- the record


@pytest.mark.parametrize(
    "cells",
    [[], [hurdles_cell("north", "south", 0.5, 0.9)], [hurdles_cell("north", "north", 0.9)] * 2],
    ids=["none", "no-home", "two-homes"],
)
def test_rows_without_one_home_cell_each_are_refused(cells: list[Any]) -> None:
    sound = of_two()
    content = encode_record(sound)
    assert decode_record(Hurdles, content, "hurdles.json") == sound
    with pytest.raises(ValueError, match="one home cell each"):
        msgspec.structs.replace(sound, cells=cells)
