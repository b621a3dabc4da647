"""The campaign of hostile names sees a path that is not checked, and a name that is not escaped."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.faults import hostile_names, hostile_places

UNCHECKED = "import loaders.spool\nloaders.spool.inside = lambda root, path: root / path"
UNESCAPED = "import cli\ncli.printable = str"
OVERWRITTEN = """
import os
import cli
whole = cli.run
def run(parser, namespace):
    open(os.path.join(os.path.dirname(os.getcwd()), "outside", "canary.png"), "ab").write(b"!")
    return whole(parser, namespace)
cli.run = run
"""


@pytest.mark.parametrize(
    ("fault", "seen"),
    [(UNCHECKED, "opened canary.png outside"), (UNESCAPED, "control characters"), (OVERWRITTEN, "changed what lies")],
    ids=["unchecked", "unescaped", "overwritten"],
)
def test_a_planted_fault_is_seen(fault: str, seen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen() -> list[hostile_places.Maker]:
        astray = partial(hostile_places.of_manifest, "../outside/canary.png", command="convert")
        return [astray, partial(hostile_places.of_class, "colour")]

    monkeypatch.setattr(hostile_names, "cases", chosen)
    tally = hostile_names.run(2, 1, tmp_path, lambda: None, before=fault)
    assert any(seen in failure for failure in tally.failures), tally.failures
