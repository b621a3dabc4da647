"""Campaign: every file of a run that anything loads is damaged, swapped, or replaced by a pickle that runs code."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.train.checkpoint import load_checkpoint, save_checkpoint
from tests.faults.small_run import begun_anew, left_of, make_betons, result_of, train_command, warm
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import Nursery
from tests.small_training import results_of

OUT_OF_TIME = 120.0
KIND = Path("loaders", "audit", "kind.safetensors")
RUN_FILES = ("last.safetensors", "best.safetensors", "leakage.safetensors")
# a file, the command that loads it, its exit codes for a refusal, and how often it is drawn
TARGETS = (
    ("last.safetensors", "resume", (5,), 8),
    ("last.safetensors", "resume finished", (5,), 2),
    ("best.safetensors", "resume", (5,), 5),
    ("best.safetensors", "resume finished", (5,), 3),
    ("leakage.safetensors", "resume", (5,), 3),
    ("config.json", "resume", (2, 5), 2),
    ("local.json", "resume", (2, 3, 5), 1),
    ("best.safetensors", "evaluate", (5,), 5),
    ("leakage.safetensors", "evaluate", (5,), 3),
    ("summary.json", "evaluate", (5,), 1),
    ("best.safetensors", "predict", (5,), 4),
    ("leakage.safetensors", "predict", (5,), 2),
    ("best.safetensors", "explain", (5,), 4),
    ("best.safetensors", "export", (5,), 4),
    ("best.safetensors", "compare with", (5,), 2),
    ("own.safetensors", "begin with", (2, 5), 4),
    ("state.pth", "begin with", (2, 5), 4),
    ("kind.safetensors", "audit", (5,), 3),
)
WAYS = {"flip a bit": 4, "truncate": 2, "another's": 1, "canary": 1, "noise": 0.5}  # and how often they are drawn
GONE = "removal"  # one more way, for the file without which a run could begin anew


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """What is done to one file of a run, and the command that then loads it.  content: None if it is removed."""

    file: str
    command: str
    refused: tuple[int, ...]
    way: str
    content: bytes | None


class Canary:
    """An object whose unpickling makes a file."""

    def __init__(self, egg: str) -> None:
        self.egg = egg

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (self.egg, os.O_CREAT | os.O_WRONLY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Where attempts are made.  finished, stopped: sound runs.  others: files to swap in, by what they replace.

    results: of commands on the sound run, as far as needed.  egg: the file that a canary makes.  defect: a fault of the
    product for every victim, to try the campaign itself.
    """

    nursery: Nursery
    folder: Path
    betons: Path
    finished: Path
    stopped: Path
    others: dict[str, list[bytes]]
    egg: Path
    results: dict[str, object]
    defect: str = ""

    def source(self, file: str, command: str) -> Path:
        """The sound file that is to be damaged."""
        if file == "kind.safetensors":
            return KIND
        if command == "begin with":
            return self.folder / file
        return (self.stopped if command == "resume" else self.finished) / file

    def draw(self, rng: random.Random, target: tuple, way: str) -> Damage:
        """One damage of a target."""
        file, command, refused, _ = target
        if way == GONE:
            return Damage(file=file, command=command, refused=refused, way=way, content=None)
        sound = self.source(file, command).read_bytes()
        content = bytearray(sound)
        if way == "flip a bit":
            # half of them where the structure is
            end = len(content) if rng.random() < 0.5 else min(len(content), 4096)
            content[rng.randrange(end)] ^= 1 << rng.randrange(8)
        elif way == "truncate":
            header = 8 + int.from_bytes(sound[:8], "little")
            edges = [length for length in (0, 1, 7, 8, header - 1, header, len(sound) - 1) if 0 <= length < len(sound)]
            del content[rng.choice([*edges, rng.randrange(len(sound))]) :]
        elif way == "another's":
            content[:] = rng.choice(self.others[file])
        elif way == "canary":
            content[:] = self.canary(rng)
        else:
            content[:] = rng.randbytes(rng.choice((1, 8, 100, 5000)))
        return Damage(file=file, command=command, refused=refused, way=way, content=bytes(content))

    def canary(self, rng: random.Random) -> bytes:
        """A pickle, or what torch.save makes of one, that makes the egg when it is unpickled."""
        kind = rng.randrange(3)
        if kind == 0:
            return pickle.dumps({"a": Canary(str(self.egg))}, protocol=rng.choice((2, 4)))
        path = self.folder / "canary.pth"
        torch.save({"a": torch.zeros(2), "b": Canary(str(self.egg))}, path, _use_new_zipfile_serialization=kind == 1)
        return path.read_bytes()

    def attempt(self, out: Path, damage: Damage) -> tuple[str, str]:
        """Run the command on a copy of a run with the damaged file.  Gives what it ended as, and what was broken."""
        run, sound = out / "run", self.stopped if damage.command == "resume" else self.finished
        copy_run(sound, run)
        place = out / damage.file if damage.command in ("begin with", "audit") else run / damage.file
        place.unlink(missing_ok=True)  # never through a link
        if damage.content is not None:
            place.write_bytes(damage.content)
        code, errors, result = self.carry_out(out, run, damage.command, place)
        if self.egg.exists():
            self.egg.unlink()
            return "", "code of the file was run"
        if code in damage.refused:
            return f"exit {code}", ""
        if code == 0:
            if result != self.sound(damage.command):
                return "", "exit 0 with another result than the sound run's, expected a refusal"
            if damage.command.startswith("resume") and (anew := begun_anew(run, left_of(sound))):
                return "", anew
            return "the same result", ""
        return "", f"exit {code}, expected one of {damage.refused} or the sound run's result: {errors[-400:]}"

    def sound(self, command: str) -> object:
        """What a command gives on a sound run."""
        if command not in self.results:
            out = Path(tempfile.mkdtemp(prefix="sound-", dir=self.folder))
            copy_run(self.stopped if command == "resume" else self.finished, out / "run")
            own = {"begin with": self.folder / "own.safetensors", "audit": KIND.absolute()}.get(command, out)
            code, errors, self.results[command] = self.carry_out(out, out / "run", command, own)
            if code:
                raise RuntimeError(f"{command} on a sound run ended with {code}: {errors}")
        return self.results[command]

    def carry_out(self, out: Path, run: Path, command: str, place: Path) -> tuple[int, str, object]:
        """Run a command.  Gives its exit code, -1 for a traceback or no end; what it said; and its result, if any."""
        before = self.defect
        heldout, table = self.betons / "heldout.beton", out / "table.csv"
        argv: list[object]
        result: Callable[[], object]
        if command in ("resume", "resume finished"):
            argv, result = ["train", "--resume", run], lambda: result_of(run)
        elif command == "begin with":
            argv = train_command(self.betons, out / "new", "--weights", place, "--epochs", 1)  # type: ignore[assignment]
            result = lambda: load_checkpoint(out / "new" / "last.safetensors")[1]["history"][0]["train_loss"]  # noqa: E731
        elif command in ("evaluate", "compare with"):
            argv = ["evaluate", run, heldout, "--resamples", 100, "--device", "cpu", "--threads", 1]
            result = lambda: (results_of(run / "evaluation") / "metrics.json").read_bytes()  # noqa: E731
            if command == "compare with":
                argv = [argv[0], self.stopped, *argv[2:], "--against", run, "--out", out / "e"]
                result = lambda: (results_of(out / "e") / "metrics.json").read_bytes()  # noqa: E731
        elif command == "predict":
            argv = ["predict", run, *self.films(), "--out", table, "--audit", "off", "--device", "cpu", "--workers", 1]
            result = table.read_bytes
        elif command == "explain":
            argv = ["explain", run, heldout, "--out", out / "x", "--device", "cpu"]
            result = lambda: (results_of(out / "x") / "explanation.json").read_bytes()  # noqa: E731
        elif command == "export":
            argv, result = ["export", run, "--out", out / "model.onnx"], (out / "model.onnx").read_bytes
        else:
            before += f"\nimport loaders.images.kind as kind, pathlib; kind.WEIGHTS = pathlib.Path({str(place)!r})"
            argv = ["audit", self.folder / "phantoms" / "images", "--out", out / "a", "--workers", 1]
            result = (out / "a" / "audit.csv").read_bytes
        ending = self.nursery.run(list(map(str, argv)), before=before, timeout=OUT_OF_TIME)
        code = -1 if ending.timed_out or ending.traceback else ending.code
        return code, ending.errors, result() if code == 0 else None

    def films(self) -> list[Path]:
        """A few radiographs to predict."""
        return sorted((self.folder / "phantoms").rglob("*.png"))[:2]


def choose(attempt: int, rng: random.Random) -> tuple[tuple, str]:
    """A target and what is done to it.  Every other attempt is a canary, until each target has had one."""
    turn, odd = divmod(attempt, 2)
    if not odd and turn < len(TARGETS):
        return TARGETS[turn], "canary"
    target = rng.choices(TARGETS, [target[-1] for target in TARGETS])[0]
    ways = WAYS | {GONE: 1} if target[0] == "last.safetensors" else WAYS
    return target, rng.choices(list(ways), list(ways.values()))[0]


def copy_run(run: Path, to: Path) -> None:
    """Copy a run folder; its checkpoints, which are only ever replaced, as links."""
    to.mkdir(parents=True)
    for path in run.iterdir():
        if path.suffix == ".safetensors":
            os.link(path, to / path.name)
        elif path.is_file() and path.suffix in (".json", ".csv", ".log"):
            shutil.copy2(path, to / path.name)


@contextlib.contextmanager
def open_range(folder: Path) -> Iterator[Range]:
    """Convert and train; victims are there until the end."""
    betons = make_betons(folder)
    with Nursery(folder / "victims", imports=warm(betons, folder / "finished")) as nursery:
        yield make_range(nursery, betons, folder)


def make_range(nursery: Nursery, betons: Path, folder: Path) -> Range:
    """Train two more runs, and leave them in their third epoch.  folder: with a finished run."""
    runs = {name: folder / name for name in ("stopped", "other")}
    stop = "from tests.faults.plant import signal_at; signal_at('step', 8, after=True, signals=[15])"
    for name, settings in (
        ("stopped", ()),
        ("other", ("--seed", 1)),
    ):
        ending = nursery.run(train_command(betons, runs[name], *settings), before=stop, timeout=OUT_OF_TIME)
        if ending.code != 75:
            raise RuntimeError(f"the {name} training ended with {ending.code}, expected 75: {ending.errors}")
    finished = folder / "finished"
    shutil.copy(finished / "best.safetensors", folder / "own.safetensors")
    tensors, state = load_checkpoint(finished / "best.safetensors")
    network = {name: value for name, value in tensors.items() if name.startswith("network.")}
    torch.save({name.removeprefix("network."): value for name, value in network.items()}, folder / "state.pth")
    # a sound checkpoint of this conversion whose tensors are another network's
    wider = {name: torch.cat([value, value]) if value.dim() else value for name, value in network.items()}
    save_checkpoint(folder / "wider.safetensors", wider, state)
    files = {name: [(runs["other"] / name).read_bytes()] for name in (*RUN_FILES, "config.json", "local.json")}
    files["summary.json"] = [(finished / "config.json").read_bytes()]
    for name in RUN_FILES:
        files[name] += [(finished / odd).read_bytes() for odd in RUN_FILES if odd != name]
    files["best.safetensors"].append((folder / "wider.safetensors").read_bytes())
    files["own.safetensors"] = files["state.pth"] = [(folder / "wider.safetensors").read_bytes(), KIND.read_bytes()]
    files["kind.safetensors"] = [(finished / "best.safetensors").read_bytes()]
    return Range(
        nursery=nursery,
        folder=folder,
        betons=betons,
        finished=finished,
        stopped=runs["stopped"],
        others=files,
        egg=folder / "egg",
        results={},
    )


def run(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """The campaign."""
    tally = Tally()
    with open_range(folder) as place:
        rngs = [random.Random(f"{seed}-{attempt}") for attempt in range(count)]
        drawn = [place.draw(rng, *choose(attempt, rng)) for attempt, rng in enumerate(rngs)]
        for attempt, damage in enumerate(drawn):
            out = folder / f"attempt-{attempt}"
            outcome, broken = place.attempt(out, damage)
            if broken:
                told = f"{damage.way} of {damage.file}, then {damage.command}"
                tally.broke(f"seed {seed}, attempt {attempt}: {told}: {broken}")
            else:
                tally.held(outcome)
            shutil.rmtree(out, ignore_errors=True)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="checkpoints",
    attack="bit flips, truncation, another run's or network's file, noise and pickles that run code, in place of every "
    "file of a run that resume, evaluate, predict, explain, export, --weights and the audit load, at least one such "
    "pickle each; the state of a run removed",
    holds="exit 5 (2 or 3 for settings and files of the user's own) or the sound run's result; a "
    "resumed run goes on from the step it was left at, never begun anew; no code run, no traceback",
    run=run,
    short=12,
    full=1_000,
)
