"""Training epochs beside stock PyTorch."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.material import Converted
from benchmarks.step_contest import step_contest


def test_epochs(compare: Callable, converted_64: Converted) -> None:
    with step_contest(converted_64.beton) as contest:
        compare(contest)
