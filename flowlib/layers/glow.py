r"""Glow's flow step: normalise each channel, mix the channels, move half of them by the other half.

The multi-scale stack of steps is in ``multiscale.py``. The paper writes the normalising direction, data
to latents, which here is ``inverse``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn

from flowlib.bijection import Bijection
from flowlib.layers.coupling import AffineCoupling, half_mask


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
        return _mix(torch.linalg.inv(self.weight), -torch.linalg.slogdet(self.weight)[1], z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _mix(self.weight, torch.linalg.slogdet(self.weight)[1], x)


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
        return self.lower.tril(-1) + torch.diag(torch.ones_like(self.sign))

    @property
    def U(self) -> Tensor:
        r"""The upper triangle, with :math:`\pm e^{s_c}` on its diagonal."""
        return self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())

    @property
    def weight(self) -> Tensor:
        """The matrix :math:`W = P L U`."""
        return self.permutation @ self.L @ self.U

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        half = torch.linalg.solve_triangular(self.L, self.permutation.T, upper=False, unitriangular=True)
        inverse = torch.linalg.solve_triangular(self.U, half, upper=True)
        return _mix(inverse, -self.log_diagonal.sum(), z)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return _mix(self.weight, self.log_diagonal.sum(), x)


def _random_orthogonal(channels: int) -> Tensor:
    """Uniform over the orthogonal matrices; in float64, so that it is orthogonal to the last bit or so."""
    Q, R = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))
    return Q * R.diagonal().sign()  # QR alone prefers some directions: its signs are a convention


def _mix(matrix: Tensor, log_det: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Multiply the channels at every pixel by a matrix of this log-determinant.

    As a product of matrices: the convolution of 1×1 that it is would pass the points through TF32, with ten
    bits of mantissa, which is how a GPU computes convolutions unless told otherwise.
    """
    columns = points.unsqueeze(-1).flatten(2)  # (B, C, pixels), also of vectors
    mixed = (matrix.expand(points.shape[0], -1, -1) @ columns).view(points.shape)
    return mixed, (columns.shape[2] * log_det).expand(points.shape[0])


class ActNorm(Bijection):
    r"""A scale and a shift for each channel, started so that the first batch comes out normalised.

    .. math::
        \text{forward:}\quad & x = \mu + e^{s} \odot z, \quad \log|\det| = \textstyle h w \sum_c s_c \\
        \text{inverse:}\quad & z = (x - \mu) \odot e^{-s}, \quad \log|\det| = \textstyle -h w \sum_c s_c

    The paper's scale is :math:`e^{-s}`, its bias :math:`-\mu e^{-s}`. A new layer is the identity.
    Its first call in train mode is the start: :math:`\mu` and :math:`s` become such that what this
    call returns has mean 0 and variance 1 in every channel; from then on they are parameters like
    any other. A channel that is constant in that batch, as every channel is for a single vector,
    keeps scale 1. With ``torch.distributed`` the moments are those of all ranks together, which must
    all make that call. An empty batch does not count, nor does a ``forward`` without gradients: so
    ``Flow.sample`` draws from the layer as it is. Saving and loading remember the start in the buffer
    ``started``; to load parameters that are no longer the identity's counts as the start too.

    Shapes: points ``(B, C, *pixels)`` or ``(B, d)``, log-dets ``(B,)``.

    Args:
        event_shape: a number of channels, for one scale each at whatever number of pixels; or the
            shape of one point, for one scale for each of its entries.

    Example:
        >>> import torch
        >>> layer = ActNorm(3)
        >>> z, _ = layer.inverse(7 + 5 * torch.randn(16, 3, 4, 4))
        >>> bool(z.mean((0, 2, 3)).abs().max() < 1e-5)
        True
        >>> bool((z.var((0, 2, 3)) - 1).abs().max() < 0.01)
        True

    Reference: Kingma and Dhariwal, *Glow: Generative Flow with Invertible 1×1 Convolutions*,
    NeurIPS 2018, section 3.1, arXiv:1807.03039.
    """

    started: Tensor

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(event_shape))
        self.log_scale = nn.Parameter(torch.zeros(event_shape))
        self.register_buffer("started", torch.tensor(False))
        self._waiting = True  # the same as a Python value: to look at a buffer would stall a GPU each time

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training and self._waiting and torch.is_grad_enabled():
            self._start(z, generating=True)
        shift, log_scale, pixels = self._for(z)
        return torch.addcmul(shift, z, log_scale.exp()), (pixels * log_scale.sum()).expand(z.shape[0])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if self.training and self._waiting:
            self._start(x, generating=False)
        shift, log_scale, pixels = self._for(x)
        return (x - shift) * torch.exp(-log_scale), (-pixels * log_scale.sum()).expand(x.shape[0])

    def _for(self, points: Tensor) -> tuple[Tensor, Tensor, int]:
        """Shift and log-scale in a shape that broadcasts, and how many entries share each of them."""
        own, event = self.shift.shape, points.shape[1:]
        shape = own + (1,) * (len(event) - len(own))
        return self.shift.view(shape), self.log_scale.view(shape), event.numel() // own.numel()

    @torch.no_grad()
    def _start(self, points: Tensor, generating: bool) -> None:
        count, mean, deviation = _moments(points.movedim(0, -1).reshape(*self.shift.shape, -1))
        if not count:
            return
        # what rounding alone leaves of a constant is no deviation
        noise = 32 * torch.finfo(points.dtype).eps * mean.abs()
        log_scale = torch.where(deviation > noise, deviation, 1.0).log()
        if generating:  # normalise x, not z
            mean, log_scale = -mean * torch.exp(-log_scale), -log_scale
        self.shift.copy_(mean)
        self.log_scale.copy_(log_scale)
        self.started.fill_(True)
        self._waiting = False

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        moved = self.started | self.shift.any() | self.log_scale.any()  # set by hand counts as started
        self._waiting = not bool(moved)


def _moments(rows: Tensor) -> tuple[int, Tensor, Tensor]:
    """Number, mean and standard deviation along the last dimension, over all ranks together."""
    count, together = rows.shape[-1], distributed.is_available() and distributed.is_initialized()

    def total(value: Tensor) -> Tensor:
        if together:
            distributed.all_reduce(value)
        return value

    if together:
        count = int(total(torch.tensor(count, device=rows.device)))
    mean = total(rows.sum(-1)) / max(count, 1)
    # around the mean, in a second pass: the difference of E[x²] and E[x]² would cancel
    variance = total((rows - mean.unsqueeze(-1)).square().sum(-1)) / max(count, 1)
    return count, mean, variance.sqrt()


class ChannelCoupling(AffineCoupling):
    r"""An affine coupling of channels: the first half stays, and moves the second.

    .. math::
        \text{forward:}\quad & x_a = z_a, \quad x_b = z_b \odot e^{s(z_a)} + t(z_a), \quad
        \log|\det| = \textstyle\sum s(z_a) \\
        \text{inverse:}\quad & z_a = x_a, \quad z_b = \bigl(x_b - t(x_a)\bigr) \odot e^{-s(x_a)}, \quad
        \log|\det| = -\textstyle\sum s(x_a)

    It is :class:`~flowlib.layers.coupling.AffineCoupling` with a mask of channels, for images of any size.

    Read with :math:`z_b = \varepsilon` it is Glow's learned split prior,
    :math:`x_b \sim \mathcal N\bigl(t(x_a), e^{2 s(x_a)}\bigr)`: what is factored out is normal, given
    what stays.

    Shapes: points ``(B, C, *pixels)`` or ``(B, d)``, log-dets ``(B,)``.

    Args:
        channels: the number C of channels, 2 or more; the first ⌊C/2⌋ stay.
        conditioner: called as ``conditioner(z_a, context)``; returns raw log-scales, then shifts,
            along dimension 1, one of each for every channel that moves.
        bound: the largest absolute log-scale.

    Raises:
        ValueError: if there are fewer than two channels, or ``bound`` is not positive.

    Example:
        >>> import torch
        >>> from flowlib.nets import ConvNet
        >>> x = torch.randn(2, 5, 4, 4)
        >>> torch.equal(ChannelCoupling(5, ConvNet(2, 6)).inverse(x)[0], x)  # a new layer is the identity
        True
    """

    def __init__(self, channels: int, conditioner: Callable[..., Tensor], bound: float = 2.0) -> None:
        super().__init__(half_mask(channels, channels // 2), conditioner, bound)


__all__ = ["ActNorm", "ChannelCoupling", "Convolution1x1", "ConvolutionLU"]
