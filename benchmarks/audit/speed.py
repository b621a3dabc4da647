"""Speed: the audit of a folder's files beside cleanvision's default run, in turns, each in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.audit.outcome import Outcome, Target, columns
from benchmarks.audit.speed_worker import RIVALS
from benchmarks.datasets import data_folder, draw_phantoms
from benchmarks.provenance import installed
from benchmarks.settings import THREADS

LEAST = 4.0
PICTURES = (".png", ".jpg", ".jpeg")  # what both read


def link_files(folder: Path) -> int:
    """A folder of all real radiographs, defects and masks, or of phantoms; gives their number."""
    data = data_folder()
    source = data if data is not None else draw_phantoms(folder.parent).parent / "images"
    files = sorted(path for path in source.rglob("*") if path.suffix.lower() in PICTURES)
    for path in files:
        link = folder / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_bytes(path.read_bytes())
    return len(files)


def time_apart(who: str, folder: Path) -> float:
    """Seconds of one rival's run in a new process on THREADS cores."""
    command = [sys.executable, "-m", "benchmarks.audit.speed_worker", who, str(folder)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, check=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(THREADS)},
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1]))


def speed(*, rounds: int = 3, progress: Callable[[str], None] = lambda step: None) -> Outcome:
    """Both in turns, `rounds` times, after one that warms up ours (kernels are compiled once a machine)."""
    version = installed("cleanvision")
    seconds: dict[str, list[float]] = {"plainfilm": []}
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "files"
        number = link_files(folder)
        progress(f"{number} files, to warm up")
        time_apart("plainfilm", folder)
        for turn in range(rounds):
            for who in RIVALS if version else ("plainfilm",):
                progress(f"round {turn + 1}: {who}")
                seconds.setdefault(who, []).append(time_apart(who, folder))
    return conclude(number, seconds, version)


def conclude(number: int, seconds: dict[str, list[float]], version: str | None) -> Outcome:
    """The table, and whether ours is as fast as demanded.  seconds: of each rival, a value a round."""
    rows = [["who", "seconds", "files a second"]]
    for who, taken in seconds.items():
        middle = statistics.median(taken)
        rows.append([who, f"{middle:.2f} ({min(taken):.2f}–{max(taken):.2f})", f"{number / middle:.1f}"])
    if version is None:
        return Outcome(
            lines=(*columns([*rows, ["cleanvision", "missing", ""]]), "cleanvision is not installed: no ratio"),
            record={"files": number, "seconds": seconds, "cleanvision": "missing"},
        )
    ratios = [theirs / ours for ours, theirs in zip(seconds["plainfilm"], seconds["cleanvision"], strict=True)]
    ratio = statistics.median(ratios)
    found = f"{ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    return Outcome(
        lines=(
            *columns(rows),
            f"cleanvision {version} takes {found} times as long, on {number} files, {THREADS} processes",
        ),
        record={"files": number, "seconds": seconds, "cleanvision": version, "ratio": round(ratio, 3)},
        targets=(
            Target(
                what="cleanvision's time over ours", found=found, expected=f"at least {LEAST:g}", met=ratio >= LEAST
            ),
        ),
    )
