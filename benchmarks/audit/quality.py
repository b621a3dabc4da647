"""`make audit-quality`: how well the audit works, by planted and by real defects, planted shortcuts, formats and speed.

Each part prints a table and what it met or missed, and stores its figures in benchmarks/results/audit.json, where
parts that were not run keep theirs; --document puts them into docs/AUDIT.md.  `all` is every part but outside-mark,
which trains.  Exits with 1 if a target was missed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2

from benchmarks.audit.formats import formats
from benchmarks.audit.outcome import Outcome
from benchmarks.audit.outside_mark import outside_mark
from benchmarks.audit.planted import planted
from benchmarks.audit.real import real
from benchmarks.audit.shortcuts import shortcuts
from benchmarks.audit.speed import speed
from benchmarks.document import AUDIT, with_audit
from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from loaders.errors import InputError

PARTS: dict[str, Callable[..., Outcome]] = {
    "planted": planted,
    "real": real,
    "speed": speed,
    "shortcuts": shortcuts,
    "formats": formats,
    "outside-mark": outside_mark,
}
ALL = tuple(name for name in PARTS if name != "outside-mark")


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.audit.quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="+", choices=[*PARTS, "all"])
    parser.add_argument("--out", type=Path, default=RESULTS / "audit.json", help="default: %(default)s")
    parser.add_argument("--document", action="store_true", help="write the tables of docs/AUDIT.md")
    parser.add_argument("--null-seeds", type=int, help="shortcuts: collections without a shortcut; default: 200")
    parser.add_argument(
        "--seeds", type=int, help="shortcuts, outside-mark: collections or trainings for each rho or way"
    )
    return parser


def options_of(name: str, chosen: argparse.Namespace) -> dict[str, int]:
    """What the command line asks of one part beyond its defaults."""
    asked = {"seeds": chosen.seeds} if name in ("shortcuts", "outside-mark") else {}
    if name == "shortcuts":
        asked["null_seeds"] = chosen.null_seeds
    return {option: value for option, value in asked.items() if value is not None}


def store(path: Path, name: str, found: dict[str, object]) -> None:
    """Put one part's figures into the file, beside the others'."""
    stored = json.loads(path.read_text()) if path.exists() else {}
    stored[name] = found
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({part: stored[part] for part in PARTS if part in stored}, indent=1) + "\n")


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    chosen = make_parser().parse_args(arguments)
    cv2.setNumThreads(1)
    facts = provenance()
    print(describe(facts))
    missed = 0
    for name in dict.fromkeys(part for asked in chosen.parts for part in (ALL if asked == "all" else (asked,))):
        started = time.perf_counter()
        print(f"\n== {name}", flush=True)
        try:
            outcome = PARTS[name](progress=partial(show, started), **options_of(name, chosen))
        except InputError as error:
            print(f"missing: {error}")
            continue
        seconds = time.perf_counter() - started
        print("\n".join([*outcome.lines, *(target.line() for target in outcome.targets)]))
        print(f"{seconds:.0f} s", flush=True)
        store(chosen.out, name, outcome.stored(facts) | {"seconds": round(seconds, 1)})
        missed += sum(not target.met for target in outcome.targets)
    if chosen.document:
        AUDIT.write_text(with_audit(AUDIT.read_text(), json.loads(chosen.out.read_text())))
    return int(missed > 0)


def show(started: float, step: str) -> None:
    """Where a part stands, for who waits."""
    print(f"{time.perf_counter() - started:6.0f} s  {step}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
