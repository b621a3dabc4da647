"""The network that validates and is kept as the best: as it trains, with recomputed statistics, or averaged."""

# K channels of a batch norm

import copy
from collections.abc import Iterable, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from engine.config import ValidateWith
from engine.networks.cnn import Cnn
from engine.networks.registry import body_of, is_frozen
from engine.train.step import Learner
from loaders.cautions import Caution, caution

SHARE = 6  # one batch in so many of an epoch is recomputed from: forward alone takes a third of a step or less
MOST, LEAST = 32, 2  # batches that are, of the recipe's 32 images: more do not change the statistics visibly
HORIZON = 1.0  # epochs over which weights are averaged, once there have been some
AVERAGE = "average."  # begins the names of averaged tensors in a checkpoint
STEPS = f"{AVERAGE}steps"


class Validated:
    """The network that validates, as `--validate-with` has it.  Training neither reads it nor notices it.

    running: the learner's own network, with the running statistics of its batch norms as they are.
    recomputed: a copy, to which `recompute` gives the weights at an epoch's end, and statistics of its own.
    averaged: a copy whose weights and statistics are an exponential moving average over the steps (`follow`), as of
    Polyak and Juditsky (1992).  A step weighs 1 / (HORIZON · steps_per_epoch), more in the beginning: 9 / (10 + step).
    network: what validates.  touched: every tensor that `follow` changes; each has its place from the beginning.
    """

    def __init__(self, learner: Learner, way: ValidateWith, steps_per_epoch: int) -> None:
        self.learner, self.way = learner, way
        self.network = learner.network if way == "running" else copy.deepcopy(learner.network).requires_grad_(False)
        self.horizon = max(1.0, HORIZON * steps_per_epoch)  # in steps
        self.steps = torch.zeros((), dtype=torch.float32, device=learner.policy.device)
        # pairs of places, which stay: weights and statistics, and the counts of batches that are no numbers to average
        mine, live = self.network.state_dict(keep_vars=True), learner.network.state_dict(keep_vars=True)
        self.mine = {name: value.detach() for name, value in mine.items()}
        averaged = [name for name, value in mine.items() if value.is_floating_point()]
        self._averaged, self._live = [self.mine[name] for name in averaged], [live[name].detach() for name in averaged]
        self.touched = [*self._averaged, self.steps] if way == "averaged" else []

    @torch.no_grad()
    def follow(self, stopped: Tensor) -> None:
        """Take a step of training into the average.  Queued like the step, and captured with it.

        stopped: 0, or 1 after a step that was not finite, from which on nothing changes.
        """
        if self.way != "averaged":
            return
        alive = 1 - stopped
        self.steps += alive
        share = (9 / (9 + self.steps)).clamp(min=1 / self.horizon) * alive
        differences = torch._foreach_sub(self._live, self._averaged)
        torch._foreach_mul_(differences, share)
        torch._foreach_add_(self._averaged, differences)

    @torch.no_grad()
    def recompute(self, batches: Iterable[Tensor]) -> None:
        """Take over the learner's weights, and recompute the statistics of every batch norm over batches.

        batches: frames_N1HW on the device.  Each is normalised by its own statistics, as in training, and dropout is
        off.  Mean and variance are those of all values together, the variance unbiased, as PyTorch keeps it (precise
        batch norm: Wu and Johnson 2021, arXiv:2105.07576).  Batch norms of a frozen body, whose statistics training
        does not use either, keep what they have.
        """
        assert self.way == "recomputed", "only this way has a network to recompute"
        self.network.load_state_dict(self.learner.network.state_dict())
        norms = batch_norms(self.learner.network, self.network)
        if not norms:
            return
        self.network.eval()
        batches = iter(batches)
        first_N1HW = next(batches)
        sizes = values_per_image(self.network, norms, first_N1HW[:1])
        pooled, before = [PooledStatistics(norm) for norm in norms], [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = 1.0  # running statistics are then those of the batch alone
        for frames_N1HW in chain([first_N1HW], batches):
            with self.learner.policy.precision():
                self.network(frames_N1HW)
            for statistics, size in zip(pooled, sizes, strict=True):
                statistics.add(len(frames_N1HW) * size)
        for statistics, norm, momentum in zip(pooled, norms, before, strict=True):
            statistics.settle()
            norm.momentum = momentum
            norm.eval()

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must keep to resume: the average.  A recomputed network comes from the learner's."""
        if self.way != "averaged":
            return {}
        return {STEPS: self.steps} | {f"{AVERAGE}{name}": value for name, value in self.mine.items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put saved tensors back in their places; without any, begin from the learner's weights as they are."""
        if self.way == "running":
            return
        live = self.learner.network.state_dict()
        for name, value in self.mine.items():
            value.copy_(tensors.get(f"{AVERAGE}{name}", live[name]))
        if STEPS in tensors:
            self.steps.copy_(tensors[STEPS])


def num_recomputed(num_batches: int) -> int:
    """How many batches of an epoch statistics are recomputed from: a sixth, but at least 2 and at most 32.

    A sixth of the forward passes costs about 5 % of an epoch.  Below 12 batches an epoch two of them are more than
    that; above 192 it costs less.  The last batch may be small, and is left out where there are others.
    """
    return max(1, min(max(LEAST, num_batches // SHARE), MOST, num_batches - 1))


def batch_norms(trained: nn.Module, network: nn.Module) -> list[nn.BatchNorm2d]:
    """The batch norms of a copy whose statistics training uses: none of a frozen body.  trained: what it copies."""
    body, frozen = body_of(network), body_of(trained)
    left_out = set(body.modules()) if body is not None and frozen is not None and is_frozen(frozen) else set()
    return [one for one in network.modules() if isinstance(one, nn.BatchNorm2d) and one not in left_out]


def nothing_to_recompute(way: ValidateWith, network: nn.Module, model: str) -> list[Caution]:
    """A caution where statistics are to be recomputed and the network has none: it then validates as it trains."""
    if way != "recomputed" or batch_norms(network, network):
        return []
    return [caution("nothing-to-recompute", model=model)]


def values_per_image(network: nn.Module, norms: list[nn.BatchNorm2d], frame_11HW: Tensor) -> list[int]:
    """How many values a channel each batch norm sees of one image: pixels of its map.

    network: in evaluation mode, which it stays in.
    """
    sizes: dict[nn.Module, int] = {}

    def note(norm: nn.Module, _: object, output_NKHW: Tensor) -> None:
        sizes[norm] = output_NKHW[0, 0].numel()

    handles = [norm.register_forward_hook(note) for norm in norms]
    fused = isinstance(network, Cnn) and network.fused
    if isinstance(network, Cnn):
        network.fused = False  # hooks need single layers
    network(frame_11HW.float())
    if isinstance(network, Cnn):
        network.fused = fused
    for handle in handles:
        handle.remove()
    return [sizes[norm] for norm in norms]


class PooledStatistics:
    """Mean and unbiased variance of batches together, from each one's, which a batch norm of momentum 1 holds.

    Added up as Chan, Golub and LeVeque (1979) do; in float64, where the device has it.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        assert norm.running_mean is not None, "batch norms here keep statistics"
        self.norm, device = norm, norm.running_mean.device
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.count = 0
        self.mean_K = torch.zeros(norm.num_features, dtype=wide, device=device)
        self.squares_K = torch.zeros_like(self.mean_K)  # of distances to the mean, their sum

    def add(self, count: int) -> None:
        """Add the batch whose statistics the norm holds.  count: its values a channel."""
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        distance_K = self.norm.running_mean.to(self.mean_K.dtype) - self.mean_K
        total = self.count + count
        self.squares_K += self.norm.running_var.to(self.mean_K.dtype) * (count - 1)
        self.squares_K += distance_K**2 * (self.count * count / total)
        self.mean_K += distance_K * (count / total)
        self.count = total

    def settle(self) -> None:
        """Give the norm the statistics of all batches."""
        assert self.norm.running_mean is not None and self.norm.running_var is not None
        self.norm.running_mean.copy_(self.mean_K)
        self.norm.running_var.copy_(self.squares_K / (self.count - 1))
