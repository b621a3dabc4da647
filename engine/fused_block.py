"""The fused block of the CPU step: convolution, batch norm, max-pool 2×2 and ReLU as one differentiable function.

The convolution and its input gradient are oneDNN's. The rest is two passes over the convolution's output: one forward,
one backward, which turns it into its own gradient in place.
"""

# N batch, C channels in, K channels out, H W rows and columns, h w of the pooled picture, 33 the convolution's window

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.grad import conv2d_input

from engine.batch_statistics import Statistics, batch_statistics, running_statistics, update_running
from engine.weight_gradient import weight_gradient
from engine.workers import for_each_part
from kernels.pooled_norm import activate_into, gradient_in_place, pool_into, sum_gradients_into

SILENT = np.errstate(invalid="ignore", over="ignore")  # what is not finite shows in the loss


def fused_block(pictures_NCHW: torch.Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> torch.Tensor:
    """relu(max_pool2d(norm(convolution(pictures)), 2)), float32 (N, K, h, w) in channels_last.

    convolution: 3×3, padding 1, no bias.  Updates the running statistics in training mode.
    Errors: ValueError for a single value a channel in training; RuntimeError for a second backward pass.
    """
    return FusedBlock.apply(pictures_NCHW, convolution.weight, norm.weight, norm.bias, norm)


class FusedBlock(torch.autograd.Function):
    """See fused_block.  Kept for the backward pass: input, convolution's output, pooled extremes, their corners."""

    @staticmethod
    @SILENT
    def forward(
        ctx: Any,
        pictures_NCHW: torch.Tensor,
        weight_KC33: torch.Tensor,
        scale_K: torch.Tensor,
        shift_K: torch.Tensor,
        norm: nn.BatchNorm2d,
    ) -> torch.Tensor:
        pictures_NCHW = pictures_NCHW.contiguous(memory_format=torch.channels_last)
        convolved_NKHW = functional.conv2d(pictures_NCHW, weight_KC33, padding=1)
        convolved_NHWK = pixels(convolved_NKHW)
        num_images, height, width, channels = convolved_NHWK.shape
        pooled = (num_images, height // 2, width // 2, channels)
        extreme_NhwK, corner_NhwK = np.empty(pooled, np.float32), np.empty(pooled, np.uint8)
        sum_N2K = np.empty((num_images, 2, channels))
        sign_K = signs(scale_K)

        def pool(images: range) -> None:
            for image in images:
                pool_into(extreme_NhwK[image], corner_NhwK[image], sum_N2K[image], convolved_NHWK[image], sign_K)

        for_each_part(pool, num_images)
        if norm.training:
            statistics = batch_statistics(*sum_N2K.sum(0), num_images * height * width)
            update_running(norm, statistics)
        else:
            statistics = running_statistics(norm)
        constants = normalisation(statistics, norm)
        out_NKhw = torch.empty_strided(*channels_last(pooled))
        out_NhwK = pixels(out_NKhw)

        def activate(images: range) -> None:
            for image in images:
                activate_into(out_NhwK[image], corner_NhwK[image], extreme_NhwK[image], *constants)

        for_each_part(activate, num_images)
        ctx.save_for_backward(pictures_NCHW, weight_KC33)
        ctx.kept = (convolved_NKHW, extreme_NhwK, corner_NhwK, statistics, constants, norm)
        return out_NKhw

    @staticmethod
    @once_differentiable
    @SILENT
    def backward(ctx: Any, gradient_NKhw: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        pictures_NCHW, weight_KC33 = ctx.saved_tensors
        if ctx.kept is None:
            raise RuntimeError("fused block: a second backward pass, expected one; use Cnn(..., fused=False)")
        convolved_NKHW, extreme_NhwK, corner_NhwK, statistics, (mean_K, factor_K, _), norm = ctx.kept
        ctx.kept = None  # the convolution's output is about to become its gradient
        convolved_NHWK = pixels(convolved_NKHW)
        gradient_NhwK = pixels(gradient_NKhw.contiguous(memory_format=torch.channels_last))
        sum_N2K = np.empty((len(convolved_NHWK), 2, len(mean_K)))

        def sum_up(images: range) -> None:
            for image in images:
                sum_gradients_into(
                    sum_N2K[image], gradient_NhwK[image], corner_NhwK[image], extreme_NhwK[image], mean_K
                )

        for_each_part(sum_up, len(convolved_NHWK))
        shift_gradient_K, moment_K = sum_N2K.sum(0)
        deviation_K = statistics.deviation_K(norm)
        scale_gradient_K = moment_K / deviation_K
        share = 1 / statistics.count if statistics.count else 0.0  # running statistics do not depend on the batch
        offset_K = (factor_K * shift_gradient_K * share).astype(np.float32)
        slope_K = (factor_K * scale_gradient_K / deviation_K * share).astype(np.float32)

        def to_gradient(images: range) -> None:
            for image in images:
                gradient_in_place(
                    convolved_NHWK[image],
                    gradient_NhwK[image],
                    corner_NhwK[image],
                    mean_K,
                    factor_K,
                    slope_K,
                    offset_K,
                )

        for_each_part(to_gradient, len(convolved_NHWK))
        input_gradient, weight_gradient_KC33 = None, None
        if ctx.needs_input_grad[0]:
            input_gradient = conv2d_input(pictures_NCHW.shape, weight_KC33, convolved_NKHW, padding=1)
        if ctx.needs_input_grad[1]:
            weight_gradient_KC33 = weight_gradient(pixels(pictures_NCHW), convolved_NHWK)
        return input_gradient, weight_gradient_KC33, as_float32(scale_gradient_K), as_float32(shift_gradient_K), None


def pixels(tensor_NCHW: torch.Tensor) -> np.ndarray:
    """A channels_last tensor's own memory as an array (N, H, W, C)."""
    return tensor_NCHW.detach().permute(0, 2, 3, 1).numpy()


def channels_last(shape_NHWK: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape (N, K, H, W) and strides of a channels_last tensor, unambiguous also where a side is 1."""
    num_images, height, width, channels = shape_NHWK
    strides = (height * width * channels, 1, width * channels, channels)
    return (num_images, channels, height, width), strides


def signs(scale_K: torch.Tensor) -> np.ndarray:
    """-1 where batch norm turns the order of pixels round, 0 where it makes them equal, else 1; float32."""
    return np.sign(scale_K.detach().numpy())


def normalisation(statistics: Statistics, norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean, factor and shift, float32 (K,): a pixel becomes (pixel - mean) · factor + shift."""
    factor_K = norm.weight.detach().double().numpy() / statistics.deviation_K(norm)
    return statistics.mean_K.astype(np.float32), factor_K.astype(np.float32), norm.bias.detach().numpy()


def as_float32(array: np.ndarray) -> torch.Tensor:
    """A float64 array as a tensor of float32."""
    return torch.from_numpy(array.astype(np.float32))
