"""What assignment 5 asks, what it is worth, and how it is judged."""

import torch

from tools.grade.judging import draw, log_volume, made, near, numbers, pair, slopes
from tools.grade.rubric import Probe, Rubric, Wrong

rubric = Rubric(5, "Continuous flows, and a project")

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

    probe.check(3, "one draw", lambda: at(1))
    probe.check(3, "three draws", lambda: at(3))


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
    def table(name, least):
        rows = probe.value(name)
        if not isinstance(rows, torch.Tensor) or rows.dim() != 2 or not 2 <= rows.shape[1] <= 4:
            raise Wrong(f"{name} must be a tensor of shape (n, d) with d from 2 to 4.")
        if len(rows) < least:
            raise Wrong(f"{name} has {len(rows)} rows; at least {least} were asked for.")
        return numbers(rows, tuple(rows.shape))

    def both():
        train, test = table("project_train", 400), table("project_test", 100)
        if train.shape[1] != test.shape[1]:
            raise Wrong("project_train and project_test have different columns.")
        if set(map(tuple, train.tolist())) & set(map(tuple, test.tolist())):
            raise Wrong("Some rows are in both project_train and project_test.")
        return train, test

    def mass():
        train, _ = both()
        d = train.shape[1]
        # ∫ p by importance sampling: a Student's t that is wider than the data
        normal, scale = draw(14, 40_000, d), draw(15, 40_000, 4).square().sum(1, keepdim=True) / 4
        L = 1.5 * torch.linalg.cholesky(torch.cov(train.T))
        x = train.mean(0) + (normal / scale.sqrt()) @ L.T
        distance = (normal**2).sum(1) / scale[:, 0]
        log_q = torch.lgamma(torch.tensor((4.0 + d) / 2)) - torch.lgamma(torch.tensor(2.0))
        log_q = log_q - d / 2 * torch.log(torch.tensor(4 * torch.pi)) - L.diagonal().log().sum()
        log_q = log_q - (4 + d) / 2 * torch.log1p(distance / 4)
        answer = numbers(probe.ask("project_log_prob", x), (len(x),))
        near((answer - log_q).exp().mean(), 1.0, 0.1)

    def better():
        train, test = both()
        mass()
        gaussian = torch.distributions.MultivariateNormal(train.mean(0), torch.cov(train.T))
        answer = numbers(probe.ask("project_log_prob", test), (len(test),))
        gain = (answer.mean() - gaussian.log_prob(test).mean()).item()
        if not gain >= 0.02:
            raise Wrong(f"It gains {gain:.3f} nats over the Gaussian; at least 0.02 were asked for.")

    probe.check(2, "the data: shapes, sizes, nothing in both parts", both)
    probe.check(5, "the density integrates to one, within a tenth", mass)
    probe.check(5, "better than the Gaussian on the test data", better)


rubric.written("5.11", "Your own data, told", 20)
