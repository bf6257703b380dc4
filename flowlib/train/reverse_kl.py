r"""Reverse KL against an energy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor

from flowlib.flow import Flow
from flowlib.train import report
from flowlib.train.loop import ADVICE, check_numbers, descend, seed_layers, stream
from flowlib.train.report import History, in_training


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
    starts with a target that is nearly flat; until it ends, the loss is that of the flattened target. It is a
    training of one process: under ``torchrun`` each would do all of it.

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
    check_numbers(steps=steps, batch_size=batch_size, lr=lr, clip=clip, warm_up=warm_up or None)
    if flow.context_features:
        raise ValueError("fit_reverse_kl takes flows without context: build it with context_features=0.")
    flow.to(device)
    optimiser = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], lr=lr, fused=True)
    record, start = History(), time.perf_counter()

    def risk(z: Tensor) -> Tensor:
        x, log_det = flow.bijection(z)
        if not x.isfinite().all():  # before the target sees it, which may refuse such points
            raise FloatingPointError("a sample is not finite")
        log_p = log_density(x)
        if log_p.shape != log_det.shape:
            raise ValueError(f"log_density must give one number a point, and gave {tuple(log_p.shape)}.")
        beta = min(1.0, 0.01 + len(record.loss) / warm_up) if warm_up else 1.0
        return (flow.base.log_prob(z) - log_det - beta * log_p).mean()

    advance = report.progress_bar(flow, steps, 0, progress)
    with in_training(flow, record):
        for step in range(steps):
            z = flow.base.sample(batch_size, torch.Generator().manual_seed(stream(seed, step)))
            seed_layers(flow, stream(seed, step, 1))
            optimiser.param_groups[0]["lr"] = 0.5 * lr * (1 + math.cos(math.pi * step / steps))
            try:
                stop = descend(optimiser, [risk(z)], record, clip)
            except FloatingPointError as error:
                found = f"{error}. {report.blame(flow, [(z, None)], log_density)}"
                raise FloatingPointError(f"Step {step + 1} of {steps}: {found} {ADVICE}") from None
            advance(record.loss[-1])
            if stop:
                break
    record.interrupted = len(record.loss) < steps
    record.seconds = time.perf_counter() - start
    return record


__all__ = ["fit_reverse_kl"]
