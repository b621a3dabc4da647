"""bench-loader: what it counts, and what it says bounds the loader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import cli
from loaders.batches.throughput import Epoch, measure, what_bounds
from loaders.config import BenchLoaderConfig, LoaderConfig
from loaders.errors import ConfigError


def epoch(**changes: float) -> Epoch:
    usual = {"seconds": 1.0, "waited": 0.9, "consumed": 0.0, "making": 1.9, "computing": 1.8, "disk_bytes": 0}
    return Epoch(**(usual | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "bound"),
    [
        ({}, "computing: 2 threads compute 90 % of the time"),
        ({"waited": 0.01, "consumed": 0.98, "making": 0.4, "computing": 0.4}, "the consumer"),
        ({"waited": 0.01, "making": 0.4, "computing": 0.4}, "handing batches over"),  # nobody consumes
        ({"disk_bytes": 900, "computing": 0.6}, "the disk"),
        ({"disk_bytes": 900}, "computing"),  # read in time
        ({"making": 0.5, "computing": 0.5}, "handing batches over: 2 threads make them 25 % of the time"),
        ({"computing": 0.8}, "other programs: the threads had a core for 42 %"),
    ],
)
def test_what_bounds_the_loader_is_told_from_where_the_time_went(changes: dict[str, float], bound: str) -> None:
    assert what_bounds([epoch(**changes)], threads=2, num_bytes=1000).startswith(bound)


@pytest.mark.parametrize("evaluation", [True, False])
def test_every_epoch_is_counted_but_the_first(betons: Path, evaluation: bool) -> None:
    seen: list[tuple[int, int]] = []
    config = BenchLoaderConfig(
        beton=betons / "train.beton", epochs=3, evaluation=evaluation, loader=LoaderConfig(threads=1, batch_size=4)
    )
    found = measure(config, lambda done, total: seen.append((done, total)))
    assert len(found.epochs) == len(found.rates) == 3 and seen[-1] == (4, 4)
    assert found.crop == 32 and found.threads == 1 and found.order == ("of the file" if evaluation else "random")
    for done in found.epochs:
        assert done.computing > 0 and done.making > 0 and 0 <= done.waited <= done.seconds
    assert all(microseconds > 0 for microseconds in found.stages.values())


def test_a_slow_consumer_is_never_kept_waiting(betons: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench-loader", str(betons / "val.beton"), "--epochs", "5", "--step-ms", "40", "--batch-size", "4"]
    assert cli.main(command) == 0
    shown = capsys.readouterr().out
    assert "images/s (median" in shown and "Bound by the consumer" in shown
    assert cli.main([*command[:4], "--batch-size", "4"]) == 0
    assert "Bound by the consumer" not in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_page_locked_memory_asks_for_cuda_not_for_tensors(betons: Path) -> None:
    with pytest.raises(ConfigError, match="no CUDA device"):
        measure(BenchLoaderConfig(beton=betons / "val.beton", loader=LoaderConfig(pin_memory=True)))
