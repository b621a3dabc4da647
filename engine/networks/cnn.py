"""The recipe's network: five convolution blocks, then two linear layers (DESIGN, recipe)."""

# N batch, H W rows and columns of the crop, K classes

from itertools import pairwise

import torch
from torch import Tensor, nn

from engine.networks.cpu_blocks import fused_block, fused_first_block

CHANNELS = (1, 32, 64, 128, 256, 256)
HIDDEN = 512
LAYERS = 4  # of a block
FUSED = (torch.float32, torch.bfloat16)  # precisions of the fused blocks


class Cnn(nn.Module):
    """Logits of K classes for crops of one side.

    forward: frames_N1HW float in [-1, 1] → logits_NK.
    Each block is convolution 3×3 → batch norm → max-pool 2×2 → ReLU. The report pools after the ReLU; the two commute,
    and pooling first hands the ReLU a quarter of the bytes. The convolutions have no bias: batch norm subtracts any.
    fused: on a CPU in float32, or under autocast to bfloat16, each block is one function (engine.networks.cpu_blocks),
    faster than its layers in channels_last and nearer to float64; otherwise, and with fused=False, which hooks on
    single layers need, the layers are called one by one.
    """

    def __init__(self, num_classes: int, crop: int, dropout: float, *, fused: bool = True) -> None:
        super().__init__()
        self.fused = fused
        blocks: list[nn.Module] = []
        for channels_in, channels_out in pairwise(CHANNELS):
            blocks += [
                nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels_out),
                nn.MaxPool2d(2),
                nn.ReLU(),
            ]
        side = crop // 2 ** (len(CHANNELS) - 1)
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(CHANNELS[-1] * side**2, HIDDEN),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, num_classes),
        )

    def forward(self, frames_N1HW: Tensor) -> Tensor:
        on_cpu = frames_N1HW.device.type == "cpu" and frames_N1HW.dtype == torch.float32
        mixed = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if mixed else torch.float32
        if not self.fused or not on_cpu or dtype not in FUSED or torch.compiler.is_compiling():
            return self.classifier(self.features(frames_N1HW))
        with torch.autocast("cpu", enabled=False):
            pictures_NCHW = frames_N1HW
            for start in range(0, len(self.features), LAYERS):
                convolution, norm = self.features[start], self.features[start + 1]
                assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
                if start == 0 and not frames_N1HW.requires_grad:
                    pictures_NCHW = fused_first_block(frames_N1HW, convolution, norm, dtype)
                else:
                    pictures_NCHW = fused_block(pictures_NCHW.to(dtype), convolution, norm)
            return self.classifier(pictures_NCHW.float())  # little work, and logits of eight bits would tie
