"""The epochs of a training: on the host, waited for step by step; on a device, queued, and captured in CUDA graphs."""

# N samples of a batch, H W rows and columns of the crop, K classes, M samples of the validation set

import contextlib
import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from engine.config import ValidateWith
from engine.train.device_batches import DeviceBatches, frames_on_device
from engine.train.state import State
from engine.train.step import Learner, Step, check_logits, diverged, predict, predict_batch, to_device, train_step
from engine.train.validated import Validated, num_recomputed
from loaders.batches.loader import Loader
from loaders.cautions import Caution, caution
from loaders.config import Resident
from loaders.sampling import DROPOUT, epoch_matrices, scalar_seeds

logger = logging.getLogger(__name__)

VALIDATION_BATCH = 128  # samples, at least, on a device: without gradients there is room for more
WARM_UPS = 3  # torch's own number: allocations, cuDNN's timings and compilations settle before the capture


# ---- on the host


class HostEpochs:
    """Epochs with batches made on the host; each step is waited for."""

    def __init__(
        self, learner: Learner, loader: Loader, val_loader: Loader, validate_with: ValidateWith = "running"
    ) -> None:
        self.learner, self.loader, self.val_loader = learner, loader, val_loader
        self.step = Step(learner, len(loader.beton.facts.classes))
        self.validated = Validated(learner, validate_with, len(loader))

    def train(self, state: State) -> Iterator[float]:
        """The rest of the loader's epoch.  Gives the mean loss after each step; the state is exact then.

        Errors: DivergedError for a loss or gradient that is not finite.
        """
        self.step.begin(state.loss_sum, state.confusion, self.loader.position)
        with contextlib.closing(iter(self.loader)) as batches:  # type: ignore[type-var]
            for frames_N1HW, labels_N, _ in batches:
                tally = train_step(self.step, frames_N1HW, labels_N, seed=self.loader.config.seed, number=state.step)
                self.validated.follow(self.step.stopped)
                state.step += 1
                state.loss_sum, state.confusion = tally.loss_sum, tally.confusion
                state.loader = self.loader.state_dict()
                yield tally.loss_sum / tally.samples

    def renew(self) -> None:
        """Train other weights from now on: on the host nothing was prepared for the ones before."""

    def cautions(self) -> list[Caution]:
        """What could not run as planned: nothing can fail to."""
        return []

    def validate(self, progress: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
        """Labels (as of `predict`) and logits float32 (M, K) of the validation set, after an epoch.

        They are those of `validated.network`.  progress: called with the samples done, 0 for those recomputed from.
        Errors: DivergedError.
        """
        self.validated.finish_epoch(self.recomputed_batches(progress))
        return predict(self.validated.network, self.val_loader, self.learner.policy, progress)

    def recomputed_batches(self, progress: Callable[[int], None]) -> Iterator[Tensor]:
        """The first batches of the epoch that is done, made once more; the loader stays where it is."""
        loader = self.loader
        beton, batch_size, epoch = loader.beton, loader.config.batch_size, loader.epoch - 1
        inverse_N23 = epoch_matrices(loader.config, epoch, len(beton), beton.facts.crop, beton.side)
        order_O = loader.epoch_order(epoch)
        for start in range(0, num_recomputed(len(loader)) * batch_size, batch_size):
            frames_N1HW, _, _ = loader.make_batch(order_O[start : start + batch_size], inverse_N23)
            yield to_device(frames_N1HW, self.learner.policy)
            progress(0)


# ---- on a device


class DeviceEpochs:
    """Epochs with batches made on the device.  Owns the frames there and the captured steps."""

    def __init__(
        self, learner: Learner, loader: Loader, val_loader: Loader, resident: Resident = "auto",
        validate_with: ValidateWith = "running",
    ) -> None:  # fmt: skip
        """resident: whether frames stay on the device; see LoaderConfig.  Errors: ConfigError where they cannot."""
        policy, num_classes = learner.policy, len(loader.beton.facts.classes)
        self.learner, self.loader, self.val_loader = learner, loader, val_loader
        sizes = [learner.batch_size, min(max(learner.batch_size, VALIDATION_BATCH), val_loader.num_samples)]
        frames, val_frames = frames_on_device([loader, val_loader], policy.device, sizes, resident)
        self.batches = DeviceBatches(loader, frames, policy, sizes[0])
        self.val_batches = DeviceBatches(val_loader, val_frames, policy, sizes[1])
        self.step = DeviceStep(learner, self.batches, num_classes, validate_with)
        self.validated = self.step.validated
        self.logits_MK = torch.zeros((val_loader.num_samples, num_classes), dtype=torch.float32, device=policy.device)
        self.run_step = Captured(self.step, self.step.touched, policy.device, "training step")
        touched = [self.val_batches.position, self.logits_MK]
        self.run_validation = Captured(self.validation_batch, touched, policy.device, "validation batch")
        self.known_loss = KnownLoss(policy.device)
        seeding = {"cuda": torch.cuda.manual_seed, "mps": torch.mps.manual_seed}
        self.manual_seed: Callable[[int], object] = seeding.get(policy.device.type, torch.manual_seed)

    def train(self, state: State) -> Iterator[float]:
        """The rest of the loader's epoch.  Gives a mean loss after each step is queued, of the steps known to be done.

        However it ends, the state is exact then, and the loader is at the state's position.
        Errors: DivergedError at the end, for the first loss or gradient that was not finite.
        """
        loader, batches = self.loader, self.batches
        epoch, start = loader.epoch, loader.position
        self.step.begin(state.loss_sum, state.confusion, start)
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
                    yield self.known_loss(self.step.recipe.loss_sum, loader.position)
        finally:
            self.settle(state, start)
        loader.set_epoch(epoch + 1)

    def settle(self, state: State, start: int) -> None:
        """Wait for the device, and put into the state what has come of the steps.  Errors: DivergedError."""
        tally = self.step.fetch()
        state.step += -(-(tally.samples - start) // self.batches.batch_size)
        state.loss_sum, state.confusion = tally.loss_sum, tally.confusion
        self.loader.position = tally.samples
        state.loader = self.loader.state_dict()
        if tally.stopped:
            raise diverged(state.step, tally)

    def renew(self) -> None:
        """Capture the training step anew, for other weights; after a capture that failed, steps stay uncaptured."""
        if not self.run_step.failed:
            self.run_step = Captured(self.step, self.step.touched, self.learner.policy.device, "training step")

    def cautions(self) -> list[Caution]:
        """What could not run as planned."""
        found = (self.run_step.failed, self.run_validation.failed, self.batches.trouble)
        return [caution for caution in found if caution]

    def validate(self, progress: Callable[[int], None]) -> tuple[np.ndarray, np.ndarray]:
        """Labels (as of `predict`) and logits float32 (M, K) of the validation set, after an epoch.

        They are those of `validated.network`.  progress: called with the samples done, 0 for those recomputed from.
        Errors: DivergedError.
        """
        self.validated.finish_epoch(self.recomputed_batches(progress))
        counts = self.val_batches.begin(0, 0)
        if not self.run_step.failed:  # what one failed capture leaves behind could spoil the next
            self.run_validation.prepare(self.val_batches.sizes(0))
        with contextlib.closing(counts):  # type: ignore[type-var]
            for count in counts:
                self.run_validation(count)
                progress(count)
        logits_MK = self.logits_MK.cpu().numpy()
        check_logits(self.val_loader, logits_MK)
        return self.val_loader.beton.labels[self.val_loader.epoch_order(0)], logits_MK

    def recomputed_batches(self, progress: Callable[[int], None]) -> Iterator[Tensor]:
        """The first batches of the epoch that is done, made once more; the loader stays where it is."""
        with contextlib.closing(self.batches.begin(self.loader.epoch - 1, 0)) as counts:  # type: ignore[type-var]
            for count in islice(counts, num_recomputed(len(self.loader))):
                yield self.batches.make(count)[0]
                self.batches.advance(count)
                progress(0)

    @torch.no_grad()
    def validation_batch(self, count: int) -> None:
        """Put the logits of the next batch of so many samples in their place on the device."""
        frames_N1HW, _ = self.val_batches.make(count)
        logits_NK = predict_batch(self.validated.network, frames_N1HW, self.learner.policy)
        self.logits_MK[self.val_batches.places(count)] = logits_NK
        self.val_batches.advance(count)


class DeviceStep:
    """The recipe's step on batches that the device makes, fit to be captured: nothing in it waits for the device.

    touched: every tensor that it changes; each has its place from the beginning.
    The position of the batches stays at one that was not finite.
    """

    def __init__(
        self, learner: Learner, batches: DeviceBatches, num_classes: int, validate_with: ValidateWith = "running"
    ) -> None:
        self.learner, self.batches = learner, batches
        optimiser, on_cuda = learner.optimiser, learner.policy.device.type == "cuda"
        prime_adam(optimiser)
        for group in optimiser.param_groups:
            group["capturable"] = on_cuda
        self.recipe = step = Step(learner, num_classes, update_unread)
        if learner.policy.found_inf:
            optimiser.found_inf = step.stopped  # type: ignore[attr-defined]
        self.begin, self.fetch = step.begin, step.fetch
        self.validated = Validated(learner, validate_with, len(batches.loader))
        self.touched = [
            *(parameter.detach() for parameter in step.parameters),
            *moments(optimiser),
            *step.buffers,
            *self.validated.touched,
            *(batches.position, step.loss_sum, step.confusion_KC, step.samples, step.stopped, step.report),
        ]

    def __call__(self, count: int) -> None:
        """One step on the next batch of so many samples."""
        self.recipe(*self.batches.make(count))
        self.validated.follow(self.recipe.stopped)
        self.batches.advance((self.recipe.stopped == 0).long() * count)


def update_unread(learner: Learner, stopped: Tensor) -> None:
    """Adam, unless the flag is up, which nobody reads: Adam skips the step, or what it has changed is put back."""
    if learner.policy.found_inf:
        learner.optimiser.step()
        return
    kept = [*learner.network.parameters(), *moments(learner.optimiser)]
    before = [value.clone() for value in kept]
    learner.optimiser.step()
    for value, saved in zip(kept, before, strict=True):
        value.copy_(torch.where(stopped > 0, saved, value))


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


def moments(optimiser: torch.optim.Optimizer) -> list[Tensor]:
    """Adam's moments and step counts."""
    return [value for state in optimiser.state.values() for value in state.values()]


class KnownLoss:
    """The epoch's mean loss as far as the host knows it, without ever waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.on_cuda = device.type == "cuda"
        self.fetched, self.samples = torch.zeros((), dtype=torch.float64, pin_memory=self.on_cuda), 0
        self.mean = math.nan  # until something is known; on MPS to the end, where asking would mean waiting
        self.arrived: torch.cuda.Event | None = None

    def __call__(self, loss_sum: Tensor, samples: int) -> float:
        """The newest mean there is; asks for a newer one, of the steps queued until now.  samples: of these steps."""
        if loss_sum.device.type == "cpu":
            return float(loss_sum) / samples
        if self.on_cuda and (self.arrived is None or self.arrived.query()):
            if self.samples:
                self.mean = float(self.fetched) / self.samples
            self.fetched.copy_(loss_sum, non_blocking=True)
            self.samples = samples
            self.arrived = torch.cuda.current_stream().record_event()
        return self.mean


# ---- CUDA graphs


class Captured:
    """A function of a batch size that reads and writes fixed tensors.  Owns its graphs, which share one memory pool.

    touched: every tensor that the function changes; a warm-up's effects on them are taken back in place.
    Where a capture fails, everything not captured yet runs as it is from then on; `failed` says why.
    """

    def __init__(self, function: Callable[[int], None], touched: list[Tensor], device: torch.device, name: str) -> None:
        self.function, self.touched, self.device, self.name = function, touched, device, name
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.failed: Caution | None = None
        self._kept: list[torch.cuda.CUDAGraph] = []  # failed ones: torch's allocator may still refer to them
        if device.type == "cuda":
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def prepare(self, sizes: Iterable[int]) -> None:
        """Capture what is not captured yet.  Warms up and captures on one stream, as torch's autograd asks for."""
        if self.device.type != "cuda" or self.failed:
            return
        for size in dict.fromkeys(sizes):  # in their order
            if size in self.graphs:
                continue
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
        if size in self.graphs:
            self.graphs[size].replay()
        else:
            self.function(size)


def warm_up(function: Callable[[int], None], size: int, touched: list[Tensor], device: torch.device) -> None:
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
