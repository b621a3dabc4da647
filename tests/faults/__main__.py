"""Run the campaigns in full, print their tallies, and write each into docs/RELIABILITY.md: make faults."""

import argparse
import contextlib
import json
import subprocess
import sys
from datetime import date
from pathlib import Path

from rich.console import Console

from loaders.machine import usable_cores
from tests.faults.campaign import Tally
from tests.faults.campaigns import CAMPAIGNS
from tests.faults.parallel import Done, side_by_side

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
        described = f"| {campaign.attack} (`{campaign.name}`) | {campaign.holds} |"
        if result := results.get(campaign.name):
            endings = ", ".join(f"{count:,} {what}" for what, count in result["outcomes"].items())
            last = f"{result['date']}, {result['commit']}, {result['seconds']:,} s"
            lines.append(f"{described} {result['attempts']:,} | {endings} | {len(result['failures'])} | {last} |")
        else:
            lines.append(f"{described} not run | | | |")
    return "\n".join(lines)


def document(results: dict[str, dict]) -> None:
    """Put the table between its two marks in docs/RELIABILITY.md."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}")


# ---- the command


RESULTS = Path("benchmarks/results/faults.json")
JOBS = min(usable_cores(), 4)  # a campaign takes about a core and a gibibyte


def print_tally(done: Done, lacking: str, console: Console) -> None:
    """Print a campaign's tally.  lacking: which attempts were not made, or ""."""
    tally = done.tally
    broken = [f"{len(tally.failures)} broken"] if tally.failures else []
    wrong = ", ".join(broken + ([lacking] if lacking else []))
    verdict = f"[red]{wrong}[/]" if wrong else "[green]held[/]"
    endings = ", ".join(f"{number:,} {what}" for what, number in tally.outcomes.most_common())
    console.print(f"{done.campaign.name:<14} {verdict} in {tally.attempts:,} attempts, {done.seconds:.0f} s: {endings}")
    for failure in tally.failures[:20]:
        console.print(f"    {failure}", markup=False)


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0: every promise held, and every campaign ran in full; 1: not; 130: interrupted."""
    names = [campaign.name for campaign in CAMPAIGNS]
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CAMPAIGN", help=f"of {', '.join(names)}. [all]")
    parser.add_argument("--seed", type=int, default=0, help="Seed of every campaign. [0]")
    parser.add_argument("--short", action="store_true", help="As few attempts as in make test-extras.")
    parser.add_argument("--count", type=int, help="Attempts of each campaign, instead of its own number.")
    parser.add_argument("--jobs", type=int, default=JOBS, help=f"Campaigns side by side. [{JOBS}]")
    parser.add_argument("--document", action="store_true", help="Write the table of docs/RELIABILITY.md anew.")
    chosen = parser.parse_args(arguments)
    if chosen.jobs < 1:
        parser.error(f"--jobs {chosen.jobs}, expected 1 at least")
    if unknown := set(chosen.names) - set(names):
        parser.error(f"no campaign {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    console, green, results, revision = Console(), True, stored(RESULTS), commit()
    jobs = []
    for campaign in CAMPAIGNS:
        if chosen.names and campaign.name not in chosen.names:
            continue
        if reason := campaign.missing():
            console.print(f"{campaign.name:<14} [red]cannot run here:[/] {reason}")
            green = False
            continue
        jobs.append((campaign, chosen.count or (campaign.short if chosen.short else campaign.full)))
    try:
        with contextlib.closing(side_by_side(jobs, chosen.seed, chosen.jobs, console)) as ended:
            for done in ended:
                lacking = done.campaign.lacking(done.tally, done.count)
                green &= not done.tally.failures and not lacking
                print_tally(done, lacking, console)
                results[done.campaign.name] = result_of(
                    done.tally, seed=chosen.seed, seconds=done.seconds, day=date.today(), revision=revision
                )
                if chosen.document:  # after each, so that whatever ends a later one takes nothing from it
                    ordered = {one.name: results[one.name] for one in CAMPAIGNS if one.name in results}
                    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")
                    document(ordered)
    except KeyboardInterrupt:
        console.print("[red]interrupted[/]; what was done before stays written")
        return 130
    return 0 if green else 1


if __name__ == "__main__":
    sys.exit(main())
