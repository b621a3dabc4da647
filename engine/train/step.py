"""One training step, and prediction over a loader: forward passes on the chosen device."""

# N batch, H W rows and columns of the crop, K classes

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from engine.device import Policy
from engine.networks.registry import to_training
from loaders.batches.loader import Loader
from loaders.errors import DivergedError
from loaders.sampling import DROPOUT, scalar_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Learner:
    """A network with what trains it.  forward: the network, perhaps compiled for batches of batch_size."""

    network: nn.Module
    forward: Callable[[torch.Tensor], torch.Tensor]
    optimiser: torch.optim.Optimizer
    loss: nn.CrossEntropyLoss
    policy: Policy
    batch_size: int

    def loss_of(self, logits_NK: np.ndarray, label_N: np.ndarray) -> float:
        """The loss of logits on the host, weighted as in training."""
        weight_K = None if self.loss.weight is None else self.loss.weight.cpu()
        return float(nn.functional.cross_entropy(torch.from_numpy(logits_NK), torch.from_numpy(label_N), weight_K))


def make_learner(
    network: nn.Module,
    policy: Policy,
    *,
    learning_rate: float,
    batch_size: int,
    class_weight_K: np.ndarray | None,
) -> Learner:
    """Move a network to the device in the policy's layout, and give it Adam and a cross-entropy."""
    network = network.to(policy.device, memory_format=policy.memory_format)  # type: ignore[call-overload]
    weight_K = None if class_weight_K is None else torch.as_tensor(class_weight_K, dtype=torch.float32)
    return Learner(
        network=network,
        forward=torch.compile(network, dynamic=False) if policy.compiled else network,
        optimiser=torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True),
        loss=nn.CrossEntropyLoss(weight=weight_K).to(policy.device),
        policy=policy,
        batch_size=batch_size,
    )


def train_step(
    learner: Learner,
    frames_N1HW: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    seed: int,
    step: int,
    lap: Callable[[str], None] = lambda part: None,
) -> tuple[float, torch.Tensor]:
    """One step of Adam.  Gives the mean loss and the logits, (N, K) on the host.

    Dropout is a function of (seed, step), so that a resumed run is the same run.
    lap: called with transfer, forward, backward and optimiser when each has ended.
    Errors: DivergedError for a loss or gradient that is not finite; weights, optimiser and buffers stay as they were.
    """
    policy = learner.policy
    frames_N1HW = frames_N1HW.to(
        policy.device, memory_format=policy.memory_format, non_blocking=policy.device.type == "cuda"
    )
    labels_N = labels_N.to(policy.device, non_blocking=policy.device.type == "cuda")
    lap("transfer")
    before = [buffer.clone() for buffer in learner.network.buffers()]
    torch.manual_seed(scalar_seed(seed, DROPOUT, step))
    to_training(learner.network)
    # a compiled network is compiled for one batch size; the tail of an epoch runs eagerly
    forward = learner.forward if len(labels_N) == learner.batch_size else learner.network
    with policy.precision():
        logits_NK = forward(frames_N1HW)
    loss = learner.loss(logits_NK.float(), labels_N)
    lap("forward")
    learner.optimiser.zero_grad(set_to_none=True)
    loss.backward()
    gradients = [parameter.grad for parameter in learner.network.parameters() if parameter.grad is not None]
    value, norm = torch.stack([loss.detach(), torch.nn.utils.get_total_norm(gradients)]).tolist()
    lap("backward")
    if not (math.isfinite(value) and math.isfinite(norm)):
        for buffer, saved in zip(learner.network.buffers(), before, strict=True):
            buffer.copy_(saved)
        raise diverged(step, value, norm)
    learner.optimiser.step()
    lap("optimiser")
    return value, logits_NK.detach().float().cpu()


@torch.inference_mode()
def predict(
    network: nn.Module, loader: Loader, policy: Policy, progress: Callable[[int], None] = lambda samples: None
) -> tuple[np.ndarray, np.ndarray]:
    """Logits of every sample of a loader with tensors=True, in one forward pass.

    Gives labels int64 (N,) and logits float32 (N, K), in the order of the loader.
    progress: called with the number of samples after each batch; may raise to stop.
    Errors: DivergedError when the weights have grown so large that the logits are not finite.
    """
    network.eval()
    labels, logits = [], []
    with contextlib.closing(iter(loader)) as batches:  # type: ignore[type-var]
        for frames_N1HW, labels_N, _ in batches:
            frames_N1HW = frames_N1HW.to(
                policy.device, memory_format=policy.memory_format, non_blocking=policy.device.type == "cuda"
            )
            with policy.precision():
                logits_NK = network(frames_N1HW)
            labels.append(labels_N.numpy())
            logits.append(logits_NK.float().cpu().numpy())
            progress(len(labels_N))
    logits_NK = np.concatenate(logits)
    check_logits(loader, logits_NK)
    return np.concatenate(labels), logits_NK


def diverged(step: int, loss: float, norm: float) -> DivergedError:
    """The error for a step whose loss or gradient is not finite."""
    return DivergedError(
        f"step {step}: loss {loss}, gradient norm {norm}, expected finite numbers; "
        "lower --learning-rate, or try --amp off"
    )


def check_logits(loader: Loader, logits_NK: np.ndarray) -> None:
    """Errors: DivergedError for logits that are not finite."""
    if not np.isfinite(logits_NK).all():
        raise DivergedError(
            f"{loader.beton.path.name}: the network's outputs are not finite, expected finite numbers; "
            "lower --learning-rate, or try --amp off"
        )


def softmax(logits_NK: np.ndarray) -> np.ndarray:
    """Probabilities of logits, float64 (N, K)."""
    shifted_NK = logits_NK.astype(np.float64) - logits_NK.max(1, keepdims=True)
    exponential_NK = np.exp(shifted_NK)
    return exponential_NK / exponential_NK.sum(1, keepdims=True)
