"""Settings of training and evaluation; imports neither torch nor numba, so that --help is instant."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from loaders.config import LoaderConfig, check_range

Switch = Literal["auto", "on", "off"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The recipe of DESIGN; every number of it is a default here."""

    data: Path
    """Folder with train.beton and val.beton of one conversion."""
    out: Path
    """Run folder to make."""
    epochs: int = 30
    """Most epochs."""
    learning_rate: float = 1e-3
    """Learning rate of Adam."""
    dropout: float = 0.5
    """Share of the hidden layer that is dropped in training."""
    patience: int = 7
    """Stop after this many epochs without a better validation F1."""
    min_delta: float = 0.001
    """An F1 is better only if it is above the best by more than this."""
    class_weights: bool = False
    """Weigh the loss inversely to each class's share of the training set."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to train; auto takes the first there is of cuda, mps, cpu."""
    compile: Switch = "auto"
    """Compile the network with torch.compile; auto: on CUDA, if the run is long enough to repay it."""
    amp: Switch = "auto"
    """Mixed precision in bfloat16; auto: on CUDA only."""
    arena: bool = True
    """Keep freed memory in the process: a step then finds its memory mapped. Linux; takes somewhat more of it."""
    loader: LoaderConfig = field(default=LoaderConfig(training=True))

    def __post_init__(self) -> None:
        check_range("epochs", self.epochs, 1, 100_000)
        # Adam scales its first step by ten; at 1e38 float32 weights would be infinite before any loss is
        check_range("learning_rate", self.learning_rate, 1e-12, 1e36)
        check_range("dropout", self.dropout, 0, 0.99)
        check_range("patience", self.patience, 1, 100_000)
        check_range("min_delta", self.min_delta, 0, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """How a run is evaluated on betons."""

    run: Path
    """Run folder of `train`."""
    betons: tuple[Path, ...]
    """Betons to evaluate on, such as heldout.beton."""
    out: Path | None = None
    """Folder for the results. Default: RUN/evaluation."""
    batch_size: int = 64
    """Samples in a batch."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to run; auto takes the first there is of cuda, mps, cpu."""
    threads: int = field(default=0, metadata={"auto": True})
    """Threads that make batches; auto takes one a core."""
    force: bool = False
    """Evaluate although the beton shares images or patients with the training set; recorded in the result."""
    trust_unverified: bool = False
    """Read a beton without plainfilm's footer, whose bytes nothing vouches for."""

    def __post_init__(self) -> None:
        check_range("batch_size", self.batch_size, 1, 65536)
        check_range("threads", self.threads, 0, 256)


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileConfig:
    """The reference pipeline and the engine side by side on the same radiographs."""

    data: Path
    """Folder with train.beton, val.beton and convert.csv, of one conversion."""
    source: Path
    """Folder that convert.csv's paths begin at: the SOURCE of `convert`, or the folder of its manifest."""
    out: Path | None = None
    """Folder for profile.png and profile.json. Default: DATA-profile, beside DATA."""
    rounds: int = 5
    """Turns of every variant, one after the other."""
    steps: int = 2
    """Fewest training steps of a turn, beyond one that warms up; quick ones go on for 0.2 s."""
    workers: int = 0
    """Worker processes of the reference's DataLoader; 0, its default, makes batches between the steps."""
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    """Where to train; auto takes the first there is of cuda, mps, cpu."""
    trace: Path | None = None
    """File for a trace of some steps of the engine; chrome://tracing and ui.perfetto.dev show it."""
    loader: LoaderConfig = field(default=LoaderConfig(training=True))

    def __post_init__(self) -> None:
        check_range("rounds", self.rounds, 1, 1000)
        check_range("steps", self.steps, 1, 100_000)
        check_range("workers", self.workers, 0, 256)

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.out or self.data.parent / f"{self.data.resolve().name}-profile"
