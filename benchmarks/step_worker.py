"""One rival of the training step, as a process: plainfilm, or PyTorch as its users write it.

Obeys lines: `losses 3` trains three steps and gives their losses, `steps 2` trains two, `multiply 2` multiplies
matrices twice.
"""

# N batch, H W rows and columns of the crop

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.settings import BATCH, THREADS
from loaders.machine import keep_allocations
from tests.plain import Plain

LEARNING_RATE = 1e-3
DROPOUT = 0.0  # compiled networks draw other random numbers; without dropout the losses compare
SIDE = 2048  # of the matrices
MODES = {"torch.compile": "default", "torch.compile, reduce-overhead": "reduce-overhead"}
RIVALS = ("plainfilm", "stock PyTorch, NCHW", "eager, channels_last", *MODES)

Step = Callable[[int], float]


def batch(crop: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames in [-1, 1] whose labels can be learnt."""
    labels_N = torch.arange(BATCH) % 2
    frames_N1HW = torch.rand((BATCH, 1, crop, crop), generator=torch.Generator().manual_seed(0)) * 2 - 1
    frames_N1HW[:, :, : crop // 2] += 0.2 * labels_N[:, None, None, None]
    return frames_N1HW.clamp_(-1, 1), labels_N


def our_step(crop: int) -> Step:
    """The engine's step, as `train` takes it."""
    from engine.device import choose_policy
    from engine.networks.cnn import Cnn
    from engine.train.step import make_learner, train_step

    keep_allocations()
    plain, network = Plain(2, crop, DROPOUT), Cnn(2, crop, DROPOUT)
    network.load_state_dict({name: plain.state_dict()[name] for name in network.state_dict()})
    policy = choose_policy("cpu", "off", "off", num_steps=0)
    learner = make_learner(network, policy, learning_rate=LEARNING_RATE, batch_size=BATCH, class_weight_K=None)
    frames_N1HW, labels_N = batch(crop)
    return lambda step: train_step(learner, frames_N1HW, labels_N, seed=0, step=step)[0]


def their_step(rival: str, crop: int) -> Step:
    """PyTorch's step: everything that is not `stock` is as fast as a few lines make it."""
    network, (frames_N1HW, labels_N) = Plain(2, crop, DROPOUT), batch(crop)
    stock = rival == "stock PyTorch, NCHW"
    if not stock:
        network.to(memory_format=torch.channels_last)
        frames_N1HW = frames_N1HW.contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), lr=LEARNING_RATE, fused=None if stock else True)
    criterion = nn.CrossEntropyLoss()
    forward = torch.compile(network, mode=MODES[rival], dynamic=False) if rival in MODES else network

    def step(number: int) -> float:
        optimiser.zero_grad()
        loss = criterion(forward(frames_N1HW), labels_N)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def main() -> None:
    """Obey."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("--crop", type=int, default=224)
    chosen = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    step = our_step(chosen.crop) if chosen.rival == "plainfilm" else their_step(chosen.rival, chosen.crop)
    one, other = torch.rand(2, SIDE, SIDE).unbind()
    taken = 0
    for line in sys.stdin:
        what, number = line.split()
        answer = []
        for _ in range(int(number)):
            if what == "multiply":
                torch.mm(one, other)
            else:
                answer.append(step(taken))
                taken += 1
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
