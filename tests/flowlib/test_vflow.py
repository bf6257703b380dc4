"""VFlow's bound, its tightening and its gap, on a Gaussian whose marginal is known.

Its layer draws and drops entries, so it is no bijection, and ``log_prob`` differs from call to call. The
property tests of its row in MODELS leave out what concerns the draw: that is tested here.
"""

from __future__ import annotations

import pytest
import torch

from flowlib import check
from flowlib.bases import StandardNormal
from flowlib.bijection import Compose
from flowlib.flow import Flow
from flowlib.layers.linear import Triangular
from flowlib.layers.vflow import Augment, VFlow
from flowlib.models import planar, realnvp
from flowlib.train import fit, fit_reverse_kl
from tests.flowlib.randomised import randomised


@pytest.fixture(autouse=True)
def _double(same_start):
    torch.set_default_dtype(torch.float64)


def gaussian(augment: Augment) -> tuple[VFlow, torch.distributions.Distribution]:
    """A joint normal of (x, e) in 2 + 1 dimensions, and the exact marginal of x."""
    joint = Triangular(3)
    with torch.no_grad():
        joint.lower.copy_(torch.tensor([[0, 0, 0], [0.7, 0, 0], [0.8, -0.5, 0]]))
        joint.log_diagonal.copy_(torch.tensor([0.2, -0.3, -0.4]))
        joint.b.copy_(torch.tensor([1.0, -2.0, 0.5]))
        covariance = joint.L @ joint.L.T
    marginal = torch.distributions.MultivariateNormal(joint.b[:2].detach(), covariance[:2, :2])
    return VFlow(Flow(joint, StandardNormal(3)), augment), marginal


def posterior(flow: VFlow) -> Augment:
    """The layer whose q(e|x) is p(e|x) of the Gaussian above: mean linear in x, scale constant."""
    joint, augment = flow.bijection
    lower = joint.L.detach()
    gain = lower[2:, :2] @ torch.linalg.inv(lower[:2, :2])
    last = augment.h.layers[0].conditioner.layers[0]  # the raw log-scale of e, then its shift
    with torch.no_grad():
        last.weight[1] = gain[0]
        last.bias[1] = joint.b[2] - gain[0] @ joint.b[:2]
        last.bias[0] = 2 * torch.atanh(joint.log_diagonal[2] / 2)
    return augment


def points(n: int = 4) -> torch.Tensor:
    return torch.tensor([1.0, -2.0]) + torch.randn(n, 2)


# --- the layer ----------------------------------------------------------------------------


@pytest.mark.parametrize(("event", "extra", "layers"), [(2, 3, 3), (2, 1, 1), (3, 2, 0), ((2, 4, 4), 3, 2)])
@pytest.mark.parametrize("context_features", [0, 2])
def test_x_comes_back_and_the_log_dets_cancel(event, extra, layers, context_features):
    layer = randomised(Augment(event, extra, layers, (8,), context_features))
    context = torch.randn(5, 2) if context_features else None
    x = torch.randn(5, *layer.event_shape)
    z, log_det = layer.inverse(x, context)
    back, forward_log_det = layer(z, context)
    assert z.shape == (5, x.shape[1] + extra, *x.shape[2:])
    assert torch.equal(back, x)
    torch.testing.assert_close(forward_log_det, -log_det, atol=1e-11, rtol=0)


def test_q_is_the_density_of_the_draws():
    """log q(e|x) is that of the normal noise less the log-volume by which h_x stretches it, by autograd."""
    layer, x = randomised(Augment(2, 3, layers=3)), torch.randn(1, 2)
    torch.manual_seed(1)
    z, log_det = layer.inverse(x)
    torch.manual_seed(1)
    noise = torch.randn(1, 3)
    h = lambda e: layer.h(torch.cat([x, e], 1))[0][:, 2:]  # noqa: E731
    torch.testing.assert_close(z[:, 2:], h(noise), atol=1e-14, rtol=0)
    stretch = torch.linalg.slogdet(check.jacobian(h, noise))[1]
    log_q = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(1) - stretch
    torch.testing.assert_close(log_det, -log_q, atol=1e-11, rtol=0)
    torch.testing.assert_close(layer(z)[1], log_q, atol=1e-11, rtol=0)


def test_one_coupling_is_a_gaussian_given_x_and_the_context():
    layer = randomised(Augment(2, 2, hidden=(8,), context_features=3))
    x, context = torch.randn(5, 2), torch.randn(5, 3)
    z, log_det = layer.inverse(x, context)
    raw, mean = layer.h.layers[0].conditioner(x, context).chunk(2, 1)
    q = torch.distributions.Normal(mean, torch.exp(2 * torch.tanh(raw / 2)))
    torch.testing.assert_close(log_det, -q.log_prob(z[:, 2:]).sum(1), atol=1e-11, rtol=0)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_a_new_layer_draws_standard_normals(layers):
    layer, x = Augment(2, 3, layers), torch.randn(5, 2)
    torch.manual_seed(1)
    z, log_det = layer.inverse(x)
    torch.manual_seed(1)
    noise = torch.randn(5, 3)
    assert torch.equal(z, torch.cat([x, noise], 1))
    expected = -torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(1)
    torch.testing.assert_close(log_det, expected, atol=1e-13, rtol=0)


def test_one_seed_gives_the_same_draws_in_both_precisions():
    layer, x = randomised(Augment(2, 3)), torch.randn(5, 2)
    torch.manual_seed(1)
    z, log_det = layer.inverse(x)
    torch.manual_seed(1)
    single, single_log_det = layer.float().inverse(x.float())
    assert single.dtype == single_log_det.dtype == torch.float32
    torch.testing.assert_close(single.double(), z, atol=1e-5, rtol=0)
    torch.testing.assert_close(single_log_det.double(), log_det, atol=1e-5, rtol=0)


# --- the bound ----------------------------------------------------------------------------


def test_one_draw_is_the_papers_formula():
    flow, _ = gaussian(randomised(Augment(2, 1)))
    joint, augment = flow.bijection
    x = points()
    torch.manual_seed(2)
    z, minus_log_q = augment.inverse(x)
    torch.manual_seed(2)
    normal = torch.distributions.MultivariateNormal(joint.b, scale_tril=joint.L)
    torch.testing.assert_close(flow.log_prob(x), normal.log_prob(z) + minus_log_q, atol=1e-12, rtol=0)


def test_with_the_true_posterior_every_draw_is_exact():
    flow, marginal = gaussian(Augment(2, 1, hidden=()))
    posterior(flow)
    x = points()
    for _ in range(3):
        torch.testing.assert_close(flow.log_prob(x), marginal.log_prob(x), atol=1e-12, rtol=0)
    x, log_p = flow.sample_and_log_prob(5)
    torch.testing.assert_close(log_p, marginal.log_prob(x), atol=1e-12, rtol=0)


def test_the_gap_is_the_divergence_of_q_from_the_posterior():
    flow, marginal = gaussian(Augment(2, 1, layers=0))
    true = posterior(gaussian(Augment(2, 1, hidden=()))[0])
    x = points(1)
    raw, mean = true.h.layers[0].conditioner(x).chunk(2, 1)
    given = torch.distributions.Normal(mean[0, 0], torch.exp(2 * torch.tanh(raw[0, 0] / 2)))
    gap = torch.distributions.kl_divergence(torch.distributions.Normal(0.0, 1.0), given)
    assert gap > 0.1
    with torch.no_grad():
        draws = flow.log_prob(x.expand(20000, -1))
    error = 5 * draws.std().item() / 20000**0.5
    assert draws.mean().item() == pytest.approx((marginal.log_prob(x) - gap).item(), abs=error)


def test_more_draws_tighten_the_bound_up_to_the_exact_likelihood():
    flow, marginal = gaussian(Augment(2, 1, layers=0))
    x = points(1)
    exact = marginal.log_prob(x).item()
    means, errors = [], []
    with torch.no_grad():
        for draws in (1, 5, 50):
            estimates = flow.importance_log_prob(x.expand(4000, -1), draws)
            means.append(estimates.mean().item())
            errors.append(5 * estimates.std().item() / 4000**0.5)
    assert means[0] + errors[0] < means[1] - errors[1]
    assert means[1] + errors[1] < means[2] - errors[2]
    assert means[2] < exact
    assert means[2] > exact - 0.1 * (exact - means[0])


def test_the_weights_average_to_the_likelihood():
    """E_q[p(x, e) / q(e|x)] = p(x) whatever q is: a wrong sign of log q would not do."""
    # a q so near to N(0, 1) that the weights have a variance
    flow, marginal = gaussian(randomised(Augment(2, 1), size=0.2))
    x = points(1)
    with torch.no_grad():
        weights = flow.log_prob(x.expand(20000, -1)).exp()
    exact = marginal.log_prob(x).exp().item()
    assert weights.mean().item() == pytest.approx(exact, abs=5 * weights.std().item() / 20000**0.5)


def test_the_estimate_is_the_mean_of_the_weights():
    flow, _ = gaussian(randomised(Augment(2, 1)))
    x = points(3)
    torch.manual_seed(4)
    estimate = flow.importance_log_prob(x, 7)
    torch.manual_seed(4)
    weights = flow.log_prob(x[[0] * 7 + [1] * 7 + [2] * 7]).exp()
    expected = torch.stack([part.mean().log() for part in weights.split(7)])
    torch.testing.assert_close(estimate, expected, atol=1e-12, rtol=0)
    torch.manual_seed(4)
    one = flow.importance_log_prob(x, 1)
    torch.manual_seed(4)
    assert torch.equal(one, flow.log_prob(x))


def test_the_densities_of_samples_lie_above_the_bound_on_average():
    """With e from p(e|x) the bracket's mean exceeds log p(x): the two means enclose the entropy."""
    flow, marginal = gaussian(Augment(2, 1, layers=0))
    with torch.no_grad():
        x, above = flow.sample_and_log_prob(20000, generator=torch.Generator().manual_seed(0))
        below = flow.log_prob(x)
    exact = marginal.log_prob(x)
    for gap in (above - exact, exact - below):
        assert gap.mean().item() > 5 * gap.std().item() / 20000**0.5


# --- the flow -------------------------------------------------------------------------------


def test_samples_follow_the_exact_marginal():
    flow, marginal = gaussian(Augment(2, 1))
    x = flow.sample(20000, generator=torch.Generator().manual_seed(0))
    assert x.shape == (20000, 2)
    torch.testing.assert_close(x.mean(0), marginal.mean, atol=0.05, rtol=0)
    torch.testing.assert_close(x.T.cov(), marginal.covariance_matrix, atol=0.1, rtol=0)


@pytest.mark.parametrize(("event", "extra"), [((2,), 2), ((1, 4, 4), 1)])
@pytest.mark.parametrize("context_features", [0, 3])
def test_it_is_a_flow_of_x_with_wider_latents(event, extra, context_features):
    both = (event[0] + extra, *event[1:])
    joint = realnvp(both, layers=2, hidden=(8,), context_features=context_features)
    flow = randomised(VFlow(joint, Augment(event, extra, 1, (8,), context_features)))
    context = torch.randn(5, 3) if context_features else None
    assert not flow.is_exact
    assert flow.event_shape == event
    x = flow.sample(5, context)
    assert x.shape == (5, *event)
    z = flow.encode(x, context)
    assert z.shape == (5, *both)
    torch.testing.assert_close(flow.decode(z, context), x, atol=1e-11, rtol=0)
    steps = flow.trajectory(z, context)
    assert torch.equal(steps[-1][0], flow.decode(z, context))
    assert flow.importance_log_prob(x, 4, context).shape == (5,)
    assert flow.log_prob(x[:0], None if context is None else context[:0]).shape == (0,)
    assert flow.as_distribution(None if context is None else context[0]).sample((2,)).shape == (2, *event)
    flow.log_prob(x, context).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in flow.parameters())


def test_a_saved_flow_is_the_same_flow():
    build = lambda: VFlow(realnvp((4,), layers=2), Augment(2, 2))  # noqa: E731
    flow, loaded = randomised(build()), build()
    assert (
        len(flow.state_dict()) == len(list(flow.parameters())) + 7
    )  # and three masks, and two permutations both ways
    loaded.load_state_dict(flow.state_dict())
    torch.manual_seed(1)
    expected = flow.log_prob(points())
    torch.manual_seed(1)
    assert torch.equal(loaded.log_prob(points()), expected)


def test_training_closes_the_gap():
    flow, marginal = gaussian(Augment(2, 1, hidden=()))
    flow.bijection.layers[0].requires_grad_(False)
    data = marginal.sample((1000,))

    def gap() -> float:
        with torch.no_grad():
            return (marginal.log_prob(data) - flow.log_prob(data)).mean().item()

    assert gap() > 0.5
    fit(flow, data, steps=300, lr=3e-2, progress=False)
    assert gap() < 0.02


def test_it_trains_without_data_too():
    """The loss bounds the reverse divergence from above; for a Gaussian target both reach zero."""
    target = torch.distributions.MultivariateNormal(
        torch.tensor([1.0, -1.0]), torch.tensor([[2, 0.5], [0.5, 1]])
    )
    flow = VFlow(Flow(Compose([Triangular(3)]), StandardNormal(3)), Augment(2, 1, hidden=()))
    history = fit_reverse_kl(flow, target.log_prob, steps=300, lr=3e-2, progress=False)
    assert history.loss[-1] == pytest.approx(0, abs=0.02)


# --- what is refused ------------------------------------------------------------------------


def test_bad_sizes_are_refused_with_a_sentence():
    with pytest.raises(
        ValueError, match=r"joint has event_shape \(3,\); with points \(2,\) and extra=2 it must"
    ):
        VFlow(realnvp((3,)), Augment(2, 2))
    with pytest.raises(ValueError, match="augment takes context_features=3 and joint 1; give both the same"):
        VFlow(realnvp((3,), context_features=1), Augment(2, 1, context_features=3))
    for extra in (0, 1.5):
        with pytest.raises(ValueError, match="must hold positive whole numbers"):
            Augment(2, extra)
    for layers in (-1, 2):
        with pytest.raises(ValueError, match=f"layers={layers} does not fit extra=1"):
            Augment(2, 1, layers)
    flow = VFlow(realnvp((4,)), Augment(2, 2))
    for draws in (0, 2.5):
        with pytest.raises(ValueError, match="draws must be a whole number, 1 or more"):
            flow.importance_log_prob(torch.zeros(1, 2), draws)


def test_points_and_latents_of_the_wrong_shape_are_refused():
    flow = VFlow(realnvp((4,)), Augment(2, 2))
    x, z = torch.zeros(3, 2), torch.zeros(3, 4)
    for call in (flow.log_prob, flow.encode, lambda x: flow.importance_log_prob(x, 2)):
        with pytest.raises(ValueError, match=r"x has shape \(3, 4\); this flow takes \(batch, 2\)"):
            call(z)
    for call in (flow.decode, flow.trajectory):
        with pytest.raises(ValueError, match=r"z has shape \(3, 2\); this flow takes \(batch, 4\)"):
            call(x)
    with pytest.raises(ValueError, match="takes no context"):
        flow.importance_log_prob(x, 2, z)


def test_a_stack_of_planar_layers_keeps_its_parameters():
    joint = planar(4)
    flow = VFlow(joint, Augment(2, 2))
    assert {id(p) for p in joint.parameters()} <= {id(p) for p in flow.parameters()}
