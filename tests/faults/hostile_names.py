"""Hostile names: files, links, pipes and tables that would lead a command astray, or out of its folders."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.faults.hostile_places import Case, Place, cases, convert_argv, plant
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import Ending, Nursery

ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
WATCH = """
import os, sys
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, given):
    if event == "open" and isinstance(given[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.fsdecode(given[0]))
        if path.startswith({outside!r}):
            os.write(log, path.encode("utf-8", "backslashreplace") + b"\\n")
sys.addaudithook(watch)
"""
IMPORTS = (
    "import cli, loaders.convert, loaders.convert_words, loaders.audit.audit, loaders.audit.words, "
    "engine.training, engine.report.report, engine.prediction.prediction, engine.prediction.words, "
    "engine.explanation.explain, engine.explanation.words"
)


def state_of(folder: Path) -> list[tuple[str, bytes, int]]:
    """Every file of a folder with its bytes and when it was changed."""
    return [(path.name, path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.iterdir())]


def rows_of(table: Path) -> list[dict[str, str]]:
    """A table's rows."""
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def complaints(case: Case, ending: Ending, place: Place, seen: Path) -> Iterator[str]:
    """What broke a promise."""
    if ending.timed_out or ending.code not in (0, 2, 3) or ending.traceback:
        yield f"ended with {ending.code}{' for lack of time' * ending.timed_out}: {ending.errors.strip()[-150:]!r}"
    if ODD.search(ending.output + ending.errors):
        yield f"put control characters on the terminal: {ODD.findall(ending.output + ending.errors)[:5]}"
    if seen.exists() and (read := seen.read_text().split()):
        yield f"opened {Path(read[0]).name} outside the roots"
    for page in place.out.rglob("*.html") if place.out.is_dir() else ():
        text = page.read_text()
        if ODD.search(text) or "<img src=x" in text:
            yield f"{page.name} holds control characters or a name's markup"
    for table in place.out.rglob("*.csv") if place.out.is_dir() else ():
        cells = [cell or "" for row in rows_of(table) for cell in row.values()]
        if formulas := [cell for cell in cells if re.match(r"[=+@\t\r]|-(?![0-9.])", cell)]:
            yield f"{table.name} has a formula: {formulas[0][:30]!r}"
    if case.table is None:
        return
    if not case.table.is_file():
        if case.used:
            yield f"left no {case.table.name}: {ending.errors.strip()[-150:]!r}"
        return
    of_path = {row["path"].removeprefix("./"): row for row in rows_of(case.table)}
    row = of_path.get(case.row.removeprefix("./"))
    if row is None:
        yield f"has no row for {case.row[-40:]!r}"
        return
    good = {"convert.csv": "written", "audit.csv": "", "predictions.csv": "unreadable"}[case.table.name]
    found = row.get("verdict") or row.get("reason") or ""
    refused = "unreadable" in f"{row.get('defects')} {row.get('reason')}" or found == "rejected"
    if refused == case.used:
        yield f"{case.row[-40:]!r} is {found}{row.get('defects', '')}, expected {good if case.used else 'a refusal'}"


def prepare(nursery: Nursery, folder: Path) -> None:
    """A conversion and a run, for predict and explain."""
    place = Place(tree=folder / "tree", out=folder / "betons", outside=folder / "far", key=folder / "key")
    plant(place)
    nursery.run(convert_argv(place, str(place.tree)), timeout=120)
    recipe = ["--epochs", "1", "--batch-size", "4", "--threads", "1", "--device", "cpu"]
    ending = nursery.run(["train", str(place.out), "--out", str(folder / "run"), *recipe], timeout=120)
    assert ending.code == 0, ending.errors


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], before: str = "") -> Tally:
    """Case after case.  before: a fault for the victims, to try the campaign itself."""
    tally, every = Tally(), cases()
    with Nursery(folder / "nursery", imports=IMPORTS) as nursery:
        prepare(nursery, folder)
        for attempt in range(count):
            here = folder / f"{attempt:04}"
            place = Place(tree=here / "tree", out=here / "out", outside=here / "outside", key=folder / "key")
            case, seen = every[attempt % len(every)](place), here / "seen"
            untouched = state_of(place.outside)
            watch = WATCH.format(log=str(seen), outside=str(place.outside.resolve()))
            ending = nursery.run(case.argv, before=watch + before, cwd=place.tree, timeout=60)
            wrong = list(complaints(case, ending, place, seen))
            if state_of(place.outside) != untouched:
                wrong.append("changed what lies outside")
            if wrong:
                tally.broke(f"{case.name}: {'; '.join(wrong)} (seed {seed}, attempt {attempt})")
            else:
                tally.held("used under its name" if case.used else "refused" if ending.code else "row with a reason")
            shutil.rmtree(here)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="hostile-names",
    attack="`../`, newlines, escapes, no UTF-8, NFC and NFD, 255 bytes, formulas, pipes, sockets, links out, rings",
    holds="nothing read or written outside the roots; page, table and terminal stay clean; nothing waits for ever",
    run=run,
    short=8,
    full=120,
)
