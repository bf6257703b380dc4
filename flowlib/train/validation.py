"""Held-out points: how good the flow is on them, which parameters were the best, when to stop."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flowlib.flow import Flow
from flowlib.train.batches import checked_rows
from flowlib.train.randomness import own_random_state
from flowlib.train.ranks import from_first, rank_and_ranks
from flowlib.train.run import Run


class Validation:
    """Measures now and then, keeps the best parameters, and counts how often they were not beaten."""

    def __init__(
        self,
        flow: Flow,
        points: Tensor,
        context: Tensor | None,
        batch_size: int,
        every: int,
        patience: int | None,
        seed: int,
    ) -> None:
        if not isinstance(points, Tensor):
            raise TypeError(f"validation must be a tensor of points and came as {type(points).__name__}.")
        self.points, self.context = checked_rows(flow, points, context, "validation")
        self.batch_size, self.every, self.patience, self.seed = batch_size, every, patience, seed

    def due(self, step: int, steps: int) -> bool:
        return step % self.every == 0 or step == steps

    def look(self, run: Run) -> bool:
        """Measure once; return whether patience has run out."""
        rank, ranks = rank_and_ranks()
        value = self.measure(run.model) if rank == 0 else math.nan
        if ranks > 1:
            value = from_first(value, run.flow.base.device)
        before = [value for _, value in run.history.validation if math.isfinite(value)]
        run.history.validation.append((run.step, value))
        if math.isfinite(value) and value < min(before, default=math.inf):
            run.best = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
            return False
        values = [value if math.isfinite(value) else math.inf for _, value in run.history.validation]
        since_best = len(values) - 1 - values.index(min(values))
        return self.patience is not None and since_best >= self.patience

    @torch.no_grad()
    def measure(self, model: Flow) -> float:
        r"""The mean of :math:`-\log p` in nats, with the same draws each time and none taken from the run."""
        device, was_training, total = model.base.device, model.training, 0.0
        model.eval()
        with own_random_state(device, self.seed):
            for start in range(0, len(self.points), self.batch_size):
                part = slice(start, start + self.batch_size)
                context = None if self.context is None else self.context[part].to(device)
                total += float(model.log_prob(self.points[part].to(device), context).double().sum())
        model.train(was_training)
        return -total / len(self.points)
