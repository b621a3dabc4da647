"""The tables of speed in README.md, written anew from a stored result of `make bench`.

python -m benchmarks.speed_document               # from the result that README's tables are of
python -m benchmarks.speed_document RESULT.json   # from another one
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks.audit_document import circumstances
from benchmarks.contest import Missing
from benchmarks.rivals import Comparison, from_record
from benchmarks.table import show
from benchmarks.targets import place_of, verdict

DOCUMENT = Path(__file__).parents[1] / "README.md"
RESULTS = Path(__file__).parent / "results"
PLACE = re.compile(r"<!-- speed (\S+) -->\n.*?<!-- end -->", re.DOTALL)
HEADER = ("what", "plainfilm, a second", "rival, a second", "ratio (min–max)", "target")


def filled(text: str, result: Path | None = None) -> str:
    """The document with the tables of a result between its marks, by default of the one that they name."""

    def block(mark: re.Match[str]) -> str:
        path = result or RESULTS / mark[1]
        lines = speed_lines(json.loads(path.read_text(encoding="utf-8")))
        return "\n".join([f"<!-- speed {path.name} -->", *lines, "<!-- end -->"])

    return PLACE.sub(block, text)


def speed_lines(content: dict[str, Any]) -> list[str]:
    """A row for each rival, what was measured beside none, and where and when.  content: pytest-benchmark's JSON."""
    comparisons = [from_record(found["extra_info"]) for found in content["benchmarks"] if found["extra_info"]]
    rows = [HEADER, ("---",) * len(HEADER)]
    for comparison in sorted(comparisons, key=lambda found: place_of(found.what)):
        rows += rival_rows(comparison)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    for what, found in content["facts"].items():
        lines += ["", f"{what[:1].upper()}{what[1:]}:", "", "```text", *found, "```"]
    return [*lines, "", circumstances(content["machine_info"]["plainfilm"])]


def rival_rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """The rows of one contest, whose name and rate stand in the first."""
    first = (comparison.what, f"{show(comparison.rate(comparison.ours))} {comparison.unit}")
    rows = []
    for rival, seconds in comparison.seconds.items():
        if rival == comparison.ours:
            continue
        if isinstance(seconds, Missing):
            rows.append((*first, f"{rival}: missing", "", ""))
        else:
            ratio, ratios = comparison.ratio(rival), comparison.ratios(rival)
            extremes = f"{ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            reached = verdict(comparison.what, rival, ratio).replace("missed", "**missed**")
            rows.append((*first, f"{rival}: {show(comparison.rate(rival))}", extremes, reached))
        first = ("", "")
    return rows


def main(arguments: list[str]) -> None:
    """Write README.md anew."""
    result = Path(arguments[0]) if arguments else None
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8"), result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
