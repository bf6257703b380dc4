r"""Multi-scale flows: trade pixels for channels, and let half of the channels go at every scale.

The latents that leave early are not set apart: they stay in their channels while the coarser
scales work on the others. So every layer is an ordinary bijection of d entries, and the base is a
standard normal on the image's own shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flowlib.bijection import Bijection, Compose, Inverse
from flowlib.layers.coupling import AffineCoupling, channel_mask, checkerboard_mask, conditioner_sizes
from flowlib.layers.glow import ActNorm, ChannelCoupling, ConvolutionLU
from flowlib.nets import ConvNet


class Flatten(Bijection):
    r"""An image's pixels in one row, so that models of vectors take images.

    .. math::
        x_{(cH + i)W + j} = z_{c,\, i,\, j}, \qquad \log|\det| = 0 \text{ both ways}

    Shapes: ``forward`` maps ``(B, *event_shape)`` to ``(B, d)``, ``inverse`` back; log-dets ``(B,)``.

    Args:
        event_shape: the shape of one image.

    Example:
        >>> import torch
        >>> Flatten((1, 2, 2))(torch.arange(4.0).reshape(1, 1, 2, 2))[0]
        tensor([[0., 1., 2., 3.]])
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        super().__init__()
        self.event_shape = tuple(event_shape)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return z.flatten(1), z.new_zeros(z.shape[0])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x.unflatten(1, self.event_shape), x.new_zeros(x.shape[0])


class Squeeze(Bijection):
    r"""Each 2×2 block of pixels becomes four channels of one pixel.

    .. math::
        x_{4c + 2a + b,\, i,\, j} = z_{c,\, 2i + a,\, 2j + b} \quad (a, b \in \{0, 1\}), \qquad
        \log|\det| = 0 \text{ both ways}

    Shapes: ``forward`` maps ``(B, C, H, W)`` to ``(B, 4C, H/2, W/2)``, ``inverse`` back; log-dets ``(B,)``.

    Example:
        >>> import torch
        >>> Squeeze()(torch.arange(4.0).reshape(1, 1, 2, 2))[0].flatten()
        tensor([0., 1., 2., 3.])

    Reference: Dinh, Sohl-Dickstein and Bengio, *Density Estimation Using Real NVP*, section 3.6,
    arXiv:1605.08803.
    """

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        blocks = z.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (B, C, i, a, j, b)
        return blocks.permute(0, 1, 3, 5, 2, 4).flatten(1, 3), z.new_zeros(z.shape[0])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        blocks = x.unflatten(1, (-1, 2, 2)).permute(0, 1, 4, 2, 5, 3)
        return blocks.flatten(4).flatten(2, 3), x.new_zeros(x.shape[0])


class OnChannels(Bijection):
    r"""A bijection :math:`g` of the first ``channels`` channels; the others pass unchanged.

    .. math::
        \text{forward:}\quad & x = [g(z_a), z_b], \quad \log|\det \partial g / \partial z_a| \\
        \text{inverse:}\quad & z = [g^{-1}(x_a), x_b], \quad \log|\det \partial g^{-1} / \partial x_a|

    This is factoring out: in the normalising direction the channels :math:`x_b` are done, and are
    latents, while the coarser scales go on with :math:`x_a`.

    Shapes: points ``(B, C, *pixels)`` or ``(B, d)``, log-dets ``(B,)``.

    Example:
        >>> import torch
        >>> from flowlib import Permute
        >>> OnChannels(Permute([1, 0]), 2)(torch.tensor([[1.0, 2.0, 3.0]]))[0]
        tensor([[2., 1., 3.]])
    """

    def __init__(self, bijection: Bijection, channels: int) -> None:
        super().__init__()
        self.bijection = bijection
        self.channels = channels

    @property
    def is_exact(self) -> bool:  # type: ignore[override]
        """Whether the inner bijection's log-determinant is exact."""
        return self.bijection.is_exact

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, log_det = self.bijection(z[:, : self.channels], context)
        return torch.cat([first, z[:, self.channels :]], 1), log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, log_det = self.bijection.inverse(x[:, : self.channels], context)
        return torch.cat([first, x[:, self.channels :]], 1), log_det


def glow_scales(
    shape: tuple[int, int, int],
    scales: int,
    layers: int,
    hidden: Sequence[int],
    context_features: int = 0,
    mix: Callable[[int], Bijection] = ConvolutionLU,
) -> list[Bijection]:
    """The layers of Glow for images of this shape, in generative order: coarse scales come first.

    Data pass them upwards: squeeze, flow steps, and then half of the channels are factored out with
    their learned prior, while the coarser scales go on with the other half.
    """
    channels = 4 * shape[0]

    def coupling() -> Bijection:
        return ChannelCoupling(channels, ConvNet(channels // 2, channels, hidden, context_features))

    coarse: list[Bijection] = []
    if scales > 1:
        half = (channels // 2, shape[1] // 2, shape[2] // 2)
        inner = Compose(glow_scales(half, scales - 1, layers, hidden, context_features, mix))
        coarse = [OnChannels(inner, half[0]), coupling()]  # the prior of what is factored out
    steps = [layer for _ in range(layers) for layer in (coupling(), mix(channels), ActNorm(channels))]
    return [Squeeze(), *coarse, *steps, Inverse(Squeeze())]


def realnvp_scales(
    shape: tuple[int, int, int], scales: int, hidden: Sequence[int], context_features: int = 0
) -> list[Bijection]:
    """The layers of multi-scale RealNVP, in generative order: coarse scales come first.

    Data pass them upwards: three checkerboard couplings, squeeze, three couplings of channels, and
    half of the channels are factored out; the coarsest scale is four checkerboard couplings.

    Reference: Dinh, Sohl-Dickstein and Bengio, *Density Estimation Using Real NVP*, sections 3.4 to
    3.6, arXiv:1605.08803; without its batch normalisation.
    """

    def couplings(mask: Callable[..., Tensor], size: tuple[int, int, int], count: int) -> list[Bijection]:
        masks = [mask(size, k % 2) for k in range(count)]
        return [AffineCoupling(m, ConvNet(*conditioner_sizes(m, 2), hidden, context_features)) for m in masks]

    if scales == 1:
        return couplings(checkerboard_mask, shape, 4)
    squeezed = (4 * shape[0], shape[1] // 2, shape[2] // 2)
    half = (squeezed[0] // 2, *squeezed[1:])
    inner = OnChannels(Compose(realnvp_scales(half, scales - 1, hidden, context_features)), half[0])
    by_channels = couplings(channel_mask, squeezed, 3)
    return [Squeeze(), inner, *by_channels, Inverse(Squeeze()), *couplings(checkerboard_mask, shape, 3)]


__all__ = ["Flatten", "OnChannels", "Squeeze", "glow_scales", "realnvp_scales"]
