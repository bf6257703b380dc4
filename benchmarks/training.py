"""What training costs, model by model: ``python -m benchmarks.training``.

Every model trains on the digits with the settings of ``python -m flowlib.train --data digits``: the same
steps, batches, learning rates and held-out images. One thread, float32. Each has a process of its own, so
that its peak of memory is its own. On a CPU seconds are those of the processor, which other programs
do not lengthen much.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from torch import Tensor

from benchmarks import scaling
from benchmarks.machine import describe
from benchmarks.memory import Memory
from flowlib import fit
from flowlib.data import Dataset, load_dataset
from flowlib.flow import Flow
from flowlib.layers.dequantize import bits_per_dim
from flowlib.layers.multiscale import Flatten
from flowlib.train.flow_for import flow_for, recipe
from flowlib.train.report import mean_nats

RESULTS = Path(__file__).parent / "results"
DRAWS = 3  # of the test images' dequantisation
SAMPLES = 64
LOOKS = 20  # at the held-out images, in the whole run


@dataclass(frozen=True)
class Row:
    """One model of the table.

    Attributes:
        title: its name on the page.
        model: a row of ``MODELS``.
        sizes: keywords of its constructor.
        flat: whether it gets the pixels in a row, where it could have the image.
    """

    title: str
    model: str
    sizes: dict[str, Any] = field(default_factory=dict)
    flat: bool = False


ROWS = {
    row.model: row
    for row in (
        Row("RealNVP", "realnvp", {"layers": 8, "hidden": (256, 256)}, flat=True),
        Row("MAF", "maf", {"layers": 5, "hidden": (256, 256)}),
        Row("Spline coupling", "spline", {"layers": 8, "hidden": (128, 128), "bins": 8}),
        Row("FFJORD", "ffjord", {"hidden": (128, 128), "steps": 8}),
        Row("VFlow", "vflow", {"layers": 8, "hidden": (256, 256), "extra": 32}, flat=True),
        Row("Multi-scale RealNVP", "realnvp_multiscale", {"scales": 2, "hidden": (32, 32)}),
        Row("Glow", "glow", {"layers": 8, "scales": 3, "hidden": (32,)}),
        Row("Wavelet Flow", "wavelet", {"layers": 8, "scales": 3, "hidden": (32,)}),
        Row("Flow++", "flowpp", {"layers": 4, "hidden": (32,), "components": 8}),
        Row("TarFlow", "tarflow", {"layers": 4, "hidden": (64, 64)}),
    )
}


def run(
    rows: dict[str, Row], device: str = "cpu", steps: int | None = None, variants: Iterable[str] | None = None
) -> dict[str, Any]:
    """Measure all rows, then how the cost of Glow grows; the result is what the page is made of."""
    torch.set_num_threads(1)
    models = {}
    for name, row in rows.items():
        models[name] = alone(measure, row, device, steps)
        bits = mean(models[name]["test_bits"])
        print(f"{row.title}: {bits:.3f} bits per dimension, {models[name]['seconds']:.0f} s", flush=True)
    grown = {
        name: alone(scaling.measure, name, device)
        for name in (scaling.VARIANTS if variants is None else variants)
    }
    where = describe() | ({"card": torch.cuda.get_device_name()} if device == "cuda" else {})
    return {"machine": where, "models": models, "scaling": grown, "plan": scaling.plan()}


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a new process: memory that another model left behind is not there."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def measure(row: Row, device: str = "cpu", steps: int | None = None) -> dict[str, Any]:
    """Train one model and say what it took; ``steps`` instead of the recipe's for a trial."""
    torch.set_num_threads(1)
    data = digits(row.flat)
    settings = recipe(row.model, data)[1] | ({} if steps is None else {"steps": steps})
    data = data.hold_out(len(data.train) // 10)
    held_out: Any = data.validation

    scaling.warm_up(torch.device(device))
    memory = Memory(torch.device(device))
    torch.manual_seed(0)
    flow = flow_for(data, row.model, **row.sizes)
    ticks: list[float] = []
    clock = time.process_time if device == "cpu" else time.perf_counter
    # the loop waits for the device in every step, so that a GPU's work is done when the next one begins
    flow.register_forward_pre_hook(lambda *_: ticks.append(clock()))
    history = fit(
        flow,
        data.train.float(),
        **settings,
        device=device,
        validation=held_out.float(),
        validate_every=max(1, settings["steps"] // LOOKS),
        progress=False,
    )
    peak = memory.peak()
    # the median leaves out the few steps after which held-out images were measured
    step = median(after - before for before, after in pairwise(ticks))
    return {
        **asdict(row),
        "in_a_row": row.flat or any(isinstance(module, Flatten) for module in flow.modules()),
        "settings": settings,
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "step_ms": 1e3 * step,
        "seconds": step * len(history.loss),
        "memory_mb": peak / 1e6,
        "sample_ms": 1e3 * scaling.seconds(lambda: flow.sample(SAMPLES), torch.device(device)),
        "curve": [[at, in_bits(nats)] for at, nats in history.validation],
        "test_bits": [in_bits(nats) for nats in test_nats(flow, data.test.float())],
    }


def digits(flat: bool) -> Dataset:
    """The digits as images, or with their pixels in a row."""
    data = load_dataset("digits")
    return replace(data, train=data.train.flatten(1), test=data.test.flatten(1)) if flat else data


def test_nats(flow: Flow, images: Tensor) -> list[float]:
    """The mean of −log p over the images, for each of a few draws of all that the flow draws."""
    return [mean_nats(flow, images, seed=seed) for seed in range(DRAWS)]


def in_bits(nats: float) -> float:
    return float(bits_per_dim(torch.tensor(-nats, dtype=torch.float64), 64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"leave out for all of {', '.join(ROWS)}")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--steps", type=int, help="for a trial; without it, the recipe's")
    parser.add_argument("--out", type=Path, help="default: results/training.json, on a GPU with its name")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.models if name not in ROWS]:
        parser.error(f"There is no model {unknown[0]!r} here; choose of {', '.join(ROWS)}.")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("There is no CUDA device here; leave --device out.")
    chosen = {name: ROWS[name] for name in arguments.models or ROWS}
    results = run(chosen, arguments.device, arguments.steps)
    out = arguments.out or RESULTS / f"{scaling.named('training', arguments.device)}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
