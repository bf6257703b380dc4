r"""Neural spline flows: each entry moves along a monotone curve whose knots a network places.

First the curve and its inverse, then the two layers that use it, a coupling and an autoregressive one
(Durkan, Bekasov, Murray and Papamakarios, 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softmax

from flowlib.layers.autoregressive import MADE, Autoregressive
from flowlib.layers.coupling import _Coupling

_LEAST_WIDTH = 0.1  # of a bin, as a fraction of what it has when all are equal


@dataclass(frozen=True)
class Knots:
    r"""The knots of a spline with K bins, left to right.

    Attributes:
        x, y: where the curve passes, ``(K + 1, …)``; the first and last are the corners of the box.
        d: the curve's slopes there, ``(K + 1, …)``.
        width: the widths :math:`w_k` of the bins, ``(K, …)``.
        tilt: :math:`s_k - 1` of the bins' mean slopes :math:`s_k = h_k / w_k`, ``(K, …)``.

    Widths and tilts follow from x and y, yet are kept: as differences of knots they would lose digits.
    The knots come first, the points after, so that arithmetic runs over long rows.
    """

    x: Tensor
    y: Tensor
    d: Tensor
    width: Tensor
    tilt: Tensor

    @classmethod
    def through(cls, x: Tensor, y: Tensor, d: Tensor) -> Knots:
        """The knots at given places, increasing in x and in y, with given slopes."""
        width = x.diff(dim=0)
        return cls(x, y, d, width, y.diff(dim=0) / width - 1)


def spline_knots(raw: Tensor, box: float) -> Knots:
    r"""Place the knots of a spline inside the box :math:`[-B, B]^2`, from any 3K − 1 numbers a, b, c.

    .. math::
        w &= 2B\,\bigl(\tfrac{0.1}{K} + 0.9\,\mathrm{softmax}(a)\bigr), \qquad
        h_k \propto w_k\, e^{\tanh b_k}, \\
        d_k &= \frac{2\,e^{\tanh c_k}}{1/s_{k-1} + 1/s_k}, \qquad s_k = \frac{h_k}{w_k}

    Widths and heights both add up to 2B, and :math:`d_0 = d_K = 1` is the slope outside. The paper draws
    widths, heights and derivatives freely, each down to 1/1000. Then slopes fall to 1e-6 where a flat
    bin has steep ends, and going back multiplies the rounding error by a million. Here it is the
    slopes that are bounded:

    - :math:`e^{-2} \le s_k \le e^{2}`, since the heights start from the widths;
    - :math:`d_k` is within a factor e of the harmonic mean of the :math:`s` on its two sides, so
      at most 2e times either: with steeper ends a bin would be almost flat in between.

    So the curve's slope stays between :math:`e^{-3.5}` and :math:`e^{3}`: a layer multiplies errors by 33 at
    most. Zeros give equal bins with :math:`x_k = y_k` and :math:`d_k = 1`: the identity, to the last bit.

    Shapes: ``raw`` is ``(3K − 1, …)``, the numbers of one spline along dimension 0.

    Example:
        >>> import torch
        >>> knots = spline_knots(torch.zeros(5), box=3.0)
        >>> knots.x.tolist(), knots.y.tolist(), knots.d.tolist()
        ([-3.0, 0.0, 3.0], [-3.0, 0.0, 3.0], [1.0, 1.0, 1.0])
    """
    bins = (len(raw) + 1) // 3
    width_raw, slope_raw, knot_raw = raw.split([bins, bins, bins - 1])
    width = 2 * box * _LEAST_WIDTH / bins + 2 * box * (1 - _LEAST_WIDTH) * softmax(width_raw, 0)
    rise = torch.expm1(_tanh(slope_raw))  # s - 1 before the heights add up to 2B
    mean = (width * rise).sum(0) / (2 * box)
    tilt = (rise - mean) * (1 / (1 + mean))
    end, one = torch.full_like(mean[None], box), torch.ones_like(mean[None])
    x = torch.cat([-end, width[:-1].cumsum(0) - box, end])  # the last is B, not a sum near it
    lift = (width * tilt)[:-1].cumsum(0)
    y = torch.cat([-end, x[1:-1] + lift, end])
    flatness = 1 / (1 + tilt)
    d = torch.cat([one, 2 * torch.exp(_tanh(knot_raw)) / (flatness[1:] + flatness[:-1]), one])
    return Knots(x, y, d, width, tilt)


def rational_quadratic(z: Tensor, knots: Knots) -> tuple[Tensor, Tensor]:
    r"""Evaluate the spline through the knots, and the logarithm of its slope.

    In the bin of :math:`z`, with :math:`\xi = (z - x_k)/w_k`, :math:`s = h_k/w_k` and the slopes at its ends
    relative to its own, :math:`r_0 = d_k/s` and :math:`r_1 = d_{k+1}/s`,

    .. math::
        g(z) &= y_k + h_k\,\frac{\xi^2 + r_0\,\xi(1-\xi)}{1 + (r_0 + r_1 - 2)\,\xi(1-\xi)} \\
        g'(z) &= s\,\frac{r_1 \xi^2 + 2\,\xi(1-\xi) + r_0 (1-\xi)^2}
        {\bigl(1 + (r_0 + r_1 - 2)\,\xi(1-\xi)\bigr)^2}

    This is the paper's equation (4), divided through by :math:`s`. It is computed as :math:`z` plus a
    displacement, which is exactly 0 where the knots say identity, and outside the box.

    Shapes: ``z`` is ``(…)``, the knots ``(K + 1, …)``; both results are as ``z``.

    Example:
        >>> import torch
        >>> x, y, d = torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 0.5, 1.0], [1.0, 1.0, 1.0]])
        >>> knots = Knots.through(x, y, d)
        >>> rational_quadratic(torch.tensor(0.0), knots)
        (tensor(0.5000), tensor(0.))

    Reference: Durkan et al., *Neural Spline Flows*, NeurIPS 2019, arXiv:1906.04032.
    """
    inside, z_in = _into_box(z, knots.x)
    x_k, y_k, w, tilt, r_0, r_1 = _bin(z_in, knots.x, knots)
    xi = ((z_in - x_k) / w).clamp(0, 1)
    bend, log_slope = _bend_and_log_slope(xi, tilt, r_0, r_1)
    moved = (y_k - x_k) + w * (tilt * xi + (1 + tilt) * bend)
    return z + torch.where(inside, moved, 0), torch.where(inside, log_slope, 0)


def inverse_rational_quadratic(x: Tensor, knots: Knots) -> tuple[Tensor, Tensor]:
    r"""Solve :math:`g(z) = x` for the spline through the knots; the log-slope is that of :math:`g^{-1}`.

    With :math:`\eta = (x - y_k)/h_k`, the position :math:`\xi` in the bin is the root of a quadratic:

    .. math::
        \frac{\xi}{1 - \xi} &= \frac{2\eta}{\sqrt{p^2 + 4\,\eta(1-\eta)} + p}
        = \frac{\sqrt{p^2 + 4\,\eta(1-\eta)} - p}{2(1-\eta)}, \\
        p &= r_0 (1-\eta) - r_1\,\eta

    The first form serves :math:`p > 0` and the second the rest, so nothing cancels; under the root
    stand two numbers that are never negative and never both 0, so gradients are finite everywhere.

    Shapes as in :func:`rational_quadratic`.

    Example:
        >>> import torch
        >>> x, y, d = torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 0.5, 1.0], [1.0, 1.0, 1.0]])
        >>> knots = Knots.through(x, y, d)
        >>> inverse_rational_quadratic(torch.tensor(0.5), knots)[0]
        tensor(0.)
    """
    inside, x_in = _into_box(x, knots.y)
    x_k, y_k, w, tilt, r_0, r_1 = _bin(x_in, knots.y, knots)
    eta = ((x_in - y_k) / (w * (1 + tilt))).clamp(0, 1)
    twice, rest = 2 * eta, 2 - 2 * eta
    p = (r_0 * rest - r_1 * twice) / 2
    t = p.abs() + torch.sqrt(p * p + twice * rest)
    part = torch.where(p > 0, twice, t)
    xi = part / (part + torch.where(p > 0, t, rest))
    bend, log_slope = _bend_and_log_slope(xi, tilt, r_0, r_1)
    moved = (y_k - x_k) + w * (tilt * eta + bend)
    return x - torch.where(inside, moved, 0), torch.where(inside, -log_slope, 0)


def _tanh(a: Tensor) -> Tensor:
    """The same function as torch.tanh, to the rounding of 1, in a fifth of its time."""
    return torch.rsub(torch.sigmoid(-2 * a), 1, alpha=2)


def _bend_and_log_slope(xi: Tensor, tilt: Tensor, r_0: Tensor, r_1: Tensor) -> tuple[Tensor, Tensor]:
    """How far the curve is above its chord at xi, in units of the bin's height, and log g'."""
    rest = 1 - xi
    both = xi * rest
    from_0, from_1 = (r_0 - 1) * rest, (r_1 - 1) * xi
    below = (r_0 + r_1 - 2) * both
    bend = both * (from_0 - from_1) / (1 + below)
    return bend, torch.log1p(tilt) + torch.log1p(from_0 * rest + from_1 * xi) - 2 * torch.log1p(below)


def _into_box(points: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Which points are inside, and all of them moved there, where gradients are safe."""
    low, high = edges[0].detach(), edges[-1].detach()  # what they move is not used
    return (points > low) & (points < high), points.clamp(low, high)


def _bin(points: Tensor, edges: Tensor, knots: Knots) -> tuple[Tensor, ...]:
    """The bin of each point between the edges: corner, width, tilt, and relative slopes at its ends."""
    k = (points >= edges[1:-1]).sum(0, keepdim=True)

    def at(values: Tensor, k: Tensor) -> Tensor:
        return values.expand(-1, *k.shape[1:]).gather(0, k)[0]

    x, y, width, tilt = (at(values, k) for values in (knots.x, knots.y, knots.width, knots.tilt))
    flatness = 1 / (1 + tilt)
    return x, y, width, tilt, at(knots.d, k) * flatness, at(knots.d, k + 1) * flatness


class SplineCoupling(_Coupling):
    r"""A coupling that moves each entry along a spline of its own.

    .. math::
        x_{\le r} &= z_{\le r}, \\
        x_i &= g\bigl(z_i;\ \text{knots}_i(z_{\le r})\bigr) \quad (i > r), \\
        \log|\det| &= \textstyle\sum_{i > r} \log g'(z_i)

    with :math:`g` of :func:`rational_quadratic` through the knots of
    :func:`spline_knots`. The box is mapped onto itself, so points inside meet
    the splines of all layers; outside all are the identity.

    In float32, with conditioner outputs of size 3, a layer gives its input back to better than 1e-4. A stack
    loses more, and not in the curves: the error of one layer enters the next conditioner. Four layers with
    all weights three times their usual size stretch distances 2,600 times on the way back. Rounding
    :math:`x` once to float32 then costs 2e-3, whatever inverts it; the whole round trip costs 5e-3.

    Shapes: points ``(B, d)`` or ``(B, C, H, W)``, log-dets ``(B,)``.

    Args:
        mask: bool tensor with the shape of one point, True where an entry stays.
        conditioner: sees what it sees in an :class:`~flowlib.layers.coupling.AffineCoupling`; returns
            3K − 1 numbers for each of the m entries that move, ``(B, (3 * K - 1) * m)``: the first for
            every entry, then the second, …
        bins: the number K of pieces of each spline.
        box: B, half the side of the box in which points move.

    Raises:
        TypeError: if the mask is not a bool tensor.
        ValueError: if the mask is all True or all False, a shape does not match, there are
            fewer than two bins, or ``box`` is not positive.

    Example:
        >>> import torch
        >>> from flowlib.layers.coupling import half_mask
        >>> from flowlib.nets import MLP
        >>> layer = SplineCoupling(half_mask(2, 1), MLP(1, 23), bins=8)
        >>> layer(torch.tensor([[1.0, 2.0]]))[0].tolist()  # a new layer is the identity
        [[1.0, 2.0]]

    Reference: Durkan et al., *Neural Spline Flows*, NeurIPS 2019, arXiv:1906.04032.
    """

    def __init__(
        self, mask: Tensor, conditioner: Callable[..., Tensor], bins: int = 8, box: float = 4.0
    ) -> None:
        super().__init__(mask, conditioner)
        self.outputs, self.box = _spline_outputs(bins, box), float(box)

    def generate(self, z: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        return rational_quadratic(z, self._knots(numbers))

    def normalise(self, x: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        return inverse_rational_quadratic(x, self._knots(numbers))

    def _knots(self, numbers: Tensor) -> Knots:
        return spline_knots(numbers.unflatten(1, (self.outputs, -1)).movedim(1, 0), self.box)


class SplineAutoregressive(Autoregressive):
    r"""An autoregressive layer that moves each entry along a spline of its own.

    .. math::
        x_i = g\bigl(z_i;\ \text{knots}_i(x_{<i})\bigr), \qquad
        \log|\det| = \sum_i \log g'\bigl(z_i;\ \text{knots}_i(x_{<i})\bigr)

    with :math:`g` of :func:`rational_quadratic`; which direction is one pass
    and which is d steps is said at :class:`~flowlib.layers.autoregressive.Autoregressive`.

    Shapes: points ``(B, d)``, ``context`` ``(B, context_features)``, log-dets ``(B,)``.

    Args:
        d: the number of entries of a point.
        hidden: widths of the hidden layers; see :class:`~flowlib.layers.autoregressive.MADE`.
        context_features: length of the context; 0 for none.
        order: the entries from first to last; 0, 1, …, d−1 if not given.
        bins: the number K of pieces of each spline.
        box: B, half the side of the box in which points move.

    Raises:
        ValueError: if there are fewer than two bins, ``box`` is not positive, a width is not a
            positive whole number, ``order`` does not hold each entry once, or the points are not
            ``(B, d)``.

    Example:
        >>> import torch
        >>> layer = SplineAutoregressive(2, bins=5)
        >>> layer(torch.tensor([[1.0, 2.0]]))[0].tolist()  # a new layer is the identity
        [[1.0, 2.0]]

    Reference: Durkan et al., *Neural Spline Flows*, NeurIPS 2019, arXiv:1906.04032.
    """

    def __init__(
        self,
        d: int,
        hidden: Sequence[int] = (64, 64),
        context_features: int = 0,
        order: Sequence[int] | Tensor | None = None,
        bins: int = 8,
        box: float = 4.0,
    ) -> None:
        super().__init__(MADE(d, _spline_outputs(bins, box), hidden, context_features, order))
        self.box = float(box)

    def generate(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return rational_quadratic(z, spline_knots(raw.movedim(-1, 0).contiguous(), self.box))

    def normalise(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        return inverse_rational_quadratic(x, spline_knots(raw.movedim(-1, 0).contiguous(), self.box))


def _spline_outputs(bins: int, box: float) -> int:
    """The numbers that place the knots of one spline: K widths, K slopes, K - 1 derivatives."""
    if not isinstance(bins, int) or bins < 2:
        raise ValueError(f"bins must be a whole number, 2 or more, and came as {bins!r}.")
    if not 0 < box < float("inf"):
        raise ValueError(f"box must be a positive finite number and came as {box}.")
    return 3 * bins - 1


__all__ = [
    "Knots",
    "SplineAutoregressive",
    "SplineCoupling",
    "inverse_rational_quadratic",
    "rational_quadratic",
    "spline_knots",
]
