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

from engine.batch_statistics import Statistics, batch_statistics, running_statistics, update_running
from engine.channels_last import empty, pixels
from engine.weight_gradient import weight_gradient
from engine.workers import for_each_part
from kernels.pooled_norm import activate_into, gradient_in_place, pool_into, sum_gradients_into

FEW = 150  # pixels of a picture: below, a matrix product is too thin for the weight gradient; timed on AVX2 alone
convolution_backward = torch.ops.aten.convolution_backward
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
        convolved_NKHW = convolved_NKHW.contiguous(memory_format=torch.channels_last)  # which it nearly always is
        convolved_NHWK = pixels(convolved_NKHW)
        num_images, height, width, channels = convolved_NHWK.shape
        pooled = (num_images, height // 2, width // 2, channels)
        extreme_NhwK, corner_NhwK = np.empty(pooled, np.float32), np.empty(pooled, np.uint8)
        sum_N2K = np.empty((num_images, 2, channels))
        sign_K = signs(scale_K)

        for_each_part(
            lambda images: pool_into(
                extreme_NhwK, corner_NhwK, sum_N2K, convolved_NHWK, sign_K, images.start, images.stop
            ),
            num_images,
        )
        if norm.training:
            sum_K, square_sum_K = sum_N2K.sum(0)
            statistics = batch_statistics(sum_K, square_sum_K, num_images * height * width)
            update_running(norm, statistics)
        else:
            statistics = running_statistics(norm)
        constants = normalisation(statistics, norm)
        out_NKhw = empty(pooled)
        out_NhwK = pixels(out_NKhw)

        for_each_part(
            lambda images: activate_into(out_NhwK, corner_NhwK, extreme_NhwK, *constants, images.start, images.stop),
            num_images,
        )
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
        num_images = len(convolved_NHWK)
        sum_N2K = np.empty((num_images, 2, len(mean_K)))
        for_each_part(
            lambda images: sum_gradients_into(
                sum_N2K, gradient_NhwK, corner_NhwK, extreme_NhwK, mean_K, images.start, images.stop
            ),
            num_images,
        )
        shift_gradient_K, moment_K = sum_N2K.sum(0)
        deviation_K = statistics.deviation_K(norm)
        scale_gradient_K = moment_K / deviation_K
        share = 1 / statistics.count if statistics.count else 0.0  # running statistics do not depend on the batch
        offset_K = (factor_K * shift_gradient_K * share).astype(np.float32)
        slope_K = (factor_K * scale_gradient_K / deviation_K * share).astype(np.float32)

        constants = (mean_K, factor_K, slope_K, offset_K)
        for_each_part(
            lambda images: gradient_in_place(
                convolved_NHWK, gradient_NhwK, corner_NhwK, *constants, images.start, images.stop
            ),
            num_images,
        )
        products = ctx.needs_input_grad[1] and convolved_NHWK[0, :, :, 0].size >= FEW
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1] and not products, False]
        gradients = convolution_backward(
            convolved_NKHW, pictures_NCHW, weight_KC33, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted
        )
        weight_gradient_KC33 = weight_gradient(pictures_NCHW, convolved_NKHW) if products else gradients[1]
        return gradients[0], weight_gradient_KC33, as_float32(scale_gradient_K), as_float32(shift_gradient_K), None


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
