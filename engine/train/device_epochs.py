"""A captured function: work on fixed tensors as one CUDA graph for each batch size; elsewhere it is called as it is."""

# N batch, H W rows and columns of the crop, K classes, M samples of the validation set
# N samples, K classes, M samples of the validation set

from __future__ import annotations

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from engine.device import Policy
from engine.networks.registry import to_training
from engine.train.device_batches import DeviceBatches, frames_on_device, upload
from engine.train.state import State
from engine.train.step import Learner, check_logits, diverged
from loaders.batches.loader import Loader
from loaders.cautions import Caution, caution
from loaders.config import Resident
from loaders.sampling import DROPOUT, scalar_seeds

logger = logging.getLogger(__name__)

WARM_UPS = 3  # torch's own number: allocations, cuDNN's timings and compilations settle before the capture


class Captured:
    """A function of a batch size that reads and writes fixed tensors.  Owns its graphs, which share one memory pool.

    touched: every tensor that the function changes; a warm-up's effects on them are taken back in place.
    Where a capture fails, everything not captured yet runs as it is from then on; `failed` says why.
    """

    def __init__(
        self, function: Callable[[int], None], touched: list[torch.Tensor], device: torch.device, name: str
    ) -> None:
        self.function, self.touched, self.device, self.name = function, touched, device, name
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.failed: Caution | None = None
        self._kept: list[torch.cuda.CUDAGraph] = []  # failed ones: torch's allocator may still refer to them
        self._settled: set[int] = set()
        if device.type == "cuda":
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def prepare(self, sizes: Iterable[int]) -> None:
        """Capture what is not captured yet.  Warms up and captures on one stream, as torch's autograd asks for."""
        if self.device.type != "cuda" or self.failed:
            return
        for size in dict.fromkeys(sizes):
            if size in self._settled:
                continue
            self._settled.add(size)
            current = torch.cuda.current_stream(self.device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                warm_up(self.function, size, self.touched, self.device)
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    self.function(size)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                torch.cuda.set_stream(current)  # a capture that fails at its end leaves its own behind
                torch.cuda.synchronize(self.device)
                self._kept.append(graph)
                reason = str(error).strip().splitlines()[0]
                self.failed = caution("not-captured", work=self.name, images=size, reason=reason)
                logger.warning("%s", self.failed.text)
                return
            self.graphs[size] = graph
            logger.info("%s of %d captured in a CUDA graph", self.name, size)

    def __call__(self, size: int) -> None:
        """Queue the work for a batch of this size."""
        graph = self.graphs.get(size)
        if graph is None:
            self.function(size)
        else:
            graph.replay()


def warm_up(function: Callable[[int], None], size: int, touched: list[torch.Tensor], device: torch.device) -> None:
    """Run a function a few times, and put everything back each time: tensors in place, and torch's generators.

    Each time, since a position that went on would lead beyond the epoch.
    """
    before = [tensor.detach().clone() for tensor in touched]
    rng = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with rng, warnings.catch_warnings():
        # Adam's, that it is meant to be captured and is not yet
        warnings.filterwarnings("ignore", message=".*capturable=True")
        for _ in range(WARM_UPS):
            function(size)
            with torch.no_grad():
                for tensor, saved in zip(touched, before, strict=True):
                    tensor.copy_(saved)


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


VALIDATION_BATCH = 128  # samples, at least: without gradients there is room for more


class DeviceEpochs:
    """The training and validation of epochs on a device.  Owns the frames there and the captured steps."""

    def __init__(self, learner: Learner, loader: Loader, val_loader: Loader, resident: Resident = "auto") -> None:
        """resident: whether frames stay on the device; see LoaderConfig.  Errors: ConfigError where they cannot."""
        policy, num_classes = learner.policy, len(loader.beton.facts.classes)
        self.learner, self.loader, self.val_loader = learner, loader, val_loader
        sizes = [learner.batch_size, min(max(learner.batch_size, VALIDATION_BATCH), val_loader.num_samples)]
        frames, val_frames = frames_on_device([loader, val_loader], policy.device, sizes, resident=resident)
        self.batches = DeviceBatches(loader, frames, policy, sizes[0])
        self.val_batches = DeviceBatches(val_loader, val_frames, policy, sizes[1])
        self.step = DeviceStep(learner, self.batches, num_classes)
        self.validation = DeviceValidation(learner.network, policy, self.val_batches, num_classes)
        self.run_step = Captured(self.step, self.step.touched, policy.device, "training step")
        self.run_validation = Captured(self.validation, self.validation.touched, policy.device, "validation batch")
        self.glimpse = Glimpse(policy.device)
        seeding = {"cuda": torch.cuda.manual_seed, "mps": torch.mps.manual_seed}
        self.manual_seed: Callable[[int], object] = seeding.get(policy.device.type, torch.manual_seed)

    def train(self, state: State) -> Iterator[float]:
        """The rest of the loader's epoch.  Gives a mean loss after each step is queued, of the steps known to be done.

        However it ends, the state is then exact, and the loader where the state says.
        Errors: DivergedError at the end, for the first loss or gradient that was not finite.
        """
        loader, batches = self.loader, self.batches
        epoch, start = loader.epoch, loader.position
        self.step.begin(state.loss_sum, state.confusion)
        counts = batches.begin(epoch, start)
        self.run_step.prepare(batches.sizes(start))
        num_steps = -(-(loader.num_samples - start) // batches.batch_size)
        # a replay takes the seed that its generator has by then
        seeds = scalar_seeds(loader.config.seed, DROPOUT, state.step + np.arange(num_steps, dtype=np.uint64))
        try:
            with contextlib.closing(counts):  # type: ignore[type-var]
                for seed, count in zip(seeds, counts, strict=False):
                    self.manual_seed(seed)
                    self.run_step(count)
                    loader.position += count
                    yield self.glimpse(self.step.loss_sum, loader.position)
        finally:
            self.settle(state, start)
        loader.set_epoch(epoch + 1)

    def renew(self) -> None:
        """Capture the training step anew, once other weights learn; one that could not be captured stays as it is."""
        if not self.run_step.failed:
            self.run_step = Captured(self.step, self.step.touched, self.learner.policy.device, "training step")

    def settle(self, state: State, start: int) -> None:
        """Wait for the device, and put into the state what has come of the steps.  Errors: DivergedError."""
        tally = self.step.fetch()
        state.step += -(-(tally.position - start) // self.batches.batch_size)
        state.loss_sum, state.confusion = tally.loss_sum, tally.confusion
        self.loader.position = tally.position
        state.loader = self.loader.state_dict()
        if tally.stopped:
            raise diverged(state.step, tally.loss, tally.norm)

    def cautions(self) -> list[Caution]:
        """What could not run as planned."""
        found = (self.run_step.failed, self.run_validation.failed, self.batches.trouble)
        return [caution for caution in found if caution]

    def validate(self, progress: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
        """Labels int64 (M,) and logits float32 (M, K) of the validation set.  Errors: DivergedError."""
        counts = self.val_batches.begin(0, 0)
        if not self.run_step.failed:  # what one failed capture leaves behind could spoil the next
            self.run_validation.prepare(self.val_batches.sizes(0))
        with contextlib.closing(counts):  # type: ignore[type-var]
            for count in counts:
                self.run_validation(count)
                progress(count)
        logits_MK = self.validation.logits_MK.cpu().numpy()
        check_logits(self.val_loader, logits_MK)
        return self.val_loader.beton.label_N[self.val_loader.epoch_order(0)], logits_MK


class Glimpse:
    """The mean loss as far as the host has heard of it, without ever waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.on_cuda = device.type == "cuda"
        self.told, self.position = torch.zeros((), dtype=torch.float64, pin_memory=self.on_cuda), 0
        self.mean = math.nan  # until something is known; on MPS to the end, where asking would mean waiting
        self.arrived: torch.cuda.Event | None = None

    def __call__(self, loss_sum: torch.Tensor, position: int) -> float:
        """The newest mean there is; asks for a newer one, of the steps queued until now.  position: their samples."""
        if loss_sum.device.type == "cpu":
            return float(loss_sum) / position
        if self.on_cuda and (self.arrived is None or self.arrived.query()):
            if self.position:
                self.mean = float(self.told) / self.position
            self.told.copy_(loss_sum, non_blocking=True)
            self.position = position
            self.arrived = torch.cuda.current_stream().record_event()
        return self.mean
