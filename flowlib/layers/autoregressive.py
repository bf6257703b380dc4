r"""Autoregressive flows: every entry moves by a function of the entries before it.

MAF (Papamakarios, Pavlakou and Murray, 2017) knows the density in one pass and generates entry by
entry; IAF (Kingma et al., 2016) is its inverse and has it the other way round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, silu

from flowlib.bijection import Bijection
from flowlib.nets import Conditioner, _check_widths, _spread, _zero

Entry = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_BLOCK = 16  # places that are solved together before the rest hears of them


class MaskedLinear(nn.Linear):
    r"""A linear map with some weights fixed at zero: :math:`h \mapsto (M \odot W)\,h + b`.

    Args:
        mask: the matrix M, bool, of shape ``(out, in)``: True where a weight may be used.

    Example:
        >>> import torch
        >>> layer = MaskedLinear(torch.tensor([[True, False]]))
        >>> bool(layer.masked_weight[0, 1] == 0)
        True
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(torch.get_default_dtype()))

    @property
    def masked_weight(self) -> Tensor:
        r"""The matrix :math:`M \odot W` in use."""
        return self.weight * self.mask

    def forward(self, h: Tensor) -> Tensor:
        return linear(h, self.masked_weight, self.bias)


class MADE(Conditioner):
    r"""A masked network :math:`h` of d entries, with :math:`h_i` a function of the entries before i.

    .. math::
        M^{1}_{jp} = [\,m^1_j > p\,], \qquad
        M^{l+1}_{kj} = [\,m^{l+1}_k \ge m^l_j\,], \qquad
        M^{\mathrm{out}}_{pk} = [\,p \ge m^L_k\,]

    Here :math:`p = 0, \dots, d-1` are the places of the entries in ``order``, and :math:`m^l_j` is
    the degree of hidden unit j: it hears the first :math:`m^l_j` entries and no other. The degrees
    1 … d−1 are spread evenly over each hidden layer; with a context there are units of degree 0
    too, which hear the context alone. Every dependency that the order allows is there if the hidden
    layers have a unit of each degree (d − 1 units, d with a context); narrower layers lose some. The first
    layer starts as that of an :class:`~flowlib.nets.MLP` with as many entries as a unit may hear, d − 1.

    Shapes: ``x`` is ``(B, d)``, ``context`` is ``(B, context_features)``, the output is
    ``(B, d, outputs)``. The last layer starts at zero; its units come as a coupling's do, the first
    number of every entry, then the second, …

    Args:
        d: the number of entries.
        outputs: how many numbers to give for each entry.
        hidden: widths of the hidden layers, at least one.
        context_features: length of the context, which every unit may hear; 0 for none.
        order: the entries from first to last; 0, 1, …, d−1 if not given.

    Raises:
        ValueError: if a width is not a positive whole number, there is no hidden layer, or
            ``order`` does not hold each entry once.

    Example:
        >>> import torch
        >>> net = MADE(3, outputs=2, hidden=(16,))
        >>> net(torch.ones(5, 3)).shape
        torch.Size([5, 3, 2])

    Reference: Germain et al., *MADE: Masked Autoencoder for Distribution Estimation*, ICML 2015,
    arXiv:1502.03509.
    """

    order: Tensor
    place: Tensor
    layers: Any  # a list of MaskedLinear

    def __init__(
        self,
        d: int,
        outputs: int = 1,
        hidden: Sequence[int] = (64, 64),
        context_features: int = 0,
        order: Sequence[int] | Tensor | None = None,
    ) -> None:
        super().__init__()
        _check_widths(d=d, outputs=outputs, hidden=hidden)
        if not hidden:
            raise ValueError("hidden must hold the width of at least one layer, such as (64,); it is empty.")
        entries = torch.arange(d) if order is None else torch.as_tensor(order)
        if entries.is_floating_point() or not torch.equal(entries.sort().values.cpu(), torch.arange(d)):
            raise ValueError(
                f"order must hold each of 0, 1, …, {d - 1} exactly once, and came as {entries.tolist()}."
            )
        self.d, self.outputs = d, outputs
        self.register_buffer("order", entries.long())
        self.register_buffer("place", entries.argsort())
        least = 0 if context_features or d == 1 else 1
        degrees = [least + torch.arange(width) * (d - least) // width for width in hidden]
        first = degrees[0][:, None] > self.place
        middle = [after[:, None] >= before for before, after in pairwise(degrees)]
        last = (self.place[:, None] >= degrees[-1]).repeat(outputs, 1)
        layers = [MaskedLinear(mask) for mask in (first, *middle, last)]
        _spread(layers[0], first)
        _zero(layers[-1])
        self.layers = nn.ModuleList(layers)
        self.context = nn.Linear(context_features, hidden[0], bias=False) if context_features else None
        # how many units of each layer have a degree below p, for p = 0 … d; inputs and outputs too
        below = [torch.searchsorted(degree, torch.arange(d + 1)).tolist() for degree in degrees]
        self._below = [list(range(d + 1)), *below, [outputs * p for p in range(d + 1)]]
        self._sizes = [[after - before for before, after in pairwise(counts)] for counts in self._below]

    def compute(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        h = self.layers[0](x)
        if self.context is not None:
            h = h + self.context(context)
        for layer in self.layers[1:]:
            h = layer(silu(h))
        return h.unflatten(1, (self.outputs, self.d)).movedim(1, 2)

    def solve(self, entry: Entry, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Solve :math:`x_i = \tau(z_i;\, h_i(x_{<i}))` for all entries, in the work of one pass.

        The entries come one after another, but no unit is computed twice. A hidden unit of degree
        m is complete once the first m entries are known; then its value is added to the units that
        hear it. Units inside a block of places hear of each other at once, and of all before their
        block when it begins, in one larger matrix product. Nothing is written in place: gradients flow
        through.

        Args:
            entry: from :math:`z_i`, shape ``(B,)``, and :math:`h_i`, shape ``(B, outputs)``, to
                :math:`x_i` and :math:`\log|\partial x_i / \partial z_i|`, both ``(B,)``.

        Returns:
            ``x`` of shape ``(B, d)``, and the log-derivatives' sum, ``(B,)``.
        """
        weights, starts = self._in_order(z, context)
        columns = z.t().index_select(0, self.order).unbind()
        known = [[z.new_zeros(0, z.shape[0])] for _ in weights]  # what each layer hears, in order
        log_slopes = []
        for low in range(0, self.d, _BLOCK):
            high = min(low + _BLOCK, self.d)
            known = [[torch.cat(units)] for units in known]
            first = [below[low] for below in self._below]
            waiting, inside = [], []
            for layer, weight in enumerate(weights):
                rows = slice(first[layer + 1], self._below[layer + 1][high])
                before, here = weight[rows, : self._below[layer][high]].tensor_split([first[layer]], 1)
                waiting.append(torch.addmm(starts[layer][rows], before, known[layer][0]))
                inside.append(here.split(self._sizes[layer][low:high], 1))
            for p in range(low, high):
                for layer in range(1, len(weights)):
                    below = self._below[layer]
                    complete = waiting[layer - 1][below[p] - first[layer] : below[p + 1] - first[layer]]
                    known[layer].append(silu(complete))
                    waiting[layer] = torch.addmm(waiting[layer], inside[layer][p - low], known[layer][-1])
                raw = waiting[-1][self.outputs * (p - low) : self.outputs * (p - low + 1)]
                x, log_slope = entry(columns[p], raw.t())
                log_slopes.append(log_slope)
                known[0].append(x[None])
                waiting[0] = torch.addcmul(waiting[0], inside[0][p - low], x)
        x = torch.cat(known[0]).index_select(0, self.place).t().contiguous()
        return x, torch.stack(log_slopes).sum(0)

    def _in_order(self, z: Tensor, context: Tensor | None) -> tuple[list[Tensor], list[Tensor]]:
        """The masked weights with inputs and outputs in order, and what each unit starts from, (units, B)."""
        weights = [layer.masked_weight for layer in self.layers]
        biases = [layer.bias for layer in self.layers]
        rows = (self.order[:, None] + self.d * torch.arange(self.outputs, device=z.device)).flatten()
        weights[0] = weights[0].index_select(1, self.order)
        weights[-1] = weights[-1].index_select(0, rows)
        biases[-1] = biases[-1].index_select(0, rows)
        starts = [bias[:, None].expand(-1, z.shape[0]) for bias in biases]
        if self.context is not None:
            starts[0] = starts[0] + self.context(context).t()
        return weights, starts


class Autoregressive(Bijection):
    r"""A monotone function :math:`\tau` of one number, applied to each entry in turn.

    .. math::
        \text{forward:}\quad & x_i = \tau\bigl(z_i;\, h_i(x_{<i})\bigr), \quad
        \log|\det| = \sum_i \log \tau'\bigl(z_i;\, h_i(x_{<i})\bigr) \\
        \text{inverse:}\quad & z_i = \tau^{-1}\bigl(x_i;\, h_i(x_{<i})\bigr), \quad
        \log|\det| = -\sum_i \log \tau'\bigl(z_i;\, h_i(x_{<i})\bigr)

    The network :math:`h` is a :class:`MADE`. The Jacobian is triangular, whatever :math:`h` is.
    For the inverse all :math:`x_{<i}` are known: one pass gives all entries. The forward direction has
    to generate :math:`x_1` before :math:`x_2`; it takes d steps that together do the matrix products of
    one pass, see :meth:`MADE.solve`.

    A subclass gives ``outputs``, the numbers that :math:`\tau` needs, to its MADE, and writes
    ``generate`` and ``normalise``. Layers take turns in their order: with ``order`` reversed in
    every second one, no layer of permutations is needed between them.

    Shapes: points ``(B, d)``, log-dets ``(B,)``.
    """

    def __init__(self, made: MADE) -> None:
        super().__init__()
        self.made = made

    def generate(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\tau(z)` and :math:`\log \tau'(z)`; ``raw`` is ``(*z.shape, outputs)``."""
        raise NotImplementedError(f"{type(self).__name__} has no generate(z, raw).")

    def normalise(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return :math:`\tau^{-1}(x)` and its log-derivative; ``raw`` is ``(*x.shape, outputs)``."""
        raise NotImplementedError(f"{type(self).__name__} has no normalise(x, raw).")

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.made.solve(self.generate, z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        z, log_slopes = self.normalise(x, self.made(x, context))
        return z, log_slopes.sum(1)


class AffineAutoregressive(Autoregressive):
    r"""MAF's layer: each entry is shifted and scaled by functions of the entries before it.

    .. math::
        \text{forward:}\quad & x_i = z_i\, e^{\alpha_i(x_{<i})} + \mu_i(x_{<i}), \quad
        \log|\det| = \sum_i \alpha_i(x_{<i}) \\
        \text{inverse:}\quad & z_i = \bigl(x_i - \mu_i(x_{<i})\bigr)\, e^{-\alpha_i(x_{<i})}, \quad
        \log|\det| = -\sum_i \alpha_i(x_{<i})

    The log-scale is bounded as in :class:`~flowlib.layers.coupling.AffineCoupling`,
    :math:`\alpha = \mathrm{bound} \cdot \tanh(\mathrm{raw} / \mathrm{bound})`. IAF is
    ``Inverse(AffineAutoregressive(d))``: it generates in one pass, which is what variational inference
    asks of it, and knows the density of its own samples without a second one.

    Shapes: points ``(B, d)``, ``context`` ``(B, context_features)``, log-dets ``(B,)``.

    Args:
        d: the number of entries of a point.
        hidden: widths of the hidden layers; see :class:`MADE`.
        context_features: length of the context; 0 for none.
        order: the entries from first to last; 0, 1, …, d−1 if not given.
        bound: the largest absolute log-scale.

    Raises:
        ValueError: if ``bound`` is not positive or above 80, a width is not a positive whole number, or
            ``order`` does not hold each entry once.

    Example:
        >>> import torch
        >>> layer = AffineAutoregressive(3, order=[2, 1, 0])
        >>> x, log_det = layer(torch.tensor([[1.0, 2.0, 3.0]]))  # a new layer is the identity
        >>> x.tolist(), log_det.tolist()
        ([[1.0, 2.0, 3.0]], [0.0])

    Reference: Papamakarios, Pavlakou and Murray, *Masked Autoregressive Flow for Density
    Estimation*, NeurIPS 2017, arXiv:1705.07057; Kingma et al., *Improving Variational Inference with
    Inverse Autoregressive Flow*, NeurIPS 2016, arXiv:1606.04934.
    """

    def __init__(
        self,
        d: int,
        hidden: Sequence[int] = (64, 64),
        context_features: int = 0,
        order: Sequence[int] | Tensor | None = None,
        bound: float = 2.0,
    ) -> None:
        super().__init__(MADE(d, 2, hidden, context_features, order))
        if not 0 < bound <= 80:  # as in AffineCoupling
            raise ValueError(f"bound must be a positive number up to 80 and came as {bound}.")
        self.bound = float(bound)

    def generate(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = raw.unbind(-1)
        log_scale = torch.tanh(log_scale / self.bound) * self.bound
        return torch.addcmul(shift, z, log_scale.exp()), log_scale

    def normalise(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = raw.movedim(-1, 1).unbind(1)  # as they lie in memory: the gradient is no copy
        # of a whole batch tanh takes six times as long as σ, and -tanh(a) = 2 σ(-2a) - 1
        log_slope = (torch.sigmoid(log_scale * (-2 / self.bound)) - 0.5) * (2 * self.bound)
        return (x - shift) * log_slope.exp(), log_slope


__all__ = ["MADE", "AffineAutoregressive", "Autoregressive", "MaskedLinear"]
