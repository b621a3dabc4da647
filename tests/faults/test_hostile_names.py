"""The campaign of hostile names sees what is read or written elsewhere, what is not escaped, and a file of two lost."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.faults import hostile_names, hostile_places
from tests.faults.victim import Nursery

UNCHECKED = "import loaders.images.decode\nloaders.spool.inside = lambda root, path: root / path"
UNESCAPED = "import cli\ncli.printable = str"
ELSEWHERE = """
import cli
whole = cli.run
def run(parser, namespace):
    {deed}
    return whole(parser, namespace)
cli.run = run
"""
OVERWRITTEN = ELSEWHERE.format(deed='open("../outside/canary.png", "ab").write(b"!")')
TOUCHED = ELSEWHERE.format(deed='open("canary", "ab").close()')
READ_BY_C = ELSEWHERE.format(deed='assert __import__("cv2").imread("../outside/canary.png") is not None')
TWINS_ARE_ONE = """
import dataclasses, unicodedata
import loaders.convert.convert as converting
whole = converting.table_bytes
def one(row):
    entry = dataclasses.replace(row.entry, path=unicodedata.normalize("NFC", row.entry.path))
    return dataclasses.replace(row, entry=entry)
converting.table_bytes = lambda rows: whole(tuple(map(one, rows)))
"""
DEVICE_USED = """
import loaders.images.radiograph as reading
from tests.faults.hostile_places import film
whole = reading.read_file
reading.read_file = lambda path: film(77) if path.is_char_device() else whole(path)
"""
PAGE_AS_IT_IS = "import markupsafe, loaders.html as parts; parts.shown = lambda value: markupsafe.Markup(value)"
ASTRAY = partial(hostile_places.of_manifest, "../outside/canary.png", command="convert")
COLOUR, OPTION = (partial(hostile_places.of_folder, kind, command="convert") for kind in ("colour", "option"))
DEVICE = partial(hostile_places.of_folder, "device", command="convert")
TWINS = partial(hostile_places.of_folder, hostile_places.TWINS, command="convert")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Nursery, Path]]:
    """A nursery and the folder of a campaign."""
    folder = tmp_path_factory.mktemp("names")
    with Nursery(folder / hostile_names.NURSERY, imports=hostile_names.IMPORTS) as nursery:
        hostile_names.prepare(nursery, folder)
        yield nursery, folder


@pytest.mark.parametrize(
    ("fault", "case", "seen"),
    [
        pytest.param(UNCHECKED, ASTRAY, "opened canary.png outside", id="unchecked"),
        pytest.param(UNESCAPED, partial(hostile_places.of_typed, "colour"), "control characters", id="unescaped"),
        pytest.param(OVERWRITTEN, COLOUR, "changed what lies outside: ['canary.png'", id="overwritten"),
        pytest.param(TOUCHED, OPTION, "changed what lies outside: ['tree', 'canary'", id="written into the source"),
        pytest.param(READ_BY_C, COLOUR, "opened canary.png outside", id="read by C"),
        pytest.param(DEVICE_USED, DEVICE, "trap.png' is written, expected a refusal", id="device"),
        pytest.param(TWINS_ARE_ONE, TWINS, "has no row for", id="twins"),
        pytest.param(PAGE_AS_IT_IS, partial(hostile_places.of_class, "tag"), "report.html holds", id="page"),
    ],
)
def test_a_planted_fault_is_seen(
    prepared: tuple[Nursery, Path], fault: str, case: hostile_places.Maker, seen: str
) -> None:
    nursery, folder = prepared
    here = folder / "attempt"
    wrong = hostile_names.attack(nursery, case, here, fault)[2]
    shutil.rmtree(here)
    assert any(seen in sentence for sentence in wrong), wrong


def test_every_case_is_tried_in_full() -> None:
    assert hostile_names.CAMPAIGN.full >= len(hostile_places.cases())
