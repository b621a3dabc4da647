"""Loader beside DataLoader with Pillow, and beside FFCV on the same beton: batches of 32 crops of 224."""

# N samples of a batch or beton, H W rows and columns of the crop, S side of a stored frame,
# 23 the two rows of an inverse affine matrix

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample
from torch.utils.data import DataLoader

from benchmarks import ffcv_rival
from benchmarks.conftest import PHANTOM_SIDE, THREADS, Converted
from benchmarks.pil_dataset import PilDataset
from benchmarks.rivals import Call, expect_close
from loaders.augmentation import epoch_matrices
from loaders.loader import Loader
from tests import naive

BATCH = 32
LEVEL = 1 / 127.5  # one grey level, in [-1, 1]
EVALUATION_EPOCHS = 10  # in one call: an epoch takes only some ten milliseconds

Frames = Iterable[torch.Tensor]  # batches of frames_N1HW
Prepare = Callable[[torch.Tensor, int], torch.Tensor]  # of FFCV's frames_NSS, and the first one's place in the epoch


def touch(epoch: Callable[[], Frames], epochs: int = 1) -> Call:
    """A consumer that reads every pixel of every batch; in numpy, so that it is one thread for every rival."""
    return lambda: [float(frames_N1HW.numpy().sum()) for _ in range(epochs) for frames_N1HW in epoch()]


def frames_of(loader: Iterable[tuple[torch.Tensor, ...]]) -> Iterator[torch.Tensor]:
    return (batch[0] for batch in loader)


def by_sample(loader: Loader) -> tuple[np.ndarray, np.ndarray]:
    """The first epoch's frames and labels, in the beton's order."""
    loader.set_epoch(0)
    frames_N1HW, labels_N, index_N = (torch.cat(part).numpy() for part in zip(*loader, strict=True))
    order = np.argsort(index_N)
    return frames_N1HW[order], labels_N[order]


def pillow_loader(dataset: PilDataset, workers: int) -> DataLoader:
    """As torch's manual has it; workers outlive the epoch, so that their start is not counted."""
    if not workers:
        return DataLoader(dataset, BATCH, shuffle=True)
    return DataLoader(
        dataset, BATCH, shuffle=True, num_workers=workers, persistent_workers=True, multiprocessing_context="spawn"
    )


def ffcv_frames(loader: Any, prepare: Prepare) -> Iterator[torch.Tensor]:
    """An epoch of FFCV's uint8 frames, prepared in torch."""
    start = 0
    for frames_NSS, _ in ffcv_rival.batches(loader):
        yield prepare(frames_NSS, start)
        start += len(frames_NSS)


def check_ffcv(converted: Converted, prepare: Prepare, frames_N1HW: np.ndarray, labels_N: np.ndarray) -> None:
    """FFCV in the beton's order gives the frames and labels that ours gave."""
    in_order = ffcv_rival.open_loader(converted.beton, BATCH, THREADS, shuffled=False)
    found_N1HW = torch.cat(list(ffcv_frames(in_order, prepare)))
    found_N = torch.cat([labels_N1.clone() for _, labels_N1 in ffcv_rival.batches(in_order)])[:, 0]
    expect_close("FFCV's labels", found_N, labels_N, mean=0)
    expect_close("FFCV", found_N1HW, frames_N1HW, mean=1e-4)


def test_training_batches(compare: Callable, converted_224: Converted) -> None:
    with Loader(converted_224.beton, training=True, threads=THREADS, batch_size=BATCH, tensors=True) as loader:
        beton, crop = loader.beton, loader.beton.facts.crop
        inverse_N23 = epoch_matrices(loader.config, 0, len(beton), crop, beton.side)
        dataset = PilDataset(converted_224.paths, beton.label_N, beton.side, crop, inverse_N23)

        def sample(frames_NSS: torch.Tensor, start: int) -> torch.Tensor:
            """FFCV cannot rotate, so torch does; shuffled frames get another sample's matrix, which is as random."""
            matrices = torch.from_numpy(inverse_N23[start : start + len(frames_NSS)])
            return sample_and_normalise(frames_NSS, matrices, crop)

        rivals: dict[str, Call | None] = {"plainfilm": touch(lambda: frames_of(loader))}
        for workers in (0, THREADS):
            plain = pillow_loader(dataset, workers)
            name = f"DataLoader, {workers} workers, Pillow from {PHANTOM_SIDE}² PNG"
            rivals[name] = touch(lambda plain=plain: frames_of(plain))
        rivals["FFCV + torch grid_sample"] = None
        if ffcv_rival.PRESENT:
            shuffled = ffcv_rival.open_loader(converted_224.beton, BATCH, THREADS, shuffled=True)
            rivals["FFCV + torch grid_sample"] = touch(lambda: ffcv_frames(shuffled, sample))

        def check() -> None:
            frames_N1HW, labels_N = by_sample(loader)
            frames, labels = zip(*(dataset[place] for place in range(0, len(dataset), 10)), strict=True)
            expect_close("Pillow's labels", labels, labels_N[::10], mean=0)
            # Pillow keeps whole grey levels after each of its three steps, and autocontrast rounds down
            expect_close("Pillow", torch.stack(frames), frames_N1HW[::10], mean=LEVEL)
            if ffcv_rival.PRESENT:
                check_ffcv(converted_224, sample, frames_N1HW, labels_N)

        compare("training batches", rivals, check=check, images=len(beton))


def test_evaluation_batches(compare: Callable, converted_224: Converted) -> None:
    with Loader(converted_224.beton, threads=THREADS, batch_size=BATCH, tensors=True) as loader:
        low, crop = (loader.beton.side - loader.beton.facts.crop) // 2, loader.beton.facts.crop

        def cut(frames_NSS: torch.Tensor, start: int) -> torch.Tensor:
            return frames_NSS[:, None, low : low + crop, low : low + crop].float().div_(127.5).sub_(1)

        rivals: dict[str, Call | None] = {"plainfilm": touch(lambda: frames_of(loader), EVALUATION_EPOCHS)}
        rivals["FFCV + torch crop"] = None
        if ffcv_rival.PRESENT:
            in_order = ffcv_rival.open_loader(converted_224.beton, BATCH, THREADS, shuffled=False)
            rivals["FFCV + torch crop"] = touch(lambda: ffcv_frames(in_order, cut), EVALUATION_EPOCHS)

        def check() -> None:
            frames_N1HW, labels_N = by_sample(loader)
            expected = [naive.crop(loader.beton.frame(sample), crop) for sample in range(BATCH)]
            expect_close("plainfilm", frames_N1HW[:BATCH, 0], expected, mean=1e-6)
            if ffcv_rival.PRESENT:
                check_ffcv(converted_224, cut, frames_N1HW, labels_N)

        compare("evaluation batches", rivals, check=check, images=len(loader.beton) * EVALUATION_EPOCHS)


def sample_and_normalise(frames_NSS: torch.Tensor, inverse_N23: torch.Tensor, crop: int) -> torch.Tensor:
    """Crops by inverse matrices in torch, whose coordinates run from -1 to 1 across an image."""
    stored = frames_NSS.shape[1]
    theta_N23 = inverse_N23 * (crop / stored)
    centre_N2 = inverse_N23[:, :, :2].sum(2) * (crop / 2) + inverse_N23[:, :, 2]
    theta_N23[:, :, 2] = centre_N2 * (2 / stored) - 1
    grid = affine_grid(theta_N23, [len(frames_NSS), 1, crop, crop], align_corners=False)
    frames_N1SS = frames_NSS[:, None].float()
    out_N1HW = grid_sample(frames_N1SS, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return out_N1HW.div_(127.5).sub_(1)
