r"""Coupling flows: move one part of a point by networks that see only the other part.

NICE (Dinh, Krueger and Bengio, 2015) adds; RealNVP (Dinh, Sohl-Dickstein and Bengio, 2017)
also scales. A mask says which part passes unchanged, so one class serves vectors and images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from flowlib.bijection import Bijection, sum_event


class _Coupling(Bijection):
    """What both couplings share: the mask, its checks and the call of the conditioner."""

    mask: Tensor
    complement: Tensor
    outputs = 1  # how many numbers the conditioner gives for each entry of a point

    def __init__(self, mask: Tensor, conditioner: Callable[..., Tensor]) -> None:
        super().__init__()
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            came = str(mask.dtype) if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(
                f"mask must be a bool tensor, True where an entry passes unchanged, and came as {came}; "
                "convert it: torch.as_tensor(mask, dtype=torch.bool)."
            )
        if mask.dim() == 0 or mask.all() or not mask.any():
            came = "a single value" if mask.dim() == 0 else f"all {bool(mask.all())}"
            raise ValueError(
                "mask must hold both True (entries that pass unchanged and feed the conditioner) and "
                f"False (entries that move), and came as {came}."
            )
        self.conditioner = conditioner
        # 0.0 and 1.0 instead of bool: one multiplication each, in the flow's dtype
        self.register_buffer("mask", mask.to(torch.get_default_dtype()))
        self.register_buffer("complement", (~mask).to(torch.get_default_dtype()))

    def _parameters_at(self, points: Tensor, context: Tensor | None) -> Tensor:
        """The conditioner's output, which depends on the entries under the mask alone."""
        event = points.shape[1:]
        if event != self.mask.shape and not _broadcasts(self.mask.shape, event):
            raise ValueError(
                f"The points have shape {tuple(points.shape)} and the mask {tuple(self.mask.shape)}; "
                "the mask must have the shape of one point (a size of 1 stands for any)."
            )
        raw = self.conditioner(points * self.mask, context)
        wanted = (points.shape[0], self.outputs * event[0], *event[1:])
        if raw.shape != wanted:
            raise ValueError(
                f"The conditioner returned shape {tuple(raw.shape)}; {type(self).__name__} needs {wanted}, "
                f"that is {self.outputs} for each entry of a point."
            )
        return raw


class AdditiveCoupling(_Coupling):
    r"""NICE's layer: with :math:`m` the mask and :math:`t` the conditioner,

    .. math::
        \text{forward:}\quad x = z + (1 - m) \odot t(m \odot z), \quad \log|\det| = 0
        \qquad
        \text{inverse:}\quad z = x - (1 - m) \odot t(m \odot x), \quad \log|\det| = 0

    On the slides the mask is :math:`z_{\le r}`: then :math:`x_{\le r} = z_{\le r}` and
    :math:`x_{>r} = z_{>r} + t(z_{\le r})`. Volumes are preserved.

    Shapes: points ``(B, *event)``, log-dets ``(B,)``.

    Args:
        mask: bool tensor with the shape of one point, True where an entry passes unchanged.
        conditioner: called as ``conditioner(mask * z, context)``; returns the shape of ``z``.

    Raises:
        TypeError: if the mask is not a bool tensor.
        ValueError: if the mask is all True or all False, or a shape does not match.

    Example:
        >>> import torch
        >>> layer = AdditiveCoupling(half_mask(2, 1), lambda z, context: 3 * z.flip(1))
        >>> layer(torch.tensor([[1.0, 1.0]]))
        (tensor([[1., 4.]]), tensor([0.]))

    Reference: Dinh, Krueger and Bengio, *NICE: Non-linear Independent Components
    Estimation*, arXiv:1410.8516.
    """

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift = self._parameters_at(z, context) * self.complement
        return z + shift, z.new_zeros(len(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift = self._parameters_at(x, context) * self.complement
        return x - shift, x.new_zeros(len(x))


class AffineCoupling(_Coupling):
    r"""RealNVP's layer: with :math:`m` the mask and :math:`s, t` the conditioner's two outputs,

    .. math::
        \text{forward:}\quad x = z \odot e^{(1 - m) \odot s(m \odot z)} + (1 - m) \odot t(m \odot z),
        \quad \log|\det| = \sum_i (1 - m_i)\, s_i(m \odot z)

    .. math::
        \text{inverse:}\quad z = \bigl(x - (1 - m) \odot t(m \odot x)\bigr)
        \odot e^{-(1 - m) \odot s(m \odot x)},
        \quad \log|\det| = -\sum_i (1 - m_i)\, s_i(m \odot x)

    Entries under the mask pass unchanged, so both directions see the same s and t and nothing
    inside the conditioner is ever inverted. The log-scale is bounded,
    :math:`s = \mathrm{bound} \cdot \tanh(\mathrm{raw} / \mathrm{bound})`: one layer stretches by at
    most :math:`e^{\mathrm{bound}}`, which keeps training stable.

    Shapes: points ``(B, *event)``, log-dets ``(B,)``.

    Args:
        mask: bool tensor with the shape of one point, True where an entry passes unchanged.
        conditioner: called as ``conditioner(mask * z, context)``; returns raw log-scales, then
            shifts, along dimension 1: ``(B, 2 * d)`` for vectors, ``(B, 2 * C, H, W)`` for images.
        bound: the largest absolute log-scale.

    Raises:
        TypeError: if the mask is not a bool tensor.
        ValueError: if the mask is all True or all False, a shape does not match, or ``bound``
            is not positive.

    Example:
        >>> import torch
        >>> from flowlib.nets import MLP
        >>> layer = AffineCoupling(half_mask(2, 1), MLP(2, 4))
        >>> layer(torch.tensor([[1.0, 2.0]]))[0]  # a new layer is the identity
        tensor([[1., 2.]], grad_fn=<AddcmulBackward0>)

    Reference: Dinh, Sohl-Dickstein and Bengio, *Density Estimation Using Real NVP*, ICLR 2017,
    arXiv:1605.08803.
    """

    outputs = 2

    def __init__(self, mask: Tensor, conditioner: Callable[..., Tensor], bound: float = 2.0) -> None:
        super().__init__(mask, conditioner)
        if not 0 < bound < float("inf"):
            raise ValueError(f"bound must be a positive finite number and came as {bound}.")
        self.bound = float(bound)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._scale_and_shift(z, context)
        return torch.addcmul(z * log_scale.exp(), shift, self.complement), sum_event(log_scale)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift = self._scale_and_shift(x, context)
        centred = torch.addcmul(x, shift, self.complement, value=-1)
        return centred * torch.exp(-log_scale), -sum_event(log_scale)

    def _scale_and_shift(self, points: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        """The log-scale s, 0 under the mask, and the shift t."""
        raw, shift = self._parameters_at(points, context).chunk(2, dim=1)
        # tanh(a) = 2 σ(2a) - 1, and torch's sigmoid takes a tenth of the time of its tanh
        log_scale = (torch.sigmoid(raw * (2 / self.bound)) - 0.5) * (2 * self.bound * self.complement)
        return log_scale, shift


class Permute(Bijection):
    r"""Reorder the entries of a vector, or the channels of an image, by a permutation π.

    .. math:: x_i = z_{\pi(i)}, \qquad z_{\pi(i)} = x_i, \qquad \log|\det| = 0 \text{ both ways}

    Shapes: points ``(B, d)`` or ``(B, C, H, W)``, log-dets ``(B,)``.

    Args:
        permutation: the indices π(0), π(1), …, each of 0 … d−1 once.

    Raises:
        ValueError: if ``permutation`` is none, or the points have another number of entries.

    Example:
        >>> import torch
        >>> Permute([2, 0, 1])(torch.tensor([[10.0, 20.0, 30.0]]))[0]
        tensor([[30., 10., 20.]])
    """

    permutation: Tensor
    inverse_permutation: Tensor

    def __init__(self, permutation: Sequence[int] | Tensor) -> None:
        super().__init__()
        indices = torch.as_tensor(permutation)
        whole = indices.dim() == 1 and not indices.is_floating_point() and indices.dtype != torch.bool
        if not whole or not torch.equal(indices.sort().values.cpu(), torch.arange(len(indices))):
            raise ValueError(
                "permutation must hold each of 0, 1, …, d-1 exactly once, such as [1, 0], and came as "
                f"{indices.tolist()}."
            )
        self.register_buffer("permutation", indices.long())
        self.register_buffer("inverse_permutation", indices.argsort())

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._reorder(z, self.permutation), z.new_zeros(len(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._reorder(x, self.inverse_permutation), x.new_zeros(len(x))

    def _reorder(self, points: Tensor, order: Tensor) -> Tensor:
        if points.shape[1] != len(order):
            raise ValueError(
                f"The points have {points.shape[1]} entries in dimension 1 (shape {tuple(points.shape)}) and "
                f"the permutation {len(order)}; the two must agree."
            )
        return points.index_select(1, order)


class Scale(Bijection):
    r"""NICE's last layer: every entry has its own learned scale.

    .. math::
        \text{forward:}\quad x = z \odot e^{s}, \quad \log|\det| = \sum_i s_i
        \qquad
        \text{inverse:}\quad z = x \odot e^{-s}, \quad \log|\det| = -\sum_i s_i

    Couplings that only add preserve volume; this layer is what lets such a flow change it.

    Shapes: points ``(B, *event_shape)``, log-dets ``(B,)``.

    Args:
        event_shape: the shape of one point; an int ``d`` means ``(d,)``.

    Example:
        >>> import torch
        >>> layer = Scale(2)
        >>> _ = torch.nn.init.constant_(layer.log_scale, 1.0)
        >>> layer(torch.ones(1, 2))[1]
        tensor([2.], grad_fn=<ExpandBackward0>)

    Reference: Dinh, Krueger and Bengio, *NICE*, section 3.3, arXiv:1410.8516.
    """

    def __init__(self, event_shape: int | Sequence[int]) -> None:
        super().__init__()
        shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z * self.log_scale.exp(), self.log_scale.sum().expand(len(z))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x * torch.exp(-self.log_scale), -self.log_scale.sum().expand(len(x))


def half_mask(d: int, r: int) -> Tensor:
    r"""The slides' mask: True for :math:`z_{\le r}`, the first ``r`` of ``d`` entries.

    Example:
        >>> half_mask(4, 1)
        tensor([ True, False, False, False])
    """
    if not 0 < r < d:
        raise ValueError(f"r must leave an entry on each side, 1 ≤ r ≤ d - 1; it came as r={r} with d={d}.")
    return torch.arange(d) < r


def alternating_mask(d: int, parity: int = 0) -> Tensor:
    """True for every second entry, from entry ``parity`` on; parity 1 is the complement of 0.

    Example:
        >>> alternating_mask(4, 1)
        tensor([False,  True, False,  True])
    """
    _check_parity(parity)
    if d < 2:
        raise ValueError(f"A mask needs at least two entries, one to stay and one to move; d came as {d}.")
    return torch.arange(d) % 2 == parity


def checkerboard_mask(shape: Sequence[int], parity: int = 0) -> Tensor:
    """True where row + column has the given parity, shape ``(C, H, W)``; 1 is the complement of 0.

    Example:
        >>> checkerboard_mask((1, 2, 3)).int()
        tensor([[[1, 0, 1],
                 [0, 1, 0]]], dtype=torch.int32)
    """
    _check_parity(parity)
    channels, height, width = _image_shape(shape)
    if height * width < 2:
        raise ValueError(f"A checkerboard needs at least two pixels; shape came as {tuple(shape)}.")
    board = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == parity
    return board.expand(channels, height, width).clone()


def channel_mask(shape: Sequence[int], parity: int = 0) -> Tensor:
    """True for the first half of the channels, shape ``(C, H, W)``; parity 1 is the complement.

    Example:
        >>> channel_mask((3, 1, 1)).flatten()
        tensor([ True, False, False])
    """
    _check_parity(parity)
    channels, height, width = _image_shape(shape)
    if channels < 2:
        raise ValueError(f"A channel mask needs at least two channels; shape came as {tuple(shape)}.")
    first = torch.arange(channels) < channels // 2
    half = first if parity == 0 else ~first
    return half[:, None, None].expand(channels, height, width).clone()


def _broadcasts(mask: Sequence[int], event: Sequence[int]) -> bool:
    return len(mask) == len(event) and all(m in (1, n) for m, n in zip(mask, event, strict=True))


def _check_parity(parity: int) -> None:
    if parity not in (0, 1):
        raise ValueError(f"parity must be 0 or 1 and came as {parity!r}.")


def _image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ValueError(f"shape must be (channels, height, width) and came as {tuple(shape)}.")
    channels, height, width = shape
    return channels, height, width


__all__ = [
    "AdditiveCoupling",
    "AffineCoupling",
    "Permute",
    "Scale",
    "alternating_mask",
    "channel_mask",
    "checkerboard_mask",
    "half_mask",
]
