r"""Reverse KL against an energy."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from flowlib.flow import Flow
from flowlib.train import report
from flowlib.train.report import History
from flowlib.train.step import check_arguments, descend, in_training, optimiser_of, seed_layers, stream


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
    check_arguments(flow, lr, clip, steps=steps, batch_size=batch_size)
    if not callable(log_density):
        came = type(log_density).__name__
        raise TypeError(f"log_density must be a function, such as U1().log_unnormalised, and came as {came}.")
    if not isinstance(warm_up, int) or warm_up < 0:
        raise ValueError(f"warm_up must be a whole number of steps, 0 or more, and came as {warm_up!r}.")
    if flow.context_features:
        raise ValueError("fit_reverse_kl takes flows without context: build it with context_features=0.")
    flow.to(device)
    optimiser, record = optimiser_of(flow, lr), History()

    def risk(flow: Flow, z: Tensor, context: Tensor | None = None) -> Tensor:
        x, log_det = flow.bijection(z)
        if not x.isfinite().all():  # before the target sees it, which may refuse such points
            raise FloatingPointError("a sample is not finite")
        log_p = log_density(x)
        if log_p.shape != log_det.shape:
            raise ValueError(
                f"log_density must give one number for each point, shape {tuple(log_det.shape)}, "
                f"and gave shape {tuple(log_p.shape)}."
            )
        beta = min(1.0, 0.01 + len(record.loss) / warm_up) if warm_up else 1.0
        return (flow.base.log_prob(z) - log_det - beta * log_p).mean()

    advance, start = report.progress_bar(flow, steps, 0, progress), time.perf_counter()
    with in_training(flow) as pressed:
        for step in range(steps):
            z = flow.base.sample(batch_size, torch.Generator().manual_seed(stream(seed, step)))
            seed_layers(flow, stream(seed, step, 1))
            try:
                stop = descend(optimiser, [risk(flow, z)], record, lr, steps, clip, pressed)
            except FloatingPointError as error:
                raise report.blame(error, record, steps, flow, [(z, None)], risk, log_density) from None
            advance(record.loss[-1])
            if stop:
                break
    record.interrupted = len(record.loss) < steps
    record.seconds = time.perf_counter() - start
    return record


__all__ = ["fit_reverse_kl"]
