"""Converter beside a loop in Pillow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.conversion_contest import NUM_RADIOGRAPHS, conversion_contest
from benchmarks.material import vary

ROUNDS = 5  # of several seconds each


def test_conversion(compare: Callable, radiographs: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    many = vary(radiographs, files, NUM_RADIOGRAPHS)
    with conversion_contest(many, tmp_path) as contest:
        compare(contest, rounds=ROUNDS)
