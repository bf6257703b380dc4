"""Continuous flows: against closed forms, against autograd, and at the solver's own order.

A flow with a fixed step is inverted only up to the solver's error. The property tests of its row in MODELS
ask that the error vanish with the steps; here its size is compared with what ``solver_error`` measures.
"""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import nn

from flowlib import check
from flowlib.bases import StandardNormal
from flowlib.flow import Flow
from flowlib.layers.ffjord import FFJORD, Dopri5, RungeKutta, Velocity, exact_trace

BATCH = 6


@pytest.fixture(autouse=True)
def _double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def torchdiffeq():
    return pytest.importorskip("torchdiffeq", reason="the adaptive solver needs torchdiffeq")


def velocity(d: int = 2, context_features: int = 0, hidden: tuple[int, ...] = (16, 16)) -> Velocity:
    """A velocity with every parameter drawn anew, so that it is not zero."""
    net = Velocity(d, hidden, context_features)
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator) / fan_in**0.5
    return net


def points(d: int = 2, n: int = BATCH) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


def jacobians(function, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """One Jacobian for each point, which sees its own row of the context."""
    rows = zip(z.split(1), context.split(1), strict=True)
    return torch.cat([check.jacobian(lambda p, row=row: function(p, row)[0], one) for one, row in rows])


def matrix(d: int = 3) -> torch.Tensor:
    return torch.randn(d, d, generator=torch.Generator().manual_seed(2))


def linear(a: torch.Tensor, b: torch.Tensor):
    return lambda z, t, context: z @ a.T + b


# --- the formulas ----------------------------------------------------------------------


def test_a_linear_velocity_gives_the_matrix_exponential():
    a, b, z = matrix() / 2, torch.tensor([1.0, -2.0, 0.5]), points(3)
    flow = FFJORD(linear(a, b), solver=RungeKutta(60))
    # the exponential of [[A, b], [0, 0]] holds e^A and the integral of e^{As} b
    whole = torch.linalg.matrix_exp(torch.cat([torch.cat([a, b[:, None]], 1), torch.zeros(1, 4)]))
    expected = z @ whole[:3, :3].T + whole[:3, 3]
    x, log_det = flow(z)
    torch.testing.assert_close(x, expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(log_det, a.trace().expand(BATCH), atol=1e-12, rtol=0)
    back, inverse_log_det = flow.inverse(expected)
    torch.testing.assert_close(back, z, atol=1e-8, rtol=0)
    torch.testing.assert_close(inverse_log_det, -a.trace().expand(BATCH), atol=1e-12, rtol=0)


def test_the_time_runs_from_zero_to_one_in_the_generating_direction():
    flow = FFJORD(lambda z, t, context: torch.full_like(z, 3 * t**2) + 2 * t * z)
    # dz/dt = 3t² + 2tz: the log-det is ∫ d · 2t dt = d, and at t = 0 nothing pulls
    assert torch.allclose(flow(points())[1], torch.tensor(2.0))
    plain = FFJORD(lambda z, t, context: torch.full_like(z, 3 * t**2))
    assert torch.allclose(plain(points())[0], points() + 1)
    assert torch.allclose(plain.inverse(points())[0], points() - 1)


def test_the_error_falls_with_the_fourth_power_of_the_step():
    field, z = velocity(), points()
    exact_x, exact_log_det = FFJORD(field, solver=RungeKutta(400))(z)
    steps = torch.tensor([8.0, 16.0, 32.0, 64.0])
    errors = []
    for n in steps:
        x, log_det = FFJORD(field, solver=RungeKutta(int(n)))(z)
        errors.append(torch.stack([(x - exact_x).norm(), (log_det - exact_log_det).norm()]))
    logs = torch.stack(errors).detach().log()
    design = torch.stack([-steps.log(), torch.ones(4)], 1)
    slopes = torch.linalg.lstsq(design, logs).solution[0]
    assert (slopes - 4).abs().max() < 0.2


def test_the_measured_error_is_the_error():
    field, z = velocity(context_features=2), points()
    context = points()
    for inverse in (False, True):
        coarse, exact = (
            (flow.inverse if inverse else flow)(z, context)
            for flow in (FFJORD(field, solver=RungeKutta(n)) for n in (16, 400))
        )
        error, log_det_error = FFJORD(field, solver=RungeKutta(16)).solver_error(z, context, inverse)
        # halving the step leaves a sixteenth, so the estimate is 15/16 of the error, and more terms
        ratio = error / (coarse[0] - exact[0]).norm(dim=1)
        assert error.shape == log_det_error.shape == (BATCH,)
        assert ((ratio > 0.8) & (ratio < 1.1)).all()
        total = (coarse[1] - exact[1]).detach().abs().sum()
        assert float(log_det_error.sum()) == pytest.approx(float(total), rel=0.2)


@pytest.mark.parametrize("hidden", [(12, 16), (16,), (), (8, 8, 8)])
@pytest.mark.parametrize(("d", "t"), [(1, 0.25), (5, torch.tensor(0.25))])
def test_the_exact_trace_is_that_of_autograds_jacobian(d, t, hidden):
    field, z = velocity(d, 3, hidden), points(d)
    context = points(3)
    value, trace = field.with_trace(context)(z, t)
    torch.testing.assert_close(value, field(z, t, context), atol=1e-13, rtol=0)
    torch.testing.assert_close(exact_trace(lambda p: field(p, t, context), z)[1], trace, atol=1e-12, rtol=0)
    dense = jacobians(lambda p, row: (field(p, t, row), None), z, context)
    expected = dense.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(trace, expected, atol=1e-12, rtol=0)


def test_the_exact_trace_of_images():
    a, z = matrix(8), torch.randn(BATCH, 2, 2, 2)
    flow = FFJORD(lambda z, t, context: (z.flatten(1) @ a.T).reshape(z.shape))
    x, log_det = flow(z)
    assert x.shape == z.shape
    assert torch.allclose(log_det, a.trace())


def test_log_det_agrees_with_autograd_and_the_round_trip_closes_up_to_the_solver():
    flow, z, context = FFJORD(velocity(3, 2), solver=RungeKutta(10)), points(3), points(2)
    for there, back, inverse in ((flow, flow.inverse, False), (flow.inverse, flow, True)):
        out, log_det = there(z, context)
        forth_error, forth_log_det_error = flow.solver_error(z, context, inverse)
        back_error, back_log_det_error = flow.solver_error(out, context, not inverse)
        again, other_log_det = back(out, context)
        # an error there is stretched on its way back; 2 covers the terms above the fourth order
        stretch = torch.linalg.matrix_norm(jacobians(back, out.detach(), context), 2)
        assert ((again - z).norm(dim=1) <= 2 * (stretch * forth_error + back_error)).all()
        moved = out.detach().requires_grad_()
        swing = torch.autograd.grad(back(moved, context)[1].sum(), moved)[0].norm(dim=1)
        bound = 2 * (forth_log_det_error + back_log_det_error + swing * forth_error)
        assert ((log_det + other_log_det).abs() <= bound).all()


def test_log_det_agrees_with_autograd():
    flow, context = FFJORD(velocity(3, 2), solver=RungeKutta(50)), points(2, 2)
    assert check.log_det_error(flow, points(3, 2), context) < 1e-11
    assert check.round_trip_error(flow, points(3, 2), context) < 1e-11


def test_the_density_integrates_to_one():
    flow = Flow(FFJORD(velocity()), StandardNormal(2))
    assert check.integral(lambda x: flow.log_prob(x).exp(), [(-8, 8)] * 2, n=120) == pytest.approx(
        1, abs=1e-6
    )


def test_samples_have_the_density_that_log_prob_gives():
    flow = Flow(FFJORD(velocity(context_features=2), solver=RungeKutta(20)), StandardNormal(2), 2)
    x, log_p = flow.sample_and_log_prob(BATCH, points())
    torch.testing.assert_close(log_p, flow.log_prob(x, points()), atol=1e-8, rtol=0)


def test_a_new_flow_is_the_identity():
    x, log_det = FFJORD(Velocity(3))(points(3))
    assert torch.equal(x, points(3))
    assert torch.equal(log_det, torch.zeros(BATCH))


# --- Hutchinson's estimator ---------------------------------------------------------------


@pytest.mark.parametrize("trace", ["gaussian", "rademacher"])
def test_the_estimate_is_unbiased_with_the_variance_of_theory(trace):
    a, n = matrix(4), 40_000
    flow = FFJORD(linear(a, torch.zeros(4)), trace, RungeKutta(1))
    # along a linear field the trace is constant, so the log-det is the estimate εᵀAε itself
    log_det = flow(points(4, n))[1]
    symmetric = (a + a.T) / 2
    squares = symmetric.square()
    variance = 2 * (squares.sum() - (trace == "rademacher") * squares.trace())
    assert abs(log_det.mean() - a.trace()) < 4 * (variance / n).sqrt()
    # the standard error of a variance, from the fourth moment of the draws
    fourth = (log_det - log_det.mean()).pow(4).mean()
    assert abs(log_det.var() - variance) < 4 * ((fourth - variance**2) / n).sqrt()


@pytest.mark.parametrize("trace", ["gaussian", "rademacher"])
def test_the_estimate_of_a_network_is_unbiased_in_both_directions(trace):
    field, n = velocity(3), 4000
    flow, z = FFJORD(field, trace, RungeKutta(4)), points(3, 1)
    for direction, exact in (
        (flow, FFJORD(field, solver=RungeKutta(4))(z)[1]),
        (flow.inverse, FFJORD(field, solver=RungeKutta(4)).inverse(z)[1]),
    ):
        with torch.no_grad():
            draws = direction(z.expand(n, -1))[1]
        assert abs(draws.mean() - exact) < 4 * draws.std() / n**0.5


@pytest.mark.parametrize("trace", ["gaussian", "rademacher"])
def test_one_probe_is_drawn_in_a_call_from_the_global_generator(trace):
    flow, z = FFJORD(velocity(), trace), points()
    torch.manual_seed(5)
    first = flow(z)[1]
    torch.manual_seed(5)
    field = flow._velocity_and_trace(z, None)
    state = torch.get_rng_state()
    again = flow._solve(field, z, 0.0, 1.0, flow.solver)[1]
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(flow(z)[1], first)
    assert not flow.is_exact
    assert FFJORD(velocity()).is_exact


def test_the_estimate_moves_the_point_as_the_exact_trace_does():
    field, z = velocity(), points()
    assert torch.allclose(FFJORD(field, "gaussian")(z)[0], FFJORD(field)(z)[0], atol=1e-14)


# --- learning ------------------------------------------------------------------------------


@pytest.mark.parametrize("trace", ["exact", "rademacher"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_agree_with_finite_differences(trace, direction):
    flow, context = FFJORD(velocity(context_features=2), trace, RungeKutta(3)), points(n=2)
    names, parameters = zip(*flow.named_parameters(), strict=True)

    class Direction(nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = flow

        def forward(self, z, context):
            torch.manual_seed(0)  # the same probe each time
            return getattr(self.flow, direction)(z, context)

    module = Direction()

    def function(z, context, *values):
        named = {f"flow.{name}": value for name, value in zip(names, values, strict=True)}
        return torch.func.functional_call(module, named, (z, context))

    inputs = (points(n=2).requires_grad_(), context.requires_grad_(), *parameters)
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


def test_the_estimate_compiles_without_a_break():
    flow, z = FFJORD(velocity(context_features=2), "rademacher", RungeKutta(1)), points()
    compiled = torch.compile(flow.inverse, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    expected = flow.inverse(z, z)
    torch.manual_seed(0)
    for value, other in zip(compiled(z, z), expected, strict=True):
        torch.testing.assert_close(value, other)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_may_hold_one_point_or_none_in_either_precision(n, dtype):
    flow = FFJORD(velocity(), "rademacher", RungeKutta(2)).to(dtype)  # with the exact trace MODELS has it
    for direction in (flow, flow.inverse):
        x, log_det = direction(points(n=n).to(dtype))
        assert (x.shape, log_det.shape) == ((n, 2), (n,))
        assert x.dtype == log_det.dtype == dtype


def test_distant_points_are_no_trouble():
    flow, z = FFJORD(velocity(), solver=RungeKutta(8)), 1e4 * points()
    x, log_det = flow(z)
    assert (flow.inverse(x)[0] - z).abs().max() < 1e-4
    assert log_det.isfinite().all()


# --- the adaptive solver --------------------------------------------------------------------


@pytest.mark.usefixtures("torchdiffeq")
def test_the_adaptive_solvers_error_follows_its_tolerance():
    field, z = velocity(context_features=2), points()
    expected = FFJORD(field, solver=RungeKutta(200))(z, z)
    errors = []
    tolerances = torch.logspace(-11, -5, 7)
    for tolerance in tolerances.tolist():
        flow = FFJORD(field, solver=Dopri5(tolerance))
        errors.append(max(check.largest(a - b) for a, b in zip(flow(z, z), expected, strict=True)))
        # the measured change holds the error but for what the finer solver has left
        assert errors[-1] < 2 * max(check.largest(error) for error in flow.solver_error(z, z))
    design = torch.stack([tolerances.log(), torch.ones(7)], 1)
    slope = torch.linalg.lstsq(design, torch.tensor(errors).log()[:, None]).solution[0]
    assert slope.item() == pytest.approx(1, abs=0.25)
    assert flow(z[:0], z[:0])[0].shape == (0, 2)


@pytest.mark.usefixtures("torchdiffeq")
@pytest.mark.parametrize("trace", ["exact", "rademacher"])
def test_the_adjoint_gives_the_gradients_of_autograd_through_the_steps(trace):
    field, z, context = velocity(context_features=2), points(), points()
    gradients = []
    for solver in (RungeKutta(100), Dopri5(1e-10, adjoint=True)):
        torch.manual_seed(0)
        z_ = z.clone().requires_grad_()
        x, log_det = FFJORD(field, trace, solver).inverse(z_, context)
        loss = x.square().sum() + log_det.sin().sum()
        gradients.append(torch.autograd.grad(loss, (z_, *field.parameters())))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=0)


@pytest.mark.usefixtures("torchdiffeq")
def test_what_the_adaptive_solver_cannot_do_is_a_sentence():
    steep = FFJORD(lambda z, t, context: 1e4 * torch.sin(1e4 * z), solver=Dopri5(1e-8, max_steps=20))
    with pytest.raises(
        RuntimeError, match=r"max_steps=20\) did not get from t = 0 to 1: .* larger tolerance"
    ):
        steep(points())
    with pytest.raises(ValueError, match="The adjoint gives no gradient to the context"):
        FFJORD(velocity(context_features=2), solver=Dopri5(adjoint=True))(points(), points().requires_grad_())
    with pytest.raises(ValueError, match="tolerance must lie between 0 and 1"):
        Dopri5(0)
    with pytest.raises(RuntimeError, match=r"max_steps=0.* did not get from t = 0 to 1"):
        FFJORD(velocity(), solver=Dopri5(max_steps=0))(points())


def test_without_torchdiffeq_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchdiffeq", None)
    with pytest.raises(ImportError, match="pip install torchdiffeq, or take RungeKutta"):
        Dopri5()


# --- what is refused -------------------------------------------------------------------------


class Reversed(Velocity):
    """A velocity with a formula of its own."""

    def forward(self, z, t, context=None):
        return -super().forward(z, t, context)


def smooth() -> Velocity:
    net = velocity()
    net.net.layers[1] = nn.SiLU()
    return net


@pytest.mark.parametrize("make", [lambda: Reversed(2), smooth], ids=["forward", "activation"])
def test_the_closed_form_gives_way_to_a_velocity_that_is_another(make):
    field = make()
    nn.init.normal_(field.net.layers[-1].weight)
    z = torch.randn(BATCH, 2)
    v, trace = field.with_trace()(z, 0.3)
    torch.testing.assert_close(v, field(z, 0.3))
    torch.testing.assert_close(trace, exact_trace(lambda z: field(z, 0.3), z)[1])


def test_a_missing_context_is_refused():
    flow = Flow(FFJORD(velocity(2, 3)), StandardNormal(2))
    with pytest.raises(ValueError, match="conditioned by a context of length 3, and none came"):
        flow.log_prob(torch.zeros(1, 2))


def test_mistakes_are_sentences():
    with pytest.raises(
        ValueError, match="trace must be one of exact, gaussian, rademacher and came as 'hutch"
    ):
        FFJORD(velocity(), "hutchinson")
    with pytest.raises(ValueError, match="steps must be a whole number, 1 or more, and came as 0"):
        RungeKutta(0)
    for d in (1, 3):  # torch's own sentence
        with pytest.raises(RuntimeError, match="must match"):
            FFJORD(lambda z, t, context, d=d: z.sum(1, keepdim=True).expand(-1, d))(points())


@pytest.mark.parametrize("trace", ["exact", "gaussian"])
def test_a_solution_that_is_not_finite_is_an_error_that_names_what_to_change(trace):
    flow = FFJORD(lambda z, t, context: z**3, trace)
    with pytest.raises(RuntimeError, match=r"not finite with RungeKutta\(steps=8\): .* Take more steps"):
        flow(torch.full((1, 2), 1e3))
    assert math.isfinite(float(flow(torch.full((1, 2), 0.1))[0].sum()))
