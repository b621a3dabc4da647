"""The stage of the campaign of failing disks: a work folder that the shim watches, laid out anew for each attempt."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from loaders.atomic_file import LOCK, SUFFIX
from tests.faults.disk_scenarios import EARLIER, STOP_AFTER_EPOCH, Scenario
from tests.faults.victim import Ending, Nursery

LOG_BYTES = 16 << 20  # of the shim's log, as shim.c has it


@dataclass(frozen=True, slots=True)
class Call:
    """A watched call, a line of the shim's log."""

    group: str
    result: str
    inode: str
    path: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """An attempt without a fault.

    digests, lines: of each file then.  written: bytes of each that it wrote.
    """

    calls: list[Call]
    digests: dict[str, str]
    lines: dict[str, int]
    written: dict[str, int]


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
        with self.log.open("wb") as file:
            file.truncate(LOG_BYTES)
        names = {f"FAULT_{name.upper()}": str(value) for name, value in settings.items()}
        names |= {"FAULT_ROOT": str(self.work), "FAULT_LOG": str(self.log)}
        return f"import ctypes, os\nos.environ.update({names!r})\nctypes.CDLL(None).fault_arm()\n"

    def calls(self) -> list[Call]:
        """What the shim saw."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as file:
            used = int.from_bytes(file.read(8), sys.byteorder)
            lines = os.fsdecode(file.read(used)).split("\n")[:-1]
        return [Call(*line.split("\t", 3)) for line in lines]

    def reference(self, scenario: Scenario) -> Reference:
        """What the command does on a sound disk."""
        if scenario.name not in self.references:
            self.prepare(scenario.needs)
            ending = self.run(scenario.argv, self.arm() + scenario.before)
            assert ending.code == 0 and not ending.traceback, ending
            found, calls = files(self.work), self.calls()
            paths = {call.path.replace(SUFFIX, "") for call in calls if call.group == "write"}
            self.references[scenario.name] = Reference(
                calls=calls,
                digests={name: digest(path) for name, path in found.items()},
                lines={name: path.read_bytes().count(b"\n") for name, path in found.items()},
                written={name: path.stat().st_size for name, path in found.items() if str(path) in paths},
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
def opened_stage(folder: Path, imports: str) -> Iterator[Stage]:
    """The shim, built with this machine's compiler, and a nursery that it is loaded into."""
    shim, source = folder / "shim.so", Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-std=gnu11", "-O1", "-fPIC", "-shared", "-o", shim, source], check=True)
    with Nursery(folder / "victims", {"LD_PRELOAD": str(shim), "FAULT_ROOT": ""}, imports) as nursery:
        yield Stage(folder, nursery)
