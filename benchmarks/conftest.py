"""Fixtures: material converted on the spot, equal threads; and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.contest import Contest
from benchmarks.conversion_contest import payback
from benchmarks.cpu_time import cpu_seconds
from benchmarks.material import Converted, choose_radiographs, convert_table, draw_phantoms, repeat
from benchmarks.provenance import describe, provenance
from benchmarks.rivals import Comparison, interleaved
from benchmarks.settings import ROUNDS, THREADS
from benchmarks.table import table

COMPARISONS = pytest.StashKey[list[Comparison]]()
FACTS = pytest.StashKey[dict[str, list[str]]]()  # what is measured but compared with nothing, as lines
PROVENANCE = pytest.StashKey[dict[str, Any]]()


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of synthetic radiographs."""
    return draw_phantoms(tmp_path_factory.mktemp("phantoms"))


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """The table of the real radiographs; of phantoms where there are none."""
    return choose_radiographs(tmp_path_factory.mktemp("radiographs")) or phantoms


@pytest.fixture(scope="session")
def converted_224(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The phantoms at the recipe's size: stored frames of 320, crops of 224."""
    return convert_table(phantoms, tmp_path_factory.mktemp("phantoms-224"), 224)


@pytest.fixture(scope="session")
def converted_64(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The phantoms small, for training: stored frames of 92, crops of 64."""
    return convert_table(phantoms, tmp_path_factory.mktemp("phantoms-64"), 64)


@pytest.fixture(scope="session")
def beton_224(converted_224: Converted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames as often as makes the report's training set."""
    return repeat(converted_224, tmp_path_factory.mktemp("repeated") / "train.beton")


@pytest.fixture(scope="session")
def converted_radiographs(tmp_path_factory: pytest.TempPathFactory, converted_224: Converted) -> Converted:
    """Every third real radiograph at the recipe's size: decoding those takes a rival long enough."""
    folder = tmp_path_factory.mktemp("radiographs-224")
    manifest = choose_radiographs(folder, every=3)
    return convert_table(manifest, folder, 224) if manifest else converted_224


@pytest.fixture(autouse=True)
def equal_threads() -> Iterator[None]:
    """As many threads in torch as every rival has; importing FFCV changes them."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compare(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., None]:
    """`interleaved` under pytest-benchmark: ours in its table, everything in its JSON, and lines in ours."""

    def run(contest: Contest, rounds: int = ROUNDS) -> None:
        comparison = interleaved(contest, rounds=rounds, pedantic=benchmark.pedantic, cpu_clock=cpu_seconds)
        benchmark.extra_info.update(comparison.record())
        request.config.stash[COMPARISONS].append(comparison)

    return run


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str, list[str]], None]:
    """Put lines below the table, and into the JSON."""

    def keep(what: str, lines: list[str]) -> None:
        request.config.stash[FACTS][what] = lines

    return keep


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COMPARISONS] = []
    config.stash[FACTS] = {}
    config.stash[PROVENANCE] = provenance()


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["plainfilm"] = config.stash[PROVENANCE]


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["facts"] = config.stash[FACTS]


@pytest.hookimpl(trylast=True)  # below pytest-benchmark's own table
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    comparisons, facts = config.stash[COMPARISONS], config.stash[FACTS]
    if not comparisons and not facts:
        return
    terminalreporter.section(
        f"plainfilm beside its rivals: medians of {ROUNDS} interleaved rounds, {THREADS} threads each; "
        "ratio above 1: plainfilm is faster"
    )
    blocks = [table(comparisons), *([what, *lines] for what, lines in facts.items())]
    blocks += [[paid]] if (paid := payback(comparisons)) else []
    for block in [*blocks, describe(config.stash[PROVENANCE]).splitlines()]:
        for line in [*block, ""]:
            terminalreporter.write_line(line)
