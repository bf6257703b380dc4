"""The families in zuko (Rozet et al.), which has vectors only."""

from __future__ import annotations

from functools import partial

from torch import nn
from zuko.flows import CNF, MAF, NICE, Flow
from zuko.transforms import MonotonicRQSTransform

from benchmarks.families import Family
from benchmarks.models import Builder, Model


def of(flow: Flow, note: str = "") -> Model:
    """The model of a zuko flow, which makes a distribution each time it is called."""
    return Model(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)), note)


def realnvp(family: Family) -> Model:
    return of(NICE(family.d, transforms=family.layers, hidden_features=family.hidden, activation=nn.SiLU))


def maf(family: Family) -> Model:
    return of(MAF(family.d, transforms=family.layers, hidden_features=family.hidden, activation=nn.SiLU))


def spline(family: Family) -> Model:
    return of(
        NICE(
            family.d,
            transforms=family.layers,
            univariate=partial(MonotonicRQSTransform, bound=family.box),
            shapes=[(family.bins,), (family.bins,), (family.bins - 1,)],
            hidden_features=family.hidden,
            activation=nn.SiLU,
        )
    )


def continuous(family: Family) -> Model:
    flow = CNF(family.d, freqs=1, hidden_features=family.hidden, activation=nn.Tanh)
    return of(
        flow,
        "Its own adaptive Dormand–Prince solver with checkpoint adjoint at its default tolerances (it has no "
        "fixed steps), exact trace; the network sees the time as a cosine and a sine.",
    )


BUILDERS: dict[str, Builder] = {
    "realnvp": realnvp,
    "maf": maf,
    "spline": spline,
    "continuous": continuous,
}
