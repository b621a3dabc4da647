"""bench-loader: its counts, and the bottleneck that it names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cli
from loaders.batches.throughput import Epoch, find_bottleneck, measure
from loaders.config import BenchLoaderConfig, LoaderConfig
from loaders.errors import ConfigError


def epoch(**changes: float) -> Epoch:
    usual = {
        "seconds": 1.0,
        "wait_seconds": 0.9,
        "consumer_seconds": 0.0,
        "making_seconds": 1.9,
        "cpu_seconds": 1.8,
        "disk_bytes": 0,
    }
    return Epoch(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "bottleneck"),
    [
        ({}, "computing, for 90 % of the threads' time"),
        ({"wait_seconds": 0.01, "consumer_seconds": 0.98, "making_seconds": 0.4, "cpu_seconds": 0.4}, "the consumer"),
        ({"wait_seconds": 0.01, "making_seconds": 0.4, "cpu_seconds": 0.4}, "handing batches over"),  # nobody consumes
        ({"disk_bytes": 900, "cpu_seconds": 0.6}, "the disk"),
        ({"disk_bytes": 900}, "computing"),  # read in time
        (
            {"making_seconds": 0.5, "cpu_seconds": 0.5},
            "handing batches over: threads are busy for only 25 % of the time",
        ),
        ({"cpu_seconds": 0.8}, "other programs: the threads had a core for only 42 %"),
    ],
)
def test_the_bottleneck_follows_from_the_times(changes: dict[str, float], bottleneck: str) -> None:
    assert find_bottleneck([epoch(**changes)], threads=2, num_bytes=1000).startswith(bottleneck)


@pytest.mark.parametrize("evaluation", [True, False])
def test_every_epoch_is_counted_but_the_first(betons: Path, evaluation: bool) -> None:
    reports: list[tuple[int, int]] = []
    config = BenchLoaderConfig(
        beton=betons / "train.beton", epochs=3, evaluation=evaluation, loader=LoaderConfig(threads=1, batch_size=4)
    )
    found = measure(config, lambda done, total: reports.append((done, total)))
    assert len(found.epochs) == len(found.rates) == 3 and reports[-1] == (4, 4)
    assert found.crop == 32 and found.threads == 1 and found.order == ("file" if evaluation else "random")
    for done in found.epochs:
        assert done.cpu_seconds > 0 and done.making_seconds > 0 and 0 <= done.wait_seconds <= done.seconds
    assert all(microseconds > 0 for microseconds in found.stages.values())


def test_a_slow_consumer_is_never_kept_waiting(betons: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench-loader", str(betons / "val.beton"), "--epochs", "5", "--step-ms", "40", "--batch-size", "4"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "images/s (median" in shown and "Bottleneck: the consumer" in shown
    assert cli.main([*command[:4], "--batch-size", "4"]) == 0
    assert "Bottleneck: the consumer" not in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_page_locked_memory_asks_for_cuda_not_for_tensors(betons: Path) -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        measure(BenchLoaderConfig(beton=betons / "val.beton", loader=LoaderConfig(pin_memory=True)))
