"""The report of a device's benchmark: sections that may fail with a reason, targets met or missed, one JSON file."""

import contextlib
import json
import platform
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.provenance import git, installed
from benchmarks.settings import RESULTS

PACKAGES = ("torch", "triton", "numpy", "numba", "opencv-python-headless", "torchvision", "pytest")


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceTarget:
    """value: finds the measured number in the sections; a KeyError or TypeError means that it was not measured."""

    what: str
    asked: str
    value: Callable[[dict[str, Any]], float]
    met: Callable[[float], bool]


@dataclass(kw_only=True, slots=True)
class DeviceReport:
    """What was measured on one device.  sections: each a dict of numbers, with a "reason" where some are missing.

    budget: seconds from the beginning to the last section's end.
    """

    device: str
    facts: dict[str, Any]
    budget: float = 3600.0
    sections: dict[str, Any] = field(default_factory=dict)
    begin: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self.begin

    def measure(self, name: str, section: Callable[[], dict[str, Any]], limit: float = 600.0) -> None:
        """Run one section and print what it gives; whatever fails in it is its reason, and the others continue.

        limit: seconds; a section that takes longer, or beyond the budget, is stopped, and what it waits for with it.
        """
        begin = time.perf_counter()
        try:
            with time_limit(min(limit, self.budget - self.seconds)):
                found = section()
        except Exception as error:  # noqa: BLE001 - what does not run on an unknown machine is a result too
            traceback.print_exc()
            found = {"reason": f"{type(error).__name__}: {error}"}
        self.sections[name] = found | {"took_seconds": round(time.perf_counter() - begin, 2)}
        print(f"{name}: {json.dumps(self.sections[name])}", flush=True)

    def publish(self, targets: tuple[DeviceTarget, ...]) -> Path:
        """Print the targets and what went wrong, and write everything to results/<date>-<device>.json."""
        rows = [judged(target, self.sections) for target in targets]
        for row in rows:
            print(f"{row['verdict']:12} {row['what']}: {row['measured']} (asked: {row['asked']})")
        failures, total = self.failures(targets), round(self.seconds, 1)
        for failure in failures:
            print(f"failed       {failure}")
        slug = re.sub(r"[^a-z0-9]+", "-", self.device.lower()).strip("-")
        path = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{slug}.json"
        path.parent.mkdir(exist_ok=True)
        content = {"device": self.device, **self.facts, "total_seconds": total, "failures": failures}
        content |= {"targets": rows, "sections": self.sections}
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        print(f"{total} seconds in all: {path}")
        return path

    def failures(self, targets: tuple[DeviceTarget, ...]) -> list[str]:
        """What was not measured: sections with a reason, and targets without a number.  None where all went well."""
        reasons = [f"{name}: {found['reason']}" for name, found in self.sections.items() if "reason" in found]
        rows = [judged(target, self.sections) for target in targets]
        return reasons + [f"not measured: {row['what']}" for row in rows if row["measured"] is None]


class OutOfTimeError(Exception):
    """Something took too long.  Not Python's own TimeoutError, an OSError, which much code takes for a file's."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError in the body after so many seconds, in whatever it waits for; one may lie within another.

    By the one alarm that a POSIX process has, and so in its main thread only.
    """

    def ring(*_: object) -> None:
        raise OutOfTimeError(f"not done after {seconds:.0f} seconds")

    if seconds <= 0:
        raise OutOfTimeError("no time was left for it")
    begin, outer = time.monotonic(), signal.signal(signal.SIGALRM, ring)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, outer)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, left - (time.monotonic() - begin)))


def judged(target: DeviceTarget, sections: dict[str, Any]) -> dict[str, Any]:
    """One row of the table of targets."""
    try:
        measured = float(target.value(sections))
    except (KeyError, TypeError, ZeroDivisionError):
        return {"what": target.what, "asked": target.asked, "measured": None, "verdict": "not measured"}
    verdict = "met" if target.met(measured) else "missed"
    return {"what": target.what, "asked": target.asked, "measured": round(measured, 4), "verdict": verdict}


def device_facts() -> dict[str, Any]:
    """Commit, versions and machine."""
    return {
        "commit": git("rev-parse", "--short=12", "HEAD") or "unknown",
        "dirty": bool(git("status", "--porcelain")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {package: installed(package) for package in PACKAGES}
        | {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()},
    }


def refuse(device: str) -> int:
    """Say that there is no such device.  Gives the exit code."""
    print(
        f"no {device} device found by torch {torch.__version__}, expected one: "
        f"run this on a machine with {device}, and a build of torch for it",
        file=sys.stderr,
    )
    return 2
