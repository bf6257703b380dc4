"""Lecture 13's comparison, by seed and budget: ``python -m benchmarks.lecture_13``, five processor minutes.

Wavelet Flow beside RealNVP and Glow, on the digits at two budgets and on patches of two photographs at one.
All models take the same number of steps on batches of one size, and a step costs each about as much. Wavelet
Flow's scales are trained one after the other, each alone: the file has the processor seconds of each, and
in parallel the slowest would be the time of all. The lecture trains the smallest again and draws the rest.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiment import baselines, publish
from flowlib import MODELS, Bijection, Dequantize, Flow, Logit, Scale, WaveletFlow, bits_per_dim, fit
from flowlib.data import Dataset, load_dataset

SEEDS = range(3)
HELD_OUT = 200  # digits, which choose the step at which each training's parameters are kept
SETTINGS: dict[str, Any] = {"batch_size": 128, "validate_every": 25, "progress": False}
LR, COARSEST_LR = 1e-2, 0.3  # a scale has its own: the coarsest must go far, from 0 to its average
SIZES: dict[str, dict[str, Any]] = {
    "RealNVP": {"scales": 2, "hidden": (9,)},
    "Glow": {"scales": 2, "layers": 4, "hidden": (16,)},
    "Wavelet Flow": {"scales": 3, "layers": 4, "hidden": (16,)},
}
ON_PIXELS = "Wavelet Flow on pixels"  # without the logit: averages are those of the pixels themselves
BUDGETS: dict[str, dict[int, tuple[str, ...]]] = {  # steps, and who takes them
    "digits": {150: tuple(SIZES), 450: (*SIZES, ON_PIXELS)},
    "photographs": {200: ("Glow", "Wavelet Flow", ON_PIXELS)},
}


class Averages:
    """The averages of one scale, with fresh noise at every draw."""

    def __init__(self, flow: WaveletFlow, top: Bijection, images: Tensor, levels: int, scale: int) -> None:
        self.flow, self.top, self.images, self.levels, self.scale = flow, top, images, levels, scale

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(self.images), (n,), generator=generator)
        u = torch.rand(n, *self.images.shape[1:], generator=generator, dtype=torch.float64)
        x = self.top.inverse((self.images[rows] + u) / self.levels)[0]
        return self.flow.coarse(x.to(self.flow.base.anchor), self.scale)


def unbound(shape: tuple[int, ...], on_pixels: bool) -> Bijection:
    """From where flows work to pixels in [0, 1): by a logit, or by a factor of 4 alone."""
    stretch = Scale(shape).requires_grad_(False)
    stretch.log_scale.fill_(-math.log(4.0))
    return stretch if on_pixels else Logit(0.05)


def train(
    name: str, images: Tensor, held_out: Tensor, levels: int, steps: int, seed: int
) -> tuple[Flow, list[float]]:
    """Return the flow of whole numbers, trained, and the processor seconds of each part trained alone."""
    shape = tuple(images.shape[1:])
    torch.manual_seed(seed)
    kind = name.removesuffix(" on pixels")
    rows = {"RealNVP": "realnvp_multiscale", "Glow": "glow", "Wavelet Flow": "wavelet"}
    inner = MODELS[rows[kind]](shape, **SIZES[kind]).float()
    top = unbound(shape, name == ON_PIXELS)  # in double precision
    flow = Flow([inner.bijection, unbound(shape, name == ON_PIXELS), Dequantize(levels)], inner.base).float()
    parts: list[tuple[Flow, Any, Tensor, float]] = [(flow, images.float(), held_out.float(), LR)]
    if isinstance(inner, WaveletFlow):
        parts = []
        for i in range(len(inner.shapes)):
            data, look = (Averages(inner, top, part, levels, i) for part in (images, held_out))
            validation = look.sample(1000, torch.Generator().manual_seed(seed))
            parts.append((inner.scale(i), data, validation, LR if i else COARSEST_LR))
    seconds = []
    for part, data, validation, lr in parts:
        start = time.process_time()
        fit(part, data, steps=steps, lr=lr, seed=seed, validation=validation, **SETTINGS)
        seconds.append(time.process_time() - start)
    return flow, seconds


@torch.no_grad()
def bits(flow: Flow, images: Tensor, draws: int = 4) -> float:
    """Bits per dimension, averaged over draws of the noise, the same at every call."""
    torch.manual_seed(1)
    scores = [flow.log_prob(images.float()).double().mean() for _ in range(draws)]
    return bits_per_dim(torch.stack(scores).mean(), images[0].numel()).item()


def compare(data: Dataset, budgets: dict[int, tuple[str, ...]]) -> dict[str, Any]:
    """Train every model at every budget with every seed."""
    if data.levels is None or data.validation is None:
        raise ValueError(f"{data} has no levels or no held-out images.")
    runs, levels = [], data.levels
    for steps, names in budgets.items():
        for name in names:
            for seed in SEEDS:
                flow, seconds = train(name, data.train, data.validation, levels, steps, seed)
                scores = {"train": bits(flow, data.train[:2000], 1), "test": bits(flow, data.test)}
                rounded = [round(s, 2) for s in seconds]
                runs.append({"model": name, "steps": steps, "seed": seed, **scores, "seconds": rounded})
                print(f"{name}, {steps} steps, seed {seed}: {scores['test']:.3f} bits, {rounded}", flush=True)
    return {"baselines": baselines(data.train, data.test, levels), "runs": runs}


def run() -> dict[str, Any]:
    """Both data sets; the lecture draws what comes back."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # as in the lecture: a seed gives the same start
    digits = load_dataset("digits").hold_out(HELD_OUT)
    sets = {"digits": digits, "photographs": load_dataset("patches", size=8)}
    return {
        **{name: compare(data, BUDGETS[name]) for name, data in sets.items()},
    }


if __name__ == "__main__":
    publish("lecture_13", __doc__, run)
