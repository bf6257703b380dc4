"""The flow: its density against known maps, and a sentence for everything wrong at its door."""

import math

import pytest
import torch
from torch.distributions import AffineTransform, Independent, Normal, TransformedDistribution, Uniform

from flowlib import check
from flowlib.bases import StandardNormal, UniformBox
from flowlib.bijection import Bijection, Compose, Inverse, sum_event
from flowlib.flow import Flow
from flowlib.layers.coupling import Scale
from flowlib.layers.planar import Planar
from flowlib.layers.radial import Radial


class Affine(Bijection):
    """x = e^log_scale · z + shift, for every entry; a context is added to the shift."""

    def __init__(self, log_scale: float, shift: float) -> None:
        super().__init__()
        self.log_scale = torch.nn.Parameter(torch.tensor(log_scale, dtype=torch.float64))
        self.shift = torch.nn.Parameter(torch.tensor(shift, dtype=torch.float64))

    def _shift(self, context):
        return self.shift if context is None else self.shift + context.sum(1, keepdim=True)

    def forward(self, z, context=None):
        return z * self.log_scale.exp() + self._shift(context), self.log_scale * z[0:1].numel() * z.new_ones(
            len(z)
        )

    def inverse(self, x, context=None):
        z = (x - self._shift(context)) * (-self.log_scale).exp()
        return z, -self.log_scale * x[0:1].numel() * x.new_ones(len(x))


class Sinh(Bijection):
    """x = sinh z: smooth, far from affine, with a known density."""

    def forward(self, z, context=None):
        return z.sinh(), sum_event(z.cosh().log())

    def inverse(self, x, context=None):
        z = x.asinh()
        return z, -sum_event(z.cosh().log())


def affine_flow(context_features: int = 0) -> Flow:
    return Flow(Compose([Affine(0.7, -1.0), Affine(-0.2, 0.5)]), StandardNormal(2), context_features).double()


@pytest.fixture
def x():
    return torch.randn(8, 2, dtype=torch.float64)


# --- the density ------------------------------------------------------------------------


def torchs_own() -> TransformedDistribution:
    """The density of :func:`affine_flow` by torch.distributions."""
    two = torch.ones(2, dtype=torch.float64)
    base = Independent(Normal(0 * two, two), 1)
    first = AffineTransform(-1.0 * two, math.exp(0.7) * two, event_dim=1)
    second = AffineTransform(0.5 * two, math.exp(-0.2) * two, event_dim=1)
    return TransformedDistribution(base, [first, second])


def test_log_prob_agrees_with_torch_on_an_affine_map(x):
    torch.testing.assert_close(affine_flow().log_prob(x), torchs_own().log_prob(x), rtol=1e-13, atol=1e-13)


def test_log_prob_agrees_with_torch_on_a_box(x):
    flow = Flow(Affine(0.7, -1.0), UniformBox(2, -1.0, 1.0)).double()
    low = math.exp(0.7) * torch.tensor([-1.0, -1.0], dtype=torch.float64) - 1
    uniform = Independent(Uniform(low, low + 2 * math.exp(0.7), validate_args=False), 1)
    expected = uniform.log_prob(x)
    assert expected.isinf().any()
    assert expected.isfinite().any()
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-13, atol=1e-13)


def test_log_prob_of_a_curved_map_is_known_and_integrates_to_one(x):
    flow = Flow(Sinh(), StandardNormal(2)).double()
    normal = Normal(torch.tensor(0.0, dtype=torch.float64), 1.0)
    expected = (normal.log_prob(x.asinh()) - 0.5 * (1 + x**2).log()).sum(1)
    torch.testing.assert_close(flow.log_prob(x), expected, rtol=1e-13, atol=1e-13)
    line = Flow(Sinh(), StandardNormal(1)).double()
    assert abs(check.integral(lambda p: line.log_prob(p).exp(), [(-400.0, 400.0)], n=400_000) - 1) < 1e-8


def test_calling_the_flow_is_its_log_prob(x):
    flow = affine_flow()
    assert torch.equal(flow(x), flow.log_prob(x))
    context = torch.randn(8, 3, dtype=torch.float64)
    conditional = affine_flow(3)
    assert torch.equal(conditional(x, context), conditional.log_prob(x, context))


def test_the_inverse_layer_swaps_encode_and_decode(x):
    flow, swapped = (Flow(b, StandardNormal(2)).double() for b in (Sinh(), Inverse(Sinh())))
    assert torch.equal(flow.decode(x), x.sinh())
    assert torch.equal(flow.decode(x), swapped.encode(x))
    assert torch.equal(flow.encode(x), swapped.decode(x))


def test_each_row_sees_its_own_context(x):
    flow = affine_flow(3)
    context = torch.randn(8, 3, dtype=torch.float64)
    together = flow.log_prob(x, context)
    alone = torch.cat([flow.log_prob(x[i : i + 1], context[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together, flow.log_prob(x, context.flip(0)))


# --- samples ----------------------------------------------------------------------------


def test_samples_have_the_moments_of_the_density():
    x = affine_flow().sample(100_000, generator=torch.Generator().manual_seed(0))
    mean, scale = -math.exp(-0.2) + 0.5, math.exp(0.5)
    assert (x.mean(0) - mean).abs().max() < 5 * scale / math.sqrt(100_000)
    assert (x.std(0) / scale - 1).abs().max() < 5 / math.sqrt(200_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_seed_gives_the_same_samples_in_every_precision(dtype):
    exact = affine_flow().sample(100, generator=torch.Generator().manual_seed(4))
    flow = affine_flow().to(dtype)
    x = flow.sample(100, generator=torch.Generator().manual_seed(4))
    assert x.dtype == dtype
    torch.testing.assert_close(x.double(), exact, rtol=0, atol=5e-6 if dtype == torch.float32 else 0)


def test_only_rsample_carries_gradients():
    flow = affine_flow()
    assert not flow.sample(3).requires_grad
    (gradient,) = torch.autograd.grad(flow.rsample(3).sum(), flow.bijection.layers[1].shift)
    assert gradient == 6
    x, log_p = flow.sample_and_log_prob(3)
    assert x.requires_grad
    assert log_p.requires_grad


def test_one_context_row_serves_all_samples():
    flow = affine_flow(1)
    row = torch.tensor([[10.0]], dtype=torch.float64)
    seeds = [torch.Generator().manual_seed(0) for _ in range(2)]
    one = flow.sample(5, row, seeds[0])
    assert torch.equal(one, flow.sample(5, row.expand(5, -1), seeds[1]))
    assert one.mean() > 5
    assert flow.sample(0, row).shape == (0, 2)


# --- the trajectory ---------------------------------------------------------------------


def test_the_trajectory_starts_at_the_base_and_ends_at_the_flow(x):
    flow = Flow(Compose([Affine(0.7, -1.0), Sinh(), Affine(-2.0, 0.0)]), StandardNormal(2)).double()
    steps = flow.trajectory(x)
    assert len(steps) == 4
    assert torch.equal(steps[0][0], x)
    assert torch.equal(steps[0][1], flow.base.log_prob(x))
    assert torch.equal(steps[-1][0], flow.decode(x))
    torch.testing.assert_close(steps[-1][1], flow.log_prob(steps[-1][0]), rtol=1e-12, atol=1e-12)


def test_each_step_has_the_density_of_the_layers_so_far(x):
    layers = [Affine(0.7, -1.0), Sinh(), Affine(-2.0, 0.0)]
    steps = Flow(Compose(layers), StandardNormal(2)).double().trajectory(x)
    for k, (u, log_p) in enumerate(steps):
        so_far = Flow(Compose(layers[:k]), StandardNormal(2)).double()
        torch.testing.assert_close(log_p, so_far.log_prob(u), rtol=1e-12, atol=1e-12)


# --- torch.distributions ------------------------------------------------------------------


def test_as_distribution_agrees_with_torch_for_every_number_of_leading_dimensions():
    ours, theirs = affine_flow().as_distribution(), torchs_own()
    for lead in ((), (5,), (3, 4)):
        value = torch.randn(*lead, 2, dtype=torch.float64)
        assert ours.log_prob(value).shape == lead
        torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value), rtol=1e-13, atol=1e-13)


def test_as_distribution_has_torchs_shapes_and_support():
    ours, theirs = affine_flow().as_distribution(), torchs_own()
    assert ours.event_shape == theirs.event_shape
    assert ours.batch_shape == theirs.batch_shape
    assert ours.has_rsample
    value = torch.tensor([[0.0, 1.0], [math.nan, 0.0]])
    assert ours.support.check(value).tolist() == theirs.support.check(value).tolist()
    for lead in ((), (5,), (3, 4), (0,)):
        assert ours.sample(lead).shape == theirs.sample(lead).shape
        assert ours.rsample(lead).requires_grad
        assert not ours.sample(lead).requires_grad


@pytest.mark.parametrize("batch", [(), (1,), (4,), (3, 1)])
def test_as_distribution_has_a_density_for_each_row_of_its_context(batch):
    flow = affine_flow(2)
    context = torch.randn(*batch, 2, dtype=torch.float64)
    distribution = flow.as_distribution(context)
    assert distribution.batch_shape == batch
    value = distribution.sample((5, 3, 4))
    assert value.shape == (5, 3, 4, *batch, 2)
    value = torch.randn(5, 3, 4, 2, dtype=torch.float64)  # broadcast with the batch, as torch's own are
    rows = context.expand(5, 3, 4, 2).reshape(60, 2)
    expected = flow.log_prob(value.reshape(60, 2), rows).reshape(5, 3, 4)
    assert torch.equal(distribution.log_prob(value), expected)
    for wider in (distribution.expand((3, 4)), Independent(distribution.expand((3, 4)), 1).base_dist):
        assert wider.batch_shape == (3, 4)
        assert torch.equal(wider.log_prob(value), expected)
        assert wider.rsample((2,)).shape == (2, 3, 4, 2)


def test_as_distribution_expands_without_a_context():
    distribution = affine_flow().as_distribution()
    value = torch.randn(4, 2, dtype=torch.float64)
    assert torch.equal(distribution.expand((4,)).log_prob(value), distribution.log_prob(value))
    assert distribution.expand((4,)).sample((3,)).shape == (3, 4, 2)
    assert Independent(distribution.expand((4,)), 1).log_prob(value).shape == ()
    with pytest.raises(RuntimeError, match="expand"):
        distribution.expand((4,)).expand((3,))
    with pytest.raises(ValueError, match="This flow takes no context"):
        affine_flow().as_distribution(value).sample()


def test_as_distribution_works_as_a_base_of_torch():
    distribution = TransformedDistribution(affine_flow().as_distribution(), [])
    value = torch.randn(3, 2, dtype=torch.float64)
    torch.testing.assert_close(distribution.log_prob(value), torchs_own().log_prob(value))


@pytest.mark.parametrize("shape", [(5, 3), (3,), (), (2, 2, 1)])
def test_as_distribution_refuses_values_that_are_no_points(shape):
    with pytest.raises(ValueError, match=r"it must end in \(2,\), one point"):
        affine_flow().as_distribution().log_prob(torch.zeros(shape, dtype=torch.float64))


# --- the door -------------------------------------------------------------------------------

TAKES_X = ["log_prob", "forward", "encode"]
TAKES_Z = ["decode", "trajectory"]


def double(*shape: int, value: float = 0.0) -> torch.Tensor:
    return torch.full(shape, value, dtype=torch.float64)


def with_holes(value: float) -> torch.Tensor:
    points = double(5, 2)
    points[1, 0] = points[3, 0] = points[3, 1] = value
    return points


HOLES = "{name} holds NaN or infinity in 2 of 5 points, the first at index 1; remove or repair them first."
NO_POINTS = {
    "list": ([[0.0, 1.0]], TypeError, "{name} must be a torch.Tensor and came as list."),
    **{
        f"shape {shape}": (
            double(*shape),
            ValueError,
            f"{{name}} has shape {shape}; this flow takes (batch, 2). "
            "For a single point use {name}.unsqueeze(0).",
        )
        for shape in [(), (2,), (5, 3), (5, 2, 1), (0,)]
    },
    **{
        str(dtype): (
            torch.zeros(5, 2, dtype=dtype),
            TypeError,
            f"{{name}} is {dtype} and the flow is torch.float64, on cpu and cpu; "
            "convert one of them: {name}.to(flow.base.anchor) or flow.to({name}).",
        )
        for dtype in [torch.float32, torch.int64, torch.bool, torch.complex128]
    },
    "nan": (with_holes(math.nan), ValueError, HOLES),
    "inf": (with_holes(-math.inf), ValueError, HOLES),
}
NO_CONTEXT = {
    "none": (None, ValueError, "context must have shape (5, 3) and came as NoneType."),
    "list": ([[0.0] * 3] * 5, ValueError, "context must have shape (5, 3) and came as list."),
    **{
        f"shape {shape}": (double(*shape), ValueError, f"context must have shape (5, 3) and came as {shape}.")
        for shape in [(5, 2), (1, 3), (3,), (), (5, 3, 1), (0, 3)]
    },
    "float32": (
        torch.zeros(5, 3),
        TypeError,
        "context is torch.float32 and the flow is torch.float64, on cpu",
    ),
    "nan": (double(5, 3, value=math.nan), ValueError, "context holds NaN or infinity in 5 of 5 points"),
}


@pytest.mark.parametrize("method", TAKES_X + TAKES_Z)
class TestTheDoor:
    @pytest.mark.parametrize("what", NO_POINTS)
    def test_what_is_no_points_is_refused(self, method, what):
        points, error, sentence = NO_POINTS[what]
        with pytest.raises(error) as refusal:
            getattr(affine_flow().eval(), method)(points)
        assert str(refusal.value) == sentence.format(name="x" if method in TAKES_X else "z")

    @pytest.mark.parametrize("what", NO_CONTEXT)
    def test_what_is_no_context_is_refused(self, method, what):
        context, error, sentence = NO_CONTEXT[what]
        with pytest.raises(error) as refusal:
            getattr(affine_flow(3).eval(), method)(double(5, 2), context)
        assert str(refusal.value).startswith(sentence)
        with pytest.raises(ValueError, match="This flow takes no context; build it with context_features="):
            getattr(affine_flow(), method)(double(5, 2), double(5, 3))

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_another_device_is_refused(self, method):
        here = double(5, 2)
        with pytest.raises(TypeError, match=r"torch\.float64, on cuda:0 and cpu; convert"):
            getattr(affine_flow(), method)(here.cuda())
        with pytest.raises(TypeError, match=r"context is .*, on cuda:0 and cpu"):
            getattr(affine_flow(3), method)(here, double(5, 3).cuda())


def test_only_a_call_in_training_does_not_look_for_nan():
    """The look waits for the device; ``fit`` calls the flow, and has looked before its first step."""
    points, context = with_holes(math.nan), double(5, 3, value=math.nan)
    flow, conditional = affine_flow(), affine_flow(3)
    assert flow.training
    assert flow(points).isnan().tolist() == [False, True, False, True, False]
    assert conditional(double(5, 2), context).isnan().all()
    for flow in (affine_flow(), affine_flow().eval()):
        with pytest.raises(ValueError, match="x holds NaN"):
            flow.log_prob(points)
    with pytest.raises(ValueError, match="x holds NaN"):
        flow(points)
    with pytest.raises(TypeError, match=r"x is torch\.float32"):
        affine_flow()(points.float())


@pytest.mark.parametrize("method", ["sample", "rsample", "sample_and_log_prob"])
def test_a_wrong_number_or_context_of_samples_is_refused(method):
    for n in (-1, 2.0, "3", None, (3,)):
        with pytest.raises((RuntimeError, TypeError), match=r"negative dimension|randn\(\)"):
            getattr(affine_flow(), method)(n)
    with pytest.raises(ValueError, match=r"shape \(4, 3\) and came as NoneType"):
        getattr(affine_flow(3), method)(4)
    with pytest.raises(ValueError, match=r"shape \(4, 3\) and came as \(2, 3\)"):
        getattr(affine_flow(3), method)(4, double(2, 3))
    with pytest.raises(ValueError, match="This flow takes no context"):
        getattr(affine_flow(), method)(4, double(4, 3))


@pytest.mark.parametrize("kind", [Scale, Planar, Radial])
def test_a_layer_of_one_entry_does_not_broadcast_over_three(kind):
    flow = Flow([kind(1)], StandardNormal(3))
    for use in (flow.log_prob, flow.decode):
        with pytest.raises(ValueError, match="takes \\('batch', 1\\); give both one size"):
            use(torch.zeros(5, 3))


@pytest.mark.parametrize("base", [StandardNormal(2), UniformBox(2)])
def test_a_base_refuses_points_of_another_size(base):
    with pytest.raises(ValueError, match="give both one size"):
        base.log_prob(torch.zeros(5, 3))


def test_a_shape_sentence_names_every_dimension():
    flow = Flow(Sinh(), StandardNormal((3, 8, 8)))
    with pytest.raises(ValueError, match=r"this flow takes \(batch, 3, 8, 8\)"):
        flow.log_prob(torch.zeros(3, 8, 8))


# --- how it is built --------------------------------------------------------------------------


def test_a_list_of_layers_is_their_composition(x):
    layers = [Affine(0.7, -1.0), Sinh()]
    expected = Flow(Compose(layers), StandardNormal(2)).double().log_prob(x)
    for several in (layers, tuple(layers), iter(layers), torch.nn.ModuleList(layers)):
        flow = Flow(several, StandardNormal(2)).double()
        assert type(flow.bijection) is Compose
        assert torch.equal(flow.log_prob(x), expected)


def test_a_distribution_of_torch_is_a_base(x):
    flow = Flow(Affine(0.7, -1.0), Normal(torch.zeros(2), torch.ones(2))).double()
    expected = Flow(Affine(0.7, -1.0), StandardNormal(2)).double()
    torch.testing.assert_close(flow.log_prob(x), expected.log_prob(x), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(
    "built", [(Sinh, StandardNormal(2)), (3, StandardNormal(2)), (Sinh(), Sinh()), (Sinh(), None)]
)
def test_what_makes_no_flow_is_refused(built):
    with pytest.raises(
        TypeError, match="Flow takes a Bijection or a list of them, and a Base or a distribution"
    ):
        Flow(*built)


def test_it_is_exact_if_its_bijection_is():
    class Bound(Affine):
        is_exact = False

    assert affine_flow().is_exact
    assert not Flow(Compose([Affine(0.0, 0.0), Bound(0.0, 0.0)]), StandardNormal(2)).is_exact


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_one_seed_gives_the_same_samples_on_a_gpu(x):
    flow = affine_flow()
    here = flow.sample(100, generator=torch.Generator().manual_seed(1)), flow.log_prob(x)
    flow.to("cuda")
    there = flow.sample(100, generator=torch.Generator().manual_seed(1)), flow.log_prob(x.to("cuda"))
    for one, other in zip(here, there, strict=True):
        assert other.device.type == "cuda"
        torch.testing.assert_close(one, other.cpu(), rtol=1e-13, atol=1e-13)
