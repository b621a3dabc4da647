"""What victims of a training run first: a signal at a named point."""

from __future__ import annotations

import functools
import importlib
import io
import json
import os
import pathlib
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from loaders.atomic_file import SUFFIX

POINTS = {  # a name, and the function whose calls it counts
    "step": ("engine.train.epochs", "train_step"),
    "validation": ("engine.train.epochs", "predict"),
    "leakage": ("engine.train.train", "save_record"),
    "settings": ("engine.train.train", "save_settings"),
    "checkpoint": ("engine.train.run_folder", "save_checkpoint"),
    "sync": ("os", "fsync"),
    "rename": ("os", "replace"),
    "curves": ("engine.train.run_folder", "curves_figure"),
    "page": ("engine.report.report", "run_page"),
}
HALF = "half"  # the point in the middle of a write of a file that is to be published
POLITE = {signal.SIGTERM, signal.SIGINT}


def signal_at(point: str, number: int, *, after: bool, signals: list[int]) -> None:
    """Send this process signals before, after, or for HALF within, the number-th call of a point's function."""
    hold_until_handled()

    def strike() -> None:
        for one in signals:
            os.kill(os.getpid(), one)

    def struck(found: str, place: bool) -> None:
        calls[found, place] += 1
        if (found, place, calls[found, place]) == (point, after, number):
            strike()

    calls: Counter[tuple[str, bool]] = Counter()
    watch_points(struck)


def count_points(out: str) -> None:
    """Count the calls of each point, all and those until the last step began; write both at every call."""
    hold_until_handled()
    calls: Counter[str] = Counter()
    until_last_step: dict[str, int] = {}

    def count(point: str, after: bool) -> None:
        calls[point] += not after
        if point == "step" and not after:
            until_last_step.update(calls)
        Path(out).write_text(json.dumps({"all": calls, "until the last step": until_last_step}))

    watch_points(count)


def watch_points(told: Callable[[str, bool], None]) -> None:
    """Tell of every call of a point's function, before (False) and after (True) it."""

    def watched(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            told(point, False)
            given = function(*arguments, **options)
            told(point, True)
            return given

        return call

    for point, (module, name) in POINTS.items():
        owner = importlib.import_module(module)
        setattr(owner, name, watched(point, getattr(owner, name)))

    class Halved(io.FileIO):
        def write(self, content: Any) -> int:
            view = memoryview(content).cast("B")
            done = super().write(view[: len(view) // 2]) or 0
            os.fdatasync(self.fileno())
            told(HALF, False)
            return done + (super().write(view[done:]) or 0)

    plain_open = pathlib.Path.open

    def open_halved(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode in ("wb", "xb") and self.name.endswith(SUFFIX):
            return io.BufferedWriter(Halved(self, mode))
        return plain_open(self, mode, *arguments, **options)

    pathlib.Path.open = open_halved  # type: ignore[method-assign]


def hold_until_handled() -> None:
    """Let SIGTERM and SIGINT through only while cli.main has handlers for them."""
    import cli

    signal.pthread_sigmask(signal.SIG_BLOCK, POLITE)
    plain_run = cli.run

    def run(*arguments: Any, **options: Any) -> int:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, POLITE)
        try:
            return plain_run(*arguments, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, POLITE)

    cli.run = run
