"""The start of the networks on vectors: sharp on few entries, blunt on many."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from flowlib.layers.autoregressive import MADE, MaskedLinear
from flowlib.layers.ffjord import Velocity
from flowlib.nets import MLP

WIDTH = 4096


def first(net: MLP) -> nn.Linear:
    layer = net.layers[0]
    assert isinstance(layer, nn.Linear)
    return layer


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_a_first_layer_on_few_entries_is_sharp_and_its_turns_are_spread_over_the_data(n: int) -> None:
    """On z ~ N(0, I) each unit's input has deviation 3 / n, and is 0 on a plane as far off as data are."""
    layer = first(MLP(n, 2, hidden=(WIDTH,)))
    gains = layer(torch.randn(20_000, n)).std(0)
    torch.testing.assert_close(gains, torch.full_like(gains, 3 / n), rtol=0.03, atol=0)
    away = (layer.bias / layer.weight.norm(dim=1)).detach().sort().values
    normal = torch.distributions.Normal(0.0, 1.0).cdf(away)
    steps = (torch.arange(WIDTH) + 0.5) / WIDTH
    assert (normal - steps).abs().max() < 1.95 / math.sqrt(WIDTH), "Kolmogorov and Smirnov, 1 in 1,000"
    assert layer.weight.mean(0).abs().max() < 4 * 3 / n / math.sqrt(WIDTH), "all directions alike"


@pytest.mark.parametrize(("inputs", "context"), [(8, 0), (8, 3), (64, 0)])
def test_on_many_entries_an_mlp_starts_blunter_than_torch_starts_it(inputs: int, context: int) -> None:
    torch.manual_seed(3)
    net = MLP(inputs, 5, hidden=(16, 8), context_features=context)
    after = torch.rand(3)
    torch.manual_seed(3)
    linear = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise((inputs + context, 16, 8, 5))]
    assert torch.equal(after, torch.rand(3)), "nothing else was drawn"
    with torch.no_grad():
        linear[0].weight[:, :inputs] *= math.sqrt(1 / 2)
    for ours, plain in zip(net.layers[:-1:2], linear[:-1], strict=True):
        torch.testing.assert_close(ours.weight, plain.weight)
        assert torch.equal(ours.bias, plain.bias)
    assert not net.layers[-1].weight.any()
    assert not net.layers[-1].bias.any()


def test_a_context_is_not_sharpened_and_does_not_blunt() -> None:
    layer = first(MLP(1, 2, hidden=(64,), context_features=8))
    torch.testing.assert_close(layer.weight[:, 0].abs(), torch.full((64,), 3.0))
    assert 0 < layer.weight[:, 1:].abs().max() <= 1 / 3


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_unit_of_made_counts_the_entries_that_it_hears(order: list[int]) -> None:
    layer = MADE(2, 2, order=order).layers[0]
    assert isinstance(layer, MaskedLinear)
    torch.testing.assert_close(layer.masked_weight.norm(dim=1), torch.full((64,), 3.0))
    torch.manual_seed(3)
    made = MADE(64, 2, hidden=(16,))
    torch.manual_seed(3)
    plain = nn.Linear(64, 16)
    assert torch.equal(made.layers[0].weight, plain.weight)
    assert torch.equal(made.layers[0].bias, plain.bias)


def test_the_time_is_no_entry_of_the_point() -> None:
    weight = first(Velocity(2, hidden=(64,)).net).weight
    torch.testing.assert_close(weight[:, :2].norm(dim=1), torch.full((64,), 1.5))
    torch.manual_seed(3)
    in_many_dimensions = first(Velocity(64, hidden=(64,)).net).weight
    torch.manual_seed(3)
    assert torch.equal(in_many_dimensions, first(MLP(65, 64, hidden=(64,))).weight), "no blunter than an MLP"


def loss_after(net: MLP, steps: int = 150) -> float:
    """The mean square error at a wave of sharp edges, some of those that a checkerboard has."""
    generator = torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(steps):
        z = torch.randn(256, 1, generator=generator)
        loss = (net(z) - torch.sin(4 * z).sign()).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return loss.item()


def test_a_sharp_start_learns_edges_sooner() -> None:
    sharp, plain = 0.0, 0.0
    for seed in range(3):
        torch.manual_seed(seed)
        net, default = MLP(1, 1), MLP(1, 1)
        first(default).reset_parameters()
        sharp, plain = sharp + loss_after(net), plain + loss_after(default)
    assert sharp < 0.5 * plain
