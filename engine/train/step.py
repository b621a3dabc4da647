"""The recipe's step, one definition for every way to run it; and prediction over a loader."""

# N samples of a batch, H W rows and columns of the crop, K classes or findings

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from engine.device import Policy
from engine.networks.registry import to_training
from engine.statistics.findings import CELLS
from engine.train.device_batches import upload
from loaders.batches.loader import Loader
from loaders.config import Task
from loaders.errors import DivergedError
from loaders.sampling import DROPOUT, scalar_seed

Lap = Callable[[str], None]


class FindingsLoss(nn.Module):
    """The binary cross-entropy of several findings, mean over the labels that are known.

    logits_NK, finding_NK → scalar.  finding_NK: 1, 0, and NaN for unknown, which adds nothing, neither to the loss nor
    to a gradient; a batch in which nothing is known has a loss of 0.
    weight: float32 (K,), how much a present finding counts beside an absent one; None: as much.
    """

    def __init__(self, weight: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.weight: Tensor | None

    def forward(self, logits_NK: Tensor, finding_NK: Tensor) -> Tensor:
        known_NK = finding_NK.isfinite()
        value_NK = torch.where(known_NK, finding_NK, 0)
        loss_NK = nn.functional.binary_cross_entropy_with_logits(
            logits_NK, value_NK, pos_weight=self.weight, reduction="none"
        )
        return (loss_NK * known_NK).sum() / known_NK.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A network with what trains it.  forward: the network, perhaps compiled for batches of batch_size."""

    network: nn.Module
    forward: Callable[[Tensor], Tensor]
    optimiser: torch.optim.Optimizer
    loss: nn.CrossEntropyLoss | FindingsLoss
    policy: Policy
    batch_size: int

    def loss_of(self, logits_NK: np.ndarray, labels: np.ndarray) -> float:
        """The loss of logits on the host, weighted as in training."""
        weight_K = None if self.loss.weight is None else self.loss.weight.cpu()
        return float(type(self.loss)(weight_K)(torch.from_numpy(logits_NK), torch.from_numpy(labels)))


def make_learner(
    network: nn.Module, policy: Policy, *, learning_rate: float, batch_size: int, class_weight_K: np.ndarray | None,
    task: Task = "classes",
) -> Learner:  # fmt: skip
    """Move a network to the device in the policy's layout, and give it Adam and the task's cross-entropy.

    class_weight_K: of the classes in the loss; of findings, of each where it is present.
    """
    network = network.to(policy.device, memory_format=policy.memory_format)  # type: ignore[call-overload]
    weight_K = None if class_weight_K is None else torch.as_tensor(class_weight_K, dtype=torch.float32)
    return Learner(
        network=network, forward=torch.compile(network, dynamic=False) if policy.compiled else network,
        optimiser=torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True),
        loss=LOSSES[task](weight_K).to(policy.device), policy=policy, batch_size=batch_size,
    )  # fmt: skip


LOSSES: dict[Task, type[nn.CrossEntropyLoss] | type[FindingsLoss]] = {
    "classes": nn.CrossEntropyLoss, "findings": FindingsLoss,
}  # fmt: skip


# ---- the step


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """What the steps of an epoch have counted.  samples: of the epoch, that were trained on.

    confusion: K×K, or of findings K×4 in the order of engine.statistics.findings.CELLS.
    stopped: whether a loss or gradient was not finite; loss, norm: of the last step before or at which it stopped.
    """

    loss_sum: float
    confusion: list[list[int]]
    samples: int
    stopped: bool
    loss: float
    norm: float


Update = Callable[[Learner, Tensor], None]


def read_and_update(learner: Learner, stopped: Tensor) -> None:
    """Adam, unless the flag is up.  Reads the flag, so that the host waits for the device."""
    if not stopped:
        learner.optimiser.step()


class Step:
    """One step of the recipe on a batch that is on the device: forward, loss, backward, check, Adam, counts.

    The host waits for each (`train_step`); a device queues them, or captures them in a CUDA graph
    (engine.train.epochs).  The caller seeds dropout.
    Once a loss or a gradient norm is not finite, that step and all later ones change nothing: neither weights, moments,
    buffers nor counts.  The counts stay on the device until `fetch`.
    update: a step of Adam, unless the flag that it is given is up; the only part that a device does differently.
    """

    def __init__(self, learner: Learner, num_classes: int, update: Update = read_and_update) -> None:
        device = learner.policy.device
        self.learner, self.num_classes, self.update = learner, num_classes, update
        self.wide = torch.float32 if device.type == "mps" else torch.float64  # MPS has no float64
        self.loss_sum = torch.zeros((), dtype=self.wide, device=device)
        self.findings = isinstance(learner.loss, FindingsLoss)
        shape = (num_classes, len(CELLS) if self.findings else num_classes)
        self.confusion_KC = torch.zeros(shape, dtype=torch.int64, device=device)
        self.samples = torch.zeros((), dtype=torch.int64, device=device)
        self.stopped = torch.zeros((), dtype=torch.float32, device=device)  # 0 or 1, as Adam's found_inf wants it
        self.report = torch.zeros(2, dtype=torch.float32, device=device)  # loss and gradient norm
        self._cells = torch.arange(len(CELLS) if self.findings else num_classes**2, device=device)
        self.parameters = list(learner.network.parameters())
        self.buffers = pack_buffers(learner.network)

    def begin(self, loss_sum: float, confusion: list[list[int]], samples: int) -> None:
        """Count on from where an epoch was left."""
        self.loss_sum.fill_(loss_sum)
        upload(self.confusion_KC, np.array(confusion))
        self.samples.fill_(samples)
        self.stopped.zero_()

    def __call__(self, frames_N1HW: Tensor, labels: Tensor, lap: Lap = lambda part: None) -> None:
        """One step.  labels: int64 (N,), or of findings float32 (N, K).

        lap: called with forward, backward and optimiser when each has ended.
        """
        learner = self.learner
        before = [buffer.clone() for buffer in self.buffers]
        to_training(learner.network)
        # a compiled network is compiled for one batch size; the tail of an epoch runs eagerly
        forward = learner.forward if len(labels) == learner.batch_size else learner.network
        with learner.policy.precision():
            logits_NK = forward(frames_N1HW)
        loss = learner.loss(logits_NK.float(), labels)
        lap("forward")
        learner.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        with torch.no_grad():
            self._check(loss)
            lap("backward")
            self.update(learner, self.stopped)
            for buffer, saved in zip(self.buffers, before, strict=True):
                buffer.copy_(torch.where(self.stopped > 0, saved, buffer))
            self._count(loss, logits_NK, labels)
            lap("optimiser")

    def _check(self, loss: Tensor) -> None:
        """Raise the flag for good if this step is not finite, and keep the numbers that raised it."""
        norm = nn.utils.get_total_norm([value.grad for value in self.parameters if value.grad is not None])
        self.report.copy_(torch.where(self.stopped > 0, self.report, torch.stack([loss, norm])))
        torch.maximum(self.stopped, 1 - torch.isfinite(self.report).all().float(), out=self.stopped)

    def _count(self, loss: Tensor, logits_NK: Tensor, labels: Tensor) -> None:
        """Add to the sums what a step that counts has given."""
        alive, count = (self.stopped == 0).long(), len(labels)
        # not torch.where with a 0 of the host, which would be copied to the device: that cannot be captured
        self.loss_sum += (loss.to(self.wide) * count).masked_fill(self.stopped > 0, 0)
        if self.findings:  # an unknown label is NaN, and falls into no cell
            cell_NK = (logits_NK > 0) + 2 * labels
            hits_KC = (cell_NK[:, :, None] == self._cells).sum(0)
        else:
            cell_N = torch.add(logits_NK.argmax(1), labels, alpha=self.num_classes)
            hits_KC = (cell_N[:, None] == self._cells).sum(0).view_as(self.confusion_KC)
        self.confusion_KC += hits_KC * alive
        self.samples += alive * count

    def fetch(self) -> Tally:
        """Wait for everything that is queued, and read the counts: the one synchronisation."""
        numbers = [self.loss_sum, self.samples, self.stopped, self.report, self.confusion_KC]
        values = torch.cat([number.to(self.wide).reshape(-1) for number in numbers]).tolist()
        cells, size = list(map(int, values[5:])), self.confusion_KC.shape[1]
        return Tally(
            loss_sum=values[0], samples=int(values[1]), stopped=bool(values[2]), loss=values[3], norm=values[4],
            confusion=[cells[start : start + size] for start in range(0, len(cells), size)],
        )  # fmt: skip


def train_step(
    step: Step, frames_N1HW: Tensor, labels_N: Tensor, *, seed: int, number: int, lap: Lap = lambda part: None
) -> Tally:
    """One step on a batch of the host's, waited for.  number: of the step in the run.

    Dropout is a function of (seed, number), so that a resumed run is the same run.
    lap: called with transfer, forward, backward and optimiser when each has ended.
    Errors: DivergedError for a loss or gradient that is not finite; weights, optimiser and buffers stay as they were.
    """
    policy = step.learner.policy
    frames_N1HW = to_device(frames_N1HW, policy)
    labels_N = labels_N.to(policy.device, non_blocking=policy.device.type == "cuda")
    lap("transfer")
    torch.manual_seed(scalar_seed(seed, DROPOUT, number))
    step(frames_N1HW, labels_N, lap)
    tally = step.fetch()
    if tally.stopped:
        raise diverged(number, tally)
    return tally


def diverged(number: int, tally: Tally) -> DivergedError:
    """The error for a step whose loss or gradient is not finite."""
    return DivergedError(
        f"step {number}: loss {tally.loss}, gradient norm {tally.norm}, expected finite numbers; "
        "lower --learning-rate, or try --amp off"
    )


def pack_buffers(network: nn.Module) -> list[Tensor]:
    """Lay a network's buffers side by side, one tensor for each dtype, so that all are saved by one launch.

    The network keeps them under their names, as views.
    """
    by_dtype: dict[torch.dtype, list[tuple[nn.Module, str]]] = {}
    for module in network.modules():
        for name in module._buffers:
            by_dtype.setdefault(getattr(module, name).dtype, []).append((module, name))
    packed = []
    for places in by_dtype.values():
        buffers = [getattr(module, name) for module, name in places]
        flat, start = torch.cat([buffer.reshape(-1) for buffer in buffers]), 0
        for (module, name), buffer in zip(places, buffers, strict=True):
            # .data: a version counter each, since autograd saves one batch norm's while the next one's change
            setattr(module, name, flat.data[start : start + buffer.numel()].view(buffer.shape))
            start += buffer.numel()
        packed.append(flat)
    return packed


# ---- prediction


def to_device(frames_N1HW: Tensor, policy: Policy) -> Tensor:
    """A batch of the host's on the device, in the policy's layout; queued where its memory is page-locked."""
    on_cuda = policy.device.type == "cuda"
    return frames_N1HW.to(policy.device, memory_format=policy.memory_format, non_blocking=on_cuda)


def predict_batch(network: nn.Module, frames_N1HW: Tensor, policy: Policy) -> Tensor:
    """Logits, float32 (N, K), of a batch that is on the device, in evaluation mode."""
    network.eval()
    with policy.precision():
        return network(frames_N1HW).float()


@torch.inference_mode()
def predict(
    network: nn.Module, loader: Loader, policy: Policy, progress: Callable[[int], None] = lambda samples: None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of every sample of a loader with tensors=True, in one forward pass.

    Gives labels, int64 (N,) or of findings float32 (N, K), and logits float32 (N, K), in the order of the loader.
    progress: called with the number of samples after each batch; may raise to stop.
    Errors: DivergedError when the weights have grown so large that the logits are not finite.
    """
    labels, found = [], []
    with contextlib.closing(iter(loader)) as batches:  # type: ignore[type-var]
        for frames_N1HW, labels_N, _ in batches:
            labels.append(labels_N.numpy())
            found.append(predict_batch(network, to_device(frames_N1HW, policy), policy).cpu().numpy())
            progress(len(labels_N))
    logits_NK = np.concatenate(found)
    check_logits(loader, logits_NK)
    return np.concatenate(labels), logits_NK


def check_logits(loader: Loader, logits_NK: np.ndarray) -> None:
    """Errors: DivergedError for logits that are not finite."""
    if not np.isfinite(logits_NK).all():
        raise DivergedError(
            f"{loader.beton.path.name}: the network's outputs are not finite, expected finite numbers; "
            "lower --learning-rate, or try --amp off"
        )
