"""Contests of the loader with those who decode the original files each time: batches of 32 crops of 224."""

# N samples, H W rows and columns of the crop

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from torch.utils.data import DataLoader, Dataset

from benchmarks import dali_rival, spdl_rival, torchvision_import
from benchmarks.agreement import LEVEL, THEIRS, expect_close, expect_inside, expect_same_pictures
from benchmarks.augmentation_rivals import Turns, turns_of
from benchmarks.contest import Call, Contest, Missing
from benchmarks.epochs import Epoch, arrays, consume, first_samples, opened
from benchmarks.loader_contests import by_sample, open_ours
from benchmarks.material import Converted
from benchmarks.pil_dataset import PilDataset
from benchmarks.settings import BATCH, FULL, THREADS
from benchmarks.targets import FILES, PHANTOM_FILES
from benchmarks.torchvision_dataset import TorchvisionDataset
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
        "DALI, CPU": lambda: dali_rival.file_pipeline(paths, turns.inverse_N23, stored, crop, BATCH, THREADS),
        "SPDL + grid_sample": lambda: spdl_rival.file_pipeline(paths, turns, stored, crop, BATCH, THREADS),
    }
    for name, reason in zip(found, (dali_rival.missing(), spdl_rival.missing()), strict=True):
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
        reason = torchvision_import.missing()
        dataset = TorchvisionDataset(converted.paths, beton.label_N, stored, crop, turns.degrees_N, turns.zoom_N)
        if reason is None:
            name, epoch, first_batch[name] = best_data_loader(dataset, workers)
            rivals[name] = consume(epoch)
        else:
            rivals["DataLoader + PIL + torchvision"] = Missing(reason=reason)
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
            if reason is None:
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
    """Phantoms twice the stored side, which everybody halves alike: a dataset that does all that conversion does."""
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
