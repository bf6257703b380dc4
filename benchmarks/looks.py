"""How digits look, as a number: the Fréchet distance of a small classifier's features. Lower is better."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flowlib.data import load_dataset


@cache
def classifier() -> nn.Sequential:
    """A network of two hidden layers that tells the training digits apart; the second gives the features."""
    data = load_dataset("digits")
    x, y = data.train.flatten(1).float() / 16, data.train_labels
    with torch.random.fork_rng([]), torch.enable_grad():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(64, 128), nn.SiLU(), nn.Linear(128, 32), nn.SiLU(), nn.Linear(32, 10))
        net = net.float()
        optimiser = torch.optim.Adam(net.parameters(), lr=3e-3, weight_decay=1e-4)
        for _ in range(600):
            rows = torch.randint(len(x), (128,))
            noisy = x[rows] + 0.1 * torch.randn(128, 64)
            optimiser.zero_grad()
            cross_entropy(net(noisy), y[rows]).backward()  # type: ignore[index]
            optimiser.step()
    return net


@torch.no_grad()
def features(images: Tensor) -> Tensor:
    """What the classifier sees in images of pixels from 0 to 16."""
    return classifier()[:4](images.flatten(1).float() / 16).double()


def frechet(images: Tensor, others: Tensor) -> float:
    r""":math:`|m - m'|^2 + \operatorname{tr}(C + C' - 2 (C C')^{1/2})` of two sets of images' features."""
    one, two = features(images), features(others)
    C, D = one.T.cov(), two.T.cov()
    root = torch.linalg.eigvals(C @ D).real.clamp_min(0).sqrt().sum()
    return ((one.mean(0) - two.mean(0)).square().sum() + C.trace() + D.trace() - 2 * root).item()


@torch.no_grad()
def accuracy() -> float:
    """The share of test digits that the classifier tells rightly."""
    data = load_dataset("digits")
    told = classifier()(data.test.flatten(1).float() / 16).argmax(1)
    return (told == data.test_labels).double().mean().item()


__all__ = ["accuracy", "classifier", "features", "frechet"]
