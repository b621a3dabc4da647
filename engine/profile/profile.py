"""A profile: the reference pipeline and the engine side by side, on the files that betons were converted from."""

import contextlib
import importlib.util
import json
import os
import platform
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import torch

from engine.config import ProfileConfig, TrainConfig
from engine.device import choose_policy, device_name, settle_precision
from engine.evaluate.dataflow import TABLE, read_table
from engine.figures import png
from engine.networks.cnn import Cnn
from engine.profile.breakdown import (
    CONVERTED,
    EPOCHS,
    REFERENCE,
    REPORT_SECONDS,
    STORED,
    TRAINING,
    VALIDATION,
    WORKER,
    Answer,
    Profile,
    Variant,
    judge,
    measured,
    overhead_share,
    variants_for,
)
from engine.profile.output import profile_figure
from engine.profile.probes import bound_of, copy_rate, matmul_rate
from engine.profile.worker import VariantProcess
from engine.train.leakage import open_loaders
from loaders import __version__
from loaders.atomic_file import locked, publish_bytes
from loaders.beton.reader import Beton
from loaders.cautions import Caution, caution
from loaders.config import HASH_ALGORITHM, PILLOW_PIXELS, Fit
from loaders.errors import ConfigError, InputError, StorageError
from loaders.images.decode import DecodeSettings, Task, decode_into_spool
from loaders.machine import usable_cores
from loaders.output import PhaseProgress

LEAST_SECONDS = 0.2  # of a turn: fewer steps are too short to be timed
TRACED_STEPS = 5
BUSY = 0.5  # processes a core, before the profile adds its own
NOISE = 1.5  # the fastest matrix product of the run over the slowest: above it, other programs took part


def training_files(data: Path, folder: Path) -> list[str]:
    """The files of the training samples, in the order of their beton, as convert.csv names them below the folder.

    All files of that table are there, and as many as the betons' samples.
    Errors: ConfigError when the folder is not the betons' source; InputError without a convert.csv.
    """
    if not (data / TABLE).is_file():
        raise InputError(
            f"{data}: no {TABLE}, expected the table of files that `convert` leaves; convert the radiographs again"
        )
    rows = [row for row in read_table(data / TABLE) if row["verdict"] == "written"]
    for row in rows:
        if not (folder / row["path"]).is_file():
            raise ConfigError(
                f"--source {folder}: no {row['path']}, which {data / TABLE} names, expected the folder that the betons "
                "were converted from; for a manifest, the folder that it lies in, or its --root"
            )
    by_split = {
        split: sorted((row for row in rows if row["split"] == split), key=lambda row: int(row["sample"]))
        for split in ("train", "val")
    }
    for split, chosen in by_split.items():
        with Beton(data / f"{split}.beton") as beton:
            if len(beton) != len(chosen):
                raise ConfigError(
                    f"{data / TABLE}: {len(chosen)} files of split {split}, expected {len(beton)}, the samples of "
                    f"{split}.beton; convert the radiographs again"
                )
    return [row["path"] for row in by_split["train"]]


class Converter:
    """Conversion, file by file, of the training samples.  Owns a temporary spool.  Errors: as of `training_files`."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.folder, self.files, self.next = folder, training_files(data, folder), 0
        with Beton(data / "train.beton") as beton:
            facts, self.pixel_hashes = beton.facts, beton.rows_N["pixel_hash"].copy()
        if facts.hash_algorithm != HASH_ALGORITHM:
            raise ConfigError(
                f"{data / 'train.beton'}: pixels are hashed by {facts.hash_algorithm or 'nothing'}, expected "
                f"{HASH_ALGORITHM}, since files of {folder} cannot be compared with its samples; convert the "
                "radiographs again"
            )
        # the conversion has judged how large a file may be, of which modality, and where it may lie
        self.settings = DecodeSettings(
            side=facts.stored, fit=cast(Fit, facts.fit), max_pixels=PILLOW_PIXELS, workers=1, assume_modality="DX",
            within=(Path("/"),),
        )  # fmt: skip
        self._temporary = tempfile.TemporaryDirectory(prefix="plainfilm-")
        self.spool = Path(self._temporary.name) / "spool"
        self.spool.write_bytes(bytes(facts.stored**2))

    def convert(self, count: int) -> float:
        """Seconds a file, of the next few.  Errors: ConfigError for other pixels than the beton's sample has."""
        total = 0.0
        for _ in range(count):
            sample = self.next % len(self.files)
            task, begin = Task(0, self.files[sample]), time.perf_counter()
            decoded = decode_into_spool(task, root=self.folder, spool=self.spool, settings=self.settings)
            total += time.perf_counter() - begin
            if decoded.problem:
                raise StorageError(f"{self.files[sample]}: {decoded.problem}")
            if decoded.pixel_hash != self.pixel_hashes[sample].tobytes():
                raise ConfigError(
                    f"--source {self.folder}: {self.files[sample]} has other pixels than sample {sample} of "
                    "train.beton, expected the same radiographs; convert them again"
                )
            self.next += 1
        return total / count

    def close(self) -> None:
        """Remove the spool."""
        self._temporary.cleanup()


@dataclass(frozen=True, kw_only=True, slots=True)
class Turns:
    """Raw answers.  trained, validated: by variant, turn by turn.  conversion: seconds a file; rates as in `Bound`."""

    trained: list[list[Answer]]
    validated: list[list[Answer]]
    conversion: list[float]
    matmul: list[float]
    copy: list[float]
    sizes: list[tuple[int, float]]


def profile(config: ProfileConfig, progress: PhaseProgress = lambda phase, done, total: None) -> Profile:
    """Train the reference and each variant in turns, in processes of their own, and leave profile.png and profile.json.

    Errors: ConfigError without torchvision, for betons of findings or of the lungs alone, for a source that is not the
    betons', and for a device that is not there; InputError for betons that do not belong together, or a variant that
    fails; StorageError; LockedError.
    """
    if importlib.util.find_spec("torchvision") is None:
        raise ConfigError("profile: no torchvision found, expected it for the reference; run pip install torchvision")
    if config.trace is not None and config.trace.is_dir():  # now, not after minutes of measuring
        raise ConfigError(f"--trace {config.trace}: a folder, expected the name of a file; add one to it")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    policy = choose_policy(config.device, "auto", "off", num_steps=0)
    settle_precision(policy)
    with contextlib.ExitStack() as stack:
        loaders = open_loaders(TrainConfig(data=config.data, out=config.folder, loader=config.loader), stack)
        facts, threads, num_images = loaders[0].beton.facts, loaders[0].threads, sum(len(one.beton) for one in loaders)
    if facts.task == "findings":
        raise ConfigError(
            f"{config.data}: a conversion of findings, expected one of classes, which the reference pipeline predicts; "
            "convert the same radiographs with one label a film: findings are trained on at the same speed"
        )
    if facts.lungs != "off":
        raise ConfigError(
            f"{config.data}: frames show the lungs alone, expected whole films, whose conversion is timed; convert "
            "the same radiographs without --lungs: both are trained on at the same speed"
        )
    cores, dtype = usable_cores(), policy.autocast or torch.float32
    variants = variants_for(policy.device.type, mixed=policy.autocast is not None)
    with contextlib.ExitStack() as stack:
        stack.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(cores)
        converter = stack.enter_context(contextlib.closing(Converter(config.data, config.source)))
        converter.convert(1)  # not counted: it loads kernels, and fails at once for another source
        stack.enter_context(locked(config.folder))  # now, not after minutes of measuring
        if config.trace:
            config.trace.parent.mkdir(parents=True, exist_ok=True)
        processes = []
        for variant in variants:
            arguments = arguments_for(variant, config, policy.device.type, facts.crop, cores)
            processes.append(stack.enter_context(VariantProcess(variant.name, variant.module, arguments)))
        turns = take_turns(processes, converter, config, policy.device, dtype, progress)
        found = []
        for variant, trained, validated in zip(variants, turns.trained, turns.validated, strict=True):
            once = 0.0 if variant.name == REFERENCE else statistics.median(turns.conversion)
            found.append(measured(variant, trained, validated, threads=threads, conversion=once))
        engine = found[-1]
        network = Cnn(len(facts.classes), facts.crop, dropout=0.0)
        bound = bound_of(network, facts.crop, engine.training, turns.matmul, turns.copy, dtype.itemsize)
        batch_size = config.loader.batch_size
        verdict = judge(
            engine, threads=threads, cores=cores, batch_size=batch_size, arithmetic=bound.arithmetic,
            overhead=overhead_share(turns.sizes, batch_size),
        )  # fmt: skip
        result = Profile(
            device=device_name(policy.device), crop=facts.crop, images=num_images,
            synthetic=facts.synthetic, conversion_id=facts.conversion_id, variants=tuple(found),
            epoch_ratio=epoch_ratio(turns), bound=bound, verdict=verdict,
            cautions=machine_cautions(bound.matmul_spread, load, cores),
        )  # fmt: skip
        publish_bytes(config.folder / "profile.json", json.dumps(record(result, config, turns), indent=1).encode())
        publish_bytes(config.folder / "profile.png", png(profile_figure(result.variants, result.device)))
    return result


def arguments_for(variant: Variant, config: ProfileConfig, device: str, crop: int, threads: int) -> list[str]:
    """The arguments of a variant's program.  threads: torch's, equal for all."""
    if variant.module == WORKER:
        task = {"variant": asdict(variant), "data": str(config.data.resolve()), "loader": asdict(config.loader)}
        return [json.dumps(task | {"device": device, "threads": threads})]
    source = [str(config.source.resolve()), "--manifest", str((config.data / TABLE).resolve())]
    if variant.name == STORED:
        source = [str(config.data.resolve()), "--stored"]
    numbers = {"size": crop, "batch-size": config.loader.batch_size, "workers": config.workers, "threads": threads}
    options = [word for name, value in numbers.items() for word in (f"--{name}", str(value))]
    return [*source, *options, "--device", device, "--serve"]


def take_turns(
    processes: list[VariantProcess], converter: Converter, config: ProfileConfig, device: torch.device,
    dtype: torch.dtype, progress: PhaseProgress,
) -> Turns:  # fmt: skip
    """Let every process train and validate in turns, and probe the machine once a round."""
    turns = Turns(
        trained=[[] for _ in processes], validated=[[] for _ in processes], conversion=[], matmul=[], copy=[], sizes=[]
    )
    for done, process in enumerate(processes):
        progress("start", done, len(processes))
        process.answer()
        process.ask("train", steps=1, seconds=0)  # not counted, nor is what follows
        process.ask("validate")
    progress("start", len(processes), len(processes))
    steps = config.steps
    if config.workers:  # their batches are ready at about one time, so that a part of them would count too little
        steps = -(-steps // config.workers) * config.workers
    total = config.rounds * len(processes)
    for turn in range(config.rounds):
        for place, process in enumerate(processes):
            progress("measure", turn * len(processes) + place, total)
            turns.trained[place].append(process.ask("train", steps=steps, seconds=LEAST_SECONDS))
            turns.validated[place].append(process.ask("validate"))
        turns.conversion.append(converter.convert(CONVERTED))
        turns.matmul.append(matmul_rate(device, dtype))
        turns.copy.append(copy_rate(device))
    progress("measure", total, total)
    turns.sizes.extend((size, seconds) for size, seconds in processes[-1].ask("sizes")["sizes"])
    if config.trace is not None:
        processes[-1].ask("trace", path=str(config.trace.resolve()), steps=TRACED_STEPS)
    for process in processes:
        process.dismiss()
    return turns


def epoch_ratio(turns: Turns) -> float:
    """How many times quicker the engine's epoch is than the reference's: the median of the turns' own ratios."""

    def epoch(trained: Answer, validated: Answer) -> float:
        return sum(
            count * turn["seconds"] / turn["images"] for count, turn in ((TRAINING, trained), (VALIDATION, validated))
        )

    seconds = [map(epoch, turns.trained[place], turns.validated[place]) for place in (0, -1)]
    return statistics.median(reference / engine for reference, engine in zip(*seconds, strict=True))


def machine_cautions(matmul_spread: float, load: float, cores: int) -> list[Caution]:
    """What limits the figures.  load: the average at the start, of processes that ran or waited to."""
    busy = [caution("machine-busy", load=load, cores=cores)] if load > BUSY * cores else []
    return busy + ([caution("machine-unsteady", ratio=matmul_spread)] if matmul_spread > NOISE else [])


def record(result: Profile, config: ProfileConfig, turns: Turns) -> dict[str, Any]:
    """profile.json."""
    return msgspec.to_builtins(result) | {
        "cores": usable_cores(),
        "machine": platform.platform(),
        "versions": {"plainfilm": __version__, "torch": torch.__version__, "numpy": np.__version__}
        | {name: version(name) for name in ("torchvision", "numba", "pillow")},
        "settings": {name: getattr(config, name) for name in ("rounds", "steps", "workers")}
        | {"loader": asdict(config.loader)},
        "variants": [
            asdict(found)
            | {name: getattr(found, name) for name in ("epoch_seconds", "run_seconds", "conversion_seconds")}
            for found in result.variants
        ],
        "report_seconds": {"seconds": REPORT_SECONDS, "hardware": "other: Apple M3 Max"},
        "run": {"epochs": EPOCHS, "training": TRAINING, "validation": VALIDATION},
        "turns": asdict(turns),
    }
