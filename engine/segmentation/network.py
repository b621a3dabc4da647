"""The segmenter's net: a small U-Net that works at half of its input's side, and its ONNX."""

# N batch, T side of the input, C channels

import importlib
import importlib.util
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from loaders.errors import ConfigError
from loaders.images.lungs import SIDE

CHANNELS = (8, 16, 32, 64, 96)  # of the levels, from half of the input's side to a thirty-second


class ConvNorm(nn.Module):
    """Convolution 3×3, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)  # the norm's shift replaces the bias
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Two layers of one level."""
    return nn.Sequential(ConvNorm(inputs, outputs), ConvNorm(outputs, outputs))


class LungNet(nn.Module):
    """float32 (N, 1, T, T), standardised, to logits (N, 1, T/2, T/2) that a pixel is lung; T a multiple of 32.

    Source: Ronneberger et al. 2015 (U-Net).
    """

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvNorm(1, CHANNELS[0], stride=2)
        self.down = nn.ModuleList(map(double, (CHANNELS[0], *CHANNELS), CHANNELS))
        self.up = nn.ModuleList(double(low + high, low) for low, high in zip(CHANNELS[-2::-1], CHANNELS[:0:-1]))  # noqa: B905
        self.last = nn.Conv2d(CHANNELS[0], 1, 1)

    def forward(self, x_N1TT: Tensor) -> Tensor:
        x, levels = self.first(x_N1TT), []
        for level, layers in enumerate(self.down):
            x = layers(F.max_pool2d(x, 2) if level else x)
            levels.append(x)
        levels.pop()
        for layers in self.up:
            x = layers(torch.cat([levels.pop(), F.interpolate(x, scale_factor=2, mode="nearest")], 1))
        return self.last(x)


def require_onnx() -> Any:
    """The package onnx.  Errors: ConfigError where it is not installed."""
    if importlib.util.find_spec("onnx") is None:
        raise ConfigError("segment-train: onnx is not installed, expected it; pip install 'plainfilm[export]'")
    return importlib.import_module("onnx")


def onnx_bytes(net: LungNet) -> bytes:
    """The net as ONNX for one frame, norms folded into convolutions, weights in float16, arithmetic in float32."""
    onnx = require_onnx()
    make, tensor, arrays = onnx.helper.make_node, onnx.TensorProto, onnx.numpy_helper
    nodes: list[Any] = []
    weights = [arrays.from_array(np.array([1, 1, 2, 2], np.float32), "twice")]

    def add(kind: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(make(kind, list(inputs), [f"{kind.lower()}-{len(nodes)}"], **attributes))
        return str(nodes[-1].output[0])

    def weight(values: Tensor) -> str:
        name = f"weight-{len(weights)}"
        weights.append(arrays.from_array(values.detach().cpu().numpy().astype(np.float16), name))
        return add("Cast", name, to=tensor.FLOAT)

    def conv(x: str, layer: ConvNorm) -> str:
        norm = layer.norm
        assert norm.running_var is not None and norm.running_mean is not None
        scale_C = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shift_C = norm.bias - norm.running_mean * scale_C
        kernel = weight(layer.conv.weight * scale_C[:, None, None, None])
        found = add("Conv", x, kernel, weight(shift_C), pads=[1] * 4, strides=list(layer.conv.stride))
        return add("Relu", found)

    def level(x: str, layers: Any) -> str:
        return conv(conv(x, layers[0]), layers[1])

    x, levels = conv("frame", net.first), []
    for place, layers in enumerate(net.down):
        x = level(add("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]) if place else x, layers)
        levels.append(x)
    levels.pop()
    options = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    for layers in net.up:
        x = level(add("Concat", levels.pop(), add("Resize", x, "", "twice", **options), axis=1), layers)
    x = add("Conv", x, weight(net.last.weight), weight(net.last.bias))  # type: ignore[arg-type]
    shapes = [("frame", SIDE), (x, SIDE // 2)]
    taken, given = (onnx.helper.make_tensor_value_info(name, tensor.FLOAT, [1, 1, side, side]) for name, side in shapes)
    graph = onnx.helper.make_graph(nodes, "lungs", [taken], [given], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], producer_name="plainfilm")
    model.ir_version = 8  # of opset 13's time, which every reader knows
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())
