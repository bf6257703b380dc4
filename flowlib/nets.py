r"""Conditioners: the ordinary networks inside a coupling layer.

A conditioner is never inverted, so it may be anything. Those here end in a layer of zeros, so
that a new coupling is exactly the identity, and they use SiLU, whose smoothness keeps
training reproducible from one processor to the next (ReLU's kinks do not). Almost all of a flow's
arithmetic is in them, and they are the one place where it may be rounded coarsely.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import glu, layer_norm, normalize, scaled_dot_product_attention, silu

from flowlib.bijection import check_given

Activation = Callable[[], nn.Module]

_SHARPNESS = 3.0  # the length of a unit's weights if the point has one entry
_BLUNTEST = 1 / math.sqrt(6)  # their length if it has many


class Conditioner(nn.Module):
    r"""A network of a flow, which may compute in bfloat16 while all around it stays in float32.

    .. math::
        h = \operatorname{float32}\bigl(\operatorname{net}_{\text{bfloat16}}(z, \mathrm{context})\bigr)

    A subclass defines its network in :meth:`compute`. With ``autocast_dtype`` set, ``forward`` runs it
    under ``torch.autocast`` and returns the dtype of ``z``; with None, as at the start, it runs it
    as it is. ``fit(..., bfloat16=True)`` sets the attribute for the time of the training.

    Only conditioners may do this. A number in bfloat16 has 8 bits of mantissa, a relative error of up
    to 2⁻⁹, 0.2 %. In the shift and log-scale of a coupling that gives a slightly different function,
    as invertible and with as exact a density as the one meant. In the point itself the lost bits would
    be gone for good, and ``inverse`` could not return to it; and a log-determinant of −2,000 nats would
    be off by up to 4 nats, more than good models differ by. Round trips do get coarser, for what a rounding
    of float32 changes in the input can move an input of the network by a whole step of bfloat16.

    Autocast leaves float64 alone, so a flow in float64 computes as without it. ``MADE.solve`` and
    ``CausalTransformer.extend``, which generate entry after entry and are no calls of the module, always
    compute in full precision: there both directions agree only to within what bfloat16 changes.

    Attributes:
        autocast_dtype: ``torch.bfloat16``, or None for the parameters' own precision.
        context_features: length of the context, a vector for each point; 0 for none.

    Example:
        >>> import torch
        >>> net = MLP(2, 4, hidden=(16,))
        >>> net.autocast_dtype = torch.bfloat16
        >>> net(torch.ones(1, 2)).dtype
        torch.float32

    Reference: Micikevicius et al., *Mixed Precision Training*, ICLR 2018, arXiv:1710.03740; Kalamkar et
    al., *A Study of BFLOAT16 for Deep Learning Training*, 2019, arXiv:1905.12322.
    """

    autocast_dtype: torch.dtype | None = None
    context_features = 0

    def compute(self, z: Tensor, context: Any = None) -> Tensor:
        """The network itself, in whatever precision surrounds it."""
        raise NotImplementedError(f"{type(self).__name__} must define compute(z, context), its network.")

    def forward(self, z: Tensor, context: Any = None) -> Tensor:
        if self.autocast_dtype is None:
            return self.compute(z, context)
        with torch.autocast(z.device.type, self.autocast_dtype):
            return self.compute(z, context).to(z.dtype)

    def with_context(self, z: Tensor, context: Tensor | None) -> Tensor:
        """The point with its context as further entries, which every pixel of an image has."""
        if not self.context_features:
            return z
        context = check_given(context, self.context_features)
        rows = context.reshape(*context.shape, *[1] * (z.dim() - 2))
        return torch.cat([z, rows.expand(-1, -1, *z.shape[2:])], 1)


class MLP(Conditioner):
    r"""A multilayer perceptron whose last layer starts at zero, and whose first is sharp on few entries.

    .. math::
        h_0 = [z, \mathrm{context}], \quad h_k = \sigma(W_k h_{k-1} + b_k), \quad
        \mathrm{output} = W_{K+1} h_K + b_{K+1}, \quad W_{K+1} = 0,\ b_{K+1} = 0 \text{ at the start}

    SiLU is nearly straight between −1 and 1. torch draws weights such that a unit of the first layer has
    weights of length about :math:`1/\sqrt 3` and, on :math:`z \sim \mathcal N(0, I)`, an input of that
    deviation: there the network is nearly linear, and learns an edge slowly. So with n entries unit j of
    the first layer starts as

    .. math::
        w_j^\top z + b_j = g\,(u_j^\top z - c_j), \qquad g = \frac 3 n, \quad
        u_j \text{ uniform on the sphere},\quad c_j \sim \mathcal N(0, 1)

    where :math:`u_j^\top z = c_j` is the plane at which it bends. These planes lie as the data do,
    since :math:`c_j` is distributed as :math:`u_j^\top z`. With fresh points at every step sharpness helps in
    many dimensions too; but a few thousand images are too few, and there it overfits: on the 1,437 digits
    torch's own length gives RealNVP 2.23 bits per dimension, :math:`1/\sqrt 6` gives 2.17. So that is the
    least: from n = 8 on, the weights are torch's, over :math:`\sqrt 2`. (In
    :class:`~flowlib.layers.autoregressive.MADE` the mask takes half of a unit's weights, and so as much of
    their length.) Weights of the context stay as torch draws them.

    Shapes: ``z`` is ``(B, in_features)``, ``context`` is ``(B, context_features)``, and the
    output is ``(B, out_features)``.

    Args:
        in_features, out_features: widths of input and output.
        hidden: widths of the hidden layers; empty for a linear map.
        context_features: length of the context; 0 for none.
        activation: a class of elementwise modules.

    Raises:
        ValueError: if a width is not a positive whole number.

    Example:
        >>> import torch
        >>> net = MLP(2, 4, hidden=(16,))
        >>> net(torch.ones(1, 2))
        tensor([[0., 0., 0., 0.]], grad_fn=<AddmmBackward0>)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        hidden: Sequence[int] = (64, 64),
        context_features: int = 0,
        activation: Activation = nn.SiLU,
    ) -> None:
        super().__init__()
        _check_widths(in_features=in_features, out_features=out_features, hidden=hidden)
        self.context_features = context_features
        widths = [in_features + context_features, *hidden, out_features]
        linear = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in pairwise(widths)]
        _spread(linear[0], torch.arange(widths[0]) < in_features)
        _zero(linear[-1])
        self.layers = nn.Sequential(*(module for layer in linear for module in (layer, activation())))
        del self.layers[-1]  # after the last linear map comes nothing

    def compute(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        return self.layers(self.with_context(z, context))


class ConvNet(Conditioner):
    r"""A residual convolutional network whose last layer starts at zero.

    .. math::
        h_0 = C_0 * [z, \mathrm{context}], \quad
        h_k = h_{k-1} + C'_k * \sigma(C_k * \sigma(h_{k-1})), \quad
        \mathrm{output} = C_{K+1} * \sigma(h_K), \quad C_{K+1} = 0 \text{ at the start}

    All kernels are 3×3 and keep the image's size. The context is a vector for each image,
    and reaches every pixel as extra channels.

    Shapes: ``z`` is ``(B, in_channels, H, W)``, ``context`` is ``(B, context_features)``, and
    the output is ``(B, out_channels, H, W)``.

    Args:
        in_channels, out_channels: channels of input and output.
        hidden: channels of the residual blocks, one entry for each block, all equal.
        context_features: length of the context; 0 for none.
        activation: a class of elementwise modules.

    Raises:
        ValueError: if a width is not a positive whole number, or the blocks' widths differ.

    Example:
        >>> import torch
        >>> ConvNet(3, 6, hidden=(16, 16))(torch.ones(5, 3, 8, 8)).shape
        torch.Size([5, 6, 8, 8])

    Reference: He et al., *Identity Mappings in Deep Residual Networks*, ECCV 2016.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: Sequence[int] = (32, 32),
        context_features: int = 0,
        activation: Activation = nn.SiLU,
    ) -> None:
        super().__init__()
        _check_widths(in_channels=in_channels, out_channels=out_channels, hidden=hidden)
        _check_blocks(hidden)
        self.context_features = context_features
        width = hidden[0]
        self.first = nn.Conv2d(in_channels + context_features, width, 3, padding=1)
        self.blocks = nn.ModuleList(_two_convolutions(width, width, 3, activation) for _ in hidden)
        self.last = nn.Sequential(activation(), _zero(nn.Conv2d(width, out_channels, 3, padding=1)))

    def compute(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        hidden = self.first(self.with_context(z, context))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden)


def _two_convolutions(width: int, out: int, kernel: int, activation: Activation = nn.SiLU) -> nn.Module:
    """An activation and a convolution, twice, (B, width, H, W) to (B, out, H, W)."""
    inner = nn.Conv2d(width, width, 3, padding=1)
    outer = nn.Conv2d(width, out, kernel, padding=kernel // 2)
    return nn.Sequential(activation(), inner, activation(), outer)


def _zero(layer: nn.Module) -> nn.Module:
    """Set a layer's weight and bias to zero and return it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@torch.no_grad()
def _spread(layer: nn.Linear, heard: Tensor) -> None:
    r"""Make a first layer sharp if the points have few entries; :class:`MLP` tells how and why.

    Args:
        layer: the layer, as torch has drawn it.
        heard: True where an input is an entry of the point that the unit hears. The other weights, a
            context's, stay as they are. Of the weight's shape it sharpens alone; of one row's, it blunts too.
    """
    length = _SHARPNESS / max(int(heard.sum(-1).max()), 1)
    if length > _BLUNTEST:
        directions = normalize(torch.randn_like(layer.weight) * heard)
        layer.weight.copy_(torch.where(heard, length * directions, layer.weight))
        layer.bias.normal_(0, length)
    elif heard.dim() == 1:  # where each unit hears all: torch's length is 1/√3
        layer.weight.copy_(torch.where(heard, math.sqrt(3) * _BLUNTEST * layer.weight, layer.weight))


def _check_widths(**widths: int | Sequence[int]) -> None:
    for name, value in widths.items():
        sizes = [value] if isinstance(value, int) else list(value)
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"{name} must be made of positive whole numbers and came as {value!r}.")


def _check_blocks(hidden: Sequence[int], heads: int = 1) -> None:
    if len(set(hidden)) != 1 or hidden[0] % heads:
        raise ValueError(
            "hidden must give one width for all residual blocks, such as (32, 32), and heads must divide it; "
            f"they came as {tuple(hidden)} and {heads}."
        )


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
        ValueError: if a size is not a positive whole number, the blocks' widths differ, or ``heads`` does
            not divide them.

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
        _check_blocks(hidden, heads)
        self.context_features = context_features
        channels, height, width = event_shape
        self.first = nn.Conv2d(channels + context_features, hidden[0], 3, padding=1)
        blocks = [(_two_convolutions(c, 2 * c, 1), _Attention(c, height * width, heads)) for c in hidden]
        self.blocks = nn.ModuleList(block for pair in blocks for block in pair)
        self.last = _zero(nn.Conv2d(hidden[0], out_channels, 3, padding=1))

    def compute(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        hidden = self.first(self.with_context(z, context))
        for block in self.blocks:
            hidden = hidden + glu(block(hidden), 1)
            hidden = layer_norm(hidden.movedim(1, -1), hidden.shape[1:2]).movedim(-1, 1)
        return self.last(silu(hidden))


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


__all__ = ["MLP", "AttentionNet", "Conditioner", "ConvNet"]
