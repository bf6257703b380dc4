r"""One property test over every row of MODELS: a new row is tested without another line.

Each row is built as it comes, for three dimensions, for small images and with a context, where
it supports them, in float64 and float32, with all parameters moved at random so that nothing is the
identity.

Tolerances. Rounding enters each layer as a few units of eps times the size of the point, and leaves
the flow multiplied by how much the layers stretch. So errors are compared with eps (2e-16 or 1e-7),
times that size, times the norm of the Jacobian they pass through; ``SLACK`` stands for the few units.
A log-determinant is an output as well: an error of the point reaches it times its own gradient.

Two kinds of rows need a word. A continuous flow is solved in steps, so its errors are far above
rounding, but they must come from the steps: with more of them, an error too large for rounding must
fall to an eighth or less (``assert_only_rounding``; the method's order says a sixteenth per halving).
And a flow whose ``is_exact`` is False draws numbers and may have latents of another shape. What concerns
the draw alone is left to its own tests; all the rest holds as for the others, with the same seed.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator

import pytest
import torch

from flowlib import check
from flowlib.bijection import Compose
from flowlib.flow import Flow
from flowlib.models import MODELS
from tests.flowlib.randomised import blunt

SLACK = 32  # rounding errors of a layer, in units of eps; see the docstring
SIZES = {
    "default": {},
    "d3": {"event_shape": (3,)},
    "image": {"event_shape": (1, 4, 4)},
    "context": {"context_features": 2},
}


def _supported(name: str, size: str) -> bool:
    """Whether a row takes these keywords; only a sentence about event_shape counts as a no."""
    build, keywords = MODELS[name], SIZES[size]
    if not set(keywords) <= set(inspect.signature(build).parameters):
        return False
    try:
        build(**keywords)
    except ValueError as refused:
        if "event_shape" not in str(refused):
            raise
        return False
    return True


CASES = [(name, size) for name in MODELS for size in SIZES if _supported(name, size)]
EXACT = [(name, size) for name, size in CASES if MODELS[name](**SIZES[size]).is_exact]
ON_THE_PLANE = [(name, size) for name, size in EXACT if MODELS[name](**SIZES[size]).event_shape == (2,)]
CONDITIONAL = [(name, size) for name, size in CASES if MODELS[name](**SIZES[size]).context_features]
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
        ],
    ),
]


class Case:
    """A flow with random parameters, latents for it, and a context where it takes one."""

    def __init__(self, name: str, size: str, dtype: torch.dtype, device: str, scale: float = 1.0) -> None:
        self.build = functools.partial(MODELS[name], **SIZES[size])
        torch.manual_seed(0)
        self.flow = blunt(self.build())
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.flow.parameters():
                fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_(0.5 * noise / fan_in**0.5).mul_(scale)
        self.flow.to(device, dtype).eval()
        self.eps = torch.finfo(dtype).eps
        self.generator = torch.Generator().manual_seed(2)

    def latents(self, n: int) -> torch.Tensor:
        return self.flow.base.sample(n, self.generator)

    def points(self, n: int) -> torch.Tensor:
        """Data: the same numbers as the latents, or the first of them where there are more."""
        shape = self.flow.event_shape
        return self.latents(n).flatten(1)[:, : shape.numel()].reshape(n, *shape)

    def log_prob(
        self, x: torch.Tensor, context: torch.Tensor | None, flow: Flow | None = None
    ) -> torch.Tensor:
        """The density, with the same draws in each call where the flow draws."""
        torch.manual_seed(5)
        return (flow or self.flow).log_prob(x, context)

    def context(self, n: int) -> torch.Tensor | None:
        rows = torch.randn(n, self.flow.context_features, generator=self.generator, dtype=torch.float64)
        return rows.to(self.flow.base.anchor) if self.flow.context_features else None

    def carried(self, x: torch.Tensor, context: torch.Tensor | None) -> float:
        """How far rounding may move the latents of ``x``: the largest bound over the batch."""
        if not len(x):
            return 0.0
        inverse = self.flow.bijection.inverse
        z = inverse(x, context)[0]
        bound = norms(jacobians(inverse, x, context)) * (lengths(x) + lengths(z) + 1)
        return SLACK * self.eps * float(bound.max())

    def steps(self, z: torch.Tensor, context: torch.Tensor | None) -> list:
        """The pairs (layer, its input u^{k-1}), without layers that draw."""
        layers = self.flow.bijection if isinstance(self.flow.bijection, Compose) else [self.flow.bijection]
        with torch.no_grad():
            inputs = [u for u, _ in self.flow.trajectory(z, context)]
        return [(layer, u) for layer, u in zip(layers, inputs, strict=False) if layer.is_exact]


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request) -> torch.dtype:
    return request.param


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    return request.param


@pytest.fixture(params=CASES, ids="-".join)
def case(request, dtype, device) -> Case:
    return Case(*request.param, dtype, device)


@pytest.fixture(params=EXACT, ids="-".join)
def exact_case(request, dtype, device) -> Case:
    return Case(*request.param, dtype, device)


@pytest.fixture(params=ON_THE_PLANE, ids="-".join)
def case_on_the_plane(request, dtype, device) -> Case:
    return Case(*request.param, dtype, device)


@pytest.fixture(params=CONDITIONAL, ids="-".join)
def conditional_case(request, dtype, device) -> Case:
    return Case(*request.param, dtype, device)


@pytest.fixture(params=CASES, ids="-".join)
def double(request, device) -> Case:
    """A case in float64 only, for what differences of numbers cannot measure in float32."""
    return Case(*request.param, torch.float64, device)


def jacobians(function, points: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
    """One Jacobian for each point; each sees its own row of the context."""
    rows = []
    for i, point in enumerate(points):
        row = None if context is None else context[i : i + 1]
        rows.append(check.jacobian(lambda p, row=row: function(p, row)[0], point[None])[0])
    return torch.stack(rows)


def swings(function, points: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
    """How fast the log-determinant at each point changes with the point: its gradient's length."""
    points = points.clone().requires_grad_()
    log_dets = function(points, context)[1].sum() + 0 * points.sum()  # some do not change at all
    return lengths(torch.autograd.grad(log_dets, points)[0])


def norms(matrices: torch.Tensor) -> torch.Tensor:
    return torch.linalg.matrix_norm(matrices.double(), ord=2)


def lengths(points: torch.Tensor) -> torch.Tensor:
    return points.detach().double().flatten(1).norm(dim=1)


def assert_only_rounding(module: torch.nn.Module, errors: Callable) -> None:
    """The errors are within their bounds, or they vanish with the steps of a solver in the module.

    ``errors(module)`` gives pairs (error, what rounding explains of it), as it would for a copy of the
    module that takes twice the steps, and again twice, up to 32 times as many.
    """
    excess = [error - bound for error, bound in errors(module)]
    for _ in range(5):
        if all((one <= 0).all() for one in excess) or not any(solvers(module)):
            break
        module = copy.deepcopy(module)
        for part in solvers(module):
            part.solver = part.solver.finer()
        finer = [error - bound for error, bound in errors(module)]
        if all((one <= before.clamp(min=0) / 8).all() for one, before in zip(finer, excess, strict=True)):
            return
    assert all((one <= 0).all() for one in excess), (type(module).__name__, excess)


def solvers(module: torch.nn.Module) -> list[torch.nn.Module]:
    """The parts that are solved in steps."""
    return [part for part in module.modules() if hasattr(part, "solver")]


def assert_layers_invert(case: Case, z: torch.Tensor, context: torch.Tensor | None) -> None:
    """Each layer gives its input back, up to rounding carried through its inverse's Jacobian."""

    def errors(layer: torch.nn.Module, u: torch.Tensor) -> list:
        out, log_det = (value.detach() for value in layer(u, context))
        back, inverse_log_det = (value.detach() for value in layer.inverse(out, context))
        for value in (out, log_det, back, inverse_log_det):
            assert value.isfinite().all()
        carried = norms(jacobians(layer.inverse, out, context)) * (lengths(out) + lengths(u)) + lengths(u)
        return [(lengths(back - u), SLACK * case.eps * carried)]

    for layer, u in case.steps(z, context):
        assert_only_rounding(layer, functools.partial(errors, u=u))


# --- the bijection ----------------------------------------------------------------------


def test_nothing_is_the_identity(case):
    z, context = case.latents(4), case.context(4)
    for layer, u in case.steps(z, context):
        assert (layer(u, context)[0].flatten(1) != u.flatten(1)).any(1).all()


def test_both_round_trips_give_the_point_back(exact_case):
    case = exact_case
    z, context = case.latents(4), case.context(4)
    x = case.flow.decode(z, context).detach()

    def errors(bijection: torch.nn.Module) -> Iterator:
        for there, back, points in ((bijection, bijection.inverse, z), (bijection.inverse, bijection, x)):
            out, log_det = (value.detach() for value in there(points, context))
            again, other_log_det = (value.detach() for value in back(out, context))
            size = lengths(points) + lengths(out) + 1
            carried = norms(jacobians(back, out, context)) * size
            yield lengths(again - points), SLACK * case.eps * carried
            bound = carried + swings(back, out, context) * size
            yield (log_det + other_log_det).abs(), SLACK * case.eps * bound

    assert_only_rounding(case.flow.bijection, errors)


def test_every_layer_inverts_itself(case):
    assert_layers_invert(case, case.latents(3), case.context(3))


def test_log_det_agrees_with_autograd_in_both_directions(exact_case):
    case = exact_case
    z, context = case.latents(3), case.context(3)
    x = case.flow.decode(z, context).detach()

    def errors(bijection: torch.nn.Module) -> Iterator:
        for direction, points in ((bijection, z), (bijection.inverse, x)):
            dense = jacobians(direction, points, context)
            sign, expected = torch.linalg.slogdet(dense.double())
            assert (sign != 0).all()
            condition = norms(dense) * norms(torch.linalg.inv(dense.double()))
            # each point alone, as in jacobians: in a batch a matrix product may round another way
            rows = [None] * len(points) if context is None else context.split(1)
            log_dets = [direction(p, row)[1] for p, row in zip(points.split(1), rows, strict=True)]
            yield (torch.cat(log_dets).detach().double() - expected).abs(), SLACK * case.eps * condition

    assert_only_rounding(case.flow.bijection, errors)


def test_the_jacobian_is_exactly_zero_where_nothing_depends(case):
    z, context = case.latents(2), case.context(2)
    for layer, u in case.steps(z, context):
        dense = jacobians(layer, u, context)
        out, depends = layer(u, context)[0], torch.zeros_like(dense, dtype=torch.bool)
        for j in range(depends.shape[-1]):
            step = torch.zeros_like(u).flatten(1).index_fill_(1, torch.tensor(j, device=u.device), 0.5)
            moved = layer(u + step.reshape(u.shape), context)[0]
            depends[:, :, j] = (moved != out).flatten(1)
        assert torch.equal(dense != 0, depends), type(layer).__name__


def test_a_coupling_is_triangular_once_ordered_by_its_mask(case):
    z, context = case.latents(2), case.context(2)
    for layer, u in case.steps(z, context):
        if not hasattr(layer, "mask"):
            continue
        mask = layer.mask.reshape(-1, *[1] * (u.dim() - 2)) if layer.mask.dim() == 1 else layer.mask
        mask = mask.expand(u.shape[1:]).flatten()
        order = mask.argsort(descending=True, stable=True)
        ordered = jacobians(layer, u, context)[:, order][:, :, order]
        r = int(mask.sum())
        assert torch.equal(ordered, ordered.tril())
        assert torch.equal(ordered[:, :r, :r], torch.eye(r).to(ordered).expand_as(ordered[:, :r, :r]))
        assert torch.equal(ordered[:, r:, r:].tril(-1), torch.zeros_like(ordered[:, r:, r:]))


def test_shapes_dtype_and_device_are_kept(case):
    z, x, context = case.latents(4), case.points(4), case.context(4)
    flow = case.flow
    directions = ((flow.bijection(z, context), x), (flow.bijection.inverse(x, context), z))
    for (points, log_det), like in directions:
        assert points.shape == like.shape
        assert log_det.shape == (4,)
        assert (points.dtype, points.device) == (log_det.dtype, log_det.device) == (z.dtype, z.device)
    for value, shape in ((flow.sample(4, context), x.shape), (flow.log_prob(x, context), (4,))):
        assert value.shape == shape
        assert (value.dtype, value.device) == (z.dtype, z.device)


@pytest.mark.parametrize("n", [0, 1])
def test_a_batch_may_hold_one_point_or_none(case, n):
    z, x, context = case.latents(3), case.points(3), case.context(3)
    few = None if context is None else context[:n]
    out, log_det = case.flow.bijection(z[:n], few)
    assert out.shape == x[:n].shape
    assert log_det.shape == case.flow.log_prob(x[:n], few).shape == (n,)
    assert case.flow.sample(n, few).shape == (n, *case.flow.event_shape)
    if not case.flow.is_exact:  # each batch has draws of its own
        return
    # the same row as in a larger batch, up to the order of the sums in a matrix product
    single, batch = case.flow.encode(x[:n], few).detach(), case.flow.encode(x, context)[:n].detach()
    torch.testing.assert_close(single, batch, atol=case.carried(x[:n], few), rtol=0)


# --- the density ------------------------------------------------------------------------


def test_sample_and_log_prob_agrees_with_log_prob(exact_case):
    case = exact_case
    context = case.context(5)

    def errors(flow: Flow) -> list:
        x, log_p = flow.sample_and_log_prob(5, context, torch.Generator().manual_seed(3))
        z = flow.encode(x, context)
        size = lengths(x) + lengths(z) + 1
        carried = norms(jacobians(flow.bijection.inverse, x, context)) * size * (lengths(z) + 1)
        return [((flow.log_prob(x, context) - log_p).abs(), SLACK * case.eps * carried)]

    with torch.no_grad():
        assert_only_rounding(case.flow, errors)


def test_one_seed_gives_the_same_samples(case):
    context = case.context(5)
    one, other = (case.flow.sample(5, context, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, other)
    x, _ = case.flow.sample_and_log_prob(5, context, torch.Generator().manual_seed(3))
    assert torch.equal(one, x)


def test_the_density_integrates_to_one(case_on_the_plane):
    flow, row = case_on_the_plane.flow, case_on_the_plane.context(1)
    x = flow.sample(4000, row, torch.Generator().manual_seed(3))
    low, high = x.amin(0), x.amax(0)
    box = torch.stack([low - 0.5 * (high - low), high + 0.5 * (high - low)], 1).tolist()

    def density(points: torch.Tensor) -> torch.Tensor:
        return flow.log_prob(points.to(x), None if row is None else row.expand(len(points), -1)).exp()

    n = 120 if solvers(flow) else 300  # a solved flow costs more, and has no kinks to resolve
    assert check.integral(density, box, n=n) == pytest.approx(1, abs=1e-3)


def test_torch_distributions_takes_the_flow(case):
    row = case.context(1)
    distribution = case.flow.as_distribution(None if row is None else row[0])
    assert isinstance(distribution, torch.distributions.Distribution)
    x = distribution.sample((2, 3))
    assert x.shape == (2, 3, *case.flow.event_shape)
    assert distribution.support.check(x).all()
    rows = None if row is None else row.expand(6, -1)
    expected = case.log_prob(x.reshape(6, *case.flow.event_shape), rows).reshape(2, 3)
    torch.manual_seed(5)
    assert torch.equal(distribution.log_prob(x), expected)
    assert distribution.rsample().requires_grad


def test_the_context_changes_the_density_row_by_row(conditional_case):
    case = conditional_case
    x, context = case.points(4), case.context(4)
    other = context.clone()
    other[0] += 1
    changed = case.log_prob(x, context) != case.log_prob(x, other)
    assert changed.tolist() == [True, False, False, False]


# --- learning ---------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["likelihood", "samples"])
def test_every_parameter_gets_a_finite_gradient(case, direction):
    context = case.context(8)
    if direction == "likelihood":
        loss = -case.flow.log_prob(case.points(8), context).mean()
    else:
        x, log_p = case.flow.sample_and_log_prob(8, context, case.generator)
        loss = (log_p + x.flatten(1).square().sum(1)).mean()
    loss.backward()
    for name, parameter in case.flow.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_agree_with_finite_differences(double, direction):
    """In one random direction of the points and one of all parameters, sharply enough to see each of them."""
    parameters = dict(double.flow.bijection.named_parameters())
    sizes, context = [p.numel() for p in parameters.values()], double.context(2)

    class Direction(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bijection = double.flow.bijection

        def forward(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            torch.manual_seed(5)
            call = self.bijection if direction == "forward" else self.bijection.inverse
            return call(points, context)

    module, points = Direction(), double.latents(2) if direction == "forward" else double.points(2)

    def function(points: torch.Tensor, flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pairs = zip(parameters.items(), flat.split(sizes), strict=True)
        named = {f"bijection.{name}": value.view_as(p) for (name, p), value in pairs}
        return torch.func.functional_call(module, named, (points,))

    inputs = points, torch.nn.utils.parameters_to_vector(parameters.values()).detach()
    weights = [torch.randn_like(out) for out in function(*inputs)]
    ways = [
        torch.nn.functional.normalize(torch.randn_like(one).flatten(), dim=0).view_as(one) for one in inputs
    ]

    def at(h: float | torch.Tensor) -> torch.Tensor:
        outs = function(*(one + h * way for one, way in zip(inputs, ways, strict=True)))
        return sum((out * weight).sum() for out, weight in zip(outs, weights, strict=True))

    (slope,) = torch.autograd.grad(at(h := torch.zeros((), requires_grad=True)), h)
    with torch.no_grad():
        numeric = (at(1e-5) - at(-1e-5)) / 2e-5
    assert slope.item() == pytest.approx(numeric.item(), rel=1e-6, abs=1e-7)


def test_train_and_eval_agree(case):
    x, context = case.points(4), case.context(4)
    trained = case.log_prob(x, context, case.flow.train())
    assert torch.equal(trained, case.log_prob(x, context, case.flow.eval()))


def test_a_saved_flow_is_the_same_flow(case, tmp_path):
    x, context = case.points(4), case.context(4)
    expected = case.log_prob(x, context)
    torch.save(case.flow.state_dict(), tmp_path / "flow.pt")
    torch.manual_seed(4)
    loaded = case.build().to(x)
    assert not torch.equal(case.log_prob(x, context, loaded), expected)
    loaded.load_state_dict(torch.load(tmp_path / "flow.pt", weights_only=True))
    assert torch.equal(case.log_prob(x, context, loaded), expected)
    assert torch.equal(case.log_prob(x, context, copy.deepcopy(loaded)), expected)


# --- far away and badly scaled ----------------------------------------------------------


def test_points_as_far_as_ten_thousand_are_no_trouble(case):
    z, x, context = case.latents(3), case.points(3), case.context(3)
    z, x = (1e4 * p / p.abs().flatten(1).amax(1).reshape(-1, *[1] * (p.dim() - 1)) for p in (z, x))
    assert_layers_invert(case, z, context)
    assert case.flow.log_prob(x, context).isfinite().all()
    case.flow.log_prob(x, context).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in case.flow.parameters())


@pytest.mark.parametrize("which", CASES, ids="-".join)
def test_parameters_ten_times_as_large_are_no_trouble(which, dtype, device):
    case = Case(*which, dtype, device, scale=10.0)
    assert_layers_invert(case, case.latents(3), case.context(3))
    assert not case.flow.log_prob(case.points(3), case.context(3)).isnan().any()


# --- what is refused, each with a sentence ------------------------------------------------


@pytest.mark.parametrize("method", ["log_prob", "encode", "decode", "trajectory"])
def test_bad_points_are_refused(case, method):
    call, context = getattr(case.flow, method), case.context(3)
    z = case.points(3) if method in ("log_prob", "encode") else case.latents(3)
    for bad in (float("nan"), float("inf")):
        spoilt = z.clone()
        spoilt[1] = bad
        with pytest.raises(ValueError, match="holds NaN or infinity in 1 of 3 points, the first at index 1"):
            call(spoilt, context)
    for shape in (z[0], z[:, :, None], torch.cat([z, z], 1)):
        with pytest.raises(ValueError, match=r"has shape .* this flow takes"):
            call(shape, context)
    other = torch.float32 if z.dtype == torch.float64 else torch.float64
    for points in (z.to(other), z.long()):
        with pytest.raises(TypeError, match="convert one of them"):
            call(points, context)
    with pytest.raises(TypeError, match=r"must be a torch\.Tensor and came as list"):
        call(z.tolist(), context)


def test_a_bad_context_is_refused(case):
    z, wanted = case.points(3), case.flow.context_features
    anything = torch.zeros(3, wanted + 1).to(z)
    if not wanted:
        with pytest.raises(ValueError, match="takes no context"):
            case.flow.log_prob(z, anything)
        return
    with pytest.raises(ValueError, match=r"context must have shape \(3, 2\) and came as NoneType"):
        case.flow.log_prob(z)
    with pytest.raises(ValueError, match=r"context must have shape \(3, 2\) and came as \(3, 3\)"):
        case.flow.log_prob(z, anything)
    with pytest.raises(ValueError, match="context holds NaN or infinity"):
        case.flow.log_prob(z, torch.full_like(anything[:, :2], float("nan")))


# --- the table itself -------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_row_builds_a_flow_without_arguments(name):
    assert isinstance(MODELS[name](), Flow)


def test_the_table_is_tested_where_it_should_be():
    names = ("linear", "planar", "radial", "maf", "iaf", "spline", "spline_ar", "ffjord")
    vectors = {(name, size) for name in names for size in ("default", "d3", "context")}
    both = {(name, size) for name in ("nice", "realnvp", "vflow") for size in SIZES}
    images = {
        (name, size) for name in ("realnvp_multiscale", "glow", "tarflow") for size in ("image", "context")
    }
    assert vectors | both | images <= set(CASES)
    assert set(CASES) - set(EXACT) == {("vflow", size) for size in SIZES}


@pytest.mark.parametrize(
    ("name", "keywords", "says"),
    [
        ("planar", {"event_shape": (1, 4, 4)}, r"planar takes vectors, event_shape=\(d,\), .* \(1, 4, 4\)"),
        ("realnvp", {"event_shape": (3, 4)}, r"vectors, .* or images, .* came as \(3, 4\)"),
        ("realnvp", {"event_shape": (1,)}, "cannot act on event_shape .* with one entry .* use planar"),
        ("nice", {"event_shape": 1}, "cannot act on event_shape .* with one entry"),
        ("nice", {"event_shape": (3, 1, 1)}, "with one entry or pixel"),
        ("nice", {"event_shape": (0,)}, "positive whole numbers"),
        ("realnvp", {"layers": 0}, "layers must be a whole number, 1 or more"),
        ("realnvp", {"hidden": (8, 0)}, "hidden must be made of positive whole numbers"),
    ],
)
def test_sizes_no_model_can_have_are_refused(name, keywords, says):
    with pytest.raises(ValueError, match=says):
        MODELS[name](**keywords)


@pytest.mark.parametrize("name", MODELS)
def test_a_base_of_another_shape_is_refused(name):
    from flowlib.bases import StandardNormal

    with pytest.raises(ValueError, match=r"base has event_shape \(5,\)"):
        MODELS[name](base=StandardNormal(5))
