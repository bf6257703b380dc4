r"""Velocity fields for continuous flows, with the trace of their Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from flowlib.nets import MLP


class Velocity(nn.Module):
    r"""The velocity :math:`v(z, t, \mathrm{context})` as a multilayer perceptron that sees the time.

    .. math::
        a_1 = \tanh(W_1 [z, t, \mathrm{context}] + b_1), \quad a_{k+1} = \tanh(W_{k+1} a_k + b_{k+1}), \quad
        v = W_{K+1} a_K + b_{K+1}

    It ends in a layer of zeros, so that a new flow is the identity. With tanh it is bounded: no point
    runs away, and distant points all but keep their volume.

    Shapes: points ``(B, d)``, velocities ``(B, d)``; the time is a number.

    Args:
        d: the dimension.
        hidden: widths of the hidden layers; with two of them the trace costs least.
        context_features: length of the context; 0 for none.

    Example:
        >>> import torch
        >>> Velocity(2, hidden=(16,))(torch.ones(5, 2), 0.5).shape
        torch.Size([5, 2])
    """

    def __init__(self, d: int, hidden: Sequence[int] = (64, 64), context_features: int = 0) -> None:
        super().__init__()
        self.net = MLP(d + 1, d, hidden, context_features, nn.Tanh)
        self.d, self.context_features = d, context_features

    def forward(self, z: Tensor, t: float | Tensor, context: Tensor | None = None) -> Tensor:
        time = torch.as_tensor(t, dtype=z.dtype, device=z.device).expand(len(z), 1)
        return self.net(torch.cat([z, time], 1), context)

    def with_trace(
        self, context: Tensor | None = None
    ) -> Callable[[Tensor, float | Tensor], tuple[Tensor, Tensor]]:
        r"""Return the function from :math:`(z, t)` to the velocity and the trace of its Jacobian.

        With two hidden layers, :math:`D_k = \operatorname{diag}(1 - a_k^2)` and :math:`W_z` the columns of
        :math:`W_1` that z meets,

        .. math::
            \operatorname{tr} \frac{\partial v}{\partial z}
            = \operatorname{tr}(W_3 D_2 W_2 D_1 W_z)
            = \sum_{j, k} (1 - a_{2j}^2)\, M_{jk}\, (1 - a_{1k}^2), \qquad M = W_2 \odot (W_z W_3)^\top

        since a trace is the sum of :math:`(D_2 W_2 D_1)_{jk} (W_z W_3)_{kj}`. M is the same along a whole
        path, so the exact trace costs one product of the size of :math:`W_2` for each point, whatever d is.
        With any other number of hidden layers it is :func:`exact_trace`. The closed form computes in
        the parameters' own precision, whatever ``net.autocast_dtype`` says.

        Shapes: velocities ``(B, d)``, traces ``(B,)``.

        Example:
            >>> import torch
            >>> v, trace = Velocity(2).with_trace()(torch.ones(5, 2), 0.5)
            >>> v.shape, trace.shape
            (torch.Size([5, 2]), torch.Size([5]))
        """
        linear = [layer for layer in self.net.layers if isinstance(layer, nn.Linear)]
        if len(linear) != 3:
            return lambda z, t: exact_trace(lambda z: self(z, t, context), z)
        first, second, third = linear
        by_z, by_t, by_context = first.weight.split([self.d, 1, self.context_features], 1)
        start: Tensor = first.bias
        if self.context_features:
            start = torch.addmm(start, context, by_context.T)  # type: ignore[arg-type]
        m = second.weight * (by_z @ third.weight).T

        def velocity_and_trace(z: Tensor, t: float | Tensor) -> tuple[Tensor, Tensor]:
            a_1 = torch.tanh(torch.addmm(start + t * by_t[:, 0], z, by_z.T))
            a_2 = torch.tanh(second(a_1))
            trace = ((1 - a_1 * a_1) @ m.T * (1 - a_2 * a_2)).sum(1)
            return third(a_2), trace

        return velocity_and_trace


def exact_trace(field: Callable[[Tensor], Tensor], z: Tensor) -> tuple[Tensor, Tensor]:
    r"""The value of any field and the exact trace of its Jacobian, by d directional derivatives.

    .. math::
        \operatorname{tr} \frac{\partial v}{\partial z}
        = \sum_{i=1}^{d} e_i^\top \frac{\partial v}{\partial z}\,e_i

    Forward-mode automatic differentiation along each unit vector :math:`e_i`, all at once.

    Shapes: ``z`` and the field ``(B, *event)``, traces ``(B,)``; each row of the field may depend on that
    row of ``z`` alone.

    Example:
        >>> import torch
        >>> exact_trace(lambda z: z**2, torch.tensor([[1.0, 2.0]]))[1]
        tensor([6.])
    """
    event = z.shape[1:]
    basis = torch.eye(event.numel(), dtype=z.dtype, device=z.device).reshape(-1, 1, *event)

    def along(direction: Tensor) -> tuple[Tensor, Tensor]:
        value, derivative = torch.func.jvp(field, (z,), (direction.expand_as(z),))  # type: ignore[misc]
        return value, derivative

    value, derivatives = torch.func.vmap(along, out_dims=(None, 0))(basis)  # type: ignore[arg-type]
    return value, (basis * derivatives).flatten(2).sum((0, 2))


__all__ = ["Velocity", "exact_trace"]
