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
    half_mask,
)
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


def vector_and_image(kind: type, outputs: int) -> list:
    return [
        (kind(half_mask(D, R), MLP(D, outputs * D, hidden=(16,))), points(D)),
        (kind(checkerboard_mask(IMAGE), ConvNet(2, outputs * 2, hidden=(4,))), points(*IMAGE)),
        (kind(channel_mask(IMAGE, 1), ConvNet(2, outputs * 2, hidden=(4,))), points(*IMAGE)),
    ]


COUPLINGS = [(AdditiveCoupling, 1), (AffineCoupling, 2)]


# --- the formulas ----------------------------------------------------------------------


def test_affine_coupling_is_the_slides_formula_in_both_directions():
    net = randomised(MLP(D, 2 * D, hidden=(16,)))
    layer, z = AffineCoupling(half_mask(D, R), net, bound=1.5), points(D)
    kept = torch.cat([z[:, :R], torch.zeros(BATCH, D - R)], 1)
    raw, t = net(kept).chunk(2, 1)
    s = 1.5 * torch.tanh(raw / 1.5)
    x, log_det = layer(z)
    expected = torch.cat([z[:, :R], z[:, R:] * s[:, R:].exp() + t[:, R:]], 1)
    torch.testing.assert_close(x, expected, atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(log_det, s[:, R:].sum(1), atol=1e-14, rtol=1e-14)
    back, inverse_log_det = layer.inverse(expected)
    torch.testing.assert_close(back, z, atol=1e-13, rtol=1e-13)
    torch.testing.assert_close(inverse_log_det, -s[:, R:].sum(1), atol=1e-14, rtol=1e-14)


def test_additive_coupling_is_the_slides_formula_and_preserves_volume():
    net = randomised(MLP(D, D, hidden=(16,)))
    layer, z = AdditiveCoupling(half_mask(D, R), net), points(D)
    kept = torch.cat([z[:, :R], torch.zeros(BATCH, D - R)], 1)
    x, log_det = layer(z)
    torch.testing.assert_close(x, torch.cat([z[:, :R], z[:, R:] + net(kept)[:, R:]], 1), atol=0, rtol=0)
    torch.testing.assert_close(layer.inverse(x)[0], z, atol=1e-14, rtol=1e-14)
    assert torch.equal(log_det, torch.zeros(BATCH))
    assert torch.equal(layer.inverse(x)[1], torch.zeros(BATCH))


@pytest.mark.parametrize(("kind", "outputs"), COUPLINGS)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["vector", "checkerboard", "channels"])
def test_log_det_agrees_with_autograd(kind, outputs, which):
    layer, z = vector_and_image(kind, outputs)[which]
    assert check.log_det_error(randomised(layer), z) < 1e-12
    assert check.round_trip_error(layer, z) < 1e-12


@pytest.mark.parametrize(("kind", "outputs"), COUPLINGS)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["vector", "checkerboard", "channels"])
def test_a_new_layer_is_the_identity_to_the_last_bit(kind, outputs, which):
    layer, z = vector_and_image(kind, outputs)[which]
    for direction in (layer, layer.inverse):
        out, log_det = direction(z)
        assert torch.equal(out, z)
        assert torch.equal(log_det, torch.zeros(BATCH))


@pytest.mark.parametrize(("kind", "outputs"), COUPLINGS)
def test_the_jacobian_has_the_block_form_with_exact_zeros(kind, outputs):
    layer = randomised(kind(half_mask(D, R), MLP(D, outputs * D, hidden=(16,))))
    for direction in (layer, layer.inverse):
        jacobian = check.jacobian(lambda p, direction=direction: direction(p)[0], points(D))
        upper_left, upper_right = jacobian[:, :R, :R], jacobian[:, :R, R:]
        lower_left, lower_right = jacobian[:, R:, :R], jacobian[:, R:, R:]
        assert torch.equal(upper_left, torch.eye(R).expand(BATCH, R, R))
        assert torch.equal(upper_right, torch.zeros(BATCH, R, D - R))
        assert torch.equal(lower_right, torch.diag_embed(lower_right.diagonal(dim1=1, dim2=2)))
        assert (lower_left != 0).all()


@pytest.mark.parametrize(("kind", "outputs"), COUPLINGS)
@pytest.mark.parametrize("which", [0, 1, 2], ids=["vector", "checkerboard", "channels"])
def test_what_the_mask_keeps_is_kept_to_the_last_bit(kind, outputs, which):
    layer, z = vector_and_image(kind, outputs)[which]
    kept = layer.mask.bool().expand(z.shape)
    x, log_det = randomised(layer)(z)
    assert torch.equal(x[kept], z[kept])
    assert (x[~kept] != z[~kept]).all()
    assert torch.equal(log_det, -layer.inverse(x)[1])  # both directions see the same s


def test_the_log_scale_is_bounded_and_keeps_its_slope_at_zero():
    for raw in (-1e6, 1e6):
        layer = AffineCoupling(half_mask(2, 1), lambda z, context, raw=raw: torch.full((len(z), 4), raw), 1.5)
        assert layer(torch.ones(1, 2))[1].item() == pytest.approx(math.copysign(1.5, raw), abs=1e-12)
    layer = AffineCoupling(half_mask(2, 1), lambda z, context: torch.full((len(z), 4), 1e-5), 1.5)
    assert layer(torch.ones(1, 2))[1].item() == pytest.approx(1e-5, rel=1e-9)


@pytest.mark.parametrize(("kind", "outputs"), COUPLINGS)
def test_the_conditioner_may_be_anything(kind, outputs):
    def jumps(z, context):  # neither invertible nor continuous
        return torch.sign(torch.sin(50 * z)).repeat(1, outputs)

    layer, z = kind(alternating_mask(D), jumps), points(D)
    torch.testing.assert_close(layer.inverse(layer(z)[0])[0], z, atol=1e-14, rtol=1e-14)


def test_a_mask_of_channels_serves_images_of_every_size():
    mask = torch.tensor([True, False])[:, None, None]
    layer = randomised(AffineCoupling(mask, ConvNet(2, 4, hidden=(4,))))
    for size in (2, 5):
        z = points(2, size, size)
        assert check.round_trip_error(layer, z) < 1e-12
        assert layer(z)[1].shape == (BATCH,)


def test_the_layer_follows_its_module_to_another_dtype_and_keeps_its_mask_in_the_state():
    layer = randomised(AffineCoupling(half_mask(4, 1), MLP(4, 8))).float()
    x, log_det = layer(points(4).float())
    assert x.dtype == log_det.dtype == torch.float32
    other = AffineCoupling(half_mask(4, 3), MLP(4, 8)).float()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(points(4).float())[0], x)


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


@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling])
@pytest.mark.parametrize(
    ("mask", "error", "says"),
    [
        (torch.ones(2), TypeError, "must be a bool tensor.*came as torch.float"),
        ([True, False], TypeError, "must be a bool tensor.*came as list"),
        (torch.tensor([True, True]), ValueError, "both True .* and False .*came as all True"),
        (torch.tensor([False, False]), ValueError, "both True .* and False .*came as all False"),
        (torch.tensor(True), ValueError, "came as a single value"),
        (torch.zeros(0, dtype=torch.bool), ValueError, "both True"),
    ],
)
def test_bad_masks_are_refused(kind, mask, error, says):
    with pytest.raises(error, match=says):
        kind(mask, MLP(2, 4))


@pytest.mark.parametrize("event", [(3,), (1,), (2, 2), (5, 2)])
def test_a_mask_of_another_shape_is_refused(event):
    layer = AdditiveCoupling(half_mask(2, 1), lambda z, context: z)
    with pytest.raises(ValueError, match=r"mask \(2,\); the mask must have the shape of one point"):
        layer(points(*event))
    with pytest.raises(ValueError, match="the mask must have the shape of one point"):
        layer.inverse(points(*event))


def test_a_mask_is_not_mistaken_for_a_mask_per_row():
    mask = torch.arange(BATCH * 2).reshape(BATCH, 2) % 2 == 0
    with pytest.raises(ValueError, match="the mask must have the shape of one point"):
        AdditiveCoupling(mask, lambda z, context: z)(points(2))


def test_a_conditioner_with_the_wrong_width_is_refused():
    with pytest.raises(ValueError, match=r"returned shape \(6, 2\); AffineCoupling needs \(6, 4\)"):
        AffineCoupling(half_mask(2, 1), MLP(2, 2))(points(2))
    with pytest.raises(ValueError, match=r"returned shape \(6, 4\); AdditiveCoupling needs \(6, 2\)"):
        AdditiveCoupling(half_mask(2, 1), MLP(2, 4))(points(2))


@pytest.mark.parametrize("bound", [0, -1.0, math.inf, math.nan])
def test_a_bound_that_bounds_nothing_is_refused(bound):
    with pytest.raises(ValueError, match="bound must be a positive finite number"):
        AffineCoupling(half_mask(2, 1), MLP(2, 4), bound=bound)


@pytest.mark.parametrize(
    "permutation", [[0, 0], [1, 2], [0, 2], [[0, 1]], [0.0, 1.0], [-1, 0], [True, False], 0]
)
def test_what_is_no_permutation_is_refused(permutation):
    with pytest.raises(ValueError, match="each of 0, 1, …, d-1 exactly once"):
        Permute(permutation)


def test_a_permutation_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"3 entries in dimension 1.*the permutation 2"):
        Permute([1, 0])(points(3))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: half_mask(2, 0), "r must leave an entry on each side"),
        (lambda: half_mask(2, 2), "r must leave an entry on each side"),
        (lambda: alternating_mask(1), "at least two entries"),
        (lambda: alternating_mask(2, 2), "parity must be 0 or 1"),
        (lambda: checkerboard_mask((3, 1, 1)), "at least two pixels"),
        (lambda: checkerboard_mask((4, 4)), r"shape must be \(channels, height, width\)"),
        (lambda: channel_mask((1, 4, 4)), "at least two channels"),
        (lambda: MLP(0, 2), "in_features must be made of positive whole numbers"),
        (lambda: MLP(2, 2, hidden=(4, -1)), "hidden must be made of positive whole numbers"),
        (lambda: ConvNet(1, 2, hidden=(8, 16)), "one width for all residual blocks"),
        (lambda: ConvNet(1, 2, hidden=()), "one width for all residual blocks"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()
