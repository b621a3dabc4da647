"""Campaign: a disk that is full, writes half of what it is given, or fails, under every command that writes."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loaders.atomic_file import LOCK, SUFFIX
from tests.faults.disk_scenarios import EARLIER, OTHERS_FILL, SCENARIOS, STOP_AFTER_EPOCH, Scenario
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import IMPORTS, Ending, Nursery
from tests.faults.whole import GROWING, flaw

FOREVER = 1 << 40
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


@dataclass(frozen=True, slots=True)
class Call:
    """A watched call, a line of the shim's log."""

    group: str
    result: str
    inode: str
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """An attempt without a fault.  digests, lines: of each file then.  size: bytes that all of them have."""

    calls: list[Call]
    digests: dict[str, str]
    lines: dict[str, int]
    size: int


class Stage:
    """The work folder, which has the same path in every attempt, since files tell paths."""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self.work, self.kept, self.log = folder / "work", folder / "kept", folder / "calls"
        self.nursery = nursery
        self.references: dict[str, Reference] = {}
        self.kept.mkdir()
        self.work.mkdir()

    def text(self, value: str) -> str:
        """With W/ replaced."""
        return value.replace("W/", f"{self.work}/")

    def run(self, argv: str, before: str = "", **limits: int | None) -> Ending:
        """One victim in the work folder."""
        words = [self.text(word) for word in argv.split()]
        return self.nursery.run(words, before=self.text(before), cwd=self.work, timeout=120, **limits)

    def prepare(self, needs: tuple[str, ...]) -> None:
        """Fill the work folder with these parts, making what was not made before."""
        for part in needs:
            if not (self.kept / part).exists():
                self.empty()
                self.lay_out(needs[: needs.index(part)])
                ending = self.run(EARLIER[part], STOP_AFTER_EPOCH if part == "H" else "")
                assert ending.code == (75 if part == "H" else 0), ending
                for made in self.pieces(part):
                    copy(self.work / made, self.kept / made)
        self.empty()
        self.lay_out(needs)

    def lay_out(self, needs: tuple[str, ...]) -> None:
        """Copy these parts into the work folder."""
        for part in needs:
            for piece in self.pieces(part):
                copy(self.kept / piece, self.work / piece)

    @staticmethod
    def pieces(part: str) -> tuple[str, ...]:
        """What a part consists of: the betons come with their site key."""
        return (part, "key") if part == "B" else (part,)

    def empty(self) -> None:
        """Remove everything from the work folder."""
        for path in self.work.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def arm(self, **settings: object) -> str:
        """Source that has the shim watch the work folder."""
        self.log.unlink(missing_ok=True)
        names = {f"FAULT_{name.upper()}": str(value) for name, value in settings.items()}
        names |= {"FAULT_ROOT": str(self.work), "FAULT_LOG": str(self.log)}
        return f"import ctypes, os\nos.environ.update({names!r})\nctypes.CDLL(None).fault_arm()\n"

    def calls(self) -> list[Call]:
        """What the shim saw."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(errors="surrogateescape").splitlines()
        return [Call(*line.split("\t", 3)) for line in lines]

    def reference(self, scenario: Scenario) -> Reference:
        """What the command does on a sound disk."""
        if scenario.name not in self.references:
            self.prepare(scenario.needs)
            ending = self.run(scenario.argv, self.arm() + scenario.before)
            assert ending.code == 0 and not ending.traceback, ending
            found = files(self.work)
            self.references[scenario.name] = Reference(
                calls=self.calls(),
                digests={name: digest(path) for name, path in found.items()},
                lines={name: path.read_bytes().count(b"\n") for name, path in found.items()},
                size=sum(path.stat().st_size for path in found.values()),
            )
        return self.references[scenario.name]


def copy(source: Path, target: Path) -> None:
    """Copy a file or a folder."""
    shutil.copytree(source, target) if source.is_dir() else shutil.copy2(source, target)


def files(folder: Path) -> dict[str, Path]:
    """Regular files below the folder by relative name, locks apart."""
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


def digest(path: Path) -> str:
    """Hash of a file's bytes."""
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()


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


def complaints(stage: Stage, ending: Ending, kind: Kind, before: dict[str, str], reference: Reference) -> list[str]:
    """Promises that an attempt broke, in a few words each."""
    found = []
    said, calls = ending.output + ending.errors, stage.calls()
    failed = [call for call in calls if call.result == "failed"]
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
    found += [f"removed {name}" for name in before if name not in after and ending.code == 4]
    for name, path in after.items():
        if digest(path) in (before.get(name), reference.digests.get(name)):
            continue
        if reason := flaw(path, reference.lines.get(name)):
            found.append(f"{name} {reason}")
        elif name in before and str(path) not in renamed and not path.name.startswith(GROWING) and kind.calls:
            found.append(f"{name} changed in place")
    return found + sync_complaints(calls)


def sync_complaints(calls: list[Call]) -> list[str]:
    """A file whose fsync failed must not be synced again or take its name: the kernel may have dropped its data."""
    lost: set[str] = set()
    found = []
    for call in calls:
        if call.group == "sync" and call.result == "failed":
            lost.add(call.inode)
        elif call.group in ("sync", "rename") and call.result == "done" and call.inode in lost:
            found.append(f"{call.group} of {Path(call.path).name} after its fsync had failed")
    return found


def attack(stage: Stage, scenario: Scenario, kind: Kind, draw: random.Random) -> tuple[list[str], str]:
    """One attempt: what it broke, and what it was."""
    reference = stage.reference(scenario)
    stage.prepare(scenario.needs)
    before = {name: digest(path) for name, path in files(stage.work).items()}
    others = OTHERS_FILL if draw.random() < 0.5 else ""
    limit = room = None
    if kind.name == "small tmpfs":
        held = sum(-(-path.stat().st_size // 4096) * 4096 for path in files(stage.work).values())
        # what it writes, an old file beside its new one
        written = len({call.path for call in reference.calls if call.group == "write"}) * 4096 + reference.size
        room = int(held + (64 << 10) + draw.random() ** 2 * written)
        what, arm = f"{room - held:,} bytes of room", stage.arm() + others
    elif kind.name == "limit of file size":
        sizes = sorted(path.stat().st_size for path in files(stage.kept).values()) or [1 << 20]
        limit = max(4096, int(draw.choice(sizes) * draw.random()))  # the terminal is a file here, too
        what, arm = f"at most {limit:,} bytes a file", stage.arm()
    else:
        groups = kind.calls.split(",")
        calls = [call for call in reference.calls if call.group in groups]
        if not calls:  # such as fsync under `phantom`, which renames a whole folder
            return attack(stage, scenario, next(kind for kind in KINDS if kind.name == "EIO on write"), draw)
        path = draw.choice(sorted({call.path for call in calls}))  # a path first, or large files would take all
        place = draw.choice([number for number, call in enumerate(calls, start=1) if call.path == path])
        what = f"call {place} of {kind.calls}, {Path(path).name}"
        arm = stage.arm(calls=kind.calls, error=kind.error, count=kind.count, short=int(kind.short), **{"from": place})
    if room is None:
        ending = stage.run(scenario.argv, arm + scenario.before, file_size=limit)
        found = complaints(stage, ending, kind, before, reference)
    else:
        stage.empty()
        with small_disk(stage.work, room):
            stage.lay_out(scenario.needs)
            ending = stage.run(scenario.argv, arm + scenario.before)
            found = complaints(stage, ending, kind, before, reference)
    if kind.short and not kind.error and ending.code:
        found.append(f"exit {ending.code} although the rest could be written")
    if found:
        found.append(f"({what}; it said: {ending.errors.strip()[-300:]!r})")
    sound = {"short write": "completed"}.get(kind.name, "done, since the fault did not come")
    return found, f"{kind.name}: " + ("exit 4" if ending.code == 4 else sound)


@contextmanager
def opened_stage(folder: Path, imports: str) -> Iterator[Stage]:
    """The shim, built with this machine's compiler, and a nursery that it is loaded into."""
    shim, source = folder / "shim.so", Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-std=gnu11", "-O1", "-fPIC", "-shared", "-o", shim, source], check=True)
    with Nursery(folder / "victims", {"LD_PRELOAD": str(shim), "FAULT_ROOT": ""}, imports) as nursery:
        yield Stage(folder, nursery)


def run(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """Attack each command with each kind of failure in turn, at a call drawn from the seed."""
    tally = Tally()
    chosen = SCENARIOS[: min(count, len(SCENARIOS))]
    kinds = [kind for kind in KINDS if kind.name != "small tmpfs" or may_mount()]
    imports = ", ".join([IMPORTS, *(scenario.imports for scenario in chosen if scenario.imports)])
    with opened_stage(folder, imports) as stage:
        for attempt in range(count):
            turn, place = divmod(attempt, len(chosen))
            scenario, kind = chosen[place], kinds[(turn + place) % len(kinds)]
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
    holds="exit 4 with path and bytes needed; old file whole, no temporary; short writes completed; no fsync retried",
    run=run,
    short=5,
    full=100,
    missing=missing,
)
