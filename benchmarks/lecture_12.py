"""Lecture 12's comparison of 2 with 2 + 2 dimensions: ``python -m benchmarks.lecture_12``, seven minutes.

At equal parameters, RealNVP on the plane and a VFlow with two extra entries, on three densities of known
entropy, by seed, depth and budget; beside it, what each extra entry costs at equal widths. The lecture trains
one of the models again, to see that it still gives what lies in the file, and draws the rest from it. One
thread, float64.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.experiment import publish
from flowlib import MLP, AffineCoupling, Augment, Compose, Flow, StandardNormal, VFlow, fit, half_mask
from flowlib.data import Checkerboard, EightGaussians, Rings

DATA = {"rings": Rings(), "eight Gaussians": EightGaussians(), "checkerboard": Checkerboard()}
DEPTHS, BUDGETS, SEEDS = (2, 6), (300, 1500), range(3)
PARAMETERS, DRAWS, TESTED = 8000, 64, 2000
SETTINGS: dict[str, Any] = {"batch_size": 256, "lr": 5e-3, "progress": False}
MODELS = {"2": 0, "2 + 2": 2, "2 + 2, random q": 2}  # how many extra entries


def make(depth: int, width: int, extra: int, random_q: bool = False) -> Flow:
    """Return a flow of the plane with ``depth`` couplings, in ``2 + extra`` dimensions.

    The last coupling moves x (without extra entries: one entry of it), the one before it the rest. A new
    network ends in zeros, so that q starts as N(0, I); ``random_q`` draws those weights instead.
    """
    d = 2 + extra
    x_moves = ~half_mask(d, 2 if extra else 1)
    layers = []
    for k in range(depth):
        mask = x_moves if (depth - k) % 2 else ~x_moves
        kept = int(mask.sum())
        layers.append(AffineCoupling(mask, MLP(kept, 2 * (d - kept), (width, width))))
    flow = Flow(Compose(layers), StandardNormal(d))
    if not extra:
        return flow
    augment = Augment(2, extra, hidden=(width, width))
    if random_q:
        first: Any = augment.h.layers[0]
        torch.nn.init.normal_(first.conditioner.layers[-1].weight, std=width**-0.5)
    return VFlow(flow, augment)


def size(flow: Flow) -> int:
    """How many numbers a flow learns."""
    return sum(p.numel() for p in flow.parameters())


def width_of(name: str, depth: int) -> int:
    """The widths that come nearest to the common number of parameters."""
    return min(range(8, 200), key=lambda width: abs(size(make(depth, width, MODELS[name])) - PARAMETERS))


@torch.no_grad()
def losses(flow: Flow, x: Tensor) -> dict[str, float]:
    """Mean of −log p(x), or of its upper bounds at one draw and at many."""
    torch.manual_seed(1)
    found = {"one": -flow.log_prob(x).mean().item()}
    if isinstance(flow, VFlow):
        found["many"] = -flow.importance_log_prob(x, DRAWS).mean().item()
    return found


def train(name: str, data: str, depth: int, steps: int, seed: int) -> Flow:
    """Train one model from one seed."""
    torch.manual_seed(seed)
    flow = make(depth, width_of(name, depth), MODELS[name], random_q="random" in name)
    fit(flow, DATA[data], steps=steps, seed=seed, **SETTINGS)
    return flow


def multiplications(flow: Flow, x: Tensor) -> int:
    """How many multiplications one point's log-likelihood takes; torch counts additions too."""
    with FlopCounterMode(display=False) as counter:
        flow.log_prob(x)
    return counter.get_total_flops() // 2


def cost(extra: int) -> dict[str, Any]:
    """Work of one point's log-likelihood and processor time of one training step, at equal widths."""
    flow = make(6, 32, extra)
    times = []
    for _ in range(5):
        begun = time.process_time()
        fit(flow, DATA["rings"], steps=40, **SETTINGS)
        times.append((time.process_time() - begun) / 40)
    return {
        "extra": extra,
        "parameters": size(flow),
        "multiplications": multiplications(flow, torch.zeros(1, 2)),
        "milliseconds": 1e3 * sorted(times)[2],
    }


def run() -> dict[str, Any]:
    """Train every model on every density at both depths and budgets with every seed."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    runs: list[dict[str, Any]] = []
    for data, density in DATA.items():
        x = density.sample(TESTED, torch.Generator().manual_seed(1))
        for depth in DEPTHS:
            for steps in BUDGETS:
                for name in MODELS:
                    for seed in SEEDS:
                        found = losses(train(name, data, depth, steps, seed), x)
                        case = {"data": data, "model": name, "depth": depth, "steps": steps, "seed": seed}
                        runs.append({**case, **found})
                        print(*runs[-1].values(), flush=True)
    sizes = {
        f"{name}, depth {depth}": {
            "width": (width := width_of(name, depth)),
            "parameters": size(flow := make(depth, width, MODELS[name])),
            "multiplications": multiplications(flow, torch.zeros(1, 2)),
        }
        for name in MODELS
        for depth in DEPTHS
    }
    return {
        "entropies": {data: density.entropy for data, density in DATA.items()},
        "sizes": sizes,
        "costs": [cost(extra) for extra in (0, 1, 2, 4, 8)],
        "runs": runs,
    }


if __name__ == "__main__":
    publish("lecture_12", __doc__, run)
