r"""Maximum likelihood, from one CPU to torchrun: :func:`fit`. Read it from top to bottom.

Every random number is a function of the seed, the step and the process. So a checkpoint holds no generator
and no place in an epoch, and a training that goes on from one cannot tell that it was ever away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from flowlib.flow import Flow
from flowlib.layers.dequantize import Dequantize
from flowlib.train import checkpoint as disk
from flowlib.train import report
from flowlib.train.report import History
from flowlib.train.step import check_arguments, descend, in_training, optimiser_of, seed_layers, stream

DECISIVE = ("steps", "batch_size", "lr", "seed", "clip", "ema", "patience", "validate_every")
COUNTS = ("steps", "batch_size", "accumulate", "validate_every", "checkpoint_every", "samples_every")


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
    validation: Tensor | None = None,
    validation_context: Tensor | None = None,
    validate_every: int = 100,
    patience: int | None = None,
    ema: float | None = None,
    bfloat16: bool = False,
    compile: bool = False,
    accumulate: int = 1,
    checkpoint: disk.PathLike | None = None,
    checkpoint_every: int = 100,
    samples: disk.PathLike | None = None,
    samples_every: int = 500,
    history: disk.PathLike | None = None,
) -> History:
    r"""Maximum likelihood: minimise the empirical risk over the flow's parameters :math:`w`.

    .. math::
        \hat R(w) = -\frac1n \sum_{i=1}^n \log p_X(x_i; w)

    Adam with a cosine schedule, :math:`\mathrm{lr}_t = \tfrac12\mathrm{lr}\,(1 + \cos(\pi t/T))` for T steps.
    The same call gives the same result, and the global random state is left as it was: every random number
    is a function of the seed and the step. With seed 0, epoch e takes the rows of a tensor in the order
    ``torch.randperm(N, generator=torch.Generator().manual_seed(e))``.

    **A training that survives.** With ``checkpoint`` the same call, run again after whatever ended it, goes
    on where the file stands. On a CPU it ends with the same bits as if nothing had happened, and a finished
    run returns at once. The file is whole at every instant. A disk that is full gives a warning, and the
    training goes on. Ctrl-C ends the step, saves and returns; a second Ctrl-C returns at once. A file of
    another model (also one whose tensors have the same shapes), of other settings or other data is refused,
    and so is a file that another run is writing at the same time; how it is computed (``device``,
    ``bfloat16``, ``compile``, ``accumulate``, number of processes) may change.
    See :func:`load_parameters` for what to do with the file later.

    **Several processes.** Under ``torchrun``, once ``torch.distributed`` is initialised and every process
    makes this call with the same arguments but its own ``device``, each computes its share of every
    batch. Losses and gradients are those of one process. Layers that draw, such as
    :class:`~flowlib.layers.dequantize.Dequantize`, draw from a stream of their own in each process. The first
    process alone shows the bar, validates and writes files.

    Args:
        flow: the model; it is left on ``device`` and in eval mode.
        data: a tensor ``(N, *event_shape)`` of the flow's dtype, or an object with
            ``.sample(n, generator=...)``, such as the densities of ``flowlib.data``. A tensor is
            reshuffled every epoch and cut into full batches; the points left over sit that epoch
            out. A sampler gives fresh points at every step. A tensor that would fill more than half of
            a GPU's free memory stays in the computer's, and moves batch by batch.
        steps: number of updates.
        batch_size: points in a batch; more than N means all N of them at every step.
        lr: the first learning rate.
        context: one row for each row of ``data``, shape ``(N, context_features)``.
        seed: of the order of the data, of a sampler's draws and of layers that draw.
        device: where to train; None means where the flow is.
        clip: the largest length of the gradient; None for no clipping.
        progress: show a bar, if tqdm is installed: the loss in nats, or in bits per dimension if the flow
            dequantises, and the time left.
        validation: held-out points. Their mean of :math:`-\log p` is measured every ``validate_every``
            steps and at the end, and the flow is left with the parameters at which it was least.
        validation_context: one row for each row of ``validation``.
        validate_every: steps from one look at the held-out points to the next.
        patience: stop after so many looks in a row without a new best; None for never.
        ema: decay of a moving average of the parameters, such as 0.999; None for none. Validation, samples
            and the flow at the end use :math:`\bar w_t = \gamma \bar w_{t-1} + (1 - \gamma) w_t`, from
            :math:`\bar w_1 = w_1`.
        bfloat16: let the conditioners compute in bfloat16; all else, and every log-det, stays in float32.
        compile: train with ``torch.compile(flow)``.
        accumulate: cut every batch into so many pieces, to save memory. The update is that of the whole
            batch; only the start of :class:`~flowlib.layers.glow.ActNorm` sees the first piece alone.
        checkpoint: a file to save to every ``checkpoint_every`` steps, and to go on from.
        checkpoint_every: steps from one writing of the checkpoint and the history to the next.
        samples: a folder for pictures of samples, always from the same latents; needs matplotlib.
        samples_every: steps from one picture of samples to the next; there is one at the end, too.
        history: a CSV file of the history, written with the checkpoint.

    Returns:
        the :class:`History`. Ctrl-C ends training early and keeps what was learned.

    Raises:
        TypeError, ValueError: if an argument does not fit the flow; the message says how.
        CheckpointError: if the checkpoint is not one, or not this run's.
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
    # --- the door: behind it, nothing looks at the values of points again
    given = locals()
    check_arguments(
        flow, lr, clip, **{name: given[name] for name in COUNTS}, patience=1 if patience is None else patience
    )
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema must be a decay between 0 and 1, such as 0.999, and came as {ema!r}.")
    if validation is None and (patience is not None or validation_context is not None):
        raise ValueError("patience and validation_context need validation=…, the held-out points.")
    if hasattr(data, "sample") and (context is not None or flow.context_features):
        raise ValueError("A sampler draws no context: give data as a tensor, with one context row per point.")
    flow.to(device)
    rank, ranks = _rank_and_ranks()
    if rank > 0:  # the first process alone speaks and writes
        checkpoint, samples, history, progress = None, None, None, False
    files = disk.files(checkpoint, history)
    settings = {name: given[name] for name in DECISIVE}
    settings["frozen"] = ", ".join(name for name, p in flow.named_parameters() if not p.requires_grad)
    if checkpoint is not None:
        settings["data"] = disk.fingerprint(data, context)
        held_out = None if validation is None else disk.fingerprint(validation, validation_context)
        settings["validation"] = held_out
    if not hasattr(data, "sample"):
        data, context = _checked(flow, data, context, "data")
        batch_size = min(batch_size, len(data))
    if batch_size % (ranks * accumulate):
        raise ValueError(
            f"A batch of {batch_size} points cannot be cut evenly for {ranks} process(es) with accumulate="
            f"{accumulate}: choose a batch_size that is a multiple of both, and no larger than the data."
        )
    if validation is not None:
        validation, validation_context = _checked(flow, validation, validation_context, "validation")
    draw = None
    if samples is not None:
        draw = report.pictures(flow, samples, context if validation_context is None else validation_context)

    # --- where the run stands: at its start, or where its checkpoint does
    optimiser, record = optimiser_of(flow, lr), History()
    average = None if ema is None else AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(ema))
    in_use: Any = flow if average is None else average.module  # by validation, by pictures, at the end
    best, step, finished, start = None, 0, False, time.perf_counter()
    with disk.alone(files), in_training(flow, bfloat16) as pressed:
        saved = None
        if checkpoint is not None and Path(checkpoint).exists():
            saved = disk.load_for(flow, checkpoint, settings)
        saved = _from_first(saved, ranks)
        if saved is not None:
            flow.load_state_dict(saved["flow"])
            optimiser.load_state_dict(saved["optimiser"])
            if average is not None:
                in_use.load_state_dict(saved["average"])
                average.n_averaged.fill_(saved["step"])
            record, best = History.unpacked(saved["history"]), saved["best"]
            step, finished, start = saved["step"], saved["finished"], start - record.seconds
        if ranks > 1:  # layers that remember whether they have started look again
            flow.load_state_dict(_from_first({name: t.cpu() for name, t in flow.state_dict().items()}, ranks))

        # --- the steps that are left
        model = torch.compile(flow) if compile else flow
        advance = report.progress_bar(flow, steps, step, progress)
        mine = slice(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)
        batches = _batches(flow, data, context, batch_size, seed, step, mine, accumulate)
        while not finished:
            batch = next(batches)
            seed_layers(flow, stream(seed, step, 1 + rank))
            losses = (_risk(model, *piece) / accumulate for piece in batch)
            try:
                stop = descend(optimiser, losses, record, lr, steps, clip, pressed, ranks)
            except FloatingPointError as error:
                seed_layers(flow, stream(seed, step, 1 + rank))
                for x, _ in batch:
                    _look_at(flow, x, "x")
                raise report.blame(error, record, steps, flow, batch, _risk) from None
            step, finished = step + 1, step + 1 == steps
            advance(record.loss[-1])
            if average is not None:
                average.update_parameters(flow)
            if validation is not None and (finished or step % validate_every == 0):
                nats = report.mean_nats(in_use, validation, validation_context) if rank == 0 else None
                record.validation.append((step, _from_first(nats, ranks)))
                values = [value if math.isfinite(value) else math.inf for _, value in record.validation]
                if values[-1] < min(values[:-1], default=math.inf):
                    best = {name: tensor.clone() for name, tensor in in_use.state_dict().items()}
                finished |= patience is not None and len(values) - values.index(min(values)) > patience
            if draw is not None and (finished or stop or step % samples_every == 0):
                draw(in_use, step)
            if finished or stop or step % checkpoint_every == 0:
                record.seconds = time.perf_counter() - start
                if history is not None:
                    with disk.failing_softly(history, step, finished):
                        record.to_csv(history)
                if checkpoint is not None:
                    content = {"flow": flow.state_dict(), "optimiser": optimiser.state_dict(), "best": best}
                    content |= {"average": None if average is None else in_use.state_dict()}
                    content |= {"step": step, "finished": finished, "history": record.packed()}
                    content |= {"model": disk.describe(flow), "settings": settings}
                    with disk.failing_softly(checkpoint, step, finished):
                        disk.save_checkpoint(checkpoint, content)
            if stop:
                break
    record.interrupted = not finished
    if best is not None or average is not None:
        flow.load_state_dict(best or in_use.state_dict())
    return record


def _risk(model: Any, x: Tensor, context: Tensor | None = None) -> Tensor:
    """The mean of −log p; in train mode the flow does not look at the points, which the door has seen."""
    return -model(x, context).mean()


def _checked(flow: Flow, data: Any, context: Any, name: str) -> tuple[Tensor, Tensor | None]:
    """Look at all points once, where they lie; then move them to the flow, if they fit there."""
    _look_at(flow, data, name)
    if not len(data):
        raise ValueError(f"{name} holds no points; a fit needs at least one.")
    context = context.to(data.device) if isinstance(context, Tensor) else context
    context = flow._check_context(context, len(data), data.device)
    here, size = flow.base.device, data.nbytes + (0 if context is None else context.nbytes)
    if here.type == "cuda" and data.device != here and size > torch.cuda.mem_get_info(here)[0] // 2:
        here = torch.device("cpu")
    return data.to(here), None if context is None else context.to(here)


def _look_at(flow: Flow, points: Any, name: str) -> None:
    """What the flow and its layers refuse of points, wherever they lie."""
    flow._check_points(points, name, device=getattr(points, "device", None))
    for layer in flow.modules():
        if isinstance(layer, Dequantize):
            layer.check(points)


def _batches(
    flow: Flow, data: Any, context: Tensor | None, size: int, seed: int, start: int, mine: slice, pieces: int
) -> Iterator[list[tuple[Tensor, Tensor | None]]]:
    """From step ``start`` on, this process's part of each batch, in pieces."""
    here = flow.base.anchor
    for step in count(start):
        if hasattr(data, "sample"):
            points = data.sample(size, generator=torch.Generator().manual_seed(stream(seed, step)))
            _look_at(flow, points.to(here.dtype), "x")
            yield [(piece, None) for piece in points[mine].to(here).chunk(pieces)]
            continue
        epoch, place = divmod(step, len(data) // size)
        if step == start or place == 0:
            order = torch.randperm(len(data), generator=torch.Generator().manual_seed(stream(seed, epoch)))
            order = order.to(data.device)
        batch = []
        for rows in order[place * size : (place + 1) * size][mine].chunk(pieces):
            batch.append((_near(data[rows], here), None if context is None else _near(context[rows], here)))
        yield batch


def _near(values: Tensor, here: Tensor) -> Tensor:
    """Move to the flow's device without waiting for it."""
    return values if values.device == here.device else values.pin_memory().to(here.device, non_blocking=True)


def _rank_and_ranks() -> tuple[int, int]:
    """This process's number and how many there are: (0, 1) without ``torch.distributed``."""
    together = distributed.is_available() and distributed.is_initialized()
    return (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)


def _from_first(value: Any, ranks: int) -> Any:
    """What the first process has, in all of them."""
    shared = [value]
    if ranks > 1:
        distributed.broadcast_object_list(shared)
    return shared[0]


__all__ = ["fit"]
