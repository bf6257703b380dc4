r"""Named models: one table from a name to a function that builds a ready :class:`~flowlib.flow.Flow`.

Called without arguments each builds a small flow on the plane; keywords size it. Tests,
benchmarks and the last lecture run over :data:`MODELS`, so a row is all a new model needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowlib.bases import Base, StandardNormal
from flowlib.bijection import Bijection, Compose, Inverse
from flowlib.flow import Flow
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
from flowlib.layers.planar import Planar
from flowlib.layers.radial import Radial
from flowlib.layers.spline import SplineAutoregressive, SplineCoupling
from flowlib.layers.vflow import Augment, VFlow
from flowlib.layers.wavelet import WaveletFlow
from flowlib.nets import MLP, AttentionNet, ConvNet


def linear(
    event_shape: int | Sequence[int] = (2,), context_features: int = 0, base: Base | None = None
) -> Flow:
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
    (d,) = _vector("linear", event_shape)
    return _flow([Triangular(d, context_features)], (d,), context_features, base)


def planar(
    event_shape: int | Sequence[int] = (2,),
    layers: int = 8,
    context_features: int = 0,
    base: Base | None = None,
) -> Flow:
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
    (d,) = _vector("planar", event_shape)
    stack = [Planar(d, context_features) for _ in _layers(layers)]
    return _flow(stack, (d,), context_features, base)


def radial(
    event_shape: int | Sequence[int] = (2,),
    layers: int = 8,
    context_features: int = 0,
    base: Base | None = None,
) -> Flow:
    r"""A stack of radial layers, which pull or push around centres; arguments as in :func:`planar`.

    Example:
        >>> radial(layers=4).event_shape
        torch.Size([2])
    """
    (d,) = _vector("radial", event_shape)
    stack = [Radial(d, context_features) for _ in _layers(layers)]
    return _flow(stack, (d,), context_features, base)


def nice(
    event_shape: int | Sequence[int] = (2,),
    layers: int = 8,
    hidden: Sequence[int] = (64, 64),
    context_features: int = 0,
    base: Base | None = None,
) -> Flow:
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
    shape = _coupled("nice", event_shape)
    stack = _couplings(
        shape, layers, lambda mask: AdditiveCoupling(mask, _conditioner(mask, 1, hidden, context_features))
    )
    return _flow([*stack, Scale(shape)], shape, context_features, base)


def realnvp(
    event_shape: int | Sequence[int] = (2,),
    layers: int = 8,
    hidden: Sequence[int] = (64, 64),
    context_features: int = 0,
    base: Base | None = None,
) -> Flow:
    r"""RealNVP: affine couplings with alternating masks; arguments and errors as in :func:`nice`.

    Example:
        >>> realnvp(event_shape=(1, 8, 8), layers=4, hidden=(16,)).event_shape
        torch.Size([1, 8, 8])
    """
    shape = _coupled("realnvp", event_shape)
    stack = _couplings(
        shape, layers, lambda mask: AffineCoupling(mask, _conditioner(mask, 2, hidden, context_features))
    )
    return _flow(stack, shape, context_features, base)


def realnvp_multiscale(
    event_shape: Sequence[int] = (1, 4, 4),
    scales: int = 2,
    hidden: Sequence[int] = (16,),
    context_features: int = 0,
    base: Base | None = None,
) -> Flow:
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
    shape = _image("realnvp_multiscale", event_shape, scales, halvings=scales - 1)
    shape_at_the_end = [size >> (scales - 1) for size in shape[1:]]
    if shape_at_the_end == [1, 1]:
        raise ValueError(
            f"realnvp_multiscale with scales={scales} brings event_shape {shape} down to one pixel, where no "
            "checkerboard can act: take one scale fewer."
        )
    stack = realnvp_scales(shape, scales, hidden, context_features)
    return _flow(stack, shape, context_features, base)


def glow(
    event_shape: Sequence[int] = (1, 4, 4),
    layers: int = 2,
    scales: int = 2,
    hidden: Sequence[int] = (16,),
    context_features: int = 0,
    mix: Callable[[int], Bijection] = ConvolutionLU,
    base: Base | None = None,
) -> Flow:
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
    shape = _image("glow", event_shape, scales, halvings=scales)
    stack = glow_scales(shape, scales, len(_layers(layers)), hidden, context_features, mix)
    return _flow(stack, shape, context_features, base)


def maf(
    event_shape: int | Sequence[int] = (2,),
    layers: int = 3,
    hidden: Sequence[int] = (64, 64),
    context_features: int = 0,
    base: Base | None = None,
) -> Flow:
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
    (d,) = _vector("maf", event_shape)
    stack = [AffineAutoregressive(d, hidden, context_features, _order(d, k)) for k in _layers(layers)]
    return _flow(stack, (d,), context_features, base)


def iaf(
    event_shape: int | Sequence[int] = (2,),
    layers: int = 3,
    hidden: Sequence[int] = (64, 64),
    context_features: int = 0,
    base: Base | None = None,
) -> Flow:
    r"""IAF: the inverse of :func:`maf`, with samples in one pass; arguments and errors as there.

    Example:
        >>> iaf(event_shape=5, layers=3).event_shape
        torch.Size([5])
    """
    (d,) = _vector("iaf", event_shape)
    stack = [
        Inverse(AffineAutoregressive(d, hidden, context_features, _order(d, k))) for k in _layers(layers)
    ]
    return _flow(stack, (d,), context_features, base)


def spline(
    event_shape: int | Sequence[int] = (2,),
    layers: int = 4,
    hidden: Sequence[int] = (64, 64),
    context_features: int = 0,
    base: Base | None = None,
    bins: int = 6,
    box: float = 4.0,
) -> Flow:
    r"""Couplings by rational-quadratic splines, with alternating masks.

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
    shape = _coupled("spline", _vector("spline", event_shape))

    def couple(mask: Tensor) -> Bijection:
        return SplineCoupling(mask, _conditioner(mask, 3 * bins - 1, hidden, context_features), bins, box)

    stack = _couplings(shape, layers, couple)
    return _flow(stack, shape, context_features, base)


def spline_ar(
    event_shape: int | Sequence[int] = (2,),
    layers: int = 3,
    hidden: Sequence[int] = (64, 64),
    context_features: int = 0,
    base: Base | None = None,
    bins: int = 6,
    box: float = 4.0,
) -> Flow:
    r"""Autoregressive splines, each layer in the order reversed to the last; arguments as in :func:`spline`.

    Example:
        >>> spline_ar(event_shape=3, layers=2).event_shape
        torch.Size([3])
    """
    (d,) = _vector("spline_ar", event_shape)
    stack = [
        SplineAutoregressive(d, hidden, context_features, _order(d, k), bins, box) for k in _layers(layers)
    ]
    return _flow(stack, (d,), context_features, base)


def wavelet(
    event_shape: Sequence[int] = (1, 4, 4),
    scales: int = 2,
    layers: int = 2,
    hidden: Sequence[int] = (16,),
    context_features: int = 0,
    base: Base | None = None,
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
    shape = _image("wavelet", event_shape, scales, halvings=scales)
    flow = WaveletFlow(shape, scales, len(_layers(layers)), hidden, context_features)
    if base is not None:
        flow.base = _flow([], shape, context_features, base).base  # refuses another shape
        if not isinstance(base, StandardNormal):
            raise ValueError(
                "wavelet needs a standard normal base, whose scales are independent, and base came as "
                f"{type(base).__name__}; leave it out."
            )
    return flow


def flowpp(
    event_shape: int | Sequence[int] = (2,),
    layers: int = 4,
    hidden: Sequence[int] = (32, 32),
    context_features: int = 0,
    base: Base | None = None,
    components: int = 8,
    heads: int = 4,
) -> Flow:
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
    shape = _coupled("flowpp", event_shape)

    def couple(mask: Tensor) -> Bijection:
        seen, outputs = conditioner_sizes(mask, 2 + 3 * components)
        if len(shape) == 1:
            return MixtureCoupling(mask, MLP(seen, outputs, hidden, context_features), components)
        net = AttentionNet(shape, outputs, hidden, heads, context_features)
        return MixtureCoupling(mask, net, components)

    stack = _couplings(shape, layers, couple)
    return _flow(stack, shape, context_features, base)


def vflow(
    event_shape: int | Sequence[int] = (2,),
    layers: int = 4,
    hidden: Sequence[int] = (64, 64),
    context_features: int = 0,
    extra: int = 2,
    base: Base | None = None,
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
    augment = Augment(_sizes(event_shape), extra, hidden=hidden, context_features=context_features)
    channels, *pixels = augment.event_shape
    return VFlow(realnvp((channels + extra, *pixels), layers, hidden, context_features, base), augment)


def ffjord(
    event_shape: int | Sequence[int] = (2,),
    hidden: Sequence[int] = (64, 64),
    context_features: int = 0,
    base: Base | None = None,
    steps: int = 8,
) -> Flow:
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
    (d,) = _vector("ffjord", event_shape)
    layer = FFJORD(Velocity(d, hidden, context_features), solver=RungeKutta(steps))
    return _flow([layer], (d,), context_features, base)


MODELS: dict[str, Callable[..., Flow]] = {
    "linear": linear,
    "planar": planar,
    "radial": radial,
    "nice": nice,
    "realnvp": realnvp,
    "maf": maf,
    "iaf": iaf,
    "spline": spline,
    "spline_ar": spline_ar,
    "realnvp_multiscale": realnvp_multiscale,
    "glow": glow,
    "wavelet": wavelet,
    "flowpp": flowpp,
    "vflow": vflow,
    "ffjord": ffjord,
}


def _flow(
    stack: Sequence[Bijection], shape: tuple[int, ...], context_features: int, base: Base | None
) -> Flow:
    base = StandardNormal(shape) if base is None else base
    if tuple(base.event_shape) != shape:
        raise ValueError(
            f"base has event_shape {tuple(base.event_shape)} and the flow {shape}; give both the same."
        )
    return Flow(Compose(stack), base, context_features)


def _layers(layers: int) -> range:
    if not isinstance(layers, int) or layers < 1:
        raise ValueError(f"layers must be a whole number, 1 or more, and came as {layers!r}.")
    return range(layers)


def _sizes(event_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"event_shape must hold positive whole numbers, such as (2,), and came as {shape}.")
    return shape


def _vector(name: str, event_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = _sizes(event_shape)
    if len(shape) != 1:
        raise ValueError(f"{name} takes vectors, event_shape=(d,), and event_shape came as {shape}.")
    return shape


def _coupled(name: str, event_shape: int | Sequence[int]) -> tuple[int, ...]:
    shape = _sizes(event_shape)
    if len(shape) not in (1, 3):
        raise ValueError(
            f"{name} takes vectors, event_shape=(d,), or images, event_shape=(C, H, W), and event_shape "
            f"came as {shape}; flatten the points or add a channel dimension of 1."
        )
    if shape[-2:].count(1) == len(shape[-2:]):
        what = "one entry" if len(shape) == 1 else "one pixel"
        raise ValueError(
            f"{name} cannot act on event_shape {shape}: with {what} there is nothing to stay while the "
            "rest moves. In one dimension use planar or radial, or flatten (C, 1, 1) to (C,)."
        )
    return shape


def _image(name: str, event_shape: Sequence[int], scales: int, halvings: int) -> tuple[int, int, int]:
    if not isinstance(scales, int) or scales < 1:
        raise ValueError(f"scales must be a whole number, 1 or more, and came as {scales!r}.")
    shape = _sizes(event_shape)
    if len(shape) != 3:
        raise ValueError(f"{name} takes images, event_shape=(C, H, W), and event_shape came as {shape}.")
    channels, height, width = shape
    if height % 2**halvings or width % 2**halvings:
        raise ValueError(
            f"{name} with scales={scales} halves an image {halvings} times, so event_shape must have H and W "
            f"that are multiples of {2**halvings}; it came as {shape}. Take fewer scales, or pad the images."
        )
    return channels, height, width


def _couplings(shape: tuple[int, ...], layers: int, couple: Callable[[Tensor], Bijection]) -> list[Bijection]:
    """Couplings with every second entry or pixel in turn: what stays in one layer moves in the next.

    A vector is sorted once, its even entries first, and sorted back at the end, so that each layer cuts it
    in two blocks.
    """
    if len(shape) == 3:
        return [couple(checkerboard_mask(shape, k % 2)) for k in _layers(layers)]
    d = shape[0]
    even_first = torch.cat([torch.arange(0, d, 2), torch.arange(1, d, 2)])
    first = half_mask(d, (d + 1) // 2)
    stack = [couple(~first if k % 2 else first) for k in _layers(layers)]
    return stack if d == 2 else [Permute(even_first), *stack, Permute(even_first.argsort())]


def _order(d: int, k: int) -> range:
    """The order of autoregressive layer k: what came first in one layer comes last in the next."""
    return range(d) if k % 2 == 0 else range(d - 1, -1, -1)


def _conditioner(mask: Tensor, outputs: int, hidden: Sequence[int], context_features: int) -> MLP | ConvNet:
    network = MLP if mask.dim() == 1 else ConvNet
    return network(*conditioner_sizes(mask, outputs), hidden, context_features)


__all__ = [
    "MODELS",
    "ffjord",
    "flowpp",
    "glow",
    "iaf",
    "linear",
    "maf",
    "nice",
    "planar",
    "radial",
    "realnvp",
    "realnvp_multiscale",
    "spline",
    "spline_ar",
    "vflow",
    "wavelet",
]
