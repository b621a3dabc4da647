"""Batch memory: a consumer may keep what it was given, and what nobody holds is used again."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
import torch

from loaders.batches.memory import BatchMemory


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_reused_once_the_batch_is_dropped() -> None:
    memory = BatchMemory(4, 8, spare=2)
    first = memory.take(4)
    assert first.shape == (4, 1, 8, 8) and first.dtype == np.float32 and first.flags.writeable
    where = address(first)
    del first
    gc.collect()
    assert address(memory.take(3)) == where


@pytest.mark.parametrize("keep", ["view of a view", "tensor", "tensor's slice", "transposed"])
def test_whatever_refers_to_a_batch_keeps_its_memory(keep: str) -> None:
    memory = BatchMemory(2, 4, spare=4)
    batch = memory.take(2)
    batch[:] = 5
    held = {
        "view of a view": lambda batch: batch[:, 0][1:],
        "tensor": lambda batch: torch.from_numpy(batch),
        "tensor's slice": lambda batch: torch.from_numpy(batch)[0],
        "transposed": lambda batch: batch.reshape(2, 16).T,
    }[keep](batch)
    del batch
    gc.collect()
    others = [memory.take(2) for _ in range(6)]
    for other in others:
        other[:] = 9
    assert (np.asarray(held) == 5).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's threads and fork; the child touches neither
def test_a_forked_process_has_its_own_copy() -> None:
    batch = BatchMemory(2, 4, spare=1).take(2)
    batch[:] = 5
    child = os.fork()
    if child == 0:
        batch[:] = 9
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (batch == 5).all()


def test_no_more_than_the_spare_blocks_are_kept() -> None:
    memory = BatchMemory(2, 4, spare=3)
    kept = [memory.take(2) for _ in range(10)]
    assert len({address(batch) for batch in kept}) == 10
    kept.clear()
    gc.collect()
    assert len(memory._free) == 3


def test_an_interpreter_with_batches_left_over_ends_quietly() -> None:
    import subprocess
    import sys

    program = "from loaders.batches.memory import BatchMemory\nkept = BatchMemory(2, 4, spare=1).take(2)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
