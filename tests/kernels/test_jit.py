"""The cache of compiled kernels follows every source that goes into them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PROGRAM = """
import numpy as np
from kernels.fused_first_block import first_block_into
out, corner = np.zeros((1, 1, 1, 1), np.float32), np.zeros((1, 1, 1, 1), np.uint8)
frame, weight = np.zeros((1, 4, 4), np.float32), np.zeros((9, 1), np.float32)
frame[0, 1:3, 1:3], weight[4] = [[1, 2], [3, 4]], 1  # the convolution gives the frame
zero, one = np.zeros(1, np.float32), np.ones(1, np.float32)
first_block_into(out, corner, frame, weight, one, zero, one, zero, np.empty((4, 1), np.float32), 0, 1)
print(out[0, 0, 0, 0], sum(first_block_into.stats.cache_hits.values()))
"""


def run(folder: Path) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_kernel_is_compiled_again_when_what_it_inlines_from_another_file_has_changed(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(tmp_path) == ["4.0", "0"]
    assert run(tmp_path) == ["4.0", "1"]
    source = tmp_path / "kernels" / "fused_block.py"
    largest = "return lower if is_lower else upper, corner"
    assert source.read_text().count(largest) == 1
    source.write_text(source.read_text().replace(largest, "return upper if is_lower else lower, corner"))
    assert run(tmp_path) == ["2.0", "0"]
