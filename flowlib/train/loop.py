r"""Maximum likelihood, from one CPU to torchrun: :func:`fit`. Read it from top to bottom.

Every random number is a function of the seed, the step and the process. So a checkpoint holds no generator
and no place in an epoch, and a training that goes on from one cannot tell that it was ever away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from flowlib.flow import Flow
from flowlib.train import checkpoint as disk
from flowlib.train import report
from flowlib.train.report import History, in_training

DECISIVE = ("steps", "batch_size", "lr", "seed", "clip", "ema", "patience", "validate_every")
ADVICE = "The parameters are those from before this step: try a smaller lr or clip."


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
            out. A sampler gives fresh points at every step. A tensor stays where it is: batch by batch it
            goes to the flow's device.
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
    settings: dict[str, Any] = {name: given[name] for name in DECISIVE} | getattr(flow, "also_decisive", {})
    counts = {"accumulate": accumulate, "checkpoint_every": checkpoint_every, "samples_every": samples_every}
    check_numbers(**counts, **{name: given[name] for name in DECISIVE if name != "seed"})
    if patience is not None and validation is None:
        raise ValueError("patience needs validation=…, the held-out points.")
    if hasattr(data, "sample") and context is not None:
        raise ValueError("A sampler draws no context: give data as a tensor, with a row of context for each.")
    if not hasattr(data, "sample"):
        _look_at(flow, data, context, "data")
        batch_size = min(batch_size, len(data))
    if validation is not None:
        _look_at(flow, validation, validation_context, "validation")
    alone = not (distributed.is_available() and distributed.is_initialized())
    rank, ranks = (0, 1) if alone else (distributed.get_rank(), distributed.get_world_size())
    if rank > 0:  # the first process alone speaks and writes
        checkpoint, samples, history, progress = None, None, None, False
    if checkpoint is not None:
        settings["frozen"] = ", ".join(name for name, p in flow.named_parameters() if not p.requires_grad)
        settings["data"] = disk.fingerprint((data, context))
        settings["validation"] = disk.fingerprint((validation, validation_context))

    # --- where the run stands: at its start, or where its checkpoint does
    flow.to(device)
    if samples is not None:
        import flowlib.plots  # noqa: F401  # its sentence where matplotlib is missing, before the training

        Path(samples).mkdir(exist_ok=True)
    optimiser = torch.optim.Adam([p for p in flow.parameters() if p.requires_grad], lr=lr, fused=True)
    record, start = History(), time.perf_counter()
    best, step, finished, stop = None, 0, False, False
    average = None if ema is None else AveragedModel(flow, multi_avg_fn=get_ema_multi_avg_fn(ema))
    in_use: Any = flow if average is None else average.module  # by validation, by pictures, at the end
    with disk.alone(checkpoint=checkpoint, history=history), in_training(flow, record, bfloat16):
        saved: dict[str, Any] = {"flow": {name: tensor.cpu() for name, tensor in flow.state_dict().items()}}
        if checkpoint is not None and Path(checkpoint).exists():
            saved = disk.load_for(flow, checkpoint, settings)
        saved = _from_first(saved, ranks)
        flow.load_state_dict(saved["flow"])  # layers that remember whether they have started look again
        if "step" in saved:
            optimiser.load_state_dict(saved["optimiser"])
            if average is not None:
                in_use.load_state_dict(saved["average"])
                average.n_averaged.fill_(saved["step"])
            vars(record).update(saved["history"] | {"interrupted": False})
            best, step, finished = saved["best"], saved["step"], saved["finished"]
            start -= record.seconds

        # --- the steps that are left
        model = torch.compile(flow) if compile else flow
        advance = report.progress_bar(flow, steps, step, progress)
        mine = slice(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)
        batches = _batches(flow, data, context, batch_size, seed, step, mine, accumulate)

        while not (finished or stop):
            batch = next(batches)
            seed_layers(flow, stream(seed, step, 1 + rank))
            optimiser.param_groups[0]["lr"] = 0.5 * lr * (1 + math.cos(math.pi * step / steps))
            try:
                # shares of −1/n Σ log p; in train mode the flow looks at no values
                losses = (-model(*piece).sum() / batch_size for piece in batch)
                stop = descend(optimiser, losses, record, clip, ranks)
            except FloatingPointError as error:
                seed_layers(flow, stream(seed, step, 1 + rank))
                found = f"{error}. {report.blame(flow, batch)}"
                raise FloatingPointError(f"Step {step + 1} of {steps}: {found} {ADVICE}") from None
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
            if finished or stop or step % checkpoint_every == 0:
                record.seconds = time.perf_counter() - start
                with disk.softly(step):
                    if checkpoint is not None:
                        content = {"step": step, "finished": finished, "history": vars(record), "best": best}
                        content |= {"flow": flow.state_dict(), "optimiser": optimiser.state_dict()}
                        content |= {"average": None if average is None else in_use.state_dict()}
                        content |= {"model": disk.describe(flow), "settings": settings}
                        disk.save_checkpoint(checkpoint, content)
                    if history is not None:
                        record.to_csv(history)
            if samples is not None and (finished or stop or step % samples_every == 0):
                with disk.softly(step):
                    rows = context if validation_context is None else validation_context
                    report.picture(in_use, Path(samples) / f"step_{step:06d}.png", rows, f"step {step}")
            if not flow.training:  # after a look
                flow.train()
    record.interrupted = not finished
    if best is not None or average is not None:
        flow.load_state_dict(best or in_use.state_dict())
    return record


# --- what every training is made of -------------------------------------------------------------


def check_numbers(**numbers: Any) -> None:
    """Refuse numbers that make no training; None is for those that may be left out."""
    for name, value in numbers.items():
        whole, most = name not in ("lr", "clip", "ema"), 1 if name == "ema" else math.inf
        if value is not None and not (0 < value < most and (isinstance(value, int) or not whole)):
            kind = "a whole number, 1 or more" if whole else f"a number between 0 and {most}"
            raise ValueError(f"{name} must be {kind}, and came as {value!r}.")


def stream(seed: int, number: int, which: int = 0) -> int:
    """A seed for one epoch or step: 0 is the stream of the data, 1 + r that of the layers in process r."""
    return (1_000_003 * seed + 10_000_019 * which + number) % 2**32


def seed_layers(flow: Flow, number: int) -> None:
    """Seed the generators that layers draw from; ``torch.manual_seed`` would take a hundred times as long."""
    torch.default_generator.manual_seed(number)
    if flow.base.device.type == "cuda":
        torch.cuda.default_generators[flow.base.device.index].manual_seed(number)


def descend(
    optimiser: torch.optim.Adam, losses: Iterable[Tensor], record: History, clip: float | None, ranks: int = 1
) -> bool:
    """One update by the gradient of the sum of the losses; return whether any process was told to stop."""
    optimiser.zero_grad()
    total: Any = 0.0
    for loss in losses:
        loss.backward()
        total = total + loss.detach()
    stop, parameters = record.interrupted, optimiser.param_groups[0]["params"]
    if ranks > 1:  # in one message: the loss, the wish to stop, and the gradient
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        message = torch.cat([part.flatten() for part in (total, total.new_tensor(stop), *gradients)])
        distributed.all_reduce(message)
        total, wish, *sums = message.split([1, 1, *(p.numel() for p in parameters)])
        stop = bool(wish)
        for parameter, gradient in zip(parameters, sums, strict=True):
            parameter.grad = gradient.view_as(parameter)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # the step's one wait for the device: what is not finite must be known before the update
    value, length = torch.stack([total.squeeze(), norm]).tolist()
    if not math.isfinite(value + length):
        raise FloatingPointError(f"the loss is {value}, and its gradient has length {length}")
    if clip is not None and length > clip:
        nn.utils.clip_grads_with_norm_(parameters, clip, norm)
    optimiser.step()
    record.loss.append(value)
    record.lr.append(optimiser.param_groups[0]["lr"])
    record.grad_norm.append(length)
    return stop or (ranks == 1 and record.interrupted)  # Ctrl-C may have come during the update


def _look_at(flow: Flow, points: Any, context: Tensor | None, name: str) -> None:
    """What the flow refuses of points and their context, wherever they lie."""
    flow._check_points(points, name, device=getattr(points, "device", None))
    if not len(points):
        raise ValueError(f"{name} holds no points.")
    flow._check_context(context, len(points), device=getattr(context, "device", None))


def _batches(
    flow: Flow, data: Any, context: Tensor | None, size: int, seed: int, start: int, mine: slice, pieces: int
) -> Iterator[list[tuple[Tensor, Tensor | None]]]:
    """From step ``start`` on, this process's part of each batch, in pieces."""
    for step in count(start):
        if hasattr(data, "sample"):
            generator = torch.Generator().manual_seed(stream(seed, step))
            x, rows = data.sample(size, generator=generator)[mine], None
        else:
            epoch, place = divmod(step, len(data) // size)
            if step == start or place == 0:
                generator = torch.Generator().manual_seed(stream(seed, epoch))
                order = torch.randperm(len(data), generator=generator)
            part = order[place * size : (place + 1) * size][mine]
            x, rows = data[part], None if context is None else context[part]
        conditions = [None] * pieces if rows is None else rows.to(flow.base.anchor).chunk(pieces)
        yield list(zip(x.to(flow.base.anchor).chunk(pieces), conditions, strict=False))


def _from_first(value: Any, ranks: int) -> Any:
    """What the first process has, in all of them."""
    shared = [value]
    if ranks > 1:
        distributed.broadcast_object_list(shared)
    return shared[0]
