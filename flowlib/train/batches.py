"""Batches, in an order that can be left and taken up again."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from flowlib.flow import Flow

Batch = tuple[Tensor, Tensor | None]


class Share(NamedTuple):
    """Which part of every batch this process computes, and in how many pieces."""

    rank: int = 0
    ranks: int = 1
    pieces: int = 1

    def check(self, size: int) -> None:
        """Refuse a batch that cannot be cut into equal pieces: their means would not give its mean."""
        if size % (self.ranks * self.pieces):
            raise ValueError(
                f"A batch of {size} points cannot be cut evenly for {self.ranks} process(es) with "
                f"accumulate={self.pieces}; choose a batch_size that is a multiple of "
                f"{self.ranks * self.pieces}, and no larger than the data."
            )

    def of(self, batch: Tensor) -> tuple[Tensor, ...]:
        """This process's pieces of a batch, or of its row numbers."""
        size = len(batch) // (self.ranks * self.pieces)
        return batch.split(size)[self.rank * self.pieces : (self.rank + 1) * self.pieces]


class Rows:
    """The rows of a tensor, reshuffled every epoch and cut into full batches."""

    def __init__(
        self,
        data: Tensor,
        context: Tensor | None,
        batch_size: int,
        generator: torch.Generator,
        device: torch.device,
        share: Share,
    ) -> None:
        self.data, self.context, self.generator = data, context, generator
        self.size, self.device, self.share = min(batch_size, len(data)), device, share
        share.check(self.size)
        self.epoch = generator.get_state()  # from before the order was drawn, so that it can be drawn again
        self.order = torch.empty(0, dtype=torch.long)
        self.position = 0

    def __next__(self) -> list[Batch]:
        if self.position + self.size > len(self.order):
            self.epoch = self.generator.get_state()
            self._shuffle()
        rows = self.order[self.position : self.position + self.size]
        self.position += self.size
        return [
            (self._take(self.data, mine), None if self.context is None else self._take(self.context, mine))
            for mine in self.share.of(rows)
        ]

    def state(self) -> dict[str, Any]:
        return {"generator": self.epoch, "position": self.position}

    def load(self, state: dict[str, Any]) -> None:
        self.epoch = state["generator"]
        self.generator.set_state(self.epoch)
        self._shuffle()
        self.position = state["position"]

    def _shuffle(self) -> None:
        order = torch.randperm(len(self.data), generator=self.generator)
        self.order, self.position = order.to(self.data.device), 0

    def _take(self, values: Tensor, rows: Tensor) -> Tensor:
        taken = values[rows]
        if taken.device == self.device:
            return taken
        return taken.pin_memory().to(self.device, non_blocking=True)


class Draws:
    """Fresh points at every step, from whatever has ``.sample(n, generator=...)``."""

    def __init__(
        self, source: Any, batch_size: int, generator: torch.Generator, like: Tensor, share: Share
    ) -> None:
        share.check(batch_size)
        self.source, self.size, self.generator = source, batch_size, generator
        self.like, self.share = like, share

    def __next__(self) -> list[Batch]:
        points = self.source.sample(self.size, generator=self.generator).to(self.like)
        return [(mine, None) for mine in self.share.of(points)]

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state(), "position": 0}

    def load(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


Batches = Rows | Draws


def batches_of(
    flow: Flow, data: Any, context: Any, batch_size: int, generator: torch.Generator, share: Share
) -> Batches:
    """Check the data and choose how they come."""
    if isinstance(data, Tensor):
        rows, row_context = checked_rows(flow, data, context, "data")
        return Rows(rows, row_context, batch_size, generator, flow.base.device, share)
    if not hasattr(data, "sample"):
        raise TypeError(
            f"data must be a tensor or have .sample(n, generator), and came as {type(data).__name__}; "
            f"wrap an array: torch.as_tensor(data)."
        )
    if context is not None or flow.context_features:
        raise ValueError("A sampler draws no context: give data as a tensor, with one context row per point.")
    return Draws(data, batch_size, generator, flow.base.anchor, share)


def checked_rows(flow: Flow, data: Tensor, context: Any, name: str) -> tuple[Tensor, Tensor | None]:
    """Check the points and their context where they lie; then move them to the flow, if they fit there."""
    flow._check_points(data, name, device=data.device)
    if not len(data):
        raise ValueError(f"{name} holds no points; a fit needs at least one.")
    if isinstance(context, Tensor):
        context = context.to(data.device)
    context = flow._check_context(context, len(data), data.device)
    if not _fits(data, context, flow.base.device):
        return data.cpu(), None if context is None else context.cpu()
    device = flow.base.device
    return data.to(device), None if context is None else context.to(device)


def _fits(data: Tensor, context: Tensor | None, device: torch.device) -> bool:
    """Whether the device has room for the data, and as much again and more for the training itself."""
    if device.type != "cuda" or data.device == device:
        return True
    needed = data.nbytes + (0 if context is None else context.nbytes)
    return needed < torch.cuda.mem_get_info(device)[0] // 2
