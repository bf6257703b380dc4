"""How the cost of a training step grows with the model and the image: one change at a time, on Glow."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import Memory
from flowlib.data import Dataset
from flowlib.nets import ConvNet
from flowlib.train.flow_for import flow_for, recipe

#: of the model, its images (3 × side × side) and their number
BASE = {"layers": 4, "scales": 2, "hidden": 32, "side": 16, "batch": 32}
#: what is changed, in words, and to what
VARIANTS: dict[str, tuple[str, dict[str, int]]] = {
    "base": ("nothing", {}),
    "layers": ("8 flow steps on each scale instead of 4", {"layers": 8}),
    "hidden": ("width 64 instead of 32", {"hidden": 64}),
    "side": ("32 × 32 pixels instead of 16 × 16", {"side": 32}),
    "batch": ("64 images in a batch instead of 32", {"batch": 64}),
}
REPEATS = 9


def measure(name: str, device: str = "cpu", base: dict[str, int] | None = None) -> dict[str, Any]:
    """One variant: parameters, floating-point operations, time and memory of a training step."""
    torch.set_num_threads(1)
    changed, change = VARIANTS[name]
    sizes = (base or BASE) | change
    at = torch.device(device)
    pixels = torch.randint(256, (sizes["batch"], 3, sizes["side"], sizes["side"]), dtype=torch.uint8)
    warm_up(at)
    memory = Memory(at)
    keywords: dict[str, Any] = {
        "layers": sizes["layers"],
        "scales": sizes["scales"],
        "hidden": (sizes["hidden"],),
    }
    flow = flow_for(Dataset("noise", pixels, pixels, 256), "glow", **keywords).to(at)
    step = training_step(flow, flow, pixels.float().to(at))
    step()  # Adam's moments are there from now on
    taken = seconds(step, at, REPEATS)
    return {
        "changed": changed,
        "sizes": sizes,
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "step_ms": 1e3 * taken,
        "memory_mb": memory.peak() / 1e6,
        "gflops": flops(step) / 1e9,  # last: the counter's own memory is not the model's
    }


def plan() -> dict[str, Any]:
    """What the command's Glow for CIFAR-10 adds up to: counted, not run."""
    pixels = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    data = Dataset("black", pixels, pixels, 256)
    sizes, settings = recipe("glow", data)
    flow = flow_for(data, "glow", **sizes)
    operations = flops(lambda: flow(pixels.float()).mean().backward())
    return {
        "sizes": sizes,
        "steps": settings["steps"],
        "batch_size": settings["batch_size"],
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "gflops_per_image": operations / len(pixels) / 1e9,
    }


def training_step(model: nn.Module, log_density: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    """A function that takes one step of Adam with the model's parameters, on always the same batch."""
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    model.train()

    def step() -> None:
        optimiser.zero_grad()
        (-log_density(x).mean()).backward()
        optimiser.step()

    return step


def flops(step: Callable[[], object]) -> int:
    """Multiplications and additions of all matrix products and convolutions of a call, backward included."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def warm_up(device: torch.device) -> None:
    """Let torch load what any training loads at its first step, which is no model's time or memory."""
    net = ConvNet(3, 6, (8,)).to(device)
    training_step(net, lambda x: net(x).flatten(1).sum(1), torch.ones(2, 3, 8, 8, device=device))()


def seconds(action: Callable[[], object], device: torch.device, repeats: int = 5) -> float:
    """The median time of a call, after one that does not count: processor time on a CPU."""
    cuda = device.type == "cuda"
    clock = time.perf_counter if cuda else time.process_time
    taken = []
    for _ in range(repeats + 1):
        start = clock()
        action()
        if cuda:
            torch.cuda.synchronize(device)
        taken.append(clock() - start)
    return median(taken[1:])


def named(kind: str, device: str) -> str:
    """The name of a file of results; that of a GPU's has the card in it."""
    if device != "cuda":
        return kind
    return f"{kind}-{torch.cuda.get_device_name().lower().replace(' ', '-').replace('/', '-')}"


__all__ = ["BASE", "VARIANTS", "flops", "measure", "named", "plan", "seconds", "training_step", "warm_up"]
