"""Parameters at random, for tests of layers that start as the identity."""

from __future__ import annotations

import torch
from torch import nn


def randomised(module: nn.Module, size: float = 0.5) -> nn.Module:
    """The module with every parameter moved, so that nothing is the identity, in eval mode."""
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.add_(size * torch.randn(parameter.shape) / fan_in**0.5)
    return module.eval()
