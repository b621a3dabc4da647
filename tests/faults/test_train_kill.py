"""The campaign of killed trainings notices a product that keeps no promise."""

from __future__ import annotations

from pathlib import Path

from tests.faults.train_kill import Kill, run

FORGETFUL = "import engine.training_run as training_run; training_run.restore = lambda learner, tensors: None"
WRITES_IN_PLACE = "import loaders.atomic_file as file, tests.faults.plant as plant; file.SUFFIX = plant.SUFFIX = ''"


def test_a_resume_that_forgets_the_weights_is_noticed(tmp_path: Path) -> None:
    kills = [Kill(word="SIGTERM", point="step", number=5, after=True)]
    tally = run(1, 0, tmp_path, lambda: None, fault=FORGETFUL, kills=kills)
    assert len(tally.failures) == 1 and "another result" in tally.failures[0], tally


def test_a_checkpoint_that_is_written_in_place_is_noticed(tmp_path: Path) -> None:
    # after hashes and settings, the fourth write of a file is of the first best weights
    kills = [Kill(word="kill -9", point="half", number=4)]
    tally = run(1, 0, tmp_path, lambda: None, fault=WRITES_IN_PLACE, kills=kills)
    assert len(tally.failures) == 1 and "half-written" in tally.failures[0], tally
