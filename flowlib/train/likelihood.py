r"""Maximum likelihood on data."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from flowlib.flow import Flow
from flowlib.train.batches import Batch, Share, batches_of
from flowlib.train.blame import first_to_blame
from flowlib.train.door import check
from flowlib.train.history import History
from flowlib.train.loop import train
from flowlib.train.pictures import Pictures
from flowlib.train.ranks import rank_and_ranks
from flowlib.train.resume import Saved, fingerprint
from flowlib.train.validation import Validation

PathLike = str | os.PathLike[str]


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
    checkpoint: PathLike | None = None,
    checkpoint_every: int = 100,
    samples: PathLike | None = None,
    samples_every: int = 500,
    history: PathLike | None = None,
) -> History:
    r"""Maximum likelihood: minimise the empirical risk over the flow's parameters :math:`w`.

    .. math::
        \hat R(w) = -\frac1n \sum_{i=1}^n \log p_X(x_i; w)

    Adam with a cosine schedule, :math:`\mathrm{lr}_t = \tfrac12\mathrm{lr}\,(1 + \cos(\pi t/T))` for T steps.
    The same call gives the same result, and the global random state is left as it was.

    **A training that survives.** With ``checkpoint`` the same call, run again after whatever ended it, goes
    on where the file stands. On a CPU it ends with the same bits as if nothing had happened, and a finished
    run returns at once. The file is whole at every instant, and the one before it is kept beside it. A disk
    that is full gives a warning, and the training goes on. Ctrl-C ends the step, saves and returns; a second
    Ctrl-C returns at once. A file of another model, of other settings or other data is refused; how it is
    computed (``device``, ``bfloat16``, ``compile``, ``accumulate``, number of processes) may change.
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
        patience: stop after so many validations in a row without a new best; None for never.
        ema: decay :math:`\gamma`, such as 0.999, of the moving average
            :math:`\bar w_t = \gamma \bar w_{t-1} + (1 - \gamma) w_t` from :math:`\bar w_1 = w_1`. Validation,
            samples and the flow at the end use it.
        bfloat16: let the conditioners compute in bfloat16; all else, and every log-det, stays in float32.
        compile: train with ``torch.compile(flow)``.
        accumulate: cut every batch into so many pieces, to save memory. The update is that of the whole
            batch; only the start of :class:`~flowlib.layers.glow.ActNorm` sees the first piece alone.
        checkpoint: a file to save to every ``checkpoint_every`` steps, and to go on from.
        samples: a folder for pictures of samples, every ``samples_every`` steps and at the end, always
            from the same latents; needs matplotlib.
        history: a CSV file of the history, written every ``checkpoint_every`` steps and at the end.

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
    check(
        flow,
        lr,
        clip,
        steps=steps,
        batch_size=batch_size,
        validate_every=validate_every,
        accumulate=accumulate,
        checkpoint_every=checkpoint_every,
        samples_every=samples_every,
        patience=1 if patience is None else patience,
    )
    if ema is not None and not 0 < ema < 1:
        raise ValueError(f"ema must be a decay between 0 and 1, such as 0.999, and came as {ema!r}.")
    if validation is None and (patience is not None or validation_context is not None):
        raise ValueError("patience and validation_context need validation=…, the held-out points.")
    flow.to(device)
    rank, ranks = rank_and_ranks()
    generator = torch.Generator().manual_seed(seed)
    batches = batches_of(flow, data, context, batch_size, generator, Share(rank, ranks, accumulate))

    def loss(model: nn.Module, batch: Batch, step: int) -> Tensor:
        return -model(*batch).mean()

    def blame(batch: Batch) -> str:
        return first_to_blame(flow, batch, True, flow.base.log_prob, f"the base {type(flow.base).__name__}")

    look = saved = pictures = None
    if validation is not None:
        look = Validation(
            flow, validation, validation_context, batch_size, validate_every, patience, seed + 2
        )
    if samples is not None and rank == 0:
        rows = context if validation_context is None else validation_context
        pictures = Pictures(flow, samples, samples_every, rows, seed + 3)
    if checkpoint is not None or history is not None:
        settings: dict[str, Any] = (
            {}
            if checkpoint is None
            else {
                "steps": steps,
                "batch_size": batch_size,
                "lr": lr,
                "seed": seed,
                "clip": clip,
                "ema": ema,
                "data": fingerprint(data, context),
                "validation": None if validation is None else fingerprint(validation, validation_context),
                "validate_every": None if validation is None else validate_every,
                "patience": patience,
            }
        )
        saved = Saved(checkpoint, checkpoint_every, history, settings)
    return train(
        flow,
        batches,
        loss,
        blame,
        steps=steps,
        lr=lr,
        seed=seed,
        clip=clip,
        progress=progress,
        rank=rank,
        ranks=ranks,
        ema=ema,
        bfloat16=bfloat16,
        compile=compile,
        validation=look,
        saved=saved,
        pictures=pictures,
    )


__all__ = ["fit"]
