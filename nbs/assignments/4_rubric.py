"""What assignment 4 asks, what it is worth, and how it is judged."""

import math

import torch

from tools.grade.judging import draw, log_volume, made, near, pair
from tools.grade.rubric import Probe, Rubric

rubric = Rubric(4, "Autoregressive flows, Flow++, VFlow and wavelets")
LOG_2PI = math.log(2 * math.pi)
TYPED = 1e-5  # what six significant digits are good for

MU = "lambda x: torch.sin(x @ A.tril(-1).T) + 0.4"
ALPHA = "lambda x: torch.tanh(x @ B.tril(-1).T) - 0.2"


# --- right answers ------------------------------------------------------------------------


def flow(seed, d):
    """μ and α of an autoregressive flow, and both as they are sent."""
    A, B = draw(seed, d, d), 0.6 * draw(seed + 1, d, d)
    (mu, mu_sent), (alpha, alpha_sent) = made(MU, A=A), made(ALPHA, B=B)
    return mu, alpha, mu_sent, alpha_sent


def normalise(x, mu, alpha):
    return (x - mu(x)) * torch.exp(-alpha(x))


MIXTURE = (
    torch.log(torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)),
    torch.tensor([-3.0, 0.5, 2.0], dtype=torch.float64),
    torch.tensor([-0.7, 0.4, 0.0], dtype=torch.float64),
)


def right_mixture(x, a, b):
    log_pi, mu, log_s = MIXTURE
    t = (x[:, None] - mu) / log_s.exp()
    up = torch.logsumexp(log_pi - torch.nn.functional.softplus(-t), 1)
    down = torch.logsumexp(log_pi - torch.nn.functional.softplus(t), 1)
    return (up - down) * math.exp(a) + b


def variant(student):
    """The student's numbers, drawn as the notebook draws them."""
    rng = rubric.constants(student)
    return round(rng.uniform(0.3, 0.9), 3), round(rng.uniform(0.5, 1.5), 3)


# --- questions ----------------------------------------------------------------------------


@rubric.question("4.1", "MADE's masks", 8, "made_masks")
def masks(probe: Probe) -> None:
    def at(part, degrees, inputs):
        degrees, inputs = torch.tensor(degrees), torch.tensor(inputs)
        want = degrees[:, None] >= inputs if part == 0 else inputs[:, None] > degrees
        answer = pair(probe, "made_masks", degrees, inputs)[part]
        near(answer.double() if isinstance(answer, torch.Tensor) else answer, want.double())

    first, second = ([1, 2, 3, 1, 2, 3, 3], [1, 2, 3, 4]), ([2, 4, 1, 3, 2], [3, 1, 5, 2, 4])
    probe.check(2, "first", lambda: at(0, *first))
    probe.check(2, "second", lambda: at(1, *first))
    probe.check(4, "both for another order of the inputs", lambda: (at(0, *second), at(1, *second)))


@rubric.question("4.2", "The density", 8, "maf_log_prob")
def density(probe: Probe) -> None:
    def at(seed, d):
        mu, alpha, mu_sent, alpha_sent = flow(seed, d)
        x = draw(seed + 2, 25, d)
        volume = log_volume(lambda x: normalise(x, mu, alpha), x)
        want = -(normalise(x, mu, alpha) ** 2).sum(1) / 2 - d / 2 * LOG_2PI + volume
        near(probe.ask("maf_log_prob", x, mu_sent, alpha_sent), want)

    probe.check(5, "three dimensions", lambda: at(1, 3))
    probe.check(3, "seven dimensions", lambda: at(4, 7))


@rubric.question("4.3", "Sampling, one entry after another", 6, "maf_sample")
def sampling(probe: Probe) -> None:
    def at(seed, d):
        mu, alpha, mu_sent, alpha_sent = flow(seed, d)
        x = draw(seed + 2, 25, d)
        near(probe.ask("maf_sample", normalise(x, mu, alpha), mu_sent, alpha_sent), x)

    probe.check(3, "three dimensions", lambda: at(7, 3))
    probe.check(3, "six dimensions", lambda: at(10, 6))


@rubric.question("4.4", "Sampling, all entries at once", 8, "maf_jacobi")
def jacobi(probe: Probe) -> None:
    def at(*steps):
        mu, alpha, mu_sent, alpha_sent = flow(13, 6)
        z = draw(15, 25, 6)
        for n in steps:
            x = torch.zeros_like(z)
            for _ in range(n):
                x = mu(x) + z * alpha(x).exp()
            near(probe.ask("maf_jacobi", z, mu_sent, alpha_sent, n), x)

    probe.check(4, "after 1, 2 and 3 steps", lambda: at(1, 2, 3))
    probe.check(2, "after no step", lambda: at(0))
    probe.check(2, "after as many steps as entries", lambda: at(6))


rubric.written("4.5", "Why Jacobi ends", 10)


@rubric.question("4.6", "The mixture of logistics", 10, "mixture_layer")
def mixture(probe: Probe) -> None:
    x = torch.linspace(-8, 8, 41, dtype=torch.float64)
    far = torch.tensor([-200.0, -90.0, 90.0, 200.0], dtype=torch.float64)

    def at(part, x, a, b):
        step = 1e-5
        slope = (right_mixture(x + step, a, b) - right_mixture(x - step, a, b)) / (2 * step)
        want = right_mixture(x, a, b) if part == 0 else slope.log()
        near(pair(probe, "mixture_layer", x, *MIXTURE, a, b)[part], want, 1e-5 if part else 1e-7)

    probe.check(3, "y", lambda: at(0, x, 0.6, -1.1))
    probe.check(4, "log-slope, against finite differences", lambda: at(1, x, 0.6, -1.1))
    probe.check(3, "both where F rounds to 0 or 1", lambda: (at(0, far, -0.3, 0.2), at(1, far, -0.3, 0.2)))


@rubric.question("4.7", "Its inverse", 10, "mixture_inverse")
def inverse(probe: Probe) -> None:
    def at(x, a, b):
        near(probe.ask("mixture_inverse", right_mixture(x, a, b), *MIXTURE, a, b), x, 1e-6)

    probe.check(
        6, "near the components", lambda: at(torch.linspace(-6, 6, 31, dtype=torch.float64), 0.6, -1.1)
    )
    probe.check(
        4, "as far out as 100", lambda: at(torch.linspace(-99, 99, 31, dtype=torch.float64), -0.3, 0.2)
    )


@rubric.question("4.8", "Two bounds", 10, "vflow_bounds")
def bounds(probe: Probe) -> None:
    source = "lambda x, e: -(x**2).sum(1) / 2 - ((e - x @ A) ** 2).sum(1) + c"
    x, e = draw(16, 12, 3), draw(17, 7, 12, 2)

    def at(part, c):
        log_joint, sent = made(source, A=draw(18, 3, 2), c=c)
        ratio = torch.stack([log_joint(x, one) for one in e]) + (e**2).sum(2) / 2 + LOG_2PI
        want = ratio.mean(0) if part == 0 else torch.logsumexp(ratio, 0) - math.log(7)
        near(pair(probe, "vflow_bounds", sent, x, e)[part], want)

    probe.check(4, "the average of the one-draw bound", lambda: at(0, -2.0))
    probe.check(4, "the bound of all draws together", lambda: at(1, -2.0))
    probe.check(2, "both where densities underflow", lambda: (at(0, -2000.0), at(1, -2000.0)))


@rubric.question("4.9", "Your gap", 6, "expected_gap")
def gap(probe: Probe) -> None:
    # KL(N(0, 1) ‖ N(cx, 1)) = c²x²/2, and x has the variance 1
    probe.check(
        6, "expected_gap", lambda: near(probe.value("expected_gap"), variant(probe.student)[1] ** 2 / 2, 1e-4)
    )


rubric.written("4.10", "The gap, and never worse", 10)


@rubric.question("4.11", "The Haar transform", 8, "haar", "haar_inverse")
def wavelets(probe: Probe) -> None:
    x = draw(19, 3, 1, 4, 6)
    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    corners = torch.stack([x[:, 0, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)
    bands = torch.einsum("kc,bchw->bkhw", signs / 2, corners)
    low, details = bands[:, :1], bands[:, 1:]
    probe.check(2, "low", lambda: near(pair(probe, "haar", x)[0], low))
    probe.check(3, "details", lambda: near(pair(probe, "haar", x)[1], details))
    probe.check(3, "haar_inverse", lambda: near(probe.ask("haar_inverse", low, details), x))


@rubric.question("4.12", "What details cost", 6, "detail_variance", "low_variance", "detail_nats")
def details_cost(probe: Probe) -> None:
    rho = variant(probe.student)[0]
    entropy = 1.5 * (LOG_2PI + 1 + math.log(1 - rho))
    probe.check(1, "detail_variance", lambda: near(probe.value("detail_variance"), 1 - rho, TYPED))
    probe.check(1, "low_variance", lambda: near(probe.value("low_variance"), 1 + 3 * rho, TYPED))
    probe.check(4, "detail_nats", lambda: near(probe.value("detail_nats"), entropy, TYPED))
