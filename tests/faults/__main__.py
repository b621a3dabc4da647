"""Run the campaigns in full, print their tallies, and write them into docs/RELIABILITY.md: make faults."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.faults.campaigns import CAMPAIGNS
from tests.faults.document import document, result_of
from tests.faults.tally import Campaign, Tally

RESULTS = Path("benchmarks/results/faults.json")


@contextmanager
def bar(console: Console, campaign: Campaign, count: int) -> Iterator[Callable[[], None]]:
    """A progress bar of one campaign; gives what advances it."""
    columns = (TextColumn(f"{campaign.name:<14}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=count)
        yield lambda: progress.advance(task)


def attack(campaign: Campaign, count: int, seed: int, console: Console) -> tuple[Tally, float]:
    """One campaign in an empty folder; gives its tally and its seconds."""
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix=f"faults-{campaign.name}-") as folder,
        bar(console, campaign, count) as step,
    ):
        tally = campaign.run(count, seed, Path(folder), step)
    return tally, time.monotonic() - began


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: every promise held and every campaign ran; 1: not."""
    names = [campaign.name for campaign in CAMPAIGNS]
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CAMPAIGN", help=f"of {', '.join(names)}. [all]")
    parser.add_argument("--seed", type=int, default=0, help="Seed of every campaign. [0]")
    parser.add_argument("--short", action="store_true", help="As few attempts as in make test.")
    parser.add_argument("--count", type=int, help="Attempts of each campaign, instead of its own number.")
    parser.add_argument("--document", action="store_true", help="Write the table of docs/RELIABILITY.md anew.")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(names):
        parser.error(f"no campaign {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    console = Console()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    green = True
    for campaign in CAMPAIGNS:
        if chosen.names and campaign.name not in chosen.names:
            continue
        if reason := campaign.missing():
            console.print(f"{campaign.name:<14} [red]cannot run here:[/] {reason}")
            green = False
            continue
        count = chosen.count or (campaign.short if chosen.short else campaign.full)
        tally, seconds = attack(campaign, count, chosen.seed, console)
        green &= not tally.failures
        verdict = f"[red]{len(tally.failures)} broken[/]" if tally.failures else "[green]held[/]"
        endings = ", ".join(f"{number:,} {what}" for what, number in tally.outcomes.most_common())
        console.print(f"{campaign.name:<14} {verdict} in {tally.attempts:,} attempts, {seconds:.0f} s: {endings}")
        for failure in tally.failures[:20]:
            console.print(f"    {failure}", markup=False)
        results[campaign.name] = result_of(tally, seed=chosen.seed, seconds=seconds, day=date.today())
    if chosen.document:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        document(results)
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
