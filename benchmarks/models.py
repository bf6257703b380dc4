"""One face for the flows of every library, and the table of who builds what."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from importlib import import_module

import torch
from torch import Tensor, nn

from benchmarks.families import Family
from flowlib.nets import MLP

LIBRARIES = ("flowlib", "zuko", "nflows", "normflows", "FrEIA")
INVERSE = "flowlib, inverse"  # its splines in the direction of the other libraries'


class Model(nn.Module):
    """A flow of any library behind two functions.

    Args:
        flow: the library's module, which owns the parameters.
        log_density: what training differentiates, from points to one number each: the log-likelihood of
            data ``(B, *event_shape)``. For a planar flow, which some libraries cannot invert, the points
            are latents, and the number is :func:`reverse_kl`.
        sample: from a number of points to that many.
        note: what differs from the other libraries, in a sentence; empty if nothing does.
    """

    def __init__(
        self,
        flow: nn.Module,
        log_density: Callable[[Tensor], Tensor],
        sample: Callable[[int], Tensor],
        note: str = "",
    ) -> None:
        super().__init__()
        self.flow = flow
        self.log_density = log_density
        self.sample = sample
        self.note = note


Builder = Callable[[Family], Model]


def plain_mlp(fan_in: int, fan_out: int, hidden: tuple[int, ...]) -> MLP:
    """The network for libraries that take one from their user: flowlib's, with torch's default start."""
    net = MLP(fan_in, fan_out, hidden)
    *before, _ = net.layers
    for layer in before:
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    return net


def builders(library: str) -> dict[str, Builder]:
    """The families that a library has, with their builders."""
    return import_module(f"benchmarks.with_{library.lower()}").BUILDERS


def tables(libraries: Iterable[str]) -> dict[str, dict[str, Builder]]:
    """The builders of several libraries, in their order; after flowlib's those of :data:`INVERSE`."""
    found = {}
    for library in libraries:
        found[library] = builders(library)
        if library == "flowlib":
            found[INVERSE] = import_module("benchmarks.with_flowlib").INVERSE
    return found


def normal_log_prob(z: Tensor) -> Tensor:
    """The log-density of the standard normal, shape ``(B,)``."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).flatten(1).sum(1)


def reverse_kl(z: Tensor, x: Tensor, log_det: Tensor) -> Tensor:
    r"""One point's share of the reverse KL to a standard normal: :math:`\log q(x) - \log p(x)`, x = f(z)."""
    return normal_log_prob(z) - log_det - normal_log_prob(x)


def even_first(d: int) -> tuple[Tensor, Tensor]:
    """The order that brings even entries first, for libraries that split in halves, and the way back."""
    order = torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])
    return order, order.argsort()


__all__ = [
    "INVERSE",
    "LIBRARIES",
    "Builder",
    "Model",
    "builders",
    "even_first",
    "normal_log_prob",
    "plain_mlp",
    "reverse_kl",
    "tables",
]
