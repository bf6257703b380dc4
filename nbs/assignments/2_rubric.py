"""What assignment 2 asks, what it is worth, and how it is judged."""

import functools
import math
import random

import torch
from torch import Tensor

from tools.grade.judging import at_most, draw, log_volume, near, numbers, pair, slopes
from tools.grade.rubric import Probe, Rubric, Wrong

rubric = Rubric(2, "Likelihood and planar flows")
LOG_2PI = math.log(2 * math.pi)
TYPED = 1e-5  # what six significant digits are good for


# --- right answers ------------------------------------------------------------------------


def right_nll(x, A, c):
    Sigma = A @ A.T
    return -torch.distributions.MultivariateNormal(c, Sigma).log_prob(x).mean()


def right_planar(z, w, u, b):
    return z + torch.tanh(z @ w + b)[:, None] * u


def right_log_prob(z, w, u, b):
    log_det = (1 + (u @ w) * (1 - torch.tanh(z @ w + b) ** 2)).abs().log()
    return -(z**2).sum(1) / 2 - z.shape[1] / 2 * LOG_2PI - log_det


def layer(m, seed, d=3):
    """w, u and b of a layer with u·w = m, and neither along the other."""
    w, u = draw(seed, d), draw(seed + 1, d)
    return w, u + (m - u @ w) * w / (w @ w), 0.3


def variant(student):
    """The student's numbers, drawn as the notebook draws them."""
    rng = rubric.constants(student)
    mix = [[rng.uniform(-1, 1) + 2 * (i == j) for j in range(3)] for i in range(3)]
    cube = [[rng.uniform(-1, 1) for _ in range(3)] for _ in range(400)]
    data = torch.tensor(cube, dtype=torch.float64) @ torch.tensor(mix, dtype=torch.float64).T + rng.uniform(
        1, 3
    )
    w = torch.tensor([rng.uniform(0.5, 1.5) for _ in range(3)], dtype=torch.float64)
    u = torch.tensor([rng.uniform(0.5, 1.5) for _ in range(3)], dtype=torch.float64)
    return data, w, u, rng.uniform(0.5, 1.5)


def wave_density(tilt, x):
    """The density of the student's wave: the shear keeps areas, and six numbers from [-1, 1] add up."""
    t, height = x.T
    y = ((height - tilt * torch.sin(1.5 * t)) / 0.2 + 6) / 2  # the sum of six numbers from [0, 1]
    spline = sum((-1) ** k * math.comb(6, k) * (y - k).clamp(min=0) ** 5 for k in range(7))
    return torch.where((t.abs() <= 3) & (y > 0) & (y < 6), spline / math.factorial(5) / 2 / 0.2 / 6, 0.0)


def new_points(tilt, n):
    """Points of the student's wave that the notebook does not have."""
    rng = random.Random(20_000 + n)
    t = torch.tensor([rng.uniform(-3, 3) for _ in range(n)], dtype=torch.float64)
    noise = torch.tensor([sum(rng.uniform(-1, 1) for _ in range(6)) for _ in range(n)], dtype=torch.float64)
    return torch.stack([t, tilt * torch.sin(1.5 * t) + 0.2 * noise], 1)


# --- questions ----------------------------------------------------------------------------

rubric.written("2.1", "What the likelihood can see", 8)


@rubric.question("2.2", "The risk", 10, "linear_nll")
def risk(probe: Probe) -> None:
    A, c, x = draw(1, 4, 4), draw(2, 4), 2 * draw(3, 50, 4) + 1
    A[0] *= torch.linalg.det(A).sign()
    mirrored = A.clone()
    mirrored[0] *= -1
    probe.check(5, "a dense matrix", lambda: near(probe.ask("linear_nll", x, A, c), right_nll(x, A, c)))
    says = "a matrix with a negative determinant"
    probe.check(3, says, lambda: near(probe.ask("linear_nll", x, mirrored, c), right_nll(x, mirrored, c)))
    small = 1e-3 * (torch.eye(150, dtype=torch.float64) + 0.02 * draw(4, 150, 150))
    y = draw(5, 20, 150) @ small.T
    want = (
        (torch.linalg.solve(small, y.T).T ** 2).sum(1).mean() / 2
        + 75 * LOG_2PI
        + torch.linalg.slogdet(small)[1]
    )
    says = "150 dimensions, where the determinant underflows"
    probe.check(2, says, lambda: near(probe.ask("linear_nll", y, small, torch.zeros(150).double()), want))


@rubric.question("2.3", "The best linear flow", 6, "best_linear")
def best(probe: Probe) -> None:
    x = draw(6, 12, 3) @ draw(7, 3, 3) + 4
    S = (x - x.mean(0)).T @ (x - x.mean(0)) / len(x)

    def part(i, shape):
        return numbers(pair(probe, "best_linear", x)[i], shape)

    probe.check(2, "c", lambda: near(part(1, (3,)), x.mean(0)))
    probe.check(2, "A Aᵀ is the covariance", lambda: near(part(0, (3, 3)) @ part(0, (3, 3)).T, S))
    probe.check(
        2,
        "A, lower triangular with a positive diagonal",
        lambda: near(part(0, (3, 3)), torch.linalg.cholesky(S)),
    )


@rubric.question("2.4", "The gradient", 10, "linear_gradient")
def gradient(probe: Probe) -> None:
    A, c, x = draw(8, 3, 3) + 2 * torch.eye(3).double(), draw(9, 3), 2 * draw(10, 40, 3)
    point = torch.cat([A.flatten(), c])[None]

    def nll(points):
        return torch.stack([right_nll(x, p[:9].reshape(3, 3), p[9:]) for p in points])[:, None]

    want = slopes(nll, point)[0, 0]

    def part(i, shape):
        return numbers(pair(probe, "linear_gradient", x, A, c)[i], shape)

    says = "against finite differences"
    probe.check(6, f"∂L/∂A {says}", lambda: near(part(0, (3, 3)), want[:9].reshape(3, 3), 1e-5))
    probe.check(4, f"∂L/∂c {says}", lambda: near(part(1, (3,)), want[9:], 1e-5))


@rubric.question("2.5", "The floor for your data", 6, "nll_floor", "useless_rotation")
def floor(probe: Probe) -> None:
    data = variant(probe.student)[0]
    S = (data - data.mean(0)).T @ (data - data.mean(0)) / len(data)
    least = torch.logdet(S) / 2 + 1.5 * (1 + LOG_2PI)
    probe.check(3, "nll_floor", lambda: near(probe.value("nll_floor"), least, TYPED))

    def rotated():
        A = numbers(probe.value("useless_rotation"), (3, 3))
        near(A @ A.T, S, 10 * TYPED)
        if A.triu(1).abs().max() < 1e-6:
            raise Wrong("It attains the floor, but it is lower triangular.")

    probe.check(3, "useless_rotation attains it and is not lower triangular", rotated)


@rubric.question("2.6", "The layer", 10, "planar")
def planar(probe: Probe) -> None:
    z = draw(11, 30, 3)
    layers = {
        "u·w = 1.7": layer(1.7, 12),
        "u·w = −0.6": layer(-0.6, 14),
        "u·w = −4, which folds": layer(-4.0, 16),
    }

    def part(i, name):
        return pair(probe, "planar", z, *layers[name])[i]

    def volume(name):
        return log_volume(lambda z: right_planar(z, *layers[name]), z)

    first, second, folds = layers
    probe.check(2, f"x, {first}", lambda: near(part(0, first), right_planar(z, *layers[first])))
    probe.check(2, f"x, {second}", lambda: near(part(0, second), right_planar(z, *layers[second])))
    probe.check(2, f"log-det, {first}", lambda: near(part(1, first), volume(first)))
    probe.check(2, f"log-det, {second}", lambda: near(part(1, second), volume(second)))
    probe.check(2, f"log-det, {folds}", lambda: near(part(1, folds), volume(folds), 1e-5))


@rubric.question("2.7", "How far can it go?", 4, "smallest_factor")
def factor(probe: Probe) -> None:
    _, w, u, _ = variant(probe.student)
    probe.check(4, "smallest_factor", lambda: near(probe.value("smallest_factor"), -1 / (u @ w), TYPED))


@rubric.question("2.8", "The inverse", 12, "planar_inverse")
def inverse(probe: Probe) -> None:
    def round_trip(seed, z, *products):
        def judge():
            for m in products:
                w, u, b = layer(m, seed)
                answer = numbers(
                    probe.ask("planar_inverse", right_planar(z, w, u, b), w, u, b), tuple(z.shape)
                )
                near(answer, z)

        return judge

    z = draw(18, 60, 3)
    probe.check(
        3, "where the fixed-point iteration works: u·w = −0.5, 0.3, 0.8", round_trip(19, z, -0.5, 0.3, 0.8)
    )
    probe.check(3, "where it does not: u·w = 3, 9, 40", round_trip(20, z, 3.0, 9.0, 40.0))
    probe.check(2, "close to the fold: u·w = −0.9, −0.99", round_trip(21, z, -0.9, -0.99))
    probe.check(2, "u·w = 1000", round_trip(22, z, 1000.0))
    probe.check(2, "points as far out as 1000", round_trip(23, 400 * z, -0.9, 2.0, 100.0))


@rubric.question("2.9", "The density", 8, "planar_log_prob")
def density(probe: Probe) -> None:
    def at(m, seed, d):
        w, u, b = layer(m, seed, d)
        z = draw(seed + 2, 40, d)
        answer = probe.ask("planar_log_prob", right_planar(z, w, u, b), w, u, b)
        near(answer, right_log_prob(z, w, u, b), 1e-5)

    probe.check(3, "u·w = 2.5, three dimensions", lambda: at(2.5, 24, 3))
    probe.check(3, "u·w = −0.7, five dimensions", lambda: at(-0.7, 27, 5))

    def mass():
        w, u, b = layer(1.2, 30, 2)
        side = torch.linspace(-9, 9, 181, dtype=torch.float64)
        answer = probe.ask("planar_log_prob", torch.cartesian_prod(side, side), w, u, b)
        near(numbers(answer, (181**2,)).exp().sum() * 0.1**2, 1.0, 1e-3)

    probe.check(2, "it integrates to one", mass)


@rubric.question("2.10", "Invertible by construction", 6, "corrected")
def construction(probe: Probe) -> None:
    def at(m, seed):
        w, u, _ = layer(m, seed)
        u_hat = numbers(probe.ask("corrected", u, w), (3,))
        softplus = m if m > 50 else math.log1p(math.exp(m))
        near(u_hat @ w, softplus - 1)
        near(u_hat - (u_hat @ w) * w / (w @ w), u - (u @ w) * w / (w @ w))

    probe.check(3, "u·w = −2.3", lambda: at(-2.3, 33))
    probe.check(2, "u·w = 1.4", lambda: at(1.4, 35))
    probe.check(1, "u·w = 1000", lambda: at(1000.0, 37))


rubric.written("2.11", "Another bend", 8)


@rubric.question("2.12", "A flow for your wave", 12, "my_log_prob")
def trained(probe: Probe) -> None:
    tilt = variant(probe.student)[3]
    wave = new_points(tilt, 2000)
    # the wave is a shear of a box with noise: volumes stay, so the entropy is log 6 + that of the noise
    truth = math.log(6) + 0.1553
    gaussian = (torch.logdet(torch.cov(wave.T)) / 2 + 1 + LOG_2PI).item()
    # a point in each little square, so that 100 of them lie on a unit of area
    side = torch.arange(-80, 80, dtype=torch.float64) / 10
    squares = torch.cartesian_prod(side, side)
    x = torch.cat([wave, squares + torch.special.ndtr(draw(39, len(squares), 2)) / 10])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(40))

    @functools.cache
    def log_prob():
        """One call for all points: who answers cannot tell those that count for the mass from the wave's."""
        answer = probe.ask("my_log_prob", x[order])
        if isinstance(answer, Tensor) and answer.is_floating_point():
            answer = answer.clamp(min=-1e4)  # a density of zero
        return numbers(answer, (len(x),))[order.argsort()]

    def mass():
        # every point stands for as much area as it and its like are rare
        near((log_prob().exp() / (len(wave) * wave_density(tilt, x) + 100)).sum(), 1.0, 0.02)

    def counts(bound):
        def judge():
            mass()
            at_most(-log_prob()[: len(wave)].mean(), bound)

        return judge

    probe.check(4, "it integrates to one", mass)
    probe.check(4, "better than half-way from the best Gaussian to the truth", counts((gaussian + truth) / 2))
    probe.check(4, "within 0.25 nats of the truth", counts(truth + 0.25))
