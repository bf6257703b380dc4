"""Every density against an independent account of itself: its integral, its samples, its formula."""

import math
import subprocess
import sys

import pytest
import torch

from flowlib import check
from flowlib.data import (
    DENSITIES,
    U1,
    U2,
    U3,
    U4,
    Checkerboard,
    EightGaussians,
    Rings,
    TwoMoons,
    digits,
)
from flowlib.data.density import gauss_legendre

SMOOTH = [density for density in DENSITIES.values() if density is not Checkerboard]


@pytest.fixture(autouse=True)
def _double(same_start):
    torch.set_default_dtype(torch.float64)


@pytest.fixture(params=DENSITIES.values(), ids=DENSITIES.keys())
def density(request):
    return request.param()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_unnormalised_integrates_to_the_normaliser(density):
    total = check.integral(lambda x: density.log_unnormalised(x).exp(), density.box)
    assert math.log(total) == pytest.approx(density.log_normaliser, abs=1e-6)


def test_entropy_is_converged(density):
    assert abs(density.quadrature_entropy(density.nodes * 5 // 4) - density.entropy) < 1e-8


def test_entropy_is_the_samples_mean_negative_log_density(density):
    surprise = -density.log_prob(density.sample(100_000, seeded()))
    error = surprise.std() / math.sqrt(len(surprise))
    # one part in 1e12 for the checkerboard, whose surprise is the same everywhere
    assert abs(surprise.mean() - density.entropy) < 4 * error + 1e-12


def test_samples_fill_cells_as_often_as_the_density_says(density):
    n, cells, fine = 100_000, 20, 20
    (low_x, high_x), (low_y, high_y) = density.box
    low, size = torch.tensor([low_x, low_y]), torch.tensor([high_x - low_x, high_y - low_y])
    middle = (torch.arange(cells * fine) + 0.5) / (cells * fine)
    points = low + size * torch.cartesian_prod(middle, middle)
    mass = density.log_prob(points).exp() * size.prod() / (cells * fine) ** 2
    mass = mass.reshape(cells, fine, cells, fine).sum((1, 3)).flatten()

    place = ((density.sample(n, seeded(1)) - low) / size * cells).floor().long()
    place = place[((place >= 0) & (place < cells)).all(1)]
    count = torch.bincount(place[:, 0] * cells + place[:, 1], minlength=cells**2)

    often = n * mass > 5
    chi_squared = ((count - n * mass)[often] ** 2 / (n * mass)[often]).sum()
    freedom = int(often.sum())
    assert freedom > 50
    assert abs(chi_squared - freedom) < 4 * math.sqrt(2 * freedom)


def test_one_seed_gives_the_same_points_in_every_precision(density):
    before = torch.get_rng_state()
    double = density.sample(100, seeded(2))
    torch.set_default_dtype(torch.float32)
    single = density.sample(100, seeded(2))
    assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
    assert torch.equal(double.float(), single)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(single, density.sample(100, seeded(3)))
    assert density.sample(0).shape == (0, 2)
    assert density.log_prob(density.sample(0)).shape == (0,)


@pytest.mark.parametrize(("dtype", "tol"), [(torch.float32, 1e-4), (torch.bfloat16, 0.2)])
def test_keeps_the_dtype(density, dtype, tol):
    x = density.sample(200, seeded()).to(dtype)
    exact = density.log_prob(x.double())
    assert density.log_prob(x).dtype == dtype
    inside = exact.isfinite()  # rounding to 8 bits may carry a point off the checkerboard
    assert torch.allclose(density.log_prob(x)[inside].double(), exact[inside], rtol=tol, atol=tol)


@pytest.mark.parametrize("cls", SMOOTH)
def test_gradient(cls):
    points = torch.cat([cls().sample(3, seeded()), torch.tensor([[0.3, -0.2]])])
    scores = torch.func.vmap(torch.func.grad(lambda point: cls().log_prob(point[None])[0]))(points)
    assert torch.autograd.gradcheck(cls().log_prob, points.requires_grad_())
    assert torch.allclose(scores, torch.autograd.grad(cls().log_prob(points).sum(), points)[0])


@pytest.mark.parametrize("cls", SMOOTH)
@pytest.mark.parametrize("where", [0.0, 1e3, -1e3])
def test_finite_at_the_origin_and_far_away(cls, where):
    x = torch.full((1, 2), where, requires_grad=True)
    value = cls().log_prob(x)
    value.backward()
    assert value.isfinite()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("x", "error", "words"),
    [
        ([[0.0, 0.0]], TypeError, "came as list"),
        (torch.zeros(3, 2, dtype=torch.int64), TypeError, "came as torch.int64"),
        (torch.zeros(2), ValueError, r"shape \(N, 2\), one point per row, and came as \(2,\)"),
        (torch.zeros(3, 3), ValueError, r"came as \(3, 3\)"),
        (torch.tensor([[0.0, 0.0], [math.nan, 0.0]]), ValueError, "in 1 of 2 points, the first at index 1"),
        (torch.tensor([[math.inf, 0.0]]), ValueError, "NaN or infinity in 1 of 1"),
    ],
)
def test_rejects_points(x, error, words):
    with pytest.raises(error, match=words):
        TwoMoons().log_prob(x)


# --- each against its own formula, written another way -------------------------------------


def points_in(density, n=500):
    low, high = (torch.tensor(ends) for ends in zip(*density.box, strict=True))
    return low + (high - low) * torch.rand(n, 2, generator=seeded(4))


def test_eight_gaussians_are_a_mixture_of_normals():
    turn = torch.arange(8) * math.pi / 4
    centres = torch.stack([2 * turn.cos(), 2 * turn.sin()], 1)
    one = torch.distributions.Independent(torch.distributions.Normal(centres, 0.25), 1)
    weights = torch.distributions.Categorical(logits=torch.zeros(8))
    mixture = torch.distributions.MixtureSameFamily(weights, one)
    x = points_in(EightGaussians())
    assert torch.allclose(EightGaussians().log_prob(x), mixture.log_prob(x), rtol=1e-12)


def arcs(x, radius, end, std):
    """log of the mean, over angles in [0, end], of a Gaussian about a circle: 40 panels of 20 nodes."""
    t, w = gauss_legendre(torch.linspace(0, end, 41).tolist(), 20)
    circle = radius * torch.stack([t.cos(), t.sin()], 1)
    squares = ((x[:, None] - circle) ** 2).sum(2)
    return torch.logsumexp((w / end).log() - squares / (2 * std**2), 1) - math.log(2 * math.pi * std**2)


def test_rings_are_the_integral_over_the_angle():
    x = points_in(Rings())
    direct = torch.stack([arcs(x, radius, 2 * math.pi, 0.15) for radius in (1, 2, 3)]).logsumexp(0)
    assert torch.allclose(Rings().log_prob(x), direct - math.log(3), rtol=0, atol=1e-11)


def test_two_moons_are_the_integral_over_the_angle():
    x = points_in(TwoMoons())
    both = torch.stack([arcs(x, 1, math.pi, 0.1), arcs(torch.tensor([1, 0.5]) - x, 1, math.pi, 0.1)])
    assert torch.allclose(TwoMoons().log_prob(x), both.logsumexp(0) - math.log(2), rtol=0, atol=1e-11)


def test_checkerboard_squares_are_closed_and_alternate():
    dark = torch.tensor([[1, 1], [-1, -1], [-3, 1], [3, 3], [1, -3], [0, 0], [2, 2], [-4, -4], [4, 1.0 + 2]])
    light = torch.tensor([[1, -1], [-1, 1], [3, 1], [-3, -1], [4.001, 3], [5, 5], [1, 9.0]])
    assert Checkerboard().log_prob(dark).exp() == pytest.approx(1 / 32)
    assert Checkerboard().log_prob(light).exp().sum() == 0


def test_checkerboard_samples_stay_on_it_in_single_precision():
    torch.set_default_dtype(torch.float32)
    assert Checkerboard().log_prob(Checkerboard().sample(200_000, seeded())).isfinite().all()


def paper(k, z1, z2):
    """The energies of Rezende and Mohamed (2015), Table 1, in plain Python."""
    w1 = math.sin(2 * math.pi * z1 / 4)
    w2 = 3 * math.exp(-0.5 * ((z1 - 1) / 0.6) ** 2)
    w3 = 3 / (1 + math.exp(-(z1 - 1) / 0.3))

    def bump(value, width):
        return math.exp(-0.5 * (value / width) ** 2)

    return {
        1: 0.5 * ((math.hypot(z1, z2) - 2) / 0.4) ** 2 - math.log(bump(z1 - 2, 0.6) + bump(z1 + 2, 0.6)),
        2: 0.5 * ((z2 - w1) / 0.4) ** 2,
        3: -math.log(bump(z2 - w1, 0.35) + bump(z2 - w1 + w2, 0.35)),
        4: -math.log(bump(z2 - w1, 0.4) + bump(z2 - w1 + w3, 0.35)),
    }[k]


@pytest.mark.parametrize(("k", "cls"), [(1, U1), (2, U2), (3, U3), (4, U4)])
def test_energies_are_the_papers_between_the_walls(k, cls):
    z = 8 * torch.rand(300, 2, generator=seeded()) - 4
    wanted = torch.tensor([-paper(k, z1, z2) for z1, z2 in z.tolist()])
    assert torch.allclose(cls().log_unnormalised(z), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("cls", [U2, U3, U4])
def test_walls_confine_what_is_uniform_between_them(cls):
    z2, weights = gauss_legendre((-12.0, 8.0), 300)
    z1 = torch.tensor([-3.9, 0.0, 1.3, 4.0, 4.4, -6.8])
    marginal = torch.stack([weights @ cls().log_prob(torch.stack([a.expand(300), z2], 1)).exp() for a in z1])
    beyond = torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 7.0])  # in widths of the wall
    assert torch.allclose(marginal / marginal[0], torch.exp(-0.5 * beyond**2), rtol=1e-9, atol=0)


@pytest.mark.parametrize("cls", [U2, Checkerboard])
def test_closed_entropies_agree_with_quadrature(cls):
    assert cls().entropy == pytest.approx(cls().quadrature_entropy(64), abs=1e-10)


def test_gauss_legendre_is_exact_on_polynomials_and_across_a_kink():
    t, w = gauss_legendre((-1.0, 0.0, 2.0), 4)
    assert float(w @ t**7) == pytest.approx((2**8 - 1) / 8, rel=1e-13)
    assert float(w @ t.abs()) == pytest.approx(0.5 + 2, rel=1e-13)


# --- digits --------------------------------------------------------------------------------


def test_digits_have_the_pixels_they_came_with():
    images, labels = digits("all")
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == labels.dtype == torch.int64
    assert (int(images.min()), int(images.max())) == (0, 16)
    assert labels[:10].tolist() == list(range(10))
    assert images[0, 0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


def test_digits_split_is_a_fixed_partition():
    (train, train_labels), (test, test_labels) = digits(), digits("test")
    assert (len(train), len(test)) == (1437, 360)
    rows = torch.cat([train, test]).flatten(1)
    everything = digits("all")[0].flatten(1)
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, everything.tolist()))
    assert set(train_labels.tolist()) == set(test_labels.tolist()) == set(range(10))
    # pinned: the lectures' numbers depend on which images these are
    assert test_labels[:12].tolist() == [7, 9, 4, 7, 0, 2, 6, 1, 3, 1, 3, 7]


def test_digits_reject_another_split():
    with pytest.raises(ValueError, match="split must be one of train, test, all and came as 'valid'"):
        digits("valid")


def test_digits_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match="pip install scikit-learn"):
        digits()


def test_importing_the_data_needs_no_extra():
    extras = {"sklearn", "matplotlib", "pooch", "PIL", "requests"}
    code = f"import sys, flowlib.data; assert not {extras} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
