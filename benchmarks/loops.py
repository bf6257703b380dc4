"""Whole trainings: ``fit`` beside the loop that one would write by hand, and each library's model in its own.

None of zuko, nflows, normflows and FrEIA has a training loop; their documentation writes one, the same few
lines in all four: zero the gradients, the mean negative log-likelihood, backward, a step of Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor

from benchmarks.families import FAMILIES, TINY, Family
from benchmarks.models import Model
from flowlib import Flow, fit

RATE, CLIP = 1e-3, 5.0
BATCHES = 8  # in the data of a training


@dataclass(frozen=True)
class Loop:
    """A training to time.

    Attributes:
        title: its name on the page.
        family: the architecture's name.
        sizes: and its sizes.
        steps: in one training.
    """

    title: str
    family: str
    sizes: Family
    steps: int


IN_THE_PLANE = Family("RealNVP", (2,), layers=8, hidden=(64, 64))
LOOPS = {
    "plane": Loop("RealNVP in the plane", "realnvp", IN_THE_PLANE, steps=100),
    "realnvp": Loop("RealNVP", "realnvp", FAMILIES["realnvp"], steps=50),
    "glow": Loop("Glow", "glow", FAMILIES["glow"], steps=20),
}
TINY_LOOPS = {name: Loop(loop.title, loop.family, TINY[loop.family], steps=2) for name, loop in LOOPS.items()}


def loops(loop: Loop, models: dict[str, Model]) -> dict[str, Callable[[], object]]:
    """``fit``, the same by hand, and the documentation's loop for every other library."""
    sizes = loop.sizes
    data = torch.randn(BATCHES * sizes.batch, *sizes.event_shape, generator=torch.Generator().manual_seed(1))
    flow = cast(Flow, models["flowlib"].flow)

    def with_fit() -> None:
        fit(flow, data, steps=loop.steps, batch_size=sizes.batch, lr=RATE, clip=CLIP, progress=False)

    actions: dict[str, Callable[[], object]] = {
        "fit": with_fit,
        "by hand": partial(by_hand, models["flowlib"], data, sizes.batch, loop.steps),
    }
    for library, model in models.items():
        if library != "flowlib":
            actions[library] = partial(as_documented, model, data, sizes.batch, loop.steps)
    return actions


def by_hand(model: Model, data: Tensor, batch: int, steps: int) -> list[float]:
    """What ``fit`` does by default: shuffled epochs, fused Adam, a cosine schedule, clipping, a history."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    losses: list[float] = []
    model.train()
    while len(losses) < steps:
        for rows in torch.randperm(len(data)).split(batch)[: steps - len(losses)]:
            optimiser.zero_grad()
            loss = -model.log_density(data[rows]).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
    model.eval()
    return losses


def as_documented(model: Model, data: Tensor, batch: int, steps: int) -> None:
    """The loop of the four libraries' documentation, with Adam as it comes."""
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=RATE)
    model.train()
    for _ in range(steps):
        x = data[torch.randint(len(data), (batch,))]
        optimiser.zero_grad()
        loss = -model.log_density(x).mean()
        loss.backward()
        optimiser.step()
    model.eval()


__all__ = ["LOOPS", "TINY_LOOPS", "Loop", "as_documented", "by_hand", "loops"]
