"""Every contest: kernels, conversion, loader, large betons, training."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.datasets import Converted, choose_radiographs, convert_with_table, draw_phantoms, noise_beton, vary
from benchmarks.equivalence import BareTraining
from benchmarks.file_contests import conversion_contest, files_contest, lungs_contest, phantom_files_contest
from benchmarks.kernel_contests import affine_contest, affine_scaling_contest, crop_contest
from benchmarks.loader_contests import (
    checksum_contest,
    evaluation_contest,
    evaluation_threads_contest,
    training_contest,
    training_scaling_contest,
    training_threads_contest,
)
from benchmarks.memory_limit import LIMIT, MIB, WAYS, limited_group, rate
from benchmarks.scale import CROP, STORED, scaling, scaling_table
from benchmarks.settings import BATCH, FULL, THREADS, Workload
from benchmarks.step_contests import (
    arithmetic_contest,
    findings_contest,
    recording_contest,
    reference_contest,
    step_224_contest,
    step_contest,
)
from benchmarks.training_worker import MIXED, MIXED_RIVALS
from engine.device import bfloat16_unit
from loaders.config import LoaderConfig

# numba's warnings while FFCV's compiled pipelines are freed are no fault of a contest's
beside_ffcv = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_affine(compare: Callable, converted_224: Converted) -> None:
    with affine_contest(converted_224.beton) as contest:
        compare(contest)


def test_affine_scaling(compare: Callable, converted_224: Converted) -> None:
    with affine_scaling_contest(converted_224.beton) as contest:
        compare(contest)


def test_crop(compare: Callable, converted_224: Converted) -> None:
    with crop_contest(converted_224.beton) as contest:
        compare(contest)


def test_conversion(compare: Callable, workload: Workload, radiographs: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    many = vary(radiographs, files, workload.files)
    with conversion_contest(many, tmp_path) as contest:
        compare(contest, rounds=workload.long_rounds)


def test_conversion_of_lungs(compare: Callable, workload: Workload, radiographs: Path, tmp_path: Path) -> None:
    with lungs_contest(radiographs, tmp_path) as contest:
        compare(contest, rounds=workload.long_rounds)


@beside_ffcv
def test_evaluation_batches(compare: Callable, beton_224: Path) -> None:
    with evaluation_contest(beton_224) as contest:
        compare(contest)


@beside_ffcv
def test_training_batches(compare: Callable, beton_224: Path) -> None:
    with training_contest(beton_224) as contest:
        compare(contest)


@beside_ffcv
def test_evaluation_in_threads(compare: Callable, beton_224: Path) -> None:
    with evaluation_threads_contest(beton_224) as contest:
        compare(contest)


@beside_ffcv
def test_training_in_threads(compare: Callable, beton_224: Path) -> None:
    with training_threads_contest(beton_224) as contest:
        compare(contest)


@beside_ffcv
def test_training_scaling(compare: Callable, beton_224: Path) -> None:
    with training_scaling_contest(beton_224) as contest:
        compare(contest)


@beside_ffcv
@pytest.mark.parametrize("training", [True, False])
def test_checksums(compare: Callable, beton_224: Path, training: bool) -> None:
    with checksum_contest(beton_224, training=training) as contest:
        compare(contest)


@beside_ffcv
def test_training_from_files(compare: Callable, workload: Workload, converted_radiographs: Converted) -> None:
    with files_contest(converted_radiographs, workload.loader_workers) as contest:
        compare(contest)


@beside_ffcv
def test_training_from_phantom_files(compare: Callable, workload: Workload, converted_224: Converted) -> None:
    with phantom_files_contest(converted_224, workload.loader_workers) as contest:
        compare(contest)


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


@pytest.fixture(scope="module")
def some_radiographs(workload: Workload, tmp_path_factory: pytest.TempPathFactory, phantoms: Path) -> Path:
    """Some of the real radiographs; in full a third of them, three or four steps of the reference."""
    return choose_radiographs(tmp_path_factory.mktemp("some"), workload.decoded_every) or phantoms


def test_epochs(compare: Callable, converted_64: Converted) -> None:
    with step_contest(converted_64.beton) as contest:
        compare(contest)


def test_epochs_of_findings(compare: Callable, converted_64: Converted, tmp_path: Path) -> None:
    with findings_contest(converted_64.beton, tmp_path) as contest:
        compare(contest)


@pytest.fixture
def native_bfloat16(workload: Workload) -> None:
    """Measures on processors that multiply bfloat16 alone; outputs are compared everywhere."""
    if workload is FULL and not bfloat16_unit():
        pytest.skip("not this processor: it has neither AMX nor AVX-512 BF16")


def test_steps_at_the_recipes_size(compare: Callable, workload: Workload) -> None:
    with step_224_contest(crop=workload.step_crop, optimised=workload.optimised) as contest:
        compare(contest)


def test_arithmetic_beside_matrix_products(compare: Callable, workload: Workload) -> None:
    with arithmetic_contest(workload.step_crop) as contest:
        compare(contest)


def test_steps_in_bfloat16(compare: Callable, workload: Workload, native_bfloat16: None) -> None:
    with step_224_contest(MIXED_RIVALS, workload.step_crop, optimised=workload.optimised) as contest:
        compare(contest)


def test_arithmetic_in_bfloat16(compare: Callable, workload: Workload, native_bfloat16: None) -> None:
    with arithmetic_contest(workload.step_crop, MIXED) as contest:
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
            seconds = loader.wait_seconds + loader.consumer_seconds
            share = loader.wait_seconds / seconds
            lines.append(f"{loader.wait_seconds * 1e3:.1f} ms of {seconds:.1f} s, {share:.2%}")
        steps = -(-training.loader.num_samples // BATCH)
        report(f"training at 224 waited for batches, each epoch of {steps} steps (target: under 1 %)", lines)


def test_epochs_with_and_without_records(compare: Callable, workload: Workload, tmp_path: Path) -> None:
    manifest = draw_phantoms(tmp_path, num_phantoms=workload.files, side=64)
    betons, _ = convert_with_table(manifest, tmp_path, 64)
    with recording_contest(betons, tmp_path) as contest:
        compare(contest, workload.long_rounds)
