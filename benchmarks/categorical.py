"""Autoregressive models of whole numbers as flows: any network of the entries before, and a staircase on top.

Lectures 10 and 16 measure them. Their likelihood is exact: the density is constant inside each cell, so
dequantisation costs nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, scaled_dot_product_attention, silu

from flowlib import MADE, Bijection, Compose, Dequantize, Flow, UniformBox


class Staircase(Bijection):
    """A distribution function for each entry, straight in every cell, with the entries before as its context.

    Args:
        net: from entries between -1 and 1, shape ``(B, d)``, to ``levels`` numbers for each, of those before it
            alone; its ``solve`` finds all entries one after another, as :class:`~flowlib.MADE` has it.
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


class CausalTransformer(nn.Module):
    """Attention over the entries before: a network for :class:`Staircase`, with a cache of keys and values.

    Shapes: ``x`` is ``(B, d)``, the output ``(B, d, outputs)``.
    """

    def __init__(self, d: int, outputs: int, width: int = 48, layers: int = 3, heads: int = 4) -> None:
        super().__init__()
        self.d, self.heads, self.outputs = d, heads, outputs
        self.embed = nn.Linear(1, width)
        self.bend = nn.Linear(width, width)
        self.place = nn.Parameter(0.1 * torch.randn(d, width))
        self.start = nn.Parameter(0.1 * torch.randn(width))
        self.attend = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))
        self.widen = nn.ModuleList(nn.Linear(width, 4 * width) for _ in range(layers))
        self.narrow = nn.ModuleList(nn.Linear(4 * width, width) for _ in range(layers))
        self.read = nn.Linear(width, outputs)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        told = self._tell(x[:, :-1, None])
        first = self.start.expand(len(x), 1, -1)
        return self._blocks(torch.cat([first, told], 1) + self.place, None)

    def solve(self, entry: Any, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """One entry after another; each token is computed once."""
        token, cache = self.start.expand(len(z), 1, -1), [[] for _ in self.attend]
        found, log_slopes = [], []
        for i in range(self.d):
            raw = self._blocks(token + self.place[i], cache)[:, 0]
            x_i, log_slope = entry(z[:, i], raw)
            found.append(x_i)
            log_slopes.append(log_slope)
            token = self._tell(x_i[:, None, None])
        return torch.stack(found, 1), torch.stack(log_slopes, 1).sum(1)

    def _tell(self, x: Tensor) -> Tensor:
        return self.bend(torch.sin(4 * self.embed(x)))  # waves, so that neighbouring levels can differ

    def _blocks(self, h: Tensor, cache: Any) -> Tensor:
        def norm(h: Tensor) -> Tensor:
            return layer_norm(h, h.shape[-1:])

        for k, (attend, mix, widen, narrow) in enumerate(
            zip(self.attend, self.mix, self.widen, self.narrow, strict=True)
        ):
            heads = attend(norm(h)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            query, key, value = heads.unbind(0)
            if cache is not None:
                cache[k].append((key, value))
                key, value = (torch.cat(parts, 2) for parts in zip(*cache[k], strict=True))
            seen = scaled_dot_product_attention(query, key, value, is_causal=cache is None)
            h = h + mix(seen.transpose(1, 2).flatten(2))
            h = h + narrow(silu(widen(norm(h))))
        return self.read(norm(h))


def categorical(net: Any, levels: int = 17, features: int = 0) -> Flow:
    """The flow of whole numbers whose conditionals are the network's."""
    return Flow(Compose([Staircase(net, levels), Dequantize(levels)]), UniformBox(net.d, 0.0, 1.0), features)


def made(d: int, hidden: tuple[int, ...], levels: int = 17, features: int = 0) -> Flow:
    """The categorical MADE of lecture 10."""
    return categorical(MADE(d, levels, hidden, features), levels, features)


__all__ = ["CausalTransformer", "Staircase", "categorical", "made"]
