r"""A conditioner for images in which every pixel can look at every other.

Convolutions see a neighbourhood; a coupling whose mask hides whole regions gains from seeing all of
the image. Flow++ alternates gated convolutions with self-attention over the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, layer_norm, scaled_dot_product_attention, silu

from flowlib.nets import Conditioner, _check_widths, _zero


class AttentionNet(Conditioner):
    r"""Gated convolutions and self-attention, in turn, with a last layer that starts at zero.

    .. math::
        h &\leftarrow \operatorname{norm}\bigl(h + \operatorname{gate}(C' * \sigma(C * \sigma(h)))\bigr) \\
        h &\leftarrow \operatorname{norm}\bigl(h + \operatorname{gate}(W \operatorname{attend}(h + p))\bigr)

    with :math:`\operatorname{gate}[u, v] = u \odot \operatorname{sigmoid}(v)` of the channels' two halves
    and :math:`\sigma` the SiLU. In each head, with queries, keys and values linear in :math:`h + p` and of
    width w,

    .. math::
        \operatorname{attend}_i
        = \sum_j \operatorname{softmax}_j\Bigl(\frac{q_i \cdot k_j}{\sqrt{w}}\Bigr)\, v_j
        \qquad \text{over all pixels } j

    and :math:`p` is a learned number for every pixel and channel, since attention alone does not know where
    a pixel is. The layer normalisation is over the channels of each pixel. The context, a vector for each
    image, reaches every pixel as extra channels of the first convolution.

    Shapes: ``z`` is ``(B, C, H, W)``, ``context`` is ``(B, context_features)``, and the output is
    ``(B, out_channels, H, W)``.

    Args:
        event_shape: ``(C, H, W)`` of the images.
        out_channels: channels of the output.
        hidden: channels inside, one entry for each pair of blocks, all equal.
        heads: how many attentions side by side; divides the channels.
        context_features: length of the context; 0 for none.

    Raises:
        ValueError: if a size is not a positive whole number, the blocks' widths differ, ``heads`` does
            not divide them, or the images are not ``(B, *event_shape)``.

    Example:
        >>> import torch
        >>> AttentionNet((3, 8, 8), 6, hidden=(16,))(torch.ones(5, 3, 8, 8)).shape
        torch.Size([5, 6, 8, 8])

    Reference: Ho et al., *Flow++*, ICML 2019, arXiv:1902.00275, section 3.3 and its appendix; Vaswani et
    al., *Attention Is All You Need*, NeurIPS 2017, arXiv:1706.03762.
    """

    def __init__(
        self,
        event_shape: Sequence[int],
        out_channels: int,
        hidden: Sequence[int] = (32, 32),
        heads: int = 4,
        context_features: int = 0,
    ) -> None:
        super().__init__()
        _check_widths(event_shape=event_shape, out_channels=out_channels, hidden=hidden, heads=heads)
        if len(set(hidden)) != 1 or hidden[0] % heads:
            raise ValueError(
                "hidden must give one width for all blocks, such as (32, 32), and heads must divide it; "
                f"they came as {tuple(hidden)} and {heads}."
            )
        self.event_shape, self.context_features = tuple(event_shape), context_features
        channels, height, width = self.event_shape
        self.first = nn.Conv2d(channels + context_features, hidden[0], 3, padding=1)
        blocks = [(_Convolution(c), _Attention(c, height * width, heads)) for c in hidden]
        self.blocks = nn.ModuleList(block for pair in blocks for block in pair)
        self.last = _zero(nn.Conv2d(hidden[0], out_channels, 3, padding=1))

    def compute(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        if z.shape[1:] != self.event_shape:
            raise ValueError(
                f"The images have shape {tuple(z.shape)}; the network was built for (B, *event_shape) with "
                f"event_shape {self.event_shape}."
            )
        if self.context_features:
            rows = context[:, :, None, None].expand(-1, -1, *z.shape[2:])  # type: ignore[index]
            z = torch.cat([z, rows], 1)
        hidden = self.first(z)
        for block in self.blocks:
            hidden = hidden + glu(block(hidden), 1)
            hidden = layer_norm(hidden.movedim(1, -1), hidden.shape[1:2]).movedim(-1, 1)
        return self.last(silu(hidden))


class _Convolution(nn.Module):
    """Two convolutions, (B, c, H, W) to (B, 2c, H, W): values and their gates."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels, 3, padding=1)
        self.outer = nn.Conv2d(channels, 2 * channels, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.outer(silu(self.inner(silu(hidden))))


class _Attention(nn.Module):
    """Self-attention over the pixels, (B, c, H, W) to (B, 2c, H, W): values and their gates."""

    def __init__(self, channels: int, pixels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.positions = nn.Parameter(0.01 * torch.randn(pixels, channels))
        self.inner = nn.Linear(channels, 3 * channels, bias=False)
        self.outer = nn.Linear(channels, 2 * channels)

    def forward(self, hidden: Tensor) -> Tensor:
        pixels = hidden.flatten(2).mT + self.positions
        # (B, pixels, 3c) to queries, keys and values of shape (B, heads, pixels, c / heads)
        split = self.inner(pixels).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(*split.unbind(0)).transpose(1, 2).flatten(2)
        return self.outer(mixed).mT.unflatten(2, hidden.shape[2:])


__all__ = ["AttentionNet"]
