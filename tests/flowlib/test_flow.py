"""The flow: its density against known maps, and a sentence for everything wrong at its door."""

import copy
import math

import pytest
import torch
from torch.distributions import AffineTransform, Independent, Normal, TransformedDistribution, Uniform

from flowlib import check
from flowlib.bases import StandardNormal, UniformBox
from flowlib.bijection import Bijection, Compose, Inverse, sum_event
from flowlib.flow import Flow


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


def test_encode_and_decode_undo_each_other(x):
    flow = Flow(Compose([Affine(0.7, -1.0), Sinh()]), StandardNormal(2)).double()
    torch.testing.assert_close(flow.decode(flow.encode(x)), x, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(flow.decode(x), (math.exp(0.7) * x - 1).sinh())


def test_the_inverse_layer_swaps_encode_and_decode(x):
    flow, swapped = (Flow(b, StandardNormal(2)).double() for b in (Sinh(), Inverse(Sinh())))
    assert torch.equal(flow.decode(x), swapped.encode(x))
    assert torch.equal(flow.encode(x), swapped.decode(x))


def test_each_row_sees_its_own_context(x):
    flow = affine_flow(3)
    context = torch.randn(8, 3, dtype=torch.float64)
    together = flow.log_prob(x, context)
    alone = torch.cat([flow.log_prob(x[i : i + 1], context[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(together, alone)
    assert not torch.allclose(together, flow.log_prob(x, context.flip(0)))


def test_maximum_likelihood_finds_its_gradient(x):
    flow = affine_flow()
    (-flow(x).mean()).backward()
    gradients = [p.grad for p in flow.parameters()]
    assert len(gradients) == 4
    assert all(gradient.isfinite() and gradient != 0 for gradient in gradients)


# --- samples ----------------------------------------------------------------------------


def test_samples_carry_their_own_density():
    flow = Flow(Compose([Affine(0.7, -1.0), Sinh()]), StandardNormal(2)).double()
    x, log_p = flow.sample_and_log_prob(200, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_p, flow.log_prob(x), rtol=1e-12, atol=1e-12)


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


def test_no_points_and_one_point_are_allowed(x):
    flow = affine_flow()
    for n in (0, 1):
        assert flow.log_prob(x[:n]).shape == (n,)
        assert flow.encode(x[:n]).shape == flow.decode(x[:n]).shape == flow.sample(n).shape == (n, 2)
        assert [p.shape for _, p in flow.trajectory(x[:n])] == [(n,)] * 3


def test_a_flow_on_images_keeps_their_shape():
    flow = Flow(Compose([Affine(0.3, 0.1), Sinh()]), StandardNormal((3, 4, 2))).double()
    x, log_p = flow.sample_and_log_prob(5)
    assert flow.event_shape == x.shape[1:] == (3, 4, 2)
    torch.testing.assert_close(log_p, flow.log_prob(x))


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


def test_a_single_layer_has_one_step(x):
    steps = Flow(Sinh(), StandardNormal(2)).double().trajectory(x)
    assert [u.shape for u, _ in steps] == [(8, 2), (8, 2)]


# --- torch.distributions ------------------------------------------------------------------


def test_as_distribution_agrees_with_torch_for_every_number_of_leading_dimensions():
    ours, theirs = affine_flow().as_distribution(), torchs_own()
    for lead in ((), (5,), (3, 4)):
        value = torch.randn(*lead, 2, dtype=torch.float64)
        assert ours.log_prob(value).shape == lead
        torch.testing.assert_close(ours.log_prob(value), theirs.log_prob(value), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("lead", [(0,), (2, 0)])
def test_as_distribution_takes_no_points(lead):
    distribution = affine_flow().as_distribution()
    assert distribution.log_prob(distribution.sample(lead)).shape == lead


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


def test_as_distribution_keeps_its_context():
    flow = affine_flow(2)
    row = torch.tensor([3.0, 4.0], dtype=torch.float64)
    value = torch.randn(3, 4, 2, dtype=torch.float64)
    expected = flow.log_prob(value.reshape(12, 2), row.expand(12, -1)).reshape(3, 4)
    for context in (row, row[None]):
        distribution = flow.as_distribution(context)
        torch.testing.assert_close(distribution.log_prob(value), expected)
        assert distribution.sample((50,)).mean() > 5


def test_as_distribution_works_as_a_base_of_torch():
    distribution = TransformedDistribution(affine_flow().as_distribution(), [])
    value = torch.randn(3, 2, dtype=torch.float64)
    torch.testing.assert_close(distribution.log_prob(value), torchs_own().log_prob(value))


@pytest.mark.parametrize("shape", [(5, 3), (3,), (), (2, 2, 1)])
def test_as_distribution_refuses_values_that_are_no_points(shape):
    with pytest.raises(ValueError, match=r"it must end in \(2,\), one point"):
        affine_flow().as_distribution().log_prob(torch.zeros(shape, dtype=torch.float64))


def test_as_distribution_does_not_reorder_images():
    flow = Flow(Sinh(), StandardNormal((2, 3))).double()
    with pytest.raises(ValueError, match=r"value has shape \(5, 3, 2\)"):
        flow.as_distribution().log_prob(torch.zeros(5, 3, 2, dtype=torch.float64))


# --- the door -------------------------------------------------------------------------------

TAKES_X = ["log_prob", "forward", "encode"]
TAKES_Z = ["decode", "trajectory"]


@pytest.mark.parametrize("method", TAKES_X + TAKES_Z)
class TestTheDoor:
    def refused(self, error, sentence, method, *arguments, context_features=0):
        with pytest.raises(error) as refusal:
            getattr(affine_flow(context_features), method)(*arguments)
        assert str(refusal.value) == sentence.format(name="x" if method in TAKES_X else "z")

    def test_something_that_is_no_tensor(self, method):
        sentence = "{name} must be a torch.Tensor and came as list; wrap it: torch.as_tensor({name})."
        self.refused(TypeError, sentence, method, [[0.0, 1.0]])

    @pytest.mark.parametrize("shape", [(), (2,), (5, 3), (5, 2, 1), (5,), (0,), (5, 1)])
    def test_another_shape(self, method, shape):
        sentence = (
            f"{{name}} has shape {shape}; this flow takes (batch, 2). "
            "For a single point use {name}.unsqueeze(0)."
        )
        self.refused(ValueError, sentence, method, torch.zeros(shape, dtype=torch.float64))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bool, torch.complex128])
    def test_another_dtype(self, method, dtype):
        sentence = (
            f"{{name}} is {dtype} and the flow is torch.float64; convert one of them: "
            f"{{name}}.to(torch.float64) or flow.to({dtype})."
        )
        self.refused(TypeError, sentence, method, torch.zeros(5, 2, dtype=dtype))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_points_that_are_not_finite(self, method, value):
        points = torch.zeros(5, 2, dtype=torch.float64)
        points[1, 0] = points[3, 0] = points[3, 1] = value
        sentence = (
            "{name} holds NaN or infinity in 2 of 5 points, the first at index 1; "
            "remove or repair them first."
        )
        self.refused(ValueError, sentence, method, points)

    def test_a_missing_context(self, method):
        sentence = "This flow is conditional: context must be a tensor of shape (5, 3); it is missing."
        self.refused(ValueError, sentence, method, torch.zeros(5, 2).double(), context_features=3)

    def test_a_context_for_a_flow_without(self, method):
        sentence = "This flow takes no context; build it with context_features=… to condition it."
        self.refused(ValueError, sentence, method, torch.zeros(5, 2).double(), torch.zeros(5, 3).double())

    @pytest.mark.parametrize("shape", [(5, 2), (4, 3), (1, 3), (3,), (), (5, 3, 1), (0, 3)])
    def test_a_context_of_another_shape(self, method, shape):
        sentence = f"context must have shape (5, 3) and came as {shape}."
        context = torch.zeros(shape, dtype=torch.float64)
        self.refused(ValueError, sentence, method, torch.zeros(5, 2).double(), context, context_features=3)

    def test_a_context_that_is_no_tensor(self, method):
        sentence = "context must have shape (5, 3) and came as list."
        self.refused(
            ValueError, sentence, method, torch.zeros(5, 2).double(), [[0.0] * 3] * 5, context_features=3
        )

    def test_a_context_of_another_dtype(self, method):
        sentence = (
            "context is torch.float32 on cpu and the flow is torch.float64 on cpu; "
            "use context.to(flow.base.anchor)."
        )
        self.refused(
            ValueError, sentence, method, torch.zeros(5, 2).double(), torch.zeros(5, 3), context_features=3
        )

    def test_a_context_that_is_not_finite(self, method):
        context = torch.full((5, 3), math.nan, dtype=torch.float64)
        sentence = "context holds NaN or infinity; remove or repair those rows first."
        self.refused(ValueError, sentence, method, torch.zeros(5, 2).double(), context, context_features=3)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_points_on_another_device(self, method):
        sentence = (
            "{name} is on cuda:0 and the flow is on cpu; "
            "move one of them: {name}.to(flow.base.device) or flow.to({name}.device)."
        )
        self.refused(ValueError, sentence, method, torch.zeros(5, 2, device="cuda").double())

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_a_context_on_another_device(self, method):
        sentence = (
            "context is torch.float64 on cuda:0 and the flow is torch.float64 on cpu; "
            "use context.to(flow.base.anchor)."
        )
        context = torch.zeros(5, 3, device="cuda").double()
        self.refused(ValueError, sentence, method, torch.zeros(5, 2).double(), context, context_features=3)


@pytest.mark.parametrize("n", [-1, 2.0, True, False, "3", None, (3,), torch.tensor(3)])
@pytest.mark.parametrize("method", ["sample", "rsample", "sample_and_log_prob"])
def test_a_number_of_samples_that_is_none(method, n):
    with pytest.raises(ValueError, match="n must be a whole number of points, 0 or more, and came as"):
        getattr(affine_flow(), method)(n)


@pytest.mark.parametrize("method", ["sample", "rsample", "sample_and_log_prob"])
def test_samples_with_a_wrong_context(method):
    with pytest.raises(ValueError, match=r"context must be a tensor of shape \(4, 3\); it is missing"):
        getattr(affine_flow(3), method)(4)
    with pytest.raises(ValueError, match=r"context must have shape \(4, 3\) and came as \(2, 3\)"):
        getattr(affine_flow(3), method)(4, torch.zeros(2, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="This flow takes no context"):
        getattr(affine_flow(), method)(4, torch.zeros(4, 3, dtype=torch.float64))


def test_a_shape_sentence_names_every_dimension():
    flow = Flow(Sinh(), StandardNormal((3, 8, 8)))
    with pytest.raises(ValueError, match=r"this flow takes \(batch, 3, 8, 8\)"):
        flow.log_prob(torch.zeros(3, 8, 8))


# --- one model, everywhere ------------------------------------------------------------------


def test_it_is_exact_if_its_bijection_is():
    class Bound(Affine):
        is_exact = False

    assert affine_flow().is_exact
    assert not Flow(Compose([Affine(0.0, 0.0), Bound(0.0, 0.0)]), StandardNormal(2)).is_exact


def test_saving_and_loading_keeps_the_density(x, tmp_path):
    flow = affine_flow()
    torch.save(flow.state_dict(), tmp_path / "flow.pt")
    other = Flow(Compose([Affine(0.0, 0.0), Affine(0.0, 0.0)]), StandardNormal(2)).double()
    assert not torch.equal(other.log_prob(x), flow.log_prob(x))
    other.load_state_dict(torch.load(tmp_path / "flow.pt", weights_only=True))
    assert torch.equal(other.log_prob(x), flow.log_prob(x))


def test_a_copy_has_its_own_parameters(x):
    flow = affine_flow()
    before, twin = flow.log_prob(x), copy.deepcopy(flow)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(1.0)
    assert torch.equal(twin.log_prob(x), before)
    assert not torch.equal(flow.log_prob(x), before)


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
