"""How fast a GPU trains Glow on 32 × 32 colour images: ``python -m benchmarks.throughput --device cuda``.

Two models, timed in turn in every round: the Glow that ``python -m flowlib.train --data cifar10`` trains, in
both precisions, eager and compiled; and a Glow on one scale, beside that of other libraries with the same
networks, in float32 and eager. A step is the likelihood, its gradient and Adam's update.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.cards import share_of_peak
from benchmarks.families import Family
from benchmarks.machine import describe
from benchmarks.memory import Memory
from benchmarks.models import Model, builders
from benchmarks.scaling import flops, named, training_step, warm_up
from flowlib.data import Dataset
from flowlib.flow import Flow
from flowlib.nets import Conditioner
from flowlib.train.flow_for import flow_for, recipe

RESULTS = Path(__file__).parent / "results"
OTHERS = ("nflows", "normflows")
ROUNDS = 11
LEAST = 0.2  # seconds; a time is taken over as many steps as last that long

Step = Callable[[], None]


@dataclass(frozen=True)
class Size:
    """How large batches and models are; ``course`` are the first one's sizes, None for the recipe's."""

    batch: int
    one_scale: Family
    course: dict[str, Any] | None = None


FULL = Size(256, Family("Glow", (3, 32, 32), layers=16, hidden=(128,)))
TINY = Size(2, Family("Glow", (3, 4, 4), layers=1, hidden=(4,)), {"layers": 1, "scales": 2, "hidden": (4,)})


def run(
    size: Size = FULL, device: str = "cuda", compiled: bool = True, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Measure everything; the result is what the page is made of."""
    at = torch.device(device)
    warm_up(at)
    card = torch.cuda.get_device_name() if at.type == "cuda" else None
    pixels = torch.randint(256, (size.batch, *size.one_scale.event_shape), dtype=torch.uint8)
    data = Dataset("noise", pixels, pixels, 256)
    sizes = size.course or recipe("glow", data)[0]
    entries: dict[str, dict[str, Any]] = {}
    steps: dict[str, Step] = {}
    for compile in (False, True) if compiled else (False,):
        for precision in ("float32", "bfloat16"):
            torch.manual_seed(0)
            memory = Memory(at)
            flow = flow_for(data, "glow", **sizes).to(at)
            for module in flow.modules() if precision == "bfloat16" else ():
                if isinstance(module, Conditioner):
                    module.autocast_dtype = torch.bfloat16
            name = f"{precision}, {'compiled' if compile else 'eager'}"
            x = pixels.float().to(at)
            entries[name], steps[name] = prepare(flow, flow, x, memory, compile)
            entries[name] |= {"model": "course", "precision": precision, "library": "flowlib"}
            print(f"{name} is ready", flush=True)  # compiled ones take minutes
    for library in ("flowlib", *filter(find_spec, OTHERS)):
        torch.manual_seed(0)
        memory = Memory(at)
        model = builders(library)["glow"](size.one_scale).to(at)
        name, x = f"one scale, {library}", (pixels.float() / 256 - 0.5).to(at)
        entries[name], steps[name] = prepare(model, model.log_density, x, memory)
        entries[name] |= {"model": "one scale", "precision": "float32", "library": library}
    for name, taken in interleave(steps, at, rounds).items():
        entry, rate = entries[name], size.batch / taken
        used = 1e9 * entry["gflops_per_image"] * rate
        share = None if card is None else share_of_peak(card, entry["precision"], used)
        entry |= {"images_per_second": rate, "share_of_peak": share}
    where = describe() | {"card": card, "cuda": torch.version.cuda, "tf32": torch.backends.cudnn.allow_tf32}
    return {"machine": where, "batch": size.batch, "rounds": rounds, "sizes": sizes, "entries": entries}


def prepare(
    model: Flow | Model,
    log_density: Callable[[Tensor], Tensor],
    x: Tensor,
    memory: Memory,
    compile: bool = False,
) -> tuple[dict[str, Any], Step]:
    """One model's training step, and what is known of it before it is timed."""
    model.train()
    with torch.no_grad():
        log_density(x)  # ActNorm's start, so that it is not compiled
    step = training_step(model, torch.compile(log_density) if compile else log_density, x)
    step()  # Adam's moments; compiles, too
    memory.restart()
    step()
    peak = memory.peak()
    operations = flops(lambda: (-log_density(x).mean()).backward())
    facts = {
        "compiled": compile,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "gflops_per_image": operations / len(x) / 1e9,
        "memory_mb": peak / 1e6,
    }
    return facts, step


def interleave(steps: dict[str, Step], device: torch.device, rounds: int) -> dict[str, float]:
    """The median over the rounds of the seconds of each step."""

    def seconds(step: Step, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - start) / repeats

    for step in steps.values():
        seconds(step, 3)
    repeats = {name: math.ceil(LEAST / seconds(step, 3)) for name, step in steps.items()}
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            taken[name].append(seconds(step, repeats[name]))
    return {name: median(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="models that tests can afford")
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, help="default: results/throughput-CARD.json")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("There is no CUDA device here; --device cpu --tiny tries the measurement without one.")
    warnings.simplefilter("ignore")  # deprecations inside the libraries
    size = TINY if arguments.tiny else FULL
    results = run(size, arguments.device, not arguments.eager, arguments.rounds)
    out = arguments.out or RESULTS / f"{named('throughput', arguments.device)}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    for name, entry in results["entries"].items():
        print(f"{name}: {entry['images_per_second']:.0f} images per second")


if __name__ == "__main__":
    main()
