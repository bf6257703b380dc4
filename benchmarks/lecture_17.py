"""Lecture 17's TarFlows, by seed and budget: ``python -m benchmarks.lecture_17``, ten minutes of one core.

The likelihood run dequantises the digits by uniform noise, at two budgets. The sample run, with larger
patches, adds Gaussian noise of three sizes instead, and asks what denoising and guidance make of its samples.
All models are told the label nine times in ten, so each also knows the digits without one. One thread.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from benchmarks.experiment import baselines, publish
from flowlib import (
    MODELS,
    Bijection,
    Dequantize,
    Flow,
    Logit,
    StandardNormal,
    TarFlowBlock,
    bits_per_dim,
    denoise,
    fit,
)
from flowlib.data import digits

SHAPE, LEVELS, CLASSES, DRAWS, SEEDS = (1, 8, 8), 17, 10, 10, range(3)
BUDGETS, SAMPLE_STEPS = (300, 1500), 300
SIGMAS, WEIGHTS, EACH = (0.1, 0.2, 0.3), (0.0, 2.0), 30  # EACH samples of every class
SETTINGS: dict[str, Any] = {"batch_size": 32, "lr": 4e-3, "progress": False}
SIZES: dict[str, Any] = {"layers": 8, "hidden": (64,), "context_features": CLASSES}


def tarflow(top: Sequence[Bijection], patch: int) -> Flow:
    """A new TarFlow, with what lies between it and the data."""
    blocks = MODELS["tarflow"](SHAPE, patch=patch, **SIZES).bijection
    return Flow([*blocks, *top], StandardNormal(SHAPE), CLASSES).float()


def uniformly_dequantised(patch: int = 2) -> Flow:
    """For whole numbers 0 … 16."""
    return tarflow([Logit(0.05), Dequantize(LEVELS)], patch)


class AddNoise(Bijection):
    """On the way in, noise of deviation σ; on the way out nothing, for it cannot be taken back."""

    is_exact = False

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z, z.new_zeros(z.shape[0])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x + self.sigma * torch.randn_like(x), x.new_zeros(x.shape[0])


def with_and_without(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Every image ten times, nine times with its label and once with zeros in its place."""
    rows = one_hot(labels, CLASSES).float()
    return images.repeat(10, 1, 1, 1), torch.cat([rows] * 9 + [torch.zeros_like(rows)])


def train(flow: Flow, images: Tensor, labels: Tensor, steps: int, seed: int) -> float:
    """Train and return the processor seconds."""
    start = time.process_time()
    x, rows = with_and_without(images, labels)
    fit(flow, x, context=rows, steps=steps, seed=seed, **SETTINGS)
    return time.process_time() - start


# --- the likelihood run ---------------------------------------------------------------------------


@torch.no_grad()
def log_probs(flow: Flow, images: Tensor, rows: Tensor, draws: int) -> Tensor:
    """log p of every image under every row of context, ``(draws, rows, images)``.

    Bayes' rule compares one point under all classes, so a draw's noise is the same under every row.
    """
    found = []
    for draw, row in product(range(draws), rows):
        torch.manual_seed(1 + draw)
        found.append(flow.log_prob(images, row.expand(len(images), -1)))
    return torch.stack(found).unflatten(0, (draws, -1)).double()


@torch.no_grad()
def told(flow: Flow, images: Tensor, labels: Tensor, draws: int) -> float:
    """Bits per dimension of images with their labels, one draw of noise at a time, averaged."""
    torch.manual_seed(1)
    rows = one_hot(labels, CLASSES).float()
    return bits(torch.stack([flow.log_prob(images, rows) for _ in range(draws)]))


def bits(log_p: Tensor) -> float:
    return bits_per_dim(log_p.double().mean(), SHAPE).item()


def scores(flow: Flow, images: Tensor, labels: Tensor) -> dict[str, float]:
    """Bits per dimension with and without labels, and the share that the Bayes classifier names rightly."""
    rows = torch.cat([torch.eye(CLASSES), torch.zeros(1, CLASSES)]).float()
    log_p = log_probs(flow, images, rows, DRAWS)
    of_classes = log_p[:, :CLASSES]
    return {
        "label": bits(of_classes.gather(1, labels.expand(DRAWS, 1, -1))),
        "averaged out": bits(of_classes.logsumexp(1) - math.log(CLASSES)),
        "no label": bits(log_p[:, CLASSES]),
        "accuracy": (of_classes.argmax(1) == labels).double().mean().item(),
    }


@torch.no_grad()
def sampling(flow: Flow, n: int = 100) -> dict[str, Any]:
    """Processor seconds for n samples in three ways, and Jacobi's passes to a millionth, block by block."""
    blocks = [part for part in copy.deepcopy(flow).double().bijection if isinstance(part, TarFlowBlock)]
    z0 = flow.base.sample(n, torch.Generator().manual_seed(0)).double()
    context = one_hot(torch.arange(n) % CLASSES, CLASSES).double()
    clock, passes = {}, []
    for way in ("cache", "no cache", "Jacobi"):
        z, start = z0, time.process_time()
        for block in blocks:
            if way == "cache":
                z = block(z, context)[0]
            elif way == "no cache":
                z = without_cache(block, z, context)
            else:
                z, _, count = block.jacobi(z, context, 1e-6)
                passes.append(count)
        clock[way] = round(time.process_time() - start, 3)
    return {"seconds": clock, "passes": passes}


def without_cache(block: Any, z: Tensor, context: Tensor) -> Tensor:
    """A block's points, with the network run anew over all patches so far for every patch."""
    tokens = block.patches(z)
    x = tokens[:, :1]
    for i in range(1, tokens.shape[1]):
        alpha, mu = block._alpha_and_mu(block.net(x, context))
        x = torch.cat([x, tokens[:, i : i + 1] * alpha[:, -1:].exp() + mu[:, -1:]], 1)
    return block.image(x)


# --- the sample run -------------------------------------------------------------------------------


class Judge:
    """A small classifier: its hidden layer is the space in which samples and digits are compared."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        torch.manual_seed(0)
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh())
        self.net = nn.Sequential(self.hidden, nn.Linear(32, CLASSES)).float()
        adam = torch.optim.Adam(self.net.parameters(), 1e-2, weight_decay=1e-4)
        x = images / 8 - 1
        for _ in range(300):
            adam.zero_grad()
            cross_entropy(self.net(x + 0.1 * torch.randn_like(x)), labels).backward()
            adam.step()

    @torch.no_grad()
    def compare(self, samples: Tensor, wanted: Tensor, real: Tensor, real_labels: Tensor) -> dict[str, float]:
        """Samples of grey levels 0 … 16, asked for by class, beside digits that no model has seen."""
        x, y = samples.clamp(0, 16) / 8 - 1, real / 8 - 1
        agreed = (self.net(x).argmax(1) == wanted).double().mean().item()
        here, there = spread(self.hidden(x), wanted), spread(self.hidden(y), real_labels)
        return {
            "distance": frechet(self.hidden(x).double(), self.hidden(y).double()),
            "agreement": agreed,
            "variety": here / there,
        }


def frechet(a: Tensor, b: Tensor) -> float:
    """The Fréchet distance of two Gaussians with the moments of a and b."""
    A, B = a.T.cov(), b.T.cov()
    cross = torch.linalg.eigvals(A @ B).real.clamp(min=0).sqrt().sum()
    return ((a.mean(0) - b.mean(0)).square().sum() + A.trace() + B.trace() - 2 * cross).item()


def spread(features: Tensor, labels: Tensor) -> float:
    """The mean distance within a class from the class's mean."""
    away = [
        (part - part.mean(0)).norm(dim=1).mean() for k in range(CLASSES) if len(part := features[labels == k])
    ]
    return torch.stack(away).mean().item()


def drawn(flow: Flow, weight: float, seed: int) -> tuple[Tensor, Tensor]:
    """EACH samples of every class with guidance, and what was asked for."""
    wanted = torch.arange(CLASSES).repeat(EACH)
    blocks = [part for part in flow.bijection if isinstance(part, TarFlowBlock)]
    for block in blocks:
        block.guidance = weight
    generator = torch.Generator().manual_seed(100 + seed)
    x = flow.sample(len(wanted), one_hot(wanted, CLASSES).float(), generator)
    for block in blocks:
        block.guidance = 0.0
    return x, wanted


def likelihood_run(images: Tensor, labels: Tensor, new: Tensor, new_labels: Tensor) -> dict[str, Any]:
    """Both budgets with every seed, and what sampling costs after the larger one."""
    runs, clock = [], []
    for seed, steps in product(SEEDS, BUDGETS):
        torch.manual_seed(seed)
        flow = uniformly_dequantised()
        seconds = train(flow, images, labels, steps, seed)
        found = {"test": scores(flow, new, new_labels), "train": told(flow, images, labels, 1)}
        runs.append({"steps": steps, "seed": seed, **found, "seconds": round(seconds, 1)})
        print(runs[-1], flush=True)
        if steps == BUDGETS[-1]:
            clock.append({"seed": seed, **sampling(flow)})
            print(clock[-1], flush=True)
    return {"runs": runs, "sampling": clock}


def sample_run(images: Tensor, labels: Tensor, new: Tensor, new_labels: Tensor, judge: Judge) -> list[dict]:
    """Uniform noise and Gaussian noise of three sizes: samples as they come, denoised, and guided."""
    table = []
    for seed, sigma in product(SEEDS, (None, *SIGMAS)):
        torch.manual_seed(seed)
        if sigma is None:
            flow, start = uniformly_dequantised(patch=4), images
        else:
            flow, start = tarflow([AddNoise(sigma)], patch=4), images / 8 - 1
        train(flow, start, labels, SAMPLE_STEPS, seed)
        for weight in WEIGHTS:
            x, wanted = drawn(flow, weight, seed)
            kinds = {False: x if sigma is None else 8 * (x + 1)}
            if sigma is not None:
                noisy = Flow(list(flow.bijection)[:-1], flow.base, CLASSES)  # of points that have their noise
                kinds[True] = 8 * (denoise(noisy, x, sigma, one_hot(wanted, CLASSES).float()) + 1)
            for denoised, levels in kinds.items():
                row = {"noise": sigma or "uniform", "guidance": weight, "denoised": denoised, "seed": seed}
                table.append({**row, **judge.compare(levels, wanted, new, new_labels)})
                print(table[-1], flush=True)
    return table


def run() -> dict[str, Any]:
    """Train every model with every seed; the lecture draws what comes back."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # as in the lecture: a seed gives the same start
    (images, labels), (new, new_labels) = digits("train"), digits("test")
    images, new = images.float(), new.float()
    judge = Judge(images, labels)
    real = judge.compare(images, labels, new, new_labels)
    found = likelihood_run(images, labels, new, new_labels)
    table = sample_run(images, labels, new, new_labels, judge)
    sizes = {"parameters": sum(p.numel() for p in uniformly_dequantised().parameters())}
    return {"baselines": baselines(images, new), **sizes, "training digits": real, **found, "samples": table}


if __name__ == "__main__":
    publish("lecture_17", __doc__, run)
