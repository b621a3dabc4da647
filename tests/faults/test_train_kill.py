"""Campaign: a training is killed at any point, again and again, and resumed to the end."""

import contextlib
import functools
import importlib
import io
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine.train.checkpoint import load_checkpoint
from loaders.atomic_file import SUFFIX
from loaders.errors import CheckpointError
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.processes import Ending, ForkServer
from tests.faults.small_run import Left, Result, begun_anew, left_of, make_betons, result_of, train_command

POINTS = {  # a name, and the function whose calls it counts
    "step": ("engine.train.epochs", "train_step"),
    "validation": ("engine.train.epochs", "predict"),
    "leakage": ("engine.train.train", "save_record"),
    "settings": ("engine.train.train", "save_settings"),
    "checkpoint": ("engine.train.run_folder", "save_checkpoint"),
    "sync": ("os", "fsync"),
    "rename": ("os", "replace"),
    "curves": ("engine.train.run_folder", "curves_figure"),
    "page": ("engine.report.report", "run_page"),
}
HALF = "half"  # the point in the middle of a write of a file that is to be published
POLITE = {signal.SIGTERM, signal.SIGINT}


def signal_at(point: str, number: int, *, after: bool, signals: list[int]) -> None:
    """Send this process signals before, after, or for HALF within, the number-th call of a point's function."""
    hold_until_handled()

    def strike() -> None:
        for one in signals:
            os.kill(os.getpid(), one)

    def struck(found: str, place: bool) -> None:
        calls[found, place] += 1
        if (found, place, calls[found, place]) == (point, after, number):
            strike()

    calls: Counter[tuple[str, bool]] = Counter()
    watch_points(struck)


def count_points(out: str) -> None:
    """Count the calls of each point, all and those until the last step began; write both at every call."""
    hold_until_handled()
    calls: Counter[str] = Counter()
    until_last_step: dict[str, int] = {}

    def count(point: str, after: bool) -> None:
        calls[point] += not after
        if point == "step" and not after:
            until_last_step.update(calls)
        Path(out).write_text(json.dumps({"all": calls, "until the last step": until_last_step}))

    watch_points(count)


def watch_points(report: Callable[[str, bool], None]) -> None:
    """Report every call of a point's function, before (False) and after (True) it."""

    def watched(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            report(point, False)
            given = function(*arguments, **options)
            report(point, True)
            return given

        return call

    for point, (module, name) in POINTS.items():
        owner = importlib.import_module(module)
        setattr(owner, name, watched(point, getattr(owner, name)))

    class Halved(io.FileIO):
        def write(self, content: Any) -> int:
            view = memoryview(content).cast("B")
            done = super().write(view[: len(view) // 2]) or 0
            os.fdatasync(self.fileno())
            report(HALF, False)
            return done + (super().write(view[done:]) or 0)

    plain_open = pathlib.Path.open

    def open_halved(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if mode in ("wb", "xb") and self.name.endswith(SUFFIX):
            return io.BufferedWriter(Halved(self, mode))
        return plain_open(self, mode, *arguments, **options)

    pathlib.Path.open = open_halved  # type: ignore[method-assign]


def hold_until_handled() -> None:
    """Let SIGTERM and SIGINT through only while cli.main has handlers for them."""
    import cli

    signal.pthread_sigmask(signal.SIG_BLOCK, POLITE)
    # the mask is this thread's alone: after cli.main, which restores this, another thread would take SIGTERM and die
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    plain_run = cli.run

    def run(*arguments: Any, **options: Any) -> int:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, POLITE)
        try:
            return plain_run(*arguments, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, POLITE)

    cli.run = run


# ---- attempts


SIGNALS = {  # what is sent, and as how often it is drawn
    "kill -9": ([signal.SIGKILL], 5),
    "SIGTERM": ([signal.SIGTERM], 2),
    "SIGINT": ([signal.SIGINT], 2),
    "SIGTERM twice": ([signal.SIGTERM, signal.SIGTERM], 1),
}
OTHERS = {  # trainings that are attacked beside one of all defaults
    "bfloat16": ("--amp", "on"),
    "averaged": ("--validate-with", "averaged"),
    "recomputed": ("--validate-with", "recomputed"),
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
        """The child's source."""
        if not self.point:
            return "from tests.faults.test_train_kill import hold_until_handled; hold_until_handled()"
        signals = [int(one) for one in SIGNALS[self.word][0]]
        return (
            "from tests.faults.test_train_kill import signal_at; "
            f"signal_at({self.point!r}, {self.number}, after={self.after}, signals={signals})"
        )

    def described(self) -> str:
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
class Setup:
    """Where attempts are made.  defect: a fault of the product for every child, to try the campaign itself.

    counts, early, seconds: of an undisturbed run; how often it comes by each point, in all and until its last step.
    settings: of every training, beyond the small run's.
    """

    server: ForkServer
    betons: Path
    wanted: Result
    counts: dict[str, int]
    early: dict[str, int]
    seconds: float
    settings: tuple[str, ...] = ()
    defect: str = ""

    def child(self, run: Path, kill: Kill) -> Ending:
        """Train, or go on, until the kill or the end."""
        command = train_command(self.betons, run, *self.settings)
        child = self.server.start(command, before=f"{self.defect}\n{kill.before()}")
        if not kill.point:
            time.sleep(kill.share * self.seconds)
            for one in SIGNALS[kill.word][0]:
                child.kill(one)
        return child.wait(OUT_OF_TIME)

    def attempt(self, run: Path, kills: list[Kill]) -> tuple[str, str]:
        """Kill a run so, resume it.  Gives what it ended as, and what was broken; "" for both: no kill came."""
        struck = 0
        for kill in kills:
            left = left_of(run)
            ending = self.child(run, kill)
            if broken := self.judge(run, kill, ending, left, fresh=not struck):
                return "", f"{broken} ({kill.described()})"
            if ending.code == 0:
                break
            struck += 1
        if not struck:
            return "", ""
        left = left_of(run)
        ending = self.server.run(
            train_command(self.betons, run, *self.settings), before=self.defect, timeout=OUT_OF_TIME
        )
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
        """Exit codes that a child may have.  fresh: it began the run, and so comes by the points as counted."""
        if kill.word == "kill -9":
            sure, code = bool(kill.point), -signal.SIGKILL
        else:  # after the last step's check for signals none may come until the end
            sure, code = 0 < kill.number <= self.early.get(kill.point, 0), 75
        return (code,) if fresh and sure else (0, code)

    def judge(self, run: Path, kill: Kill, ending: Ending, left: Left, fresh: bool) -> str:
        """What one child broke, or "".  left: before it.  fresh: it began the run."""
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
def open_setup(folder: Path) -> Iterator[Setup]:
    """Convert, and train undisturbed; children are there until the end."""
    betons = make_betons(folder)
    with ForkServer(folder / "children") as server:
        yield make_setup(server, betons, folder)


def make_setup(server: ForkServer, betons: Path, folder: Path, settings: tuple[str, ...] = ()) -> Setup:
    """Train undisturbed."""
    folder.mkdir(exist_ok=True)
    run, counts = folder / "undisturbed", folder / "counts.json"
    before = f"from tests.faults.test_train_kill import count_points; count_points({str(counts)!r})"
    ending = server.run(train_command(betons, run, *settings), before=before, timeout=OUT_OF_TIME)
    if ending.code:
        raise RuntimeError(f"the undisturbed training ended with {ending.code}: {ending.errors}")
    found = json.loads(counts.read_text())
    if missed := {*POINTS, HALF} - set(found["all"]):
        raise RuntimeError(f"the undisturbed training came by no {', '.join(sorted(missed))}: the points have moved")
    return Setup(
        server=server,
        betons=betons,
        wanted=result_of(run),
        counts=found["all"],
        early=found["until the last step"],
        seconds=ending.seconds,
        settings=settings,
    )


def run(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """The campaign."""
    tally = Tally()
    with open_setup(folder) as exact:
        others = [make_setup(exact.server, exact.betons, folder / name, ways) for name, ways in OTHERS.items()]
        places = [exact, *others]
        for attempt in range(count):
            place = places[attempt % len(places)]
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
                described = ", then ".join(kill.described() for kill in chosen)
                tally.broke(f"seed {seed}, attempt {attempt}: {described}: {broken}")
            else:
                tally.held(outcome)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="train-kill",
    attack="kill -9, SIGTERM and SIGINT during train, at random steps and within saves, up to three times a run, in "
    "float32 and in bfloat16, and validated in each way",
    holds="resumed, the run goes on from the state saved last and ends with the undisturbed run's best weights, last "
    "state and metrics to the bit; a signal before the last step's end exits 75; no half-written checkpoint is ever in "
    "place",
    run=run,
    short=4,
    full=100,
)


# ---- what the campaign notices


HERE = sys.modules[__name__]
FORGETFUL = "import engine.train.trainer as training_run; training_run.restore = lambda learner, tensors: None"
STARTS_ANEW = "import engine.train.trainer as training_run; training_run.Training.find_state = lambda self: {}"
OTHER_STATE = """
import engine.train.run_folder as folder
plain = folder.RunFolder.save_last
folder.RunFolder.save_last = lambda self, tensors, state: plain(
    self, tensors, state | ({"step": 99} if state["finished"] else {})
)
"""
DEAF = """
import signal
plain = signal.signal
signal.signal = lambda number, handler: plain(number, signal.SIG_IGN if number in (2, 15) else handler)
"""
WRITES_IN_PLACE = """
import loaders.atomic_file, tests.faults.test_train_kill
loaders.atomic_file.SUFFIX = tests.faults.test_train_kill.SUFFIX = ""
"""
AT_FIVE = Kill(word="SIGTERM", point="step", number=5, after=True)
AT_EIGHT = replace(AT_FIVE, number=8)
KILLED_AT_FIVE = replace(AT_FIVE, word="kill -9")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """A range, with an undisturbed training of the product as it is."""
    with open_setup(tmp_path_factory.mktemp("range")) as place:
        yield place


@pytest.mark.parametrize(
    ("fault", "kills", "noticed"),
    [
        (FORGETFUL, [AT_FIVE], "another result"),
        (STARTS_ANEW, [AT_FIVE], "went on anew"),
        (STARTS_ANEW, [AT_EIGHT, KILLED_AT_FIVE], "from step 8 back to 3"),
        (OTHER_STATE, [AT_FIVE], "another result"),
        (DEAF, [AT_FIVE], "exit 0, expected 75"),
        # after hashes and settings, the fourth write of a file is of the first best weights
        (WRITES_IN_PLACE, [Kill(word="kill -9", point="half", number=4)], "half-written"),
    ],
    ids=["forgets weights", "starts anew", "goes back", "another last state", "deaf", "writes in place"],
)
def test_a_broken_promise_is_noticed(place: Setup, tmp_path: Path, fault: str, kills: list[Kill], noticed: str) -> None:
    outcome, broken = replace(place, defect=fault).attempt(tmp_path / "run", kills)
    assert noticed in broken, (outcome, broken)


def test_every_promise_holds_under_attack(place: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HERE, "open_setup", lambda folder: contextlib.nullcontext(place))
    check_short_form(CAMPAIGN, tmp_path)


def test_the_product_as_it_is_keeps_its_promises(place: Setup, tmp_path: Path) -> None:
    before_any_step = replace(AT_FIVE, point="rename", number=2)
    outcome, broken = place.attempt(tmp_path / "run", [before_any_step, AT_EIGHT, KILLED_AT_FIVE])
    assert not broken and outcome == "the same bytes after 2 kills"


def test_kills_that_do_not_come_are_drawn_again(place: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([[replace(AT_FIVE, point="page", number=9)], [AT_EIGHT]])
    monkeypatch.setattr(HERE, "open_setup", lambda folder: contextlib.nullcontext(place))
    monkeypatch.setattr(HERE, "draw_kills", lambda rng, counts: next(draws))
    tally = run(1, 0, tmp_path, lambda: None)
    assert tally.outcomes == {"the same bytes after 1 kill": 1}, tally
