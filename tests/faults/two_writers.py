"""Two writers of one place: converters of one folder, trainers of one run, predictions into one table."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.conversions import HOLD_AT, PATIENCE, PLANS, TRAINING, Material, Plan, contents, temporaries
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import Victim

SECONDS_FOR_A_DEATH = 5.0  # until the kernel has taken a killed process apart, on a loaded machine


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """A command that writes.  held_at: the function, called with the lock held, where it can be kept waiting.

    wrong: what of its result is wrong once a writer has ended well, or "".  done: the exit code of one that comes
    after.  again: the command that takes up what a killed one left.
    """

    name: str
    argv: list[str]
    held_at: str
    wrong: Callable[[], str]
    done: int = 0
    again: list[str]


def writer_of(kind: str, plan: Plan, material: Material, folder: Path) -> Writer:
    """A converter, a trainer or a predictor, into a new place in folder."""
    out = folder / "out"
    if kind == "convert":
        argv = plan.argv(material, out)

        def wrong_files() -> str:
            return "" if contents(out) == material.wanted[plan] else "files differ from an undisturbed conversion's"

        return Writer(name=kind, argv=argv, held_at="loaders.convert:plan", wrong=wrong_files, again=argv)
    if kind == "train":
        argv = ["train", str(material.reference(PLANS[0])), "--out", str(out), *TRAINING]

        def wrong_run() -> str:
            left = {"best.safetensors", "last.safetensors", "summary.json", "report.html"} - contents(out).keys()
            return f"the run lacks {', '.join(sorted(left))}" if left else ""

        return Writer(
            name=kind,
            argv=argv,
            held_at="engine.training:Training",
            wrong=wrong_run,
            done=2,
            again=["train", "--resume", str(out)],
        )
    table = folder / "table.csv"
    argv = ["predict", str(material.trained()), str(material.source / "covid"), "--out", str(table), "--workers", "1"]

    def wrong_table() -> str:
        lines = table.read_text().splitlines() if table.exists() else []
        expected = 1 + len(list((material.source / "covid").iterdir()))
        return "" if len(lines) == expected else f"the table has {len(lines)} lines, expected {expected}"

    return Writer(name=kind, argv=argv, held_at="engine.prediction.prediction:rows_of", wrong=wrong_table, again=argv)


def choose(rng: random.Random) -> tuple[str, Plan, str]:
    """The command that both writers run, how it splits if it converts, and how they meet."""
    command = rng.choice(["convert", "convert", "train", "predict"])
    return command, rng.choice(PLANS), rng.choice(["held", "race", "dead owner"])


def wait_for(path: Path, victim: Victim) -> bool:
    """Whether the victim has come to where it is held; False if it ended, or never came."""
    until = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > until or not victim.alive():
            return path.exists()
        time.sleep(0.005)
    return True


def attempt(rng: random.Random, material: Material, folder: Path, before: str) -> tuple[str, str]:
    """One pair: how it ended, and which promise broke, or ""."""
    command, plan, kind = choose(rng)
    writer = writer_of(command, plan, material, folder)
    there, go = folder / "there", folder / "go"
    hold = before + HOLD_AT.format(place=writer.held_at, there=str(there), go=str(go))
    start = material.nursery.start
    if kind == "race":
        first, delay = start(writer.argv, before=before), rng.uniform(0, 0.1)
        time.sleep(delay)
        codes = sorted([start(writer.argv, before=before).wait(PATIENCE).code, first.wait(PATIENCE).code])
        if codes not in ([0, 6], [0, writer.done]):  # the second may have come when the first was done
            return "", f"two of {writer.name}, {delay:.3f} s apart, ended with {codes}"
        ended = f"{writer.name}: {'one wins, the other exits 6' if codes[1] == 6 else 'one after the other'}"
    else:
        owner = start(writer.argv, before=hold)
        if not wait_for(there, owner):
            return "", f"the first {writer.name} never came to {writer.held_at}: {owner.wait(1).errors[-300:]}"
        if kind == "held":
            other = material.nursery.run(writer.argv, timeout=PATIENCE, before=before)
            go.touch()
            codes = [owner.wait(PATIENCE).code, other.code]
            if codes != [0, 6] or other.traceback:
                return "", f"the owner and the other {writer.name} ended with {codes}: {other.errors[-300:]}"
            ended = f"{writer.name}: one wins, the other exits 6"
        else:
            reaped = rng.random() < 0.5
            owner.kill()
            if reaped:
                owner.wait()
            until = time.monotonic() + (0 if reaped else SECONDS_FOR_A_DEATH)
            while (heir := material.nursery.run(writer.again, timeout=PATIENCE, before=before)).code == 6:
                if time.monotonic() > until:
                    break
            if heir.code:
                return "", f"{writer.name} after a dead owner ended with {heir.code}: {heir.errors[-300:]}"
            ended = f"{writer.name}: takes over from a dead owner"
    if wrong := writer.wrong():
        return "", f"{kind}: after two of {writer.name} {wrong}"
    if left := temporaries(folder):
        return "", f"{kind}: two of {writer.name} left {', '.join(left)}"
    return ended, ""


def run(count: int, seed: int, folder: Path, advance: Callable[[], None], before: str = "") -> Tally:
    """Set `count` pairs on one place each.  before: a fault of the product to plant in each, to test this campaign."""
    tally = Tally()
    with Material(folder / "material") as material:
        for number in range(count):
            place = folder / f"{number:04}"
            place.mkdir()
            ended, broken = attempt(random.Random(f"{seed}-{number}"), material, place, before)
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
    holds="one wins, the other exits 6; a dead owner's lock clears itself; files are whole, no temporary is left",
    run=run,
    short=3,
    full=100,
)
