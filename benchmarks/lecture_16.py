"""Lecture 16's comparison: ``python -m benchmarks.lecture_16``, twenty minutes of one processor.

Every model of the course that takes the 8×8 digits, two autoregressive models of their whole numbers and an
energy-based model trained in two ways, on the same images at two budgets of processor time with three seeds.
The steps that a budget allows are counted beforehand. A model whose trainings miss it by more than 15 % in
the mean trains again, with the pace that they had, and is refused if that is no better. Each training runs
alone in a process of its own, and what it found lies in _build/lecture_16 until all are done: an interrupted
run goes on where it stopped. One thread, float32.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import nn
from torch.nn.functional import one_hot

from benchmarks import energy, looks
from benchmarks.categorical import PixelTransformer, categorical, made
from benchmarks.chains import guide, known, normalise
from benchmarks.entrants import ROWS, USUAL, Row, classes, digits, parts
from benchmarks.experiment import baselines, bits, publish
from benchmarks.memory import Memory
from flowlib import FFJORD, MODELS, Flow, RungeKutta
from flowlib.data import load_dataset
from flowlib.train.report import mean_nats

BUDGETS, SEEDS, LOOKS, DRAWS = (2.0, 8.0), range(3), 8, 10
KEPT = Path("_build/lecture_16")
FIGURE = Path("book/_static/figures/choose-data.js")
DRAWN, SHEET = 400, 16  # images whose looks are measured, and those that are kept
SLACK = 0.15  # how far from its budget a model's mean time may lie
WARM, TIMED = 20, 500  # steps before the pace is taken, and at most while it is
FINE = 20  # Runge–Kutta steps that judge a continuous flow, trained and sampled in fewer
CPU = torch.device("cpu")


def processor_seconds(work: Callable[[], Any], times: int = 1) -> float:
    """The median of a few runs, in seconds of the processor."""
    taken = []
    for _ in range(times):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return sorted(taken)[times // 2]


def pace(name: str) -> dict[str, float]:
    """Processor seconds of one step of training, and of one look at the held-out images."""
    row = ROWS[name]
    torch.manual_seed(0)
    model, images, told = row.make().float(), parts(row), classes(row)
    settings = USUAL | row.settings
    settings.pop("validation", None)

    def steps(n: int) -> Callable[[], Any]:
        return lambda: row.train(model, images["train"], context=told["train"], steps=n, **settings)

    warm = processor_seconds(steps(WARM)) / WARM  # the first steps are slower than those to come
    n = max(WARM, min(TIMED, int(2 / warm)))
    step, look = processor_seconds(steps(n), 3) / n, 0.0
    if row.settings.get("validation", 0) is not None:
        look = processor_seconds(lambda: mean_nats(model, images["validation"], told["validation"]), 3)
    return {"step": step, "look": look}


def one_run(name: str, budget: int, seed: int, steps: int) -> dict[str, Any]:
    """Train one model and measure it."""
    row = ROWS[name]
    images, told = parts(row), classes(row)
    held_out = {"validation": images["validation"], "validation_context": told["validation"]}
    settings = USUAL | held_out | {"validate_every": -(-steps // LOOKS)} | row.settings
    torch.manual_seed(seed)
    memory = Memory(CPU)
    model = row.make().float()
    begun = time.process_time()
    row.train(model, images["train"], context=told["train"], steps=steps, seed=seed, **settings)
    found: dict[str, Any] = {"model": name, "budget": budget, "seed": seed, "steps": steps}
    found["seconds"] = round(time.process_time() - begun, 2)
    found["memory_mb"] = round(memory.peak() / 1e6, 1)
    model.requires_grad_(False)
    if isinstance(model, energy.EnergyFlow):
        found |= normalise(model, images["test"], seed)
    with solved_finely(model):
        found["test"] = bits(model, images["test"], DRAWS, told["test"])
        found["train"] = bits(model, images["train"], 1, told["train"])
    label = one_hot(torch.arange(DRAWN) % 10, 10).float() if row.labels else None
    times = 1 if row.family == "energy" else 3
    context = None if label is None else label[:100]
    found["sampling"] = processor_seconds(lambda: model.sample(100, context), times)
    drawn = model.sample(DRAWN, label, torch.Generator().manual_seed(seed)).clamp(0, 16).flatten(1).round()
    found["looks"] = looks.frechet(drawn, digits().train)
    if seed == 0:
        found["sheet"] = [as_text(image) for image in drawn[:SHEET].long().tolist()]
    return found


@contextmanager
def solved_finely(model: Flow) -> Iterator[None]:
    """Solve a continuous flow's equation in more steps than it trained with: few may misjudge it."""
    layers = [layer for layer in model.layers if isinstance(layer, FFJORD)]
    usual = [layer.solver for layer in layers]
    try:
        for layer in layers:
            layer.solver = RungeKutta(FINE)
        yield
    finally:
        for layer, solver in zip(layers, usual, strict=True):
            layer.solver = solver


def as_text(image: list[int]) -> str:
    """An image in 64 letters, 0 to 9 and a to g."""
    return "".join("0123456789abcdefg"[pixel] for pixel in image)


# --- how sampling grows with the dimension ----------------------------------------------------


def growth() -> list[dict[str, Any]]:
    """Processor seconds for 100 samples of new models, by the number of entries."""
    makers: dict[str, Callable[[int], Flow]] = {
        "RealNVP": lambda d: MODELS["realnvp"](d, layers=8, hidden=(256, 256)),
        "MAF": lambda d: MODELS["maf"](d, layers=5, hidden=(256, 256)),
        "categorical MADE": lambda d: made(d, (256,)),
        "causal transformer": lambda d: categorical(PixelTransformer(d, 17)),
    }
    found = []
    for name, make in makers.items():
        for d in (16, 64, 256, 1024):
            model = make(d).float()
            times = 3 if d < 1024 else 1
            model.sample(2)
            found.append(
                {"model": name, "d": d, "seconds": processor_seconds(partial(model.sample, 100), times)}
            )
            print(found[-1], flush=True)
    return found


def kept(key: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """What a piece of work found, in a process of its own, or what lies in the folder from an earlier try."""
    file = KEPT / f"{key}.json"
    if not file.exists():
        with get_context("fork").Pool(1) as pool:
            found = pool.apply(work, arguments)
        KEPT.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(found), "utf-8")
        print(
            key,
            {k: v for k, v in found.items() if k != "sheet"} if isinstance(found, dict) else "",
            flush=True,
        )
    return json.loads(file.read_text("utf-8"))


def trained(name: str, k: int) -> list[dict[str, Any]]:
    """A training for each seed, in as many steps as the budget allows."""
    cost, budget = kept(f"{name}, pace", pace, name), BUDGETS[k]
    for again in ("", ", again"):
        steps = max(LOOKS, int((budget - LOOKS * cost["look"]) / cost["step"]))
        runs = [kept(f"{name}, {k}, seed {seed}{again}", one_run, name, k, seed, steps) for seed in SEEDS]
        share = mean(run["seconds"] for run in runs) / budget
        if abs(share - 1) <= SLACK:
            return runs
        cost["step"] *= share  # a busy machine's pace may change; the trainings tell it better
    raise SystemExit(f"{name} took {share:.2f} of its {budget:g} s. Remove its files from {KEPT}; run again.")


def run() -> dict[str, Any]:
    """Train everything at both budgets with every seed; the lecture draws what comes back."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    guide()  # before the processes fork, so that each has it
    looks.classifier()
    whole = {"known": kept("known", known), "growth": kept("growth", growth)}
    runs = [run for name in ROWS for k in range(len(BUDGETS)) for run in trained(name, k)]
    runs.sort(key=lambda run: run["seed"])
    models = {name: about(row) for name, row in ROWS.items()}
    FIGURE.write_text(for_the_figure(runs, models), "utf-8")
    new = load_dataset("digits")
    return {
        "budgets": list(BUDGETS),
        "baselines": baselines(new.train, new.test),
        "looks": looks_of_baselines(),
        "models": models,
        **whole,
        "runs": runs,
    }


def for_the_figure(runs: list[dict[str, Any]], models: dict[str, dict[str, Any]]) -> str:
    """The means over the seeds as a script, for the book's table to sort and filter."""
    rows = []
    for name, row in models.items():
        for k, budget in enumerate(BUDGETS):
            mine = [run for run in runs if run["model"] == name and run["budget"] == k]
            costs = {
                key: mean(run[key] for run in mine)
                for key in ("test", "sampling", "memory_mb", "looks", "seconds")
            }
            rows.append(
                {"model": name, "family": row["family"], "kind": row["kind"], "labels": row["labels"]}
                | {
                    "budget": budget,
                    "bits": round(costs["test"], 4),
                    "sampling": round(1e3 * costs["sampling"], 3),
                }
                | {"memory": round(costs["memory_mb"], 1), "parameters": row["parameters"] / 1e3}
                | {"looks": round(costs["looks"], 2), "seconds": round(costs["seconds"], 2)}
            )
    lines = ",\n".join("  " + json.dumps(row) for row in rows)
    return f"/* Written by python -m benchmarks.lecture_16. */\nflowFigures.chooseData = [\n{lines},\n];\n"


def looks_of_baselines() -> dict[str, float]:
    """The Fréchet distance of new images, of pixel histograms and of grey noise."""
    data = load_dataset("digits")
    generator = torch.Generator().manual_seed(0)
    x = data.train.flatten(1)
    mixed = torch.stack([column[torch.randperm(len(x), generator=generator)] for column in x.T], 1)
    noise = torch.randint(0, 17, (DRAWN, 64), generator=generator)
    images = {"new digits": data.test, "pixel histograms": mixed[:DRAWN], "uniform": noise}
    return {name: looks.frechet(x, digits().train) for name, x in images.items()}


def about(row: Row) -> dict[str, Any]:
    """What the table says of a model beside its runs."""
    model: nn.Module = row.make()
    number = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"family": row.family, "kind": row.kind, "labels": row.labels, "parameters": number}


if __name__ == "__main__":
    publish("lecture_16", __doc__, run)
