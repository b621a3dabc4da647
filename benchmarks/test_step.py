"""Training steps and epochs beside PyTorch, beside matrix products, and beside the reference pipeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.bare_training import BareTraining
from benchmarks.epoch_contests import recording_contest, reference_contest
from benchmarks.material import Converted, choose_radiographs, convert_with_table, draw_phantoms
from benchmarks.settings import BATCH, THREADS
from benchmarks.step_contest import step_contest
from benchmarks.step_processes import arithmetic_contest, step_224_contest
from loaders.config import LoaderConfig

EPOCH_ROUNDS = 5
NUM_IMAGES = 2060  # of the report: 1,648 for training and 412 for validation


@pytest.fixture(scope="module")
def third_of_radiographs(tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """Every third real radiograph: three or four steps of the reference."""
    return choose_radiographs(tmp_path_factory.mktemp("third"), every=3) or phantoms


def test_epochs(compare: Callable, converted_64: Converted) -> None:
    with step_contest(converted_64.beton) as contest:
        compare(contest)


def test_steps_at_the_recipes_size(compare: Callable) -> None:
    with step_224_contest() as contest:
        compare(contest)


def test_arithmetic_beside_matrix_products(compare: Callable) -> None:
    with arithmetic_contest() as contest:
        compare(contest)


@pytest.mark.parametrize("crop", [224, 128])
def test_epochs_beside_the_reference(compare: Callable, third_of_radiographs: Path, tmp_path: Path, crop: int) -> None:
    with reference_contest(third_of_radiographs, tmp_path, crop) as contest:
        compare(contest, EPOCH_ROUNDS)


def test_waiting_for_batches(report: Callable, converted_224: Converted) -> None:
    with BareTraining(converted_224.beton.parent, LoaderConfig(batch_size=BATCH, threads=THREADS)) as training:
        lines = []
        for _ in range(3):
            training.epoch()
            loader = training.loader
            share = loader.waited / (loader.waited + loader.consumed)
            lines.append(f"{loader.waited * 1e3:.1f} ms of {loader.waited + loader.consumed:.1f} s, {share:.2%}")
        report("training at 224 waited for batches, three epochs of 5 steps (target: under 1 %)", lines)


def test_epochs_with_and_without_records(compare: Callable, tmp_path: Path) -> None:
    manifest = draw_phantoms(tmp_path, num_phantoms=NUM_IMAGES, side=64)
    betons, _ = convert_with_table(manifest, tmp_path, 64)
    with recording_contest(betons, tmp_path) as contest:
        compare(contest, EPOCH_ROUNDS)
