"""Campaign: a number that is not finite, or far too large, appears in a training on each code path, run on a CPU."""

import contextlib
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from engine.train.checkpoint import load_checkpoint, not_finite
from loaders.errors import CheckpointError
from tests.faults.campaign import Campaign, Tally, check_short_form
from tests.faults.processes import ForkServer
from tests.faults.small_run import EPOCHS, Result, begun_anew, left_of, make_betons, result_of, train_command


def on_device(found_inf: bool) -> None:
    """Have trainings run the device's epochs on CPU tensors.  found_inf: of Policy."""
    from dataclasses import replace

    from engine.train import trainer as training_run
    from engine.train.epochs import DeviceEpochs

    def make_epochs(self: training_run.Training) -> DeviceEpochs:
        learner = replace(self.learner, policy=replace(self.policy, found_inf=found_inf))
        return DeviceEpochs(learner, self.loader, self.val_loader, self.config.loader.resident)

    training_run.Training.make_epochs = make_epochs  # type: ignore[method-assign]


def watch_steps(
    before: Callable[[Any, int], None], after: Callable[[Any, int], None] = lambda learner, step: None
) -> None:
    """Call with learner and number before and after every training step of this process."""
    from engine.train.step import Step

    plain_call, number = Step.__call__, [0]

    def call(self: Step, *arguments: Any) -> None:
        before(self.learner, number[0])
        plain_call(self, *arguments)
        after(self.learner, number[0])
        number[0] += 1

    Step.__call__ = call  # type: ignore[method-assign]


def fingerprint(tensors: dict[str, Any]) -> str:
    """A hash of a run's weights, buffers and moments; other tensors take no part."""
    from engine.train.checkpoint import digest

    kept = {name: value for name, value in tensors.items() if name.startswith(("network.", "adam."))}
    return digest({name: value.detach().cpu() for name, value in kept.items()}, "")


def note_steps(out: str) -> None:
    """Append a fingerprint after every step: what a healthy run is after so many."""
    from engine.train.checkpoint import learner_tensors

    def note(learner: Any, step: int) -> None:
        with Path(out).open("a") as file:
            file.write(fingerprint(learner_tensors(learner)) + "\n")

    watch_steps(lambda learner, step: None, note)


def poison(kind: str, at: int) -> None:
    """Put a number that is not finite, or far too large, in a place of the learner right before a step."""
    import torch

    place, _, what = kind.partition(" ")
    value = {"NaN": float("nan"), "inf": float("inf"), "overflow": 3e38}[what]

    def strike(learner: Any, step: int) -> None:
        if step != at:
            return
        network = learner.network
        parameter = next(network.parameters())
        with torch.no_grad():
            if place == "weight":
                parameter.view(-1)[0] = value
            elif place in ("mean", "variance"):
                name = {"mean": "running_mean", "variance": "running_var"}[place]
                next(buffer for path, buffer in network.named_buffers() if path.endswith(name)).view(-1)[0] = value
            elif place in ("exp_avg", "exp_avg_sq"):
                learner.optimiser.state[parameter][place].view(-1)[0] = value
        if place == "gradient":
            parameter.register_hook(lambda gradient: torch.full_like(gradient, value))
        elif place == "loss":
            learner.loss.register_forward_hook(lambda module, inputs, output: output * value)

    watch_steps(strike)


# ---- attempts


PATHS = {  # source that each training of the path runs first, and settings
    "host": ("", ()),
    "host, bfloat16": ("", ("--amp", "on")),
    "device": ("from tests.faults.test_numbers import on_device; on_device(found_inf=True)", ()),
    # where fused Adam ignores the flag
    "device, by copies": ("from tests.faults.test_numbers import on_device; on_device(found_inf=False)", ()),
    "device, streamed": (
        "from tests.faults.test_numbers import on_device; on_device(found_inf=True)",
        ("--resident", "off"),
    ),
    "compiled": ("", ("--compile", "on")),
}
UNCOMPILED = [path for path in PATHS if path != "compiled"]
KINDS = (
    "weight NaN", "gradient NaN", "loss inf", "exp_avg NaN", "variance inf", "exp_avg_sq inf", "gradient overflow",
    "exp_avg overflow", "mean NaN", "weight inf", "gradient inf", "loss NaN",
)  # fmt: skip
STEPS = (1, 4, 7)  # in the first, second and third epoch; moments are there from the first step on
# every kind on every path, at one of the steps; compilation costs a minute of two slow cores, so two of them do there
COMBINATIONS = [
    *(
        (path, kind, STEPS[(place + number) % len(STEPS)])
        for place, kind in enumerate(KINDS)
        for number, path in enumerate(UNCOMPILED)
    ),
    *(("compiled", kind, 4) for kind in KINDS[:2]),
]
ENVIRONMENT = {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
OUT_OF_TIME = 600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Healthy:
    """An undisturbed run.  steps: the fingerprint after each."""

    result: Result
    steps: list[str]

    def last_before(self, kind: str, step: int) -> int | None:
        """The step of the last healthy state when a number is planted right before a step, if there is any.

        A loss or gradient is looked at before it has changed anything; all else has, since the epoch began.
        """
        if kind.startswith(("gradient", "loss")):
            return step
        each = len(self.steps) // EPOCHS
        return step // each * each or None


@dataclass(frozen=True, kw_only=True, slots=True)
class Setup:
    """Where attempts are made.

    healthy: by path, as far as needed.  defect: a fault of the product for every child, to try the campaign itself.
    """

    server: ForkServer
    betons: Path
    folder: Path
    healthy: dict[str, Healthy]
    defect: str = ""

    def train(self, path: str, run: Path, plant: str) -> tuple[int, str]:
        """Train, or go on.  Gives exit code and the errors printed; -1 for no end."""
        source, settings = PATHS[path]
        before = "\n".join((self.defect, source, plant))
        ending = self.server.run(train_command(self.betons, run, *settings), before=before, timeout=OUT_OF_TIME)
        return (-1 if ending.timed_out or ending.traceback else ending.code), ending.errors

    def undisturbed(self, path: str) -> Healthy:
        """The run without a planted number."""
        if path not in self.healthy:
            run, steps = self.folder / f"healthy-{len(self.healthy)}", self.folder / f"steps-{len(self.healthy)}"
            code, errors = self.train(
                path, run, f"from tests.faults.test_numbers import note_steps; note_steps({str(steps)!r})"
            )
            if code:
                raise RuntimeError(f"the undisturbed training ({path}) ended with {code}: {errors}")
            self.healthy[path] = Healthy(result=result_of(run), steps=steps.read_text().split())
        return self.healthy[path]

    def attempt(self, run: Path, path: str, kind: str, step: int) -> str:
        """Plant a number; go on without it.  Gives what was broken, or ""."""
        healthy = self.undisturbed(path)
        code, errors = self.train(path, run, f"from tests.faults.test_numbers import poison; poison({kind!r}, {step})")
        if code != 7 or "expected finite numbers" not in errors:
            return f"exit {code}, expected 7 that says so: {errors[-300:]}"
        try:
            if (run / "best.safetensors").exists() and (
                bad := not_finite(load_checkpoint(run / "best.safetensors")[0])
            ):
                return f"the best weights' {bad} is not finite"
            left, wanted = left_of(run), healthy.last_before(kind, step)
            if left.step != wanted:
                return f"the state kept is of step {left.step}, expected {wanted}"
            if wanted and fingerprint(load_checkpoint(run / "last.safetensors")[0]) != healthy.steps[wanted - 1]:
                return f"the state kept is not the healthy one of step {wanted}"
        except CheckpointError as error:
            return str(error)
        kept = f"the state of step {wanted} is kept" if wanted else "no state was saved yet"
        if kept not in errors:
            return f"printed {errors[-300:]}, expected {kept}"
        code, errors = self.train(path, run, "")
        if not code and (anew := begun_anew(run, left)):
            return f"resumed without it: {anew}"
        if code or result_of(run) != healthy.result:
            return f"resumed without it: exit {code}, expected the undisturbed run's result: {errors[-300:]}"
        return ""


@contextlib.contextmanager
def open_setup(folder: Path) -> Iterator[Setup]:
    """Convert; children are there until the end."""
    environment = ENVIRONMENT | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    betons = make_betons(folder)
    with ForkServer(folder / "children", environment) as server:
        yield Setup(server=server, betons=betons, folder=folder, healthy={})


def run(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """The campaign."""
    tally = Tally()
    chosen = COMBINATIONS
    if count <= len(KINDS):  # a short form has time for one undisturbed run, uncompiled
        rng = random.Random(f"{seed}")
        path = rng.choice(UNCOMPILED)
        chosen = rng.sample([one for one in COMBINATIONS if one[0] == path], len(KINDS))
    with open_setup(folder) as place:
        for attempt in range(count):
            path, kind, step = chosen[attempt % len(chosen)]
            out = folder / f"run-{attempt}"
            broken = place.attempt(out, path, kind, step)
            if broken:
                tally.broke(f"seed {seed}, attempt {attempt}: {path}, {kind} at step {step}: {broken}")
            else:
                tally.held(f"exit 7 ({path})")
            shutil.rmtree(out, ignore_errors=True)
            advance()
    return tally


CAMPAIGN = Campaign(
    name="numbers",
    attack="NaN, infinity and overflow in weights, gradients, loss, moments and batch norm's buffers, at a step of "
    "each epoch, on the host's and the device's code paths, in both precisions, eager and compiled, all on a CPU",
    holds="exit 7, and the message says so; the last healthy state stays, and the run, resumed from it without the "
    "number, ends with the undisturbed run's result; the best weights are finite",
    run=run,
    short=3,
    full=len(COMBINATIONS),
)


# ---- what the campaign notices


HERE = sys.modules[__name__]
SAVES_ANYTHING = (
    "import engine.train.trainer as training_run; training_run.Training.check_finite = lambda self, tensors: None"
)
GOES_ON = "import engine.train.step as step; step.Step._check = lambda self, loss: None"
SKIPS = """
import engine.train.trainer as training_run
plain = training_run.Training.save_last
training_run.Training.save_last = lambda self: None if self.state.step == {step} else plain(self)
"""
STARTS_ANEW = "import engine.train.trainer as training_run; training_run.Training.find_state = lambda self: {}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    """A range, with an undisturbed training of the product as it is."""
    with open_setup(tmp_path_factory.mktemp("range")) as place:
        place.undisturbed("host")
        yield place


@pytest.mark.parametrize(
    ("fault", "kind", "step", "noticed"),
    [
        (SAVES_ANYTHING, "weight NaN", 1, "of step 1, expected None"),
        (GOES_ON, "gradient NaN", 1, "of step None, expected 1"),
        (SKIPS.format(step=3), "weight NaN", 4, "of step None, expected 3"),
        (SKIPS.format(step=6), "weight NaN", 7, "of step 3, expected 6"),
        (STARTS_ANEW, "loss inf", 4, "went on anew"),
    ],
    ids=["saves anything", "goes on", "saves no first epoch", "saves no second epoch", "starts anew"],
)
def test_a_broken_promise_is_noticed(
    place: Setup, tmp_path: Path, fault: str, kind: str, step: int, noticed: str
) -> None:
    broken = replace(place, defect=fault).attempt(tmp_path / "run", "host", kind, step)
    assert noticed in broken, broken


def test_every_promise_holds_under_attack(place: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HERE, "open_setup", lambda folder: contextlib.nullcontext(place))
    check_short_form(CAMPAIGN, tmp_path)
