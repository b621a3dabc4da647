"""The bound that float32's rounding sets: it is what sums really lose, and what loses more is beyond it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from engine.networks import batch_parts, cpu_blocks
from engine.networks.cnn import Cnn
from tests.rounding import FEW, MARGIN, PARTS, batch_products, rounded, sum_error

pytestmark = pytest.mark.numerical


@pytest.mark.parametrize("num_products", [30, 300, 3000])
def test_a_chain_of_products_loses_what_was_derived(num_products: int) -> None:
    generator = np.random.default_rng(0)
    product = generator.standard_normal((num_products, 4000), np.float32)
    found = np.add.accumulate(product, axis=0)[-1]  # one after another
    exact = product.astype(np.float64).sum(0)
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert error == pytest.approx(sum_error(num_products), rel=0.1)


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


def test_the_engine_divides_its_sums_at_least_as_the_bound_takes_them_to_be_divided() -> None:
    assert batch_parts.PARTS >= PARTS and cpu_blocks.FEW <= FEW
