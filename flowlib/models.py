r"""Named models: one table from a name to a function that builds a ready :class:`~flowlib.flow.Flow`.

Called without arguments each builds a small flow on the plane; keywords size it. Tests,
benchmarks and the last lecture run over :data:`MODELS`, so a row is all a new model needs: a function that
makes the layers, in generative order. What all rows share, a base and the checks, is in ``rows``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowlib.bases import StandardNormal
from flowlib.bijection import Bijection, Compose, Inverse
from flowlib.layers.autoregressive import AffineAutoregressive
from flowlib.layers.coupling import (
    AdditiveCoupling,
    AffineCoupling,
    Permute,
    Scale,
    checkerboard_mask,
    conditioner_sizes,
    half_mask,
)
from flowlib.layers.ffjord import FFJORD, RungeKutta, Velocity
from flowlib.layers.flowpp import MixtureCoupling
from flowlib.layers.glow import ConvolutionLU
from flowlib.layers.linear import Triangular
from flowlib.layers.multiscale import glow_scales, realnvp_scales
from flowlib.layers.planar import Planar, PlanarStack
from flowlib.layers.radial import Radial
from flowlib.layers.spline import SplineAutoregressive, SplineCoupling
from flowlib.layers.tarflow import TarFlowBlock
from flowlib.layers.vflow import Augment, VFlow
from flowlib.layers.wavelet import WaveletFlow
from flowlib.nets import MLP, AttentionNet, ConvNet
from flowlib.rows import MODELS, row

Vector = tuple[int]
Image = tuple[int, int, int]
Points = tuple[int, ...]  # of either
Widths = Sequence[int]
Layers = list[Bijection]


@row(1)
def linear(shape: Vector, features: int) -> Layers:
    r"""One triangular affine map, :math:`x = Lz + b`: every Gaussian, and nothing else.

    Args:
        event_shape: ``(d,)``.
        context_features: length of the vector that conditions each point; 0 for none.
        base: the base density; a standard normal if not given.

    Raises:
        ValueError: if ``event_shape`` is not one size.

    Example:
        >>> linear(event_shape=3).event_shape
        torch.Size([3])
    """
    return [Triangular(*shape, features)]


@row(1)
def planar(shape: Vector, features: int, layers: int = 8) -> Compose:
    r"""A stack of planar layers, :math:`u^k = u^{k-1} + u_k \tanh(w_k^\top u^{k-1} + b_k)`.

    Args:
        event_shape: ``(d,)``.
        layers: the number K of layers.
        context_features: length of the vector that conditions each point; 0 for none.
        base: the base density; a standard normal if not given.

    Raises:
        ValueError: if ``event_shape`` is not one size, or ``layers`` is not positive.

    Example:
        >>> planar(layers=4).event_shape
        torch.Size([2])
    """
    stack = [Planar(*shape, features) for _ in range(layers)]
    return Compose(stack) if features else PlanarStack(stack)  # with a context each point has its own vectors


@row(1)
def radial(shape: Vector, features: int, layers: int = 8) -> Layers:
    r"""A stack of radial layers, which pull or push around centres; arguments as in :func:`planar`.

    Example:
        >>> radial(layers=4).event_shape
        torch.Size([2])
    """
    return [Radial(*shape, features) for _ in range(layers)]


@row(1, 3)
def nice(shape: Points, features: int, layers: int = 8, hidden: Widths = (64, 64)) -> Layers:
    r"""NICE: additive couplings with alternating masks, and a diagonal scaling at the end.

    Vectors get MLP conditioners, images ``(C, H, W)`` convolutional ones with checkerboards.

    Args:
        event_shape: ``(d,)`` with d ≥ 2, or ``(C, H, W)``.
        layers: the number of couplings.
        hidden: widths inside each conditioner.
        context_features: length of the vector that conditions each point; 0 for none.
        base: the base density; a standard normal if not given.

    Raises:
        ValueError: if no coupling acts on ``event_shape``, or ``layers`` is not positive.

    Example:
        >>> len(nice(layers=4).bijection)  # four couplings and the scaling
        5
    """

    def couple(mask: Tensor) -> Bijection:
        return AdditiveCoupling(mask, _conditioner(mask, 1, hidden, features))

    return [*_couplings(shape, layers, couple), Scale(shape)]


@row(1, 3)
def realnvp(shape: Points, features: int, layers: int = 8, hidden: Widths = (64, 64)) -> Layers:
    r"""RealNVP: affine couplings with alternating masks; arguments and errors as in :func:`nice`.

    Example:
        >>> realnvp(event_shape=(1, 8, 8), layers=4, hidden=(16,)).event_shape
        torch.Size([1, 8, 8])
    """

    def couple(mask: Tensor) -> Bijection:
        return AffineCoupling(mask, _conditioner(mask, 2, hidden, features))

    return _couplings(shape, layers, couple)


@row(1)
def maf(shape: Vector, features: int, layers: int = 3, hidden: Widths = (64, 64)) -> Layers:
    r"""MAF: affine autoregressive layers, each in the order reversed to the last; density in one pass.

    Args:
        event_shape: ``(d,)``.
        layers: the number of layers.
        hidden: widths inside each masked network; d − 1 or more keep every dependency.
        context_features: length of the vector that conditions each point; 0 for none.
        base: the base density; a standard normal if not given.

    Raises:
        ValueError: if ``event_shape`` is not one size, or ``layers`` is not positive.

    Example:
        >>> maf(event_shape=5, layers=3).event_shape
        torch.Size([5])
    """
    (d,) = shape
    return [AffineAutoregressive(d, hidden, features, _order(d, k)) for k in range(layers)]


@row(1)
def iaf(shape: Vector, features: int, layers: int = 3, hidden: Widths = (64, 64)) -> Layers:
    r"""IAF: the inverse of :func:`maf`, with samples in one pass; arguments and errors as there.

    Example:
        >>> iaf(event_shape=5, layers=3).event_shape
        torch.Size([5])
    """
    return [Inverse(layer) for layer in maf(shape, layers, hidden, features).bijection.layers]  # type: ignore


@row(1)
def spline(
    shape: Vector,
    features: int,
    layers: int = 4,
    hidden: Widths = (64, 64),
    *,
    bins: int = 6,
    box: float = 4.0,
) -> Layers:
    r"""Couplings by rational-quadratic splines, with alternating masks.

    The curves lead from latents to data. ``Flow(Inverse(flow.bijection), flow.base)`` has them over the data
    instead: it trains faster and fits many points better, and overfits sooner where they are few.

    Args:
        event_shape: ``(d,)`` with d ≥ 2.
        layers: the number of couplings.
        hidden: widths inside each conditioner.
        context_features: length of the vector that conditions each point; 0 for none.
        base: the base density; a standard normal if not given.
        bins: the number of pieces of each spline.
        box: points move inside :math:`[-\mathrm{box}, \mathrm{box}]^d`, so bring the data there.

    Raises:
        ValueError: if ``event_shape`` is not one size or is 1, or a size is not positive.

    Example:
        >>> spline(event_shape=3, layers=2).event_shape
        torch.Size([3])
    """

    def couple(mask: Tensor) -> Bijection:
        return SplineCoupling(mask, _conditioner(mask, 3 * bins - 1, hidden, features), bins, box)

    return _couplings(shape, layers, couple)


@row(1)
def spline_ar(
    shape: Vector,
    features: int,
    layers: int = 3,
    hidden: Widths = (64, 64),
    *,
    bins: int = 6,
    box: float = 4.0,
) -> Layers:
    r"""Autoregressive splines, each layer in the order reversed to the last; arguments as in :func:`spline`.

    Example:
        >>> spline_ar(event_shape=3, layers=2).event_shape
        torch.Size([3])
    """
    (d,) = shape
    orders = [_order(d, k) for k in range(layers)]
    return [SplineAutoregressive(d, hidden, features, order, bins, box) for order in orders]


@row(3)
def realnvp_multiscale(shape: Image, features: int, scales: int = 2, hidden: Widths = (16,)) -> Layers:
    r"""RealNVP as its paper has it for images: checkerboards, squeezing, and half factored out per scale.

    Args:
        event_shape: ``(C, H, W)`` with H and W multiples of :math:`2^{\mathrm{scales} - 1}`.
        scales: the number of scales.
        hidden: channels of each conditioner's residual blocks.
        context_features: length of the vector that conditions each image; 0 for none.
        base: the base density; a standard normal if not given.

    Raises:
        ValueError: if ``event_shape`` is no image, or too small for so many scales.

    Example:
        >>> realnvp_multiscale(event_shape=(3, 8, 8)).event_shape
        torch.Size([3, 8, 8])
    """
    _check_halvings("realnvp_multiscale", shape, scales, halvings=scales - 1)
    if [size >> (scales - 1) for size in shape[1:]] == [1, 1]:
        raise ValueError(
            f"realnvp_multiscale with scales={scales} brings event_shape {shape} down to one pixel, where no "
            "checkerboard can act: take one scale fewer."
        )
    return realnvp_scales(shape, scales, hidden, features)


@row(3)
def glow(
    shape: Image,
    features: int,
    layers: int = 2,
    scales: int = 2,
    hidden: Widths = (16,),
    *,
    mix: Callable[[int], Bijection] = ConvolutionLU,
) -> Layers:
    r"""Glow: flow steps of actnorm, 1×1 convolution and coupling on several scales, with split priors.

    With labels as context, such as one-hot rows, it is class-conditional: every coupling and every
    split prior sees them.

    Args:
        event_shape: ``(C, H, W)`` with H and W multiples of :math:`2^{\mathrm{scales}}`.
        layers: the number of flow steps on each scale.
        scales: the number of scales; half of the channels are factored out between them.
        hidden: channels of each conditioner's residual blocks.
        context_features: length of the vector that conditions each image; 0 for none.
        mix: makes the layer that mixes a given number of channels, such as
            :class:`~flowlib.layers.glow.ConvolutionLU` or :class:`~flowlib.layers.glow.Convolution1x1`.
        base: the base density; a standard normal if not given.

    Raises:
        ValueError: if ``event_shape`` is no image, or too small for so many scales, or ``layers`` is
            not positive.

    Example:
        >>> glow(event_shape=(1, 8, 8), scales=3, context_features=10).event_shape
        torch.Size([1, 8, 8])
    """
    _check_halvings("glow", shape, scales, halvings=scales)
    return glow_scales(shape, scales, layers, hidden, features, mix)


@row(3, bases=StandardNormal)
def wavelet(
    shape: Image, features: int, scales: int = 2, layers: int = 2, hidden: Widths = (16,)
) -> WaveletFlow:
    r"""Wavelet Flow: the coarsest image, then for each scale the Haar details given their average.

    Args:
        event_shape: ``(C, H, W)`` with H and W multiples of :math:`2^{\mathrm{scales}}`.
        scales: the number of Haar transforms.
        layers: the number of couplings on each scale.
        hidden: channels of each conditioner's residual blocks.
        context_features: length of the vector that conditions each image; 0 for none.
        base: a standard normal, given or not: any other base would tie the scales together.

    Raises:
        ValueError: if ``event_shape`` is no image, or cannot be halved so often, or ``layers`` is not
            positive, or ``base`` is not a standard normal of this shape.

    Example:
        >>> wavelet(event_shape=(3, 8, 8)).event_shape
        torch.Size([3, 8, 8])
    """
    _check_halvings("wavelet", shape, scales, halvings=scales)
    return WaveletFlow(shape, scales, layers, hidden, features)


@row(1, 3)
def flowpp(
    shape: Points,
    features: int,
    layers: int = 4,
    hidden: Widths = (32, 32),
    *,
    components: int = 8,
    heads: int = 4,
) -> Layers:
    r"""Flow++: couplings by mixtures of logistics, with alternating masks.

    Vectors get MLP conditioners, images ``(C, H, W)`` gated convolutions with self-attention and
    checkerboards.

    Args:
        event_shape: ``(d,)`` with d ≥ 2, or ``(C, H, W)``.
        layers: the number of couplings.
        hidden: widths inside each conditioner; for images all equal.
        context_features: length of the vector that conditions each point; 0 for none.
        base: the base density; a standard normal if not given.
        components: the number of logistics in each mixture.
        heads: for images, how many attentions side by side; divides the widths.

    Raises:
        ValueError: if no coupling acts on ``event_shape``, or a size is not positive.

    Example:
        >>> flowpp(event_shape=(1, 4, 4), layers=2, hidden=(8,)).event_shape
        torch.Size([1, 4, 4])
    """

    def couple(mask: Tensor) -> Bijection:
        seen, outputs = conditioner_sizes(mask, 2 + 3 * components)
        if len(shape) == 1:
            return MixtureCoupling(mask, MLP(seen, outputs, hidden, features), components)
        net = AttentionNet(shape, outputs, hidden, heads, features)
        return MixtureCoupling(mask, net, components)

    return _couplings(shape, layers, couple)


@row(1, 3)
def vflow(
    shape: Points, features: int, layers: int = 4, hidden: Widths = (64, 64), *, extra: int = 2
) -> VFlow:
    r"""VFlow: RealNVP in more dimensions than the points have; ``log_prob`` is a bound, at one draw.

    Args:
        event_shape: ``(d,)``, or ``(C, H, W)``.
        layers: the number of couplings of points and extra entries together.
        hidden: widths inside each conditioner.
        context_features: length of the vector that conditions each point; 0 for none.
        extra: how many entries are added; for images, how many channels.
        base: the base density of the ``d + extra`` entries; a standard normal if not given.

    Raises:
        ValueError: if ``event_shape`` is neither, or a size is not positive.

    Example:
        >>> flow = vflow(event_shape=(1, 4, 4), layers=2, hidden=(8,), extra=1)
        >>> flow.event_shape, flow.base.event_shape, flow.is_exact
        (torch.Size([1, 4, 4]), torch.Size([2, 4, 4]), False)
    """
    augment = Augment(shape, extra, hidden=hidden, context_features=features)
    channels, *pixels = shape
    return VFlow(realnvp((channels + extra, *pixels), layers, hidden, features), augment)


@row(1)
def ffjord(shape: Vector, features: int, hidden: Widths = (64, 64), *, steps: int = 8) -> Layers:
    r"""FFJORD: the points follow one velocity field for unit time, with the exact trace.

    Args:
        event_shape: ``(d,)``.
        hidden: widths inside the velocity; with two of them the trace costs least.
        context_features: length of the vector that conditions each point; 0 for none.
        base: the base density; a standard normal if not given.
        steps: how many steps of :class:`~flowlib.layers.ffjord.RungeKutta`.

    Raises:
        ValueError: if ``event_shape`` is not one size, or a size is not positive.

    Example:
        >>> ffjord(event_shape=3).event_shape
        torch.Size([3])
    """
    return [FFJORD(Velocity(shape[0], hidden, features), solver=RungeKutta(steps))]


@row(3)
def tarflow(
    shape: Image,
    features: int,
    layers: int = 4,
    hidden: Widths = (32, 32),
    *,
    patch: int = 2,
    heads: int = 4,
) -> Layers:
    r"""TarFlow: causal transformers over an image's patches, each block in the order reversed to the last.

    Args:
        event_shape: ``(C, H, W)``.
        layers: the number of blocks, two or more if every patch is to move.
        hidden: widths inside each transformer, one entry for each pair of attention and MLP, all equal.
        context_features: length of the vector that conditions each image; 0 for none.
        base: the base density; a standard normal if not given.
        patch: the side of a patch; divides H and W.
        heads: how many attentions side by side; divides the widths.

    Raises:
        ValueError: if ``event_shape`` is no image or cannot be cut into two such patches or more, or
            ``layers`` is not positive.

    Example:
        >>> tarflow(event_shape=(1, 8, 8), context_features=10).event_shape
        torch.Size([1, 8, 8])
    """
    return [TarFlowBlock(shape, patch, hidden, heads, features, flip=k % 2 == 1) for k in range(layers)]


def _couplings(shape: tuple[int, ...], layers: int, couple: Callable[[Tensor], Bijection]) -> Layers:
    """Couplings with every second entry or pixel in turn: what stays in one layer moves in the next.

    A vector is sorted once, its even entries first, and sorted back at the end, so that each layer cuts it
    in two blocks, which needs no copies.
    """
    if shape[-2:].count(1) == len(shape[-2:]):
        raise ValueError(
            f"Couplings cannot act on event_shape {shape}: with one entry or pixel there is nothing to stay "
            "while the rest moves. In one dimension use planar or radial, or flatten (C, 1, 1) to (C,)."
        )
    if len(shape) == 3:
        return [couple(checkerboard_mask(shape, k % 2)) for k in range(layers)]
    d = shape[0]
    even_first = torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])
    first = half_mask(d, (d + 1) // 2)
    stack = [couple(~first if k % 2 else first) for k in range(layers)]
    return stack if d == 2 else [Permute(even_first), *stack, Permute(even_first.argsort())]


def _conditioner(mask: Tensor, outputs: int, hidden: Widths, context_features: int) -> MLP | ConvNet:
    network = MLP if mask.dim() == 1 else ConvNet
    return network(*conditioner_sizes(mask, outputs), hidden, context_features)


def _order(d: int, k: int) -> range:
    """The order of autoregressive layer k: what came first in one layer comes last in the next."""
    return range(d) if k % 2 == 0 else range(d - 1, -1, -1)


def _check_halvings(name: str, shape: Sequence[int], scales: int, halvings: int) -> None:
    if shape[1] % 2**halvings or shape[2] % 2**halvings:
        raise ValueError(
            f"{name} with scales={scales} halves an image {halvings} times, so event_shape must have H and W "
            f"that are multiples of {2**halvings}; it came as {shape}. Take fewer scales, or pad the images."
        )


__all__ = ["MODELS", *MODELS]
