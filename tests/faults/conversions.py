"""Conversions to attack: phantoms, how they are converted undisturbed, and faults to plant in a child."""

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from loaders.atomic_file import LOCK, SUFFIX
from loaders.config import PhantomConfig
from loaders.phantom.phantom import write_phantoms
from tests.faults.processes import ForkServer

SIZE = 32
TRAINING = ("--epochs", "1", "--batch-size", "8", "--threads", "1", "--device", "cpu", "--amp", "off")
SHARED = Path("/dev/shm")
SECONDS_TO_CLEAR = 10.0
PATIENCE = 300.0  # seconds for a command that has not been attacked, on a loaded machine

# before a child's command: the function at a dotted place, for which what follows puts another
AT = """
import importlib
module, _, path = {place!r}.partition(":")
owner = importlib.import_module(module)
*parts, name = path.split(".")
for part in parts:
    owner = getattr(owner, part)
real, calls = getattr(owner, name), 0
"""

# its {call}-th call is the last thing done
KILL_AT = f"""{AT}
import os, signal
def deadly(*arguments, **named):
    global calls
    calls += 1
    if calls == {{call}} and not {{after}}:
        os.kill(os.getpid(), signal.SIGKILL)
    result = real(*arguments, **named)
    if calls == {{call}} and {{after}}:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name, deadly)
"""

# at its first call make the file `there`, and wait until the file `go` is there
HOLD_AT = f"""{AT}
import time
from pathlib import Path
def patient(*arguments, **named):
    Path({{there!r}}).touch()
    until = time.monotonic() + {PATIENCE}
    while not Path({{go!r}}).exists():
        if time.monotonic() > until:  # whoever was to let it go on is gone
            raise TimeoutError("held for too long")
        time.sleep(0.002)
    return real(*arguments, **named)
setattr(owner, name, patient)
"""

# note from when to when each of its calls was under way, by the clock of all processes
NOTE_AT = f"""{AT}
import time
from pathlib import Path
def noting(*arguments, **named):
    began = time.monotonic()
    try:
        return real(*arguments, **named)
    finally:
        with Path({{notes!r}}).open("a") as file:
            print(began, time.monotonic(), file=file)
setattr(owner, name, noting)
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The settings of a conversion that the bytes of its files depend on."""

    seed: int
    holdout: float

    def argv(self, setup: "Setup", out: Path, *, key: Path | None = None, workers: int = 1) -> list[str]:
        """The command.  key: instead of the site's."""
        return [
            *("convert", str(setup.source), "--out", str(out), "--size", str(SIZE), "--page-mib", "2"),
            *("--seed", str(self.seed), "--holdout", str(self.holdout), "--site-key", str(key or setup.key)),
            *("--workers", str(workers)),
        ]


PLANS = (Plan(seed=1, holdout=0.0), Plan(seed=2, holdout=0.2), Plan(seed=3, holdout=0.2))


class Setup:
    """Phantoms of 24 patients in two classes, the site's key, and what each plan makes of them undisturbed.

    Owns a server; close it, or use `with`.  wanted: plan → name → bytes.  seconds: what a conversion takes.
    A test file and the short form of its campaign share one: attacks write elsewhere.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = folder / "keys" / "site.key"
        table = write_phantoms(PhantomConfig(out=folder / "phantoms", patients=24, images_per_patient=1, size=48))
        self.source = table.parent / "images"
        self.server = ForkServer(folder / "children")
        for plan in PLANS:
            ending = self.server.run(plan.argv(self, self.reference(plan)), timeout=PATIENCE)
            assert not ending.code, ending.errors
            self.seconds = ending.seconds
        self.wanted = {plan: contents(self.reference(plan)) for plan in PLANS}

    def reference(self, plan: Plan) -> Path:
        """The folder of the undisturbed conversion."""
        return self.folder / f"reference-{plan.seed}"

    def made(self, name: str, command: Callable[[Path], list[str]]) -> Path:
        """What a command makes undisturbed, at a name of its own; made when it is first asked for."""
        out = self.folder / name
        if not out.exists():
            ending = self.server.run(command(out), timeout=PATIENCE)
            assert not ending.code, ending.errors
        return out

    def trained(self) -> Path:
        """A run on the first plan's betons."""
        betons = self.reference(PLANS[0])
        return self.made("run", lambda out: ["train", str(betons), "--out", str(out), *TRAINING])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.server.close()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but its lock, by name."""
    if not folder.is_dir():
        return {}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK and path.is_file()}


def different(found: dict[str, bytes], wanted: dict[str, bytes]) -> str:
    """Which files differ from those of an undisturbed conversion; "" for none."""
    names = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
    return f"{', '.join(names)} differ from an undisturbed conversion's" if names else ""


def temporaries(folder: Path) -> list[str]:
    """Names of the temporary files in a folder and below."""
    return sorted(path.name for path in folder.rglob(f"*{SUFFIX}*"))


def group_members(group: int) -> list[int]:
    """Process ids of a child's group that are alive, without the child itself."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != group:
            try:
                state, _, member = (place / "stat").read_text().rpartition(")")[2].split()[:3]
            except OSError:  # has just ended
                continue
            if int(member) == group and state not in "ZX":
                found.append(int(place.name))
    return found


def workers_of(pid: int) -> list[int]:
    """Process ids of a child's worker processes."""
    found = []
    for member in group_members(pid):
        try:
            command = Path(f"/proc/{member}/cmdline").read_bytes()
            parent = int((Path(f"/proc/{member}/stat").read_text()).rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"multiprocessing.forkserver" in command and parent != pid:  # its child, not the server
            found.append(member)
    return found


def shared_memory() -> set[str]:
    """Names in /dev/shm."""
    return {path.name for path in SHARED.iterdir()} if SHARED.is_dir() else set()


def in_use() -> set[str]:
    """Names in /dev/shm that a living process has mapped: other tests may run beside these."""
    found = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):  # has just ended
            found.update(re.findall(rf"{SHARED}/(\S+)", maps.read_text()))
    return found


def left_behind(group: int, shared: set[str]) -> str:
    """What of a dead child is still there after some seconds: processes, shared memory; "" for nothing.

    shared: what /dev/shm held before.
    """
    until = time.monotonic() + SECONDS_TO_CLEAR
    while True:
        members, names = group_members(group), shared_memory() - shared
        names -= in_use() if names else set()
        if not members and not names:
            return ""
        if time.monotonic() > until:
            return f"left behind: processes {members}, in {SHARED} {sorted(names)}"
        time.sleep(0.01)
