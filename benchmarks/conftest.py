"""Fixtures: data sets converted on the spot, equal threads; and the table at the end.

With --smoke every contest checks that its outputs agree and takes one tiny turn; a missing rival fails it, but those of
MAY_BE_MISSING.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks.contest import Comparison, Contest, Missing, interleaved
from benchmarks.datasets import Converted, choose_radiographs, convert_table, draw_phantoms, repeat
from benchmarks.file_contests import payback
from benchmarks.provenance import describe, provenance
from benchmarks.settings import FULL, MAY_BE_MISSING, SMOKE, THREADS, Workload
from benchmarks.table import agreement, table

COMPARISONS = pytest.StashKey[list[Comparison]]()
FACTS = pytest.StashKey[dict[str, list[str]]]()  # what is measured but compared with nothing, as lines
PROVENANCE = pytest.StashKey[dict[str, Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--smoke", action="store_true", help="agreement checks and one tiny turn of each rival")


@pytest.fixture(scope="session")
def workload(request: pytest.FixtureRequest) -> Workload:
    """How much work the contests take."""
    return workload_of(request.config)


def workload_of(config: pytest.Config) -> Workload:
    return SMOKE if config.getoption("smoke") else FULL


@pytest.fixture(scope="session")
def phantoms(workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of synthetic radiographs."""
    return draw_phantoms(tmp_path_factory.mktemp("phantoms"), num_phantoms=workload.phantoms)


@pytest.fixture(scope="session")
def radiographs(workload: Workload, tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """The table of the real radiographs; of phantoms where there are none."""
    return choose_radiographs(tmp_path_factory.mktemp("radiographs"), workload.every) or phantoms


@pytest.fixture(scope="session")
def converted_224(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The phantoms at the recipe's size: stored frames of 320, crops of 224."""
    return convert_table(phantoms, tmp_path_factory.mktemp("phantoms-224"), 224)


@pytest.fixture(scope="session")
def converted_64(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The phantoms small, for training: stored frames of 92, crops of 64."""
    return convert_table(phantoms, tmp_path_factory.mktemp("phantoms-64"), 64)


@pytest.fixture(scope="session")
def beton_224(workload: Workload, converted_224: Converted, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same frames as often as makes the report's training set."""
    return repeat(converted_224, tmp_path_factory.mktemp("repeated") / "train.beton", workload.training_images)


@pytest.fixture(scope="session")
def converted_radiographs(
    workload: Workload, tmp_path_factory: pytest.TempPathFactory, converted_224: Converted
) -> Converted:
    """Some of the real radiographs at the recipe's size: decoding a third of them takes a rival long enough."""
    folder = tmp_path_factory.mktemp("radiographs-224")
    manifest = choose_radiographs(folder, workload.decoded_every)
    return convert_table(manifest, folder, 224) if manifest else converted_224


@pytest.fixture(autouse=True)
def equal_threads() -> Iterator[None]:
    """As many threads in torch as every rival has; importing FFCV changes them."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def compare(benchmark: Any, workload: Workload, request: pytest.FixtureRequest) -> Iterator[Callable[..., None]]:
    """`interleaved` under pytest-benchmark: ours in its table, everything in its JSON, and lines in ours."""
    smoke, called = request.config.getoption("smoke"), False

    def run(contest: Contest, rounds: int | None = None) -> None:
        nonlocal called
        called = True
        if smoke:
            require_rivals(contest)
        comparison = interleaved(
            contest,
            rounds=rounds or workload.rounds,
            pedantic=benchmark.pedantic,
            cpu_clock=cpu_seconds,
            machine_clock=machine_seconds,
        )
        benchmark.extra_info.update(comparison.record())
        request.config.stash[COMPARISONS].append(comparison)
        request.node.user_properties.append(("agreement", agreement(comparison)))  # for --smoke, in two processes

    yield run
    assert called, "this test compares nothing"


def require_rivals(contest: Contest) -> None:
    """Fails for a rival that is missing and may not be."""
    missing = [
        f"{name}: {call.reason}"
        for name, call in contest.rivals.items()
        if isinstance(call, Missing) and not name.startswith(MAY_BE_MISSING)
    ]
    if missing:
        pytest.fail(f"{contest.what}: rivals are missing: {'; '.join(missing)}", pytrace=False)


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
    # a contest whose outputs disagree has not used it yet: one failure, not an error as well; `compare` checks it
    config.addinivalue_line("filterwarnings", "ignore:Benchmark fixture was not used at all")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info["plainfilm"] = config.stash[PROVENANCE]


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    output_json["facts"] = config.stash[FACTS]


@pytest.hookimpl(trylast=True)  # below pytest-benchmark's own table
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("smoke"):
        terminalreporter.section("outputs agree; one tiny turn of each rival, which measures no speed")
        for passed in terminalreporter.stats.get("passed", []):
            for line in dict(passed.user_properties).get("agreement", []):
                terminalreporter.write_line(line)
        return
    comparisons, facts = config.stash[COMPARISONS], config.stash[FACTS]
    if not comparisons and not facts:
        return
    terminalreporter.section(
        f"plainfilm beside its rivals: medians of {FULL.rounds} interleaved rounds, {THREADS} threads each; "
        "ratio above 1: plainfilm is faster"
    )
    blocks = [table(comparisons), *([what, *lines] for what, lines in facts.items())]
    blocks += [[paid]] if (paid := payback(comparisons)) else []
    for block in [*blocks, describe(config.stash[PROVENANCE]).splitlines()]:
        for line in [*block, ""]:
            terminalreporter.write_line(line)


def cpu_seconds() -> float:
    """User and system time so far, children included; of children the kernel counts in hundredths of a second."""
    total = time.process_time()
    ended = os.times()
    total += ended.children_user + ended.children_system
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended just now; its time moves to `children_user`
            times = child.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def machine_seconds() -> float:
    """CPU seconds so far of all that this machine runs, and of what its host ran in its place."""
    times = psutil.cpu_times()
    return sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal"))
