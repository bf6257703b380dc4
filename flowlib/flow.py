r"""The flow model: a bijection and a base density give an exact likelihood and samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn
from torch.distributions import Distribution, constraints

from flowlib.bases import Base, TorchBase
from flowlib.bijection import Bijection, Compose, check_finite


class Flow(nn.Module):
    r"""The density of :math:`x = f(z)` for :math:`z \sim p_Z`.

    .. math::
        \log p_X(x) = \log p_Z\!\left(f^{-1}(x)\right)
        + \log\left|\det \frac{\partial f^{-1}(x)}{\partial x}\right|
        = \log p_Z(z) - \log\left|\det \frac{\partial f(z)}{\partial z}\right|

    Points have shape ``(B, *event_shape)``, densities shape ``(B,)`` in nats. Every method
    checks what it is given; the layers trust it. Inside ``torch.compile``, ``torch.export`` and the
    transforms of ``torch.func`` there are no values to look at, and NaN passes.

    Points and log-determinants stay in the flow's own precision whatever surrounds it: every method
    leaves ``torch.autocast``, which would round them by whole nats. The networks alone may be rounded,
    by their ``autocast_dtype`` (:class:`~flowlib.nets.Conditioner`).

    Args:
        bijection: the map :math:`f` from latent to data, or a list of layers, :math:`f_1` first.
        base: the density :math:`p_Z`, or a distribution of ``torch.distributions``, which becomes a
            :class:`~flowlib.bases.TorchBase`.
        context_features: length of the vector that conditions each point; 0 for none.

    Raises:
        TypeError: if ``bijection`` or ``base`` is something else, points are no tensor, or points or context
            are not of the flow's dtype and on its device.
        ValueError: if points or context have another shape, are not finite, or the context is no tensor.

    Example:
        >>> import torch
        >>> from flowlib import Flow, Planar, StandardNormal
        >>> flow = Flow([Planar(2), Planar(2)], StandardNormal(2))
        >>> x = flow.sample(100)
        >>> flow.log_prob(x).shape
        torch.Size([100])

    Reference: Papamakarios et al., *Normalizing Flows for Probabilistic Modeling and
    Inference*, JMLR 2021.
    """

    def __init__(
        self, bijection: Bijection | Iterable[Bijection], base: Base | Distribution, context_features: int = 0
    ) -> None:
        super().__init__()
        if isinstance(bijection, Iterable) and not isinstance(bijection, Bijection):
            bijection = Compose(bijection)
        if isinstance(base, Distribution):
            base = TorchBase(base)
        if not (isinstance(bijection, nn.Module) and isinstance(base, Base)):
            raise TypeError(
                "Flow takes a Bijection or a list of them, and a Base or a distribution of torch; they came "
                f"as {bijection!r} and {base!r}."
            )
        self.bijection: Any = bijection
        self.base, self.context_features = base, context_features

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one point."""
        return self.base.event_shape

    @property
    def layers(self) -> list[Bijection]:
        """The layers in generative order; a bijection that is no composition is one."""
        return list(self.bijection) if isinstance(self.bijection, Compose) else [self.bijection]

    @property
    def is_exact(self) -> bool:
        """True if ``log_prob`` is the exact log-likelihood, False if it is a bound or a random estimate."""
        return self.bijection.is_exact

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Return :math:`\log p_X(x)` in nats, shape ``(B,)``."""
        return self._log_prob(x, context)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The same as :meth:`log_prob`: wrappers and hooks act only on calls of the module.

        In training mode, as in the loop of ``fit``, it does not look whether points and context are finite: a
        GPU would have to be waited for at every step. ``fit`` looks once, before the first step.
        """
        return self._log_prob(x, context, look=not self.training)

    def _log_prob(self, x: Tensor, context: Tensor | None, look: bool = True) -> Tensor:
        self._check_points(x, "x", look=look)
        context = self._check_context(context, x.shape[0], look=look)
        with self._full_precision():
            z, log_det = self.bijection.inverse(x, context)
            return self.base.log_prob(z) + log_det

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Infer the latent :math:`z = f^{-1}(x)`: the normalising direction."""
        self._check_points(x, "x")
        context = self._check_context(context, x.shape[0])
        with self._full_precision():
            return self.bijection.inverse(x, context)[0]

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Generate the point :math:`x = f(z)`: the generating direction."""
        self._check_points(z, "z", self.base.event_shape)
        context = self._check_context(context, z.shape[0])
        with self._full_precision():
            return self.bijection(z, context)[0]

    def rsample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        """Draw ``n`` points; gradients flow to the parameters (reparametrisation)."""
        return self.sample_and_log_prob(n, context, generator)[0]

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: Generator | None = None) -> Tensor:
        r"""Draw ``n`` points: :math:`z \sim p_Z`, :math:`x = f(z)`, without gradients.

        Args:
            n: how many points.
            context: one row for each point, or a single row for all of them.
            generator: a CPU generator; the same seed gives the same latents on any device.
        """
        return self.rsample(n, context, generator)

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, generator: Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Draw ``n`` points with their densities, without ever inverting :math:`f`.

        .. math:: \log p_X(x) = \log p_Z(z) - \log|\det \partial f(z)/\partial z|
        """
        if isinstance(context, Tensor) and context.dim() == 2 and context.shape[0] == 1:
            context = context.expand(n, -1)
        context = self._check_context(context, n)
        with self._full_precision():
            z = self.base.sample(n, generator)
            x, log_det = self.bijection(z, context)
            return x, self.base.log_prob(z) - log_det

    def trajectory(self, z: Tensor, context: Tensor | None = None) -> list[tuple[Tensor, Tensor]]:
        r"""Follow :math:`z = u^0 \to u^1 \to \dots \to u^K = x` with the density of each step.

        .. math:: \log P_k(u^k) = \log P_{k-1}(u^{k-1}) - \log|\det \nabla f_k(u^{k-1})|

        Returns:
            the pairs :math:`(u^k, \log P_k(u^k))` for k = 0 … K.
        """
        self._check_points(z, "z", self.base.event_shape)
        context = self._check_context(context, z.shape[0])
        with self._full_precision():
            steps = [(z, self.base.log_prob(z))]
            for layer in self.layers:
                u, log_p = steps[-1]
                u, log_det = layer(u, context)
                steps.append((u, log_p - log_det))
        return steps

    def as_distribution(self, context: Tensor | None = None) -> FlowDistribution:
        """Hand the flow to ``torch.distributions``; ``context`` is kept for all calls."""
        return FlowDistribution(self, context)

    def _full_precision(self) -> AbstractContextManager:
        kind = self.base.device.type
        return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()

    def _check_points(
        self, points: Tensor, name: str, event: Sequence[int] = (), device: Any = None, look: bool = True
    ) -> None:
        """Refuse what is not points of this shape on this device; if not given, both are the flow's."""
        event = event or self.event_shape
        if not isinstance(points, Tensor):
            raise TypeError(f"{name} must be a torch.Tensor and came as {type(points).__name__}.")
        if points.dim() == 0 or points.shape[1:] != event:
            raise ValueError(
                f"{name} has shape {tuple(points.shape)}; this flow takes (batch, "
                f"{', '.join(map(str, event))}). For a single point use {name}.unsqueeze(0)."
            )
        self._check_values(points, name, device, look)

    def _check_context(
        self, context: Tensor | None, n: int, device: Any = None, look: bool = True
    ) -> Tensor | None:
        if not self.context_features and context is None:
            return None
        if not self.context_features:
            raise ValueError("This flow takes no context; build it with context_features=… to condition it.")
        wanted = n, self.context_features
        if not isinstance(context, Tensor) or context.shape != wanted:
            came = tuple(context.shape) if isinstance(context, Tensor) else type(context).__name__
            raise ValueError(f"context must have shape {wanted} and came as {came}.")
        self._check_values(context, "context", device, look)
        return context

    def _check_values(self, values: Tensor, name: str, device: Any, look: bool) -> None:
        if values.dtype != self.base.dtype or values.device != (device or self.base.device):
            raise TypeError(
                f"{name} is {values.dtype} and the flow is {self.base.dtype}, on {values.device} and "
                f"{self.base.device}; convert one of them: {name}.to(flow.base.anchor) or flow.to({name})."
            )
        if look:
            check_finite(values, name)


class FlowDistribution(Distribution):
    """A :class:`Flow` as a ``torch.distributions.Distribution``.

    Args:
        flow: the flow.
        context: of shape ``(*batch, context_features)``, whose leading dimensions are the batch shape, one
            density for each row. With a single row, ``(context_features,)``, the batch shape is empty, as it
            is without a context.

    Example:
        >>> import torch
        >>> from flowlib import Flow, Planar, StandardNormal
        >>> distribution = Flow(Planar(2), StandardNormal(2)).as_distribution()
        >>> distribution.sample((3, 4)).shape, distribution.log_prob(torch.zeros(3, 4, 2)).shape
        (torch.Size([3, 4, 2]), torch.Size([3, 4]))
        >>> distribution.expand((5,)).sample((3,)).shape
        torch.Size([3, 5, 2])
    """

    has_rsample = True
    arg_constraints: ClassVar[dict] = {}

    def __init__(self, flow: Flow, context: Tensor | None = None) -> None:
        self.flow = flow
        # no context is one of no features, so that the batch shape lies in its leading dimensions
        self.context = flow.base.anchor.new_empty(0) if context is None else context
        super().__init__(self.context.shape[:-1], flow.event_shape, validate_args=False)

    @property
    def support(self) -> torch.distributions.constraints.Constraint:
        """Points with the flow's event shape."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> FlowDistribution:
        """The same flow for a larger batch shape, which the present one is broadcast to."""
        return FlowDistribution(self.flow, self.context.expand(*batch_shape, -1))

    def _rows(self, shape: torch.Size) -> Tensor | None:
        """The context of each point of this shape."""
        features = self.context.shape[-1]
        return self.context.expand(*shape, features).reshape(-1, features) if features else None

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw points of shape ``(*sample_shape, *batch_shape, *event_shape)`` with gradients."""
        shape = torch.Size(sample_shape) + self.batch_shape
        return self.flow.rsample(shape.numel(), self._rows(shape)).reshape(shape + self.event_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of ``value``; its leading dimensions are broadcast with the batch shape."""
        event = tuple(self.event_shape)
        if value.shape[-len(event) :] != event:
            raise ValueError(f"value has shape {tuple(value.shape)}; it must end in {event}, one point.")
        shape = torch.broadcast_shapes(value.shape[: -len(event)], self.batch_shape)
        points = value.expand(shape + event).reshape(-1, *event)
        return self.flow.log_prob(points, self._rows(shape)).reshape(shape)


__all__ = ["Flow", "FlowDistribution"]
