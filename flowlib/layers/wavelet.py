r"""Wavelet Flow: an image is a coarse image and, scale by scale, the details that were averaged away.

The Haar transform splits each image into its half-size average and three bands of details. It is
orthonormal, so it costs no log-determinant, and the density becomes one factor for each scale:

.. math::
    p(x) = p(a_0) \prod_{i=1}^{n} p(d_i \mid a_{i-1}), \qquad
    (a_{i-1}, d_i) = \mathrm{Haar}(a_i), \quad a_n = x
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from flowlib.bases import StandardNormal
from flowlib.bijection import Bijection, Compose, Inverse
from flowlib.flow import Flow
from flowlib.layers.coupling import AffineCoupling, Scale, channel_mask, checkerboard_mask, conditioner_sizes
from flowlib.layers.multiscale import OnChannels, Squeeze
from flowlib.nets import ConvNet


class Haar(Bijection):
    r"""The orthonormal Haar transform: each 2×2 block of pixels becomes an average and three details.

    .. math::
        \begin{pmatrix} a \\ d^1 \\ d^2 \\ d^3 \end{pmatrix} = \frac12
        \begin{pmatrix} 1 & 1 & 1 & 1 \\ 1 & -1 & 1 & -1 \\ 1 & 1 & -1 & -1 \\ 1 & -1 & -1 & 1 \end{pmatrix}
        \begin{pmatrix} z_{2i,\,2j} \\ z_{2i,\,2j+1} \\ z_{2i+1,\,2j} \\ z_{2i+1,\,2j+1} \end{pmatrix},
        \qquad \log|\det| = 0 \text{ both ways}

    The matrix is symmetric and its own inverse. The average :math:`a` is twice the block's mean: that is
    the price of orthonormality. The channels of ``x`` are the C averages, then C of each detail:
    left minus right, top minus bottom, and diagonal.

    Shapes: ``forward`` maps ``(B, C, H, W)`` to ``(B, 4C, H/2, W/2)``, ``inverse`` back; log-dets ``(B,)``.

    Example:
        >>> import torch
        >>> Haar()(torch.tensor([[[[5.0, 3.0], [1.0, 1.0]]]]))[0].flatten()
        tensor([5., 1., 3., 1.])

    Reference: Yu, Derpanis and Brubaker, *Wavelet Flow*, NeurIPS 2020, arXiv:2010.13821.
    """

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        corners = Squeeze()(z)[0].unflatten(1, (-1, 4)).unbind(2)
        return torch.cat(_butterfly(*corners), 1), z.new_zeros(z.shape[0])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        corners = torch.stack(_butterfly(*x.unflatten(1, (4, -1)).unbind(1)), 2)
        return Squeeze().inverse(corners.flatten(1, 2))[0], x.new_zeros(x.shape[0])


def _butterfly(p: Tensor, q: Tensor, r: Tensor, s: Tensor) -> list[Tensor]:
    """The four rows of the Haar matrix."""
    left, right, upper, lower = p + r, q + s, p + q, r + s
    return [(upper + lower) / 2, (left - right) / 2, (upper - lower) / 2, ((p - q) - (r - s)) / 2]


class WaveletFlow(Flow):
    r"""A flow for each scale of an image: the coarsest first, then details given the average.

    .. math::
        \log p(x) = \log p(a_0) + \sum_{i=1}^{n} \log p(d_i \mid a_{i-1})

    Scale 0 is a flow of the coarsest image :math:`a_0`; scale i is a stack of affine couplings of the
    three bands :math:`d_i`, whose conditioners also see :math:`a_{i-1}`, which they never move. The
    whole is an ordinary flow with a standard normal base, because the Haar transform of white noise
    is white noise; a new one is the identity. What is special is that its scales come apart:
    no term of the sum shares a parameter with another.

    - :meth:`scale_log_prob` is one term, and the terms sum to :meth:`~flowlib.flow.Flow.log_prob`.
    - :meth:`scale` is one scale as a flow of its own: ``fit(flow.scale(i), flow.coarse(images, i))``
      trains it alone, on images that are small where the scale is coarse.
    - :meth:`refine` draws the fine images of a coarse one.

    Args:
        event_shape: ``(C, H, W)`` with H and W multiples of :math:`2^{\mathrm{scales}}`.
        scales: the number n of Haar transforms.
        layers: the number of couplings on each scale, 2 or more to move every detail.
        hidden: channels of each conditioner's residual blocks.
        context_features: length of the vector that conditions each image; 0 for none.

    Example:
        >>> import torch
        >>> flow = WaveletFlow((1, 8, 8), scales=2, hidden=(8,))
        >>> x = flow.sample(3)
        >>> flow.coarse(x, 0).shape, flow.refine(flow.coarse(x, 0)).shape
        (torch.Size([3, 1, 2, 2]), torch.Size([3, 1, 8, 8]))

    Reference: Yu, Derpanis and Brubaker, *Wavelet Flow: Fast Training of High Resolution Normalizing
    Flows*, NeurIPS 2020, arXiv:2010.13821. (Its steps are Glow's; here they are RealNVP's.)
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        scales: int = 2,
        layers: int = 4,
        hidden: Sequence[int] = (32,),
        context_features: int = 0,
    ) -> None:
        channels, height, width = event_shape
        self.shapes = [(channels, height >> k, width >> k) for k in range(scales, -1, -1)]

        def couplings(masks: Iterable[Tensor]) -> list[Bijection]:
            sizes = ((mask, conditioner_sizes(mask, 2)) for mask in masks)
            return [AffineCoupling(mask, ConvNet(*n, hidden, context_features)) for mask, n in sizes]

        coarsest = couplings(_of_the_coarsest(self.shapes[0], layers))
        stack = [*coarsest, _Affine(self.shapes[0], context_features)]
        self._own = [stack]  # the layers of each scale
        for _ in range(scales):
            details = [*couplings(_of_details(channels, layers)), Inverse(Haar())]
            self._own.append([Haar(), *details])
            stack = [Haar(), OnChannels(Compose(stack), channels), *details]
        super().__init__(stack, StandardNormal(event_shape), context_features)

    def scale(self, i: int) -> Flow:
        r"""Scale ``i`` as a flow of the images :math:`a_i`, with this flow's own layers.

        For i ≥ 1 it is :math:`\mathcal N(a_{i-1}; 0, I) \, p(d_i \mid a_{i-1})`: its average is white, so the
        gradient is that of the details alone. Move this flow, not the scale, to another device or dtype.
        """
        self._check_scale(i)
        base = StandardNormal(self.shapes[i]).to(self.base.anchor)
        return Flow(self._own[i], base, self.context_features)

    def coarse(self, x: Tensor, i: int) -> Tensor:
        r"""The image :math:`a_i` of ``x``: s times its means over blocks of s × s, :math:`s = 2^{n-i}`."""
        self._check_points(x, "x")
        self._check_scale(i)
        for _ in range(len(self.shapes) - 1 - i):
            x = Haar()(x)[0][:, : self.event_shape[0]]
        return x

    def scale_log_prob(self, x: Tensor, i: int, context: Tensor | None = None) -> Tensor:
        r"""One term of ``log_prob(x)``: :math:`\log p(d_i \mid a_{i-1})`, and :math:`\log p(a_0)` at 0."""
        image, context = self.coarse(x, i), self._check_context(context, x.shape[0])
        with self._full_precision():
            z, log_det = self.scale(i).bijection.inverse(image, context)
        if i:
            z = Haar()(z)[0][:, self.event_shape[0] :]
        return StandardNormal(z.shape[1:]).log_prob(z) + log_det

    @torch.no_grad()
    def refine(
        self, coarse: Tensor, context: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Super-resolution: draw an image of full size whose average, at its scale, is ``coarse``.

        Args:
            coarse: images of the size of any scale, as :meth:`coarse` returns them: means of blocks of
                s × s pixels must come multiplied by s. Repeat a row to draw more than one image for it.
            context: one row for each image.
            generator: a CPU generator.
        """
        shape = tuple(coarse.shape[1:])
        if shape not in self.shapes:
            raise ValueError(f"coarse holds images of shape {shape}; a scale has one of {self.shapes}.")
        self._check_points(coarse, "coarse", shape)
        for i in range(self.shapes.index(shape) + 1, len(self.shapes)):
            flow, haar = self.scale(i), Haar()
            noise = haar(flow.base.sample(coarse.shape[0], generator))[0][:, self.event_shape[0] :]
            coarse = flow.decode(haar.inverse(torch.cat([coarse, noise], 1))[0], context)
        return coarse

    def _check_scale(self, i: int) -> None:
        if not isinstance(i, int) or not 0 <= i < len(self.shapes):
            raise ValueError(
                f"The scale i must be a whole number from 0 to {len(self.shapes) - 1} and came as {i!r}."
            )


def _of_details(channels: int, layers: int) -> list[Tensor]:
    """Masks of an average and its three bands of details: every second band moves, the average never."""
    bands = torch.arange(4 * channels)[:, None, None] - channels
    return [(bands < 0) | (bands % 2 == k % 2) for k in range(layers)]


def _of_the_coarsest(shape: tuple[int, int, int], layers: int) -> list[Tensor]:
    """Masks of the coarsest image; none where it has a single entry."""
    if shape == (1, 1, 1):
        return []
    mask = channel_mask if shape[1:] == (1, 1) else checkerboard_mask
    return [mask(shape, k % 2) for k in range(layers)]


class _Affine(Scale):
    r"""Every entry's own scale and shift, :math:`x = \mu + W c + e^{s} \odot z` with the context c."""

    def __init__(self, shape: tuple[int, ...], context_features: int) -> None:
        super().__init__(shape)
        self.shift = nn.Parameter(torch.zeros(shape))
        self.weight = nn.Parameter(torch.zeros(context_features, *shape)) if context_features else None

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x, log_det = super().forward(z)
        return x + self._shift(context), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().inverse(x - self._shift(context))

    def _shift(self, context: Tensor | None) -> Tensor:
        return self.shift if self.weight is None else self.shift + torch.tensordot(context, self.weight, 1)


__all__ = ["Haar", "WaveletFlow"]
