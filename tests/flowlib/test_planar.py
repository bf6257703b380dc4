"""Planar and radial layers where they are hard: extreme parameters, far points, derivatives."""

import math

import pytest
import torch
from torch.func import hessian, jacfwd, jacrev, vmap

from flowlib import Compose, Flow, Planar, PlanarStack, Radial, StandardNormal, check
from flowlib.layers.planar import fixed_point_inverse, solve_planar

BOTH = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


def grid_of_m_and_y(dtype):
    m = torch.cat([torch.logspace(-3, 0, 40) - 1, torch.zeros(1), torch.logspace(-8, 6, 60)])
    y = torch.cat([torch.zeros(1), torch.logspace(-30, 4, 120)])
    y = torch.cat([-y, y, torch.linspace(990, 1010, 41)])  # y near m = 1000 starts far from the root
    m = torch.cat([m, torch.tensor([1000.0])])
    return torch.meshgrid(m.to(dtype), y.to(dtype), indexing="ij")


def planar(dtype=torch.float64, **parameters):
    layer = Planar(2).to(dtype)
    with torch.no_grad():
        for name, value in parameters.items():
            getattr(layer, name).copy_(torch.as_tensor(value, dtype=dtype))
    return layer


# --- the scalar root ----------------------------------------------------------------------


@BOTH
def test_root_solves_its_equation_to_rounding(dtype):
    m, y = grid_of_m_and_y(dtype)
    s = solve_planar(y, m).double()
    residual = s + m.double() * torch.tanh(s) - y.double()
    size = s.abs() + (m.double() * torch.tanh(s)).abs() + y.double().abs()
    assert (residual.abs() <= 4 * torch.finfo(dtype).eps * size).all()


def test_root_is_odd_and_passes_nan_on():
    s = solve_planar(torch.tensor([-2.0, 2.0, math.nan]), torch.tensor(5.0))
    assert s[0] == -s[1]
    assert s[2].isnan()


def test_root_refuses_what_has_no_unique_answer():
    with pytest.raises(ValueError, match="greater than -1"):
        solve_planar(torch.tensor([0.5, 0.5]), torch.tensor([2.0, -1.0]))


def test_root_says_when_it_was_not_found():
    with pytest.raises(RuntimeError, match="not found"):
        solve_planar(torch.tensor(1e-10), torch.tensor(1e30))  # the root is subnormal in float32


def test_root_has_right_derivatives_up_to_the_third_order():
    y = torch.tensor([-7.0, -0.3, 0.0, 0.4, 9.0], dtype=torch.float64, requires_grad=True)
    m = torch.tensor([-0.99, -0.5, 0.0, 3.0, 9.0], dtype=torch.float64, requires_grad=True)
    # one point at a time keeps every y with every m apart
    assert torch.autograd.gradcheck(solve_planar, (y, m), check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(solve_planar, (y, m))
    single = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)  # broadcast over y
    assert torch.autograd.gradcheck(solve_planar, (y, single))

    def curvature(y, m):
        (slope,) = torch.autograd.grad(solve_planar(y, m).sum(), y, create_graph=True)
        return torch.autograd.grad(slope.sum(), y, create_graph=True)[0]

    assert torch.autograd.gradcheck(curvature, (y, m))


def test_root_works_in_function_transforms():
    y = torch.linspace(-3, 3, 7, dtype=torch.float64)
    m = torch.tensor(2.0, dtype=torch.float64)
    rows = vmap(solve_planar, in_dims=(0, None))(y, m)
    torch.testing.assert_close(rows, solve_planar(y, m))
    columns = vmap(solve_planar, in_dims=(None, 0))(m, y.abs())
    torch.testing.assert_close(columns, solve_planar(m.expand(7), y.abs()))
    slope = 1 / (1 + m * (1 - torch.tanh(rows) ** 2))
    for transform in (jacrev, jacfwd):
        torch.testing.assert_close(transform(solve_planar)(y, m), torch.diag(slope))
    curvature = 2 * m * torch.tanh(rows) * (1 - torch.tanh(rows) ** 2) * slope**3
    second = vmap(hessian(lambda one: solve_planar(one, m)))(y)
    torch.testing.assert_close(second, curvature)


# --- the planar layer -----------------------------------------------------------------------


def test_effective_u_is_zero_correction_at_right_angles():
    layer = planar(w=[1.0, 0.0], u=[0.0, 2.5])
    assert torch.equal(layer.u_hat, layer.u)
    assert layer.effective()[3] == 0


def test_correction_is_softplus_and_keeps_the_margin():
    c = math.log(math.expm1(1 - 1e-3))
    a = torch.tensor([-1000.0, -30.0, -1.0, -1e-9, 0.0, 1e-9, 1.0, 30.0, 1000.0], dtype=torch.float64)
    softplus = torch.nn.functional.softplus(a + c) - (1 - 1e-3)
    for value, expected in zip(a, softplus, strict=True):
        m = planar(w=[1.0, 0.0], u=[value, 0.7]).effective()[3]
        torch.testing.assert_close(m, expected, rtol=1e-12, atol=1e-15)
        assert m > -1


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-18, 1e-9, 1e-3])
@BOTH
def test_correction_stays_bounded_as_w_vanishes(dtype, length):
    layer = planar(dtype, w=[0.6 * length, 0.8 * length], u=[1.0, -2.0])
    assert (layer.u_hat - layer.u).norm() <= layer.u.norm()
    if length == 0:
        assert torch.equal(layer.u_hat, layer.u)


@pytest.mark.parametrize("product", [-1000.0, -1.0, 0.0, 1.0, 1000.0])
@BOTH
def test_extreme_products_round_trip(dtype, product):
    layer = planar(dtype, w=[0.6, 0.8], u=[0.6 * product, 0.8 * product], b=0.3)
    z = 3 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    x, log_det = layer(z)
    back, inverse_log_det = layer.inverse(x)
    # the slope at the origin can be as small as 1e-3, which magnifies rounding a thousandfold
    tolerance = 1e4 * torch.finfo(dtype).eps * max(1.0, abs(product) / 100)
    assert (back - z).abs().max() <= tolerance
    assert (log_det + inverse_log_det).abs().max() <= tolerance * 10
    assert log_det.isfinite().all()


@BOTH
def test_far_points_round_trip(dtype):
    directions = torch.randn(100, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z = (1e4 * directions / directions.norm(dim=1, keepdim=True)).to(dtype)
    for layer in (
        planar(dtype, w=[1.0, 2.0], u=[3.0, -1.0]),
        planar(dtype, w=[1.0, 2.0], u=[-3.0, 1.0]),
        Radial(2).to(dtype),
    ):
        back, log_det = layer.inverse(layer(z)[0])
        assert (back - z).abs().max() <= 8e4 * torch.finfo(dtype).eps
        assert log_det.isfinite().all()


def test_w_zero_is_a_translation_with_finite_gradients():
    layer = planar(w=[0.0, 0.0], u=[1.0, -2.0], b=0.5)
    z = torch.randn(4, 2, dtype=torch.float64)
    x, log_det = layer(z)
    torch.testing.assert_close(x, z + math.tanh(0.5) * layer.u)
    assert (log_det == 0).all()
    back, inverse_log_det = layer.inverse(x)
    torch.testing.assert_close(back, z)
    (back.square().sum() + inverse_log_det.sum() + x.sum() + log_det.sum()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_from_effective_keeps_what_it_is_given():
    for u_hat in ([3.0, 1.0], [-0.9, 4.0], [0.0, 1.0], [900.0, 0.0], [1e-9, 0.0]):
        layer = Planar.from_effective(
            torch.tensor([1.0, 0.0], dtype=torch.float64), torch.tensor(u_hat).double(), 0.2
        )
        torch.testing.assert_close(layer.u_hat, torch.tensor(u_hat).double(), rtol=1e-12, atol=1e-12)
        assert layer.b.item() == 0.2
    with pytest.raises(ValueError, match=r"u_hat · w is -2.*to be invertible"):
        Planar.from_effective([1.0, 0.0], [-2.0, 0.0])


@pytest.mark.parametrize("make", [Planar, Radial])
@pytest.mark.parametrize("context_features", [0, 3])
def test_gradients_through_both_directions(make, context_features):
    torch.manual_seed(3)
    layer = make(2, context_features).double()
    context = None
    if context_features:
        torch.nn.init.normal_(layer.context.weight, std=0.3)
        context = torch.randn(4, context_features, dtype=torch.float64)
    points = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)
    values = tuple(value.detach().clone().requires_grad_() for value in values)

    class Backward(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer.inverse(x, context)

    backward = Backward()

    def forward_of(points, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (points, context))

    def inverse_of(points, *values):
        state = {f"layer.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(backward, state, (points,))

    for function in (forward_of, inverse_of):
        assert torch.autograd.gradcheck(function, (points, *values))
        assert torch.autograd.gradgradcheck(function, (points, *values))


@pytest.mark.parametrize("make", [Planar, Radial])
def test_context_of_zero_weight_changes_nothing_and_rows_are_their_own(make):
    torch.manual_seed(4)
    layer = make(3, 2).double()
    z, context = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    plain = make(3).double()
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("context")})
    torch.testing.assert_close(layer(z, context), plain(z))
    torch.nn.init.normal_(layer.context.weight)
    assert check.log_det_error(layer, z, context) < 1e-10
    assert check.round_trip_error(layer, z, context) < 1e-10


# --- the stack ------------------------------------------------------------------------------


def test_a_stack_is_the_composition_of_its_layers():
    torch.manual_seed(6)
    layers = [planar(w=torch.randn(2), u=2 * torch.randn(2), b=torch.randn(())) for _ in range(5)]
    composed, stack = Compose(layers), PlanarStack(layers)
    z = torch.randn(7, 2, dtype=torch.float64)
    for pair in ((composed, stack), (composed.inverse, stack.inverse)):
        (x, log_det), (stacked_x, stacked_log_det) = (direction(z) for direction in pair)
        torch.testing.assert_close(stacked_x, x, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(stacked_log_det, log_det, rtol=1e-12, atol=1e-12)
        ((x * z).sum() + log_det.sum() + (stacked_x * z).sum() + stacked_log_det.sum()).backward()
    for name in ("w", "u", "b"):
        expected = torch.stack([getattr(layer, name).grad for layer in layers])
        torch.testing.assert_close(getattr(stack, name).grad, expected, rtol=1e-11, atol=1e-11)


def test_the_layers_of_a_stack_are_views_of_its_parameters():
    stack = PlanarStack(Planar(2) for _ in range(3))
    flow, z = Flow(stack, StandardNormal(2)), torch.randn(4, 2)
    steps = flow.trajectory(z)
    assert len(steps) == len(stack) + 1 == 4
    torch.testing.assert_close(steps[-1][0], stack(z)[0])
    stack.layers[1](z)[1].sum().backward()
    assert stack.w.grad.abs().sum(1).sign().tolist() == [0, 1, 0]
    with torch.no_grad():
        stack.layers[2].u.fill_(5.0)
    assert stack.u[2].tolist() == [5.0, 5.0]


def test_a_stack_refuses_layers_with_a_context():
    with pytest.raises(ValueError, match="layers without a context; use Compose"):
        PlanarStack([Planar(2), Planar(2, 3)])


@pytest.mark.parametrize(
    "layer", [Planar(2), PlanarStack([Planar(2)]), Radial(2)], ids=["planar", "stack", "radial"]
)
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_an_empty_batch_has_a_gradient(layer, direction):
    points = torch.zeros(0, 2, requires_grad=True)
    out, log_det = getattr(layer, direction)(points)
    gradients = torch.autograd.grad(out.sum() + log_det.sum(), [points, *layer.parameters()])
    assert all(not gradient.any() for gradient in gradients)


# --- the slides' fixed-point iteration --------------------------------------------------------


def test_fixed_point_converges_at_banachs_rate():
    layer = Planar.from_effective(torch.tensor([1.0, 0.0]).double(), torch.tensor([0.5, 1.0]).double())
    z = torch.randn(100, 2, dtype=torch.float64)
    report = fixed_point_inverse(layer, layer(z)[0])
    assert report.converged
    assert report.contraction == pytest.approx(0.5)
    torch.testing.assert_close(report.z, z)
    error = (report.iterates - z)[..., 0].abs()  # along w, where it is a contraction
    assert (error[1:] <= 0.5 * error[:-1] + 1e-15).all()


def test_fixed_point_falls_into_a_two_cycle_at_three():
    layer = Planar.from_effective(torch.tensor([1.0, 0.0]).double(), torch.tensor([3.0, 0.0]).double())
    x = torch.tensor([[0.1, 0.0]]).double()
    report = fixed_point_inverse(layer, x, steps=500)
    assert not report.converged
    assert report.steps == 500
    torch.testing.assert_close(report.iterates[-1], report.iterates[-3])
    assert (report.iterates[-1] - report.iterates[-2]).abs().max() > 5
    assert (layer(layer.inverse(x)[0])[0] - x).abs().max() < 1e-15


def test_fixed_point_is_far_off_at_nine_after_500_steps():
    layer = Planar.from_effective(torch.tensor([1.0, 0.0]).double(), torch.tensor([9.0, 0.0]).double())
    z = torch.tensor([[0.2, -1.0]]).double()
    report = fixed_point_inverse(layer, layer(z)[0], steps=500)
    assert not report.converged
    assert (report.z - z).abs().max() > 1
    torch.testing.assert_close(layer.inverse(layer(z)[0])[0], z)


# --- the radial layer -------------------------------------------------------------------------


def test_radial_is_the_papers_formula():
    torch.manual_seed(6)
    layer = Radial(3).double()
    z = torch.randn(20, 3, dtype=torch.float64)
    alpha, beta = layer.alpha, layer.beta
    r = (z - layer.z0).norm(dim=1)
    h, slope = 1 / (alpha + r), -1 / (alpha + r) ** 2
    x, log_det = layer(z)
    torch.testing.assert_close(x, z + (beta * h).unsqueeze(1) * (z - layer.z0))
    paper = 2 * torch.log1p(beta * h) + torch.log1p(beta * h + beta * slope * r)
    torch.testing.assert_close(log_det, paper)


@pytest.mark.parametrize("gamma_raw", [-1000.0, -10.0, 0.0, 10.0, 1000.0])
@BOTH
def test_radial_extremes_round_trip_and_the_centre_is_fixed(dtype, gamma_raw):
    layer = Radial(2).to(dtype)
    with torch.no_grad():
        layer.gamma_raw.fill_(gamma_raw)
    z = layer.z0.detach() + torch.randn(100, 2, dtype=torch.float64).to(dtype)
    z[0] = layer.z0.detach()
    z.requires_grad_()
    x, log_det = layer(z)
    assert torch.equal(x[0], z[0])
    back, inverse_log_det = layer.inverse(x)
    assert (back - z).abs().max() <= 2e4 * torch.finfo(dtype).eps
    (back.sum() + log_det.sum() + inverse_log_det.sum()).backward()
    assert z.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


@pytest.mark.parametrize("exponent", [15, 20, 30, 37])
def test_radial_far_points_do_not_overflow(exponent):
    torch.manual_seed(7)
    layer = Radial(3)
    z = (10.0**exponent * torch.randn(20, 3)).requires_grad_()
    x, log_det = layer(z)
    back, inverse_log_det = layer.inverse(x)
    torch.testing.assert_close(back, z)
    assert (log_det + inverse_log_det).abs().max() < 1e-6
    for value in torch.autograd.grad(
        (log_det + inverse_log_det).sum() + back.sum(), [z, *layer.parameters()]
    ):
        assert value.isfinite().all()
