"""Campaign: a number that is not finite, or far too large, appears in a training on each code path, run on a CPU."""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.train.checkpoint import load_checkpoint, not_finite
from loaders.errors import CheckpointError
from tests.faults.poison import fingerprint
from tests.faults.small_run import EPOCHS, Result, begun_anew, left_of, make_betons, result_of, train_command, warm
from tests.faults.tally import Campaign, Tally
from tests.faults.victim import Nursery

PATHS = {  # source that each training of the path runs first, and settings
    "host": ("", ()),
    "device": ("from tests.faults.poison import on_device; on_device(found_inf=True)", ()),
    # where fused Adam is deaf to the flag
    "device, by copies": ("from tests.faults.poison import on_device; on_device(found_inf=False)", ()),
    "device, streamed": ("from tests.faults.poison import on_device; on_device(found_inf=True)", ("--resident", "off")),
    "compiled": ("", ("--compile", "on")),
}
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
        for number, path in enumerate(list(PATHS)[:4])
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
class Range:
    """Where attempts are made.

    healthy: by path, as far as needed.  defect: a fault of the product for every victim, to try the campaign itself.
    """

    nursery: Nursery
    betons: Path
    folder: Path
    healthy: dict[str, Healthy]
    defect: str = ""

    def train(self, path: str, run: Path, plant: str) -> tuple[int, str]:
        """Train, or go on.  Gives exit code and what was said; -1 for no end."""
        source, settings = PATHS[path]
        before = "\n".join((self.defect, source, plant))
        ending = self.nursery.run(train_command(self.betons, run, *settings), before=before, timeout=OUT_OF_TIME)
        return (-1 if ending.timed_out or ending.traceback else ending.code), ending.errors

    def undisturbed(self, path: str) -> Healthy:
        """The run without a planted number."""
        if path not in self.healthy:
            run, steps = self.folder / f"healthy-{len(self.healthy)}", self.folder / f"steps-{len(self.healthy)}"
            code, errors = self.train(
                path, run, f"from tests.faults.poison import note_steps; note_steps({str(steps)!r})"
            )
            if code:
                raise RuntimeError(f"the undisturbed training ({path}) ended with {code}: {errors}")
            self.healthy[path] = Healthy(result=result_of(run), steps=steps.read_text().split())
        return self.healthy[path]

    def attempt(self, run: Path, path: str, kind: str, step: int) -> str:
        """Plant a number; go on without it.  Gives what was broken, or ""."""
        healthy = self.undisturbed(path)
        code, errors = self.train(path, run, f"from tests.faults.poison import poison; poison({kind!r}, {step})")
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
            return f"said {errors[-300:]}, expected {kept}"
        code, errors = self.train(path, run, "")
        if not code and (anew := begun_anew(run, left)):
            return f"resumed without it: {anew}"
        if code or result_of(run) != healthy.result:
            return f"resumed without it: exit {code}, expected the undisturbed run's result: {errors[-300:]}"
        return ""


@contextlib.contextmanager
def open_range(folder: Path) -> Iterator[Range]:
    """Convert; victims are there until the end."""
    environment = ENVIRONMENT | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "compiled")}
    betons = make_betons(folder)
    with Nursery(folder / "victims", environment, warm(betons, folder / "warm")) as nursery:
        yield Range(nursery=nursery, betons=betons, folder=folder, healthy={})


def run(count: int, seed: int, folder: Path, advance: Callable[[], None]) -> Tally:
    """The campaign."""
    tally = Tally()
    chosen = COMBINATIONS
    if count <= len(KINDS):  # a short form has time for one undisturbed run, uncompiled
        rng = random.Random(f"{seed}")
        path = rng.choice(list(PATHS)[:4])
        chosen = rng.sample([one for one in COMBINATIONS if one[0] == path], len(KINDS))
    with open_range(folder) as place:
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
    "each epoch, on the host's and the device's code paths, eager and compiled, all of them on a CPU",
    holds="exit 7, and the message says so; the last healthy state stays, and the run, resumed from it without the "
    "number, ends with the undisturbed run's result; the best weights are finite",
    run=run,
    short=3,
    full=len(COMBINATIONS),
)
