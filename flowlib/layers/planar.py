r"""Planar flows: one ridge function bends space along one direction.

The map moves every point along :math:`u` by an amount that depends on :math:`w \cdot z`
alone. So its determinant and its inverse are questions about one number, not about d.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flowlib.bijection import Bijection, Compose, check_event, values_can_be_read
from flowlib.nets import _zero

_STEPS = 20  # 16 are the most that m up to 1e6 was seen to take; a compiled graph makes all of them


def tanh_slope(s: Tensor) -> Tensor:
    r"""Return :math:`\tanh'(s) = 1 - \tanh^2 s = 4\,\sigma(2s)\,\sigma(-2s)`, exact in both tails."""
    return 4 * torch.sigmoid(2 * s) * torch.sigmoid(-2 * s)


def solve_planar(y: Tensor, m: Tensor) -> Tensor:
    r"""Solve :math:`g(s) = s + m \tanh s = y` for :math:`s`, to machine precision.

    Newton's method with a start from which it cannot fail. For :math:`m > -1` the function
    :math:`g` is odd and increasing, so take :math:`y \ge 0` and look at :math:`s \ge 0`:

    - :math:`m \ge 0`: :math:`g` is concave there, and both :math:`y - m` and :math:`y/(1+m)` lie
      left of the root, since :math:`\tanh s \le 1` and :math:`\tanh s \le s`. A tangent of a concave
      function lies above it, so it crosses :math:`y` before the function does: the iterates rise
      and never pass the root.
    - :math:`-1 < m < 0`: :math:`g` is convex, the two bounds lie right of the root, and the iterates fall.

    A monotone bounded sequence converges, and Newton's only fixed point is the root.

    The search is not differentiated: at its end :math:`s` is a number that knows nothing of :math:`y` and
    :math:`m`. Two more steps of Newton's, which are, leave the value as it is and teach it the derivatives:
    the first step :math:`\partial s/\partial y = 1/g'(s)` and
    :math:`\partial s/\partial m = -\tanh(s)/g'(s)`, the second those up to the third order, since Newton's
    method squares what is left of an error.

    Shapes: ``y`` and ``m`` broadcast; the root has their common shape. NaN gives NaN.

    Raises:
        ValueError: if some ``m`` is -1 or less: the root need not be unique.
        RuntimeError: if an equation is not solved to rounding. Under ``torch.compile`` and in the
            transforms of ``torch.func``, where values cannot be looked at, that root is NaN instead.

    Example:
        >>> import torch
        >>> s = solve_planar(torch.tensor([0.0, 4.0]), torch.tensor(3.0))
        >>> s + 3 * torch.tanh(s)
        tensor([0., 4.])
    """
    s = _search(y.detach(), m.detach())
    for _ in range(2):
        s = s - (s + m * torch.tanh(s) - y) / (1 + m * tanh_slope(s))
    return s


@torch.no_grad()
def _search(y: Tensor, m: Tensor) -> Tensor:
    """The root's value, NaN where it was not found."""
    looking = values_can_be_read()
    if looking and bool((m <= -1).any()):
        raise ValueError(f"m must be greater than -1 for a unique root; the smallest is {m.min():.6g}.")
    target = y.abs()
    bounds = target - m, target / (1 + m)
    s = torch.where(m > 0, torch.maximum(*bounds), torch.minimum(*bounds))
    rounding = 4 * torch.finfo(s.dtype).eps
    for _ in range(_STEPS):
        t = torch.tanh(s)
        bend = m * t
        residual = s + bend - target
        s = s - residual / (1 + m - bend * t)
        # "not above" lets NaN pass: it is handed on, not searched for
        failed = residual.abs() > rounding * (s + target)
        if looking and not bool(failed.any()):
            break
    if looking and bool(failed.any()):
        raise RuntimeError(
            f"The root of s + m tanh(s) = y was not found for {failed.sum()} of {failed.numel()} points; |m| "
            f"is up to {m.abs().max():.3g}, |y| up to {target.max():.3g}. Use float64 or smaller parameters."
        )
    return torch.copysign(torch.where(failed, torch.nan, s), y)


MARGIN = 1e-3  # how far u·w stays above -1, so that rounding cannot cross it
_KEPT = -math.expm1(MARGIN - 1)  # 1 - exp(-(1 - MARGIN)); see _corrected


class Planar(Bijection):
    r"""The planar layer, invertible whatever its parameters are.

    .. math::
        \text{forward:}\quad & x = z + \hat u \tanh(s), \quad s = w \cdot z + b,
        & \log|\det| &= \log\bigl(1 + m \tanh'(s)\bigr)
        \\
        \text{inverse:}\quad & z = x - \hat u \tanh(s), \quad s + m \tanh(s) = w \cdot x + b,
        & \log|\det| &= -\log\bigl(1 + m \tanh'(s)\bigr)

    with :math:`m = \hat u \cdot w > -1`. The layer keeps a free vector :math:`u` and uses

    .. math::
        \hat u = u + \bigl(m(u \cdot w) - u \cdot w\bigr) \frac{w}{\lVert w \rVert^2},
        \qquad m(a) = \operatorname{softplus}(a + c) - \operatorname{softplus}(c)

    where :math:`\operatorname{softplus}(c) = 1 - 10^{-3}`. Because :math:`m(0) = 0`, the
    correction stays bounded as :math:`w \to 0`, where the map is a translation. Because
    :math:`0 \le \tanh' \le 1` and :math:`m > -1`, the determinant is positive: its logarithm
    needs no absolute value.

    Shapes: ``z`` and ``x`` are ``(B, d)``, log-determinants ``(B,)``, ``context``
    ``(B, context_features)``. A context adds a linear function of it, zero at first, to
    :math:`w, u, b` of each row.

    Raises:
        ValueError: if the points have another size.
        RuntimeError: from ``inverse``, if the scalar root was not found.

    Example:
        >>> import torch
        >>> layer = Planar.from_effective(w=[1.0, 0.0], u_hat=[3.0, 1.0], b=0.0)
        >>> x, log_det = layer(torch.zeros(1, 2))
        >>> log_det.exp().item()  # at s = 0 the volume grows by 1 + u·w
        4.0

    Reference: Rezende and Mohamed, *Variational Inference with Normalizing Flows*, ICML 2015.
    """

    def __init__(self, d: int, context_features: int = 0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(d) / math.sqrt(d))
        self.u = nn.Parameter(0.1 * torch.randn(d))  # near the identity, yet not at it
        self.b = nn.Parameter(torch.randn(()))  # bends in different places
        self.context = _zero(nn.Linear(context_features, 2 * d + 1)) if context_features else None

    @classmethod
    def from_effective(cls, w: Tensor | list, u_hat: Tensor | list, b: Tensor | float = 0.0) -> Planar:
        r"""Build the layer whose :math:`w`, :math:`\hat u` and :math:`b` are exactly these.

        Raises:
            ValueError: if :math:`\hat u \cdot w` is not above -0.999: no inverse exists.
        """
        w = 1.0 * torch.as_tensor(w)  # whole numbers too
        u_hat = torch.as_tensor(u_hat).to(w)
        m = (u_hat @ w).item()
        if not m > MARGIN - 1:
            raise ValueError(
                f"u_hat · w is {m:.6g}; to be invertible it must exceed {MARGIN - 1:g}: turn u_hat."
            )
        a = m + math.log1p((1 - _KEPT) / _KEPT * -math.expm1(-m))  # the inverse of m(a)
        u = u_hat + (a - m) * w / (w @ w).clamp_min(torch.finfo(w.dtype).tiny)
        layer = cls(len(w)).to(w)
        layer.load_state_dict({"w": w, "u": u, "b": torch.as_tensor(b, dtype=w.dtype)})
        return layer

    @property
    def u_hat(self) -> Tensor:
        r"""The effective vector :math:`\hat u` that the layer moves along."""
        return self.effective()[1]

    def effective(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""Return :math:`w, \hat u, b` and :math:`m = \hat u \cdot w`, one row each with a context."""
        w, u, b = self.w, self.u, self.b
        if self.context is not None:
            rows = self.context(context).split([len(w), len(w), 1], 1)
            w, u, b = w + rows[0], u + rows[1], b + rows[2].squeeze(1)
        u_hat, m = _corrected(w, u)
        return w, u_hat, b, m

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_event(z, self.w.shape)
        w, u_hat, b, m = self.effective(context)
        s = (z * w).sum(-1) + b
        return torch.addcmul(z, torch.tanh(s).unsqueeze(-1), u_hat), torch.log1p(m * tanh_slope(s))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_event(x, self.w.shape)
        w, u_hat, b, m = self.effective(context)
        s = solve_planar((x * w).sum(-1) + b, m)
        return torch.addcmul(x, torch.tanh(s).unsqueeze(-1), -u_hat), -torch.log1p(m * tanh_slope(s))


def _corrected(w: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    r"""The effective :math:`\hat u` and :math:`m`, of each row."""
    a = (w * u).sum(-1)
    # softplus(a + c) - softplus(c) = log(1 + k (exp(a) - 1)) with k = sigmoid(c): nothing cancels, so
    # m(a) is exact to rounding near 0 as well; above 40 it is a line, and exp(a) would overflow
    bent = a.clamp(max=40)
    m = torch.log1p(_KEPT * torch.expm1(bent)) + (a - bent)
    square = (w * w).sum(-1).clamp_min(torch.finfo(w.dtype).tiny)  # where w is 0, so is what it divides
    return torch.addcmul(u, ((m - a) / square).unsqueeze(-1), w), m


class PlanarStack(Compose):
    r"""K planar layers as one: what does not wait for the points is computed for all layers at once.

    .. math::
        u^0 = z, \quad s_k = w_k \cdot u^{k-1} + b_k, \quad u^k = u^{k-1} + \hat u_k \tanh(s_k), \quad
        x = u^K, \qquad \log|\det| = \sum_{k=1}^{K} \log\bigl(1 + m_k \tanh'(s_k)\bigr)

    The same map as ``Compose(layers)`` in a fifth of its time, most of which went into starting small
    operations. The parameters are :math:`w, u` of shape ``(K, d)`` and :math:`b` of shape ``(K,)``, so all
    :math:`\hat u_k` and :math:`m_k` take one formula, and so do all log-determinants, at the end.
    ``stack.layers``, iteration and ``Flow.trajectory`` see K layers, which are views of these parameters.

    Args:
        layers: planar layers without a context, in generative order; their parameters are copied.

    Raises:
        ValueError: if a layer takes a context: its vectors then differ from point to point.

    Example:
        >>> import torch
        >>> layers = [Planar(2) for _ in range(8)]
        >>> z, stack = torch.randn(5, 2), PlanarStack(layers)
        >>> torch.allclose(stack(z)[1], Compose(layers)(z)[1], atol=1e-5), len(stack)
        (True, 8)
    """

    def __init__(self, layers: Iterable[Planar]) -> None:
        Bijection.__init__(self)  # the layers are no modules of their own
        layers = list(layers)
        if any(layer.context is not None for layer in layers):
            raise ValueError("PlanarStack takes layers without a context; use Compose for those with one.")
        self.w = nn.Parameter(torch.stack([layer.w.detach() for layer in layers]))
        self.u = nn.Parameter(torch.stack([layer.u.detach() for layer in layers]))
        self.b = nn.Parameter(torch.stack([layer.b.detach() for layer in layers]))

    @property
    def layers(self) -> list[Planar]:  # type: ignore[override]
        """The layers, each a view of its row of the parameters."""
        return [_Row(*row) for row in zip(self.w, self.u, self.b, strict=True)]

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u_hat, m = _corrected(self.w, self.u)
        b = self.b[:, None].expand(-1, z.shape[0])
        bends = []
        for w_k, u_k, b_k in zip(self.w, u_hat, b, strict=True):
            s = torch.addmv(b_k, z, w_k)
            z = torch.addr(z, torch.tanh(s), u_k)
            bends.append(s)
        return z, torch.log1p(m[:, None] * tanh_slope(torch.stack(bends))).sum(0)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u_hat, m = _corrected(self.w, self.u)
        b = self.b[:, None].expand(-1, x.shape[0])
        bends = []
        for w_k, u_k, b_k, m_k in reversed(list(zip(self.w, u_hat, b, m, strict=True))):
            s = solve_planar(torch.addmv(b_k, x, w_k), m_k)
            x = torch.addr(x, torch.tanh(s), u_k, alpha=-1)
            bends.append(s)
        return x, -torch.log1p(m.flip(0)[:, None] * tanh_slope(torch.stack(bends))).sum(0)


class _Row(Planar):
    """One layer of a stack: its parameters are the stack's."""

    def __init__(self, w: Tensor, u: Tensor, b: Tensor) -> None:
        Bijection.__init__(self)
        self.w, self.u, self.b, self.context = w, u, b, None  # type: ignore[assignment]


@dataclass(frozen=True)
class FixedPointReport:
    r"""What :func:`fixed_point_inverse` did.

    Attributes:
        iterates: :math:`z^{(0)}, z^{(1)}, \dots`, shape ``(steps + 1, B, d)``.
        steps: how many iterations were made.
        converged: whether the last one moved no coordinate by more than ``tol``.
        contraction: :math:`|\hat u \cdot w| \max h'`, the bound on the rate; below 1 the
            iteration must converge, at 1 and above it need not.
    """

    iterates: Tensor
    steps: int
    converged: bool
    contraction: float

    @property
    def z(self) -> Tensor:
        """The last iterate, shape ``(B, d)``: the inverse only if ``converged``."""
        return self.iterates[-1]


@torch.no_grad()
def fixed_point_inverse(layer: Planar, x: Tensor, steps: int = 100, tol: float = 1e-12) -> FixedPointReport:
    r"""Invert a planar layer as the slides do, to see when that works.

    .. math:: z^{(0)} = x, \qquad z^{(l)} = x - \hat u \tanh\bigl(w \cdot z^{(l-1)} + b\bigr)

    Along :math:`w` this is :math:`s \mapsto y - m \tanh s`, a contraction if
    :math:`|m| = |\hat u \cdot w| < 1` (Banach), while the layer is invertible for all
    :math:`m > -1`. ``Planar.inverse`` is the inverse that always works.

    Example:
        >>> import torch
        >>> layer = Planar.from_effective([1.0, 0.0], [3.0, 0.0])
        >>> report = fixed_point_inverse(layer, torch.tensor([[0.1, 0.0]]), steps=500)
        >>> report.converged, report.contraction
        (False, 3.0)
    """
    w, u_hat, b, m = layer.effective()
    iterates, converged = [x], False
    while len(iterates) <= steps and not converged:
        s = iterates[-1] @ w + b
        iterates.append(x - torch.tanh(s).unsqueeze(-1) * u_hat)
        converged = bool(((iterates[-1] - iterates[-2]).abs() <= tol).all())
    return FixedPointReport(torch.stack(iterates), len(iterates) - 1, converged, abs(float(m)))


__all__ = ["FixedPointReport", "Planar", "PlanarStack", "fixed_point_inverse", "solve_planar", "tanh_slope"]
