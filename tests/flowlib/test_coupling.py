"""The coupling layers, their masks and their conditioners, against the formulas of the slides."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from flowlib import check
from flowlib.layers.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    Permute,
    Scale,
    alternating_mask,
    channel_mask,
    checkerboard_mask,
    conditioner_sizes,
    half_mask,
)
from flowlib.layers.spline import SplineCoupling
from flowlib.nets import MLP, ConvNet

D, R, BATCH = 5, 2, 6
IMAGE = (2, 4, 3)


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def randomised(module: nn.Module) -> nn.Module:
    """The module with every parameter drawn anew, so that nothing is the identity."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator)
    return module


def points(*event: int) -> torch.Tensor:
    return torch.randn(BATCH, *event, generator=torch.Generator().manual_seed(1))


def build(kind: type, outputs: int, mask: torch.Tensor) -> nn.Module:
    network = MLP if mask.dim() == 1 else ConvNet
    return randomised(kind(mask, network(*conditioner_sizes(mask, outputs), hidden=(8,))))


COUPLINGS = pytest.mark.parametrize(("kind", "outputs"), [(AdditiveCoupling, 1), (AffineCoupling, 2)])
MASKS = {
    "first": half_mask(D, R),
    "last": ~half_mask(D, R),
    "scattered": torch.tensor([True, False, True, True, False]),
    "channels": channel_mask(IMAGE, 1),
    "checkerboard": checkerboard_mask(IMAGE),
}
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


# --- the formulas ----------------------------------------------------------------------


@COUPLINGS
@every_mask
def test_a_coupling_is_the_formula_with_its_mask(kind, outputs, mask):
    """x = m z + (1 - m) (z e^s + t), where s and t depend on m z alone, and back."""
    layer, z = build(kind, outputs, mask), points(*mask.shape)
    m = mask.double()
    if layer.by_pixel:
        numbers = layer.conditioner(m * z).unflatten(1, (outputs, -1))
    else:
        rows = mask.reshape(len(mask), -1)[:, 0]
        numbers = torch.zeros(BATCH, outputs, *mask.shape)
        numbers[:, :, ~rows] = layer.conditioner(z[:, rows]).unflatten(1, (outputs, -1))
    raw, t = (torch.zeros_like(z), numbers[:, 0]) if outputs == 1 else numbers.unbind(1)
    s = (1 - m) * 2 * torch.tanh(raw / 2)
    x, log_det = layer(z)
    torch.testing.assert_close(x, m * z + (1 - m) * (z * s.exp() + t), atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(log_det, s.flatten(1).sum(1), atol=1e-14, rtol=1e-14)
    assert torch.equal(x[:, mask], z[:, mask])
    assert (x[:, ~mask] != z[:, ~mask]).all()
    back, inverse_log_det = layer.inverse(x)
    torch.testing.assert_close(back, z, atol=1e-13, rtol=1e-13)
    assert torch.equal(inverse_log_det, -log_det)  # both directions see the same s
    assert check.log_det_error(layer, z) < 1e-12


@COUPLINGS
@every_mask
def test_a_new_layer_is_the_identity_to_the_last_bit(kind, outputs, mask):
    network, z = MLP if mask.dim() == 1 else ConvNet, points(*mask.shape)
    layer = kind(mask, network(*conditioner_sizes(mask, outputs), hidden=(8,)))
    for direction in (layer, layer.inverse):
        out, log_det = direction(z)
        assert torch.equal(out, z)
        assert torch.equal(log_det, torch.zeros(BATCH))


@COUPLINGS
def test_the_jacobian_has_the_block_form_with_exact_zeros(kind, outputs):
    layer = build(kind, outputs, half_mask(D, R))
    for direction in (layer, layer.inverse):
        jacobian = check.jacobian(lambda p, direction=direction: direction(p)[0], points(D))
        upper_left, upper_right = jacobian[:, :R, :R], jacobian[:, :R, R:]
        lower_left, lower_right = jacobian[:, R:, :R], jacobian[:, R:, R:]
        assert torch.equal(upper_left, torch.eye(R).expand(BATCH, R, R))
        assert torch.equal(upper_right, torch.zeros(BATCH, R, D - R))
        assert torch.equal(lower_right, torch.diag_embed(lower_right.diagonal(dim1=1, dim2=2)))
        assert (lower_left != 0).all()


def test_the_log_scale_is_bounded_and_keeps_its_slope_at_zero():
    for raw in (-1e6, 1e6, 1e-5):
        layer = AffineCoupling(half_mask(2, 1), lambda z, context, raw=raw: torch.full((len(z), 2), raw), 1.5)
        expected = math.copysign(1.5, raw) if abs(raw) > 1 else raw
        assert layer(torch.ones(1, 2))[1].item() == pytest.approx(expected, rel=1e-9)


@COUPLINGS
def test_the_conditioner_may_be_anything(kind, outputs):
    def jumps(z, context):  # neither invertible nor continuous
        return torch.sign(torch.sin(50 * z)).repeat(1, outputs)

    layer, z = kind(alternating_mask(4), jumps), points(4)
    torch.testing.assert_close(layer.inverse(layer(z)[0])[0], z, atol=1e-14, rtol=1e-14)


def test_a_mask_of_channels_serves_images_of_every_size():
    layer = build(AffineCoupling, 2, torch.tensor([True, False])[:, None, None])
    for size in (2, 5):
        z = points(2, size, size)
        assert check.round_trip_error(layer, z) < 1e-12
        assert layer(z)[1].shape == (BATCH,)


@pytest.mark.parametrize("others", [~half_mask(4, 2), alternating_mask(4)], ids=["last", "scattered"])
def test_a_saved_layer_brings_its_mask(others):
    layer, other = build(AffineCoupling, 2, half_mask(4, 2)).float(), build(AffineCoupling, 2, others).float()
    other.load_state_dict(layer.state_dict())
    z = points(4).float()
    assert torch.equal(other(z)[0], layer(z)[0])
    assert layer(z)[0].dtype == layer(z)[1].dtype == torch.float32


class InTurn(nn.Module):
    """Layers one after another, with all that they return."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, z: torch.Tensor) -> list[torch.Tensor]:
        results = []
        for layer in self.layers:
            z, log_det = layer(z)
            results += [z, log_det]
        return results


def test_a_batch_of_any_size_passes_exported_layers():
    couplings = [
        build(kind, outputs, mask)
        for kind, outputs in ((AdditiveCoupling, 1), (AffineCoupling, 2), (SplineCoupling, 23))
        for mask in (half_mask(4, 2), alternating_mask(4))
    ]
    layers = InTurn(*couplings, Permute([2, 0, 3, 1]), Scale(4))
    batch = torch.export.Dim("batch", min=2)
    program = torch.export.export(layers, (points(4),), dynamic_shapes=({0: batch},))
    z = torch.cat([points(4), points(4) + 1])
    for value, expected in zip(program.module()(z), layers(z), strict=True):
        torch.testing.assert_close(value, expected)


def test_permute_reorders_entries_and_channels_and_goes_back():
    z = points(4)
    layer = Permute([2, 0, 3, 1])
    x, log_det = layer(z)
    assert torch.equal(x, z[:, [2, 0, 3, 1]])
    assert torch.equal(layer.inverse(x)[0], z)
    assert torch.equal(log_det, torch.zeros(BATCH))
    image = points(4, 2, 2)
    assert torch.equal(layer(image)[0], image[:, [2, 0, 3, 1]])
    matrix = check.jacobian(lambda p: layer(p)[0], z)
    assert torch.equal(matrix, torch.eye(4)[[2, 0, 3, 1]].expand(BATCH, 4, 4))
    assert torch.equal(Permute(torch.tensor([1, 0]))(points(2))[0], points(2).flip(1))


@pytest.mark.parametrize("event", [(3,), (2, 2, 3)])
def test_scale_multiplies_each_entry_by_its_own_factor(event):
    layer, z = randomised(Scale(event)), points(*event)
    x, log_det = layer(z)
    assert torch.equal(x, z * layer.log_scale.exp())
    torch.testing.assert_close(log_det, layer.log_scale.sum().repeat(BATCH))
    assert check.log_det_error(layer, z) < 1e-12
    assert check.round_trip_error(layer, z) < 1e-14


# --- the masks -------------------------------------------------------------------------


def test_masks_hold_what_their_names_say():
    assert half_mask(5, 2).tolist() == [True, True, False, False, False]
    assert alternating_mask(5).tolist() == [True, False, True, False, True]
    assert checkerboard_mask((2, 2, 3)).int().tolist() == [[[1, 0, 1], [0, 1, 0]]] * 2
    assert channel_mask((4, 1, 2)).int().tolist() == [[[1, 1]], [[1, 1]], [[0, 0]], [[0, 0]]]


@pytest.mark.parametrize(
    "mask",
    [
        lambda parity: alternating_mask(5, parity),
        lambda parity: checkerboard_mask((3, 4, 5), parity),
        lambda parity: channel_mask((3, 4, 5), parity),
    ],
    ids=["alternating", "checkerboard", "channel"],
)
def test_the_two_parities_are_complements(mask):
    assert torch.equal(mask(0), ~mask(1))
    assert mask(0).dtype == torch.bool


# --- the conditioners ------------------------------------------------------------------


@pytest.mark.parametrize(("network", "event"), [(MLP, (3,)), (ConvNet, (3, 4, 5))])
def test_conditioners_start_at_zero_and_use_all_of_their_input(network, event):
    net, z, context = network(3, 4, context_features=2), points(*event), points(2)
    out = net(z, context)
    assert out.shape == (BATCH, 4, *z.shape[2:])
    assert not out.any()
    randomised(net)
    z.requires_grad_()
    context.requires_grad_()
    net(z, context).square().sum().backward()
    assert (z.grad != 0).all()
    assert (context.grad != 0).all()


def test_each_row_of_the_context_reaches_its_own_image_alone():
    net, z, context = randomised(ConvNet(1, 1, (4,), context_features=2)), points(1, 3, 3), points(2)
    other = context.clone()
    other[0] += 1
    changed = (net(z, context) != net(z, other)).flatten(1).any(1)
    assert changed.tolist() == [True] + [False] * (BATCH - 1)


def test_conditioners_are_smooth_by_default():
    for net in (MLP(2, 2), ConvNet(1, 1)):
        kinds = {type(module) for module in net.modules() if not list(module.children())}
        assert nn.SiLU in kinds
        assert nn.ReLU not in kinds


def test_an_mlp_without_hidden_layers_is_linear():
    net = randomised(MLP(3, 2, hidden=()))
    z = points(3)
    torch.testing.assert_close(net(2 * z) - net(z), net(z) - net(0 * z))


# --- what is refused, each with a sentence ----------------------------------------------


@pytest.mark.parametrize(
    ("mask", "error", "says"),
    [
        (torch.ones(2), TypeError, "must be a bool tensor.*came as tensor"),
        ([True, False], TypeError, "must be a bool tensor.*came as .True, False"),
        (torch.tensor([True, True]), ValueError, "must hold True .* and False"),
        (torch.tensor([False, False]), ValueError, "must hold True .* and False"),
        (torch.tensor(True), ValueError, "must hold True .* and False"),
        (torch.zeros(0, dtype=torch.bool), ValueError, "must hold True .* and False"),
        (half_mask(2, 0), ValueError, "must hold True .* and False"),
        (half_mask(2, 2), ValueError, "must hold True .* and False"),
        (alternating_mask(1), ValueError, "must hold True .* and False"),
        (alternating_mask(2, 2), ValueError, "must hold True .* and False"),
        (checkerboard_mask((3, 1, 1)), ValueError, "must hold True .* and False"),
        (channel_mask((1, 4, 4)), ValueError, "must hold True .* and False"),
        (channel_mask((2, 4, 4), 2), ValueError, "must hold True .* and False"),
    ],
)
def test_bad_masks_are_refused(mask, error, says):
    with pytest.raises(error, match=says):
        AffineCoupling(mask, MLP(1, 2))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda: build(AdditiveCoupling, 1, half_mask(2, 1))(points(3)),
            "mask must have the shape of one point",
        ),
        (
            lambda: build(AdditiveCoupling, 1, alternating_mask(4))(points(6)),
            "mask must have the shape of one point",
        ),
        (
            lambda: AffineCoupling(half_mask(2, 1), MLP(1, 1))(points(2)),
            r"returned shape \(6, 1\); .* needs \(6, 2\)",
        ),
        (
            lambda: AffineCoupling(half_mask(2, 1), MLP(1, 2), bound=0),
            "bound must be a positive number up to 80",
        ),
        (
            lambda: AffineCoupling(half_mask(2, 1), MLP(1, 2), bound=math.nan),
            "bound must be a positive number up to 80",
        ),
        (lambda: Permute([0, 0]), "each of 0, 1, …, d-1 exactly once"),
        (lambda: Permute([[0, 1]]), "each of 0, 1, …, d-1 exactly once"),
        (lambda: Permute([0.0, 1.0]), "each of 0, 1, …, d-1 exactly once"),
        (lambda: Permute([True, False]), "each of 0, 1, …, d-1 exactly once"),
        (lambda: Permute([1, 0])(points(3)), r"3 entries in dimension 1.*the permutation 2"),
        (lambda: MLP(0, 2), "in_features must be made of positive whole numbers"),
        (lambda: MLP(2, 2, hidden=(4, -1)), "hidden must be made of positive whole numbers"),
        (lambda: ConvNet(1, 2, hidden=(8, 16)), "one width for all residual blocks"),
        (lambda: ConvNet(1, 2, hidden=()), "one width for all residual blocks"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()
