"""torchvision's networks for radiographs: one channel in, the classes out."""

# N batch, C channels, H W rows and columns, K classes

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from engine.torchvision_import import import_torchvision

# the means over red, green and blue of what ImageNet's pretrained networks are normalised by (torchvision's models)
MEAN, DEVIATION = 0.449, 0.226


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What torchvision calls parts of a network.  stem: its first convolution.  head: its last layer."""

    stem: str
    head: str


NAMES = {
    "resnet18": Names(stem="conv1", head="fc"),
    "densenet169": Names(stem="features.conv0", head="classifier"),
    "vit_b_16": Names(stem="conv_proj", head="heads.head"),
}


class TorchvisionNetwork(nn.Module):
    """A network of torchvision (body) and a linear layer behind a dropout (head).

    forward: frames_N1HW float in [-1, 1] → logits_NK.
    A pretrained network expects grey levels g in [0, 1], repeated in three channels, as (g - mean) / deviation. Here
    the frames are mapped to that first, with one mean and one deviation for the three channels; the first convolution's
    weights for them are summed (`sum_channels`), which gives the same as three equal channels, at the borders too.
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
        self.model = model
        self.body = body
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(num_features, num_classes))

    def forward(self, frames_N1HW: torch.Tensor) -> torch.Tensor:
        # (g - mean) / deviation of g = (frames + 1) / 2
        return self.head(self.body(frames_N1HW * (0.5 / DEVIATION) + (0.5 - MEAN) / DEVIATION))


def one_channel(stem: nn.Conv2d) -> nn.Conv2d:
    """A first convolution for one channel, which gives what the other gives for that channel three times."""
    sizes = (stem.out_channels, stem.kernel_size, stem.stride, stem.padding)
    made = nn.utils.skip_init(nn.Conv2d, 1, *sizes, bias=stem.bias is not None)
    with torch.no_grad():
        made.weight.copy_(sum_channels(stem.weight))
        if stem.bias is not None and made.bias is not None:
            made.bias.copy_(stem.bias)
    return made


def sum_channels(weight_KCHW: torch.Tensor) -> torch.Tensor:
    """The weights of a convolution for one channel in place of C equal ones, (K, 1, H, W)."""
    return weight_KCHW.sum(1, keepdim=True)
