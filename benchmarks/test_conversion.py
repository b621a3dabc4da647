"""Converter beside a loop in Pillow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.conversion_contest import conversion_contest

ROUNDS = 5  # of several seconds each


def test_conversion(compare: Callable, radiographs: Path, tmp_path: Path) -> None:
    with conversion_contest(radiographs, tmp_path) as contest:
        compare(contest, rounds=ROUNDS)
