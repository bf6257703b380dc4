"""Flow++ against the paper's formula in float64, in both tails, at its root, and in its network."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, TransformedDistribution, Uniform
from torch.distributions.transforms import AffineTransform, SigmoidTransform
from torch.func import hessian, jacfwd, jacrev, vmap

from flowlib import check
from flowlib.layers.coupling import checkerboard_mask, half_mask
from flowlib.layers.flowpp import MixtureCoupling, mixture_logit, solve_mixture_logit
from flowlib.nets import MLP, AttentionNet

K = 5
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def mixtures(n: int, dtype: torch.dtype = torch.float64, weights: float = 1.0) -> tuple[torch.Tensor, ...]:
    """Logits, means and log-scales as far out as a layer lets them go."""
    logits = torch.log_softmax(weights * numbers(K, n, seed=1), 0)
    mean, log_scale = 4 * torch.tanh(2 * numbers(K, n, seed=2)), torch.tanh(2 * numbers(K, n, seed=3))
    return logits.to(dtype), mean.to(dtype), log_scale.to(dtype)


def coupling(dtype: torch.dtype = torch.float64) -> MixtureCoupling:
    return MixtureCoupling(half_mask(5, 2), MLP(2, 3 * (2 + 3 * K), (16,)), K).to(dtype)


def randomised(module: torch.nn.Module) -> torch.nn.Module:
    for seed, parameter in enumerate(module.parameters()):
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data = (numbers(*parameter.shape, seed=seed) / fan_in**0.5).to(parameter)
    return module


# --- the curve ----------------------------------------------------------------------------------


def test_the_curve_is_that_of_torch_distributions():
    x, (logits, mean, log_scale) = 3 * numbers(50), mixtures(50)
    steps = [SigmoidTransform().inv, AffineTransform(mean.T, log_scale.T.exp())]
    uniform = Uniform(torch.zeros(50, K).double(), torch.ones(50, K).double(), validate_args=False)
    logistics = TransformedDistribution(uniform, steps, validate_args=False)
    mixture = MixtureSameFamily(Categorical(logits=logits.T), logistics, validate_args=False)
    value, log_slope = mixture_logit(x, logits, mean, log_scale)
    cdf = mixture.cdf(x)
    torch.testing.assert_close(torch.sigmoid(value), cdf, atol=1e-14, rtol=0)
    log_density = log_slope + torch.log(cdf * (1 - cdf))
    torch.testing.assert_close(log_density, mixture.log_prob(x), atol=1e-9, rtol=0)


@both_dtypes
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_no_digit_is_lost_in_the_tails(dtype, sign):
    # two components of scale 1 have, far out, one exponential tail: g(x) = x ± log(mean of exp(±mu))
    logits, log_scale = torch.zeros(2, 1, dtype=dtype), torch.zeros(2, 1, dtype=dtype)
    mean = torch.tensor([[-1.0], [2.0]], dtype=dtype)
    x = sign * torch.tensor([50.0, 1e3, 1e4, 1e8], dtype=dtype)
    offset = sign * math.log((math.exp(-sign) + math.exp(2 * sign)) / 2)
    value, log_slope = mixture_logit(x, logits, mean, log_scale)
    expected = (x.double() - offset).to(dtype)
    torch.testing.assert_close(value, expected, rtol=2 * torch.finfo(dtype).eps, atol=0)
    assert (log_slope.abs() <= 8 * torch.finfo(dtype).eps).all()


@both_dtypes
def test_equal_standard_logistics_are_the_identity_to_the_last_bit(dtype):
    x = torch.cat([10 * numbers(500, dtype=dtype), torch.tensor([-1e30, -1e4, 0, 1e-30, 1e4], dtype=dtype)])
    zeros = torch.zeros(K, len(x), dtype=dtype)
    value, log_slope = mixture_logit(x, zeros, zeros, zeros)
    assert torch.equal(value, x)
    assert not log_slope.any()
    assert torch.equal(solve_mixture_logit(x, zeros, zeros, zeros), x)


def test_the_slope_stays_between_the_bounds_that_the_layer_promises():
    x = torch.linspace(-12, 12, 4001).double()
    low = torch.full((2, 1), -1.0).double()
    ends = torch.tensor([[-4.0], [4.0]]).double()
    log_slope = mixture_logit(x, torch.zeros(2, 1).double(), ends, low)[1]
    flattest = math.log(4) + 1 - 4 * math.e
    assert log_slope.min().item() == pytest.approx(flattest, abs=1e-3)
    log_slope = mixture_logit(x[:, None], *(value[:, None] for value in mixtures(100, weights=5.0)))[1]
    assert log_slope.max() <= 1
    assert log_slope.min() >= flattest


# --- the root -------------------------------------------------------------------------------------


@both_dtypes
@pytest.mark.parametrize("weights", [1.0, 30.0])
def test_the_root_is_found_to_machine_precision(dtype, weights):
    n, eps = 20_000, torch.finfo(dtype).eps
    spread = 10 ** (8 * torch.rand(n, generator=torch.Generator().manual_seed(4)).double() - 4)
    y = (numbers(n) * spread).to(dtype)
    mixture = mixtures(n, dtype, weights)
    x = solve_mixture_logit(y, *mixture)
    alone = mixture[1] + mixture[2].exp() * y
    assert (x >= alone.amin(0)).all()
    assert (x <= alone.amax(0)).all()
    double = [value.double() for value in (y, *mixture)]
    value, log_slope = mixture_logit(x.double(), *double[1:])
    largest = ((x - mixture[1]) / mixture[2].exp()).abs().amax(0).double()
    # the rounding of x itself, seen through the slope, and that of the curve's own evaluation
    rounding = x.double().abs() * log_slope.exp() + 1 + double[0].abs() + largest
    assert ((value - double[0]).abs() <= 8 * eps * rounding).all()


def test_gradients_of_the_root_are_right_to_second_order():
    y, mixture = 2 * numbers(3), [value.requires_grad_() for value in mixtures(3)]
    inputs = (y.requires_grad_(), *mixture)
    assert torch.autograd.gradcheck(solve_mixture_logit, inputs)
    assert torch.autograd.gradgradcheck(solve_mixture_logit, inputs)
    for k in range(4):
        forward, backward = (
            transform(solve_mixture_logit, argnums=k)(*inputs) for transform in (jacfwd, jacrev)
        )
        torch.testing.assert_close(forward, backward)


def test_the_root_maps_over_any_dimension():
    y, (logits, mean, log_scale) = numbers(3), mixtures(3)
    expected = solve_mixture_logit(y, logits, mean, log_scale)
    columns = vmap(solve_mixture_logit, in_dims=(0, 1, 1, 1))(y, logits, mean, log_scale)
    torch.testing.assert_close(columns, expected)
    one = vmap(solve_mixture_logit, in_dims=(0, None, None, None))(y, *(v[:, 0] for v in mixtures(3)))
    torch.testing.assert_close(one, solve_mixture_logit(y, *(v[:, :1] for v in mixtures(3))))
    curvature = vmap(hessian(solve_mixture_logit), in_dims=(0, 1, 1, 1))(y, logits, mean, log_scale)
    assert curvature.isfinite().all()


def test_nan_is_handed_on_and_what_cannot_be_solved_is_an_error(monkeypatch):
    y, mixture = torch.tensor([math.nan, 1.0, 1.0]).double(), mixtures(3)
    mixture[0][:, 1] = math.nan
    assert solve_mixture_logit(y, *mixture).isnan().tolist() == [True, True, False]
    monkeypatch.setattr("flowlib.layers.flowpp._STEPS", 1)
    with pytest.raises(RuntimeError, match=r"was not found for \d+ of 50 points; .* Use float64"):
        solve_mixture_logit(numbers(50), *mixtures(50))


# --- the layer --------------------------------------------------------------------------------------


def test_the_layer_is_its_docstrings_formula():
    layer, x = randomised(coupling()), numbers(6, 5, seed=9)
    raw = layer.conditioner(x[:, :2], None).reshape(6, 2 + 3 * K, 3)
    scale, shift = torch.tanh(raw[:, 0]), raw[:, 1]
    logits, mean, log_scale = raw[:, 2:].split(K, 1)
    parts = (torch.arange(1, K + 1) / K).double()[:, None]
    mean, log_scale = 4 * torch.tanh(parts * mean / 4), torch.tanh(log_scale)
    cdf = torch.softmax(logits, 1) * torch.sigmoid((x[:, None, 2:] - mean) / log_scale.exp())
    z, log_det = layer.inverse(x)
    assert torch.equal(z[:, :2], x[:, :2])
    torch.testing.assert_close(z[:, 2:], torch.logit(cdf.sum(1)) * scale.exp() + shift)
    assert check.log_det_error(layer, z.detach()) < 1e-11
    assert check.round_trip_error(layer, z.detach()) < 1e-11
    torch.testing.assert_close(log_det, -layer(z)[1])


@both_dtypes
def test_a_new_layer_is_the_identity_to_the_last_bit(dtype):
    image = AttentionNet((2, 4, 4), 2 * 8, (8,))
    for layer, event in (
        (coupling(dtype), (5,)),
        (MixtureCoupling(checkerboard_mask((2, 4, 4)), image, 2).to(dtype), (2, 4, 4)),
    ):
        z = 30 * numbers(20, *event, dtype=dtype)
        for direction in (layer, layer.inverse):
            out, log_det = direction(z)
            assert torch.equal(out, z)
            assert not log_det.any()


def test_components_that_start_equal_part_as_soon_as_they_learn():
    layer, x = coupling(), numbers(64, 5)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    for _ in range(3):
        z, log_det = layer.inverse(x)
        optimiser.zero_grad()
        (z.square().sum(1) / 2 - log_det).mean().backward()
        optimiser.step()
    means = layer._curves(layer.conditioner(x[:, :2]))[2][1].detach()
    gaps = means.sort(0).values.diff(dim=0)
    assert gaps.min(0).values.median() > 1e-4


@both_dtypes
def test_ten_thousand_away_and_badly_scaled_all_stays_finite(dtype):
    layer = randomised(coupling(dtype))
    for parameter in layer.parameters():
        parameter.data *= 100
    for direction in (layer, layer.inverse):
        z = torch.cat([numbers(500, 5, dtype=dtype), 1e4 * numbers(20, 5, dtype=dtype)]).requires_grad_()
        out, log_det = direction(z)
        gradients = torch.autograd.grad(out.sum() + log_det.sum(), [z, *layer.parameters()])
        for value in (out, log_det, *gradients):
            assert value.isfinite().all()


# --- the network ------------------------------------------------------------------------------------


def test_the_attention_is_the_softmax_of_its_docstring():
    block, hidden = (
        randomised(AttentionNet((1, 2, 3), 1, (8,), heads=2).double()).blocks[1],
        numbers(4, 8, 2, 3),
    )
    pixels = hidden.flatten(2).mT + block.positions
    query, key, value = (pixels @ weight.T for weight in block.inner.weight.split(8))
    mixed = []
    for head in (slice(0, 4), slice(4, 8)):
        score = query[..., head] @ key[..., head].mT / math.sqrt(4)
        mixed.append(score.exp() / score.exp().sum(-1, keepdim=True) @ value[..., head])
    expected = torch.cat(mixed, -1) @ block.outer.weight.T + block.outer.bias
    torch.testing.assert_close(block(hidden), expected.mT.reshape(4, 16, 2, 3))


def test_every_pixel_sees_every_other():
    net = randomised(AttentionNet((1, 9, 9), 1, (8,), heads=2).double())
    image = numbers(1, 1, 9, 9).requires_grad_()
    (seen,) = torch.autograd.grad(net(image)[0, 0, 0, 0], image)
    assert (seen != 0).all()


def test_the_context_reaches_each_image_of_its_own():
    net = randomised(AttentionNet((1, 4, 4), 1, (8,), context_features=2).double())
    images, context = numbers(3, 1, 4, 4), numbers(3, 2)
    other = context.clone()
    other[1] += 1
    changed = (net(images, context) != net(images, other)).flatten(1).any(1)
    assert changed.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: MixtureCoupling(half_mask(2, 1), MLP(1, 2), 0), "components must be a whole number, 1 or"),
        (lambda: MixtureCoupling(half_mask(2, 1), MLP(1, 2), bound=0), "bound must be a positive finite"),
        (lambda: MixtureCoupling(half_mask(2, 1), MLP(1, 2), reach=math.inf), "reach must be a positive"),
        (lambda: MixtureCoupling(half_mask(2, 1), MLP(1, 2))(torch.ones(1, 2)), r"needs \(1, 26\)"),
        (
            lambda: AttentionNet((1, 4, 4), 2, (8, 16)),
            "hidden must give one width .* came as \\(8, 16\\) and 4",
        ),
        (lambda: AttentionNet((1, 4, 4), 2, (6,)), "heads must divide it; they came as \\(6,\\) and 4"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(build, says):
    with pytest.raises(ValueError, match=says):
        build()
