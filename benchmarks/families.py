"""What is compared: families of flows at fixed sizes, and the bare networks that times are divided by."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from flowlib.layers.autoregressive import MADE
from flowlib.nets import MLP, ConvNet

STEPS = 8  # of the Runge–Kutta method, each with four calls of the velocity


@dataclass(frozen=True)
class Family:
    """One architecture, built alike in every library that has it.

    Attributes:
        title: its name on the page.
        event_shape: the shape of one point.
        layers: how many couplings, autoregressive layers, flow steps or planar layers.
        hidden: widths inside each conditioner.
        batch: points in a batch of the timing.
        bins, box: of splines.
    """

    title: str
    event_shape: tuple[int, ...]
    layers: int
    hidden: tuple[int, ...] = ()
    batch: int = 256
    bins: int = 8
    box: float = 4.0

    @property
    def d(self) -> int:
        """The number of entries of a vector."""
        return self.event_shape[0]


FAMILIES = {
    "realnvp": Family("RealNVP", (64,), layers=8, hidden=(256, 256)),
    "glow": Family("Glow", (3, 16, 16), layers=4, hidden=(64,), batch=32),
    "maf": Family("MAF", (64,), layers=5, hidden=(256, 256)),
    "spline": Family("Spline coupling", (64,), layers=8, hidden=(256, 256)),
    "planar": Family("Planar flow", (2,), layers=32),
    "continuous": Family("Continuous flow", (2,), layers=1, hidden=(64, 64)),
}

# the same at a size that tests can afford
TINY = {
    name: replace(
        family,
        event_shape=(3, 4, 4) if name == "glow" else (4,),
        layers=2,
        hidden=tuple(8 for _ in family.hidden),
        batch=4,
        bins=3,
    )
    for name, family in FAMILIES.items()
}


def other_sizes(name: str, family: Family) -> dict[str, Family]:
    """The same architecture with a larger batch and with wider networks, so that no result hangs on one size.

    Example:
        >>> {size: (other.batch, other.hidden) for size, other in other_sizes("maf", FAMILIES["maf"]).items()}
        {'larger batches': (4096, (256, 256)), 'wider networks': (256, (512, 512))}
    """
    sizes = {"larger batches": replace(family, batch=(8 if name == "glow" else 16) * family.batch)}
    if family.hidden:
        sizes["wider networks"] = replace(
            family, hidden=tuple(max(256, 2 * width) for width in family.hidden)
        )
    return sizes


Network = tuple[Callable[..., Tensor], tuple[int, ...]]


def bare_networks(name: str, family: Family) -> tuple[nn.Module, list[Network]]:
    """The networks that a family's formulas call, each with the shape of its input, and nothing else.

    A coupling's network sees the d/2 entries that stay and serves the d/2 that move. A continuous
    flow calls one network again and again. A planar flow has none.
    """
    d = family.event_shape[0]
    if name == "continuous":
        velocity = MLP(d + 1, d, family.hidden, activation=nn.Tanh)
        return velocity, [(velocity, (d + 1,))] * (4 * STEPS)
    if name == "planar":
        return nn.ModuleList(), []
    if name == "glow":
        pixels = (family.event_shape[1] // 2, family.event_shape[2] // 2)
        nets: list[nn.Module] = [ConvNet(2 * d, 4 * d, family.hidden) for _ in range(family.layers)]
        return nn.ModuleList(nets), [(net, (2 * d, *pixels)) for net in nets]
    if name == "maf":
        nets = [MADE(d, 2, family.hidden) for _ in range(family.layers)]
        return nn.ModuleList(nets), [(net, (d,)) for net in nets]
    outputs = 2 if name == "realnvp" else 3 * family.bins - 1
    nets = [MLP(d // 2, outputs * (d // 2), family.hidden) for _ in range(family.layers)]
    return nn.ModuleList(nets), [(net, (d // 2,)) for net in nets]


def live_parameters(model: nn.Module, loss: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """How many parameters the loss depends on: those whose gradient is not zero at a random place.

    Masked weights do not count, nor what a network computes only to be masked out.
    """
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            width = 0.1 / math.sqrt(parameter.shape[1:].numel())  # small: no tanh may saturate
            parameter.add_(width * torch.randn(parameter.shape, generator=generator))
    model.zero_grad()
    loss(2 * x).sum().backward()  # wide, so that every bin of a spline has points
    live = sum(int((p.grad != 0).sum()) for p in model.parameters() if p.grad is not None)
    model.zero_grad()
    model.load_state_dict(before)
    return live


__all__ = ["FAMILIES", "STEPS", "TINY", "Family", "bare_networks", "live_parameters", "other_sizes"]
