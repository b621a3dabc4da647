"""Two writers of one place: converters of one folder, trainers of one run, predictions into one table."""

import contextlib
import itertools
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from loaders.atomic_file import LOCK
from tests.faults import whole
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.conversions import (
    HOLD_AT,
    NOTE_AT,
    PATIENCE,
    PLANS,
    TRAINING,
    Plan,
    Setup,
    contents,
    different,
    temporaries,
)
from tests.faults.processes import Child
from tests.faults.small_run import result_of

SECONDS_FOR_A_DEATH = 5.0  # until the kernel has taken a killed process apart, on a loaded machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """A command that writes.  held_at: the function, called with the lock held, where it can be kept waiting.

    within: one whose every call begins and ends with the lock held.  wrong: what of its result is wrong once a writer
    has ended well, or "".  done: the exit code of one that comes after.  again: the command that takes up what a
    killed one left.
    """

    name: str
    argv: list[str]
    held_at: str
    within: str
    wrong: Callable[[], str]
    done: int = 0
    again: list[str]


def writer_of(kind: str, plan: Plan, setup: Setup, folder: Path) -> Writer:
    """A converter, a trainer or a predictor, into a new place in folder."""
    out = folder / "out"
    if kind == "convert":
        argv, place = plan.argv(setup, out), "loaders.convert.convert:plan"
        return Writer(
            name=kind,
            argv=argv,
            held_at=place,
            within=place,
            wrong=lambda: different(contents(out), setup.wanted[plan]),
            again=argv,
        )
    if kind == "train":

        def wrong_run() -> str:
            lacking = {"best.safetensors", "last.safetensors", "summary.json", "report.html"} - contents(out).keys()
            if lacking:
                return f"the run lacks {', '.join(sorted(lacking))}"
            for path in sorted(out.rglob("*")):
                if path.is_file() and path.name != LOCK and (flaw := whole.flaw(path)):
                    return f"{path.name} {flaw}"
            same = result_of(out) == result_of(setup.trained())
            return "" if same else "the run's result differs from an undisturbed training's"

        return Writer(
            name=kind,
            argv=["train", str(setup.reference(PLANS[0])), "--out", str(out), *TRAINING],
            held_at="engine.train.train:Training",
            within="engine.train.train:Training.run",
            wrong=wrong_run,
            done=2,
            again=["train", "--resume", str(out)],
        )
    source = setup.source / "covid"

    def predict(out: Path) -> list[str]:
        return ["predict", str(setup.trained()), str(source), "--out", str(out), "--workers", "1"]

    def wrong_table() -> str:
        if not table.exists():
            return "there is no table"
        same = table.read_bytes() == setup.made("table.csv", predict).read_bytes()
        return "" if same else "the table differs from an undisturbed prediction's"

    table = folder / "table.csv"
    argv = predict(table)
    return Writer(
        name=kind,
        argv=argv,
        held_at="engine.predict.predict:rows_of",
        within="loaders.images.decode:decode_into_spool",
        wrong=wrong_table,
        again=argv,
    )


def choose(rng: random.Random) -> tuple[str, Plan, str]:
    """The command that both writers run, how it splits if it converts, and how they meet."""
    command = rng.choice(["convert", "convert", "train", "predict"])
    return command, rng.choice(PLANS), rng.choice(["held", "race", "dead owner"])


def wait_for(path: Path, child: Child) -> bool:
    """Whether the child has come to where it is held; False if it ended, or never came."""
    until = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > until or not child.alive():
            return path.exists()
        time.sleep(0.005)
    return True


def race(writer: Writer, setup: Setup, folder: Path, delay: float, defect: str) -> tuple[str, str]:
    """Two at once: how they ended, and which promise broke, or "".  delay: seconds that the second comes later.

    Which of them wins is chance, and so is whether the loser meets the lock or what the winner has finished: therefore
    both note when they were where only the lock's owner may be.
    """
    notes = [folder / "first", folder / "second"]
    sources = [defect + NOTE_AT.format(place=writer.within, notes=str(path)) for path in notes]
    first = setup.server.start(writer.argv, before=sources[0])
    time.sleep(delay)
    second = setup.server.start(writer.argv, before=sources[1])
    endings = []  # code, when it had ended at the latest, errors
    for child in (second, first):
        ending = child.wait(PATIENCE)
        endings.append((ending.code, time.monotonic(), ending.errors[-300:]))
    codes = sorted(code for code, _, _ in endings)
    what = f"two of {writer.name}, {delay:.3f} s apart,"
    if codes not in ([0, 6], [0, writer.done]):  # the second may have come when the first was done
        return "", f"{what} ended with {codes}: {[errors for _, _, errors in endings]}"
    if codes[1] == 6:
        return f"{writer.name}: one wins, the other exits 6", ""
    spans = sorted(span for path in notes if (span := span_of(path)))
    if len(spans) != codes.count(0):
        return "", f"{what} were {len(spans)} times in {writer.within}, expected {codes.count(0)}"
    if len(spans) == 2 and spans[1][0] < spans[0][1]:
        return "", f"{what} were both at work at the same time"
    if any(code and ended < spans[0][1] for code, ended, _ in endings):
        return "", f"{what}: the loser was refused while the winner was still at work"
    return f"{writer.name}: one after the other", ""


def span_of(notes: Path) -> tuple[float, float] | None:
    """From when to when a writer was where only the lock's owner may be; None if it never was."""
    if not notes.exists():
        return None
    times = [float(time) for time in notes.read_text().split()]
    return min(times), max(times)


def held(writer: Writer, setup: Setup, owner: Child, go: Path, defect: str) -> tuple[str, str]:
    """One more while the owner is kept waiting: how it ended, and which promise broke, or ""."""
    other = setup.server.run(writer.argv, timeout=PATIENCE, before=defect)
    go.touch()
    codes = [owner.wait(PATIENCE).code, other.code]
    if codes != [0, 6] or other.traceback:
        return "", f"the owner and the other {writer.name} ended with {codes}: {other.errors[-300:]}"
    return f"{writer.name}: one wins, the other exits 6", ""


def inherited(writer: Writer, setup: Setup, owner: Child, reaped: bool, defect: str) -> tuple[str, str]:
    """One more after the owner was killed: how it ended, and which promise broke, or ""."""
    owner.kill()
    if reaped:
        owner.wait()
    until = time.monotonic() + (0 if reaped else SECONDS_FOR_A_DEATH)
    while (successor := setup.server.run(writer.again, timeout=PATIENCE, before=defect)).code == 6:
        if time.monotonic() > until:
            break
    if successor.code:
        return "", f"{writer.name} after a dead owner ended with {successor.code}: {successor.errors[-300:]}"
    return f"{writer.name}: takes over from a dead owner", ""


def attempt(rng: random.Random, setup: Setup, folder: Path, defect: str) -> tuple[str, str]:
    """One pair: how it ended, and which promise broke, or ""."""
    command, plan, kind = choose(rng)
    writer = writer_of(command, plan, setup, folder)
    there, go = folder / "there", folder / "go"
    if kind == "race":
        ended, broken = race(writer, setup, folder, rng.uniform(0, 0.1), defect)
    else:
        hold = defect + HOLD_AT.format(place=writer.held_at, there=str(there), go=str(go))
        owner = setup.server.start(writer.argv, before=hold)
        if not wait_for(there, owner):
            return "", f"the first {writer.name} never came to {writer.held_at}: {owner.wait(1).errors[-300:]}"
        if kind == "held":
            ended, broken = held(writer, setup, owner, go, defect)
        else:
            ended, broken = inherited(writer, setup, owner, rng.random() < 0.5, defect)
    if broken:
        return "", broken
    if wrong := writer.wrong():
        return "", f"{kind}: after two of {writer.name} {wrong}"
    if left := temporaries(folder):
        return "", f"{kind}: two of {writer.name} left {', '.join(left)}"
    return ended, ""


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], setup: Setup | None = None) -> Tally:
    """Set `count` pairs on one place each.  setup: of all plans; None to make it in folder."""
    tally = Tally()
    with contextlib.ExitStack() as stack:
        setup = setup or stack.enter_context(Setup(folder / "setup"))
        for number in range(count):
            place = folder / f"{number:04}"
            place.mkdir()
            ended, broken = attempt(random.Random(f"{seed}-{number}"), setup, place, "")
            if broken:
                tally.broke(f"seed {seed}, attempt {number}: {broken}")
            else:
                tally.held(ended)
                shutil.rmtree(place)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="two-writers",
    attack="two of `convert`, `train` or `predict` on one folder, run or table: at once, while one is kept waiting, "
    "and after the first was killed with kill -9",
    holds="one wins, the other exits 6, or comes when it is done; never both at once; a dead owner's lock clears "
    "itself; every file is whole, the result an undisturbed command's, no temporary is left",
    run=run,
    short=3,
    full=100,
)


# ---- what the campaign notices


NO_LOCK = "import fcntl\nfcntl.flock = lambda descriptor, operation: None\n"
# who comes second waits until the first one trains, which it then does until the second one has ended
IN_TURN = """
import atexit, pathlib, time, engine.train.train
folder, train = pathlib.Path({folder!r}), engine.train.train.Training.run
def wait_for(name):
    while not (folder / name).exists():
        time.sleep(0.005)
def run(self, resume):
    (folder / "trains").touch()
    wait_for("ended")
    time.sleep(2)
    return train(self, resume)
try:
    (folder / "begun").touch(exist_ok=False)
    engine.train.train.Training.run = run
except FileExistsError:
    wait_for("trains")
    atexit.register((folder / "ended").touch)
"""
TORN_PAGE = """
import engine.report.report
whole = engine.report.report.publish_bytes
engine.report.report.publish_bytes = lambda path, content: whole(path, content[:-20])
"""


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    with Setup(tmp_path_factory.mktemp("setup")) as setup:
        yield setup


def draws(command: str) -> random.Random:
    """Draws of an attempt in which the second one of a command comes while the first is kept waiting."""
    wanted = (command, PLANS[0], "held")
    return random.Random(next(seed for seed in itertools.count() if choose(random.Random(seed)) == wanted))


def test_a_lock_that_two_writers_get_is_noticed(tmp_path: Path, setup: Setup) -> None:
    _, broken = attempt(draws("convert"), setup, tmp_path, NO_LOCK)
    assert "the owner and the other convert ended with" in broken


def test_a_lock_that_locks_nothing_is_noticed_in_a_race(tmp_path: Path, setup: Setup) -> None:
    writer = writer_of("train", PLANS[0], setup, tmp_path)
    _, broken = race(writer, setup, tmp_path, 1.0, NO_LOCK + IN_TURN.format(folder=str(tmp_path)))
    assert "the loser was refused while the winner was still at work" in broken


def test_a_torn_page_of_the_winner_is_noticed(tmp_path: Path, setup: Setup) -> None:
    _, broken = attempt(draws("train"), setup, tmp_path, TORN_PAGE)
    assert "after two of train report.html ends before its end" in broken


def test_every_promise_holds_under_attack(setup: Setup, tmp_path: Path) -> None:
    check_short_form(replace(CAMPAIGN, run=partial(run, setup=setup)), tmp_path)
