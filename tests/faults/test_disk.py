"""The campaign of failing disks sees a writer that breaks its promises."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.faults import disk

PHANTOMS = "phantom W/P --patients 2 --size 64"

# a command that does nothing but publish one table
WRITE = """
import loaders.atomic_file as files, loaders.phantom_folder as phantoms, os
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
        raise files.storage_error(path, error, {size}) from error
files.publish_bytes = publish_bytes
"""
RIGHT = {
    "write": "while content: content = content[os.write(descriptor, content):]",
    "sync": "os.fsync(descriptor)",
    "clear": "temporary.unlink(missing_ok=True)",
    "size": "220_000",
}


def own(**forgotten: str) -> str:
    """A writer that does all but one thing right."""
    return OWN.format(**RIGHT | forgotten)


RETRY = """
        try: os.fsync(descriptor)
        except OSError: os.fsync(descriptor)"""
IGNORE = RETRY.replace("OSError: os.fsync(descriptor)", "OSError: pass")
# the forgotten, how the disk fails, and what the campaign must say
PLANTED = {
    "straight to the target": (STRAIGHT, "half a write on a full disk", "phantoms.csv has"),
    "a short write is lost": (own(write="os.write(descriptor, content)"), "short write", "phantoms.csv has"),
    "fsync is tried again": (own(sync=RETRY), "EIO on fsync", "sync of phantoms.csv"),
    "fsync's error is ignored": (own(sync=IGNORE), "EIO on fsync", "exit 0 although sync failed"),
    "the temporary file stays": (own(clear="pass"), "EIO on write", "left phantoms.csv"),
    "the room is not told": (own(size="None"), "half a write on a full disk", "does not say the bytes needed"),
    "a traceback": ("import cli; cli.message_of = None", "rename refused", "printed 'Traceback"),
}
KINDS = {kind.name: kind for kind in disk.KINDS}
pytestmark = pytest.mark.skipif(disk.missing() is not None, reason=str(disk.missing()))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[disk.Stage]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(disk.EARLIER, "P", PHANTOMS)
        with disk.opened_stage(tmp_path_factory.mktemp("disk"), "import cli, loaders.phantom_folder") as opened:
            yield opened


def attack(stage: disk.Stage, name: str, planted: str, kind: disk.Kind) -> list[str]:
    """What one attempt on the planted command breaks, at a call of its table."""
    command = disk.Scenario(name=name, argv=PHANTOMS, needs=("P",), before=WRITE + planted)
    return disk.attack(stage, command, kind, random.Random(0))[0]


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "small tmpfs" or disk.may_mount()])
def test_the_products_own_writer_holds(stage: disk.Stage, kind: str) -> None:
    assert attack(stage, "own", "", KINDS[kind]) == []


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_defect_is_seen(stage: disk.Stage, planted: str) -> None:
    source, kind, seen = PLANTED[planted]
    found = attack(stage, planted, source, KINDS[kind])
    assert any(seen in line for line in found), found
