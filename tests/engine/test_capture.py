"""What is captured when, with torch's CUDA interface replaced by one that records; real captures are in
test_cuda_kernels.py."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from engine.train.epochs import WARM_UPS, Captured
from loaders.cautions import caution

CUDA = torch.device("cuda")


class Stream:
    """Waits for nothing."""

    def __init__(self, device: Any = None) -> None:
        self.waited: list[Any] = []

    def wait_stream(self, other: Any) -> None:
        self.waited.append(other)


class Graph:
    """Replays what was called while it was captured: here, it only counts."""

    def __init__(self) -> None:
        self.replayed = 0

    def replay(self) -> None:
        self.replayed += 1


class Recorder:
    """A function on a tensor, and in which of two ways it was called."""

    def __init__(self, fails: bool = False) -> None:
        self.total, self.fails, self.capturing = torch.zeros(1), fails, False
        self.called: list[tuple[int, bool]] = []

    def __call__(self, size: int) -> None:
        self.called.append((size, self.capturing))
        if self.capturing and self.fails:
            raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        self.total += size


@pytest.fixture
def recorder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder(fails=getattr(request, "param", False))
    current = Stream()

    @contextlib.contextmanager
    def capture(graph: Graph, *, pool: str, stream: Stream) -> Iterator[None]:
        assert pool == "pool" and stream.waited == [current] * len(current.waited)
        made.capturing, before = True, made.total.clone()
        try:
            yield
        finally:
            made.capturing = False
            made.total.copy_(before)  # a capture runs nothing

    fakes = {
        "Stream": Stream,
        "CUDAGraph": Graph,
        "graph": capture,
        "graph_pool_handle": lambda: "pool",
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": lambda device=None: current,
        "set_stream": lambda stream: None,
        "synchronize": lambda device=None: None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: contextlib.nullcontext())
    return made


def test_each_size_is_warmed_up_and_captured_once_and_replayed_from_then_on(recorder: Recorder) -> None:
    captured = Captured(recorder, [recorder.total], CUDA, "sum")
    captured.prepare([32, 16, 32])
    captured.prepare([32])
    warm = [(size, capturing) for size in (32, 16) for capturing in [False] * WARM_UPS + [True]]
    assert recorder.called == warm and recorder.total == 0
    captured(32), captured(16), captured(32)
    assert recorder.called == warm
    assert [captured.graphs[size].replayed for size in (32, 16)] == [2, 1]  # type: ignore[attr-defined]


def test_a_size_that_was_not_prepared_runs_as_it_is(recorder: Recorder) -> None:
    captured = Captured(recorder, [recorder.total], CUDA, "sum")
    captured(5)
    assert recorder.called == [(5, False)] and recorder.total == 5


@pytest.mark.parametrize("recorder", [True], indirect=True)
def test_where_a_capture_fails_the_work_goes_on_uncaptured_and_the_log_says_why(
    recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    captured = Captured(recorder, [recorder.total], CUDA, "training step")
    with caplog.at_level(logging.WARNING):
        captured.prepare([32, 16])
        captured.prepare([32])
    assert captured.failed  # once: what it leaves behind could spoil another capture
    assert caplog.messages == [captured.failed.text]
    reason = "CUDA error: operation not permitted when stream is capturing"
    assert captured.failed == caution("not-captured", work="training step", images=32, reason=reason)
    assert recorder.total == 0 and not captured.graphs
    captured(32)
    assert recorder.total == 32 and recorder.called[-1] == (32, False)
