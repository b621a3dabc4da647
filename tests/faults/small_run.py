"""A small conversion of phantoms, the command that trains on it, and what such a training leaves."""

import contextlib
import csv
import importlib
import io
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

import cli
from engine.train.checkpoint import digest, load_checkpoint
from loaders.config import CatalogConfig, ConvertConfig, PhantomConfig
from loaders.convert.convert import convert
from loaders.errors import CheckpointError
from loaders.phantom.phantom import write_phantoms

# what children need, and torch._dynamo, which an optimiser loads: most of a small training's time
NEEDED = (
    "torch._dynamo", "loaders.audit.audit", "loaders.audit.page", "loaders.batches.throughput",
    "loaders.convert.contact_sheet", "loaders.lungs.segment", "engine.train.epochs", "engine.evaluate.evaluate",
    "engine.evaluate.output",
    "engine.predict.predict", "engine.explain.explain", "engine.explain.findings", "engine.export.export",
    "engine.crossval.crossval", "engine.crossval.output", "engine.compare", "engine.report.report",
    "tests.faults.test_live_files", "tests.faults.test_train_kill", "tests.faults.test_numbers",
)  # fmt: skip
SPEED = ("images_per_second", "rate", "seconds")  # of metrics and states: differ from run to run
EPOCHS, BATCH = 3, 8
SETTINGS = (
    "--epochs",
    EPOCHS,
    "--batch-size",
    BATCH,
    "--threads",
    1,
    "--device",
    "cpu",
    "--no-arena",
    "--amp",
    "off",
)  # unless a later --amp says otherwise; auto would differ from machine to machine


def make_betons(folder: Path) -> Path:
    """Convert some 30 phantoms of 20 patients at size 32: 8 or 16 and some to train on, so that a step is short."""
    table = write_phantoms(PhantomConfig(out=folder / "phantoms", patients=20, size=64, seed=5))
    out = folder / "betons"
    convert(
        ConvertConfig(
            catalog=CatalogConfig(manifest=table),
            out=out,
            size=32,
            holdout=0.2,
            workers=1,
            site_key=folder / "site.key",
        )
    )
    return out


def train_command(betons: Path, run: Path, *settings: object) -> list[str]:
    """The command that begins a run, or continues it once it can be."""
    if (run / "config.json").exists():
        return ["train", "--resume", str(run)]
    return ["train", str(betons), "--out", str(run), *map(str, (*SETTINGS, *settings))]


def warm_up() -> None:
    """Import, convert, train in each precision: what children would otherwise load and compile.  Leaves no thread."""
    for module in NEEDED:
        importlib.import_module(module)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        betons = make_betons(Path(name))
        for amp in ("off", "on"):
            if cli.main(train_command(betons, Path(name) / amp, "--epochs", 1, "--amp", amp)):
                raise RuntimeError("the training to warm up by failed")


@dataclass(frozen=True, slots=True)
class Result:
    """What a training leaves: its best weights, its last state and its metrics, the speed apart.

    best, last: a hash of every bit of the tensors and of all that describes them; safetensors writes the two entries
    of its metadata in any order, so that files of one content may differ.
    """

    best: str
    last: str
    metrics: tuple[tuple[str, ...], ...]


def result_of(run: Path) -> Result:
    """The result of a finished training; of one that has none, only why."""
    try:
        with (run / "metrics.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        found = [load_checkpoint(run / f"{name}.safetensors") for name in ("best", "last")]
    except (CheckpointError, OSError) as error:
        return Result(str(error), "", ())
    metrics = tuple(tuple(value for name, value in row.items() if name not in SPEED) for row in rows)
    best, last = (digest(tensors, json.dumps(untimed(state))) for tensors, state in found)
    return Result(best, last, metrics)


def untimed(state: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says, without the times that took."""
    kept = {name: value for name, value in state.items() if name not in SPEED}
    if "history" in kept:
        kept["history"] = [untimed(row) for row in kept["history"]]
    return kept


@dataclass(frozen=True, slots=True)
class Left:
    """What a run was left with.  step: of the state that it can go on from, if any.  logged: bytes of its log."""

    step: int | None
    logged: int


def left_of(run: Path) -> Left:
    """What a run is left with now.  Errors: CheckpointError for a damaged state."""
    last, log = run / "last.safetensors", run / "train.log"
    return Left(
        load_checkpoint(last)[1]["step"] if last.exists() else None,
        log.stat().st_size if log.exists() else 0,
    )


def begun_anew(run: Path, left: Left, *, ended: bool = True) -> str:
    """How a run that was taken up again did otherwise than go on from what it was left with, or "".

    A run begun anew ends with the same bytes, so that its result does not show it; its log does.  ended: it has come to
    its end since, and must have logged where it went on.
    """
    log = run / "train.log"
    added = log.read_bytes()[left.logged :].decode(errors="replace") if log.exists() else ""
    found = [int(step) for step in re.findall(r"resumed at step (\d+)", added)]
    wanted = [] if left.step is None else [left.step]
    if found == wanted or not (found or ended):
        return ""
    went = f"from step {', '.join(map(str, found))}" if found else "anew, and did not log from where"
    return f"went on {went}, expected {f'from step {left.step}' if wanted else 'anew, as no state was left'}"
