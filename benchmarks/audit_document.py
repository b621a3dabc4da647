"""The measured parts of docs/AUDIT.md, written anew from what results/audit.json holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parents[1] / "docs" / "AUDIT.md"
PLACE = re.compile(r"<!-- ([a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(text: str, stored: dict[str, Any]) -> str:
    """The document with each part's table, targets and circumstances between its marks.  stored: by part."""
    return PLACE.sub(lambda mark: f"<!-- {mark[1]} -->\n{part_text(stored.get(mark[1]))}\n<!-- end -->", text)


def part_text(found: dict[str, Any] | None) -> str:
    """One part, or that it has not been measured."""
    if found is None:
        return "Not measured yet."
    lines = [*found["lines"], *(target_line(target) for target in found["targets"])]
    return "\n".join(["```text", *lines, "```", "", circumstances(found["provenance"])])


def target_line(target: dict[str, Any]) -> str:
    """As the terminal has it."""
    met = "met   " if target["met"] else "MISSED"
    return f"{met}  {target['what']}: {target['found']}, expected {target['expected']}"


def circumstances(facts: dict[str, Any]) -> str:
    """Where and when, in a line."""
    if not facts:
        return "Measured elsewhere."
    changed = " with changes" if facts["dirty"] else ""
    return (
        f"Commit {facts['commit']}{changed}, {facts['date'][:10]}, {facts['cpu']}, {facts['cores']} cores, "
        f"load average {facts['load_average']:.1f} at the start."
    )
