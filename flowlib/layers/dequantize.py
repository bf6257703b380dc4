r"""Densities for integers: dequantisation, the logit, and bits per dimension.

A density puts no mass on single points, so likelihood of raw integers can grow without bound.
Dequantisation spreads each integer over its cell; what results is a lower bound of the
probability of the integers, which no density can inflate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from flowlib.bijection import Bijection, Compose, Inverse, draws, may_look, sum_event
from flowlib.layers.coupling import AffineCoupling, alternating_mask, checkerboard_mask, conditioner_sizes
from flowlib.nets import MLP, ConvNet


class Dequantize(Bijection):
    r"""Uniform dequantisation: spread each integer over its cell. The outermost layer of a flow.

    .. math::
        \text{forward:}\quad & x = \lfloor L z \rfloor \text{ kept within } 0, \dots, L - 1, \quad
        \log|\det| = d \log L \\
        \text{inverse:}\quad & z = (x + u) / L, \quad u \sim \mathcal U[0, 1)^d, \quad
        \log|\det| = -d \log L

    One draw of :math:`u` estimates, without bias, a lower bound of the integers' log-probability,
    by Jensen's inequality:

    .. math::
        \log P(x) = \log \int_{[0,1)^d} p(x + u) \, du & \ge \mathbb E_u \log p(x + u), \\
        \log p(x + u) &= \log p(z) - d \log L

    where :math:`p(z)` is the density of the layers below. The log-determinant is that of the scaling
    by L: rounding has none. So ``is_exact`` is False, and ``log_prob`` differs from call to call. The
    draws come from torch's global generator on the CPU: one seed gives the same on every device. Only in
    train mode on a GPU, which would have to wait for them, do they come from its own. They keep a few
    roundings away from a cell's edges, so that ``forward`` always gives the integer back.

    There, and in ``torch.compile`` and ``torch.func``, the layer does not look at values either: a point
    with anything but levels becomes NaN, and its density with it.

    Shapes: points ``(B, *event)``, whole numbers held as floats; log-dets ``(B,)``.

    Args:
        levels: the number L of levels; 256 for bytes, 17 for the digits of ``flowlib.data``.

    Raises:
        ValueError: if ``levels`` is not a whole number, 2 or more; from ``inverse``, if a point holds
            anything but 0, 1, …, L−1; from both directions, if the dtype is too coarse for so many levels,
            as bfloat16 is for 256.

    Example:
        >>> import torch
        >>> layer = Dequantize(4)
        >>> z, log_det = layer.inverse(torch.tensor([[0.0, 3.0]]))
        >>> layer(z)[0]
        tensor([[0., 3.]])

    Reference: Theis, van den Oord and Bethge, *A Note on the Evaluation of Generative Models*,
    ICLR 2016, section 3.1, arXiv:1511.01844.
    """

    is_exact = False

    def __init__(self, levels: int) -> None:
        super().__init__()
        if not isinstance(levels, int) or levels < 2:
            raise ValueError(f"levels must be a whole number, 2 or more, and came as {levels!r}.")
        self.levels = levels
        self.h: Any = Compose([])  # from uniform draws to u; the identity

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = (z * self.levels).floor().clamp(0, self.levels - 1)
        _, log_q = self.h.inverse(self._inside(z * self.levels - x), (x, context))
        return x, z.shape[1:].numel() * math.log(self.levels) + log_q

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if may_look(self, x):
            self.check(x)
        u, minus_log_q = self.h(self._inside(draws(self, torch.rand, x.shape, x)), (x, context))
        z = ((x + self._inside(u)) / self.levels).masked_fill(self._wrong(x), math.nan)
        return z, minus_log_q - x.shape[1:].numel() * math.log(self.levels)

    def check(self, x: Tensor) -> None:
        """Refuse points that hold anything but levels."""
        if (wrong := self._wrong(x)).any():
            raise ValueError(
                f"{type(self).__name__} takes the whole numbers 0, 1, …, {self.levels - 1}, and the points "
                f"hold {x[wrong][0]:g}; give levels=… as many as there are, or leave the layer out."
            )

    def _wrong(self, x: Tensor) -> Tensor:
        return x != x.floor().clamp(0, self.levels - 1)

    def _inside(self, u: Tensor) -> Tensor:
        margin = 2 * self.levels * torch.finfo(u.dtype).eps
        if margin > 0.1:
            raise ValueError(
                f"{type(self).__name__} with {self.levels} levels cannot compute in {u.dtype}, too coarse to "
                "hold a level and its noise: take float32; fit(…, bfloat16=True) is for the networks alone."
            )
        return u.clamp(margin, 1 - margin)


class VariationalDequantize(Dequantize):
    r"""Variational dequantisation: a flow learns where in its cell each integer is best spread.

    .. math::
        \log P(x) & \ge \mathbb E_{q(u \mid x)} \left[ \log p(x + u) - \log q(u \mid x) \right], \\
        \log q(u \mid x) &= -\log\left|\det \frac{\partial h_x(u_0)}{\partial u_0}\right|, \quad
        u = h_x(u_0), \quad u_0 \sim \mathcal U(0, 1)^d

    where :math:`h_x` takes the logit, some affine couplings that see :math:`x`, and the sigmoid. The
    two directions are those of :class:`Dequantize`, with :math:`-\log q(u \mid x)` added to the
    log-determinant of ``inverse`` and taken from that of ``forward``. A new layer has
    :math:`q = \mathcal U`, so training starts at uniform dequantisation and tightens its bound, which
    is exact at :math:`q(u \mid x) = p(x + u) / P(x)`. (The paper starts from a normal :math:`u_0`.)

    Args:
        event_shape: the shape of one point, ``(d,)`` or ``(C, H, W)``, with two entries or pixels at least.
        levels: the number L of levels.
        layers: the number of couplings.
        hidden: widths inside each conditioner.
        context_features: length of the context that they see beside :math:`x`; 0 for none.

    Example:
        >>> import torch
        >>> layer = VariationalDequantize((1, 4, 4), levels=4, hidden=(8,))
        >>> x = torch.randint(4, (5, 1, 4, 4)).float()
        >>> z, log_det = layer.inverse(x)
        >>> torch.equal(layer(z)[0], x), log_det.shape
        (True, torch.Size([5]))

    Reference: Ho et al., *Flow++*, ICML 2019, section 3.1, arXiv:1902.00275.
    """

    def __init__(
        self,
        event_shape: int | Sequence[int],
        levels: int,
        layers: int = 4,
        hidden: Sequence[int] = (32,),
        context_features: int = 0,
    ) -> None:
        super().__init__(levels)
        shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        network, couplings = (MLP if len(shape) == 1 else ConvNet), []
        for k in range(layers):
            mask = alternating_mask(*shape, k % 2) if len(shape) == 1 else checkerboard_mask(shape, k % 2)
            seen, outputs = conditioner_sizes(mask, 2)
            net = network(seen + shape[0], outputs, hidden, context_features)
            couplings.append(AffineCoupling(mask, _Beside(net, levels)))
        self.h = Compose([Inverse(Logit()), *couplings, Logit()])


class _Beside(nn.Module):
    """A conditioner that sees, beside a part of u, the integers, on [-1, 1] as networks like them."""

    def __init__(self, net: nn.Module, levels: int) -> None:
        super().__init__()
        self.net, self.levels = net, levels

    def forward(self, part: Tensor, context: tuple[Tensor, Tensor | None]) -> Tensor:
        x, rows = context
        return self.net(torch.cat([part, 2 * x / (self.levels - 1) - 1], 1), rows)


class Logit(Bijection):
    r"""From the real line to the unit interval, so that a flow need not learn where pixels end.

    .. math::
        \text{forward:}\quad & x = \frac{\sigma(z) - \alpha}{1 - 2\alpha}, \\
        & \log|\det| = \textstyle\sum_i \log \sigma(z_i) + \log \sigma(-z_i) - \log(1 - 2\alpha) \\
        \text{inverse:}\quad & z = \log\frac{y}{1 - y}, \quad y = \alpha + (1 - 2\alpha) x, \\
        & \log|\det| = \textstyle\sum_i \log(1 - 2\alpha) - \log y_i - \log(1 - y_i)

    It is an exact bijection of :math:`\mathbb R` and the open interval that :math:`y \in (0, 1)` gives
    to :math:`x`: with :math:`\alpha > 0` the ends 0 and 1 lie inside it. It goes below
    :class:`Dequantize`: ``Compose([..., Logit(0.05), Dequantize(256)])``.

    Shapes: points ``(B, *event)``, log-dets ``(B,)``.

    Args:
        alpha: how much the interval is shrunk at each end, 0 ≤ α < 1/2.

    Raises:
        ValueError: if ``alpha`` is out of range; from ``inverse``, if a point is not in the interval. Where
            :class:`Dequantize` cannot look, its density is NaN.

    Example:
        >>> import torch
        >>> Logit()(torch.zeros(1, 1))
        (tensor([[0.5000]]), tensor([-1.3863]))

    Reference: Dinh, Sohl-Dickstein and Bengio, *Density Estimation Using Real NVP*, section 4.1,
    arXiv:1605.08803 (there :math:`\alpha + (1 - \alpha) x`; the symmetric form is that of
    Papamakarios, Pavlakou and Murray, 2017, arXiv:1705.07057).
    """

    def __init__(self, alpha: float = 0.0) -> None:
        super().__init__()
        if not 0 <= alpha < 0.5:
            raise ValueError(f"alpha must be at least 0 and below 1/2 and came as {alpha!r}.")
        self.alpha = float(alpha)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)
        return x, sum_event(logsigmoid(z) + logsigmoid(-z) - math.log1p(-2 * self.alpha))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = self.alpha + (1 - 2 * self.alpha) * x
        if may_look(self, x) and not ((y > 0) & (y < 1)).all():
            edge = self.alpha / (1 - 2 * self.alpha)
            raise ValueError(
                f"Logit({self.alpha:g}) takes points between {-edge:.4g} and {1 + edge:.4g}, and they reach "
                f"from {x.min():.4g} to {x.max():.4g}; bring them to [0, 1] first, as Dequantize does."
            )
        log_y, log_rest = y.log(), torch.log1p(-y)
        return log_y - log_rest, sum_event(math.log1p(-2 * self.alpha) - log_y - log_rest)


def bits_per_dim(log_prob: Tensor, d: int | Sequence[int]) -> Tensor:
    r"""Bits per dimension, :math:`-\log_2 P(x) / d`, from natural logarithms.

    ``log_prob`` must be that of the integers, so with :class:`Dequantize` in the flow: its
    :math:`-d \log L` belongs to the result. Uniform noise over L levels needs :math:`\log_2 L` bits.

    Args:
        log_prob: in nats, any shape.
        d: the number of entries of one point, or its shape.

    Raises:
        ValueError: if ``d`` is not positive.

    Example:
        >>> import torch
        >>> bits_per_dim(torch.tensor([-64 * math.log(256)]), (1, 8, 8))
        tensor([8.])
    """
    entries = d if isinstance(d, int) else math.prod(d)
    if entries < 1:
        raise ValueError(f"d must be the number of entries of one point, 1 or more, and came as {d!r}.")
    return -log_prob / (entries * math.log(2))


def levels_of(flow: nn.Module) -> int | None:
    """The number of levels that a flow dequantises, or None if it is a density of real numbers.

    Example:
        >>> levels_of(Compose([Logit(0.05), Dequantize(17)]))
        17
    """
    return next((module.levels for module in flow.modules() if isinstance(module, Dequantize)), None)


__all__ = ["Dequantize", "Logit", "VariationalDequantize", "bits_per_dim", "levels_of"]
