"""The base densities: exact values, exact ends, and the same points everywhere."""

import math

import pytest
import torch
from torch.distributions import (
    Categorical,
    Exponential,
    ExpTransform,
    Gamma,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)  # fmt: skip

from flowlib import check
from flowlib.bases import Base, StandardNormal, TorchBase, UniformBox

BASES = [
    StandardNormal(2),
    StandardNormal((3, 2, 2)),
    UniformBox(2, -1.0, 3.0),
    UniformBox((1, 2, 2), 0.1, 0.3),
    TorchBase(Gamma(torch.tensor([2.0, 3.0]), torch.ones(2))),
    TorchBase(TransformedDistribution(Normal(torch.zeros(3), 1.0), [ExpTransform()])),
]


def test_the_normal_agrees_with_torch():
    base = StandardNormal((2, 3)).double()
    z = torch.randn(50, 2, 3, dtype=torch.float64)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum((1, 2))
    torch.testing.assert_close(base.log_prob(z), expected, rtol=1e-14, atol=1e-13)


def test_the_uniform_box_is_constant_inside_and_closed_at_its_ends():
    base = UniformBox(2, -1.0, 3.0).double()
    inside = torch.tensor([[0.0, 0.0], [-1.0, 3.0], [3.0, 3.0]], dtype=torch.float64)
    assert base.log_prob(inside).tolist() == [-2 * math.log(4.0)] * 3


def test_the_uniform_box_is_minus_infinity_outside():
    base = UniformBox(2, 0.0, 1.0)
    outside = torch.tensor([[0.5, 1.0 + 1e-6], [-1e-6, 0.5], [2.0, -2.0], [math.nan, 0.5]])
    assert base.log_prob(outside).tolist() == [-math.inf] * 4


@pytest.mark.parametrize("base", [StandardNormal(2), UniformBox(2, -1.0, 2.0)])
def test_it_integrates_to_one(base):
    assert (
        abs(check.integral(lambda z: base.double().log_prob(z).exp(), ((-7, 7), (-7, 7)), n=700) - 1) < 1e-9
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("base", BASES, ids=repr)
def test_one_seed_gives_the_same_points_in_every_precision(base, dtype):
    base = base.double()
    exact = base.sample(500, torch.Generator().manual_seed(7))
    other = base.to(dtype).sample(500, torch.Generator().manual_seed(7))
    assert other.dtype == dtype
    assert other.shape == (500, *base.event_shape)
    assert torch.equal(other, exact.to(dtype))


@pytest.mark.parametrize("base", BASES, ids=repr)
def test_the_default_dtype_does_not_change_the_points(base):
    base = base.double()
    draws = []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        draws.append(base.sample(5, torch.Generator().manual_seed(1)))
    assert torch.equal(*draws)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_samples_of_the_box_lie_in_the_box_after_rounding(dtype):
    base = UniformBox(1, 0.1, 0.3).to(dtype)
    assert base.log_prob(base.sample(20_000)).isfinite().all()


def torchs_own(dtype: torch.dtype) -> list[torch.distributions.Distribution]:
    mean, matrix = torch.arange(2.0, dtype=dtype), torch.tensor([[4.0, 2.0], [2.0, 2.0]], dtype=dtype)
    several = Independent(Normal(torch.arange(6.0, dtype=dtype).reshape(3, 2), 1.0), 1)
    return [
        MultivariateNormal(mean, matrix),
        MixtureSameFamily(Categorical(torch.ones(3, dtype=dtype)), several),
        Normal(mean, 2.0),  # a batch of two: independent coordinates
    ]


def test_a_base_of_torch_keeps_its_density_when_it_moves():
    z = torch.randn(7, 2, dtype=torch.float64)
    for single, exact in zip(torchs_own(torch.float32), torchs_own(torch.float64), strict=True):
        base = TorchBase(single)
        assert (base.dtype, TorchBase(exact).dtype) == (torch.float32, torch.float64)
        expected = exact.log_prob(z)
        expected = expected.sum(1) if expected.dim() == 2 else expected
        torch.testing.assert_close(base.log_prob(z.float()), expected.float())
        torch.testing.assert_close(base.double().log_prob(z), expected, rtol=1e-12, atol=1e-12)
        assert single.sample().dtype == torch.float32  # what was given stays as it was


def test_a_base_of_torch_has_no_mass_outside_its_support():
    base = TorchBase(Exponential(torch.ones(2)))
    assert base.log_prob(torch.tensor([[1.0, 2.0], [1.0, -2.0]])).tolist() == [-3.0, -math.inf]


def test_a_base_of_torch_is_drawn_with_its_generator_alone():
    base, generator = TorchBase(Normal(torch.zeros(2), 1.0)), torch.Generator().manual_seed(1)
    before = torch.get_rng_state()
    first, second = base.sample(4, generator), base.sample(4, generator)
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, base.sample(4, torch.Generator().manual_seed(1)))


def test_a_base_of_torch_must_be_of_points():
    with pytest.raises(ValueError, match="event_shape must hold positive whole numbers"):
        TorchBase(Normal(0.0, 1.0))


def test_samples_have_the_moments_of_the_density():
    z = StandardNormal(3).double().sample(200_000, torch.Generator().manual_seed(0))
    assert z.mean(0).abs().max() < 0.01  # 4.5 standard errors
    assert (z.T.cov() - torch.eye(3)).abs().max() < 0.015
    z = UniformBox(1, 2.0, 5.0).double().sample(200_000, torch.Generator().manual_seed(0))
    assert abs(z.mean() - 3.5) < 0.01
    assert abs(z.var() - 0.75) < 0.01


@pytest.mark.parametrize("base", [StandardNormal(2), TorchBase(Normal(torch.zeros(2), 1.0))])
def test_without_a_generator_the_global_seed_decides(base):
    torch.manual_seed(3)
    first = base.sample(4)
    torch.manual_seed(3)
    assert torch.equal(first, base.sample(4))
    assert not torch.equal(first, base.sample(4))


@pytest.mark.parametrize("base", BASES, ids=repr)
def test_no_points_are_points_too(base):
    z = base.sample(0)
    assert z.shape == (0, *base.event_shape)
    assert base.log_prob(z).shape == (0,)


def test_a_base_has_nothing_to_save():
    assert StandardNormal(2).state_dict() == {}


@pytest.mark.parametrize("shape", [(), 0, -1, (2, 0), (2, -3), 2.0, (2.0,), True, (2, True), "2", None])
def test_a_wrong_event_shape_is_refused(shape):
    with pytest.raises(ValueError, match="event_shape must hold positive whole numbers, such as"):
        StandardNormal(shape)


def test_an_event_shape_may_be_a_number_or_a_sequence():
    for shape in (2, (2,), [2], torch.Size([2])):
        assert StandardNormal(shape).event_shape == torch.Size([2])


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (0.0, math.inf), (-math.inf, 0.0), (math.nan, 1.0)])
def test_wrong_ends_of_the_box_are_refused(ends):
    with pytest.raises(ValueError, match="low must be below high, both finite; they came as low="):
        UniformBox(2, *ends)


def test_a_base_that_writes_no_methods_says_so():
    with pytest.raises(NotImplementedError, match=r"Base has no log_prob\(z\)"):
        Base(2).log_prob(torch.zeros(1, 2))
    with pytest.raises(NotImplementedError, match=r"Base has no sample\(n, generator\)"):
        Base(2).sample(1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("base", BASES, ids=repr)
def test_one_seed_gives_the_same_points_on_a_gpu(base):
    base = base.double()
    here = base.sample(100, torch.Generator().manual_seed(2))
    there = base.to("cuda").sample(100, torch.Generator().manual_seed(2))
    base.to("cpu")
    assert there.device.type == "cuda"
    assert torch.equal(here, there.cpu())
