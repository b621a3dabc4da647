"""Probes of a machine: how fast it multiplies matrices and copies memory, and how much of both a step needs."""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

MATRIX = 2048  # rows and columns
COPIED = 64 << 20  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """What a machine gives, in FLOP/s and bytes copied a second, and how much of it the engine's steps take.

    arithmetic: the network's products as a share of matmul.  copying: the time that copying the convolutions' outputs
    twice, once forward and once backward, would take, as a share of a step's.
    """

    matmul: float
    matmul_spread: float
    copy: float
    arithmetic: float
    copying: float
    flops_an_image: int


def synchronise(device: torch.device) -> None:
    """Wait for what is queued on a GPU."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def best_of(call: Callable[[], object], device: torch.device) -> float:
    """Seconds of the quickest of three calls."""
    seconds = []
    for _ in range(3):
        synchronise(device)
        begin = time.perf_counter()
        call()
        synchronise(device)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of a product of two square matrices."""
    a, b = (torch.randn(MATRIX, MATRIX, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * MATRIX**3 / best_of(lambda: torch.mm(a, b, out=out), device)


def copy_rate(device: torch.device) -> float:
    """Bytes copied a second: each is read once and written once."""
    source = torch.ones(COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return COPIED / best_of(lambda: target.copy_(source), device)


def training_flops(network: nn.Module, crop: int) -> int:
    """FLOP that an image costs in a training step: matrix products and convolutions, a multiply-add as two."""
    shapes_alone = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter:
        shapes_alone(torch.empty(1, 1, crop, crop, device="meta")).sum().backward()
    return counter.get_total_flops()


def activation_bytes(network: nn.Module, crop: int, bytes_a_number: int) -> int:
    """Bytes of one image's convolution outputs: what a step has to keep from the forward to the backward pass."""
    total, side = 0, crop
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            total += module.out_channels * side**2 * bytes_a_number
        elif isinstance(module, nn.MaxPool2d):
            side //= 2
    return total


def bound_of(
    network: nn.Module, crop: int, seconds: float, matmul: Sequence[float], copied: Sequence[float], bytes_a_number: int
) -> Bound:
    """What a training of so many seconds an image takes of what the machine gives.  matmul, copied: rates, by round."""
    flops, rate, copy_rate = training_flops(network, crop), statistics.median(matmul), statistics.median(copied)
    return Bound(
        matmul=rate, matmul_spread=max(matmul) / min(matmul), copy=copy_rate, arithmetic=flops / seconds / rate,
        copying=2 * activation_bytes(network, crop, bytes_a_number) / copy_rate / seconds, flops_an_image=flops,
    )  # fmt: skip
