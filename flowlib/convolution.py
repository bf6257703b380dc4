r"""Invertible 1×1 convolutions: one matrix mixes the channels at every pixel.

As in Glow's paper the matrix acts in the normalising direction, which here is ``inverse``: likelihood
training multiplies, and only sampling solves a linear system.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowlib.bijection import Bijection


class Convolution1x1(Bijection):
    r"""The invertible 1×1 convolution: one matrix :math:`W` mixes the channels at every pixel.

    .. math::
        \text{forward:}\quad & x_{ij} = W^{-1} z_{ij}, \quad \log|\det| = -h w \log|\det W| \\
        \text{inverse:}\quad & z_{ij} = W x_{ij}, \quad \log|\det| = h w \log|\det W|

    It generalises a permutation of the channels, and starts as a random rotation or reflection,
    uniform over all of them. :math:`W` is free, so the determinant costs O(C³), and gradient steps
    could make it singular; :class:`ConvolutionLU` rules that out.

    Shapes: points ``(B, C, *pixels)`` or ``(B, C)``, log-dets ``(B,)``.

    Args:
        channels: the number C of channels.

    Raises:
        RuntimeError: from ``forward``, if ``W`` is singular.

    Example:
        >>> import torch
        >>> layer = Convolution1x1(4).double()
        >>> bool(layer(torch.randn(5, 4, 2, 2).double())[1].abs().max() < 1e-6)  # |det W| = 1
        True

    Reference: Kingma and Dhariwal, *Glow*, section 3.2, arXiv:1807.03039.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_random_orthogonal(channels).to(torch.get_default_dtype()))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = -_pixels(z) * torch.linalg.slogdet(self.weight)[1]
        return _at_pixels(lambda c: torch.linalg.solve(self.weight, c), z), log_det.expand(len(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = _pixels(x) * torch.linalg.slogdet(self.weight)[1]
        return _mix(self.weight, x), log_det.expand(len(x))


class ConvolutionLU(Bijection):
    r"""The 1×1 convolution with :math:`W = P L U`, invertible whatever its parameters are.

    .. math::
        \text{forward:}\quad & x_{ij} = U^{-1} L^{-1} P^\top z_{ij}, \quad
        \log|\det| = \textstyle -h w \sum_c s_c \\
        \text{inverse:}\quad & z_{ij} = P L U x_{ij}, \quad \log|\det| = \textstyle h w \sum_c s_c

    with a fixed permutation :math:`P`, a lower triangle :math:`L` with ones on its diagonal, and an
    upper triangle :math:`U` with :math:`\pm e^{s_c}` on its, the signs fixed. The log-determinant
    costs O(C), and ``forward`` solves two triangular systems instead of inverting. The start is the
    factorisation of a random rotation or reflection.

    Shapes and arguments as for :class:`Convolution1x1`.

    Example:
        >>> import torch
        >>> layer = ConvolutionLU(4)
        >>> torch.nn.init.ones_(layer.log_diagonal).sum().item()
        4.0
        >>> layer.inverse(torch.zeros(1, 4, 3, 3))[1].item()  # nine pixels
        36.0

    Reference: Kingma and Dhariwal, *Glow*, section 3.2, arXiv:1807.03039.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        P, L, U = (t.to(torch.get_default_dtype()) for t in torch.linalg.lu(_random_orthogonal(channels)))
        self.register_buffer("permutation", P)
        self.register_buffer("sign", U.diagonal().sign())
        self.lower = nn.Parameter(L.tril(-1))
        self.upper = nn.Parameter(U.triu(1))
        self.log_diagonal = nn.Parameter(U.diagonal().abs().log())

    @property
    def L(self) -> Tensor:
        """The lower triangle, with ones on its diagonal."""
        return self.lower.tril(-1) + torch.eye(len(self.lower)).to(self.lower)

    @property
    def U(self) -> Tensor:
        r"""The upper triangle, with :math:`\pm e^{s_c}` on its diagonal."""
        return self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())

    @property
    def weight(self) -> Tensor:
        """The matrix :math:`W = P L U`."""
        return self.permutation @ self.L @ self.U

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        def solve(columns: Tensor) -> Tensor:
            columns = self.permutation.T @ columns
            columns = torch.linalg.solve_triangular(self.L, columns, upper=False, unitriangular=True)
            return torch.linalg.solve_triangular(self.U, columns, upper=True)

        return _at_pixels(solve, z), (-_pixels(z) * self.log_diagonal.sum()).expand(len(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _mix(self.weight, x), (_pixels(x) * self.log_diagonal.sum()).expand(len(x))


def _random_orthogonal(channels: int) -> Tensor:
    """Uniform over the orthogonal matrices; in float64, so that it is orthogonal to the last bit or so."""
    Q, R = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
    return Q * R.diagonal().sign()  # QR alone prefers some directions: its signs are a convention


def _pixels(points: Tensor) -> int:
    return points.shape[2:].numel()


def _mix(matrix: Tensor, points: Tensor) -> Tensor:
    """Multiply the channels at every pixel by a matrix."""
    if points.dim() == 4:
        return nn.functional.conv2d(points, matrix[:, :, None, None])
    return _at_pixels(lambda columns: matrix @ columns, points)


def _at_pixels(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """Apply a map of columns ``(C, N)`` to the channels at all pixels of all points."""
    channels_first = points.movedim(1, 0)
    columns = function(channels_first.reshape(len(channels_first), -1))
    return columns.reshape(channels_first.shape).movedim(0, 1)


__all__ = ["Convolution1x1", "ConvolutionLU"]
