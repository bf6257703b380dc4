r"""The linear flow :math:`x = Lz + b` with a triangular Jacobian: a Gaussian with any covariance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowlib.bijection import Bijection
from flowlib.nets import _zero


class Triangular(Bijection):
    r"""The map :math:`x = Lz + b` with ``L`` lower triangular and a positive diagonal.

    .. math::
        \text{forward:}\quad & x = Lz + b, \quad
        \log|\det L| = \textstyle\sum_i \log L_{ii} \\
        \text{inverse:}\quad & z = L^{-1}(x - b), \quad
        -\textstyle\sum_i \log L_{ii}

    On a standard normal base the density is :math:`\mathcal N(b, LL^\top)`: by Cholesky, every
    Gaussian. The determinant costs O(d) and the inverse, by substitution, O(d²). The diagonal is
    :math:`L_{ii} = e^{l_i}`, so ``L`` is invertible whatever the parameters; they start at
    ``L = I``, ``b = 0``.

    Args:
        d: the dimension; points have shape ``(B, d)``.
        context_features: length of a context vector that shifts ``b`` linearly; 0 for none.

    Raises:
        ValueError: if ``d`` is not a positive whole number.

    Example:
        >>> import torch
        >>> layer = Triangular(2)
        >>> x, log_det = layer(torch.ones(1, 2))
        >>> x.tolist(), log_det.tolist()
        ([[1.0, 1.0]], [0.0])

    Reference: Papamakarios et al., JMLR 2021, section 3.1 (linear autoregressive flows).
    """

    def __init__(self, d: int, context_features: int = 0) -> None:
        super().__init__()
        if not isinstance(d, int) or d < 1:
            raise ValueError(f"d must be a positive whole number of dimensions and came as {d!r}.")
        self.lower = nn.Parameter(torch.zeros(d, d))
        self.log_diagonal = nn.Parameter(torch.zeros(d))
        self.b = nn.Parameter(torch.zeros(d))
        self.to_shift = _zero(nn.Linear(context_features, d, bias=False)) if context_features else None

    @property
    def L(self) -> Tensor:
        """The matrix, made of the strictly lower part of ``lower`` and of ``exp(log_diagonal)``."""
        return self.lower.tril(-1) + torch.diag(self.log_diagonal.exp())

    def _shift(self, context: Tensor | None) -> Tensor:
        return self.b if self.to_shift is None else self.b + self.to_shift(context)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = z @ self.L.T + self._shift(context)
        return x, self.log_diagonal.sum().expand(z.shape[0])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        centred = (x - self._shift(context)).T
        z = torch.linalg.solve_triangular(self.L, centred, upper=False).T
        return z, -self.log_diagonal.sum().expand(x.shape[0])


__all__ = ["Triangular"]
