"""Converter beside a loop in Pillow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.conversion_contest import conversion_contest
from benchmarks.material import vary
from benchmarks.settings import Workload


def test_conversion(compare: Callable, workload: Workload, radiographs: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    many = vary(radiographs, files, workload.files)
    with conversion_contest(many, tmp_path) as contest:
        compare(contest, rounds=workload.long_rounds)
