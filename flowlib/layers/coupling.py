r"""Coupling flows: move one part of a point by a network that sees only the other part.

NICE (Dinh, Krueger and Bengio, 2015) adds; RealNVP (Dinh, Sohl-Dickstein and Bengio, 2017)
also scales. A mask says which part stays, so one class serves vectors and images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from flowlib.bijection import Bijection, check_event, sum_event


class _Coupling(Bijection):
    r"""What all couplings share: a network sees the entries that stay and serves those that move.

    A mask of a vector's entries, or of channels, splits points along dimension 1: the network sees
    :math:`z_{\le r}` alone and serves :math:`z_{>r}` alone. A mask of pixels, such as a checkerboard, cannot:
    there the network sees the whole image, :math:`m \odot z`, and where the mask is True its numbers
    become zeros, which move nothing.

    A subclass says how many numbers it takes for each entry that moves, ``outputs``, and how they move it.
    """

    mask: Tensor
    kept: Tensor
    moved: Tensor
    outputs = 1

    def __init__(self, mask: Tensor, conditioner: Callable[..., Tensor]) -> None:
        super().__init__()
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            raise TypeError(f"mask must be a bool tensor, True where an entry stays, and came as {mask!r}.")
        if mask.dim() == 0 or mask.all() or not mask.any():
            raise ValueError(f"mask must hold True (stays) and False (moves), and came as {mask!r}.")
        self.conditioner = conditioner
        # 0.0 and 1.0 instead of bool: one multiplication, in the flow's dtype
        self.register_buffer("mask", mask.to(torch.get_default_dtype()))
        self._read_mask()

    def generate(self, z: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Move entries ``(B, m, …)`` by numbers ``(B, outputs * m, …)``; with the logarithms of slopes."""
        raise NotImplementedError(f"{type(self).__name__} has no generate(z, numbers).")

    def normalise(self, x: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Move them back by the same numbers."""
        raise NotImplementedError(f"{type(self).__name__} has no normalise(x, numbers).")

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.generate, z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._move(self.normalise, x, context)

    def _move(self, step: Callable, points: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if points.shape[1] != len(self.mask):
            raise ValueError(
                f"The points have shape {tuple(points.shape)} and the mask {tuple(self.mask.shape)}; "
                "the mask must have the shape of one point."
            )
        kept, moving = self._split(points)
        numbers = self.conditioner(kept, context)
        wanted = (points.shape[0], self.outputs * moving.shape[1], *points.shape[2:])
        if numbers.shape != wanted:
            raise ValueError(
                f"The conditioner returned shape {tuple(numbers.shape)}; {type(self).__name__} needs "
                f"{wanted}, that is {self.outputs} for each entry that moves."
            )
        if self.by_pixel:
            numbers = numbers * (1 - self.mask).repeat(self.outputs, *[1] * (self.mask.dim() - 1))
        moved, log_slopes = step(moving, numbers)
        return self._join(points, kept, moved), sum_event(log_slopes)

    def _split(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """What the network sees and what may move."""
        if self.by_pixel:
            return points * self.mask, points
        if self.blocks is None:
            return points.index_select(1, self.kept), points.index_select(1, self.moved)
        first, last = points.split(self.blocks, 1)
        return (first, last) if self.first_stays else (last, first)

    def _join(self, points: Tensor, kept: Tensor, moved: Tensor) -> Tensor:
        if self.by_pixel:  # a curve may be the identity only up to the rounding of its slope
            return torch.where(self.mask > 0, points, moved)
        if self.blocks is None:
            return points.index_copy(1, self.moved, moved)
        return torch.cat([kept, moved] if self.first_stays else [moved, kept], 1)

    def _read_mask(self) -> None:
        """Find how the mask splits points: by pixels, by index, or in two blocks, which copies least."""
        along = _along_dimension_1(self.mask > 0)
        self.by_pixel = along is None
        stays = torch.zeros(0, dtype=torch.bool) if along is None else along
        runs, sizes = stays.unique_consecutive(return_counts=True)
        self.blocks = sizes.tolist() if len(runs) == 2 else None
        self.first_stays = bool(stays[:1].any())
        self.register_buffer("kept", stays.nonzero().flatten(), persistent=False)
        self.register_buffer("moved", (~stays).nonzero().flatten(), persistent=False)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._read_mask()  # a state brings its own


class AdditiveCoupling(_Coupling):
    r"""NICE's layer: one part stays, the other is shifted by :math:`t`, the conditioner.

    .. math::
        \text{forward:}\quad & x_{\le r} = z_{\le r}, \quad x_{>r} = z_{>r} + t(z_{\le r}), \quad
        \log|\det| = 0 \\
        \text{inverse:}\quad & z_{\le r} = x_{\le r}, \quad z_{>r} = x_{>r} - t(x_{\le r}), \quad
        \log|\det| = 0

    The mask says which entries are :math:`z_{\le r}`, wherever they are in the point. Volumes are preserved.

    Shapes: points ``(B, d)`` or ``(B, C, H, W)``, log-dets ``(B,)``.

    Args:
        mask: bool tensor with the shape of one point, True where an entry stays.
        conditioner: called as ``conditioner(z[:, mask], context)``; returns a shift for each entry that
            moves, ``(B, m)``. With a mask of channels it sees those that stay, and gives as many channels
            as move. With a mask of pixels it sees ``mask * z`` and returns its shape.

    Raises:
        TypeError: if the mask is not a bool tensor.
        ValueError: if the mask is all True or all False, or a shape does not match.

    Example:
        >>> import torch
        >>> layer = AdditiveCoupling(half_mask(2, 1), lambda z, context: 3 * z)
        >>> layer(torch.tensor([[1.0, 1.0]]))
        (tensor([[1., 4.]]), tensor([0.]))

    Reference: Dinh, Krueger and Bengio, *NICE: Non-linear Independent Components
    Estimation*, arXiv:1410.8516.
    """

    def generate(self, z: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        return z + numbers, z.new_zeros(z.shape[0])

    def normalise(self, x: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        return x - numbers, x.new_zeros(x.shape[0])


class AffineCoupling(_Coupling):
    r"""RealNVP's layer: one part stays; with :math:`s, t` of the conditioner the other is scaled and shifted.

    .. math::
        \text{forward:}\quad & x_{\le r} = z_{\le r}, \quad
        x_{>r} = z_{>r} \odot e^{s(z_{\le r})} + t(z_{\le r}), \quad
        \log|\det| = \textstyle\sum_i s_i(z_{\le r})
        \\
        \text{inverse:}\quad & z_{\le r} = x_{\le r}, \quad
        z_{>r} = \bigl(x_{>r} - t(x_{\le r})\bigr) \odot e^{-s(x_{\le r})}, \quad
        \log|\det| = -\textstyle\sum_i s_i(x_{\le r})

    Both directions see the same s and t, since :math:`x_{\le r} = z_{\le r}`, and nothing inside the
    conditioner is ever inverted. The log-scale is bounded,
    :math:`s = \mathrm{bound} \cdot \tanh(\mathrm{raw} / \mathrm{bound})`: one layer stretches by at
    most :math:`e^{\mathrm{bound}}`, which keeps training stable.

    Shapes: points ``(B, d)`` or ``(B, C, H, W)``, log-dets ``(B,)``.

    Args:
        mask: bool tensor with the shape of one point, True where an entry stays.
        conditioner: called as ``conditioner(z[:, mask], context)``; returns raw log-scales, then shifts,
            along dimension 1: ``(B, 2 * m)`` for m entries that move. With a mask of channels it sees
            those that stay; with a mask of pixels it sees ``mask * z``, and m is their number C.
        bound: the largest absolute log-scale.

    Raises:
        TypeError: if the mask is not a bool tensor.
        ValueError: if the mask is all True or all False, a shape does not match, or ``bound``
            is not positive or above 80.

    Example:
        >>> import torch
        >>> from flowlib.nets import MLP
        >>> layer = AffineCoupling(half_mask(3, 1), MLP(1, 2 * 2))
        >>> layer(torch.tensor([[1.0, 2.0, 3.0]]))[0].tolist()  # a new layer is the identity
        [[1.0, 2.0, 3.0]]

    Reference: Dinh, Sohl-Dickstein and Bengio, *Density Estimation Using Real NVP*, ICLR 2017,
    arXiv:1605.08803.
    """

    outputs = 2

    def __init__(self, mask: Tensor, conditioner: Callable[..., Tensor], bound: float = 2.0) -> None:
        super().__init__(mask, conditioner)
        if not 0 < bound <= 80:  # beyond, float32 has no e^bound, and tanh by σ has few digits
            raise ValueError(f"bound must be a positive number up to 80 and came as {bound}.")
        self.bound = float(bound)

    def generate(self, z: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        minus_s, t = self._minus_s_and_t(numbers)
        s = -minus_s
        return torch.addcmul(t, z, s.exp()), s

    def normalise(self, x: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        minus_s, t = self._minus_s_and_t(numbers)
        return (x - t) * minus_s.exp(), minus_s

    def _minus_s_and_t(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        raw, t = numbers.chunk(2, 1)
        # -tanh(a) = 1 - 2 σ(2a), and torch's sigmoid takes a tenth of the time of its tanh
        return torch.rsub(torch.sigmoid(raw * (2 / self.bound)), self.bound, alpha=2 * self.bound), t


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
        return self._reorder(z, self.permutation), z.new_zeros(z.shape[0])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._reorder(x, self.inverse_permutation), x.new_zeros(x.shape[0])

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

    Raises:
        ValueError: if the points have another shape.

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
        check_event(z, self.log_scale.shape)
        return z * self.log_scale.exp(), self.log_scale.sum().expand(z.shape[0])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        check_event(x, self.log_scale.shape)
        return x * torch.exp(-self.log_scale), -self.log_scale.sum().expand(x.shape[0])


def half_mask(d: int, r: int) -> Tensor:
    r"""The slides' mask: True for :math:`z_{\le r}`, the first ``r`` of ``d`` entries.

    A coupling refuses a mask that leaves nothing to stay or nothing to move; so with the masks below.

    Example:
        >>> half_mask(4, 1)
        tensor([ True, False, False, False])
    """
    return torch.arange(d) < r


def alternating_mask(d: int, parity: int = 0) -> Tensor:
    """True for every second entry, from entry ``parity`` on; parity 1 is the complement of 0.

    Example:
        >>> alternating_mask(4, 1)
        tensor([False,  True, False,  True])
    """
    return torch.arange(d) % 2 == parity


def checkerboard_mask(shape: Sequence[int], parity: int = 0) -> Tensor:
    """True where row + column has the given parity, shape ``(C, H, W)``; 1 is the complement of 0.

    Example:
        >>> checkerboard_mask((1, 2, 3)).int()
        tensor([[[1, 0, 1],
                 [0, 1, 0]]], dtype=torch.int32)
    """
    channels, height, width = shape
    board = (torch.arange(height)[:, None] + torch.arange(width)) % 2 == parity
    return board.repeat(channels, 1, 1)


def channel_mask(shape: Sequence[int], parity: int = 0) -> Tensor:
    """True for the first half of the channels, shape ``(C, H, W)``; parity 1 is the complement.

    Example:
        >>> channel_mask((3, 1, 1)).flatten()
        tensor([ True, False, False])
    """
    channels, height, width = shape
    first_half = torch.arange(channels) < channels // 2
    return (first_half != parity)[:, None, None].repeat(1, height, width)


def conditioner_sizes(mask: Tensor, outputs: int) -> tuple[int, int]:
    """How many entries or channels a coupling's network sees, and how many it returns.

    Args:
        mask: the coupling's mask.
        outputs: how many numbers the coupling takes for each entry that moves: 1 if it adds, 2 if it
            is affine, 3K − 1 for a spline of K bins.

    Example:
        >>> conditioner_sizes(half_mask(5, 2), outputs=2)
        (2, 6)
        >>> conditioner_sizes(checkerboard_mask((3, 4, 4)), outputs=2)  # a mask of pixels keeps all channels
        (3, 6)
    """
    stays = _along_dimension_1(mask)
    if stays is None:
        return len(mask), outputs * len(mask)
    return int(stays.sum()), outputs * int((~stays).sum())


def _along_dimension_1(mask: Tensor) -> Tensor | None:
    """The mask of entries or channels, or None if it differs from pixel to pixel."""
    rows = mask.reshape(len(mask), -1)
    return rows[:, 0] if bool((rows == rows[:, :1]).all()) else None


__all__ = [
    "AdditiveCoupling",
    "AffineCoupling",
    "Permute",
    "Scale",
    "alternating_mask",
    "channel_mask",
    "checkerboard_mask",
    "conditioner_sizes",
    "half_mask",
]
