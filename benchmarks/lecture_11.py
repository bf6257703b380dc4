"""Lecture 11's ablation of Flow++, by seed and budget: ``python -m benchmarks.lecture_11``, ten minutes.

Three choices, each made the old way and the new way: the noise, the coupling, the conditioner. The lecture
trains one of the eight again, to see that it still gives what lies in the file, and draws the rest from it.
One thread, float32.
"""

from __future__ import annotations

import math
import time
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiment import baselines, publish
from flowlib import (
    AffineCoupling,
    Bijection,
    Compose,
    Dequantize,
    Flow,
    Logit,
    MixtureCoupling,
    StandardNormal,
    VariationalDequantize,
    bits_per_dim,
    checkerboard_mask,
    fit,
)
from flowlib.data import digits
from flowlib.nets import AttentionNet

BUDGETS, SEEDS, DRAWS = (100, 400), range(3), 10
SETTINGS: dict[str, Any] = {"batch_size": 32, "lr": 1e-2, "progress": False}
SHAPE, LEVELS, LAYERS, HIDDEN, HEADS, COMPONENTS = (1, 8, 8), 17, 4, 24, 2, 4

CHOICES = list(product(("uniform", "variational"), ("affine", "mixture"), ("convolutions", "attention")))


def conditioner(kind: str, outputs: int) -> AttentionNet:
    """Two blocks: a gated convolution, then attention or a second gated convolution."""
    if kind == "attention":
        return AttentionNet(SHAPE, outputs, (HIDDEN,), HEADS)
    net = AttentionNet(SHAPE, outputs, (HIDDEN, HIDDEN), HEADS)
    net.blocks = net.blocks[::2]  # of two pairs the convolutions alone
    return net


def make(noise: str, coupling: str, kind: str) -> Flow:
    """Return a new flow for 8 × 8 images of whole numbers 0 … 16, in float32."""
    stack: list[Bijection] = []
    for k in range(LAYERS):
        mask = checkerboard_mask(SHAPE, k % 2)
        if coupling == "mixture":
            stack.append(MixtureCoupling(mask, conditioner(kind, 2 + 3 * COMPONENTS), COMPONENTS))
        else:
            stack.append(AffineCoupling(mask, conditioner(kind, 2)))
    variational = noise == "variational"
    top = VariationalDequantize(SHAPE, LEVELS, hidden=(16,)) if variational else Dequantize(LEVELS)
    return Flow(Compose([*stack, Logit(0.05), top]), StandardNormal(SHAPE)).float()


@torch.no_grad()
def scores(flow: Flow, images: Tensor, draws: int) -> tuple[float, float]:
    """Bits per dimension: the bound of one draw, averaged, and the tighter one of all draws together."""
    torch.manual_seed(1)
    log_p = torch.stack([flow.log_prob(images) for _ in range(draws)]).double()
    together = torch.logsumexp(log_p, 0) - math.log(draws)
    return bits_per_dim(log_p.mean(), SHAPE).item(), bits_per_dim(together.mean(), SHAPE).item()


def run() -> dict[str, Any]:
    """Train every model at both budgets with every seed; the lecture draws what comes back."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # as in the lecture: a seed gives the same start
    images, new_images = digits("train")[0].float(), digits("test")[0].float()
    runs: list[dict[str, Any]] = []
    for steps, choice, seed in product(BUDGETS, CHOICES, SEEDS):
        torch.manual_seed(seed)
        flow, start = make(*choice), time.process_time()
        fit(flow, images, steps=steps, seed=seed, **SETTINGS)
        seconds = time.process_time() - start
        test, together = scores(flow, new_images, DRAWS)
        names: dict[str, Any] = dict(zip(("noise", "coupling", "conditioner"), choice, strict=True))
        found = {"train": scores(flow, images, 1)[0], "test": test, "test, 10 draws": together}
        runs.append({**names, "steps": steps, "seed": seed, **found, "seconds": round(seconds, 1)})
        print(f"{choice}, {steps} steps, seed {seed}: {test:.3f} bits, {seconds:.0f} s", flush=True)
    sizes = {", ".join(choice): sum(p.numel() for p in make(*choice).parameters()) for choice in CHOICES}
    return {
        "baselines": baselines(images, new_images),
        "parameters": sizes,
        "runs": runs,
    }


if __name__ == "__main__":
    publish("lecture_11", __doc__, run)
