"""Masks, affine autoregressive layers in both directions, and what sampling costs."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from flowlib import check
from flowlib.bases import StandardNormal
from flowlib.bijection import Inverse
from flowlib.flow import Flow
from flowlib.layers.autoregressive import MADE, AffineAutoregressive, Autoregressive, MaskedLinear

ORDERS = {"natural": [0, 1, 2, 3, 4], "reversed": [4, 3, 2, 1, 0], "mixed": [2, 0, 4, 1, 3]}
every_order = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def randomised(module: torch.nn.Module, scale: float = 1.0) -> torch.nn.Module:
    """The module with every parameter drawn anew, so that nothing is the identity."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data = scale * torch.randn(parameter.shape, generator=generator) / fan_in**0.5
    return module


def points(n: int, d: int) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def dependencies(made: MADE, d: int) -> torch.Tensor:
    """Which entry of the output hears which input: ``(d, outputs, d)``, from the Jacobian."""
    return torch.autograd.functional.jacobian(lambda x: made(x[None])[0], points(1, d)[0]) != 0


# --- the masks ---------------------------------------------------------------------------


@every_order
@pytest.mark.parametrize("hidden", [(4,), (7, 4), (16, 5, 9)], ids=str)
def test_each_output_hears_all_inputs_before_it_and_no_other(order, hidden):
    made = randomised(MADE(5, outputs=3, hidden=hidden, order=order))
    place = [order.index(i) for i in range(5)]
    allowed = torch.tensor([[place[j] < place[i] for j in range(5)] for i in range(5)])
    assert torch.equal(dependencies(made, 5), allowed[:, None].expand(5, 3, 5))


def test_narrow_layers_lose_dependencies_and_never_gain_one():
    heard = dependencies(randomised(MADE(9, hidden=(3, 5))), 9)[:, 0]
    assert heard.any()
    assert torch.equal(heard, heard.tril(-1))
    assert heard.sum() < 9 * 8 / 2


@every_order
def test_every_output_hears_the_context_of_its_row(order):
    made, x = randomised(MADE(5, 2, (6, 6), context_features=3, order=order)), points(2, 5)
    context = points(2, 3).requires_grad_()
    for i in range(5):
        (gradient,) = torch.autograd.grad(made(x, context)[0, i].sum(), context)
        assert (gradient[0] != 0).all()
        assert not gradient[1].any()


def test_made_is_the_papers_network():
    made, x = randomised(MADE(3, outputs=2, hidden=(4, 6))), points(5, 3)
    inputs, one, two = [1, 2, 3], [1, 1, 2, 2], [1, 1, 1, 2, 2, 2]  # the paper's m(k)
    masks = [
        torch.tensor([[float(after >= before) for before in inputs] for after in one]),
        torch.tensor([[float(after >= before) for before in one] for after in two]),
        torch.tensor([[float(after > before) for before in two] for after in (1, 2, 3, 1, 2, 3)]),
    ]
    h = x
    for k, (layer, mask) in enumerate(zip(made.layers, masks, strict=True)):
        h = h @ (layer.weight * mask).T + layer.bias
        h = h * torch.sigmoid(h) if k < 2 else h
    torch.testing.assert_close(made(x), h.reshape(5, 2, 3).mT, atol=1e-14, rtol=1e-14)


def test_a_masked_weight_is_never_used_and_never_learns():
    layer = MaskedLinear(torch.tensor([[True, False]]))
    layer(torch.ones(1, 2)).sum().backward()
    assert layer.weight.grad.tolist() == [[1.0, 0.0]]
    assert layer(torch.tensor([[0.0, 1e9]])).item() == layer.bias.item()


# --- the layer ----------------------------------------------------------------------------


def generated_one_by_one(layer: AffineAutoregressive, z: torch.Tensor, context=None):
    """MAF's recursion as it is printed, with one whole pass for each entry."""
    x, log_det = torch.zeros_like(z), torch.zeros(len(z))
    for i in layer.made.order.tolist():
        alpha, mu = layer.made(x, context)[:, i].unbind(-1)
        alpha = layer.bound * torch.tanh(alpha / layer.bound)
        x = x.index_copy(1, torch.tensor([i]), (z[:, i] * alpha.exp() + mu)[:, None])
        log_det = log_det + alpha
    return x, log_det


@pytest.mark.parametrize(
    ("d", "hidden", "features"),
    [(1, (4,), 0), (1, (4,), 2), (5, (16,), 0), (5, (8, 8), 2), (40, (7, 50, 64), 0), (33, (64, 64), 1)],
)
def test_generating_is_the_papers_recursion(d, hidden, features):
    order = torch.randperm(d).tolist()
    layer = randomised(AffineAutoregressive(d, hidden, features, order, bound=1.5))
    z, context = points(6, d), points(6, features) if features else None
    for result, expected in zip(layer(z, context), generated_one_by_one(layer, z, context), strict=True):
        torch.testing.assert_close(result, expected, atol=1e-12, rtol=1e-12)


@every_order
def test_normalising_is_the_papers_formula(order):
    layer, x = randomised(AffineAutoregressive(5, (16,), order=order, bound=1.5)), points(6, 5)
    alpha, mu = layer.made(x).unbind(-1)
    alpha = 1.5 * torch.tanh(alpha / 1.5)
    z, log_det = layer.inverse(x)
    torch.testing.assert_close(z, (x - mu) / alpha.exp(), atol=1e-14, rtol=1e-14)
    torch.testing.assert_close(log_det, -alpha.sum(1), atol=1e-14, rtol=1e-14)
    iaf = Inverse(layer)
    assert torch.equal(iaf(x)[0], z)
    torch.testing.assert_close(iaf.inverse(z)[0], x, atol=1e-13, rtol=1e-13)


@every_order
def test_the_jacobian_is_triangular_in_the_layers_order(order):
    layer, z = randomised(AffineAutoregressive(5, (16, 16), order=order)), points(3, 5)
    for direction in (layer, layer.inverse):
        jacobian = check.jacobian(lambda p, direction=direction: direction(p)[0], z)[:, order][:, :, order]
        assert torch.equal(jacobian != 0, torch.ones(3, 5, 5).tril() != 0)
    assert check.log_det_error(layer, z) < 1e-12


def test_constants_give_independent_normals():
    layer = AffineAutoregressive(4, bound=3.0)
    log_scale, shift = torch.tensor([0.5, -1.0, 0.0, 2.0]), torch.tensor([1.0, 0.0, -2.0, 3.0])
    raw = torch.stack([3 * torch.atanh(log_scale / 3), shift])
    layer.made.layers[-1].bias.data = raw.flatten()
    flow, x = Flow(layer, StandardNormal(4)), points(7, 4)
    expected = torch.distributions.Normal(shift, log_scale.exp()).log_prob(x).sum(1)
    torch.testing.assert_close(flow.log_prob(x), expected, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_new_layer_is_the_identity_to_the_last_bit(dtype):
    layer, z = AffineAutoregressive(20, (32, 32), 2).to(dtype), points(6, 20).to(dtype)
    for direction in (layer, layer.inverse):
        out, log_det = direction(z, points(6, 2).to(dtype))
        assert torch.equal(out, z)
        assert torch.equal(log_det, torch.zeros_like(log_det))


def test_gradients_through_samples_are_those_of_the_implicit_equation():
    layer, z = randomised(AffineAutoregressive(18, (24, 24))), points(2, 18)
    x = layer(z)[0]
    forward = check.jacobian(lambda p: layer(p)[0], z)
    inverse = check.jacobian(lambda p: layer.inverse(p)[0], x.detach())
    torch.testing.assert_close(forward @ inverse, torch.eye(18).expand(2, -1, -1), atol=1e-11, rtol=0)
    # z = g(x; weights) stays as it is, so dx = -J_g^{-1} dg: seen along one random direction
    direction = points(2, 18)
    parameters = list(layer.parameters())
    through = torch.autograd.grad((x * direction).sum(), parameters)
    pulled = torch.linalg.solve(inverse.mT, direction)
    implicit = torch.autograd.grad(-(layer.inverse(x.detach())[0] * pulled).sum(), parameters)
    for one, other in zip(through, implicit, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_the_log_scale_is_bounded():
    layer = AffineAutoregressive(2, bound=1.5)
    for raw in (-1e6, 1e6):
        layer.made.layers[-1].bias.data.fill_(raw)
        log_det = layer(torch.zeros(1, 2))[1].item()
        assert log_det == pytest.approx(math.copysign(3.0, raw), abs=1e-12)


def test_the_order_is_part_of_the_state():
    layer = randomised(AffineAutoregressive(5, order=ORDERS["mixed"]))
    other = AffineAutoregressive(5)
    other.load_state_dict(layer.state_dict())
    for direction in ("forward", "inverse"):
        for result, expected in zip(
            getattr(other, direction)(points(3, 5)), getattr(layer, direction)(points(3, 5)), strict=True
        ):
            assert torch.equal(result, expected)


# --- the cost ------------------------------------------------------------------------------


def test_sampling_takes_no_more_matrix_work_than_one_pass():
    layer, z = AffineAutoregressive(64, (256, 256)), points(8, 64)
    work = {}
    for name in ("forward", "inverse"):
        with FlopCounterMode(display=False) as counter:
            getattr(layer, name)(z)
        work[name] = counter.get_total_flops()
    used = 2 * len(z) * sum(int(made.mask.sum()) for made in layer.made.layers)
    # each weight in use once, and half as many zeros as the diagonal blocks of the masks hold
    assert used <= work["forward"] <= 1.25 * used
    assert work["forward"] <= work["inverse"]


# --- what is refused, each with a sentence ----------------------------------------------------


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: MADE(0), "d must be made of positive whole numbers"),
        (lambda: MADE(2, outputs=0), "outputs must be made of positive whole numbers"),
        (lambda: MADE(2, hidden=(8, 0)), "hidden must be made of positive whole numbers"),
        (lambda: MADE(2, hidden=()), "at least one layer"),
        (lambda: MADE(3, order=[0, 1]), "order must hold each of 0, 1, …, 2 exactly once"),
        (lambda: MADE(3, order=[0, 1, 1]), "exactly once, and came as"),
        (lambda: MADE(2, order=[0.0, 1.0]), "exactly once, and came as"),
        (lambda: AffineAutoregressive(2, bound=0), "bound must be a positive number up to 80"),
        (lambda: AffineAutoregressive(2, bound=math.nan), "bound must be a positive number up to 80"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()


@pytest.mark.parametrize(("direction", "missing"), [("forward", "generate"), ("inverse", "normalise")])
def test_a_subclass_must_say_how_an_entry_moves(direction, missing):
    with pytest.raises(NotImplementedError, match=f"Autoregressive has no {missing}"):
        getattr(Autoregressive(MADE(2)), direction)(points(1, 2))
