"""Lecture 14's comparison in the plane, by seed and budget: ``python -m benchmarks.lecture_14``, six minutes.

FFJORD with the exact trace in four and in ten solver steps, FFJORD with one probe, and RealNVP, all on fresh
points at every step, at two budgets of about the same processor time for each. The lecture trains one of the
runs again, to see that it still gives what lies in the file, and draws the rest from it. One thread, float64.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiment import publish
from flowlib import FFJORD, MODELS, Dopri5, Flow, RungeKutta, StandardNormal, Velocity, fit
from flowlib.data import Checkerboard, Density, TwoMoons

DATA: dict[str, Density] = {"two moons": TwoMoons(), "checkerboard": Checkerboard()}
SEEDS, HELD_OUT, TOLERANCE, LOOK = range(3), 4000, 1e-5, 20
FINE = RungeKutta(20)


class Counting:
    """A solver that counts how often it evaluates the velocity."""

    def __init__(self, solver: RungeKutta | Dopri5) -> None:
        self.solver, self.evaluations = solver, 0

    def __call__(self, f: Callable, y: Tensor, start: float, end: float, parameters: Any = ()) -> Tensor:
        def counted(t: float | Tensor, y: Tensor) -> Tensor:
            self.evaluations += 1
            return f(t, y)

        return self.solver(counted, y, start, end, parameters)


class Watched:
    """Fresh points for ``fit``, with a look at a flow's evaluations before every ``LOOK``-th batch."""

    def __init__(self, data: Density, flow: Flow, points: Tensor) -> None:
        self.data, self.flow, self.points = data, flow, points
        self.batches, self.evaluations = 0, []  # type: ignore[var-annotated]

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        if self.batches % LOOK == 0:
            self.evaluations.append(evaluations(self.flow, self.points))
        self.batches += 1
        return self.data.sample(n, generator=generator)


def ffjord(trace: str, steps: int) -> Flow:
    """A flow whose velocity sees the time, solved in so many steps while it trains."""
    return Flow([FFJORD(Velocity(2), trace, RungeKutta(steps))], StandardNormal(2))


Row = tuple[Callable[[], Flow], float, tuple[int, int]]
MODELS_HERE: dict[str, Row] = {  # with the learning rate and the steps of training at both budgets
    "FFJORD, 4 steps": (lambda: ffjord("exact", 4), 2e-2, (200, 600)),
    "FFJORD, 10 steps": (lambda: ffjord("exact", 10), 2e-2, (100, 300)),
    "one probe, 4 steps": (lambda: ffjord("rademacher", 4), 2e-2, (100, 300)),
    "RealNVP": (lambda: MODELS["realnvp"](2), 5e-3, (600, 1800)),
}


def solved_by(flow: Flow, solver: Any) -> Flow:
    """The same velocity with the exact trace and another solver."""
    return Flow([FFJORD(next(iter(flow.bijection)).velocity, solver=solver)], flow.base)


@torch.no_grad()
def evaluations(flow: Flow, points: Tensor) -> int:
    """How many evaluations an adaptive solver needs on the way from data to base."""
    counting = Counting(Dopri5(TOLERANCE))
    solved_by(flow, counting).log_prob(points)
    return counting.evaluations


@torch.no_grad()
def loss(flow: Flow, points: Tensor) -> float:
    """The mean of -log p in nats."""
    return -flow.log_prob(points).mean().item()


def one_run(data: str, model: str, budget: int, seed: int) -> dict[str, Any]:
    """Train one model and measure it on held-out points."""
    make, lr, steps = MODELS_HERE[model]
    density = DATA[data]
    points = density.sample(HELD_OUT, generator=torch.Generator().manual_seed(99))
    torch.manual_seed(seed)
    flow = make()
    watched = model.startswith("FFJORD") and budget == 1
    source = Watched(density, flow, points[:500]) if watched else density
    start = time.process_time()
    fit(flow, source, steps=steps[budget], batch_size=256, lr=lr, seed=seed, progress=False)
    row: dict[str, Any] = {"data": data, "model": model, "budget": budget, "seed": seed}
    row |= {"steps": steps[budget], "seconds": round(time.process_time() - start, 1)}
    entropy = -density.log_prob(points).mean().item()  # of these very points
    if model == "RealNVP":
        row["nll"] = loss(flow, points)
    else:  # the exact trace, in many steps and in those of the training
        layer = next(iter(flow.bijection))
        row["nll"] = loss(solved_by(flow, FINE), points)
        row["coarse"] = loss(solved_by(flow, layer.solver), points)
    row["gap"] = row["nll"] - entropy
    if isinstance(source, Watched):
        row["evaluations"] = source.evaluations
    return row


def run() -> dict[str, Any]:
    """Train every model at both budgets with every seed; the lecture draws what comes back."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    runs = []
    for data in DATA:
        for model in MODELS_HERE:
            if model == "one probe, 4 steps" and data != "two moons":
                continue  # one comparison of traces is enough
            for budget in (0, 1):
                for seed in SEEDS:
                    runs.append(one_run(data, model, budget, seed))
                    print({key: value for key, value in runs[-1].items() if key != "evaluations"}, flush=True)
    return {
        "entropy": {name: density.entropy for name, density in DATA.items()},
        "parameters": {
            name: sum(p.numel() for p in make().parameters()) for name, (make, *_) in MODELS_HERE.items()
        },
        "look_every": LOOK,
        "tolerance": TOLERANCE,
        "runs": runs,
    }


if __name__ == "__main__":
    publish("lecture_14", __doc__, run)
