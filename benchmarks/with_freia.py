"""The families in FrEIA (Ardizzone et al.), whose modules go from data to latents."""

from __future__ import annotations

import torch
from FrEIA.framework import SequenceINN
from FrEIA.modules import AllInOneBlock, GLOWCouplingBlock, IRevNetDownsampling
from torch import Tensor

from benchmarks.families import Family
from benchmarks.models import Builder, Model, even_first, normal_log_prob, plain_mlp
from flowlib.nets import ConvNet


def realnvp(family: Family) -> Model:
    flow = SequenceINN(family.d)
    for _ in range(family.layers // 2):  # a block is two couplings
        flow.append(
            GLOWCouplingBlock,
            subnet_constructor=lambda i, o: plain_mlp(i, o, family.hidden),
            clamp=2.0,
            clamp_activation="TANH",
        )
    order, back = even_first(family.d)

    def log_density(x: Tensor) -> Tensor:
        z, log_det = flow(x[:, order])
        return normal_log_prob(z) + log_det

    def sample(n: int) -> Tensor:
        return flow(torch.randn(n, family.d), rev=True)[0][:, back]

    return Model(flow, log_density, sample)


def glow(family: Family) -> Model:
    flow = SequenceINN(*family.event_shape)
    flow.append(IRevNetDownsampling)
    for _ in range(family.layers):
        flow.append(
            AllInOneBlock, subnet_constructor=lambda i, o: ConvNet(i, o, family.hidden), permute_soft=True
        )

    def log_density(x: Tensor) -> Tensor:
        z, log_det = flow(x)
        return normal_log_prob(z) + log_det

    def sample(n: int) -> Tensor:
        return flow(torch.randn(n, *flow.shapes[-1]), rev=True)[0]

    return Model(flow, log_density, sample, "The rotation of the channels is random and fixed, not learned.")


BUILDERS: dict[str, Builder] = {"realnvp": realnvp, "glow": glow}
