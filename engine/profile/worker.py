"""A process of `profile` that trains one variant on command, so that no variant's settings reach another."""

# N batch, H W rows and columns of the crop

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from engine.device import Policy, choose_policy, settle_precision
from engine.networks.cnn import Cnn
from engine.profile.breakdown import Answer, Variant
from engine.profile.reference import Clock, answer
from engine.train.epochs import DeviceEpochs
from engine.train.state import State
from engine.train.step import Learner, Step, make_learner, predict, train_step
from loaders.atomic_file import publish_bytes
from loaders.batches.loader import Loader
from loaders.config import LoaderConfig
from loaders.errors import InputError
from loaders.machine import keep_allocations

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0  # seconds that a process has to end
LEARNING_RATE, DROPOUT = 1e-3, 0.5
SMALL, LARGE = 1, 8  # images: a usual batch of at least the second is compared with one of the first, else with it
REPEATS = 3


class VariantProcess:
    """A running program that answers JSON lines.  Owns the process.

    Errors: InputError once it has ended, with the variant's name and the last line of its errors.
    """

    def __init__(self, name: str, module: str, arguments: list[str]) -> None:
        self.name = name
        self._errors = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (closed by `close`)
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, text=True, cwd=ROOT,
        )  # fmt: skip

    def ask(self, do: str, **how: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `answer` gives the reason
            self._process.stdin.write(json.dumps({"do": do} | how) + "\n")
            self._process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        code = self._process.wait()
        self._errors.seek(0)
        errors = self._errors.read().strip().splitlines() or ["no message"]
        raise InputError(
            f"the process of variant {self.name} ended with exit code {code}: {errors[-1]}; expected an answer; "
            "correct what it names, or lower --batch-size if memory ran out"
        )

    def dismiss(self) -> None:
        """Let the process end, without waiting."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdout is not None
        self.dismiss()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._process.kill()  # in the middle of a turn it reads no commands
        self.close()


def open_sets(data: Path, config: LoaderConfig) -> tuple[Loader, Loader]:
    """The training set, and of the validation set a share of about a batch."""
    with Loader(data / "val.beton", replace(config, training=False)) as whole:
        shares = max(1, whole.num_samples // config.batch_size)
    share = replace(config, training=False, rank=0, world_size=shares)
    loader = Loader(data / "train.beton", replace(config, training=True), tensors=True)
    return loader, Loader(data / "val.beton", share, tensors=True)


def learner_for(variant: Variant, policy: Policy, loader: Loader) -> Learner:
    """A network and its optimiser, as far as the variant has the engine's."""
    facts, batch_size = loader.beton.facts, loader.config.batch_size
    torch.manual_seed(loader.config.seed)
    network = Cnn(len(facts.classes), facts.crop, DROPOUT, fused=variant.fused)
    learner = make_learner(network, policy, learning_rate=LEARNING_RATE, batch_size=batch_size, class_weight_K=None)
    if variant.fast_layout:
        return learner
    return replace(learner, optimiser=torch.optim.Adam(network.parameters(), lr=LEARNING_RATE))


def policy_for(variant: Variant, device: str) -> Policy:
    """The engine's policy, less what the variant lacks."""
    policy = choose_policy(device, "on" if variant.mixed else "off", "off", num_steps=0)
    settle_precision(policy)
    return policy if variant.fast_layout else replace(policy, memory_format=torch.contiguous_format)


class HostRounds:
    """Turns of a variant whose batches the host makes.  Owns its loaders."""

    def __init__(self, variant: Variant, data: Path, config: LoaderConfig, device: str) -> None:
        self.policy = policy_for(variant, device)
        self.loader, self.val_loader = open_sets(data, config)
        self.learner = learner_for(variant, self.policy, self.loader)
        self.recipe = Step(self.learner, len(self.loader.beton.facts.classes))
        self.turns = self.steps = 0
        self.making = self.computing = 0.0  # of the loader's threads, in epochs that are over

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches of one epoch after another."""
        self.loader.set_epoch(self.turns)
        self.turns += 1
        while True:
            with contextlib.closing(iter(self.loader)) as batches:  # type: ignore[type-var]
                for frames_N1HW, labels_N, _ in batches:
                    yield frames_N1HW, labels_N
            self.making += self.loader.making_seconds
            self.computing += self.loader.cpu_seconds

    def step(self, batch: tuple[torch.Tensor, torch.Tensor], lap: Callable[[str], None]) -> int:
        """One training step.  Gives the number of images."""
        train_step(self.recipe, *batch, seed=self.loader.config.seed, number=self.steps, lap=lap)
        self.steps += 1
        return len(batch[1])

    def train(self, steps: int, seconds: float) -> Answer:
        """So many steps at least, and for so long at least, after one that does not count."""
        with contextlib.closing(self.batches()) as batches:  # type: ignore[type-var]
            self.step(next(batches), lambda part: None)  # the threads have filled or not filled their queue meanwhile
            before = self.threads_worked()
            clock, images, done = Clock(self.policy.device), 0, 0
            while done < steps or clock.last - clock.begin < seconds:
                batch = next(batches)
                clock.lap("wait")
                images += self.step(batch, clock.lap)
                clock.lap("other")
                done += 1
            making, computing = (now - then for now, then in zip(self.threads_worked(), before, strict=True))
        return {
            "images": images, "steps": done, "seconds": clock.last - clock.begin,
            "parts": clock.seconds | {"augment": making}, "overlapped": ["augment"], "making": making,
            "computing": computing,
        }  # fmt: skip

    def threads_worked(self) -> tuple[float, float]:
        """Seconds that the loader's threads have been making batches, and computed for them."""
        return self.making + self.loader.making_seconds, self.computing + self.loader.cpu_seconds

    def validate(self) -> Answer:
        """Predict the share of the validation set."""
        begin = time.perf_counter()
        label_N, _ = predict(self.learner.network, self.val_loader, self.policy)
        return {"images": len(label_N), "seconds": time.perf_counter() - begin}

    def sizes(self) -> Answer:
        """Seconds of a step by batch size: of the usual one, and of one that is much smaller, or larger."""
        with contextlib.closing(self.batches()) as batches:  # type: ignore[type-var]
            frames_N1HW, labels_N = next(batches)
        usual = len(labels_N)
        sizes = (usual, SMALL if usual >= LARGE else LARGE)
        found: dict[int, list[float]] = {size: [] for size in sizes}
        for _ in range(REPEATS + 1):
            for size in sizes:
                repeats = -(-size // usual)
                frames, labels = frames_N1HW.repeat(repeats, 1, 1, 1)[:size], labels_N.repeat(repeats)[:size]
                begin = time.perf_counter()
                self.step((frames, labels), lambda part: None)
                found[size].append(time.perf_counter() - begin)
        return {"sizes": [[size, statistics.median(seconds[1:])] for size, seconds in sorted(found.items())]}

    def close(self) -> None:
        """Give the betons back."""
        self.loader.close()
        self.val_loader.close()


class DeviceRounds:
    """Turns of a variant that makes batches and steps on the device, queued without waiting.  Owns its loaders."""

    def __init__(self, variant: Variant, data: Path, config: LoaderConfig, device: str) -> None:
        self.policy = policy_for(variant, device)
        self.loader, self.val_loader = open_sets(data, replace(config, resident="auto"))
        learner = learner_for(variant, self.policy, self.loader)
        self.epochs = DeviceEpochs(learner, self.loader, self.val_loader, config.resident)
        self.state = State(conversion_id="", loader=self.loader.state_dict())
        self.forget()

    def forget(self) -> None:
        """Begin an epoch's sums."""
        num_classes = len(self.loader.beton.facts.classes)
        self.state.loss_sum, self.state.confusion = 0.0, np.zeros((num_classes, num_classes), np.int64).tolist()

    def train(self, steps: int, seconds: float) -> Answer:
        """So many steps at least, and for so long at least, after some that do not count.  They are not divided."""
        self.run(1, 0)
        begin = time.perf_counter()
        images, done = self.run(steps, seconds)
        passed = time.perf_counter() - begin
        return {"images": images, "steps": done, "seconds": passed, "parts": {"step": passed}, "overlapped": []}

    def run(self, steps: int, seconds: float) -> tuple[int, int]:
        """Images and steps that were trained on, once they are all done."""
        begin, before, images, over = time.perf_counter(), self.state.step, 0, False
        while not over:
            epoch, start, done = self.loader.epoch, self.loader.position, self.state.step - before
            with contextlib.closing(self.epochs.train(self.state)) as losses:  # type: ignore[type-var]
                for queued, _ in enumerate(losses, start=done + 1):
                    over = queued >= steps and time.perf_counter() - begin >= seconds
                    if over:
                        break
            if self.loader.epoch > epoch:
                images += self.loader.num_samples - start
                self.forget()
            else:
                images += self.loader.position - start
        return images, self.state.step - before

    def validate(self) -> Answer:
        """Predict the share of the validation set."""
        begin = time.perf_counter()
        label_N, _ = self.epochs.validate(lambda samples: None)
        return {"images": len(label_N), "seconds": time.perf_counter() - begin}

    def sizes(self) -> Answer:
        """A captured step has one size."""
        return {"sizes": []}

    def close(self) -> None:
        """Give the betons back."""
        self.loader.close()
        self.val_loader.close()


Rounds = HostRounds | DeviceRounds


def trace(rounds: Rounds, path: Path, steps: int) -> Answer:
    """Record a few steps for chrome://tracing.  Errors: StorageError."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if rounds.policy.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    rounds.train(1, 0)
    with torch.profiler.profile(activities=activities) as profiler:
        rounds.train(steps, 0)
    with tempfile.TemporaryDirectory(prefix="plainfilm-") as folder:
        recorded = Path(folder) / f"trace{path.suffix}"  # which packs it if it is .gz
        profiler.export_chrome_trace(str(recorded))
        publish_bytes(path, recorded.read_bytes())
    return {"trace": str(path)}


def main() -> None:
    """Carry out commands until stdin ends."""
    task = json.loads(sys.argv[1])
    variant = Variant(**task["variant"])
    kept = keep_allocations(variant.arena)
    torch.set_num_threads(task["threads"])
    kind = DeviceRounds if variant.on_device else HostRounds
    rounds = kind(variant, Path(task["data"]), LoaderConfig(**task["loader"]), task["device"])
    with contextlib.closing(rounds):
        answer({"device": rounds.policy.describe(), "arena": kept, "threads": torch.get_num_threads()})
        for line in sys.stdin:
            command = json.loads(line)
            do = command.pop("do")
            if do == "trace":
                answer(trace(rounds, Path(command["path"]), command["steps"]))
            elif do in ("train", "validate", "sizes"):
                answer(getattr(rounds, do)(**command))
            else:
                return


if __name__ == "__main__":
    main()
