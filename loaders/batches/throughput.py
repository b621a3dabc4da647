"""The throughput of a loader on this machine: images a second, time spent waiting, and the bottleneck."""

# N samples, 23 the two rows of an inverse affine matrix

import resource
import statistics
import sys
import time
import timeit
from collections.abc import Callable
from dataclasses import dataclass, replace

from loaders.batches.loader import Loader
from loaders.config import BenchLoaderConfig
from loaders.output import Line, Parts, Sheet, rate_text, share_text
from loaders.sampling import epoch_matrices

SAMPLED = 512  # images that each stage is timed on, on one thread
IDLE = 0.05  # share of an epoch; less waiting is no bottleneck
BUSY = 0.7  # share of the time; threads that are less busy wait for something else
BLOCK = 512  # bytes of ru_inblock's unit


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One epoch.  Seconds are those of Loader.  disk_bytes: read from disks for this process."""

    seconds: float
    wait_seconds: float
    consumer_seconds: float
    making_seconds: float
    cpu_seconds: float
    disk_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """What was measured.  stages: microseconds for an image on one thread, by name.  bottleneck: a sentence."""

    num_samples: int
    side: int
    crop: int
    threads: int
    order: str
    open_seconds: float
    first_batch_seconds: float
    epochs: tuple[Epoch, ...]
    stages: dict[str, float]
    bottleneck: str


def measure(config: BenchLoaderConfig, progress: Callable[[int, int], None] = lambda done, total: None) -> Throughput:
    """Iterate over the beton as training would, after one epoch that checks checksums and warms up.

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
        num_samples, side, threads = loader.num_samples, loader.beton.side, loader.threads
        return Throughput(
            num_samples=num_samples, side=side, crop=loader.beton.facts.crop, threads=threads,
            order=loader.order if settings.training else "file",
            open_seconds=opened - begin, first_batch_seconds=first_batch - opened,
            epochs=tuple(epochs[1:]), stages=time_stages(loader),
            bottleneck=find_bottleneck(epochs[1:], threads, num_samples * side**2),
        )  # fmt: skip


def one_epoch(loader: Loader, step_seconds: float) -> Epoch:
    """Take every batch, and sleep for step_seconds after each."""
    disk_before, before = blocks_read(), time.perf_counter()
    for _ in loader:
        if step_seconds:
            time.sleep(step_seconds)
    seconds = time.perf_counter() - before
    return Epoch(
        seconds=seconds, wait_seconds=loader.wait_seconds, consumer_seconds=loader.consumer_seconds,
        making_seconds=loader.making_seconds, cpu_seconds=loader.cpu_seconds,
        disk_bytes=(blocks_read() - disk_before) * BLOCK,
    )  # fmt: skip


def blocks_read() -> int:
    """Blocks of 512 bytes read from disks for this process; 0 outside Linux, which alone counts them so."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock if sys.platform == "linux" else 0


def time_stages(loader: Loader) -> dict[str, float]:
    """Microseconds for an image in each stage, on this thread alone."""
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

    stages = {
        "read": read,
        "check the checksum, first time only": lambda: beton.check_samples(index_N),
        "make a batch": batches,
    }
    # the median of five, after one for warm-up
    seconds = {name: statistics.median(timeit.repeat(call, repeat=6, number=1)[1:]) for name, call in stages.items()}
    return {name: each / len(index_N) * 1e6 for name, each in seconds.items()}


def find_bottleneck(epochs: list[Epoch], threads: int, num_bytes: int) -> str:
    """The bottleneck, and what would help, as a sentence.  num_bytes: of an epoch's frames."""
    middle = sorted(epochs, key=lambda epoch: epoch.seconds)[len(epochs) // 2]
    busy, computing = (part / (threads * middle.seconds) for part in (middle.making_seconds, middle.cpu_seconds))
    if middle.wait_seconds < IDLE * middle.seconds and middle.consumer_seconds > BUSY * middle.seconds:
        return "the consumer: batches are ready before it needs them; a faster loader would not help"
    if computing > BUSY:
        return f"computing, for {share_text(computing, 0)} of the threads' time; more cores would help"
    if busy < BUSY:
        share = share_text(busy, 0)
        return f"handing batches over: threads are busy for only {share} of the time; larger batches would help"
    if middle.disk_bytes > num_bytes / 2:
        rate = middle.disk_bytes / middle.seconds / 1e6
        return f"the disk, at {rate:,.0f} MB/s; more memory or a faster disk would help"
    share = share_text(computing / busy, 0)
    return f"other programs: the threads had a core for only {share} of the time that they needed one"


def throughput_parts(config: BenchLoaderConfig, found: Throughput) -> Parts:
    """The rates of each epoch, the times of each stage, and the bottleneck."""
    kind = "evaluation" if config.evaluation else "training"
    threads = f"{found.threads} thread{'s' * (found.threads > 1)}"
    epochs, rates = [], sorted(found.num_samples / epoch.seconds for epoch in found.epochs)
    for number, epoch in enumerate(found.epochs, start=1):
        rate = found.num_samples / epoch.seconds
        disk = f"{epoch.disk_bytes / epoch.seconds / 1e6:,.0f} MB/s"
        epochs.append((str(number), f"{rate:,.0f}", share_text(epoch.wait_seconds / epoch.seconds), disk))
    stages = tuple((name, f"{microseconds:,.1f}") for name, microseconds in found.stages.items())
    return [
        Line(
            f"{config.beton}: {found.num_samples:,} frames of {found.side}×{found.side}, crops of {found.crop}; "
            f"{kind} batches of {config.loader.batch_size}, {threads}, order {found.order}"
        ),
        Line(f"opened in {found.open_seconds * 1e3:,.1f} ms, first batch {found.first_batch_seconds:.2f} s later"),
        Sheet(headers=("epoch", "images/s", "time waiting", "from disk"), rows=tuple(epochs)),
        Sheet(headers=("stage, on one thread", "µs per image"), rows=stages),
        Line(f"{rate_text(statistics.median(rates))} (median; {rates[0]:,.0f} to {rates[-1]:,.0f})", "bold"),
        Line(f"Bottleneck: {found.bottleneck}."),
    ]
