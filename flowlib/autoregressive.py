r"""Autoregressive flows: every entry moves by a function of the entries before it.

MAF (Papamakarios, Pavlakou and Murray, 2017) knows the density in one pass and generates entry by
entry; IAF (Kingma et al., 2016) is its inverse and has it the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowlib.bijection import Bijection
from flowlib.made import MADE


class Autoregressive(Bijection):
    r"""A monotone function :math:`\tau` of one number, applied to each entry in turn.

    .. math::
        \text{forward:}\quad & x_i = \tau\bigl(z_i;\, h_i(x_{<i})\bigr), \quad
        \log|\det| = \sum_i \log \tau'\bigl(z_i;\, h_i(x_{<i})\bigr) \\
        \text{inverse:}\quad & z_i = \tau^{-1}\bigl(x_i;\, h_i(x_{<i})\bigr), \quad
        \log|\det| = -\sum_i \log \tau'\bigl(z_i;\, h_i(x_{<i})\bigr)

    The network :math:`h` is a :class:`~flowlib.made.MADE`. The Jacobian is triangular, whatever
    :math:`h` is. For the inverse all :math:`x_{<i}` are known: one pass gives all entries. The forward
    direction has to generate :math:`x_1` before :math:`x_2`; it takes d steps that together
    do the matrix products of one pass, see :meth:`~flowlib.made.MADE.solve`.

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
        self._check(z)
        return self.made.solve(self.generate, z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        self._check(x)
        z, log_slopes = self.normalise(x, self.made(x, context))
        return z, log_slopes.sum(1)

    def _check(self, points: Tensor) -> None:
        if points.dim() != 2 or points.shape[1] != self.made.d:
            raise ValueError(
                f"The points have shape {tuple(points.shape)}; {type(self).__name__} takes "
                f"(batch, {self.made.d}), as it was built."
            )


class AffineAutoregressive(Autoregressive):
    r"""MAF's layer: each entry is shifted and scaled by functions of the entries before it.

    .. math::
        \text{forward:}\quad & x_i = z_i\, e^{\alpha_i(x_{<i})} + \mu_i(x_{<i}), \quad
        \log|\det| = \sum_i \alpha_i(x_{<i}) \\
        \text{inverse:}\quad & z_i = \bigl(x_i - \mu_i(x_{<i})\bigr)\, e^{-\alpha_i(x_{<i})}, \quad
        \log|\det| = -\sum_i \alpha_i(x_{<i})

    The log-scale is bounded as in :class:`~flowlib.coupling.AffineCoupling`,
    :math:`\alpha = \mathrm{bound} \cdot \tanh(\mathrm{raw} / \mathrm{bound})`. IAF is
    ``Inverse(AffineAutoregressive(d))``: it generates in one pass, which is what variational inference
    asks of it, and knows the density of its own samples without a second one.

    Shapes: points ``(B, d)``, ``context`` ``(B, context_features)``, log-dets ``(B,)``.

    Args:
        d: the number of entries of a point.
        hidden: widths of the hidden layers; see :class:`~flowlib.made.MADE`.
        context_features: length of the context; 0 for none.
        order: the entries from first to last; 0, 1, …, d−1 if not given.
        bound: the largest absolute log-scale.

    Raises:
        ValueError: if ``bound`` is not positive, a width is not a positive whole number, ``order``
            does not hold each entry once, or the points are not ``(B, d)``.

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
        if not 0 < bound < float("inf"):
            raise ValueError(f"bound must be a positive finite number and came as {bound}.")
        self.bound = float(bound)

    def generate(self, z: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._scale_and_shift(raw)
        return torch.addcmul(shift, z, log_scale.exp()), log_scale

    def normalise(self, x: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._scale_and_shift(raw)
        return (x - shift) * torch.exp(-log_scale), -log_scale

    def _scale_and_shift(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        log_scale, shift = raw.movedim(-1, 0)
        # as in AffineCoupling: tanh(a) = 2 σ(2a) - 1
        return (torch.sigmoid(log_scale * (2 / self.bound)) - 0.5) * (2 * self.bound), shift


__all__ = ["AffineAutoregressive", "Autoregressive"]
