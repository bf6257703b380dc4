"""The families in flowlib: the rows of its table of models, and splines in the others' direction."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from benchmarks.families import STEPS, Family
from benchmarks.models import Builder, Model, reverse_kl
from flowlib import MODELS, Flow, Inverse, StandardNormal
from flowlib.layers.ffjord import FFJORD, RungeKutta, Velocity


def of(flow: Flow, note: str = "") -> Model:
    """The model of a flow that knows its density."""
    return Model(flow, flow, flow.sample, note)


def realnvp(family: Family) -> Model:
    return of(MODELS["realnvp"](family.d, family.layers, family.hidden))


def maf(family: Family) -> Model:
    return of(MODELS["maf"](family.d, family.layers, family.hidden))


def spline(family: Family) -> Model:
    return of(MODELS["spline"](family.d, family.layers, family.hidden, bins=family.bins, box=family.box))


def inverse_spline(family: Family) -> Model:
    flow: Any = spline(family).flow
    return of(
        Flow(Inverse(flow.bijection), flow.base),
        "The inverse of the flow above: its curves lead from data to latents, as in the other libraries.",
    )


def glow(family: Family) -> Model:
    return of(MODELS["glow"](family.event_shape, family.layers, scales=1, hidden=family.hidden))


def planar(family: Family) -> Model:
    flow = MODELS["planar"](family.d, family.layers)

    def log_density(z: Tensor) -> Tensor:
        return reverse_kl(z, *flow.bijection(z))

    return Model(flow, log_density, flow.sample)


def continuous(family: Family) -> Model:
    velocity = Velocity(family.d, family.hidden)
    flow = Flow(FFJORD(velocity, solver=RungeKutta(STEPS)), StandardNormal(family.d))
    return of(flow, f"{STEPS} Runge–Kutta steps, exact trace.")


BUILDERS: dict[str, Builder] = {
    "realnvp": realnvp,
    "glow": glow,
    "maf": maf,
    "spline": spline,
    "planar": planar,
    "continuous": continuous,
}
INVERSE: dict[str, Builder] = {"spline": inverse_spline}
