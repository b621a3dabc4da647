"""Contests with those who read the original files: the loader with decoding loaders, the converter with a loop."""

# N samples, H W rows and columns of the crop

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.agreement import LEVEL, THEIRS, expect_close, expect_inside, expect_same_pictures
from benchmarks.contest import Call, Comparison, Contest, Epoch, Missing, arrays, consume, first_samples, opened
from benchmarks.datasets import Converted, convert_table, listed_files
from benchmarks.loader_contests import by_sample, open_ours
from benchmarks.rivals import dali, spdl
from benchmarks.rivals.arrays import middle_of
from benchmarks.rivals.augmentation import Turns, turns_of
from benchmarks.rivals.data_loader import PilDataset, TorchvisionDataset
from benchmarks.settings import BATCH, FULL, THREADS
from benchmarks.targets import CONVERSION, FILES, LUNGS, PHANTOM_FILES
from loaders.beton.reader import Beton
from loaders.config import LungMode
from tests import naive

NUM_CHECKED = 16
OUR_EPOCHS = 20  # in one call, beside one of the rivals


def data_loader(dataset: Dataset, workers: int) -> Epoch:
    """Epochs of torch's loader, as its manual has it; workers outlive the epoch, so that their start is not counted."""
    there = {"num_workers": workers, "persistent_workers": True, "multiprocessing_context": "spawn"} if workers else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # more workers than cores are tried on purpose
        loader = DataLoader(dataset, BATCH, shuffle=True, **there)

    def epoch() -> Iterator[np.ndarray]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            batches = iter(loader)
        for frames_N1HW, _ in batches:
            yield frames_N1HW.numpy()

    return epoch


def best_data_loader(dataset: Dataset, numbers: tuple[int, ...]) -> tuple[str, Epoch, float]:
    """The fastest of these numbers of workers: its name, its epochs, and the seconds to its first batch."""
    tried: dict[float, tuple[str, Epoch, float]] = {}
    for workers in numbers:
        epoch, first = opened(lambda workers=workers: data_loader(dataset, workers))
        start = time.perf_counter()
        consume(epoch)()
        name = f"DataLoader, {workers} workers (best of {', '.join(map(str, numbers))})"
        tried[time.perf_counter() - start] = name, epoch, first
    return tried[min(tried)]


def decoders(converted: Converted, turns: Turns, stored: int, crop: int) -> dict[str, Callable[[], Epoch] | Missing]:
    """Those that decode in threads of their own, ready to be opened."""
    paths = converted.paths
    found: dict[str, Callable[[], Epoch] | Missing] = {
        "DALI, CPU": lambda: dali.file_pipeline(paths, turns.inverse_N23, stored, crop, BATCH, THREADS),
        "SPDL + grid_sample": lambda: spdl.file_pipeline(paths, turns, stored, crop, BATCH, THREADS),
    }
    for name, reason in zip(found, (dali.missing(), spdl.missing()), strict=True):
        if reason is not None:
            found[name] = Missing(reason=reason)
    return found


@contextmanager
def files_contest(converted: Converted, workers: tuple[int, ...] = FULL.loader_workers) -> Iterator[Contest]:
    """Real radiographs: DataLoader with Pillow and torchvision, DALI, SPDL."""
    with open_ours(converted.beton, training=True) as loader:
        beton, crop, stored, num_samples = loader.beton, loader.beton.facts.crop, loader.beton.side, len(loader.beton)
        turns = turns_of(loader.config, num_samples, crop)
        ours, seconds = opened(lambda: arrays(loader))
        first_batch = {"plainfilm": seconds}
        rivals: dict[str, Call | Missing] = {"plainfilm": consume(ours, OUR_EPOCHS)}
        dataset = TorchvisionDataset(converted.paths, beton.label_N, stored, crop, turns.degrees_N, turns.zoom_N)
        name, epoch, first_batch[name] = best_data_loader(dataset, workers)
        rivals[name] = consume(epoch)
        pictures: dict[str, Epoch] = {}
        for name, build in decoders(converted, turns, stored, crop).items():
            if isinstance(build, Missing):
                rivals[name] = build
                continue
            pictures[name], first_batch[name] = opened(build)
            rivals[name] = consume(pictures[name])

        def check() -> None:
            frames_N1HW = by_sample(loader)[:NUM_CHECKED]
            for name, epoch in pictures.items():
                expect_same_pictures(name, first_samples(epoch, NUM_CHECKED), frames_N1HW)
            expect_torchvision(dataset, turns, frames_N1HW)

        yield Contest(
            what=FILES,
            amount=num_samples,
            rivals=rivals,
            check=check,
            amounts={"plainfilm": num_samples * OUR_EPOCHS},
            first_batch=first_batch,
        )


def expect_torchvision(dataset: TorchvisionDataset, turns: Turns, frames_N1HW: np.ndarray) -> None:
    """Its crops are those of the oracle out of its own frames, and show what ours show.  Errors: Disagreement."""
    for sample, frame_1HW in enumerate(frames_N1HW):
        found_1HW = dataset[sample][0].numpy()
        low = (dataset.stored - dataset.crop) // 2
        area_HW = dataset.frame(sample)[0, low : low + dataset.crop, low : low + dataset.crop].numpy()
        oracle_HW = naive.affine(area_HW, turns.inverse_N23[sample], dataset.crop, 0, dataset.crop - 1)
        expect_inside("torchvision", found_1HW, oracle_HW[None], mean=THEIRS)
        expect_same_pictures("Pillow", found_1HW[None], frame_1HW[None])


@contextmanager
def phantom_files_contest(converted: Converted, workers: tuple[int, ...] = FULL.loader_workers) -> Iterator[Contest]:
    """Phantoms twice the stored side, which all libraries halve alike: a dataset that does all that conversion does."""
    with open_ours(converted.beton, training=True) as loader:
        beton, crop, num_samples = loader.beton, loader.beton.facts.crop, len(loader.beton)
        turns = turns_of(loader.config, num_samples, crop)
        dataset = PilDataset(converted.paths, beton.label_N, beton.side, crop, turns.inverse_N23)
        ours, seconds = opened(lambda: arrays(loader))
        name, epoch, first = best_data_loader(dataset, workers)

        def check() -> None:
            frames_N1HW = by_sample(loader)[::10]
            found, labels = zip(*(dataset[sample] for sample in range(0, num_samples, 10)), strict=True)
            expect_close("Pillow's labels", labels, beton.label_N[::10], mean=0)
            # Pillow keeps whole grey levels after each of its three steps, and autocontrast rounds down
            expect_close("Pillow", np.stack(found), frames_N1HW, mean=LEVEL)

        yield Contest(
            what=PHANTOM_FILES,
            amount=num_samples,
            rivals={"plainfilm": consume(ours, OUR_EPOCHS), name: consume(epoch)},
            check=check,
            amounts={"plainfilm": num_samples * OUR_EPOCHS},
            first_batch={"plainfilm": seconds, name: first},
        )


SIZE = 224
STORED = 320
NUM_CHECKED = 16


def pillow_loop(paths: list[Path], folder: Path) -> None:
    """One process: to grey, to the stored side, to a file each."""
    for place, path in enumerate(paths):
        np.save(folder / f"{place}.npy", shrink(path))


def shrink(path: Path) -> np.ndarray:
    """One radiograph as Pillow's users prepare it."""
    with warnings.catch_warnings(), Image.open(path) as file:
        warnings.simplefilter("ignore")  # Pillow's, about palettes
        return np.asarray(file.convert("L").resize((STORED, STORED), Image.Resampling.BILINEAR))


@contextmanager
def conversion_contest(manifest: Path, folder: Path) -> Iterator[Contest]:
    """Every file of a table, each time into a folder of its own.

    Ours also splits, finds duplicates, writes and verifies betons, and draws the two pictures.
    """
    paths, runs = listed_files(manifest), count()

    def ours() -> None:
        convert_table(manifest, new_folder(folder, next(runs)), SIZE)

    def check() -> None:
        converted = convert_table(manifest, new_folder(folder, next(runs)), SIZE)
        with Beton(converted.beton) as beton:
            # of the crop alone: its grey levels set the window, which the margin may leave and the loop does not have
            middle = middle_of(beton)
            found = [shrink(path)[middle] for path in converted.paths[:NUM_CHECKED]]
            expect_same_pictures("PIL loop", found, [beton.frame(sample)[middle] for sample in range(len(found))])

    yield Contest(
        what=CONVERSION,
        amount=len(paths),
        unit="files",
        rivals={
            "plainfilm": ours,
            "PIL loop": lambda: pillow_loop(paths, new_folder(folder, next(runs))),
        },
        check=check,
    )


@contextmanager
def lungs_contest(manifest: Path, folder: Path) -> Iterator[Contest]:
    """Every file of a table with its lungs found and all else blanked, beside the same conversion of whole films."""
    runs = count()

    def converted(lungs: LungMode) -> Path:
        return convert_table(manifest, new_folder(folder, next(runs)), SIZE, lungs).beton

    def check() -> None:
        with Beton(converted("off")) as whole, Beton(converted("masked")) as alone:
            place_of = {row.tobytes(): place for place, row in enumerate(whole.rows_N["pixel_hash"])}
            for sample, row in enumerate(alone.rows_N["pixel_hash"][:NUM_CHECKED]):
                if (place := place_of.get(row.tobytes())) is None:  # in another split, since some film has no mask
                    continue
                frame_SS, whole_SS = alone.frame(sample), whole.frame(place)
                blank_SS = frame_SS != whole_SS
                expect_close("share beside the lungs", blank_SS.mean(), 0.5, mean=0.45)
                expect_close("blank", frame_SS[blank_SS], np.full(blank_SS.sum(), np.median(whole_SS)), mean=1)

    yield Contest(
        what=LUNGS,
        amount=len(listed_files(manifest)),
        unit="files",
        rivals={"plainfilm": lambda: converted("masked"), "whole films": lambda: converted("off")},
        check=check,
    )


def new_folder(folder: Path, number: int) -> Path:
    """A folder that is not there yet."""
    made = folder / str(number)
    made.mkdir()
    return made


def payback(comparisons: list[Comparison]) -> str | None:
    """How long 2,060 radiographs take, and when that has paid for itself against decoding each time.

    None unless conversion and the DataLoader that decodes were both measured.
    """
    by_what = {comparison.what: comparison for comparison in comparisons}
    if not {CONVERSION, FILES} <= by_what.keys():
        return None
    files, conversion = by_what[FILES], by_what[CONVERSION]
    decoding = [name for name in files.cpu_seconds if name.startswith("DataLoader")]
    if not decoding:
        return None
    seconds = FULL.files / conversion.rate(conversion.ours)
    saved = FULL.files / files.rate(decoding[0]) - FULL.files / files.rate(files.ours)
    return (
        f"conversion of {FULL.files:,} radiographs: {seconds:.1f} s; an epoch then takes "
        f"{saved:.1f} s less than with {decoding[0]}: paid for after {seconds / saved:.2f} epochs"
    )
