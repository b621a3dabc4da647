"""Campaign: a disk that is full, writes half of what it is given, or fails, under every command that writes."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loaders.atomic_file import SUFFIX
from tests.faults.disk_scenarios import OTHERS_FILL, SCENARIOS, Scenario
from tests.faults.disk_stage import Call, Reference, Stage, digest, files, opened_stage
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import IMPORTS, Ending
from tests.faults.whole import GROWING, flaw

FOREVER = 1 << 40
DRAWS = 12  # of a fault that does not come, each nearer to where it must
TERMINAL = 4096  # bytes that a limit leaves to the terminal, a file here, too
UGLY = ("Traceback (most recent call last)", "Logging error", "Exception in thread", "Exception ignored", "core dumped")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One way for a disk to fail.  calls: groups of shim.c.  short: the first such call writes half."""

    name: str
    calls: str = ""
    error: int = 0
    short: bool = False
    count: int = 0


KINDS = (
    Kind(name="full disk", calls="write,truncate,create", error=errno.ENOSPC, count=FOREVER),
    Kind(name="EIO on fsync", calls="sync", error=errno.EIO, count=1),
    Kind(name="short write", calls="write", short=True),
    Kind(name="limit of file size"),
    Kind(name="EIO on write", calls="write,truncate", error=errno.EIO, count=1),
    Kind(name="small tmpfs"),
    Kind(name="half a write on a full disk", calls="write", error=errno.ENOSPC, short=True, count=FOREVER),
    Kind(name="rename refused", calls="rename", error=errno.EIO, count=1),
)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A tmpfs of so many bytes in place of the folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def may_mount() -> bool:
    """Whether this user may mount a tmpfs."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True)
        return mounted.returncode == 0 and subprocess.run(["umount", folder]).returncode == 0


def complaints(
    stage: Stage, scenario: Scenario, ending: Ending, kind: Kind, old: dict[str, str], reference: Reference
) -> list[str]:
    """Promises that an attempt broke, in a few words each.  old: digests of the files that it found."""
    found = []
    said, calls = ending.output + ending.errors, stage.calls()
    failed = [call for call in calls if call.result == "failed"]
    if not kind.calls:  # where it is the kernel that fails
        failed = [call for call in calls if call.result == "refused" and call.group in ("write", "sync", "truncate")]
    found += [f"printed {ugly!r}" for ugly in UGLY if ugly in said]
    if ending.code not in (0, 4) or ending.timed_out:
        found.append(f"exit {ending.code}")
    if ending.code == 0 and failed:
        found.append(f"exit 0 although {failed[0].group} failed on {failed[0].path}")
    if ending.code == 4:
        named = re.findall(re.escape(f"{stage.work}/") + r"[^\s:,;]+", ending.errors)
        if not any(not failed or failed[0].path.startswith(name) or name.startswith(failed[0].path) for name in named):
            found.append(f"names no path of {failed[0].path if failed else 'the work folder'}")
        no_space = kind.error == errno.ENOSPC or not kind.calls
        if no_space and not (failed and failed[0].group == "create") and not re.search(r"\d bytes", ending.errors):
            found.append("does not say the bytes needed")
    found += [f"left {path.name}" for path in stage.work.rglob(f"*{SUFFIX}*")]
    renamed = {call.path for call in calls if call.group == "rename" and call.result == "done"}
    after = files(stage.work)
    found += [f"removed {name}" for name in old if name not in after and ending.code == 4]
    if ending.code == 0:
        due = {name for name in reference.digests if not Path(name).name.startswith(GROWING)}
        found += [f"exit 0 without {name}" for name in sorted(due - after.keys())]
        due = {name for name in due & after.keys() if reference.digests[name] != old.get(name)}
        found += [f"exit 0 with the old {name}" for name in sorted(due) if digest(after[name]) == old.get(name)]
    for name, path in after.items():
        if digest(path) in (old.get(name), reference.digests.get(name)):
            continue
        if reason := flaw(path, reference.lines.get(name)):
            found.append(f"{name} {reason}")
        elif name in old and str(path) not in renamed and not path.name.startswith(GROWING):
            found.append(f"{name} changed in place")
    return found + sync_complaints(calls, scenario.synced)


def sync_complaints(calls: list[Call], synced: bool = True) -> list[str]:
    """Files that take their names with data not synced, where `synced` asks for that, or after a sync that failed.

    After a failed fsync the kernel may have dropped the data, so that neither another sync nor a rename may follow.
    """
    lost: set[str] = set()
    safe: set[str] = set()  # inodes synced since they were last written
    found = []
    for call in calls:
        done = call.result in ("done", "short")
        if call.group == "sync" and call.result == "failed":
            lost.add(call.inode)
        elif call.group in ("sync", "rename") and done and call.inode in lost:
            found.append(f"{call.group} of {Path(call.path).name} after its fsync had failed")
        elif call.group == "rename" and done and synced and call.inode not in safe:
            found.append(f"rename of {Path(call.path).name} before its fsync")
        elif call.group == "sync" and done:
            safe.add(call.inode)
        elif call.group != "rename":
            safe.discard(call.inode)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """A fault as drawn.  arm: source that the victim runs first.  limit, room: bytes, of a file and of the disk."""

    what: str
    arm: str
    limit: int | None = None
    room: int | None = None


def drawn_fault(stage: Stage, kind: Kind, reference: Reference, draw: random.Random, near: int) -> Fault:
    """Where a fault of this kind shall come.  near: earlier draws of it that came too late."""
    others = OTHERS_FILL if draw.random() < 0.5 else ""
    if kind.name == "small tmpfs":
        held = sum(-(-path.stat().st_size // 4096) * 4096 for path in files(stage.work).values())
        written = sum(size + 4096 for size in reference.written.values())  # an old file beside its new one
        room = int((64 << 10) + draw.random() ** 2 * written) >> near
        return Fault(what=f"{room:,} bytes of room", arm=stage.arm() + others, room=held + room)
    if kind.name == "limit of file size":
        sizes = sorted(reference.written.values())
        limit = min(max(TERMINAL, int(draw.choice(sizes) * draw.random()) >> near), sizes[-1] - 1)
        return Fault(what=f"at most {limit:,} bytes a file", arm=stage.arm(), limit=limit)
    calls = [call for call in reference.calls if call.group in kind.calls.split(",")]
    path = draw.choice(sorted({call.path for call in calls}))  # a path first, or large files would take all
    place = draw.choice([number for number, call in enumerate(calls, start=1) if call.path == path]) >> near
    arm = stage.arm(calls=kind.calls, error=kind.error, count=kind.count, short=int(kind.short), **{"from": place or 1})
    return Fault(what=f"call {place or 1} of {kind.calls}, {Path(path).name}", arm=arm)


def attack(stage: Stage, scenario: Scenario, kind: Kind, draw: random.Random) -> tuple[list[str], str]:
    """One attempt, drawn anew until its fault comes: what it broke, and what it was."""
    reference = stage.reference(scenario)
    if kind.name == "EIO on fsync" and not scenario.synced:
        kind = next(kind for kind in KINDS if kind.name == "EIO on write")
    for near in range(DRAWS):
        stage.prepare(scenario.needs)
        old = {name: digest(path) for name, path in files(stage.work).items()}
        fault = drawn_fault(stage, kind, reference, draw, near)
        if fault.room is None:
            ending = stage.run(scenario.argv, fault.arm + scenario.before, file_size=fault.limit)
            found = complaints(stage, scenario, ending, kind, old, reference)
        else:
            stage.empty()
            with small_disk(stage.work, fault.room):
                stage.lay_out(scenario.needs)
                ending = stage.run(scenario.argv, fault.arm + scenario.before)
                found = complaints(stage, scenario, ending, kind, old, reference)
        if kind.short and not kind.error and ending.code:
            found.append(f"exit {ending.code} although the rest could be written")
        if found:
            return [*found, f"({fault.what}; it said: {ending.errors.strip()[-300:]!r})"], ""
        if ending.code == 4 or any(call.result == "short" for call in stage.calls()):
            return [], f"{kind.name}: " + ("exit 4" if ending.code == 4 else "completed")
    return [f"{kind.name} did not come in {DRAWS} draws"], ""


def pair(attempt: int, chosen: Sequence[Scenario], kinds: Sequence[Kind]) -> tuple[Scenario, Kind]:
    """The command of an attempt and how its disk fails: in as many attempts as there are pairs, each pair once."""
    turn, place = divmod(attempt, len(chosen))
    return chosen[place], kinds[(turn + place) % len(kinds)]


def run(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """Attack each command with each kind of failure in turn, at a call drawn from the seed."""
    tally = Tally()
    chosen = SCENARIOS[: min(count, len(SCENARIOS))]
    kinds = [kind for kind in KINDS if kind.name != "small tmpfs" or may_mount()]
    imports = ", ".join([IMPORTS, *(scenario.imports for scenario in chosen if scenario.imports)])
    with opened_stage(folder, imports) as stage:
        for attempt in range(count):
            scenario, kind = pair(attempt, chosen, kinds)
            found, outcome = attack(stage, scenario, kind, random.Random(f"{seed}-{attempt}"))
            if found:
                tally.broke(f"seed {seed}, attempt {attempt}, {scenario.name}, {kind.name}: {'; '.join(found)}")
            else:
                tally.held(outcome)
            advance()
    if len(kinds) < len(KINDS):
        tally.outcomes["small tmpfs left out: mount needs root"] += 0
    return tally


def missing() -> str | None:
    """Why it cannot run here."""
    if os.uname().sysname != "Linux":
        return "LD_PRELOAD and /proc are Linux's"
    return None if shutil.which("cc") else "no C compiler (cc), which builds shim.c"


CAMPAIGN = Campaign(
    name="disk",
    attack="disk full, short writes, EIO: small tmpfs, limit of file size, an LD_PRELOAD shim, under every command",
    holds="exit 4 with path and bytes needed; old file whole, no temporary; exit 0: every file new and whole; short "
    "writes completed; fsync before each rename (phantoms apart), never retried",
    run=run,
    short=5,
    full=len(SCENARIOS) * len(KINDS),
    missing=missing,
)
