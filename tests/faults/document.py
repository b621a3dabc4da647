"""The table of docs/RELIABILITY.md: the campaigns with their counts, date and commit."""

from __future__ import annotations

import json
import subprocess
from datetime import date
from pathlib import Path

from tests.faults.campaigns import CAMPAIGNS
from tests.faults.tally import Tally

PAGE = Path("docs/RELIABILITY.md")
BEGIN, END = "<!-- campaigns: written by make faults -->", "<!-- end of campaigns -->"


def commit() -> str:
    """The commit that is checked out, with "+" if anything tracked differs from it."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    differs = subprocess.run(["git", "diff", "--quiet", "HEAD"], check=False).returncode
    return head.strip() + "+" * bool(differs)


def stored(results: Path) -> dict[str, dict]:
    """What earlier runs stored of campaigns, those left out that have gone or have another name now."""
    found = json.loads(results.read_text()) if results.exists() else {}
    return {campaign.name: found[campaign.name] for campaign in CAMPAIGNS if campaign.name in found}


def result_of(tally: Tally, *, seed: int, seconds: float, day: date, revision: str) -> dict[str, object]:
    """What is stored of one campaign.  revision: commit() before the first, since the page itself is tracked."""
    return {
        "attempts": tally.attempts,
        "outcomes": dict(tally.outcomes.most_common()),
        "failures": tally.failures,
        "seed": seed,
        "seconds": round(seconds),
        "date": day.isoformat(),
        "commit": revision,
    }


def table(results: dict[str, dict]) -> str:
    """Markdown: a row a campaign; one that was never run says so."""
    lines = ["| attack | what must hold | attempts | ended as | broken | date, commit |", "| --- " * 6 + "|"]
    for campaign in CAMPAIGNS:
        words = f"| {campaign.attack} (`{campaign.name}`) | {campaign.holds} |"
        if result := results.get(campaign.name):
            endings = ", ".join(f"{count:,} {what}" for what, count in result["outcomes"].items())
            last = f"{result['date']}, {result['commit']}, {result['seconds']:,} s"
            lines.append(f"{words} {result['attempts']:,} | {endings} | {len(result['failures'])} | {last} |")
        else:
            lines.append(f"{words} not run | | | |")
    return "\n".join(lines)


def document(results: dict[str, dict]) -> None:
    """Put the table between its two marks in docs/RELIABILITY.md."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}")
