"""The campaign of failing disks sees a writer that breaks its promises."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import disk, disk_scenarios, disk_stage

PHANTOMS = "phantom W/P --patients 2 --size 64"

# a command that does nothing but publish one table
WRITE = """
import loaders.atomic_file as files, loaders.phantom.folder as phantoms, os
from pathlib import Path
def write_phantoms(config, progress):
    files.publish_bytes(Path('W/P/phantoms.csv'), b'path,label\\n' * 20_000)
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
        told = files.storage_error(path, error, {size})
        {tell}
files.publish_bytes = publish_bytes
"""
RIGHT = {
    "write": "while content: content = content[os.write(descriptor, content):]",
    "sync": "os.fsync(descriptor)",
    "clear": "temporary.unlink(missing_ok=True)",
    "size": "220_000",
    "tell": "raise told from error",
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
    "the room is not told": (own(size="None"), "half a write on a full disk", "does not say the bytes needed"),
    "ENOSPC is swallowed": (own(tell="pass"), "small tmpfs", "exit 0 although write failed"),
    "EFBIG is swallowed": (own(tell="pass"), "limit of file size", "exit 0 although write failed"),
    "the old file is left": (ASKED.replace("{otherwise}", ""), "small tmpfs", "exit 0 with the old P/phantoms.csv"),
    "no file is left": (
        ASKED.replace("{otherwise}", "\n    else: path.unlink()"),
        "small tmpfs",
        "exit 0 without P/phantoms.csv",
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
KINDS = {kind.name: kind for kind in disk.KINDS}
pytestmark = pytest.mark.skipif(disk.missing() is not None, reason=str(disk.missing()))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[disk_stage.Stage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(disk_scenarios.EARLIER, "P", PHANTOMS)
        with disk_stage.opened_stage(tmp_path_factory.mktemp("disk"), "import cli, loaders.phantom.folder") as opened:
            yield opened


def attack(stage: disk_stage.Stage, name: str, planted: str, kind: disk.Kind) -> list[str]:
    """What one attempt on the planted command breaks, at a call of its table."""
    command = disk_scenarios.Scenario(name=name, argv=PHANTOMS, needs=("P",), before=WRITE + planted)
    return disk.attack(stage, command, kind, random.Random(0))[0]


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "small tmpfs" or disk.may_mount()])
def test_the_products_own_writer_holds(stage: disk_stage.Stage, kind: str) -> None:
    assert attack(stage, "own", "", KINDS[kind]) == []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_defect_is_seen(stage: disk_stage.Stage, planted: str) -> None:
    source, kind, seen = PLANTED[planted]
    if kind == "small tmpfs" and not disk.may_mount():
        pytest.skip("mount needs root")
    found = attack(stage, planted, source, KINDS[kind])
    assert any(seen in line for line in found), found


def test_a_fault_that_never_comes_is_no_attempt_that_held(
    stage: disk_stage.Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "DRAWS", 2)
    never = disk.Kind(name="never", calls="write", error=5, count=0)
    assert attack(stage, "own", "", never) == ["never did not come in 2 draws"]


def test_each_command_meets_each_kind_of_failure() -> None:
    pairs = [disk.pair(attempt, disk_scenarios.SCENARIOS, disk.KINDS) for attempt in range(disk.CAMPAIGN.full)]
    met = {(scenario.name, kind.name) for scenario, kind in pairs}
    assert met == {(scenario.name, kind.name) for scenario in disk_scenarios.SCENARIOS for kind in disk.KINDS}


def test_a_limit_of_a_files_size_does_not_cut_what_the_shim_saw(stage: disk_stage.Stage) -> None:
    arm = stage.arm(calls="", **{"from": 0, "count": 0, "short": 0, "error": 0})
    creating = "for number in range(90): open('W/' + str(number), 'wb').write(b'abc')\nraise SystemExit(0)"
    ending = stage.run("--version", f"{arm}\n{creating}", file_size=1000)
    assert ending.code == 0, ending
    wrote = [call for call in stage.calls() if call.group == "write"]
    assert [Path(call.path).name for call in wrote] == [str(number) for number in range(90)]
