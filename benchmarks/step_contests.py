"""Contests of training: single steps, the step's arithmetic, and whole epochs."""

# N batch, H W rows and columns of the crop

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.agreement import Disagreement, expect_close
from benchmarks.contest import Call, Contest, Worker
from benchmarks.datasets import convert_with_table
from benchmarks.equivalence import DROPPED, LEARNING_RATE, BareTraining, Stock
from benchmarks.settings import BATCH, THREADS
from benchmarks.targets import (
    ARITHMETIC,
    ARITHMETIC_MIXED,
    FINDINGS,
    RECORDING,
    REFERENCE_128,
    REFERENCE_224,
    STEP,
    STEP_224,
    STEP_224_MIXED,
)
from benchmarks.training_worker import MIXED, OURS, SIDE, STEP_RIVALS
from engine.config import Recipe, TrainConfig
from engine.device import Policy, choose_device, choose_policy
from engine.networks.cnn import Cnn
from engine.profile.probes import training_flops
from engine.train.step import Step, make_learner, train_step
from engine.train.train import train
from loaders.batches.loader import Loader
from loaders.beton.reader import Beton
from loaders.beton.writer import write_beton
from loaders.config import LoaderConfig, Task
from loaders.sampling import DROPOUT, scalar_seed

CROP = 224
SEED = 0
NUM_CHECKED = 3  # steps; rounding then grows, because Adam makes much of gradients that are nearly nothing
PRODUCTS = 4  # of matrices, in one call
BESIDE_REFERENCE = {224: REFERENCE_224, 128: REFERENCE_128}
NAMES = tuple(f"finding {place}" for place in range(14))
UNOPTIMISED = {  # of torch.compile: one file a graph, whose headers are then read once, without optimisation or vectors
    "TORCHINDUCTOR_CPP_WRAPPER": "1",
    "AOT_INDUCTOR_DEBUG_COMPILE": "1",
    "AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL": "O0",
    "ATEN_CPU_CAPABILITY": "default",
}


def step_of(network: Cnn, policy: Policy) -> Step:
    return Step(make_learner(network, policy, learning_rate=LEARNING_RATE, batch_size=BATCH, class_weight_K=None), 2)


def relabelled(path: Path, out: Path, task: Task) -> Path:
    """A beton with the same frames and made-up labels: of NAMES one class a film, or a value or none for each."""
    with Beton(path) as beton:
        num_samples = len(beton)
        class_N = np.arange(num_samples) % len(NAMES)
        values = np.random.default_rng(SEED).choice([0.0, 1.0, np.nan], (num_samples, len(NAMES))).astype(np.float32)
        facts = replace(beton.facts, task=task, classes=NAMES, positive=NAMES[0] if task == "classes" else "")
        frames = (beton.frame(sample) for sample in range(num_samples))
        labels = values if task == "findings" else class_N
        write_beton(out, frames, labels, beton.rows_N, facts, beton.page_size)
    return out


@contextmanager
def findings_contest(path: Path, folder: Path) -> Iterator[Contest]:
    """Whole epochs of findings and of as many classes: the same frames and the same network."""
    policy = choose_policy("auto", "off", "off", num_steps=0)
    options = {"training": True, "threads": THREADS, "batch_size": BATCH, "seed": SEED, "tensors": True}
    tasks: tuple[Task, ...] = get_args(Task)
    with ExitStack() as stack:
        loaders = {
            task: stack.enter_context(Loader(relabelled(path, folder / f"{task}.beton", task), **options))
            for task in tasks
        }
        torch.manual_seed(SEED)
        network = Cnn(len(NAMES), loaders["findings"].beton.facts.crop, DROPPED)

        def step_on(task: Task) -> Step:
            settings = {"learning_rate": LEARNING_RATE, "batch_size": BATCH, "class_weight_K": None, "task": task}
            return Step(make_learner(copy.deepcopy(network), policy, **settings), len(NAMES))

        def check() -> None:
            loader = loaders["findings"]
            frames_N1HW, finding_NK, _ = next(iter(loader))
            loader.set_epoch(0)
            known_NK = ~finding_NK.isnan()
            torch.manual_seed(scalar_seed(SEED, DROPOUT, 0))  # the same units drop out
            logits_NK = copy.deepcopy(network).to(policy.device).train()(frames_N1HW.to(policy.device)).cpu()
            masked = binary_cross_entropy_with_logits(logits_NK[known_NK], finding_NK[known_NK])
            found = train_step(step_on("findings"), frames_N1HW, finding_NK, seed=SEED, number=0).loss
            expect_close("the first loss, of known labels", [masked.item()], [found], mean=1e-5)

        def epochs_of(task: Task) -> Call:
            step, number = step_on(task), count()

            def epoch() -> None:
                for frames_N1HW, labels, _ in loaders[task]:
                    train_step(step, frames_N1HW, labels, seed=SEED, number=next(number))

            return epoch

        yield Contest(
            what=FINDINGS,
            amount=len(loaders["findings"].beton),
            rivals={"plainfilm": epochs_of("findings"), f"{len(NAMES)} classes": epochs_of("classes")},
            check=check,
        )


@contextmanager
def step_contest(path: Path) -> Iterator[Contest]:
    """Whole epochs, loader and step."""
    policy = choose_policy("auto", "off", "off", num_steps=0)  # equal precision, so that outputs compare
    options = {"training": True, "threads": THREADS, "batch_size": BATCH, "seed": SEED, "tensors": True}
    with Loader(path, **options) as loader, Loader(path, **options) as stock_loader:
        crop = loader.beton.facts.crop
        torch.manual_seed(SEED)
        network = Cnn(2, crop, DROPPED)
        device = choose_device("auto")

        def check() -> None:
            our_step, stock = step_of(copy.deepcopy(network), policy), Stock(network, crop, device)
            ours, theirs = [], []
            for step, (frames_N1HW, labels_N, _) in enumerate(islice(loader, NUM_CHECKED)):
                ours.append(train_step(our_step, frames_N1HW, labels_N, seed=SEED, number=step).loss)
                torch.manual_seed(scalar_seed(SEED, DROPOUT, step))  # the same units drop out
                theirs.append(stock.step(frames_N1HW, labels_N))
            expect_close("the first loss", theirs[:1], ours[:1], mean=1e-4)
            expect_close(f"{NUM_CHECKED} losses", theirs, ours, mean=1e-2)
            loader.set_epoch(0)

        our_step, stock = step_of(copy.deepcopy(network), policy), Stock(network, crop, device)
        steps = 0

        def our_epoch() -> None:
            nonlocal steps
            for frames_N1HW, labels_N, _ in loader:
                train_step(our_step, frames_N1HW, labels_N, seed=SEED, number=steps)
                steps += 1

        def stock_epoch() -> None:
            for frames_N1HW, labels_N, _ in stock_loader:
                stock.step(frames_N1HW, labels_N)

        yield Contest(
            what=STEP,
            amount=len(loader.beton),
            rivals={"plainfilm": our_epoch, "stock PyTorch, NCHW": stock_epoch},
            check=check,
        )


def asking(worker: Worker, line: str) -> Call:
    return lambda: worker.ask(line)


@contextmanager
def step_224_contest(
    rivals: tuple[str, ...] = STEP_RIVALS, crop: int = CROP, *, optimised: bool = True
) -> Iterator[Contest]:
    """One step of the same network on the same batch; ours with its allocator's settings.

    rivals: STEP_RIVALS or MIXED_RIVALS, or some of them, ours first.  optimised: whether torch.compile's C++ is;
    without, only its outputs count.
    """
    mixed = rivals[0] == MIXED
    # at the recipe's rate the first steps go so far that rounding to bfloat16 decides where they end
    rate = ("--learning-rate", "1e-5") if mixed else ()
    with ExitStack() as stack:
        workers = {
            rival: stack.enter_context(
                Worker(
                    "benchmarks.training_worker", rival, "--crop", str(crop), *rate,
                    environment={} if optimised or "compile" not in rival else UNOPTIMISED,
                )
            )
            for rival in rivals
        }  # fmt: skip

        def check() -> None:
            with ThreadPoolExecutor(len(workers)) as pool:  # side by side: two of them compile
                asked = pool.map(lambda worker: worker.ask(f"losses {NUM_CHECKED}"), workers.values())
                losses = dict(zip(workers, asked, strict=True))
            ours = losses[rivals[0]]
            for rival, theirs in losses.items():
                expect_close(f"{rival}: the first loss", theirs[:1], ours[:1], mean=2e-3 if mixed else 1e-4)
                expect_close(f"{rival}: {NUM_CHECKED} losses", theirs, ours, mean=5e-3 if mixed else 1e-2)

        yield Contest(
            what=STEP_224_MIXED if mixed else STEP_224,
            amount=1,
            unit="steps",
            rivals={rival: asking(worker, "steps 1") for rival, worker in workers.items()},
            check=check,
        )


@contextmanager
def arithmetic_contest(crop: int = CROP, ours: str = OURS) -> Iterator[Contest]:
    """The step's arithmetic a second beside that of plain matrix products of 2048 × 2048, in one process.

    ours: OURS or MIXED; the products are in the same precision.
    """
    product = "product in bfloat16" if ours == MIXED else "sgemm"
    with Worker("benchmarks.training_worker", ours, "--crop", str(crop)) as worker:
        products = 2 * SIDE**3 * PRODUCTS / 1e9
        calls: dict[str, Callable[[], object]] = {
            "plainfilm's step": asking(worker, "steps 1"),
            product: asking(worker, f"multiply {PRODUCTS}"),
        }
        yield Contest(
            what=ARITHMETIC_MIXED if ours == MIXED else ARITHMETIC,
            amount=training_flops(Cnn(2, crop, 0.0), crop) * BATCH / 1e9,
            unit="GFLOP",
            rivals=calls,
            amounts={product: products},
        )


@contextmanager
def reference_contest(manifest: Path, folder: Path, crop: int) -> Iterator[Contest]:
    """An epoch of training and validation on the same radiographs; the reference decodes its files each time.

    Ours is in the precision that `train` would choose here; the reference in float32, as the report has it.
    """
    precision = MIXED if choose_policy("cpu", "auto", "off", num_steps=0).autocast else OURS
    betons, files = convert_with_table(manifest, folder, crop)
    size = ("--crop", str(crop))
    with (
        Worker("benchmarks.training_worker", precision, "--data", str(betons), *size) as ours,
        Worker("benchmarks.training_worker", "reference", "--data", str(files), *size) as theirs,
    ):

        def check() -> None:
            found, expected = theirs.ask("count 1"), ours.ask("count 1")
            if found != expected:
                raise Disagreement(f"reference: {found} images, expected {expected}")

        yield Contest(
            what=BESIDE_REFERENCE[crop],
            amount=sum(ours.ask("count 1")),
            rivals={"plainfilm": asking(ours, "epochs 1"), "reference pipeline": asking(theirs, "epochs 1")},
            check=check,
        )


@contextmanager
def recording_contest(betons: Path, folder: Path) -> Iterator[Contest]:
    """Two epochs as `train` runs them, with log, TensorBoard, checkpoints and curves, and two that keep nothing."""
    runs = count()
    loader = LoaderConfig(batch_size=BATCH, threads=THREADS, training=True)

    def recorded() -> None:
        recipe = Recipe(epochs=2, device="cpu", amp="off")
        train(TrainConfig(data=betons, out=folder / str(next(runs)), recipe=recipe, loader=loader))

    def bare() -> None:
        with BareTraining(betons, loader) as training:
            training.epoch()
            training.epoch()

    def check() -> None:
        with BareTraining(betons, loader) as training:
            f1 = training.epoch()
        recipe = Recipe(epochs=1, device="cpu", amp="off")
        config = TrainConfig(data=betons, out=folder / "check", recipe=recipe, loader=loader)
        if (found := train(config).best_f1) != f1:
            raise Disagreement(f"nothing recorded: F1 {f1}, expected {found}")

    yield Contest(
        what=RECORDING, amount=2, unit="epochs", rivals={"plainfilm": recorded, "nothing recorded": bare}, check=check
    )
