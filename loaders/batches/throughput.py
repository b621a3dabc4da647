"""The throughput of a loader on one beton and machine: how fast, how long one waits for it, and what bounds it."""

# N samples, 23 the two rows of an inverse affine matrix

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from loaders.batches.loader import Loader
from loaders.config import BenchLoaderConfig
from loaders.output import Line, Parts, Sheet, rate_text, share_text
from loaders.sampling import epoch_matrices

if sys.platform != "win32":
    import resource

SAMPLED = 512  # images that each stage is timed on, on one thread
IDLE = 0.05  # share of an epoch: a consumer that waits less waits for nothing
BUSY = 0.7  # share of the time: threads that are busy less have something else to wait for
BLOCK = 512  # bytes of ru_inblock's unit


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One epoch.  waited, consumed, making, computing: of Loader, in seconds.  disk_bytes: read for this process."""

    seconds: float
    waited: float
    consumed: float
    making: float
    computing: float
    disk_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """What was measured.  Seconds, except for stages: microseconds an image on one thread, by name."""

    num_samples: int
    side: int
    crop: int
    threads: int
    order: str
    open_seconds: float
    first_batch_seconds: float
    epochs: tuple[Epoch, ...]
    stages: dict[str, float]
    bound: str

    @property
    def rates(self) -> list[float]:
        """Images a second, epoch by epoch."""
        return [self.num_samples / epoch.seconds for epoch in self.epochs]


def measure(config: BenchLoaderConfig, progress: Callable[[int, int], None] = lambda done, total: None) -> Throughput:
    """Iterate over the beton as a training would.  The first epoch checks checksums and warms up; it does not count.

    Errors: those of Loader.
    """
    settings = replace(config.loader, training=not config.evaluation)
    begin = time.perf_counter()
    with Loader(config.beton, settings, tensors=settings.pin_memory) as loader:
        opened = time.perf_counter()
        next(iter(loader))
        first_batch = time.perf_counter()
        loader.set_epoch(0)
        epochs = []
        for done in range(config.epochs + 1):
            progress(done, config.epochs + 1)
            epochs.append(one_epoch(loader, config.step_ms / 1000))
        progress(config.epochs + 1, config.epochs + 1)
        stages = time_stages(loader)
        return Throughput(
            num_samples=loader.num_samples,
            side=loader.beton.side,
            crop=loader.beton.facts.crop,
            threads=loader.threads,
            order=loader.order if settings.training else "of the file",
            open_seconds=opened - begin,
            first_batch_seconds=first_batch - opened,
            epochs=tuple(epochs[1:]),
            stages=stages,
            bound=what_bounds(epochs[1:], loader.threads, loader.num_samples * loader.beton.side**2),
        )


def one_epoch(loader: Loader, step_seconds: float) -> Epoch:
    """Take every batch, and do nothing else for step_seconds after each."""
    disk_before, before = blocks_read(), time.perf_counter()
    for _ in loader:
        if step_seconds:
            time.sleep(step_seconds)
    return Epoch(
        seconds=time.perf_counter() - before,
        waited=loader.waited,
        consumed=loader.consumed,
        making=loader.making,
        computing=loader.computing,
        disk_bytes=(blocks_read() - disk_before) * BLOCK,
    )


def blocks_read() -> int:
    """Blocks that the system has read from disks for this process; only Linux counts them in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock if sys.platform == "linux" else 0


def time_stages(loader: Loader) -> dict[str, float]:
    """Microseconds an image on this thread alone, of each stage."""
    beton, batch_size = loader.beton, loader.config.batch_size
    index_N = loader.epoch_order(0)[: max(SAMPLED, batch_size)]
    inverse_N23 = None
    if loader.config.training:
        inverse_N23 = epoch_matrices(loader.config, 0, len(beton), beton.facts.crop, beton.side)

    def read() -> None:
        for sample in index_N.tolist():
            beton.frame(sample).copy()

    def batches() -> None:
        for start in range(0, len(index_N), batch_size):
            loader.make_batch(index_N[start : start + batch_size], inverse_N23)

    stages = {"read": read, "check sums, first time only": lambda: beton.check_samples(index_N)}
    return {name: timed(call) / len(index_N) * 1e6 for name, call in (stages | {"make a batch": batches}).items()}


def timed(call: Callable[[], None]) -> float:
    """Seconds of one call: the median of five, after one that is not counted."""
    seconds = []
    for _ in range(6):
        before = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - before)
    return statistics.median(seconds[1:])


def what_bounds(epochs: list[Epoch], threads: int, num_bytes: int) -> str:
    """In words: what would have to be faster for the loader to be.  num_bytes: of an epoch's frames."""
    middle = sorted(epochs, key=lambda epoch: epoch.seconds)[len(epochs) // 2]
    busy, computing = (part / (threads * middle.seconds) for part in (middle.making, middle.computing))
    if middle.waited < IDLE * middle.seconds and middle.consumed > BUSY * middle.seconds:
        return "the consumer: batches are ready before it asks; a faster loader would change nothing"
    if computing > BUSY:
        return f"computing: {threads} threads compute {share_text(computing, 0)} of the time; more cores would help"
    if busy < BUSY:
        share = share_text(busy, 0)
        return f"handing batches over: {threads} threads make them {share} of the time; larger batches would help"
    if middle.disk_bytes > num_bytes / 2:
        rate = middle.disk_bytes / middle.seconds / 1e6
        return f"the disk, at {rate:,.0f} MB/s; more memory or a faster disk would help"
    return f"other programs: the threads had a core for {share_text(computing / busy, 0)} of the time they wanted one"


def throughput_parts(config: BenchLoaderConfig, found: Throughput) -> Parts:
    """What was measured, epoch by epoch and stage by stage, and what would have to be faster."""
    kind = "evaluation" if config.evaluation else "training"
    rates = sorted(found.rates)
    epochs = tuple(
        (
            str(number),
            f"{rate:,.0f}",
            f"{share_text(epoch.waited / epoch.seconds)}",
            f"{epoch.disk_bytes / epoch.seconds / 1e6:,.0f} MB/s",
        )
        for number, (epoch, rate) in enumerate(zip(found.epochs, found.rates, strict=True), start=1)
    )
    stages = tuple((name, f"{microseconds:,.1f}") for name, microseconds in found.stages.items())
    return [
        Line(
            f"{config.beton}: {found.num_samples:,} frames of {found.side}×{found.side}, crops of {found.crop}; {kind} "
            f"batches of {config.loader.batch_size}, {found.threads} threads, order {found.order}"
        ),
        Line(f"opened in {found.open_seconds * 1e3:,.1f} ms, first batch {found.first_batch_seconds:.2f} s later"),
        Sheet(headers=("epoch", "images/s", "waited for", "from disk"), rows=epochs),
        Sheet(headers=("one thread alone", "µs an image"), rows=stages),
        Line(f"{rate_text(statistics.median(rates))} (median; {rates[0]:,.0f} to {rates[-1]:,.0f})", "bold"),
        Line(f"Bound by {found.bound}."),
    ]
