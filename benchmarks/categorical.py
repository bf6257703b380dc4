"""Autoregressive models of whole numbers as flows: any network of the entries before, and a staircase on top.

Lectures 10 and 16 measure them. Their likelihood is exact: the density is constant inside each cell, so
dequantisation costs nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from flowlib import MADE, Bijection, Compose, Dequantize, Flow, UniformBox
from flowlib.layers.tarflow import CausalTransformer, Past


class Staircase(Bijection):
    """A distribution function for each entry, straight in every cell, with the entries before as its context.

    Args:
        net: from entries between -1 and 1, shape ``(B, d)``, to ``levels`` numbers for each, of those before
            it alone; its ``solve`` finds all entries one after another, as :class:`~flowlib.MADE` has it.
        levels: how many whole numbers an entry can be.
    """

    def __init__(self, net: Any, levels: int) -> None:
        super().__init__()
        self.net, self.levels = net, levels

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        def entry(z_i: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
            F = raw.softmax(1).cumsum(1)[:, :-1]
            cell = (z_i[:, None] >= F).sum(1)
            return self._seen(cell), torch.zeros_like(z_i)

        cell = ((self.net.solve(entry, z, context)[0] + 1) / 2 * (self.levels - 1)).round()
        x = (cell + 0.5) / self.levels
        low, log_det = self.inverse(x, context)
        slope = self._log_P(cell, context)[1].exp()  # z's that a cell is wide
        u = (z - low) / slope + 0.5
        return (cell + u.clamp(0, 1 - 1e-5)) / self.levels, -log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        cell = (self.levels * x).floor()
        F, log_P = self._log_P(cell, context)
        z = (F + log_P.exp() * (self.levels * x - cell)).clamp(max=1.0)  # rounding can pass 1
        return z, log_P.sum(1) + x.shape[1] * math.log(self.levels)

    def _seen(self, cell: Tensor) -> Tensor:
        """What the network is told of a whole number."""
        return 2 * cell / (self.levels - 1) - 1

    def _log_P(self, cell: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The distribution function below each cell, and the logarithm of its probability."""
        log_P = self.net(self._seen(cell), context).log_softmax(2)
        F = torch.cat([torch.zeros_like(log_P[..., :1]), log_P.exp().cumsum(2)], 2)
        here = cell.long().unsqueeze(2)
        return F.gather(2, here).squeeze(2), log_P.gather(2, here).squeeze(2)


class PixelTransformer(nn.Module):
    """Attention over the entries before, one token each: a network for :class:`Staircase`.

    Shapes: ``x`` is ``(B, d)``, the output ``(B, d, levels)``.
    """

    def __init__(self, d: int, levels: int, hidden: tuple[int, ...] = (32, 32)) -> None:
        super().__init__()
        self.d, self.levels = d, levels
        self.transformer = CausalTransformer(d, levels, levels, hidden)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        tokens = self._tokens(x)
        nothing = torch.zeros_like(tokens[:, :1])
        return self.transformer(torch.cat([nothing, tokens[:, :-1]], 1), context)

    def solve(self, entry: Any, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One entry after another; what was computed for those before is kept."""
        token, found = z.new_zeros(len(z), 1, self.levels), []
        past: list[Past] = []
        for z_i in z.unbind(1):
            raw, past = self.transformer.extend(token, context, past)
            found.append(entry(z_i, raw[:, 0]))
            token = self._tokens(found[-1][0][:, None])
        x, log_slopes = (torch.stack(parts, 1) for parts in zip(*found, strict=True))
        return x, log_slopes.sum(1)

    def _tokens(self, x: Tensor) -> Tensor:
        cell = ((x + 1) / 2 * (self.levels - 1)).round().long()
        return one_hot(cell, self.levels).to(x)


def categorical(net: Any, levels: int = 17, features: int = 0) -> Flow:
    """The flow of whole numbers whose conditionals are the network's."""
    return Flow(Compose([Staircase(net, levels), Dequantize(levels)]), UniformBox(net.d, 0.0, 1.0), features)


def made(d: int, hidden: tuple[int, ...], levels: int = 17, features: int = 0) -> Flow:
    """The categorical MADE of lecture 10."""
    return categorical(MADE(d, levels, hidden, features), levels, features)


__all__ = ["PixelTransformer", "Staircase", "categorical", "made"]
