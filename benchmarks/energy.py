r"""An energy-based model of the digits, trained without its normaliser, and the normaliser estimated afterwards.

Lecture 16 derives all of it. Points are whitened logits, in which the Gaussian fit of the data is N(0, I).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from flowlib import MLP, Base, Compose, Dequantize, Flow, Logit, Triangular

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
        return langevin(self.energy, start, 1000, 0.02, generator)


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


def denoising_loss(model: Energy, w: Tensor, sigma: float) -> Tensor:
    """Denoising score matching: the slope of the energy at a noisy point tells the noise."""
    noise = torch.randn_like(w)
    noisy = (w + sigma * noise).requires_grad_()
    (gradient,) = torch.autograd.grad(model.energy(noisy).sum(), noisy, create_graph=True)
    return 0.5 * (sigma * gradient - noise).square().sum(1).mean()


class Contrastive:
    """Persistent contrastive divergence: energy down at the data, up where Langevin chains have come."""

    def __init__(self, d: int, chains: int = 256, steps: int = 10, step: float = 0.02) -> None:
        self.chains, self.steps, self.step = torch.randn(chains, d), steps, step

    def loss(self, model: Energy, w: Tensor) -> Tensor:
        some = torch.randint(len(self.chains), (len(w),))
        self.chains[some] = langevin(model.energy, self.chains[some], self.steps, self.step)
        low, high = model.energy(w), model.energy(self.chains[some])
        return low.mean() - high.mean() + 0.001 * (model.u(w).square().mean() + model.u(self.chains[some]).square().mean())


def anneal(
    start: LogDensity, end: LogDensity, w: Tensor, steps: int, step: float, backward: bool = False
) -> tuple[Tensor, Tensor, float]:
    """Annealed importance sampling from w, drawn from one density (from the other one, if backward).

    Each of ``steps`` densities in between is left as it is by a Langevin step that is accepted or refused.

    Returns:
        the log-weights, the last points, and the share of steps that were accepted.
    """
    betas = torch.linspace(0, 1, steps + 1).tolist()
    betas = betas[::-1] if backward else betas

    def both(w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        (a, slope_a), (b, slope_b) = slope(start, w), slope(end, w)
        return a, slope_a, b, slope_b

    log_weight, accepted = torch.zeros(len(w)), 0.0
    here = both(w)
    for before, beta in zip(betas[:-1], betas[1:], strict=True):
        log_weight += (beta - before) * (here[2] - here[0])
        if beta == betas[-1]:
            break
        gradient = (1 - beta) * here[1] + beta * here[3]
        noise = torch.randn_like(w)
        proposal = w + 0.5 * step * gradient + math.sqrt(step) * noise
        there = both(proposal)
        back = (1 - beta) * there[1] + beta * there[3]
        way_back = (w - proposal - 0.5 * step * back).square().sum(1) / (2 * step)
        log_ratio = (1 - beta) * (there[0] - here[0]) + beta * (there[2] - here[2])
        log_ratio += 0.5 * noise.square().sum(1) - way_back
        yes = torch.rand(len(w)).log() < log_ratio
        accepted += yes.double().mean().item() / (steps - 1)
        w = torch.where(yes[:, None], proposal, w)
        here = tuple(
            torch.where(yes.reshape(-1, *[1] * (new.dim() - 1)), new, old)
            for new, old in zip(there, here, strict=True)
        )  # type: ignore[assignment]
    return log_weight, w, accepted


def estimate(log_weight: Tensor) -> tuple[float, float]:
    """log of the weights' mean, and the effective sample size."""
    n = len(log_weight)
    log_Z = log_weight.logsumexp(0) - math.log(n)
    ess = (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()
    return log_Z.item(), ess.item()


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
