"""Test likelihood after an equal budget: ``python -m benchmarks.quality``.

Same architecture, steps, batches in the same order, optimiser and learning rates for every library. Three toy
densities, judged by the gap to their exact entropy, and the digits, judged in bits per dimension.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from benchmarks.families import FAMILIES, Family, live_parameters
from benchmarks.machine import describe
from benchmarks.models import LIBRARIES, Builder, Model, tables
from benchmarks.speed import build, check_sizes
from flowlib import Compose, Dequantize, Logit
from flowlib.data import Checkerboard, Density, EightGaussians, TwoMoons, digits

RESULTS = Path(__file__).parent / "results" / "quality.json"
STEPS, BATCH, CLIP, SEEDS = 600, 256, 5.0, 5


@dataclass(frozen=True)
class Task:
    """Data to fit.

    Attributes:
        title: its name on the page.
        unit: of the result, which is the mean of ``(offset - log_density(test)) / divisor``.
        rate: the first learning rate.
        draw: an endless iterator of training batches ``(BATCH, d)``, from torch's global generator.
        test, offset: the test points ``(N, d)``, and what turns their log-density into that of the data.
        families: the architectures.
        best: the smallest result that any model can have, if it is known.
    """

    title: str
    unit: str
    rate: float
    draw: Callable[[], Iterator[Tensor]]
    test: Tensor
    offset: Tensor
    families: dict[str, Family]
    divisor: float = 1.0
    best: float | None = None


def toy(density: Density, title: str) -> Task:
    """A density of the plane, with fresh points at every step, brought to standard deviation 1."""
    scale = float(density.sample(100_000, torch.Generator().manual_seed(1)).std())

    def draw() -> Iterator[Tensor]:
        while True:
            yield density.sample(BATCH) / scale

    test = density.sample(20_000, torch.Generator().manual_seed(2))
    families = {
        "realnvp": Family("RealNVP", (2,), layers=8, hidden=(64, 64)),
        "maf": Family("MAF", (2,), layers=8, hidden=(64, 64)),
        "spline": Family("Spline coupling", (2,), layers=4, hidden=(64, 64)),
    }
    offset = torch.tensor(2 * math.log(scale))
    return Task(title, "nats", 2e-3, draw, test / scale, offset, families, best=density.entropy)


def handwritten() -> Task:
    """The digits, uniformly dequantised at every step anew, and brought to the real line by a logit."""
    to_real_line = Compose([Logit(0.05), Dequantize(17)]).inverse
    train, test = (digits(split)[0].flatten(1).float() for split in ("train", "test"))

    def draw() -> Iterator[Tensor]:
        while True:
            order = torch.randperm(len(train))
            for rows in order[: len(train) // BATCH * BATCH].split(BATCH):
                yield to_real_line(train[rows])[0]

    torch.manual_seed(2)
    points, log_det = to_real_line(test.repeat(10, 1))
    families = {name: FAMILIES[name] for name in ("realnvp", "maf", "spline")}
    return Task("Digits", "bits per dimension", 1e-3, draw, points, -log_det, families, 64 * math.log(2))


def train(model: Model, batches: Iterator[Tensor], steps: int, rate: float) -> None:
    """Adam with a cosine schedule and clipping, as :func:`flowlib.fit` has them, for any library."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=rate)
    model.train()
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 0.5 * rate * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        (-model.log_density(next(batches)).mean()).backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP)
        optimiser.step()
    model.eval()


@torch.no_grad()
def test_result(model: Model, task: Task) -> float:
    """The mean result over the test points."""
    log_density = torch.cat([model.log_density(x) for x in task.test.split(1000)])
    return float((task.offset - log_density).mean()) / task.divisor


def run(
    tasks: dict[str, Task],
    libraries: Iterable[str] = LIBRARIES,
    steps: int = STEPS,
    families: Iterable[str] = ("realnvp", "maf", "spline"),
) -> dict[str, Any]:
    """Train and test every model; the result is what the page is made of."""
    torch.set_num_threads(1)
    rows = tables(libraries)
    results: dict[str, Any] = {}
    for key, task in tasks.items():
        results[key] = {
            "title": task.title,
            "unit": task.unit,
            "best": task.best,
            "rate": task.rate,
            "families": {name: compare(name, task, rows, steps) for name in families},
        }
    budget = {"steps": steps, "batch": BATCH, "clip": CLIP}
    return {"machine": describe(), "budget": budget, "tasks": results}


def compare(name: str, task: Task, tables: dict[str, dict[str, Builder]], steps: int) -> dict[str, Any]:
    """One family on one task in all libraries that have it."""
    family, entries = task.families[name], {}
    for library, table in tables.items():
        if name not in table:
            continue
        values: list[float | None] = []
        for seed in range(SEEDS):
            model = build(table[name], family, seed)
            torch.manual_seed(100 + seed)  # the same batches for all: no density draws anything
            train(model, task.draw(), steps, task.rate)
            value = test_result(model, task)
            values.append(value if math.isfinite(value) else None)  # JSON has no NaN
        fresh = build(table[name], family)
        entries[library] = {
            "parameters": sum(p.numel() for p in fresh.parameters() if p.requires_grad),
            "live": live_parameters(fresh, fresh.log_density, torch.randn(256, *family.event_shape)),
            "values": values,
            "mean": None if None in values else mean(filter(None, values)),
            "note": fresh.note,
        }
        print(f"{task.title}, {family.title}, {library}: {values}", flush=True)
    check_sizes(name, entries)
    return {"title": family.title, "layers": family.layers, "hidden": family.hidden, "entries": entries}


def main() -> None:
    tasks = {
        "two_moons": lambda: toy(TwoMoons(), "Two moons"),
        "eight_gaussians": lambda: toy(EightGaussians(), "Eight Gaussians"),
        "checkerboard": lambda: toy(Checkerboard(), "Checkerboard"),
        "digits": handwritten,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", default=list(tasks), help="leave out for all")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # deprecations inside the libraries
    for name in arguments.tasks:  # what is in the file and not asked for stays
        old = json.loads(arguments.out.read_text("utf-8"))["tasks"] if arguments.out.exists() else {}
        results = run({name: tasks[name]()})
        merged = old | results["tasks"]
        results["tasks"] = {task: merged[task] for task in tasks if task in merged}
        arguments.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
