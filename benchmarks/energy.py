r"""An energy-based model of the digits, trained without its normaliser, which is estimated afterwards.

Lecture 16 derives all of it. Points are whitened logits, in which the Gaussian fit of the data is N(0, I).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Generator, Tensor

from flowlib import MLP, Base, Bijection, Compose, Dequantize, Flow, Logit, Triangular

LogDensity = Callable[[Tensor], Tensor]
ALPHA, LEVELS = 0.05, 17


class Energy(Base):
    r"""The density :math:`p(w) = e^{-E(w)} / Z` with :math:`E(w) = \tfrac12 |w|^2 + u(w)`.

    ``log_Z`` is that of the Gaussian until it is estimated. Samples are the ends of Langevin chains.
    """

    log_Z: Tensor

    def __init__(self, d: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__(d)
        self.u = MLP(d, 1, hidden)
        self.register_buffer("log_Z", torch.tensor(0.5 * d * math.log(2 * math.pi)))

    def energy(self, w: Tensor) -> Tensor:
        return 0.5 * w.square().sum(1) + self.u(w).squeeze(1)

    def log_prob(self, z: Tensor) -> Tensor:
        return -self.energy(z) - self.log_Z

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        start = torch.randn(n, *self.event_shape, generator=generator, dtype=torch.float64).to(self.anchor)
        return langevin(self.energy, start, 400, 0.05, generator)


def slope(f: LogDensity, w: Tensor) -> tuple[Tensor, Tensor]:
    """The values of a function of points, and its gradients."""
    with torch.enable_grad():
        w = w.detach().requires_grad_()
        values = f(w)
        return values.detach(), torch.autograd.grad(values.sum(), w)[0]


def langevin(
    energy: LogDensity, w: Tensor, steps: int, step: float, generator: Generator | None = None
) -> Tensor:
    """Downhill by half a step, and a noise whose variance is the step, again and again."""
    for _ in range(steps):
        noise = torch.randn(w.shape, generator=generator, dtype=w.dtype)
        w = w - 0.5 * step * slope(energy, w)[1] + math.sqrt(step) * noise
    return w


class DenoisingScoreMatching:
    """The slope of the energy at a noisy point is to tell the noise."""

    def __init__(self, sigma: float) -> None:
        self.sigma = sigma

    def __call__(self, model: Energy, w: Tensor) -> Tensor:
        noise = torch.randn_like(w)
        noisy = (w + self.sigma * noise).requires_grad_()
        (gradient,) = torch.autograd.grad(model.energy(noisy).sum(), noisy, create_graph=True)
        return 0.5 * (self.sigma * gradient - noise).square().sum(1)


class ContrastiveDivergence:
    """Persistent: the energy falls at the data, and rises where Langevin chains, never begun anew, have come.

    A small pull on the energies' size keeps both terms from running off together.
    """

    def __init__(self, d: int, chains: int, steps: int, step: float, pull: float = 1e-3) -> None:
        self.chains, self.steps, self.step, self.pull = torch.randn(chains, d), steps, step, pull

    def __call__(self, model: Energy, w: Tensor) -> Tensor:
        some = torch.randint(len(self.chains), (len(w),))
        self.chains[some] = langevin(model.energy, self.chains[some], self.steps, self.step)
        low, high = model.energy(w), model.energy(self.chains[some])
        return low - high + self.pull * (low.square() + high.square()) / model.event_shape.numel()


class EnergyFlow(Flow):
    """An energy-based model of whole numbers for ``fit``: a call gives minus its loss, ``log_prob`` log p."""

    def __init__(
        self, layers: Iterable[Bijection], energy: Energy, loss: Callable[[Energy, Tensor], Tensor]
    ) -> None:
        super().__init__(layers, energy)
        self.loss, self.energy = loss, energy

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            w = self.bijection.inverse(x)[0]
        return -self.loss(self.energy, w)


def anneal(
    start: LogDensity, end: LogDensity, w: Tensor, steps: int, step: float, backward: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Annealed importance sampling by :math:`\log f_\beta = (1 - \beta) \log f_0 + \beta \log f_1`.

    Between two densities, a Langevin step that is accepted or refused leaves the present one as it is.

    Args:
        start, end: :math:`\log f_0` and :math:`\log f_1`, neither of which has to be normalised.
        w: draws of the first, or of the last if ``backward``.
        steps: how many times beta moves.
        step: of Langevin, the variance of its noise.

    Returns:
        the logarithms of the weights, whose means are :math:`Z_1/Z_0`, backward its inverse; the last points.
    """
    betas = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    betas = betas.flip(0) if backward else betas
    log_weight, here = w.new_zeros(len(w)), _both(start, end, w)
    for k in range(steps):
        change = (betas[k + 1] - betas[k]).item()
        log_weight += change * (here[1] - here[0])
        if k + 1 < steps:
            w, here = _metropolis(start, end, w, here, betas[k + 1].item(), step)
    return log_weight, w


def settle(log_density: LogDensity, w: Tensor, steps: int, step: float) -> Tensor:
    """Chains that leave a density as it is, from any points."""
    here = _both(log_density, log_density, w)
    for _ in range(steps):
        w, here = _metropolis(log_density, log_density, w, here, 1.0, step)
    return w


Both = tuple[Tensor, Tensor, Tensor, Tensor]


def _both(start: LogDensity, end: LogDensity, w: Tensor) -> Both:
    """Two log-densities, then their slopes."""
    (a, slope_a), (b, slope_b) = slope(start, w), slope(end, w)
    return a, b, slope_a, slope_b


def _metropolis(
    start: LogDensity, end: LogDensity, w: Tensor, here: Both, beta: float, step: float
) -> tuple[Tensor, Both]:
    """A Langevin step, accepted with the probability that keeps the density of this beta."""
    uphill = (1 - beta) * here[2] + beta * here[3]
    noise = torch.randn_like(w)
    proposal = w + 0.5 * step * uphill + math.sqrt(step) * noise
    there = _both(start, end, proposal)
    back = w - proposal - 0.5 * step * ((1 - beta) * there[2] + beta * there[3])
    log_ratio = (1 - beta) * (there[0] - here[0]) + beta * (there[1] - here[1])
    log_ratio += 0.5 * (noise.square() - back.square() / step).sum(1)
    yes = torch.rand(len(w)).log() < log_ratio
    w = torch.where(yes[:, None], proposal, w)
    a, b = (torch.where(yes, there[i], here[i]) for i in (0, 1))
    slope_a, slope_b = (torch.where(yes[:, None], there[i], here[i]) for i in (2, 3))
    return w, (a, b, slope_a, slope_b)


def log_mean(log_weight: Tensor) -> float:
    """The logarithm of the mean of the weights."""
    return log_weight.logsumexp(0).item() - math.log(len(log_weight))


def effective(log_weight: Tensor) -> float:
    """The effective sample size: the square of the weights' sum over the sum of their squares."""
    return (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp().item()


def whitening(images: Tensor) -> list:
    """The layers from whitened logits to whole numbers, fitted to images in rows."""
    outer = Compose([Logit(ALPHA), Dequantize(LEVELS)])
    logits = torch.cat([outer.inverse(images)[0] for _ in range(10)]).double()
    L = torch.linalg.cholesky(logits.T.cov())
    white = Triangular(images.shape[1]).requires_grad_(False)
    white.lower.copy_(L)
    white.log_diagonal.copy_(L.diagonal().log())
    white.b.copy_(logits.mean(0))
    return [white, *outer]
