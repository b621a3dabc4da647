"""That learning works, and only where there is something to learn: phantoms without a shortcut, held out."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from engine.config import EvaluateConfig
from engine.evaluate.evaluate import evaluate
from engine.evaluate.results import Metrics
from engine.train.train import train
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.phantom.folder import write_phantoms
from tests.small_training import small_training


@pytest.fixture(scope="module")
def hard_enough(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms at a set difficulty, without arms or marks tied to the class: 240 patients, strength 1."""
    return write_phantoms(PhantomConfig(out=tmp_path_factory.mktemp("hard") / "p", patients=240, size=92, seed=11))


def held_out(manifest: Path, folder: Path, *, epochs: int, share: float) -> Metrics:
    """Convert, train and evaluate on the held-out share of the patients; the metrics."""
    key = folder / "k"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=manifest), out=folder / "b", size=64, holdout=share, workers=1, site_key=key
        )
    )
    train(small_training(folder / "b", folder / "run", epochs=epochs, patience=30))
    (result,) = evaluate(EvaluateConfig(run=folder / "run", betons=(folder / "b" / "heldout.beton",), device="cpu"))
    return result.metrics


def test_the_finding_is_learnt_and_generalises_to_new_patients(hard_enough: Path, tmp_path: Path) -> None:
    metrics = held_out(hard_enough, tmp_path, epochs=12, share=0.2)
    assert metrics.num_samples >= 70
    assert metrics.estimates["f1"].value >= 0.90, metrics


def test_labels_permuted_by_patient_leave_nothing_to_learn(hard_enough: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader(hard_enough.read_text().splitlines()))
    patients = sorted({row["patient"] for row in rows})
    label_of = {row["patient"]: row["label"] for row in rows}
    shuffled = np.random.default_rng(4).permutation([label_of[patient] for patient in patients])
    permuted = dict(zip(patients, shuffled, strict=True))
    manifest = hard_enough.parent / "permuted.csv"
    lines = [f"{row['path']},{permuted[row['patient']]},{row['patient']}" for row in rows]
    manifest.write_text("\n".join(["path,label,patient", *lines]))
    metrics = held_out(manifest, tmp_path, epochs=6, share=0.4)
    num_samples = metrics.num_samples
    assert num_samples >= 130
    # images of a patient go together, so about half as many independent cases: 3 standard errors of chance
    assert abs(metrics.estimates["auc"].value - 0.5) <= 3 * (1 / (3 * num_samples / 2)) ** 0.5, metrics
