"""Tests of the benchmarks' harness: turns, medians, and outputs before speeds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.rivals import MISSING, Comparison, Disagreement, expect_close, interleaved, table


def pedantic(target: Callable, setup: Callable, rounds: int, iterations: int) -> None:
    """The rounds as pytest-benchmark runs them."""
    assert iterations == 1
    for _ in range(rounds):
        setup()
        target()


def run(rivals: dict[str, Any], check: Callable = lambda: None, rounds: int = 5) -> Comparison:
    return interleaved("work", rivals, check=check, rounds=rounds, pedantic=pedantic, images=8)


def test_every_rival_has_its_turn_in_every_round_after_one_warm_up() -> None:
    calls: list[str] = []
    comparison = run({name: lambda name=name: calls.append(name) for name in ("ours", "b", "c")}, rounds=5)
    turns = [calls[start : start + 3] for start in range(0, len(calls), 3)]
    assert len(turns) == 1 + 5
    assert all(sorted(turn) == ["b", "c", "ours"] for turn in turns)
    assert [len(seconds) for seconds in comparison.seconds.values()] == [5, 5, 5]


def test_rivals_do_not_always_follow_the_same_neighbour() -> None:
    calls: list[str] = []
    run({name: lambda name=name: calls.append(name) for name in ("ours", "b", "c")}, rounds=4)
    before_ours = [calls[place - 1] for place, name in enumerate(calls) if name == "ours" and place]
    assert set(before_ours) == {"b", "c"}


def test_outputs_that_disagree_fail_before_anything_is_timed() -> None:
    calls: list[str] = []

    def check() -> None:
        expect_close("b", [0.0, 1.0], [0.0, 3.0], mean=0.5)

    with pytest.raises(Disagreement, match=r"b: outputs differ by 1 on average and 2 at most, expected 0\.5"):
        run({"ours": lambda: calls.append("ours"), "b": lambda: calls.append("b")}, check)
    assert not calls


@pytest.mark.parametrize("found", [[np.nan, 1.0], [0.0], [[0.0, 1.0]], [0.0, 1.2]])
def test_nan_another_shape_and_one_far_pixel_disagree(found: list) -> None:
    with pytest.raises(Disagreement):
        expect_close("rival", found, [0.0, 1.0], mean=1.0, most=0.1)


def test_outputs_within_both_bounds_agree() -> None:
    expect_close("rival", [0.0, 1.1], [0.0, 1.0], mean=0.06, most=0.11)


def test_the_ratio_is_the_median_of_each_rounds_own() -> None:
    # the second round was slow for both; the ratio of medians would be 3 / 2
    comparison = Comparison(what="work", work={"images": 6.0}, seconds={"ours": [1, 20, 2], "b": [3, 40, 2]})
    assert comparison.ratios("b") == [3, 2, 1]
    record = comparison.record()["rivals"]["b"]
    assert (record["ratio"], record["ratio_min"], record["ratio_max"]) == (2, 1, 3)
    assert record["images_per_second"] == 6 / 3
    assert comparison.record()["rivals"]["ours"]["ratio"] == 1


def test_a_rival_that_is_not_installed_is_in_the_table_as_missing() -> None:
    comparison = run({"ours": lambda: None, "FFCV": None})
    assert comparison.record()["rivals"]["FFCV"] == MISSING
    (line,) = (line for line in table([comparison]) if "FFCV" in line)
    assert line.split()[-1] == MISSING


def test_the_table_has_a_line_for_each_rival_and_unit() -> None:
    seconds = {"ours": [0.5, 0.5, 0.5], "b": [1.0, 2.0, 1.5], "c": [0.25, 0.25, 0.25]}
    lines = table([Comparison(what="work", work={"images": 100.0, "epochs": 1.0}, seconds=seconds)])
    assert [line.split() for line in lines[1:]] == [
        ["work", "images/s", "200", "b", "66.7", "3.00", "2.00–4.00"],
        ["work", "images/s", "200", "c", "400", "0.50", "0.50–0.50"],
        ["work", "epochs/s", "2", "b", "0.667", "3.00", "2.00–4.00"],
        ["work", "epochs/s", "2", "c", "4", "0.50", "0.50–0.50"],
    ]
