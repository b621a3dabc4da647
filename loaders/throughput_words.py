"""What a measurement of a loader tells in the terminal: epochs, stages, and what bounds them."""

from __future__ import annotations

import statistics

from loaders.config import BenchLoaderConfig
from loaders.terminal import Line, Parts, Sheet
from loaders.throughput import Throughput


def throughput_parts(config: BenchLoaderConfig, found: Throughput) -> Parts:
    """What was measured, epoch by epoch and stage by stage, and what would have to be faster."""
    kind = "evaluation" if config.evaluation else "training"
    rates = sorted(found.rates)
    epochs = tuple(
        (
            str(number),
            f"{rate:,.0f}",
            f"{epoch.waited / epoch.seconds:.1%}",
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
        Line(f"{statistics.median(rates):,.0f} images/s (median; {rates[0]:,.0f} to {rates[-1]:,.0f})", "bold"),
        Line(f"Bound by {found.bound}."),
    ]
