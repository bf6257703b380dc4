"""The loop of every training. Read it from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from flowlib.flow import Flow
from flowlib.train.batches import Batch, Batches
from flowlib.train.history import History
from flowlib.train.interrupt import noting_interrupts
from flowlib.train.pictures import Pictures
from flowlib.train.precision import conditioners_in_bfloat16
from flowlib.train.progress import Bar
from flowlib.train.randomness import own_random_state
from flowlib.train.ranks import any_rank, mean_over_ranks, parallel, start_alike
from flowlib.train.resume import Saved
from flowlib.train.run import Run
from flowlib.train.validation import Validation

Loss = Callable[[nn.Module, Batch, int], Tensor]


def train(
    flow: Flow,
    batches: Batches,
    loss: Loss,
    blame: Callable[[Batch], str],
    *,
    steps: int,
    lr: float,
    seed: int,
    clip: float | None,
    progress: bool,
    rank: int = 0,
    ranks: int = 1,
    ema: float | None = None,
    bfloat16: bool = False,
    compile: bool = False,
    validation: Validation | None = None,
    saved: Saved | None = None,
    pictures: Pictures | None = None,
) -> History:
    """Take the steps that are left, and leave the flow in eval mode with the parameters to be used."""
    parameters = {name: p for name, p in flow.named_parameters() if p.requires_grad}
    if not parameters:
        raise ValueError("This flow has no parameters that require a gradient: there is nothing to train.")
    if ranks > 1:
        start_alike(flow)
    run = Run(flow, torch.optim.Adam(parameters.values(), lr=lr), batches)
    bar, start = None, time.perf_counter()
    try:
        # another seed than the batches', whose random numbers the layers would repeat; one for each rank
        with (
            own_random_state(flow.base.device, seed + 1 + 1_000_003 * rank),
            conditioners_in_bfloat16(flow, bfloat16),
            noting_interrupts() as interrupt,
        ):
            if ema is not None:
                run.average = AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(ema))
            if saved is not None:
                saved.resume(run)
            model: Any = torch.compile(flow) if compile else flow
            if ranks > 1 and not run.finished:
                model = _parallel(model, run, list(parameters.values()), loss)
            bar = Bar(flow, steps, run.step) if progress and rank == 0 else None
            start = time.perf_counter() - run.history.seconds
            flow.train()
            while not run.finished:
                step, batch = run.step, next(run.batches)
                rate = 0.5 * lr * (1 + math.cos(math.pi * step / steps))
                run.optimiser.param_groups[0]["lr"] = rate
                try:
                    losses = _losses(model, loss, batch, step)
                    value, grad_norm = _step(parameters, run.optimiser, losses, clip, ranks)
                except FloatingPointError as error:
                    raise FloatingPointError(
                        f"Step {step + 1} of {steps}: {error}. {next(filter(None, map(blame, batch)), '')}"
                        "The parameters are those from before this step. Try a smaller lr or clip, and look "
                        "at the data."
                    ) from None
                run.history.loss.append(value)
                run.history.lr.append(rate)
                run.history.grad_norm.append(grad_norm)
                run.step = step + 1
                run.finished = run.step == steps
                if run.average is not None:
                    run.average.update_parameters(flow)
                if bar is not None:
                    bar.step(value)
                if validation is not None and validation.due(run.step, steps):
                    run.finished |= validation.look(run)
                stop = interrupt.wanted if ranks == 1 else any_rank(interrupt.wanted, flow.base.device)
                done = run.finished or stop
                if pictures is not None and (done or pictures.due(run.step)):
                    pictures.draw(run.model, run.step)
                if saved is not None and (done or saved.due(run.step)):
                    run.history.seconds = time.perf_counter() - start
                    saved.save(run)
                if done:
                    break
            run.history.interrupted = not run.finished
    except KeyboardInterrupt:  # the steps so far are not thrown away
        run.history.interrupted = not run.finished
    finally:
        flow.zero_grad()
        flow.eval()
        run.history.seconds = time.perf_counter() - start
        if bar is not None:
            bar.close()
    run.leave()
    return run.history


def _parallel(model: nn.Module, run: Run, parameters: list[nn.Parameter], loss: Loss) -> nn.Module:
    """Wrap the model for several ranks, after a trial that leaves everything as it was."""
    state = run.batches.state()
    trial = next(run.batches)[0]
    run.batches.load(state)
    run.flow.eval()  # no layer's start from a batch
    with own_random_state(run.flow.base.device, 0):
        return parallel(model, parameters, lambda: loss(run.flow, trial, run.step))


def _losses(model: nn.Module, loss: Loss, pieces: list[Batch], step: int) -> Iterator[Tensor]:
    """The loss of each piece of a batch, such that they sum to the batch's; only the last is sent around."""
    for k, piece in enumerate(pieces, start=1):
        waits = isinstance(model, DistributedDataParallel) and k < len(pieces)
        with cast(DistributedDataParallel, model).no_sync() if waits else nullcontext():
            value = loss(model, piece, step)
            yield value / len(pieces) if len(pieces) > 1 else value


def _step(
    parameters: dict[str, nn.Parameter],
    optimiser: torch.optim.Optimizer,
    losses: Iterable[Tensor],
    clip: float | None,
    ranks: int = 1,
) -> tuple[float, float]:
    """One update by the sum of the losses; return it and the gradient's length."""
    optimiser.zero_grad()
    parts = []
    for loss in losses:
        loss.backward()
        parts.append(loss.detach())
    total = parts[0] if len(parts) == 1 else torch.stack(parts).sum()
    if ranks > 1:
        total = mean_over_ranks(total)
    gradients = {name: p.grad for name, p in parameters.items() if p.grad is not None}
    # all numbers come from the device in one transfer, which has to be waited for: what is not
    # finite must be known before the update
    lengths = [torch.linalg.vector_norm(gradient) for gradient in gradients.values()]
    value, *lengths = torch.stack([total, *lengths]).tolist()
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
