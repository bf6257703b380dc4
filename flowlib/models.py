r"""Named models: one table from a name to a function that builds a ready :class:`~flowlib.flow.Flow`.

Called without arguments each builds a small flow on the plane; keywords size it. Tests,
benchmarks and the last lecture run over :data:`MODELS`, so a row is all a new model needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from flowlib.bases import Base, StandardNormal
from flowlib.bijection import Bijection, Compose
from flowlib.coupling import AdditiveCoupling, AffineCoupling, Scale, alternating_mask, checkerboard_mask
from flowlib.flow import Flow
from flowlib.linear import Triangular
from flowlib.nets import MLP, ConvNet
from flowlib.planar import Planar
from flowlib.radial import Radial


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
    stack: list[Bijection] = [
        AdditiveCoupling(_mask(shape, k), _conditioner(shape, 1, hidden, context_features))
        for k in _layers(layers)
    ]
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
    stack = [
        AffineCoupling(_mask(shape, k), _conditioner(shape, 2, hidden, context_features))
        for k in _layers(layers)
    ]
    return _flow(stack, shape, context_features, base)


MODELS: dict[str, Callable[..., Flow]] = {
    "linear": linear,
    "planar": planar,
    "radial": radial,
    "nice": nice,
    "realnvp": realnvp,
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


def _mask(shape: tuple[int, ...], k: int) -> torch.Tensor:
    """The mask of coupling k: what passed in one layer moves in the next."""
    return alternating_mask(shape[0], k % 2) if len(shape) == 1 else checkerboard_mask(shape, k % 2)


def _conditioner(
    shape: tuple[int, ...], outputs: int, hidden: Sequence[int], context_features: int
) -> MLP | ConvNet:
    network = MLP if len(shape) == 1 else ConvNet
    return network(shape[0], outputs * shape[0], hidden, context_features)


__all__ = ["MODELS", "linear", "nice", "planar", "radial", "realnvp"]
