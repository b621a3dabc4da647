"""`make bench-equivalence`: whether the engine learns as well as the plain recipe in eager PyTorch.

Both train on the same phantoms, from the same first weights, with the same batches and dropout seeds, to the end of
the same schedule, once a seed. Rounding then makes them part ways, so that only the best validation F1 can be compared:
paired by seed, its mean difference with a 95 % interval of Student's t. Exits with 1 unless that lies within one point.
"""

# N samples, K classes

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.stats import t as student  # type: ignore[import-untyped]

from benchmarks.bare_training import BareTraining
from benchmarks.provenance import describe, provenance
from benchmarks.settings import RESULTS
from loaders.config import CatalogConfig, ConvertConfig, LoaderConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.phantom.folder import write_phantoms

CROP = 32
PATIENTS = 2500
VALIDATION = 0.8  # 2,000 images
STRENGTH = 0.4  # of the finding, so that F1 ends between 0.85 and 0.95
PATIENCE, MIN_DELTA = 7, 0.001
POINT = 0.01
MEANINGFUL = (0.85, 0.95)  # mean F1: else neither has learnt, or both have learnt all there is


def draw(folder: Path) -> Path:
    """Phantoms as betons; gives their folder."""
    manifest = write_phantoms(
        PhantomConfig(out=folder / "phantoms", patients=PATIENTS, images_per_patient=1, size=64, strength=STRENGTH)
    )
    config = ConvertConfig(
        catalog=CatalogConfig(manifest=manifest),
        out=folder / "betons",
        size=CROP,
        val=VALIDATION,
        site_key=folder / "site.key",
    )
    convert(config)
    return folder / "betons"


def best_f1(folder: Path, seed: int, epochs: int, *, stock: bool) -> float:
    """The best validation F1 of one training to the end of the schedule.  stock: with PyTorch's step."""
    best, best_epoch = -1.0, 0
    with BareTraining(folder, LoaderConfig(training=True, seed=seed), stock=stock) as training:
        for epoch in range(epochs):
            found = training.epoch()
            if found > best + MIN_DELTA:
                best, best_epoch = found, epoch
            if epoch - best_epoch >= PATIENCE:
                break
    return best


def student_interval(differences: list[float]) -> tuple[float, float, float]:
    """Mean of paired differences, and the ends of its 95 % interval of Student's t."""
    mean, number = statistics.mean(differences), len(differences)
    half = float(student.ppf(0.975, number - 1)) * statistics.stdev(differences) / number**0.5
    return mean, mean - half, mean + half


def main(arguments: list[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equivalence", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=30, help="most epochs; default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "equivalence.json", help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    facts = provenance()
    print(describe(facts))
    pairs: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        betons = draw(Path(folder))
        for seed in range(chosen.seeds):
            before = time.perf_counter()
            ours, theirs = (best_f1(betons, seed, chosen.epochs, stock=stock) for stock in (False, True))
            pairs.append((ours, theirs))
            taken = time.perf_counter() - before
            print(f"seed {seed}: plainfilm {ours:.4f}, plain recipe {theirs:.4f} ({taken:.0f} s)", flush=True)
    mean, low, high = student_interval([ours - theirs for ours, theirs in pairs])
    ours_mean, theirs_mean = np.mean(pairs, axis=0).tolist()
    within = low >= -POINT and high <= POINT
    meaningful = all(MEANINGFUL[0] <= f1 <= MEANINGFUL[1] for f1 in (ours_mean, theirs_mean))
    if not meaningful:
        print(f"best F1 outside {MEANINGFUL[0]} to {MEANINGFUL[1]}: the phantoms are too easy or too hard to compare")
    print(
        f"best validation F1: plainfilm {ours_mean:.4f}, plain recipe {theirs_mean:.4f}; difference {mean:+.4f}, "
        f"95 % interval {low:+.4f} to {high:+.4f}: {'within' if within else 'not within'} one point"
    )
    record = {
        "provenance": facts,
        "settings": {"crop": CROP, "patients": PATIENTS, "strength": STRENGTH, "epochs": chosen.epochs},
        "pairs": pairs,
        "difference": {"mean": mean, "low": low, "high": high, "within_one_point": within, "meaningful": meaningful},
    }
    chosen.out.parent.mkdir(exist_ok=True)
    chosen.out.write_text(json.dumps(record, indent=1) + "\n")
    return int(not (within and meaningful))


if __name__ == "__main__":
    sys.exit(main())
