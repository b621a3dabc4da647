"""Networks by name: the recipe's and torchvision's, how each is made, and what its parts are called."""

# N batch, C channels, H W rows and columns, K classes, P patches of a transformer, D their features

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn

from engine.config import Model, check_model, vlm_folder
from engine.networks.cnn import Cnn
from engine.networks.extras import import_torchvision
from engine.networks.vlm import VlmNetwork, open_vlm
from loaders.errors import CheckpointError, ConfigError

MODELS: tuple[str, ...] = get_args(Model)
SMALLEST = 32  # pixels a side: each network but the transformer halves its maps five times
PATCH = 16  # pixels a side, of the transformer
# the means over red, green and blue of what ImageNet's pretrained networks are normalised by (torchvision's models)
MEAN, DEVIATION = 0.449, 0.226


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What torchvision calls parts of a network.  stem: its first convolution.  last: see `last_convolution`."""

    stem: str
    last: str
    head: str


NAMES = {
    "resnet18": Names(stem="conv1", last="layer4.1", head="fc"),
    "densenet169": Names(stem="features.conv0", last="features.norm5", head="classifier"),
    "vit_b_16": Names(stem="conv_proj", last="encoder.layers.encoder_layer_11.ln_1", head="heads.head"),
}


class TorchvisionNetwork(nn.Module):
    """A network of torchvision (body) and a linear layer behind a dropout (head).

    forward: frames_N1HW float in [-1, 1] → logits_NK.
    A pretrained network expects grey levels g in [0, 1], repeated in three channels, as (g - mean) / deviation. Here
    the frames are mapped to that first, with one mean and one deviation for the three channels; the first convolution's
    weights for them are summed (`one_channel`), which gives the same as three equal channels, at the borders too.
    Initial weights come from torch's generator as torchvision and PyTorch draw them.
    """

    def __init__(self, model: str, num_classes: int, crop: int, dropout: float) -> None:
        super().__init__()
        names = NAMES[model]
        sized = {"image_size": crop} if model == "vit_b_16" else {}
        body = import_torchvision("torchvision.models").get_model(model, weights=None, **sized)
        body.set_submodule(names.stem, one_channel(body.get_submodule(names.stem)))
        num_features = body.get_submodule(names.head).in_features
        body.set_submodule(names.head, nn.Identity())
        self.model, self.body = model, body
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))

    def forward(self, frames_N1HW: Tensor) -> Tensor:
        # (g - mean) / deviation of g = (frames + 1) / 2
        return self.head(self.body(frames_N1HW * (0.5 / DEVIATION) + (0.5 - MEAN) / DEVIATION))


def one_channel(stem: nn.Conv2d) -> nn.Conv2d:
    """A first convolution for one channel, which gives what the other gives for that channel three times."""
    sizes = (stem.out_channels, stem.kernel_size, stem.stride, stem.padding)
    made = nn.utils.skip_init(nn.Conv2d, 1, *sizes, bias=stem.bias is not None)
    with torch.no_grad():
        made.weight.copy_(stem.weight.sum(1, keepdim=True))
        if stem.bias is not None and made.bias is not None:
            made.bias.copy_(stem.bias)
    return made


def make_network(model: str, num_classes: int, crop: int, dropout: float) -> nn.Module:
    """A network of MODELS with initial weights from torch's generator.

    It takes frames (N, 1, crop, crop), float in [-1, 1], to logits (N, num_classes).
    Errors: ConfigError for an unknown network, or a crop that it cannot take.
    """
    check_crop(model, crop)
    if model == "cnn":
        return Cnn(num_classes, crop, dropout)
    return TorchvisionNetwork(model, num_classes, crop, dropout)


def network_of(state: dict[str, Any], folder: Path | None = None) -> nn.Module:
    """A network as a checkpoint's state describes it: network, classes, crop and dropout.  Its weights are not loaded.

    folder: of a vision-language model, whose own weights lie there; they are loaded.
    Errors: CheckpointError for a network that this version does not know; of such a folder as of `open_vlm`.
    """
    model = state.get("network", "cnn")
    if vlm_folder(model) and "vlm" in state:
        facts = state["vlm"]
        return open_vlm(
            folder or Path(vlm_folder(model)), state["classes"], state.get("task", "classes"), facts["prompts"],
            tune=facts["tune"], pixels=facts["pixels"], identity=facts["identity"],
        )  # fmt: skip
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


def num_parameters(network: nn.Module) -> int:
    """How many weights it computes with, those of a frozen body and of a folder included."""
    if isinstance(network, VlmNetwork):  # the adapter lies in the model
        return network.backbone.num_parameters + network.bias_K.numel()
    return sum(parameter.numel() for parameter in network.parameters())


def model_facts(network: nn.Module) -> dict[str, Any]:
    """What weights of a vision-language model must be kept with, since its own lie in a folder; {} of any other."""
    if not isinstance(network, VlmNetwork):
        return {}
    backbone = network.backbone
    facts = {"name": backbone.name, "identity": backbone.identity, "tune": network.tune, "pixels": network.pixels}
    return {"vlm": facts | {"prompts": list(network.prompts)}}


def model_identity(network: nn.Module) -> str:
    """A vision-language model's weights and questions in one text; "" of any other network."""
    facts = model_facts(network).get("vlm")
    return json.dumps([facts["identity"], facts["prompts"]]) if facts else ""


def freeze_body(network: nn.Module, frozen: bool) -> bool:
    """Train only the last layers, or all.  Gives whether that is a change."""
    body = body_of(network)
    if body is None or is_frozen(body) == frozen:
        return False
    body.requires_grad_(not frozen)
    return True


def is_frozen(body: nn.Module) -> bool:
    """Whether none of its weights is trained."""
    return not next(body.parameters()).requires_grad


def to_training(network: nn.Module) -> None:
    """Training mode; a frozen body stays in evaluation mode, so that its batch norms do not change either."""
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
    return network.body.get_submodule(NAMES[network.model].last)


def as_map(output: Tensor) -> Tensor:
    """The output of `last_convolution` as maps (N, C, H, W): a transformer's (N, 1 + P, D) less its class token."""
    if output.dim() == 4:
        return output
    side = math.isqrt(output.shape[1] - 1)
    return output[:, 1:].transpose(1, 2).unflatten(2, (side, side))
