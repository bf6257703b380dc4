"""The normaliser of lecture 16's energies, by chains that start from a flow, forth and back."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks import energy
from benchmarks.entrants import USUAL, parts_flat
from benchmarks.experiment import bits
from flowlib import MODELS, Flow, fit

CHAINS, LENGTHS, STEP, DRAWS = 64, (10, 100, 1000), 0.1, 10


@cache
def guide() -> Flow:
    """A RealNVP of the whitened logits, from which the chains start."""
    images = parts_flat()
    torch.manual_seed(0)
    to_logits = energy.Compose(energy.whitening(images["train"]))
    with torch.no_grad():
        points = {name: to_logits.inverse(torch.cat([x] * 10))[0] for name, x in images.items()}
    model = MODELS["realnvp"](64, layers=6, hidden=(128, 128)).float()
    settings = USUAL | {"lr": 1e-3}
    fit(model, points["train"], steps=1000, validation=points["validation"], **settings)
    return model.requires_grad_(False)


def normalise(model: energy.EnergyFlow, x: Tensor, seed: int) -> dict[str, Any]:
    """Set log Z by the longest chains from the guide, and keep what shorter ones and the way back say."""
    torch.manual_seed(100 + seed)
    return chains(lambda w: -model.energy.energy(w), model, x)


def chains(
    log_density: energy.LogDensity,
    model: energy.EnergyFlow | None = None,
    x: Tensor | None = None,
    exact: Tensor | None = None,
) -> dict[str, Any]:
    """Annealed importance sampling both ways; the way back starts from exact draws or from settled chains."""
    found: dict[str, Any] = {"chains": []}
    for length in LENGTHS:
        log_weight, w = energy.anneal(guide().log_prob, log_density, guide().sample(CHAINS), length, STEP)
        found["chains"].append(
            {"length": length, "log_Z": energy.log_mean(log_weight), "mean": log_weight.mean().item()}
            | {"deviation": log_weight.std().item(), "ess": energy.effective(log_weight)}
        )
    if exact is None:
        rows = torch.multinomial(log_weight.softmax(0), CHAINS, replacement=True)
        exact = energy.settle(log_density, w[rows], 300, STEP)
    for entry in found["chains"]:
        back = energy.anneal(guide().log_prob, log_density, exact, entry["length"], STEP, backward=True)[0]
        entry |= {"back": -energy.log_mean(back), "mean_back": -back.mean().item()}
        entry["ess_back"] = energy.effective(back)
        if model is not None and x is not None:
            for key, log_Z in (("bits", entry["log_Z"]), ("bits_back", entry["back"])):
                model.energy.log_Z.fill_(log_Z)
                entry[key] = bits(model, x, DRAWS)
    if model is not None:
        model.energy.log_Z.fill_(found["chains"][-1]["log_Z"])
    return found


def known() -> dict[str, Any]:
    """The same chains on a density whose normaliser is known: a Gaussian mixture at the digits, times e⁷."""
    torch.manual_seed(0)
    to_logits = energy.Compose(energy.whitening(parts_flat()["train"]))
    with torch.no_grad():
        centres = 0.6 * to_logits.inverse(parts_flat()["train"][:20])[0]

    def log_density(w: Tensor) -> Tensor:
        squares = (w[:, None] - centres).square().sum(2)
        normal = -0.5 * squares / 0.8**2 - 64 * math.log(0.8 * math.sqrt(2 * math.pi))
        return normal.logsumexp(1) - math.log(20) + 7

    exact = centres[torch.randint(20, (CHAINS,))] + 0.8 * torch.randn(CHAINS, 64)
    return {"log_Z": 7.0} | chains(log_density, exact=exact)


__all__ = ["guide", "known", "normalise"]
