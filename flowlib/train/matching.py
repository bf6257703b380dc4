r"""Flow matching: a velocity field learned by least squares, without solving its equation.

.. math::
    x_t = (1 - (1 - \sigma) t)\,x_0 + t\,x_1, \qquad
    u_t(x_t \mid x_0, x_1) = x_1 - (1 - \sigma)\,x_0

What trains is the velocity of an :class:`~flowlib.layers.ffjord.FFJORD`, so the flow keeps its samples, its
inverse and its exact likelihood.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from flowlib.bijection import draws
from flowlib.flow import Flow
from flowlib.layers.ffjord import FFJORD
from flowlib.train.loop import fit
from flowlib.train.report import History


def straight_path(x_0: Tensor, x_1: Tensor, t: Tensor, sigma: float = 0.0) -> tuple[Tensor, Tensor]:
    r"""The point :math:`x_t` on the way from :math:`x_0` to :math:`x_1`, and its velocity.

    .. math::
        x_t = (1 - (1 - \sigma) t)\,x_0 + t\,x_1, \qquad
        \frac{dx_t}{dt} = x_1 - (1 - \sigma)\,x_0

    It ends at :math:`x_1 + \sigma x_0`: on the data themselves for :math:`\sigma = 0`, else on a cloud of
    width :math:`\sigma` around each.

    Shapes: points and velocity ``(B, *event)``, times ``(B,)``.

    Example:
        >>> import torch
        >>> straight_path(torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.25]))
        (tensor([[0.2500, 0.2500]]), tensor([[1., 1.]]))

    Reference: Lipman et al., *Flow Matching for Generative Modeling*, ICLR 2023, arXiv:2210.02747.
    """
    t = t.reshape(-1, *[1] * (x_0.dim() - 1))
    velocity = x_1 - (1 - sigma) * x_0
    return x_0 + t * velocity, velocity


def matching_loss(
    velocity: Callable[..., Tensor],
    x_0: Tensor,
    x_1: Tensor,
    t: Tensor,
    context: Tensor | None = None,
    sigma: float = 0.0,
) -> Tensor:
    r"""Conditional flow matching: the squared distance of the network from one pair's velocity.

    .. math:: \lVert v(x_t, t) - (x_1 - (1 - \sigma)\,x_0) \rVert^2

    Its mean over :math:`x_0`, :math:`x_1` and :math:`t \sim \mathcal U(0, 1)` is least where v is the mean
    velocity of the pairs that pass a point, which moves the base to the data.

    Shapes: points ``(B, *event)``, times and losses ``(B,)``.

    Args:
        velocity: called as ``velocity(x_t, t, context)`` with times of shape ``(B, 1)``, such as a
            :class:`~flowlib.layers.ffjord.Velocity`.
        x_0, x_1: the ends of the paths, of the base and of the data.
        t: one time for each pair.
        context: one row for each pair.
        sigma: width of the cloud that a path ends in.

    Example:
        >>> import torch
        >>> still = lambda x, t, context: torch.zeros_like(x)
        >>> matching_loss(still, torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.5]))
        tensor([2.])

    Reference: Lipman et al., *Flow Matching for Generative Modeling*, ICLR 2023, arXiv:2210.02747.
    """
    x_t, wanted = straight_path(x_0, x_1, t, sigma)
    return (velocity(x_t, t[:, None], context) - wanted).square().flatten(1).sum(1)


class _Matching(Flow):
    """A flow for ``fit``: a call gives minus the matching loss, ``log_prob`` the likelihood as ever.

    The starts of the paths, if they are given, come as the last columns of the context.
    """

    unit = "squared velocity"

    def __init__(self, flow: Flow, sigma: float, starts: bool) -> None:
        extra = flow.event_shape.numel() if starts else 0
        super().__init__(flow.bijection, flow.base, flow.context_features + extra)
        self.own, self.sigma, self.starts = flow.context_features, sigma, starts
        # a checkpoint is the flow's own, so that load_parameters takes it; what else decides is a setting
        object.__setattr__(self, "checkpointed", flow)
        self.also_decisive = {"sigma": sigma}

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        own = self._check_context(context, x.shape[0], look=False)
        first, *rest = cast(list[Any], self.layers)
        with torch.no_grad(), self._full_precision():
            for layer in reversed(rest):
                x = layer.inverse(x, own)[0]
            t = draws(self, torch.rand, x.shape[:1], x)
            given = context[:, self.own :].reshape(x.shape) if context is not None and self.starts else None
            x_0 = self.base.sample(x.shape[0]) if given is None else given
        return -matching_loss(first.velocity, x_0, x, t, own, self.sigma)

    def _check_context(
        self, context: Tensor | None, n: int, device: Any = None, look: bool = True
    ) -> Tensor | None:
        context = super()._check_context(context, n, device, look)
        return context[:, : self.own] if context is not None and self.own else None


def fit_matching(
    flow: Flow,
    data: Any,
    *,
    start: Tensor | None = None,
    sigma: float = 0.0,
    context: Tensor | None = None,
    **settings: Any,
) -> History:
    r"""Flow matching: fit the velocity of a continuous flow, without solving its equation once.

    .. math::
        \mathcal L_{\text{CFM}}(w) = \mathbb E_{t, x_0, x_1}
        \left\lVert v(x_t, t; w) - (x_1 - (1 - \sigma)\,x_0) \right\rVert^2, \qquad
        t \sim \mathcal U(0, 1)

    It is :func:`fit` with this loss for the likelihood: steps, schedule, seeds, checkpoints and the like are
    the same. Held-out points are still judged by the flow's likelihood, which does solve the equation.

    With ``start``, each row of the data has an :math:`x_0` of its own. If these pairs are a trained
    flow's latents and samples, it is a *reflow*: the new flow has the same samples, on straighter paths.

    Args:
        flow: its first layer is an :class:`~flowlib.layers.ffjord.FFJORD`, which trains. Layers
            after it, such as :class:`~flowlib.layers.dequantize.Logit`, take the data to its end and do not
            train. The base may be any.
        data: as for :func:`fit`.
        start: latents of shape ``(N, *event_shape)``, one for each row of ``data``; drawn anew from
            the base at every step if not given.
        sigma: width of the cloud that a path ends in; 0 for the data themselves.
        context: as for :func:`fit`.
        settings: everything else that :func:`fit` takes, but ``validation`` not together with ``start``.

    Returns:
        the :class:`History` of this loss, as :func:`fit` does.

    Raises:
        TypeError: if the flow's first layer is no FFJORD.
        ValueError: if ``sigma`` is not in [0, 1), ``start`` has another shape than ``data`` or comes
            with ``validation``, or as for :func:`fit`.

    Example:
        >>> from flowlib import FFJORD, Flow, StandardNormal, Velocity, fit_matching
        >>> from flowlib.data import TwoMoons
        >>> flow = Flow(FFJORD(Velocity(2)), StandardNormal(2))
        >>> history = fit_matching(flow, TwoMoons(), steps=5, progress=False)
        >>> len(history.loss), flow.sample(3).shape
        (5, torch.Size([3, 2]))

    Reference: Lipman et al., *Flow Matching for Generative Modeling*, ICLR 2023, arXiv:2210.02747; Liu, Gong
    and Liu, *Flow Straight and Fast* (rectified flow and reflow), ICLR 2023, arXiv:2209.03003.
    """
    if not isinstance(flow.layers[0], FFJORD):
        raise TypeError(
            f"fit_matching trains the velocity of an FFJORD, which must be the flow's first layer; it is a "
            f"{type(flow.layers[0]).__name__}."
        )
    if not 0 <= sigma < 1:
        raise ValueError(f"sigma must be a number from 0 up to but not 1, and came as {sigma!r}.")
    if start is not None:
        if settings.get("validation") is not None:
            raise ValueError("With start=… there is no validation: held-out points have no starts.")
        if start.shape != getattr(data, "shape", None):
            raise ValueError("start needs data in a tensor of its own shape, one latent for each row.")
        context = start.flatten(1) if context is None else torch.cat([context, start.flatten(1)], 1)
    try:
        return fit(_Matching(flow, sigma, start is not None), data, context=context, **settings)
    finally:
        flow.eval()
