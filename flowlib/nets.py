r"""Conditioners: the ordinary networks inside a coupling layer.

A conditioner is never inverted, so it may be anything. These two end in a layer of zeros, so
that a new coupling is exactly the identity, and they use SiLU, whose smoothness keeps
training reproducible from one processor to the next (ReLU's kinks do not).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    r"""A multilayer perceptron whose last layer starts at zero.

    .. math::
        h_0 = [z, \mathrm{context}], \quad h_k = \sigma(W_k h_{k-1} + b_k), \quad
        \mathrm{output} = W_{K+1} h_K + b_{K+1}, \quad W_{K+1} = 0,\ b_{K+1} = 0 \text{ at the start}

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
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        _check_widths(in_features=in_features, out_features=out_features, hidden=hidden)
        self.context_features = context_features
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([in_features + context_features, *hidden]):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        last = nn.Linear(hidden[-1] if hidden else in_features + context_features, out_features)
        self.layers = nn.Sequential(*layers, _zero(last))

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        if self.context_features:
            z = torch.cat([z, context], 1)  # type: ignore[list-item]
        return self.layers(z)


class ConvNet(nn.Module):
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
        activation: Callable[[], nn.Module] = nn.SiLU,
    ) -> None:
        super().__init__()
        _check_widths(in_channels=in_channels, out_channels=out_channels, hidden=hidden)
        if len(set(hidden)) != 1:
            raise ValueError(
                "hidden must give one width for all residual blocks, such as (32, 32), because each block "
                f"adds to its input; it came as {tuple(hidden)}."
            )
        self.context_features = context_features
        width = hidden[0]
        self.first = nn.Conv2d(in_channels + context_features, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                activation(),
                nn.Conv2d(width, width, 3, padding=1),
                activation(),
                nn.Conv2d(width, width, 3, padding=1),
            )
            for _ in hidden
        )
        self.last = nn.Sequential(activation(), _zero(nn.Conv2d(width, out_channels, 3, padding=1)))

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        if self.context_features:
            rows = context[:, :, None, None].expand(-1, -1, *z.shape[2:])  # type: ignore[index]
            z = torch.cat([z, rows], 1)
        hidden = self.first(z)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.last(hidden)


def _zero(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """Set a layer's weight and bias to zero and return it."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _check_widths(**widths: int | Sequence[int]) -> None:
    for name, value in widths.items():
        sizes = [value] if isinstance(value, int) else list(value)
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ValueError(f"{name} must be made of positive whole numbers and came as {value!r}.")


__all__ = ["MLP", "ConvNet"]
