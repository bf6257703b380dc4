r"""Reverse KL against an energy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from flowlib.flow import Flow
from flowlib.train.loop import check_numbers, fit
from flowlib.train.report import History


def fit_reverse_kl(
    flow: Flow,
    log_density: Callable[[Tensor], Tensor],
    *,
    steps: int = 1000,
    batch_size: int = 256,
    lr: float = 1e-3,
    seed: int = 0,
    device: torch.device | str | None = None,
    clip: float | None = 5.0,
    warm_up: int = 0,
    progress: bool = True,
) -> History:
    r"""Reverse KL: move the flow :math:`q` onto a density :math:`p = \tilde p/Z` known up to its factor.

    .. math::
        \mathrm{KL}(q \,\|\, p) - \log Z
        = \mathbb{E}_{z \sim p_Z}\!\left[\log p_Z(z) - \log\left|\det\frac{\partial f(z)}{\partial z}\right|
        - \beta_t \log \tilde p(f(z))\right] \quad \text{at } \beta_t = 1

    It needs no data and no inverse, and its least value is :math:`-\log Z`. A target with separate
    modes can catch :math:`q` on one of them. A warm-up :math:`\beta_t = \min(1, 0.01 + t/T_\text{warm})`
    starts with a target that is nearly flat; until it ends, the loss is that of the flattened target. The
    training is that of :func:`fit`, whose data are the latents.

    Args:
        log_density: :math:`\log\tilde p`, maps points ``(B, *event_shape)`` to ``(B,)``, differentiable.
        warm_up: steps of the warm-up; 0 for none.
        flow, steps, batch_size, lr, seed, device, clip, progress: as for :func:`fit`.

    Returns:
        the :class:`History`, as :func:`fit` does; the errors are the same too.

    Example:
        >>> from flowlib import Flow, Planar, StandardNormal, fit_reverse_kl
        >>> from flowlib.data import U1
        >>> flow = Flow(Planar(2), StandardNormal(2))
        >>> history = fit_reverse_kl(flow, U1().log_unnormalised, steps=5, progress=False)
        >>> len(history.loss)
        5

    Reference: Rezende and Mohamed, *Variational Inference with Normalizing Flows*, ICML 2015.
    """
    check_numbers(warm_up=warm_up or None)
    if flow.context_features:
        raise ValueError("fit_reverse_kl takes flows without context: build it with context_features=0.")
    objective = _ReverseKL(flow, log_density, warm_up)
    settings: dict[str, Any] = {"seed": seed, "device": device, "clip": clip, "progress": progress}
    try:  # the base is a sampler: each step draws its latents anew
        return fit(objective, flow.base, steps=steps, batch_size=batch_size, lr=lr, **settings)
    finally:
        flow.eval()


class _ReverseKL(Flow):
    """A flow for ``fit``: a call takes latents and gives minus their loss."""

    log_density: Callable[[Tensor], Tensor]

    def __init__(self, flow: Flow, log_density: Callable[[Tensor], Tensor], warm_up: int) -> None:
        super().__init__(flow.bijection, flow.base)
        self.warm_up, self.step = warm_up, 0
        object.__setattr__(self, "log_density", log_density)  # no part of the flow: a network would train

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        x, log_det = self.bijection(z)
        if not x.isfinite().all():  # before the target sees it, which may refuse such points
            raise FloatingPointError("a sample is not finite")
        log_p = self.log_density(x)
        if log_p.shape != log_det.shape:
            raise ValueError(f"log_density must give one number a point, and gave {tuple(log_p.shape)}.")
        beta = min(1.0, 0.01 + self.step / self.warm_up) if self.warm_up else 1.0
        self.step += 1
        return beta * log_p + log_det - self.base.log_prob(z)
