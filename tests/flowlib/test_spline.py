"""Rational-quadratic splines against the paper's formulas, at the knots, outside, and badly scaled."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from flowlib import check
from flowlib.bases import StandardNormal
from flowlib.bijection import Compose
from flowlib.flow import Flow
from flowlib.layers.coupling import checkerboard_mask, half_mask
from flowlib.layers.spline import (
    Knots,
    SplineAutoregressive,
    SplineCoupling,
    inverse_rational_quadratic,
    rational_quadratic,
    spline_knots,
)
from flowlib.models import MODELS
from flowlib.nets import MLP, ConvNet

BINS, BOX = 8, 4.0
LEAST, MOST = math.exp(-3.5), math.exp(3)  # the slopes that spline_knots promises


def raws(n: int, scale: float, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (scale * torch.randn(3 * BINS - 1, n, generator=generator, dtype=torch.float64)).to(dtype)


def inside(n: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    uniform = torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return ((2 * uniform - 1) * BOX).to(dtype)


def coupling(dtype: torch.dtype = torch.float64) -> SplineCoupling:
    return SplineCoupling(half_mask(5, 2), MLP(2, 3 * (3 * BINS - 1), (16,)), BINS, BOX).to(dtype)


def autoregressive(dtype: torch.dtype = torch.float64) -> SplineAutoregressive:
    return SplineAutoregressive(5, (16,), bins=BINS, box=BOX).to(dtype)


def randomised(module: torch.nn.Module, scale: float = 1.0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = (scale * noise / fan_in**0.5).to(parameter)
    return module


def points(n: int, *event: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(n, *event, generator=generator, dtype=torch.float64).to(dtype)


both_layers = pytest.mark.parametrize("build", [coupling, autoregressive])
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


# --- the curve -----------------------------------------------------------------------------


def papers_spline(z: float, x: list[float], y: list[float], d: list[float]) -> tuple[float, float]:
    """Equations (4) and (5) of Durkan et al. for one number, as they are printed."""
    k = max(j for j in range(len(x) - 1) if x[j] <= z)
    s = (y[k + 1] - y[k]) / (x[k + 1] - x[k])
    xi = (z - x[k]) / (x[k + 1] - x[k])
    both = xi * (1 - xi)
    below = s + (d[k + 1] + d[k] - 2 * s) * both
    value = y[k] + (y[k + 1] - y[k]) * (s * xi**2 + d[k] * both) / below
    return value, s**2 * (d[k + 1] * xi**2 + 2 * s * both + d[k] * (1 - xi) ** 2) / below**2


def papers_inverse(v: float, x: list[float], y: list[float], d: list[float]) -> float:
    """Equations (6) to (8) and the root of the quadratic, as they are printed."""
    k = max(j for j in range(len(y) - 1) if y[j] <= v)
    s = (y[k + 1] - y[k]) / (x[k + 1] - x[k])
    sharp = d[k + 1] + d[k] - 2 * s
    a = (y[k + 1] - y[k]) * (s - d[k]) + (v - y[k]) * sharp
    b = (y[k + 1] - y[k]) * d[k] - (v - y[k]) * sharp
    c = -s * (v - y[k])
    return x[k] + (x[k + 1] - x[k]) * 2 * c / (-b - math.sqrt(b * b - 4 * a * c))


def test_the_spline_is_the_papers_in_both_directions():
    knots, z = spline_knots(raws(200, 1.0), BOX), inside(200)
    value, log_slope = rational_quadratic(z, knots)
    back, inverse_log_slope = inverse_rational_quadratic(value, knots)
    for i in range(200):
        row = [values[:, i].tolist() for values in (knots.x, knots.y, knots.d)]
        expected, slope = papers_spline(z[i].item(), *row)
        assert value[i].item() == pytest.approx(expected, abs=1e-12)
        assert log_slope[i].item() == pytest.approx(math.log(slope), abs=1e-12)
        assert back[i].item() == pytest.approx(papers_inverse(value[i].item(), *row), abs=1e-11)
    torch.testing.assert_close(inverse_log_slope, -log_slope, atol=1e-11, rtol=0)


def test_knots_anywhere_may_be_given():
    x, y, d = (
        torch.tensor(values, dtype=torch.float64)
        for values in ([-3.0, -1.0, 0.0, 2.5], [-3.0, 0.5, 0.75, 2.5], [1.0, 0.3, 4.0, 1.0])
    )
    for z in (-2.9, -1.0, -0.3, 0.0, 1.9):
        point = torch.tensor(z, dtype=torch.float64)
        value, log_slope = rational_quadratic(point, Knots.through(x, y, d))
        expected, slope = papers_spline(z, x.tolist(), y.tolist(), d.tolist())
        assert value.item() == pytest.approx(expected, abs=1e-14)
        assert log_slope.exp().item() == pytest.approx(slope, rel=1e-13)


def test_the_knots_are_the_docstrings_formula():
    raw = raws(1, 1.0)[:, 0]
    a, b, c = raw[:BINS], raw[BINS : 2 * BINS], raw[2 * BINS :]
    width = 2 * BOX * (0.1 / BINS + 0.9 * a.exp() / a.exp().sum())
    height = width * b.tanh().exp()
    height = height * 2 * BOX / height.sum()
    slope = height / width
    harmonic = 2 / (1 / slope[1:] + 1 / slope[:-1])
    knots = spline_knots(raw, BOX)
    start, one = torch.tensor([-BOX]).double(), torch.ones(1).double()
    expected = Knots.through(
        torch.cat([start, width.cumsum(0) - BOX]),
        torch.cat([start, height.cumsum(0) - BOX]),
        torch.cat([one, harmonic * c.tanh().exp(), one]),
    )
    for name, value in vars(expected).items():
        torch.testing.assert_close(getattr(knots, name), value, atol=1e-13, rtol=1e-13)


@both_dtypes
@pytest.mark.parametrize("scale", [0.1, 3.0, 10.0, 1e6])
def test_knots_increase_from_corner_to_corner_with_bounded_slopes(scale, dtype):
    knots = spline_knots(raws(5000, scale, dtype), BOX)
    for edges in (knots.x, knots.y):
        assert (edges.diff(dim=0) > 0).all()
        assert (edges[0] == -BOX).all()
        assert (edges[-1] == BOX).all()
    assert (knots.width >= 0.99 * 0.1 * 2 * BOX / BINS).all()
    z = inside(5000, dtype)
    log_slope = rational_quadratic(z, knots)[1]
    assert log_slope.exp().min() > LEAST
    assert log_slope.exp().max() < MOST
    assert torch.stack([knots.d.min() - LEAST, MOST - knots.d.max()]).min() > 0


def test_the_slope_is_continuous_at_the_knots_and_is_theirs():
    knots = spline_knots(raws(50, 1.0), BOX)
    each = Knots(
        **{name: values[:, None] for name, values in vars(knots).items()}
    )  # all knots of a spline as points
    for step in (-1e-9, 0.0, 1e-9):
        z = (knots.x + step).requires_grad_()
        value, log_slope = rational_quadratic(z, each)
        (slope,) = torch.autograd.grad(value.sum(), z)
        torch.testing.assert_close(slope, knots.d, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(log_slope.exp(), knots.d, atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(value, knots.y, atol=1e-7, rtol=0)


def test_the_curve_rises_everywhere():
    knots = spline_knots(raws(1, 3.0), BOX)
    z = torch.linspace(-BOX - 1, BOX + 1, 20001).double()
    assert (rational_quadratic(z, knots)[0].diff() > 0).all()
    assert (inverse_rational_quadratic(z, knots)[0].diff() > 0).all()


# --- rounding, and points in awkward places -----------------------------------------------------


def test_the_round_trip_in_float32_at_scale_three():
    knots, z = spline_knots(raws(50_000, 3.0, torch.float32), BOX), inside(50_000, torch.float32)
    value, log_slope = rational_quadratic(z, knots)
    back, inverse_log_slope = inverse_rational_quadratic(value, knots)
    assert check.largest(back - z) < 2e-5
    assert check.largest(log_slope + inverse_log_slope) < 2e-3


@both_layers
def test_a_layer_comes_back_in_float32_at_scale_three(build):
    layer, z = build(torch.float32), points(5000, 5, dtype=torch.float32)
    last = layer.conditioner.layers[-1] if build is coupling else layer.made.layers[-1]
    randomised(last, scale=3.0)
    x, log_det = layer(z)
    assert check.largest(x - z) > 1
    back, inverse_log_det = layer.inverse(x)
    assert check.largest(back - z) < 1e-4
    assert check.largest(log_det + inverse_log_det) < 1e-2


def test_a_stack_at_scale_three_loses_little_more_than_its_points_do():
    """Rounded once to float32, x knows its z to 1e-3 at best; a round trip in float32 loses twice that."""
    single = randomised(MODELS["spline"]().bijection, scale=3.0)
    double, z = copy.deepcopy(single).double(), torch.randn(2000, 2)
    with torch.no_grad():
        exact = double(z.double())[0]
        rounded = double.inverse(exact.float().double())[0]
        assert check.largest(double.inverse(exact)[0] - z) < 1e-10
        back = single.inverse(single(z)[0])[0]
    unavoidable = check.largest(rounded - z)
    assert unavoidable > 1e-3
    assert check.largest(back - z) < 4 * unavoidable


@both_dtypes
@both_layers
@pytest.mark.parametrize("scale", [10.0, 1e3])
def test_large_parameters_give_neither_nan_nor_infinity(build, dtype, scale):
    layer = randomised(build(dtype), scale)
    for direction in (layer, layer.inverse):
        z = torch.cat([points(500, 5, dtype=dtype), 1e4 * points(20, 5, dtype=dtype)]).requires_grad_()
        out, log_det = direction(z)
        gradients = torch.autograd.grad(out.sum() + log_det.sum(), [z, *layer.parameters()])
        for value in (out, log_det, *gradients):
            assert value.isfinite().all()


@both_dtypes
@pytest.mark.parametrize("curve", [rational_quadratic, inverse_rational_quadratic])
def test_gradients_are_finite_at_the_knots_at_the_ends_and_outside(curve, dtype):
    raw = raws(30, 2.0, dtype)[:, None].requires_grad_()  # 30 splines, for a column of points each
    knots = spline_knots(raw, BOX)
    edges = (knots.x if curve is rational_quadratic else knots.y).detach()[:, 0]
    tiny = torch.finfo(dtype).eps * BOX
    outside = torch.tensor([-1e6, -BOX - 1e-3, BOX, BOX + 1e-3, 1e6]).to(dtype)[:, None].expand(-1, 30)
    z = torch.cat([edges - tiny, edges, edges + tiny, outside]).requires_grad_()
    out, log_slope = curve(z, knots)
    for values in (out, log_slope):
        for gradient in torch.autograd.grad(values.sum(), [z, raw], retain_graph=True):
            assert gradient.isfinite().all()
    assert (log_slope.abs() < 3.5).all()


@both_dtypes
@pytest.mark.parametrize("curve", [rational_quadratic, inverse_rational_quadratic])
def test_outside_the_box_nothing_moves(curve, dtype):
    z = torch.tensor([-1e30, -4.5, -BOX, BOX, 5.0, 1e30]).to(dtype).requires_grad_()
    out, log_slope = curve(z, spline_knots(raws(6, 3.0, dtype), BOX))
    assert torch.equal(out, z)
    assert not log_slope.any()
    assert torch.equal(torch.autograd.grad(out.sum(), z)[0], torch.ones_like(z))


# --- the layers ------------------------------------------------------------------------------


@both_dtypes
@both_layers
def test_a_new_layer_is_the_identity_to_the_last_bit(build, dtype):
    layer, z = build(dtype), 3 * points(50, 5, dtype=dtype)
    for direction in (layer, layer.inverse):
        out, log_det = direction(z)
        assert torch.equal(out, z)
        assert torch.equal(log_det, torch.zeros_like(log_det))


@both_layers
def test_log_det_agrees_with_autograd(build):
    layer, z = randomised(build()), points(6, 5)
    assert check.log_det_error(layer, z) < 1e-11
    assert check.round_trip_error(layer, z) < 1e-11


def test_the_coupling_moves_the_others_by_the_spline_of_those_that_stay():
    layer, z = randomised(coupling()), points(6, 5)
    raw = layer.conditioner(z[:, :2]).reshape(6, 3 * BINS - 1, 3).movedim(1, 0)
    moved, log_slope = rational_quadratic(z[:, 2:], spline_knots(raw, BOX))
    x, log_det = layer(z)
    assert torch.equal(x[:, :2], z[:, :2])
    torch.testing.assert_close(x[:, 2:], moved, atol=1e-14, rtol=0)
    torch.testing.assert_close(log_det, log_slope.sum(1), atol=1e-13, rtol=0)


def test_the_autoregressive_layer_moves_each_entry_by_the_spline_of_those_before():
    layer, z = randomised(autoregressive()), points(6, 5)
    x = torch.zeros(6, 5).double()
    for i in range(5):
        knots = spline_knots(layer.made(x)[:, i].T, BOX)
        x = x.index_copy(1, torch.tensor([i]), rational_quadratic(z[:, i], knots)[0][:, None])
    torch.testing.assert_close(layer(z)[0], x, atol=1e-12, rtol=0)


def test_images_are_moved_too():
    shape = (2, 4, 4)
    layer = SplineCoupling(checkerboard_mask(shape), ConvNet(2, 2 * 8, (4,)), bins=3).double()
    z = points(3, *shape)
    assert torch.equal(layer(z)[0], z)
    randomised(layer)
    assert check.log_det_error(layer, z) < 1e-11
    assert check.round_trip_error(layer, z) < 1e-11


def test_nothing_breaks_the_graph_of_torch_compile():
    flow = Flow(Compose([randomised(coupling()), randomised(autoregressive())]), StandardNormal(5)).double()
    for function in (flow.log_prob, flow.decode):
        compiled = torch.compile(function, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(points(4, 5)), function(points(4, 5)))


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: SplineAutoregressive(2, bins=1), "bins must be a whole number, 2 or more"),
        (lambda: SplineAutoregressive(2, bins=2.5), "bins must be a whole number, 2 or more"),
        (lambda: SplineAutoregressive(2, box=0), "box must be a positive finite number"),
        (lambda: SplineCoupling(half_mask(2, 1), MLP(1, 23), box=math.inf), "box must be a positive finite"),
        (lambda: SplineCoupling(half_mask(2, 1), MLP(1, 20))(torch.ones(1, 2)), r"needs \(1, 23\)"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()
