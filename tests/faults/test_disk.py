"""Campaign: a disk that is full, writes half of what it is given, or fails, under every command that writes."""

import errno
import hashlib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from loaders.atomic_file import LOCK, SUFFIX
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.processes import IMPORTS, Ending, ForkServer
from tests.faults.whole import GROWING, flaw

DECODE = "--size 32 --workers 1"
BETONS = f"{DECODE} --page-mib 2 --site-key W/key"
QUICK = "--epochs 1 --threads 1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A command to attack.  argv: its arguments.  needs: parts of EARLIER that it finds in the work folder, in order.

    before: source that the child runs first.
    synced: whether its files are synced before they take their names; phantoms, which can be drawn again, are not.
    """

    name: str
    argv: str
    needs: tuple[str, ...] = ()
    before: str = ""
    synced: bool = True


# what an earlier command leaves in the work folder; each needs those before it that its arguments name
EARLIER = {
    "P": "phantom W/P --patients 24 --images-per-patient 1 --size 64",
    "B": f"convert W/P/images --out W/B --holdout 0.3 {BETONS}",
    "A": f"audit W/P/images --out W/A {DECODE}",
    "R": f"train W/B --out W/R {QUICK}",
    "H": "train W/B --out W/H --epochs 2 --threads 1",
    "C": f"crossval W/B --out W/C --folds 2 --splits group --resamples 100 {QUICK}",
    "E": "evaluate W/R W/B/heldout.beton --out W/E --resamples 100",
    "X": "explain W/R W/B/heldout.beton --out W/X --samples 2",
    "predicted.csv": "predict W/R W/P/images/covid --out W/predicted.csv --audit off --workers 1",
    "model.onnx": "export W/R --out W/model.onnx",
}
# H is interrupted
STOP_AFTER_EPOCH = """
import engine.train.train
save = engine.train.train.Training.save_last
def save_last(self):
    save(self)
    raise KeyboardInterrupt
engine.train.train.Training.save_last = save_last
"""
# others fill the disk once a command has found it large enough
OTHERS_FILL = """
import loaders.convert.convert, sys
if "engine.crossval.crossval" in sys.modules:
    sys.modules["engine.crossval.crossval"].check_room = lambda *_: None
loaders.convert.convert.check_room = lambda *_: None
"""
# the writing is attacked, not torch's exporter, which takes ten seconds
KEPT_MODEL = "import engine.export.export as e, onnx; kept = onnx.load('W/model.onnx'); e.onnx_model = lambda _: kept\n"
SCENARIOS = (
    Scenario(name="convert", argv=EARLIER["B"] + " --seed 2", needs=("P", "B")),
    Scenario(name="phantom", argv=EARLIER["P"], synced=False),
    Scenario(name="audit", argv=EARLIER["A"] + " --limit-blurred 2.5", needs=("P", "A")),
    Scenario(name="convert anew", argv=f"convert W/P/images --out W/B --audit auto {BETONS}", needs=("P",)),
    Scenario(name="train", argv=EARLIER["R"], needs=("P", "B")),
    Scenario(name="resume", argv="train --resume W/H", needs=("P", "B", "H")),
    Scenario(
        name="evaluate",
        argv=EARLIER["E"] + " --seed 2",
        needs=("P", "B", "R", "E"),
    ),
    Scenario(
        name="evaluate in the run",
        argv="evaluate W/R W/B/heldout.beton --resamples 100",
        needs=("P", "B", "R"),
    ),
    Scenario(
        name="predict",
        argv=EARLIER["predicted.csv"] + " --min-confidence 0.5",
        needs=("P", "B", "R", "predicted.csv"),
    ),
    Scenario(
        name="explain",
        argv=EARLIER["X"] + " --seed 2",
        needs=("P", "B", "R", "X"),
    ),
    Scenario(name="crossval", argv=EARLIER["C"], needs=("P", "B")),
    Scenario(name="crossval again", argv=EARLIER["C"], needs=("P", "B", "C")),
    Scenario(
        name="export",
        argv=EARLIER["model.onnx"],
        needs=("P", "B", "R", "model.onnx"),
        before=KEPT_MODEL,
    ),
    Scenario(name="report", argv="report W/R", needs=("P", "B", "R")),
)


# ---- the work folder, which the shim watches, laid out anew for each attempt


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


class Disk:
    """The work folder, which has the same path in every attempt, since files hold paths."""

    def __init__(self, folder: Path, server: ForkServer) -> None:
        self.work, self.kept, self.log = folder / "work", folder / "kept", folder / "calls"
        self.server = server
        self.references: dict[str, Reference] = {}
        self.kept.mkdir()
        self.work.mkdir()

    def text(self, value: str) -> str:
        """With W/ replaced."""
        return value.replace("W/", f"{self.work}/")

    def run(self, argv: str, before: str = "", **limits: int | None) -> Ending:
        """One child in the work folder."""
        arguments = [self.text(word) for word in argv.split()]
        return self.server.run(arguments, before=self.text(before), cwd=self.work, timeout=120, **limits)

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
        """What the shim logged."""
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
def opened_disk(folder: Path, imports: str) -> Iterator[Disk]:
    """The shim, built with this machine's compiler, and a server that it is loaded into."""
    shim, source = folder / "shim.so", Path(__file__).with_name("shim.c")
    subprocess.run(["cc", "-std=gnu11", "-O1", "-fPIC", "-shared", "-o", shim, source], check=True)
    with ForkServer(folder / "children", {"LD_PRELOAD": str(shim), "FAULT_ROOT": ""}, imports) as server:
        yield Disk(folder, server)


# ---- attempts


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
    disk: Disk, scenario: Scenario, ending: Ending, kind: Kind, old: dict[str, str], reference: Reference
) -> list[str]:
    """Promises that an attempt broke, in a few words each.  old: digests of the files that it found."""
    found = []
    printed, calls = ending.output + ending.errors, disk.calls()
    failed = [call for call in calls if call.result == "failed"]
    if not kind.calls:  # where it is the kernel that fails
        failed = [call for call in calls if call.result == "refused" and call.group in ("write", "sync", "truncate")]
    found += [f"printed {ugly!r}" for ugly in UGLY if ugly in printed]
    if ending.code not in (0, 4) or ending.timed_out:
        found.append(f"exit {ending.code}")
    if ending.code == 0 and failed:
        found.append(f"exit 0 although {failed[0].group} failed on {failed[0].path}")
    if ending.code == 4:
        named = re.findall(re.escape(f"{disk.work}/") + r"[^\s:,;]+", ending.errors)
        if not any(not failed or failed[0].path.startswith(name) or name.startswith(failed[0].path) for name in named):
            found.append(f"names no path of {failed[0].path if failed else 'the work folder'}")
        no_space = kind.error == errno.ENOSPC or not kind.calls
        if no_space and not (failed and failed[0].group == "create") and not re.search(r"\d bytes", ending.errors):
            found.append("does not say the bytes needed")
    found += [f"left {path.name}" for path in disk.work.rglob(f"*{SUFFIX}*")]
    renamed = {call.path for call in calls if call.group == "rename" and call.result == "done"}
    after = files(disk.work)
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
    """A fault as drawn.  arm: source that the child runs first.  limit, room: bytes, of a file and of the disk."""

    what: str
    arm: str
    limit: int | None = None
    room: int | None = None


def drawn_fault(disk: Disk, kind: Kind, reference: Reference, draw: random.Random, near: int) -> Fault:
    """Where a fault of this kind shall come.  near: earlier draws of it that came too late."""
    others = OTHERS_FILL if draw.random() < 0.5 else ""
    if kind.name == "small tmpfs":
        held = sum(-(-path.stat().st_size // 4096) * 4096 for path in files(disk.work).values())
        written = sum(size + 4096 for size in reference.written.values())  # an old file beside its new one
        room = int((64 << 10) + draw.random() ** 2 * written) >> near
        return Fault(what=f"{room:,} bytes of room", arm=disk.arm() + others, room=held + room)
    if kind.name == "limit of file size":
        sizes = sorted(reference.written.values())
        limit = min(max(TERMINAL, int(draw.choice(sizes) * draw.random()) >> near), sizes[-1] - 1)
        return Fault(what=f"at most {limit:,} bytes a file", arm=disk.arm(), limit=limit)
    calls = [call for call in reference.calls if call.group in kind.calls.split(",")]
    path = draw.choice(sorted({call.path for call in calls}))  # a path first, or large files would take all
    place = draw.choice([number for number, call in enumerate(calls, start=1) if call.path == path]) >> near
    arm = disk.arm(calls=kind.calls, error=kind.error, count=kind.count, short=int(kind.short), **{"from": place or 1})
    return Fault(what=f"call {place or 1} of {kind.calls}, {Path(path).name}", arm=arm)


def attack(disk: Disk, scenario: Scenario, kind: Kind, draw: random.Random) -> tuple[list[str], str]:
    """One attempt, drawn anew until its fault comes: what it broke, and what it was."""
    reference = disk.reference(scenario)
    if kind.name == "EIO on fsync" and not scenario.synced:
        kind = next(kind for kind in KINDS if kind.name == "EIO on write")
    for near in range(DRAWS):
        disk.prepare(scenario.needs)
        old = {name: digest(path) for name, path in files(disk.work).items()}
        fault = drawn_fault(disk, kind, reference, draw, near)
        if fault.room is None:
            ending = disk.run(scenario.argv, fault.arm + scenario.before, file_size=fault.limit)
            found = complaints(disk, scenario, ending, kind, old, reference)
        else:
            disk.empty()
            with small_disk(disk.work, fault.room):
                disk.lay_out(scenario.needs)
                ending = disk.run(scenario.argv, fault.arm + scenario.before)
                found = complaints(disk, scenario, ending, kind, old, reference)
        if kind.short and not kind.error and ending.code:
            found.append(f"exit {ending.code} although the rest could be written")
        if found:
            return [*found, f"({fault.what}; it printed: {ending.errors.strip()[-300:]!r})"], ""
        if ending.code == 4 or any(call.result == "short" for call in disk.calls()):
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
    exporting = "; import onnx, onnxruntime, onnxscript" * any(scenario.name == "export" for scenario in chosen)
    with opened_disk(folder, IMPORTS + exporting) as disk:
        for attempt in range(count):
            scenario, kind = pair(attempt, chosen, kinds)
            found, outcome = attack(disk, scenario, kind, random.Random(f"{seed}-{attempt}"))
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


# ---- what the campaign notices


HERE = sys.modules[__name__]
PHANTOMS = "phantom W/Q --patients 2 --size 64"

# a command that does nothing but publish one table
WRITE = """
import loaders.atomic_file as files, loaders.phantom.phantom as phantoms, os
from pathlib import Path
def write_phantoms(config, progress):
    files.publish_bytes(Path('W/Q/phantoms.csv'), b'path,label\\n' * 20_000)
    return config.out
phantoms.write_phantoms = write_phantoms
"""
STRAIGHT = """
def publish_bytes(path, content):
    try:
        path.write_bytes(content)
    except OSError as error:
        raise files.storage_error(path, error, len(content)) from error
files.publish_bytes = publish_bytes
"""
OWN = """
def publish_bytes(path, content):
    temporary = path.with_name(path.name + files.SUFFIX)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        {write}
        {sync}
        os.rename(temporary, path)
    except OSError as error:
        {clear}
        failure = files.storage_error(path, error, {size})
        {report}
files.publish_bytes = publish_bytes
"""
RIGHT = {
    "write": "while content: content = content[os.write(descriptor, content):]",
    "sync": "os.fsync(descriptor)",
    "clear": "temporary.unlink(missing_ok=True)",
    "size": "220_000",
    "report": "raise failure from error",
}


def own(**forgotten: str) -> str:
    """A writer that does all but one thing right."""
    return OWN.format(**RIGHT | forgotten)


RETRY = """
        try: os.fsync(descriptor)
        except OSError: os.fsync(descriptor)"""
IGNORE = RETRY.replace("OSError: os.fsync(descriptor)", "OSError: pass")
ASKED = (
    own()
    + """
import shutil
right = files.publish_bytes
def publish_bytes(path, content):
    if shutil.disk_usage(path.parent).free > 2 * len(content):
        right(path, content){otherwise}
files.publish_bytes = publish_bytes
"""
)
SPOIL = "temporary.unlink(); [png.write_bytes(png.read_bytes() + b'x') for png in path.parent.rglob('*.png')]"
# the forgotten, how the disk fails, and what the campaign must say
PLANTED = {
    "straight to the target": (STRAIGHT, "half a write on a full disk", "phantoms.csv has"),
    "a short write is lost": (own(write="os.write(descriptor, content)"), "short write", "phantoms.csv has"),
    "fsync is tried again": (own(sync=RETRY), "EIO on fsync", "sync of phantoms.csv"),
    "fsync's error is ignored": (own(sync=IGNORE), "EIO on fsync", "exit 0 although sync failed"),
    "the temporary file stays": (own(clear="pass"), "EIO on write", "left phantoms.csv"),
    "the room is not reported": (own(size="None"), "half a write on a full disk", "does not say the bytes needed"),
    "ENOSPC is swallowed": (own(report="pass"), "small tmpfs", "exit 0 although write failed"),
    "EFBIG is swallowed": (own(report="pass"), "limit of file size", "exit 0 although write failed"),
    "the old file is left": (ASKED.replace("{otherwise}", ""), "small tmpfs", "exit 0 with the old Q/phantoms.csv"),
    "no file is left": (
        ASKED.replace("{otherwise}", "\n    else: path.unlink()"),
        "small tmpfs",
        "exit 0 without Q/phantoms.csv",
    ),
    "another file is changed": (own(clear=SPOIL), "limit of file size", "png changed in place"),
    "no fsync": (own(sync="pass"), "short write", "rename of phantoms.csv before its fsync"),
    "written after its fsync": (
        own(sync="os.fsync(descriptor); os.write(descriptor, b'a,b')"),
        "short write",
        "rename of phantoms.csv before its fsync",
    ),
    "a traceback": ("import cli; cli.message_of = None", "rename refused", "printed 'Traceback"),
}
KIND_OF = {kind.name: kind for kind in KINDS}
pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(EARLIER, "Q", PHANTOMS)
        with opened_disk(tmp_path_factory.mktemp("disk"), "import cli, loaders.phantom.phantom") as opened:
            yield opened


def broken_by(disk: Disk, name: str, planted: str, kind: Kind) -> list[str]:
    """What one attempt on the planted command breaks, at a call of its table."""
    command = Scenario(name=name, argv=PHANTOMS, needs=("Q",), before=WRITE + planted)
    return attack(disk, command, kind, random.Random(0))[0]


@pytest.mark.parametrize("kind", [name for name in KIND_OF if name != "small tmpfs" or may_mount()])
def test_the_products_own_writer_holds(disk: Disk, kind: str) -> None:
    assert broken_by(disk, "own", "", KIND_OF[kind]) == []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_defect_is_noticed(disk: Disk, planted: str) -> None:
    source, kind, noticed = PLANTED[planted]
    if kind == "small tmpfs" and not may_mount():
        pytest.skip("mount needs root")
    found = broken_by(disk, planted, source, KIND_OF[kind])
    assert any(noticed in line for line in found), found


def test_a_fault_that_never_comes_is_no_attempt_that_held(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HERE, "DRAWS", 2)
    never = Kind(name="never", calls="write", error=5, count=0)
    assert broken_by(disk, "own", "", never) == ["never did not come in 2 draws"]


def test_each_command_meets_each_kind_of_failure() -> None:
    pairs = [pair(attempt, SCENARIOS, KINDS) for attempt in range(CAMPAIGN.full)]
    met = {(scenario.name, kind.name) for scenario, kind in pairs}
    assert met == {(scenario.name, kind.name) for scenario in SCENARIOS for kind in KINDS}


def test_a_limit_of_a_files_size_does_not_cut_what_the_shim_logged(disk: Disk) -> None:
    arm = disk.arm(calls="", **{"from": 0, "count": 0, "short": 0, "error": 0})
    creating = "for number in range(90): open('W/' + str(number), 'wb').write(b'abc')\nraise SystemExit(0)"
    ending = disk.run("--version", f"{arm}\n{creating}", file_size=1000)
    assert ending.code == 0, ending
    wrote = [call for call in disk.calls() if call.group == "write"]
    assert [Path(call.path).name for call in wrote] == [str(number) for number in range(90)]


def test_every_promise_holds_under_attack(tmp_path: Path) -> None:
    check_short_form(CAMPAIGN, tmp_path)
