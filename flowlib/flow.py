r"""The flow model: a bijection and a base density give an exact likelihood and samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from flowlib.bases import Base
from flowlib.bijection import Bijection, Compose, may_look


class Flow(nn.Module):
    r"""The density of :math:`x = f(z)` for :math:`z \sim p_Z`.

    .. math::
        \log p_X(x) = \log p_Z\!\left(f^{-1}(x)\right)
        + \log\left|\det \frac{\partial f^{-1}(x)}{\partial x}\right|
        = \log p_Z(z) - \log\left|\det \frac{\partial f(z)}{\partial z}\right|

    Points have shape ``(B, *event_shape)``, densities shape ``(B,)`` in nats. Every method
    checks what it is given; the layers trust it.

    Args:
        bijection: the map :math:`f` from latent to data.
        base: the density :math:`p_Z`.
        context_features: length of the vector that conditions each point; 0 for none.

    Raises:
        TypeError: if a point is not a tensor of the flow's dtype.
        ValueError: if a point has another shape or device, or is not finite, or the context
            does not match.

    Example:
        >>> import torch
        >>> from flowlib import Flow, Planar, StandardNormal
        >>> flow = Flow(Planar(2), StandardNormal(2))
        >>> x = flow.sample(100)
        >>> flow.log_prob(x).shape
        torch.Size([100])

    Reference: Papamakarios et al., *Normalizing Flows for Probabilistic Modeling and
    Inference*, JMLR 2021.
    """

    def __init__(self, bijection: Bijection, base: Base, context_features: int = 0) -> None:
        super().__init__()
        self.bijection = bijection
        self.base = base
        self.context_features = context_features

    @property
    def event_shape(self) -> torch.Size:
        """The shape of one point."""
        return self.base.event_shape

    @property
    def is_exact(self) -> bool:
        """True if ``log_prob`` is the exact log-likelihood, False if it is a bound or a random estimate."""
        return self.bijection.is_exact

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Return :math:`\log p_X(x)` in nats, shape ``(B,)``."""
        self._check_points(x, "x")
        z, log_det = self.bijection.inverse(x, self._check_context(context, len(x)))
        return self.base.log_prob(z) + log_det

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """The same as :meth:`log_prob`: wrappers and hooks act only on calls of the module."""
        return self.log_prob(x, context)

    def encode(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Infer the latent :math:`z = f^{-1}(x)`: the normalising direction."""
        self._check_points(x, "x")
        return self.bijection.inverse(x, self._check_context(context, len(x)))[0]

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        r"""Generate the point :math:`x = f(z)`: the generating direction."""
        self._check_points(z, "z", self.base.event_shape)
        return self.bijection(z, self._check_context(context, len(z)))[0]

    def rsample(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw ``n`` points; gradients flow to the parameters (reparametrisation)."""
        return self.sample_and_log_prob(n, context, generator)[0]

    @torch.no_grad()
    def sample(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Draw ``n`` points: :math:`z \sim p_Z`, :math:`x = f(z)`, without gradients.

        Args:
            n: how many points.
            context: one row for each point, or a single row for all of them.
            generator: a CPU generator; the same seed gives the same latents on any device.
        """
        return self.rsample(n, context, generator)

    def sample_and_log_prob(
        self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        r"""Draw ``n`` points with their densities, without ever inverting :math:`f`.

        .. math:: \log p_X(x) = \log p_Z(z) - \log|\det \partial f(z)/\partial z|
        """
        if not isinstance(n, int) or isinstance(n, bool) or n < 0:
            raise ValueError(f"n must be a whole number of points, 0 or more, and came as {n!r}.")
        if isinstance(context, Tensor) and context.dim() == 2 and len(context) == 1:
            context = context.expand(n, -1)
        context = self._check_context(context, n)
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
        context = self._check_context(context, len(z))
        layers = self.bijection if isinstance(self.bijection, Compose) else [self.bijection]
        steps = [(z, self.base.log_prob(z))]
        for layer in layers:
            u, log_p = steps[-1]
            u, log_det = layer(u, context)
            steps.append((u, log_p - log_det))
        return steps

    def as_distribution(self, context: Tensor | None = None) -> FlowDistribution:
        """Hand the flow to ``torch.distributions``; ``context`` is one row, kept for all calls."""
        return FlowDistribution(self, context)

    def _check_points(
        self,
        points: Tensor,
        name: str,
        event_shape: torch.Size | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Refuse what is not points of this shape on this device; if not given, both are the flow's."""
        if not isinstance(points, Tensor):
            raise TypeError(
                f"{name} must be a torch.Tensor and came as {type(points).__name__}; "
                f"wrap it: torch.as_tensor({name})."
            )
        event = tuple(self.event_shape if event_shape is None else event_shape)
        if tuple(points.shape[1:]) != event or points.dim() == 0:
            raise ValueError(
                f"{name} has shape {tuple(points.shape)}; this flow takes (batch, "
                f"{', '.join(map(str, event))}). For a single point use {name}.unsqueeze(0)."
            )
        if points.dtype != self.base.dtype:
            raise TypeError(
                f"{name} is {points.dtype} and the flow is {self.base.dtype}; "
                f"convert one of them: {name}.to({self.base.dtype}) or flow.to({points.dtype})."
            )
        if points.device != (device or self.base.device):
            raise ValueError(
                f"{name} is on {points.device} and the flow is on {self.base.device}; "
                f"move one of them: {name}.to(flow.base.device) or flow.to({name}.device)."
            )
        if may_look() and not points.isfinite().all():
            bad = (~points.isfinite().flatten(1).all(1)).nonzero().flatten()
            raise ValueError(
                f"{name} holds NaN or infinity in {len(bad)} of {len(points)} points, "
                f"the first at index {int(bad[0])}; remove or repair them first."
            )

    def _check_context(
        self, context: Tensor | None, n: int, device: torch.device | None = None
    ) -> Tensor | None:
        device = device or self.base.device
        wanted = self.context_features
        if context is None:
            if wanted:
                raise ValueError(
                    f"This flow is conditional: context must be a tensor of shape ({n}, {wanted}); "
                    "it is missing."
                )
            return None
        if not wanted:
            raise ValueError("This flow takes no context; build it with context_features=… to condition it.")
        if not isinstance(context, Tensor) or tuple(context.shape) != (n, wanted):
            came = tuple(context.shape) if isinstance(context, Tensor) else type(context).__name__
            raise ValueError(f"context must have shape ({n}, {wanted}) and came as {came}.")
        if context.dtype != self.base.dtype or context.device != device:
            raise ValueError(
                f"context is {context.dtype} on {context.device} and the flow is {self.base.dtype} on "
                f"{device}; use context.to(flow.base.anchor)."
            )
        if may_look() and not context.isfinite().all():
            raise ValueError("context holds NaN or infinity; remove or repair those rows first.")
        return context


class FlowDistribution(torch.distributions.Distribution):
    """A :class:`Flow` as a ``torch.distributions.Distribution`` with an empty batch shape.

    Example:
        >>> import torch
        >>> from flowlib import Flow, Planar, StandardNormal
        >>> distribution = Flow(Planar(2), StandardNormal(2)).as_distribution()
        >>> distribution.sample((3, 4)).shape, distribution.log_prob(torch.zeros(3, 4, 2)).shape
        (torch.Size([3, 4, 2]), torch.Size([3, 4]))
    """

    has_rsample = True
    arg_constraints: ClassVar[dict] = {}

    def __init__(self, flow: Flow, context: Tensor | None = None) -> None:
        if context is not None:
            context = context.reshape(1, -1)
        self.flow, self.context = flow, context
        super().__init__(event_shape=flow.event_shape, validate_args=False)

    @property
    def support(self) -> torch.distributions.constraints.Constraint:
        """Points with the flow's event shape."""
        real = torch.distributions.constraints.real
        return torch.distributions.constraints.independent(real, len(self.event_shape))

    def _rows(self, n: int) -> Tensor | None:
        return None if self.context is None else self.context.expand(n, -1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw points of shape ``(*sample_shape, *event_shape)`` with gradients."""
        n = torch.Size(sample_shape).numel()
        return self.flow.rsample(n, self._rows(n)).reshape(*sample_shape, *self.event_shape)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw points of shape ``(*sample_shape, *event_shape)``."""
        with torch.no_grad():
            return self.rsample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of ``value`` with any number of leading dimensions."""
        lead = value.shape[: max(value.dim() - len(self.event_shape), 0)]
        if value.shape[len(lead) :] != self.event_shape:
            raise ValueError(
                f"value has shape {tuple(value.shape)}; it must end in {tuple(self.event_shape)}, one point."
            )
        points = value.reshape(-1, *self.event_shape)
        return self.flow.log_prob(points, self._rows(len(points))).reshape(lead)


__all__ = ["Flow", "FlowDistribution"]
