"""The families in nflows (Durkan et al.). Its transforms go from data to latents."""

from __future__ import annotations

from collections.abc import Sequence

from nflows.distributions import StandardNormal
from nflows.flows import Flow
from nflows.transforms import (
    ActNorm,
    AffineCouplingTransform,
    CompositeTransform,
    MaskedAffineAutoregressiveTransform,
    OneByOneConvolution,
    PiecewiseRationalQuadraticCouplingTransform,
    ReversePermutation,
    SqueezeTransform,
    Transform,
)
from torch import Tensor, arange
from torch.nn.functional import silu

from benchmarks.families import Family
from benchmarks.models import Builder, Model, plain_mlp
from flowlib.nets import MLP, ConvNet


def of(transforms: Sequence[Transform], shape: Sequence[int], note: str = "") -> Model:
    """The model of a list of transforms."""
    flow = Flow(CompositeTransform(transforms), StandardNormal(shape))
    return Model(flow, flow.log_prob, flow.sample, note)


def alternating(d: int, k: int) -> Tensor:
    """1 for the entries that layer k moves."""
    return (arange(d) + k) % 2


def realnvp(family: Family) -> Model:
    return of(
        [
            AffineCouplingTransform(alternating(family.d, k), lambda i, o: plain_mlp(i, o, family.hidden))
            for k in range(family.layers)
        ],
        family.event_shape,
        "Its scale is a sigmoid, so that a layer can only shrink what it moves on the way to the latents.",
    )


def spline(family: Family) -> Model:
    def conditioner(fan_in: int, fan_out: int) -> MLP:
        net = plain_mlp(fan_in, fan_out, family.hidden)
        # the library divides the numbers that go into its softmax by the root of this
        vars(net)["hidden_features"] = family.hidden[-1]
        return net

    return of(
        [
            PiecewiseRationalQuadraticCouplingTransform(
                alternating(family.d, k),
                conditioner,
                num_bins=family.bins,
                tails="linear",
                tail_bound=family.box,
            )
            for k in range(family.layers)
        ],
        family.event_shape,
    )


def maf(family: Family) -> Model:
    transforms: list[Transform] = []
    for _ in range(family.layers):
        transforms += [
            MaskedAffineAutoregressiveTransform(
                family.d,
                family.hidden[0],
                num_blocks=len(family.hidden) - 1,
                use_residual_blocks=False,
                activation=silu,
            ),
            ReversePermutation(family.d),
        ]
    return of(transforms, family.event_shape)


def glow(family: Family) -> Model:
    channels, height, width = 4 * family.d, family.event_shape[1] // 2, family.event_shape[2] // 2
    transforms: list[Transform] = [SqueezeTransform()]
    for _ in range(family.layers):
        transforms += [
            ActNorm(channels),
            OneByOneConvolution(channels),
            AffineCouplingTransform(
                (arange(channels) >= channels // 2).int(), lambda i, o: ConvNet(i, o, family.hidden)
            ),
        ]
    return of(
        transforms,
        (channels, height, width),
        "No learned signs or rotations at the start, and a bias in each 1×1 convolution.",
    )


BUILDERS: dict[str, Builder] = {"realnvp": realnvp, "glow": glow, "maf": maf, "spline": spline}
