"""Provenance of a measurement: commit, machine and versions.

As a program it prints where today's result of `make bench` belongs.
"""

import os
import re
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.settings import RESULTS
from engine.device import choose_device, device_name
from loaders import __version__

PACKAGES = (
    "torch",
    "numpy",
    "numba",
    "opencv-python-headless",
    "opencv-python",
    "pillow",
    "ffcv",
    "nvidia-dali-cuda120",
    "spdl-io",
    "torchvision",
    "kornia",
    "litdata",
    "webdataset",
    "transformers",
    "peft",
    "pytest-benchmark",
)


def provenance() -> dict[str, Any]:
    """Where, when and with what the benchmarks run; of a package that is not installed, None."""
    return {
        "commit": git("rev-parse", "--short=12", "HEAD") or "unknown",
        "dirty": bool(git("status", "--porcelain")),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device_name(choose_device("auto")),
        "cpu": cpu_name()[0],
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "torch_threads": torch.get_num_threads(),
        "versions": {"plainfilm": __version__} | {package: installed(package) for package in PACKAGES},
    }


def cpu_name() -> list[str]:
    """The CPU's name, and its family and model where it has any: a virtual machine's name alone may be vague."""
    from cpuinfo import get_cpu_info  # pytest-benchmark brings it; the harness and its tests do without

    found = get_cpu_info()
    return [found.get("brand_raw", "unknown"), *(str(found[key]) for key in ("family", "model") if key in found)]


def machine_name() -> str:
    """Name of machines like this one, for files: 2cores-amd-epyc-25-17, by cores, name, family and model."""
    name = re.sub(r"[^a-z0-9]+", "-", " ".join(cpu_name()).lower()).strip("-")
    return f"{os.cpu_count()}cores-{name}"


def describe(facts: dict[str, Any]) -> str:
    """Provenance as two lines."""
    versions = ", ".join(f"{name} {found or 'missing'}" for name, found in facts["versions"].items())
    return (
        f"commit {facts['commit']}{' with changes' if facts['dirty'] else ''}, {facts['date']}, {facts['cpu']}, "
        f"{facts['cores']} cores, load average {facts['load_average']:.2f} at the start, {facts['device']}\n{versions}"
    )


def installed(package: str) -> str | None:
    """A package's version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def git(*arguments: str) -> str:
    """What git reports of this checkout; nothing where there is no git or no checkout."""
    try:
        asked = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return asked.stdout.strip()


if __name__ == "__main__":
    print(RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{machine_name()}.json")


def circumstances(facts: dict[str, Any]) -> str:
    """Where, when and with what, as the line below a table."""
    if not facts:
        return "The commit of this result was not recorded."
    changed = " with changes" if facts["dirty"] else ""
    load = f", load average {facts['load_average']:.1f} at the start" if facts.get("load_average") is not None else ""
    versions = ", ".join(f"{name} {found}" for name, found in facts["versions"].items() if found)
    machine = f"{facts['cpu']}, {facts['cores']} cores{load}"
    return f"Commit {facts['commit']}{changed}, {facts['date'][:10]}, {machine}; {versions}."
