r"""The one equation a planar layer has to solve to be inverted, with its derivatives."""

from __future__ import annotations

import torch
from torch import Tensor

_STEPS = 32  # 16 are the most that m up to 1e6 was seen to take
_COMPILED_STEPS = 20  # a compiled graph holds each of them, and makes all of them


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

    A monotone bounded sequence converges, and Newton's only fixed point is the root. Gradients
    of every order come from differentiating the equation, not the iterations:
    :math:`\partial s/\partial y = 1/g'(s)`, :math:`\partial s/\partial m = -\tanh(s)/g'(s)`.

    Shapes: ``y`` and ``m`` broadcast; the root has their common shape. NaN gives NaN.

    Raises:
        ValueError: if some ``m`` is -1 or less: the root need not be unique.
        RuntimeError: if an equation is not solved to rounding. Under ``torch.compile``, where
            values cannot be looked at, that root is NaN instead.

    Example:
        >>> import torch
        >>> s = solve_planar(torch.tensor([0.0, 4.0]), torch.tensor(3.0))
        >>> s + 3 * torch.tanh(s)
        tensor([0., 4.])
    """
    root = _Root if torch.compiler.is_compiling() else _RootBothModes
    return root.apply(*torch.broadcast_tensors(y, m))


class _Root(torch.autograd.Function):
    """The root as one differentiable operation; its derivatives are torch operations again."""

    @staticmethod
    def forward(y: Tensor, m: Tensor) -> Tensor:
        looking = not torch.compiler.is_compiling()
        if looking and bool((m <= -1).any()):
            raise ValueError(
                f"m must be greater than -1 for a unique root; the smallest is {float(m.min()):.6g}."
            )
        target = y.abs()
        bounds = target - m, target / (1 + m)
        s = torch.where(m > 0, torch.maximum(*bounds), torch.minimum(*bounds))
        rounding, steepest = 4 * torch.finfo(s.dtype).eps, 1 + m
        for _ in range(_STEPS if looking else _COMPILED_STEPS):
            t = torch.tanh(s)
            bend = m * t
            residual = s + bend - target
            s = s - residual / (steepest - bend * t)
            # "not above" lets NaN pass: it is handed on, not searched for
            failed = residual.abs() > rounding * (s + target)
            if looking and not bool(failed.any()):
                break
        if looking and bool(failed.any()):
            raise RuntimeError(
                f"The scalar root s + m tanh(s) = y was not found in {_STEPS} steps for "
                f"{int(failed.sum())} of {failed.numel()} points; |m| is up to {float(m.abs().max()):.3g}, "
                f"|y| up to {float(target.max()):.3g}. Use float64 or smaller parameters."
            )
        return torch.copysign(torch.where(failed, torch.nan, s), y)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(inputs[1], output)
        ctx.save_for_forward(inputs[1], output)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        m, s = ctx.saved_tensors
        grad_y = grad / (1 + m * tanh_slope(s))
        return grad_y, -grad_y * torch.tanh(s)

    @staticmethod
    def vmap(info, in_dims, y: Tensor, m: Tensor) -> tuple[Tensor, int]:
        y, m = (t if dim is None else t.movedim(dim, 0) for t, dim in zip((y, m), in_dims, strict=True))
        return solve_planar(y, m), 0


class _RootBothModes(_Root):
    """The root with forward-mode derivatives too, a method that torch.compile does not take."""

    @staticmethod
    def jvp(ctx, y_tangent: Tensor, m_tangent: Tensor) -> Tensor:
        m, s = ctx.saved_tensors
        return (y_tangent - torch.tanh(s) * m_tangent) / (1 + m * tanh_slope(s))


__all__ = ["solve_planar", "tanh_slope"]
