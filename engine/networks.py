"""The networks by name: building them, rebuilding a checkpoint's, and their parts."""

# N batch, C channels, H W rows and columns, P patches of a transformer, D their features

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from torch import nn

from engine.config import Model, check_model
from engine.network import Cnn
from engine.torchvision_networks import TorchvisionNetwork
from loaders.errors import CheckpointError, ConfigError

MODELS: tuple[str, ...] = get_args(Model)
SMALLEST = 32  # pixels a side: each network but the transformer halves its maps five times
PATCH = 16  # pixels a side, of the transformer


def make_network(model: str, num_classes: int, crop: int, dropout: float) -> nn.Module:
    """A network of MODELS with initial weights from torch's generator.

    It takes frames (N, 1, crop, crop), float in [-1, 1], to logits (N, num_classes).
    Errors: ConfigError for an unknown network, or a crop that it cannot take.
    """
    check_crop(model, crop)
    if model == "cnn":
        return Cnn(num_classes, crop, dropout)
    return TorchvisionNetwork(model, num_classes, crop, dropout)


def network_of(state: dict[str, Any]) -> nn.Module:
    """A network as a checkpoint's state describes it: network, classes, crop and dropout.  Its weights are not loaded.

    Errors: CheckpointError for a network that this version does not know.
    """
    model = state.get("network", "cnn")
    if model not in MODELS:
        raise CheckpointError(
            f"the weights are of a network {model!r}, expected one of {', '.join(MODELS)}; use their own version"
        )
    return make_network(model, len(state["classes"]), state["crop"], state["dropout"])


def check_crop(model: str, crop: int) -> None:
    """Errors: ConfigError for an unknown network, or a crop that it cannot take."""
    check_model(model)
    if model == "vit_b_16" and crop % PATCH:
        nearest = max(2, round(crop / PATCH)) * PATCH
        raise ConfigError(
            f"vit_b_16: found crops of {crop}, expected a side that {PATCH} divides; convert with --size {nearest}"
        )
    if crop < SMALLEST:
        raise ConfigError(
            f"{model}: found crops of {crop}, expected at least {SMALLEST}; convert with --size {SMALLEST} or more"
        )


def check_batches(model: str, crop: int, num_samples: int, batch_size: int) -> None:
    """Errors: ConfigError where an epoch has a batch of one whose last maps are one pixel: batch norm fails."""
    # densenet169's last map: halved twice rounding up, then three times rounding down; resnet18 rounds up each time
    last = {"resnet18": -(-crop // 32), "densenet169": -(-crop // 4) // 8}.get(model, 2)
    if last < 2 and (batch_size == 1 or num_samples % batch_size == 1):
        raise ConfigError(
            f"{model}: found a batch of one, {num_samples} samples by {batch_size}, expected two for batch norm "
            f"with crops of {crop}; choose another --batch-size, or convert with a larger --size"
        )


# ---- parts


def body_of(network: nn.Module) -> nn.Module | None:
    """What comes before the last layers; None for a network that is not of MODELS."""
    if isinstance(network, Cnn):
        return network.features
    return network.body if isinstance(network, TorchvisionNetwork) else None


def freeze_body(network: nn.Module, frozen: bool) -> bool:
    """Let only the last layers learn, or all.  Gives whether that is a change."""
    body = body_of(network)
    if body is None or is_frozen(body) == frozen:
        return False
    body.requires_grad_(not frozen)
    return True


def is_frozen(body: nn.Module) -> bool:
    """Whether no weight of it learns."""
    return not next(body.parameters()).requires_grad


def to_training(network: nn.Module) -> None:
    """Training mode; a frozen body stays in evaluation mode, so that its batch norms learn nothing either."""
    network.train()
    body = body_of(network)
    if body is not None and is_frozen(body):
        body.eval()


def last_convolution(network: nn.Module) -> nn.Module:
    """The layer whose output, as `as_map` gives it, GradCAM weighs.

    cnn: the last batch norm, before pooling; hooks there need `network.fused = False`.  resnet18: the last block.
    densenet169: the last batch norm, whose output torchvision rectifies in place.  vit_b_16: the first layer norm of
    the last encoder block: what comes later reaches the logits through the class token alone.
    Errors: TypeError for a network that is not of MODELS.
    """
    if isinstance(network, Cnn):
        return network.features[-3]
    if not isinstance(network, TorchvisionNetwork):
        raise TypeError(f"found a {type(network).__name__}, expected a network of {', '.join(MODELS)}")
    path = {"resnet18": "layer4.1", "densenet169": "features.norm5", "vit_b_16": "encoder.layers.encoder_layer_11.ln_1"}
    return network.body.get_submodule(path[network.model])


def as_map(output: torch.Tensor) -> torch.Tensor:
    """The output of `last_convolution` as maps (N, C, H, W): a transformer's (N, 1 + P, D) less its class token."""
    if output.dim() == 4:
        return output
    side = math.isqrt(output.shape[1] - 1)
    return output[:, 1:].transpose(1, 2).unflatten(2, (side, side))
