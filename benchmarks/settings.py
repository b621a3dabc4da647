"""Settings that every benchmark shares, and how much work a contest takes: in full, or as a smoke test."""

from dataclasses import dataclass
from pathlib import Path

THREADS = 2  # of every rival: threads, worker processes, torch's own
BATCH = 32
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """How much work the contests take."""

    rounds: int
    """Turns of each rival."""
    long_rounds: int
    """The same where a turn takes several seconds."""
    phantoms: int
    """Synthetic radiographs, of which four fifths are for training."""
    training_images: int
    """Samples of an epoch of the loader."""
    every: int
    """Take each n-th of the real radiographs."""
    decoded_every: int
    """The same for rivals that decode them in each epoch."""
    loader_workers: tuple[int, ...]
    """Numbers of torch's DataLoader's workers to try, of which the fastest is taken."""
    files: int
    """Files of the conversion, and images of the epochs with records."""
    step_crop: int
    """Side of the crops of the training step."""
    optimised: bool
    """Whether torch.compile's C++ is optimised, which takes it most of a minute."""
    scale_samples: tuple[int, ...]
    """Sizes of the betons of small samples."""
    large_frames: int
    """Frames of 320 a side in the beton that is read under a memory limit."""
    waiting_epochs: int
    """Epochs during which waiting for batches is measured."""


FULL = Workload(
    rounds=7,
    long_rounds=5,
    phantoms=200,
    training_images=1648,  # of the report: 52 batches
    every=1,
    decoded_every=3,
    loader_workers=(0, 1, 2, 4),
    files=2060,  # of the report: 1,648 for training and 412 for validation
    step_crop=224,
    optimised=True,
    scale_samples=(1_000, 10_000, 100_000, 1_000_000),
    large_frames=10_486,  # 1 GiB
    waiting_epochs=3,
)
SMOKE = Workload(  # every agreement check, and one turn of each rival
    rounds=1,
    long_rounds=1,
    phantoms=40,
    training_images=3 * BATCH,
    every=25,  # of each class enough for two splits, when some film has no credible mask
    decoded_every=40,
    loader_workers=(1,),
    files=16,
    step_crop=32,
    optimised=False,
    scale_samples=(1_000,),
    large_frames=656,
    waiting_epochs=1,
)
MAY_BE_MISSING = ("DALI", "SPDL")  # rivals that `make bench-smoke` does without, by the beginning of their names
