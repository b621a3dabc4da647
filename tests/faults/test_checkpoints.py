"""Campaign: every file of a run that anything loads is damaged, swapped, or replaced by a pickle that runs code."""

import contextlib
import os
import pickle
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from engine.train.checkpoint import load_checkpoint, save_checkpoint
from loaders.images.kind import WEIGHTS
from loaders.images.lungs import RECORD, SHIPPED
from tests.example_run import results_of
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.processes import ForkServer
from tests.faults.small_run import begun_anew, left_of, make_betons, result_of, train_command

OUT_OF_TIME = 120.0
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
    ("net-1.onnx", "segment", (5,), 3),
    ("segmenter.json", "segment", (2, 5), 3),
)
WAYS = {"flip a bit": 4, "truncate": 2, "another's": 1, "pickle": 1, "noise": 0.5}  # and how often they are drawn
GONE = "removal"  # one more way, for the file without which a run could begin anew


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """What is done to one file of a run, and the command that then loads it.  content: None if it is removed."""

    file: str
    command: str
    refused: tuple[int, ...]
    way: str
    content: bytes | None


class Opener:
    """An object whose unpickling makes a file."""

    def __init__(self, trace: str) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (self.trace, os.O_CREAT | os.O_WRONLY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Where attempts are made.  finished, stopped: sound runs.  others: files to swap in, by what they replace.

    results: of commands on the sound run, as far as needed.  trace: the file that a pickle makes.  defect: a fault of
    the product for every child, to test the campaign itself.
    """

    server: ForkServer
    folder: Path
    betons: Path
    finished: Path
    stopped: Path
    others: dict[str, list[bytes]]
    trace: Path
    results: dict[str, object]
    defect: str = ""

    def source(self, file: str, command: str) -> Path:
        """The sound file that is to be damaged."""
        if file == "kind.safetensors":
            return WEIGHTS
        if command == "segment":
            return SHIPPED / file
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
        elif way == "pickle":
            content[:] = self.pickle_of(rng)
        else:
            content[:] = rng.randbytes(rng.choice((1, 8, 100, 5000)))
        return Damage(file=file, command=command, refused=refused, way=way, content=bytes(content))

    def pickle_of(self, rng: random.Random) -> bytes:
        """A pickle, or what torch.save makes of one, that makes the trace when it is unpickled."""
        kind = rng.randrange(3)
        if kind == 0:
            return pickle.dumps({"a": Opener(str(self.trace))}, protocol=rng.choice((2, 4)))
        path = self.folder / "pickled.pth"
        torch.save({"a": torch.zeros(2), "b": Opener(str(self.trace))}, path, _use_new_zipfile_serialization=kind == 1)
        return path.read_bytes()

    def attempt(self, out: Path, damage: Damage) -> tuple[str, str]:
        """Run the command on a copy of a run with the damaged file.  Gives what it ended as, and what was broken."""
        run, sound = out / "run", self.stopped if damage.command == "resume" else self.finished
        copy_run(sound, run)
        place = out / damage.file if damage.command in ("begin with", "audit") else run / damage.file
        if damage.command == "segment":
            place = shutil.copytree(SHIPPED, out / "segmenter") / damage.file
        place.unlink(missing_ok=True)  # never through a link
        if damage.content is not None:
            place.write_bytes(damage.content)
        code, errors, result = self.carry_out(out, run, damage.command, place)
        if self.trace.exists():
            self.trace.unlink()
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
            own = {"begin with": self.folder / "own.safetensors", "audit": WEIGHTS, "segment": SHIPPED / RECORD}.get(
                command, out
            )
            code, errors, self.results[command] = self.carry_out(out, out / "run", command, own)
            if code:
                raise RuntimeError(f"{command} on a sound run ended with {code}: {errors}")
        return self.results[command]

    def carry_out(self, out: Path, run: Path, command: str, place: Path) -> tuple[int, str, object]:
        """Run a command.  Gives its exit code, -1 for a traceback or no end; its errors; and its result, if any."""
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
        elif command == "segment":
            argv = ["segment", self.folder / "phantoms" / "images", "--out", out / "m", "--workers", 1, "--size", 32]
            argv += ["--segmenter", place.parent]
            result = (out / "m" / "masks.csv").read_bytes
        else:
            before += f"\nimport loaders.images.kind as kind, pathlib; kind.WEIGHTS = pathlib.Path({str(place)!r})"
            argv = ["audit", self.folder / "phantoms" / "images", "--out", out / "a", "--workers", 1]
            result = (out / "a" / "audit.csv").read_bytes
        ending = self.server.run(list(map(str, argv)), before=before, timeout=OUT_OF_TIME)
        code = -1 if ending.timed_out or ending.traceback else ending.code
        return code, ending.errors, result() if code == 0 else None

    def films(self) -> list[Path]:
        """A few radiographs to predict."""
        return sorted((self.folder / "phantoms").rglob("*.png"))[:2]


def choose(attempt: int, rng: random.Random) -> tuple[tuple, str]:
    """A target and what is done to it.  Every other attempt is a pickle, until each target has had one."""
    turn, odd = divmod(attempt, 2)
    if not odd and turn < len(TARGETS):
        return TARGETS[turn], "pickle"
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
def open_setup(folder: Path) -> Iterator[Setup]:
    """Convert and train; children are there until the end."""
    betons = make_betons(folder)
    with ForkServer(folder / "children") as server:
        yield make_setup(server, betons, folder)


def make_setup(server: ForkServer, betons: Path, folder: Path) -> Setup:
    """Train a run, and two more that are left in their third epoch."""
    finished, runs = folder / "finished", {name: folder / name for name in ("stopped", "other")}
    ending = server.run(train_command(betons, finished), timeout=OUT_OF_TIME)
    if ending.code:
        raise RuntimeError(f"the training ended with {ending.code}: {ending.errors}")
    stop = "from tests.faults.test_train_kill import signal_at; signal_at('step', 8, after=True, signals=[15])"
    for name, settings in (
        ("stopped", ()),
        ("other", ("--seed", 1)),
    ):
        ending = server.run(train_command(betons, runs[name], *settings), before=stop, timeout=OUT_OF_TIME)
        if ending.code != 75:
            raise RuntimeError(f"the {name} training ended with {ending.code}, expected 75: {ending.errors}")
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
    files["own.safetensors"] = files["state.pth"] = [(folder / "wider.safetensors").read_bytes(), WEIGHTS.read_bytes()]
    files["kind.safetensors"] = [(finished / "best.safetensors").read_bytes()]
    files["net-1.onnx"] = [(SHIPPED / "net-2.onnx").read_bytes(), WEIGHTS.read_bytes()]
    files["segmenter.json"] = [(finished / "config.json").read_bytes()]
    return Setup(
        server=server,
        folder=folder,
        betons=betons,
        finished=finished,
        stopped=runs["stopped"],
        others=files,
        trace=folder / "trace",
        results={},
    )


def run(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """The campaign."""
    tally = Tally()
    with open_setup(folder) as place:
        rngs = [random.Random(f"{seed}-{attempt}") for attempt in range(count)]
        drawn = [place.draw(rng, *choose(attempt, rng)) for attempt, rng in enumerate(rngs)]
        for attempt, damage in enumerate(drawn):
            out = folder / f"attempt-{attempt}"
            outcome, broken = place.attempt(out, damage)
            if broken:
                described = f"{damage.way} of {damage.file}, then {damage.command}"
                tally.broke(f"seed {seed}, attempt {attempt}: {described}: {broken}")
            else:
                tally.held(outcome)
            shutil.rmtree(out, ignore_errors=True)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="checkpoints",
    attack="bit flips, truncation, another run's or network's file, noise and pickles that run code, in place of every "
    "file of a run that resume, evaluate, predict, explain, export, --weights, the audit and the segmenter load, at "
    "least one such pickle each; the state of a run removed",
    holds="exit 5 (2 or 3 for settings and files of the user's own) or the sound run's result; a "
    "resumed run goes on from the step it was left at, never begun anew; no code run, no traceback",
    run=run,
    short=12,
    full=1_000,
)


# ---- what the campaign notices


HERE = sys.modules[__name__]
BELIEVES_ALL = """
import engine.train.checkpoint as checkpoint
class Same(str):
    __hash__ = str.__hash__
    def __eq__(self, other):
        return True
checkpoint.digest = lambda tensors, state: Same("0")
"""
UNPICKLES = """
import torch
plain_load = torch.load
torch.load = lambda path, **options: plain_load(path, **options | {"weights_only": False})
"""
UNPICKLES_SETTINGS = """
import contextlib, torch, engine.train.run_folder as settings
plain_read = settings.read_settings
def read(path):
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    return plain_read(path)
settings.read_settings = read
"""
STARTS_ANEW = "import engine.train.trainer as training_run; training_run.Training.find_state = lambda self: {}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """A range of sound runs."""
    with open_setup(tmp_path_factory.mktemp("range")) as place:
        yield place


@pytest.mark.parametrize(
    ("fault", "target", "way", "noticed"),
    [
        # of four bits some are in the tensors
        (BELIEVES_ALL, ("best.safetensors", "resume finished"), "flip a bit", "another result"),
        (UNPICKLES, ("state.pth", "begin with"), "pickle", "code of the file was run"),
        (UNPICKLES_SETTINGS, ("local.json", "resume"), "pickle", "code of the file was run"),
        (STARTS_ANEW, ("last.safetensors", "resume"), "flip a bit", "went on anew"),
        (STARTS_ANEW, ("last.safetensors", "resume"), GONE, "went on anew"),
    ],
    ids=["believes all", "unpickles", "unpickles settings", "starts anew", "starts anew without its state"],
)
def test_a_broken_promise_is_noticed(
    place: Setup, tmp_path: Path, fault: str, target: tuple[str, str], way: str, noticed: str
) -> None:
    (chosen,) = (one for one in TARGETS if one[:2] == target)
    faulty = replace(place, defect=fault, results={})
    found = []
    for number in range(4 if fault == BELIEVES_ALL else 1):
        damage = faulty.draw(random.Random(f"0-{number}"), chosen, way)
        found.append(faulty.attempt(tmp_path / f"{number}", damage))
    assert any(noticed in broken for _, broken in found), found


def test_every_file_is_replaced_by_a_pickle_at_least_once() -> None:
    chosen = [choose(attempt, random.Random(attempt)) for attempt in range(2 * len(TARGETS))]
    assert {target for target, way in chosen if way == "pickle"} == set(TARGETS)


def test_every_promise_holds_under_attack(place: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HERE, "open_setup", lambda folder: contextlib.nullcontext(place))
    check_short_form(CAMPAIGN, tmp_path)
