"""The training step on the device: batch, forward, backward and Adam without a word from the host."""

# N batch, H W rows and columns of the crop, K classes, M samples of the validation set

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from engine.device import Policy
from engine.device_batches import DeviceBatches, upload
from engine.networks import to_training
from engine.step import Learner


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What the device has counted.  position: samples of the epoch that were learnt from.

    stopped: whether a loss or gradient was not finite; loss, norm: of the last step before or at which it stopped.
    """

    loss_sum: float
    confusion: list[list[int]]
    position: int
    stopped: bool
    loss: float
    norm: float


class DeviceStep:
    """One step of Adam on fixed tensors, so that it can be captured; nothing in it waits for the device.

    Once a loss or a gradient norm is not finite, that step and all later ones change nothing: neither weights, moments,
    buffers and counts, nor the position, which stays at the batch that failed.
    """

    def __init__(self, learner: Learner, batches: DeviceBatches, num_classes: int) -> None:
        device = learner.policy.device
        self.learner, self.batches, self.num_classes = learner, batches, num_classes
        self.wide = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.loss_sum = torch.zeros((), dtype=self.wide, device=device)
        self.confusion_KK = torch.zeros((num_classes, num_classes), dtype=torch.int64, device=device)
        self.stopped = torch.zeros((), dtype=torch.float32, device=device)  # 0 or 1, as Adam's found_inf wants it
        self.report = torch.zeros(2, dtype=torch.float32, device=device)  # loss and gradient norm
        self._cells = torch.arange(num_classes**2, device=device)
        self.parameters = list(learner.network.parameters())
        prime_adam(learner.optimiser)
        for group in learner.optimiser.param_groups:
            group["capturable"] = device.type == "cuda"
        self.buffers = pack_buffers(learner.network)
        self.moments = [value for state in learner.optimiser.state.values() for value in state.values()]
        if learner.policy.found_inf:
            learner.optimiser.found_inf = self.stopped  # type: ignore[attr-defined]
        self.touched = [
            *(parameter.detach() for parameter in self.parameters),
            *self.moments,
            *self.buffers,
            *(batches.position, self.loss_sum, self.confusion_KK, self.stopped, self.report),
        ]

    def begin(self, loss_sum: float, confusion: list[list[int]]) -> None:
        """Count on from a state."""
        self.loss_sum.fill_(loss_sum)
        upload(self.confusion_KK, np.array(confusion))
        self.stopped.zero_()

    def __call__(self, count: int) -> None:
        """One step on the next batch of so many samples."""
        learner = self.learner
        frames_N1HW, label_N = self.batches.make(count)
        buffers = [buffer.clone() for buffer in self.buffers]
        to_training(learner.network)
        # a compiled network is compiled for one batch size; the tail of an epoch runs eagerly
        forward = learner.forward if count == learner.batch_size else learner.network
        with learner.policy.precision():
            logits_NK = forward(frames_N1HW)
        loss = learner.loss(logits_NK.float(), label_N)
        learner.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            self._judge(loss)
            self._update()
            for buffer, saved in zip(self.buffers, buffers, strict=True):
                buffer.copy_(torch.where(self.stopped > 0, saved, buffer))
            self._count(loss, logits_NK, label_N)

    def _judge(self, loss: torch.Tensor) -> None:
        """Raise the flag for good if this step is not finite, and keep the numbers that raised it."""
        norm = nn.utils.get_total_norm([value.grad for value in self.parameters if value.grad is not None])
        self.report.copy_(torch.where(self.stopped > 0, self.report, torch.stack([loss, norm])))
        torch.maximum(self.stopped, 1 - torch.isfinite(self.report).all().float(), out=self.stopped)

    def _update(self) -> None:
        """Adam, unless the flag is up."""
        if self.learner.policy.found_inf:
            self.learner.optimiser.step()
            return
        updated = [*self.parameters, *self.moments]
        before = [value.clone() for value in updated]
        self.learner.optimiser.step()
        for value, saved in zip(updated, before, strict=True):
            value.copy_(torch.where(self.stopped > 0, saved, value))

    def _count(self, loss: torch.Tensor, logits_NK: torch.Tensor, label_N: torch.Tensor) -> None:
        """Add to the sums what a step that counts has given, and move on."""
        alive = (self.stopped == 0).long()
        count = len(label_N)
        # not torch.where with a 0 of the host, which would be copied to the device: no capture survives that
        self.loss_sum += (loss.to(self.wide) * count).masked_fill(self.stopped > 0, 0)
        cell_N = torch.add(logits_NK.argmax(1), label_N, alpha=self.num_classes)
        hits_KK = (cell_N[:, None] == self._cells).sum(0).view_as(self.confusion_KK)
        self.confusion_KK += hits_KK * alive
        self.batches.advance(alive * count)

    def fetch(self) -> Tally:
        """Wait for everything that is queued, and read the counts: the one synchronisation."""
        numbers = [self.loss_sum, self.batches.position, self.stopped, self.report, self.confusion_KK]
        values = torch.cat([number.to(self.wide).reshape(-1) for number in numbers]).tolist()
        cells, size = list(map(int, values[5:])), self.num_classes
        return Tally(
            loss_sum=values[0],
            position=int(values[1]),
            stopped=bool(values[2]),
            loss=values[3],
            norm=values[4],
            confusion=[cells[row * size : (row + 1) * size] for row in range(size)],
        )


class DeviceValidation:
    """Logits of a whole set, gathered on the device.  logits_MK: float32."""

    def __init__(self, network: nn.Module, policy: Policy, batches: DeviceBatches, num_classes: int) -> None:
        self.network, self.policy, self.batches = network, policy, batches
        shape = (batches.loader.num_samples, num_classes)
        self.logits_MK = torch.zeros(shape, dtype=torch.float32, device=policy.device)
        self._count_N = torch.arange(batches.batch_size, device=policy.device)
        self.touched = [batches.position, self.logits_MK]

    @torch.no_grad()
    def __call__(self, count: int) -> None:
        """The logits of the next batch of so many samples."""
        self.network.eval()
        frames_N1HW, _ = self.batches.make(count)
        with self.policy.precision():
            logits_NK = self.network(frames_N1HW)
        self.logits_MK[self.batches.position + self._count_N[:count]] = logits_NK.float()
        self.batches.advance(count)


def prime_adam(optimiser: torch.optim.Optimizer) -> None:
    """Give Adam the moments that it would make at its first step, so that they have their place before a capture."""
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            if not optimiser.state[parameter]:
                optimiser.state[parameter] = {
                    "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                    "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                    "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
                }


def pack_buffers(network: nn.Module) -> list[torch.Tensor]:
    """Lay a network's buffers side by side, one tensor for each dtype, so that all are saved by one launch.

    The network keeps them under their names, as views.
    """
    places = [(module, name) for module in network.modules() for name in module._buffers if name]
    by_dtype: dict[torch.dtype, list[tuple[nn.Module, str]]] = {}
    for module, name in places:
        by_dtype.setdefault(getattr(module, name).dtype, []).append((module, name))
    packed = []
    for owners in by_dtype.values():
        buffers = [getattr(module, name) for module, name in owners]
        flat = torch.cat([buffer.reshape(-1) for buffer in buffers])
        # .data: views with a version counter each, since autograd saves one batch norm's while the next one's change
        views = [part.view(buffer.shape) for part, buffer in zip(split_data(flat, buffers), buffers, strict=True)]
        for (module, name), view in zip(owners, views, strict=True):
            setattr(module, name, view)
        packed.append(flat)
    return packed


def split_data(flat: torch.Tensor, like: list[torch.Tensor]) -> list[torch.Tensor]:
    """Parts of a flat tensor, as long as the given ones, in their order."""
    parts, start = [], 0
    for tensor in like:
        parts.append(flat.data[start : start + tensor.numel()])
        start += tensor.numel()
    return parts
