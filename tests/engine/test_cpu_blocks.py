"""The fused blocks of the CPU step, against the plain layers in float64 and what float32's rounding may cost them."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.networks import batch_parts, cpu_blocks
from engine.networks.batch_parts import for_each_part, weight_gradient
from engine.networks.cnn import Cnn
from engine.networks.cpu_blocks import batch_statistics, fused_block, fused_first_block
from kernels.fused_block import columns_into
from tests.rounding import FEW, MARGIN, PARTS, UNIT, batch_products, rounded, sum_error

Results = dict[str, torch.Tensor]
SHAPES = [(8, 16, 12, 12), (6, 8, 13, 13), (3, 8, 7, 10), (2, 4, 10, 3), (2, 8, 2, 2), (1, 16, 31, 33), (40, 8, 6, 6)]
SEEDS = range(7)


def layers(channels: int, seed: int, out_channels: int = 24) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution and a batch norm with weights of either sign, one of them zero."""
    torch.manual_seed(seed)
    convolution = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(out_channels)
    with torch.no_grad():
        norm.weight.uniform_(-1, 1)
        norm.weight[3] = 0
        norm.bias.uniform_(-1, 1)
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    return convolution, norm


def plain_block(pictures: torch.Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> torch.Tensor:
    return torch.relu(nn.functional.max_pool2d(norm(convolution(pictures)), 2))


def results(
    block: Callable,
    pictures: torch.Tensor,
    modules: tuple[nn.Conv2d, nn.BatchNorm2d],
    *,
    double: bool,
    rounding_seed: int | None = None,
) -> Results:
    """Output, gradients and buffers of one forward and backward pass, in float64."""
    convolution, norm = copy.deepcopy(modules)
    if double:
        convolution, norm, pictures = convolution.double(), norm.double(), pictures.double()
    if rounding_seed is not None:
        rounded(nn.ModuleList([convolution, norm]), rounding_seed)
    wants = block is not fused_first_block and pictures.shape[1] > 1
    pictures = pictures.clone(memory_format=torch.channels_last).requires_grad_(wants)
    out = block(pictures, convolution, norm)
    pull = torch.sin(torch.arange(out.numel()) * 0.7).reshape(out.shape).to(out.dtype)
    out.backward(pull)
    found = {
        "output": out,
        "weight": convolution.weight.grad,
        "scale": norm.weight.grad,
        "shift": norm.bias.grad,
        "running mean": norm.running_mean,
        "running variance": norm.running_var,
    }
    return {name: value.detach().double() for name, value in found.items()} | (
        {"input": pictures.grad.double()} if wants else {}
    )


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm().clamp_min(1e-30))


def median_errors(
    block: Callable, shape: tuple[int, ...], training: bool, centre: float = 0.0
) -> dict[str, np.ndarray]:
    """By what was compared: medians over SEEDS of the block's error against float64, and of what rounding explains."""
    errors: dict[str, list[tuple[float, float]]] = {}
    for seed in SEEDS:
        modules = layers(shape[1], seed)
        modules[1].train(training)
        pictures = torch.randn(shape) + centre
        exact = results(plain_block, pictures, modules, double=True)
        ours = results(block, pictures, modules, double=False)
        allowed = results(plain_block, pictures, modules, double=True, rounding_seed=seed)
        for name, value in ours.items():
            errors.setdefault(name, []).append((error(value, exact[name]), error(allowed[name], exact[name])))
    return {name: np.median(pairs, axis=0) for name, pairs in errors.items()}


@pytest.mark.numerical
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_block_is_as_near_float64_as_float32s_rounding_allows(shape: tuple[int, ...], training: bool) -> None:
    for name, (ours, allowed) in median_errors(fused_block, shape, training).items():
        assert ours <= MARGIN * max(allowed, UNIT), (name, ours, allowed)


@pytest.mark.numerical
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", [(8, 1, 12, 12), (6, 1, 13, 13), (3, 1, 7, 10), (1, 1, 31, 33)], ids=str)
def test_the_first_block_is_as_near_float64_as_float32s_rounding_allows(shape: tuple[int, ...], training: bool) -> None:
    for name, (ours, allowed) in median_errors(fused_first_block, shape, training).items():
        assert ours <= MARGIN * max(allowed, UNIT), (name, ours, allowed)


# ---- bfloat16


class Rounding(torch.autograd.Function):
    """Rounds to bfloat16 what goes forward, and the gradient that comes back, each if asked; keeps the dtype."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, forward: bool, backward: bool) -> torch.Tensor:
        ctx.backward = backward
        return value.bfloat16().to(value.dtype) if forward else value.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return gradient.bfloat16().to(gradient.dtype) if ctx.backward else gradient, None, None


def rounded_block(pictures: torch.Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> torch.Tensor:
    """The plain block, which rounds to bfloat16 whatever the fused one keeps in it."""
    first = pictures.shape[1] == 1
    weight = convolution.weight if first else Rounding.apply(convolution.weight, True, True)
    pictures = pictures if first else Rounding.apply(pictures, False, True)
    convolved = nn.functional.conv2d(pictures, weight, padding=1)
    convolved = convolved if first else Rounding.apply(convolved, True, True)
    return Rounding.apply(torch.relu(nn.functional.max_pool2d(norm(convolved), 2)), True, True)


def mixed_block(pictures: torch.Tensor, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> torch.Tensor:
    """The fused block in bfloat16, from and to float32."""
    if pictures.shape[1] == 1:
        return fused_first_block(pictures.detach(), convolution, norm, torch.bfloat16).float()
    return fused_block(pictures.bfloat16(), convolution, norm).float()


@pytest.mark.numerical
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("shape", "onednn"),
    [*((shape, True) for shape in (*SHAPES[1:6], (6, 1, 13, 13))), *((shape, False) for shape in SHAPES[1:3])],
    ids=str,
)
def test_a_block_in_bfloat16_is_as_far_from_float64_as_its_roundings_explain(
    shape: tuple[int, ...], training: bool, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not onednn:
        monkeypatch.setattr(cpu_blocks, "onednn_takes_bfloat16", lambda: False)
    errors: dict[str, list[tuple[float, float, float]]] = {}
    for seed in SEEDS:
        modules = layers(shape[1], seed)
        modules[1].train(training)
        pictures = torch.randn(shape).bfloat16().float()
        exact = results(plain_block, pictures, modules, double=True)
        stored = results(rounded_block, pictures, modules, double=True)
        ours = results(mixed_block, pictures, modules, double=False)
        for name, value in ours.items():
            pairs = (value, exact[name]), (stored[name], exact[name]), (value, stored[name])
            errors.setdefault(name, []).append(tuple(error(*pair) for pair in pairs))  # type: ignore[arg-type]
    for name, found in errors.items():
        of_ours, of_stored, apart = np.median(found, axis=0)
        assert of_ours <= MARGIN * max(of_stored, UNIT), (name, of_ours, of_stored)
        assert apart <= max(0.5 * of_stored, 1e-5), (name, apart, of_stored)  # the same roundings, but for few


@pytest.mark.parametrize("onednn", [True, False])
def test_under_autocast_every_convolution_is_in_the_precision_that_its_processor_takes(
    onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[torch.dtype] = []
    convolve = nn.functional.conv2d

    def seen(*factors: Any, **options: Any) -> torch.Tensor:
        found.append(convolve(*factors, **options).dtype)
        return convolve(*factors, **options)

    monkeypatch.setattr(cpu_blocks.functional, "conv2d", seen)
    monkeypatch.setattr(cpu_blocks, "onednn_takes_bfloat16", lambda: onednn)
    with torch.autocast("cpu", torch.bfloat16):
        Cnn(2, 32, 0.0)(torch.rand(4, 1, 32, 32))
    assert found == [torch.bfloat16 if onednn else torch.float32] * 4


def test_float32_asks_nothing_of_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cpu_blocks, "onednn_takes_bfloat16")  # a Mac's torch has no such question
    assert Cnn(2, 32, 0.0)(torch.rand(4, 1, 32, 32)).isfinite().all()


@pytest.mark.numerical
def test_statistics_hold_where_the_mean_is_far_above_the_deviation() -> None:
    centre, side, num_images = 300.0, 16, 8
    for block, channels in ((fused_block, 8), (fused_first_block, 1)):
        found = median_errors(block, (num_images, channels, side, side), True, centre)
        # the gradients of a channel add up to zero: the terms of a weight's are centre times as large as what is left
        found["weight"][1] = centre * sum_error(batch_products(num_images, side**2))
        for name, (ours, allowed) in found.items():
            assert ours <= MARGIN * max(allowed, UNIT), (name, ours, allowed)


@pytest.mark.numerical
def test_sums_of_squares_survive_a_mean_a_million_deviations_away() -> None:
    values = 1e6 + np.random.default_rng(0).standard_normal((1000, 1))
    found = batch_statistics(values.sum(0), (values**2).sum(0), 1000)
    np.testing.assert_allclose(found.variance_K, values.var(0), rtol=1e-3)
    assert (batch_statistics(np.array([3e8]), np.array([9e13]) * (1 - 1e-16), 1000).variance_K >= 0).all()


@pytest.mark.numerical
def test_equal_pixels_send_the_gradient_where_pytorch_sends_it() -> None:
    for block, channels in ((fused_block, 8), (fused_first_block, 1)):
        modules, flat = layers(channels, 0), torch.ones(2, channels, 12, 12)
        modules[1].eval()  # or a constant picture would have no variance
        ours, exact = (
            results(one, flat, modules, double=double) for one, double in ((block, False), (plain_block, True))
        )
        for name, value in ours.items():
            torch.testing.assert_close(value, exact[name], rtol=1e-5, atol=1e-5)


@pytest.mark.numerical
@pytest.mark.parametrize("corner", [(2, 2), (2, 3), (3, 2), (3, 3)])
def test_in_evaluation_one_bad_pixel_spoils_what_it_spoils_in_pytorch(corner: tuple[int, int]) -> None:
    for block, channels in ((fused_block, 8), (fused_first_block, 1)):
        convolution, norm = layers(channels, 0)
        norm.eval()
        pictures = torch.randn(2, channels, 8, 8)
        pictures[1, 0, *corner] = float("nan")
        spoilt = plain_block(pictures, convolution, norm).isnan()
        assert spoilt.any() and torch.equal(block(pictures, convolution, norm).isnan(), spoilt)


@pytest.mark.numerical
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_a_number_is_not_hidden_by_the_relu(bad: float) -> None:
    for block, channels in ((fused_block, 8), (fused_first_block, 1)):
        convolution, norm = layers(channels, 0)
        pictures = torch.randn(2, channels, 8, 8)
        pictures[1, 0, 2, 3] = bad
        assert block(pictures, convolution, norm)[:, norm.weight != 0].isnan().all()


@pytest.mark.numerical
def test_a_second_backward_pass_is_refused() -> None:
    convolution, norm = layers(8, 0)
    loss = fused_block(torch.randn(2, 8, 8, 8), convolution, norm).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward pass"):
        loss.backward()


@pytest.mark.numerical
def test_a_single_value_a_channel_is_refused_as_by_pytorch() -> None:
    with pytest.raises(ValueError, match="expected 2 or more"):
        batch_statistics(np.zeros(3), np.zeros(3), 1)


@pytest.mark.numerical
@pytest.mark.parametrize(
    "shape",
    [(5, 9, 7, 6, 4), (1, 1, 1, 3, 2), (17, 3, 12, 28, 5), (3, 2, 151, 1, 4), (2, 2, 600, 200, 3), (64, 8, 13, 13, 8)],
    ids=str,
)
def test_weight_gradients_are_the_sums_over_shifted_pictures(shape: tuple[int, int, int, int, int]) -> None:
    num_images, channels, height, width, out_channels = shape
    errors = []
    for seed in SEEDS:
        generator = np.random.default_rng(seed)
        picture = generator.standard_normal((num_images, height, width, channels), np.float32)
        gradient = generator.standard_normal((num_images, height, width, out_channels), np.float32)
        padded = np.pad(picture.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
        wanted = np.empty((out_channels, channels, 3, 3))
        for row in range(3):
            for column in range(3):
                shifted = padded[:, row : row + height, column : column + width]
                wanted[:, :, row, column] = np.einsum("nhwk,nhwc->kc", gradient.astype(np.float64), shifted)
        found = weight_gradient(*(torch.from_numpy(array).permute(0, 3, 1, 2) for array in (picture, gradient)))
        errors.append(np.linalg.norm(found.numpy() - wanted) / np.linalg.norm(wanted))
    allowed = sum_error(batch_products(num_images, height * width))
    assert np.median(errors) <= MARGIN * max(allowed, UNIT)


@pytest.mark.numerical
def test_columns_are_each_pixel_between_its_neighbours() -> None:
    picture = np.arange(3 * 4 * 2, dtype=np.float32).reshape(3, 4, 2)
    out = np.full((8, 6), np.nan, np.float32)
    columns_into(out, picture, 1, 3)
    padded = np.pad(picture, ((0, 0), (1, 1), (0, 0)))
    wanted = [
        np.concatenate([padded[row, column + shift] for shift in range(3)]) for row in (1, 2) for column in range(4)
    ]
    np.testing.assert_array_equal(out, wanted)


@pytest.mark.numerical
def test_any_number_of_threads_gives_the_same_step_to_the_bit() -> None:
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(
                results(
                    fused_block, torch.randn(9, 8, 14, 14, generator=torch.manual_seed(1)), layers(8, 0), double=False
                )
            )
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(value, other[name]) for name, value in found[0].items())


@pytest.mark.numerical
def test_parts_cover_the_batch_in_order_and_pass_errors_on() -> None:
    for num_images in (1, 2, 15, 16, 17, 33):
        parts = for_each_part(range, num_images)
        assert [image for part in parts for image in part] == list(range(num_images)) and len(parts) <= 16

    def fail(start: int, stop: int) -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        for_each_part(fail, 3)


@pytest.mark.numerical
def test_workers_leave_torchs_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert for_each_part(lambda *part: torch.get_num_threads(), 3) == [1, 1, 1]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def gradients(network: Cnn, frames: torch.Tensor, *, mixed: bool = False) -> Results:
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        logits = network(frames)
    nn.functional.cross_entropy(logits.float(), torch.arange(len(frames)) % 2).backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@pytest.mark.numerical
@pytest.mark.parametrize("crop", [32, 45, 97])
def test_the_fused_network_is_the_network_of_its_layers(crop: int) -> None:
    torch.manual_seed(0)
    fused = Cnn(2, crop, 0.0).to(memory_format=torch.channels_last)
    single = copy.deepcopy(fused)
    single.fused = False
    frames = torch.rand(8, 1, crop, crop) * 2 - 1
    ours, theirs = gradients(fused, frames), gradients(single, frames)
    for name, value in ours.items():
        assert error(value, theirs[name]) < 2e-2, name  # near ties in windows flip
    for (name, ours_buffer), (_, buffer) in zip(fused.named_buffers(), single.named_buffers(), strict=True):
        torch.testing.assert_close(ours_buffer, buffer, rtol=1e-4, atol=1e-6, msg=name)
    fused.eval(), single.eval()
    with torch.inference_mode():
        torch.testing.assert_close(fused(frames), single(frames), rtol=1e-3, atol=1e-4)


@pytest.mark.numerical
@pytest.mark.parametrize("crop", [32, 45])
def test_the_fused_network_in_bfloat16_is_no_further_from_float64_than_its_layers_under_autocast(crop: int) -> None:
    errors = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        exact = Cnn(2, crop, 0.0).to(memory_format=torch.channels_last)
        fused, single = copy.deepcopy(exact), copy.deepcopy(exact)
        single.fused = False
        frames = torch.rand(8, 1, crop, crop) * 2 - 1
        wanted = gradients(exact.double(), frames.double())
        ours, theirs = gradients(fused, frames, mixed=True), gradients(single, frames, mixed=True)
        errors.append([[error(found[name], wanted[name]) for name in wanted] for found in (ours, theirs)])
    of_ours, of_theirs = np.median(errors, axis=0)
    ratio = of_ours / of_theirs
    # which windows' extremes change places by rounding is chance, the same for both on average
    assert np.median(ratio) <= MARGIN and ratio.max() <= MARGIN**2, dict(zip(wanted, ratio.tolist(), strict=True))


@pytest.mark.numerical
def test_frames_that_want_a_gradient_get_it() -> None:
    torch.manual_seed(0)
    network = Cnn(2, 32, 0.0).eval()
    frames = torch.rand(4, 1, 32, 32)
    found = []
    for fused in (True, False):
        network.fused = fused
        asked = frames.clone().requires_grad_()
        network(asked).sum().backward()
        found.append(asked.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-6)


@pytest.mark.numerical
def test_other_precisions_and_hooks_take_the_single_layers() -> None:
    network, frames, calls = Cnn(2, 32, 0.0), torch.rand(4, 1, 32, 32), []
    network.features[0].register_forward_hook(lambda *args: calls.append(args))
    network(frames)
    assert not calls
    with torch.autocast("cpu", torch.bfloat16):
        assert network(frames).dtype == torch.float32
    assert not calls
    with torch.autocast("cpu", torch.float16):
        network(frames)
    network.fused = False
    network(frames)
    network.fused = True
    network.double()(frames.double())
    assert len(calls) == 3


@pytest.mark.numerical
def test_a_thread_of_a_block_that_would_end_the_process_is_an_error() -> None:
    def leave(start: int, stop: int) -> None:
        raise SystemExit(0)

    with pytest.raises(RuntimeError, match="SystemExit"):
        for_each_part(leave, 4)


@pytest.mark.numerical
@pytest.mark.parametrize("num_products", [30, 300, 3000])
def test_a_chain_of_products_loses_what_was_derived(num_products: int) -> None:
    generator = np.random.default_rng(0)
    product = generator.standard_normal((num_products, 4000), np.float32)
    found = np.add.accumulate(product, axis=0)[-1]  # one after another
    exact = product.astype(np.float64).sum(0)
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert error == pytest.approx(sum_error(num_products), rel=0.1)


@pytest.mark.numerical
def test_one_chain_over_every_pixel_of_a_batch_is_beyond_the_bound_of_parts() -> None:
    num_images, pixels, channels = 64, 13 * 13, 32
    generator = np.random.default_rng(0)
    picture, gradient = generator.standard_normal((2, num_images * pixels, channels), np.float32)
    products = picture[:, :, None] * gradient[:, None, :]
    exact = products.astype(np.float64).sum(0)
    in_parts = np.zeros_like(exact, np.float32)
    for part in products.reshape(PARTS, -1, channels, channels):
        in_parts += np.add.accumulate(part, axis=0)[-1]
    in_chain = np.add.accumulate(products, axis=0)[-1]
    allowed = MARGIN * sum_error(batch_products(num_images, pixels)) * np.linalg.norm(exact)
    assert np.linalg.norm(in_parts - exact) < allowed < np.linalg.norm(in_chain - exact) / 2


@pytest.mark.numerical
def test_products_in_bfloat16_are_beyond_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = Cnn(2, 32, 0.0).to(memory_format=torch.channels_last)
    exact = copy.deepcopy(network).double()
    allowed = rounded(copy.deepcopy(exact), 0)
    right = nn.functional.conv2d

    def rough(pictures: torch.Tensor, weight: torch.Tensor, padding: int) -> torch.Tensor:
        return right(pictures.bfloat16().float(), weight.bfloat16().float(), padding=padding)

    monkeypatch.setattr(cpu_blocks.functional, "conv2d", rough)
    frames = torch.rand(8, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        found = network(frames)
        monkeypatch.undo()
        wanted, bound = exact(frames.double()), allowed(frames.double())
    assert (found - wanted).norm() > 100 * MARGIN * (bound - wanted).norm()


@pytest.mark.numerical
def test_the_engine_divides_its_sums_at_least_as_the_bound_takes_them_to_be_divided() -> None:
    assert batch_parts.PARTS >= PARTS and cpu_blocks.FEW <= FEW
