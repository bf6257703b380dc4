r"""Radial flows: space stretches or shrinks around one point."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from flowlib.bijection import Bijection, check_event
from flowlib.nets import _zero

_FLOOR = 1e-3  # the least alpha and the least alpha + beta, so that no determinant rounds to 0


class Radial(Bijection):
    r"""The radial layer around a centre :math:`z_0`, invertible whatever its parameters are.

    .. math::
        \text{forward:}\quad & x = z + \beta\,h(r)\,(z - z_0), \quad r = \lVert z - z_0 \rVert,
        \quad h(r) = \frac{1}{\alpha + r}
        \\
        & \log|\det| = (d-1) \log\bigl(1 + \beta h(r)\bigr)
        + \log\Bigl(1 + \frac{\alpha\beta}{(\alpha + r)^2}\Bigr)
        \\
        \text{inverse:}\quad & r^2 + (\gamma - \rho)\,r - \alpha\rho = 0,
        \quad \rho = \lVert x - z_0 \rVert, \quad \gamma = \alpha + \beta,
        \quad z = z_0 + \frac{r + \alpha}{r + \gamma}\,(x - z_0)

    The paper writes the last factor as :math:`1 + \beta h + \beta h'(r)\,r` with
    :math:`h' = -h^2`; that is :math:`1 + \alpha\beta h^2`. The layer needs
    :math:`\alpha > 0` and :math:`\gamma > 0`; both are a softplus plus 0.001. With them

    .. math::
        1 + \beta h = \frac{r + \gamma}{r + \alpha}, \qquad
        1 + \alpha\beta h^2 = \frac{\alpha\,(1 + \beta h) + r}{r + \alpha}

    hold sums of positive numbers only, so nothing cancels as :math:`\beta \to -\alpha`, and no squares, so
    nothing overflows far away.

    Shapes: ``z`` and ``x`` are ``(B, d)``, log-determinants ``(B,)``, ``context``
    ``(B, context_features)``. A context adds a linear function of it, zero at first, to the
    centre and to the raw :math:`\alpha, \gamma` of each row.

    Example:
        >>> import torch
        >>> layer = Radial(2)
        >>> z = torch.randn(5, 2)
        >>> x, log_det = layer(z)
        >>> bool((layer.inverse(x)[0] - z).abs().max() < 1e-4)
        True

    Reference: Rezende and Mohamed, *Variational Inference with Normalizing Flows*, ICML 2015.
    """

    def __init__(self, d: int, context_features: int = 0) -> None:
        super().__init__()
        one = math.log(math.expm1(1 - _FLOOR))  # the raw value that stands for 1
        self.z0 = nn.Parameter(0.5 * torch.randn(d))
        self.alpha_raw = nn.Parameter(torch.full((), one))
        self.gamma_raw = nn.Parameter(one + 0.1 * torch.randn(()))  # beta near 0, yet not 0
        self.context = _zero(nn.Linear(context_features, d + 2)) if context_features else None

    @property
    def alpha(self) -> Tensor:
        r"""The radius :math:`\alpha` within which the layer acts."""
        return self.effective()[1]

    @property
    def beta(self) -> Tensor:
        r"""The strength :math:`\beta > -\alpha`: positive pushes away from the centre."""
        return self.effective()[2] - self.alpha

    def effective(self, context: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        r"""Return :math:`z_0, \alpha, \gamma = \alpha + \beta`, one row each with a context."""
        z0, alpha_raw, gamma_raw = self.z0, self.alpha_raw, self.gamma_raw
        if self.context is not None:
            row = self.context(context)
            z0, alpha_raw, gamma_raw = z0 + row[:, :-2], alpha_raw + row[:, -2], gamma_raw + row[:, -1]
        return z0, _FLOOR + softplus(alpha_raw), _FLOOR + softplus(gamma_raw)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_event(z, self.z0.shape)
        z0, alpha, gamma = self.effective(context)
        stretch, log_det = self._stretch(_norm(z - z0), alpha, gamma)
        return z0 + stretch * (z - z0), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_event(x, self.z0.shape)
        z0, alpha, gamma = self.effective(context)
        rho = _norm(x - z0)
        unit = gamma + rho  # of all lengths, so that no square overflows
        p, product = (gamma - rho) / unit, (alpha / unit) * (rho / unit)
        q = (p.abs() + torch.sqrt(p * p + 4 * product)) / 2  # no cancellation, and never 0
        r = unit * torch.where(p > 0, product / q, q)
        stretch, log_det = self._stretch(r, alpha, gamma)
        return z0 + (x - z0) / stretch, -log_det

    def _stretch(self, r: Tensor, alpha: Tensor, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """The factor of each distance r from the centre, as a column, and the log-determinant."""
        across = (r + gamma) / (r + alpha)  # in d - 1 directions on the sphere
        along = (alpha * across + r) / (r + alpha)
        return across.unsqueeze(-1), (len(self.z0) - 1) * torch.log(across) + torch.log(along)


def _norm(v: Tensor) -> Tensor:
    """The length of each row: no square overflows, and at 0 the gradients of all orders are 0."""
    largest = v.detach().abs().amax(-1)
    away = largest > 0
    square = (v / torch.where(away, largest, 1.0).unsqueeze(-1)).square().sum(-1)
    return largest * torch.where(away, square, 1.0).sqrt()


__all__ = ["Radial"]
