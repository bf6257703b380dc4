"""Lecture 9's ablation of Glow, by seed and budget: ``python -m benchmarks.ablation``, a quarter of an hour.

The same models and settings as in the lecture's own cells. The lecture trains two of them again, to see that
they still give what lies in the file, and draws the rest from it. One thread, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiment import baselines, publish
from flowlib import MODELS, Compose, ConvolutionLU, Dequantize, Flow, Logit, Permute, bits_per_dim, fit
from flowlib.data import digits

BUDGETS, SEEDS = (80, 400), range(5)
SETTINGS: dict[str, Any] = {"batch_size": 128, "lr": 1e-2, "progress": False}

MIXERS: dict[str, Callable[[int], Any]] = {
    "no mixing": lambda C: Permute(list(range(C))),
    "reversal": lambda C: Permute(list(range(C))[::-1]),
    "random order": lambda C: Permute(torch.randperm(C).tolist()),
    "fixed rotation": lambda C: ConvolutionLU(C).requires_grad_(False),
    "learned 1×1": ConvolutionLU,
}
REALNVP = {"RealNVP": 9, "RealNVP, as many parameters": 16}  # hidden channels; the first: as much work


def make(name: str) -> Flow:
    """Return a new flow for 8 × 8 images of whole numbers 0 … 16, in float32."""
    if name in MIXERS:
        inner = MODELS["glow"]((1, 8, 8), scales=2, layers=4, hidden=(16,), mix=MIXERS[name])
    else:
        inner = MODELS["realnvp_multiscale"]((1, 8, 8), scales=2, hidden=(REALNVP[name],))
    return Flow(Compose([*inner.bijection, Logit(0.05), Dequantize(17)]), inner.base).float()


@torch.no_grad()
def bits(flow: Flow, images: Tensor) -> float:
    """Bits per dimension, with the same dequantisation noise at every call."""
    torch.manual_seed(1)
    return bits_per_dim(flow.log_prob(images), 64).mean().item()


def run() -> dict[str, Any]:
    """Train every model at both budgets with every seed; the lecture draws what comes back."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # as in the lecture: a seed gives the same start
    images, new_images = digits("train")[0].float(), digits("test")[0].float()
    runs = []
    for steps in BUDGETS:
        for name in (*REALNVP, *MIXERS):
            for seed in SEEDS:
                torch.manual_seed(seed)
                flow = make(name)
                fit(flow, images, steps=steps, seed=seed, **SETTINGS)
                scores = {"train": bits(flow, images), "test": bits(flow, new_images)}
                runs.append({"model": name, "steps": steps, "seed": seed, **scores})
                print(f"{name}, {steps} steps, seed {seed}: {scores['test']:.3f} bits", flush=True)
    parameters = {name: sum(p.numel() for p in make(name).parameters()) for name in (*REALNVP, *MIXERS)}
    return {
        "baselines": baselines(images, new_images),
        "parameters": parameters,
        "runs": runs,
    }


if __name__ == "__main__":
    publish("ablation", __doc__, run)
