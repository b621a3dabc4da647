"""The network that validates and is kept as the best: as it trains, with recomputed statistics, or averaged."""

# K channels of a batch norm

import copy
from collections.abc import Iterable, Mapping
from itertools import chain

import torch
from torch import Tensor, nn

from engine.config import ValidateWith
from engine.device import Policy
from engine.networks.cnn import Cnn
from engine.networks.registry import body_of, is_frozen
from engine.train.step import Learner
from loaders.cautions import Caution, caution

SHARE = 8  # one batch in so many of an epoch is recomputed from: forward alone takes a third of a step or less
MOST = 32  # batches: of the recipe's 32 images, a thousand
HORIZON = 1.0  # epochs over which weights are averaged, once there have been some
AVERAGE = "average."  # begins the names of averaged weights in a checkpoint
STEPS = f"{AVERAGE}steps"


class Validated:
    """The network that validates, as `--validate-with` has it.  Training neither reads it nor notices it.

    running: the learner's own network, with the running statistics of its batch norms as they are.
    recomputed: a copy with the weights of the epoch's end, whose statistics are recomputed with them (precise batch
    norm: Wu and Johnson 2021, arXiv:2105.07576).
    averaged: a copy whose weights are an exponential moving average over the steps (`follow`), and whose statistics are
    recomputed with them, since the averaged network has others than any that trained (Izmailov et al. 2018,
    arXiv:1803.05407).  A step weighs 1 / (HORIZON · steps_per_epoch), more in the beginning: 9 / (9 + step).
    network: what validates.  touched: every tensor that `follow` changes; each has its place from the beginning.
    """

    def __init__(self, learner: Learner, way: ValidateWith, steps_per_epoch: int) -> None:
        self.learner, self.way = learner, way
        self.network = learner.network if way == "running" else copy.deepcopy(learner.network).requires_grad_(False)
        self.horizon = max(1.0, HORIZON * steps_per_epoch)  # in steps
        self.steps = torch.zeros((), dtype=torch.float32, device=learner.policy.device)
        self._averaged: list[Tensor] = list(self.network.parameters()) if way == "averaged" else []
        self._live = [weight.detach() for weight in learner.network.parameters()]
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
    def finish_epoch(self, batches: Iterable[Tensor]) -> None:
        """Make the network ready to validate.

        batches: frames_N1HW on the device, over which the statistics of every batch norm are recomputed; none are taken
        where none are needed.  Each is normalised by its own statistics, as in training, and dropout is off.  Mean and
        variance are those of all values together, the variance unbiased, as PyTorch keeps it.  Batch norms of a frozen
        body keep the statistics that it trains with.
        """
        if self.way == "running":
            return
        trained = self.learner.network.state_dict()
        left = {name for name, _ in self.network.named_parameters()} if self.way == "averaged" else set()
        for name, value in self.network.state_dict().items():
            if name not in left:
                value.copy_(trained[name])
        if norms := batch_norms(self.learner.network, self.network):
            recompute(self.network, norms, batches, self.learner.policy)

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must keep to resume: the average.  The rest comes from the learner at an epoch's end."""
        if self.way != "averaged":
            return {}
        return {STEPS: self.steps} | {f"{AVERAGE}{name}": value for name, value in self.network.named_parameters()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Put saved tensors back in their places.

        tensors: of a checkpoint; without an average among them it begins with the learner's weights as they are.
        """
        if self.way != "averaged":
            return
        if STEPS in tensors:
            self.steps.copy_(tensors[STEPS])
        live = dict(self.learner.network.named_parameters())
        for name, value in self.network.named_parameters():
            value.copy_(tensors.get(f"{AVERAGE}{name}", live[name]))


def num_recomputed(num_batches: int) -> int:
    """How many batches of an epoch statistics are recomputed from: an eighth, but at least 1 and at most 32.

    An eighth of the forward passes costs about 4 % of an epoch; below 8 batches an epoch, one is more than that.
    """
    return max(1, min(num_batches // SHARE, MOST))


def recompute(network: nn.Module, norms: list[nn.BatchNorm2d], batches: Iterable[Tensor], policy: Policy) -> None:
    """Give batch norms of a network the statistics of batches.  See `Validated.finish_epoch`."""
    network.eval()
    batches = iter(batches)
    first_N1HW = next(batches)
    sizes = values_per_image(network, norms, first_N1HW[:1])
    pooled, momenta = [PooledStatistics(norm) for norm in norms], [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # running statistics are then those of the batch alone
    for frames_N1HW in chain([first_N1HW], batches):
        with policy.precision():
            network(frames_N1HW)
        for statistics, size in zip(pooled, sizes, strict=True):
            statistics.add(len(frames_N1HW) * size)
    for statistics, norm, momentum in zip(pooled, norms, momenta, strict=True):
        statistics.settle()
        norm.momentum = momentum
        norm.eval()


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
