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
