"""The campaign against conversions notices a writer that writes straight to its target."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

from tests.faults import convert_kill

STRAIGHT = """
import contextlib
import loaders.atomic_file, loaders.beton_writer
@contextlib.contextmanager
def straight(path, *arguments, **named):
    with open(path, "wb") as file:
        yield file
loaders.atomic_file.publish = loaders.beton_writer.publish = straight
"""


def is_torn_page(seed: int) -> bool:
    fault = convert_kill.choose_fault(random.Random(f"{seed}-0"))
    return fault.kind == "write" and fault.detail.endswith("into write 1")


def test_a_beton_that_is_written_in_place_is_noticed(tmp_path: Path) -> None:
    seed = next(filter(is_torn_page, itertools.count()))
    tally = convert_kill.run(1, seed, tmp_path, lambda: None, before=STRAIGHT)
    assert "train.beton" in tally.failures[0] and "neither the old one nor the new one" in tally.failures[0]
