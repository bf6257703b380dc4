"""Lecture 10's trainings, by seed and budget: ``python -m benchmarks.lecture_10``, seven minutes.

Affine against spline layers in the plane; on the digits two couplings and two autoregressive flows beside an
autoregressive model of the whole numbers; and how many Jacobi passes the trained flows take to generate. The
lecture trains one of them again, to see that it still gives what lies in the file. One thread.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from benchmarks.categorical import made
from benchmarks.experiment import baselines, bits, publish
from flowlib import MODELS, Compose, Dequantize, Flow, Logit, bits_per_dim, fit
from flowlib.data import Checkerboard, Density, TwoMoons, load_dataset
from flowlib.layers.autoregressive import Autoregressive

BUDGETS, SEEDS = (200, 800), range(3)

PLANE: dict[str, Density] = {"checkerboard": Checkerboard(), "two moons": TwoMoons()}
LAYERS = {"affine": "maf", "spline": "spline_ar"}
PLANE_SETTINGS: dict[str, Any] = {"batch_size": 256, "lr": 2e-3, "progress": False}

DIGITS: dict[str, tuple[str, dict[str, Any]]] = {
    "RealNVP": ("realnvp", {"layers": 8, "hidden": (256, 256)}),
    "MAF": ("maf", {"layers": 5, "hidden": (256, 256)}),
    "spline coupling": ("spline", {"layers": 8, "hidden": (128, 128), "bins": 8}),
    "spline MAF": ("spline_ar", {"layers": 3, "hidden": (256, 256), "bins": 8}),
}
CATEGORICAL = {"categorical MADE": 0, "categorical MADE, labels": 10}
DIGITS_SETTINGS: dict[str, Any] = {"batch_size": 64, "lr": 1e-3, "ema": 0.99, "progress": False}
CATEGORICAL_SETTINGS: dict[str, Any] = DIGITS_SETTINGS | {"lr": 4e-3}


def gap(flow: Flow, density: Density) -> float:
    """The Kullback–Leibler divergence of the density from the flow, in nats, on 20,000 points."""
    x = density.sample(20_000, torch.Generator().manual_seed(1))
    with torch.no_grad():
        return (density.log_prob(x) - flow.log_prob(x)).mean().item()


def in_the_plane() -> list[dict[str, Any]]:
    """Four affine or spline layers with orders that take turns, in float64."""
    runs = []
    for name, density in PLANE.items():
        for steps in BUDGETS:
            for layer, model in LAYERS.items():
                for seed in SEEDS:
                    torch.manual_seed(seed)
                    flow = MODELS[model](layers=4)
                    fit(flow, density, steps=steps, seed=seed, **PLANE_SETTINGS)
                    run = {"data": name, "layer": layer, "steps": steps, "seed": seed}
                    runs.append(run | {"gap": gap(flow, density)})
                    print(runs[-1], flush=True)
    return runs


def jacobi_passes(layer: Autoregressive, z: Tensor, tol: float = 1e-6) -> int:
    """How often all entries are computed at once until none is off by more than ``tol``."""
    exact, x = layer(z)[0], torch.zeros_like(z)
    for k in range(1, z.shape[1] + 1):
        x = layer.generate(z, layer.made(x))[0]
        if (x - exact).abs().max() <= tol:
            return k
    raise AssertionError("Jacobi's iteration is exact after as many passes as there are entries.")


@torch.no_grad()
def passes_of(flow: Flow) -> list[int]:
    """The passes of each autoregressive layer in turn, on 100 latents, in float64."""
    z, passes = torch.randn(100, 64, generator=torch.Generator().manual_seed(0)), []
    for layer in flow.double().bijection:
        if isinstance(layer, Autoregressive):
            passes.append(jacobi_passes(layer, z))
            z = layer(z)[0]
    return passes


def on_digits() -> list[dict[str, Any]]:
    """Bits per dimension of new images: bounds of the flows, exact values of the categorical model."""
    data = load_dataset("digits").hold_out(143)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    images = {part: x.flatten(1).float() for part, x in parts.items()}  # type: ignore[union-attr]
    labels = {
        "train": one_hot(data.train_labels, 10).float(),  # type: ignore[arg-type]
        "validation": one_hot(data.validation_labels, 10).float(),  # type: ignore[arg-type]
        "test": one_hot(data.test_labels, 10).float(),  # type: ignore[arg-type]
    }
    runs = []
    for steps in BUDGETS:
        for name in (*DIGITS, *CATEGORICAL):
            for seed in SEEDS:
                torch.manual_seed(seed)
                run: dict[str, Any] = {"model": name, "steps": steps, "seed": seed}
                if name in DIGITS:
                    model, sizes = DIGITS[name]
                    inner = MODELS[model](event_shape=64, **sizes)
                    flow = Flow(Compose([*inner.bijection, Logit(0.05), Dequantize(17)]), inner.base).float()
                    fit(flow, images["train"], steps=steps, seed=seed, validation=images["validation"],
                        **DIGITS_SETTINGS)  # fmt: skip
                    run["test"] = bits(flow, images["test"], draws=10)
                    run["train"] = bits(flow, images["train"], draws=1)
                    if name in ("MAF", "spline MAF") and steps == BUDGETS[-1]:
                        run["passes"] = passes_of(flow)
                else:
                    run |= categorical(CATEGORICAL[name], steps, seed, images, labels)
                runs.append(run)
                print(run, flush=True)
    return runs


def categorical(
    features: int, steps: int, seed: int, images: dict[str, Tensor], labels: dict[str, Tensor]
) -> dict[str, float]:
    """Train the autoregressive model of whole numbers; with labels, also without them by averaging."""
    context = labels if features else dict.fromkeys(labels)
    flow = made(64, (256,), features=features).float()
    fit(flow, images["train"], steps=steps, seed=seed, context=context["train"],
        validation=images["validation"], validation_context=context["validation"],
        **CATEGORICAL_SETTINGS)  # fmt: skip
    found = {part: bits(flow, images[part], 1, context[part]) for part in ("test", "train")}
    if features:
        classes = torch.eye(10, dtype=torch.float32)
        with torch.no_grad():
            each = [flow.log_prob(images["test"], label.expand(len(images["test"]), -1)) for label in classes]
        log_P = torch.stack(each, 1).logsumexp(1) - math.log(10)
        found["test, labels averaged out"] = bits_per_dim(log_P, 64).mean().item()
    return found


def run() -> dict[str, Any]:
    """Train everything at both budgets with every seed; the lecture draws what comes back."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)  # as in the lecture: a seed gives the same start
    new = load_dataset("digits")
    return {
        "baselines": baselines(new.train, new.test),
        "plane": in_the_plane(),
        "digits": on_digits(),
    }


if __name__ == "__main__":
    publish("lecture_10", __doc__, run)
