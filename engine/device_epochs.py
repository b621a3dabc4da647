"""Epochs on the device: steps are queued one after another, and the host learns what came of them at the end."""

# N samples, K classes, M samples of the validation set

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from engine.capture import Captured
from engine.device_batches import DeviceBatches
from engine.device_step import DeviceStep, DeviceValidation
from engine.resident import frames_on_device
from engine.step import Learner, check_logits, diverged
from engine.training_state import State
from loaders.config import Resident
from loaders.loader import Loader
from loaders.randomness import DROPOUT, scalar_seeds

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

    def troubles(self) -> list[str]:
        """What went otherwise than planned, in plain words."""
        found = (self.run_step.failed, self.run_validation.failed, self.batches.trouble)
        return [trouble for trouble in found if trouble]

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
