"""Contests of the loader on one beton: with other loaders, with plain threads, and with itself; 32 crops of 224."""

# N samples of a batch or beton, S side of a stored frame, H W rows and columns of the crop

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.agreement import Disagreement, expect_close, expect_oracle, expected_affine, expected_crops
from benchmarks.contest import Call, Contest, Epoch, Missing, arrays, consume, first_samples, opened
from benchmarks.rivals import ffcv, litdata, webdataset
from benchmarks.rivals.arrays import Fill, middle_of, numpy_crop, opencv_affine, single_threaded_opencv
from benchmarks.rivals.augmentation import Augment, Preparation, by_grid_sample, by_kornia, by_torchvision, turns_of
from benchmarks.rivals.installed import why_missing
from benchmarks.settings import BATCH, THREADS
from benchmarks.targets import (
    CHECKSUMS,
    EVALUATION,
    EVALUATION_CHECKSUMS,
    EVALUATION_THREADS,
    TRAINING,
    TRAINING_SCALING,
    TRAINING_THREADS,
)
from loaders.batches.loader import Loader
from loaders.beton.reader import Beton
from loaders.sampling import epoch_matrices

EVALUATION_EPOCHS = 2  # in one call
NUM_CHECKED = 2 * BATCH
MOST_IN_SUCCESSION = 0.5  # of shuffled samples, the share that may follow one another as they are stored

Outputs = dict[str, Callable[[], np.ndarray] | Missing]  # by rival, crops in the beton's order


def open_ours(path: Path, *, training: bool, threads: int = THREADS) -> Loader:
    """plainfilm's loader, with tensors, as in training."""
    return Loader(path, training=training, threads=threads, batch_size=BATCH, tensors=True)


def open_ffcv(path: Path, *, shuffled: bool, image: tuple[Any, ...] = ()) -> Any:
    """FFCV's loader, with torch's threads as before."""
    threads = torch.get_num_threads()
    loader = ffcv.open_loader(path, THREADS, shuffled=shuffled, image=image)
    torch.set_num_threads(threads)
    return loader


def ffcv_samples(loader: Any, prepare: ffcv.Prepare | None) -> np.ndarray:
    """FFCV's first crops in the beton's order."""
    with ffcv.in_order(loader):
        return first_samples(lambda: ffcv.frames(loader, prepare), NUM_CHECKED)


def by_sample(loader: Loader) -> np.ndarray:
    """The first epoch's crops, in the beton's order."""
    loader.set_epoch(0)
    return in_beton_order("plainfilm", loader, loader.beton)


def in_beton_order(name: str, batches: Iterable[Any], beton: Beton, *, shuffled: bool = False) -> np.ndarray:
    """An epoch's crops, in the beton's order.

    batches: crops, labels, and numbers in the beton.
    Errors: Disagreement, when a sample is missing or comes twice, has another's label, or none moved though shuffled.
    """
    copied = [(frames.numpy().copy(), labels.numpy().copy(), index.numpy().copy()) for frames, labels, index in batches]
    frames_N1HW, label_N, index_N = map(np.concatenate, zip(*copied, strict=True))
    expect_close(f"{name}: samples", np.sort(index_N), np.arange(len(beton)), mean=0)
    expect_close(f"{name}: labels", label_N, beton.label_N[index_N], mean=0)
    if shuffled and (index_N[1:] == index_N[:-1] + 1).mean() > MOST_IN_SUCCESSION:
        raise Disagreement(f"{name}: samples follow one another as they are stored, expected shuffled ones")
    return frames_N1HW[np.argsort(index_N)]


def open_streamed(path: Path, prepare: Preparation, *, shuffled: bool) -> dict[str, tuple[Any, float] | Missing]:
    """Loaders that read a format of their own, whose workers prepare batches, and the seconds to their first batch.

    The beton's samples are stored beside it first, where an earlier contest has not done so.
    """
    found: dict[str, tuple[Any, float] | Missing] = {}
    for name, rival in {"litdata": litdata, "webdataset": webdataset}.items():
        if (reason := rival.missing()) is not None:
            found[name] = Missing(reason=reason)
            continue
        folder = path.with_suffix(f".{name}")
        if not folder.exists():
            rival.write(path, folder)
        start = time.perf_counter()
        loader = rival.open_loader(folder, prepare, THREADS, shuffled=shuffled)
        opening = time.perf_counter() - start
        _, seconds = opened(partial(arrays, loader))
        found[name] = loader, opening + seconds
    return found


@contextmanager
def evaluation_contest(path: Path, epochs: int = EVALUATION_EPOCHS) -> Iterator[Contest]:
    """Central crops in the beton's order, so many epochs in one call; of worker processes each keeps to it apart."""
    with open_ours(path, training=False) as loader:
        beton, crop = loader.beton, loader.beton.facts.crop
        rows, columns = middle_of(beton)

        def cut(frames_NSS: torch.Tensor, start: int) -> torch.Tensor:
            return frames_NSS[:, None, rows, columns].float().div_(127.5).sub_(1)

        def open_epochs(prepare: ffcv.Prepare | None, image: tuple[Any, ...] = ()) -> Epoch:
            opened_ffcv = open_ffcv(path, shuffled=False, image=image)
            return lambda: ffcv.frames(opened_ffcv, prepare)

        builds: dict[str, Callable[[], Epoch]] = {
            "plainfilm": lambda: arrays(loader),
            "FFCV + torch crop": lambda: open_epochs(cut),
            "FFCV + our crop, compiled": lambda: open_epochs(None, ffcv.decoder_and_crop(crop)),
            "FFCV + our operation": lambda: open_epochs(None, ffcv.our_decoder(loader.config)),
        }
        reason = ffcv.missing()
        first_batch: dict[str, float] = {}
        outputs: Outputs = {}
        rivals: dict[str, Call | Missing] = {}
        for name, build in builds.items():
            if reason is not None and name.startswith("FFCV"):
                rivals[name] = Missing(reason=reason)
                continue
            epoch, first_batch[name] = opened(build)
            outputs[name] = lambda epoch=epoch: first_samples(epoch, NUM_CHECKED)
            rivals[name] = consume(epoch, epochs)
        for kind, found in open_streamed(path, Preparation(middle=(rows, columns)), shuffled=False).items():
            name = f"{kind} + torch crop"
            if isinstance(found, Missing):
                rivals[name] = found
                continue
            streamed, first_batch[name] = found
            outputs[name] = partial(in_beton_order, name, streamed, beton)
            rivals[name] = consume(arrays(streamed), epochs)
        yield Contest(
            what=EVALUATION,
            amount=len(beton) * epochs,
            rivals=rivals,
            check=lambda: expect_oracle(outputs, expected_crops(beton, NUM_CHECKED)),
            first_batch=first_batch,
        )


def augmentations() -> dict[str, Augment | Missing]:
    """What users apply to FFCV's raw frames."""
    no_kornia = why_missing("kornia", "kornia.geometry.transform")
    return {
        "grid_sample": by_grid_sample,
        "torchvision": by_torchvision,
        "kornia": by_kornia() if no_kornia is None else Missing(reason=no_kornia),
    }


@contextmanager
def training_contest(path: Path) -> Iterator[Contest]:
    """Shuffled, rotated and zoomed crops, each sampled from itself."""
    with open_ours(path, training=True) as loader:
        beton, crop = loader.beton, loader.beton.facts.crop
        rows, columns = middle_of(beton)
        turns = turns_of(loader.config, len(beton), crop)
        ours, seconds = opened(lambda: arrays(loader))
        first_batch = {"plainfilm": seconds}
        outputs: Outputs = {"plainfilm": lambda: by_sample(loader)}
        rivals: dict[str, Call | Missing] = {"plainfilm": consume(ours)}
        reason = ffcv.missing()

        def add(name: str, image: tuple[Any, ...], prepare: ffcv.Prepare | None) -> None:
            """FFCV with this pipeline."""
            start = time.perf_counter()
            ffcv_loader = open_ffcv(path, shuffled=True, image=image)
            opening = time.perf_counter() - start
            epoch, seconds = opened(lambda: lambda: ffcv.frames(ffcv_loader, prepare))
            first_batch[name] = opening + seconds
            outputs[name] = lambda: ffcv_samples(ffcv_loader, prepare)
            rivals[name] = consume(epoch)

        for kind, augment in augmentations().items():
            name = f"FFCV + {kind}"
            if reason is not None or isinstance(augment, Missing):
                rivals[name] = augment if isinstance(augment, Missing) else Missing(reason=reason or "")
                continue

            def prepare(frames_NSS: torch.Tensor, start: int, augment: Augment = augment) -> torch.Tensor:
                """In the beton's order what ours does; shuffled frames get another sample's turn, as random."""
                return augment(frames_NSS[:, rows, columns], turns.part(slice(start, start + len(frames_NSS))))

            add(name, (), prepare)
        if reason is not None:
            rivals["FFCV + our operation"] = Missing(reason=reason)
        else:
            add("FFCV + our operation", ffcv.our_decoder(loader.config), None)
        prepare_there = Preparation(middle=(rows, columns), turns=turns)
        for kind, found in open_streamed(path, prepare_there, shuffled=True).items():
            name = f"{kind} + grid_sample"
            if isinstance(found, Missing):
                rivals[name] = found
                continue
            streamed, first_batch[name] = found
            outputs[name] = partial(in_beton_order, name, streamed, beton, shuffled=True)
            rivals[name] = consume(arrays(streamed))
        yield Contest(
            what=TRAINING,
            amount=len(beton),
            rivals=rivals,
            check=lambda: expect_oracle(
                outputs,
                expected_affine(beton, epoch_matrices(loader.config, 0, len(beton), crop, beton.side), NUM_CHECKED),
            ),
            first_batch=first_batch,
        )


@contextmanager
def training_scaling_contest(path: Path) -> Iterator[Contest]:
    """The training loader with two threads and with one, for a consumer that sleeps; the bytes are the same.

    A consumer that reads the batches would take a core's time itself, so that one thread had both cores already.
    """
    with open_ours(path, training=True) as two, open_ours(path, training=True, threads=1) as one:
        yield Contest(
            what=TRAINING_SCALING,
            amount=len(two.beton),
            rivals={"plainfilm": consume(arrays(two), reads=False), "one thread": consume(arrays(one), reads=False)},
            check=lambda: expect_close("one thread", by_sample(one), by_sample(two), mean=0, most=0),
        )


@contextmanager
def checksum_contest(path: Path, *, training: bool) -> Iterator[Contest]:
    """The first epoch, which compares every sample with its CRC, beside the later ones, which need not."""
    with open_ours(path, training=training) as first, open_ours(path, training=training) as later:
        epoch, later_epoch = consume(arrays(first)), consume(arrays(later))
        later_epoch()  # which is a first one, too

        def first_epoch() -> None:
            forget_checks(first)
            epoch()

        yield Contest(
            what=CHECKSUMS if training else EVALUATION_CHECKSUMS,
            amount=len(first.beton),
            rivals={"plainfilm": first_epoch, "later epochs": later_epoch},
        )


def forget_checks(loader: Loader) -> None:
    """Make the next epoch a first one; the map stays, so that only checksums make the difference."""
    loader._checked[:] = False


AHEAD = 2 * THREADS  # batches in the making


def threaded(beton: Beton, fill: Fill, *, shuffled: bool) -> Epoch:
    """Epochs of batches that threads make ahead."""
    generator = np.random.default_rng(0)
    crop = beton.facts.crop

    def make(index_N: np.ndarray) -> np.ndarray:
        out_N1HW = np.empty((len(index_N), 1, crop, crop), np.float32)
        fill(out_N1HW, index_N)
        return out_N1HW

    def epoch() -> Iterator[np.ndarray]:
        order_N = generator.permutation(len(beton)) if shuffled else np.arange(len(beton))
        pending: deque[Future[np.ndarray]] = deque()
        with ThreadPoolExecutor(THREADS) as pool:
            for start in range(0, len(beton), BATCH):
                pending.append(pool.submit(make, order_N[start : start + BATCH]))
                if len(pending) == AHEAD:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    return epoch


@contextmanager
def training_threads_contest(path: Path, epochs: int = 1) -> Iterator[Contest]:
    """Shuffled, rotated and zoomed crops, so many epochs in one call."""
    with open_ours(path, training=True) as loader, single_threaded_opencv():
        beton = loader.beton
        crop = beton.facts.crop
        fill = opencv_affine(beton, turns_of(loader.config, len(beton), crop).inverse_N23)
        in_order = threaded(beton, fill, shuffled=False)
        yield Contest(
            what=TRAINING_THREADS,
            amount=len(beton) * epochs,
            rivals={
                "plainfilm": consume(arrays(loader), epochs),
                "OpenCV in threads": consume(threaded(beton, fill, shuffled=True), epochs),
            },
            check=lambda: expect_oracle(
                {
                    "plainfilm": lambda: by_sample(loader),
                    "OpenCV in threads": lambda: first_samples(in_order, NUM_CHECKED),
                },
                expected_affine(beton, epoch_matrices(loader.config, 0, len(beton), crop, beton.side), NUM_CHECKED),
            ),
        )


@contextmanager
def evaluation_threads_contest(path: Path, epochs: int = 1) -> Iterator[Contest]:
    """Central crops in the beton's order, so many epochs in one call."""
    with open_ours(path, training=False) as loader:
        beton = loader.beton
        in_order = threaded(beton, numpy_crop(beton), shuffled=False)
        yield Contest(
            what=EVALUATION_THREADS,
            amount=len(beton) * epochs,
            rivals={
                "plainfilm": consume(arrays(loader), epochs),
                "numpy in threads": consume(in_order, epochs),
            },
            check=lambda: expect_oracle(
                {
                    "plainfilm": lambda: by_sample(loader),
                    "numpy in threads": lambda: first_samples(in_order, NUM_CHECKED),
                },
                expected_crops(beton, NUM_CHECKED),
            ),
        )
