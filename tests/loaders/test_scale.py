"""A million samples: arrays, never an object a sample; memory that stays where it is; no sample lost.

The samples are tiny, so that what is counted here is what a beton costs by its length alone.
"""

import ctypes
import gc
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from loaders.batches.loader import Loader
from loaders.beton.format import ALLOCATION, HEADER, ROW, Facts
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.errors import BetonError

FEW, SOME, MANY = 1_000, 100_000, 1_000_000
STORED, CROP = 8, 6
PAGE = 1 << 21
FEW_OBJECTS = 2_000  # of Python, in all; one a sample would be five hundred times that
FACTS = Facts(
    classes=("covid", "normal"),
    positive="covid",
    stored=STORED,
    crop=CROP,
    fit="stretch",
    split="train",
    seed=0,
    conversion_id="c" * 32,
    site_key_id="k" * 16,
    source_fingerprint="f" * 32,
)


def numbered_frames(num_samples: int) -> Iterator[np.ndarray]:
    """Frames whose whole middle encodes the sample's number, in base 200; one array, used again and again."""
    frame_SS = np.zeros((STORED, STORED), np.uint8)
    for sample in range(num_samples):
        frame_SS[1] = sample % 200
        frame_SS[2] = sample // 200 % 200
        frame_SS[3] = sample // 40_000
        yield frame_SS


def numbers_of(frames_N1HW: np.ndarray) -> np.ndarray:
    """The samples' numbers out of normalised central crops."""
    levels_NH = np.rint((frames_N1HW[:, 0, :3, 0] + 1) * 127.5).astype(np.int64)
    return levels_NH @ np.array([1, 200, 40_000])


def write(path: Path, num_samples: int) -> None:
    rows_N = np.zeros(num_samples, ROW)
    write_beton(path, numbered_frames(num_samples), np.arange(num_samples) % 2, rows_N, FACTS, PAGE)


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scale") / "few.beton"
    write(path, FEW)
    return path


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("scale") / "many.beton"
    write(path, MANY)
    yield path
    path.unlink()


def traced(work: Callable[[], object]) -> tuple[int, int, int]:
    """Blocks of memory that work's result keeps, their bytes, and the bytes at the peak."""
    work()  # what is imported or compiled on first use is not counted
    gc.collect()
    tracemalloc.start()
    try:
        kept = work()
        gc.collect()
        size, peak = tracemalloc.get_traced_memory()
        blocks = sum(line.count for line in tracemalloc.take_snapshot().statistics("filename"))
        del kept
    finally:
        tracemalloc.stop()
    return blocks, size, peak


def anonymous_memory() -> int:
    """Bytes of this process that belong to no file: the map's own pages come and go as the system likes."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("this system does not report anonymous memory apart from a file's")
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what glibc keeps of what was freed depends on what this process did before
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def test_opening_a_million_samples_makes_as_many_objects_as_opening_a_thousand(few: Path, many: Path) -> None:
    blocks_few, _, _ = traced(lambda: Beton(few))
    blocks_many, size, peak = traced(lambda: Beton(many))
    assert blocks_many <= blocks_few + FEW_OBJECTS  # those of other threads, the test runner's, are among them
    assert size <= 20 * MANY + 100_000  # offset_N, label_N and checksums; everything else is a view of the map
    assert peak <= 40 * MANY


def test_opening_makes_no_object_a_sample_that_the_garbage_collector_sees(many: Path) -> None:
    gc.collect()
    before = len(gc.get_objects())
    with Beton(many) as beton, Loader(many) as loader:
        assert len(beton) == len(loader.beton) == MANY
        assert len(gc.get_objects()) - before < FEW_OBJECTS


def test_the_tables_of_an_open_beton_are_views_of_its_map(many: Path) -> None:
    with Beton(many) as beton:
        assert np.shares_memory(beton.rows_N, beton.bytes_B) and beton.rows_N.flags.aligned
        assert beton.offset_N.flags.c_contiguous and beton.offset_N.flags.aligned


def test_verifying_many_samples_keeps_nothing_and_reports_seldom(tmp_path: Path) -> None:
    reports: list[tuple[int, int]] = []
    write(tmp_path / "some.beton", SOME)  # no more: memory is traced, which takes ten times as long
    with Beton(tmp_path / "some.beton") as beton:
        tracemalloc.start()
        try:
            beton.verify(lambda done, total: reports.append((done, total)))
            size, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert reports[-1] == (SOME, SOME) and len(reports) < 100
    assert size < 100_000 and peak <= 16 << 20  # blocks of a few MiB, however many samples there are


def test_an_epoch_of_a_million_gives_each_sample_once_in_steady_memory(many: Path) -> None:
    given_N = np.zeros(MANY, np.uint8)
    with Loader(many, batch_size=2_000, threads=2) as loader:
        levels = []
        for position, (frames_N1HW, labels_N, index_N) in enumerate(loader):
            given_N[index_N] += 1
            assert (labels_N == index_N % 2).all()
            np.testing.assert_array_equal(numbers_of(frames_N1HW), index_N)
            if position % 50 == 49:
                levels.append(anonymous_memory())
        assert max(levels) - levels[0] < 32 << 20, levels  # batches come and go
    assert (given_N == 1).all()


def test_epochs_of_training_give_each_sample_once_and_a_second_one_keeps_nothing_of_the_first(many: Path) -> None:
    given_N = np.zeros(MANY, np.uint8)
    with Loader(many, training=True, batch_size=20_000, threads=2, seed=3) as loader:
        levels, kept = [], []
        for epoch in (1, 2):
            for position, (_, labels_N, index_N) in enumerate(loader):
                given_N[index_N] += 1
                assert (labels_N == index_N % 2).all()
                if position % 5 == 4:
                    levels.append(anonymous_memory())
            assert (given_N == epoch).all()
            gc.collect()
            kept.append((anonymous_memory(), len(gc.get_objects())))
    assert max(levels) - levels[0] < 32 << 20, levels
    assert kept[1][0] - kept[0][0] < 32 << 20, kept
    assert kept[1][1] - kept[0][1] < FEW_OBJECTS


def test_the_last_of_a_million_regions_is_checked_like_the_first(many: Path) -> None:
    with Beton(many) as beton:
        table, last = beton.table_start, int(beton.offset_N[-1])
    assert np.fromfile(many, HEADER, 1)["alloc_table_ptr"][0] == table
    place = table + (MANY - 1) * ALLOCATION.itemsize + ALLOCATION.fields["ptr"][1]
    with many.open("r+b") as file:
        try:
            file.seek(place)
            file.write((last - STORED**2).to_bytes(8, "little"))
            file.flush()
            with pytest.raises(BetonError, match=r"sample 999999: .* overlaps another"):
                Beton(many)
        finally:
            file.seek(place)
            file.write(last.to_bytes(8, "little"))
