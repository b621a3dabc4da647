"""The contests of the training step at the recipe's size: with PyTorch in processes of their own, and with sgemm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from benchmarks.agreement import expect_close
from benchmarks.contest import Call, Contest
from benchmarks.settings import BATCH
from benchmarks.step_worker import MODES, RIVALS, SIDE
from benchmarks.targets import ARITHMETIC, STEP_224
from benchmarks.worker_process import Worker
from engine.networks.cnn import Cnn
from engine.profile.probes import training_flops

CROP = 224
NUM_CHECKED = 3  # steps; rounding then grows, because Adam makes much of gradients that are nearly nothing
PRODUCTS = 4  # of matrices, in one call
UNOPTIMISED = {  # of torch.compile: one file a graph, whose headers are then read once, without optimisation or vectors
    "TORCHINDUCTOR_CPP_WRAPPER": "1",
    "AOT_INDUCTOR_DEBUG_COMPILE": "1",
    "AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL": "O0",
    "ATEN_CPU_CAPABILITY": "default",
}


def asking(worker: Worker, line: str) -> Call:
    return lambda: worker.ask(line)


@contextmanager
def step_224_contest(
    rivals: tuple[str, ...] = RIVALS, crop: int = CROP, *, optimised: bool = True
) -> Iterator[Contest]:
    """One step of the same network on the same batch; ours with its allocator's settings, theirs with the default.

    optimised: whether torch.compile's C++ is; without, its outputs alone say anything.
    """
    with ExitStack() as stack:
        workers = {
            rival: stack.enter_context(
                Worker(
                    "benchmarks.step_worker", rival, "--crop", str(crop),
                    environment={} if optimised or rival not in MODES else UNOPTIMISED,
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
                expect_close(f"{rival}: the first loss", theirs[:1], ours[:1], mean=1e-4)
                expect_close(f"{rival}: {NUM_CHECKED} losses", theirs, ours, mean=1e-2)

        yield Contest(
            what=STEP_224,
            amount=1,
            unit="steps",
            rivals={rival: asking(worker, "steps 1") for rival, worker in workers.items()},
            check=check,
        )


@contextmanager
def arithmetic_contest(crop: int = CROP) -> Iterator[Contest]:
    """The step's arithmetic a second beside that of plain matrix products of 2048 × 2048, in one process."""
    with Worker("benchmarks.step_worker", RIVALS[0], "--crop", str(crop)) as worker:
        products = 2 * SIDE**3 * PRODUCTS / 1e9
        calls: dict[str, Callable[[], object]] = {
            "plainfilm's step": asking(worker, "steps 1"),
            "sgemm": asking(worker, f"multiply {PRODUCTS}"),
        }
        yield Contest(
            what=ARITHMETIC,
            amount=training_flops(Cnn(2, crop, 0.0), crop) * BATCH / 1e9,
            unit="GFLOP",
            rivals=calls,
            amounts={"sgemm": products},
        )
