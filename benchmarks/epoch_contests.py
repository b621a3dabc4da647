"""The contests of whole epochs: with the reference pipeline on the same files, and with one that keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from benchmarks.agreement import Disagreement
from benchmarks.bare_training import BareTraining
from benchmarks.contest import Contest, Missing
from benchmarks.material import convert_with_table
from benchmarks.settings import BATCH, THREADS
from benchmarks.targets import RECORDING, REFERENCE_128, REFERENCE_224
from benchmarks.torchvision_import import missing
from benchmarks.worker_process import Worker
from engine.config import Recipe, TrainConfig
from engine.train.train import train
from loaders.config import LoaderConfig

NAMES = {224: REFERENCE_224, 128: REFERENCE_128}


@contextmanager
def reference_contest(manifest: Path, folder: Path, crop: int) -> Iterator[Contest]:
    """An epoch of training and validation on the same radiographs; the reference decodes its files each time."""
    betons, files = convert_with_table(manifest, folder, crop)
    ours = Worker("benchmarks.epoch_worker", "plainfilm", str(betons), "--crop", str(crop))
    theirs: Worker | Missing
    if reason := missing():
        theirs = Missing(reason=reason)
    else:
        theirs = Worker("benchmarks.epoch_worker", "reference", str(files), "--crop", str(crop))
    with ours:

        def check() -> None:
            counts = [worker.ask("count 1") for worker in (ours, theirs) if isinstance(worker, Worker)]
            if counts[0] != counts[-1]:
                raise Disagreement(f"reference: {counts[-1]} images, expected {counts[0]}")

        try:
            yield Contest(
                what=NAMES[crop],
                amount=sum(ours.ask("count 1")),
                rivals={
                    "plainfilm": lambda: ours.ask("epochs 1"),
                    "reference pipeline": theirs if isinstance(theirs, Missing) else lambda: theirs.ask("epochs 1"),  # type: ignore[union-attr]
                },
                check=check,
            )
        finally:
            if isinstance(theirs, Worker):
                theirs.__exit__(None, None, None)


@contextmanager
def recording_contest(betons: Path, folder: Path) -> Iterator[Contest]:
    """Two epochs as `train` runs them, with log, TensorBoard, checkpoints and curves, and two that keep nothing."""
    runs = count()
    loader = LoaderConfig(batch_size=BATCH, threads=THREADS, training=True)

    def recorded() -> None:
        train(
            TrainConfig(data=betons, out=folder / str(next(runs)), recipe=Recipe(epochs=2, device="cpu"), loader=loader)
        )

    def bare() -> None:
        with BareTraining(betons, loader) as training:
            training.epoch()
            training.epoch()

    def check() -> None:
        with BareTraining(betons, loader) as training:
            f1 = training.epoch()
        config = TrainConfig(data=betons, out=folder / "check", recipe=Recipe(epochs=1, device="cpu"), loader=loader)
        if (found := train(config).best_f1) != f1:
            raise Disagreement(f"nothing recorded: F1 {f1}, expected {found}")

    yield Contest(
        what=RECORDING, amount=2, unit="epochs", rivals={"plainfilm": recorded, "nothing recorded": bare}, check=check
    )
