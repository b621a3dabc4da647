"""The breakdown of a profile: variants from the reference to the engine, their measured times, and the bottleneck."""

import statistics
import sys
from dataclasses import dataclass, replace
from typing import Any, Literal

from engine.profile.probes import Bound
from loaders.cautions import Caution
from loaders.output import share_text

WORKER, REFERENCE_MODULE = "engine.profile.worker", "engine.profile.reference"
REFERENCE, STORED = "reference", "decoded once"
PARTS = ("decode", "augment", "wait", "transfer", "forward", "backward", "optimiser", "step", "other")
EPOCHS, TRAINING, VALIDATION = 27, 1648, 412  # the report's run (DESIGN, recipe): 2,060 images
REPORT_SECONDS = 979.0  # of that run, on other hardware
CONVERTED = 8  # files in each round
WAITING = 0.1  # share of the time: below it, waiting for batches is no bottleneck
MOVING = 0.2  # share of the time, of transfers
OVERHEAD = 0.5  # share of a step that more images would not lengthen
COMPUTED = 0.2  # threads that compute less of their time wait for bytes; training leaves them a part of a core
SWIFT = 0.6  # share of the matrix products' rate: above it, nearly all is arithmetic

Answer = dict[str, Any]  # what a variant's process reports, one line of JSON
Bottleneck = Literal["disk", "loader", "transfer", "small batches", "computing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One way to train.  adds: what it has that the one above it has not.  module: the program that runs it.

    For the engine's program: fused blocks, fast layout (channels_last and fused Adam), the arena, mixed precision,
    and whether the device makes batches and steps on its own (engine.train.epochs).
    """

    name: str
    adds: str
    module: str = WORKER
    fast_layout: bool = False
    arena: bool = False
    mixed: bool = False
    fused: bool = False
    on_device: bool = False


def variants_for(device: str, *, mixed: bool = False) -> tuple[Variant, ...]:
    """The waterfall on a kind of device, cuda, mps or cpu: first the reference, last the engine as `train` runs it.

    mixed: whether it runs in mixed precision there; on CUDA it always does.
    """
    start = (
        Variant(name=REFERENCE, adds="files, Pillow, torchvision, eager PyTorch", module=REFERENCE_MODULE),
        Variant(name=STORED, adds="stored frames from a beton", module=REFERENCE_MODULE),
        Variant(name="kernels", adds="loader threads, one kernel for all of augmentation"),
    )
    layout = Variant(name="layout", adds="channels_last and fused Adam", fast_layout=True)
    if device == "cuda":
        precision = replace(layout, name="precision", adds="bfloat16", mixed=True)
        adds = "resident frames, batches made on the GPU, the step as one CUDA graph"
        return (*start, layout, precision, replace(precision, name="engine", adds=adds, on_device=True))
    if device == "mps":
        adds = "resident frames, batches made on the GPU"
        return (*start, replace(layout, name="engine", adds=adds, mixed=mixed, on_device=True))
    rows = [*start, layout]
    if sys.platform == "linux":
        rows.append(replace(layout, name="arena", adds="memory that stays in the process", arena=True))
    rows.append(replace(rows[-1], name="fused", adds="batch norm, pooling, ReLU in one function", fused=True))
    if mixed:
        rows.append(replace(rows[-1], adds="bfloat16", mixed=True))
    return (*rows[:-1], replace(rows[-1], name="engine"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """One variant.  Seconds an image, the medians of all turns: by part, of training and of validation.

    overlapped: parts that other threads or processes do beside the training; in seconds of theirs.
    turns: seconds an image of training, turn by turn.  worked, computed: share of the time that a loader thread works
    on batches, and computes for them.  conversion: seconds an image, once; 0 for a variant that reads files.
    """

    variant: Variant
    parts: dict[str, float]
    overlapped: tuple[str, ...]
    training: float
    validation: float
    turns: tuple[float, ...]
    worked: float = 0.0
    computed: float = 0.0
    conversion: float = 0.0

    @property
    def epoch_seconds(self) -> float:
        """Of an epoch of the report's size, validation included."""
        return TRAINING * self.training + VALIDATION * self.validation

    @property
    def conversion_seconds(self) -> float:
        """Of converting the report's images, once."""
        return (TRAINING + VALIDATION) * self.conversion

    @property
    def run_seconds(self) -> float:
        """Of the report's run, conversion included."""
        return EPOCHS * self.epoch_seconds + self.conversion_seconds

    def share(self, part: str) -> float:
        """Of the time of training."""
        return self.parts.get(part, 0.0) / self.training


def measured(
    variant: Variant, trained: list[Answer], validated: list[Answer], threads: int, conversion: float
) -> Measured:
    """Sum up a variant's turns.  trained, validated: what its process reported.  threads: of the loader."""
    turns = [turn["seconds"] / turn["images"] for turn in trained]
    names = [part for part in PARTS if any(part in turn["parts"] for turn in trained)]

    def by_thread(name: str) -> float:
        return statistics.median(turn.get(name, 0.0) / (threads * turn["seconds"]) for turn in trained)

    return Measured(
        variant=variant,
        parts={
            part: statistics.median(turn["parts"].get(part, 0.0) / turn["images"] for turn in trained) for part in names
        },
        overlapped=tuple(trained[0]["overlapped"]),
        training=statistics.median(turns),
        validation=statistics.median(turn["seconds"] / turn["images"] for turn in validated),
        turns=tuple(turns),
        worked=by_thread("making"),
        computed=by_thread("computing"),
        conversion=conversion,
    )


def overhead_share(sizes: list[tuple[int, float]], batch_size: int) -> float | None:
    """The share of a step that its images do not change, from seconds by batch size; None without two sizes."""
    if len(sizes) < 2:
        return None
    (small, small_seconds), (large, large_seconds) = sizes[0], sizes[-1]
    an_image = max(0.0, (large_seconds - small_seconds) / (large - small))
    overhead = max(0.0, small_seconds - an_image * small)
    return overhead / (overhead + an_image * batch_size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """bottleneck: its name.  text: what was measured, and the remedy."""

    bottleneck: Bottleneck
    text: str


def judge(
    engine: Measured, *, threads: int, cores: int, batch_size: int, overhead: float | None, arithmetic: float
) -> Verdict:
    """Name the bottleneck.

    threads: of the loader.  overhead: share of a step that its images do not change, if known.
    arithmetic: the step's FLOP/s as a share of this machine's matrix products.
    """
    wait, moving = engine.share("wait"), engine.share("transfer")
    waits = f"training waits {share_text(wait, 0)} of the time for batches"
    runs = f"the network's products run at {arithmetic:.2f} of the rate of large matrices on this machine"
    bottleneck: Bottleneck = "loader" if wait >= WAITING else "computing"
    if wait >= WAITING and engine.computed < COMPUTED * engine.worked:
        idle = share_text(1 - engine.computed / engine.worked, 0)
        waste = f"{waits}, and the threads that make them wait {idle} of theirs for bytes"
        remedy = "keep the betons on a faster disk, or read them into memory with --resident on"
        bottleneck, text = "disk", f"the disk: {waste}; {remedy}"
    elif wait >= WAITING and threads < cores:
        works = f"its threads work {share_text(engine.worked, 0)} of it"
        text = f"the loader: {waits}, and {works}; more --threads (now {threads}, on {cores} cores)"
    elif wait >= WAITING:
        text = f"the loader: {waits}, although it has a thread for each of {cores} cores"
        text += "; more cores, or fewer programs beside it"
    elif moving >= MOVING:
        moves = f"{share_text(moving, 0)} of the time goes into moving batches"
        bottleneck, text = "transfer", f"the way to the device: {moves}; --resident on"
    elif overhead is not None and overhead >= OVERHEAD:
        same = f"{share_text(overhead, 0)} of a step is the same for any number of images"
        bottleneck, text = "small batches", f"small batches: {same}; raise --batch-size (now {batch_size})"
    elif arithmetic >= SWIFT:
        text = f"computing: {runs}; only faster hardware helps much"
    else:
        text = f"computing: {runs}, so that small layers, memory and the calls between take the rest"
        text += "; larger batches or crops use it better"
    return Verdict(bottleneck=bottleneck, text=text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What was measured.  variants: from the reference to the engine.  epoch_ratio: of their epochs, turn by turn."""

    device: str
    crop: int
    images: int
    synthetic: bool
    conversion_id: str
    variants: tuple[Measured, ...]
    epoch_ratio: float
    bound: Bound
    verdict: Verdict
    cautions: list[Caution]
