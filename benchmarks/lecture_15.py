"""Lecture 15's trainings, by seed and budget: ``python -m benchmarks.lecture_15``, six processor minutes.

Lecture 14's network trained by likelihood and by flow matching, on the digits and on two moons, at two
budgets of about the same processor time for both. On the moons a reflow follows, and Euler's method in one
to eight steps before and after it. The lecture trains the smallest again, and draws the rest. One thread; the
moons in float64.
"""

from __future__ import annotations

import time
from itertools import product
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiment import baselines, publish
from flowlib import (
    FFJORD,
    Dequantize,
    Euler,
    Flow,
    Logit,
    RungeKutta,
    StandardNormal,
    Velocity,
    bits_per_dim,
    fit,
    fit_matching,
)
from flowlib.data import TwoMoons, load_dataset

SEEDS = range(3)
STEPS = {  # of training at both budgets
    "digits": {"matching": (750, 5000), "likelihood": (60, 400)},
    "moons": {"matching": (1500, 4500), "likelihood": (55, 162)},
}
LR = {
    "digits": {"matching": (4e-3, 4e-3), "likelihood": (1e-2, 5e-3)},
    "moons": {"matching": (2e-2, 2e-2), "likelihood": (2e-2, 2e-2)},
}
SIGMA = 0.1  # of the paths to digits; those in the plane end on the data
SETTINGS: dict[str, Any] = {"batch_size": 256, "progress": False}
EMA = {"matching": 0.99, "likelihood": None}  # likelihood takes too few steps for an average
MOONS = TwoMoons()
PAIRS, COUNTS, HELD_OUT, SHOWN = 10_000, (1, 2, 4, 8), 4000, 360
# likelihood trains in few steps, on the sharp moons in more; all are judged by many
TRAINING, FINE = {"digits": RungeKutta(4), "moons": RungeKutta(10)}, RungeKutta(20)


def train(way: str, flow: Flow, data: Any, steps: int, lr: float, seed: int, **how: Any) -> float:
    """Train by one of the two ways, and return the processor seconds."""
    start = time.process_time()
    trainer = fit if way == "likelihood" else fit_matching
    trainer(flow, data, steps=steps, lr=lr, seed=seed, ema=EMA[way], **SETTINGS, **how)
    return round(time.process_time() - start, 1)


def solved_by(flow: Flow, solver: RungeKutta) -> Flow:
    """The same flow with another solver."""
    next(iter(flow.bijection)).solver = solver
    return flow


# --- the digits ------------------------------------------------------------------------------


@torch.no_grad()
def bits(flow: Flow, x: Tensor, draws: int) -> float:
    """Bits per dimension, averaged over draws of the noise, the same at every call."""
    torch.manual_seed(1)
    scores = [flow.log_prob(x).double().mean() for _ in range(draws)]
    return bits_per_dim(torch.stack(scores).mean(), x.shape[1]).item()


def on_digits(way: str, budget: int, seed: int) -> dict[str, Any]:
    """Train one model of the digits, without labels, and measure it."""
    data = load_dataset("digits")
    x, new = data.train.flatten(1).float(), data.test.flatten(1).float()
    torch.manual_seed(seed)
    layer = FFJORD(Velocity(64, (256, 256)), solver=TRAINING["digits"])
    flow = Flow([layer, Logit(0.01), Dequantize(17)], StandardNormal(64)).float()
    steps, lr = STEPS["digits"][way][budget], LR["digits"][way][budget]
    how = {"sigma": SIGMA} if way == "matching" else {}
    run: dict[str, Any] = {"way": way, "budget": budget, "seed": seed, "steps": steps}
    run["seconds"] = train(way, flow, x, steps, lr, seed, **how)
    solved_by(flow, FINE)
    return run | {"test": bits(flow, new, 2), "train": bits(flow, x[:SHOWN], 1)}


# --- two moons -------------------------------------------------------------------------------


@torch.no_grad()
def energy_distance(x: Tensor, y: Tensor) -> float:
    """Without bias: no point is paired with itself."""
    n = len(x)
    inside = [torch.cdist(points, points).sum() / (n * (n - 1)) for points in (x, y)]
    return (2 * torch.cdist(x, y).mean() - inside[0] - inside[1]).item()


@torch.no_grad()
def gap(flow: Flow) -> float:
    """The Kullback–Leibler divergence of the moons from the flow, in nats, on held-out points."""
    points = MOONS.sample(HELD_OUT, generator=torch.Generator().manual_seed(99))
    return (MOONS.log_prob(points) - solved_by(flow, FINE).log_prob(points)).mean().item()


@torch.no_grad()
def few_steps(flow: Flow) -> dict[str, Any]:
    """How far samples are from the data by a few of Euler's steps and by many better ones, and the bend."""
    points = MOONS.sample(HELD_OUT, generator=torch.Generator().manual_seed(97))
    z = flow.base.sample(HELD_OUT, torch.Generator().manual_seed(98))
    far = [
        energy_distance(solved_by(flow, solver).decode(z), points) for solver in (*map(Euler, COUNTS), FINE)
    ]
    return {"euler": far[:-1], "fine": far[-1], "bend": bend(flow, z[:1000])}


def new_flow(seed: int) -> Flow:
    """Lecture 14's network in the plane."""
    torch.manual_seed(seed)
    return Flow([FFJORD(Velocity(2), solver=TRAINING["moons"])], StandardNormal(2))


def reflow(flow: Flow, seed: int) -> tuple[Flow, float]:
    """A new flow, trained on the latents and samples of another, and the processor seconds."""
    start = time.process_time()
    z = flow.base.sample(PAIRS, torch.Generator().manual_seed(seed))
    with torch.no_grad():
        x = solved_by(flow, FINE).decode(z)
    seconds, straight = time.process_time() - start, new_flow(seed)
    steps, lr = STEPS["moons"]["matching"][1], LR["moons"]["matching"][1]
    return straight, round(seconds + train("matching", straight, x, steps, lr, seed, start=z), 1)


@torch.no_grad()
def bend(flow: Flow, z: Tensor, times: int = 20) -> float:
    """The mean squared distance of the velocity from that of the straight way, along the paths."""
    velocity, solver = next(iter(flow.bijection)).velocity, RungeKutta(1)
    path = [z]
    for k in range(times):
        path.append(solver(lambda t, x: velocity(x, t), path[-1], k / times, (k + 1) / times))
    straight = path[-1] - z
    off = [(velocity(x, k / times) - straight).square().sum(1).mean() for k, x in enumerate(path)]
    return torch.trapezoid(torch.stack(off), dx=1 / times).item()


def on_moons(way: str, budget: int, seed: int) -> list[dict[str, Any]]:
    """Train one model of two moons; the longer matching with a reflow."""
    flow, steps = new_flow(seed), STEPS["moons"][way][budget]
    run: dict[str, Any] = {"way": way, "budget": budget, "seed": seed, "steps": steps}
    run["seconds"] = train(way, flow, MOONS, steps, LR["moons"][way][budget], seed)
    run["gap"] = gap(flow)
    if (way, budget) != ("matching", 1):
        return [run]
    straight, seconds = reflow(flow, seed)
    again = run | {"way": "reflow", "seconds": seconds, "gap": gap(straight)}
    return [run | few_steps(flow), again | few_steps(straight)]


def run() -> dict[str, Any]:
    """Train everything at both budgets with every seed; the lecture draws what comes back."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # as in the lecture: a seed gives the same start
    digits = load_dataset("digits")
    runs: dict[str, list[dict[str, Any]]] = {"digits": [], "moons": []}
    for case in product(("matching", "likelihood"), (0, 1), SEEDS):
        runs["digits"].append(on_digits(*case))
        runs["moons"] += on_moons(*case)
        print(runs["digits"][-1], runs["moons"][-1], sep="\n", flush=True)
    return {"baselines": baselines(digits.train, digits.test), "counts": COUNTS, **runs}


if __name__ == "__main__":
    publish("lecture_15", __doc__, run)
