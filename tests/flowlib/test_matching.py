"""Flow matching: the path and its velocity, the loss, and the flow that it trains."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor

from flowlib import (
    FFJORD,
    Dequantize,
    Euler,
    Flow,
    Logit,
    Planar,
    RungeKutta,
    Scale,
    StandardNormal,
    Velocity,
    fit_matching,
    matching_loss,
    straight_path,
)
from flowlib.data import TwoMoons
from flowlib.train import CheckpointError, load_parameters

QUIET = {"progress": False}


@pytest.fixture(autouse=True)
def _float64(same_start: None) -> None:
    torch.set_default_dtype(torch.float64)


def linear_flow(d: int = 2, features: int = 0) -> Flow:
    """A velocity that is affine in the point, the time and the context: enough for one Gaussian."""
    velocity = Velocity(d, (), features)
    return Flow(FFJORD(velocity, solver=RungeKutta(8)), StandardNormal(d), features)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
@pytest.mark.parametrize("event", [(3,), (1, 2, 2)])
def test_path_has_its_ends_and_the_velocity_is_its_slope(event, sigma):
    x_0, x_1, t = torch.randn(7, *event), torch.randn(7, *event), torch.rand(7)

    def at(t: Tensor) -> Tensor:
        return straight_path(x_0, x_1, t, sigma)[0]

    torch.testing.assert_close(at(0 * t), x_0)
    torch.testing.assert_close(at(0 * t + 1), x_1 + sigma * x_0)
    slope = torch.func.jvp(at, (t,), (torch.ones_like(t),))[1]
    torch.testing.assert_close(straight_path(x_0, x_1, t, sigma)[1], slope)


def test_the_loss_is_least_at_the_mean_velocity():
    """From N(0, 1) to N(m, s²), drawn apart: u_t is affine in x, the regression of a Gaussian on another."""
    m, s = torch.tensor([1.5, -0.7]), torch.tensor([0.4, 2.0])
    n, base = 100_000, StandardNormal(2)
    draw = torch.Generator().manual_seed(0)
    x_0, x_1 = base.sample(n, draw), m + s * base.sample(n, draw)
    t = torch.rand(n, generator=draw)

    def u(x: Tensor, t: Tensor, context: None, off: float = 1.0) -> Tensor:
        variance = (1 - t) ** 2 + t**2 * s**2
        return m + off * (t * s**2 - (1 - t)) / variance * (x - t * m)

    # the variance that is left: of x_1 − x_0 given x_t, integrated over the time
    times = (torch.arange(2000) + 0.5)[:, None] / 2000
    left = (s**2 / ((1 - times) ** 2 + times**2 * s**2)).mean(0).sum()
    best = matching_loss(u, x_0, x_1, t)
    assert best.shape == (n,)
    assert best.mean() == pytest.approx(left.item(), rel=0.02)
    for off in (0.9, 1.1):
        assert matching_loss(lambda *a, off=off: u(*a, off), x_0, x_1, t).mean() > best.mean() + 0.005


def test_what_the_trained_flow_learns_is_the_data():
    """Mean and width of a Gaussian, by the likelihood that lecture 14's formula gives."""
    m, s = torch.tensor([1.0, -0.5]), torch.tensor([0.8, 0.6])
    target = torch.distributions.Independent(torch.distributions.Normal(m, s), 1)

    class Data:
        def sample(self, n: int, generator: torch.Generator) -> Tensor:
            return m + s * torch.randn(n, 2, generator=generator)

    torch.manual_seed(0)
    flow = Flow(FFJORD(Velocity(2, (32,)), solver=RungeKutta(8)), StandardNormal(2))
    held_out = Data().sample(500, torch.Generator().manual_seed(1))
    history = fit_matching(flow, Data(), steps=600, lr=1e-2, validation=held_out, validate_every=600, **QUIET)
    gap = (target.log_prob(held_out) - flow.log_prob(held_out)).mean()
    assert abs(gap) < 0.02
    # what fit reports of the held-out points is the likelihood, not the loss
    assert history.validation[-1][1] == pytest.approx(-flow.log_prob(held_out).mean().item(), abs=1e-9)
    assert not flow.training


def test_reflow_goes_from_each_start_to_its_own_end():
    """Pairs that no chance meeting would give: a quarter turn, learned by one step of Euler."""
    draw = torch.Generator().manual_seed(0)
    start = torch.randn(500, 2, generator=draw)
    label = (torch.arange(500) % 2)[:, None].double()
    turn = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    data = start @ turn.T + 2 * label  # a quarter turn: straight paths that do not meet
    flow = Flow(FFJORD(Velocity(2, (32, 32), 1), solver=Euler(1)), StandardNormal(2), 1)
    fit_matching(flow, data, start=start, context=label, steps=600, lr=1e-2, **QUIET)
    assert (flow.decode(start, label) - data).abs().mean() < 0.2
    # and without the starts the best single step is the mean of its class
    fit_matching(flow, data, context=label, steps=300, lr=1e-2, **QUIET)
    assert (flow.decode(start, label) - data).abs().mean() > 0.5


def test_layers_after_the_velocity_take_the_data_to_its_end():
    """The loss of a velocity of zeros tells what it was to learn: the data without scale and logit."""
    x = torch.randint(0, 17, (4000, 2)).double()
    top = [Scale(2), Logit(0.05), Dequantize(17)]
    with torch.no_grad():
        top[0].log_scale.copy_(torch.tensor([0.7, -0.4]))
    flow = Flow([FFJORD(Velocity(2)), *top], StandardNormal(2))
    before = [p.clone() for p in top[0].parameters()]
    history = fit_matching(flow, x, steps=1, batch_size=4000, **QUIET)
    torch.manual_seed(0)
    end = Flow(top, StandardNormal(2)).encode(x)
    assert history.loss[0] == pytest.approx((2 + end.square().sum(1).mean()).item(), rel=0.03)
    assert all(torch.equal(a, b) for a, b in zip(before, top[0].parameters(), strict=True))


def test_its_checkpoint_is_the_flows_own_and_knows_its_sigma(tmp_path):
    path = tmp_path / "run.pt"
    fit_matching(flow := linear_flow(), TwoMoons(), steps=3, checkpoint=path, **QUIET)
    loaded = load_parameters(linear_flow(), path)
    assert all(
        torch.equal(one, other) for one, other in zip(flow.parameters(), loaded.parameters(), strict=True)
    )
    with pytest.raises(CheckpointError, match=re.escape("sigma was 0.0 and is 0.1")):
        fit_matching(linear_flow(), TwoMoons(), steps=3, sigma=0.1, checkpoint=path, **QUIET)


def test_same_seed_same_flow_and_the_random_state_stays():
    def trained(seed: int) -> Tensor:
        torch.manual_seed(3)
        flow = linear_flow()
        fit_matching(flow, TwoMoons(), steps=5, seed=seed, lr=0.1, **QUIET)
        return torch.cat([torch.rand(1), *(p.detach().flatten() for p in flow.parameters())])

    assert torch.equal(trained(0), trained(0))
    other = trained(1)
    assert torch.equal(trained(0)[:1], other[:1])
    assert not torch.equal(trained(0), other)


def test_one_step_of_euler_is_one_evaluation_at_the_start():
    slopes = []

    def slope(t: float, y: Tensor) -> Tensor:
        slopes.append(t)
        return y * (1 + t)

    y = Euler(2)(slope, torch.ones(1), 0.0, 1.0)
    assert slopes == [0.0, 0.5]
    assert y.item() == pytest.approx(1.5 * (1 + 0.5 * 1.5))
    assert repr(Euler(2).finer()) == "Euler(steps=4)"


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"flow": Flow(Planar(2), StandardNormal(2))}, TypeError, "FFJORD, which must be the flow's first"),
        ({"sigma": 1.0}, ValueError, "sigma must be a number from 0 up to but not 1, and came as 1.0"),
        ({"start": torch.zeros(4, 2)}, ValueError, "start needs data in a tensor of its own shape"),
        ({"start": torch.zeros(8, 2), "data": TwoMoons()}, ValueError, "start needs data in a tensor"),
        ({"start": torch.zeros(8, 2), "validation": torch.zeros(8, 2)}, ValueError, "there is no validation"),
        ({"context": torch.zeros(8, 1)}, ValueError, "takes no context"),
        ({"steps": 0}, ValueError, "steps must be a whole number"),
    ],
)
def test_refuses(arguments, error, words):
    arguments = {"flow": linear_flow(), "data": torch.zeros(8, 2), "steps": 2} | arguments
    with pytest.raises(error, match=re.escape(words)):
        fit_matching(arguments.pop("flow").double(), arguments.pop("data"), **arguments, **QUIET)


def test_a_loss_that_is_not_finite_names_the_step_and_what_is_to_blame():
    flow = linear_flow()
    with torch.no_grad():
        flow.bijection.velocity.net.layers[0].bias.fill_(1e200)
    points = torch.zeros(8, 2)
    with pytest.raises(FloatingPointError, match="Step 1 of 2: the loss is inf"):
        fit_matching(flow, points, start=points, steps=2, **QUIET)
