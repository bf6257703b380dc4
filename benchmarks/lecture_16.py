"""Lecture 16's comparison: ``python -m benchmarks.lecture_16``, a quarter of an hour of one processor.

Every model of the course that takes the 8×8 digits, two autoregressive models of their whole numbers and an
energy-based model trained in two ways, on the same images at two budgets of processor time with three seeds.
Each training runs alone in a process of its own, and what it found lies in _build/lecture_16 until all are
done: an interrupted run goes on where it stopped. One thread, float32.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from benchmarks import energy, looks
from benchmarks.categorical import PixelTransformer, categorical, made
from benchmarks.experiment import baselines, publish
from benchmarks.memory import Memory
from flowlib import MODELS, Flow, bits_per_dim, fit, fit_matching
from flowlib.data import Dataset, load_dataset
from flowlib.train.flow_for import flow_for
from flowlib.train.report import mean_nats

BUDGETS, SEEDS, LOOKS, DRAWS = (2.0, 8.0), range(3), 8, 10
KEPT = Path("_build/lecture_16")
FIGURE = Path("book/_static/figures/choose-data.js")
DRAWN, SHEET = 400, 16  # images whose looks are measured, and those that are kept
TOLD = ("seconds", "test", "train", "sampling", "memory_mb", "looks")
CPU = torch.device("cpu")
CHAINS, LENGTHS, STEP = 64, (10, 100, 1000), 0.1  # of annealed importance sampling


@dataclass(frozen=True)
class Row:
    """One model.

    Attributes:
        family: coupling, autoregressive, continuous, whole numbers, energy or another kind of flow.
        kind: what its number of bits is: an exact value, a bound from above, or an estimate.
        make: builds it.
        settings: of the training, where they are not the usual ones.
        train: the training; ``fit`` if not given.
        labels: whether it is told the class.
        image: whether it takes images, or their pixels in a row.
    """

    family: str
    kind: str
    make: Callable[[], Flow]
    settings: dict[str, Any] = field(default_factory=dict)
    train: Callable[..., Any] = fit
    labels: bool = False
    image: bool = False


USUAL: dict[str, Any] = {"batch_size": 64, "lr": 3e-3, "ema": 0.99, "progress": False}


@cache
def digits() -> Dataset:
    """The digits, a tenth of the training images held out, pixels in a row."""
    return load_dataset("digits").hold_out(143)


def parts(row: Row) -> dict[str, Tensor]:
    """The images as this model takes them."""
    data = digits()
    images = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: (x if row.image else x.flatten(1)).float() for name, x in images.items()}  # type: ignore


def classes(row: Row) -> dict[str, Tensor | None]:
    """One row for each image that says its class, if the model is told."""
    data = digits()
    labels = {"train": data.train_labels, "validation": data.validation_labels, "test": data.test_labels}
    return {name: one_hot(y, 10).float() if row.labels else None for name, y in labels.items()}  # type: ignore


def in_a_row() -> Dataset:
    """The digits as vectors, for models that could take images and here do not."""
    data = digits()
    vectors = {name: getattr(data, name).flatten(1) for name in ("train", "test", "validation")}
    return Dataset("digits", levels=17, **vectors)


def flow(family: str, model: str, labels: bool = False, image: bool = False, **sizes: Any) -> Row:
    """A row of ``MODELS``, with the usual steps from whole numbers to the real line."""
    train, settings = sizes.pop("train", fit), sizes.pop("settings", {})

    def make() -> Flow:
        return flow_for(digits() if image else in_a_row(), model, 10 if labels else 0, **sizes)

    return Row(family, "bound", make, settings, train, labels, image)


def energy_based(loss: Callable[[], Any], lr: float) -> Row:
    """The energy of a Gaussian and of a network, with its own way to train."""

    def make() -> Flow:
        layers = energy.whitening(parts_flat()["train"])
        return energy.EnergyFlow(layers, energy.Energy(64), loss())

    return Row("energy", "estimate", make, {"lr": lr, "validation": None})


def parts_flat() -> dict[str, Tensor]:
    """The images with their pixels in a row."""
    return parts(Row("", "", lambda: None))  # type: ignore[arg-type, return-value]


WIDE: dict[str, Any] = {"layers": 8, "hidden": (256, 256)}
DEEP: dict[str, Any] = {"layers": 8, "scales": 3, "hidden": (32,), "image": True}
STEEP = {"lr": 4e-3}
PATCHES: dict[str, Any] = {"image": True, "layers": 4, "hidden": (64, 64), "patch": 4}
PATCHES["settings"] = STEEP | {"batch_size": 32}
VELOCITY: dict[str, Any] = {"hidden": (256, 256), "steps": 4, "settings": STEEP}
ROWS: dict[str, Row] = {
    "linear": flow("other flow", "linear", settings=STEEP),
    "planar": flow("other flow", "planar", layers=32, settings=STEEP),
    "radial": flow("other flow", "radial", layers=32, settings=STEEP),
    "NICE": flow("coupling", "nice", **WIDE),
    "RealNVP": flow("coupling", "realnvp", **WIDE),
    "multi-scale RealNVP": flow("coupling", "realnvp_multiscale", image=True, scales=2, hidden=(32, 32)),
    "Glow": flow("coupling", "glow", **DEEP),
    "spline coupling": flow("coupling", "spline", layers=8, hidden=(128, 128), bins=8),
    "Flow++": flow("coupling", "flowpp", layers=4, hidden=(128, 128), components=8),
    "VFlow": flow("coupling", "vflow", extra=32, **WIDE),
    "Wavelet Flow": flow("coupling", "wavelet", **DEEP),
    "MAF": flow("autoregressive flow", "maf", layers=5, hidden=(256, 256)),
    "IAF": flow("autoregressive flow", "iaf", layers=3, hidden=(256, 256), settings=STEEP),
    "spline MAF": flow("autoregressive flow", "spline_ar", layers=3, hidden=(256, 256), bins=8),
    "TarFlow": flow("autoregressive flow", "tarflow", **PATCHES),
    "FFJORD": flow("continuous", "ffjord", **VELOCITY),
    "flow matching": flow("continuous", "ffjord", train=fit_matching, **VELOCITY),
    "categorical MADE": Row("whole numbers", "exact", lambda: made(64, (256,)), STEEP),
    "categorical MADE, labels": Row(
        "whole numbers", "exact", lambda: made(64, (256,), features=10), STEEP, labels=True
    ),
    "causal transformer": Row(
        "whole numbers",
        "exact",
        lambda: categorical(PixelTransformer(64, 17)),
        {"batch_size": 16, "lr": 6e-3},
    ),
    "energy, score matching": energy_based(lambda: energy.DenoisingScoreMatching(0.3), 2e-3),
    "energy, contrastive": energy_based(lambda: energy.ContrastiveDivergence(64, 256, 10, 0.02), 1e-3),
}


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

    processor_seconds(steps(2))
    first = processor_seconds(steps(2)) / 2
    n = max(4, min(100, int(0.5 / first)))
    step, look = processor_seconds(steps(n)) / n, 0.0
    if row.settings.get("validation", 0) is not None:
        look = processor_seconds(lambda: mean_nats(model, images["validation"], told["validation"]))
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


def as_text(image: list[int]) -> str:
    """An image in 64 letters, 0 to 9 and a to g."""
    return "".join("0123456789abcdefg"[pixel] for pixel in image)


@torch.no_grad()
def bits(model: Flow, x: Tensor, draws: int, context: Tensor | None = None) -> float:
    """Bits per dimension, a mean over the same draws of dequantisation noise at every call."""
    torch.manual_seed(1)
    return sum(bits_per_dim(model.log_prob(x, context), 64).mean().item() for _ in range(draws)) / draws


# --- the normaliser of the energy-based models ----------------------------------------------


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


def run() -> dict[str, Any]:
    """Train everything at both budgets with every seed; the lecture draws what comes back."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    guide()  # before the processes fork, so that each has it
    looks.classifier()
    whole = {"known": kept("known", known), "growth": kept("growth", growth)}
    runs = []
    for seed in SEEDS:
        for name in ROWS:
            cost = kept(f"{name}, pace", pace, name)
            for k, budget in enumerate(BUDGETS):
                steps = max(LOOKS, int((budget - LOOKS * cost["look"]) / cost["step"]))
                runs.append(kept(f"{name}, {k}, seed {seed}", one_run, name, k, seed, steps))
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
                key: mean(run[key] for run in mine) for key in ("test", "sampling", "memory_mb", "looks")
            }
            rows.append(
                {"model": name, "family": row["family"], "kind": row["kind"], "labels": row["labels"]}
                | {
                    "budget": budget,
                    "bits": round(costs["test"], 4),
                    "sampling": round(1e3 * costs["sampling"], 3),
                }
                | {"memory": round(costs["memory_mb"], 1), "parameters": row["parameters"] / 1e3}
                | {"looks": round(costs["looks"], 2)}
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
