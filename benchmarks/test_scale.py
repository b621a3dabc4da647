"""Large betons: many samples, and more bytes than memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchmarks.material import noise_beton
from benchmarks.memory_limit import LIMIT, MIB, WAYS, limited_group, rate
from benchmarks.scale import CROP, STORED, scaling, scaling_table
from benchmarks.settings import Workload


def test_scale(report: Callable, workload: Workload, tmp_path: Path) -> None:
    found = [scaling(tmp_path, num_samples) for num_samples in workload.scale_samples]
    report(f"scale: frames of {STORED}, crops of {CROP}", scaling_table(found))


def test_memory_limit(report: Callable, workload: Workload, tmp_path: Path) -> None:
    size = workload.large_frames * 320**2 / (MIB << 10)
    what = f"a beton of {size:.1g} GiB under a memory limit of {LIMIT // MIB} MiB, read from the disk"
    with limited_group() as group:
        if group is None:
            report(what, ["skipped: no control group can be made here (it takes root)"])
            return
        beton = noise_beton(tmp_path / "large.beton", workload.large_frames, 320, 224)
        report(what, [f"{way}: {rate(group, beton, way):,.0f} MB/s" for way in WAYS])
