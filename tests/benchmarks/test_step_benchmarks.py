"""Tests of the training step's benchmarks: rivals in processes, equal work, and the paired interval."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from scipy import stats

from benchmarks import equivalence
from benchmarks.agreement import Disagreement
from benchmarks.contest import Worker
from benchmarks.step_contests import recording_contest, reference_contest, step_224_contest
from benchmarks.training_worker import STEP_RIVALS


def test_rivals_of_the_step_take_the_same_steps_in_processes_of_their_own() -> None:
    with step_224_contest(STEP_RIVALS[:3], crop=32) as contest:
        contest.check()
        for call in contest.rivals.values():
            call()


def test_rivals_that_train_otherwise_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([[0.7, 0.6, 0.5], [0.7, 0.6, 0.55]])
    monkeypatch.setattr(Worker, "ask", lambda self, line: next(answers))
    with (
        pytest.raises(Disagreement, match="stock PyTorch, NCHW: 3 losses"),
        step_224_contest(STEP_RIVALS[:2], 32) as contest,
    ):
        contest.check()


def test_a_worker_that_dies_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with (
        Worker("benchmarks.training_worker", "nobody") as worker,
        pytest.raises(RuntimeError, match="nobody: ended with 2"),
    ):
        worker.ask("steps 1")
    assert "invalid choice: 'nobody'" in capfd.readouterr().err


def test_both_sides_of_an_epoch_have_the_same_images(phantoms: Path, tmp_path: Path) -> None:
    with reference_contest(phantoms, tmp_path, 128) as contest:
        contest.check()
        assert contest.amount > 40


def test_records_do_not_change_what_is_learnt(betons: Path, tmp_path: Path) -> None:
    with recording_contest(betons, tmp_path) as contest:
        contest.check()
        for call in contest.rivals.values():
            call()
    assert {path.name for path in (tmp_path / "0").iterdir()} > {"best.safetensors", "last.safetensors", "curves.png"}


def test_the_interval_is_students() -> None:
    differences = [0.01, -0.02, 0.003, 0.0, 0.01, -0.004, 0.02, -0.01, 0.005, 0.001]
    wanted = stats.t.interval(0.95, 9, statistics.mean(differences), stats.sem(differences))
    assert equivalence.student_interval(differences)[1:] == pytest.approx(wanted, rel=1e-12)
