"""Parameters at random, for tests of layers that start as the identity."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def blunt(module: nn.Module) -> nn.Module:
    """The module with torch's own start in first layers that flowlib makes sharp.

    Random later layers on sharp ones make a flow as steep as no training does, in which a test of formulas
    would see rounding and nothing else.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.weight.norm(dim=1).max() > 0.999:
            part.reset_parameters()
    return module


def randomised(module: nn.Module, size: float = 0.5) -> nn.Module:
    """The module, blunt, with every parameter moved, so that nothing is the identity, in eval mode."""
    blunt(module)
    with torch.no_grad():
        for parameter in module.parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            parameter.add_(size * torch.randn(parameter.shape) / fan_in**0.5)
    return module.eval()
