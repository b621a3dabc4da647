"""The campaign of damaged checkpoints notices a product that keeps no promise."""

from __future__ import annotations

from pathlib import Path

from tests.faults.checkpoints import run

BELIEVES_ALL = """
import engine.checkpoint as checkpoint
class Same(str):
    __hash__ = str.__hash__
    def __eq__(self, other):
        return True
checkpoint.digest = lambda tensors, state: Same("0")
"""
UNPICKLES = """
import torch
plain_load = torch.load
torch.load = lambda path, **options: plain_load(path, **options | {"weights_only": False})
"""


def test_a_reader_that_checks_no_sum_is_noticed(tmp_path: Path) -> None:
    targets = (("best.safetensors", "resume finished", (5,), 1),)
    tally = run(4, 0, tmp_path, lambda: None, fault=BELIEVES_ALL, targets=targets, ways=("flip a bit",))
    assert any("another result" in failure for failure in tally.failures), tally


def test_a_reader_that_unpickles_is_noticed(tmp_path: Path) -> None:
    targets = (("state.pth", "begin with", (2, 5), 1),)
    tally = run(2, 0, tmp_path, lambda: None, fault=UNPICKLES, targets=targets, ways=("canary",))
    assert any("code of the file was run" in failure for failure in tally.failures), tally
