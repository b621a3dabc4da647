"""Training steps and epochs beside PyTorch, beside matrix products, and beside the reference pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.bare_training import BareTraining
from benchmarks.epoch_contests import recording_contest, reference_contest
from benchmarks.material import Converted, choose_radiographs, convert_with_table, draw_phantoms
from benchmarks.settings import BATCH, THREADS, Workload
from benchmarks.step_contest import step_contest
from benchmarks.step_processes import arithmetic_contest, step_224_contest
from loaders.config import LoaderConfig


@pytest.fixture(scope="module")
def some_radiographs(workload: Workload, tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """Every so many'th real radiograph: in earnest every third, three or four steps of the reference."""
    return choose_radiographs(tmp_path_factory.mktemp("some"), workload.decoded_every) or phantoms


def test_epochs(compare: Callable, converted_64: Converted) -> None:
    with step_contest(converted_64.beton) as contest:
        compare(contest)


def test_steps_at_the_recipes_size(compare: Callable, workload: Workload) -> None:
    with step_224_contest(crop=workload.step_crop, optimised=workload.optimised) as contest:
        compare(contest)


def test_arithmetic_beside_matrix_products(compare: Callable, workload: Workload) -> None:
    with arithmetic_contest(workload.step_crop) as contest:
        compare(contest)


@pytest.mark.parametrize("crop", [224, 128])
def test_epochs_beside_the_reference(
    compare: Callable, workload: Workload, some_radiographs: Path, tmp_path: Path, crop: int
) -> None:
    with reference_contest(some_radiographs, tmp_path, crop) as contest:
        compare(contest, workload.long_rounds)


def test_waiting_for_batches(report: Callable, workload: Workload, converted_224: Converted) -> None:
    with BareTraining(converted_224.beton.parent, LoaderConfig(batch_size=BATCH, threads=THREADS)) as training:
        lines = []
        for _ in range(workload.waiting_epochs):
            training.epoch()
            loader = training.loader
            share = loader.waited / (loader.waited + loader.consumed)
            lines.append(f"{loader.waited * 1e3:.1f} ms of {loader.waited + loader.consumed:.1f} s, {share:.2%}")
        steps = -(-training.loader.num_samples // BATCH)
        report(f"training at 224 waited for batches, each epoch of {steps} steps (target: under 1 %)", lines)


def test_epochs_with_and_without_records(compare: Callable, workload: Workload, tmp_path: Path) -> None:
    manifest = draw_phantoms(tmp_path, num_phantoms=workload.files, side=64)
    betons, _ = convert_with_table(manifest, tmp_path, 64)
    with recording_contest(betons, tmp_path) as contest:
        compare(contest, workload.long_rounds)
