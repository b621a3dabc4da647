"""Hostile names: files, links, pipes and tables that would lead a command astray, or out of its folders."""

from __future__ import annotations

import csv
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.faults.hostile_places import RECIPE, Case, Maker, Place, cases, convert_argv, plant
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import Ending, Nursery

ODD = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
WATCH = """
import os, sys
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def watch(event, given):
    if event in ("open", "os.listdir", "os.scandir") and isinstance(given[0], (str, bytes, os.PathLike)):
        path = os.path.realpath(os.fsdecode(given[0]))
        if path.startswith({outside!r}):
            os.write(log, path.encode("utf-8", "backslashreplace") + b"\\n")
sys.addaudithook(watch)
"""
NURSERY = "nursery"  # where the victims' own output lies
IMPORTS = (
    "import cli, loaders.convert.convert, loaders.convert.convert, loaders.audit.audit, loaders.audit.page, "
    "engine.train.train, engine.report.report, engine.predict.predict, engine.predict.predict, "
    "engine.explain.explain, engine.explain.findings; cli.make_parser()"
)


def state_of(folder: Path, apart: set[Path]) -> dict[str, tuple[int, ...]]:
    """Of all below a folder, but not below those apart, what changes with it: kind, size, file, time of change."""
    found: dict[str, tuple[int, ...]] = {}
    above = {path.parent for path in apart}  # whose time changes with what is apart
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if Path(place) / name not in apart]
        for path in (Path(place) / name for name in [*subfolders, *names]):
            if path not in apart:
                status = path.lstat()
                time = 0 if path in above else status.st_mtime_ns
                found[str(path)] = (status.st_mode, status.st_size, status.st_ino, time)
    return found


def mark_unread(folder: Path) -> dict[Path, int]:
    """Set the last time of reading a folder and its files before that of writing; gives the time of each.

    The next reading then renews it, whoever reads (by C or in a worker too), if the file system keeps such times.
    """
    paths = [*folder.iterdir(), folder]
    for path in paths:
        os.utime(path, ns=(1, path.stat().st_mtime_ns))
    return read_times(paths)


def read_times(paths: Iterable[Path]) -> dict[Path, int]:
    """When each was last read, ns."""
    return {path: path.stat().st_atime_ns for path in paths}


def rows_of(table: Path) -> list[dict[str, str]]:
    """A table's rows."""
    with table.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file))


def of_ending(ending: Ending) -> Iterator[str]:
    """What broke a promise in how a command ended, and on the terminal."""
    if ending.timed_out or ending.code not in (0, 2, 3) or ending.traceback:
        yield f"ended with {ending.code}{' for lack of time' * ending.timed_out}: {ending.errors.strip()[-150:]!r}"
    if ODD.search(ending.output + ending.errors):
        yield f"put control characters on the terminal: {ODD.findall(ending.output + ending.errors)[:5]}"


def of_results(out: Path) -> Iterator[str]:
    """What broke a promise in pages and tables."""
    for page in out.rglob("*.html") if out.is_dir() else ():
        text = page.read_text()
        if ODD.search(text) or "<img src=x" in text:
            yield f"{page.name} holds control characters or a name's markup"
    for table in out.rglob("*.csv") if out.is_dir() else ():
        cells = [cell or "" for row in rows_of(table) for cell in row.values()]
        if formulas := [cell for cell in cells if re.match(r"[=+@\t\r]|-(?![0-9.])", cell)]:
            yield f"{table.name} has a formula: {formulas[0][:30]!r}"


def of_rows(case: Case, ending: Ending) -> Iterator[str]:
    """What broke a promise in the rows of the hostile files."""
    if case.table is None:
        return
    if not case.table.is_file():
        if case.used:
            yield f"left no {case.table.name}: {ending.errors.strip()[-150:]!r}"
        return
    of_path = {row["path"].removeprefix("./"): row for row in rows_of(case.table)}
    for path in case.rows:
        row = of_path.get(path.removeprefix("./"))
        if row is None:
            yield f"has no row for {path[-40:]!r}"
            continue
        found = row.get("verdict") or row.get("reason") or ""
        refused = "unreadable" in f"{row.get('defects')} {row.get('reason')}"
        refused = found != "written" if case.table.name == "convert.csv" else refused
        if refused == case.used:
            good = {"convert.csv": "written", "audit.csv": "", "predictions.csv": "an answer"}[case.table.name]
            yield f"{path[-40:]!r} is {found}{row.get('defects', '')}, expected {good if case.used else 'a refusal'}"


def attack(nursery: Nursery, make: Maker, here: Path, defect: str = "") -> tuple[Case, Ending, list[str]]:
    """Run a case's commands beside what prepare left; gives it, how the first ended, and what broke a promise."""
    place = Place(tree=here / "tree", out=here / "out", outside=here / "outside", key=here.parent / "key")
    case, seen = make(place), here / "seen"
    untouched = state_of(here.parent, apart := {place.out, seen, here.parent / NURSERY})
    unread = mark_unread(place.outside)
    watch = WATCH.format(log=str(seen), outside=str(place.outside.resolve()))
    ending = nursery.run(case.argv, before=watch + defect, cwd=place.tree, timeout=60)
    endings = [ending]
    if case.then and not ending.code:
        endings.append(nursery.run(case.then, before=watch + defect, cwd=place.tree, timeout=60))
    read = {path.name for path, time in read_times(unread).items() if time != unread[path]}  # before this looks itself
    wrong = [sentence for each in endings for sentence in of_ending(each)]
    read |= {Path(path).name for path in seen.read_text().splitlines()} if seen.exists() else set()
    if read:
        wrong.append(f"opened {', '.join(sorted(read))} outside the roots")
    after = state_of(here.parent, apart)
    if changed := [path for path in untouched | after if untouched.get(path) != after.get(path)]:
        wrong.append(f"changed what lies outside: {[Path(path).name[-40:] for path in changed[:3]]}")
    wrong += [*of_results(place.out), *of_rows(case, ending)]
    if len(endings) == 2 and not list(place.out.rglob("report.html")):
        wrong.append("left no report.html")
    return case, ending, wrong


def prepare(nursery: Nursery, folder: Path) -> None:
    """A conversion and a run, for predict and explain."""
    place = Place(tree=folder / "tree", out=folder / "betons", outside=folder / "far", key=folder / "key")
    plant(place)
    nursery.run(convert_argv(place, str(place.tree)), timeout=120)
    ending = nursery.run(["train", str(place.out), "--out", str(folder / "run"), *RECIPE], timeout=120)
    assert ending.code == 0, ending.errors


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], defect: str = "") -> Tally:
    """Case after case.  defect: a fault for the victims, to try the campaign itself."""
    tally, every = Tally(), cases()
    with Nursery(folder / NURSERY, imports=IMPORTS) as nursery:
        prepare(nursery, folder)
        for attempt in range(count):
            here = folder / f"{attempt:04}"
            case, ending, wrong = attack(nursery, every[attempt % len(every)], here, defect)
            if wrong:
                tally.broke(f"{case.name}: {'; '.join(wrong)} (seed {seed}, attempt {attempt})")
            else:
                tally.held("used under its name" if case.used else "refused" if ending.code else "row with a reason")
            shutil.rmtree(here)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="hostile-names",
    attack="`../`, newlines, escapes, no UTF-8, NFC beside NFD, 255 bytes, formulas, pipes, sockets, devices, "
    "links out, rings; as files, classes, arguments, rows of tables, masks and results",
    holds="nothing read outside the roots, nothing changed but the results; pages of audit and training, tables and "
    "terminal stay clean; nothing waits for ever",
    run=run,
    short=8,
    full=len(cases()),
)
