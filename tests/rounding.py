"""What float32 may cost at most on any processor: a network in float64 with the rounding errors of sums in one chain.

Which order oneDNN and matrix products add in depends on the processor, and so does plain PyTorch's distance from
float64. The bound here follows from float32's unit roundoff u = 2⁻²⁴ and the number of products in each sum alone.

One rounding: the error is even in ±u·2^e for a result m·2^e; mantissas m in [1, 2) have the density 1/(m ln 2). So its
root mean square, relative to the result, is u/√3 · √(∫ m⁻³ dm / ln 2) = u · √(1/(8 ln 2)) = 0.425 u.
One sum: after k of n products of either sign the partial sum is √(k/n) of the whole, and is rounded once. The squares
add up: 0.425 u · √(Σ k/n) = 0.425 u · √(n/2). For one sum among many, of value x where their mean square is s², the
partial sums are a Brownian bridge from 0 to x: 0.425 u · √(n (x²/3 + s²/6)). No order of adding loses more than one
product after another; parts of b, added up at the end, lose 0.425 u · √((b + n/b)/2). A processor without fused
multiply-add rounds each product as well, which is 0.425 u once, however many there are.
A network: each sum's error passes through what follows. So it is drawn at random and added in float64, forward and
backward, and the gradients show what becomes of it.
"""

import math

import torch
from torch import nn

# How the engine divides its sums, by its design, not read from it: were it to divide them less, its errors would grow
PARTS = 16  # of a batch
FEW = 150  # pixels of a picture, below which a weight gradient is one chain over all

UNIT = 2.0**-24
MARGIN = 1.25  # the middle of seven seeds scatters by up to a fifth where there are few values
ONE_ROUNDING = UNIT * math.sqrt(1 / (8 * math.log(2)))
NORMALISING = 2 * 5  # products whose sum is rounded 5 times: in batch norm mean, factor, and three operations are
WINDOW = 9  # of a 3×3 convolution


def sum_error(num_products: float) -> float:
    """Root mean square of the errors of sums of so many products in one chain, relative to that of the sums."""
    return ONE_ROUNDING * math.sqrt(num_products / 2)


def batch_products(num_images: int, pixels: int) -> float:
    """As many products in one chain have the error of a batch's that are summed up in parts of the batch."""
    of_part = -(-num_images // PARTS) * pixels
    return of_part + num_images * pixels / of_part


def off(value: torch.Tensor, num_products: float, generator: torch.Generator) -> torch.Tensor:
    """Sums of terms of one size, with the error of so many products in one chain, drawn at random."""
    error = ONE_ROUNDING * (num_products * (value.square() / 3 + value.square().mean() / 6)).sqrt()
    return value + error * torch.randn(value.shape, generator=generator, dtype=value.dtype)


def rounded(network: nn.Module, seed: int) -> nn.Module:
    """The network, float64, whose layers from now on add float32's errors to outputs and gradients.

    Convolutions (3×3, padding 1), linear layers and batch norms; what only copies or compares adds nothing.  A
    convolution's weight gradient counts as summed up in parts of the batch, and below FEW pixels in one chain over all.
    """
    generator = torch.Generator().manual_seed(seed)

    def add_to(layer: nn.Module, forward: int, backward: int, *, at_entry: bool = False) -> None:
        def enter(layer: nn.Module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
            (value,) = inputs
            if at_entry:
                value = off(value, forward, generator)
            if value.requires_grad:
                value = value.view_as(value)  # a tensor of its own, whose gradient is this layer's alone
                value.register_hook(lambda gradient: off(gradient, backward, generator))
            return (value,)

        layer.register_forward_pre_hook(enter)
        if not at_entry:
            layer.register_forward_hook(lambda layer, inputs, output: off(output, forward, generator))

    def add_to_weight(layer: nn.Conv2d | nn.Linear) -> None:
        shape: list[torch.Size] = []
        layer.register_forward_hook(lambda layer, inputs, output: shape.append(output.shape))

        def of_weight(gradient: torch.Tensor) -> torch.Tensor:
            num_images, _, *sides = shape.pop()
            pixels = math.prod(sides)
            products = num_images * pixels if pixels < FEW else batch_products(num_images, pixels)
            return off(gradient, products, generator)

        layer.weight.register_hook(of_weight)

    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            add_to(layer, WINDOW * layer.in_channels, WINDOW * layer.out_channels)
            add_to_weight(layer)
        elif isinstance(layer, nn.Linear):
            add_to(layer, layer.in_features, layer.out_features)
            add_to_weight(layer)
        elif isinstance(layer, nn.BatchNorm2d):  # before it, so that a weight of zero still makes all pixels equal
            add_to(layer, NORMALISING, NORMALISING, at_entry=True)
    return network
