"""Fixtures: phantoms converted on the spot, equal threads; and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.provenance import describe, provenance
from benchmarks.rivals import Comparison, interleaved, table
from loaders.config import ConvertConfig, PhantomConfig
from loaders.convert import convert
from loaders.phantom_folder import write_phantoms

ROUNDS = 7
THREADS = 2  # of every rival: threads, worker processes, torch's own
NUM_PHANTOMS = 200  # 160 for training and 40 for validation
PHANTOM_SIDE = 640  # twice 320: halving leaves nothing to a library's taste in resizing, so that outputs compare

COMPARISONS = pytest.StashKey[list[Comparison]]()
PROVENANCE = pytest.StashKey[dict[str, Any]]()


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """A training beton, and the files that its samples came from, in its order."""

    beton: Path
    paths: list[Path]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of synthetic radiographs, one a patient."""
    out = tmp_path_factory.mktemp("phantoms") / "p"
    return write_phantoms(PhantomConfig(out=out, patients=NUM_PHANTOMS, images_per_patient=1, size=PHANTOM_SIDE))


@pytest.fixture(scope="session")
def converted_224(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The phantoms at the recipe's size: stored frames of 320, crops of 224."""
    return convert_phantoms(phantoms, tmp_path_factory.mktemp("betons"), 224)


@pytest.fixture(scope="session")
def converted_64(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The phantoms small, for training: stored frames of 92, crops of 64."""
    return convert_phantoms(phantoms, tmp_path_factory.mktemp("betons"), 64)


def convert_phantoms(manifest: Path, folder: Path, size: int) -> Converted:
    """Convert in a folder of its own, with a site key of its own."""
    out = folder / "b"
    conversion = convert(ConvertConfig(manifest=manifest, out=out, size=size, site_key=folder / "site.key"))
    rows = [row for row in conversion.rows if row.verdict == "written" and row.split == "train"]
    return Converted(beton=out / "train.beton", paths=[manifest.parent / row.entry.path for row in rows])


@pytest.fixture(autouse=True)
def equal_threads() -> Iterator[None]:
    """As many threads in torch as every rival has; importing FFCV changes them."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compare(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """`interleaved` under pytest-benchmark: ours in its table, everything in its JSON, and a line in ours."""

    def run(what: str, rivals: dict, **arguments: Any) -> None:
        comparison = interleaved(what, rivals, rounds=ROUNDS, pedantic=benchmark.pedantic, **arguments)
        benchmark.extra_info.update(comparison.record())
        request.config.stash[COMPARISONS].append(comparison)

    return run


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COMPARISONS] = []
    config.stash[PROVENANCE] = provenance()


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["plainfilm"] = config.stash[PROVENANCE]


@pytest.hookimpl(trylast=True)  # below pytest-benchmark's own table
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.stash[COMPARISONS]:
        terminalreporter.section(
            f"plainfilm beside its rivals: medians of {ROUNDS} interleaved rounds, {THREADS} threads each; "
            "ratio above 1: plainfilm is faster"
        )
        for line in [*table(config.stash[COMPARISONS]), "", *describe(config.stash[PROVENANCE]).splitlines()]:
            terminalreporter.write_line(line)
