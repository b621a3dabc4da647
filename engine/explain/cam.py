"""Class activation maps: where in a picture the evidence for a class lies."""

# N samples, C channels, H W rows and columns of the crop or of a map, K classes

import contextlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
import torch
from torch import nn

from engine.networks.cnn import LAYERS, Cnn
from engine.networks.registry import as_map, last_convolution

Method = Literal["hirescam", "gradcam"]
METHODS: dict[Method, str] = {"hirescam": "HiResCAM", "gradcam": "GradCAM"}  # as people write them
LEAST_CELLS = 14  # a side of the map; GradCAM's own network has 14 at crops of 224, and so has the recipe's
BATCH = 16


def cam(
    network: nn.Module,
    frames_N1HW: torch.Tensor,
    target_N: np.ndarray,
    *,
    method: Method = "hirescam",
    reference_N1HW: torch.Tensor | None = None,
) -> np.ndarray:
    """Where the evidence for each picture's target class lies: float32 N×H×W of the crop, each map's peak at 1.

    frames_N1HW: float32 in [-1, 1], on the network's device.  A map without any evidence for its class is 0 all over.
    See `evidence`.  Errors: TypeError for a network that is not of engine.networks.registry.
    """
    map_NHW = evidence(network, frames_N1HW, target_N, method=method, reference_N1HW=reference_N1HW)
    large_NHW = upsample(map_NHW.clip(0), *frames_N1HW.shape[2:])
    peak_N11 = large_NHW.max((1, 2), keepdims=True)
    return large_NHW / np.where(peak_N11 > 0, peak_N11, 1)


def upsample(map_NHW: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Maps of so many rows and columns, bilinear: float32 N×H×W."""
    map_N1HW = torch.from_numpy(map_NHW)[:, None]
    return nn.functional.interpolate(map_N1HW, size=(rows, columns), mode="bilinear", align_corners=False)[:, 0].numpy()


def evidence(
    network: nn.Module,
    frames_N1HW: torch.Tensor,
    target_N: np.ndarray,
    *,
    method: Method = "hirescam",
    reference_N1HW: torch.Tensor | None = None,
) -> np.ndarray:
    """The map before it is upsampled, for the class above 0 and against it below: float32 N×H×W of the layer.

    gradcam: activations weighed by each channel's mean gradient (Selvaraju et al. 2017).  hirescam: by the gradient at
    their own place (Draelos and Carin 2020): the recipe's network has a weight for every place of its last maps, which
    a mean over places loses.  The gradient is of the target's logit less the others' log-sum-exp: a logit that rises
    for both classes is evidence for neither.
    reference_N1HW: ordinary pictures; activations count by how far they are from the mean over these, since what every
    picture shows tells nothing of its class.  None: by how far they are from 0, as in the papers.
    """
    with opened(network):
        layer = explained_layer(network, frames_N1HW.shape[-1])
        mean_CHW = torch.zeros(())
        if reference_N1HW is not None:
            sums = [activation(network, layer, part).sum(0) for part in reference_N1HW.split(BATCH)]
            mean_CHW = torch.stack(sums).sum(0) / len(reference_N1HW)
        maps = []
        parts = zip(frames_N1HW.split(BATCH), torch.from_numpy(target_N).split(BATCH), strict=True)
        for part_N1HW, part_N in parts:
            target_of_part_N = part_N.to(part_N1HW.device)
            maps_NCHW, gradient_NCHW = activation_and_gradient(network, layer, part_N1HW, target_of_part_N)
            if method == "gradcam":
                gradient_NCHW = gradient_NCHW.mean((2, 3), keepdim=True)
            maps.append((gradient_NCHW * (maps_NCHW - mean_CHW.to(part_N1HW.device))).sum(1).float().cpu())
    return torch.cat(maps).numpy()


@contextlib.contextmanager
def opened(network: nn.Module) -> Iterator[None]:
    """The network in evaluation mode, its layers one by one, the recipe's in the report's order; as it was afterwards.

    The report rectifies before it pools: the same function (engine.networks.cnn), but only there are the rectified maps
    at the convolution's own resolution.
    """
    with contextlib.ExitStack() as stack:
        stack.callback(network.train, network.training)
        network.eval()
        if isinstance(network, Cnn):
            features = network.features
            stack.callback(setattr, network, "features", features)
            stack.callback(setattr, network, "fused", network.fused)
            layers = [features[start + step] for start in range(0, len(features), LAYERS) for step in (0, 1, 3, 2)]
            network.features, network.fused = nn.Sequential(*layers), False
        yield


def explained_layer(network: nn.Module, crop: int) -> nn.Module:
    """The layer whose maps are weighed; call it within `opened`.

    Of the recipe's network the rectified maps of the deepest block that has at least 14 cells a side: at crops of 224
    the last, at 128 the fourth, at 64 the third.  Fewer cells cannot tell a shoulder from the top of a lung.  Of others
    the last convolution.
    """
    if not isinstance(network, Cnn):
        return last_convolution(network)
    blocks = len(network.features) // LAYERS
    deep = [block for block in range(blocks) if crop // 2**block >= LEAST_CELLS]
    return network.features[(deep[-1] if deep else 0) * LAYERS + 2]


def layer_name(network: nn.Module, crop: int) -> str:
    """The layer's path in the network, for the record."""
    with opened(network):
        layer = explained_layer(network, crop)
        path = next(path for path, module in network.named_modules() if module is layer)
    return f"{path} (ReLU before pooling)" if isinstance(network, Cnn) else path


def activation(network: nn.Module, layer: nn.Module, frames_N1HW: torch.Tensor) -> torch.Tensor:
    """The layer's maps, N×C×H×W."""
    with torch.no_grad():
        return as_map(outputs(network, layer, frames_N1HW)[0])


def activation_and_gradient(
    network: nn.Module, layer: nn.Module, frames_N1HW: torch.Tensor, target_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's maps, and the gradient of the target's log-odds there, both N×C×H×W."""
    with torch.enable_grad():
        output, logits_NK = outputs(network, layer, frames_N1HW.detach().requires_grad_())
        odds_NK = torch.stack([odds(logits_NK, label) for label in range(logits_NK.shape[1])], 1)
        (slope,) = torch.autograd.grad(odds_NK.gather(1, target_N[:, None]).sum(), output)
    return as_map(output.detach()), as_map(slope)


def outputs(network: nn.Module, layer: nn.Module, frames_N1HW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer's output and the network's.  The layers behind get a copy, since some change their input in place."""
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
        found.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep)
    try:
        logits_NK = network(frames_N1HW)
    finally:
        handle.remove()
    return found[0], logits_NK


def odds(logits_NK: torch.Tensor, label: int) -> torch.Tensor:
    """The class's logit less the log-sum-exp of the others'."""
    others_NK = torch.cat([logits_NK[:, :label], logits_NK[:, label + 1 :]], 1)
    return logits_NK[:, label] - others_NK.logsumexp(1)
