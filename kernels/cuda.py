"""Batches on a CUDA device: gather, affine and normalisation in one launch of Triton.

The arithmetic is that of `kernels.crops`, operation by operation and without fused multiply-adds, so that a device
gets the same batches as the host.
"""

# N batch, H W rows and columns of the crop, M stored frames, S their side, O samples of an epoch in its order,
# 23 the two rows of an inverse affine matrix

import triton
import triton.language as tl

BLOCK = tl.constexpr(1024)  # pixels of one program: 4 warps, 8 pixels a thread
MIDDLE = tl.constexpr(127.5)
SCALE = tl.constexpr(1 / 127.5)


@triton.jit
def batch_kernel(
    out_N1HW, out_label_N, frames_MSS, order_O, label_O, inverse_O23, position,
    low: tl.constexpr, high: tl.constexpr, stored: tl.constexpr, crop: tl.constexpr, staged: tl.constexpr,
):  # fmt: skip
    """See batch_into; one program makes BLOCK pixels of one sample, and the sample's first copies its label."""
    n = tl.program_id(0)
    place = tl.load(position) + n
    if tl.program_id(1) == 0:
        tl.store(out_label_N + n, tl.load(label_O + place))
    frame = n.to(tl.int64) if staged else tl.load(order_O + place)
    levels = frames_MSS + frame * (stored * stored)
    pixel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < crop * crop
    if inverse_O23 is None:
        margin: tl.constexpr = (stored - crop) // 2
        source = levels + (pixel // crop + margin) * stored + (pixel % crop + margin)
        level = tl.load(source, mask=inside, other=0).to(tl.float32)
    else:
        across = (pixel % crop).to(tl.float32) + 0.5
        down = (pixel // crop).to(tl.float32) + 0.5
        matrix = inverse_O23 + place * 6
        row_x = tl.load(matrix + 1) * down + tl.load(matrix + 2) - 0.5
        row_y = tl.load(matrix + 4) * down + tl.load(matrix + 5) - 0.5
        lowest: tl.constexpr = low * 1.0
        highest: tl.constexpr = high * 1.0
        x = tl.minimum(tl.maximum(tl.load(matrix) * across + row_x, lowest), highest)
        y = tl.minimum(tl.maximum(tl.load(matrix + 3) * across + row_y, lowest), highest)
        left, top = x.to(tl.int32), y.to(tl.int32)
        weight_x, weight_y = x - left.to(tl.float32), y - top.to(tl.float32)
        right, below = tl.minimum(left + 1, high), tl.minimum(top + 1, high)
        top_left = tl.load(levels + (top * stored + left), mask=inside, other=0).to(tl.float32)
        top_right = tl.load(levels + (top * stored + right), mask=inside, other=0).to(tl.float32)
        low_left = tl.load(levels + (below * stored + left), mask=inside, other=0).to(tl.float32)
        low_right = tl.load(levels + (below * stored + right), mask=inside, other=0).to(tl.float32)
        upper = top_left + (top_right - top_left) * weight_x
        lower = low_left + (low_right - low_left) * weight_x
        level = upper + (lower - upper) * weight_y
    target = out_N1HW + n.to(tl.int64) * (crop * crop) + pixel
    tl.store(target, ((level - MIDDLE) * SCALE).to(out_N1HW.dtype.element_ty), mask=inside)


def batch_into(out_N1HW, out_label_N, frames_MSS, order_O, label_O, inverse_O23, position, *, low, high, staged):
    """Make a batch of the samples from `position` of the epoch on: rotated, zoomed crops in [-1, 1].

    out_N1HW: float32 or bfloat16, written whole.  out_label_N: int64, written whole.  frames_MSS: uint8.
    order_O: int64, the frame of each place in the epoch; with staged=True frame n is sample n's instead.
    label_O: int64.  inverse_O23: float32; from output pixel centres (x, y, 1) to stored coordinates; None for central
    crops, copied, as for evaluation.
    position: int64, one number on the device, so that a captured launch needs nothing from the host.
    low, high: first and last pixel index that may be read, on both axes; coordinates beyond clamp to them.
    All on one device and contiguous; channels_last is the same bytes, there is one channel.
    Errors: none here; the callers check shapes once.  Source: DESIGN, Geometry.
    """
    stored, crop = frames_MSS.shape[1], out_N1HW.shape[3]
    places = order_O, label_O, inverse_O23, position, low, high, stored, crop, staged
    grid = out_N1HW.shape[0], triton.cdiv(crop * crop, BLOCK.value)
    batch_kernel[grid](out_N1HW, out_label_N, frames_MSS, *places, enable_fp_fusion=False)
