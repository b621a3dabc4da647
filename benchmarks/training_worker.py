"""One side of a training contest, as a process: plainfilm, PyTorch as its users write it, or the reference pipeline.

Reads commands from stdin, a line each, and answers each with a line of JSON.  `losses 3` trains three steps and gives
their losses, `steps 2` trains two, `multiply 2` multiplies matrices twice, in the side's precision.  With --data,
`count 1` gives the numbers of training and validation images, and `epochs 2` trains and validates twice.  Only
plainfilm's sides import its engine.
"""

# N batch, H W rows and columns of the crop

import argparse
import json
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from benchmarks.settings import BATCH, THREADS
from tests.naive import Plain

DROPOUT = 0.0  # compiled networks draw other random numbers; without dropout the losses compare
SIDE = 2048  # of the matrices
MODES = {"torch.compile": "default", "torch.compile, reduce-overhead": "reduce-overhead"}
OURS, MIXED, STOCK = "plainfilm", "plainfilm, bfloat16", "stock PyTorch, NCHW"
AUTOCAST = {"autocast, channels_last": "", "torch.compile, autocast": "default"}  # bfloat16, and all that helps
STEP_RIVALS = (OURS, STOCK, "eager, channels_last", *MODES)
MIXED_RIVALS = (MIXED, STOCK, *AUTOCAST, OURS)

Step = Callable[[], float]  # gives the loss


def batch(crop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames in [-1, 1] whose labels can be learnt."""
    labels_N = torch.arange(BATCH) % 2
    frames_N1HW = torch.rand((BATCH, 1, crop, crop), generator=torch.Generator().manual_seed(0)) * 2 - 1
    frames_N1HW[:, :, : crop // 2] += 0.2 * labels_N[:, None, None, None]
    return frames_N1HW.clamp_(-1, 1), labels_N


def our_step(crop: int, rate: float, amp: Literal["on", "off"]) -> Step:
    """The engine's step, as `train` takes it.  amp: whether in bfloat16."""
    from engine.device import choose_policy
    from engine.networks.cnn import Cnn
    from engine.train.step import Step as RecipeStep
    from engine.train.step import make_learner, train_step
    from loaders.machine import keep_allocations

    keep_allocations()
    plain, network = Plain(2, crop, DROPOUT), Cnn(2, crop, DROPOUT)
    network.load_state_dict({name: plain.state_dict()[name] for name in network.state_dict()})
    policy = choose_policy("cpu", amp, "off", num_steps=0)
    learner = make_learner(network, policy, learning_rate=rate, batch_size=BATCH, class_weight_K=None)
    step, (frames_N1HW, labels_N), numbers = RecipeStep(learner, 2), batch(crop), count()
    return lambda: train_step(step, frames_N1HW, labels_N, seed=0, number=next(numbers)).loss


def their_step(rival: str, crop: int, rate: float) -> Step:
    """PyTorch's step: stock, or as fast as a few lines make it."""
    network, (frames_N1HW, labels_N) = Plain(2, crop, DROPOUT), batch(crop)
    stock, mixed, mode = rival == STOCK, rival in AUTOCAST, (MODES | AUTOCAST).get(rival, "")
    if mixed:
        from loaders.machine import keep_allocations  # as one more line of theirs would

        keep_allocations()
    if not stock:
        network.to(memory_format=torch.channels_last)
        frames_N1HW = frames_N1HW.contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=rate, fused=None if stock else True)
    criterion = nn.CrossEntropyLoss()
    forward = torch.compile(network, mode=mode, dynamic=False) if mode else network

    def step() -> float:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            logits_NK = forward(frames_N1HW)
        loss = criterion(logits_NK.float(), labels_N)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def our_epoch(betons: Path, amp: Literal["on", "off"]) -> tuple[list[int], Callable[[], object]]:
    """Numbers of training and validation images, and an epoch of both.  amp: whether in bfloat16."""
    from benchmarks.equivalence import BareTraining
    from loaders.config import LoaderConfig
    from loaders.machine import keep_allocations

    keep_allocations()
    training = BareTraining(betons, LoaderConfig(batch_size=BATCH, threads=THREADS), amp=amp)
    return [training.loader.num_samples, training.val_loader.num_samples], training.epoch


def reference_epoch(manifest: Path, crop: int) -> tuple[list[int], Callable[[], object]]:
    """Numbers of training and validation images, and an epoch of both.  manifest: a table of files."""
    from engine.profile.reference import Reference, open_files

    settings = argparse.Namespace(
        folder=manifest.parent, manifest=manifest, size=crop, batch_size=BATCH, workers=0, device="cpu", seed=0
    )
    sets = open_files(settings)
    training = Reference(sets, settings)

    def epoch() -> None:
        training.train(training.train_loader)
        training.validate(training.val_loader)

    return [len(data) for data in sets[:2]], epoch  # type: ignore[arg-type]


def main() -> None:
    """Answer commands until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", choices=[*dict.fromkeys((*STEP_RIVALS, *MIXED_RIVALS)), "reference"])
    parser.add_argument(
        "--data", type=Path, help="for whole epochs: folder of betons, or the reference's table of files"
    )
    parser.add_argument("--crop", type=int, default=224)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    chosen = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    ours, amp = chosen.side in (OURS, MIXED), "on" if chosen.side == MIXED else "off"
    if chosen.data:
        counts, epoch = our_epoch(chosen.data, amp) if ours else reference_epoch(chosen.data, chosen.crop)
        actions: dict[str, Callable[[], object]] = {"count": lambda: None, "epochs": epoch}
    else:
        mixed = chosen.side == MIXED
        settings = (chosen.crop, chosen.learning_rate)
        step = our_step(*settings, amp) if ours else their_step(chosen.side, *settings)
        one, other = torch.rand(2, SIDE, SIDE, dtype=torch.bfloat16 if mixed else torch.float32).unbind()
        actions = {"steps": step, "losses": step, "multiply": lambda: torch.mm(one, other)}
    for line in sys.stdin:
        what, number = line.split()
        results = [actions[what]() for _ in range(int(number))]
        print(json.dumps(counts if chosen.data else results if what == "losses" else None), flush=True)


if __name__ == "__main__":
    main()
