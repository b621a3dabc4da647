"""Run the campaigns in full, print their tallies, and write each into docs/RELIABILITY.md: make faults."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tests.faults.campaigns import CAMPAIGNS
from tests.faults.document import commit, document, result_of, stored
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
    """One campaign in an empty folder; gives its tally and its seconds.

    A campaign that an exception ends has told nothing of its attempts: that is counted as broken, with the traceback.
    """
    began = time.monotonic()
    try:
        with (
            tempfile.TemporaryDirectory(prefix=f"faults-{campaign.name}-") as folder,
            bar(console, campaign, count) as step,
        ):
            tally = campaign.run(count, seed, Path(folder), step)
    except Exception:  # noqa: BLE001 — the next campaign runs nevertheless
        tally = Tally()
        tally.broke(f"seed {seed}: the campaign itself ended:\n{traceback.format_exc()}")
    return tally, time.monotonic() - began


def tell(campaign: Campaign, tally: Tally, lacking: str, seconds: float, console: Console) -> None:
    """Print a campaign's tally.  lacking: which attempts were not made, or ""."""
    broken = [f"{len(tally.failures)} broken"] if tally.failures else []
    wrong = ", ".join(broken + ([lacking] if lacking else []))
    verdict = f"[red]{wrong}[/]" if wrong else "[green]held[/]"
    endings = ", ".join(f"{number:,} {what}" for what, number in tally.outcomes.most_common())
    console.print(f"{campaign.name:<14} {verdict} in {tally.attempts:,} attempts, {seconds:.0f} s: {endings}")
    for failure in tally.failures[:20]:
        console.print(f"    {failure}", markup=False)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: every promise held, and every campaign ran in full; 1: not; 130: interrupted."""
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
    console, green, results, revision = Console(), True, stored(RESULTS), commit()
    for campaign in CAMPAIGNS:
        if chosen.names and campaign.name not in chosen.names:
            continue
        if reason := campaign.missing():
            console.print(f"{campaign.name:<14} [red]cannot run here:[/] {reason}")
            green = False
            continue
        count = chosen.count or (campaign.short if chosen.short else campaign.full)
        try:
            tally, seconds = attack(campaign, count, chosen.seed, console)
        except KeyboardInterrupt:
            console.print(f"{campaign.name:<14} [red]interrupted[/]; what was done before it stays written")
            return 130
        lacking = campaign.lacking(tally, count)
        green &= not tally.failures and not lacking
        tell(campaign, tally, lacking, seconds, console)
        results[campaign.name] = result_of(
            tally, seed=chosen.seed, seconds=seconds, day=date.today(), revision=revision
        )
        if chosen.document:  # after each, so that whatever ends a later one takes nothing from it
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
            document(results)
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
