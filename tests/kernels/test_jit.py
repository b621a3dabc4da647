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
from kernels.crops import crop_into
from kernels.crops import affine_into, affine_scratch
out = np.zeros((1, 1, 2, 2), np.float32)
frame, offset = np.full(16, 255, np.uint8), np.zeros(1, np.int64)
inverse = np.array([[[1, 0, 1], [0, 1, 1]]], np.float32)
affine_into(out, frame, offset, 4, inverse, 0, 3, affine_scratch(2, 4))
print(out[0, 0, 0, 0], sum(affine_into.stats.cache_hits.values()))
"""


def run(folder: Path) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_a_kernel_is_compiled_anew_when_what_it_inlines_from_another_file_has_changed(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "kernels", tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(tmp_path) == ["1.0", "0"]
    assert run(tmp_path) == ["1.0", "1"]
    source = tmp_path / "kernels" / "crop.py"
    source.write_text(
        source.read_text().replace("(level - MIDDLE) * SCALE", "(level - MIDDLE) * SCALE * np.float32(3)")
    )
    assert run(tmp_path) == ["3.0", "0"]
