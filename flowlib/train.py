r"""Training: maximum likelihood on data, and reverse KL against an energy. Read it from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from flowlib.bijection import Compose
from flowlib.flow import Flow

Batch = tuple[Tensor, Tensor | None]


@dataclass(repr=False)
class History:
    """What happened at every step, in order.

    Attributes:
        loss: the loss of the step's batch, in nats, before the step's update.
        lr: the learning rate of the update.
        grad_norm: the length of the gradient before clipping.
        seconds: the wall time of all steps.
        interrupted: whether the run was stopped by hand before its last step.
    """

    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False

    def __repr__(self) -> str:
        if not self.loss:
            return "History(no steps)"
        end = ", interrupted" if self.interrupted else ""
        return f"History({len(self.loss)} steps, loss {self.loss[0]:.3f} → {self.loss[-1]:.3f}{end})"


def fit(
    flow: Flow,
    data: Any,
    *,
    steps: int = 1000,
    batch_size: int = 256,
    lr: float = 1e-3,
    context: Tensor | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    clip: float | None = 5.0,
    progress: bool = True,
) -> History:
    r"""Maximum likelihood: minimise the empirical risk over the flow's parameters :math:`w`.

    .. math::
        \hat R(w) = -\frac1n \sum_{i=1}^n \log p_X(x_i; w)

    Adam with a cosine schedule, :math:`\mathrm{lr}_t = \tfrac12\mathrm{lr}\,(1 + \cos(\pi t/T))` for T steps.
    The same call gives the same result, and the global random state is left as it was.

    Args:
        flow: the model; it is left on ``device`` and in eval mode.
        data: a tensor ``(N, *event_shape)`` of the flow's dtype, or an object with
            ``.sample(n, generator=...)``, such as the densities of ``flowlib.data``. A tensor is
            reshuffled every epoch and cut into full batches; the points left over sit that epoch
            out. A sampler gives fresh points at every step.
        steps: number of updates.
        batch_size: points in a batch; more than N means all N of them at every step.
        lr: the first learning rate.
        context: one row for each row of ``data``, shape ``(N, context_features)``.
        seed: of the order of the data, of a sampler's draws and of layers that draw.
        device: where to train; None means where the flow is.
        clip: the largest length of the gradient; None for no clipping.
        progress: show a bar, if tqdm is installed.

    Returns:
        the :class:`History`. Ctrl-C ends training early and keeps what was learned.

    Raises:
        TypeError, ValueError: if an argument does not fit the flow; the message says how.
        FloatingPointError: if the loss or a gradient is not finite. It names the step and the layer,
            counted from 0 in generative order, and the parameters stay as they were before that step.

    Example:
        >>> from flowlib import Flow, Planar, StandardNormal, fit
        >>> from flowlib.data import EightGaussians
        >>> flow = Flow(Planar(2), StandardNormal(2))
        >>> history = fit(flow, EightGaussians(), steps=5, progress=False)
        >>> len(history.loss), len(history.lr)
        (5, 5)
    """
    _check(flow, steps, batch_size, lr, clip)
    flow.to(device)
    generator = torch.Generator().manual_seed(seed)
    if isinstance(data, Tensor):
        batches = _epochs(*_rows(flow, data, context), batch_size, generator)
    elif not hasattr(data, "sample"):
        raise TypeError(
            f"data must be a tensor or have .sample(n, generator), and came as {type(data).__name__}; "
            f"wrap an array: torch.as_tensor(data)."
        )
    elif context is not None or flow.context_features:
        raise ValueError("A sampler draws no context: give data as a tensor, with one context row per point.")
    else:
        batches = _draws(flow, data, batch_size, generator)

    def loss(batch: Batch, step: int) -> Tensor:
        return -flow(*batch).mean()

    def blame(batch: Batch) -> str:
        return _first_to_blame(flow, batch, True, flow.base.log_prob, f"the base {type(flow.base).__name__}")

    return _train(flow, batches, loss, blame, steps, lr, seed, clip, progress)


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
    starts with a target that is nearly flat; until it ends, the loss is that of the flattened target.

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
    _check(flow, steps, batch_size, lr, clip)
    if not callable(log_density):
        came = type(log_density).__name__
        raise TypeError(f"log_density must be a function, such as U1().log_unnormalised, and came as {came}.")
    if not isinstance(warm_up, int) or warm_up < 0:
        raise ValueError(f"warm_up must be a whole number of steps, 0 or more, and came as {warm_up!r}.")
    if flow.context_features:
        raise ValueError("fit_reverse_kl takes flows without context: build it with context_features=0.")
    flow.to(device)
    batches = _draws(flow, flow.base, batch_size, torch.Generator().manual_seed(seed))

    def loss(batch: Batch, step: int) -> Tensor:
        z, _ = batch
        x, log_det = flow.bijection(z)
        if not x.isfinite().all():  # before the target sees it, which may refuse such points
            raise FloatingPointError("a sample is not finite")
        log_p = log_density(x)
        if log_p.shape != log_det.shape:
            raise ValueError(
                f"log_density must give one number for each point, shape {tuple(log_det.shape)}, "
                f"and gave shape {tuple(log_p.shape)}."
            )
        beta = min(1.0, 0.01 + step / warm_up) if warm_up else 1.0
        return (flow.base.log_prob(z) - log_det - beta * log_p).mean()

    def blame(batch: Batch) -> str:
        return _first_to_blame(flow, batch, False, log_density, "log_density")

    return _train(flow, batches, loss, blame, steps, lr, seed, clip, progress)


# --- the loop, one for both ---------------------------------------------------------------


def _train(
    flow: Flow,
    batches: Iterator[Batch],
    loss: Callable[[Batch, int], Tensor],
    blame: Callable[[Batch], str],
    steps: int,
    lr: float,
    seed: int,
    clip: float | None,
    progress: bool,
) -> History:
    parameters = {name: p for name, p in flow.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("This flow has no parameters that require a gradient: there is nothing to train.")
    optimiser = torch.optim.Adam(parameters.values(), lr=lr)
    history = History()
    bar = _bar(steps) if progress else None
    start = time.perf_counter()
    flow.train()
    try:
        # another seed than the batches', whose random numbers the layers would repeat
        with _own_random_state(flow.base.device, seed + 1):
            for step in range(steps):
                batch = next(batches)
                rate = 0.5 * lr * (1 + math.cos(math.pi * step / steps))
                optimiser.param_groups[0]["lr"] = rate
                try:
                    value, grad_norm = _step(parameters, optimiser, loss(batch, step), clip)
                except FloatingPointError as error:
                    raise FloatingPointError(
                        f"Step {step + 1} of {steps}: {error}. {blame(batch)}The parameters are those from "
                        f"before this step. Try a smaller lr or clip, and look at the data."
                    ) from None
                history.loss.append(value)
                history.lr.append(rate)
                history.grad_norm.append(grad_norm)
                if bar is not None:
                    bar.set_postfix_str(f"loss {value:.3f}", refresh=False)
                    bar.update()
    except KeyboardInterrupt:  # the steps so far are not thrown away
        history.interrupted = True
    finally:
        flow.zero_grad()
        flow.eval()
        history.seconds = time.perf_counter() - start
        if bar is not None:
            bar.close()
    return history


def _step(
    parameters: dict[str, nn.Parameter], optimiser: torch.optim.Optimizer, loss: Tensor, clip: float | None
) -> tuple[float, float]:
    """One update; return the loss and the gradient's length."""
    optimiser.zero_grad()
    loss.backward()
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    # all numbers come from the device in one transfer, which has to be waited for: what is not
    # finite must be known before the update
    lengths = [torch.linalg.vector_norm(gradient) for gradient in gradients.values()]
    value, *lengths = torch.stack([loss.detach(), *lengths]).tolist()
    if not math.isfinite(value):
        raise FloatingPointError(f"the loss is {value}")
    for name, length in zip(gradients, lengths, strict=True):
        if not math.isfinite(length):
            raise FloatingPointError(f"the gradient of {name} has length {length}")
    grad_norm = math.hypot(*lengths)
    if clip is not None and grad_norm > clip:
        for gradient in gradients.values():
            gradient.mul_(clip / grad_norm)
    optimiser.step()
    return value, grad_norm


@torch.no_grad()
def _first_to_blame(
    flow: Flow, batch: Batch, inverse: bool, log_density: Callable[[Tensor], Tensor], name: str
) -> str:
    """Send the batch through the layers one by one, then to the density at their end."""
    points, context = batch
    layers = list(enumerate(flow.bijection if isinstance(flow.bijection, Compose) else [flow.bijection]))
    for k, layer in reversed(layers) if inverse else layers:
        points, log_det = (layer.inverse if inverse else layer)(points, context)
        bad = ~(points.flatten(1).isfinite().all(1) & log_det.isfinite())
        if bad.any():
            way = "inverse" if inverse else "forward"
            return (
                f"Layer {k} ({type(layer).__name__}) is the first whose {way} is not finite, in "
                f"{int(bad.sum())} of {len(bad)} points. "
            )
    bad = ~log_density(points).isfinite()
    if bad.any():
        return f"Every layer is finite, but {name} is not, in {int(bad.sum())} of {len(bad)} points. "
    return ""


# --- batches ------------------------------------------------------------------------------


def _rows(flow: Flow, data: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Move the data to the flow, once, and check them there."""
    data = data.to(flow.base.device)
    flow._check_points(data, "data")
    if not len(data):
        raise ValueError("data holds no points; a fit needs at least one.")
    if isinstance(context, Tensor):
        context = context.to(flow.base.device)
    return data, flow._check_context(context, len(data))


def _epochs(
    data: Tensor, context: Tensor | None, batch_size: int, generator: torch.Generator
) -> Iterator[Batch]:
    size = min(batch_size, len(data))
    while True:
        order = torch.randperm(len(data), generator=generator).to(data.device)
        for rows in order[: len(data) // size * size].split(size):
            yield data[rows], None if context is None else context[rows]


def _draws(flow: Flow, source: Any, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
    while True:
        yield source.sample(batch_size, generator=generator).to(flow.base.anchor), None


# --- the door, and what surrounds the loop --------------------------------------------------


def _check(flow: Flow, steps: int, batch_size: int, lr: float, clip: float | None) -> None:
    if not isinstance(flow, Flow):
        raise TypeError(f"flow must be a flowlib.Flow and came as {type(flow).__name__}.")
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a whole number, 1 or more, and came as {value!r}.")
    if not 0 < lr < math.inf:
        raise ValueError(f"lr must be a positive number and came as {lr!r}.")
    if clip is not None and not clip > 0:
        raise ValueError(f"clip must be a positive number, or None for no clipping, and came as {clip!r}.")


@contextmanager
def _own_random_state(device: torch.device, seed: int) -> Iterator[None]:
    """Seed the global generators for layers that draw, and put the caller's state back at the end."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        for one in cuda:
            with torch.cuda.device(one):
                torch.cuda.manual_seed(seed)
        yield


def _bar(steps: int) -> Any:
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return None
    return tqdm(total=steps)


__all__ = ["History", "fit", "fit_reverse_kl"]
