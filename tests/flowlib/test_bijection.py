"""Compose and Inverse on layers whose maps are known by heart."""

import math

import pytest
import torch

from flowlib import check
from flowlib.bijection import Bijection, Compose, Inverse, sum_event


class Times(Bijection):
    """x = factor · z, or factor · z · e^context with a context of one number per row."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor, dtype=torch.float64))

    def _log_scale(self, points, context):
        log_scale = self.factor.log().to(points.dtype)
        return log_scale.expand(points.shape[0]) if context is None else log_scale + context[:, 0]

    def forward(self, z, context=None):
        s = self._log_scale(z, context)
        return z * s.exp()[:, None], z.shape[1] * s

    def inverse(self, x, context=None):
        s = self._log_scale(x, context)
        return x * (-s).exp()[:, None], -x.shape[1] * s


class Cube(Bijection):
    """x = z³ away from 0."""

    def forward(self, z, context=None):
        return z**3, sum_event((3 * z**2).log())

    def inverse(self, x, context=None):
        z = x.sign() * x.abs() ** (1 / 3)
        return z, -sum_event((3 * z**2).log())


class Guess(Times):
    is_exact = False


@pytest.fixture
def z():
    return torch.rand(6, 2, dtype=torch.float64) + 0.5


def test_compose_applies_the_first_layer_first(z):
    x, log_det = Compose([Times(2.0), Cube()])(z)
    torch.testing.assert_close(x, (2 * z) ** 3)
    torch.testing.assert_close(log_det, (24 * z**2).log().sum(1))


def test_the_inverse_of_compose_applies_the_last_layer_first(z):
    z_back, log_det = Compose([Times(2.0), Cube()]).inverse(8 * z**3)
    torch.testing.assert_close(z_back, z)
    torch.testing.assert_close(log_det, -(24 * z**2).log().sum(1))


@pytest.mark.parametrize(
    "bijection",
    [
        Compose([Times(2.0), Cube(), Times(0.5)]),
        Inverse(Compose([Times(2.0), Cube()])),
        Compose([Inverse(Cube()), Compose([Times(3.0), Cube()])]),
        Inverse(Inverse(Cube())),
        Compose([]),
    ],
    ids=["compose", "inverse", "nested", "twice", "empty"],
)
def test_both_directions_agree_with_autograd(bijection, z):
    assert check.log_det_error(bijection, z) < 1e-12
    assert check.round_trip_error(bijection, z) < 1e-12


def test_the_empty_composition_is_the_identity(z):
    for direction in (Compose([]), Compose([]).inverse):
        same, log_det = direction(z)
        assert torch.equal(same, z)
        assert torch.equal(log_det, torch.zeros(6, dtype=torch.float64))


def test_inverse_swaps_the_directions(z):
    cube, root = Cube(), Inverse(Cube())
    for one, other in ((cube(z), root.inverse(z)), (cube.inverse(z), root(z))):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_each_row_sees_its_own_context(z):
    context = torch.linspace(-1, 1, 6, dtype=torch.float64)[:, None]
    for bijection in (Compose([Times(2.0), Times(3.0)]), Compose([Inverse(Inverse(Times(6.0))), Times(1.0)])):
        x, log_det = bijection(z, context)
        torch.testing.assert_close(x, 6 * z * (2 * context).exp())
        torch.testing.assert_close(log_det, 2 * (math.log(6) + 2 * context[:, 0]))
        assert check.round_trip_error(bijection, z, context) < 1e-12
        assert check.log_det_error(bijection, z, context) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [0, 1, 6])
def test_shapes_and_precision_are_kept(z, n, dtype):
    for bijection in (Compose([Times(2.0), Cube()]), Compose([]), Inverse(Cube())):
        for direction in (bijection, bijection.inverse):
            points, log_det = direction(z[:n].to(dtype))
            assert points.shape == (n, 2)
            assert log_det.shape == (n,)
            assert points.dtype == log_det.dtype == dtype


def test_gradients_reach_every_layer(z):
    bijection = Compose([Times(2.0), Inverse(Times(3.0))])
    bijection(z)[1].sum().backward()
    # log_det = 2 (log a - log b) for each of the six points
    gradients = [p.grad.item() for p in bijection.parameters()]
    assert gradients == pytest.approx([12 / 2, -12 / 3])


def test_a_composition_is_exact_if_all_its_layers_are():
    assert Compose([Cube(), Inverse(Cube())]).is_exact
    assert Compose([]).is_exact
    assert not Compose([Cube(), Guess(2.0)]).is_exact
    assert not Inverse(Compose([Guess(2.0)])).is_exact


def test_a_composition_is_a_sequence_of_its_layers():
    layers = [Times(2.0), Cube()]
    assert list(Compose(iter(layers))) == layers
    assert len(Compose(layers)) == 2


def test_a_layer_without_methods_says_so(z):
    with pytest.raises(NotImplementedError, match=r"Bijection has no forward\(z, context\)"):
        Bijection()(z)
    with pytest.raises(NotImplementedError, match=r"Bijection has no inverse\(x, context\)"):
        Bijection().inverse(z)


def test_sum_event_keeps_the_batch():
    assert sum_event(torch.ones(3, 2, 4, 5)).tolist() == [40.0] * 3
    assert sum_event(torch.ones(3)).tolist() == [1.0] * 3
    assert sum_event(torch.ones(0, 2)).shape == (0,)
