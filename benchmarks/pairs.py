"""The pairs that `make bench-compare` measures: short calls, so that many rounds fit in a minute.

Only rivals on whom a busy machine falls as it does on us: FFCV's ratio went from 2 to 17 with the load of a neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.contest import Contest, Missing
from benchmarks.decision import paired_ratios, warm_up
from benchmarks.kernel_contests import affine_contest, crop_contest
from benchmarks.material import convert_table, draw_phantoms, repeat
from benchmarks.settings import BATCH, THREADS
from benchmarks.step_contest import step_contest
from benchmarks.thread_contests import evaluation_threads_contest, training_threads_contest

AFFINE_PASSES = 1  # in one call: some ten milliseconds
EVALUATION_EPOCHS = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Ours and one rival of a contest.  rounds: the ratio of each, without end; Missing where the rival is."""

    name: str
    rounds: Iterator[float] | Missing


def pair_of(contest: Contest, rival: str) -> Pair:
    """A pair, warmed up, whose ratio is of equal amounts of work."""
    name = f"{contest.what}: {rival}"
    ours, theirs = contest.rivals[contest.ours], contest.rivals[rival]
    if isinstance(theirs, Missing):
        return Pair(name=name, rounds=theirs)
    assert not isinstance(ours, Missing)
    share = contest.share(rival) / contest.share(contest.ours)
    warm_up(ours, theirs)
    return Pair(name=name, rounds=(ratio * share for ratio in paired_ratios(ours, theirs)))


def quick_pairs(folder: Path) -> Iterator[Pair]:
    """Each pair, ready to be measured before the next is asked for; outputs are compared first.

    Errors: Disagreement.
    """
    torch.set_num_threads(THREADS)
    manifest = draw_phantoms(folder)
    for size in (224, 64):
        (folder / str(size)).mkdir()
    converted = convert_table(manifest, folder / "224", 224)
    few = repeat(convert_table(manifest, folder / "64", 64), folder / "few.beton", BATCH)  # one step an epoch
    quick: tuple[tuple[AbstractContextManager[Contest], tuple[str, ...]], ...] = (
        (affine_contest(converted.beton, AFFINE_PASSES), ("OpenCV",)),
        (crop_contest(converted.beton), ("numpy",)),
        (evaluation_threads_contest(converted.beton, EVALUATION_EPOCHS), ("numpy in threads",)),
        (training_threads_contest(converted.beton), ("OpenCV in threads",)),
        (step_contest(few), ("stock PyTorch, NCHW",)),
    )
    for prepared, rivals in quick:
        with prepared as contest:
            contest.check()
            for rival in rivals:
                yield pair_of(contest, rival)
