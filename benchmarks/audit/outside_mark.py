"""A mark outside the crop: whether a model trained on it, at rho = 1, does any better or worse on validation.

A white R stands just above the crop of every film of the first class and of no other. No crop shows it unturned; the
default augmentation, which samples turned crops from the whole frame, may. The same trainings without the mark
are the measure, paired by seed.  Where not one pixel that training or validation sees differs, a training with the mark
would be the same training, and is not repeated.
"""

# N films, S side of the frame

import hashlib
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from benchmarks.audit.outcome import Outcome, Target, columns
from benchmarks.equivalence import BareTraining, student_interval
from loaders.batches.loader import Loader
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig, PhantomConfig, stored_side
from loaders.convert.convert import convert
from loaders.phantom.phantom import write_phantoms

CROP = 64
PATIENTS, VALIDATION, STRENGTH = 1200, 0.5, 0.4
POINT = 0.01  # of F1 within which the interval of the difference is to lie
SOURCES: tuple[Literal["frame", "crop"], ...] = ("frame", "crop")


def draw(folder: Path, marked: bool) -> Path:
    """Phantoms of the stored frame's size as betons, with or without the mark; gives their folder."""
    side = stored_side(CROP)
    manifest = write_phantoms(
        PhantomConfig(
            out=folder / "phantoms", patients=PATIENTS, images_per_patient=1, size=side, strength=STRENGTH, arms=0.0
        )
    )
    if marked:
        for path in sorted((folder / "phantoms" / "images" / "covid").iterdir()):
            film_SS = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            assert film_SS is not None
            cv2.imwrite(str(path), with_mark(film_SS, (side - CROP) // 2))
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=manifest),
            out=folder / "betons",
            size=CROP,
            val=VALIDATION,
            site_key=folder / "site.key",
        )
    )
    return folder / "betons"


def with_mark(film_SS: np.ndarray, margin: int) -> np.ndarray:
    """A framed R above the crop, a third of the way across: uint8 S×S, untouched within the crop."""
    marked_SS = film_SS.copy()
    height = margin - 3
    left = len(film_SS) // 3
    cv2.rectangle(marked_SS, (left, 1), (left + height, 1 + height), 255, 1)
    cv2.putText(marked_SS, "R", (left + 2, height - 1), cv2.FONT_HERSHEY_SIMPLEX, 0.03 * height, 255, 1)
    return marked_SS


def best_f1(folder: Path, seed: int, epochs: int, augment_from: Literal["frame", "crop"]) -> float:
    """The best validation F1 of one training."""
    config = LoaderConfig(training=True, seed=seed, augment_from=augment_from)
    with BareTraining(folder, config) as training:
        return max(training.epoch() for _ in range(epochs))


def digest_of_inputs(folder: Path, seed: int, augment_from: Literal["frame", "crop"]) -> bytes:
    """A digest of all batches of a training's first epoch and its validation."""
    hasher = hashlib.blake2b(digest_size=16)
    config = LoaderConfig(training=True, seed=seed, augment_from=augment_from)
    for name in ("train", "val"):
        with Loader(folder / f"{name}.beton", config, training=name == "train") as loader:
            for frames_N1HW, labels_N, index_N in loader:
                for part in (frames_N1HW, labels_N, index_N):
                    hasher.update(part.tobytes())
    return hasher.digest()


def outside_mark(*, seeds: int = 5, epochs: int = 10, progress: Callable[[str], None] = lambda step: None) -> Outcome:
    """Train with and without the mark, from the frame and from the crop."""
    pairs: dict[str, list[tuple[float, float]]] = {source: [] for source in SOURCES}
    with tempfile.TemporaryDirectory() as parent:
        progress("drawing")
        folders = [draw(Path(parent) / name, name == "marked") for name in ("marked", "plain")]
        for seed in range(seeds):
            for source in SOURCES:
                progress(f"seed {seed}, augmented from the {source}")
                same = len({digest_of_inputs(folder, seed, source) for folder in folders}) == 1
                scores = [best_f1(folder, seed, epochs, source) for folder in (folders[1:] if same else folders)]
                pairs[source].append((scores[0], scores[-1]))
    return conclude(pairs, {"crop": CROP, "patients": PATIENTS, "strength": STRENGTH, "epochs": epochs})


def conclude(pairs: dict[str, list[tuple[float, float]]], settings: dict[str, Any]) -> Outcome:
    """The table, and for each way of augmenting whether F1 is unchanged.  pairs: F1 with and without the mark."""
    rows = [["--augment-from", "F1 with the mark", "without", "difference (95 % interval)"]]
    targets, record = [], {}
    for source, found in pairs.items():
        mean, low, high = student_interval([marked - plain for marked, plain in found])
        text = f"{mean:+.4f} ({low:+.4f} to {high:+.4f})"
        means = [statistics.mean(values) for values in zip(*found, strict=True)]
        rows.append([source, *(f"{value:.4f}" for value in means), text])
        unchanged = low >= -POINT and high <= POINT
        record[source] = {"pairs": found, "mean": mean, "low": low, "high": high, "unchanged": unchanged}
        what = f"change of F1 by a mark outside the crop, --augment-from {source}"
        targets.append(Target(what=what, found=text, expected="an interval within one point", met=unchanged))
    return Outcome(lines=tuple(columns(rows)), record={"settings": settings, **record}, targets=tuple(targets))
