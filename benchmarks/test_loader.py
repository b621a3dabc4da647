"""Loader beside FFCV, beside itself, and beside those who decode each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.file_contests import files_contest, phantom_files_contest
from benchmarks.loader_contests import (
    checksum_contest,
    evaluation_contest,
    training_contest,
    training_scaling_contest,
)
from benchmarks.material import Converted
from benchmarks.settings import Workload
from benchmarks.thread_contests import evaluation_threads_contest, training_threads_contest

# what numba says while FFCV's compiled pipelines go is no fault of a contest's
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_evaluation_batches(compare: Callable, beton_224: Path) -> None:
    with evaluation_contest(beton_224) as contest:
        compare(contest)


def test_training_batches(compare: Callable, beton_224: Path) -> None:
    with training_contest(beton_224) as contest:
        compare(contest)


def test_evaluation_in_threads(compare: Callable, beton_224: Path) -> None:
    with evaluation_threads_contest(beton_224) as contest:
        compare(contest)


def test_training_in_threads(compare: Callable, beton_224: Path) -> None:
    with training_threads_contest(beton_224) as contest:
        compare(contest)


def test_training_scaling(compare: Callable, beton_224: Path) -> None:
    with training_scaling_contest(beton_224) as contest:
        compare(contest)


@pytest.mark.parametrize("training", [True, False])
def test_checksums(compare: Callable, beton_224: Path, training: bool) -> None:
    with checksum_contest(beton_224, training=training) as contest:
        compare(contest)


def test_training_from_files(compare: Callable, workload: Workload, converted_radiographs: Converted) -> None:
    with files_contest(converted_radiographs, workload.loader_workers) as contest:
        compare(contest)


def test_training_from_phantom_files(compare: Callable, workload: Workload, converted_224: Converted) -> None:
    with phantom_files_contest(converted_224, workload.loader_workers) as contest:
        compare(contest)
