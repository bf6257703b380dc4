r"""The contract of every layer: an invertible map with its log-determinant.

A flow is :math:`x = f(z)` with :math:`f = f_K \circ \dots \circ f_1`. Every layer
:math:`f_k` answers two questions, one for each direction, and each answer comes with
the log-volume change that the change-of-variables formula needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import torch
from torch import Tensor, nn


class Bijection(nn.Module):
    r"""An invertible, differentiable map :math:`x = f(z)` of points to points.

    .. math::
        \text{forward:}\quad x = f(z), \quad
        \log\left|\det \frac{\partial f(z)}{\partial z}\right|
        \qquad
        \text{inverse:}\quad z = f^{-1}(x), \quad
        \log\left|\det \frac{\partial f^{-1}(x)}{\partial x}\right|

    A subclass writes both methods. Points have shape ``(B, *event)`` and log-determinants
    shape ``(B,)``, both in the input's dtype and on its device. ``context`` is an optional
    ``(B, context_features)`` tensor that conditions the map; each row sees its own.

    Attributes:
        is_exact: whether the log-determinant is exact. Layers with a stochastic step
            (dequantisation, augmentation) set it to False: ``log_prob`` is then a bound.
    """

    is_exact: bool = True

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Return :math:`x = f(z)` and :math:`\log|\det \partial f/\partial z|`."""
        raise NotImplementedError(f"{type(self).__name__} has no forward(z, context).")

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Return :math:`z = f^{-1}(x)` and :math:`\log|\det \partial f^{-1}/\partial x|`."""
        raise NotImplementedError(f"{type(self).__name__} has no inverse(x, context).")


class Compose(Bijection):
    r"""The composition :math:`f = f_K \circ \dots \circ f_1` of layers.

    .. math::
        u^0 = z, \quad u^k = f_k(u^{k-1}), \quad x = u^K, \qquad
        \log\left|\det\frac{\partial f}{\partial z}\right|
        = \sum_{k=1}^{K} \log\left|\det\frac{\partial f_k(u^{k-1})}{\partial u^{k-1}}\right|

    The inverse runs :math:`f_1^{-1} \circ \dots \circ f_K^{-1}`.

    Args:
        layers: the layers in generative order, :math:`f_1` first. One that is a plain composition itself
            becomes its own layers, so there are none inside it.

    Example:
        >>> import torch
        >>> from flowlib import Compose, Planar
        >>> flow = Compose([Planar(2), Planar(2)])
        >>> x, log_det = flow(torch.zeros(5, 2))
        >>> x.shape, log_det.shape
        (torch.Size([5, 2]), torch.Size([5]))
    """

    def __init__(self, layers: Iterable[Bijection]) -> None:
        super().__init__()
        # type, not isinstance: a stack that computes its layers together stays one
        parts = [layer if type(layer) is Compose else [layer] for layer in layers]
        self.layers = nn.ModuleList(chain.from_iterable(parts))  # type: ignore[arg-type]

    @property
    def is_exact(self) -> bool:  # type: ignore[override]
        """Whether every layer's log-determinant is exact."""
        return all(layer.is_exact for layer in self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Bijection]:
        return iter(self.layers)  # type: ignore[arg-type]

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(z.shape[0])
        for layer in self.layers:
            z, log_det_k = layer(z, context)
            log_det = log_det + log_det_k
        return z, log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[0])
        for layer in reversed(self.layers):
            x, log_det_k = layer.inverse(x, context)  # type: ignore[operator]
            log_det = log_det + log_det_k
        return x, log_det


class Inverse(Bijection):
    r"""The layer :math:`f^{-1}`: the two directions of ``bijection`` swapped.

    IAF is the inverse of MAF, and a planar flow whose density is cheap instead of its
    samples is the inverse of :class:`~flowlib.layers.planar.Planar`.

    Example:
        >>> import torch
        >>> from flowlib import Inverse, Planar
        >>> layer = Planar(2)
        >>> z = torch.randn(4, 2)
        >>> torch.equal(Inverse(layer).inverse(z)[0], layer(z)[0])
        True
    """

    def __init__(self, bijection: Bijection) -> None:
        super().__init__()
        self.bijection = bijection

    @property
    def is_exact(self) -> bool:  # type: ignore[override]
        """Whether the inverted layer's log-determinant is exact."""
        return self.bijection.is_exact

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection.inverse(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.bijection(x, context)


def sum_event(value: Tensor) -> Tensor:
    """Sum over all but the batch dimension: shape ``(B, *event)`` to ``(B,)``."""
    return value.flatten(1).sum(1) if value.dim() > 1 else value


def values_can_be_read() -> bool:
    """Whether a check may look at values: torch.compile, torch.export and torch.func have none to show."""
    return not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


def check_finite(points: Tensor, name: str) -> None:
    """Refuse NaN and infinity, and say where they are, as far as values can be read."""
    if values_can_be_read() and not points.isfinite().all():
        bad = (~points.isfinite().flatten(1).all(1)).nonzero().flatten()
        raise ValueError(
            f"{name} holds NaN or infinity in {len(bad)} of {len(points)} points, "
            f"the first at index {int(bad[0])}; remove or repair them first."
        )


def check_event(points: Tensor, event_shape: Sequence[int]) -> None:
    """Refuse points that would broadcast against a layer of another size, with a wrong log-determinant."""
    if points.shape[1:] != event_shape:
        raise ValueError(
            f"The points have shape {tuple(points.shape)}, and this part of the flow takes "
            f"{('batch', *event_shape)}; give both one size."
        )


def check_given(context: Tensor | None, features: int) -> Tensor:
    """Refuse a missing context."""
    if context is None:
        raise ValueError(
            f"This layer is conditioned by a context of length {features}, and none came: build the flow "
            f"with context_features={features}, and give context=…."
        )
    return context


def on_the_run(layer: nn.Module, points: Tensor) -> bool:
    """Whether a layer trains on a GPU, which runs ahead of Python: a look at values would stall it."""
    return layer.training and points.device.type != "cpu"


def may_look(layer: nn.Module, points: Tensor) -> bool:
    """Whether a layer's check may look at values: where there are some, and nobody has to wait for them."""
    return values_can_be_read() and not on_the_run(layer, points)


def draws(layer: nn.Module, sampler: Callable[..., Tensor], shape: Sequence[int], like: Tensor) -> Tensor:
    """Random numbers for a layer: of the CPU in float64, as the bases' are, or of the GPU it trains on."""
    if on_the_run(layer, like):
        return sampler(shape, dtype=like.dtype, device=like.device)
    return sampler(shape, dtype=torch.float64, device="cpu").to(like)


__all__ = ["Bijection", "Compose", "Inverse", "sum_event"]
