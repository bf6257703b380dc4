"""Dequantisation, the logit and bits per dimension: constants, bounds and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from flowlib import check
from flowlib.bases import Base, StandardNormal, UniformBox
from flowlib.bijection import Compose
from flowlib.flow import Flow
from flowlib.layers.dequantize import Dequantize, Logit, VariationalDequantize, bits_per_dim
from flowlib.layers.linear import Triangular
from flowlib.train import fit

EVENT = (2, 4, 4)


def integers(levels: int, n: int = 5, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randint(levels, (n, *EVENT)).to(dtype)


def randomised(module: nn.Module) -> nn.Module:
    """The module with every parameter moved, so that nothing is the identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.add_(0.3 * torch.randn(parameter.shape) / fan_in**0.5)
    return module


def variational(levels: int, dtype: torch.dtype = torch.float64, context_features: int = 0) -> nn.Module:
    layer = VariationalDequantize(EVENT, levels, hidden=(8,), context_features=context_features)
    return randomised(layer).to(dtype)


LAYERS = pytest.mark.parametrize(
    "build", [lambda levels, dtype: Dequantize(levels), variational], ids=["uniform", "variational"]
)


# --- known answers ----------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 10, 17, 256])
def test_uniform_noise_over_the_levels_needs_exactly_their_logarithm(levels):
    flow = Flow(Dequantize(levels), UniformBox(EVENT)).double()
    bits = bits_per_dim(flow.log_prob(integers(levels)), EVENT)
    torch.testing.assert_close(
        bits, torch.full((5,), math.log2(levels), dtype=torch.float64), atol=1e-14, rtol=0
    )


def test_bits_per_dimension_of_a_discrete_distribution_are_its_entropy():
    """Three coins with heads 1/4, as a density that is constant on each cell: the bound is attained."""

    class Coins(Base):
        def log_prob(self, z: torch.Tensor) -> torch.Tensor:
            return (2 * torch.where(z < 0.5, 0.75, 0.25).double()).log().sum(1)

    x = torch.cartesian_prod(*[torch.arange(2.0)] * 3).double()
    log_p = Flow(Dequantize(2), Coins(3)).double().log_prob(x)
    heads = x.sum(1)
    torch.testing.assert_close(log_p, heads * math.log(0.25) + (3 - heads) * math.log(0.75))
    entropy = -(0.25 * math.log2(0.25) + 0.75 * math.log2(0.75))
    assert (log_p.exp() * bits_per_dim(log_p, 3)).sum().item() == pytest.approx(entropy, abs=1e-12)


def test_bits_per_dimension_take_a_shape_or_a_number_and_keep_the_rest():
    log_prob = torch.tensor([[-1.0, 0.0], [3.0, -7.0]])
    torch.testing.assert_close(bits_per_dim(log_prob, 6), -log_prob / 6 / math.log(2))
    assert torch.equal(bits_per_dim(log_prob, (1, 2, 3)), bits_per_dim(log_prob, 6))


# --- dequantisation ---------------------------------------------------------------------


def test_the_formula_with_the_draws_of_the_global_generator():
    x, layer = integers(7), Dequantize(7)
    torch.manual_seed(5)
    z, log_det = layer.inverse(x)
    torch.manual_seed(5)
    u = torch.rand(x.shape, dtype=torch.float64)
    torch.testing.assert_close(z, (x + u) / 7, atol=1e-15, rtol=0)
    torch.testing.assert_close(log_det, torch.full((5,), -32 * math.log(7), dtype=torch.float64))
    torch.testing.assert_close(layer(z)[1], -log_det)


@LAYERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_integers_come_back_and_the_log_dets_cancel(build, dtype):
    for levels in (2, 49, 256):
        layer, x = build(levels, dtype), integers(levels, dtype=dtype)
        z, log_det = layer.inverse(x)
        back, forward_log_det = layer(z)
        assert torch.equal(back, x)
        assert (z > 0).all()
        assert (z < 1).all()
        assert log_det.shape == (5,)
        assert (z.dtype, log_det.dtype) == (dtype, dtype)
        if dtype == torch.float64:  # in single precision u comes back from L z with too few digits
            torch.testing.assert_close(forward_log_det, -log_det, atol=1e-8, rtol=0)


@pytest.mark.parametrize("edge", [0.0, 1.0])
def test_a_draw_at_the_edge_of_a_cell_stays_inside_it(edge, monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.full(*shape, edge, **options))
    for dtype in (torch.float32, torch.float64):
        for levels in (3, 10, 49, 256):
            x = torch.arange(float(levels)).to(dtype)[:, None]
            assert torch.equal(Dequantize(levels)(Dequantize(levels).inverse(x)[0])[0], x)
            assert Logit().inverse(Dequantize(levels).inverse(x)[0])[0].isfinite().all()


@LAYERS
def test_generation_rounds_down_and_stays_in_range(build):
    z = torch.tensor([-3.0, -1e-9, 0.0, 0.24, 0.25, 0.999, 1.0, 17.0]).double().repeat(4).reshape(1, *EVENT)
    x, log_det = build(4, torch.float64)(z)
    assert x.flatten()[:8].tolist() == [0, 0, 0, 0, 1, 3, 3, 3]
    assert log_det.isfinite().all()


@LAYERS
def test_one_seed_gives_the_same_draws_and_every_call_new_ones(build):
    layer, x = build(4, torch.float64), integers(4)
    torch.manual_seed(1)
    first, second = layer.inverse(x)[0], layer.inverse(x)[0]
    torch.manual_seed(1)
    assert torch.equal(layer.inverse(x)[0], first)
    assert not torch.equal(first, second)
    single = build(4, torch.float32)
    if isinstance(single, VariationalDequantize):
        single.load_state_dict(layer.state_dict())
    torch.manual_seed(1)
    torch.testing.assert_close(single.inverse(x.float())[0].double(), first, atol=1e-6, rtol=0)


@LAYERS
def test_a_flow_with_it_says_that_its_likelihood_is_a_bound(build):
    flow = Flow(Compose([Logit(), build(4, torch.float64)]), StandardNormal(EVENT)).double()
    assert not flow.is_exact
    x = flow.sample(50)
    assert torch.equal(x, x.round())
    assert flow.log_prob(x).isfinite().all()
    assert flow.log_prob(x[:0]).shape == (0,)


def test_the_average_over_draws_is_a_lower_bound_and_the_mean_of_the_densities_the_probability():
    """One integer in a normal density: Jensen's inequality with both sides known."""
    flow = Flow(Compose([Triangular(1), Dequantize(4)]), StandardNormal(1)).double()
    x = torch.full((20000, 1), 3.0).double()
    with torch.no_grad():
        log_p = flow.log_prob(x)
    normal = torch.distributions.Normal(0.0, 1.0)
    mass = (normal.cdf(torch.tensor(1.0)) - normal.cdf(torch.tensor(0.75))).item()
    assert log_p.exp().mean().item() == pytest.approx(mass, abs=5 * log_p.exp().std().item() / 20000**0.5)
    assert log_p.mean().item() < math.log(mass)


@pytest.mark.parametrize("build", [Dequantize, lambda levels: VariationalDequantize(2, levels)])
def test_what_is_no_level_is_refused(build):
    for bad in (0.5, -1.0, 4.0):
        with pytest.raises(ValueError, match=r"takes the whole numbers 0, 1, …, 3.* hold " + f"{bad:g}"):
            build(4).inverse(torch.tensor([[0.0, bad]]))
    for levels in (1, 2.5, "8"):
        with pytest.raises(ValueError, match="levels must be a whole number, 2 or more"):
            build(levels)


@LAYERS
def test_a_dtype_too_coarse_for_the_levels_is_refused_and_any_other_gives_them_back(build):
    for dtype, most in ((torch.bfloat16, 6), (torch.float16, 51)):
        layer = build(most, dtype)
        x = torch.arange(32).remainder(most).reshape(1, *EVENT).to(dtype)
        assert torch.equal(layer(layer.inverse(x)[0])[0], x)
        for levels in (most + 1, 256):
            for direction in (build(levels, dtype), build(levels, dtype).inverse):
                with pytest.raises(ValueError, match=f"with {levels} levels cannot compute in {dtype}"):
                    direction(torch.zeros(1, *EVENT, dtype=dtype))


def test_fit_refuses_what_is_no_level_with_the_same_sentence():
    flow = Flow([Triangular(2), Dequantize(4)], StandardNormal(2))
    with pytest.raises(ValueError, match=r"takes the whole numbers 0, 1, …, 3.* hold 0\.5"):
        fit(flow, torch.full((20, 2), 0.5), steps=1, progress=False)


# --- variational dequantisation -----------------------------------------------------------


def test_a_new_variational_layer_is_uniform_dequantisation():
    x, new = integers(4), VariationalDequantize(EVENT, 4).double()
    torch.manual_seed(2)
    expected = Dequantize(4).inverse(x)
    torch.manual_seed(2)
    for value, wanted in zip(new.inverse(x), expected, strict=True):
        torch.testing.assert_close(value, wanted, atol=1e-9, rtol=0)


def test_q_is_the_density_of_the_draws():
    """-log q(u|x) is the log-volume by which h_x stretches the uniform draws, by autograd."""
    layer, x = variational(4), integers(4, n=2)
    u_0 = torch.rand(x.shape).double() * 0.9 + 0.05
    for i in range(2):
        row = (x[i : i + 1], None)
        dense = check.jacobian(lambda p, row=row: layer.h(p, row)[0], u_0[i : i + 1])[0]
        torch.testing.assert_close(
            layer.h(u_0[i : i + 1], row)[1][0], torch.linalg.slogdet(dense)[1], atol=1e-9, rtol=0
        )
    torch.manual_seed(3)
    z, log_det = layer.inverse(x)
    log_q = layer.h.inverse(4 * z - x, (x, None))[1]
    torch.testing.assert_close(log_det, -32 * math.log(4) - log_q, atol=1e-8, rtol=0)


def test_q_sees_the_integers_and_the_context():
    layer, x, context = variational(4, context_features=3), integers(4), torch.randn(5, 3).double()
    changed = []
    for other_x, other in ((x, context), ((x + 1) % 4, context), (x, context + 1)):
        torch.manual_seed(4)
        changed.append(4 * layer.inverse(other_x, other)[0] - other_x)
    assert (changed[0] - changed[1]).abs().max() > 1e-3
    assert (changed[0] - changed[2]).abs().max() > 1e-3


def test_importance_weights_with_q_average_to_the_probability():
    """E_q[p(x + u) / q(u|x)] is the cell's mass whatever q is: a wrong sign of log q would not do."""
    layer = randomised(VariationalDequantize(2, 4)).double()
    flow = Flow(Compose([Logit(), layer]), StandardNormal(2)).double()
    x = torch.tensor([[1.0, 2.0]]).double().expand(20000, 2)
    with torch.no_grad():
        weights = flow.log_prob(x).exp()
    edges = torch.logit(torch.tensor([0.25, 0.5, 0.75]).double())
    cdf = torch.distributions.Normal(0.0, 1.0).cdf(edges)
    mass = ((cdf[1] - cdf[0]) * (cdf[2] - cdf[1])).item()
    assert weights.mean().item() == pytest.approx(mass, abs=5 * weights.std().item() / 20000**0.5)
    # the same weights from the generating direction: P(x) for what it samples
    torch.manual_seed(6)
    sample, log_p = flow.sample_and_log_prob(20000)
    assert (1 / log_p.exp()).isfinite().all()
    hits = (sample == x).all(1)
    assert hits.double().mean().item() == pytest.approx(mass, abs=5 * (mass / 20000) ** 0.5)


def test_training_tightens_the_bound():
    """All probability at one corner of each cell: uniform draws are bad, learned ones much better."""
    data = torch.randint(3, (400, 2)).float()
    bounds = []
    for layer in (Dequantize(3), VariationalDequantize(2, 3, hidden=(16,))):
        torch.manual_seed(0)
        centre = Triangular(2).requires_grad_(False)
        nn.init.constant_(centre.log_diagonal, -1.5)
        flow = Flow(Compose([centre, layer]), StandardNormal(2))
        if list(layer.parameters()):
            fit(flow, data, steps=100, lr=1e-2, progress=False)
        with torch.no_grad():
            bounds.append(flow.log_prob(data.repeat(20, 1)).mean().item())
    assert bounds[1] > bounds[0] + 0.2


# --- the logit ---------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 1e-6, 0.05])
def test_the_logit_against_torch_distributions_and_autograd(alpha):
    layer, z = Logit(alpha), 3 * torch.randn(4, 5, dtype=torch.float64)
    x, log_det = layer(z)
    sigmoid = torch.distributions.SigmoidTransform()
    affine = torch.distributions.AffineTransform(-alpha / (1 - 2 * alpha), 1 / (1 - 2 * alpha))
    chain = torch.distributions.ComposeTransform([sigmoid, affine])
    torch.testing.assert_close(x, chain(z), atol=1e-13, rtol=0)
    torch.testing.assert_close(log_det, chain.log_abs_det_jacobian(z, x).sum(1), atol=1e-12, rtol=0)
    assert check.round_trip_error(layer, z) < 1e-10
    assert check.log_det_error(layer, z) < 1e-10


def test_the_logit_keeps_its_log_det_far_out():
    z = torch.tensor([[-800.0], [25.0], [800.0]]).double()
    expected = [-800.0, -25 - 2 * math.log1p(math.exp(-25)), -800.0]
    torch.testing.assert_close(Logit()(z)[1], torch.tensor(expected, dtype=torch.float64), atol=0, rtol=1e-15)


def test_the_logit_takes_its_interval_and_no_more():
    ends = torch.tensor([[0.0, 1.0]])
    assert Logit(0.05).inverse(ends)[0].isfinite().all()
    with pytest.raises(
        ValueError, match=r"Logit\(0\) takes points between -0 and 1, and they reach from 0 to 1"
    ):
        Logit().inverse(ends)
    with pytest.raises(ValueError, match=r"between -0\.05556 and 1\.056, .* from 0 to 2"):
        Logit(0.05).inverse(2 * ends)
    for alpha in (-0.1, 0.5, math.nan):
        with pytest.raises(ValueError, match="alpha must be at least 0 and below 1/2"):
            Logit(alpha)


@pytest.mark.parametrize("d", [0, -3, (2, 0)])
def test_no_dimensions_are_refused(d):
    with pytest.raises(ValueError, match="number of entries of one point, 1 or more"):
        bits_per_dim(torch.zeros(1), d)


@LAYERS
def test_it_compiles_without_a_graph_break(build):
    flow = Flow(Compose([Logit(0.05), build(4, torch.float64)]), StandardNormal(EVENT)).double()
    x = integers(4)
    compiled = torch.compile(flow, backend="eager", fullgraph=True)
    torch.manual_seed(1)
    value = compiled(x)
    torch.manual_seed(1)
    torch.testing.assert_close(value, flow(x))
