"""The fused first block of the CPU step: as fused_block, of frames with one channel, and without keeping the
convolution's output, which is the largest array of all.
"""

# N batch, H W rows and columns of a frame, h w of the pooled picture, K channels out, 9 taps of the 3×3 window,
# T the taps and their sum, PP a frame with one pixel of zeros around it

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from engine.batch_statistics import Statistics, batch_statistics, running_statistics, update_running
from engine.channels_last import empty, pixels
from engine.fused_block import SILENT, as_float32, normalisation, signs
from engine.workers import for_each_part
from kernels.first_block import TAPS, correlate_into, first_block_into, first_gradients_into


def fused_first_block(frames_N1HW: torch.Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> torch.Tensor:
    """relu(max_pool2d(norm(convolution(frames)), 2)), float32 (N, K, h, w) in channels_last.

    convolution: 3×3, padding 1, no bias, one channel in.  Frames get no gradient.
    Errors: ValueError for a single value a channel in training.
    """
    return FusedFirstBlock.apply(frames_N1HW, convolution.weight, norm.weight, norm.bias, norm)


class FusedFirstBlock(torch.autograd.Function):
    """See fused_first_block.  Kept for the backward pass: frames, corners, and the frames' correlations.

    The convolution is linear in nine taps, so that its mean is weight · (sum of taps), its second moment
    weight · (correlation of taps) · weight, and what the statistics add to the gradient follows from the same sums.
    """

    @staticmethod
    @SILENT
    def forward(
        ctx: Any,
        frames_N1HW: torch.Tensor,
        weight_K133: torch.Tensor,
        scale_K: torch.Tensor,
        shift_K: torch.Tensor,
        norm: nn.BatchNorm2d,
    ) -> torch.Tensor:
        frame_NPP = functional.pad(frames_N1HW.detach()[:, 0], (1, 1, 1, 1)).numpy()
        num_images, _, height, width = frames_N1HW.shape
        weight_9K = np.ascontiguousarray(weight_K133.detach().reshape(-1, TAPS).numpy().T)
        tap_sum_9, correlation_99, statistics = None, None, None
        if norm.training:
            tap_sum_9, correlation_99 = correlations(frame_NPP)
            statistics = convolved_statistics(weight_9K, tap_sum_9, correlation_99, num_images * height * width)
            update_running(norm, statistics)
        else:
            statistics = running_statistics(norm)
        constants, sign_K = normalisation(statistics, norm), signs(scale_K)
        pooled = (num_images, height // 2, width // 2, weight_9K.shape[1])
        out_NKhw, corner_NhwK = empty(pooled), np.empty(pooled, np.uint8)
        out_NhwK = pixels(out_NKhw)

        def forward(images: range) -> None:
            pixel_4K = np.empty((4, weight_9K.shape[1]), np.float32)
            first_block_into(
                out_NhwK, corner_NhwK, frame_NPP, weight_9K, sign_K, *constants, pixel_4K, images.start, images.stop
            )

        for_each_part(forward, num_images)
        ctx.kept = (frame_NPP, weight_9K, corner_NhwK, statistics, constants[1], norm, tap_sum_9, correlation_99)
        return out_NKhw

    @staticmethod
    @once_differentiable
    @SILENT
    def backward(ctx: Any, gradient_NKhw: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        frame_NPP, weight_9K, corner_NhwK, statistics, factor_K, norm, tap_sum_9, correlation_99 = ctx.kept
        gradient_NhwK = pixels(gradient_NKhw.contiguous(memory_format=torch.channels_last))
        num_channels = weight_9K.shape[1]
        sum_NTK = np.empty((len(frame_NPP), TAPS + 1, num_channels))

        def sum_up(images: range) -> None:
            partial_9K = np.empty((TAPS, num_channels), np.float32)
            passed_4K = np.empty((4, num_channels), np.float32)
            first_gradients_into(
                sum_NTK, gradient_NhwK, corner_NhwK, frame_NPP, partial_9K, passed_4K, images.start, images.stop
            )

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
        return None, weight_gradient_K133, as_float32(scale_gradient_K), as_float32(shift_gradient_K), None


def correlations(frame_NPP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sums of each tap, float64 (9,), and of each product of two, (9, 9), over all frames."""
    sum_N9, correlation_N99 = np.empty((len(frame_NPP), TAPS)), np.empty((len(frame_NPP), TAPS, TAPS))

    width = frame_NPP.shape[2] - 2

    def correlate(images: range) -> None:
        correlate_into(sum_N9, correlation_N99, frame_NPP, np.empty(width), images.start, images.stop)

    for_each_part(correlate, len(frame_NPP))
    return sum_N9.sum(0), correlation_N99.sum(0)


def convolved_statistics(
    weight_9K: np.ndarray, tap_sum_9: np.ndarray, correlation_99: np.ndarray, count: int
) -> Statistics:
    """Statistics of the convolution's output, which nobody has computed."""
    weight_9K = weight_9K.astype(np.float64)
    return batch_statistics(tap_sum_9 @ weight_9K, (weight_9K * (correlation_99 @ weight_9K)).sum(0), count)
