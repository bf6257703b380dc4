"""What assignment 5 asks, what it is worth, and how it is judged."""

import functools
import math
from collections import Counter

import torch
from torch import Tensor

from tools.grade.judging import draw, log_volume, made, near, numbers, pair, slopes
from tools.grade.rubric import Probe, Rubric, Wrong

rubric = Rubric(5, "Continuous flows, and a project")
LOG_2PI = math.log(2 * math.pi)
MODULES = "torch, numpy, scipy, sklearn, matplotlib, flowlib and Python's own modules"

FIELD = "lambda x, t: torch.tanh(x @ A.T + t) + 0.3 * x * (1 - t)"


# --- right answers ------------------------------------------------------------------------


def field(seed, d):
    """A velocity, and what students are sent of it."""
    return made(FIELD, A=draw(seed, d, d))


def step(v, x, t, h):
    a = v(x, t)
    b = v(x + h * a / 2, t + h / 2)
    c = v(x + h * b / 2, t + h / 2)
    return x + h * (a + 2 * b + 2 * c + v(x + h * c, t + h)) / 6


def solved(v, z, steps):
    for n in range(steps):
        z = step(v, z, n / steps, 1 / steps)
    return z


def right_velocity(x, t, data, sigma):
    width = 1 - (1 - sigma) * t
    log_weights = -((x[:, None] - t * data) ** 2).sum(2) / (2 * width**2)
    weights = (log_weights - log_weights.logsumexp(1, keepdim=True)).exp()
    return weights @ data - (1 - sigma) * (x - t * weights @ data) / width


def variant(student):
    """The student's numbers, drawn as the notebook draws them."""
    rng = rubric.constants(student)
    matrix = torch.tensor([[rng.uniform(-1, 1) for _ in range(3)] for _ in range(3)], dtype=torch.float64)
    start = torch.tensor([rng.uniform(0.5, 1.5) for _ in range(3)], dtype=torch.float64)
    return matrix, start, round(rng.uniform(0.5, 1.5), 2)


def some(rows, most):
    """At most so many of the rows, drawn by chance."""
    return rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(14))[:most]]


def proposal(data, n):
    """2n points, half wide and half where the (standardised) data are, and their log-density."""
    d, centres = data.shape[1], some(data, 500)
    # as wide as the way to the tenth neighbour, so that tight clusters are met too
    widths = torch.cdist(centres, centres).sort(1).values[:, min(10, len(centres) - 1)].clamp(min=0.02)
    turn = torch.arange(n) % len(centres)
    chi = draw(15, n, 4).square().sum(1, keepdim=True)
    wide = 1.5 * draw(14, n, d) / (chi / 4).sqrt()  # Student's t with four degrees of freedom
    points = torch.cat([wide, centres[turn] + widths[turn, None] * draw(19, n, d)])
    log_t = math.lgamma(2 + d / 2) - d / 2 * math.log(9 * math.pi)
    log_t = log_t - (2 + d / 2) * (points**2 / 9).sum(1).log1p()
    log_kernels = torch.cat(
        [
            (-(torch.cdist(part, centres) ** 2) / (2 * widths**2) - d * widths.log()).logsumexp(1)
            for part in points.split(5000)
        ]
    )
    log_kernels = log_kernels - d / 2 * LOG_2PI - math.log(len(centres))
    return points, torch.logaddexp(log_t, log_kernels) - math.log(2)


# --- questions ----------------------------------------------------------------------------


@rubric.question("5.1", "Runge and Kutta", 6, "rk4")
def runge_kutta(probe: Probe) -> None:
    v, sent = field(1, 3)
    z = draw(2, 20, 3)
    probe.check(3, "one step", lambda: near(probe.ask("rk4", sent, z, 1), solved(v, z, 1)))
    probe.check(3, "seven steps", lambda: near(probe.ask("rk4", sent, z, 7), solved(v, z, 7)))


@rubric.question("5.2", "The density along the way", 10, "flow_with_log_det")
def with_density(probe: Probe) -> None:
    v, sent = field(3, 3)
    z = draw(4, 15, 3)
    end = solved(v, z, 64)
    volume = log_volume(lambda z: solved(v, z, 64), z)
    probe.check(3, "x", lambda: near(pair(probe, "flow_with_log_det", sent, z, 16)[0], end, 1e-4))
    says = "log-det against finite differences of the whole map"
    probe.check(5, says, lambda: near(pair(probe, "flow_with_log_det", sent, z, 16)[1], volume, 1e-3))
    says = "log-det with as many digits as order 4 gives"
    probe.check(2, says, lambda: near(pair(probe, "flow_with_log_det", sent, z, 16)[1], volume, 1e-4))


@rubric.question("5.3", "Hutchinson's estimate", 6, "hutchinson")
def estimate(probe: Probe) -> None:
    v, sent = field(5, 4)
    x, noise = draw(6, 12, 4), draw(7, 3, 12, 4)
    J = slopes(lambda x: v(x, 0.3), x)

    def at(draws):
        want = torch.einsum("rbi,bij,rbj->b", noise[:draws], J, noise[:draws]) / draws
        near(probe.ask("hutchinson", sent, x, 0.3, noise[:draws]), want)

    def large():
        at(1)
        d, h = 30_000, 1e-5
        v, sent = made("lambda x, t: torch.tanh(a * x + t) * x.roll(1, 1)", a=draw(16, d))
        x, noise = draw(17, 1, d), draw(18, 2, 1, d)
        products = [(v(x + h * one, 0.3) - v(x - h * one, 0.3)) / (2 * h) for one in noise]
        near(probe.ask("hutchinson", sent, x, 0.3, noise), (noise * torch.stack(products)).sum(2).mean(0))

    probe.check(2, "one draw", lambda: at(1))
    probe.check(2, "three draws", lambda: at(3))
    probe.check(2, "30,000 dimensions, where no Jacobian fits into the memory", large)


@rubric.question("5.4", "Its variance", 6, "rademacher_variance", "gaussian_variance")
def variance(probe: Probe) -> None:
    A = draw(8, 5, 5)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 5)
    exact = torch.einsum("ni,ij,nj->n", signs, A, signs).var(correction=0)  # over all 32 vectors of signs
    # the mean of (εᵀAε)² by Wick's theorem, less the squared trace
    gaussian = (A * A).sum() + (A * A.T).sum()
    probe.check(3, "rademacher_variance", lambda: near(probe.ask("rademacher_variance", A), exact))
    probe.check(3, "gaussian_variance", lambda: near(probe.ask("gaussian_variance", A), gaussian))


rubric.written("5.5", "The instantaneous change of variables", 8)


@rubric.question("5.6", "A linear field", 8, "linear_end", "linear_log_det")
def linear(probe: Probe) -> None:
    matrix, start, horizon = variant(probe.student)
    end = solved(lambda x, t: horizon * x @ matrix.T, start[None], 2000)[0]
    probe.check(4, "linear_end", lambda: near(probe.value("linear_end"), end, 1e-7))
    probe.check(
        4, "linear_log_det", lambda: near(probe.value("linear_log_det"), horizon * matrix.trace(), 1e-7)
    )


@rubric.question("5.7", "Pairs", 6, "path_and_target")
def pairs(probe: Probe) -> None:
    x0, x1, t = draw(9, 20, 3), draw(10, 20, 3), torch.special.ndtr(draw(11, 20))

    def at(part, sigma):
        def path(t):
            return (1 - (1 - sigma) * t)[:, None] * x0 + t[:, None] * x1

        want = path(t) if part == 0 else (path(t + 1e-4) - path(t - 1e-4)) / 2e-4
        near(pair(probe, "path_and_target", x0, x1, t, sigma)[part], want)

    probe.check(3, "x_t, σ = 0 and 0.1", lambda: (at(0, 0.0), at(0, 0.1)))
    probe.check(3, "u_t, σ = 0 and 0.1", lambda: (at(1, 0.0), at(1, 0.1)))


@rubric.question("5.8", "What perfect training learns", 10, "marginal_velocity")
def perfect(probe: Probe) -> None:
    x, data = draw(12, 20, 2), 2 * draw(13, 9, 2)

    def at(t, sigma):
        near(probe.ask("marginal_velocity", x, t, data, sigma), right_velocity(x, t, data, sigma))

    probe.check(4, "σ = 0, t = 0.2 and 0.6", lambda: (at(0.2, 0.0), at(0.6, 0.0)))
    probe.check(3, "σ = 0.1, t = 0.5", lambda: at(0.5, 0.1))
    probe.check(3, "σ = 0.01, t = 0.99, where weights underflow", lambda: at(0.99, 0.01))


rubric.written("5.9", "Two losses, one gradient", 8)


@rubric.question("5.10", "Your own data, checked", 12, "project_train", "project_test", "project_log_prob")
def project(probe: Probe) -> None:
    def table(name):
        try:
            rows = probe.value(name)
        except Wrong as wrong:
            raise Wrong(f"{wrong} If its cell failed, see that it imports only {MODULES}.") from None
        if not isinstance(rows, Tensor) or rows.dim() != 2 or not 2 <= rows.shape[1] <= 4:
            raise Wrong(f"{name} must be a tensor of shape (n, d) with d from 2 to 4.")
        if len(rows) < 50:
            raise Wrong(f"{name} has {len(rows)} rows, too few to judge a density by.")
        return numbers(rows, tuple(rows.shape))

    @functools.cache
    def both():
        train, test = table("project_train"), table("project_test")
        if train.shape[1] != test.shape[1]:
            raise Wrong("project_train and project_test have different columns.")
        return train, test

    def data():
        train, test = both()
        for name, rows, least in (("project_train", train, 400), ("project_test", test, 100)):
            if len(rows) < least:
                raise Wrong(f"{name} has {len(rows)} rows; at least {least} were asked for.")
        times = Counter(map(tuple, train.tolist()))
        shared = sum(tuple(row) in times for row in test.tolist()) / len(test)
        # rounded rows are equal by chance: no more often between the parts than within one
        chance = sum(n for n in times.values() if n > 1) / len(train)
        if shared > chance + 0.2:
            raise Wrong(f"{shared:.0%} of project_test stand in project_train too, {chance:.0%} there twice.")

    @functools.cache
    def replies():
        """p/q at points drawn from q, and the gains over the Gaussian at test rows and beside them."""
        train, test = both()
        test, mean = some(test, 2000), train.mean(0)
        L, flat = torch.linalg.cholesky_ex(torch.cov(train.T))
        if flat:
            raise Wrong("A column of project_train follows from the others: such data have no density.")
        white, rows = (torch.linalg.solve_triangular(L, (x - mean).T, upper=False).T for x in (train, test))
        points, log_q = proposal(white, 10_000)
        others = some(white, 5000)
        ways = torch.cdist(rows, others)
        ways[ways < 1e-6] = math.inf  # the same row
        way, nearest = ways.min(1, keepdim=True)
        # about half-way, and a little off the line, so that nobody can know the points
        share = 0.3 + 0.4 * torch.special.ndtr(draw(21, len(rows), 1))
        beside = rows + share * (others[nearest[:, 0]] - rows) + 0.05 * way * draw(22, *rows.shape)
        x = torch.cat([mean + points @ L.T, test, mean + beside @ L.T])
        # one call and a shuffled order: who answers cannot tell the points apart
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(20))
        answer = probe.ask("project_log_prob", x[order])
        if isinstance(answer, Tensor) and answer.is_floating_point():
            answer = answer.clamp(min=-1e4)  # a density of zero
        answer = numbers(answer, (len(x),))[order.argsort()] + L.diagonal().log().sum()
        log_p, at_test, at_beside = answer.split([len(points), len(rows), len(rows)])
        gains = [
            (log_density + (z**2 + LOG_2PI).sum(1) / 2).mean().item()
            for log_density, z in ((at_test, rows), (at_beside, beside))
        ]
        return (log_p - log_q).exp(), gains

    def mass():
        ratios = replies()[0]
        near(ratios.mean(), 1.0, 0.1 + 2 * min(0.05, (ratios.std() / len(ratios) ** 0.5).item()))

    def better():
        mass()
        # what is too much mass is no gain
        gain, beside = (gain - replies()[0].mean().log().item() for gain in replies()[1])
        if not gain >= 0.02:
            raise Wrong(f"It gains {gain:.3f} nats over the Gaussian; at least 0.02 were asked for.")
        if beside < gain / 2:
            raise Wrong(
                f"It gains {gain:.3f} nats over the Gaussian at your test rows, yet {beside:.3f} half-way to "
                "the nearest training rows: it has spikes at rows."
            )

    probe.check(2, "the data: shapes, sizes, each row in one part", data)
    probe.check(5, "the density integrates to one, within a tenth", mass)
    probe.check(5, "better than the Gaussian on the test data", better)


rubric.written("5.11", "Your own data, told", 20)
