"""Campaign: a training is killed at any point, again and again, and resumed to the end."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.train.checkpoint import load_checkpoint
from loaders.atomic_file import SUFFIX
from loaders.errors import CheckpointError
from tests.faults.plant import HALF, POINTS
from tests.faults.small_run import Left, Result, begun_anew, left_of, make_betons, result_of, train_command, warm
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import Ending, Nursery

SIGNALS = {  # what is sent, and as how often it is drawn
    "kill -9": ([signal.SIGKILL], 5),
    "SIGTERM": ([signal.SIGTERM], 2),
    "SIGINT": ([signal.SIGINT], 2),
    "SIGTERM twice": ([signal.SIGTERM, signal.SIGTERM], 1),
}
SAVES = ("checkpoint", "sync", "rename", HALF)  # half of all points are of a save
OUT_OF_TIME = 300.0
DRAWS = 20  # of an attempt, until a kill comes before its end


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """When a training is sent a signal: at the number-th call of a point, or at a share of its time."""

    word: str
    point: str = ""
    number: int = 0
    after: bool = False
    share: float = 0.0

    def before(self) -> str:
        """The victim's source."""
        if not self.point:
            return "from tests.faults.plant import hold_until_handled; hold_until_handled()"
        signals = [int(one) for one in SIGNALS[self.word][0]]
        return (
            "from tests.faults.plant import signal_at; "
            f"signal_at({self.point!r}, {self.number}, after={self.after}, signals={signals})"
        )

    def words(self) -> str:
        """For the line of a failure."""
        if not self.point:
            return f"{self.word} after {self.share:.3f} of its time"
        return f"{self.word} {'after' if self.after else 'before'} {self.point} {self.number}"


def draw_kills(rng: random.Random, counts: dict[str, int]) -> list[Kill]:
    """One to three kills.  counts: how often an undisturbed run comes by each point."""
    kills = []
    for _ in range(rng.choices((1, 2, 3), (3, 2, 1))[0]):
        word = rng.choices(list(SIGNALS), [weight for _, weight in SIGNALS.values()])[0]
        if rng.random() < 0.2:
            kills.append(Kill(word=word, share=rng.random()))
            continue
        chosen = SAVES if rng.random() < 0.5 else tuple(point for point in counts if point not in SAVES)
        point = rng.choice([point for point in chosen if counts.get(point)])
        after = point != HALF and rng.random() < 0.5
        kills.append(Kill(word=word, point=point, number=rng.randint(1, counts[point]), after=after))
    return kills


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Where attempts are made.  defect: a fault of the product for every victim, to try the campaign itself.

    counts, early, seconds: of an undisturbed run; how often it comes by each point, in all and until its last step.
    """

    nursery: Nursery
    betons: Path
    wanted: Result
    counts: dict[str, int]
    early: dict[str, int]
    seconds: float
    defect: str = ""

    def victim(self, run: Path, kill: Kill) -> Ending:
        """Train, or go on, until the kill or the end."""
        command = train_command(self.betons, run)
        victim = self.nursery.start(command, before=f"{self.defect}\n{kill.before()}")
        if not kill.point:
            time.sleep(kill.share * self.seconds)
            for one in SIGNALS[kill.word][0]:
                victim.kill(one)
        return victim.wait(OUT_OF_TIME)

    def attempt(self, run: Path, kills: list[Kill]) -> tuple[str, str]:
        """Kill a run so, resume it.  Gives what it ended as, and what was broken; "" for both: no kill came."""
        struck = 0
        for kill in kills:
            left = left_of(run)
            ending = self.victim(run, kill)
            if broken := self.judge(run, kill, ending, left, fresh=not struck):
                return "", f"{broken} ({kill.words()})"
            if ending.code == 0:
                break
            struck += 1
        if not struck:
            return "", ""
        left = left_of(run)
        ending = self.nursery.run(train_command(self.betons, run), before=self.defect, timeout=OUT_OF_TIME)
        if ending.code != 0:
            return "", f"resumed with exit {ending.code}, expected 0: {ending.errors[-300:]}"
        if anew := begun_anew(run, left):
            return "", anew
        if result_of(run) != self.wanted:
            return "", "resumed to another result than the undisturbed run's"
        if behind := [path.name for path in run.rglob(f"*{SUFFIX}")]:
            return "", f"left {', '.join(behind)} behind"
        return f"the same bytes after {struck} kill{'s' * (struck != 1)}", ""

    def endings(self, kill: Kill, fresh: bool) -> tuple[int, ...]:
        """Exit codes that a victim may have.  fresh: it began the run, and so comes by the points as counted."""
        if kill.word == "kill -9":
            sure, code = bool(kill.point), -signal.SIGKILL
        else:  # after the last step's look for signals none may come until the end
            sure, code = 0 < kill.number <= self.early.get(kill.point, 0), 75
        return (code,) if fresh and sure else (0, code)

    def judge(self, run: Path, kill: Kill, ending: Ending, left: Left, fresh: bool) -> str:
        """What one victim broke, or "".  left: before it.  fresh: it began the run."""
        expected = self.endings(kill, fresh)
        if ending.timed_out or ending.code not in expected or ending.traceback:
            ended = "no end" if ending.timed_out else f"exit {ending.code}"
            wanted = " or ".join(map(str, expected))
            return f"{ended}, expected {wanted} without a traceback: {ending.errors[-300:]}"
        for name in ("last", "best"):
            if (run / f"{name}.safetensors").exists():
                try:
                    load_checkpoint(run / f"{name}.safetensors")
                except CheckpointError as error:
                    return f"{name} is half-written: {error}"
        now = left_of(run).step
        if left.step is not None and (now is None or now < left.step):
            return f"its state went from step {left.step} back to {now}"
        return begun_anew(run, left, ended=ending.code == 0)


@contextlib.contextmanager
def open_range(folder: Path) -> Iterator[Range]:
    """Convert, and train undisturbed; victims are there until the end."""
    betons = make_betons(folder)
    with Nursery(folder / "victims", imports=warm(betons, folder / "warm")) as nursery:
        yield make_range(nursery, betons, folder)


def make_range(nursery: Nursery, betons: Path, folder: Path) -> Range:
    """Train undisturbed."""
    run, counts = folder / "undisturbed", folder / "counts.json"
    before = f"from tests.faults.plant import count_points; count_points({str(counts)!r})"
    ending = nursery.run(train_command(betons, run), before=before, timeout=OUT_OF_TIME)
    if ending.code:
        raise RuntimeError(f"the undisturbed training ended with {ending.code}: {ending.errors}")
    found = json.loads(counts.read_text())
    if missed := {*POINTS, HALF} - set(found["all"]):
        raise RuntimeError(f"the undisturbed training came by no {', '.join(sorted(missed))}: the points have moved")
    return Range(
        nursery=nursery,
        betons=betons,
        wanted=result_of(run),
        counts=found["all"],
        early=found["until the last step"],
        seconds=ending.seconds,
    )


def run(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """The campaign."""
    tally = Tally()
    with open_range(folder) as place:
        for attempt in range(count):
            rng = random.Random(f"{seed}-{attempt}")
            for draw in range(DRAWS):
                chosen = draw_kills(rng, place.counts)
                out = folder / f"run-{attempt}-{draw}"
                outcome, broken = place.attempt(out, chosen)
                shutil.rmtree(out, ignore_errors=True)
                if outcome or broken:
                    break
            else:
                broken = f"no kill came before its end in {DRAWS} draws"
            if broken:
                told = ", then ".join(kill.words() for kill in chosen)
                tally.broke(f"seed {seed}, attempt {attempt}: {told}: {broken}")
            else:
                tally.held(outcome)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="train-kill",
    attack="kill -9, SIGTERM and SIGINT during train, at random steps and within saves, up to three times a run",
    holds="resumed, the run goes on from the state saved last and ends with the undisturbed run's best weights, last "
    "state and metrics to the bit; a signal before the last step's end exits 75; no half-written checkpoint is ever in "
    "place",
    run=run,
    short=3,
    full=100,
)
