"""A small conversion of phantoms, the command that trains on it, and what such a training leaves."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

from engine.checkpoint import digest, load_checkpoint
from loaders.config import ConvertConfig, PhantomConfig
from loaders.convert import convert
from loaders.errors import CheckpointError
from loaders.phantom_folder import write_phantoms

IMPORTS = (
    "import cli, engine.training, engine.evaluation.evaluation, engine.report.report, engine.prediction.prediction, "
    "engine.explanation.explain, engine.export.export, engine.device_epochs, loaders.audit.audit, tests.faults.plant, "
    "engine.evaluation.words, engine.prediction.words, engine.report.words"
)
WARM = """
import contextlib, functools, io, loaders.settings
loaders.settings.parse_from_object = functools.cache(loaders.settings.parse_from_object)  # half of a victim's time
with contextlib.redirect_stdout(io.StringIO()):
    assert cli.main({argv!r}) == 0
"""
EPOCHS, BATCH = 3, 8
SETTINGS = ("--epochs", EPOCHS, "--batch-size", BATCH, "--threads", 1, "--device", "cpu", "--no-arena")


def make_betons(folder: Path) -> Path:
    """Convert some 30 phantoms of 20 patients at size 32: 8 or 16 and some to train on, so that a step is short."""
    table = write_phantoms(PhantomConfig(out=folder / "phantoms", patients=20, size=64, seed=5))
    out = folder / "betons"
    convert(ConvertConfig(manifest=table, out=out, size=32, holdout=0.2, workers=1, site_key=folder / "site.key"))
    return out


def train_command(betons: Path, run: Path, *settings: object) -> list[str]:
    """The command that begins a run, or continues it once it can be."""
    if (run / "config.json").exists():
        return ["train", "--resume", str(run)]
    return ["train", str(betons), "--out", str(run), *map(str, (*SETTINGS, *settings))]


def warm(betons: Path, run: Path) -> str:
    """What a nursery imports, and a training, which leaves in it what each victim would load and compile anew."""
    return f"{IMPORTS}\n{WARM.format(argv=train_command(betons, run))}"


@dataclass(frozen=True, slots=True)
class Result:
    """What a training is for: its best weights and its metrics, the speed apart.

    best: a hash of every bit of the weights and of all that is said of them; safetensors writes the two entries of its
    metadata in any order, so that files of one content may differ.
    """

    best: str
    metrics: tuple[tuple[str, ...], ...]


def result_of(run: Path) -> Result:
    """The result of a finished training; of one that has none, only why."""
    try:
        with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        tensors, state = load_checkpoint(run / "best.safetensors")
    except (CheckpointError, OSError) as error:
        return Result(str(error), ())
    metrics = tuple(tuple(value for name, value in row.items() if name != "images_per_second") for row in rows)
    return Result(digest(tensors, json.dumps(state)), metrics)
