"""The fused blocks of the CPU step: convolution, batch norm, max-pool 2×2 and ReLU as one differentiable function.

In `fused_block` the convolution and its input gradient are oneDNN's. The rest is two passes over the convolution's
output: one forward, one backward, which turns it into its own gradient in place.  `fused_first_block`, for a single
channel without a gradient of its input, computes the convolution on the way, and never stores its output.
"""

# N batch, C channels in, K channels out, H W rows and columns, h w of the pooled picture, 33 the convolution's window,
# 9 its taps, T the taps and their sum, PP a frame with one pixel of zeros around it

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from engine.networks.batch_parts import empty, for_each_part, pixels, weight_gradient
from kernels.fused_block import activate_into, gradient_in_place, pool_into, sum_gradients_into
from kernels.fused_first_block import TAPS, correlate_into, first_block_into, first_gradients_into

FEW = 150  # pixels of a picture: below, a matrix product is too thin for the weight gradient; timed on AVX2 alone
convolution_backward = torch.ops.aten.convolution_backward
SILENT = np.errstate(invalid="ignore", over="ignore")  # what is not finite shows in the loss


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Mean and biased variance of each channel, float64 (K,).  count: pixels they are of; 0 for running ones."""

    mean_K: np.ndarray
    variance_K: np.ndarray
    count: int = 0

    def deviation_K(self, norm: nn.BatchNorm2d) -> np.ndarray:
        """What normalising divides by, float64."""
        return np.sqrt(self.variance_K + norm.eps)


def batch_statistics(sum_K: np.ndarray, square_sum_K: np.ndarray, count: int) -> Statistics:
    """From sums and sums of squares in float64, where squares of float32 leave digits enough to subtract.

    Errors: ValueError for a single value a channel, which has no variance.
    """
    if count < 2:
        raise ValueError(f"batch norm in training: found {count} value a channel, expected 2 or more")
    mean_K = sum_K / count
    return Statistics(mean_K=mean_K, variance_K=np.maximum(square_sum_K / count - mean_K**2, 0), count=count)


def running_statistics(norm: nn.BatchNorm2d) -> Statistics:
    """Those of evaluation mode."""
    assert norm.running_mean is not None and norm.running_var is not None
    return Statistics(mean_K=norm.running_mean.double().numpy(), variance_K=norm.running_var.double().numpy())


@torch.no_grad()
def update_running(norm: nn.BatchNorm2d, batch: Statistics) -> None:
    """Move the running statistics towards a batch's, as PyTorch does: the variance unbiased."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
    assert norm.num_batches_tracked is not None
    unbiased_K = batch.variance_K * (batch.count / (batch.count - 1))
    for running_K, batch_K in ((norm.running_mean, batch.mean_K), (norm.running_var, unbiased_K)):
        running_K.copy_(torch.lerp(running_K.double(), torch.from_numpy(batch_K), norm.momentum))
    norm.num_batches_tracked += 1


def fused_block(pictures_NCHW: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> Tensor:
    """relu(max_pool2d(norm(convolution(pictures)), 2)), (N, K, h, w) in channels_last.

    pictures: float32 or bfloat16, in which weights, pictures and gradients are then rounded, multiplied and kept, the
    convolution's weight gradient too.  Statistics and batch norm's gradients are float32 or wider.  Not under autocast.
    convolution: 3×3, padding 1, no bias.  Updates the running statistics in training mode.
    Errors: ValueError for a single value a channel in training; RuntimeError for a second backward pass.
    """
    return FusedBlock.apply(pictures_NCHW, convolution.weight, norm.weight, norm.bias, norm)


class FusedBlock(torch.autograd.Function):
    """See fused_block.  Kept for the backward pass: input, convolution's output, pooled extremes, their corners."""

    @staticmethod
    @SILENT
    def forward(
        ctx: Any, pictures_NCHW: Tensor, weight_KC33: Tensor, scale_K: Tensor, shift_K: Tensor, norm: nn.BatchNorm2d
    ) -> Tensor:
        pictures_NCHW = pictures_NCHW.contiguous(memory_format=torch.channels_last)
        dtype = pictures_NCHW.dtype
        weight_KC33 = weight_KC33.to(dtype)
        convolved_NKHW = functional.conv2d(multiplied(pictures_NCHW), multiplied(weight_KC33), padding=1).to(dtype)
        convolved_NKHW = convolved_NKHW.contiguous(memory_format=torch.channels_last)  # which it nearly always is
        convolved_NHWK = pixels(convolved_NKHW)
        num_images, height, width, channels = convolved_NHWK.shape
        pooled = (num_images, height // 2, width // 2, channels)
        extreme_NhwK, corner_NhwK = np.empty(pooled, convolved_NHWK.dtype), np.empty(pooled, np.uint8)
        sum_N2K = np.empty((num_images, 2, channels))
        sign_K = signs(scale_K)
        for_each_part(partial(pool_into, extreme_NhwK, corner_NhwK, sum_N2K, convolved_NHWK, sign_K), num_images)
        statistics = running_statistics(norm)
        if norm.training:
            sum_K, square_sum_K = sum_N2K.sum(0)
            statistics = batch_statistics(sum_K, square_sum_K, num_images * height * width)
            update_running(norm, statistics)
        constants = normalisation(statistics, norm)
        out_NKhw = empty(pooled, dtype)
        for_each_part(partial(activate_into, pixels(out_NKhw), corner_NhwK, extreme_NhwK, *constants), num_images)
        ctx.save_for_backward(pictures_NCHW, weight_KC33)
        ctx.kept = (convolved_NKHW, extreme_NhwK, corner_NhwK, statistics, constants, norm)
        return out_NKhw

    @staticmethod
    @once_differentiable
    @SILENT
    def backward(ctx: Any, gradient_NKhw: Tensor) -> tuple[Tensor | None, ...]:
        pictures_NCHW, weight_KC33 = ctx.saved_tensors
        if ctx.kept is None:
            raise RuntimeError("fused block: a second backward pass, expected one; use Cnn(..., fused=False)")
        convolved_NKHW, extreme_NhwK, corner_NhwK, statistics, (mean_K, factor_K, _), norm = ctx.kept
        ctx.kept = None  # the convolution's output is about to become its gradient
        convolved_NHWK = pixels(convolved_NKHW)
        gradient_NhwK = pixels(gradient_NKhw.contiguous(memory_format=torch.channels_last))
        num_images = len(convolved_NHWK)
        sum_N2K = np.empty((num_images, 2, len(mean_K)))
        extremes = (gradient_NhwK, corner_NhwK, extreme_NhwK, mean_K)
        for_each_part(partial(sum_gradients_into, sum_N2K, *extremes), num_images)
        shift_gradient_K, moment_K = sum_N2K.sum(0)
        deviation_K = statistics.deviation_K(norm)
        scale_gradient_K = moment_K / deviation_K
        share = 1 / statistics.count if statistics.count else 0.0  # running statistics do not depend on the batch
        offset_K = (factor_K * shift_gradient_K * share).astype(np.float32)
        slope_K = (factor_K * scale_gradient_K / deviation_K * share).astype(np.float32)
        constants = (mean_K, factor_K, slope_K, offset_K)
        for_each_part(partial(gradient_in_place, convolved_NHWK, gradient_NhwK, corner_NhwK, *constants), num_images)
        dtype = pictures_NCHW.dtype
        products = dtype == torch.float32 and ctx.needs_input_grad[1] and convolved_NHWK[0, :, :, 0].size >= FEW
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1] and not products, False]
        factors = (multiplied(factor) for factor in (convolved_NKHW, pictures_NCHW, weight_KC33))
        gradients = convolution_backward(*factors, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, wanted)
        gradient_NCHW, weight_gradient_KC33 = (None if one is None else one.to(dtype) for one in gradients[:2])
        if products:
            weight_gradient_KC33 = weight_gradient(pictures_NCHW, convolved_NKHW)
        weight_gradient_KC33 = None if weight_gradient_KC33 is None else weight_gradient_KC33.float()
        return gradient_NCHW, weight_gradient_KC33, as_float32(scale_gradient_K), as_float32(shift_gradient_K), None


def multiplied(factor: Tensor) -> Tensor:
    """A factor of a convolution as it is multiplied: bfloat16 as float32 where oneDNN would not take it.

    torch's own convolution, its way out there, is slower, and adds up in bfloat16.
    """
    return factor if factor.dtype == torch.float32 or onednn_takes_bfloat16() else factor.float()


def onednn_takes_bfloat16() -> bool:
    """Whether torch hands convolutions in bfloat16 to oneDNN, which it does with AVX-512."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def signs(scale_K: Tensor) -> np.ndarray:
    """-1 where batch norm turns the order of pixels round, 0 where it makes them equal, else 1; float32."""
    return np.sign(scale_K.detach().numpy())


def normalisation(statistics: Statistics, norm: nn.BatchNorm2d) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean, factor and shift, float32 (K,): a pixel becomes (pixel - mean) · factor + shift."""
    factor_K = norm.weight.detach().double().numpy() / statistics.deviation_K(norm)
    return statistics.mean_K.astype(np.float32), factor_K.astype(np.float32), norm.bias.detach().numpy()


def as_float32(array: np.ndarray) -> Tensor:
    """A float64 array as a tensor of float32."""
    return torch.from_numpy(array.astype(np.float32))


def fused_first_block(
    frames_N1HW: Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d, dtype: torch.dtype = torch.float32
) -> Tensor:
    """relu(max_pool2d(norm(convolution(frames)), 2)), (N, K, h, w) in channels_last.

    frames: float32, and so is the convolution; dtype, float32 or bfloat16: of what it gives.
    convolution: 3×3, padding 1, no bias, one channel in.  Frames get no gradient.
    Errors: ValueError for a single value a channel in training.
    """
    return FusedFirstBlock.apply(frames_N1HW, convolution.weight, norm.weight, norm.bias, norm, dtype)


class FusedFirstBlock(torch.autograd.Function):
    """See fused_first_block.  Kept for the backward pass: frames, corners, and the frames' correlations.

    The convolution is linear in nine taps, so that its mean is weight · (sum of taps), its second moment
    weight · (correlation of taps) · weight, and what the statistics add to the gradient follows from the same sums.
    """

    @staticmethod
    @SILENT
    def forward(
        ctx: Any, frames_N1HW: Tensor, weight_K133: Tensor, scale_K: Tensor, shift_K: Tensor, norm: nn.BatchNorm2d,
        dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        frame_NPP = functional.pad(frames_N1HW.detach()[:, 0], (1, 1, 1, 1)).numpy()
        num_images, _, height, width = frames_N1HW.shape
        weight_9K = np.ascontiguousarray(weight_K133.detach().reshape(-1, TAPS).numpy().T)
        tap_sum_9, correlation_99, statistics = None, None, running_statistics(norm)
        if norm.training:
            tap_sum_9, correlation_99 = correlations(frame_NPP)
            wide_9K = weight_9K.astype(np.float64)  # of the convolution's output, which is never computed itself:
            sums_K, square_sums_K = tap_sum_9 @ wide_9K, (wide_9K * (correlation_99 @ wide_9K)).sum(0)
            statistics = batch_statistics(sums_K, square_sums_K, num_images * height * width)
            update_running(norm, statistics)
        constants, sign_K = normalisation(statistics, norm), signs(scale_K)
        pooled = (num_images, height // 2, width // 2, weight_9K.shape[1])
        out_NKhw, corner_NhwK = empty(pooled, dtype), np.empty(pooled, np.uint8)
        out_NhwK = pixels(out_NKhw)

        def forward(start: int, stop: int) -> None:
            pixel_4K = np.empty((4, weight_9K.shape[1]), np.float32)
            first_block_into(out_NhwK, corner_NhwK, frame_NPP, weight_9K, sign_K, *constants, pixel_4K, start, stop)

        for_each_part(forward, num_images)
        ctx.kept = (frame_NPP, weight_9K, corner_NhwK, statistics, constants[1], norm, tap_sum_9, correlation_99)
        return out_NKhw

    @staticmethod
    @once_differentiable
    @SILENT
    def backward(ctx: Any, gradient_NKhw: Tensor) -> tuple[Tensor | None, ...]:
        frame_NPP, weight_9K, corner_NhwK, statistics, factor_K, norm, tap_sum_9, correlation_99 = ctx.kept
        gradient_NhwK = pixels(gradient_NKhw.contiguous(memory_format=torch.channels_last))
        num_channels = weight_9K.shape[1]
        sum_NTK = np.empty((len(frame_NPP), TAPS + 1, num_channels))

        def sum_up(start: int, stop: int) -> None:
            scratch = (np.empty((TAPS, num_channels), np.float32), np.empty((4, num_channels), np.float32))
            first_gradients_into(sum_NTK, gradient_NhwK, corner_NhwK, frame_NPP, *scratch, start, stop)

        for_each_part(sum_up, len(frame_NPP))
        sum_TK = sum_NTK.sum(0)
        by_tap_9K, shift_gradient_K = sum_TK[:TAPS], sum_TK[TAPS]
        weight_9K = weight_9K.astype(np.float64)
        mean_K, deviation_K = statistics.mean_K, statistics.deviation_K(norm)
        scale_gradient_K = ((weight_9K * by_tap_9K).sum(0) - mean_K * shift_gradient_K) / deviation_K
        gradient_9K = by_tap_9K
        if statistics.count:
            moment_9K = correlation_99 @ weight_9K - tap_sum_9[:, None] * mean_K
            through_mean_9K = tap_sum_9[:, None] * shift_gradient_K
            through_deviation_9K = moment_9K * (scale_gradient_K / deviation_K)
            gradient_9K = by_tap_9K - (through_mean_9K + through_deviation_9K) / statistics.count
        weight_gradient_K133 = as_float32((gradient_9K * factor_K).T.reshape(num_channels, 1, 3, 3))
        return None, weight_gradient_K133, as_float32(scale_gradient_K), as_float32(shift_gradient_K), None, None


def correlations(frame_NPP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of each tap, float64 (9,), and of each product of two, (9, 9), over all frames."""
    sum_N9, correlation_N99 = np.empty((len(frame_NPP), TAPS)), np.empty((len(frame_NPP), TAPS, TAPS))
    width = frame_NPP.shape[2] - 2

    def correlate(start: int, stop: int) -> None:
        correlate_into(sum_N9, correlation_N99, frame_NPP, np.empty(width), start, stop)

    for_each_part(correlate, len(frame_NPP))
    return sum_N9.sum(0), correlation_N99.sum(0)
