"""What assignment 1 asks, what it is worth, and how it is judged."""

import math

import torch

from tools.grade.judging import draw, log_volume, made, near, numbers, pair, slopes
from tools.grade.rubric import Code, Probe, Rubric, Wrong

rubric = Rubric(1, "Change of variables and Jacobians")
LOG_2PI = math.log(2 * math.pi)
TYPED = 1e-5  # what six significant digits are good for


# --- right answers ------------------------------------------------------------------------


def variant(student):
    """The student's numbers, drawn as the notebook draws them."""
    rng = rubric.constants(student)
    low, high = round(rng.uniform(0.2, 0.8), 2), round(rng.uniform(1.5, 2.5), 2)
    matrix = torch.tensor([[rng.uniform(-1, 1) for _ in range(3)] for _ in range(3)], dtype=torch.float64)
    point = torch.tensor([rng.uniform(0.5, 2.0) for _ in range(2)], dtype=torch.float64)
    return low, high, matrix - 2 * torch.eye(3, dtype=torch.float64), point


def elliptic(z):
    mu, nu = z.T
    return torch.stack([mu.cosh() * nu.cos(), mu.sinh() * nu.sin()], 1)


def coordinates(seed, n):
    """Rows (μ, ν) away from the axis."""
    u = torch.special.ndtr(draw(seed, n, 2))
    quarter = (torch.arange(n) % 4).double()
    return torch.stack([0.1 + 2 * u[:, 0], (quarter + 0.1 + 0.8 * u[:, 1]) * math.pi / 2], 1)


def right_stack(z, L):
    return (z @ L.T).sinh() @ L.T


def triangular(seed, d):
    L = 0.3 * draw(seed, d, d).tril(-1)
    return L + torch.diag(torch.linspace(0.4, 1.3, d, dtype=torch.float64))


# --- questions ----------------------------------------------------------------------------


@rubric.question("1.1", "A decreasing map", 8, "p_reciprocal")
def reciprocal(probe: Probe) -> None:
    low, high, *_ = variant(probe.student)
    x = torch.linspace(1 / high + 0.01, 1 / low - 0.01, 40, dtype=torch.float64)
    outside = torch.tensor([-1.0, 0.0, 0.5 / high, 1 / low + 0.1, 9.0], dtype=torch.float64)
    probe.check(
        5, "the density where X lives", lambda: near(probe.ask("p_reciprocal", x), 1 / x**2 / (high - low))
    )
    probe.check(3, "zero elsewhere, at 0 too", lambda: near(probe.ask("p_reciprocal", outside), 0 * outside))


@rubric.question("1.2", "Two preimages", 10, "p_shifted_square")
def square(probe: Probe) -> None:
    def at(a, x):
        root = x.clamp(min=0).sqrt()
        cdf = torch.special.ndtr
        # against the slope of the exact distribution function
        step = 1e-6
        up, down = (x + step).sqrt(), (x - step).sqrt()
        want = (cdf(a + up) - cdf(a - up) - cdf(a + down) + cdf(a - down)) / (2 * step)
        near(probe.ask("p_shifted_square", x, a), torch.where(root > 0, want, 0 * x), 1e-5)

    x = torch.linspace(0.05, 9, 50, dtype=torch.float64)
    probe.check(4, "a = 0", lambda: at(0.0, x))
    probe.check(4, "a = 1.3 and a = −0.7", lambda: (at(1.3, x), at(-0.7, x)))
    negative = torch.tensor([-0.01, -1.0, -50.0], dtype=torch.float64)
    says = "zero for negative x"
    probe.check(2, says, lambda: near(probe.ask("p_shifted_square", negative, 1.3), 0 * negative))


@rubric.question("1.3", "Which map makes this density?", 10, "triangle_map")
def triangle(probe: Probe) -> None:
    u = torch.linspace(0, 1, 101, dtype=torch.float64)

    def at(c):
        x = numbers(probe.ask("triangle_map", u, c), (101,))
        cdf = torch.where(x <= c, x**2 / c, 1 - (1 - x) ** 2 / (1 - c))
        near(cdf, u, 1e-7)
        if x.min() < 0 or x.max() > 1 or bool((x.diff() <= 0).any()):
            raise Wrong("It leaves [0, 1], or does not increase.")

    probe.check(5, "c = 0.5", lambda: at(0.5))
    probe.check(5, "c = 0.15 and c = 0.9", lambda: (at(0.15), at(0.9)))


rubric.written("1.4", "Entropy under a map", 8)


@rubric.question("2.1", "A determinant that you can trust", 8, "log_volume")
def volume_of_maps(probe: Probe) -> None:
    A = draw(1, 3, 3)
    A[0] *= -torch.linalg.det(A).sign()
    z = draw(2, 20, 3)

    bent, code = made("lambda z: torch.tanh(z @ A.T) + 0.7 * z @ A.T", A=A)
    probe.check(
        4,
        "a map in three dimensions",
        lambda: near(probe.ask("log_volume", code, z), log_volume(bent, z), 1e-5),
    )
    linear = Code("lambda z: z @ A.T", {"A": A})
    want = torch.linalg.slogdet(A).logabsdet.expand(20)
    probe.check(2, "a negative determinant", lambda: near(probe.ask("log_volume", linear, z), want))
    small = Code("lambda z: 1e-3 * z")
    want = torch.full((2,), 200 * math.log(1e-3), dtype=torch.float64)
    probe.check(
        2,
        "200 dimensions, volume 10⁻⁶⁰⁰",
        lambda: near(probe.ask("log_volume", small, draw(3, 2, 200)), want),
    )


@rubric.question("2.2", "Your matrix", 6, "volume", "density_inside")
def matrix(probe: Probe) -> None:
    size = torch.linalg.det(variant(probe.student)[2]).abs()
    probe.check(3, "volume", lambda: near(probe.value("volume"), size, TYPED))
    probe.check(3, "density_inside", lambda: near(probe.value("density_inside"), 1 / size, TYPED))


@rubric.question("2.3", "Elliptic coordinates", 12, "elliptic_log_det", "elliptic_inverse")
def ellipses(probe: Probe) -> None:
    z = coordinates(4, 60)
    says = "log-det against finite differences"
    probe.check(6, says, lambda: near(probe.ask("elliptic_log_det", z), log_volume(elliptic, z)))

    def inverse(rows):
        near(probe.ask("elliptic_inverse", elliptic(z[rows])), z[rows], 1e-6)

    probe.check(3, "the inverse in the first quarter", lambda: inverse(torch.arange(60) % 4 == 0))
    probe.check(3, "the inverse in the other three", lambda: inverse(torch.arange(60) % 4 > 0))


@rubric.question("2.4", "The same, for a density", 8, "p_elliptic", "p_at_point")
def elliptic_density(probe: Probe) -> None:
    z = coordinates(5, 50)
    want = torch.exp(-z[:, 0] - log_volume(elliptic, z)) / (2 * math.pi)
    probe.check(5, "p_elliptic at new points", lambda: near(probe.ask("p_elliptic", elliptic(z)), want))

    def at_point():
        x = variant(probe.student)[3]
        far, close = torch.hypot(x[0] + 1, x[1]), torch.hypot(x[0] - 1, x[1])
        mu, nu = torch.acosh((far + close) / 2), torch.acos((far - close) / 2)
        want = torch.exp(-mu) / (mu.sinh() ** 2 + nu.sin() ** 2) / (2 * math.pi)
        near(probe.value("p_at_point"), want, TYPED)

    probe.check(3, "p_at_point", at_point)


rubric.written("2.5", "Area on a surface", 8)


@rubric.question("3.1", "A stack", 14, "stack", "stack_log_prob")
def stacked(probe: Probe) -> None:
    z, L = 0.6 * draw(6, 30, 4), triangular(7, 4)

    x = right_stack(z, L)
    volume = torch.linalg.slogdet(slopes(lambda z: right_stack(z, L), z)).logabsdet
    probe.check(3, "x", lambda: near(pair(probe, "stack", z, L)[0], x))
    probe.check(5, "log-det against finite differences", lambda: near(pair(probe, "stack", z, L)[1], volume))
    want = -(z**2).sum(1) / 2 - 2 * LOG_2PI - volume
    probe.check(6, "stack_log_prob", lambda: near(probe.ask("stack_log_prob", x, L), want))


rubric.written("3.2", "One parameter", 8)
