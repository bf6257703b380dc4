"""The families in normflows (Stimper et al.). As in flowlib, flows go from latents to data."""

from __future__ import annotations

from collections.abc import Sequence

import normflows
import torch
from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling
from torch import Tensor, nn
from torch.nn.functional import silu

from benchmarks.families import Family
from benchmarks.models import Builder, Model, even_first, plain_mlp, reverse_kl
from flowlib.nets import ConvNet


class Backwards(normflows.flows.Flow):
    """A flow with its two directions swapped, as the library's own wrappers of these layers do."""

    def __init__(self, flow: normflows.flows.Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(z)

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow(z)


def of(flows: Sequence[nn.Module], shape: tuple[int, ...], note: str = "", split: bool = False) -> Model:
    """The model of a list of flows; with ``split`` even entries come first, which halves then separate."""
    base = normflows.distributions.DiagGaussian(shape, trainable=False)
    flow = normflows.NormalizingFlow(base, flows)
    if not split:
        return Model(flow, flow.log_prob, lambda n: flow.sample(n)[0], note)
    order, back = even_first(shape[0])
    return Model(flow, lambda x: flow.log_prob(x[:, order]), lambda n: flow.sample(n)[0][:, back], note)


def realnvp(family: Family) -> Model:
    flows: list[nn.Module] = []
    for _ in range(family.layers):
        net = plain_mlp(family.d // 2, family.d, family.hidden)
        flows += [
            normflows.flows.AffineCouplingBlock(net, scale_map="sigmoid"),
            normflows.flows.Permute(family.d, mode="swap"),
        ]
    return of(
        flows,
        family.event_shape,
        "Its default for the scale, exp, diverges on the toys; taken with the other, a sigmoid below 1.",
        split=True,
    )


def spline(family: Family) -> Model:
    def conditioner(fan_in: int, fan_out: int) -> nn.Module:
        net = plain_mlp(fan_in, fan_out, family.hidden)
        # the library divides the numbers that go into its softmax by the root of this
        vars(net)["hidden_features"] = family.hidden[-1]
        return net

    return of(
        [
            Backwards(
                PiecewiseRationalQuadraticCoupling(
                    (torch.arange(family.d) + k) % 2,
                    conditioner,
                    num_bins=family.bins,
                    tails="linear",
                    tail_bound=family.box,
                )
            )
            for k in range(family.layers)
        ],
        family.event_shape,
    )


def maf(family: Family) -> Model:
    d, (first, *others) = family.d, family.hidden
    wanted = d * first + first + sum(h * first + h for h in others) + 2 * d * first + 2 * d
    width = next(h for h in range(1, 2 * first) if 2 * h * h + (3 * d + 3) * h + 2 * d >= wanted)
    flows: list[nn.Module] = []
    for _ in range(family.layers):
        layer = normflows.flows.MaskedAffineAutoregressive(d, width, num_blocks=1, activation=silu)
        flows += [normflows.flows.Permute(d, mode="swap"), Backwards(layer)]
    return of(
        flows,
        family.event_shape,
        "Its MADE has no activation after the first layer, so it is taken with a residual block, narrower "
        f"({width} units) for as many parameters; its scale is a sigmoid, below 1; between layers halves are "
        "swapped, not the order reversed.",
    )


def glow(family: Family) -> Model:
    channels = 4 * family.d
    shape = (channels, family.event_shape[1] // 2, family.event_shape[2] // 2)
    flows: list[nn.Module] = []
    for _ in range(family.layers):
        net = ConvNet(channels // 2, channels, family.hidden)
        flows += [
            normflows.flows.AffineCouplingBlock(net, scale_map="sigmoid"),
            normflows.flows.Invertible1x1Conv(channels, use_lu=True),
            normflows.flows.ActNorm((channels, 1, 1)),
        ]
    return of([*flows, normflows.flows.Squeeze()], shape)


def planar(family: Family) -> Model:
    flow = normflows.NormalizingFlow(
        normflows.distributions.DiagGaussian(family.event_shape, trainable=False),
        [normflows.flows.Planar(family.event_shape) for _ in range(family.layers)],
    )

    def log_density(z: Tensor) -> Tensor:
        return reverse_kl(z, *flow.forward_and_log_det(z))

    return Model(flow, log_density, lambda n: flow.sample(n)[0], "It has no inverse with tanh.")


BUILDERS: dict[str, Builder] = {
    "realnvp": realnvp,
    "glow": glow,
    "maf": maf,
    "spline": spline,
    "planar": planar,
}
